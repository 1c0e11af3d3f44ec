"""python -m lipfw.tickets PATH [OTHER ...] [--csv FILE]"""
import sys
from collections.abc import Sequence
from pathlib import Path

from lipfw.files import write_text
from lipfw.terminal import Parser, console, status
from lipfw.tickets.rows import compare, layers, read, rounds
from lipfw.tickets.table import MEANING, origin, table, to_csv


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.tickets",
        description="What tickets are like: a run by rounds, a single ticket by layers.\n\n"
                    "With OTHER also the overlap of the kept weights with each other run or ticket,\n"
                    "beside what it would be by chance.",
        epilog="examples: python -m lipfw.tickets runs/found\n"
               "          python -m lipfw.tickets tickets/round_02.safetensors --csv layers.csv\n\n"
               "Exit status: 0, or 1 if a ticket can't be read or compared or FILE not written.")
    parser.add_argument("path", metavar="PATH", type=Path, help="a ticket file, a tickets folder, or a run")
    parser.add_argument("other", metavar="OTHER", nargs="*", type=Path, default=[],
                        help="for a run: another run, compared by rounds, or a single ticket; for a ticket: a ticket")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the numbers there, with all digits")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Show the tickets that `argv` names; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args = _parser().parse_args(argv)
        return show(args.path, args.other, args.csv)

    return status(program)


def show(path: Path, others: Sequence[Path] = (), file: Path | None = None) -> int:
    """Print the tables of a run or a ticket and of its overlap with others; write the numbers to `file`; returns 0.

    Raises InputError for what cannot be read or compared, before anything is printed.
    """
    found = read(path)
    kind = "run" if found.is_run else "ticket"
    overlaps = [compare(found, other) for other in map(read, others)]
    rows, remarks = (rounds if found.is_run else layers)(found)
    out = console()
    out.print(origin(found))
    out.print(table(rows, kind))
    for line in remarks:
        out.print(line)
    out.print(MEANING[kind], style="dim")
    wide = []
    for o in overlaps:
        both = [row | more for row, more in zip(rows, o.rows, strict=True)]
        out.print(f"\noverlap with {o.other}", style="bold", soft_wrap=True)
        out.print(table([*both, *o.whole], f"{kind} overlap"))
        for line in o.remarks:
            out.print(line)
        wide += both
    if overlaps:
        out.print(MEANING["overlap"], style="dim")
    if file is not None:
        write_text(file, to_csv(wide or rows))
        out.print(f"written: {file}", soft_wrap=True)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
