"""Random pruning, uniform over all weights: every layer keeps about the same fraction."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lipfw.errors import flag, whole
from lipfw.mask import Mask, keep_top, prunable
from lipfw.pruner.pruner import Fit, Pruner
from lipfw.streams import stream


class Random(Pruner):
    """Keep weights drawn at random; a sparser round keeps some of those that the round before kept.

    `doubled`: the published code lists each tensor twice, so that two independent masks are multiplied and a round of
    rate 0.2 keeps about 0.64 of the weights instead of 0.8: its random tickets are sparser than their names say.
    """

    def __init__(self, seed: int = 0, doubled: bool = False, **options):
        super().__init__(**options)
        self.seed = whole("pruner.seed", seed, least=0)
        self.doubled = flag("pruner.doubled", doubled)
        self.iterative, self.blind = self.doubled, not self.doubled     # doubled, a mask depends on those before

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return U(0, 1), a stream for each tensor."""
        return uniform(prunable(network), self.seed)

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return a mask of `count` weights or, doubled, the product of two that drop as many of `within` each."""
        if not self.doubled:
            return super().prune(network, fit, count, within, round_)
        weights = prunable(network)
        within = within or Mask.ones(network)
        # one draw over all tensors listed twice, as there: the halves lose about, and not exactly, the same number
        lists = {f"{half} {n}": (w, within[n]) for half in (1, 2) for n, w in weights.items()}
        kept = keep_top(uniform({k: w for k, (w, _) in lists.items()}, self.seed, round_), 2 * count,
                        Mask({k: m.to(weights[k[2:]].device) for k, (_, m) in lists.items()}))
        return Mask({n: kept[f"1 {n}"] & kept[f"2 {n}"] for n in weights})


def uniform(weights: Mapping[str, Tensor], seed: int, round_: int = 0) -> dict[str, Tensor]:
    """Return a tensor of U(0, 1) for each weight tensor, drawn on the CPU: the same on every device."""
    return {n: torch.rand(w.shape, generator=stream(seed, f"prune {n}", round_)).to(w.device)
            for n, w in weights.items()}
