"""Tickets that ship with the package: `zoo:multi-s89` names one, `zoo:multi` a family, all of its sparsities.

Their cards lie beside them. No torch here: run folders are named by the tickets' bytes.
"""
from pathlib import Path

from lipfw.errors import InputError, choice

PREFIX = "zoo:"
_FOLDER = Path(__file__).parent


def is_named(path) -> bool:
    """Return whether a path is meant as a ticket of the zoo."""
    return str(path).startswith(PREFIX)


def names() -> list[str]:
    """Return the names that there are: families, and the tickets of each from dense to sparse.

    >>> names()[:2]
    ['multi', 'multi-s59']
    """
    tickets = sorted(f.stem for f in _FOLDER.glob("*.safetensors"))
    return sorted({*tickets, *(t.rpartition("-")[0] for t in tickets)})


def tickets(path) -> list[Path]:
    """Return the files of a ticket, zoo:multi-s89, or of a family, zoo:multi: one for each sparsity, ascending.

    Raises InputError for a name that is not there.
    """
    name = choice("a ticket of the zoo", str(path).removeprefix(PREFIX), tuple(names()))
    file = _FOLDER / f"{name}.safetensors"
    return [file] if file.is_file() else sorted(_FOLDER.glob(f"{name}-*.safetensors"))


def one(path) -> Path:
    """Return the file of a ticket. Raises InputError for a family, too."""
    files = tickets(path)
    if len(files) > 1:
        raise InputError(f"{path} is {len(files)} tickets; name one of them: "
                         f"{', '.join(PREFIX + f.stem for f in files)}")
    return files[0]
