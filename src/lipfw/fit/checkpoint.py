"""Checkpoints of a run: one file, replaced in one step, so that a kill at any moment leaves the last good one."""
import io
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lipfw.errors import InputError
from lipfw.files import write_atomic

FORMAT = 1      # raised when an older checkpoint can no longer be taken up


class Here(TorchCheckpointIO):
    """Writes a checkpoint to the path it is given; Lightning's own goes through the system's temporary folder.

    It is read without running anything that lies in it, whatever torch's own default is.
    """

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)      # into memory first: on a full disk torch raises no OSError
        Path(path).write_bytes(buffer.getbuffer())

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict:
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)


def usable(path: Path) -> Path | None:
    """Return the path of a checkpoint if there is one. Raises InputError if it is damaged or of another version."""
    if not path.exists():
        return None
    try:
        made = torch.load(path, map_location="cpu", weights_only=True)["lipfw"]
    except Exception as e:      # torch raises what its readers raise: EOFError, RuntimeError, pickle errors ...
        made = type(e).__name__
    if made != FORMAT:
        raise InputError(f"{path} is damaged or from another version of lipfw ({made}); delete it to start the run "
                         "over")
    return path


class Checkpoint(pl.Callback):
    """Save `path` at the end of each round and, inside a round, whenever `seconds` have passed since the last.

    The module says by `round_over` that a round has no further steps: it may come before the last batch.
    Give it to the Trainer last: what other callbacks write to disk must be there before the checkpoint that counts on
    it.
    """

    def __init__(self, path: Path, seconds: float = 60.0):
        self.path, self.seconds = Path(path), seconds
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        due = time.monotonic() - self._last >= self.seconds
        if due and not module.round_over:       # else the round's end saves, what the other callbacks then have too
            self._save(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._save(trainer)

    def on_save_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        checkpoint["lipfw"] = FORMAT

    def _save(self, trainer: pl.Trainer) -> None:
        write_atomic(self.path, lambda p: trainer.save_checkpoint(p))
        self._last = time.monotonic()
