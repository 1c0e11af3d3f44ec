"""JPEG artefacts: the measurement is the picture as it comes out of a compressed file."""
import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lipfw.errors import whole
from lipfw.image.picture import Picture
from lipfw.problem import Problem
from lipfw.task.operators import Identity


class Jpeg:
    """Compress the picture as a JPEG of a `quality` from 1 to 95, by Pillow, in 8 bits; y = x is what is fitted.

    A picture that is degraded already is taken as it is, and `quality` is not used.
    Source: the removal of artefacts by the deep image prior (Ulyanov et al., 2018), where the fit stops in time.
    """

    def __init__(self, quality: int = 10):
        self.quality = whole("task.quality", quality, least=1, most=95)

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture."""
        x, shape = picture.pixels, tuple(picture.pixels.shape[1:])
        if picture.degraded:
            return Problem(picture.name, shape, Identity(), x)
        return Problem(picture.name, shape, Identity(), compressed(x, self.quality), x)


def compressed(x: Tensor, quality: int) -> Tensor:
    """Return a picture (1, 1 or 3, H, W) as a JPEG of that quality holds it."""
    pixels = (x[0] * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    array = np.atleast_3d(np.asarray(Image.open(file)))
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
