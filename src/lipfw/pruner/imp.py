"""Iterative magnitude pruning (Frankle and Carbin, 2019; Algorithm 1 of the lottery image prior)."""
from collections.abc import Mapping

from torch import Tensor, nn

from lipfw.mask import prunable
from lipfw.pruner.pruner import Fit, Pruner


class IMP(Pruner):
    """Fit, drop the fraction `rate` of the remaining weights that are smallest over all layers together, rewind, again.

    Round 0 is dense; after it `rounds` prunings, so rounds + 1 fits. Targets (`sparsities`, `params`) are met exactly,
    by a last pruning of less than `rate`.
    """

    scores_trained = iterative = True

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return |w|."""
        return {name: w.detach().abs() for name, w in prunable(network).items()}
