"""What every pruner is, and the schedule of how many weights each round keeps."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lipfw.mask import Mask, keep_top

Loss = Callable[[], Tensor]     # computes the task's loss of the network as it stands, with its graph


@dataclass(frozen=True)
class Schedule:
    """How many prunable weights each round keeps, and from which step of round 0 the later rounds start.

    `densities[r]` is the kept fraction of round r. With `rate` the counts are exact steps of R - round(rate * R), the
    ladder of the method's paper, which differs from rounding each density by at most a few weights.
    """

    densities: Sequence[float] = (1.0,)
    rate: float | None = None
    rewind_step: int = 0

    @property
    def rounds(self) -> int:
        """Number of fits, the dense round 0 included."""
        return len(self.densities)

    def counts(self, total: int) -> list[int]:
        """Return the number of kept weights of each round, for `total` prunable ones.

        >>> Schedule([1.0, 0.8, 0.64], rate=0.2).counts(2_208_768)
        [2208768, 1767014, 1413611]
        """
        if self.rate is None:
            return [round(d * total) for d in self.densities]
        counts = [total]
        for _ in self.densities[1:]:
            counts.append(counts[-1] - round(self.rate * counts[-1]))
        return counts


class Pruner:
    """Scores weights; counting, ties, masks, schedules and rewinding are written elsewhere, once.

    `scores_trained`: score the weights as a round's fit left them (IMP), else those that the round starts from.
    """

    scores_trained = False
    schedule = Schedule()

    def prepare(self, network: nn.Module) -> None:
        """Change the network before the first round starts; most pruners do nothing."""

    def score(self, network: nn.Module, loss: Loss) -> Mapping[str, Tensor]:
        """Return a score for each prunable weight, by parameter name; the highest are kept."""
        raise TypeError(f"{type(self).__name__} has no score")

    def prune(self, network: nn.Module, loss: Loss, count: int, within: Mask | None, round_: int) -> Mask:
        """Return the mask of a round that keeps exactly `count` weights, chosen among those of `within`."""
        return keep_top(self.score(network, loss), count, within)
