"""The progressive GAN: generator and critic (Karras et al., ICLR 2018), as published in pytorch_GAN_zoo.

Parameters bear the published names in lower case: `scaleLayers.0.1` there is `scale_layers.0.1` here.
"""
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PUBLISHED = (512, 512, 512, 512, 256, 128, 64, 32, 16)      # channels at 4, 8, ... 1024 pixels
_EPSILON = 1e-8


class EqualizedConv2d(nn.Conv2d):
    """A convolution of stored weights ~ N(0, 1) that computes gain * (W * x + b), gain = sqrt(2 / fan-in).

    The bias is scaled too, as published. `gain` is what pruners multiply a stored weight by to have the effective one.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.gain = math.sqrt(2 / (inputs * kernel * kernel))

    def reset_parameters(self) -> None:
        _standard(self)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.gain, None if self.bias is None else self.bias * self.gain)


class EqualizedLinear(nn.Linear):
    """The same for a linear layer."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.gain = math.sqrt(2 / inputs)

    def reset_parameters(self) -> None:
        _standard(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, None if self.bias is None else self.bias * self.gain)


def _standard(layer: nn.Module) -> None:
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)


def pixel_norm(x: Tensor) -> Tensor:
    """Return x / sqrt(mean over the channels (axis 1) of x^2 + 1e-8)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + _EPSILON)


def with_batch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Return x (B, C, H, W) with one more channel: the deviation over groups of pictures, averaged to a number.

    As published: G groups of `group` pictures, picture i in group i modulo G (one group of all where `group` does not
    divide the batch), the unbiased variance in each; and the number of group g goes to the g-th `group` pictures in a
    row, which are not those it was taken from. Of a single picture it is 0.
    """
    b, c, h, w = x.shape
    group = min(group, b)
    if b % group:
        group = b
    if group == 1:
        return torch.cat([x, x.new_zeros(b, 1, h, w)], 1)
    deviation = (x.view(group, -1, c, h, w).var(0) + _EPSILON).sqrt().flatten(1).mean(1)
    return torch.cat([x, deviation.repeat_interleave(group).view(b, 1, 1, 1).expand(b, 1, h, w)], 1)


class Generator(nn.Module):
    """z (B, latent) -> pictures (B, outputs, R, R), about in [-1, 1] and not clipped; R = 4 * 2^(scales - 1).

    `channels` has the width of each scale, 4 pixels first: the first seven of PUBLISHED make 256 pixels, with
    23,051,989 parameters, of which 18,844,992 are convolution weights (those of the unused toRGB layers among them).
    While the network grows, `scale` says which is the last in use (None: the last there is), and `fade` in [0, 1] how
    much of the picture still comes from the scale below, by nearest-neighbour enlargement.
    """

    code_sides = 0      # its code has channels alone, no height and width

    def __init__(self, channels: Sequence[int] = PUBLISHED[:7], latent: int = 512, outputs: int = 3):
        super().__init__()
        self.channels, self.latent, self.outputs = tuple(channels), latent, outputs
        self.code_channels = latent
        first = self.channels[0]
        self.format_layer = EqualizedLinear(latent, 16 * first)
        self.group_scale0 = nn.ModuleList([EqualizedConv2d(first, first, 3)])
        self.scale_layers = nn.ModuleList(
            nn.ModuleList([EqualizedConv2d(before, width, 3), EqualizedConv2d(width, width, 3)])
            for before, width in zip(self.channels[:-1], self.channels[1:], strict=True))
        self.to_rgb_layers = nn.ModuleList(EqualizedConv2d(width, outputs, 1) for width in self.channels)

    @property
    def resolution(self) -> int:
        """Pixels a side of the pictures that the last scale makes."""
        return 4 * 2 ** (len(self.channels) - 1)

    def forward(self, z: Tensor, scale: int | None = None, fade: float = 0.0) -> Tensor:
        scale = len(self.scale_layers) if scale is None else scale
        x = F.leaky_relu(self.format_layer(pixel_norm(z)), 0.2)
        x = pixel_norm(x.view(-1, self.channels[0], 4, 4))
        x = pixel_norm(F.leaky_relu(self.group_scale0[0](x), 0.2))
        coarse = x
        for layers in self.scale_layers[:scale]:
            coarse = x
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            for conv in layers:
                x = pixel_norm(F.leaky_relu(conv(x), 0.2))
        picture = self.to_rgb_layers[scale](x)
        if scale and fade:
            picture = torch.lerp(picture, enlarged(self.to_rgb_layers[scale - 1](coarse)), fade)
        return picture


class Critic(nn.Module):
    """Pictures (B, outputs, R, R) in [-1, 1] -> scores (B,): the mirror image of `Generator`, of 23,052,353 parameters.

    Its score of a picture depends on the batch, by `with_batch_deviation`. `scale` and `fade` as in `Generator`: the
    pictures are then of the scale's size.
    """

    def __init__(self, channels: Sequence[int] = PUBLISHED[:7], outputs: int = 3):
        super().__init__()
        self.channels, self.outputs = tuple(channels), outputs
        first = self.channels[0]
        self.from_rgb_layers = nn.ModuleList(EqualizedConv2d(outputs, width, 1) for width in self.channels)
        self.scale_layers = nn.ModuleList(
            nn.ModuleList([EqualizedConv2d(width, width, 3), EqualizedConv2d(width, before, 3)])
            for before, width in zip(self.channels[:-1], self.channels[1:], strict=True))
        self.group_scale_zero = nn.ModuleList([EqualizedConv2d(first + 1, first, 3),
                                               EqualizedLinear(16 * first, first)])
        self.decision_layer = EqualizedLinear(first, 1)

    def forward(self, x: Tensor, scale: int | None = None, fade: float = 0.0) -> Tensor:
        scale = len(self.scale_layers) if scale is None else scale
        picture, top = x, scale
        x = F.leaky_relu(self.from_rgb_layers[scale](x), 0.2)
        for layers in reversed(self.scale_layers[:scale]):
            for conv in layers:
                x = F.leaky_relu(conv(x), 0.2)
            x = F.avg_pool2d(x, 2)
            if fade and scale == top:
                coarse = F.leaky_relu(self.from_rgb_layers[top - 1](F.avg_pool2d(picture, 2)), 0.2)
                x = torch.lerp(x, coarse, fade)
            scale -= 1
        conv, linear = self.group_scale_zero
        x = F.leaky_relu(conv(with_batch_deviation(x)), 0.2)
        x = F.leaky_relu(linear(x.flatten(1)), 0.2)
        return self.decision_layer(x).squeeze(1)


def enlarged(picture: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) at twice the size, by nearest neighbours."""
    return F.interpolate(picture, scale_factor=2, mode="nearest")
