"""A network whose weights are mostly zero, computed on a CPU over those that are kept."""
import ctypes
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lipfw.kernel.graph import Conv, Unsupported, read, structure
from lipfw.kernel.program import Program
from lipfw.kernel.weights import Packed, Taps, live_weights


class SparseNetwork:
    """The kept weights of a network in one vector, with a program for each size of code; batch norm in training mode.

    `masks` are boolean tensors by weight name; a convolution that is not among them keeps everything. `forward(code)`
    returns the output, which the next call overwrites; `backward(gradient)` then returns the gradient of `weights`,
    which the next call overwrites. Running statistics go to the network's own buffers, except those of channels that
    nothing reads, and in running means without what constant channels add; its parameters are touched by nobody.

    Raises Unsupported for a network with other layers than these kernels have.
    """

    def __init__(self, library: ctypes.CDLL, network: nn.Module, masks: Mapping[str, Tensor],
                 codes: Iterable[torch.Size]):
        parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
        layers = {code: read(network, code) for code in sorted(set(codes), key=lambda c: -c.numel())}
        first = next(iter(layers.values()))
        if any(structure(its) != structure(first) for its in layers.values()):
            raise Unsupported("the network depends on the size of its code")
        kept = {la.weight: masks[la.weight].cpu().numpy() if la.weight in masks
                else np.ones(parameters[la.weight].shape, bool) for la in first if isinstance(la, Conv)}
        live, _ = live_weights(first, kept)
        taps = {la.weight: Taps(la, live[la.weight], library.lipfw_tile()) for la in first if isinstance(la, Conv)}
        # kept weights that have no effect come last: nothing moves them but what Adam remembers
        self.packed = Packed(parameters, {n: np.concatenate([t.position, np.flatnonzero(kept[n] & ~live[n])])
                                          for n, t in taps.items()})
        self.weights = torch.zeros(self.packed.size)
        self.programs = {code: Program(library, its, self.packed, self.weights, taps, live_weights(its, kept)[1],
                                       buffers) for code, its in layers.items()}
        self._last: Program | None = None

    def forward(self, code: Tensor) -> Tensor:
        self._last = self.programs[code.shape]
        return self._last.forward(code)

    def backward(self, gradient: Tensor) -> Tensor:
        self._last.backward(gradient)
        return self._last.gradient
