"""How long a fit will take, measured before it starts on a copy of the prior, so that the fit is left untouched."""
import copy
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from lipfw.fit.stepping import make_stepper
from lipfw.mask import keep_top, prunable
from lipfw.streams import stream

if TYPE_CHECKING:       # it imports this module
    from lipfw.fit.restoration import Restoration


def seconds_a_step(module: "Restoration", density: float = 1.0, steps: int = 2) -> tuple[float, str | None]:
    """Return the time of an optimisation step that keeps a fraction of the weights at random, and its stepper's note.

    On a GPU it is that of the eager step: more than a replayed graph takes.
    """
    fit = SimpleNamespace(prior=copy.deepcopy(module.prior), loss=module.loss, residuals=module.residuals,
                          objective=module.objective, bucket=module.bucket, follow=lambda outputs, loss: None)
    weights, mask = prunable(fit.prior.network), None
    if density < 1 and not module.latent:       # frozen weights are multiplied whether they are zero or not
        scores = {n: torch.rand(w.shape, generator=stream(0, f"probe {n}")) for n, w in weights.items()}
        mask = keep_top(scores, round(density * sum(w.numel() for w in weights.values())))
        mask.apply(fit.prior.network)
    on_cpu, optimizer = module.device.type == "cpu", torch.optim.Adam(fit.prior.unknowns(), fused=True)
    stepper = module.search(fit, optimizer) if module.latent else make_stepper(
        fit, optimizer, mask, module.kernel if on_cpu else "dense")

    def one() -> float:
        started = time.perf_counter()
        stepper.step(0)
        if not on_cpu:
            torch.cuda.current_stream(module.device).synchronize()      # other threads may be capturing
        return time.perf_counter() - started

    one()       # the first step pays for memory and kernels
    return min(one() for _ in range(steps)), stepper.note


def seconds_of_rounds(module: "Restoration", densities: Sequence[float]) -> tuple[list[float], str | None]:
    """Return the time of a step in each round to come, by its density, and why it is not less, if there is a reason.

    The densest and the sparsest are measured; those between lie on a straight line.
    """
    most, note = seconds_a_step(module, max(densities))
    if min(densities) == max(densities):
        return [most] * len(densities), note
    least, other = seconds_a_step(module, min(densities))
    slope = (most - least) / (max(densities) - min(densities))
    return [least + slope * (d - min(densities)) for d in densities], note or other
