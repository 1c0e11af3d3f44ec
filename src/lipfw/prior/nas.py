"""NAS-DIP's networks: an hourglass with a searched up-sampling cell and searched skips (Chen et al., ECCV 2020)."""
import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lipfw.errors import InputError, choice, flag, whole
from lipfw.prior.prior import Prior, one_channel_count, round_up, uniform_codes
from lipfw.prior.skip import conv_block
from lipfw.skips import LEVELS, bits
from lipfw.streams import global_stream

CELLS = 324
_SMALLEST = 2 ** (LEVELS + 1)       # of a code's side: the deepest level's reflection padding needs 2x2 pixels
# the published networks: cell, and for each level j = 1..5 the sources enc0..enc4 that are added there
MODELS = {
    "denoise": (158, ("11111", "01111", "00111", "00011", "00001")),
    "inpaint": (86, ("11000", "01100", "10110", "01011", "00101")),
    "superres": (119, ("10010", "11001", "01100", "00110", "00011")),
}
_PRIMITIVES = ("bilinear", "bicubic", "nearest", "shuffle")
_CONVS = ("plain", "transposed", "split", "separable", "depthwise", "identity")
_KERNELS, _ACTIVATIONS = (1, 3, 5, 7), ("none", "relu", "leaky")
_GROUPS = 4                         # of channels that a split convolution sums up


class Cell(NamedTuple):
    """What doubles the size: a primitive, and a convolution after it or, with `conv_first`, before it."""

    primitive: str
    conv: str
    kernel: int
    activation: str
    conv_first: bool = False


