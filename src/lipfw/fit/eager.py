"""One optimisation step by torch's own operators."""
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from lipfw.fit.langevin import WeightNoise
from lipfw.mask import Mask
from lipfw.prior.prior import Prior


class Objective(Protocol):
    """What a stepper needs of a fit: the prior, the loss of each picture, and who follows the steps."""

    prior: Prior

    def loss(self, output: Tensor, index: int) -> Tensor: ...

    def weight_noise(self, network: nn.Module, mask: Mask | None) -> WeightNoise | None: ...

    def follow(self, outputs: Sequence[Tensor], loss: Tensor) -> None: ...


class Eager:
    """The step in torch's own operators, on any device: what the others are measured against."""

    name = "dense"              # what the records of a round say
    note: str | None = None     # why it is not a faster one
    warm_up = 1                 # steps that take longer than those to come: they pay for memory and kernels

    def __init__(self, fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None):
        self.fit, self.optimizer = fit, optimizer
        self.mask_gradients = mask.gradients(fit.prior.network) if mask is not None else None
        self.weight_noise = fit.weight_noise(fit.prior.network, mask)

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        """Do the step after `step` steps; returns the pictures that the weights before it made, and their loss."""
        return self.body([torch.Generator(self.device).manual_seed(s) for s in self.seeds(step)])

    @property
    def device(self) -> torch.device:
        return self.fit.prior.code().device

    def seeds(self, step: int) -> list[int]:
        """Return what the generators of a step are seeded with: of each code's jitter, and of the noise on weights."""
        prior = self.fit.prior
        jitter = [prior.jitter_seed(code, step) for code in range(len(prior.pictures_of))]
        return jitter if self.weight_noise is None else [*jitter, self.weight_noise.seed(step)]

    def body(self, generators: Sequence[torch.Generator]) -> tuple[list[Tensor], Tensor]:
        """Do a step that draws from these generators, seeded as `seeds` says.

        It has no other input from the host and gives nothing to it: a CUDA graph can hold it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        outputs, losses = [], []
        for code, source in enumerate(generators[:len(self.fit.prior.pictures_of)]):
            made, loss = pictures_and_loss(self.fit, self.fit.prior.unsquashed(self.fit.prior.code(code, source)), code)
            loss.backward()                 # code by code: one graph in memory at a time
            outputs += made
            losses.append(loss.detach())
        if self.mask_gradients is not None:
            self.mask_gradients()
        self.optimizer.step()
        if self.weight_noise is not None:
            self.weight_noise(generators[-1])
        loss = sum(losses)
        self.fit.follow(outputs, loss)
        return outputs, loss

    def settle(self) -> None:
        """Bring network and optimiser up to date; here they always are."""


def pictures_and_loss(fit: Objective, raw: Tensor, code: int) -> tuple[list[Tensor], Tensor]:
    """Return the pictures, detached, that are made of the network's output for a code, and the sum of their losses."""
    pictures = {i: fit.prior.squash(raw, i) for i in fit.prior.pictures_of[code]}
    return [x.detach() for x in pictures.values()], sum(fit.loss(x, i) for i, x in pictures.items())
