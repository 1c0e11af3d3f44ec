"""Loss and PSNR against pruning rounds, a line a run, with the round that the rule chose without the clean picture."""
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lipfw.report.figure.points import check, label, series, split, within
from lipfw.report.figure.points import metric as metric_of
from lipfw.report.figure.style import INK, absent, legend, loss_axis, panels, style
from lipfw.report.figure.words import metric_label
from lipfw.report.study import Point, Study


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw for each panel the loss above and `y` (psnr_picked) below it. Spec: `series`, `y`, `panels`.

    The ring is each run's best round: the last one before its loss rises `pruner.patience` times in a row.
    """
    check(spec, ("series", "y", "panels"))
    every, key, y = series(study, spec), spec.get("panels"), metric_of(study, spec, usual="psnr_picked")
    values = split(every, key)
    figure, drawn = panels(2 * len(values), narrow, height=1.8, rows=2)
    known = list(study.series)
    for row, metric in enumerate(("loss", y)):
        for axes, panel in zip(drawn[row * len(values):], values, strict=False):
            for s in every:
                for run in runs(within(s.points, key, panel)):
                    _line(axes, run, metric, style(known, s.name))
            if metric == "loss":
                loss_axis(axes)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if panel is not None and (row == 0 or narrow):
                axes.set_title(panel)
            if narrow or axes is drawn[row * len(values)]:
                axes.set_ylabel(metric_label(metric).replace(" at ", "\nat "))
    figure.supxlabel("pruning round", fontsize=9)
    pairs = [(Line2D([], [], **style(known, s.name).line), label(s)) if s.points else absent(s.label) for s in every]
    pairs.append((Line2D([], [], **_RING), "chosen by the loss"))
    legend(figure, *zip(*pairs, strict=True), narrow)
    return figure


_RING = {"color": INK, "marker": "o", "markersize": 9, "markerfacecolor": "none", "linestyle": "none",
         "markeredgewidth": 1.2, "clip_on": False}


def runs(points: Sequence[Point]) -> list[list[Point]]:
    """Return the points of each run, by round."""
    by_folder: dict[object, list[Point]] = {}
    for p in points:
        by_folder.setdefault(p.folder, []).append(p)
    return [sorted(run, key=lambda p: p.round) for run in by_folder.values()]


def _line(axes, run: Sequence[Point], metric: str, look) -> None:
    there = [(p.round, p.record[metric]) for p in run if p.record.get(metric) is not None]
    axes.plot(*zip(*there, strict=True) if there else ((), ()), **look.line | {"linewidth": 1, "markersize": 3})
    for p in run:
        if p.round == p.run.best_round and p.record.get(metric) is not None:
            axes.plot([p.round], [p.record[metric]], **_RING)
