"""Accounts of studies, groups and comparisons -> Markdown."""
from collections.abc import Iterable, Mapping, Sequence

from lipfw.report.account import ROW, Account, above, full_stat, measured, row, tally
from lipfw.report.cells import full, spec_of
from lipfw.report.compare import Comparison, Overview
from lipfw.report.stats import Group, Row
from lipfw.report.table import (
    HEADS,
    RESTORED,
    choice,
    choice_lost,
    compared,
    marked,
    marked_overview,
    meaning,
    metrics,
    tickets_used,
)


def index(accounts: Sequence[Account]) -> str:
    """Return one table of the verdicts of several studies."""
    rows = [(f"`{a.study.name}`", f"**{v.verdict}**", _text(v.say)) for a in accounts for v in a.verdicts]
    return "\n".join(["## Verdicts", "", *table(["study", "verdict", "claim"], rows, left=3), ""])


def study(a: Account) -> str:
    """Return what was asked and how far it is, the verdicts, and published numbers beside ours."""
    text = [f"## {_text(a.title)}", "", *(f"- {name}: {_text(told)}" for name, told in a.head), ""]
    if a.verdicts:
        rows = [(f"**{v.verdict}**", _text(v.say), _text(v.note), measured(v, a.study.metric), v.pairs, above(v))
                for v in a.verdicts]
        text += [f"### Claims: {tally(a.verdicts)}", "",
                 *table(["verdict", "claim", "note", "difference", "pairs", "above"], rows, left=3), "",
                 *(line for note in a.notes for line in (f"{note}.", ""))]
    if a.published:
        rows = [map(_text, row(r, full_stat)) for r in a.published]
        text += ["### Published numbers", "", *table(ROW, rows, left=4), "", *([a.remark, ""] if a.remark else [])]
    return "\n".join(text)


def to_markdown(groups: Sequence[Group], comparisons: Sequence[Comparison], remarks: Sequence[str],
                overviews: Sequence[Overview] = ()) -> str:
    """Return the overviews, the comparisons and one GitHub table a group, and below what is not in the tables."""
    text = []
    for o in overviews:
        columns = marked_overview(o, lambda metric, stat, n: full(stat, spec_of(metric, ()), n), "**{}**")
        heads = ["", "sparsity", "params left", "n", *(HEADS[m][1] for m in RESTORED), "seconds"]
        rows = [[f"`{label}`", f"{r.sparsity:.2%}", f"{r.params_left:,.0f}", r.n, *cells,
                 "-" if (s := r.stats["seconds"].mean) is None else f"{s:.1f}"]
                for label, r, *cells in zip(o.labels, o.rows, *columns, strict=True)]
        if (before := o.groups[0].degraded)["psnr"].n:
            n = len(o.groups[0].runs)
            rows.insert(0, ["degraded", "", "", n, "", full(before["psnr"], ".2f", n), "",
                            full(before["ssim"], ".3f", n), ""])
        text += [f"### `{o.title}`: restorations (bold: the best)", "", *table(heads, rows, left=1), ""]
    for c in comparisons:
        for metric, name in compared(c):
            spec = spec_of(metric, (s.mean for column in c.stats(metric) for s in column))
            columns = marked(c, metric, lambda stat, n, spec=spec: full(stat, spec, n), "**{}**")
            labels = [f"`{label}`" for label in c.labels]
            text += [f"### `{c.title}`: {name} (bold: the best)", "",
                     *table(["pruner", "n", *(f"{s:.2%}" for s in c.sparsities)],
                             zip(labels, [len(g.runs) for g in c.groups], *columns, strict=True), left=1), ""]
    for g in groups:
        shown = metrics(g)
        specs = {m: spec_of(m, (r.stats[m].mean for r in g.rows)) for m in shown}
        heads = ["round", "sparsity", "params left", "n", *(HEADS[m][1] for m in shown), "seconds"]
        rows = [_markdown_cells(r, specs) for r in g.rows]
        if g.degraded["psnr"].n:
            degraded = {m: full(g.degraded[k], specs[m], len(g.runs))
                        for m, k in (("psnr_picked", "psnr"), ("ssim_picked", "ssim"))}
            rows.insert(0, ["degraded", "", "", len(g.runs), *(degraded.get(m, "") for m in shown), ""])
        lost = choice_lost(g, full(g.lost, ".2f", len(g.runs)))
        text += [f"### `{g.label}`", "", *table(heads, rows, left=0), "", choice(g).replace("*", r"\*"),
                 *(f"\n{line}" for line in lost), ""]
    if used := tickets_used(groups):
        rows = [(f"`{label}`", f"`{by}`", *cells) for label, by, *cells in used[1:]]
        text += ["### tickets used", "", *table(used[0], rows, left=2), ""]
    text += [meaning(groups, "±").replace("*", r"\*") + ".", ""]
    if remarks:
        text += [*(f"- {remark}" for remark in remarks), ""]
    return "\n".join(text)


def _markdown_cells(r: Row, specs: Mapping[str, str]) -> list[str]:
    seconds = r.stats["seconds"].mean
    return [(r"\*" if r.marked else "") + str(r.round), f"{r.sparsity:.2%}", f"{r.params_left:,.0f}", str(r.n),
            *(full(r.stats[m], spec, r.n) for m, spec in specs.items()), "-" if seconds is None else f"{seconds:.1f}"]


def table(heads: Sequence[str], rows: Iterable[Sequence], left: int) -> list[str]:
    """Return a Markdown table; the first `left` columns are text."""
    return [_line(heads), _line([":---"] * left + ["---:"] * (len(heads) - left)), *map(_line, rows)]


def _line(cells: Sequence) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _text(told: str) -> str:
    """Return a text as it stands in a table's cell."""
    return " ".join(told.split()).replace("|", r"\|")
