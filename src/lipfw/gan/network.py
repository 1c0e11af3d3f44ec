"""The progressive GAN: generator and critic (Karras et al., ICLR 2018), as published in pytorch_GAN_zoo.

Parameters bear the published names in lower case: `scaleLayers.0.1` there is `scale_layers.0.1` here.
"""
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

PUBLISHED = (512, 512, 512, 512, 256, 128, 64, 32, 16)      # channels at 4, 8, ... 1024 pixels
_EPSILON = 1e-8
_SLOPE = 0.2        # of the leaky ReLU
_FOLDED = 32        # pixels a side from which folding a kernel is worth its time


class EqualizedConv2d(nn.Conv2d):
    """A convolution of stored weights ~ N(0, 1) that computes gain * (W * x + b), gain = sqrt(2 / fan-in).

    The bias is scaled too, as published. `gain` is what pruners multiply a stored weight by to have the effective one.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.gain = math.sqrt(2 / (inputs * kernel * kernel))

    def reset_parameters(self) -> None:
        _standard(self)

    def forward(self, x: Tensor, enlarge: bool = False) -> Tensor:
        """Return the convolution of x, or of x at twice the size."""
        bias = None if self.bias is None else self.bias * self.gain
        if not self.weight.requires_grad and (bias is None or not bias.requires_grad):
            return _Fixed.apply(x, self.weight, bias, self.gain, enlarge)
        return self._conv_forward(enlarged(x) if enlarge else x, self.weight * self.gain, bias)


class EqualizedLinear(nn.Linear):
    """The same for a linear layer."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.gain = math.sqrt(2 / inputs)

    def reset_parameters(self) -> None:
        _standard(self)

    def forward(self, x: Tensor) -> Tensor:
        # x times the gain is small, and the graph would keep the weights times the gain
        return F.linear(x * self.gain, self.weight, None if self.bias is None else self.bias * self.gain)


def _standard(layer: nn.Module) -> None:
    nn.init.normal_(layer.weight)
    nn.init.zeros_(layer.bias)


class _Fixed(Function):
    """x -> gain * W * x + b for weights of which no gradient is asked; with `enlarge`, of x at twice the size.

    Torch's own convolution keeps its input and the weights times the gain for the gradient of the weights, several
    times the memory of all that is needed. An enlarged x has four equal pixels in each 2x2 block: from `_FOLDED` pixels
    on, the kernel is folded instead (`folded`), for 4 products a weight and pixel in place of 9.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, gain: float, enlarge: bool) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.gain, ctx.enlarge, ctx.fold, ctx.dtype = gain, enlarge, enlarge and x.shape[2] >= _FOLDED, x.dtype
        x, weight = _times(gain, x, weight)
        if ctx.fold:
            return F.conv_transpose2d(x, folded(weight), bias, stride=2, padding=1)
        return F.conv2d(enlarged(x) if enlarge else x, weight, bias, padding=weight.shape[2] // 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        (weight,) = ctx.saved_tensors
        gradient, weight = _times(ctx.gain, gradient, weight.to(gradient.dtype))
        if ctx.fold:
            back = F.conv2d(gradient, folded(weight), stride=2, padding=1)
        else:
            back = F.conv_transpose2d(gradient, weight, padding=weight.shape[2] // 2)
            if ctx.enlarge:
                back = F.avg_pool2d(back, 2, divisor_override=1)
        return back.to(ctx.dtype), None, None, None, None


def _times(gain: float, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and weight, of which the smaller one is multiplied by the gain."""
    return (x * gain, weight) if x.numel() < weight.numel() else (x, weight * gain)


def folded(weight: Tensor) -> Tensor:
    """Return kernels (inputs, outputs, 4, 4), transposed with stride 2, for (outputs, inputs, 3, 3) after enlarging.

    Each is the sum of the four 3x3 kernels that a pixel's copies meet, as in the official code of progressive GANs.
    """
    k = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    k = k[:, :, 1:] + k[:, :, :-1]
    return k[..., 1:] + k[..., :-1]


def pixel_norm(x: Tensor) -> Tensor:
    """Return x / sqrt(mean over the channels (axis 1) of x^2 + 1e-8)."""
    return _Norm.apply(x, 1.0, False)[0]


def leaky_norm_(x: Tensor) -> Tensor:
    """Return the pixel norm of leaky_relu(x), written over x: for what a convolution has just made."""
    return _Norm.apply(x, _SLOPE, True)[0]


class _Norm(Function):
    """x -> y = r x', r with x' = leaky_relu(x) of a slope, r = (mean over axis 1 of x'^2 + 1e-8)^(-1/2).

    Of all these y and r alone are kept for the gradient: y has the signs of x. r is an output since the gradient of the
    gradient goes through it.
    """

    @staticmethod
    def forward(ctx, x: Tensor, slope: float, inplace: bool) -> tuple[Tensor, Tensor]:
        if inplace:
            ctx.mark_dirty(x)
        y = F.leaky_relu(x, slope, inplace) if inplace or slope != 1 else x.clone()
        r = torch.rsqrt(y.square().mean(1, keepdim=True) + _EPSILON)
        y.mul_(r)
        ctx.save_for_backward(y, r)
        ctx.slope = slope
        ctx.set_materialize_grads(False)
        return y, r

    @staticmethod
    def backward(ctx, of_y: Tensor | None, of_r: Tensor | None) -> tuple[Tensor, None, None]:
        y, r = ctx.saved_tensors
        of_y = torch.zeros_like(y) if of_y is None else of_y
        along = (of_y * y).mean(1, keepdim=True)
        if of_r is not None:
            along = along + r * of_r / y.shape[1]
        back = r * torch.addcmul(of_y, y, along, value=-1)
        # by the signs of y, as torch differentiates a leaky ReLU in place
        return torch.ops.aten.leaky_relu_backward(back, y, ctx.slope, True), None, None


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
        x = F.leaky_relu(self.format_layer(pixel_norm(z)), _SLOPE)
        x = pixel_norm(x.view(-1, self.channels[0], 4, 4))
        x = leaky_norm_(self.group_scale0[0](x))
        coarse = x
        for layers in self.scale_layers[:scale]:
            coarse = x
            first, second = layers
            x = leaky_norm_(second(leaky_norm_(first(x, enlarge=True))))
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
        x = F.leaky_relu(self.from_rgb_layers[scale](x), _SLOPE)
        for layers in reversed(self.scale_layers[:scale]):
            for conv in layers:
                x = F.leaky_relu(conv(x), _SLOPE)
            x = F.avg_pool2d(x, 2)
            if fade and scale == top:
                coarse = F.leaky_relu(self.from_rgb_layers[top - 1](F.avg_pool2d(picture, 2)), _SLOPE)
                x = torch.lerp(x, coarse, fade)
            scale -= 1
        conv, linear = self.group_scale_zero
        x = F.leaky_relu(conv(with_batch_deviation(x)), _SLOPE)
        x = F.leaky_relu(linear(x.flatten(1)), _SLOPE)
        return self.decision_layer(x).squeeze(1)


def enlarged(picture: Tensor) -> Tensor:
    """Return pictures (B, C, H, W) at twice the size, by nearest neighbours."""
    return F.interpolate(picture, scale_factor=2, mode="nearest")
