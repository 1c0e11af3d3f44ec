"""How a fit goes: PSNR, SSIM or loss against its steps, at given sparsities."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.report.figure.points import at, check, label, series, sparsities, split, within
from lipfw.report.figure.style import absent, legend, loss_axis, panels, style
from lipfw.report.figure.words import metric_label, percent
from lipfw.report.study import Point, Study

_Y = ("psnr", "ssim", "loss", "psnr_raw")


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw a column of steps.jsonl of each of the `series` at each of the `sparsities`, a panel each.

    Spec: `y` (psnr, of the running average; ssim; loss; psnr_raw, of the output itself), `series`, `sparsity` or
    `sparsities`, `panels`.
    """
    check(spec, ("y", "series", "sparsity", "sparsities", "panels"))
    y = spec.get("y", "psnr")
    if y not in _Y:
        raise InputError(f"draw=learning: y must be one of {', '.join(_Y)}, got {y!r}")
    every, key = series(study, spec), spec.get("panels")
    cells = [(v, s) for v in split(every, key) for s in sparsities(spec, every) or [0.0]]
    figure, drawn = panels(len(cells), narrow)
    known = list(study.series)
    for axes, (panel, sparsity) in zip(drawn, cells, strict=True):
        for s in every:
            steps, mean, sd = learning_curve(at(s, within(s.points, key, panel), sparsity), y)
            look = style(known, s.name)
            axes.plot(steps, mean, color=look.color, linestyle=look.linestyle, marker=look.marker, markevery=0.2,
                      markeredgewidth=0, gid=f"line-{s.name}")
            if np.isfinite(sd).any():
                axes.fill_between(steps, mean - sd, mean + sd, color=look.color, alpha=0.18, linewidth=0)
        if y == "loss":
            loss_axis(axes)
        title = ([] if panel is None else [panel]) + ([f"{percent(sparsity)} removed"] if sparsity else [])
        axes.set_title(", ".join(title))
    figure.supxlabel("step", fontsize=9)
    figure.supylabel(metric_label(y), fontsize=9)
    pairs = []
    for s in every:
        look = style(known, s.name)
        handle = Line2D([], [], color=look.color, linestyle=look.linestyle, marker=look.marker, markeredgewidth=0)
        pairs.append((handle, label(s)) if s.points else absent(s.label))
    legend(figure, *zip(*pairs, strict=True), narrow)
    return figure


def learning_curve(points: Sequence[Point], y: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps that all runs of `points` recorded, and mean and deviation (NaN for one run) of a column."""
    runs = []
    for p in points:
        lines = read_jsonl(p.folder / "steps.jsonl")
        values = {r["step"]: float(r[y]) for r in lines if r["round"] == p.round and r.get(y) is not None}
        if values:
            runs.append(values)
    steps = sorted(set.intersection(*map(set, runs))) if runs else []
    table = np.array([[r[s] for s in steps] for r in runs], dtype=float).reshape(len(runs), len(steps))
    mean = table.mean(0) if runs else np.zeros(0)
    sd = table.std(0, ddof=1) if len(runs) > 1 else np.full(len(steps), np.nan)
    return np.array(steps, dtype=float), mean, sd
