"""The Lightning Trainer as every fit here uses it: one device, one epoch a round, and quiet."""
import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from lipfw.errors import InputError, choice
from lipfw.fit.checkpoint import Here
from lipfw.streams import one_at_a_time

_isolated = pl.trainer.trainer.isolate_rng


@contextlib.contextmanager
def _isolated_alone(include_cuda: bool = True) -> Iterator[None]:
    """Do Lightning's isolate_rng, by which each fit begins, while no other thread draws its network's weights.

    It puts torch's global generator back to where it was a moment ago: a thread that has drawn numbers meanwhile would
    draw them again.
    """
    with one_at_a_time, _isolated(include_cuda):
        yield


pl.trainer.trainer.isolate_rng = _isolated_alone


def device_name(accelerator: str) -> str:
    """Return Lightning's accelerator for auto, cpu or gpu; auto takes a CUDA GPU if there is one, else the CPU.

    Apple's GPUs are not used: they lack the float64 that the windowed variance needs. Raises InputError for a GPU that
    is not there.
    """
    choice("trainer.accelerator", accelerator, ("auto", "cpu", "gpu"))
    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        raise InputError("trainer=gpu, but torch sees no GPU (CUDA) on this machine; use trainer=auto or trainer=cpu")
    return "cuda" if there and accelerator != "cpu" else "cpu"


def make_trainer(rounds: int, callbacks: Sequence[pl.Callback], accelerator: str = "auto",
                 logger: Logger | None = None, folder: Path | None = None) -> pl.Trainer:
    """Return a Trainer for a number of rounds. Checkpoints, bars and summaries are left to our own callbacks.

    It takes no signals: Lightning would answer SIGTERM by ending the program after the round, and end the last one so.
    What Lightning says on its way `quiet` keeps off the terminal.
    """
    trainer = pl.Trainer(accelerator=device_name(accelerator), devices=1, max_epochs=rounds, callbacks=list(callbacks),
                      logger=logger or False, enable_progress_bar=False, enable_model_summary=False,
                      enable_checkpointing=False, log_every_n_steps=1, default_root_dir=folder, plugins=[Here()])
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


_ADVERTS = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
_ON_PURPOSE = [("ignore", re.compile(text, re.IGNORECASE), Warning, None, 0) for text in (
    ".*does not have many workers.*", ".*`train_dataloader`.*", ".*anonymous.*", ".*LeafSpec.*", ".*tensorboardX.*",
    ".*GPU available but not used.*", ".*mid-epoch.*")]
_lock, _inside, _undo = threading.Lock(), 0, contextlib.ExitStack()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's adverts, and its warnings about things that are on purpose here, off the terminal meanwhile.

    Loggers and filters are the program's, which may have other threads: several may be inside, and the last puts back
    the levels that the first found. `warnings.catch_warnings` would undo what others filter meanwhile.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            for logger in map(logging.getLogger, _ADVERTS):
                _undo.callback(logger.setLevel, logger.level)
                logger.setLevel(logging.WARNING)
            _undo.callback(_show, warnings.filters)
            warnings.filters[:0] = _ON_PURPOSE      # what is ignored is not remembered: no cache is to be cleared
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _undo.close()


def _show(filters: list) -> None:
    """Take our filters out of the list that they were put into, and out of the copy that may have replaced it."""
    for each in (filters, warnings.filters):
        each[:] = [entry for entry in each if not any(entry is own for own in _ON_PURPOSE)]
