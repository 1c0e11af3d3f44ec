"""Checkpoints of a run: one file, replaced in one step, so that a kill at any moment leaves the last good one."""
import time
from pathlib import Path

import pytorch_lightning as pl

from lipfw.files import write_atomic


class Checkpoint(pl.Callback):
    """Save `path` at the end of each round and, inside a round, whenever `seconds` have passed since the last.

    Give it to the Trainer last: what other callbacks write to disk must be there before the checkpoint that counts on
    it.
    """

    def __init__(self, path: Path, seconds: float = 60.0):
        self.path, self.seconds = Path(path), seconds
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        due = time.monotonic() - self._last >= self.seconds
        if due and batch_idx + 1 < trainer.num_training_batches:    # the last batch: the round's end saves
            self._save(trainer)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        write_atomic(self.path, lambda p: trainer.save_checkpoint(p))
        self._last = time.monotonic()
