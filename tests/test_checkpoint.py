"""Checkpoints are read as data: what lies in one is never called."""
import os

import pytest
import torch

from lipfw.errors import InputError
from lipfw.fit.checkpoint import FORMAT, Here, usable


class Calls:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_checkpoint_that_calls_something_is_refused_and_does_nothing(tmp_path):
    path, mark = tmp_path / "checkpoint.ckpt", tmp_path / "called"
    Here().save_checkpoint({"lipfw": FORMAT, "more": Calls(mark)}, path)
    with pytest.raises(InputError, match="UnpicklingError"):
        usable(path)
    for asked in (None, False):     # what Lightning asks for
        with pytest.raises(Exception, match="Weights only load failed"):
            Here().load_checkpoint(path, weights_only=asked)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()        # so the file would have
