"""Accounts of studies, groups and comparisons -> tables for the terminal: 80 columns hold them."""
from collections.abc import Sequence

from rich.console import Console
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from lipfw.report.account import ROW, Account, above, measured, row
from lipfw.report.cells import brief, count, duration, power, scale_of, spec_of
from lipfw.report.claims import FAILS, HOLDS, UNDECIDED
from lipfw.report.compare import Comparison, Overview
from lipfw.report.stats import Group
from lipfw.report.table import (
    HEADS,
    RESTORED,
    SCALED,
    choice,
    choice_lost,
    compared,
    marked,
    marked_overview,
    meaning,
    metrics,
    tickets_used,
)

_STYLES = {HOLDS: "green", FAILS: "red", UNDECIDED: "yellow"}


def index(accounts: Sequence[Account]) -> Lines:
    """Return one table of the verdicts of several studies."""
    table = _bare()
    table.add_column("study", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("claim", overflow="fold")
    for a in accounts:
        for v in a.verdicts:
            table.add_row(a.study.name, Text(v.verdict, style=_STYLES.get(v.verdict, "")), v.say)
    return Lines(Text("verdicts", style="bold"), table, Text(""))


def study(a: Account, console: Console) -> Lines:
    """Return what was asked and how far it is, the verdicts, and published numbers beside ours."""
    pm = _plus_minus(console)
    lines = [Text(a.title, style="bold reverse"), _pairs(a.head), Text("")]
    if a.verdicts:
        table = _bare()
        for head, options in {"verdict": {"no_wrap": True}, "claim": {"overflow": "fold"},
                              "difference": {"justify": "right"}, "pairs": {"justify": "right", "no_wrap": True},
                              "above": {"justify": "right", "no_wrap": True}}.items():
            table.add_column(head, **options)
        for v in a.verdicts:
            claim = Text(v.say).append(f" ({v.note})" if v.note else "", style="dim")
            table.add_row(Text(v.verdict, style=_STYLES.get(v.verdict, "")), claim,
                          measured(v, a.study.metric).replace(" [", "\n["), str(v.pairs),
                          above(v).replace(" ", "\n", 1))
        lines += [table, *(Text(note, style="dim") for note in a.notes), Text("")]
    if a.published:
        table = _bare()
        for i, head in enumerate(ROW):
            table.add_column(head, justify="right" if 4 <= i <= 7 else "left", overflow="fold")
        for r in a.published:
            table.add_row(*row(r, lambda stat, digits: brief(stat, digits, stat.n, pm)))
        lines += [Text("published numbers", style="bold"), table, *([Text(a.remark, style="dim")] if a.remark else []),
                  Text("")]
    return Lines(*lines)


def terminal(groups: Sequence[Group], comparisons: Sequence[Comparison], console: Console,
             overviews: Sequence[Overview] = ()) -> Lines:
    """Return the overviews, the comparisons and one narrow table a group: 80 columns hold them.

    Numbers are rounded; CSV has all.
    """
    pm, lines = _plus_minus(console), []
    for o in overviews:
        lines += [Text(f"{o.title}: restorations (*: the best)", style="bold"), _overview(o, pm), Text("")]
    for c in comparisons:
        for metric, name in compared(c):
            lines += [Text(f"{c.title}: {name} (*: the best)", style="bold"),
                      *_side_by_side(c, metric, console.width, pm), Text("")]
    for g in groups:
        shown = metrics(g)
        if "mse_picked" in shown:       # 80 columns have no room for both; a generator's picked is its final, mostly
            shown.remove("psnr_final")
        scales = {m: scale_of(r.stats[m].mean for r in g.rows) for m in shown if m in SCALED}
        table = _bare()
        heads = {HEADS[m][0] + power(scales.get(m, 1)): 8 if m == "loss" else 9 for m in shown}
        for head, width in {"round": 8, "sparse": 6, "params": 6, "n": 2, **heads, "time": 4}.items():
            table.add_column(head, justify="right", min_width=width)
        if g.degraded["psnr"].n:
            n = len(g.runs)
            degraded = {f"{k}_picked": brief(g.degraded[k], d, n, pm) for k, d in (("psnr", 2), ("ssim", 3))}
            table.add_row("degraded", "", "", str(n), *(degraded.get(m, "") for m in shown))
        for r in g.rows:
            table.add_row(("*" if r.marked else "") + str(r.round), f"{r.sparsity:.2%}", count(r.params_left),
                          str(r.n), *(brief(r.stats[m], 3 if m == "ssim_picked" else 2, r.n, pm, scales.get(m, 1))
                                      for m in shown), duration(r.stats["seconds"].mean))
        lost = choice_lost(g, brief(g.lost, 2, len(g.runs), pm))
        lines += [Text(g.label, style="bold"), table, *map(Text, [choice(g), *lost]), Text("")]
    if used := tickets_used(groups):
        table = _bare(*used[0])
        for i, column in enumerate(table.columns):
            column.overflow, column.no_wrap = "fold", i > 1     # the labels alone may take several lines
        for cells in used[1:]:
            table.add_row(*cells)
        lines += [Text("tickets used", style="bold"), table, Text("")]
    return Lines(*lines, Text(meaning(groups, pm), style="dim"))


def _overview(o: Overview, pm: str) -> Table:
    """Return a table of a row a group."""
    table = _bare()
    table.add_column("", overflow="fold")
    for head in ("sparse", "params", "n", *(HEADS[m][0] for m in RESTORED), "time"):
        table.add_column(head, justify="right", no_wrap=True)
    first = o.groups[0]
    if first.degraded["psnr"].n:
        n = len(first.runs)
        table.add_row("degraded", "", "", str(n), "", brief(first.degraded["psnr"], 2, n, pm), "",
                      brief(first.degraded["ssim"], 3, n, pm), "")
    columns = marked_overview(o, lambda m, stat, n: brief(stat, 3 if m == "ssim_picked" else 2, n, pm), "*{}")
    for label, r, *cells in zip(o.labels, o.rows, *columns, strict=True):
        table.add_row(label, f"{r.sparsity:.2%}", count(r.params_left), str(r.n), *cells,
                      duration(r.stats["seconds"].mean))
    return table


def _side_by_side(c: Comparison, metric: str, width: int, pm: str) -> list[Table]:
    """Return a table of a row a group and a column a sparsity; what is too wide for one goes into more, below it."""
    digits = int(spec_of(metric, (s.mean for column in c.stats(metric) for s in column))[1:-1])
    columns = [[f"{s:.2%}", *cells] for s, cells in
               zip(c.sparsities, marked(c, metric, lambda stat, n: brief(stat, digits, n, pm), "*{}"), strict=True)]
    labels = ["pruner", *c.labels]
    counts = ["n", *(str(len(g.runs)) for g in c.groups)]
    widths = [max(map(len, column)) + 1 for column in columns]      # with the space before it
    room = width - max(map(len, counts)) - 1
    # a label takes several lines if that lets all columns stand side by side, but a word of it only if it is very long
    word = max(len(w) for label in labels for w in label.split())
    side = min(max(word, room - sum(widths)), max(map(len, labels)), width // 3)
    tables, first = [], 0
    while first < len(columns):
        last = first + 1
        while last < len(columns) and side + sum(widths[first:last + 1]) <= room:
            last += 1
        table = _bare()
        heads, *rows = zip(labels, counts, *columns[first:last], strict=True)
        table.add_column(heads[0], width=side, overflow="fold")
        for head in heads[1:]:
            table.add_column(head, justify="right", no_wrap=True)
        for cells in rows:
            table.add_row(*cells)
        tables.append(table)
        first = last
    return tables


def _bare(*heads: str) -> Table:
    return Table(*heads, box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = _bare()
    table.show_header = False
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    for name, text in rows:
        table.add_row(name, text)
    return table


def _plus_minus(console: Console) -> str:
    return "±" if console.encoding.lower().startswith("utf") else "+-"
