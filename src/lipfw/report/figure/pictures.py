"""Restored pictures in a grid: a row a picture and series, a column a sparsity, the PSNR below each."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from lipfw.errors import InputError
from lipfw.report.figure.points import at, check, first, label, series, sparsities, split, value
from lipfw.report.figure.raster import before, given, read, restored, score
from lipfw.report.figure.style import FAINT, image
from lipfw.report.figure.words import NOT_RUN, percent
from lipfw.report.study import Point, Series, Study

_SIDE = 1.25        # inches of a picture


@dataclass(frozen=True)
class Cell:
    """A picture (H, W, 3) of 8 bits with the words below it; no picture: only the words."""

    picture: np.ndarray | None
    caption: str


_BLANK = Cell(None, "")


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw what was given and what each of `series` restored at each of `sparsities`, of the lowest seed.

    Spec: `series`, `sparsities`, `columns` (sparsities, or series: then a row a sparsity), `panels` (the key whose
    values are pictures: image.name).
    """
    check(spec, ("series", "sparsity", "sparsities", "columns", "panels"))
    heads, rows, sides = cells(study, spec)
    return sheet(heads, rows, sides)


def cells(study: Study, spec: Mapping) -> tuple[list[str], list[list[Cell]], list[str]]:
    """Return the heads of the columns, the rows of the grid, and what stands left of each row."""
    every, columns = series(study, spec), spec.get("columns", "sparsities")
    if columns not in ("sparsities", "series"):
        raise InputError(f"draw=pictures: columns must be sparsities or series, got {columns!r}")
    levels = [s for s in every if s.level and s.points]
    lines = [s for s in every if s not in levels]
    wanted = sparsities(spec, lines) or [0.0] if lines else []
    key = spec.get("panels", "picture")
    heads = ["degraded", *(s.label for s in levels),
             *([f"{percent(v)} removed" for v in wanted] if columns == "sparsities" else [s.label for s in lines]),
             "clean"]
    rows, sides = [], []
    for name in split(every, key):
        mine = {s.name: [p for p in s.points if value(p, key) == name] for s in every}
        here = [s for s in lines if _belongs(s, mine[s.name], key, name)]
        shown = [_cell(s, mine[s.name], 0.0) for s in levels]
        table = [[_cell(s, mine[s.name], v) for v in wanted] for s in (here if columns == "sparsities" else lines)]
        beside = [label(s) if s.points else s.label for s in here]
        # a row's own measurement: series of several tasks restore several measurements of one picture
        known = [first(mine[s.name]) for s in here] if columns == "sparsities" else []
        if columns == "series":
            table = [list(row) for row in zip(*table, strict=True)]
            beside = [f"{percent(v)} removed" for v in wanted]
        above: tuple[Cell, Cell] = _BLANK, _BLANK
        for i, (row, text) in enumerate(zip(table or [[]], beside or [""], strict=True)):
            point = known[i] if i < len(known) and known[i] else first([p for points in mine.values() for p in points])
            measured, clean = pair = _given(point)
            rows.append([_unless(above[0], measured), *(shown if i == 0 else [_BLANK] * len(shown)), *row,
                         _unless(above[1], clean)])
            above = pair
            sides.append("\n".join(filter(None, [name or "", text])))
    kept = [i for i in range(len(heads)) if any(row[i].picture is not None or row[i].caption for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows], sides


def sheet(heads: Sequence[str], rows: Sequence[Sequence[Cell]], sides: Sequence[str]) -> Figure:
    """Return a figure of pictures in rows and columns, single pixels to be seen."""
    tall = [_tall(row) for row in rows]
    longest = max(len(line) for side in sides for line in side.split("\n"))
    size = (_SIDE * len(heads) + 0.075 * longest + 0.3, sum(tall) + 0.35)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(heads), squeeze=False, height_ratios=tall)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            axes = grid[r, c]
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
            axes.set_facecolor("none")
            if cell.picture is not None:
                image(axes, cell.picture)
                axes.set_xlabel(cell.caption, fontsize=8.5, labelpad=2)
            else:
                axes.text(0.5, 0.5, cell.caption, fontsize=8.5, color=FAINT, ha="center", va="center",
                          transform=axes.transAxes)
            if r == 0:
                axes.set_title(heads[c], fontsize=8.5)
            if c == 0:
                axes.set_ylabel(sides[r], fontsize=8.5, rotation=0, ha="right", va="center", labelpad=6)
    return figure


def _tall(row: Sequence[Cell]) -> float:
    """Return how high a row is in inches: that of its highest picture and a caption, or a line of words."""
    shapes = [c.picture.shape for c in row if c.picture is not None]
    return _SIDE * max(h / w for h, w, _ in shapes) + 0.22 if shapes else 0.3


def _given(point: Point | None) -> tuple[Cell, Cell]:
    """Return the cells of the degraded and the clean picture."""
    pictures = given(point) if point else {}
    psnr = before(point) if point else None
    return (Cell(pictures.get("degraded"), "" if psnr is None or "degraded" not in pictures else f"{psnr:.2f} dB"),
            Cell(pictures.get("clean"), ""))


def _unless(above: Cell, cell: Cell) -> Cell:
    """Return a cell, or a blank one if it would repeat the one above it."""
    same = above.picture is not None and cell.picture is not None and np.array_equal(above.picture, cell.picture)
    return _BLANK if same else cell


def _belongs(s: Series, points: Sequence[Point], key: str, name: str | None) -> bool:
    """Return whether a series has a row of a picture: it has results there, or planned some that are missing."""
    option = "image.name" if key == "picture" else key
    planned = [m["values"].get(option) for m in s.missing]
    return bool(points) or name in planned or name is None or not any(planned) and not s.points


def _cell(s: Series, points: Sequence[Point], sparsity: float) -> Cell:
    point = first(at(s, points, sparsity))
    if point is None:
        return Cell(None, NOT_RUN.strip() if not s.points else "(not reached)")
    file, psnr = restored(point), score(point)
    if file is None:
        return Cell(None, "(no picture kept)")
    return Cell(read(file), "" if psnr is None else f"{psnr:.2f} dB")
