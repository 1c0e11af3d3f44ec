"""Groups -> a table for the terminal, CSV and Markdown. No statistics and no files here."""
import csv
import io
import math
from collections.abc import Sequence

from rich.console import Console
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from lipfw.report.read import METRICS, Runs
from lipfw.report.stats import Group, Row, Stat, Twin

_PSNR = ("psnr_peak", "psnr_picked", "psnr_final")
_MEANING = ("PSNR in dB, mean {pm} standard deviation over seeds (n): of the best step (peak, an oracle), of the one "
            "picked without the clean picture, and of the last; SSIM of the picked; (k): only k runs have a value; "
            "*: the round chosen most often")


def terminal(groups: Sequence[Group], console: Console) -> Lines:
    """Return one narrow table a group: 80 columns hold it. Numbers are rounded; CSV has them all."""
    pm = "±" if console.encoding.lower().startswith("utf") else "+-"
    lines = []
    for g in groups:
        scale = _scale([r.stats["loss"].mean for r in g.rows])
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        heads = ("round", "sparse", "params", "n", "peak", "picked", "final", "SSIM", f"loss/{scale:.0e}", "time")
        for head, width in zip(heads, (8, 6, 6, 2, 9, 9, 9, 9, 8, 4), strict=True):
            table.add_column(head.replace("e-0", "e-").replace("/1e+00", ""), justify="right", min_width=width)
        if g.degraded["psnr"].n:
            n = len(g.runs)
            psnr, ssim = (_pair(g.degraded[k], digits, n, pm) for k, digits in (("psnr", 2), ("ssim", 3)))
            table.add_row("degraded", "", "", str(n), "", psnr, "", ssim)
        for r in g.rows:
            table.add_row(("*" if r.marked else "") + str(r.round), f"{r.sparsity:.2%}", _count(r.params_left),
                          str(r.n), *(_pair(r.stats[m], 2, r.n, pm) for m in _PSNR),
                          _pair(r.stats["ssim_picked"], 3, r.n, pm), _pair(r.stats["loss"], 2, r.n, pm, scale),
                          _time(r.stats["seconds"].mean))
        lines += [Text(g.label, style="bold"), table, Text(choice(g)), Text("")]
    return Lines(*lines, Text(_MEANING.format(pm=pm), style="dim"))


def to_csv(groups: Sequence[Group]) -> str:
    """Return one header and one line a group and round, all digits, empty where there is no value.

    PSNR in dB, seconds of one round; `chosen` counts the runs that chose the round without the clean picture; the
    degraded_ columns repeat in each line of a group. The last columns are the options that tell the groups apart.
    """
    options = list(dict.fromkeys(k for g in groups for k in g.options))
    names = [*METRICS, "degraded_psnr", "degraded_ssim"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["group", "round", "sparsity", "params_left", "n", "chosen",
                     *(f"{name}_{part}" for name in names for part in ("mean", "sd", "n")), *options])
    for g in groups:
        for r in g.rows:
            stats = [*(r.stats[m] for m in METRICS), g.degraded["psnr"], g.degraded["ssim"]]
            writer.writerow([g.label, r.round, r.sparsity, r.params_left, r.n, r.chosen,
                             *(v for s in stats for v in (s.mean, s.sd, s.n)), *(g.options.get(k) for k in options)])
    return text.getvalue()


def to_markdown(groups: Sequence[Group], remarks: Sequence[str]) -> str:
    """Return one GitHub table a group, and below them what is not in the tables."""
    heads = ("round", "sparsity", "params left", "n", "PSNR peak", "PSNR picked", "PSNR final", "SSIM picked", "loss",
             "seconds")
    text = []
    for g in groups:
        text += [f"### `{g.label}`", "", _line(heads), _line(["---:"] * len(heads))]
        if g.degraded["psnr"].n:
            psnr, ssim = (_long(g.degraded[k], spec, len(g.runs)) for k, spec in (("psnr", ".2f"), ("ssim", ".3f")))
            text.append(_line(["degraded", "", "", len(g.runs), "", psnr, "", ssim, "", ""]))
        text += [_line(_markdown_cells(r)) for r in g.rows]
        text += ["", choice(g).replace("*", r"\*"), ""]
    text += [_MEANING.format(pm="±").replace("*", r"\*") + ".", ""]
    if remarks:
        text += [*(f"- {remark}" for remark in remarks), ""]
    return "\n".join(text)


def choice(group: Group) -> str:
    """Return the line that tells how often which round was chosen without the clean picture."""
    chosen = sorted((r for r in group.rows if r.chosen), key=lambda r: -r.chosen)
    n = len(group.runs)
    if n == 1:
        return f"* chosen without the clean picture: round {chosen[0].round}"
    often = ", ".join(f"round {r.round} ({r.chosen} of {n})" for r in chosen)
    return f"* chosen without the clean picture: {often}"


def remarks(runs: Runs, twins: Sequence[Twin]) -> list[str]:
    """Return a line for each run that is not in the tables because it is unfinished or there already."""
    lines = []
    for u in runs.unfinished:
        done = f"{u.done} of {u.total} rounds" if u.total is not None else f"{u.done} rounds"
        lines.append(f"not finished, left out: {u.folder} ({done} done)")
    for t in twins:
        why = "" if t.same else "; their numbers differ: another device, another version or a changed picture"
        lines.append(f"counted once: {t.run.folder} has the options and the seed of {t.kept.folder}{why}")
    return lines


# --- cells

def _pair(stat: Stat, digits: int, n: int, pm: str, scale: float = 1) -> str:
    """Return `31.24±.12`, `31.24` for one run, `-` for none; `(2)` after it if 2 of the row's n runs have a value."""
    if stat.mean is None:
        return "-"
    text = f"{stat.mean / scale:.{digits}f}"
    if digits == 3:     # SSIM lies below 1: its 0 is room for another digit
        text = text.replace("0.", ".", 1)
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


def _markdown_cells(r: Row) -> list[str]:
    seconds = r.stats["seconds"].mean
    return [(r"\*" if r.marked else "") + str(r.round), f"{r.sparsity:.2%}", f"{r.params_left:,.0f}", str(r.n),
            *(_long(r.stats[m], ".2f", r.n) for m in _PSNR), _long(r.stats["ssim_picked"], ".3f", r.n),
            _long(r.stats["loss"], ".3e", r.n), "-" if seconds is None else f"{seconds:.1f}"]


def _line(cells: Sequence) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _scale(losses: Sequence[float | None]) -> float:
    """Return the power of ten of the largest loss, so that losses take few digits."""
    largest = max((abs(v) for v in losses if v is not None), default=0)
    return 10.0 ** math.floor(math.log10(largest)) if largest else 1.0


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
