"""The operator of compressed sensing: one large random matrix, held once."""
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.autograd import Function

from lipfw.errors import InputError
from lipfw.streams import stream

_SEEN = 3   # `view` clips a measurement at so many medians of their magnitudes


class Gaussian(nn.Module):
    """A(x) = M (2x - 1), M (m, n) with n = C * H * W and entries ~ N(0, variance); rows `ones` are all ones instead.

    (B, C, H, W) in [0, 1] -> (B, m). It measures 2x - 1 in [-1, 1], as published, so that it is affine in x. Row i is
    drawn from (seed, i) alone. With `dtype` float16 the matrix is stored rounded once, the same for measuring and for
    fitting: it is another Gaussian matrix, not a less exact one. Its rows are then converted in small chunks, so that
    all products and sums are in float32 (float64 for such an x): a measurement is off by 4e-6 of the measurements'
    deviation at n = 196,608, as with a float32 matrix. float16 and not bfloat16, since it moves the measurements by
    2e-4 of their deviation and not by 1.5e-3: the published noise is 1e-3.
    Raises InputError where the machine has not the memory.
    """

    def __init__(self, shape: tuple[int, int, int], rows: int, variance: float, *, ones: Iterable[int] = (),
                 seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.shape = tuple(shape)
        matrix = _room(rows, self.shape, dtype)
        norms, ones = torch.empty(rows), set(ones)
        for i, row in enumerate(matrix):
            # drawn in float32 whatever it is stored in, and straight into its place where that is float32
            drawn = row if dtype == torch.float32 else torch.empty(row.shape)
            if i in ones:
                drawn.fill_(1)
            else:
                drawn.normal_(0, variance ** 0.5, generator=stream(seed, "measuring row", i))
            norms[i] = drawn.norm()
            row.copy_(drawn)
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("norms", norms, persistent=False)      # of the rows

    def forward(self, x: Tensor) -> Tensor:
        return _exact(_Product, 2 * x.flatten(1) - 1, self.matrix)

    def view(self, y: Tensor) -> Tensor:
        """Return the back-projection sum_i a_i y_i / |a_i|^2 as pictures (B, C, H, W) in [0, 1]; only to look at.

        This is nearly the smallest picture that measures as y, for rows of one size are nearly orthogonal. Each
        y_i / |a_i| is clipped at three times the median of their magnitudes, lest a corrupted one drown the rest.
        """
        along = y / self.norms
        most = _SEEN * along.abs().median(1, keepdim=True).values
        back = _exact(_BackProduct, along.clamp(-most, most) / self.norms, self.matrix)
        return ((back + 1) / 2).clamp(0, 1).unflatten(1, self.shape)


def _room(rows: int, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
    """Return an empty matrix."""
    c, h, w = shape
    try:
        return torch.empty(rows, c * h * w, dtype=dtype)
    except RuntimeError:
        size = rows * c * h * w * dtype.itemsize / 1e9
        raise InputError(f"task.measurements={rows} of a picture of {w}x{h} pixels make a matrix of {size:,.0f} GB, "
                         "more than this machine has; use fewer, a smaller picture (image.size=) or task.matrix=16"
                         ) from None


def _exact(product: type[Function], v: Tensor, matrix: Tensor) -> Tensor:
    """Return a product in float32 or better, also where a caller's autocast would round its factors."""
    with torch.autocast(v.device.type, enabled=False):
        return product.apply(v if v.dtype == torch.float64 else v.float(), matrix)


class _Product(Function):
    """(B, n), M (m, n) -> (B, m): v M^T, of as high a precision as v, with no copy of M."""

    @staticmethod
    def forward(ctx, v: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(matrix)
        if matrix.dtype == v.dtype:
            return v @ matrix.T
        out = v.new_empty(len(v), len(matrix))
        for where, rows in _converted(matrix, v.dtype):
            out[:, where] = v @ rows.T
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _BackProduct.apply(gradient, *ctx.saved_tensors), None


class _BackProduct(Function):
    """(B, m), M (m, n) -> (B, n): v M, the adjoint. Each is the other's derivative, so that both have any order's."""

    @staticmethod
    def forward(ctx, v: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(matrix)
        if matrix.dtype == v.dtype:
            return v @ matrix
        total = v.new_zeros(len(v), matrix.shape[1])
        for where, rows in _converted(matrix, v.dtype):
            total.addmm_(v[:, where], rows)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _Product.apply(gradient, *ctx.saved_tensors), None


def _converted(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yield a matrix chunk by chunk, as (which rows, these rows); each chunk overwrites the one before.

    One buffer, for malloc does not fit a new chunk into the place of a freed one. As float32 it has 4 MiB, which stay
    in a CPU's cache, or 64 on a GPU, for few launches.
    """
    m, n = matrix.shape
    size = max(1, (2 ** 20 if matrix.device.type == "cpu" else 2 ** 24) // n)
    buffer = matrix.new_empty(min(size, m), n, dtype=dtype)
    for first in range(0, m, size):
        rows = matrix[first:first + size]
        yield slice(first, first + size), buffer[:len(rows)].copy_(rows)
