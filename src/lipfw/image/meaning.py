"""What the numbers of a picture's file mean: the colours that they stand for, and how large they are printed."""
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK

ORIENTATION = 274  # the EXIF tag
_INCH = 0.0254  # metres
_SPACES = {b"GRAY": 1, b"RGB ": 3}  # what bytes 16 to 19 of an ICC profile say -> channels


class Meaning(NamedTuple):
    """An ICC profile, and the pixels per inch along the width and the height; None: the file says nothing of them."""

    profile: bytes | None = None
    dpi: tuple[float, float] | None = None

    def scaled(self, width: float, height: float) -> "Meaning":
        """Return the meaning of the picture at so many times its pixels, which is printed as large as before."""
        return self if self.dpi is None else self._replace(dpi=(self.dpi[0] * width, self.dpi[1] * height))

    def chunks(self, channels: int) -> bytes:
        """Return what a PNG file of 1 or 3 channels says of it before its pixels; a profile of other colours not."""
        out = b""
        if self.profile is not None and _SPACES.get(self.profile[16:20]) == channels:
            out += _chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(self.profile))
        if self.dpi is not None:
            metre = [round(d / _INCH) for d in self.dpi]
            if all(0 < m < 2 ** 31 for m in metre):
                out += _chunk(b"pHYs", struct.pack(">IIB", *metre, 1))
        return out


def of_image(image: Image.Image) -> Meaning:
    """Return what an opened file says; `image` still lies as in the file."""
    profile, dpi = image.info.get("icc_profile"), image.info.get("dpi")
    try:
        x, y = map(float, dpi)
        dpi = (x, y) if 0 < x < 1e6 and 0 < y < 1e6 else None     # some files have 0, and NaN is no size
        if dpi and x != y and image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8):  # asked last: it may decode a PNG
            dpi = dpi[::-1]
    except (TypeError, ValueError, ZeroDivisionError):
        dpi = None
    # Pillow opens no PNG with a larger one
    known = isinstance(profile, bytes) and 128 <= len(profile) <= MAX_TEXT_CHUNK
    return Meaning(profile if known else None, dpi)


def of_file(path: Path) -> Meaning:
    """Return what a picture's file, which can be read, says; nothing for those that Pillow does not open."""
    try:
        with Image.open(path) as image:
            return of_image(image)
    except Image.UnidentifiedImageError:
        return Meaning()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
