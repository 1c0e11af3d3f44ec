"""A table of a study, without matplotlib: a metric by two of series, sparsities and a key of the cells."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lipfw.errors import InputError
from lipfw.report.figure.points import at, check, curve, series, sparsities, split, within
from lipfw.report.figure.points import metric as metric_of
from lipfw.report.figure.words import metric_label, percent
from lipfw.report.study import Point, Study

_DIGITS = {"psnr": 2, "ssim": 3, "mse": 4, "accuracy": 2, "train": 2, "swd": 2, "loss": 5, "seconds": 1, "params": 0}
LOW = ("mse", "swd", "loss", "seconds")     # metrics of which less is better, by how their names begin


@dataclass(frozen=True)
class Table:
    """`heads` of all columns and `rows` of texts, **so** the best; `note` says what the numbers are."""

    heads: list[str]
    rows: list[list[str]]
    note: str = ""
    title: str = ""

    def markdown(self) -> str:
        """Return it as a GitHub table."""
        lines = [self.heads, [":---", *["---:"] * (len(self.heads) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def build(study: Study, spec: Mapping) -> Table:
    """Return means and deviations over seeds of `metric` (the study's), the best of each column marked **so**.

    Spec: `rows` and `columns`: series, sparsities, or a key of the cells such as image.name; `series`, `sparsities`.
    What is neither in rows nor in columns is averaged over (pictures), or must be one (sparsities).
    """
    check(spec, ("rows", "columns", "series", "sparsity", "sparsities", "metric"))
    down, across = spec.get("rows", "series"), spec.get("columns", "sparsities")
    metric = metric_of(study, spec, "metric")
    every = series(study, spec)
    wanted = sparsities(spec, every) or [0.0]
    if down == across:
        raise InputError(f"draw=table: rows and columns are both {down}")
    if "series" not in (down, across) and len(every) > 1:
        raise InputError("draw=table: of several series, rows or columns must be series")
    if "sparsities" not in (down, across) and len(wanted) > 1:
        raise InputError("draw=table: of several sparsities, rows or columns must be sparsities")

    def choices(axis: str) -> list[tuple[str, object]]:
        if axis == "series":
            return [(s.label, s) for s in every]
        if axis == "sparsities":
            return [(percent(v), v) for v in wanted]
        return [(v, v) for v in split(every, axis)]

    rows, numbers = [], []
    digits = _DIGITS.get(metric.split("_")[0], 3)
    for name, r in choices(down):
        texts, values = [name], [None]
        for _, c in choices(across):
            chosen = {down: r, across: c}
            s = chosen.get("series", every[0])
            points = list(s.points)
            for axis, v in chosen.items():
                if axis not in ("series", "sparsities"):
                    points = within(points, axis, v)
            sparsity = chosen.get("sparsities", wanted[0])
            mean, sd, n = _cell([replace(p, sparsity=sparsity) for p in at(s, points, sparsity)], metric)
            values.append(mean)
            texts.append("-" if mean is None else f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if n > 1 else ""))
        rows.append(texts)
        numbers.append(values)
    _mark(rows, numbers, low=metric.startswith(LOW))
    return Table([{"series": "", "sparsities": "removed"}.get(down, down), *(n for n, _ in choices(across))], rows,
                 f"{metric_label(metric)}; mean ± deviation over seeds; best of each column in bold")


def _cell(points: Sequence[Point], metric: str) -> tuple[float | None, float, int]:
    """Return mean, deviation and number of seeds of points that count as of one sparsity."""
    c = curve(points, metric)
    return (float(c.mean[0]), float(c.sd[0]), int(c.n[0])) if len(c.mean) else (None, np.nan, 0)


def _mark(rows: list[list[str]], numbers: Sequence[Sequence[float | None]], low: bool) -> None:
    for c in range(1, len(rows[0]) if rows else 0):
        known = {line[c] for line in numbers if line[c] is not None}
        if len(known) > 1:
            best = (min if low else max)(known)
            for texts, line in zip(rows, numbers, strict=True):
                if line[c] == best:
                    texts[c] = f"**{texts[c]}**"
