"""Skip matrices of NAS-DIP's networks, as a config spells them. No torch here: runs are named by them."""
from collections.abc import Sequence

from lipfw.errors import InputError

LEVELS = 5


def bits(skips: Sequence[str | int]) -> list[str]:
    """Return the rows of a skip matrix as text: five of five bits, however a config has read them.

    In a file YAML takes 11111 for a number and 01111 for an octal one, which no other row of five bits is. Raises
    InputError.

    >>> bits([11111, 0o1111, "00111", 11, "1"])
    ['11111', '01111', '00111', '00011', '00001']
    """
    given = list(skips) if isinstance(skips, Sequence) and not isinstance(skips, str) else [skips]
    rows = [_row(row) for row in given]
    if len(rows) != LEVELS or None in rows:
        raise InputError(f"prior.skips must be {LEVELS} rows of {LEVELS} bits, that of level j saying which of enc0 to "
                         f"enc4 are added there, e.g. [11111,01111,00111,00011,00001], got {skips}")
    return rows


def _row(row) -> str | None:
    """Return a row as text, None if it is none."""
    spelled = [str(row), f"{row:o}"] if type(row) is int and row >= 0 else [row]
    return next((s.zfill(LEVELS) for s in spelled if isinstance(s, str) and 0 < len(s) <= LEVELS and set(s) <= {*"01"}),
                None)
