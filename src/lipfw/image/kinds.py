"""Pictures as Python programs have them, arrays, tensors, PIL images and files; and results of the same kind."""
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lipfw.errors import InputError
from lipfw.image.meaning import of_image
from lipfw.image.picture import Picture, from_array
from lipfw.image.read import COLOUR, GREY, read

Back = Callable[[Tensor, Tensor | None], object]      # pixels (1, C, H, W) in [0, 1], alpha (1, 1, H, W) -> the kind
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")      # PIL's greys of 16 bits; older versions read them as 32
_LIKE = ("must be a path, a PIL image, an array (H, W) or (H, W, 3), or a tensor (3, H, W) or (1, 3, H, W), of uint8, "
         "uint16 or floats in [0, 1]")


def given(picture, name: str = "picture", option: str = "picture") -> tuple[Picture, Back]:
    """Return a picture of any kind, and what turns a result (its size may be another) into the same kind.

    - A path: files as `read` reads them; back comes an array (H, W) or (H, W, C) of the file's depth.
    - An array (H, W), (H, W, C) or (C, H, W), or a tensor, of which (C, H, W) is tried first; either may have a leading
      axis of 1. C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha; uint8, uint16 or floats in [0, 1]. Back comes the
      same layout, type and device.
    - A PIL image: turned as its EXIF says. Back comes one of the same mode; palettes come back as RGB, bits as L, and
      what else is not RGB (CMYK, YCbCr, ...) as RGB.

    A transparency is not restored and comes back as it was. Raises InputError for what is no picture.
    """
    if isinstance(picture, (str, Path)):
        found = read(picture, option=option)
        return found, lambda x, alpha: _array(x, alpha, np.uint8 if found.bits == 8 else np.uint16, "hw" if
                                              x.shape[1] == 1 and alpha is None else "hwc")
    if isinstance(picture, Image.Image):
        return _of_pil(picture, name)
    if isinstance(picture, Tensor):
        return _of_tensor(picture, name)
    return _of_array(picture, name)


def given_mask(mask) -> Picture:
    """Return a mask of any kind that a picture has, or of booleans, as a picture: True is white."""
    if not isinstance(mask, (str, Path, Image.Image, Tensor)):
        mask = _asarray(mask)
    if getattr(mask, "dtype", None) in (np.dtype(bool), torch.bool):
        mask = mask * np.uint8(255) if isinstance(mask, np.ndarray) else mask.to(torch.uint8) * 255
    return given(mask, "mask")[0]


def _asarray(values) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):     # lists of different lengths, for one
        array = np.asarray(None)
    return array if array.dtype.kind != "u" else array.astype(array.dtype.newbyteorder("="), copy=False)


def _of_array(picture, name: str) -> tuple[Picture, Back]:
    array = _asarray(picture)
    layout = _layout(array.shape, "hwc", "chw") if array.dtype != object else None
    deep = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    if layout is None or not (deep or array.dtype in (np.uint8, np.uint16)):
        raise InputError(f"{name}= {_LIKE}, got {_told(picture, array.shape, array.dtype)}")
    _check_range(array)
    dtype = getattr(picture, "dtype", array.dtype)
    return from_array(name, _to_hwc(array, layout)), lambda x, alpha: _array(x, alpha, dtype, layout)


def _of_tensor(tensor: Tensor, name: str) -> tuple[Picture, Back]:
    if tensor.is_nested or tensor.is_meta or tensor.layout != torch.strided:
        raise InputError(f"{name}= must be a dense tensor with values, got a {_odd(tensor)} one; use .to_dense(), or "
                         "give the values themselves")
    layout = _layout(tuple(tensor.shape), "chw", "hwc")
    if layout is None or not (tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.uint16)):
        raise InputError(f"{name}= {_LIKE}, got {_told(tensor, tuple(tensor.shape), tensor.dtype)}")
    values = tensor.detach().cpu()
    array = (values.double() if values.is_floating_point() else values).numpy()     # numpy has no bfloat16
    _check_range(array)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)

    def back(x: Tensor, alpha: Tensor | None) -> Tensor:
        kind = {torch.uint8: np.uint8, torch.uint16: np.uint16}.get(tensor.dtype, np.float32)
        return torch.from_numpy(_array(x, alpha, kind, layout)).to(tensor.device, tensor.dtype)

    return from_array(name, _to_hwc(array, layout)), back


