"""Runs that restore pictures: by fitting an untrained network, by seeking a generator's codes, or by neither."""
import copy
import json
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from rich.table import Table

from lipfw.errors import InputError
from lipfw.files import write_atomic
from lipfw.fit.baseline import Baseline
from lipfw.fit.evaluation import psnr, ssim
from lipfw.fit.memory import check_memory
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.folder import picking
from lipfw.image.picture import Picture, check_pixels
from lipfw.image.read import read
from lipfw.image.write import PANEL, sheet, write_png
from lipfw.job import Job
from lipfw.problem import Problem
from lipfw.pruner.none import Dense
from lipfw.recorder import Recorder, meaning_like
from lipfw.search import check
from lipfw.summary import closing, panels, rounds_table


class Restoring(Job):
    """One restoration: `pictures` as the config names them, `task` makes their problems."""

    def __init__(self, cfg: DictConfig, task: Callable[[Picture], Problem], pictures: list[Picture],
                 device: str | None, fits: int):
        if not isinstance(pictures, list):
            raise InputError(f"{pictures.name} is a data set to train a network on, not a picture to restore; use e.g. "
                             "image=face or image=folder")
        self.pictures, self.problems = pictures, [task(p) for p in pictures]
        for p in self.problems:      # super-resolution makes pictures larger than the file
            check_pixels(f"the restored {p.name}", p.shape[2], p.shape[1], cfg.image.max_pixels)
        prior = instantiate(cfg.prior)(shapes=[p.shape for p in self.problems])
        if prior.search is not None:
            check(prior.search, cfg.pruner, self.problems)
            self.search = prior.search
        self.pruning = IterativePruning(instantiate(cfg.pruner))
        if prior.fits == "nothing" and not isinstance(self.pruning.pruner, Dense):
            raise InputError("fit=baseline fits no network, of which nothing can be pruned; use pruner=none")
        if prior.fits == "code" and not (prior.trained or self.pruning.pruner.brings_weights):
            raise InputError("prior.weights=null is an untrained generator, none of whose codes makes the picture; "
                             "give it weights (prior.weights=faces32, or a file), or those of tickets by pruner=ticket")
        fit = copy.deepcopy(cfg).fit
        fit.pop("batch_seeds", None)        # around a fit, not in it
        if prior.fits == "weights" and get_class(fit._target_) is Restoration:
            fit.pick = picking(fit, any(p.degraded for p in pictures))
        self.module: Restoration | Baseline = instantiate(fit)(problems=self.problems, prior=prior,
                                                    precision=cfg.trainer.precision)
        if device is not None:
            check_memory(prior, device, fits)   # of the codes that the module has drawn, too
        self.title = ", ".join(f"{p.name} {p.shape[2]}x{p.shape[1]}" for p in self.problems)
        self.about = {"architecture": json.dumps(prior.architecture), "image": ", ".join(p.name for p in pictures)}
        self.large = any(p.shape[1] * p.shape[2] >= 256 * 256 for p in self.problems)

    def recorder(self, folder: Path, about: dict[str, str]) -> Recorder:
        return Recorder(folder, self.pruning, self.pictures, about)

    def finish(self, folder: Path, recorder: Recorder, rounds: list[dict], best: int) -> dict:
        """Write restored.png and compare.png of the best round; return what is told of all rounds.

        That is the rule that picked (None of a classical method), the oracle's round and the measurement's scores.

        A clean picture that compare.png has to shrink is written too, for reports: clean.png.
        """
        known = [r for r in rounds if r["psnr_picked"] is not None]
        degraded = []
        for i, p in enumerate(self.problems):
            picture, suffix = recorder.picture_name(best, i), recorder.suffix(i)
            write_atomic(folder / f"restored{suffix}.png", partial(shutil.copyfile, folder / picture))
            restored = read(folder / picture).pixels
            view = p.operator.cpu().view(p.measurement.cpu())
            degraded.append({"psnr": float(psnr(p, view)), "ssim": float(ssim(p, view))})
            sheet(panels(p, view, restored, degraded[-1]["psnr"]), folder / f"compare{suffix}.png")
            if p.image is not None and p.shape[1] > PANEL:
                write_png(folder / f"clean{suffix}.png", p.image.cpu(), None, 8,
                          meaning_like(self.pictures[i], p.image.shape))
        return {"picked_by": getattr(self.module, "picks_by", None),
                "oracle_round": max(known, key=lambda r: r["psnr_picked"])["round"] if known else None,
                "degraded": {k: _finite(sum(d[k] for d in degraded) / len(degraded)) for k in ("psnr", "ssim")}}

    def table(self, result: dict) -> Table:
        return rounds_table(result)

    def closing(self, folder: Path, result: dict) -> str:
        return closing(folder, result)


def _finite(value: float) -> float | None:
    """Return None for NaN (no clean picture) and infinity (nothing was degraded): JSON has neither."""
    return value if math.isfinite(value) else None
