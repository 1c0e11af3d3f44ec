"""Labelled pictures of the user's: class folders, an .npz file, or CIFAR-10 as it is published."""
import os
from pathlib import Path

from lipfw.errors import InputError
from lipfw.image import cifar, npz, tree
from lipfw.image.classes import Labelled, check_resizing, resized
from lipfw.listing import cifar_files


def load(path, *, size: int | None = None, resize: str = "lanczos", held_out: float = 0.2) -> Labelled:
    """Return the data set at a path: class folders or a zip of them (`tree.read`), an .npz file (`npz.read`), or
    CIFAR-10's binary files, in a folder or in the tar.gz they come in (`cifar.read`).

    `size` and `resize` as in `resized`, but that pictures of a folder need not have one size, nor be square, where
    they are resized by Lanczos: of each the centre square is used. Raises InputError for what can't be read.
    """
    check_resizing(size, resize)
    path = Path(os.path.expanduser(str(path)))
    if not path.exists():
        raise InputError(f"{path} does not exist; image.path must be a folder or zip of class folders, an .npz file, "
                         "or CIFAR-10's binary files")
    if path.suffix == ".npz":
        return resized(npz.read(path), size, resize)
    if cifar_files(path) or path.suffix in (".gz", ".tgz", ".tar"):
        return resized(cifar.read(path), size, resize)
    return resized(tree.read(path, size if resize == "lanczos" else None, held_out), size, resize)
