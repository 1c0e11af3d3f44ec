"""Groups -> a table for the terminal, CSV and Markdown. No statistics and no files here."""
import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.console import Console
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from lipfw.report.origin import spans
from lipfw.report.read import METRICS, Runs
from lipfw.report.stats import Comparison, Group, Overview, Row, Stat, Twin, best

_COMPARED = {"psnr_picked": "PSNR picked, dB", "mse_picked": "MSE picked, lower is better",
             "psnr_peak": "PSNR peak, dB", "swd": "distance, lower is better", "accuracy": "accuracy, %"}
_LOW = ("mse_picked", "swd")        # the best is the lowest
_HEADS = {"psnr_peak": ("peak", "PSNR peak"), "psnr_picked": ("picked", "PSNR picked"),
          "psnr_final": ("final", "PSNR final"), "ssim_picked": ("SSIM", "SSIM picked"), "mse_picked": ("MSE", "MSE"),
          "swd": ("distance", "distance"), "accuracy": ("accuracy", "accuracy"),
          "accuracy_best": ("best", "accuracy best"), "train_accuracy": ("train", "accuracy in training"),
          "loss": ("loss", "loss")}         # in the terminal, and elsewhere
_RESTORED = ("psnr_peak", "psnr_picked", "psnr_final", "ssim_picked")       # what overviews show
# metric that a group of trainings has -> the metrics of its table, and by what its round is chosen
_TRAINED = {"swd": (["swd"], "by the distance"),
            "accuracy": (["accuracy", "accuracy_best", "train_accuracy", "loss"], "by the training loss")}
_SCALED = ("mse_picked", "loss")    # in the terminal


def _meaning(groups: Sequence[Group], pm: str) -> str:
    """Return the footnote of the tables: what their numbers are."""
    parts = []
    if any("psnr_picked" in metrics(g) for g in groups):
        parts = [f"PSNR in dB, mean {pm} standard deviation over seeds (n): of the best step (peak, an oracle), of the "
                 "one picked without the clean picture, and of the last", "SSIM of the picked"]
    if any("mse_picked" in metrics(g) for g in groups):
        parts += ["MSE of the picked: per value, in the range [-1, 1]"]
    if any("swd" in metrics(g) for g in groups):
        parts += ["distance: the sliced Wasserstein distance of made and real pictures in 1/1000, mean "
                  f"{pm} standard deviation over seeds (n)"]
    if any("accuracy" in metrics(g) for g in groups):
        parts += [f"accuracy: percentage of test pictures told right at the last step, mean {pm} standard deviation "
                  "over seeds (n); best: at the best step, an oracle; train: of the last epoch's training pictures"]
    if any(g.over_pictures for g in groups):
        parts += [f"where a generator's n is 1: {pm} standard deviation over the pictures of that seed"]
    return "; ".join([*parts, "(k): only k runs have a value", "*: the round chosen most often"])


def metrics(group: Group) -> list[str]:
    """Return the metrics of a group's table, in its order."""
    for metric, (shown, _) in _TRAINED.items():
        if group.has(metric):
            return shown.copy()
    return ["psnr_peak", "psnr_picked", "psnr_final", *["mse_picked"] * (group.generator and group.has("mse_picked")),
            "ssim_picked", "loss"]


