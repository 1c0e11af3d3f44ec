"""The pictures that the paper's figures and tables name, from the sets that they are of."""
from collections.abc import Sequence
from dataclasses import replace

from lipfw.errors import choice
from lipfw.image import faces, named
from lipfw.image.local import local
from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish
from lipfw.image.read import read

# name -> its set; the faces with glasses of the paper were not published: photographs of CelebA-HQ stand in for them
PICTURES = {**dict.fromkeys(("baby", "bird", "butterfly", "head", "woman"), "set5"),
            **dict.fromkeys(("baboon", "barbara", "pepper", "zebra"), "set14"), "f16": "cbm3d",
            "kate": "dip/kate.png", "library": "dip/library.png", "vase": "dip/vase.png", "snail": "dip/snail.jpg",
            "face1": "005735", "face2": "006930", "face3": "012712", "face4": "015248", "face5": "016387"}


def load(name: str = "f16", *, size: int | None = None, fit_size: str = "pad", degraded: bool = False,
         max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = None) -> list[Picture]:
    """Return one picture, which bears that name; the other arguments are those of `finish`.

    Pictures of the named sets are read as those are, the others from the folder LIPFW_DATA. snail is a heavily
    compressed JPEG. Raises InputError for an unknown name, and if a picture can be had from nowhere.
    """
    of = PICTURES[choice("image.name", name, tuple(PICTURES))]
    options = {"size": size, "fit_size": fit_size, "degraded": degraded, "max_pixels": max_pixels, "box": box}
    if of in named.tables():
        return named.load(of, name, **options)
    if "/" not in of:
        return [replace(p, name=name) for p in faces.load(of, **options)]
    path = local("paper", of, "image=file image.path=... with a picture of yours")
    return finish([replace(read(path, decode_limit(size, max_pixels)), name=name)], **options)
