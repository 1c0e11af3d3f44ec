"""TIFF files that Pillow refuses or would cut to 8 bits: 16-bit and floating-point ones, by tifffile."""
import io
import logging
import math
import zlib

import numpy as np

from lipfw.errors import InputError
from lipfw.image.picture import check_pixels

MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2  # the TIFF tag PhotometricInterpretation
UNASSOCIATED_ALPHA = 2
DEFLATE = (8, 32946)
COMPRESSIONS = (1, 5, 32773, *DEFLATE)  # none, LZW, PackBits: others may unpack a small file to any size
ORIENTATION = 274


def is_tiff(start: bytes) -> bool:
    """Whether a file that starts so is a TIFF or BigTIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode(path, data: bytes, max_pixels: int, remedy: str | None = None) -> tuple[np.ndarray, int]:
    """Return the first page, (H, W, C) of uint8, uint16 or float32 in [0, 1], and its EXIF orientation.

    Raises InputError for what is no grey or RGB picture with or without alpha, and what tifffile raises for damage.
    """
    try:
        import tifffile
    except ImportError:
        raise InputError(f"{path}: a TIFF of this kind (16 bits or floats) needs tifffile; "
                         "pip install 'lipfw[data]', or save it as a 16-bit PNG") from None
    logging.getLogger("tifffile").addFilter(_silent)  # it logs what it also raises
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            check_pixels(path, page.imagewidth, page.imagelength, max_pixels, remedy)
            kind = f"{page.dtype} with {page.samplesperpixel} channels, photometric {int(page.photometric)}"
            if not _supported(page):
                raise InputError(f"{path}: this kind of TIFF ({kind}) is not supported; save it as an 8- or 16-bit PNG")
            if page.is_tiled:
                check_pixels(path, page.tilewidth, page.tilelength, max_pixels, remedy)
            if int(page.compression) in DEFLATE:
                _check_inflated(page, data)
            array = page.asarray()
            tag = page.tags.get(ORIENTATION)
    finally:
        logging.getLogger("tifffile").removeFilter(_silent)
    if array.ndim == 2:
        array = array[..., None]
    elif int(page.planarconfig) == 2:  # the channels lie one after the other
        array = np.moveaxis(array, 0, 2)
    if array.size == 0 or array.shape != (page.imagelength, page.imagewidth, page.samplesperpixel):
        raise ValueError("its tags contradict each other")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also true of NaN
            raise InputError(f"{path}: floating-point pixels must lie in [0, 1], got {array.min():g} to {array.max():g}"
                             "; divide them by their largest value")
        array = array.astype(np.float32)
    elif int(page.photometric) == MIN_IS_WHITE:
        array = np.concatenate([np.iinfo(array.dtype).max - array[..., :1], array[..., 1:]], axis=2)
    return np.ascontiguousarray(array), int(tag.value) if tag else 1


def _check_inflated(page, data: bytes) -> None:
    """Raise ValueError if a strip or tile unpacks to more than its pixels: tifffile would unpack it whole."""
    most = math.prod(page.chunks) * page.dtype.itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        unpacker, rest, size = zlib.decompressobj(), data[offset:offset + count], 0
        while rest and size <= most:
            size += len(unpacker.decompress(rest, 1 << 20))
            rest = unpacker.unconsumed_tail
        if size > most:
            raise ValueError("it unpacks to more than its pixels")


def _supported(page) -> bool:
    colours = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3}.get(int(page.photometric))
    extra = tuple(int(e) for e in page.extrasamples)
    return (colours is not None and extra in ((), (UNASSOCIATED_ALPHA,)) and page.imagedepth == 1
            and page.samplesperpixel == colours + len(extra) and int(page.compression) in COMPRESSIONS
            and page.dtype in ("uint8", "uint16", "float16", "float32", "float64")
            and not (page.dtype.kind == "f" and int(page.photometric) == MIN_IS_WHITE))


def _silent(record) -> bool:
    return False