def terminal(groups: Sequence[Group], comparisons: Sequence[Comparison], console: Console,
             overviews: Sequence[Overview] = ()) -> Lines:
    """Return the overviews, the comparisons and one narrow table a group: 80 columns hold them.

    Numbers are rounded; CSV has all.
    """
    pm = "±" if console.encoding.lower().startswith("utf") else "+-"
    lines = []
    for o in overviews:
        lines += [Text(f"{o.title}: restorations (*: the best)", style="bold"), _overview(o, pm), Text("")]
    for c in comparisons:
        for metric, name in _compared(c):
            lines += [Text(f"{c.title}: {name} (*: the best)", style="bold"),
                      *_side_by_side(c, metric, console.width, pm), Text("")]
    for g in groups:
        shown = metrics(g)
        if "mse_picked" in shown:       # 80 columns have no room for both; a generator's picked is its final, mostly
            shown.remove("psnr_final")
        scales = {m: _scale(r.stats[m].mean for r in g.rows) for m in shown if m in _SCALED}
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        heads = {_HEADS[m][0] + _power(scales.get(m, 1)): 8 if m == "loss" else 9 for m in shown}
        for head, width in {"round": 8, "sparse": 6, "params": 6, "n": 2, **heads, "time": 4}.items():
            table.add_column(head, justify="right", min_width=width)
        if g.degraded["psnr"].n:
            n = len(g.runs)
            degraded = {f"{k}_picked": _pair(g.degraded[k], d, n, pm) for k, d in (("psnr", 2), ("ssim", 3))}
            table.add_row("degraded", "", "", str(n), *(degraded.get(m, "") for m in shown))
        for r in g.rows:
            table.add_row(("*" if r.marked else "") + str(r.round), f"{r.sparsity:.2%}", _count(r.params_left),
                          str(r.n), *(_pair(r.stats[m], 3 if m == "ssim_picked" else 2, r.n, pm, scales.get(m, 1))
                                      for m in shown), _time(r.stats["seconds"].mean))
        lost = choice_lost(g, _pair(g.lost, 2, len(g.runs), pm))
        lines += [Text(g.label, style="bold"), table, *map(Text, [choice(g), *lost]), Text("")]
    if used := tickets_used(groups):
        table = Table(*used[0], box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for i, column in enumerate(table.columns):
            column.overflow, column.no_wrap = "fold", i > 1     # the labels alone may take several lines
        for cells in used[1:]:
            table.add_row(*cells)
        lines += [Text("tickets used", style="bold"), table, Text("")]
    return Lines(*lines, Text(_meaning(groups, pm), style="dim"))


def to_csv(groups: Sequence[Group]) -> str:
    """Return one header and one line a group and round, all digits, empty where there is no value.

    PSNR in dB, MSE in the range [-1, 1], swd in 1/1000, accuracies in percent, seconds of one round; `chosen` counts
    the runs that chose the round without the clean picture; `sd_over` says whether _sd columns are over seeds or, of a
    single run of a generator, over pictures; the degraded_ and lost_ columns (what `Group.lost` is) repeat in each line
    of a group. The last columns are the options that tell the groups apart.
    """
    options = list(dict.fromkeys(k for g in groups for k in g.options))
    names = [*METRICS, "degraded_psnr", "degraded_ssim", "lost_psnr"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "round", "sparsity", "params_left", "n", "chosen", "sd_over",
                     *(f"{name}_{part}" for name in names for part in ("mean", "sd", "n")), *options])
    for g in groups:
        for r in g.rows:
            stats = [*(r.stats[m] for m in METRICS), g.degraded["psnr"], g.degraded["ssim"], g.lost]
            writer.writerow([g.label, r.round, r.sparsity, r.params_left, r.n, r.chosen,
                             "pictures" if g.over_pictures else "seeds",
                             *(v for s in stats for v in (s.mean, s.sd, s.n)), *(g.options.get(k) for k in options)])
    return text.getvalue()


