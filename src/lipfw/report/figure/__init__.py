"""One figure of a study -> matplotlib: `draw(study, spec)`; the kind `draw: curves` is the module `curves`.

A module has `draw(study, spec, narrow) -> Figure`. No state of pyplot is used and no window is opened; `table` needs no
matplotlib, which takes a second to import.
"""
import importlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lipfw.errors import InputError, choice
from lipfw.files import write_atomic, write_text
from lipfw.report.figure import table
from lipfw.report.figure.points import series
from lipfw.report.figure.words import NOT_RUN, metric_label
from lipfw.report.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("curves", "learning", "layers", "pictures", "spectrum", "rounds", "steps")
RASTER = ("pictures", "spectrum", "steps")      # of pixels: one layout for all widths
_TITLES = {"learning": "How the fits go", "layers": "Which layers are emptied", "pictures": "Restored pictures",
           "spectrum": "Which frequencies are restored", "rounds": "Where the loss would end the pruning",
           "steps": "Pictures on their way", "table": "In numbers"}


@dataclass(frozen=True)
class Drawn:
    """A figure that was written, with its `title`, the sentence on what it `shows`, and what it is in words (`alt`).

    `files` are its PNG and SVG, `narrow` the SVG's text for a phone, None where there is one for all widths. A table
    has no files, but `table`.
    """

    kind: str
    title: str
    shows: str
    alt: str
    files: tuple[Path, ...] = ()
    narrow: str | None = None
    table: "table.Table | None" = None

    @property
    def svg(self) -> Path:
        return self.files[-1]


def draw_all(study: Study, folder: Path, name: str | None = None) -> list[Drawn]:
    """Write all figures that the study's spec asks for to `folder`, as <name>-<number>-<kind>.png and .svg.

    `name` is the study's, if none is given.

    Raises InputError, naming the figure, for a spec that can't be drawn.
    """
    drawn, specs = [], study.spec.get("figures") or []
    if not isinstance(specs, Sequence) or isinstance(specs, str):
        raise InputError(f"{study.manifest}: figures must be a list, got {specs!r}")
    for i, spec in enumerate(specs, 1):
        try:
            if not isinstance(spec, Mapping):
                raise InputError(f"it must be a mapping with draw, got {spec!r}")
            drawn.append(_drawn(study, spec, folder / f"{name or _plain(study.name)}-{i}-{spec.get('draw')}"))
        except InputError as e:
            raise InputError(f"{study.manifest}: figures[{i - 1}]: {e}") from None
    return drawn


def _drawn(study: Study, spec: Mapping, stem: Path) -> Drawn:
    kind = choice("draw", spec.get("draw"), [*KINDS, "table"])
    title, shows = str(spec.get("title") or _title(study, spec, kind)), str(spec.get("shows") or "")
    said = ", ".join(s.label + NOT_RUN * (not s.points) for s in series(study, spec))
    alt = f"{title}: {said}. {shows}".strip()
    if kind == "table":
        return Drawn(kind, title, shows, alt, table=table.build(study, spec))
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = tuple(save(draw(study, spec), stem))
    narrow = None if kind in RASTER else _svg(draw(study, spec, narrow=True))
    return Drawn(kind, title, shows, alt, files, narrow)


def _plain(name: str) -> str:
    """Return a name as a file may have it."""
    return re.sub(r"[^\w.=,+-]+", "-", name).strip("-.")[:80]


def _title(study: Study, spec: Mapping, kind: str) -> str:
    if kind != "curves":
        return _TITLES[kind]
    over = "parameters left" if spec.get("x", "params_left") == "params_left" else "weights removed"
    return f"{metric_label(spec.get('y', study.metric)).partition(',')[0]} over {over}"


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
    png, svg = (stem.with_name(stem.name + suffix) for suffix in (".png", ".svg"))
    write_atomic(png, partial(_save, figure, dpi=160, metadata={"Software": None}))
    figure.set_layout_engine("none")        # it is laid out, in inches, and that takes most of the time
    write_text(svg, _svg(figure))
    return [png, svg]


def _svg(figure: "Figure") -> str:
    text = io.StringIO()
    _save(figure, text, format="svg", dpi=160, metadata={"Date": None, "Creator": None})
    return _once(text.getvalue())


def _once(svg: str) -> str:
    """Return an SVG whose ids are each an element's own: what repeats one goes without.

    A line's name repeats in each panel, and nothing refers to it; a picture that stands twice has its bytes' name.
    """
    seen: set[str] = set()

    def first(match: re.Match) -> str:
        new = match[1] not in seen
        seen.add(match[1])
        return match[0] * new

    return re.sub(r"<[^>]*>", lambda tag: re.sub(r'\sid="([^"]*)"', first, tag[0]), svg)


def _save(figure: "Figure", to, **options) -> None:
    from lipfw.report.figure.style import theme

    with theme():
        figure.savefig(to, **options)
