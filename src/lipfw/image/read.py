"""Read one picture file of the user's, exactly or not at all: what cannot be read right is refused by name."""
import os
import stat
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from lipfw.errors import InputError
from lipfw.image import png16, tiff
from lipfw.image.meaning import ORIENTATION, of_file
from lipfw.image.picture import MAX_PIXELS, Picture, check_pixels, from_array

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF")  # MPO: a JPEG with a second view, from phones
READABLE = "PNG, JPEG, WebP, BMP, GIF and TIFF are read"
GREY, COLOUR = ("1", "L", "LA", "La"), ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr")
LARGEST_PIXEL = 32  # bytes: four channels of float64
OTHER = 1 << 26  # bytes that a file may hold besides: profiles, previews, further pages


def read(path, max_pixels: int = MAX_PIXELS, option: str = "image.path") -> Picture:
    """Return the picture in a file; its name is the file's name without the ending.

    Grey stays grey, palettes become RGB, CMYK and YCbCr are converted to RGB without colour profiles, an alpha or a
    transparent colour becomes `alpha`, EXIF orientation is applied, of several frames the first is taken. 16-bit PNG
    and TIFF keep their 16 bits; floats in [0, 1] count as 16 bits. A profile and a resolution are kept. Raises
    InputError with path, cause and remedy; `option` is the option that names the path.
    """
    path = Path(os.path.expanduser(str(path)))  # not Path.expanduser, which fails for a file named ~x.png
    _check_file(path, option)
    picture = from_array(path.stem, decode(path, partial(open, path, "rb"), max_pixels))
    with _strict_pillow():
        return replace(picture, meaning=of_file(path))


def decode(what, opened: Callable[[], BinaryIO], max_pixels: int = MAX_PIXELS, remedy: str | None = None) -> np.ndarray:
    """Return the picture that a file holds: (H, W, C) of uint8, uint16 or float32, as `from_array` takes it.

    `opened` opens it; `what` names it in the errors, and `remedy` what helps if it has more than `max_pixels` pixels.
    """
    try:
        with _strict_pillow(), opened() as file:
            array = _orient(*_decode(what, file, max_pixels, remedy))
            return array[..., None] if array.ndim == 2 else array
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{what} is no picture, or its first bytes are damaged; {READABLE}") from None
    except MemoryError:
        raise InputError(f"{what}: not enough memory to decode it; lower image.max_pixels or shrink the file") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, bare Exception ...
        raise InputError(f"{what} is damaged or cut off ({_line(error)}); copy or export it again") from None


def _check_file(path: Path, option: str) -> None:
    """Raise InputError unless a regular file is there, may be read and is not empty."""
    try:
        mode = path.stat().st_mode  # asked first: opening a pipe would wait for ever
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder, not a picture; use image=folder image.path={path}")
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a regular file; give the path of a picture")
        with open(path, "rb") as file:
            empty = not file.read(1)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist; {option} is relative to the folder the command runs in "
                         f"({Path.cwd()})") from None
    except PermissionError:
        raise InputError(f"{path} may not be read (permission denied); make it readable, e.g. chmod u+r") from None
    except (OSError, ValueError) as error:  # too long a name, a NUL in it, a broken disk
        raise InputError(f"{path} cannot be opened ({_line(error)}); give the path of a picture") from None
    if empty:
        raise InputError(f"{path} is empty (0 bytes); copy or export it again")


def _decode(what, file: BinaryIO, max_pixels: int, remedy: str | None) -> tuple[np.ndarray, int]:
    """Return (H, W, C) of uint8, uint16 or float32 and the EXIF orientation; the size is checked before decoding."""
    def everything() -> bytes:
        most = LARGEST_PIXEL * max_pixels + OTHER
        if file.seek(0, os.SEEK_END) > most:
            raise InputError(f"{what} has {file.tell() >> 20:,} MiB, more than a picture of the limit of {max_pixels} "
                             f"pixels; {remedy or 'save it as one PNG, or raise image.max_pixels'}")
        file.seek(0)
        return file.read()

    start = file.read(32)
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        if tiff.is_tiff(start):  # floats, for example
            return tiff.decode(what, everything(), max_pixels, remedy)
        raise
    if image.format not in FORMATS:
        raise InputError(f"{what}: {image.format} is not supported; {READABLE}, save it as PNG")
    check_pixels(what, *image.size, max_pixels, remedy)
    if image.format == "TIFF" and _beyond_pillow(image):
        return tiff.decode(what, everything(), max_pixels, remedy)
    if image.format == "PNG":
        image.verify()  # all checksums and the end, which loading does not look at
        image = Image.open(file)
        depth, colour_type = png16.header(start)
        if depth == 16:
            array = png16.decode(everything(), image.info.get("transparency"))
            return array, image.getexif().get(ORIENTATION, 1)
        if colour_type == 0 and depth in (2, 4) and "transparency" in image.info:
            # Pillow spreads the grey levels over 0..255 but not the one that is transparent
            image.info["transparency"] *= 255 // (2 ** depth - 1)
    image.load()
    if image.mode not in GREY + COLOUR:
        raise InputError(f"{what}: pixels of mode {image.mode} are not supported; save it as 8- or 16-bit PNG")
    mode = ("L" if image.mode in GREY else "RGB") + ("A" if image.has_transparency_data else "")
    orientation = image.getexif().get(ORIENTATION, 1)  # Pillow has turned a TIFF by now, and says 1
    return np.asarray(image.convert(mode)), orientation


def _beyond_pillow(image) -> bool:
    """Whether a TIFF holds other than unsigned integers of at most 8 bits."""
    bits, sample_format = image.tag_v2.get(258, (1,)), image.tag_v2.get(339, (1,))
    return max(bits) > 8 or any(f != 1 for f in sample_format)


def _orient(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror (H, W, C) as EXIF orientation 1 to 8 asks; other values are ignored, as viewers do."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


@contextmanager
def _strict_pillow():
    """Make Pillow leave the size to `check_pixels`, raise on truncated files, and warn of nothing."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Corrupt EXIF data", before the error that we report
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def _line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
