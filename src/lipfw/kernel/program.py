"""A network as a program for one size of picture: planes, kernels in order, and the gradients on the way back."""
import ctypes
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lipfw.kernel.graph import Conv, Map, Norm
from lipfw.kernel.weights import Packed, Taps, offsets

_HALO = {None: 0, "reflect": 1, "zeros": 2}


class CNorm(ctypes.Structure):
    """`Norm` of kernels.cpp."""

    _fields_ = [*((n, ctypes.c_int32) for n in ("height", "width", "channels", "doubled", "halo", "add")),
                ("channel", ctypes.c_void_p), ("in_", ctypes.c_void_p), ("in_stride", ctypes.c_int64),
                ("in_pitch", ctypes.c_int64), ("out", ctypes.c_void_p), ("out_stride", ctypes.c_int64),
                ("out_pitch", ctypes.c_int64),
                *((n, ctypes.c_void_p) for n in ("gamma", "beta", "bias", "mean", "scale", "running_mean",
                                                 "running_variance")),
                *((n, ctypes.c_float) for n in ("momentum", "epsilon", "before", "after")),
                ("out_gradient", ctypes.c_void_p), ("in_gradient", ctypes.c_void_p),
                ("gradient_stride", ctypes.c_int64), ("gradient_pitch", ctypes.c_int64),
                ("gamma_gradient", ctypes.c_void_p), ("beta_gradient", ctypes.c_void_p)]


class Planes:
    """Feature planes in memory: `channels` of them, `stride` floats apart, with rows of `pitch` floats.

    Row 0, column 0 of the picture lies `first` floats after a plane's begin; a halo, a front of zeros or nothing is
    before it. Behind the last plane there is room to read a whole tile too far.
    """

    def __init__(self, tensor: Tensor, channels: int, height: int, width: int, stride: int, pitch: int, first: int = 0):
        self.tensor, self.stride, self.pitch, self.first = tensor, stride, pitch, first
        self.channels, self.height, self.width = channels, height, width

    @property
    def address(self) -> int:
        return self.tensor.data_ptr()

    def picture(self) -> Tensor:
        """Return the pixels as a view (1, channels, height, width)."""
        return self.tensor.as_strided((1, self.channels, self.height, self.width),
                                      (self.channels * self.stride, self.stride, self.pitch, 1), self.first)


class Memory:
    """Makes planes; those of gradients are used again once they have been read."""

    def __init__(self, slack: int):
        self.slack, self._free = slack, {}

    def planes(self, channels: int, height: int, width: int, stride: int, pitch: int, first: int = 0, *,
               halo: bool = False) -> Planes:
        """Return planes; around their pixels are zeros, unless there is a `halo` that may hold anything."""
        layout = (channels, height, width, stride, pitch, first)
        if self._free.get((*layout, halo)):
            return self._free[*layout, halo].pop()
        return Planes(torch.zeros(channels * stride + self.slack), *layout)

    def give_back(self, p: Planes, *, halo: bool = False) -> None:
        """Offer planes of which nothing but pixels was written, and the halo if there is one, to others."""
        layout = (p.channels, p.height, p.width, p.stride, p.pitch, p.first)
        self._free.setdefault((*layout, halo), []).append(p)

    def map(self, m: Map, stride: int) -> Planes:
        """Return planes for a map or its gradient, with a halo if its readers want it padded."""
        halo = bool(m.pad)
        pitch = m.width + 2 * halo
        return self.planes(m.channels, m.height, m.width, stride, pitch, halo * (pitch + 1), halo=halo)


def spread(floats: int) -> int:
    """Return a stride of at least so many floats at which planes do not compete for the same cache lines."""
    return floats if floats < 512 else floats + (240 - floats) % 512


