"""The plan as tables that 80 columns hold."""
from collections.abc import Sequence

from rich.table import Table

from lipfw.plan.devices import Device
from lipfw.plan.makespan import makespan
from lipfw.plan.study import Figure
from lipfw.plan.work import Work


def kinds_table(works: Sequence[Work]) -> Table:
    """Return a row a kind."""
    table = _table("runs", "task", "pictures", "prior", "weights", "pruner", "rounds", "steps", "GFLOP", "PFLOP",
                   left=("task", "pictures", "prior", "pruner"))
    for w in works:
        first, later = w.steps[0], w.steps[-1]
        steps = f"{first:,}" if first == later else f"{first:,}, {later:,}"
        table.add_row(f"{w.runs:,}", w.task, w.pictures, w.prior, counted(w.parameters), w.pruner, f"{len(w.steps)}",
                      steps, rounded(w.flops_a_step / 1e9), rounded(w.flops_a_run / 1e15))
    return table


def totals(works: Sequence[Work]) -> str:
    """Return a line with the sums."""
    runs, rounds = (sum(n) for n in zip(*((w.runs, w.runs * len(w.steps)) for w in works), strict=True))
    steps = sum(w.runs * w.steps_a_run for w in works)
    flops = sum(w.runs * w.flops_a_run for w in works)
    return (f"{runs:,} run{'s' * (runs != 1)}, {rounds:,} round{'s' * (rounds != 1)}, {steps:,} steps, "
            f"{rounded(flops / 1e15)} PFLOP")


def disk_line(works: Sequence[Work]) -> str:
    """Return a line with the bytes of all runs, and those of checkpoints."""
    done = sum(w.runs * w.disk.done for w in works)
    most = max(w.side * w.disk.checkpoints for w in works)
    return f"disk: {size(done)} in the end; {size(most)} at most of checkpoints for a run under way"


def hours_table(works: Sequence[Work], devices: Sequence[Device], gpus: Sequence[int], utilisation: float,
                floor: float, where: str) -> Table:
    """Return the wall times: of this machine, if it was measured, and of each device, on so many of them."""
    table = _table("wall time on", "arithmetic", "longest run", *(f"{n:,} GPU{'s' * (n > 1)}" for n in gpus),
                   left=("wall time on", "arithmetic"))
    if where and all(w.seconds is not None for w in works):
        _add(table, "this machine", "measured", [(w.hours_here(), w.cells) for w in works], gpus)
    for d in devices:
        names = sorted({"{1} {0:g}".format(*d.rate(w.precision)) for w in works})
        _add(table, d.name, ", ".join(names), [(w.hours_on(d, utilisation, floor), w.cells) for w in works], gpus)
    return table


def _add(table: Table, name: str, arithmetic: str, cells: Sequence[tuple[float, int]], gpus: Sequence[int]) -> None:
    table.add_row(name, arithmetic, time(max(h for h, _ in cells)), *(time(makespan(cells, n)) for n in gpus))


def _table(*heads: str, left: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right", overflow="fold",
                         no_wrap=head not in left)
    return table


def assumptions(utilisation: float, floor: float, where: str) -> list[str]:
    """Return what the tables' numbers are and rest on, in lines."""
    lines = ["GFLOP: a step, forward and backward, of the dense network on all its pictures.",
             "PFLOP: a run. Sparse rounds take less on a CPU alone, by the sparse kernels.",
             "TF32: what torch takes for 32-bit convolutions where the GPU has it.",
             "GPUs: nothing was measured on them. The data sheet's peak (TFLOP/s) times",
             f"{utilisation:g} (assumed: --utilisation), but no step in less than {floor * 1e3:g} ms (assumed:",
             "--floor-ms). A run is not split; the longest go first; none waits for another",
             "one's tickets. Left out: scores of pruners, evaluation, reading and writing."]
    if where:
        lines += [f"This machine: steps measured on {where};", "columns: so many machines like it."]
    return lines


def time(hours: float) -> str:
    """Return a duration with two digits or all before the point.

    >>> time(0.0042), time(0.5), time(3.14), time(4321.0)
    ('15 s', '30 min', '3.1 h', '4,321 h')
    """
    return next((f"{rounded(hours * n)} {unit}" for n, unit in ((1, "h"), (60, "min")) if hours * n >= 1.6),
                f"{rounded(hours * 3600)} s")


def rounded(value: float) -> str:
    """Return a number with two digits, and no digit before the point left out.

    >>> rounded(7.1886), rounded(460.1), rounded(12_345.6), rounded(0.000123)
    ('7.2', '460', '12,346', '0.00012')
    """
    return f"{value:,.0f}" if value >= 99.5 else f"{value:#.2g}".removesuffix(".") if value else "0"


def counted(value: float) -> str:
    """Return a count in a few letters.

    >>> counted(2_217_831), counted(454_291), counted(640)
    ('2.2M', '454k', '640')
    """
    return next((f"{value / n:.3g}{letter}" if value / n >= 100 else f"{value / n:.2g}{letter}"
                 for n, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= n), f"{value:g}")


def size(count: float) -> str:
    """Return bytes in a few letters.

    >>> size(1_842_348), size(276_000), size(52_000_000_000)
    ('1.8 MB', '276 kB', '52 GB')
    """
    return next((f"{rounded(count / n)} {unit}" for n, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
                 if count >= n), f"{count:.0f} B")


def figures_table(figures: Sequence[Figure]) -> Table:
    """Return a row a figure, with the sums of its runs."""
    table = _table("figure", "question", "runs", "rounds", "Msteps", "PFLOP", "disk", left=("figure", "question"))
    for f in figures:
        table.add_row(f.name, f.about, f"{sum(w.runs for w in f.works):,}",
                      f"{sum(w.runs * len(w.steps) for w in f.works):,}",
                      rounded(sum(w.runs * w.steps_a_run for w in f.works) / 1e6),
                      rounded(sum(w.runs * w.flops_a_run for w in f.works) / 1e15),
                      size(sum(w.runs * w.disk.done for w in f.works)))
    return table


def figure_hours_table(figures: Sequence[Figure], devices: Sequence[Device], utilisation: float,
                       floor: float) -> Table:
    """Return the hours of each figure on one of each device."""
    table = _table("hours on one", *(d.name for d in devices), left=("hours on one",))
    for f in figures:
        if f.works:
            table.add_row(f.name, *(rounded(sum(w.cells * w.hours_on(d, utilisation, floor) for w in f.works))
                                    for d in devices))
    return table
