"""Masks over the prunable weights of a network: which are kept, exactly how many, and how they stay zero."""
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn


class Degenerate(ValueError):
    """Scores that can't rank the weights, or a mask that nothing passes through; `remedy` says what may help."""

    def __init__(self, message: str, remedy: str = "prune less, or by another pruner"):
        super().__init__(message)
        self.remedy = remedy


_PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def prunable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the convolution weights of a network by parameter name, in module order, shared ones once.

    Biases, normalisation and linear layers are never pruned.
    """
    weights = {id(m.weight) for m in network.modules() if isinstance(m, _PRUNABLE)}
    return {name: p for name, p in network.named_parameters() if id(p) in weights}


def gains(network: nn.Module) -> dict[str, float]:
    """Return what the layer of each prunable weight multiplies it by: its `gain` in an equalised layer, else 1."""
    by_weight = {id(m.weight): float(getattr(m, "gain", 1.0)) for m in network.modules() if isinstance(m, _PRUNABLE)}
    return {name: by_weight[id(p)] for name, p in prunable(network).items()}


class Mask(Mapping[str, Tensor]):
    """Boolean tensors by parameter name, True where the weight is kept. Checked once, never changed."""

    def __init__(self, kept: Mapping[str, Tensor]):
        for name, m in kept.items():
            if m.dtype != torch.bool:
                raise ValueError(f"mask of {name} must be boolean, got {m.dtype}")
        self._kept = dict(kept)
        self.total = sum(m.numel() for m in self._kept.values())
        self.count = sum(int(m.sum()) for m in self._kept.values())

    def __getitem__(self, name: str) -> Tensor:
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Mask({self.count} of {self.total} kept, sparsity {self.sparsity:.4f})"

    @property
    def density(self) -> float:
        """Kept fraction of the prunable weights, in [0, 1]."""
        return self.count / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        """Removed fraction of the prunable weights, in [0, 1]."""
        return 1.0 - self.density

    def empty(self) -> list[str]:
        """Return the names of the layers that keep nothing."""
        return [n for n, m in self._kept.items() if not m.any()]

    @staticmethod
    def ones(network: nn.Module) -> "Mask":
        """Return the mask that keeps every prunable weight of a network."""
        return Mask({n: torch.ones_like(p, dtype=torch.bool) for n, p in prunable(network).items()})

    def check(self, network: nn.Module) -> None:
        """Raise ValueError naming the first tensor that does not fit the network's prunable weights."""
        weights = prunable(network)
        for name in self:
            if name not in weights:
                raise ValueError(f"the network has no convolution weight named {name}")
            if weights[name].shape != self[name].shape:
                raise ValueError(f"{name} is {tuple(weights[name].shape)} in the network, "
                                 f"{tuple(self[name].shape)} in the mask")
        for name in weights:
            if name not in self:
                raise ValueError(f"the mask has nothing for {name}")

    def apply(self, network: nn.Module) -> None:
        """Set the removed weights of a network to zero."""
        with torch.no_grad():
            for name, weight in prunable(network).items():
                weight.mul_(self[name].to(weight.device))

    def gradients(self, network: nn.Module) -> Callable[[], None]:
        """Return a function that zeroes the gradients of removed weights, to be called after each backward pass.

        A removed weight whose gradient is always zero stays exactly zero under Adam and SGD, whose weight decay adds a
        part of the weight, zero too: the same numbers as the product weight * mask in the forward pass, with clean
        state-dict keys. Weights without a gradient are left alone. What an optimiser remembers from before the weight
        was removed is to be forgotten (`fit.stepping.forget`).
        """
        pairs = [(w, self[n].to(w.device, w.dtype)) for n, w in prunable(network).items()]

        def zero() -> None:
            there = [(w.grad, kept) for w, kept in pairs if w.grad is not None]
            if there:
                torch._foreach_mul_(*map(list, zip(*there, strict=True)))   # one call for all tensors

        return zero


def keep_top(scores: Mapping[str, Tensor], count: int, within: Mask | None = None) -> Mask:
    """Keep the `count` highest scores over all tensors together, chosen among the weights that `within` keeps.

    The count is exact: among equal scores the earlier position wins, on every device.
    Raises ValueError for a count that is not available, Degenerate for scores that are not finite.

    >>> m = keep_top({"w": torch.tensor([1.0, 1.0, 1.0, 5.0])}, 2)
    >>> m["w"].tolist()
    [True, False, False, True]
    """
    if not scores:
        raise ValueError("the network has no convolution weights to prune")
    flat = torch.cat([s.detach().flatten() for s in scores.values()])
    available = within.count if within is not None else flat.numel()
    if not 0 <= count <= available:
        raise ValueError(f"can't keep {count} of {available} weights")
    if not torch.isfinite(flat).all():
        bad = next(n for n, s in scores.items() if not torch.isfinite(s).all())
        raise Degenerate(f"the scores of {bad} are not finite")
    if within is not None:
        flat = flat.masked_fill(~torch.cat([within[n].flatten() for n in scores]).to(flat.device), -torch.inf)
    keep = torch.zeros_like(flat, dtype=torch.bool)
    if count:
        threshold = flat.topk(count, sorted=False).values.min()     # sorting would take five times as long
        keep = flat > threshold
        ties = (flat == threshold).nonzero().flatten()
        keep[ties[:count - int(keep.sum())]] = True
    parts = keep.split([s.numel() for s in scores.values()])
    return Mask({n: part.view_as(s) for (n, s), part in zip(scores.items(), parts, strict=True)})

