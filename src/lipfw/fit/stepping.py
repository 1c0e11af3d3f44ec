"""How one optimisation step is done: by torch's own operators, by sparse kernels, or by a replayed CUDA graph.

All do the same step: forward with jitter, loss, backward, gradients of removed weights zeroed, Adam, and `follow` with
what came of it. Between `settle` and the next step the network and its optimiser hold the state, whatever did the
steps: that is what checkpoints, tickets, rewinding and the next round see.
"""
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lipfw.errors import InputError
from lipfw.mask import Mask
from lipfw.prior.prior import Prior


class Objective(Protocol):
    """What a stepper needs of a fit: the prior, its optimiser, the loss of each picture, and who follows the steps."""

    prior: Prior
    problems: Sequence

    def loss(self, output: Tensor, index: int) -> Tensor: ...

    def follow(self, outputs: Sequence[Tensor], loss: Tensor) -> None: ...


class Eager:
    """The step in torch's own operators, on any device: what the others are measured against."""

    name = "dense"

    def __init__(self, fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None):
        self.fit, self.optimizer = fit, optimizer
        self.mask_gradients = mask.gradients(fit.prior.network) if mask is not None else None

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        """Do the step after `step` steps; returns the pictures that the weights before it made, and the loss."""
        return self.body([step] * len(self.fit.problems))

    def body(self, noise: Sequence[int | torch.Generator]) -> tuple[list[Tensor], Tensor]:
        """Do a step whose jitter is that of a step or, picture by picture, drawn from generators.

        It has no other input from the host and gives nothing to it: a CUDA graph can hold it.
        """
        self.optimizer.zero_grad(set_to_none=True)
        outputs, losses = [], []
        for i, source in enumerate(noise):
            output = self.fit.prior(i, source)
            loss = self.fit.loss(output, i)
            loss.backward()                 # picture by picture: one graph in memory at a time
            outputs.append(output.detach())
            losses.append(loss.detach())
        if self.mask_gradients is not None:
            self.mask_gradients()
        self.optimizer.step()
        loss = sum(losses)
        self.fit.follow(outputs, loss)
        return outputs, loss

    def settle(self) -> None:
        """Bring network and optimiser up to date; here they always are."""


KERNELS = ("auto", "dense", "sparse")


def check_kernel(kernel: str, device: str) -> None:
    """Raise InputError for a kernel that a kind of device (cpu, cuda) does not have."""
    if kernel == "sparse" and device == "cuda":
        raise InputError("fit.kernel=sparse is for CPUs, this fit runs on a GPU; use fit.kernel=auto or trainer=cpu")


def make_stepper(fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None, kernel: str) -> Eager:
    """Return what does the steps of a round, for a mask (None: dense) and the option fit.kernel."""
    from lipfw.fit.graphed import Graphed  # it is an Eager itself

    device = fit.prior.code().device.type
    check_kernel(kernel, device)
    if device == "cuda" and kernel == "auto":
        return Graphed(fit, optimizer, mask)
    return Eager(fit, optimizer, mask)
