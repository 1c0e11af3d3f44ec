"""One-shot magnitude pruning at initialisation: the baseline that needs no fit and no data."""
from collections.abc import Mapping

from torch import Tensor, nn

from lipfw.mask import prunable
from lipfw.pruner.pruner import Fit, Pruner


class Magnitude(Pruner):
    """Keep the weights that are largest before the fit, over all layers together.

    torch draws weights from U(-1/sqrt(n), 1/sqrt(n)) with n inputs to a unit, so that layers of many inputs lose theirs
    first; from some sparsity on they have none left, which is refused.
    """

    blind = True

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return |w|."""
        return {name: w.detach().abs() for name, w in prunable(network).items()}
