"""Iterative magnitude pruning (Frankle and Carbin, 2019; Algorithm 1 of the lottery image prior)."""
from collections.abc import Mapping

from torch import Tensor, nn

from lipfw.errors import number, whole
from lipfw.mask import prunable
from lipfw.pruner.pruner import Loss, Pruner, Schedule


class IMP(Pruner):
    """Fit, drop the fraction `rate` of the remaining weights that are smallest over all layers together, rewind, again.

    Round 0 is dense; after it `rounds` prunings, so rounds + 1 fits. `rewind_step` is the step of round 0 whose weights
    the later rounds start from.
    """

    scores_trained = True

    def __init__(self, rounds: int = 16, rate: float = 0.2, rewind_step: int = 0):
        whole("pruner.rounds", rounds, least=0)
        hint = f"it is a fraction: did you mean {rate / 100:g}?" if isinstance(rate, (int, float)) and rate > 1 else ""
        rate = number("pruner.rate", rate, 0, 1, open_low=True, open_high=True, hint=hint)
        whole("pruner.rewind_step", rewind_step, least=0)
        self.schedule = Schedule([(1 - rate) ** r for r in range(rounds + 1)], rate, rewind_step)

    def score(self, network: nn.Module, loss: Loss) -> Mapping[str, Tensor]:
        """Return |w|."""
        return {name: w.detach().abs() for name, w in prunable(network).items()}
