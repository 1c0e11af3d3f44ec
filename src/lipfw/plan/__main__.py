"""python -m lipfw.plan [options] [overrides as in python -m lipfw] | --study"""
import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from lipfw.configs import CONF, EXPERIMENTS
from lipfw.errors import InputError, nearest, number, whole
from lipfw.grid.cells import opened
from lipfw.mistakes import explain
from lipfw.plan.devices import DEVICES, Device, named
from lipfw.plan.kinds import Kind, Kinds
from lipfw.plan.study import figures
from lipfw.plan.table import (
    assumptions,
    disk_line,
    figure_hours_table,
    figures_table,
    hours_table,
    kinds_table,
    totals,
)
from lipfw.plan.work import Planner, Work
from lipfw.terminal import Parser, console, status, tell

_HYDRA = {"-m", "--multirun", "-cn", "--config-name", "-cd", "--config-dir"}      # flags that say what is run


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.plan", allow_abbrev=False, usage="python -m lipfw.plan [options] [-cn EXPERIMENT] "
                                                               "[NAME=VALUE ...] [-m]\n"
                                                               "       python -m lipfw.plan --study [options]",
        description="What runs will take before they are started: rounds, steps, FLOPs, hours, disk.\n\n"
                    "Experiments, options and ranges are spelled as in python -m lipfw. No run is\n"
                    "started and nothing downloaded. Steps are measured on this machine; the hours\n"
                    "on GPUs are estimates from peak rates and an assumed utilisation.",
        epilog="examples: python -m lipfw.plan pruner=imp -m seed=0..9\n"
               "          python -m lipfw.plan -cn quickstart --no-measure\n"
               "          python -m lipfw.plan --study --device A100,H100 --gpus 1,8\n\n"
               "Exit status: 0, or 1 if something can't be planned.")
    parser.add_argument("--study", action="store_true",
                        help="the whole study of the paper, a row a figure or table")
    parser.add_argument("--gpus", metavar="N,...", default="1,8,64", help="numbers of GPUs (default: 1,8,64)")
    parser.add_argument("--device", metavar="NAME,...", help=f"only these; there are {', '.join(DEVICES)}")
    parser.add_argument("--utilisation", metavar="U", default="0.3", type=_number,
                        help="part of the peak rate that steps reach, in (0, 1];\n(default: 0.3, an assumption)")
    parser.add_argument("--floor-ms", metavar="MS", default="1", type=_number,
                        help="least time of a step on a GPU: launching its kernels\ntakes as long "
                             "(default: 1, an assumption)")
    parser.add_argument("--measure", action=argparse.BooleanOptionalAction, default=None,
                        help="time steps on this machine, some seconds for each kind\n(default: yes; for the "
                             "study: no)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Plan what `argv` says; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args, rest = _parser().parse_known_args(argv)
        try:
            return plan(args, rest)
        except Exception as e:
            if (message := explain(e, rest)) is None:
                raise
            raise InputError(message) from e

    return status(program)


def plan(args: argparse.Namespace, rest: Sequence[str]) -> int:
    """Print the plan; returns 1 if a part of it can't be planned, else 0. Raises InputError."""
    devices = named(args.device.split(",") if args.device else None)
    utilisation = number("--utilisation", args.utilisation, 0, 1, open_low=True)
    floor = number("--floor-ms", args.floor_ms, 0, 1e6) / 1e3
    gpus = [whole("each of --gpus", int(n) if n.strip().isdecimal() else n, least=1, most=1_000_000)
            for n in args.gpus.split(",")]
    unknown = next((w for w in rest if w.startswith("-") and w not in _HYDRA), None)
    if unknown is not None:
        ours = ["--study", "--gpus", "--device", "--utilisation", "--floor-ms", "--measure", "--no-measure"]
        raise InputError(f"{unknown} is no option of the plan{nearest(unknown, ours)}; see python -m lipfw.plan --help")
    planner = Planner(bool(not args.study if args.measure is None else args.measure),
                      lambda line: print(line, file=sys.stderr, flush=True))
    view = View(console(), devices, gpus, utilisation, floor)
    if args.study:
        if rest:
            raise InputError(f"--study plans the paper's study and takes no overrides, got {rest[0]}")
        return _study(view, planner)
    kinds = Kinds()
    with opened(rest, CONF, EXPERIMENTS) as (cells, compose):
        for overrides in cells:
            kinds.add(compose(overrides).config)
    if not any(kinds):
        raise InputError("these overrides make no run; glob() finds the names of a group's files, and no values")
    return _grid(view, planner, kinds)


@dataclass(frozen=True)
class View:
    """Where the plan is printed, and what it assumes of how many of which devices."""

    out: Console
    devices: Sequence[Device]
    gpus: Sequence[int]
    utilisation: float
    floor: float

    def sums(self, works: Sequence[Work], where: str) -> None:
        """Print what all runs take together, and what that rests on."""
        self.out.print(totals(works), disk_line(works), sep="\n")
        for line in dict.fromkeys(r for w in works for r in w.remarks):
            self.out.print(line)
        self.out.print()
        self.out.print(hours_table(works, self.devices, self.gpus, self.utilisation, self.floor, where))
        self.out.print()
        self.out.print(*assumptions(self.utilisation, self.floor, where), sep="\n", style="dim", soft_wrap=True)
        sys.stdout.flush()


def _grid(view: View, planner: Planner, kinds: Iterable[Kind]) -> int:
    """Print what the kinds of a grid take; returns 1 if one of them can't be planned, else 0."""
    works, failed = [], []
    for kind in kinds:
        try:
            works.append(planner(kind))
        except Exception as e:
            if (message := explain(e)) is None:
                raise
            failed.append(f"{kind.runs:,} run{'s' * (kind.runs > 1)} can't be planned: {message}")
    if works:
        view.out.print(kinds_table(works))
        view.out.print()
        view.sums(works, planner.where)
    for line in failed:
        tell(line)
    return int(bool(failed))


def _study(view: View, planner: Planner) -> int:
    """Print what the figures of the paper take; returns 0."""
    done = []
    for figure in figures(planner):
        planner.say(f"{figure.name}: {figure.about}")
        done.append(figure)
    view.out.print(figures_table(done))
    view.out.print()
    view.out.print(figure_hours_table(done, view.devices, view.utilisation, view.floor))
    view.out.print()
    view.sums([w for figure in done for w in figure.works], planner.where)
    return 0


def _number(text: str) -> float | str:
    """Return a number if a text is one: the check that names the option comes later."""
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    sys.exit(main())
