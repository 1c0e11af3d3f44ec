"""python -m lipfw.tickets PATH [OTHER ...] [--csv FILE] [--pack TO]"""
import sys
from collections.abc import Sequence
from pathlib import Path

from lipfw.errors import InputError
from lipfw.files import write_text
from lipfw.terminal import Parser, console, status
from lipfw.tickets.pack import pack
from lipfw.tickets.rows import compare, layers, read, rounds
from lipfw.tickets.table import MEANING, origin, table, to_csv


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.tickets",
        description="What tickets are like: a run by rounds, a single ticket by layers.\n\n"
                    "With OTHER also the overlap of the kept weights with each other run or ticket,\n"
                    "beside what it would be by chance. With --pack a copy to share, which needs no\n"
                    "initial weights beside it: they are drawn again from their seed.",
        epilog="examples: python -m lipfw.tickets runs/found\n"
               "          python -m lipfw.tickets tickets/round_02.safetensors --csv layers.csv\n"
               "          python -m lipfw.tickets tickets/round_02.safetensors --pack mine.safetensors\n"
               "          python -m lipfw.tickets zoo:multi\n\n"
               "Exit status: 0, or 1 if a ticket can't be read or compared or FILE not written.")
    parser.add_argument("path", metavar="PATH", type=Path,
                        help="a ticket file, a tickets folder, or a run; or zoo:NAME, that ships with lipfw")
    parser.add_argument("other", metavar="OTHER", nargs="*", type=Path, default=[],
                        help="for a run: another run, compared by rounds, or a single ticket; for a ticket: a ticket")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the numbers there, with all digits")
    parser.add_argument("--pack", metavar="TO", type=Path,
                        help="write the ticket to the file TO, or those of a run into the folder TO, with the seed of "
                             "their initial weights instead of these, once that has proved to draw them to the bit")
    parser.add_argument("--seed", metavar="N", type=int,
                        help="of the initial weights that are packed: prior.seed, if it was not the run's seed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Show the tickets that `argv` names; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args = _parser().parse_args(argv)
        if args.seed is not None and args.pack is None:
            raise InputError("--seed tells the seed of what is packed; give --pack TO, too")
        return show(args.path, args.other, args.csv, args.pack, args.seed)

    return status(program)


def show(path: Path, others: Sequence[Path] = (), file: Path | None = None, to: Path | None = None,
         seed: int | None = None) -> int:
    """Print the tables of a run or a ticket and of its overlap with others; write the numbers to `file`; returns 0.

    `to` and `seed` are those of `pack`.

    Raises InputError for what cannot be read or compared, before anything is printed.
    """
    found = read(path)
    kind = "run" if found.is_run else "ticket"
    overlaps = [compare(found, other) for other in map(read, others)]
    packed = pack(found, to, seed) if to is not None else []
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
    for one in packed:
        out.print(f"packed: {one}, {one.stat().st_size:,} bytes", soft_wrap=True)
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
