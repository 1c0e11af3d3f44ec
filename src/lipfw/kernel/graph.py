"""Reading a network as a list of convolutions and batch norms with what stands between them.

The network is run once without memory or arithmetic (on torch's meta device) while its operators are written down, so
any Python may decide how they follow each other. What is understood: convolutions of 1x1 and 3x3 taps with stride 1 or
2, the former unpadded, the latter padded by one pixel (reflection or zeros); batch norm in training mode; (leaky) ReLU;
bilinear doubling; concatenation; and crops that cut nothing off. Anything else raises Unsupported.
"""
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Unsupported(Exception):
    """The network has something that these kernels don't do; the text says what."""


@dataclass(eq=False)
class Map:
    """A feature map (channels, height, width) that one layer makes and others read; the first map is the code.

    `pad` is how its readers want it padded by one pixel: None, "reflect" or "zeros".
    """

    channels: int
    height: int
    width: int
    maker: "Conv | Norm | None" = None
    readers: list["Conv | Norm"] = field(default_factory=list)
    pad: str | None = None


@dataclass(eq=False)
class Conv:
    """A convolution of a map, by the names of its parameters."""

    weight: str
    bias: str | None
    taps: int               # a side of the kernel: 1 or 3
    stride: int
    source: Map
    out: Map


@dataclass(eq=False)
class Norm:
    """A batch norm over concatenated sources: (map, whether it is doubled in size, slope of a leaky ReLU after that).

    `after` is the slope of the leaky ReLU that follows; 1 is none, 0 is ReLU.
    """

    gamma: str
    beta: str
    mean: str | None        # running statistics
    variance: str | None
    momentum: float
    epsilon: float
    sources: list[tuple[Map, bool, float]]
    out: Map
    after: float = 1.0


@dataclass(frozen=True)
class _Pending:
    """What an operator returned that is no map yet: maps, each with doubling and slope, or one with padding."""

    sources: tuple[tuple[Map, bool, float], ...]
    pad: str | None = None


@dataclass(frozen=True)
class _Unknown:
    what: str


def read(network: nn.Module, code: torch.Size) -> list[Conv | Norm]:
    """Return the layers of a network for a code of this (1, c, h, w) shape, in the order of their computation.

    The last one is a convolution that makes the network's output. Raises Unsupported.
    """
    if len(code) != 4 or code[0] != 1:
        raise Unsupported(f"a code of shape {tuple(code)}, not one of (1, c, h, w)")
    _check_tensors(network)
    with torch.device("meta"):
        z = torch.empty(code)
    try:
        ghost = copy.deepcopy(network).to("meta")
        recorder = _Recorder(ghost, z)
        with recorder, torch.no_grad():
            output = ghost(z)
    except Unsupported:
        raise
    except Exception as e:      # a network may run any Python
        raise Unsupported(f"the network can't be followed without its numbers: {e}") from e
    recorder.finish(ghost, output)
    return recorder.layers


def structure(layers: Sequence[Conv | Norm]) -> list[tuple]:
    """Return all of the layers but the sizes of their maps: it must not depend on the size of the code."""
    number = {layer.out: i for i, layer in enumerate(layers)}

    def common(layer: Conv | Norm) -> tuple:
        sources = layer.sources if isinstance(layer, Norm) else [(layer.source, False, 1.0)]
        own = [getattr(layer, f.name) for f in fields(layer) if f.name not in ("source", "sources", "out")]
        return (*own, layer.out.pad, *((number.get(m, -1), m.channels, *how) for m, *how in sources))

    return [common(layer) for layer in layers]


def _check_tensors(network: nn.Module) -> None:
    """Refuse what the kernels can't be given: shared, frozen, or other than 32-bit floats."""
    owner = {}
    for where, module in network.named_modules():
        for name, t in [*module.named_parameters(where, recurse=False), *module.named_buffers(where, recurse=False)]:
            if id(t) in owner:
                raise Unsupported(f"{owner[id(t)]} and {name} are one")
            owner[id(t)] = name
            if t.is_floating_point() and t.dtype != torch.float32:
                raise Unsupported(f"{name} is {t.dtype}, not torch.float32")
            if isinstance(t, nn.Parameter) and not t.requires_grad:
                raise Unsupported(f"{name} is frozen")


