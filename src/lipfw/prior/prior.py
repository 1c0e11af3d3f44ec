"""A prior: a network, and the code z that it turns into a picture."""
import importlib
import pkgutil
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

import lipfw.prior
from lipfw.errors import InputError, choice, flag, number, whole
from lipfw.streams import stream, stream_seed

MOST_CHANNELS, MOST_SCALES = 65536, 32      # of a network that a file tells of
_FROM_0 = ("cell", "skips")               # its arguments that count from 0


class Prior(nn.Module):
    """f(z; theta) for one or more pictures: one network, codes z, weights unknown.

    The network's output passes through a sigmoid (part of the prior and not of the network, so that pruners may look at
    the unsquashed output) and is cut to the picture's size, evenly on all sides: a network that needs multiples of some
    size makes more than is asked for, and what is cut off meets no loss.

    `shapes` are (C, H, W) of the pictures, `codes` their (1, c, h, w) inputs: one each, or one for all pictures, which
    then share the network's output too. `jitter` is the standard deviation of the Gaussian noise added to the code at
    each step. With `redraw` each round has codes of its own, as in the published code; else all have the same.
    Without `sigmoid` the network's output is the picture as it is, not held in (0, 1).
    `architecture` tells which network it is, for tickets. With `bf16` set the network computes in bfloat16, its weights
    and its output staying float32.
    """

    bf16 = False
    fits = "weights"                    # what a fit seeks: the network's weights, or the code; or nothing
    at_once = 1                         # pictures of which a step holds the graphs at one time
    search = None                       # how another network is to be found before anything is fitted (`isnas`)

    def __init__(self, network: nn.Module, codes: Sequence[Tensor], shapes: Sequence[tuple[int, int, int]], *,
                 jitter: float = 0.0, seed: int = 0, redraw: bool = False, architecture: Mapping | None = None,
                 sigmoid: bool = True):
        super().__init__()
        self.network = network
        self.critic: nn.Module | None = None        # what a generator was, or is to be, trained against
        self.shapes = [tuple(s) for s in shapes]
        self.jitter = number("prior.jitter", jitter, 0, 10)
        self.seed = whole("prior.seed", seed, least=0)
        self.redraw = flag("prior.redraw", redraw)
        self.sigmoid = flag("prior.sigmoid", sigmoid)
        self.architecture = dict(architecture or {})
        if len(codes) not in (1, len(shapes)):
            raise ValueError(f"{len(codes)} codes for {len(shapes)} pictures")
        # of each code, the pictures that are made of it
        self.pictures_of = [[i] for i in range(len(codes))] if len(codes) > 1 else [list(range(len(shapes)))]
        for i, code in enumerate(codes):        # derived from the seed: no need to store them in checkpoints
            self.register_buffer(f"code{i}", code, persistent=False)

    def code(self, index: int = 0, noise: int | torch.Generator | None = None) -> Tensor:
        """Return a code, with jitter if `noise` is an optimisation step or a generator to draw from."""
        z = getattr(self, f"code{index}")
        if noise is None or not self.jitter:
            return z
        if not isinstance(noise, torch.Generator):
            noise = torch.Generator(z.device).manual_seed(self.jitter_seed(index, noise))
        return torch.add(z, torch.empty_like(z).normal_(generator=noise), alpha=self.jitter)

    def jitter_seed(self, index: int, step: int) -> int:
        """Return what a generator is seeded with to draw the jitter of a code at an optimisation step."""
        return stream_seed(self.seed, f"jitter {index}", step)

    def forward(self, index: int = 0, noise: int | torch.Generator | None = None) -> Tensor:
        """Return a picture (1, C, H, W) in (0, 1), made of its code; `noise` as in `code`."""
        return self.squash(self.unsquashed(self.code(self.code_of(index), noise)), index)

    def code_of(self, picture: int) -> int:
        """Return which code a picture is made of."""
        return picture if len(self.pictures_of) > 1 else 0

    def start_round(self, round_: int) -> None:
        """Draw the codes of a round, if each has its own."""
        if self.redraw:
            for i in range(len(self.pictures_of)):
                z = self.code(i)
                z.copy_(uniform_code(*z.shape[1:], self.seed, i, round_))

    def squash(self, output: Tensor, index: int = 0) -> Tensor:
        """Return the picture of a network's output: through the sigmoid, if there is one, and cut."""
        picture = torch.sigmoid(output) if self.sigmoid else output
        _, h, w = self.shapes[index]
        top, left = (picture.shape[2] - h) // 2, (picture.shape[3] - w) // 2
        return picture[:, :, top:top + h, left:left + w]

    def unsquashed(self, code: Tensor) -> Tensor:
        """Return what the network makes of a code, in float32."""
        if not self.bf16:
            return self.network(code)
        with torch.autocast(code.device.type, torch.bfloat16):
            # channels last suits bfloat16 convolutions; the code is made contiguous, where noise is drawn fast
            made = self.network(code.contiguous(memory_format=torch.channels_last) if code.dim() == 4 else code)
        return made.float().contiguous()    # a sigmoid of bfloat16 would give pictures of 8 bits

    def unknowns(self) -> list[nn.Parameter]:
        """Return what the fit may change: the network's weights."""
        return list(self.network.parameters())

    def start(self) -> dict[str, Tensor]:
        """Return a copy of what a rewind must restore besides the network: codes, where they are sought."""
        return {}

    def restart(self, start: dict[str, Tensor]) -> None:
        """Go back to what `start` returned."""


