"""Random pruning of the same ratio in each layer."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lipfw.errors import whole
from lipfw.mask import prunable
from lipfw.pruner.pruner import Fit, Pruner
from lipfw.pruner.random import uniform


class RandomLayerwise(Pruner):
    """Keep round(t n) of the n weights of each layer, with the one ratio t that keeps the wanted number in all.

    Which of them is drawn at random; a sparser round keeps some of those that the round before kept. (Rounding by the
    largest remainder instead may give a layer more weights when fewer are kept in all, which would not be nested.)
    """

    blind = True

    def __init__(self, seed: int = 0, **options):
        super().__init__(**options)
        self.seed = whole("pruner.seed", seed, least=0)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return -(k + 1/2) / n for the weight that comes k-th in its layer's random order, from 0 on, in float64."""
        return {n: -(_places(u) + 0.5) / u.numel() for n, u in uniform(prunable(network), self.seed).items()}


def _places(values: Tensor) -> Tensor:
    """Return each value's place in ascending order, from 0 on; equal values stand as in the tensor, on every device."""
    order = values.flatten().argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device)).view_as(
        values).double()
