"""Fine-tuning a pre-trained generator, round by round, to find tickets in it (the lottery image prior, section 5)."""
from torch import Tensor

from lipfw.errors import flag, number
from lipfw.image.dataset import Dataset


class Finetune:
    """Train on the first `fraction` of the pictures, by name, so that the others are left for judging.

    `prune_critic` prunes the critic too, by the same pruner, as the published script does and the paper does not;
    `save_trained` keeps the trained networks of each round beside its ticket.
    """

    does = "trains a generator"
    half = False

    def __init__(self, fraction: float = 0.4, prune_critic: bool = False, save_trained: bool = False):
        self.fraction = number("task.fraction", fraction, 0, 1, open_low=True)
        self.prune_critic = flag("task.prune_critic", prune_critic)
        self.save_trained = flag("task.save_trained", save_trained)

    def __call__(self, data: Dataset) -> Tensor:
        """Return the pictures (N, C, S, S), uint8, that are trained on: at least one."""
        return data.pixels[:max(1, round(self.fraction * len(data)))]