def _of_pil(image: Image.Image, name: str) -> tuple[Picture, Back]:
    try:
        meaning, image = of_image(image), ImageOps.exif_transpose(image)
    except Exception as e:      # it is decoded here at the latest, and decoders raise anything
        raise InputError(f"the PIL image can't be decoded ({e}); open it again from a whole file") from None
    mode = image.mode
    if mode in _DEEP:
        array = np.asarray(image).astype(np.int64)
        if array.min() < 0 or array.max() > 65535:
            raise InputError(f"a PIL image of mode {mode} must lie in [0, 65535], got values from {array.min()} to "
                             f"{array.max()}")
        picture, kind = from_array(name, array.astype(np.uint16)), np.uint16
    elif mode == "F":
        array, kind = np.asarray(image), np.float32
        _check_range(array)
        picture = from_array(name, array)
    elif mode in GREY + COLOUR + ("LAB", "HSV"):
        mode = ("L" if mode in GREY else "RGB") + ("A" if image.has_transparency_data else "")
        picture, kind = from_array(name, np.asarray(image.convert(mode))), np.uint8
    else:
        raise InputError(f"PIL images of mode {mode} are not supported; use image.convert('RGB')")

    def back(x: Tensor, alpha: Tensor | None) -> Image.Image:
        array = _array(x, alpha, kind, "hw" if x.shape[1] == 1 and alpha is None else "hwc")
        made = Image.fromarray(array.astype(np.int32) if mode == "I" else array)
        made = made if made.mode == mode or mode in _DEEP else made.convert(mode)
        if mode == image.mode and "icc_profile" in image.info:      # the colours mean what they meant
            made.info["icc_profile"] = image.info["icc_profile"]
        return made

    return replace(picture, meaning=meaning), back


def _layout(shape: tuple[int, ...], *orders: str) -> str | None:
    """Return hw, hwc or chw, with a 1 before it for a leading axis; None for what is no picture."""
    if not all(shape):
        return None
    if len(shape) == 2:
        return "hw"
    batch, rest = ("1", shape[1:]) if len(shape) == 4 and shape[0] == 1 else ("", shape)
    if len(rest) == 3:
        for order in orders:
            if rest[order.index("c")] in (1, 2, 3, 4):
                return batch + order
    return None


def _to_hwc(array: np.ndarray, layout: str) -> np.ndarray:
    array = array[0] if layout[0] == "1" else array
    return array.transpose(1, 2, 0) if layout.endswith("chw") else array


def _array(x: Tensor, alpha: Tensor | None, dtype, layout: str) -> np.ndarray:
    """Return pixels and alpha as an array of a type and layout."""
    x = x.detach().cpu().float() if alpha is None else torch.cat([x.detach().cpu().float(), alpha.cpu().float()], 1)
    array = x.clamp(0, 1)[0].permute(1, 2, 0).numpy()
    if np.dtype(dtype).kind == "u":
        array = np.rint(array.astype(np.float64) * np.iinfo(dtype).max)
    array = array[..., 0] if layout == "hw" else array.transpose(2, 0, 1) if layout.endswith("chw") else array
    return np.ascontiguousarray(array[None] if layout[0] == "1" else array, dtype=dtype)


def _check_range(array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("a picture of floats must be finite, got some that are infinite or no numbers; replace them "
                         "(by 0 where a mask hides them)")
    if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
        raise InputError(f"a picture of floats must lie in [0, 1], got values from {array.min():g} to {array.max():g}; "
                         "divide it by its largest possible value")


def _odd(tensor: Tensor) -> str:
    return "nested" if tensor.is_nested else "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")


def _told(value, shape: tuple[int, ...], dtype) -> str:
    if isinstance(value, (np.ndarray, Tensor)):
        return f"{shape} of {dtype}"
    return f"{type(value).__name__} {value!r}"[:80]
