"""Two series -> the differences between them, a row a pair (picture, seed) and a column a sparsity."""
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lipfw.report.study import Point, Series

APART = 0.01        # sparsities that are compared with each other are no further apart
_SAME = 0.001       # those of one series are one column; as the tables have it
_ROUNDING = 1e-9
_LOWER = ("mse_", "swd", "loss", "seconds")     # so begins a metric of which less is better
_PAIRED = ("seed", "image.name", "pruner.path")     # (picture, seed) tell those, and of.KEY tells the last


def lower(metric: str) -> bool:
    """Return whether less is better; then differences are relative: 0.07 is 7 % less.

    >>> lower("mse_picked"), lower("psnr_peak")
    (True, False)
    """
    return metric.startswith(_LOWER)


@dataclass(frozen=True)
class Differences:
    """How much better one series is than another: `values[i, j]` of pair i at sparsity j, NaN where either has none.

    In the unit of the metric, but of one of which less is better relative to the worse side: 1 - better / worse. Pairs
    are sorted, sparsities rise; a pair with no value at all is none.
    """

    pairs: tuple[tuple[str, ...], ...]
    sparsities: tuple[float, ...]
    values: np.ndarray

    def within(self, low: float, high: float) -> "Differences":
        """Return those at sparsities from `low` to `high`."""
        keep = [j for j, s in enumerate(self.sparsities) if low <= s <= high]
        values = self.values[:, keep]
        there = ~np.isnan(values).all(axis=1) if keep else np.zeros(len(self.pairs), bool)
        keep = [j for i, j in enumerate(keep) if not np.isnan(values[:, i]).all()]
        return Differences(tuple(p for p, t in zip(self.pairs, there, strict=True) if t),
                           tuple(self.sparsities[j] for j in keep), self.values[np.ix_(there, keep)])


def differences(better: Series, worse: Series, metric: str) -> Differences:
    """Return the differences of a metric between two series, at each sparsity that both reach.

    Pairs agree in picture and seed, and in what `shared` returns; of several runs of one side that do, the mean counts.
    Where both sides were judged on several pictures at once, or the one on pictures of the other's, each is a pair. A
    `Series.level` stands beside every sparsity of the other.
    """
    keys = shared(better, worse)
    ours, theirs = ({whole: _values(s, metric, keys, whole) for whole in (False, True)} for s in (better, worse))
    whole = not {k for k, _ in ours[False]} & {k for k, _ in theirs[False]}
    ours, theirs = ours[whole], theirs[whole]
    pairs = sorted({k for k, _ in ours} & {k for k, _ in theirs})
    columns = _columns(better, worse, [s for _, s in ours], [s for _, s in theirs])
    values = np.full((len(pairs), len(columns)), np.nan)
    for i, pair in enumerate(pairs):
        for j, (_, mine, other) in enumerate(columns):
            a = [v for s in mine for v in ours.get((pair, s), ())]
            b = [v for s in other for v in theirs.get((pair, s), ())]
            if a and b:
                values[i, j] = _difference(statistics.fmean(a), statistics.fmean(b), metric)
    return Differences(tuple(pairs), tuple(c[0] for c in columns), values).within(0, 1)


def shared(better: Series, worse: Series) -> list[str]:
    """Return the options that the two runs of a pair must agree in, besides picture and seed.

    Both sides have values of them in common, and more than one on at least one side; of what found a replayed ticket
    (of.KEY), on both. Planned cells count too, so that the pairs do not change as runs are done.
    """
    sides = [{k: {v[k] for v in s.planned if k in v} for k in dict.fromkeys(k for v in s.planned for k in v)}
             for s in (better, worse)]
    keys = []
    for key in sides[0]:
        a, b = sides[0][key], sides[1].get(key, set())
        both = key.startswith("of.")
        if key not in _PAIRED and a & b and (min if both else max)(len(a), len(b)) > 1:
            keys.append(key)
    return keys


def score(point: Point, metric: str) -> dict[str, float]:
    """Return a point's values by picture, of several pictures each; {} where it has none."""
    of_each = {name: scores[metric] for name, scores in (point.record.get("images") or {}).items()
               if scores.get(metric) is not None}
    return of_each or total(point, metric)


def total(point: Point, metric: str) -> dict[str, float]:
    """Return a point's value, of several pictures the mean, by the name of its picture or set; {} if it has none."""
    value = point.record.get(metric)
    return {} if value is None else {point.picture: value}


def sparsities(series: Series, metric: str) -> set[float]:
    """Return the sparsities where a series has values; none of a level, which stands beside any."""
    return set() if series.level else {p.sparsity for p in series.points if p.record.get(metric) is not None}


def clusters(sparsities: Iterable[float]) -> list[list[float]]:
    """Return the different sparsities, those next to each other (to a thousandth) together.

    >>> clusters([0.36, 0.2, 0.3605, 0.2])
    [[0.2], [0.36, 0.3605]]
    """
    found: list[list[float]] = []
    for s in sorted(set(sparsities)):
        if found and s - found[-1][-1] <= _SAME + _ROUNDING:
            found[-1].append(s)
        else:
            found.append([s])
    return found


def _values(series: Series, metric: str, keys: Sequence[str], whole: bool) -> dict[tuple, list[float]]:
    """Return the values by ((picture, seed, ...), sparsity)."""
    found: dict[tuple, list[float]] = {}
    for p in series.points:
        for picture, value in (total if whole else score)(p, metric).items():
            key = picture, p.seed, *(p.values.get(k, "") for k in keys)
            found.setdefault((key, p.sparsity), []).append(value)
    return found


def _columns(better: Series, worse: Series, ours: Iterable[float], theirs: Iterable[float]
             ) -> list[tuple[float, list[float], list[float]]]:
    """Return (sparsity, that of the one side, of the other) of each column: each the other's nearest."""
    a, b = clusters(ours), clusters(theirs)
    if not a or not b:
        return []
    if better.level and worse.level:
        mine, other = sorted({s for c in a for s in c}), sorted({s for c in b for s in c})
        return [(max(mine + other), mine, other)]
    if better.level:
        return [(statistics.fmean(c), [s for m in a for s in m], c) for c in b]
    if worse.level:
        return [(statistics.fmean(c), c, [s for o in b for s in o]) for c in a]
    at = [np.array([statistics.fmean(c) for c in side]) for side in (a, b)]
    apart = np.abs(at[0][:, None] - at[1][None, :])
    return [(at[0][i], a[i], b[j]) for i, j in enumerate(apart.argmin(axis=1))
            if apart[i, j] <= APART + _ROUNDING and apart[:, j].argmin() == i]


def _difference(better: float, worse: float, metric: str) -> float:
    if not lower(metric):
        return better - worse
    return 1 - better / worse if worse else np.nan
