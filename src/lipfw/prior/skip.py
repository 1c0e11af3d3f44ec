"""The hourglass with skip connections: the deep image prior's network (Ulyanov, Vedaldi, Lempitsky, CVPR 2018)."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, whole
from lipfw.prior.prior import Prior, one_channel_count, round_up, uniform_codes
from lipfw.streams import global_stream


def conv_block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return reflection-padded convolution with bias, batch norm, leaky ReLU (slope 0.2)."""
    padding = dict(padding=kernel // 2, padding_mode="reflect") if kernel > 1 else {}
    conv = nn.Conv2d(inputs, outputs, kernel, stride, **padding)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True))


class Encoder(nn.Module):
    """One scale down: a 1x1 skip branch at full size, and two 3x3 convolutions that halve the size."""

    def __init__(self, inputs: int, channels: int, skip: int):
        super().__init__()
        self.skip = conv_block(inputs, skip, 1)
        self.down = conv_block(inputs, channels, 3, stride=2)
        self.conv = conv_block(channels, channels, 3)


class Decoder(nn.Module):
    """One scale up: batch norm over [skip, deep], a 3x3 and a 1x1 convolution."""

    def __init__(self, channels: int, skip: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(skip + channels)
        self.conv = conv_block(skip + channels, channels, 3)
        self.mix = conv_block(channels, channels, 1)


class Skip(nn.Module):
    """The hourglass, (B, inputs, H, W) -> (B, outputs, H, W), before the sigmoid; any H, W of at least 2^depth + 1.

    With the published 32 inputs, 3 outputs, 128 channels, 5 scales and 4 skip channels it has 2,217,831 parameters, of
    which 2,208,768 are convolution weights. It is always run in training mode: batch norm uses the statistics of the
    one picture. Parameters are created in the order of the published network: each scale's skip, down, conv from the
    outside in, then each scale's up convolutions from the inside out, then the head.
    """

    related = ("classifier",)       # networks whose tickets fit too, but for the layers at either end

    def __init__(self, inputs: int = 32, outputs: int = 3, channels: int = 128, depth: int = 5, skip: int = 4):
        super().__init__()
        self.code_channels = inputs
        self.encoders = nn.ModuleList(Encoder(channels if i else inputs, channels, skip) for i in range(depth))
        self.decoders = nn.ModuleList(Decoder(channels, skip) for _ in range(depth))   # the deepest first
        self.head = nn.Conv2d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = []
        for scale in self.encoders:
            branches.append(scale.skip(x))
            x = scale.conv(scale.down(x))
        for scale, branch in zip(self.decoders, reversed(branches), strict=True):
            x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = scale.mix(scale.conv(scale.norm(torch.cat(_common_size(branch, x), 1))))
        return self.head(x)


NETWORK = Skip      # what `rebuild` makes of an architecture's arguments


def _common_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Centre-crop two feature maps to the smaller height and width: odd sizes grow by one on the way down and up."""
    h, w = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])

    def crop(t: Tensor) -> Tensor:
        top, left = (t.shape[2] - h) // 2, (t.shape[3] - w) // 2
        return t[:, :, top:top + h, left:left + w]

    return crop(a), crop(b)


def build(shapes: Sequence[tuple[int, int, int]], *, channels: int = 128, depth: int = 5, skip_channels: int = 4,
          code_channels: int = 32, jitter: float = 1 / 30, code: str = "own", redraw: bool = False,
          seed: int = 0) -> Prior:
    """Return the hourglass prior for pictures of these (C, H, W) shapes; weights and codes follow from the seed.

    Pictures are made at the next multiple of 2^depth and cut. Raises InputError for one that is too small: at the
    bottleneck batch norm and reflection padding need at least 2x2 pixels.
    """
    for name, value, least in (("prior.channels", channels, 1), ("prior.depth", depth, 1),
                               ("prior.skip_channels", skip_channels, 1), ("prior.code_channels", code_channels, 1)):
        whole(name, value, least)
    multiple = 2 ** depth
    for _, h, w in shapes:
        if min(h, w) < 2 * multiple:
            fits = min(h, w).bit_length() - 2
            raise InputError(f"a picture of {w}x{h} pixels is too small for prior.depth={depth}: {2 * multiple} px is "
                             f"the least a side (batch norm refuses a 1x1 bottleneck)"
                             + (f"; use prior.depth={fits}, or a larger picture" if fits >= 1 else ""))
    outputs = one_channel_count(shapes)
    arguments = dict(inputs=code_channels, outputs=outputs, channels=channels, depth=depth, skip=skip_channels)
    with global_stream(seed, "weights"):
        network = Skip(**arguments)
    codes = uniform_codes([(code_channels, round_up(h, multiple), round_up(w, multiple)) for _, h, w in shapes], code,
                          seed)
    return Prior(network, codes, shapes, jitter=jitter, seed=seed, redraw=redraw,
                 architecture={"network": "skip", **arguments})
