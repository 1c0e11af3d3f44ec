"""What a ticket is like: sparsity by layer, overlap with another ticket, channels that are cut off, what is left."""
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lipfw.mask import Mask, prunable
from lipfw.ticket import INITIAL

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d,
          nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm)


# --- sparsity

def layer_sparsity(mask: Mask) -> dict[str, float]:
    """Return the removed fraction of each layer by itself, in [0, 1], in module order: the paper's definition.

    >>> layer_sparsity(Mask({"a": torch.tensor([True, False]), "b": torch.tensor([False] * 6)}))
    {'a': 0.5, 'b': 1.0}
    """
    return {name: _fraction(m.numel() - int(m.sum()), m.numel(), 0.0) for name, m in mask.items()}


def cumulative_sparsity(mask: Mask) -> dict[str, float]:
    """Return for each layer l the removed fraction of the layers 1..l together, in [0, 1], in module order.

    This is not the sparsity of layer l: it is what the published code writes for its figure of layers, since its
    counters are never reset, and it levels out towards the sparsity of the whole mask.

    >>> cumulative_sparsity(Mask({"a": torch.tensor([True, False]), "b": torch.tensor([False] * 6)}))
    {'a': 0.5, 'b': 0.875}
    """
    removed = total = 0
    found = {}
    for name, m in mask.items():
        removed, total = removed + m.numel() - int(m.sum()), total + m.numel()
        found[name] = _fraction(removed, total, 0.0)
    return found


# --- overlap

def comparable(a: Mask, b: Mask) -> list[str]:
    """Return the layers that two masks have in the same shape, in the order of `a`: the overlap is that of these.

    Others are left out, so that tickets of grey and of colour pictures, which differ in the head alone, can be
    compared. Raises ValueError if no layer is left.
    """
    names = [name for name in a if name in b and a[name].shape == b[name].shape]
    if not names:
        raise ValueError("the masks have no layer of the same name and shape")
    return names


def iou(a: Mask, b: Mask) -> float:
    """Return the overlap of two masks: weights kept in both over weights kept in either, in [0, 1]; 1 if none is kept.

    Of the comparable layers, all together; raises ValueError if there is none.
    """
    counts = _counts(a, b).values()
    return _ratio(sum(c.both for c in counts), counts)


def layer_iou(a: Mask, b: Mask) -> dict[str, float]:
    """Return the overlap of each comparable layer by itself, as `iou`."""
    return {name: _ratio(c.both, [c]) for name, c in _counts(a, b).items()}


def random_iou(a: Mask, b: Mask) -> float:
    """Return the overlap by chance: of masks drawn at random that keep as many weights of each layer as `a` and `b`.

    Two uniform draws of i and j among the n weights of a layer share ij / n in expectation. Returned is the ratio of
    the expectations, sum(ij / n) / sum(i + j - ij / n) over the comparable layers. The expectation of the ratio is
    never smaller, and differs noticeably only where a handful of weights is kept.
    """
    counts = _counts(a, b).values()
    return _ratio(sum(c.expected for c in counts), counts)


def layer_random_iou(a: Mask, b: Mask) -> dict[str, float]:
    """Return the overlap by chance of each comparable layer by itself, as `random_iou`."""
    return {name: _ratio(c.expected, [c]) for name, c in _counts(a, b).items()}


class _Count(NamedTuple):
    both: int
    first: int
    second: int
    size: int

    @property
    def expected(self) -> float:
        return self.first * self.second / self.size if self.size else 0.0


def _counts(a: Mask, b: Mask) -> dict[str, _Count]:
    pairs = {name: (a[name].cpu(), b[name].cpu()) for name in comparable(a, b)}
    return {name: _Count(int((x & y).sum()), int(x.sum()), int(y.sum()), x.numel()) for name, (x, y) in pairs.items()}


def _ratio(both: float, counts: Sequence[_Count]) -> float:
    return _fraction(both, sum(c.first + c.second for c in counts) - both, 1.0)


def _fraction(part: float, whole: float, of_nothing: float) -> float:
    return part / whole if whole else of_nothing


# --- connection

def dead_channels(network: nn.Module, mask: Mask, shape: Sequence[int]) -> dict[str, Tensor]:
    """Return which output channels of each convolution no path of kept weights joins to both the code and the output.

    By the name of the weight, in module order: booleans (channels,), True where dead. Exact: a path leads from one
    channel to another if any tap of the kernel between them is kept, and through activations and resizing; biases and
    normalisation carry nothing of the code and are no path. A convolution that is used several times has a channel
    alive if one of the uses has.

    `shape` is (C, H, W) of the code. What is connected does not depend on H and W, so the smallest size is used that
    the network takes, in powers of two up to them. The network is left as it is, whatever its device, mode or weights
    (on torch's meta device it may have none).

    Linear layers are never pruned and join everything.

    Raises ValueError for a mask that does not fit, for modules with parameters of other kinds, and for networks that
    make a signal of a code of zeros (by a sigmoid inside, for example): there a signal would be no sign of a path.
    Addition, concatenation, pooling, and activations that take 0 to 0 and keep positive numbers positive are fine.
    """
    bare, alive = _bare(network, mask)
    code = _zeros(bare, shape).add_(1).requires_grad_()
    with torch.enable_grad():
        output = bare(code.clone())     # an activation in place may come first
        if output.requires_grad:
            output.sum().backward()
    return {name: ~alive[name] for name in mask if name in alive}


