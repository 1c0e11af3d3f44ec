"""All picture files of a folder."""
from collections.abc import Sequence
from dataclasses import replace

from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish
from lipfw.image.read import read
from lipfw.listing import pictures_in


def load(path, *, size: int | None = None, fit_size: str = "pad", degraded: bool = False,
         max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = None) -> list[Picture]:
    """Return the pictures in the folder `path`, sorted by file name; the other arguments are those of `finish`.

    Other endings, hidden files and subfolders are ignored. Two files of one stem get distinct names (a, a_2).
    Raises InputError if `path` is no folder, holds no picture, or holds one that cannot be read.
    """
    limit = decode_limit(size, max_pixels)
    pictures = _distinct([read(f, limit) for f in pictures_in(path)])
    return finish(pictures, size=size, fit_size=fit_size, degraded=degraded, max_pixels=max_pixels, box=box)


def _distinct(pictures: list[Picture]) -> list[Picture]:
    """Number names that occur again; capitals do not count, since on some systems A.png and a.png are one file."""
    taken, named = set(), []
    for picture in pictures:
        name, number = picture.name, 2
        while name.casefold() in taken:
            name, number = f"{picture.name}_{number}", number + 1
        taken.add(name.casefold())
        named.append(replace(picture, name=name))
    return named
