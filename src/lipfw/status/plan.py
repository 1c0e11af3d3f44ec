"""How many rounds and steps a run will have, as its config tells. What only its network would tell is left open."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lipfw import zoo
from lipfw.errors import InputError
from lipfw.listing import tickets_in
from lipfw.pruner.schedule import Schedule

_SIZES = [round(1_500 * 1.22 ** k) + 7 * k for k in range(40)]      # weights of networks, up to some 3.5 million


@dataclass(frozen=True)
class Plan:
    """`rounds` in all, and the steps of the first and of each later one; None: not known."""

    rounds: int | None = None
    first: int | None = None
    later: int | None = None

    @property
    def steps(self) -> int | None:
        """Steps of all rounds."""
        return None if None in (self.rounds, self.first, self.later) else self.before(self.rounds)

    def before(self, round_: int) -> int:
        """Return how many steps the rounds before one have."""
        return self.first + (round_ - 1) * self.later if round_ else 0


def plan(config: Mapping, base: Path, done: Sequence[Mapping] = (), weights: tuple[int, int] | None = None) -> Plan:
    """Return a run's plan. What a config lacks that is not lipfw's is not known either.

    `base` is the folder that the run was started in, `done` are the records of its complete rounds, `weights` the
    number of its prunable weights and of its other parameters, once known.
    """
    try:
        pruner, fit = config["pruner"], config["fit"]
        first = later = _steps(fit, config, done)
        if first is not None and pruner.get("retrain") == "remaining":
            later -= _rewind(pruner["rewind_step"], first)
        return Plan(_rounds(pruner, base, weights), first, later)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Plan()


def _rounds(pruner: Mapping, base: Path, weights: tuple[int, int] | None) -> int | None:
    name = pruner["_target_"].split(".")[-2]
    if name == "none":
        return 1
    if "path" in pruner:
        try:
            path = pruner["path"]
            return len(tickets_in(path if zoo.is_named(path) else base / Path(path).expanduser()))
        except (InputError, OSError):
            return None     # they have been moved since
    gradual = name == "imp" or pruner.get("doubled", False)
    sparsities = pruner["sparsities"]
    return _scheduled(pruner["rounds"], pruner["rate"], None if sparsities is None else tuple(sparsities),
                      pruner["params"], gradual, weights)


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


def _steps(fit: Mapping, config: Mapping, done: Sequence[Mapping]) -> int | None:
    """Return the steps of a whole round."""
    kind = fit["_target_"].split(".")[-1]
    if kind == "Growing":
        return _growing(fit, config)
    if kind in ("FineTuning", "Classification"):    # the number of pictures is in no config; no round ends early
        return done[0]["step_last"] if done else None
    return 1 if kind == "Baseline" else fit["steps"]


def _growing(fit: Mapping, config: Mapping) -> int | None:
    """Return the steps of a growth from 4 pixels on, as `fit.growing.phases` has them."""
    prior, size = config["prior"], config["image"].get("size")
    known = [len(v) for v in (fit["fade"], fit["stable"], prior.get("channels")) if isinstance(v, (list, tuple))]
    if not known and prior.get("weights") is None and isinstance(size, int):
        known = [size.bit_length() - 2]
    if not known:
        return None
    fade, stable = (list(v) if isinstance(v, (list, tuple)) else [v] * known[0] for v in (fit["fade"], fit["stable"]))
    return sum(-(-pictures // fit["batch"]) for pictures in (*fade[1:], *stable))


def _rewind(step: int | str, steps: int) -> int:
    return round(float(step[:-1]) / 100 * steps) if isinstance(step, str) else step


def chosen(losses: Sequence[float], patience: int = 2) -> int:
    """Return the best round so far, as `fit.stopping` chooses it without the clean picture.

    >>> chosen([5.0, 4.0, 4.1, 3.9, 4.0, 4.2, 4.5])
    3
    """
    rises = 0
    for r in range(1, len(losses)):
        rises = rises + 1 if losses[r] > losses[r - 1] else 0
        if rises == patience:
            return r - patience
    return len(losses) - 1
