"""The part of a picture that is used: [left, top, width, height] in pixels of the file."""
from collections.abc import Sequence

from lipfw.errors import InputError


def checked(box) -> tuple[int, int, int, int] | None:
    """Return image.box as a tuple, None for the whole picture. Raises InputError for what is no such list."""
    if box is None:
        return None
    whole = isinstance(box, Sequence) and not isinstance(box, str) and all(type(v) is int for v in box)
    if not whole or len(box) != 4 or min(box) < 0 or min(box[2:]) < 1:
        raise InputError(f"image.box must be [left, top, width, height] in pixels of the picture, got "
                         f"{box if isinstance(box, str) or not isinstance(box, Sequence) else list(box)!r}")
    return tuple(box)


def check_inside(box: tuple[int, int, int, int], name: str, width: int, height: int) -> None:
    """Raise InputError if a part of the box lies outside of a picture of width x height pixels."""
    left, top, wide, high = box
    if left + wide > width or top + high > height:
        raise InputError(f"{name}: image.box={list(box)} reaches to column {left + wide} and row {top + high}, but the "
                         f"picture has {width}x{height} pixels; choose a box inside it")
