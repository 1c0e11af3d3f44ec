"""All picture files of a folder."""
import os
from dataclasses import replace
from pathlib import Path

from lipfw.errors import InputError
from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish
from lipfw.image.read import read

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def load(path, *, size: int | None = None, fit_size: str = "pad", degraded: bool = False,
         max_pixels: int = MAX_PIXELS) -> list[Picture]:
    """Return the pictures in the folder `path`, sorted by file name; the other arguments are those of `finish`.

    Other endings, hidden files and subfolders are ignored. Two files of one stem get distinct names (a, a_2).
    Raises InputError if `path` is no folder, holds no picture, or holds one that cannot be read.
    """
    path = Path(os.path.expanduser(str(path)))
    limit = decode_limit(size, max_pixels)
    try:
        files = sorted(f for f in path.iterdir()
                       if f.suffix.lower() in ENDINGS and not f.name.startswith(".") and not f.is_dir())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; image.path must be a folder that holds pictures") from None
    except NotADirectoryError:
        raise InputError(f"{path} is a file, not a folder; for one picture use image=file image.path={path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be listed ({error.strerror}); make the folder readable") from None
    if not files:
        raise InputError(f"{path} holds no picture; put files there that end in {', '.join(ENDINGS)}")
    return finish(_distinct([read(f, limit) for f in files]), size=size, fit_size=fit_size, degraded=degraded,
                  max_pixels=max_pixels)


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