class Program:
    """Forward and backward of a network's layers for codes of one size; weights in a vector that `packed` describes.

    `forward(code)` returns the output (1, C, H, W), a view that the next call overwrites. `backward(gradient)` writes
    the gradient of every unknown to `self.gradient`, a vector like the weights, once after each forward. `buffers` are
    the network's own, whose running statistics are kept up.
    """

    def __init__(self, library: ctypes.CDLL, layers: Sequence[Conv | Norm], packed: Packed, weights: Tensor,
                 taps: Mapping[str, Taps], used: Mapping[Map, np.ndarray], buffers: Mapping[str, Tensor]):
        self.library, self.packed, self.weights, self.taps = library, packed, weights, taps
        self.gradient = torch.zeros_like(weights)
        self.used, self.buffers = used, buffers
        widest = max(m.width for m in (layers[0].source, *(layer.out for layer in layers)))
        self.memory = Memory(slack=library.lipfw_tile() + 4 * (widest + 2))
        self.maps: dict[Map, Planes] = {}           # what each map holds
        self.gradients: dict[Map, Planes] = {}      # and its gradient, while that is needed
        self.code, self.pad = self.map(layers[0].source), _HALO[layers[0].source.pad]
        self.makers: dict[Map, ConvStep | NormStep] = {}
        for layer in layers:
            self.makers[layer.out] = (ConvStep if isinstance(layer, Conv) else NormStep)(self, layer)
        self.steps = list(self.makers.values())
        self.output = self.maps[layers[-1].out]
        self.output_gradient = self.steps[-1].take_gradient()
        for step in reversed(self.steps):
            step.plan_backward()
        del self.taps

    def forward(self, code: Tensor) -> Tensor:
        self.library.lipfw_threads(torch.get_num_threads())
        code = code.float().contiguous()
        c = self.code
        self.library.lipfw_pad(code.data_ptr(), c.address, c.stride, c.channels, c.height, c.width, self.pad)
        for step in self.steps:
            step.forward()
        return self.output.picture()

    def backward(self, gradient: Tensor) -> None:
        self.output_gradient.picture().copy_(gradient)
        for step in reversed(self.steps):
            step.backward()

    def address(self, name: str | None, gradient: bool = False) -> int | None:
        """Return where a parameter lies in the vector of weights, or of gradients."""
        if name is None:
            return None
        return (self.gradient if gradient else self.weights).data_ptr() + 4 * self.packed.slices[name].start

    def map(self, m: Map) -> Planes:
        """Return new planes for a map, with its halo if it has one."""
        size = (m.height + 2 * bool(m.pad)) * (m.width + 2 * bool(m.pad))
        self.maps[m] = self.memory.map(m, spread(size))
        return self.maps[m]

    def gradient_of(self, m: Map) -> tuple[Planes, bool]:
        """Return the planes of a map's gradient, and whether a reader before has written there.

        Where one convolution alone reads the map it is the map's own: it has done with it when it writes there.
        """
        there = m in self.gradients
        if not there:
            alone = len(m.readers) == 1 and isinstance(m.readers[0], Conv) and m.readers[0].stride == 1
            self.gradients[m] = self.maps[m] if alone else self.memory.map(m, self.maps[m].stride)
        return self.gradients[m], there


class ConvStep:
    """A convolution over its kept weights alone."""

    def __init__(self, program: Program, layer: Conv):
        self.program, self.layer, self.library = program, layer, program.library
        self.taps = taps = program.taps[layer.weight]
        source, halo, memory = program.maps[layer.source], bool(layer.source.pad), program.memory
        rows, columns = layer.source.height + 2 * halo, layer.source.width + 2 * halo
        self.size = rows, columns                   # of a padded plane
        self.split = layer.stride == 2
        if self.split:
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
            self.input = memory.planes(taps.planes, rows, columns, spread(rows * columns), columns)
        else:
            self.input = source
        self.source = source
        self.positions, self.all_positions = (layer.out.height - 1) * columns + layer.out.width, rows * columns
        out = layer.out
        self.out = memory.planes(out.channels, out.height, out.width, spread(self.positions), columns)
        program.maps[out] = self.out
        self.shift = taps.shift(columns)
        self.bias = program.address(layer.bias) if not out.readers else None    # batch norm takes it away again
        lead = taps.forward.lead
        offset = offsets(taps.plane[lead], self.input.stride, self.shift[lead])
        self.weights = taps.forward.c(offset, program.address(layer.weight))

    def take_gradient(self) -> Planes:
        """Return planes for the gradient of what this makes: zeros around the pixels, as far as taps reach.

        Where there is nothing around them they are those that it makes: a batch norm is done with a value when it
        writes its gradient.
        """
        out, front = self.layer.out, int(self.shift.max(initial=0))
        if front == 0 and self.out.pitch == out.width and out.readers:
            self.gradient = self.out
            return self.gradient
        self.gradient = self.program.memory.planes(out.channels, out.height, out.width,
                                                   spread(front + self.all_positions), self.out.pitch, front)
        return self.gradient

    def plan_backward(self) -> None:
        program, taps, g = self.program, self.taps, self.gradient
        memory = program.memory
        self.needed = self.layer.source.maker is not None
        if self.needed:
            self.into, self.add = program.gradient_of(self.layer.source)
            i = self.input
            self.input_gradient = memory.planes(i.channels, i.height, i.width, i.stride, i.pitch) if self.split \
                else self.into
            self.order = taps.backward.order
            lead = self.order[taps.backward.lead]
            offset = offsets(taps.row[lead], g.stride, g.first - self.shift[lead])
            self.values = torch.empty(len(self.order))
            self.back_weights = taps.backward.c(offset, self.values.data_ptr())
            if self.split:
                memory.give_back(self.input_gradient)
        if g is not self.out:
            memory.give_back(g)
        del self.taps, self.shift       # large, and needed no more

    def forward(self) -> None:
        if self.split:
            self.library.lipfw_split(self.source.address, self.source.stride, self.source.channels, *self.size,
                                     self.input.address, self.input.stride)
        self.library.lipfw_conv(self.input.address, self.weights, self.bias, self.out.address, self.out.stride,
                                self.positions, 0)

    def backward(self) -> None:
        program, library, g = self.program, self.library, self.gradient
        library.lipfw_weights(self.input.address, g.address + 4 * g.first, g.stride, self.weights,
                              program.address(self.layer.weight, gradient=True), self.positions)
        if self.needed:     # last, for this may be written where the input lies
            library.lipfw_gather(program.address(self.layer.weight), self.order.ctypes.data, self.values.data_ptr(),
                                 len(self.order))
            into = self.input_gradient
            library.lipfw_conv(g.address, self.back_weights, None, into.address, into.stride, self.all_positions,
                               self.add and not self.split)
            if self.split:
                library.lipfw_join(into.address, into.stride, self.into.address, self.into.stride,
                                   self.into.channels, *self.size, self.add)
        if self.bias is not None:
            where = program.packed.slices[self.layer.bias]
            torch.sum(g.picture(), (0, 2, 3), out=program.gradient[where])


