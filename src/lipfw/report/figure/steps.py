"""Pictures on their way: what a fit made of a picture after some of its steps."""
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from lipfw.files import read_jsonl
from lipfw.report.figure.pictures import Cell, sheet
from lipfw.report.figure.points import at, check, first, label, series, sparsities, split, within
from lipfw.report.figure.raster import on_the_way, read
from lipfw.report.figure.words import NOT_RUN, percent
from lipfw.report.study import Point, Study

_MOST = 7       # pictures of a row


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw a row for each of `series` (and picture, and sparsity) and a column a step, of the lowest seed.

    Spec: `series`, `sparsity` or `sparsities`, `panels` (image.name). PSNR in dB of the running average at that step.
    """
    check(spec, ("series", "sparsity", "sparsities", "panels"))
    every, key = series(study, spec), spec.get("panels")
    found: list[tuple[str, Point | None]] = []
    for panel in split(every, key):
        for s in every:
            points = within(s.points, key, panel)
            for v in [0.0] if s.level else sparsities(spec, every) or [0.0]:
                parts = [panel, label(s) if s.points else s.label + NOT_RUN, f"{percent(v)} removed" if v else None]
                found.append(("\n".join(filter(None, parts)), first(at(s, points, v))))
    steps = sorted({step for _, p in found if p for step in on_the_way(p)})
    if len(steps) > _MOST:
        steps = [steps[i] for i in np.linspace(0, len(steps) - 1, _MOST).round().astype(int)]
    if not steps:
        found = [(label(s) if s.points else s.label + NOT_RUN, None) for s in every]
    rows = [[_cell(p, step) for step in steps] or [Cell(None, "(no pictures kept)")] for _, p in found]
    return sheet([f"step {s:,}" for s in steps] or [""], rows, [side for side, _ in found])


def _cell(point: Point | None, step: int) -> Cell:
    file = on_the_way(point).get(step) if point else None
    if file is None:
        return Cell(None, "")
    # of several pictures a record has the mean, which is not that of the one shown
    records = [] if point.record.get("images") else read_jsonl(point.folder / "steps.jsonl")
    psnr = next((r.get("psnr") for r in records if (r["round"], r["step"]) == (point.round, step)), None)
    return Cell(read(file), "" if psnr is None else f"{psnr:.2f} dB")
