"""How many prunable weights each round keeps, and how many rounds there are."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lipfw import zoo
from lipfw.errors import InputError, number, whole
from lipfw.listing import tickets_in

_SIZES = [round(1_500 * 1.22 ** k) + 7 * k for k in range(40)]      # weights of networks, up to some 3.5 million


@dataclass(frozen=True)
class Schedule:
    """The kept weights of each round: a ladder of `rounds` prunings at `rate`, or targets that are met exactly.

    The ladder is that of the method's paper, R - round(rate * R). Targets are `sparsities`, removed fractions of the
    prunable weights in [0, 1) that ascend, or `params`, the number of non-zero parameters in all (biases and norms
    too), to compare with a network of that size. Round 0 keeps everything.
    Raises InputError for a rate outside (0, 1), sparsities outside [0, 1) or that don't ascend, and both targets.
    """

    rounds: int = 0
    rate: float = 0.2
    sparsities: Sequence[float] | None = None
    params: int | None = None

    def __post_init__(self):
        whole("pruner.rounds", self.rounds, least=0)
        number("pruner.rate", self.rate, 0, 1, open_low=True, open_high=True, hint=_fraction(self.rate))
        if self.params is not None:
            whole("pruner.params", self.params, least=1)
            if self.sparsities is not None:
                raise InputError("pruner.sparsities and pruner.params both say how much is removed; give one of them")
        if self.sparsities is not None:
            if not self.sparsities:
                raise InputError(f"pruner.sparsities must be a list such as [0.2,0.5,0.9], got {self.sparsities!r}")
            for s in self.sparsities:
                number("each of pruner.sparsities", s, 0, 1, open_high=True, hint=_fraction(s))
            for a, b in zip(self.sparsities[:-1], self.sparsities[1:], strict=True):
                if b <= a:
                    raise InputError(f"pruner.sparsities must ascend, and {b:g} comes after {a:g}: a removed weight "
                                     "does not come back; sort them and name each once")

    def counts(self, total: int, others: int = 0, gradual: bool = False) -> list[int]:
        """Return the kept ones of `total` prunable weights, round by round; `others` are the parameters beside them.

        `gradual` (iterative pruning): on the way to each target no round removes more than `rate` of what is left.
        Raises InputError for a target that can't be met.

        >>> Schedule(rounds=2).counts(2_208_768)
        [2208768, 1767014, 1413611]
        >>> Schedule(params=100_224).counts(2_208_768, others=9_063)
        [2208768, 91161]
        """
        if self.sparsities is None and self.params is None:
            return self._ladder(total)
        counts = [total]
        for target in self._targets(total, others):
            while gradual and (next_ := counts[-1] - round(self.rate * counts[-1])) > target:
                if next_ == counts[-1]:
                    raise InputError(f"pruner.rate={self.rate:g} removes none of {next_} weights; use a larger one")
                counts.append(next_)
            if target < counts[-1]:
                counts.append(target)
        return counts

    def _targets(self, total: int, others: int) -> list[int]:
        if self.params is not None:
            if not others < self.params <= total + others:
                raise InputError(f"pruner.params={self.params:,} can't be met: the network has {total + others:,} "
                                 f"parameters, of which {others:,} are never removed; use more than {others:,} and at "
                                 f"most {total + others:,}")
            return [self.params - others]
        targets = [round((1 - s) * total) for s in self.sparsities]
        if targets[-1] < 1:
            raise InputError(f"pruner.sparsities={list(self.sparsities)}: {self.sparsities[-1]:g} would keep none of "
                             f"the network's {total} prunable weights; use a smaller one")
        return targets

    def _ladder(self, total: int) -> list[int]:
        counts = [total]
        for r in range(1, self.rounds + 1):
            counts.append(counts[-1] - round(self.rate * counts[-1]))
            if counts[-1] < 1:
                raise InputError(f"round {r} would keep none of the network's weights; use fewer pruner.rounds or a "
                                 "smaller pruner.rate")
            if counts[-1] == counts[-2]:
                raise InputError(f"round {r} would remove none of {counts[-1]:,} weights; use fewer pruner.rounds or a "
                                 "larger pruner.rate")
        return counts


def planned(pruner: Mapping, base: Path, weights: tuple[int, int] | None = None) -> int | None:
    """Return how many rounds a pruner's options make at most, the dense one included; None where they do not tell.

    A replay's `path` is relative to `base`, the folder that the run was started in. With targets, where rounding may
    decide, `weights` tell: the number of the prunable ones and of the other parameters.
    Raises KeyError, TypeError, ValueError or AttributeError for options that are none of lipfw's.
    """
    name = pruner["_target_"].rpartition(".")[0].rpartition(".")[2]
    if name == "none":
        return 1
    if "path" in pruner:
        try:
            path = pruner["path"]
            return len(tickets_in(path if zoo.is_named(path) else base / Path(path).expanduser()))
        except (InputError, OSError):
            return None     # they have been moved since
    gradual = name == "imp" or pruner.get("doubled", False)
    sparsities = pruner.get("sparsities")
    return _scheduled(pruner["rounds"], pruner["rate"], None if sparsities is None else tuple(sparsities),
                      pruner.get("params"), gradual, weights)


@lru_cache(maxsize=4096)
def _scheduled(rounds: int, rate: float, sparsities: tuple | None, params: int | None, gradual: bool,
               weights: tuple[int, int] | None) -> int | None:
    """Return the number of rounds of a schedule: with targets it can depend on how many weights there are, by rounding.

    While these are not known it is told where networks of all sizes agree.
    """
    schedule = Schedule(rounds, rate, sparsities, params)
    if sparsities is None and params is None:
        return rounds + 1
    if weights is None and params is not None:
        return None if gradual else 2
    numbers = set()
    for total, others in [weights] if weights is not None else [(size, 0) for size in _SIZES]:
        try:
            numbers.add(len(schedule.counts(total, others, gradual)))
        except InputError:      # too small a network for this schedule
            continue
    return numbers.pop() if len(numbers) == 1 else None


def _fraction(value) -> str:
    """Return a hint for a percentage where a fraction is meant."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 1 < value < 100
    return f"it is a fraction: did you mean {value / 100:g}?" if fits else ""
