"""Which measured values a fit leaves out of its loss, to see by them how good it is."""
import torch
from torch import Tensor, nn

from lipfw.errors import InputError

LEAST = 256     # positions: of fewer the error of their errors may drown what is to be seen


def held_out(operator: nn.Module, y: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return the places, in `y.flatten()`, of a random fraction of the values of a measurement.

    Of a picture (1, C, H, W) whole pixels are drawn, since the noise of their channels may be the same; of anything
    else single values. What the operator hides is not drawn. Of small measurements it is `LEAST` pixels or values, or
    an eighth if that is less. Raises InputError where fewer than 16 are known.
    """
    known = getattr(operator, "known", None)
    known = torch.ones_like(y, dtype=torch.bool) if known is None else (known > 0).expand_as(y)
    known = known.cpu()
    by_pixel = y.dim() == 4
    places = (known[0].any(0) if by_pixel else known).flatten().nonzero()[:, 0]
    if len(places) < 16:
        raise InputError(f"{len(places)} measured values are too few to leave some out; use fit.pick=wmv")
    count = max(round(fraction * len(places)), min(LEAST, len(places) // 8))
    drawn = places[torch.randperm(len(places), generator=generator)[:count]]
    if not by_pixel:
        return drawn
    chosen = torch.zeros(y.shape[2:].numel(), dtype=torch.bool).index_fill_(0, drawn, True).view(y.shape[2:])
    return (known & chosen).flatten().nonzero()[:, 0]
