"""Small parts of the data sets that classification is reported on, from the folder LIPFW_DATA."""
from dataclasses import replace

from lipfw.errors import choice
from lipfw.image import npz
from lipfw.image.classes import Labelled, resized
from lipfw.image.local import local

SETS = ("cifar10_small", "imagenet20_small")


def load(set: str, *, size: int | None = None, resize: str = "nearest") -> Labelled:
    """Return a set of SETS, `$LIPFW_DATA/<set>/<set>.npz`; the other arguments are those of `resized`.

    Raises InputError if it is not there.
    """
    choice("image.set", set, SETS)
    path = local(set, f"{set}/{set}.npz", "image=lfw_labelled, or image=labelled image.path=... with pictures of yours")
    return replace(resized(npz.read(path), size, resize), name=set)
