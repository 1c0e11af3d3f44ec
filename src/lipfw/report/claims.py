"""Claims of a study -> verdicts: paired differences between two series, their mean and its bootstrap interval."""
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipfw.errors import InputError, choice
from lipfw.report.pairing import APART, Differences, differences, lower, sparsities
from lipfw.report.read import METRICS
from lipfw.report.study import Series, Study

HOLDS, FAILS, UNDECIDED, UNMEASURED = "holds", "does not hold", "undecided", "not measured"
NEAR = 0.02         # `at` means the sparsity nearest to it, and no further away
_EDGE = 0.002       # ladders come near to their round numbers: 0.9648 belongs to a range up to 0.964
_LATE = 0.1         # what is compared may begin so much after a range: the first steps of a ladder are wide
RESAMPLES = 10_000
_KEYS = ("say", "better", "worse", "from", "to", "at", "margin", "metric")
_KNOWN = (*METRICS, "ssim_peak", "ssim_final", "step_peak", "step_picked", "params_left", "empty_layers")
# by how much a single sparsity may fall short of the margin: dB, SSIM, percentage points; 0.1 dB of an error is 2.3 %
_SHORT = {"psnr": 0.1, "ssim": 0.005, "accuracy": 0.5, "train_accuracy": 0.5}
_SHORT_RELATIVE = 10 ** (0.1 / 10) - 1


@dataclass(frozen=True)
class Column:
    """The paired differences at one sparsity: their mean, and its interval (None of fewer than two `pairs`)."""

    sparsity: float
    mean: float
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True)
class Verdict:
    """What was measured of a claim.

    `mean` is that of the paired differences over the range of sparsities (`Differences` has their unit), `low` and
    `high` the ends of its 95 % interval; `pairs` were compared at `sparsities`, and `above` counts those of these where
    the mean is above 0. `note` tells what decided, or what is missing. `columns` has each sparsity.
    """

    say: str
    verdict: str
    mean: float | None
    low: float | None
    high: float | None
    pairs: int
    sparsities: tuple[float, ...]
    above: int
    note: str
    better: str
    worse: str
    metric: str
    margin: float
    columns: tuple[Column, ...] = ()


def verdicts(study: Study) -> list[Verdict]:
    """Return the verdict on each claim of a study.

    Raises InputError, naming the file and the key, for a claim that is not understood: no side, an unknown series or
    metric, a key that claims do not have.
    """
    claims = study.spec.get("claims") or []
    if not isinstance(claims, list):
        raise InputError(f"{study.manifest}: claims must be a list, got {claims!r}")
    return [_judge(study, claim, f"{study.manifest}: claims[{i}]") for i, claim in enumerate(claims)]


