"""One figure of a study -> matplotlib: `draw(study, spec)`; the kind `draw: curves` is the module `curves`.

A module has `draw(study, spec, narrow) -> Figure`. No state of pyplot is used and no window is opened; `table` needs no
matplotlib, which takes a second to import.
"""
import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lipfw.errors import choice
from lipfw.files import write_atomic
from lipfw.report.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("curves", "learning", "layers", "pictures", "spectrum", "rounds", "steps")
RASTER = ("pictures", "spectrum", "steps")      # of pixels: one layout for all widths


def draw(study: Study, spec: Mapping, narrow: bool = False) -> "Figure":
    """Return the figure that a spec of the study's `figures` asks for; `narrow`: for a phone, panels below each other.

    Raises InputError for a kind that there is not (tables are `figure.table`) and for what the kind can't draw.
    """
    from lipfw.report.figure.style import theme

    kind = choice(f"study {study.name}: draw", spec.get("draw"), [*KINDS, "table"])
    with theme():
        return importlib.import_module(f"{__name__}.{kind}").draw(study, spec, narrow)


def save(figure: "Figure", stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg, the same bytes for the same figure; returns their paths."""
    from lipfw.report.figure.style import theme

    written = []
    with theme():
        for suffix, options in ((".png", {"dpi": 160, "metadata": {"Software": None}}),
                                (".svg", {"metadata": {"Date": None, "Creator": None}})):
            path = stem.with_name(stem.name + suffix)
            write_atomic(path, partial(figure.savefig, **options))
            written.append(path)
    return written
