"""Steps that seek the codes of pictures in a fixed generator's range."""
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lipfw.fit.eager import Eager
from lipfw.fit.objectives import median_of_means, permutation, robust_loss
from lipfw.prior.prior import Prior


class Search(Protocol):
    """What these steps need of a fit."""

    prior: Prior
    objective: Callable[[Tensor], Tensor]
    bucket: int

    def residuals(self, made: Tensor) -> Sequence[tuple[list[int], Tensor]]: ...

    def penalty(self, made: Tensor) -> Tensor | float: ...

    def follow(self, outputs: Sequence[Tensor], loss: Tensor) -> None: ...


class Latent(Eager):
    """Adam on the codes of all pictures and starts at once, on the sum of their losses; each is as if it were alone.

    What it gives as a picture's restoration is that of its start with the smallest loss at this step.
    """

    name = "latent"

    def __init__(self, fit: Search, optimizer: torch.optim.Adam):
        self.fit, self.optimizer = fit, optimizer

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        prior = self.fit.prior
        made = prior.made(prior.codes)
        losses = self.candidates(self.fit.residuals(made), self.fit.objective) + self.fit.penalty(made)
        (prior.codes.grad,) = torch.autograd.grad(losses.sum(), prior.codes)
        self.optimizer.step()
        return self.give(made.detach(), losses.detach())

    def candidates(self, residuals: Sequence, objective: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the loss (restarts, pictures) of each picture, of residuals as the fit gives them."""
        return gather([(pictures, objective(residual.flatten(0, 1)).unflatten(0, residual.shape[:2]))
                       for pictures, residual in residuals])

    def give(self, made: Tensor, losses: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the picture of each one's best start, and the mean of their losses."""
        best = losses.argmin(0)
        outputs = list(made[best, torch.arange(made.shape[1], device=made.device)].split(1))
        loss = losses.amin(0).mean()
        self.fit.follow(outputs, loss)
        return outputs, loss


class TwoPlayers(Latent):
    """The median-of-means game of Jalal et al. (2020) between codes z_f and opponents z_g.

    min over z_f of max over z_g of the median, over buckets of measurements, of the mean of
    (A G(z_f) - y)^2 - (A G(z_g) - y)^2. Measurements that are grossly wrong sit in a few buckets, which the median
    leaves out. In a step z_f moves, then z_g against the new z_f, each with buckets drawn anew; residuals are permuted,
    and not the matrix. Starts are compared, and the loss is told, by the median of the means of (A G(z_f) - y)^2
    itself.
    """

    def __init__(self, fit: Search, optimizer: torch.optim.Adam):
        super().__init__(fit, optimizer)
        self.made: Tensor | None = None         # of the codes as they are, with its graph
        self.ours: Sequence = ()                # and its residuals

    def step(self, step: int) -> tuple[list[Tensor], Tensor]:
        prior = self.fit.prior
        codes, opponents = prior.codes, prior.opponents
        if self.made is None:
            self.made = prior.made(codes)
            self.ours = self.fit.residuals(self.made)
        against = self.fit.residuals(prior.made(opponents))
        value = self.value(self.ours, detached(against), step, 0)
        (codes.grad,), opponents.grad = torch.autograd.grad(value.sum(), codes), None
        self.optimizer.step()
        made, ours = self.made.detach(), detached(self.ours)
        # the codes' new pictures serve twice: as what the opponents play against, and in the next step
        self.made = prior.made(codes)
        self.ours = self.fit.residuals(self.made)
        value = self.value(detached(self.ours), against, step, 1)
        codes.grad, (opponents.grad,) = None, torch.autograd.grad(-value.sum(), opponents)
        self.optimizer.step()
        order = self.order(step, 0)
        return self.give(made, self.candidates(ours, lambda r: robust_loss(
            r.flatten(1).square(), order(r), self.fit.bucket)))

    def value(self, ours: Sequence, theirs: Sequence, step: int, player: int) -> Tensor:
        """Return the value (restarts, pictures) of the game, with the buckets of a player's move."""
        order = self.order(step, player)
        return gather([(pictures, median_of_means(f.flatten(2).square(), g.flatten(2).square(), order(f[0]),
                                                  self.fit.bucket))
                       for (pictures, f), (_, g) in zip(ours, theirs, strict=True)])

    def order(self, step: int, player: int) -> Callable[[Tensor], Tensor]:
        """Return what gives the order of the measurements of residuals (B, ...) for a player's move."""
        return lambda r: permutation(self.fit.prior.seed, step, r[0].numel(), player).to(r.device)


def detached(residuals: Sequence[tuple[list[int], Tensor]]) -> list[tuple[list[int], Tensor]]:
    """Return residuals without their graphs."""
    return [(pictures, r.detach()) for pictures, r in residuals]


def gather(parts: Sequence[tuple[list[int], Tensor]]) -> Tensor:
    """Return (restarts, pictures) of parts (restarts, some of the pictures), in the order of the pictures."""
    order = [i for pictures, _ in parts for i in pictures]
    values = torch.cat([v for _, v in parts], 1)
    return values if order == sorted(order) else values[:, torch.tensor(order, device=values.device).argsort()]
