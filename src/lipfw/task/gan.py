"""Training a progressive GAN from scratch."""
from torch import Tensor

from lipfw.image.dataset import Dataset


class Gan:
    """Train on all pictures of a data set."""

    trains = True
    prune_critic = save_trained = False

    def __call__(self, data: Dataset) -> Tensor:
        """Return the pictures (N, C, S, S), uint8, that are trained on."""
        return data.pixels