def connected(network: nn.Module, mask: Mask, shape: Sequence[int]) -> bool:
    """Return whether the output depends on the code at all: whether a path of kept weights leads from it to the output.

    Arguments, paths and errors are those of `dead_channels`.
    """
    bare, _ = _bare(network, mask)
    with torch.no_grad():
        return bool((bare(_zeros(bare, shape).add_(1)) > 0).any())


class _Signal(torch.autograd.Function):
    """1 where a signal is positive, else 0, of the signal forwards and of its gradient backwards.

    So no sum of paths grows or fades, however many layers there are. Backwards, the channels (1, C, ...) that have both
    in one place are added to `alive`.
    """

    @staticmethod
    def forward(ctx, signal: Tensor, alive: Tensor) -> Tensor:
        ctx.on, ctx.alive = signal > 0, alive
        return ctx.on.to(signal.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        back = gradient > 0
        ctx.alive |= (back & ctx.on).transpose(0, 1).flatten(1).any(1)
        return back.to(gradient.dtype), None


def _bare(network: nn.Module, mask: Mask) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy of a network that passes on signals and nothing else, and its channels found alive so far (none).

    Its convolutions are 0 or 1 for all taps between two channels, without bias; its normalisations are gone. It is in
    float64, where convolutions are plain sums.
    """
    mask.check(network)
    names = {id(p): name for name, p in prunable(network).items()}
    weights = {name: nn.Parameter(_links(m).double(), requires_grad=False) for name, m in mask.items()}
    bare = copy.deepcopy(network, {id(p): p for p in network.parameters()}).eval()      # parameters are not copied
    alive: dict[str, Tensor] = {}
    for path, module in list(bare.named_modules(remove_duplicate=False)):
        if isinstance(module, _NORMS):
            bare.set_submodule(path, nn.Identity())
    for module in bare.modules():
        name = names.get(id(getattr(module, "weight", None)))
        if name is not None:
            module.weight, module.bias = weights[name], None
            seen = alive.setdefault(name, torch.zeros(module.out_channels, dtype=torch.bool))
            module.register_forward_hook(lambda _, args, output, seen=seen: _Signal.apply(output, seen))
        elif isinstance(module, nn.Linear):     # never pruned: it joins everything
            module.weight = nn.Parameter(torch.ones(module.weight.shape, dtype=torch.float64), requires_grad=False)
            module.bias = None
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(f"can't tell which channels a {type(module).__name__} joins")
    return bare, alive


def _links(kept: Tensor) -> Tensor:
    """Return a kernel's mask with all taps between two channels kept if one is."""
    kept = kept.cpu()
    return kept.flatten(2).any(2).reshape(*kept.shape[:2], *[1] * (kept.dim() - 2)).expand_as(kept)


def _zeros(bare: nn.Module, shape: Sequence[int]) -> Tensor:
    """Return a code of zeros of the smallest size that the network takes, up to `shape`; see `dead_channels`."""
    channels, *sides = shape
    small = [[min(2 ** i, side) for side in sides] for i in range(max(sides, default=1).bit_length())]
    for size in [*small, sides]:
        code = torch.zeros(1, channels, *size, dtype=torch.float64)
        try:
            with torch.no_grad():
                output = bare(code)
        except (RuntimeError, ValueError):      # too small for a padding, or another mistake that the full size has too
            if size == sides:
                raise
            continue
        if (output != 0).any():
            raise ValueError("the network makes a signal of a code of zeros, so no signal tells what is connected")
        return code


# --- size

class Bytes(NamedTuple):
    """What a ticket takes on disk: its own file, and the weights it starts from, which a run's tickets share."""

    mask: int
    initial: int | None     # None: they are not beside it


def bytes_on_disk(path: Path) -> Bytes:
    """Return the sizes of a ticket's file and of the initial weights beside it; OSError if there is no ticket."""
    initial = Path(path).parent / INITIAL
    return Bytes(Path(path).stat().st_size, initial.stat().st_size if initial.is_file() else None)


def parameters_left(network: nn.Module, mask: Mask) -> int:
    """Return the number of a network's parameters that a mask does not remove, biases and normalisation included.

    Four bytes each in float32.
    """
    return sum(p.numel() for p in network.parameters()) - (mask.total - mask.count)
