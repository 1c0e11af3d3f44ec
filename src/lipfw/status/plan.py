"""How many rounds and steps a run will have, as its config tells. What only its network would tell is left open."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lipfw.pruner.schedule import planned


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
        return Plan(planned(pruner, base, weights), first, later)
    except (KeyError, TypeError, ValueError, AttributeError):
        return Plan()


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
