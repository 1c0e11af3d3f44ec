"""Photographs of CelebA-HQ, 256x256 pixels, from the folder LIPFW_DATA."""
from collections.abc import Sequence

from lipfw.image.local import chosen, local
from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish
from lipfw.image.read import read
from lipfw.listing import pictures_in

BOX = (24, 33, 204, 204)    # CelebA-HQ is framed wider: here eyes and mouth lie where image=celeba has them


def load(name: str | int | None = None, count: int | None = None, *, size: int | None = 32, fit_size: str = "pad",
         degraded: bool = False, max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = BOX) -> list[Picture]:
    """Return all photographs, the first `count`, or the one of that `name`; the other arguments are `finish`'s.

    A name is the CelebA-HQ number, e.g. 005735. Raises InputError if they are not in LIPFW_DATA.
    """
    limit = decode_limit(size, max_pixels)
    path = local("faces", "faces", "image=face, or image=folder image.path=... with pictures of yours")
    files = {f.stem: f for f in pictures_in(path)}
    pictures = [read(files[n], limit) for n in chosen(list(files), name, count)]
    return finish(pictures, size=size, fit_size=fit_size, degraded=degraded, max_pixels=max_pixels, box=box)
