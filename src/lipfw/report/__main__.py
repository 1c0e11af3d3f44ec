"""python -m lipfw.report runs/<name> [more folders] [--out DIR]"""
import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lipfw.errors import InputError
from lipfw.files import write_text
from lipfw.report.read import read_runs
from lipfw.report.stats import compare, group
from lipfw.report.table import remarks, terminal, to_csv, to_markdown


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m lipfw.report", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Means and deviations over the seeds of finished runs, round by round.\n\nRuns that differ only in "
                    "their seeds form a group. Groups that differ only in their\npruner are compared first, at the "
                    "sparsities that two of them reached. The tables\ngo to the terminal, to report.csv (all digits) "
                    "and to report.md. Runs that are not\nfinished are left out and named.",
        epilog="example: python -m lipfw.report runs/default\n\n"
               "Exit status: 0, or 1 if there is nothing to report, a run cannot be read or the\n"
               "report cannot be written.")
    parser.add_argument("folder", nargs="+", type=Path, help="runs/<name>, or the folder of one run")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="folder for report.csv and report.md (default: the first folder given)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Report the runs that `argv` names; returns the exit status. A mistake is told in one line on stderr."""
    try:
        args = _parser().parse_args(argv)
        return report(args.folder, args.out or args.folder[0])
    except InputError as e:
        _tell(str(e))
    except OSError as e:
        _tell(f"{e.strerror or e}{f': {e.filename}' if e.filename else ''}")
    return 1


def report(folders: Sequence[Path], out: Path) -> int:
    """Print the tables of the runs in `folders` and write report.csv and report.md to `out`; returns the exit status.

    Raises InputError if there is nothing to report, and for folders as `read_runs` does.
    """
    runs = read_runs(folders)
    groups, twins = group(runs.finished)
    comparisons = compare(groups)
    left_out = remarks(runs, twins)
    broken = [f"cannot read {folder}: {reason}" for folder, reason in runs.unreadable]
    # a pipe has no width of its own: rather long lines than wrapped cells
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160, highlight=False,
                      soft_wrap=False, markup=False)
    failed = bool(broken)
    written = None
    if groups:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / "report.csv", to_csv(groups))
            write_text(out / "report.md", to_markdown(groups, comparisons, left_out + broken))
            written = f"{out}/: report.csv, report.md"
        except OSError as e:        # the table is still worth printing
            failed = True
            broken.append(f"cannot write to {out}: {e.strerror or e}; choose another folder with --out DIR")
        console.print(terminal(groups, comparisons, console))
    for line in (*left_out, *([written] if written else [])):
        console.print(line, soft_wrap=True)
    sys.stdout.flush()
    for line in broken:
        _tell(line)
    if not groups:
        raise InputError(f"no finished run to report in {', '.join(map(str, folders))}")
    return int(failed)


def _tell(message: str) -> None:
    print(f"lipfw: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
