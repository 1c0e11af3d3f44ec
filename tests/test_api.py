"""Restoring from Python: arrays and files in, arrays and files out, nothing left on the disk."""
import numpy as np
import pytest
from skimage import data

import lipfw
from lipfw.errors import InputError
from lipfw.image.read import read
from lipfw.image.write import write_png
from lipfw.task.superres import SuperRes

TINY = dict(steps=8, channels=4, depth=2)


def test_an_array_comes_back_at_its_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for picture in (data.camera()[:37, :50], data.chelsea()[:33, :41], data.chelsea()[:33, :41] / 255.0):
        restored = lipfw.restore(picture, **TINY)
        assert restored.array.shape == picture.shape and restored.array.dtype == np.float32
        assert 0 <= restored.array.min() and restored.array.max() <= 1 and 1 <= restored.step <= 8
    assert not list(tmp_path.iterdir())


def test_a_fit_gets_closer_to_the_picture():
    picture = data.chelsea()[100:132, 100:132] / 255.0
    errors = [np.mean((lipfw.restore(picture, steps=s, channels=16, depth=2, smoothing=0.5).array - picture) ** 2)
              for s in (2, 60)]
    assert errors[1] < errors[0] / 2


def test_files_alpha_and_tasks(tmp_path):
    import torch

    alpha = torch.linspace(0, 1, 12 * 16).reshape(1, 1, 12, 16)
    write_png(tmp_path / "small.png", torch.rand(1, 3, 12, 16), alpha)
    restored = lipfw.restore(tmp_path / "small.png", SuperRes(3), **TINY)
    assert restored.array.shape == (36, 48, 3) and restored.alpha.shape == (36, 48)
    restored.save(tmp_path / "large.png")
    again = read(tmp_path / "large.png")
    assert np.abs(again.pixels[0].permute(1, 2, 0).numpy() - restored.array).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 5)), np.zeros(4), np.full((64, 64), 255.0), np.zeros((64, 64), bool),
                                 np.full((64, 64), np.nan), "nowhere.png"])
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(InputError):
        lipfw.restore(bad, **TINY)


def test_public_names():
    for name in lipfw.__all__:
        assert getattr(lipfw, name) is not None
    with pytest.raises(AttributeError, match="it has"):
        _ = lipfw.nothing
