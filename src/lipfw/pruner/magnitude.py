"""One-shot magnitude pruning at initialisation: the baseline that needs no fit and no data."""
from collections.abc import Mapping

from torch import Tensor, nn

from lipfw.errors import choice
from lipfw.mask import gains, prunable
from lipfw.pruner.pruner import Fit, Pruner

SCORES = ("raw", "effective")


class Magnitude(Pruner):
    """Keep the weights that are largest before the fit, over all layers together.

    torch draws weights from U(-1/sqrt(n), 1/sqrt(n)) with n inputs to a unit, so that layers of many inputs lose theirs
    first; from some sparsity on they have none left, which is refused.
    """

    blind = True

    def __init__(self, scores: str = "raw", **options):
        super().__init__(**options)
        self.scores = choice("pruner.scores", scores, SCORES)

    def score(self, network: nn.Module, fit: Fit) -> Mapping[str, Tensor]:
        """Return |w|, or |c w|."""
        return magnitudes(network, self.scores)


def magnitudes(network: nn.Module, scores: str) -> dict[str, Tensor]:
    """Return |w| of each prunable weight or, for "effective" scores, |c w| with the constant c of its layer.

    They differ in equalised layers alone, those of a progressive GAN, which store weights of unit variance and multiply
    them by c = sqrt(2 / fan-in): by |w| all layers are pruned alike at first, by |c w| the wide ones are.
    """
    constants = gains(network)
    return {name: w.detach().abs() * (constants[name] if scores == "effective" else 1)
            for name, w in prunable(network).items()}
