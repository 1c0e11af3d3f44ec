"""A real face that needs no download: that of scikit-image's astronaut."""
from collections.abc import Sequence
from dataclasses import replace

from lipfw.image import skimage
from lipfw.image.picture import MAX_PIXELS, Picture

BOX = (156, 44, 138, 138)       # eyes and mouth lie where image=celeba has them


def load(*, size: int | None = 32, fit_size: str = "pad", degraded: bool = False, max_pixels: int = MAX_PIXELS,
         box: Sequence[int] | None = BOX) -> list[Picture]:
    """Return the face as a list of one picture; the arguments are those of `finish`. (Eileen Collins, by NASA.)"""
    face, = skimage.load("astronaut", size=size, fit_size=fit_size, degraded=degraded, max_pixels=max_pixels, box=box)
    return [replace(face, name="face")]
