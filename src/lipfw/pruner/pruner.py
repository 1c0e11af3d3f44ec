"""What every pruner is: scores for the weights, and how their rounds go."""
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, choice, nearest, step_or_percentage, steps_of, whole
from lipfw.mask import Degenerate, Mask, keep_top, prunable
from lipfw.pruner.schedule import Schedule


class Fit(Protocol):
    """What a pruner may see of the fit: its loss, and the size of what goes into the network."""

    def losses(self, draw: int = 0) -> Iterator[Tensor]:
        """Yield the terms of the loss one by one, each with its own graph, at the jitter of optimisation step `draw`.

        Their sum is the objective of the fit: over the degraded pictures, unless fit.target=clean.
        """

    def code_shape(self) -> torch.Size:
        """Return the shape (1, C, H, W) of the first code."""


class Pruner:
    """Scores weights; counting, ties, masks, rewinding and stopping are written elsewhere, once.

    Class attributes say what a pruner is. `scores_trained`: it scores the weights that a round's fit left (IMP), else
    those that rounds start from. `iterative`: a round chooses among the weights of the round before, else among all.
    `blind`: its scores depend on the weights alone, so that its last mask can be looked at before anything is fitted.

    Options: `rounds`, `rate`, `sparsities` and `params` as in `Schedule`. `rewind_step` is the step of round 0 whose
    state the later rounds start from, a number or a percentage of the steps ("5%"), or None: nothing is rewound, and
    each round goes on from the weights that the last one left, with a new optimiser, as the published classification
    code does. `retrain` says whether rounds do "all" steps again, as the published code does, or the "remaining" ones.
    `exempt` names tensors (parameter names, or numbers in module order) that are ranked with the others and then kept
    whole: a slip of the published code, whose tickets are denser than their names say (exempt=[0, 1] there). `stop`
    "loss_rises" ends the rounds once the loss has risen `patience` times in a row. Raises InputError for what these
    can't be.
    """

    scores_trained = False
    iterative = False
    blind = False
    brings_weights = False          # the rounds start from its own weights, not from the prior's
    remarks: Sequence[str] = ()     # what a user is told before the fit, known once prepared

    def __init__(self, rounds: int = 16, rate: float = 0.2, sparsities: Sequence[float] | None = None,
                 params: int | None = None, rewind_step: int | str | None = 0, retrain: str = "all",
                 exempt: Sequence[str | int] = (), stop: str | None = None, patience: int = 2):
        self.schedule = Schedule(rounds, rate, None if sparsities is None else _listed("pruner.sparsities", sparsities),
                                 params)
        self.rewind_step = None if rewind_step is None else step_or_percentage("pruner.rewind_step", rewind_step)
        self.retrain = choice("pruner.retrain", retrain, ("all", "remaining"))
        if self.rewind_step is None and retrain == "remaining":
            raise InputError("pruner.retrain=remaining goes on after the step that is rewound to, and "
                             "pruner.rewind_step=null rewinds to none; use pruner.retrain=all")
        self.exempt = _listed("pruner.exempt", exempt)
        self.stop = None if stop is None else choice("pruner.stop", stop, ("loss_rises",))
        self.patience = whole("pruner.patience", patience, least=1)

    def prepare(self, network: nn.Module) -> None:
        """Look at the network, or change it, before the first round starts. Raises InputError for one that is unfit."""
        self.exempted(network)

    @property
    def rewinds(self) -> bool:
        """Later rounds start from an earlier state, and not from what the last one left."""
        return self.rewind_step is not None

    def counts(self, network: nn.Module) -> list[int]:
        """Return the number of weights that each round is to keep; their number is that of the rounds."""
        total = sum(p.numel() for p in prunable(network).values())
        return self.schedule.counts(total, sum(p.numel() for p in network.parameters()) - total, self.iterative)

    def rewind(self, steps: int, length: str | None = None) -> int:
        """Return the step of a fit of `steps` steps that later rounds start from, 0 if they don't go back to any.

        `length` is the number of steps in the words of other options than fit.steps. Raises InputError for a step
        beyond the fit.
        """
        step = self.rewind_step or 0
        if isinstance(step, int) and step > steps:
            raise InputError(f"pruner.rewind_step={step} lies beyond {length or f'fit.steps={steps}'}; use a "
                             "step of the fit")
        return steps_of(step, steps)

    def keep(self, counts: Sequence[int], round_: int, within: Mask | None) -> int:
        """Return how many weights a round keeps among `within`: as planned or, where that has another number of weights
        than planned, the same fraction of them.
        """
        if within is None or within.count == counts[round_ - 1]:
            return counts[round_]
        before, removed = counts[round_ - 1], counts[round_ - 1] - counts[round_]
        by_rate = removed == round(self.schedule.rate * before)
        return within.count - round((self.schedule.rate if by_rate else removed / before) * within.count)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return a score for each prunable weight, by parameter name; the highest are kept."""
        raise TypeError(f"{type(self).__name__} has no score")

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return the mask of a round that keeps exactly `count` weights, chosen among those of `within`.

        Raises Degenerate for scores that tell nothing.
        """
        scores = self.score(network, fit)
        check_scores(scores, count, within)
        return keep_top(scores, count, within)

    def start(self, round_: int) -> Mapping[str, Tensor] | None:
        """Return weights that a round starts from instead of the rewound ones, if the pruner brings any."""
        return None

    def exempted(self, network: nn.Module) -> list[str]:
        """Return the parameter names of the tensors that are kept whole. Raises InputError for one that is not there.
        """
        names = list(prunable(network))
        for e in self.exempt:
            number = isinstance(e, int) and not isinstance(e, bool)
            if not (0 <= e < len(names) if number else e in names):
                hint = f"; the network has tensors 0 to {len(names) - 1}" if number else nearest(e, names)
                raise InputError(f"pruner.exempt names {e!r}, which is no convolution weight of the network{hint}")
        exempt = [names[e] if isinstance(e, int) else e for e in self.exempt]
        if names and set(exempt) == set(names):
            raise InputError(f"pruner.exempt names all {len(names)} tensors, and nothing would be pruned; name fewer, "
                             "or use pruner=none")
        return exempt


def check_scores(scores: Mapping[str, Tensor], count: int, within: Mask | None = None) -> None:
    """Raise Degenerate if the scores of the weights among which `count` are chosen can't tell them apart.

    That is, if one is not finite, if all are equal, or if more are to be kept than have another score than 0.
    """
    for name, s in scores.items():
        if not torch.isfinite(s).all():
            raise Degenerate(f"the scores of {name} are not finite")
    flat = torch.cat([(s if within is None else s[within[n].to(s.device)]).flatten() for n, s in scores.items()])
    if not 0 < count < flat.numel():
        return      # nothing to choose
    if flat.min() == flat.max():
        raise Degenerate(f"all {flat.numel()} weights have the same score, {flat[0]:g}")
    told = int((flat != 0).sum())
    if count > told and not (flat < 0).any():
        raise Degenerate(f"{count} weights are to be kept and only {told} have a score other than 0",
                         "prune more, or by another pruner")


def _listed(name: str, value) -> list:
    """Return a list given on the command line as a list of Python's."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{name} must be a list, in brackets, got {value!r}")
    return list(value)
