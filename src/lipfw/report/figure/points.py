"""Points of a study -> what a figure draws: the series it names, at a sparsity, means and deviations over seeds."""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lipfw.errors import InputError
from lipfw.errors import nearest as nearest_name
from lipfw.report.claims import check_metric
from lipfw.report.manifest import matches
from lipfw.report.read import natural
from lipfw.report.study import Point, Series, Study

NEAR = 0.02             # a round this far from the sparsity that is asked for still stands for it
_SAME = 0.001           # sparsities no further apart are one
_PROPERTIES = ("picture", "seed")


@dataclass(frozen=True)
class Curve:
    """A series over sparsity: arrays of one length, `sd` over `n` seeds (NaN for one)."""

    sparsity: np.ndarray
    params_left: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    n: np.ndarray


def check(spec: Mapping, allowed: Iterable[str]) -> None:
    """Raise InputError if a figure's spec has a key that its kind does not know."""
    known = {"draw", "title", "shows", "where", *allowed}
    for key in spec:
        if key not in known:
            raise InputError(f"a figure of draw={spec['draw']} has no {key!r}; it may have {', '.join(sorted(known))}")


def names(spec: Mapping, key: str = "series") -> list[str]:
    """Return the names that a spec gives as one word or as a list, [] for none. Raises InputError for another thing."""
    given = spec.get(key) or ()
    if not isinstance(given, (str, list, tuple)):
        raise InputError(f"draw={spec['draw']}: {key} must be a name or a list of names, got {given!r}")
    return [given] if isinstance(given, str) else [str(name) for name in given]


def series(study: Study, spec: Mapping, key: str = "series") -> list[Series]:
    """Return the series that a spec names (all, if it has no list `series`), with the points that its `where` picks.

    Raises InputError for a name that the study does not have.
    """
    chosen = []
    wanted = names(spec, key) or (list(study.series) if key == "series" else [])
    if key == "series" and not wanted:
        raise InputError(f"draw={spec['draw']}: the study has no series")
    for name in wanted:
        if name not in study.series:
            raise InputError(f"study {study.name}: draw={spec['draw']} names the series {name!r}; there are "
                             f"{', '.join(study.series)}")
        s = study.series[name]

        def fits(values: Mapping) -> bool:
            return matches(values, spec.get("where"), f"draw={spec['draw']}: where", [c["values"] for c in study.cells])

        chosen.append(replace(s, points=tuple(p for p in s.points if fits(p.values)),
                              missing=tuple(m for m in s.missing if fits(m["values"]))))
    return chosen


def metric(study: Study, spec: Mapping, key: str = "y", usual: str | None = None) -> str:
    """Return the metric that a spec names, else the `usual` one, or the study's. Raises InputError for an unknown one.
    """
    return check_metric(study, spec.get(key) or usual or study.metric, f"draw={spec['draw']}: {key}")


def label(s: Series) -> str:
    """Return what a legend says of a series with results: of one with some of its runs missing, how many there are."""
    if not s.missing:
        return s.label
    there = len({p.folder for p in s.points})
    return f"{s.label} ({there} of {there + len(s.missing)} runs)"


def value(point: Point, key: str) -> str:
    """Return a point's value of a key of its cell; `picture` and `seed` are keys too. '' if its cell has none."""
    return str(getattr(point, key) if key in _PROPERTIES else point.values.get(key, ""))


def split(every: Iterable[Series], key: str | None) -> list[str | None]:
    """Return the values of a key among the points, 2 before 10; [None] without a key: all in one panel.

    Raises InputError for a key that no cell has a value of.
    """
    if key is None:
        return [None]
    cells = [v for s in every for v in (*s.planned, *(p.values for p in s.points))]
    if key not in _PROPERTIES and cells and not any(key in v for v in cells):
        known = dict.fromkeys(k for v in cells for k in v)
        raise InputError(f"no cell has a value of {key}{nearest_name(key, known)}")
    return sorted({value(p, key) for s in every for p in s.points}, key=natural) or [None]


def within(points: Iterable[Point], key: str | None, wanted: str | None) -> list[Point]:
    """Return the points of one panel. One that has no such key (a dense network for all) belongs to each."""
    return [p for p in points if wanted is None or value(p, key) in (wanted, "")]


def curve(points: Sequence[Point], metric: str) -> Curve:
    """Return mean and sample deviation over seeds of a metric at each sparsity, from dense to sparse.

    Of several pictures a seed's value is the mean over them; a seed that lacks some of the pictures there is left out,
    so that no mean moves with what is not done yet.
    """
    rows = []
    for group in _sparsities([p for p in points if p.record.get(metric) is not None]):
        pictures = {p.picture for p in group}
        seeds: dict[str, dict[str, list[float]]] = {}
        for p in group:
            seeds.setdefault(p.seed, {}).setdefault(p.picture, []).append(float(p.record[metric]))
        each = [np.mean([np.mean(v) for v in of.values()]) for of in seeds.values() if of.keys() == pictures]
        if each:
            rows.append((np.mean([p.sparsity for p in group]), np.mean([p.params_left for p in group]), np.mean(each),
                         np.std(each, ddof=1) if len(each) > 1 else np.nan, len(each)))
    return Curve(*np.array(rows, dtype=float).reshape(-1, 5).T)


def nearest(points: Iterable[Point], sparsity: float) -> list[Point]:
    """Return of each run the round nearest to a sparsity, if it is within NEAR of it."""
    best: dict[object, Point] = {}
    for p in points:
        if p.folder not in best or abs(p.sparsity - sparsity) < abs(best[p.folder].sparsity - sparsity):
            best[p.folder] = p
    return [p for p in best.values() if abs(p.sparsity - sparsity) <= NEAR]


def at(s: Series, points: Sequence[Point], sparsity: float) -> list[Point]:
    """Return those points of a series that stand for a sparsity: the nearest, or all of a level."""
    return list(points) if s.level else nearest(points, sparsity)


def sparsities(spec: Mapping, every: Sequence[Series]) -> list[float]:
    """Return the sparsities that a spec asks for (`sparsity` or `sparsities`), else up to five that its series reached.

    Raises InputError for what is no number in [0, 1).
    """
    given = spec.get("sparsities", spec.get("sparsity"))
    if given is None:
        groups = _sparsities([p for s in every if not s.level for p in s.points])
        reached = [float(np.mean([p.sparsity for p in g])) for g in groups]
        return [reached[i] for i in sorted({*np.linspace(0, len(reached) - 1, 5).round().astype(int)}) if reached]
    given = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for v in given:
        if isinstance(v, bool) or not isinstance(v, (int, float)) or not 0 <= v < 1:
            raise InputError(f"draw={spec['draw']}: a sparsity must be a number in [0, 1), got {v!r}")
    return [float(v) for v in given]


def first(points: Sequence[Point]) -> Point | None:
    """Return the point of the lowest seed, the one whose picture is shown."""
    return min(points, key=lambda p: natural(f"{p.seed} {p.folder}"), default=None)


def _sparsities(points: Sequence[Point]) -> list[list[Point]]:
    """Return the points in groups of one sparsity each, from dense to sparse."""
    groups: list[list[Point]] = []
    for p in sorted(points, key=lambda p: p.sparsity):
        if groups and p.sparsity - groups[-1][0].sparsity <= _SAME:
            groups[-1].append(p)
        else:
            groups.append([p])
    return groups
