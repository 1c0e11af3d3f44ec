"""Training a progressive GAN from scratch."""
from torch import Tensor

from lipfw.errors import flag
from lipfw.image.dataset import Dataset


class Gan:
    """Train on all pictures of a data set; `half` stores the networks in 16 bits."""

    does = "trains a generator"
    prune_critic = save_trained = False

    def __init__(self, half: bool = False):
        self.half = flag("task.half", half)

    def __call__(self, data: Dataset) -> Tensor:
        """Return the pictures (N, C, S, S), uint8, that are trained on."""
        return data.pixels
