"""Reports -> index.html: one static page that loads nothing from elsewhere and is read on a phone, on paper, anywhere.

`page.html`, `page.css` and `page.js` are the page without its contents. Without JavaScript everything can be read; with
it tables sort, pictures lie over each other, and light or dark can be chosen.
"""
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import lipfw
from lipfw.files import write_text
from lipfw.report.claims import Verdict, verdicts
from lipfw.report.figure import Drawn, draw_all
from lipfw.report.figure.table import Table
from lipfw.report.page.markup import MARKS, beside, claims, counts, facts, missing, table, text
from lipfw.report.page.svg import chart
from lipfw.report.page.viewer import viewers
from lipfw.report.published import Row, comparable, published
from lipfw.report.study import Study

_VIEWERS = 12       # of a page: pictures are most of its bytes
_VIEWER = ("Left of the line is the degraded or the clean picture, right of it what was restored, at the step that was "
           "picked without the clean picture.")


@dataclass(frozen=True)
class StudyReport:
    """What a page tells of a study: verdicts, numbers beside published ones, figures, tables. `anchor` is its id."""

    study: Study
    verdicts: Sequence[Verdict] = ()
    published: Sequence[Row] = ()
    drawn: Sequence[Drawn] = ()
    tables: Sequence[Table] = ()

    @classmethod
    def of(cls, study: Study, out: Path) -> "StudyReport":
        """Judge a study's claims and draw its figures to `out`/figures. Raises InputError for a spec that can't be."""
        return cls(study, verdicts(study), published(study), draw_all(study, out / "figures"))

    @property
    def anchor(self) -> str:
        return "study-" + re.sub(r"[^\w-]+", "-", self.study.name)


def write_page(path: Path, reports: Sequence[StudyReport], title: str | None = None) -> None:
    """Write the page of `reports`, in their order, to `path` (index.html) in one step.

    Links to the figures' files are relative to it.
    """
    write_text(path, page(reports, title, path.parent))


def page(reports: Sequence[StudyReport], title: str | None = None, folder: Path = Path(".")) -> str:
    """Return the page of `reports` as HTML; `folder` is where it will lie."""
    alone = len(reports) == 1
    title = title or (reports[0].study.name if alone else "Studies of lottery image priors")
    sections = [_study(r, folder, max(1, _VIEWERS // len(reports)), 1 if alone else 2) for r in reports]
    head = "" if alone else f'<div class="top">\n<h1>{text(title)}</h1>\n{_overview(reports)}</div>\n'
    parts = {"title": text(title), "css": _file("page.css"), "js": _file("page.js"), "nav": _nav(reports),
             "body": head + "\n".join(sections),
             "footer": f"Written by lipfw {lipfw.__version__}. This page loads nothing from elsewhere."}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], _file("page.html"))


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _nav(reports: Sequence[StudyReport]) -> str:
    if len(reports) < 2:
        return ""
    links = "".join(f'<li><a href="#{r.anchor}">{text(r.study.figure or r.study.name)}</a></li>' for r in reports)
    return f'<nav aria-label="Studies"><ul>{links}</ul></nav>'


def _overview(reports: Sequence[StudyReport]) -> str:
    """Return the summary on top of a page of several studies: how many claims of which hold."""
    every = [v for r in reports for v in r.verdicts]
    if not every:
        return ""
    rows = []
    for r in reports:
        said = [sum(v.verdict == word for v in r.verdicts) for word in MARKS]
        rows.append([f'<a href="#{r.anchor}">{text(r.study.name)}</a>', text(r.study.figure), *map(str, said),
                     f"{r.study.done} of {len(r.study.cells)}"])
    heads = ["study", "of the paper", *MARKS, "runs done"]
    return counts(every) + table(heads, rows, "Claims of each study", escaped=True)


def _study(report: StudyReport, folder: Path, most: int, level: int) -> str:
    """Return a study's section, whose heading is one of `level`, with at most so many viewers of pictures."""
    s, below = report.study, level + 1
    parts = [f'<section class="study" id="{report.anchor}" aria-labelledby="{report.anchor}-head">',
             f'<p class="eyebrow">{text(" · ".join(filter(None, [s.figure, s.name])))}</p>',
             f'<h{level} id="{report.anchor}-head">{text(s.question or s.name)}</h{level}>']
    if s.expected:
        parts.append(f'<p class="lead"><b>Expected:</b> {text(s.expected)}</p>')
    parts += [counts(report.verdicts), facts(s), claims(report.verdicts), missing(s)]
    for i, drawn in enumerate(report.drawn):
        parts.append(_drawn(drawn, below, f"{report.anchor}-{i}", folder))
    if report.published:
        parts.append(_block(below, "Beside the published numbers", comparable(s), beside(report.published)))
    if shown := viewers(s, report.anchor, most, below + 1):
        parts.append(_block(below, "Before and after", _VIEWER, shown))
    for t in report.tables:
        parts.append(_block(below, t.title, "", table(t.heads, t.rows, t.note)))
    return "\n".join(filter(None, [*parts, "</section>"]))


def _drawn(drawn: Drawn, level: int, name: str, folder: Path) -> str:
    """Return a figure or table with what it shows."""
    if (t := drawn.table) is not None:
        return _block(level, drawn.title, drawn.shows, table(t.heads, t.rows, t.note))
    links = " ".join(f'<a href="{text(f.relative_to(folder).as_posix() if f.is_relative_to(folder) else f.name)}" '
                     f"download>{text(f.name)}</a>" for f in drawn.files)
    return _block(level, drawn.title, drawn.shows,
                  f'{chart(drawn, name)}<p class="files">Files beside this page: {links}</p>\n')


def _block(level: int, title: str, shows: str, content: str) -> str:
    said = f'<p class="shows">{text(shows)}</p>\n' if shows else ""
    return f'<div class="block">\n<h{level}>{text(title)}</h{level}>\n{said}{content}</div>'
