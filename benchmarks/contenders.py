"""Who is timed: the published loop, a bare loop, lipfw with each of its kernels, and a public peer."""
import importlib
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.published import Published, nested
from benchmarks.timing import Runner, seconds_of
from lipfw.fit.restoration import Restoration
from lipfw.fit.stepping import make_stepper
from lipfw.image.skimage import load
from lipfw.mask import Mask
from lipfw.prior.skip import build
from lipfw.task.denoise import Denoise
from lipfw.ticket import Ticket

LIPFW = {"dense": {"kernel": "dense"}, "auto": {"kernel": "auto"}, "sparse": {"kernel": "sparse"},
         "dense bf16": {"kernel": "dense", "precision": "bf16"}, "auto bf16": {"kernel": "auto", "precision": "bf16"}}


class Unavailable(Exception):
    """A contender that can't run here, with the reason."""


@dataclass(frozen=True)
class Spec:
    """A fit to be timed: `name` is published, bare, deepinv or one of LIPFW; `ticket` a file with the mask, or None."""

    name: str
    size: int
    channels: int = 128
    depth: int = 5
    ticket: str | None = None
    device: str = "cpu"

    @property
    def mask(self) -> Mask | None:
        """The mask of the ticket; None if there is none, or if it keeps everything."""
        mask = Ticket.load(Path(self.ticket)).mask if self.ticket else None
        return mask if mask is not None and mask.count < mask.total else None


def runner(spec: Spec) -> tuple[Runner, str]:
    """Set a fit up; returns what does and times its steps, and what it says of itself."""
    run, says = stepping(spec)
    return lambda count: seconds_of(lambda: run(count), spec.device), says


def stepping(spec: Spec) -> tuple[Callable[[int], None], str]:
    """Set a fit up; returns what does so many steps, and what it says of itself: of lipfw, the kernel it chose."""
    (picture,) = load("astronaut", size=spec.size)
    problem = Denoise(25)(picture)
    says = ""
    if spec.name == "published":
        step = Published(picture.pixels, problem.measurement, spec.channels, spec.depth, spec.mask, spec.device).step
    elif spec.name == "deepinv":
        return _deepinv(problem, spec), says
    elif spec.name == "bare":
        step = _bare(problem, spec)
    else:
        module = fit(problem, spec)
        step, says = module.fit_step, module.stepper.name

    def run(count: int) -> None:
        for _ in range(count):
            step()

    return run, says


def fit(problem, spec: Spec) -> Restoration:
    """Return lipfw's fit as a run has it, average, pick and metrics included, to be stepped by `fit_step`."""
    options = LIPFW[spec.name]
    for name in options:
        if name not in inspect.signature(Restoration).parameters:
            raise Unavailable(f"this lipfw's Restoration has no {name}=")
    module = Restoration([problem], _prior(problem, spec), steps=1_000_000, **options).to(spec.device)
    module.on_fit_start()       # what Lightning would call
    mask = spec.mask
    if mask is not None:
        mask.apply(module.prior.network)
    module.hold(mask)
    module.stepper = make_stepper(module, module.configure_optimizers(), mask, module.kernel)
    return module


def _prior(problem, spec: Spec):
    return build([problem.shape], channels=spec.channels, depth=spec.depth)


def _bare(problem, spec: Spec):
    """Return the step of a plain loop over lipfw's network, with nothing else to do."""
    prior = _prior(problem, spec).to(spec.device)
    target = problem.measurement.to(spec.device)
    optimizer = torch.optim.Adam(prior.unknowns(), lr=0.01, fused=True)
    mask, mask_gradients = spec.mask, lambda: None
    if mask is not None:
        mask.apply(prior.network)
        mask_gradients = mask.gradients(prior.network)
    done = itertools.count()

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(problem.operator(prior(0, next(done))), target).backward()
        mask_gradients()
        optimizer.step()

    return step


def _deepinv(problem, spec: Spec) -> Callable[[int], None]:
    """Return deepinv's DeepImagePrior with the nested network; it runs one forward pass more than it does steps."""
    try:
        deepinv = importlib.import_module("deepinv")
    except Exception as e:      # a torchvision that does not fit the torch raises whatever it meets
        raise Unavailable(f"deepinv can't be imported: {type(e).__name__}: {e}".splitlines()[0]) from None
    network = nested(problem.shape[0], spec.channels, spec.depth).to(spec.device)
    reconstruct = deepinv.models.DeepImagePrior(network, img_size=(32, spec.size, spec.size), learning_rate=0.01)
    physics, measurement = deepinv.physics.Denoising(), problem.measurement.to(spec.device)

    def run(count: int) -> None:
        reconstruct.max_iter = count
        reconstruct(measurement, physics)

    return run