def interval(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the ends of the 95 % bootstrap interval of a mean: percentiles of the means of resampled values.

    Resampling draws with replacement. Of few values the interval is too narrow: of two it is those two.
    """
    values = np.sort(np.asarray(values, float))     # so that their order can make no difference
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def check_metric(study: Study, metric, name: str) -> str:
    """Return a metric if the records can have it, else raise InputError."""
    known = dict.fromkeys([*_KNOWN, *(k for s in study.series.values() for p in s.points for k, v in p.record.items()
                                      if isinstance(v, (int, float, type(None))))])
    return choice(name, metric, [k for k in known if k != "round"])


def decide(columns: Sequence[Column], mean: float, low: float, high: float, margin: float, short: float
           ) -> tuple[str, str]:
    """Return the verdict on differences that should be above `margin`, and what decided it.

    It holds if the interval's low end is above the margin and no sparsity's mean below it by more than `short`. It does
    not hold if the high end is below the margin, or the whole interval of one sparsity below it by more than `short`.
    """
    least, sunk = margin - short, [c for c in columns if c.high is not None and c.high < margin - short]
    if high < margin:
        return FAILS, f"the whole interval lies below {margin:g}"
    if sunk:
        return FAILS, f"at {_at(min(sunk, key=lambda c: c.mean))} the whole interval lies below {least:.3g}"
    if (worst := min(columns, key=lambda c: c.mean)).mean < least:
        return UNDECIDED, f"at {_at(worst)} the mean lies below {least:.3g}"
    if low > margin:
        return HOLDS, ""
    return UNDECIDED, f"the interval has {margin:g} in it"


def shortfall(metric: str) -> float:
    """Return by how much a single sparsity may fall short of the margin."""
    if lower(metric):
        return _SHORT_RELATIVE
    return next((value for name, value in _SHORT.items() if metric.startswith(name)), 0.0)


def _judge(study: Study, claim, name: str) -> Verdict:
    if not isinstance(claim, Mapping):
        raise InputError(f"{name} must be a mapping with say, better and worse, got {claim!r}")
    for key in claim:
        choice(f"{name}: each key", key, _KEYS)
    for side in ("better", "worse"):
        if claim.get(side) is None:
            raise InputError(f"{name}.{side} must name a series: {', '.join(study.series) or 'the study has none'}")
    better, worse = (study.series[choice(f"{name}.{side}", claim[side], list(study.series))]
                     for side in ("better", "worse"))
    metric = check_metric(study, claim.get("metric") or study.metric,
                          f"{name}.metric" if claim.get("metric") else f"{study.manifest}: metric")
    margin = _number(claim, "margin", name, 0.0, -math.inf, math.inf)
    every = differences(better, worse, metric)
    found = _in_range(every, claim, name)
    say = str(claim.get("say") or f"{better.label} is better than {worse.label}")
    told = (better.name, worse.name, metric, margin)
    lacking = _lacking(better, worse)
    if not found.pairs:
        note = _why(better, worse, metric, claim, every.sparsities)
        if better.points and worse.points:
            note = _joined(note, lacking)
        return Verdict(say, UNMEASURED, None, None, None, 0, (), 0, note, *told)
    columns = tuple(_column(s, found.values[:, j]) for j, s in enumerate(found.sparsities))
    each = np.nanmean(found.values, axis=1)     # of every pair, over the range
    mean, above = float(each.mean()), sum(c.mean > 0 for c in columns)
    low, high = interval(each) if len(each) > 1 else (None, None)
    if low is None:
        side = "above" if mean > margin else "not above"
        verdict, note = UNDECIDED, f"one pair only, whose mean is {side} {margin:g}"
    else:
        verdict, note = decide(columns, mean, low, high, margin, shortfall(metric))
    either = sparsities(better, metric) | sparsities(worse, metric)
    if short := _short_of(claim, found.sparsities, every.sparsities, either):
        if verdict == HOLDS:
            verdict, note = UNDECIDED, f"holds as far as compared, {short}"
        else:
            note = _joined(note, f"compared {short} only")
    return Verdict(say, verdict, mean, low, high, len(each), found.sparsities, above, _joined(note, lacking), *told,
                   columns)


def _column(sparsity: float, values: np.ndarray) -> Column:
    values = values[~np.isnan(values)]
    return Column(float(sparsity), float(values.mean()), *(interval(values) if len(values) > 1 else (None, None)),
                  len(values))


def _in_range(found: Differences, claim: Mapping, name: str) -> Differences:
    """Return the differences at the sparsities that a claim is about: all but the dense network, if it names none."""
    if "at" in claim and ("from" in claim or "to" in claim):
        raise InputError(f"{name} has both at and a range; give `at`, or `from` and `to`")
    if "at" in claim:
        at = _number(claim, "at", name, 0, 0, 1)
        nearest = min(found.sparsities, key=lambda s: abs(s - at), default=math.inf)
        return found.within(nearest, nearest) if abs(nearest - at) <= NEAR else found.within(2, 2)
    low, high = _number(claim, "from", name, 0, 0, 1), _number(claim, "to", name, 1, 0, 1)
    if low > high:
        raise InputError(f"{name}: from must not be above to, got {low:g} and {high:g}")
    if "from" not in claim and any(found.sparsities):
        low = 2 * _EDGE     # a network that nothing was cut from says nothing of what cuts it
    return found.within(low - _EDGE, high + _EDGE)


def _lacking(*sides: Series) -> str:
    told = [f"{len(s.missing)} of {len(s.planned)} runs of {s.name} are missing" for s in sides if s.missing]
    return ", ".join(dict.fromkeys(told))


def _short_of(claim: Mapping, found: Sequence[float], every: Sequence[float], either: Iterable[float]) -> str:
    """Return which part of a claim's range was compared, "" if all of it: `found` was, `every` elsewhere too.

    It was not where nothing beyond was compared, or where `either` side has a sparsity that the other lacks. Else the
    range ends between two steps of both. An end that the claim leaves open is where both end.
    """
    start, end, low, high = claim.get("from", 1), claim.get("to", 0), min(found), max(found)
    late = low > start + _LATE + _EDGE and (
        min(every) == low or any(start - _EDGE <= s < low - APART for s in either))
    early = high < end - NEAR and (max(every) == high or any(high + APART < s <= end + _EDGE for s in either))
    return " ".join(filter(None, [f"from {low:.1%}" if late else "", f"up to {high:.1%}" if early else ""]))


def _why(better: Series, worse: Series, metric: str, claim: Mapping, reached: Sequence[float]) -> str:
    """Return why nothing could be compared."""
    for s in (better, worse):
        if not s.planned:
            return f"no runs of {s.name} at this scale"
        if not s.points:
            return f"no run of {s.name} is done, of {len(s.planned)}"
        if not any(p.record.get(metric) is not None for p in s.points):
            return f"{s.name} has no {metric}"
    if not reached:
        return "no picture and seed of both at one sparsity"
    at = f"at {claim['at']:g}" if "at" in claim else f"from {claim.get('from', 0):g} to {claim.get('to', 1):g}"
    return f"nothing {at}; both reach " + ", ".join(f"{s:.1%}" for s in reached)


def _joined(*notes: str) -> str:
    return "; ".join(n for n in notes if n)


def _at(c: Column) -> str:
    return f"{c.sparsity:.1%}"


def _number(claim: Mapping, key: str, name: str, default: float, low: float, high: float) -> float:
    value = claim.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        allowed = f"a sparsity in [{low:g}, {high:g}]" if math.isfinite(low) else "a number"
        raise InputError(f"{name}.{key} must be {allowed}, got {value!r}")
    return float(value)
