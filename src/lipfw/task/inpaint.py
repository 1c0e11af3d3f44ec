"""Inpainting: some pixels are missing."""
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from lipfw.errors import InputError, number, whole
from lipfw.image.picture import Picture
from lipfw.image.read import read
from lipfw.problem import Problem
from lipfw.streams import stream
from lipfw.task.operators import Hide

TEXT = "text"
_WORDS = "the quick brown fox jumps over the lazy dog and is seen no more "
_BLOCK = 128        # pixels of a picture's shorter side for each of a letter's


class Inpaint:
    """Hide pixels at random (each with probability `missing`), or where the picture `mask` is darker than half.

    `mask` is the path of a picture, or the `Picture` itself; or the word "text": lines of text are written over the
    picture, whatever its size is, as papers do it.
    `per_channel` draws the random mask for each colour channel on its own, as the published code does. A picture that
    is degraded already needs `mask`. Raises InputError for a mask of another size or one that hides everything.
    """

    def __init__(self, missing: float = 0.5, per_channel: bool = False, mask: str | Picture | None = None,
                 seed: int = 0):
        self.missing = number("task.missing", missing, 0, 1, open_high=True, hint="it is the fraction that is hidden")
        self.per_channel, self.mask = per_channel, mask
        self.seed = whole("task.seed", seed, least=0)

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture; the loss is taken on the known pixels, with zeros for the rest."""
        x = picture.pixels
        if self.mask == TEXT and not picture.degraded:
            known = text(*x.shape[2:])
        else:
            known = self._of_mask(picture) if self.mask else self._random(picture)
        if not known.any():
            remedy = "white (255, 1.0 or True) marks the known pixels" if self.mask else "lower task.missing"
            raise InputError(f"{self._told() if self.mask else 'the random mask'} hides the whole picture; {remedy}")
        operator = Hide(known.float())
        return Problem(picture.name, tuple(x.shape[1:]), operator, operator(x), None if picture.degraded else x)

    def _random(self, picture: Picture) -> torch.Tensor:
        if picture.degraded:
            raise InputError("task=inpaint with image.degraded=true needs task.mask=PATH: a grey picture, white where "
                             "a pixel is known and black where it is missing")
        _, c, h, w = picture.pixels.shape
        draw = torch.rand(1, c if self.per_channel else 1, h, w, generator=stream(self.seed, f"mask {picture.name}"))
        return draw >= self.missing

    def _told(self) -> str:
        return "the mask" if isinstance(self.mask, Picture) else str(self.mask)

    def _of_mask(self, picture: Picture) -> torch.Tensor:
        mask = self.mask if isinstance(self.mask, Picture) else read(self.mask, option="task.mask")
        have, want = tuple(mask.pixels.shape[2:]), tuple(picture.pixels.shape[2:])
        if have != want:
            name, hint = (self._told(), "") if self.mask is mask else (
                f"task.mask={self.mask}", " (image.size and image.fit_size=crop change the picture, not the mask)")
            raise InputError(f"{name} is {have[1]}x{have[0]} pixels, the picture {want[1]}x{want[0]}; give a mask of "
                             f"the picture's size{hint}")
        return mask.pixels.mean(1, keepdim=True) >= 0.5


def text(height: int, width: int) -> torch.Tensor:
    """Return a mask (1, 1, height, width), False where lines of text lie on a picture: about an eighth of it."""
    font = ImageFont.load_default_imagefont()       # of fixed pixels: the same letters with every version
    scale = max(1, min(height, width) // _BLOCK)
    left, top, right, bottom = font.getbbox(_WORDS)
    rows, columns = -(-height // scale), -(-width // scale)
    sheet = Image.new("1", (columns, rows), 1)
    draw, line = ImageDraw.Draw(sheet), _WORDS * (2 + columns // (right - left))
    for nth, y in enumerate(range(1, rows, 2 * (bottom - top))):
        draw.text((1, y), line[11 * nth % len(_WORDS):], fill=0, font=font)
    known = torch.from_numpy(np.array(sheet))
    return known.repeat_interleave(scale, 0).repeat_interleave(scale, 1)[None, None, :height, :width]
