"""Verdicts, facts and tables -> HTML."""
import html
import re
from collections.abc import Sequence

from lipfw.report.account import ROW, Account, full_stat, measured, row
from lipfw.report.cells import duration
from lipfw.report.claims import FAILS, HOLDS, UNDECIDED, UNMEASURED, Verdict
from lipfw.report.figure.words import metric_label
from lipfw.report.published import Row
from lipfw.report.study import Study

# verdict -> class of its colour, and the symbol that says the same without colour
MARKS = {HOLDS: ("holds", "✓"), FAILS: ("fails", "✗"), UNDECIDED: ("open", "?"), UNMEASURED: ("none", "–")}
_PLURAL = {HOLDS: "hold", FAILS: "do not hold"}


def text(value: object) -> str:
    """Return a text as HTML shows it, in attributes too."""
    return html.escape(str(value), quote=True)


def counts(verdicts: Sequence[Verdict]) -> str:
    """Return how many claims have which verdict."""
    if not verdicts:
        return ""
    items = []
    for word, (kind, symbol) in MARKS.items():
        n = sum(v.verdict == word for v in verdicts)
        if n:
            items.append(f'<li><span class="mark {kind}"><span aria-hidden="true">{symbol}</span> <b>{n}</b></span> '
                         f"{_PLURAL.get(word, word) if n > 1 else word}</li>")
    return f'<ul class="counts" aria-label="Verdicts on all claims">{"".join(items)}</ul>\n'


def claims(verdicts: Sequence[Verdict]) -> str:
    """Return the claims with their verdicts, by word and symbol, and what was measured."""
    if not verdicts:
        return ""
    items = []
    for v in verdicts:
        kind, symbol = MARKS[v.verdict]
        note = f'<p class="note">{text(v.note)}</p>' if v.note else ""
        items.append(f'<li><p class="mark {kind}"><span aria-hidden="true">{symbol}</span> {text(v.verdict)}</p>'
                     f'<p class="say">{text(v.say)}</p>{_numbers(v)}{note}{interval(v)}</li>')
    return '<ul class="claims" aria-label="Claims">\n' + "\n".join(items) + "\n</ul>"


def _numbers(v: Verdict) -> str:
    if v.mean is None:
        return ""
    pairs = f"{v.pairs} pair{'s' * (v.pairs != 1)}"
    there = f"above 0 at {v.above} of {len(v.sparsities)} sparsities" if len(v.sparsities) > 1 else ""
    said = ", ".join(filter(None, [f"difference {measured(v)}", pairs, there]))
    return f'<p class="numbers">{text(said).replace("-", "−")}</p>'


def interval(v: Verdict) -> str:
    """Return the mean difference and its interval as a small drawing beside the line that it is judged by."""
    if v.mean is None or v.low is None or v.high is None:
        return ""
    margin = v.margin
    low, high = min(v.low, margin, 0), max(v.high, margin, 0)
    room = (high - low) * 0.12 or 1
    low, high = low - room, high + room

    def at(value: float) -> str:
        return f"{8 + 204 * (value - low) / (high - low):.1f}"

    said = f"{measured(v)}, beside {margin:g}"
    return (f'<svg class="interval" viewBox="0 0 220 34" role="img" aria-label="{text(said)}">'
            f'<line x1="8" x2="212" y1="14" y2="14" stroke="var(--grid)"/>'
            f'<line x1="{at(margin)}" x2="{at(margin)}" y1="3" y2="25" stroke="var(--faint)" stroke-dasharray="3 2"/>'
            f'<text x="{at(margin)}" y="33" font-size="9" text-anchor="middle" fill="var(--faint)">{margin:g}</text>'
            f'<line x1="{at(v.low)}" x2="{at(v.high)}" y1="14" y2="14" stroke="var(--ink)" stroke-width="2.5"/>'
            f'<circle cx="{at(v.mean)}" cy="14" r="4.5" fill="var(--ink)"/></svg>')


def beside(rows: Sequence[Row]) -> str:
    """Return a table of numbers beside published ones."""
    return table(ROW, [[c.replace("-", "−") if i == 7 else c for i, c in enumerate(row(r, full_stat))] for r in rows])


def facts(study: Study) -> str:
    """Return what the study is made of: how many of its runs are done, at which scale, how long they took."""
    pairs = {"scale": study.scale, "runs done": f"{study.done} of {len(study.cells)}" if study.cells else "",
             "judged by": metric_label(study.metric), "computing": duration(study.seconds) if study.seconds else "",
             "on": ", ".join(study.devices), "options given": " ".join(study.given)}
    items = "".join(f"<div><dt>{k}</dt><dd>{text(v)}</dd></div>" for k, v in pairs.items() if v)
    return f'<dl class="facts">{items}</dl>'


def missing(account: Account) -> str:
    """Return which runs of a study have no result, and why."""
    lines = account.missing
    if not lines:
        return ""
    study = account.study
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return (f'<details class="missing"><summary>{len(study.cells) - study.done} of {len(study.cells)} runs have no '
            f'result yet: figures name what they lack</summary><ul>{items}</ul></details>')


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", escaped: bool = False) -> str:
    """Return a table that sorts, in a box that scrolls by itself; **so** is bold. `escaped`: rows are HTML already."""
    def cell(value: str) -> str:
        value = value if escaped else text(value)
        return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", value)

    words = [not any(re.search(r"\d", row[i]) for row in rows) for i in range(len(heads))]
    kinds = [' class="words"' if w else "" for w in words]
    head = "".join(f'<th scope="col"{k}>{text(h)}</th>' for h, k in zip(heads, kinds, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td{k}>{cell(c)}</td>" for c, k in zip(row, kinds, strict=True)) + "</tr>"
                     for row in rows)
    below = f'<p class="files">{text(note)}</p>\n' if note else ""
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{text(note or "table")}"><table class="sorts">'
            f'<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n{below}')
