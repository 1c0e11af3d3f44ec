"""Which layers a pruner empties: the removed part of each layer's weights, by its own, along the network."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lipfw.errors import InputError
from lipfw.report.figure.points import check, label, nearest, series, sparsities
from lipfw.report.figure.style import FAINT, absent, legend, panels, style
from lipfw.report.figure.words import percent
from lipfw.report.study import Point, Study
from lipfw.report.ticket import layer_sparsity


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw for each of `sparsities` a panel with the layers 1..L along x and a line for each of `series`.

    It is each layer's own sparsity, not that of the layers 1..l together which the published code writes. Mean over
    seeds and pictures, with a band of the deviation over runs.
    """
    check(spec, ("series", "sparsity", "sparsities"))
    every = series(study, spec)
    wanted = sparsities(spec, every) or [0.0]
    figure, drawn = panels(len(wanted), narrow, height=2.2)
    known = list(study.series)
    for axes, sparsity in zip(drawn, wanted, strict=True):
        axes.axhline(100 * sparsity, color=FAINT, linewidth=0.8)
        for s in every:
            table = layer_table(nearest(s.points, sparsity))
            if not len(table):
                continue
            x, mean = np.arange(1, table.shape[1] + 1), table.mean(0)
            axes.plot(x, mean, **style(known, s.name).line | {"markersize": 3.5, "linewidth": 1.2},
                      gid=f"line-{s.name}")
            if len(table) > 1:
                sd = table.std(0, ddof=1)
                axes.fill_between(x, mean - sd, mean + sd, color=style(known, s.name).color, alpha=0.18, linewidth=0)
        axes.set_title(f"{percent(sparsity)} removed of all")
    figure.supxlabel("layer, from the code to the picture", fontsize=9)
    figure.supylabel("removed of the layer, %", fontsize=9)
    pairs = [(Line2D([], [], **style(known, s.name).line), label(s)) if s.points else absent(s.label) for s in every]
    legend(figure, *zip(*pairs, strict=True), narrow)
    return figure


def layer_table(points: Sequence[Point]) -> np.ndarray:
    """Return (runs, layers): the removed percentage of each layer, of those runs that have tickets.

    Raises InputError if they are tickets of networks with different numbers of layers.
    """
    rows: list[list[float]] = []
    for p in points:
        file = p.folder / "tickets" / f"round_{p.round:02d}.safetensors"
        if file.is_file():
            rows.append([100 * v for v in layer_sparsity(file).values()])
            if len(rows[-1]) != len(rows[0]):
                raise InputError(f"{file} has {len(rows[-1])} layers and others of its series {len(rows[0])}; give the "
                                 "networks a series each")
    return np.array(rows, dtype=float)
