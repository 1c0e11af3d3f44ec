"""How one optimisation step is done: by torch's own operators, by sparse kernels, or by a replayed CUDA graph.

All do the same step: forward with jitter, loss, backward, gradients of removed weights zeroed, Adam. Between `settle`
and the next step the network and its optimiser hold the state, whatever did the steps: that is what checkpoints,
tickets, rewinding and the next round see.
"""
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lipfw.errors import InputError
from lipfw.kernel.graph import Unsupported
from lipfw.kernel.library import Unavailable
from lipfw.mask import Mask
from lipfw.prior.prior import Prior

KERNELS = ("auto", "dense", "sparse")


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
        """Do the step after `step` steps; returns the pictures that the weights before it made, detached, and the loss."""
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


def make_stepper(fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None, kernel: str) -> Eager:
    """Return what does the steps of a round, for a mask (None: dense) and the option fit.kernel: auto, dense or sparse.

    `auto` takes the sparse kernels for what they do faster, layer by layer, and says in `note` why it could not. Raises
    InputError for a kernel that can't be had.
    """
    if kernel == "dense":
        return Eager(fit, optimizer, mask)
    from lipfw.fit.sparse import Sparse         # here: it is an Eager

    if next(fit.prior.network.parameters()).device.type != "cpu":
        if kernel == "sparse":
            raise InputError("fit.kernel=sparse is for CPUs; use fit.kernel=auto, or trainer=cpu")
        return Eager(fit, optimizer, mask)
    try:
        return Sparse(fit, optimizer, mask, everything=kernel == "sparse")
    except (Unavailable, Unsupported) as e:
        if kernel == "sparse":
            raise InputError(f"fit.kernel=sparse can't be had: {e}; use fit.kernel=auto, which then leaves all to "
                             "torch") from None
        stepper = Eager(fit, optimizer, mask)
        stepper.note = f"torch does all the work: {e}"
        return stepper
