"""Many pictures of one size, to train a network on: decoded once and kept in memory as bytes."""
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lipfw.errors import InputError, choice, whole
from lipfw.image import box as boxes
from lipfw.image.archive import opened
from lipfw.image.picture import DECODED_FOR_RESIZE
from lipfw.image.read import decode

LEAST, MOST = 8, 1024
MAX_BYTES = 16 << 30        # of the pixels in memory
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)        # the luma of JPEG, Pillow's grey


@dataclass(frozen=True, eq=False)       # tensors have no single truth value to compare by
class Dataset:
    """Pictures to train on: `pixels` is (N, C, S, S) uint8, contiguous, C = 1 or 3, S a power of two of at least 8.

    Raises InputError for other tensors.
    """

    name: str
    pixels: Tensor

    def __post_init__(self):
        x = self.pixels
        side = x.shape[-1] if x.ndim == 4 else 0
        if (x.dtype != torch.uint8 or x.ndim != 4 or not len(x) or x.shape[1] not in (1, 3) or x.shape[2] != side
                or not _power_of_two(side) or not x.is_contiguous()):
            raise InputError(f"pixels of {self.name} must be uint8 of shape (N, 1 or 3, S, S), contiguous, S a power "
                             f"of two of at least {LEAST}, got {x.dtype} of shape {tuple(x.shape)}")

    def __len__(self) -> int:
        return len(self.pixels)


def load(path, part: str | None = None, *, size: int = 32, box: Sequence[int] | None = None,
         channels: int = 3) -> Dataset:
    """Return the pictures of a folder or a zip, subfolders too, sorted by name; `part` names one of its folders.

    Of each, the square `box` [left, top, width, height] is used, or without one the centre square of pictures that
    all have one size; it is resized to size x size pixels by Lanczos, and copied if it has that size. Grey pictures
    become three equal channels, or (channels=1) colours grey; transparency is ignored. Raises InputError.
    """
    check_options(size, channels)
    box = boxes.checked(box)
    if box is not None and box[2] != box[3]:
        raise InputError(f"image.box={list(box)} must be a square, got {box[2]}x{box[3]} pixels; a data set's pictures "
                         "are square")
    with opened(path, part) as files:
        if len(files) * channels * size * size > MAX_BYTES:
            raise InputError(f"{path}: {len(files):,} pictures of image.size={size} take more than the limit of "
                             f"{MAX_BYTES >> 30} GiB; lower image.size")
        pixels = np.empty((len(files), channels, size, size), np.uint8)
        first = None
        for i, (name, open_file) in enumerate(files.items()):
            what = f"{path}: {name}"
            array = decode(what, open_file, DECODED_FOR_RESIZE, "shrink or remove the picture")
            height, width = array.shape[:2]
            if box is not None:
                boxes.check_inside(box, what, width, height)
            first = first or (name, width, height)
            if box is None and (width, height) != first[1:]:
                raise InputError(f"{path} holds pictures of mixed sizes: {first[0]} has {first[1]}x{first[2]} pixels, "
                                 f"{name} {width}x{height}; name the square that is used of each by image.box, or "
                                 "resize them to one size")
            pixels[i] = fitted(array, box or centre_square(width, height), size, channels)
    return Dataset(Path(os.path.abspath(os.path.expanduser(str(path)))).stem, torch.from_numpy(pixels))


def check_options(size: int, channels: int) -> None:
    """Raise InputError unless the options are those of pictures that networks are trained on."""
    if isinstance(size, bool) or not isinstance(size, int) or size > MOST or not _power_of_two(size):
        raise InputError(f"image.size must be a power of two from {LEAST} to {MOST}, got {size!r}")
    whole("image.channels", channels, least=1)
    choice("image.channels", channels, (1, 3))


def fitted(array: np.ndarray, box: tuple[int, int, int, int], size: int, channels: int) -> np.ndarray:
    """Return (C, size, size) uint8 of the box of a picture as `decode` gives it."""
    left, top, width, height = box
    part = array[top:top + height, left:left + width, :3 if array.shape[2] > 2 else 1]      # without alpha
    if part.dtype != np.uint8:
        high = np.iinfo(part.dtype).max if part.dtype.kind == "u" else 1
        part = np.rint(part * np.float32(255 / high)).astype(np.uint8)
    if part.shape[2] > channels:
        part = np.rint(part @ GREY).astype(np.uint8)[..., None]
    if part.shape[:2] != (size, size):
        image = Image.fromarray(part[..., 0] if part.shape[2] == 1 else np.ascontiguousarray(part))
        part = np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)).reshape(size, size, -1)
    return np.broadcast_to(part.transpose(2, 0, 1), (channels, size, size))


def centre_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the box of the largest square in the middle of a picture."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def _power_of_two(side: int) -> bool:
    return side >= LEAST and side & (side - 1) == 0
