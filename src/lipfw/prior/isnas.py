"""ISNAS-DIP: of many candidate networks one is chosen for the picture (Arican, Kara, Bredell, Konukoglu, CVPR 2022).

Candidates are ranked without any fit, by what an untrained one makes out of its code and what was measured; the best of
them are fitted briefly, and the one that agrees best with their mean is it.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lipfw.errors import InputError, choice, whole
from lipfw.prior import nas
from lipfw.prior.prior import Prior, one_channel_count
from lipfw.problem import Problem
from lipfw.spectrum import METRICS, strip
from lipfw.streams import stream, stream_seed

_CELLS = (1, 299)       # the first and last cell of candidates, as published
NETWORK = nas.NETWORK


@dataclass(frozen=True)
class Search:
    """How one of `candidates` networks is to be chosen: see `build`; `options` are those of `nas.build` for all."""

    candidates: int
    finalists: int
    finalist_steps: int
    metric: str
    seed: int
    options: dict

    @property
    def fitted(self) -> int:
        """How many steps the finalists take together."""
        return self.finalists * self.finalist_steps if self.finalists > 1 else 0

    def candidate(self, number: int) -> dict:
        """Return the options of a candidate: its cell is any of 1 to 299, each of its bits is set with chance 1/2."""
        generator = stream(self.seed, "candidates", number)
        first, last = _CELLS
        cell = int(torch.randint(first, last + 1, (), generator=generator))
        bits = torch.randint(2, (nas.LEVELS, nas.LEVELS), generator=generator).tolist()
        return {**self.options, "cell": cell, "skips": ["".join(map(str, row)) for row in bits]}

    def check(self, problems: Sequence[Problem]) -> None:
        """Raise InputError for a measurement that the metric can't be taken of."""
        for p in problems:
            if p.measurement.dim() != 4:
                raise InputError("prior=isnas compares spectra of pictures, and this task measures none; use another "
                                 "prior, e.g. prior=nas")
            _, _, h, w = p.measurement.shape
            if "strip" in self.metric and not strip(np.empty((1, h, w))).size:
                raise InputError(f"prior.metric={self.metric} looks at low frequencies, of which a measurement of "
                                 f"{w}x{h} pixels has none; use prior.metric=psd_db_mse, or a larger picture")

    @torch.no_grad()
    def measure(self, number: int, problems: Sequence[Problem], device: str = "cpu") -> float:
        """Return the metric of a candidate with the weights and codes that a fit of it would start from.

        The lowest is the best; with several problems it is their mean.
        """
        prior = nas.build([p.shape for p in problems], **self.candidate(number)).to(device)
        random = np.random.default_rng(stream_seed(self.seed, "metric", number))
        found = []
        for i, p in enumerate(problems):
            measured, made = (x[0].double().cpu().numpy() for x in (p.measurement, seen(p, prior(i).cpu())))
            found.append(METRICS[self.metric](measured, made, random))
        return sum(found) / len(found)


def seen(problem: Problem, picture: Tensor) -> Tensor:
    """Return what the operator makes of a picture, as large as what was measured; as published it hides nothing."""
    return picture if hasattr(problem.operator, "measured") else problem.operator(picture)


def build(shapes: Sequence[tuple[int, int, int]], *, candidates: int = 5000, finalists: int = 15,
          finalist_steps: int = 1200, metric: str = "psd_db_strip_mse", channels: int = 128, jitter: float = 1 / 30,
          code: str = "own", redraw: bool = False, seed: int = 0) -> Prior:
    """Return the prior of the first candidate, with the `search` that a run does before it fits anything.

    Candidates are `nas` networks whose code has as many channels as the picture, and no block that nothing leads
    through. The `finalists` whose `metric` is lowest are fitted for `finalist_steps` steps each; with one, it is the
    choice. All follows from the seed. Raises InputError.
    """
    whole("prior.candidates", candidates, least=1)
    whole("prior.finalists", finalists, least=1)
    if finalists > candidates:
        raise InputError(f"prior.finalists={finalists} are to be taken of prior.candidates={candidates}; use fewer "
                         "finalists, or more candidates")
    whole("prior.finalist_steps", finalist_steps, least=1)
    options = dict(channels=channels, code_channels=one_channel_count(shapes), unused=False, jitter=jitter, code=code,
                   redraw=redraw, seed=whole("prior.seed", seed, least=0))
    choice("prior.metric", metric, tuple(METRICS))
    search = Search(candidates, finalists, finalist_steps, metric, seed, options)
    prior = nas.build(shapes, **search.candidate(0))
    prior.search = search
    return prior


def weights(metrics: Sequence[float]) -> list[float]:
    """Return what each finalist's output counts in their mean, (max - m) / (max - min); all alike if all m are.

    >>> weights([1.0, 2.0, 5.0])
    [1.0, 0.75, 0.0]
    """
    low, high = min(metrics), max(metrics)
    return [(high - m) / (high - low) if high > low else 1.0 for m in metrics]


def mean(outputs: Sequence[Tensor], metrics: Sequence[float]) -> Tensor:
    """Return the mean of the finalists' outputs of one picture, weighted by their `weights`."""
    w = torch.tensor(weights(metrics), dtype=outputs[0].dtype).view(-1, *[1] * outputs[0].dim())
    return (torch.stack(list(outputs)) * w).sum(0) / w.sum()
