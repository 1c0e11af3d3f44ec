"""The one error a user may see without a traceback, and the checks that raise it."""
import re


class InputError(ValueError):
    """A mistake in what the user gave: one line with the value, what is allowed and the remedy."""


class SeedsFailed(Exception):
    """Some of several fits side by side have failed: `errors` has each one's error by its seed."""

    def __init__(self, errors: dict[int, BaseException]):
        super().__init__("failed: " + ", ".join(f"seed {s} ({type(e).__name__}: {e})" for s, e in errors.items()))
        self.errors = errors


def whole(name: str, value, least: int, most: int | None = None) -> int:
    """Return `value` if it is a whole number of at least `least`, and at most `most`, else raise InputError.

    >>> whole("fit.steps", 3, least=1)
    3
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if most is not None and value > most:
        raise InputError(f"{name} must be at most {most:,}, got {value:,}")
    return value


def flag(name: str, value) -> bool:
    """Return `value` if it is true or false, else raise InputError: to Python "no" is true.

    >>> flag("prior.redraw", True)
    True
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")
    return value


def number(name: str, value, low: float, high: float, *, open_low: bool = False, open_high: bool = False,
           hint: str = "") -> float:
    """Return `value` as a float if it lies between `low` and `high`, else raise InputError; `hint` ends the line.

    >>> number("task.sigma", 25, 0, 255)
    25.0
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    good = good and (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not good:
        span = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise InputError(f"{name} must be a number in {span}, got {value!r}{hint and '; ' + hint}")
    return float(value)


def step_or_percentage(name: str, value) -> int | str:
    """Return `value` if it is a whole number of at least 0 or a percentage such as "5%", else raise InputError.

    >>> step_or_percentage("pruner.rewind_step", "5%")
    '5%'
    """
    if isinstance(value, str) and re.fullmatch(r"\d*\.?\d+%", value) and float(value[:-1]) <= 100:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{name} must be a whole number of at least 0 or a percentage such as 5%, got {value!r}")
    return value


def steps_of(value: int | str, steps: int) -> int:
    """Return the step that a checked number or percentage means in a fit of so many steps.

    >>> steps_of("5%", 3000)
    150
    """
    return round(float(value[:-1]) / 100 * steps) if isinstance(value, str) else value


def choice(name: str, value, allowed) -> str:
    """Return `value` if it is one of `allowed`, else raise InputError with the nearest one."""
    if value not in allowed:
        names = ", ".join(map(str, allowed))
        raise InputError(f"{name} must be one of {names}, got {value!r}{nearest(value, allowed)}")
    return value


def nearest(word, allowed) -> str:
    """Return "; did you mean X?" for the allowed word closest to `word`, or "" if none is close."""
    from difflib import get_close_matches

    close = get_close_matches(str(word), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
