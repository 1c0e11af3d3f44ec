"""How long a fit will take, measured before it starts on a copy of the prior, so that the fit is left untouched."""
import copy
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from lipfw.fit.stepping import make_stepper
from lipfw.mask import keep_top, prunable
from lipfw.prior.prior import Prior
from lipfw.streams import stream

if TYPE_CHECKING:       # it imports this module
    from lipfw.fit.restoration import Restoration


def seconds_a_step(module: "Restoration", density: float = 1.0, steps: int = 2) -> tuple[float, str | None]:
    """Return the time of a step that keeps a fraction of the weights at random, and its stepper's note."""
    fit = probe(module, copy.deepcopy(module.prior))
    weights, mask = prunable(fit.prior.network), None
    if density < 1 and not module.latent:       # frozen weights are multiplied whether they are zero or not
        scores = {n: torch.rand(w.shape, generator=stream(0, f"probe {n}")) for n, w in weights.items()}
        mask = keep_top(scores, round(density * sum(w.numel() for w in weights.values())))
        mask.apply(fit.prior.network)
    on_cpu, optimizer = module.device.type == "cpu", module.optimizer_of(fit.prior)
    stepper = module.search(fit, optimizer) if module.latent else make_stepper(fit, optimizer, mask, module.kernel)

    def one() -> float:
        started = time.perf_counter()
        stepper.step(0)
        if not on_cpu:
            torch.cuda.current_stream(module.device).synchronize()      # other threads may be capturing
        return time.perf_counter() - started

    for _ in range(stepper.warm_up):
        one()
    return min(one() for _ in range(steps)), stepper.note


def probe(module: "Restoration", prior: Prior) -> SimpleNamespace:
    """Return what steppers need of a fit, with a prior of its own and nobody who follows the steps."""
    return SimpleNamespace(prior=prior, loss=module.loss, residuals=module.residuals, objective=module.objective,
                           bucket=module.bucket, penalty=module.penalty, weight_noise=module.weight_noise,
                           follow=lambda outputs, loss: None)


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