def to_markdown(groups: Sequence[Group], comparisons: Sequence[Comparison], remarks: Sequence[str],
                overviews: Sequence[Overview] = ()) -> str:
    """Return the overviews, the comparisons and one GitHub table a group, and below what is not in the tables."""
    text = []
    for o in overviews:
        columns = _marked_overview(o, lambda metric, stat, n: _long(stat, _spec(metric, ()), n), "**{}**")
        heads = ["", "sparsity", "params left", "n", *(_HEADS[m][1] for m in _RESTORED), "seconds"]
        rows = [[f"`{label}`", f"{r.sparsity:.2%}", f"{r.params_left:,.0f}", r.n, *cells,
                 "-" if (s := r.stats["seconds"].mean) is None else f"{s:.1f}"]
                for label, r, *cells in zip(o.labels, o.rows, *columns, strict=True)]
        if (before := o.groups[0].degraded)["psnr"].n:
            n = len(o.groups[0].runs)
            rows.insert(0, ["degraded", "", "", n, "", _long(before["psnr"], ".2f", n), "",
                            _long(before["ssim"], ".3f", n), ""])
        text += [f"### `{o.title}`: restorations (bold: the best)", "", *_table(heads, rows, left=1), ""]
    for c in comparisons:
        for metric, name in _compared(c):
            spec = _spec(metric, (s.mean for column in c.stats(metric) for s in column))
            columns = _marked(c, metric, lambda stat, n, spec=spec: _long(stat, spec, n), "**{}**")
            labels = [f"`{label}`" for label in c.labels]
            text += [f"### `{c.title}`: {name} (bold: the best)", "",
                     *_table(["pruner", "n", *(f"{s:.2%}" for s in c.sparsities)],
                             zip(labels, [len(g.runs) for g in c.groups], *columns, strict=True), left=1), ""]
    for g in groups:
        shown = metrics(g)
        specs = {m: _spec(m, (r.stats[m].mean for r in g.rows)) for m in shown}
        heads = ["round", "sparsity", "params left", "n", *(_HEADS[m][1] for m in shown), "seconds"]
        rows = [_markdown_cells(r, specs) for r in g.rows]
        if g.degraded["psnr"].n:
            degraded = {m: _long(g.degraded[k], specs[m], len(g.runs))
                        for m, k in (("psnr_picked", "psnr"), ("ssim_picked", "ssim"))}
            rows.insert(0, ["degraded", "", "", len(g.runs), *(degraded.get(m, "") for m in shown), ""])
        lost = choice_lost(g, _long(g.lost, ".2f", len(g.runs)))
        text += [f"### `{g.label}`", "", *_table(heads, rows, left=0), "", choice(g).replace("*", r"\*"),
                 *(f"\n{line}" for line in lost), ""]
    if used := tickets_used(groups):
        rows = [(f"`{label}`", f"`{by}`", *cells) for label, by, *cells in used[1:]]
        text += ["### tickets used", "", *_table(used[0], rows, left=2), ""]
    text += [_meaning(groups, "±").replace("*", r"\*") + ".", ""]
    if remarks:
        text += [*(f"- {remark}" for remark in remarks), ""]
    return "\n".join(text)


def choice(group: Group) -> str:
    """Return the line that tells how often which round was chosen, and by what."""
    how = next((how for metric, (_, how) in _TRAINED.items() if group.has(metric)), "without the clean picture")
    chosen = sorted((r for r in group.rows if r.chosen), key=lambda r: -r.chosen)
    n = len(group.runs)
    if n == 1:
        return f"* chosen {how}: round {chosen[0].round}"
    often = ", ".join(f"round {r.round} ({r.chosen} of {n})" for r in chosen)
    return f"* chosen {how}: {often}"


def choice_lost(group: Group, shown: str) -> list[str]:
    """Return the line that tells what the choice without the clean picture cost, `shown` in dB; none if unknown."""
    if not group.lost.n or len(group.rows) == 1:
        return []
    return [f"PSNR picked that this choice lost to the best by the clean picture: {shown} dB"]


def tickets_used(groups: Sequence[Group]) -> list[list[str]]:
    """Return a table: heads, and a row for each group that replayed tickets whose origin is known; [] without any."""
    rows = []
    hashes: dict[str, set[str]] = {}
    for o in (o for g in groups for r in g.runs for o in r.found):
        hashes.setdefault(o.label, set()).add(o.options)
    for g in groups:
        if found := [o for r in g.runs for o in r.found]:
            by = dict.fromkeys(o.label + (f" ({o.options})" if len(hashes[o.label]) > 1 else "") for o in found)
            rounds = {r for o in found for r in o.rounds}
            sparsities = [s for o in found for s in o.sparsities]
            ends = dict.fromkeys(f"{s:.2%}" for s in (min(sparsities), max(sparsities)))
            rows.append([g.label, ", ".join(by), spans(o.seed for o in found), spans(rounds), "..".join(ends),
                         str(g.runs[0].options.get("pruner.init", "-"))])
    return [["group", "tickets found by", "seeds", "rounds", "sparsity", "init"], *rows] if rows else []


