"""python -m lipfw.report runs/<name> [more folders] [--out DIR]"""
import sys
from collections.abc import Sequence
from pathlib import Path

from lipfw.errors import InputError
from lipfw.files import write_text
from lipfw.report.compare import compare, overviews
from lipfw.report.markdown import to_markdown
from lipfw.report.read import read_runs
from lipfw.report.screen import terminal
from lipfw.report.sheet import to_csv
from lipfw.report.stats import group
from lipfw.report.table import remarks
from lipfw.terminal import Parser, console, status, tell


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.report",
        description="Means and deviations over the seeds of finished runs, round by round.\n\n"
                    "Runs that differ only in their seeds form a group. Groups that differ only in\n"
                    "their pruner are compared first: dense and at sparsities that two reached.\n"
                    "Generators have their MSE beside PSNR, in training their distance instead,\n"
                    "classifiers their accuracy.\n"
                    "The tables go to the terminal, to report.csv (all digits) and to report.md.\n"
                    "Runs that are not finished are left out and named.",
        epilog="example: python -m lipfw.report runs/default\n\n"
               "Exit status: 0, or 1 if there is nothing to report, a run cannot be read or the\n"
               "report cannot be written.")
    parser.add_argument("folder", nargs="+", type=Path, help="runs/<name>, or the folder of one run")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="folder for report.csv and report.md (default: the first folder given)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Report the runs that `argv` names; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args = _parser().parse_args(argv)
        return report(args.folder, args.out or args.folder[0])

    return status(program)


def report(folders: Sequence[Path], out: Path) -> int:
    """Print the tables of the runs in `folders` and write report.csv and report.md to `out`; returns the exit status.

    Raises InputError if there is nothing to report, and for folders as `read_runs` does.
    """
    runs = read_runs(folders)
    groups, twins = group(runs.finished)
    comparisons, all_ways = compare(groups), overviews(groups)
    left_out = remarks(runs, twins)
    broken = [f"cannot read {folder}: {reason}" for folder, reason in runs.unreadable]
    screen, failed, written = console(), bool(broken), None
    if groups:
        try:
            out.mkdir(parents=True, exist_ok=True)
            write_text(out / "report.csv", to_csv(groups))
            write_text(out / "report.md", to_markdown(groups, comparisons, left_out + broken, all_ways))
            written = f"{out}/: report.csv, report.md"
        except OSError as e:        # the table is still worth printing
            failed = True
            broken.append(f"cannot write to {out}: {e.strerror or e}; choose another folder with --out DIR")
        screen.print(terminal(groups, comparisons, screen, all_ways))
    for line in (*left_out, *([written] if written else [])):
        screen.print(line, soft_wrap=True)
    sys.stdout.flush()
    for line in broken:
        tell(line)
    if not groups:
        raise InputError(f"no finished run to report in {', '.join(map(str, folders))}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