def decode(index: int) -> Cell:
    """Return the cell of an index: 0..251 a primitive and then a convolution, 252..311 a convolution and then the
    pixel shuffle, 312..323 a transposed convolution of stride 2.

    >>> decode(158)
    Cell(primitive='nearest', conv='split', kernel=5, activation='leaky', conv_first=False)
    """
    if not 0 <= index < CELLS:
        raise ValueError(f"there are cells 0 to {CELLS - 1}, and no {index}")
    activation = _ACTIVATIONS[index % 3]
    if index >= 312:
        return Cell("transposed", "identity", _KERNELS[index // 3 % 4], activation)
    rest = index % 63
    return Cell(_PRIMITIVES[min(index // 63, 3)], _CONVS[rest // 12], _KERNELS[rest // 3 % 4], activation, index >= 252)


class Sum(nn.Module):
    """(B, groups * n, H, W) -> (B, n, H, W): the sum of the groups of channels."""

    def __init__(self, groups: int):
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.groups, -1)).sum(1)


class Repeat(nn.Module):
    """(B, n, H, W) -> (B, times * n, H, W): the channels, again and again."""

    def __init__(self, times: int):
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.times, 1, 1)


def up_cell(index: int, channels: int) -> nn.Sequential:
    """Return a cell, (B, channels, H, W) -> (B, channels, 2 H, 2 W); `channels` is a multiple of 4.

    The activation follows the primitive and the convolution both. Convolutions are padded with zeros and have no bias,
    the transposed ones have. Three of the pixel shuffle's combinations fit no 128 channels in the published code: here
    a depthwise convolution makes as many maps of each channel as are needed, and where there is no convolution the
    shuffle's channels are repeated.
    """
    cell = decode(index)
    activation = {"none": [], "relu": [nn.ReLU(inplace=True)], "leaky": [nn.LeakyReLU(0.2, inplace=True)]}
    act = activation[cell.activation]
    if cell.primitive == "shuffle":
        primitive, inputs, outputs = [nn.PixelShuffle(2)], channels // 4, channels
        if cell.conv_first:
            inputs, outputs = channels, 4 * channels
    elif cell.primitive == "transposed":
        primitive, inputs, outputs = [_transposed(channels, channels, cell.kernel, 2)], channels, channels
    else:
        primitive, inputs, outputs = [nn.Upsample(scale_factor=2, mode=cell.primitive)], channels, channels
    conv = _convolution(cell.conv, inputs, outputs, cell.kernel)
    parts = [primitive + act, conv + act if cell.conv != "identity" else conv]
    return nn.Sequential(*(m for part in (reversed(parts) if cell.conv_first else parts) for m in part))


def _convolution(kind: str, inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    if kind == "identity":
        return [Repeat(outputs // inputs)] if outputs != inputs else []
    if kind == "transposed":
        return [_transposed(inputs, outputs, kernel, 1)]
    if kind == "split":
        groups = math.gcd(_GROUPS, inputs)      # fewer in a network of 4 or 8 channels, which the shuffle divides
        return [Sum(groups), _plain(inputs // groups, outputs, kernel)]
    if kind == "separable":
        return [_plain(inputs, inputs, kernel, inputs), _plain(inputs, outputs, 1)]
    return [_plain(inputs, outputs, kernel, inputs if kind == "depthwise" else 1)]


def _plain(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def _transposed(inputs: int, outputs: int, kernel: int, stride: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding=kernel // 2, output_padding=stride - 1)


class Supernet(nn.Module):
    """(B, inputs, H, W) -> (B, outputs, H, W), before the sigmoid; H and W multiples of 32, and at least 64.

    Level 1 has the full size, each further one half of it. Five encoders lead down to level 6, five cells and decoders
    back up; at each level j all encoders enc0 (the code) to enc4 whose bit is set in `skips[j - 1]`, the highest bit
    being enc0's, are added: through a 1x1 convolution from the level itself, through a chain of strided convolutions
    from above, through one of cells from below. A block that several chains lead through is one block, with its
    weights.

    As published all blocks are built, whatever the bits: with 128 channels, and 32 of the code, 4,405,635 parameters
    for the denoising network and 3,512,835 for that of super-resolution, with 3 outputs, and 10,710,273 for that of
    inpainting, with 1. With `unused=False` those that no bit leads through are left out: the denoising network is the
    only one of the three that has such, and then has 3,924,867. Weights that no step moves can be pruned, too, and
    count as the others do.
    """

    def __init__(self, inputs: int = 32, outputs: int = 3, channels: int = 128, cell: int = 158,
                 skips: Sequence[int] = (31, 15, 7, 3, 1), unused: bool = True):
        super().__init__()
        if len(skips) != LEVELS or not all(0 <= row < 2 ** LEVELS for row in skips):
            raise ValueError(f"skips are {LEVELS} rows of {LEVELS} bits, got {list(skips)}")
        if channels % 4:
            raise ValueError(f"the cells divide the channels by 4, got {channels}")
        self.code_channels = inputs
        # by level, from 0: the sources that are added there
        self.sources = [[c for c in range(LEVELS) if row >> (LEVELS - 1 - c) & 1] for row in skips]
        widths = [inputs, *[channels] * LEVELS]
        across, down, up = self._used() if not unused else (range(LEVELS), range(LEVELS - 1), range(LEVELS - 1))
        self.encoders = nn.ModuleList(nn.Sequential(conv_block(i, channels, 3, stride=2),
                                                    conv_block(channels, channels, 3)) for i in widths[:LEVELS])
        self.across = nn.ModuleDict({str(i): conv_block(widths[i], channels, 1) for i in across})
        self.down = nn.ModuleDict({str(i): conv_block(widths[i], channels, 3, stride=2) for i in down})     # to i + 1
        self.up = nn.ModuleDict({str(i): up_cell(cell, channels) for i in up})                          # from i + 1
        self.cells = nn.ModuleList(up_cell(cell, channels) for _ in range(LEVELS))
        self.decoders = nn.ModuleList(nn.Sequential(
            nn.BatchNorm2d(channels), conv_block(channels, channels, 3), conv_block(channels, channels, 3),
            conv_block(channels, channels, 1)) for _ in range(LEVELS))
        self.head = nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        sources = [x]
        for encoder in self.encoders:
            sources.append(encoder(sources[-1]))
        x, skipped = sources.pop(), self._skipped(sources)
        for level in reversed(range(LEVELS)):
            x = self.cells[level](x)
            for skip in skipped[level]:
                x = x + skip
            x = self.decoders[level](x)
        return self.head(x)

    def _skipped(self, sources: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return what is added at each level, walking from each source as far up and down as its bits lead."""
        added = [[] for _ in range(LEVELS)]
        for c, source in enumerate(sources):
            to = [level for level in range(LEVELS) if c in self.sources[level]]
            if c in to:
                added[c].append(self.across[str(c)](source))
            x = source
            for level in range(c + 1, max(to, default=c) + 1):
                x = self.down[str(level - 1)](x)
                if level in to:
                    added[level].append(x)
            x = source
            for level in reversed(range(min(to, default=c), c)):
                x = self.up[str(level)](x)
                if level in to:
                    added[level].append(x)
        return added

    def _used(self) -> tuple[list[int], list[int], list[int]]:
        """Return the blocks that some bit leads through: across, down, up."""
        ways = [(c, level) for level in range(LEVELS) for c in self.sources[level]]
        steps = range(LEVELS - 1)
        return ([i for i in range(LEVELS) if (i, i) in ways],
                [i for i in steps if any(c <= i < level for c, level in ways)],
                [i for i in steps if any(level <= i < c for c, level in ways)])


NETWORK = Supernet      # what `rebuild` makes of an architecture's arguments


def build(shapes: Sequence[tuple[int, int, int]], *, model: str = "denoise", cell: int | None = None,
          skips: Sequence[str | int] | None = None, channels: int = 128, code_channels: int = 32, unused: bool = True,
          jitter: float = 1 / 30, code: str = "own", redraw: bool = False, seed: int = 0) -> Prior:
    """Return the prior of a searched network for pictures of these (C, H, W) shapes; all follows from the seed.

    `model` is one of the published networks; `cell` and `skips` replace its own. Pictures are made at the next multiple
    of 32, from 64 on, and cut. Raises InputError.
    """
    own_cell, own_skips = MODELS[choice("prior.model", model, tuple(MODELS))]
    cell = own_cell if cell is None else whole("prior.cell", cell, 0, CELLS - 1)
    rows = bits(own_skips if skips is None else skips)
    if whole("prior.channels", channels, 1) % 4:
        raise InputError(f"prior.channels must be a multiple of 4, which the cells of searched networks divide by, got "
                         f"{channels}")
    whole("prior.code_channels", code_channels, 1)
    arguments = dict(inputs=code_channels, outputs=one_channel_count(shapes), channels=channels, cell=cell,
                     skips=[int(row, 2) for row in rows], unused=flag("prior.unused", unused))
    with global_stream(seed, "weights"):
        network = Supernet(**arguments)
    codes = uniform_codes([(code_channels, _side(h), _side(w)) for _, h, w in shapes], code, seed)
    return Prior(network, codes, shapes, jitter=jitter, seed=seed, redraw=redraw,
                 architecture={"network": "nas", **arguments})


def _side(size: int) -> int:
    return max(_SMALLEST, round_up(size, 2 ** LEVELS))
