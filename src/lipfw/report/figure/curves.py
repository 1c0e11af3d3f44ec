"""A metric over the parameters that are left, or over sparsity: mean over seeds with a band of its deviation."""
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lipfw.errors import InputError
from lipfw.report.figure.points import check, curve, label, series, split, within
from lipfw.report.figure.points import metric as metric_of
from lipfw.report.figure.style import FAINT, LEVEL, absent, legend, panels, params_axis, style
from lipfw.report.figure.words import metric_label
from lipfw.report.study import Study

_X = {"params_left": "parameters left, log scale", "sparsity": "weights removed, %"}


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw `series` as lines, `points` (deep decoders) at their number of parameters, `level` as a line across.

    Spec: `x` (params_left or sparsity), `y` (the study's metric), `panels` (a key of the cells).
    """
    check(spec, ("x", "y", "series", "points", "level", "panels"))
    x, metric = spec.get("x", "params_left"), metric_of(study, spec)
    if x not in _X:
        raise InputError(f"draw=curves: x must be one of {', '.join(_X)}, got {x!r}")
    lines, dots, levels = (series(study, spec, key) if spec.get(key) or key == "series" else []
                           for key in ("series", "points", "level"))
    if dots and x == "sparsity":
        raise InputError("draw=curves: points have a number of parameters and no sparsity; they need x: params_left")
    key = spec.get("panels")
    values = split([*lines, *dots], key)
    figure, every = panels(len(values), narrow)
    known, banded = list(study.series), False
    for axes, panel in zip(every, values, strict=True):
        for s in levels:
            banded |= _level(axes, curve(within(s.points, key, panel), metric))
        for s in lines:
            c = curve(within(s.points, key, panel), metric)
            xs = c.params_left if x == "params_left" else 100 * c.sparsity
            axes.plot(xs, c.mean, **style(known, s.name).line, gid=f"line-{s.name}")
            if np.isfinite(c.sd).any():
                banded = True
                axes.fill_between(xs, c.mean - c.sd, c.mean + c.sd, color=style(known, s.name).color, alpha=0.18,
                                  linewidth=0)
        for s in dots:
            c = curve(within(s.points, key, panel), metric)
            axes.errorbar(c.params_left, c.mean, yerr=np.nan_to_num(c.sd), **style(known, s.name).line | {
                "linestyle": "none", "markersize": 7}, capsize=2, elinewidth=1)
        if panel is not None:
            axes.set_title(panel)
        if x == "params_left":
            params_axis(axes)
    figure.supxlabel(_X[x], fontsize=9)
    figure.supylabel(metric_label(metric), fontsize=9)
    _legend(figure, known, lines, dots, levels, banded, narrow)
    return figure


def _level(axes: Axes, c) -> bool:
    """Draw the mean of unpruned networks across; returns whether they have a deviation."""
    if not len(c.mean):
        return False
    axes.axhline(c.mean[0], **LEVEL)
    if np.isfinite(c.sd[0]):
        axes.axhspan(c.mean[0] - c.sd[0], c.mean[0] + c.sd[0], color=LEVEL["color"], alpha=0.08, linewidth=0)
    return bool(np.isfinite(c.sd[0]))


def _legend(figure: Figure, known, lines, dots, levels, banded: bool, narrow: bool) -> None:
    handles, labels = [], []
    for kind, members in (("line", lines), ("dot", dots), ("level", levels)):
        for s in members:
            if not s.points:
                handle, text = absent(s.label)
            else:
                look = LEVEL if kind == "level" else style(known, s.name).line
                handle = Line2D([], [], **look | ({"linestyle": "none", "markersize": 7} if kind == "dot" else {}))
                text = label(s)
            handles.append(handle)
            labels.append(text)
    if banded:
        handles.append(Patch(color=FAINT, alpha=0.25, linewidth=0))
        labels.append("± deviation over seeds")
    legend(figure, handles, labels, narrow)
