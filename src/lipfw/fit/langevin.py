"""Noise on the weights after each step: what turns gradient descent into sampling."""
import torch
from torch import Tensor, nn

from lipfw.mask import Mask, prunable
from lipfw.streams import stream_seed


class WeightNoise:
    """Gaussian noise of standard deviation `scale` on the convolution weights of a network that a mask keeps.

    Removed weights get none and stay zero; a number is drawn for each kept weight and for no other, in the order of
    the network's parameters, so that what does the steps makes no difference.
    """

    def __init__(self, network: nn.Module, mask: Mask | None, scale: float, seed: int):
        self.weights, self.scale, self._seed = prunable(network), scale, seed
        self.kept = {n: torch.arange(w.numel(), device=w.device) if mask is None else
                     mask[n].to(w.device).flatten().nonzero()[:, 0] for n, w in self.weights.items()}
        self.counts = [len(k) for k in self.kept.values()]
        self.all_kept = mask is None

    def seed(self, step: int) -> int:
        """Return what a generator is seeded with to draw the noise after an optimisation step."""
        return stream_seed(self._seed, "noise on weights", step)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return the noise of all kept weights in one vector."""
        return torch.empty(sum(self.counts), device=generator.device).normal_(0, self.scale, generator=generator)

    @torch.no_grad()
    def __call__(self, generator: torch.Generator) -> None:
        """Add the noise to the weights."""
        for (name, weight), part in zip(self.weights.items(), self.draw(generator).split(self.counts), strict=True):
            if self.all_kept:
                weight.add_(part.view_as(weight))
            elif weight.is_contiguous():
                weight.view(-1).index_add_(0, self.kept[name], part)
            else:       # a user's network in channels last
                weight.add_(torch.zeros(weight.numel(), device=part.device).index_copy_(
                    0, self.kept[name], part).view_as(weight))

    def number(self, tensors: dict[str, Tensor]) -> int:
        """Write 1, 2, ... into tensors by name where the weights are that noise is drawn for; returns the last."""
        last = 0
        for name, kept in self.kept.items():
            tensors[name].view(-1)[kept] = torch.arange(last + 1, last + len(kept) + 1, dtype=tensors[name].dtype)
            last += len(kept)
        return last
