"""Training a progressive GAN from scratch: scale by scale, each faded in (Karras et al., ICLR 2018)."""
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from lipfw.errors import InputError, whole
from lipfw.fit.adversarial import Adversarial, per_scale
from lipfw.prior.prior import Prior


class Phase(NamedTuple):
    """The steps after `first` and up to `last`, done on one scale; while it fades in, less and less of that below."""

    first: int
    last: int
    scale: int
    fading: bool


class Growing(Adversarial):
    """Start at 4 pixels; each further scale fades in over `fade` real pictures and is then trained on `stable` more.

    Both are a number for all scales or a list with one for each, 4 pixels first; the first fades in over none.
    """

    length_by = "fit.fade= and fit.stable="

    def __init__(self, pixels: Tensor, prior: Prior, *, fade: int | Sequence[int] = 600_000,
                 stable: int | Sequence[int] = 600_000, lr: float = 1e-3, batch: int = 16,
                 generator_batch: int | None = None, penalty: float = 10.0, penalised: int | None = None,
                 drift: float = 1e-3, smoothing: float = 0.999, mirror: bool = True, judge_every: int = 1000,
                 seed: int = 0, log_every: int = 10, steps_per_batch: int = 10, precision: int | str = 32):
        scales = len(prior.network.channels)
        whole("fit.batch", batch, least=1)
        self.phases = phases(per_scale("fit.fade", fade, scales), per_scale("fit.stable", stable, scales), batch)
        if not self.phases:
            raise InputError("fit.fade and fit.stable are 0 for all scales; give them pictures to train on")
        if self.phases[-1].scale != scales - 1:
            raise InputError(f"fit.fade and fit.stable end at {4 * 2 ** self.phases[-1].scale} pixels and leave the "
                             f"scale of {2 * 2 ** scales} untrained; give it pictures, or lower image.size")
        super().__init__(pixels, prior, steps=self.phases[-1].last, lr=lr, batch=batch, generator_batch=generator_batch,
                         penalty=penalty, penalised=penalised, drift=drift, smoothing=smoothing, mirror=mirror,
                         judge_every=judge_every, seed=seed, log_every=log_every, steps_per_batch=steps_per_batch,
                         precision=precision)

    def where(self, step: int) -> tuple[int, float]:
        phase = next(p for p in self.phases if step < p.last)
        left = (phase.last - step) / (phase.last - phase.first)
        return phase.scale, left if phase.fading else 0.0

    def steps_on(self) -> dict[int, int]:
        return {scale: sum(p.last - p.first for p in self.phases if p.scale == scale)
                for scale in {p.scale for p in self.phases}}


def phases(fade: Sequence[int], stable: Sequence[int], batch: int) -> list[Phase]:
    """Return the phases of a growth, in steps of `batch` pictures; those without pictures are left out.

    >>> phases([0, 32], [32, 64], 16)
    [Phase(first=0, last=2, scale=0, fading=False), Phase(first=2, last=4, scale=1, fading=True), \
Phase(first=4, last=8, scale=1, fading=False)]
    """
    found, first = [], 0
    for scale, numbers in enumerate(zip(fade, stable, strict=True)):
        for fading, pictures in zip((True, False), numbers, strict=True):
            if pictures and not (fading and scale == 0):
                last = first + -(-pictures // batch)
                found.append(Phase(first, last, scale, fading))
                first = last
    return found