def remarks(runs: Runs, twins: Sequence[Twin]) -> list[str]:
    """Return a line for each run that could not go on, is not finished, or is left out since it is there already."""
    lines = [f"ended: {r.folder}: {r.ended}" for r in runs.finished if r.ended]
    for u in runs.unfinished:
        done = f"{u.done} of {u.total} rounds" if u.total is not None else f"{u.done} rounds"
        lines.append(f"not finished, left out: {u.folder} ({done} done)")
    for t in twins:
        why = "" if t.same else "; their numbers differ: another device, another version or a changed picture"
        lines.append(f"counted once: {t.run.folder} has the options and the seed of {t.kept.folder}{why}")
    return lines


# --- comparisons

def _overview(o: Overview, pm: str) -> Table:
    """Return a table of a row a group."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", overflow="fold")
    for head in ("sparse", "params", "n", *(_HEADS[m][0] for m in _RESTORED), "time"):
        table.add_column(head, justify="right", no_wrap=True)
    first = o.groups[0]
    if first.degraded["psnr"].n:
        n = len(first.runs)
        table.add_row("degraded", "", "", str(n), "", _pair(first.degraded["psnr"], 2, n, pm), "",
                      _pair(first.degraded["ssim"], 3, n, pm), "")
    columns = _marked_overview(o, lambda m, stat, n: _pair(stat, 3 if m == "ssim_picked" else 2, n, pm), "*{}")
    for label, r, *cells in zip(o.labels, o.rows, *columns, strict=True):
        table.add_row(label, f"{r.sparsity:.2%}", _count(r.params_left), str(r.n), *cells,
                      _time(r.stats["seconds"].mean))
    return table


def _marked_overview(o: Overview, cell: Callable[[str, Stat, int], str], mark: str) -> list[list[str]]:
    """Return the cells of each metric's column, the best ones put into `mark`."""
    columns = []
    for metric in _RESTORED:
        most = best(r.stats[metric] for r in o.rows)
        texts = [cell(metric, r.stats[metric], r.n) for r in o.rows]
        columns.append([mark.format(t) if r.stats[metric].mean is not None and r.stats[metric].mean == most else t
                        for t, r in zip(texts, o.rows, strict=True)])
    return columns


def _compared(c: Comparison) -> list[tuple[str, str]]:
    """Return (metric, name) of what has a value: nothing, where the clean picture is not known."""
    return [(m, name) for m, name in _COMPARED.items() if any(s.n for column in c.stats(m) for s in column)
            and (m != "mse_picked" or c.groups[0].generator)]


def _marked(c: Comparison, metric: str, cell: Callable[[Stat, int], str], mark: str) -> list[list[str]]:
    """Return the cells of each column, the best ones put into `mark`."""
    columns = []
    for column in c.stats(metric):
        most = best(column, lowest=metric in _LOW)
        texts = [cell(s, len(g.runs)) for s, g in zip(column, c.groups, strict=True)]
        columns.append([mark.format(t) if s.mean is not None and s.mean == most else t
                        for t, s in zip(texts, column, strict=True)])
    return columns


def _side_by_side(c: Comparison, metric: str, width: int, pm: str) -> list[Table]:
    """Return a table of a row a group and a column a sparsity; what is too wide for one goes into more, below it."""
    digits = int(_spec(metric, (s.mean for column in c.stats(metric) for s in column))[1:-1])
    columns = [[f"{s:.2%}", *cells] for s, cells in
               zip(c.sparsities, _marked(c, metric, lambda stat, n: _pair(stat, digits, n, pm), "*{}"), strict=True)]
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
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        heads, *rows = zip(labels, counts, *columns[first:last], strict=True)
        table.add_column(heads[0], width=side, overflow="fold")
        for head in heads[1:]:
            table.add_column(head, justify="right", no_wrap=True)
        for cells in rows:
            table.add_row(*cells)
        tables.append(table)
        first = last
    return tables


