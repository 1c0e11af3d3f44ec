"""Random tickets with the layer-wise ratios of found ones: is it only the ratios that matter?"""
from torch import nn

from lipfw.errors import whole
from lipfw.mask import Mask, keep_top, prunable
from lipfw.pruner.pruner import Fit
from lipfw.pruner.random import uniform
from lipfw.pruner.ticket import Replay


class RandomLike(Replay):
    """One round for each ticket that `path` names, as in `Replay`, from the run's own initial weights.

    Each layer keeps as many weights as in the ticket, at places drawn at random; where tickets are nested, so are
    these.
    """

    blind = True

    def __init__(self, path: str, seed: int = 0):
        super().__init__(path, init="fresh")
        self.seed = whole("pruner.seed", seed, least=0)

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return a mask with the layer-wise counts of a round's ticket."""
        like = self.masks[round_]
        return Mask({n: keep_top({n: u}, int(like[n].sum()))[n]
                     for n, u in uniform(prunable(network), self.seed).items()})
