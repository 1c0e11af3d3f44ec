"""Faces of CelebA that image=celeba does not train on, as pictures to restore."""
from collections.abc import Sequence
from pathlib import PurePosixPath

from lipfw.image.archive import opened
from lipfw.image.celeba import ARCHIVE, BOX
from lipfw.image.local import chosen, local
from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish, from_array
from lipfw.image.read import decode


def load(name: str | int | None = None, count: int | None = 8, *, size: int | None = 32, fit_size: str = "pad",
         degraded: bool = False, max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = BOX) -> list[Picture]:
    """Return the first `count` faces of the part `test`, or the one of that `name`; the other arguments are `finish`'s.

    A name is the CelebA number, e.g. 009937. The box is that of image=celeba. Raises InputError if they are not in
    LIPFW_DATA.
    """
    limit = decode_limit(size, max_pixels)
    path = local("held_out", ARCHIVE, "image=face, or image=folder image.path=... with pictures of yours")
    with opened(path, "test") as files:
        files = {PurePosixPath(f).stem: open_file for f, open_file in files.items()}
        pictures = [from_array(n, decode(f"{path}: {n}", files[n], limit)) for n in chosen(list(files), name, count)]
    return finish(pictures, size=size, fit_size=fit_size, degraded=degraded, max_pixels=max_pixels, box=box)
