"""Runs that belong to no study -> what a page tells of them, a comparison or a group at a time."""
from collections.abc import Sequence

from lipfw.report.cells import full
from lipfw.report.compare import Comparison
from lipfw.report.figure.table import Table
from lipfw.report.figure.words import metric_label
from lipfw.report.stats import Group
from lipfw.report.study import Point, Series, Study

_METRICS = ("psnr_picked", "accuracy", "swd", "mse_picked", "loss")      # the first that there is
_MOST = 12      # of those without a comparison


def grids(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[Study]:
    """Return a study, without claims, for each comparison, and for groups of several rounds that are in none."""
    compared = {id(g) for c in comparisons for g in c.groups}
    alone = [g for g in groups if id(g) not in compared and len(g.rows) > 1]
    return [*(_study(c.title, c.groups, c.labels) for c in comparisons),
            *(_study(g.label, [g], [g.pruner]) for g in alone[:_MOST])]


def overview(groups: Sequence[Group]) -> Table:
    """Return a table of a row a group: the round that most of its runs chose without the clean picture."""
    metrics = [m for m in ("psnr_peak", "psnr_picked", "ssim_picked", "accuracy", "swd", "loss")
               if any(g.has(m) for g in groups)]
    rows = []
    for g in groups:
        r = max(g.rows, key=lambda row: row.chosen)
        digits = {"ssim_picked": ".3f", "loss": ".2e"}
        rows.append([g.label, str(len(g.runs)), str(r.round), f"{r.sparsity:.1%}", f"{r.params_left:,.0f}",
                     *(full(r.stats[m], digits.get(m, ".2f"), len(g.runs)) for m in metrics)])
    heads = ["runs", "seeds", "round", "removed", "parameters left", *(metric_label(m) for m in metrics)]
    return Table(heads, rows, "The round that was chosen without the clean picture; mean ± deviation over seeds.",
                 "All runs")


def _study(title: str, groups: Sequence[Group], labels: Sequence[str]) -> Study:
    metric = next((m for m in _METRICS if any(g.has(m) for g in groups)), "loss")
    series = {name: Series(name, name, tuple(_points(g)), ()) for name, g in zip(labels, groups, strict=True)}
    figures = [{"draw": "curves", "x": "sparsity", "y": metric,
                "shows": "Mean over seeds, with a band of their deviation; nothing is removed on the left."}]
    if metric == "psnr_picked":
        figures.append({"draw": "pictures",
                        "shows": "Of the lowest seed, at the step that was picked without the clean picture."})
    runs = {run.folder: run for g in groups for run in g.runs}
    folder = next(iter(runs)).parent
    return Study(folder, title, "", title, "", "", metric, (), series, {"figures": figures}, (), (folder,), runs)


def _points(g: Group) -> list[Point]:
    return [Point(run.folder, r["round"], run.place(r["round"]), r["params_left"], r,
                  {k: str(v) for k, v in {**run.options, **run.seeds}.items()}, run)
            for run in g.runs for r in run.rounds]
