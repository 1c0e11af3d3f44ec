"""A picture as the rest of the package sees it, and the last step that every source of pictures shares."""
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lipfw.errors import InputError, choice, whole
from lipfw.image import box as boxes
from lipfw.image.meaning import Meaning

MAX_PIXELS = 16_777_216
DECODED_FOR_RESIZE = 100_000_000  # pixels of a file that `size` may still shrink: decoding takes about 1.2 GB
STRIDE = 32  # five down-samplings by 2, as in the hourglass of the deep image prior


@dataclass(frozen=True, eq=False)  # tensors have no single truth value to compare by
class Picture:
    """One picture with what is needed to save a result beside it.

    `pixels` is (1, C, H, W) float32 in [0, 1] with C = 1 or 3; `alpha`, if the file has one, (1, 1, H, W) in [0, 1].
    `bits` (8 or 16) is the depth a result is saved in, and `meaning` what its file then says of the colours and the
    size in print. `degraded` pictures are measurements: no clean one is known.
    Raises InputError if the parts do not fit together.
    """

    name: str
    pixels: Tensor
    alpha: Tensor | None = None
    bits: int = 8
    degraded: bool = False
    meaning: Meaning = Meaning()

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a picture's name must be a text that is not empty, got {self.name!r}")
        _check_values(f"pixels of {self.name}", self.pixels, channels=(1, 3))
        if self.alpha is not None:
            _check_values(f"alpha of {self.name}", self.alpha, channels=(1,))
            if self.alpha.shape[2:] != self.pixels.shape[2:]:
                raise InputError(f"alpha of {self.name} must have the size of its pixels {tuple(self.pixels.shape)}, "
                                 f"got {tuple(self.alpha.shape)}")
        choice(f"bits of {self.name}", self.bits, (8, 16))
        _check_flag(f"degraded of {self.name}", self.degraded)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.pixels.shape[2:])


def from_array(name: str, array: np.ndarray) -> Picture:
    """Return the picture in `array`: (H, W) or (H, W, C), C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.

    uint8 and uint16 are divided by their largest value; floats must lie in [0, 1] and count as 16 bits.
    """
    array = array[..., None] if array.ndim == 2 else array
    top = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    values = torch.from_numpy(np.divide(array, np.float32(top), dtype=np.float32)).permute(2, 0, 1)[None].contiguous()
    colours = values.shape[1] - 1 + values.shape[1] % 2
    alpha = values[:, colours:] if values.shape[1] > colours else None
    return Picture(name, values[:, :colours].contiguous(), alpha, bits=8 if array.dtype == np.uint8 else 16)


def decode_limit(size, max_pixels) -> int:
    """Return how many pixels a file may have to be decoded: more than are fitted if `size` will shrink them."""
    _check_size(size)
    whole("image.max_pixels", max_pixels, least=1)
    return max_pixels if size is None else max(max_pixels, DECODED_FOR_RESIZE)


def check_pixels(what, width: int, height: int, limit: int, remedy: str | None = None) -> None:
    """Raise InputError if width x height is more than `limit` pixels."""
    if width * height > limit:
        remedy = remedy or (f"set image.size= (it shrinks files of up to {DECODED_FOR_RESIZE} pixels) or "
                            f"image.max_pixels={width * height}")
        raise InputError(f"{what}: {width}x{height} pixels are more than the limit of {limit}; {remedy}")


def finish(pictures: list[Picture], *, size: int | None = None, fit_size: str = "pad", degraded: bool = False,
           max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = None) -> list[Picture]:
    """Return the pictures as they are fitted: one number of channels, cut, resized, cropped, marked as degraded or not.

    `box` [left, top, width, height] cuts that part out, then `size` crops the centre square and resizes it to size x
    size pixels. `fit_size` "crop" then crops the centre to
    multiples of 32 pixels, "pad" leaves the size to the fit. Grey pictures among RGB ones become three equal channels,
    so that one network fits all. Raises InputError for values out of range and for more than `max_pixels` pixels.
    """
    _check_size(size)
    choice("image.fit_size", fit_size, ("pad", "crop"))
    _check_flag("image.degraded", degraded)
    whole("image.max_pixels", max_pixels, least=1)
    box = boxes.checked(box)
    channels = max((p.pixels.shape[1] for p in pictures), default=1)
    done = []
    for picture in pictures:
        picture = picture if box is None else _cut(picture, box)
        height, width = picture.size if size is None else (size, size)
        check_pixels(picture.name, width, height, max_pixels)
        if fit_size == "crop" and min(height, width) < STRIDE:
            raise InputError(f"{picture.name}: {width}x{height} pixels are too small for image.fit_size=crop, which "
                             f"needs {STRIDE}x{STRIDE}; use image.fit_size=pad")
        pixels = _shape(picture.pixels, size, fit_size).expand(-1, channels, -1, -1).contiguous()
        alpha = None if picture.alpha is None else _shape(picture.alpha, size, fit_size)
        side = min(picture.size)
        meaning = picture.meaning if size is None else picture.meaning.scaled(size / side, size / side)
        done.append(replace(picture, pixels=pixels, alpha=alpha, degraded=degraded, meaning=meaning))
    return done


def _cut(picture: Picture, box: tuple[int, int, int, int]) -> Picture:
    """Return the part of a picture, and of its alpha, that lies in the box."""
    boxes.check_inside(box, picture.name, *reversed(picture.size))
    left, top, width, height = box
    pixels, alpha = (None if x is None else x[:, :, top:top + height, left:left + width].contiguous()
                     for x in (picture.pixels, picture.alpha))
    return replace(picture, pixels=pixels, alpha=alpha)


def _shape(x: Tensor, size: int | None, fit_size: str) -> Tensor:
    """Resize and crop (1, C, H, W) as `finish` says."""
    if size is not None:
        side = min(x.shape[2:])
        x = _resize(_centre(x, side, side), size)
    if fit_size == "crop":
        x = _centre(x, x.shape[2] // STRIDE * STRIDE, x.shape[3] // STRIDE * STRIDE)
    return x


def _centre(x: Tensor, height: int, width: int) -> Tensor:
    """Crop (B, C, H, W) to the centre; of an odd remainder the larger part goes at the bottom and the right."""
    top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
    return x[:, :, top:top + height, left:left + width].contiguous()


def _resize(x: Tensor, size: int) -> Tensor:
    """Resize (1, C, H, W) to size x size, each channel by itself, exact if it has that size already.

    Pillow's Lanczos on floats: its kernel widens with the scale, so nothing aliases; nothing is rounded to 8 bits; and
    it gives the same pixels on every machine. Its overshoot at edges is clipped.
    """
    if tuple(x.shape[2:]) == (size, size):
        return x
    planes = [Image.fromarray(plane.numpy()).resize((size, size), Image.Resampling.LANCZOS) for plane in x[0]]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]))[None].clamp(0, 1)


def _check_size(size) -> None:
    if size is not None:
        whole("image.size", size, least=8)


def _check_flag(name: str, value) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, got {value!r}")


def _check_values(what: str, x: Tensor, channels: tuple[int, ...]) -> None:
    if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in channels or x.numel() == 0 or x.dtype != torch.float32:
        raise InputError(f"{what} must be float32 of shape (1, {' or '.join(map(str, channels))}, H, W), "
                         f"got {x.dtype} of shape {tuple(x.shape)}")
    low, high = (float(v) for v in torch.aminmax(x))
    if not (low >= 0 and high <= 1):  # also true of NaN
        raise InputError(f"{what} must lie in [0, 1], got values from {low:g} to {high:g}; divide by the largest value")
