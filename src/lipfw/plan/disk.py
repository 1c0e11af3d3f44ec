"""Bytes that a run leaves in its folder, and those of its checkpoints while it runs."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor

from lipfw.fit.adversarial import Adversarial
from lipfw.fit.classification import Classification
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stepped import Stepped
from lipfw.image.picture import Picture
from lipfw.job import Job
from lipfw.mask import prunable

# sizes of lines and headers as they are in run folders, in bytes
_STEP, _ROUND, _PER_PICTURE, _TEXT = 180, 550, 350, 3_000       # of a line, of each picture in it; config and versions
_TICKET, _TENSOR = 1_200, 150           # a ticket's header, with what it tells of its origin; an entry of a tensor
_LOGGED_STEP, _LOGGER = 820, 25_000     # wandb: of a recorded step, and what it writes once
_CANDIDATE = 150        # of a line in candidates.jsonl
_CAPTIONS, _PANELS, _PANEL = 20_000, 4, 256     # compare.png: its white and its letters, its panels, their height


@dataclass(frozen=True)
class Disk:
    """Bytes of a run: in its folder when it is `done`, and those of its `checkpoints` besides, while it is running."""

    done: int
    checkpoints: int


def disk_of(job: Job, cfg: DictConfig, pictures: Sequence[Picture] | None) -> Disk:
    """Return what a run takes. PNGs are counted with their raw size: natural pictures take about half of it.

    `pictures` are those that are restored, None for a training. Two checkpoints are kept, and for a moment there is a
    third that is being written.
    """
    module, pruning = job.module, job.pruning
    network = pruning.network(module)
    rounds, steps = pruning.rounds, sum(pruning.steps(module))
    records = steps // module.log_every + rounds
    weights = prunable(network)
    state = _size(network.state_dict().values())
    tickets = 0
    if min(pruning.densities) < 1:
        bits = sum(-(-w.numel() // 8) for w in weights.values()) + _TENSOR * len(weights) + _TICKET
        trained = state if getattr(getattr(job, "task", None), "save_trained", False) else 0
        tickets = state + _TENSOR * len(network.state_dict()) + rounds * (bits + trained)
    if isinstance(module, Classification):
        of_rounds = once = shown = 0
    else:
        of_rounds, once, shown = _sheets(module, job) if pictures is None else _restored(job, pictures)
    several = len(pictures) if pictures is not None and len(pictures) > 1 else 0
    lines = records * _STEP + 2 * rounds * (_ROUND + several * _PER_PICTURE) + _TEXT
    done = tickets + rounds * (1 + len(module.keep)) * of_rounds + once + lines
    if job.search is not None:      # finalists leave what a dense run does
        finalist = of_rounds + once + (job.search.finalist_steps // module.log_every + 1) * _STEP + 2 * _ROUND + _TEXT
        done += job.search.candidates * _CANDIDATE + job.search.finalists * finalist * (job.search.finalists > 1)
    if isinstance(module, Adversarial) and not tickets:
        done += (state + _size(module.critic.state_dict().values())) // (2 if job.task.half else 1)
    if cfg.logger.get("_target_") is not None:      # the logger keeps copies of tickets and pictures
        done += tickets + rounds * shown + once + records * _LOGGED_STEP + _LOGGER
    return Disk(done, 3 * _checkpoint(module, pruning))


def _checkpoint(module: Stepped, pruning: IterativePruning) -> int:
    """Return the bytes of a checkpoint: the module's state, the optimiser's, what rounds go back to, the mask."""
    each = 2        # moments of Adam
    if isinstance(module, Classification):
        learnt, each = list(module.network.parameters()), 1
        start = _size(module.network.state_dict().values())
    elif isinstance(module, Adversarial):
        learnt = [*module.prior.network.parameters(), *module.critic.parameters()]
        start = _size([t for n in module.networks().values() for t in n.state_dict().values()])
    else:
        learnt = module.prior.unknowns()
        start = _size(module.prior.network.state_dict().values()) + _size(module.prior.start().values())
    moments = each * _size(learnt)
    start += moments if pruning.rewind_step else 0
    mask = pruning.total if min(pruning.densities) < 1 else 0
    # asked of torch and not of the module, which would first bring a fit up to date that has not begun
    return _size(torch.nn.Module.state_dict(module).values()) + moments + start + mask


def _restored(job: Job, pictures: Sequence[Picture]) -> tuple[int, int, int]:
    """Return the bytes of the pictures of a round, of those that are written once, and of a round's for a logger."""
    of_round = once = 0
    for picture, problem in zip(pictures, job.problems, strict=True):
        c, h, w = problem.shape
        raw = (c + (picture.alpha is not None)) * h * w * picture.bits // 8
        panel = 3 * min(h * w, _PANEL * round(_PANEL * w / h))      # enlarged pixels take no more than they had
        of_round, once = of_round + raw, once + raw + _PANELS * panel + _CAPTIONS
    return of_round, once, of_round


def _sheets(module: Adversarial, job: Job) -> tuple[int, int, int]:
    """Return the same of a training's sheets of 64 samples."""
    sheet = 64 * module.picture_shape().numel()
    return sheet * (1 + module.steps // module.judge_every), sheet, sheet


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
