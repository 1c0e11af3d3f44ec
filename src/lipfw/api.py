"""Restoring a picture from Python, without a config."""
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lipfw.errors import InputError
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.trainer import make_trainer
from lipfw.image.picture import Picture, finish, from_array
from lipfw.image.read import read
from lipfw.image.write import write_png
from lipfw.prior import skip
from lipfw.prior.prior import Prior
from lipfw.problem import Problem
from lipfw.pruner.none import Dense
from lipfw.pruner.pruner import Pruner
from lipfw.recorder import alpha_like
from lipfw.task.denoise import Denoise


@dataclass(frozen=True)
class Restored:
    """A restored picture: `array` (H, W) or (H, W, 3), float32 in [0, 1]; `step` is the step that was picked.

    `alpha` is the given picture's transparency, (H, W), or None.
    """

    array: np.ndarray
    alpha: np.ndarray | None
    step: int
    bits: int = 8

    def save(self, path: str | Path) -> None:
        """Write a PNG at the depth of the picture that was given."""
        pixels = torch.from_numpy(np.atleast_3d(self.array)).permute(2, 0, 1)[None]
        alpha = None if self.alpha is None else torch.from_numpy(self.alpha)[None, None]
        write_png(Path(path), pixels, alpha, self.bits)


def restore(picture: str | Path | np.ndarray, task: Callable[[Picture], Problem] | None = None, *,
            prior: Callable[..., Prior] = skip.build, pruner: Pruner | None = None, steps: int = 3000,
            smoothing: float = 0.99, seed: int = 0, device: str = "auto", fit: Mapping | None = None,
            **prior_options) -> Restored:
    """Restore one degraded picture by fitting an untrained network to it, or by seeking a generator's code of it.

    No clean picture is needed or used.

    `picture` is a path, or an array (H, W) or (H, W, 3 or 4) of uint8, uint16 or floats in [0, 1]. `task` says what
    happened to it (default: noise; `Inpaint(mask=...)`, `SuperRes(factor=4)`); `prior_options` go to the prior, e.g.
    channels=32, or weights="faces32" with `prior=pggan.build`; `pruner=Replay("tickets/round_07.safetensors")` fits
    that ticket, `Replay("zoo:multi-s89")` one that ships; `fit` holds further options of `Restoration`. Raises
    InputError for a picture or options that can't be used.

    >>> restored = restore("noisy.png", steps=2000)        # doctest: +SKIP
    >>> restored.save("restored.png")                      # doctest: +SKIP
    """
    if not isinstance(picture, (str, Path)):
        picture = np.asarray(picture)
        _check(picture)
        picture = from_array("array", picture)
    else:
        picture = read(Path(picture))
    (picture,) = finish([picture], degraded=True)
    problem = (task or Denoise(seed=seed))(picture)
    prior = prior([problem.shape], seed=seed, **prior_options)
    if prior.search is not None:
        raise InputError("the network of isnas is searched for in a run's folder: python -m lipfw prior=isnas; its "
                         "search.json tells the options for prior=nas.build")
    module = Restoration([problem], prior, steps=steps, smoothing=smoothing, **(fit or {}))
    pruning = IterativePruning(pruner or Dense())
    pruning.prepare(module)
    make_trainer(pruning.rounds, [pruning], device).fit(module)
    pixels = module.pictures("picked")[0].cpu().clamp(0, 1)     # a generator's reach a little further
    alpha = alpha_like(picture, pixels.shape)
    return Restored(pixels[0].permute(1, 2, 0).squeeze(-1).numpy(), None if alpha is None else alpha[0, 0].numpy(),
                    module.summary()["step_picked"], picture.bits)


def _check(array: np.ndarray) -> None:
    """Raise InputError for an array that is no picture."""
    good = array.size and (array.ndim == 2 or array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if not good or not (array.dtype.kind == "f" or array.dtype in (np.uint8, np.uint16)):
        raise InputError(f"a picture is an array (H, W) or (H, W, 3) of uint8, uint16 or floats in [0, 1], got "
                         f"{array.shape} of {array.dtype}")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise InputError(f"a picture of floats must lie in [0, 1], got values from {array.min():g} to {array.max():g}; "
                         "divide it by its largest possible value")