def rebuild(architecture: Mapping) -> nn.Module:
    """Return the network that `Prior.architecture` tells of, on torch's meta device: its structure, no weights.

    `architecture["network"]` names a module of this package, whose `NETWORK` is called with the other entries; the
    network's `code_channels` says what code it takes. Raises InputError for another name, for arguments that the
    network refuses, and for code of a user's own: what a file names is not executed.
    """
    if architecture.get("network") == "custom":
        raise InputError(f"its network is its user's own, {architecture.get('path')!r}, and no code is executed that a "
                         "ticket names")
    names = sorted(m.name for m in pkgutil.iter_modules(lipfw.prior.__path__) if m.name not in ("prior", "none"))
    arguments = dict(architecture)
    for name, value in arguments.items():       # it is what a file says: a depth of a million would be built
        for number_ in value if isinstance(value, list) else [value]:
            least, most = int(name not in _FROM_0), MOST_SCALES if name == "depth" else MOST_CHANNELS
            flags = name == "unused" and type(number_) is bool
            if name != "network" and not flags and not (type(number_) is int and least <= number_ <= most):
                raise InputError(f"no network can be built from the architecture {repr(arguments)[:200]}: {name} must "
                                 f"be whole, at least {least} and at most {most}")
    module = importlib.import_module(f"lipfw.prior.{choice('the network', arguments.pop('network', None), names)}")
    try:
        with torch.device("meta"):
            return module.NETWORK(**arguments)
    except (AttributeError, TypeError, ValueError, RuntimeError) as e:
        reason = str(e).split("\n")[0]
        raise InputError(f"no network can be built from the architecture {dict(architecture)}: {reason}") from None


def uniform_codes(sizes: Sequence[tuple[int, int, int]], code: str, seed: int) -> list[Tensor]:
    """Return codes of these (c, h, w) sizes: one for each picture (`code` "own"), or one for all ("shared").

    Raises InputError for pictures that can't share one.
    """
    if choice("prior.code", code, ("own", "shared")) == "shared":
        if len(set(sizes)) > 1:
            raise InputError(f"prior.code=shared needs pictures of one size, their codes would be "
                             f"{', '.join(sorted({f'{w}x{h}' for _, h, w in sizes}))}; use prior.code=own, or "
                             "image.size= to have one size")
        sizes = sizes[:1]
    return [uniform_code(*size, seed, i) for i, size in enumerate(sizes)]


def uniform_code(channels: int, height: int, width: int, seed: int, index: int, round_: int = 0) -> Tensor:
    """Return z ~ U(0, 0.1) of shape (1, channels, height, width), the deep image prior's input."""
    return torch.rand(1, channels, height, width, generator=stream(seed, f"code {index}", round_)) * 0.1


def round_up(size: int, multiple: int) -> int:
    """Return the next multiple.

    >>> round_up(33, 32)
    64
    """
    return -(-size // multiple) * multiple


def one_channel_count(shapes: Sequence[tuple[int, int, int]]) -> int:
    """Return the number of channels that all pictures have; ValueError if they differ."""
    counts = {s[0] for s in shapes}
    if len(counts) != 1:
        raise ValueError(f"one network can't make pictures of {sorted(counts)} channels")
    return counts.pop()
