"""How near made pictures are to real ones: the sliced Wasserstein distance of Karras et al. 2018, section 5.

Each picture is split into a Laplacian pyramid, down to 16 pixels a side. Of each level, 128 patches of 7x7 pixels are
taken at random places of every picture; colour channels are brought to mean 0 and deviation 1, each set by itself, so
a tint or another contrast of a level does not count. The distance of the two clouds of patches is the mean of their
Wasserstein-1 distances along random directions; tables, as in the paper, give it times 1000.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lipfw.streams import stream

PATCH = 7
SMALLEST = 16           # pixels a side of the last level
AT_ONCE = 1 << 24       # projected numbers in memory: 64 MiB a set


class Distance(NamedTuple):
    """Times 1000: `levels` by their pixels a side, largest first (32: fine detail, 16: the rest), and their mean."""

    levels: dict[int, float]
    mean: float


def sliced_wasserstein(real: Tensor, made: Tensor, seed: int = 0, *, patches: int = 128,
                       directions: int = 64) -> Distance:
    """Return the distance of two sets (N, C, S, S) in [-1, 1], equally many: 0 for the same set, smaller is better.

    Two halves of one set tell what nought is for N pictures; numbers of another N do not compare. The patches of the
    n-th picture of both sets lie at the same places. A level takes 196 N C patches bytes a set beside the pyramid. The
    paper takes 512 directions; of 1000 faces, 64 and 128 gave levels that moved by 4 to 7 % (one standard deviation)
    with the seed, so compare with one seed. Raises ValueError for other shapes.
    """
    _check(real, made)
    found = {}
    for a, b in zip(laplacian_pyramid(real), laplacian_pyramid(made), strict=True):
        side = a.shape[3]
        a, b = (descriptors(x, patches, stream(seed, "swd patches", side)) for x in (a, b))
        along = _directions(a.shape[1], directions, stream(seed, "swd directions", side)).to(a.device)
        found[side] = 1000 * float(wasserstein(a, b, along).mean())
    return Distance(found, sum(found.values()) / len(found))


def laplacian_pyramid(x: Tensor) -> list[Tensor]:
    """Return the levels of pictures (N, C, S, S), finest first: each is what its size shows and the next cannot.

    Enlarging the last one and adding the one before it, and so on, gives the pictures back. There is one level alone
    for pictures below 32 pixels and for odd sizes.
    """
    levels = []
    while x.shape[3] % 2 == 0 and x.shape[3] // 2 >= SMALLEST:
        half = blurred(x)[:, :, ::2, ::2]
        levels.append(x - enlarged(half))
        x = half
    return [*levels, x]


def blurred(x: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) smoothed by the binomial filter 1 4 6 4 1, mirrored at the borders."""
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    for dim in (2, 3):      # sums of shifted pictures: a convolution of one channel is several times slower
        far, near, here, near2, far2 = (x.narrow(dim, i, x.shape[dim] - 4) for i in range(5))
        x = (here * 6).add_(near + near2, alpha=4).add_(far).add_(far2).div_(16)
    return x


def enlarged(x: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) at twice the size: zeros put between the pixels, smoothed."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, 2 * h, 2 * w)
    spread[:, :, ::2, ::2] = 4 * x
    return blurred(spread)


def descriptors(x: Tensor, patches: int, generator: torch.Generator) -> Tensor:
    """Return `patches` random patches of each picture (N, C, S, S), (N * patches, C * 49), normalised per channel."""
    n, c, side = x.shape[:3]
    y, left = torch.randint(side - PATCH + 1, (2, n, patches), generator=generator).to(x.device)
    windows = x.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    found = windows[torch.arange(n, device=x.device)[:, None], :, y, left].reshape(n * patches, c, PATCH * PATCH)
    deviation, mean = torch.std_mean(found, dim=(0, 2), keepdim=True, correction=0)
    return found.sub_(mean).div_(deviation.clamp_min(1e-8)).flatten(1)


def wasserstein(a: Tensor, b: Tensor, directions: Tensor) -> Tensor:
    """Return the Wasserstein-1 distance of two clouds of M points (M, D) along each of the directions (D, K): (K,).

    On a line it is the mean distance of the points in their order.
    """
    step = max(1, AT_ONCE // len(a))
    return torch.cat([(_ordered(a, d) - _ordered(b, d)).abs_().mean(1) for d in directions.T.split(step)])


def _ordered(points: Tensor, directions: Tensor) -> Tensor:
    """Return for each direction (K, D) the sorted coordinates of the points (M, D): (K, M)."""
    projected = directions @ points.T
    if projected.device.type != "cpu":
        return projected.sort(dim=1).values
    projected.numpy().sort(axis=1)      # in place; torch would sort the places too, at several times the price
    return projected


def _directions(dimensions: int, count: int, generator: torch.Generator) -> Tensor:
    """Return random unit vectors, (dimensions, count)."""
    return F.normalize(torch.randn(dimensions, count, generator=generator), dim=0)


def _check(real: Tensor, made: Tensor) -> None:
    if real.shape != made.shape or real.ndim != 4 or real.shape[2] != real.shape[3] or not len(real):
        raise ValueError("two sets of equally many pictures (N, C, S, S) are needed, got "
                         f"{tuple(real.shape)} and {tuple(made.shape)}")
    if real.shape[3] < PATCH:
        raise ValueError(f"pictures must have at least {PATCH} pixels a side, got {real.shape[3]}")
    if real.dtype != torch.float32 or made.dtype != torch.float32:
        raise ValueError(f"pictures must be float32 in [-1, 1], got {real.dtype} and {made.dtype}")
