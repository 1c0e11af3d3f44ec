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
from lipfw.report.claims import Verdict
from lipfw.report.figure import Drawn
from lipfw.report.figure.table import Table
from lipfw.report.page.markup import claims, counts, facts, missing, table, text
from lipfw.report.page.svg import chart
from lipfw.report.page.viewer import viewers
from lipfw.report.study import Study

_VIEWERS = 12       # of a page: pictures are most of its bytes


@dataclass(frozen=True)
class StudyReport:
    """What a page tells of a study: its verdicts, tables beside the paper's, and figures. `anchor` is its id."""

    study: Study
    verdicts: Sequence[Verdict] = ()
    tables: Sequence[Table] = ()
    drawn: Sequence[Drawn] = ()

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
    title = title or (reports[0].study.name if len(reports) == 1 else "Studies of lottery image priors")
    most = max(1, _VIEWERS // max(1, len(reports)))
    sections = [_study(r, folder, most) for r in reports]
    every = [v for r in reports for v in r.verdicts]
    head = f'<div class="top">\n<h1>{text(title)}</h1>\n{_overview(reports, every)}</div>\n'
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


def _overview(reports: Sequence[StudyReport], every: Sequence[Verdict]) -> str:
    """Return the summary on top of the page: of several studies, which claims of which hold."""
    if not every:
        return ""
    if len(reports) == 1:
        return counts(every)
    rows = []
    for r in reports:
        said = [sum(v.verdict == word for v in r.verdicts)
                for word in ("holds", "does not hold", "undecided", "not measured")]
        rows.append([f'<a href="#{r.anchor}">{text(r.study.name)}</a>', text(r.study.figure), *map(str, said),
                     f"{r.study.done} of {len(r.study.cells)}"])
    heads = ["study", "of the paper", "holds", "does not hold", "undecided", "not measured", "runs done"]
    return counts(every) + table(heads, rows, "Claims of each study", escaped=True)


def _study(report: StudyReport, folder: Path, most: int) -> str:
    s = report.study
    parts = [f'<section class="study" id="{report.anchor}" aria-labelledby="{report.anchor}-head">',
             f'<p class="eyebrow">{text(" · ".join(filter(None, [s.figure, s.name])))}</p>',
             f'<h2 id="{report.anchor}-head">{text(s.question or s.name)}</h2>']
    if s.expected:
        parts.append(f'<p class="expected lead">{text(s.expected)}</p>')
    parts += [facts(s), claims(report.verdicts), missing(s)]
    for i, drawn in enumerate(report.drawn):
        parts.append(_block(drawn, f"{report.anchor}-{i}", folder))
    for t in report.tables:
        parts.append(f'<div class="block">\n<h3>{text(t.title)}</h3>\n{_table(t)}</div>')
    if shown := viewers(s, report.anchor, most):
        parts.append('<div class="block">\n<h3>Before and after</h3>\n<p class="shows">Left of the line is what was given '
                     'or the clean picture, right of it what was restored, at the step that was picked without the '
                     f'clean picture.</p>\n{shown}</div>')
    return "\n".join(filter(None, [*parts, "</section>"]))


def _block(drawn: Drawn, name: str, folder: Path) -> str:
    """Return a figure or table with what it shows."""
    shows = f'<p class="shows">{text(drawn.shows)}</p>\n' if drawn.shows else ""
    head = f'<div class="block">\n<h3>{text(drawn.title)}</h3>\n{shows}'
    if drawn.table is not None:
        return f"{head}{_table(drawn.table)}</div>"
    links = " ".join(f'<a href="{text(f.relative_to(folder).as_posix() if f.is_relative_to(folder) else f.name)}" '
                     f"download>{text(f.name)}</a>" for f in drawn.files)
    return f'{head}{chart(drawn, name)}<p class="files">Files beside this page: {links}</p>\n</div>'


def _table(t: Table) -> str:
    return table(t.heads, t.rows, t.note)
