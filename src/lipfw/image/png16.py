"""PNG files of 16 bits a channel, which Pillow cuts to 8 bits without a word (all but plain grey ones)."""
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

MODES = {1: "mono", 3: "rgb", 4: "rgba"}  # what kornia_rs calls them
COLOUR_TYPE_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def header(data: bytes) -> tuple[int, int]:
    """Return (bit depth, colour type) of a PNG file that starts with `data`; 26 bytes are enough."""
    return data[24], data[25]


def decode(data: bytes, transparency=None) -> np.ndarray:
    """Return the (H, W, C) uint16 of a 16-bit PNG file, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.

    `transparency` is the one colour (a number or three) that the file declares transparent; it becomes an alpha.
    Raises what the decoders raise if the file is damaged.
    """
    width, height = struct.unpack(">II", data[16:24])
    channels = COLOUR_TYPE_CHANNELS[header(data)[1]]
    if channels == 2:
        # kornia_rs has no grey + alpha. Its 4 bytes a pixel are laid out, filtered and interlaced like 8-bit RGBA
        rgba = np.asarray(Image.open(io.BytesIO(_relabel(data, depth=8, colour_type=6))))
        return np.ascontiguousarray(rgba).view(">u2").astype(np.uint16)
    from kornia_rs import io as kornia_io

    array = np.asarray(kornia_io.decode_image_png_u16(data, (height, width), MODES[channels]))
    if transparency is not None and channels != 4:
        shown = (array != np.asarray(transparency, np.uint16)).any(axis=2, keepdims=True)
        array = np.concatenate([array, shown.astype(np.uint16) * 65535], axis=2)
    return array


def write(path: Path, array: np.ndarray) -> None:
    """Write (H, W, C) uint16 with 1 to 4 channels (as in `decode`) to `path` as a PNG file."""
    if array.shape[2] == 2:  # the same trick backwards
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(array.astype(">u2")).view(np.uint8)).save(out, "PNG")
        path.write_bytes(_relabel(out.getvalue(), depth=16, colour_type=4))
        return
    from kornia_rs import io as kornia_io

    kornia_io.write_image_png_u16(str(path), np.ascontiguousarray(array), MODES[array.shape[2]])


def insert(path: Path, chunks: bytes) -> None:
    """Put chunks into a PNG file, before all but the header."""
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunks + data[33:])


def _relabel(data: bytes, depth: int, colour_type: int) -> bytes:
    """Change depth and colour type in the IHDR chunk (bytes 12 to 28, then their CRC), nothing else."""
    ihdr = data[12:24] + bytes([depth, colour_type]) + data[26:29]
    return data[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + data[33:]
