"""Super-resolution: the measurement is a smaller picture."""
import numpy as np
import torch
from PIL import Image

from lipfw.errors import InputError, choice, whole
from lipfw.image.picture import MAX_PIXELS, Picture, check_pixels
from lipfw.problem import Problem
from lipfw.task.operators import Downsample


class SuperRes:
    """Measure the picture `factor` times smaller on each side; a degraded picture is the small one itself.

    The fit inverts the Lanczos-2 operator. With `downsample="operator"` the same operator makes the measurement; with
    "pillow" Pillow's Lanczos-3 in 8 bits does, as in the published code, and the two differ slightly. Sides that
    `factor` does not divide are cut by the remainder, evenly. PSNR and SSIM are taken on the luma channel without
    `border` pixels on each side.
    """

    def __init__(self, factor: int = 4, downsample: str = "operator", border: int = 4):
        self.factor = whole("task.factor", factor, least=2)
        self.downsample = choice("task.downsample", downsample, ("operator", "pillow"))
        self.border = whole("task.border", border, least=0)

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture."""
        t, x = self.factor, picture.pixels
        _, c, h, w = x.shape
        if picture.degraded:
            check_pixels(f"the restoration of {picture.name}", w * t, h * t, MAX_PIXELS, "use a smaller task.factor")
            return Problem(picture.name, (c, h * t, w * t), Downsample(t, h * t, w * t), x, luma=True,
                           border=self.border)
        top, left, h, w = h % t // 2, w % t // 2, h - h % t, w - w % t
        if min(h, w) <= max(2 * self.border, t):
            raise InputError(f"the picture of {x.shape[3]}x{x.shape[2]} pixels is too small for task.factor={t} and "
                             f"task.border={self.border}; use a larger picture or smaller values")
        x = x[:, :, top:top + h, left:left + w]
        operator = Downsample(t, h, w)
        y = operator(x) if self.downsample == "operator" else _pillow(x, t)
        return Problem(picture.name, (c, h, w), operator, y, x, luma=True, border=self.border)


def _pillow(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Return x made smaller by Pillow's Lanczos filter, in 8 bits."""
    _, _, h, w = x.shape
    planes = [Image.fromarray(p) for p in (x[0] * 255).round().to(torch.uint8).numpy()]
    small = [np.asarray(p.resize((w // factor, h // factor), Image.Resampling.LANCZOS)) for p in planes]
    return torch.from_numpy(np.stack(small)[None].astype("float32") / 255)
