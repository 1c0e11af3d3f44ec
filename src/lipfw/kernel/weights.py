"""The kept weights of a convolution as sorted lists, and all unknowns of a network as one vector."""
import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipfw.kernel.graph import Conv, Map, Norm, Unsupported

_L1 = 7168              # floats of input that a tile should find in the L1 cache: 28 KiB of 32
_ENOUGH = 6             # weights that pay for fetching and storing a row's sums once more
_MOST = 2 ** 31 - 1     # offsets are 32-bit


class CWeights(ctypes.Structure):
    """`Weights` of kernels.cpp."""

    _fields_ = [("rows", ctypes.c_int32), ("pairs", ctypes.c_int32), ("blocks", ctypes.c_int32),
                ("run", ctypes.c_void_p), ("of_pair", ctypes.c_void_p), ("offset", ctypes.c_void_p),
                ("value", ctypes.c_void_p)]


def planes_in_block(count: int, rows: int, planes: int, tile: int, span: int) -> int:
    """Return how many input planes to work on at a time: as many as fit the L1 cache, more where weights are few.

    `span` is the distance of the outermost taps, in floats.
    """
    fit = max(1, _L1 // (tile + span))
    few = -(-_ENOUGH * rows * planes // max(count, 1))
    return min(planes, max(fit, few))


class Blocks:
    """Weights sorted by (block of input planes, pair of rows), as the kernels read them.

    In a block and pair first come those that both rows have at the same `plane` and `place` (a number for the
    displacement), two by two, then the first row's own, then the second's. `order` sorts them; of the sorted ones,
    `lead` marks those with an offset of their own: all but the second of two. Small integers: there may be millions.
    """

    def __init__(self, row: np.ndarray, plane: np.ndarray, place: np.ndarray, rows: int, planes: int, block: int):
        self.rows, self.pairs, self.blocks = rows, -(-rows // 2), -(-planes // block)
        cell = plane.astype(np.int64) // block * self.pairs + row // 2
        spot = (cell * planes + plane) * (1 + int(place.max(initial=0))) + place    # twins share a spot
        order = np.argsort(2 * spot + row % 2)
        cell, spot = cell[order], spot[order]
        twin = np.zeros(len(row) + 1, bool)
        twin[1:-1] = spot[1:] == spot[:-1]
        kind = np.where(twin[1:] | twin[:-1], 0, 1 + row[order] % 2)     # both, first, second
        stable = np.argsort(3 * cell + kind, kind="stable")
        self.order, self.lead = order[stable].astype(np.int32), ~twin[:-1][stable]
        counts = np.bincount(cell * 3 + kind, minlength=self.blocks * self.pairs * 3).reshape(-1, 3)
        counts[:, 0] //= 2
        run = np.zeros((len(counts), 5), np.int32)
        run[1:, 0] = counts.sum(1).cumsum()[:-1]
        run[1:, 1] = (counts @ (2, 1, 1)).cumsum()[:-1]
        run[:, 2:] = counts
        self.run, self.of_pair = run, np.bincount(row // 2, minlength=self.pairs).astype(np.int32)

    def c(self, offset: np.ndarray, value: int) -> CWeights:
        """Return what the kernels take, for the offsets of the leads and the address of the sorted weights' values."""
        c = CWeights(self.rows, self.pairs, self.blocks, self.run.ctypes.data, self.of_pair.ctypes.data,
                     offset.ctypes.data, value)
        c.arrays = self.run, self.of_pair, offset       # alive as long as it is
        return c


class Taps:
    """The weights of a convolution that are computed with: for each its output row, input plane and displacement.

    A convolution of stride 2 reads its source split into four planes of even and odd rows and columns: plane
    4 c + 2 (row % 2) + column % 2. Weights are in the order of `forward`; `backward` is that of the transposed
    convolution, whose rows are the planes. `position` is a weight's place in the flattened tensor.
    """

    def __init__(self, layer: Conv, live: np.ndarray, tile: int):
        row, channel, y, x = (a.astype(np.int32) for a in np.nonzero(live))
        start = bool(layer.source.pad) - layer.taps // 2    # of a 1x1 convolution, in what others read padded
        down, right = y + start, x + start
        if layer.stride == 2:
            self.planes, plane = 4 * layer.source.channels, 4 * channel + 2 * (down % 2) + right % 2
            down, right = down // 2, right // 2
        else:
            self.planes, plane = layer.source.channels, channel
        rows, span = layer.out.channels, (layer.taps - 1) // layer.stride * (layer.source.width + 3)
        place = down * layer.taps + right
        self.forward = Blocks(row, plane, place, rows, self.planes,
                              planes_in_block(len(row), rows, self.planes, tile, span))
        order = self.forward.order
        del self.forward.order
        self.position = np.flatnonzero(live).astype(np.int32)[order]
        self.row, self.plane, self.down, self.right = (a[order] for a in (row, plane, down, right))
        self.backward = Blocks(self.plane, self.row, place[order], self.planes, rows,
                               planes_in_block(len(row), self.planes, rows, tile, span))

    def shift(self, pitch: int) -> np.ndarray:
        """Return the floats from a plane's position to each weight's tap, for rows of `pitch` floats."""
        return self.down * pitch + self.right


def offsets(plane: np.ndarray, stride: int, within: np.ndarray) -> np.ndarray:
    """Return plane * stride + within as the kernels take it. Raises Unsupported where 32 bits do not suffice."""
    offset = plane.astype(np.int64) * stride + within
    if offset.size and int(offset.max()) > _MOST:
        raise Unsupported("the feature maps are too large")
    return np.ascontiguousarray(offset, np.int32)


class Packed:
    """The unknowns of a network in one vector: of pruned weights the kept ones only, in an order of their own.

    `kept[name]` holds the positions (in the flattened tensor) of the elements that are there; names without an entry
    are there as a whole.
    """

    def __init__(self, parameters: Mapping[str, Tensor], kept: Mapping[str, np.ndarray]):
        self.kept = {n: torch.from_numpy(np.ascontiguousarray(k, np.int32)) for n, k in kept.items()}
        self.slices, end = {}, 0
        for name, p in parameters.items():
            n = self.kept[name].numel() if name in self.kept else p.numel()
            self.slices[name] = slice(end, end + n)
            end += n
        self.size = end

    def pack(self, tensors: Mapping[str, Tensor], into: Tensor) -> None:
        """Copy the elements of tensors of the parameters' shapes into a vector."""
        for name, where in self.slices.items():
            flat = tensors[name].detach().reshape(-1)
            into[where] = flat[self.kept[name]] if name in self.kept else flat

    def unpack(self, vector: Tensor, into: Mapping[str, Tensor]) -> None:
        """Copy a vector back; elements of the tensors that are not in it stay as they are."""
        for name, where in self.slices.items():
            tensor = into[name].detach()
            flat = tensor.reshape(-1)       # a copy of one that is channels-last
            if name in self.kept:
                flat[self.kept[name]] = vector[where]
            else:
                flat.copy_(vector[where])
            if not tensor.is_contiguous():
                tensor.copy_(flat.view(tensor.shape))


def _bent(m: Map) -> bool:
    """Return whether an activation stands between a convolution's map and the batch norm that reads it."""
    return any(before != 1.0 for norm in m.readers for source, _, before in norm.sources if source is m)


def live_weights(layers: Sequence[Conv | Norm],
                 masks: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[Map, np.ndarray]]:
    """Return the masks (O, C, k, k) without weights that change neither the output nor any gradient, and used channels.

    A channel that nothing kept reads has no effect, and one that nothing kept feeds is constant: batch norm after the
    next convolution takes a constant away again, unless zeros pad it or an activation comes first. Both followed to
    their ends.
    """
    live = {n: m.copy() for n, m in masks.items()}
    varies = {layers[0].source: np.ones(layers[0].source.channels, bool)}
    for layer in layers:
        if isinstance(layer, Conv):
            source, m = varies[layer.source], live[layer.weight]
            if layer.source.pad == "zeros":     # a constant has a border
                source = np.ones_like(source)
            if layer.out.readers and not _bent(layer.out):
                m &= source[None, :, None, None]
            varies[layer.out] = (m & source[None, :, None, None]).any((1, 2, 3))
        else:
            varies[layer.out] = np.concatenate([varies[m] for m, _, _ in layer.sources])
    used = {layer.out: np.zeros(layer.out.channels, bool) for layer in layers}
    used[layers[-1].out][:] = True
    used.setdefault(layers[0].source, np.zeros(layers[0].source.channels, bool))
    for layer in reversed(layers):
        out = used[layer.out]
        if isinstance(layer, Conv):
            m = live[layer.weight]
            m &= out[:, None, None, None]
            used[layer.source] |= m.any((0, 2, 3))
        else:
            first = 0
            for m, _, _ in layer.sources:
                used[m] |= out[first:first + m.channels]
                first += m.channels
    return live, used
