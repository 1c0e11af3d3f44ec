"""SNIP: single-shot pruning by connection sensitivity (Lee, Ajanthan and Torr, ICLR 2019)."""
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import whole
from lipfw.mask import prunable
from lipfw.pruner.pruner import Fit, Pruner


class SNIP(Pruner):
    """Keep the weights whose removal would change the loss most: |g * theta|, with g the gradient of the loss.

    All at once, at the state that rounds start from, batch norm in training mode. The loss is averaged over the jitter
    of the first `draws` optimisation steps. The paper divides the scores by their sum, which changes no rank and is
    left out.
    """

    def __init__(self, draws: int = 1, **options):
        super().__init__(**options)
        self.draws = whole("pruner.draws", draws, least=1)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return |g * theta|, times `draws`."""
        g = summed(network, fit, self.draws, gradient)
        return {n: (g[n] * w.detach()).abs() for n, w in prunable(network).items()}


def gradient(term: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the gradient of a term of the loss; zeros for weights that it does not depend on."""
    return torch.autograd.grad(term, weights, materialize_grads=True)


def summed(network: nn.Module, fit: Fit, draws: int,
           of: Callable[[Tensor, Sequence[Tensor]], Iterable[Tensor]]) -> dict[str, Tensor]:
    """Return the sum of `of(term, weights)`, by weight name, over the terms of the loss and the draws of the jitter.

    The terms are taken one by one: one graph in memory at a time.
    """
    weights = prunable(network)
    total = {n: torch.zeros_like(w) for n, w in weights.items()}
    for draw in range(draws):
        for term in fit.losses(draw):
            for whole_, part in zip(total.values(), of(term, list(weights.values())), strict=True):
                whole_ += part
    return total