# --- cells

def _pair(stat: Stat, digits: int, n: int, pm: str, scale: float = 1) -> str:
    """Return `31.24±.12`, `31.24` for one run, `-` for none; `(2)` after it if 2 of the row's n runs have a value."""
    if stat.mean is None:
        return "-"
    text = f"{stat.mean / scale:.{digits}f}"
    if digits > 2:      # SSIM and MSE lie below 1: their 0 is room for another digit
        text = text.removeprefix("0").replace("-0.", "-.")
    if stat.sd is not None:
        sd = stat.sd / scale
        text += pm + (f"{sd:.{digits}f}".removeprefix("0") if sd < 0.995 else f"{sd:.{digits - 1}f}")
    return text if stat.n == n else f"{text} ({stat.n})"


def _long(stat: Stat, spec: str, n: int) -> str:
    """Return `31.24 ± 0.12`, as `_pair`."""
    if stat.mean is None:
        return "-"
    text = f"{stat.mean:{spec}}" + (f" ± {stat.sd:{spec}}" if stat.sd is not None else "")
    return text if stat.n == n else f"{text} ({stat.n})"


def _markdown_cells(r: Row, specs: Mapping[str, str]) -> list[str]:
    seconds = r.stats["seconds"].mean
    return [(r"\*" if r.marked else "") + str(r.round), f"{r.sparsity:.2%}", f"{r.params_left:,.0f}", str(r.n),
            *(_long(r.stats[m], spec, r.n) for m, spec in specs.items()), "-" if seconds is None else f"{seconds:.1f}"]


def _table(heads: Sequence[str], rows: Iterable[Sequence], left: int) -> list[str]:
    """Return a Markdown table; the first `left` columns are text."""
    return [_line(heads), _line([":---"] * left + ["---:"] * (len(heads) - left)), *map(_line, rows)]


def _line(cells: Sequence) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _spec(metric: str, means: Iterable[float | None]) -> str:
    """Return how a metric is written in full: an MSE with three digits of the largest one."""
    if metric == "mse_picked":
        return f".{max(2, 2 - round(math.log10(_scale(means))))}f"
    return {"ssim_picked": ".3f", "loss": ".3e"}.get(metric, ".2f")


def _scale(values: Iterable[float | None]) -> float:
    """Return the power of ten of the largest value, so that all take few digits."""
    largest = max((abs(v) for v in values if v is not None), default=0)
    return 10.0 ** math.floor(math.log10(largest)) if largest else 1.0


def _power(scale: float) -> str:
    """Return what a head says of a scale.

    >>> _power(1e-3), _power(1)
    ('/1e-3', '')
    """
    return f"/{scale:.0e}".replace("e-0", "e-").replace("/1e+00", "")


def _count(n: float) -> str:
    """Return a number of parameters in at most 6 characters.

    >>> [_count(n) for n in (8583, 100_224, 2_217_831)]
    ['8,583', '100.2k', '2.218M']
    """
    if n < 99_999.5:
        return f"{n:,.0f}"
    return f"{n / 1e3:.1f}k" if n < 999_950 else f"{n / 1e6:.3f}M" if n < 9_999_500 else f"{n / 1e6:.1f}M"


def _time(seconds: float | None) -> str:
    """Return a time in at most 4 characters.

    >>> [_time(s) for s in (0.24, 35, 99.4, 720, 9000, 86400)]
    ['0.2s', '35s', '99s', '12m', '2.5h', '24h']
    """
    if seconds is None:
        return "-"
    unit, name = (1, "s") if seconds < 99.5 else (60, "m") if seconds < 99.5 * 60 else (3600, "h")
    value = seconds / unit
    return f"{value:.1f}{name}" if value < 9.95 else f"{value:.0f}{name}"
