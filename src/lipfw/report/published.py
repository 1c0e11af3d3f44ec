"""Published numbers beside those of a study."""
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lipfw.errors import InputError, choice
from lipfw.report.claims import NEAR, check_metric
from lipfw.report.manifest import changing, matches
from lipfw.report.pairing import clusters, total
from lipfw.report.stats import Stat
from lipfw.report.study import Point, Study

_KEYS = ("series", "value", "where", "sparsity", "metric", "source")


@dataclass(frozen=True)
class Row:
    """A published number, and ours: the mean over the pictures, with its deviation over seeds.

    `sparsity` is the published one (None: of a network that nothing was cut from), `ours_at` that of our tickets
    nearest to it, at most NEAR away; `ours` is empty where there are none. `difference` is ours less the published one.
    """

    series: str
    picture: str
    sparsity: float | None
    ours_at: float | None
    metric: str
    ours: Stat
    published: float
    source: str

    @property
    def difference(self) -> float | None:
        return None if self.ours.mean is None else self.ours.mean - self.published


def published(study: Study) -> list[Row]:
    """Return a row for each number that a study's `published` lists. Raises InputError, naming the file and the key."""
    numbers = study.spec.get("published") or []
    if not isinstance(numbers, list):
        raise InputError(f"{study.manifest}: published must be a list, got {numbers!r}")
    return [_row(study, number, f"{study.manifest}: published[{i}]") for i, number in enumerate(numbers)]


def comparable(study: Study) -> str:
    """Return the line that says how far the numbers of a study can be held against published ones; "" if they can."""
    if study.scale != "paper":
        return (f"At scale {study.scale} picture sizes, widths, steps and seeds differ from the paper's: absolute "
                "numbers do not compare, only their order does.")
    if changed := changing(study.given):
        told = " ".join(f"{k}={v}" for k, v in changed.items())
        return f"Options were changed ({told}): absolute numbers may not compare."
    return ""


def _row(study: Study, number, name: str) -> Row:
    if not isinstance(number, Mapping):
        raise InputError(f"{name} must be a mapping with series and value, got {number!r}")
    for key in number:
        choice(f"{name}: each key", key, _KEYS)
    series = study.series[choice(f"{name}.series", number.get("series"), list(study.series))]
    metric = check_metric(study, number.get("metric") or study.metric, f"{name}.metric")
    value, asked, where = number.get("value"), number.get("sparsity"), number.get("where")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name}.value must be a number, got {value!r}")
    if asked is not None and (isinstance(asked, bool) or not isinstance(asked, (int, float)) or not 0 <= asked <= 1):
        raise InputError(f"{name}.sparsity must be a number in [0, 1], got {asked!r}")
    points = [p for p in series.points if matches(p.values, where, f"{name}.where", series.planned)]
    if asked is None and not series.level:
        raise InputError(f"{name}.sparsity is missing: {series.name} has points at several")
    if asked is not None and not series.level:
        near = min(clusters(p.sparsity for p in points), key=lambda c: abs(statistics.fmean(c) - asked), default=[])
        points = [p for p in points if p.sparsity in near and abs(statistics.fmean(near) - asked) <= NEAR]
    values = _over_pictures(points, metric)
    pictures = sorted({p.picture for p in points})
    told = ", ".join(str(v) for k, v in (where or {}).items() if k.startswith("image"))
    picture = told or (pictures[0] if len(pictures) == 1 else f"{len(pictures)} pictures" if pictures else "")
    at = statistics.fmean(p.sparsity for p in points) if points else None
    return Row(series.label, picture, asked, at, metric, Stat.of(values), float(value), str(number.get("source") or ""))


def _over_pictures(points: Sequence[Point], metric: str) -> list[float]:
    """Return the mean over the pictures of each seed that has all of them."""
    seeds: dict[str, dict[str, list[float]]] = {}
    for p in points:
        for picture, value in total(p, metric).items():
            seeds.setdefault(p.seed, {}).setdefault(picture, []).append(value)
    every = {picture for pictures in seeds.values() for picture in pictures}
    return [statistics.fmean(statistics.fmean(v) for v in pictures.values())
            for _, pictures in sorted(seeds.items()) if pictures.keys() == every]
