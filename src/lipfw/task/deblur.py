"""Deblurring by a known kernel: y = clip(k * x + n), n Gaussian."""
import math

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import get_gaussian_kernel2d, get_motion_kernel2d
from PIL import Image
from torch import Tensor

from lipfw.errors import InputError, nearest, number, whole
from lipfw.image.picture import Picture
from lipfw.image.read import read
from lipfw.problem import Problem
from lipfw.streams import stream
from lipfw.task.operators import Blur

_KERNELS = ("gaussian", "motion")


class Deblur:
    """Blur the picture with a kernel that is known, and add Gaussian noise of `noise` grey levels of 255.

    `kernel` is "gaussian", of standard deviation `sigma` on `size` x `size` pixels (None: all within 4 sigma), or
    "motion", a line of `length` pixels at `angle` degrees, counter-clockwise, or the file of a grey picture of the
    kernel, or an array (h, w) of its weights. Sums are brought to 1. Edges are as in `Blur`. The measurement is clipped
    to [0, 1] and not quantised. A picture that is degraded already is taken as it is: blurred by that kernel, and
    `noise` is not used.
    Source: sigma 1.6 on 25 x 25 pixels with noise of sqrt(2) grey levels is the standard case of the literature (NCSR,
    Dong et al. 2013; RED, Romano et al. 2017; DeepRED, Mataev et al. 2019).
    """

    def __init__(self, kernel: str | np.ndarray | Tensor = "gaussian", sigma: float = 1.6, size: int | None = 25,
                 length: int = 9, angle: float = 45, noise: float = math.sqrt(2), seed: int = 0):
        self.noise = number("task.noise", noise, 0, 255, hint="it is in grey levels of 255")
        self.seed = whole("task.seed", seed, least=0)
        sigma = number("task.sigma", sigma, 0, 1000, open_low=True, hint="it is in pixels")
        size = 2 * math.ceil(4 * sigma) + 1 if size is None else _odd("task.size", size)
        length = _odd("task.length", length, least=3)
        angle = number("task.angle", angle, -360, 360, hint="it is in degrees")
        if isinstance(kernel, (np.ndarray, Tensor, list, tuple, Image.Image)):
            self.kernel = _from_array(kernel)
        elif kernel == "gaussian":
            self.kernel = get_gaussian_kernel2d((size, size), (sigma, sigma))[0]
        elif kernel == "motion":
            self.kernel = get_motion_kernel2d(length, angle, mode="bilinear")[0]
        else:
            self.kernel = _from_file(kernel)

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture; the noise depends on the seed and the picture's name alone."""
        x, shape = picture.pixels, tuple(picture.pixels.shape[1:])
        for side, pixels in zip(self.kernel.shape, shape[1:], strict=True):
            if side // 2 >= pixels:
                raise InputError(f"a kernel of {self.kernel.shape[1]}x{self.kernel.shape[0]} pixels is too large for a "
                                 f"picture of {shape[2]}x{shape[1]}; use a smaller task.size or task.length, or a "
                                 "larger picture")
        operator = Blur(self.kernel)
        if picture.degraded:
            return Problem(picture.name, shape, operator, x)
        noise = torch.empty_like(x).normal_(generator=stream(self.seed, f"noise {picture.name}"))
        return Problem(picture.name, shape, operator, (operator(x) + self.noise / 255 * noise).clamp(0, 1), x)


def _odd(name: str, value, least: int = 1) -> int:
    if whole(name, value, least=least, most=1001) % 2 == 0:
        raise InputError(f"{name} must be odd, so that the kernel has a pixel in its middle, got {value}")
    return value


def _from_file(path) -> Tensor:
    """Return the kernel of a grey picture, brought to a sum of 1 and, by rows or columns of zeros, to odd sides."""
    if not isinstance(path, str) or path in ("", ".") or "." not in path:
        raise InputError(f"task.kernel must be {', '.join(_KERNELS)} or the file of a picture of the kernel, got "
                         f"{path!r}{nearest(path, _KERNELS)}")
    kernel = read(path, 1001 * 1001, option="task.kernel").pixels.mean(1)[0]
    if not kernel.any():
        raise InputError(f"task.kernel={path} is all black; what is bright in it is the kernel")
    return _normal(kernel)


def _from_array(values) -> Tensor:
    """Return the kernel of weights (h, w): an array, a tensor, lists, or a PIL image."""
    values = values.convert("F") if isinstance(values, Image.Image) else values
    try:
        values = values if isinstance(values, Tensor) else np.asarray(values)
        kernel = torch.as_tensor(values.copy() if isinstance(values, np.ndarray) else values).detach().cpu().float()
    except (TypeError, ValueError):       # of objects, or lists of different lengths
        values = np.asarray(None)
        kernel = torch.zeros(0)
    good = kernel.dim() == 2 and 0 < max(kernel.shape) <= 1001 and kernel.numel() and torch.isfinite(kernel).all()
    if not good or kernel.min() < 0 or not kernel.any():
        raise InputError(f"kernel= must be an array (h, w) of weights, finite, not negative and not all 0, at most "
                         f"1001 a side, got {tuple(values.shape)} of {values.dtype}")
    return _normal(kernel)


def _normal(kernel: Tensor) -> Tensor:
    """Return a kernel with a sum of 1 and odd sides."""
    h, w = kernel.shape
    return F.pad(kernel / kernel.double().sum().float(), (0, 1 - w % 2, 0, 1 - h % 2))
