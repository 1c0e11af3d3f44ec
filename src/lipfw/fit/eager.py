"""One optimisation step by torch's own operators."""
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lipfw.mask import Mask
from lipfw.prior.prior import Prior


class Objective(Protocol):
    """What a stepper needs of a fit: the prior, its optimiser, and the loss of each picture."""

    prior: Prior
    problems: Sequence

    def loss(self, output: Tensor, index: int) -> Tensor: ...


class Eager:
    """The step in torch's own operators, on any device: what the others are measured against."""

    name = "dense"
    note: str | None = None     # why it is not a faster one

    def __init__(self, fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None):
        self.fit, self.optimizer = fit, optimizer
        self.mask_gradients = mask.gradients(fit.prior.network) if mask is not None else None

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        """Do the step after `step` steps; returns the pictures that the weights before it made, and their loss."""
        self.optimizer.zero_grad(set_to_none=True)
        outputs, losses = [], []
        for i in range(len(self.fit.problems)):
            output = self.fit.prior(i, step)
            loss = self.fit.loss(output, i)
            loss.backward()                 # picture by picture: one graph in memory at a time
            outputs.append(output.detach())
            losses.append(loss.detach())
        if self.mask_gradients is not None:
            self.mask_gradients()
        self.optimizer.step()
        return outputs, sum(losses)

    def settle(self) -> None:
        """Bring network and optimiser up to date; here they always are."""
