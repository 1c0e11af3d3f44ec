"""What the programs beside `python -m lipfw` share: how they read arguments, print tables and tell mistakes."""
import argparse
import os
import sys
from collections.abc import Callable

from rich.console import Console

from lipfw.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are InputErrors, and whose texts keep their lines."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str):
        raise InputError(f"{message}; see {self.prog} --help")


def console() -> Console:
    """Return a console for tables. A pipe has no width of its own: rather long lines than wrapped cells."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160, highlight=False,
                   soft_wrap=False, markup=False)


def status(program: Callable[[], int]) -> int:
    """Return the exit status of a program: what it returns, or 1 for a user's mistake, told in one line on stderr."""
    try:
        return program()
    except InputError as e:
        tell(str(e))
    except OSError as e:
        tell(f"{e.strerror or e}{f': {e.filename}' if e.filename else ''}")
    return 1


def tell(message: str) -> None:
    """Tell what went wrong."""
    print(f"lipfw: {message}", file=sys.stderr)
