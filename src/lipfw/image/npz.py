"""Labelled pictures in an .npz file, read without unpickling anything and without taking memory before it is due."""
import lzma
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lipfw.errors import InputError
from lipfw.image.classes import Labelled, from_arrays
from lipfw.image.dataset import MAX_BYTES

TESTS = ("test", "val")


def read(path: Path) -> Labelled:
    """Return the data set of train_images, train_labels, and test_images and test_labels, or val_ ones.

    Images are uint8 of shape (N, S, S, 3), or grey; labels whole numbers from 0 on; `class_names`, if there, text.
    Other arrays are not looked at. Raises InputError for what is missing, damaged or of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
            test = next((t for t in TESTS if f"{t}_images" in members), "test")
            names = ["train_images", "train_labels", f"{test}_images", f"{test}_labels"]
            if missing := [n for n in names if n not in members]:
                raise InputError(f"{path} has no {missing[0]}; it must hold train_images, train_labels, and "
                                 "test_images and test_labels, or val_images and val_labels")
            arrays = [_array(archive, members[n], f"{n} of {path}") for n in names]
            classes = _array(archive, members["class_names"], f"class_names of {path}") if "class_names" in members \
                else None
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError, RuntimeError,
            OSError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{path} is no .npz file, or a damaged one ({reason}); save it again by numpy.savez") from None
    if classes is not None and (classes.dtype.kind != "U" or classes.ndim != 1):
        raise InputError(f"class_names of {path} must be text, a name each, got {classes.dtype} of shape "
                         f"{classes.shape}")
    return from_arrays(path.stem, *arrays, None if classes is None else classes.tolist())


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> np.ndarray:
    """Return an array: its header says how large it is, and the zip must say the same before memory is taken."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise InputError(f"{what} is of a format of .npy that is not read, {version}; save it again by numpy.savez")
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            raise InputError(f"{what} holds pickled Python objects, which are never read; save numbers, or text of "
                             "dtype str")
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_BYTES:
            raise InputError(f"{what} takes {size / 2 ** 30:,.0f} GiB, more than the limit of {MAX_BYTES >> 30} GiB")
        if size != member.file_size - file.tell():
            raise ValueError(f"{what} has not the bytes of its shape")
        return np.frombuffer(file.read(size), dtype).reshape(shape, order="F" if fortran else "C")
