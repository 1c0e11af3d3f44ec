"""Iterative magnitude pruning (Frankle and Carbin, 2019; Algorithm 1 of the lottery image prior)."""
from collections.abc import Mapping

from torch import Tensor, nn

from lipfw.errors import choice
from lipfw.pruner.magnitude import SCORES, magnitudes
from lipfw.pruner.pruner import Fit, Pruner


class IMP(Pruner):
    """Fit, drop the fraction `rate` of the remaining weights that are smallest over all layers together, rewind, again.

    Round 0 is dense; after it `rounds` prunings, so rounds + 1 fits. Targets (`sparsities`, `params`) are met exactly,
    by a last pruning of less than `rate`. `scores` as in `magnitudes`.
    """

    scores_trained = iterative = True

    def __init__(self, scores: str = "raw", **options):
        super().__init__(**options)
        self.scores = choice("pruner.scores", scores, SCORES)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return |w|, or |c w|."""
        return magnitudes(network, self.scores)
