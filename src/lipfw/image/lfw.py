"""The hundred faces that scikit-image ships: real photographs to train on without a download."""
import numpy as np
import torch

from lipfw.image.dataset import Dataset, check_options, fitted

FACES = 100         # the second half of `lfw_subset` is no faces


def load(*, size: int = 32, channels: int = 3) -> Dataset:
    """Return the faces of `skimage.data.lfw_subset`, 25x25 grey pixels, resized; three channels are equal ones.

    They come from Labeled Faces in the Wild, cut more tightly than those of CelebA.
    """
    check_options(size, channels)
    from skimage import data

    faces = np.rint(data.lfw_subset()[:FACES, ..., None] * 255).astype(np.uint8)
    pixels = np.ascontiguousarray([fitted(f, (0, 0, 25, 25), size, channels) for f in faces])
    return Dataset("lfw", torch.from_numpy(pixels))
