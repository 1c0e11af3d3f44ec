"""Checkpoints of a run: the last two, each replaced in one step, so that a kill at any moment leaves a good one."""
import errno
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lipfw.errors import InputError
from lipfw.files import write_atomic
from lipfw.fit.stepped import diverged
from lipfw.interrupt import asked, heed

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


def before(path: Path) -> Path:
    """Return where the checkpoint lies that `path` has replaced: checkpoint.before.ckpt."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def usable(path: Path, tell: Callable[[str], None] = print) -> Path | None:
    """Return the newest checkpoint that is whole, `path` or the one before it; None if the run is to start over.

    A damaged file is told of and deleted: it must not take the good one's place when the next is written. Raises
    InputError for a whole one that this version can't take up.
    """
    there = [p for p in (path, before(path)) if p.exists()]
    for i, p in enumerate(there):
        if (made := _made(p)) == FORMAT:
            return p
        if made is not None:
            raise InputError(f"{p} is from another version of lipfw ({made}); delete "
                             f"{path.with_name('checkpoint*.ckpt')} to start the run over")
        p.unlink()
        further = "the run goes on from the one before it" if there[i + 1:] else "the run starts over"
        tell(f"{p} is damaged and was deleted; {further}")
    return None


def _made(path: Path) -> object:
    """Return the format that a checkpoint was made in, or what kept torch from telling; None if it is damaged.

    torch looks at no checksums; the zip archive that a checkpoint is has one of each tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
    except (OSError, MemoryError) as e:     # say nothing of the file, unless a garbled number sent the reader nowhere
        if getattr(e, "errno", None) == errno.EINVAL:
            return None
        raise
    except Exception:       # garbled headers raise BadZipFile, struct.error, RuntimeError, NotImplementedError ...
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["lipfw"]
    except (OSError, MemoryError):
        raise
    except RuntimeError as e:
        if "memory" in str(e):
            raise
        return None
    except Exception as e:      # KeyError, pickle errors: not ours, but whole
        return type(e).__name__


class Checkpoint(pl.Callback):
    """Save `path` at the end of each round and, inside a round, whenever `seconds` have passed since the last.

    The one before it is kept beside it. Weights that are not finite are never saved: the fit has diverged, InputError.
    When the process is asked to stop, all steps done are saved and Interrupted is raised; after the last round there is
    nothing to stop.

    The module says by `round_over` that a round has no further steps: it may come before the last batch.
    Give it to the Trainer last: what other callbacks write to disk must be there before the checkpoint that counts on
    it.
    """

    def __init__(self, path: Path, seconds: float = 60.0):
        self.path, self.seconds = Path(path), seconds
        self._last = time.monotonic()

    def on_train_start(self, trainer, module) -> None:
        module.resumable = True

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if module.round_over:       # the round's end saves, what the other callbacks then have too
            return
        if asked():
            self._save(trainer, module)
            heed(_where(trainer, module))
        if time.monotonic() - self._last >= self.seconds:
            self._save(trainer, module)

    def on_train_epoch_end(self, trainer, module) -> None:
        self._save(trainer, module)
        if trainer.current_epoch + 1 < trainer.max_epochs and not trainer.should_stop:
            heed(_where(trainer, module))

    def on_save_checkpoint(self, trainer, module, checkpoint: dict) -> None:
        checkpoint["lipfw"] = FORMAT

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.settle()
        finite = [torch.isfinite(p).all() for p in module.parameters()]
        if finite and not bool(torch.stack(finite).all()):
            raise diverged(module, trainer.current_epoch, module.step, "weights are")
        write_atomic(self.path, lambda p: trainer.save_checkpoint(p), keep=before(self.path))
        self._last = time.monotonic()


def _where(trainer: pl.Trainer, module: pl.LightningModule) -> str:
    return f"after step {module.step} of round {trainer.current_epoch}"
