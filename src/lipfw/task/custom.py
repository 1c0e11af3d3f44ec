"""Any operator: a measurement by code of the user's own."""
import copy
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lipfw.errors import InputError, number, whole
from lipfw.image.picture import Picture
from lipfw.imported import called, complete, imported, named, reason, spelled
from lipfw.interrupt import Interrupted
from lipfw.problem import Problem
from lipfw.streams import global_stream, stream


class Custom:
    """Measure by the operator that an import path names, or that is given: y = A(x) + `noise` * N(0, 1).

    It is a class, which is made with `arguments`; an object; or a function, which is the operator if it takes a
    picture, and makes the operator if it takes `arguments` alone. The operator takes (B, C, H, W) float32 in [0, 1], is
    differentiable, gives the same each time, and what it gives may have any shape. Of an object with a method `A`, such
    as deepinv's physics, that is the operator, and calling it measures, with noise of its own if it has any. A module
    follows the fit to its device and is not trained; what torch draws as it is made follows from the seed; complex
    measurements count as pairs of real numbers.

    `measurement` is a file of numpy's (.npy) to take the measurement from instead; the picture then is the clean one
    or, degraded, tells its name and size alone. Without it, a degraded picture is the measurement.
    Raises InputError for an operator that is not as said, and for a measurement of another shape than it gives.
    """

    def __init__(self, operator: str | Callable, arguments: Mapping | None = None, noise: float = 0,
                 measurement: str | None = None, seed: int = 0):
        self.option = f"task.operator={spelled(operator)}"
        self.noise = number("task.noise", noise, 0, 1e6, hint="it is the standard deviation on each measured value")
        self.seed = whole("task.seed", seed, least=0)
        self.measurement = measurement
        with global_stream(self.seed, "operator"):      # a class may draw its own numbers, e.g. a random mask's
            self.user = _made(operator, named("task.arguments", arguments), self.option)
        self.operators: dict[tuple, Operator] = {}

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture; its noise depends on the seed and the picture's name alone."""
        x, shape = picture.pixels, tuple(picture.pixels.shape[1:])
        operator = self.operators.setdefault(shape, Operator(self.user, shape))     # pictures of one size share it
        clean = self._checked(operator, x)
        if self.measurement is not None:
            y = self._read(clean.shape)
        elif picture.degraded:
            if clean.shape != x.shape:
                raise InputError(f"{self.option} gives {tuple(clean.shape)} for a picture of {tuple(x.shape)}, and "
                                 f"with image.degraded=true the measurement is the picture, {tuple(x.shape)}; give the "
                                 "measurement as task.measurement=FILE.npy")
            y = x
        else:
            with global_stream(self.seed, f"measurement {picture.name}"):
                y = self._try(lambda: operator.measure(x.clone()))
            y = y + self.noise * torch.empty_like(y).normal_(generator=stream(self.seed, f"noise {picture.name}"))
        seen = self._try(lambda: operator.view(y))
        if not isinstance(seen, Tensor) or seen.shape != x.shape:
            raise InputError(f"{self.option}: its view(y) must be a picture {tuple(x.shape)}, got {_told(seen)}")
        return Problem(picture.name, shape, operator, y, None if picture.degraded else x)

    def _checked(self, operator: "Operator", x: Tensor) -> Tensor:
        """Return A(x) of an operator that is as it must be."""
        with torch.no_grad():
            y, again = (self._try(lambda: operator(x.clone())) for _ in range(2))
        if not torch.isfinite(y).all():
            raise InputError(f"{self.option} gives values that are not finite for a picture in [0, 1]")
        if y.shape != again.shape or not torch.equal(y, again):
            raise InputError(f"{self.option} gives another measurement each time; an operator is the same for each "
                             "picture: leave randomness to task.noise, or draw what is random once, from a seed")
        probe = x.clone().requires_grad_()
        with torch.enable_grad():
            y = self._try(lambda: operator(probe))
            draw = torch.randn(y.shape, generator=stream(0, "direction"))
            slope = self._try(lambda: torch.autograd.grad((y * draw).sum(), probe, allow_unused=True)[0]
                              if y.requires_grad else None)
        if slope is None or not slope.any():
            raise InputError(f"{self.option} has no gradient with respect to the picture; compute it with torch's "
                             "functions, without NumPy, detach, no_grad or rounding")
        if not torch.isfinite(slope).all():
            raise InputError(f"{self.option} has a gradient that is not finite; keep e.g. roots and logarithms away "
                             "from 0")
        return y.detach()

    def _try(self, call: Callable):
        try:
            return call()
        except (InputError, Interrupted, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as e:      # the user's code may raise anything
            raise InputError(f"{self.option} fails: {reason(e)}; it is given pictures (B, C, H, W), float32 in [0, 1]"
                             ) from e

    def _read(self, shape: torch.Size) -> Tensor:
        """Return the measurement of the file; it is read once its shape, as its header tells it, fits."""
        path = Path(os.path.expanduser(str(self.measurement)))
        try:
            if not path.is_file():
                raise ValueError("there is no such file")
            array = np.lib.format.open_memmap(path, mode="r")       # numbers alone, and no zips
            if array.dtype.kind not in "fciub":
                raise ValueError("it holds no numbers")
        except (OSError, ValueError, EOFError) as e:
            raise InputError(f"task.measurement={self.measurement} can't be read: {str(e).splitlines()[0]}; save the "
                             "measurement by numpy.save") from None
        have = (*array.shape, *(2,) * np.iscomplexobj(array))
        if have not in (tuple(shape), tuple(shape[1:])):
            raise InputError(f"{self.option} gives {tuple(shape)}, and task.measurement={self.measurement} is {have}; "
                             "they must be of one shape, the first axis may be left out (complex numbers count as "
                             "pairs)")
        dtype = np.complex64 if np.iscomplexobj(array) else np.float32
        y = _real(torch.from_numpy(np.array(array, dtype))).view(shape)
        if not torch.isfinite(y).all():
            raise InputError(f"task.measurement={self.measurement} has values that are not finite")
        return y


class Operator(nn.Module):
    """An operator of the user's, for pictures of one shape, as the fit needs it: real, float32, with a `view`."""

    def __init__(self, user: Callable, shape: tuple[int, int, int]):
        super().__init__()
        self.user, self.shape = user, shape
        self.requires_grad_(False)      # a fit trains the prior alone

    def forward(self, x: Tensor) -> Tensor:
        return _real((self.user.A if _has(self.user, "A") else self.user)(x))

    @torch.no_grad()
    def measure(self, x: Tensor) -> Tensor:
        """Return a measurement of a picture, with the operator's own noise if it has any, drawn by torch."""
        return _real(self.user(x))

    @torch.no_grad()
    def view(self, y: Tensor) -> Tensor:
        """Return a picture (1, C, H, W) in [0, 1] of a measurement, to look at.

        By the operator's own `view`, or the measurement itself if it is a picture, or else a step of steepest descent
        from grey, g + a J^T (y - A(g)), with the length a that is best for a linear A.
        """
        if _has(self.user, "view"):
            return self.user.view(y)
        if tuple(y.shape) == (1, *self.shape):
            return y.clamp(0, 1)
        grey = torch.full((1, *self.shape), 0.5, device=y.device)
        with torch.enable_grad():
            measured = self(grey.requires_grad_())
            back, = torch.autograd.grad(measured, grey, y - measured.detach())
        grey, measured = grey.detach(), measured.detach()
        change = self(grey + back) - measured
        length = ((y - measured) * change).sum() / change.square().sum().clamp(min=1e-12)
        return (grey + length * back).clamp(0, 1)


def _made(path: str | Callable, arguments: dict, option: str) -> Callable:
    """Return the operator that a path names, as `Custom` says."""
    found = imported("task.operator", path)
    if isinstance(found, type):
        found = called(option, found, arguments)
    elif isinstance(found, nn.Module):
        if arguments:
            raise InputError(f"{option} is an object, made already; task.arguments is for classes and functions")
        found = copy.deepcopy(found)    # another run in this process may have it on another device
    elif callable(found) and complete(found, arguments):
        found = called(option, found, arguments)
    elif callable(found) and arguments:
        found = partial(found, **arguments)
    if not callable(found):
        raise InputError(f"{option} is {_told(found)}, which can't be called; name a function of a picture, or a class "
                         "or function that makes one")
    return found


def _real(y) -> Tensor:
    """Return a measurement in float32; of complex numbers, their real and imaginary parts on a last axis."""
    if not isinstance(y, Tensor) or not y.numel():
        raise InputError(f"task.operator must give a tensor, and not {_told(y)}")
    return (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).float()


def _has(user: Callable, method: str) -> bool:
    return callable(getattr(type(user), method, None))


def _told(value) -> str:
    """Return what a value is: its type, and of a tensor the shape."""
    kind = type(value).__name__
    return f"a {kind} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {kind}"
