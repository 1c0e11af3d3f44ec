"""python -m lipfw.status FOLDER ... [--watch [SECONDS]] [--all]"""
import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from lipfw.errors import InputError, number
from lipfw.status.forecast import Row, over
from lipfw.status.listed import listed
from lipfw.status.read import Reader
from lipfw.status.table import FULL, view
from lipfw.terminal import Parser, console, status

EVERY = 5.0     # seconds between two looks


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.status",
        description="Where the runs of a grid stand: a row a run, and what they come to.\n\n"
                    "done: there is a result; running: a process is at work, here or elsewhere;\n"
                    "failed: it ended by an error; stopped: begun, and nobody is at work;\n"
                    "waiting: not begun. The command that started the grid goes on with the last\n"
                    "three. PSNR is that of the best round so far, picked without the clean picture.\n"
                    f"Of more than {FULL} runs only those running or failed have a row each.",
        epilog="example: python -m lipfw.status runs/default --watch\n\n"
               "Exit status: 0, or 1 if there is no such folder or no run in it.")
    parser.add_argument("folder", metavar="FOLDER", nargs="+", type=Path,
                        help="runs/<name>, or the folder of one run")
    parser.add_argument("--watch", metavar="SECONDS", nargs="?", type=float, const=EVERY,
                        help=f"look every so many seconds ({EVERY:g}) until all are done, or Ctrl-C")
    parser.add_argument("--all", action="store_true", help="a row for each run, however many")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Show where the runs that `argv` names stand; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args = _parser().parse_intermixed_args(_spelled(sys.argv[1:] if argv is None else argv))
        if args.watch is not None:
            number("--watch", args.watch, 0.5, math.inf, open_high=True)
        return show(args.folder, args.watch, args.all)

    return status(program)


def show(folders: Sequence[Path], every: float | None = None, everything: bool = False) -> int:
    """Print where the runs in `folders` stand; with `every`, again each so many seconds until all have ended.

    Raises InputError for folders that do not exist or hold no runs.
    """
    look, out = _looks(folders), console()
    if every is None:
        out.print(view(look(), out.width, everything))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            (_live if out.is_terminal else _again)(look, out, every, everything)
    sys.stdout.flush()
    return 0


def _looks(folders: Sequence[Path]) -> Callable[[], list[Row]]:
    """Return a function that reads all runs; what has vanished after the first time is no mistake."""
    reader, runs = Reader(), listed(folders)

    def look() -> list[Row]:
        nonlocal runs
        with contextlib.suppress(InputError, OSError):
            runs = listed(folders)
        return [(run, reader(run.folder)) for run in runs]

    return look


def _live(look: Callable[[], list[Row]], out: Console, every: float, everything: bool) -> None:
    """Keep one table on the terminal up to date."""
    rows = look()

    def shown():
        return view(rows, out.width, everything, out.height)

    with Live(shown(), console=out, auto_refresh=False, vertical_overflow="visible" if everything else "crop") as live:
        while not over(rows):
            time.sleep(every)
            rows = look()
            live.update(shown(), refresh=True)


def _again(look: Callable[[], list[Row]], out: Console, every: float, everything: bool) -> None:
    """Print the table again and again, where there is no terminal to keep it on."""
    while True:
        rows = look()
        out.print(view(rows, out.width, everything))
        sys.stdout.flush()
        if over(rows):
            return
        time.sleep(every)
        out.print()


def _spelled(argv: Sequence[str]) -> list[str]:
    """Return arguments in which `--watch FOLDER` is a watch of a folder, and not one every FOLDER seconds."""
    out = list(argv)
    for i, (word, following) in enumerate(zip(argv[:-1], argv[1:], strict=True)):
        if word == "--watch":
            try:
                float(following)
            except ValueError:
                out[i] = f"--watch={EVERY}"
    return out


if __name__ == "__main__":
    sys.exit(main())
