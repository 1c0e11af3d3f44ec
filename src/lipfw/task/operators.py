"""The forward operators A of the restoration tasks: linear maps from a picture to its measurement.

Each takes (B, C, H, W) in [0, 1]; `view(y)` shows a measurement as a picture of the restored size.
`kind`, if an operator has it, says which classical methods know what to do (`lipfw.classical`).
"""
import math

import torch
from torch import Tensor, nn


class Identity(nn.Module):
    """A(x) = x."""

    kind = "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x

    def view(self, y: Tensor) -> Tensor:
        """Return the measurement itself."""
        return y


class Hide(nn.Module):
    """A(x) = m * x with a mask m, (1, 1 or C, H, W), 1 where a pixel is known and 0 where it is missing."""

    kind = "mask"

    def __init__(self, known: Tensor):
        super().__init__()
        self.register_buffer("known", known, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.known

    def measured(self, y: Tensor) -> Tensor:
        """Return the known values (..., m) of a measurement (..., C, H, W): the others tell nothing."""
        return y.flatten(-3)[..., self.known.expand(1, *y.shape[-3:]).flatten() == 1]

    def view(self, y: Tensor) -> Tensor:
        """Return the measurement itself: missing pixels are black."""
        return y


class Blur(nn.Module):
    """A(x) = k * x, a convolution of each channel with a kernel (h, w) of odd sides; the picture goes on as its mirror
    image beyond its edges, without repeating the pixel on the edge.
    """

    def __init__(self, kernel: Tensor):
        super().__init__()
        if not all(side % 2 for side in kernel.shape):
            raise ValueError(f"a kernel of {tuple(kernel.shape)} has no pixel in its middle")
        self.register_buffer("kernel", kernel.flip(0, 1)[None, None], persistent=False)     # conv2d does not flip it

    def forward(self, x: Tensor) -> Tensor:
        h, w = (side // 2 for side in self.kernel.shape[2:])
        x = nn.functional.pad(x, (w, w, h, h), mode="reflect")
        return nn.functional.conv2d(x, self.kernel.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])

    def view(self, y: Tensor) -> Tensor:
        """Return the measurement itself."""
        return y


def lanczos2(factor: int) -> Tensor:
    """Return the taps of the Lanczos-2 low-pass for down-sampling by a whole factor, normalised to sum 1.

    w(d) = sinc(d) sinc(d / 2) for |d| < 2, d being the distance in pixels of the small picture. An even factor puts the
    centre between two pixels ("phase 1/2": 4 * factor taps), an odd one on a pixel (4 * factor - 1 taps).
    Source: the down-sampler of Ulyanov et al., Deep Image Prior, 2018.
    """
    taps = 4 * factor - factor % 2
    d = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / factor
    w = torch.sinc(d) * torch.sinc(d / 2)
    return w / w.sum()


class Downsample(nn.Module):
    """Lanczos-2 down-sampling of an (H, W) picture by a whole factor that divides both sides; edges are replicated.

    It is separable and runs as one small matrix a side, so that it is exact, differentiable and deterministic on every
    device: A(x) = R x C^T.
    """

    kind = "downsampling"

    def __init__(self, factor: int, height: int, width: int):
        super().__init__()
        if height % factor or width % factor:
            raise ValueError(f"{width}x{height} is not a multiple of {factor}")
        self.factor = factor
        self.register_buffer("rows", _matrix(factor, height), persistent=False)
        self.register_buffer("columns", _matrix(factor, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns.mT

    def view(self, y: Tensor) -> Tensor:
        """Return the small picture enlarged by bicubic interpolation."""
        return nn.functional.interpolate(y, scale_factor=self.factor, mode="bicubic").clamp(0, 1)


def _matrix(factor: int, size: int) -> Tensor:
    """Return the (size / factor, size) matrix: filter by `lanczos2` with replicated edges, keep each factor-th."""
    taps = lanczos2(factor)
    first = -math.floor((len(taps) - factor) / 2)          # centre of the window = centre of the `factor` pixels
    matrix = torch.zeros(size // factor, size, dtype=torch.float64)
    for row in range(size // factor):
        columns = (torch.arange(len(taps)) + row * factor + first).clamp(0, size - 1)
        matrix[row].index_add_(0, columns, taps)
    return matrix.float()