class _Recorder(TorchFunctionMode):
    """Writes down the operators as they run; tensors are told apart by identity, so all of them are kept alive.

    What changes a tensor in place, through whichever view, shows in the version that torch counts for it.
    """

    def __init__(self, network: nn.Module, code: Tensor):
        super().__init__()
        self.parameters = {id(p): n for n, p in network.named_parameters()}
        self.buffers = {id(b): n for n, b in network.named_buffers()}
        self.used: set[str] = set()
        self.layers: list[Conv | Norm] = []
        self.found: dict[int, _Pending | _Unknown] = {id(code): _Pending(((Map(*code.shape[1:]), False, 1.0),))}
        self.alive: list[Tensor] = [code]
        self.version = {id(t): t._version for t in [code, *network.parameters()]}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _UNSEEN:
            raise Unsupported("the network uses the .data of a tensor, which can be changed unseen")
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and id(result) not in self.parameters | self.buffers:
            name = getattr(func, "__name__", str(func))
            handler = _HANDLERS.get(func)
            try:
                meaning = handler(self, result, *args, **kwargs) if handler else _Unknown(name)
            except TypeError:       # arguments that the handler does not know
                meaning = _Unknown(name)
            self.found[id(result)], self.version[id(result)] = meaning, result._version
            self.alive.append(result)
        return result

    def pending(self, tensor: Tensor, what: str, changes: int = 0) -> _Pending:
        """Return the meaning of a tensor that was changed so many times since it has it."""
        meaning = self.found.get(id(tensor), _Unknown("a constant"))
        if isinstance(meaning, _Unknown):
            raise Unsupported(f"{what} comes from {meaning.what}")
        if tensor._version != self.version[id(tensor)] + changes:
            raise Unsupported(f"{what} was changed in place")
        return meaning

    def single(self, sources: Sequence[tuple[Map, bool, float]], what: str) -> Map:
        """Return the one map that sources are, with nothing done to it."""
        if len(sources) != 1 or sources[0][1:] != (False, 1.0):
            raise Unsupported(f"{what} is no plain feature map")
        return sources[0][0]

    def name(self, tensor: Tensor | None, names: Mapping[int, str], what: str) -> str | None:
        """Return the name of a layer's own parameter or buffer."""
        if tensor is None:
            return None
        name = names.get(id(tensor))
        if name is None:
            raise Unsupported(f"{what} is none of the network's own")
        if name in self.used:
            raise Unsupported(f"{name} is used twice")
        self.used.add(name)
        return name

    def finish(self, network: nn.Module, output) -> None:
        """Refuse a network whose output is not what its last layer makes of all the others."""
        if not isinstance(output, Tensor):
            raise Unsupported(f"the network returns a {type(output).__name__}, not a tensor")
        meaning = self.pending(output, "the output")
        last = self.single(meaning.sources, "the output")
        if not isinstance(last.maker, Conv) or last.readers or meaning.pad:
            raise Unsupported("the network does not end in a convolution")
        if isinstance(self.layers[0], Norm):
            raise Unsupported("the network begins with a batch norm")
        for layer in self.layers:
            name, readers = layer.weight if isinstance(layer, Conv) else layer.gamma, len(layer.out.readers)
            if not readers and layer.out is not last:
                raise Unsupported(f"the output of {name} is not used")
            if readers > 1 and isinstance(layer, Conv):
                raise Unsupported(f"the output of {name} is used twice")
        for p in network.parameters():
            name = self.parameters[id(p)]
            if name not in self.used or p._version != self.version[id(p)]:
                raise Unsupported(f"{name} is {'changed in place' if name in self.used else 'not used'}")

    # --- one method an operator: its meaning, from the arguments that torch was given

    def conv(self, result, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        name = self.name(weight, self.parameters, "the weight of a convolution")
        taps, stride, padding, dilation = (_pair(name, v) for v in (tuple(weight.shape[2:]), stride, padding, dilation))
        meaning = self.pending(x, f"the input of {name}")
        pad = meaning.pad or ("zeros" if padding else None)
        if (taps, padding + bool(meaning.pad)) not in ((1, 0), (3, 1)) or stride not in (1, 2) or dilation != 1 \
                or groups != 1 or (meaning.pad and padding):
            raise Unsupported(f"{name} is {taps}x{taps} with stride {stride}, padding {padding}, dilation {dilation} "
                              f"and {groups} groups")
        source = self.single(meaning.sources, f"the input of {name}")
        if isinstance(source.maker, Conv):
            raise Unsupported(f"{name} follows a convolution without batch norm between them")
        if pad and source.pad not in (None, pad):
            raise Unsupported(f"{name} pads with {pad} what another convolution pads with {source.pad}")
        source.pad = source.pad or pad
        bias = self.name(bias, self.parameters, f"the bias beside {name}")
        layer = Conv(name, bias, taps, stride, source, Map(*result.shape[1:]))
        return self._add(layer, [source])

    def norm(self, result, x, mean, variance, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        if not training or weight is None or bias is None:
            raise Unsupported("a batch norm without weights, or not in training mode")
        name = self.name(weight, self.parameters, "the weight of a batch norm")
        meaning = self.pending(x, f"the input of {name}")
        if meaning.pad:
            raise Unsupported(f"the input of {name} is padded")
        for m, _, before in meaning.sources:
            if isinstance(m.maker, Conv) and m.maker.bias and before != 1.0:
                raise Unsupported(f"{m.maker.bias} is followed by an activation before batch norm")
        bias = self.name(bias, self.parameters, f"the bias beside {name}")
        mean, variance = (self.name(t, self.buffers, f"a statistic beside {name}") for t in (mean, variance))
        layer = Norm(name, bias, mean, variance, momentum, eps, list(meaning.sources), Map(*result.shape[1:]))
        return self._add(layer, [m for m, _, _ in meaning.sources])

    def leaky(self, result, x, negative_slope=0.01, inplace=False):
        meaning = self.pending(x, "the input of an activation", int(result is x))
        if len(meaning.sources) != 1 or meaning.pad or meaning.sources[0][2] != 1.0 or negative_slope < 0:
            raise Unsupported("an activation after a concatenation, a padding or another activation")
        (out, doubled, _), = meaning.sources
        if not doubled and isinstance(out.maker, Norm):
            if out.readers or out.maker.after != 1.0:
                raise Unsupported(f"the output of {out.maker.gamma} is read with and without its activation")
            out.maker.after = float(negative_slope)
            for i, other in self.found.items():     # what was made of it before has not seen the activation
                if isinstance(other, _Pending) and any(m is out for m, _, _ in other.sources):
                    self.found[i] = _Unknown(f"{out.maker.gamma} without its activation")
            return meaning
        return _Pending(((out, doubled, float(negative_slope)),))

    def relu(self, result, x, inplace=False):
        return self.leaky(result, x, 0.0)

    def interpolate(self, result, x, size=None, scale_factor=None, mode="nearest", align_corners=None, **options):
        meaning = self.pending(x, "the input of an interpolation")
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor,)
        twice = tuple(result.shape[2:]) == tuple(2 * n for n in x.shape[2:]) and all(f in (None, 2) for f in factors)
        if mode != "bilinear" or align_corners or options.get("antialias") or not twice or meaning.pad \
                or len(meaning.sources) != 1 or meaning.sources[0][1:] != (False, 1.0):
            raise Unsupported(f"an interpolation that is not bilinear doubling: {mode}, to {tuple(result.shape[2:])}")
        return _Pending(((meaning.sources[0][0], True, 1.0),))

    def cat(self, result, tensors, dim=0):
        parts = [self.pending(t, "a part of a concatenation") for t in tensors]
        if dim not in (1, -3) or any(p.pad for p in parts):
            raise Unsupported("a concatenation of padded maps, or not over channels")
        return _Pending(tuple(s for p in parts for s in p.sources))

    def pad(self, result, x, pad, mode="constant", value=None):
        meaning = self.pending(x, "the input of a padding")
        kind = {"reflect": "reflect", "constant": "zeros"}.get(mode)
        if tuple(pad) != (1, 1, 1, 1) or kind is None or value or meaning.pad:
            raise Unsupported(f"padding {tuple(pad)} by {mode}")
        return _Pending(meaning.sources, kind)

    def crop(self, result, x, index):
        meaning = self.pending(x, "what is cropped")
        index = index if isinstance(index, tuple) else (index,)
        if result.shape != x.shape or not all(i is ... or isinstance(i, slice) for i in index):
            raise Unsupported(f"an index that cuts or sorts {tuple(x.shape)}")
        return meaning

    def _add(self, layer: Conv | Norm, read: list[Map]) -> _Pending:
        for m in read:
            m.readers.append(layer)
        layer.out.maker = layer
        self.layers.append(layer)
        return _Pending(((layer.out, False, 1.0),))


_HANDLERS = {
    torch.conv2d: _Recorder.conv, F.conv2d: _Recorder.conv, F.batch_norm: _Recorder.norm,
    F.leaky_relu: _Recorder.leaky, F.relu: _Recorder.relu, torch.relu: _Recorder.relu,
    F.interpolate: _Recorder.interpolate, torch.cat: _Recorder.cat, F.pad: _Recorder.pad,
    Tensor.__getitem__: _Recorder.crop,
}
_UNSEEN = {Tensor.data.__get__, Tensor.data.__set__}


def _pair(name: str, value) -> int:
    """Return the one number of a pair of equal ones."""
    pair = (value, value) if isinstance(value, (int, str)) else tuple(value)
    if len(set(pair)) != 1 or isinstance(pair[0], str):
        raise Unsupported(f"{name} is not square: {value}")
    return pair[0]
