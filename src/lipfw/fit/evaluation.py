"""How good a restoration is: PSNR and SSIM against the clean picture."""
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lipfw.problem import Problem

_SSIM_WINDOW = 11


def luma(x: Tensor) -> Tensor:
    """Return the BT.601 luma (B, 1, H, W) of RGB in [0, 1], in video range 16/255 to 235/255; grey stays as it is.

    The range is the literature's: it adds a constant 1.32 dB to the PSNR of full-range luma.
    """
    if x.shape[1] == 1:
        return x
    weights = x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return ((x * weights).sum(1, keepdim=True) * 219 + 16) / 255


def scored(problem: Problem, x: Tensor) -> Tensor:
    """Return the part of a picture (1, C, H, W) that a problem's scores are taken on."""
    x = luma(x) if problem.luma else x
    b = problem.border
    return x[:, :, b:x.shape[2] - b, b:x.shape[3] - b] if b else x


def psnr(problem: Problem, x: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of a restoration in [0, 1]; NaN if no clean picture is known."""
    if problem.image is None:
        return x.new_full((), torch.nan)
    return peak_signal_noise_ratio(scored(problem, x), scored(problem, problem.image), data_range=1.0)


def mse(problem: Problem, x: Tensor) -> Tensor:
    """Return the mean squared error over pixels and channels in the range [-1, 1], four times that in [0, 1].

    The range is that of generators, and of what is published about them. NaN if no clean picture is known.
    """
    if problem.image is None:
        return x.new_full((), torch.nan)
    return 4 * torch.nn.functional.mse_loss(scored(problem, x), scored(problem, problem.image))


def ssim(problem: Problem, x: Tensor) -> Tensor:
    """Return the structural similarity (11x11 Gaussian window, pixels whose window lies inside the picture).

    NaN if no clean picture is known or it is smaller than the window. The same numbers as scikit-image's with Gaussian
    weights; torchmetrics' own mean takes in the mirrored border, or does not, by its version.
    """
    if problem.image is None:
        return x.new_full((), torch.nan)
    a = scored(problem, x)
    if min(a.shape[2:]) < _SSIM_WINDOW:
        return x.new_full((), torch.nan)
    _, each = structural_similarity_index_measure(a, scored(problem, problem.image), data_range=1.0,
                                                  return_full_image=True)
    b = _SSIM_WINDOW // 2
    return each[:, :, b:-b, b:-b].mean()
