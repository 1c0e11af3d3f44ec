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
from lipfw.report.account import Account
from lipfw.report.compare import Comparison
from lipfw.report.figure import Drawn, draw_all
from lipfw.report.figure.table import Table
from lipfw.report.page.grids import grids, overview
from lipfw.report.page.markup import MARKS, beside, claims, counts, facts, missing, table, text
from lipfw.report.page.svg import chart
from lipfw.report.page.viewer import viewers
from lipfw.report.stats import Group
from lipfw.report.study import Study

_VIEWERS = 12       # of a page: pictures are most of its bytes
_VIEWER = ("What was given, what was restored of it at the step that was picked without the clean picture, and the "
           "clean picture. Draw the line over a picture to compare two of them.")


@dataclass(frozen=True)
class StudyReport:
    """What a page tells of a study: its account, with verdicts and published numbers, its figures, and further tables.
    """

    account: Account
    drawn: Sequence[Drawn] = ()
    tables: Sequence[Table] = ()

    @property
    def study(self) -> Study:
        return self.account.study


def write_report(out: Path, accounts: Sequence[Account], groups: Sequence[Group] = (),
                 comparisons: Sequence[Comparison] = ()) -> None:
    """Draw the figures of studies, and of groups that belong to none, to `out`/figures, and write `out`/index.html.

    Raises InputError for a study whose figures can't be drawn, OSError.
    """
    reports = [StudyReport(a, draw_all(a.study, out / "figures")) for a in accounts]
    reports += [StudyReport(Account(s, (), ()), draw_all(s, out / "figures", f"runs-{i}"))
                for i, s in enumerate(grids(groups, comparisons), 1)]
    write_page(out / "index.html", reports, [overview(groups)] if groups else [])


def write_page(path: Path, reports: Sequence[StudyReport], tables: Sequence[Table] = ()) -> None:
    """Write the page of `reports`, in their order, and of `tables` that belong to none, to `path` in one step.

    Links to the figures' files are relative to it.
    """
    write_text(path, page(reports, tables, path.parent))


def page(reports: Sequence[StudyReport], tables: Sequence[Table] = (), folder: Path = Path(".")) -> str:
    """Return the page as HTML; `folder` is where it will lie."""
    alone = len(reports) == 1 and not tables
    title = reports[0].study.name if alone else "Studies of lottery image priors" if any(
        r.study.cells for r in reports) else "Runs of lottery image priors"
    most = max(1, _VIEWERS // max(1, len(reports)))
    body = [] if alone else [f'<div class="top">\n<h1>{text(title)}</h1>\n{_overview(reports)}</div>']
    body += [_block(2, t.title, "", table(t.heads, t.rows, t.note)) for t in tables]
    body += [_study(r, f"study-{i}", folder, most, 1 if alone else 2) for i, r in enumerate(reports)]
    parts = {"title": text(title), "css": _file("page.css"), "js": _file("page.js"), "nav": _nav(reports),
             "body": "\n".join(body),
             "footer": f"Written by lipfw {lipfw.__version__}. This page loads nothing from elsewhere."}
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], _file("page.html"))


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _nav(reports: Sequence[StudyReport]) -> str:
    if len(reports) < 2:
        return ""
    links = "".join(f'<li><a href="#study-{i}">{text(r.study.figure or r.study.name)}</a></li>'
                    for i, r in enumerate(reports))
    return f'<nav aria-label="Studies"><ul>{links}</ul></nav>'


def _overview(reports: Sequence[StudyReport]) -> str:
    """Return the summary on top of a page of several studies: how many claims of which hold."""
    every = [v for r in reports for v in r.account.verdicts]
    if not every:
        return ""
    rows = []
    for i, r in enumerate(reports):
        if not r.study.cells:
            continue
        said = [sum(v.verdict == word for v in r.account.verdicts) for word in MARKS]
        rows.append([f'<a href="#study-{i}">{text(r.study.name)}</a>', text(r.study.figure), *map(str, said),
                     f"{r.study.done} of {len(r.study.cells)}"])
    heads = ["study", "of the paper", *MARKS, "runs done"]
    return counts(every) + table(heads, rows, "Claims of each study", escaped=True)


def _study(report: StudyReport, anchor: str, folder: Path, most: int, level: int) -> str:
    """Return a study's section, whose heading is one of `level`, with at most so many viewers of pictures."""
    s, below = report.study, level + 1
    above = " · ".join(filter(None, [s.figure, s.name if s.question != s.name else ""]))
    parts = [f'<section class="study" id="{anchor}" aria-labelledby="{anchor}-head">',
             f'<p class="eyebrow">{text(above)}</p>' if above else "",
             f'<h{level} id="{anchor}-head">{text(s.question or s.name)}</h{level}>']
    if s.expected:
        parts.append(f'<p class="lead"><b>Expected:</b> {text(s.expected)}</p>')
    told = report.account
    parts += [counts(told.verdicts), facts(s), claims(told.verdicts), missing(told)]
    for i, drawn in enumerate(report.drawn):
        parts.append(_drawn(drawn, below, f"{anchor}-{i}", folder))
    if told.published:
        parts.append(_block(below, "Beside the published numbers", told.remark, beside(told.published)))
    if shown := viewers(s, anchor, most, below + 1):
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
