"""The hundred faces and hundred other pictures that scikit-image ships: two classes, without a download."""
import numpy as np

from lipfw.image.classes import Labelled, from_arrays, resized
from lipfw.image.lfw import FACES

EVERY = 5       # of so many pictures of a class the last is tested on


def load(*, size: int | None = 50, resize: str = "nearest") -> Labelled:
    """Return `skimage.data.lfw_subset`, 25x25 grey pixels in three equal channels, 160 to train on and 40 to test on.

    The faces come from Labeled Faces in the Wild, the others from the same photographs beside them. The arguments are
    those of `resized`.
    """
    from skimage import data

    pixels = np.rint(data.lfw_subset() * 255).astype(np.uint8)
    labels, tested = np.arange(len(pixels)) >= FACES, np.arange(len(pixels)) % EVERY == EVERY - 1
    every = from_arrays("lfw_labelled", pixels[~tested], labels[~tested].astype(int), pixels[tested],
                        labels[tested].astype(int), ("face", "other"))
    return resized(every, size, resize)
