"""python -m lipfw.dashboard [--entity NAME] [--project NAME] [--show [FILE]]"""
import sys
from collections.abc import Sequence
from pathlib import Path

from lipfw.dashboard.build import account, as_json, save, workspace
from lipfw.files import write_text
from lipfw.terminal import Parser, status


def _parser() -> Parser:
    parser = Parser(
        prog="python -m lipfw.dashboard",
        description="Make a saved view of a project of Weights & Biases: quality over sparsity with\n"
                    "bands over seeds, chosen tickets, sparsity of layers, restored pictures, steps.\n"
                    "Each call makes a new one; those that are there stay as they are.",
        epilog="example: python -m lipfw.dashboard --entity me --project lipfw\n\n"
               "Needs: pip install 'lipfw[dashboard]', an account, and runs that were sent to it\n"
               "(wandb sync, or WANDB_MODE=online). Exit status: 0, or 1 if it can't be made.")
    parser.add_argument("--entity", metavar="NAME", help="user or team whose project it is (default: the account's)")
    parser.add_argument("--project", metavar="NAME", default="lipfw",
                        help="logger.project of the runs (default: lipfw)")
    parser.add_argument("--name", default="lottery image priors", help="what the view is called (default: %(default)s)")
    parser.add_argument("--show", metavar="FILE", nargs="?", const="-",
                        help="write what would be sent as JSON, there or to the terminal, and send nothing; needs no "
                             "account and no network")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dashboard that `argv` asks for; returns the exit status. A mistake is told in one line on stderr."""
    def program() -> int:
        args = _parser().parse_args(argv)
        if args.show is None:
            mine = account()
            print(save(workspace(args.entity or mine, args.project, args.name)))
            return 0
        text = as_json(workspace(args.entity or "ENTITY", args.project, args.name))
        if args.show == "-":
            print(text, end="")
        else:
            write_text(Path(args.show), text)
            print(f"written: {args.show}")
        return 0

    return status(program)


if __name__ == "__main__":
    sys.exit(main())
