"""A classical restoration in the place of a fit, so that it stands in the same folders and tables."""
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lipfw.classical import METHODS, bm3d_package, noise_level
from lipfw.errors import InputError, choice, number
from lipfw.fit.evaluation import mse, psnr, ssim
from lipfw.fit.stepped import Stepped
from lipfw.mask import Mask
from lipfw.prior.prior import Prior
from lipfw.problem import Problem

_PIECE = 64     # side of the piece of a measurement that is timed


class Baseline(Stepped):
    """One round of one step, which restores each picture from its measurement alone, by `method` and without a network.

    What an operator says of itself (`kind`) tells which methods there are. Those against noise take its level `sigma`
    in grey levels of 255, or estimate it picture by picture. Peak, picked and final are the same. It is computed on the
    CPU, in 64 bits. Raises InputError for a method that the task has no use for, and for a prior.
    """

    does = "restores pictures"
    recorded = ("loss", "psnr", "ssim")
    shorter = "image.size=128"
    cpu_only = True
    lr = 0.0                            # nothing is learnt
    kernel_name = "classical"

    def __init__(self, problems: Sequence[Problem], prior: Prior, *, method: str = "nlm", sigma: float | None = None,
                 precision: int | str = 32):
        super().__init__(steps=1, log_every=1, steps_per_batch=1)
        self.method = choice("fit.method", method, [m for methods in METHODS.values() for m in methods])
        for p in problems:
            there = METHODS.get(getattr(p.operator, "kind", None), {})
            if method not in there:
                raise InputError(f"fit.method={method} can't restore what this task has done to the picture; " + (
                    f"use fit.method={' or '.join(there)}" if there else
                    "no baseline can: they are for task=denoise, clean, jpeg, superres and "
                    "inpaint"))
        self.denoises = method in METHODS["identity"]
        if sigma is not None and not self.denoises:
            raise InputError(f"fit.sigma={sigma} is a noise level, which fit.method={method} takes none of; leave it "
                             "out")
        self.sigma = None if sigma is None else number("fit.sigma", sigma, 0, 255, open_low=True,
                                                       hint="it is in grey levels of 255")
        if prior.fits != "nothing":
            raise InputError("fit=baseline fits no network and takes prior=none, which it has by itself; leave prior= "
                             "out")
        if str(precision) != "32":
            raise InputError(f"trainer.precision={precision} is for networks, and fit=baseline has none; use "
                             "trainer.precision=32")
        self.precision = str(precision)
        self.problems, self.prior = list(problems), prior
        for i, p in enumerate(problems):
            self.register_buffer(f"restored{i}", torch.zeros(1, *p.shape))
            self.register_buffer(f"level{i}", torch.tensor(torch.nan))      # of noise, in grey levels
        if method == "bm3d":
            bm3d_package()      # refuses before anything is written

    def configure_optimizers(self):
        return []

    # --- the method

    @torch.no_grad()
    def fit_step(self) -> Tensor:
        """Restore the pictures; returns the numbers to record."""
        for i, p in enumerate(self.problems):
            x, level = self.restore(p)
            getattr(self, f"restored{i}").copy_(x)
            getattr(self, f"level{i}").fill_(level)
        self.step += 1
        s = self.summary()
        return torch.tensor([s["loss"], s["psnr_final"], s["ssim_final"]])

    def restore(self, problem: Problem, side: int | None = None) -> tuple[Tensor, float]:
        """Return the restoration (1, C, H, W) in [0, 1] and the noise level in grey levels, NaN where none is taken.

        Of a piece of the measurement of at most `side` pixels a side, if that is given. The clean picture is not
        looked at.
        """
        operator, piece = problem.operator, (slice(side), slice(side))
        y, level = _array(problem.measurement)[piece], torch.nan
        if operator.kind == "identity":
            argument = noise_level(y) if self.sigma is None else self.sigma / 255
            level = 255 * argument
        elif operator.kind == "mask":
            argument = _array(operator.known)[piece] > 0.5
        else:
            argument = operator.factor
        x = METHODS[operator.kind][self.method](y, argument) if level != 0 else y     # without noise it is as it was
        return torch.from_numpy(np.moveaxis(x.clip(0, 1), 2, 0)[None]).float(), level

    # --- what the rounds ask of a fit

    def pictures(self, kind: str) -> list[Tensor]:
        """Return the restorations (1, C, H, W), one a problem; `kind` makes no difference."""
        return [getattr(self, f"restored{i}") for i in range(len(self.problems))]

    def round_loss(self) -> float:
        """Return the mean squared error of the measurements that the restorations would have had."""
        each = [torch.nn.functional.mse_loss(p.operator(x.cpu()), p.measurement)
                for p, x in zip(self.problems, self.pictures("final"), strict=True)]
        return float(torch.stack(each).mean())

    def summary(self) -> dict:
        """Return the numbers of the round, named as those of a fit; `sigma` is the noise level that was taken."""
        each = []
        for i, (p, x) in enumerate(zip(self.problems, self.pictures("final"), strict=True)):
            scores = {"psnr": psnr(p, x.cpu()), "ssim": ssim(p, x.cpu()), "mse": mse(p, x.cpu())}
            each.append({f"{name}_{kind}": float(v) for name, v in scores.items()
                         for kind in ("peak", "picked", "final")})
            if self.denoises:
                each[-1]["sigma"] = float(getattr(self, f"level{i}"))
        out = {"loss": self.round_loss()} | {k: sum(e[k] for e in each) / len(each) for k in each[0]}
        out |= {"step_peak": 1, "step_picked": 1, "step_first": 1, "step_last": 1}
        if len(each) > 1:
            out["images"] = {p.name: e for p, e in zip(self.problems, each, strict=True)}
        return out

    def estimate(self, densities: Sequence[float]) -> tuple[list[float], str | None]:
        seconds = sum(map(self._seconds, self.problems))
        return [seconds] * len(densities), None

    def _seconds(self, problem: Problem) -> float:
        """Return about how long a restoration takes, by that of a piece."""
        side = _PIECE
        if problem.operator.kind == "mask" and not problem.operator.known[..., :side, :side].flatten(-2).any(-1).all():
            side = None                 # nothing is known of the piece
        self.restore(problem, side)     # the first pays for what is imported
        started = time.perf_counter()
        self.restore(problem, side)
        h, w = problem.measurement.shape[2:]
        return (time.perf_counter() - started) * (h * w / (min(h, side) * min(w, side)) if side else 1)

    def told(self, record: dict) -> str:
        return self.method + (f" {record['psnr']:.2f} dB" if record["psnr"] == record["psnr"] else "")

    def told_round(self) -> str:
        s, line = self.summary(), self.method
        if self.denoises:
            line += f", noise of {s['sigma']:.1f} grey levels" + " by estimate" * (self.sigma is None)
        return line + (f", PSNR {s['psnr_final']:.2f} dB" if s["psnr_final"] == s["psnr_final"] else "")

    def code_shape(self) -> torch.Size:
        return self.prior.code().shape

    def snapshot(self) -> dict:
        """Return what a rewind goes back to: there is nothing."""
        return {"network": {}}

    def rewind(self, snapshot: dict, begin: int = 0) -> None:
        self.reset(begin)

    def start_round(self, round_: int) -> None:
        """Nothing is drawn."""

    def hold(self, mask: Mask | None) -> None:
        """There are no weights to hold."""


def _array(x: Tensor) -> np.ndarray:
    """Return (1, C, H, W) as an array (H, W, C) of float64."""
    return np.moveaxis(x[0].double().numpy(), 0, 2)
