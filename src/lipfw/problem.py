"""What is to be solved: a measurement, the operator that made it, and (for evaluation only) the clean picture."""
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lipfw.errors import InputError


@dataclass(frozen=True)
class Problem:
    """One picture to restore from its measurement y = A(x) + noise.

    Only evaluation may look at `image`; it is None for a user's own degraded picture, which has no clean version.
    """

    name: str
    shape: tuple[int, int, int]     # (C, H, W) of the restored picture
    operator: nn.Module             # A: (1, C, H, W) in [0, 1] -> measurement; `operator.view(y)` shows y as a picture
    measurement: Tensor             # y
    image: Tensor | None = None     # x, (1, C, H, W) in [0, 1]
    luma: bool = False              # score the luma channel alone, as the super-resolution literature does
    border: int = 0                 # pixels left out of the scores on each side

    def __post_init__(self):
        if self.image is not None and tuple(self.image.shape) != (1, *self.shape):
            raise ValueError(f"image {tuple(self.image.shape)} does not fit the shape {(1, *self.shape)}")

    def noiseless(self) -> "Problem":
        """Return the problem with A(x) as its measurement: the published code finds its tickets on clean pictures.

        Raises InputError where no clean picture is known.
        """
        if self.image is None:
            raise InputError("fit.target=clean needs a clean picture, and image.degraded=true says that there is none; "
                             "use fit.target=degraded")
        with torch.no_grad():
            return replace(self, measurement=self.operator(self.image))
