"""Floating-point operations of one optimisation step, counted on shapes: nothing is computed, whatever the size."""
import contextlib
import copy
from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lipfw.fit.adversarial import Adversarial, at_scale
from lipfw.fit.baseline import Baseline
from lipfw.fit.classification import Classification
from lipfw.fit.eager import Eager
from lipfw.fit.estimate import probe
from lipfw.fit.restoration import Restoration
from lipfw.fit.stepped import Stepped


class Flops(TorchDispatchMode):
    """Counts what torch's own FlopCounterMode counts: convolutions and matrix products, a product and a sum as two.

    That one also looks at which layer an operation is of, by hooks that a gradient of a gradient, as critics have it in
    their loss, does not get through.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


class _Still:
    """An optimiser that moves nothing: Adam takes a few operations a weight, a convolution thousands."""

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> None: ...


def step_flops(module: Stepped) -> dict[int, int] | None:
    """Return the FLOPs of a step, forward and backward, of the dense network, by the scale that it is done on.

    A restoration's and a classifier's steps are all on scale 0, and the pictures of several are summed up; a growing
    generator's are on one scale after the other (`steps_on_scales`). None for a module of which it is not known what a
    step is.
    """
    if isinstance(module, Adversarial):
        return {scale: _of_training(module, scale) for scale in module.steps_on()}
    if isinstance(module, Baseline):
        return {0: 0}       # it does not compute with torch
    if isinstance(module, Classification):
        return {0: _of_classification(module)}
    return {0: _of_restoration(module)} if isinstance(module, Restoration) else None


def steps_on_scales(module: Stepped) -> dict[int, int]:
    """Return how many steps of a round are done on each scale, named as in `step_flops`."""
    return module.steps_on() if isinstance(module, Adversarial) else {0: module.steps}


def _of_restoration(module: Restoration) -> int:
    try:
        with _on_shapes(module):
            return _counted(module)
    except DynamicOutputShapeException:     # how many values a mask hides no shape can tell: the step is done
        return _counted(copy.deepcopy(module))


def _counted(module: Restoration) -> int:
    fit = probe(module, module.prior)
    stepper = module.search(fit, _Still()) if module.latent else Eager(fit, _Still(), None)
    if module.latent:       # the game's first step makes pictures that later ones have from the step before
        stepper.step(0)
    with Flops() as flops:
        stepper.step(1)
    return flops.total


def _of_training(module: Adversarial, scale: int) -> int:
    with _on_shapes(module), Flops() as flops:
        pixels = torch.empty(min(module.batch, len(module.pixels)), *module.pixels.shape[1:], dtype=torch.uint8)
        real = at_scale(pixels, scale)
        module.critic_loss(real, 0, scale, 0.0)[0].backward()
        module.generator_loss(0, scale, 0.0).backward(inputs=list(module.prior.network.parameters()))
    return flops.total


def _of_classification(module: Classification) -> int:
    with _on_shapes(module), Flops() as flops:
        pixels = torch.empty(module.batch, *module.code_shape()[1:], dtype=torch.uint8)
        cross_entropy(module.logits(pixels), torch.zeros(module.batch, dtype=torch.int64)).backward()
    return flops.total


@contextlib.contextmanager
def _on_shapes(module: Stepped) -> Iterator[None]:
    """Have torch work out shapes alone, in the module as it is: neither weights nor statistics change."""
    prior = getattr(module, "prior", None)
    jitter = getattr(prior, "jitter", 0.0)
    if jitter:
        prior.jitter = 0.0      # a generator of random numbers has no shape
    numbers = [(b, b.clone()) for b in module.buffers() if not b.dim()]     # with those torch computes even so
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        if jitter:
            prior.jitter = jitter
        for now, before in numbers:
            now.copy_(before)
        module.zero_grad(set_to_none=True)      # gradients without values
