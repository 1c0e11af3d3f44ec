"""Denoising: y = clip(x + n), n Gaussian."""
import torch

from lipfw.errors import number, whole
from lipfw.image.picture import Picture
from lipfw.problem import Problem
from lipfw.streams import stream
from lipfw.task.operators import Identity


class Denoise:
    """Add Gaussian noise of standard deviation `sigma` grey levels of 255, clipped to [0, 1] and not quantised.

    A picture that is degraded already is taken as it is, and `sigma` is not used.
    Source: the additive Gaussian noise of the deep image prior (Ulyanov et al., 2018); papers use sigma 15, 25, 50.
    """

    def __init__(self, sigma: float = 25, seed: int = 0):
        self.sigma = number("task.sigma", sigma, 0, 255, hint="it is in grey levels of 255")
        self.seed = whole("task.seed", seed, least=0)

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture; the noise depends on the seed and the picture's name alone."""
        x, shape = picture.pixels, tuple(picture.pixels.shape[1:])
        if picture.degraded:
            return Problem(picture.name, shape, Identity(), x)
        noise = torch.empty_like(x).normal_(generator=stream(self.seed, f"noise {picture.name}"))
        return Problem(picture.name, shape, Identity(), (x + self.sigma / 255 * noise).clamp(0, 1), x)
