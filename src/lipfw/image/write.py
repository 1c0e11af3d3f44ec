"""Write pictures as PNG: a result at the depth of its source, and a sheet of pictures side by side."""
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lipfw.errors import choice
from lipfw.files import write_atomic
from lipfw.image import png16
from lipfw.image.meaning import Meaning

FONT_SIZE = 16
GAP = 12  # pixels between and around the panels of a sheet
PANEL = 256  # pixels: the height of a panel


def write_png(path, pixels: Tensor, alpha: Tensor | None = None, bits: int = 8, meaning: Meaning | None = None) -> None:
    """Write (1, C, H, W), C = 1 or 3, with an optional alpha (1, 1, H, W) as a PNG of 8 or 16 bits a channel.

    Values are clipped to [0, 1] and rounded to the nearest level, so reading the file back gives the same levels.
    `meaning` is what the file says of its colours and its size in print. The file is complete or not there. Raises
    ValueError for NaN and for other shapes.
    """
    choice("bits", bits, (8, 16))
    if pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"a picture to write must have shape (1, 1 or 3, H, W), got {tuple(pixels.shape)}")
    array = _levels(pixels if alpha is None else torch.cat([pixels, alpha.to(pixels)], dim=1), bits)
    chunks = b"" if meaning is None else meaning.chunks(pixels.shape[1])

    def write(part: Path) -> None:
        if bits == 16:
            png16.write(part, array)
        else:
            Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(part, "PNG")
        if chunks:
            png16.insert(part, chunks)

    write_atomic(Path(path), write)


def sheet(panels: list[tuple[str, Tensor]], path, height: int = PANEL) -> None:
    """Write one PNG with the pictures (1, C, H, W) side by side on white, each with its caption below.

    Pictures higher than `height` are shrunk to it (Lanczos); smaller ones are enlarged by a whole factor without
    smoothing, so that single pixels can be seen. A caption may have several lines.
    """
    font = ImageFont.load_default(FONT_SIZE)
    pictures = [_to_height(pixels, height) for _, pixels in panels]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    captions = [measure.multiline_textbbox((0, 0), caption or " ", font=font) for caption, _ in panels]
    widths = [max(p.width, int(np.ceil(box[2]))) for p, box in zip(pictures, captions, strict=True)]
    row = max(p.height for p in pictures)
    below = max(int(np.ceil(box[3])) for box in captions)
    canvas = Image.new("RGB", (sum(widths) + GAP * (len(panels) + 1), row + below + 3 * GAP), "white")
    draw = ImageDraw.Draw(canvas)
    left = GAP
    for (caption, _), picture, width in zip(panels, pictures, widths, strict=True):
        canvas.paste(picture, (left, GAP + (row - picture.height) // 2))
        draw.multiline_text((left, row + 2 * GAP), caption, fill="black", font=font)
        left += width + GAP
    write_atomic(Path(path), lambda p: canvas.save(p, "PNG"))


def _levels(x: Tensor, bits: int) -> np.ndarray:
    """Return (H, W, C) uint8 or uint16 of (1, C, H, W) in [0, 1]."""
    if torch.isnan(x).any():
        raise ValueError("a picture to write has NaN pixels; did the fit diverge?")
    top = 2 ** bits - 1
    levels = (x.detach().cpu().float().clamp(0, 1) * top).round()[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(levels.astype(np.uint8 if bits == 8 else np.uint16))


def _to_height(pixels: Tensor, height: int) -> Image.Image:
    """Return the panel of one picture, at most `height` pixels high."""
    array = _levels(pixels, bits=8)
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).convert("RGB")
    if image.height > height:
        return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)
    factor = height // image.height
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
