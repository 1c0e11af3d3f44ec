"""Pictures that the scikit-image wheel ships, so that a first run needs no file and no network."""
from collections.abc import Sequence

from lipfw.errors import choice
from lipfw.image.picture import MAX_PIXELS, Picture, finish, from_array

NAMES = ("astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "colorwheel", "grass", "gravel",
         "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket",
         "text")


def load(name: str = "astronaut", *, size: int | None = None, fit_size: str = "pad", degraded: bool = False,
         max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = None) -> list[Picture]:
    """Return the picture `name` of `skimage.data` as a list of one; the other arguments are those of `finish`.

    Raises InputError for a name that is not in NAMES (other pictures of skimage.data are downloads or no pictures).
    """
    choice("image.name", name, NAMES)
    from skimage import data  # the library: inside the package, too, imports are absolute

    return finish([from_array(name, getattr(data, name)())], size=size, fit_size=fit_size, degraded=degraded,
                  max_pixels=max_pixels, box=box)
