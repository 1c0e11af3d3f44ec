"""One picture file of the user's."""
from collections.abc import Sequence

from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish
from lipfw.image.read import read


def load(path, *, size: int | None = None, fit_size: str = "pad", degraded: bool = False,
         max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = None) -> list[Picture]:
    """Return the picture at `path` as a list of one; the other arguments are those of `finish`."""
    return finish([read(path, decode_limit(size, max_pixels))], size=size, fit_size=fit_size, degraded=degraded,
                  max_pixels=max_pixels, box=box)
