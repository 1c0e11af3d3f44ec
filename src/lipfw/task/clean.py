"""No degradation: the network is fitted to the picture as it is, or to something that it is to be compared with."""
import torch

from lipfw.errors import InputError, choice, whole
from lipfw.image.picture import Picture
from lipfw.problem import Problem
from lipfw.streams import stream
from lipfw.task.denoise import Denoise
from lipfw.task.operators import Identity

TARGETS = ("clean", "noisy", "shuffled", "white")


class Clean:
    """y = x, or with another `target` what tells how a network resists what is no picture (its impedance to noise).

    noisy: the picture with Gaussian noise of 25 grey levels, clipped, that of task=denoise. shuffled: its pixels in
    random places, the same for all channels. white: independent values, uniform in [0, 1].
    Source: the four targets of the deep image prior (Ulyanov et al., 2018), whose losses are compared.
    """

    def __init__(self, target: str = "clean", seed: int = 0):
        self.target, self.seed = choice("task.target", target, TARGETS), whole("task.seed", seed, least=0)

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture; shuffled and white pictures are scored against themselves.

        One that is degraded already has no clean version to score against. Raises InputError if it is to be noisy, too.
        """
        x, shape = picture.pixels, tuple(picture.pixels.shape[1:])
        if self.target == "noisy":
            if picture.degraded:
                raise InputError("task.target=noisy adds noise to a clean picture, and image.degraded=true says that "
                                 "there is none; use task.target=clean")
            return Denoise(25, self.seed)(picture)
        if self.target == "shuffled":
            order = torch.randperm(x[0, 0].numel(), generator=stream(self.seed, f"shuffle {picture.name}"))
            x = x.flatten(2)[:, :, order].view_as(x)
        elif self.target == "white":
            x = torch.rand(x.shape, generator=stream(self.seed, f"white {picture.name}"))
        return Problem(picture.name, shape, Identity(), x, None if picture.degraded else x)
