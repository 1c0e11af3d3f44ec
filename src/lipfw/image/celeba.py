"""The aligned faces of CelebA at half their size, from the folder LIPFW_DATA, to train on."""
from dataclasses import replace

from lipfw.image import dataset
from lipfw.image.dataset import Dataset
from lipfw.image.local import local

ARCHIVE = "faces_train/celeba_aligned_89x109.zip"
BOX = (12, 28, 64, 64)      # the 128x128 square around the face that is usual, at half the size


def load(part: str | None = "train", *, size: int = 32, channels: int = 3) -> Dataset:
    """Return the faces of a part, `train` or `test`, resized. Raises InputError if they are not in LIPFW_DATA."""
    path = local("celeba", ARCHIVE, "image=lfw, or image=dataset image.path=... with pictures of yours")
    return replace(dataset.load(path, part, size=size, box=BOX, channels=channels), name="celeba")