class NormStep:
    """A batch norm with what stands around it; each of its sources is a range of its channels."""

    def __init__(self, program: Program, layer: Norm):
        self.program, self.layer = program, layer
        out = program.map(layer.out)
        statistics = torch.empty(2, layer.out.channels)
        self.statistics, self.parts, first = statistics, [], 0
        for source, doubled, before in layer.sources:
            p = program.maps[source]
            used = np.flatnonzero(program.used[layer.out][first:first + source.channels]).astype(np.int32)
            bias = source.maker.bias if isinstance(source.maker, Conv) else None

            def at(address: int | None, start: int = first) -> int | None:
                return None if address is None else address + 4 * start

            def running(name: str | None, start: int = first) -> int | None:
                return None if name is None else program.buffers[name].data_ptr() + 4 * start

            c = CNorm(
                height=layer.out.height, width=layer.out.width, channels=len(used), doubled=doubled,
                halo=_HALO[layer.out.pad], channel=used.ctypes.data,
                in_=p.address + 4 * p.first, in_stride=p.stride, in_pitch=p.pitch,
                out=out.address + 4 * first * out.stride, out_stride=out.stride, out_pitch=out.pitch,
                gamma=at(program.address(layer.gamma)), beta=at(program.address(layer.beta)),
                bias=program.address(bias), mean=at(statistics[0].data_ptr()), scale=at(statistics[1].data_ptr()),
                running_mean=running(layer.mean), running_variance=running(layer.variance), momentum=layer.momentum,
                epsilon=layer.epsilon, before=before, after=layer.after,
                gamma_gradient=at(program.address(layer.gamma, True)),
                beta_gradient=at(program.address(layer.beta, True)))
            c.arrays = used     # alive as long as it is
            self.parts.append((c, source, used, first))
            first += source.channels
        self.norms = [c for c, _, _, _ in self.parts]

    def plan_backward(self) -> None:
        program, own = self.program, self.program.gradients.pop(self.layer.out)
        self.to_clear = []
        for c, source, used, first in self.parts:
            if isinstance(source.maker, Conv):
                g, c.add = program.makers[source].take_gradient(), 0
            else:
                g, c.add = program.gradient_of(source)
                if not c.add and (source.pad or len(used) < source.channels):   # nobody here writes all of it
                    self.to_clear.append(g)
                    c.add = 1
            c.out_gradient = own.address + 4 * first * own.stride
            c.in_gradient, c.gradient_stride, c.gradient_pitch = g.address + 4 * g.first, g.stride, g.pitch
        if own is not program.maps[self.layer.out]:
            program.memory.give_back(own, halo=bool(self.layer.out.pad))
        del self.parts

    def forward(self) -> None:
        for c in self.norms:
            self.program.library.lipfw_norm_forward(c)

    def backward(self) -> None:
        for g in self.to_clear:
            g.tensor.zero_()
        for c in self.norms:
            self.program.library.lipfw_norm_backward(c)

