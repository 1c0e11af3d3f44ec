"""Runs that train a generator against a critic: from scratch, or round by round for tickets of it."""
import copy
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from rich.table import Table
from torch import Tensor

from lipfw.errors import InputError
from lipfw.files import write_atomic
from lipfw.fit.adversarial import Adversarial
from lipfw.fit.rounds import Following, IterativePruning
from lipfw.gan.weights import save
from lipfw.image.classes import Labelled
from lipfw.image.dataset import Dataset
from lipfw.image.write import write_png
from lipfw.job import Job
from lipfw.records import Records
from lipfw.summary import numbers, tickets_used
from lipfw.words import spoken


class Training(Job):
    """One training: `task` says which pictures of the data set `data` are trained on, and what is kept."""

    def __init__(self, cfg: DictConfig, task, data: Dataset, device: str | None, fits: int):
        if not isinstance(data, Dataset):
            names = "labelled pictures" if isinstance(data, Labelled) else "pictures to restore"
            raise InputError(f"training takes many pictures of one size, and image= names {names}; use "
                             "image=lfw, image=celeba, or image=dataset image.path=FOLDER_OR_ZIP")
        self.task, pixels = task, task(data)
        prior = instantiate(cfg.prior)(shapes=[tuple(pixels.shape[1:])])
        if prior.fits != "code":
            raise InputError("training needs a generator with a critic, and this prior is an untrained network; use "
                             "prior=pggan")
        self.pruning = IterativePruning(instantiate(cfg.pruner))
        self.critic = None
        if task.prune_critic:
            self.critic = Following(instantiate(cfg.pruner), self.pruning)
        fit = copy.deepcopy(cfg).fit
        fit.pop("batch_seeds", None)
        self.module: Adversarial = instantiate(fit)(pixels=pixels, prior=prior, precision=cfg.trainer.precision)
        self.title = f"{len(pixels):,} pictures of {data.name}, {pixels.shape[3]}x{pixels.shape[2]}"
        self.about = {"architecture": json.dumps(prior.architecture), "image": data.name}
        if self.critic is not None:
            self.critic.prepare(self.module)

    def callbacks(self) -> list[pl.Callback]:
        return [] if self.critic is None else [self.critic]     # it scores before the rounds rewind both networks

    def recorder(self, folder: Path, about: dict[str, str]) -> Records:
        return SampleRecorder(folder, self.pruning, about, self.task.save_trained, self.task.half)

    def finish(self, folder: Path, recorder: Records, rounds: list[dict], best: int) -> dict:
        """Write samples.png, the samples of the best round."""
        write_atomic(folder / "samples.png", partial(_copy, folder / f"samples/round_{best:02d}.png"))
        return {"oracle_round": None, "degraded": {"psnr": None, "ssim": None}}

    def table(self, result: dict) -> Table:
        columns = ["round", "sparsity", "params", "distance", "steps", "time"]
        table = numbers(columns, "distance: the sliced Wasserstein distance of made and real pictures, in 1/1000")
        for r in result["rounds"]:
            star = "*" if r["round"] == result["best_round"] else " "
            table.add_row(f"{star}{r['round']}", f"{r['sparsity']:.2%}", f"{r['params_left']:,}", f"{r['swd']:.2f}",
                          f"{r['step_last']:,}", spoken(r["seconds"]))
        return table

    def closing(self, folder: Path, result: dict) -> str:
        there = [n for n in ("generator.safetensors", "samples.png", "tickets") if (folder / n).exists()]
        return "\n".join([*tickets_used(result), f"{folder}/: {', '.join([*there, 'rounds.jsonl', 'result.json'])}"])


class SampleRecorder(Records):
    """The records, sheets of samples, and the trained networks.

    samples/round_NN.png are samples of each round's end, samples/round_NN_step_NNNNNN.png those on the way there. A run
    that prunes nothing leaves generator.safetensors, with the critic; one that does leaves the trained generators
    beside its tickets, if they are to be saved.
    """

    reported = ("loss", "swd")

    def __init__(self, folder: Path, pruning: IterativePruning, about: Mapping[str, str], save_trained: bool,
                 half: bool):
        super().__init__(folder, pruning, about)
        self.save_trained, self.half = save_trained, half

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        for step, pictures in module.sheets:
            (self.folder / "samples").mkdir(exist_ok=True)
            write_png(self.folder / f"samples/round_{trainer.current_epoch:02d}_step_{step:06d}.png", grid(pictures))

    def files(self, round_: Mapping, module: Adversarial) -> list[Path]:
        return [self.folder / f"samples/round_{round_['round']:02d}.png"]

    def write(self, round_: int, module: Adversarial) -> None:
        (self.folder / "samples").mkdir(exist_ok=True)
        write_png(self.folder / f"samples/round_{round_:02d}.png", grid(module.samples()))
        if not self.prunes:
            save(self.folder / "generator.safetensors", module.average, module.critic, about=self.about, half=self.half)

    def trained(self, module: Adversarial) -> Mapping[str, Tensor] | None:
        return module.average.state_dict() if self.save_trained else None

    def log_files(self, logger: Logger, record: Mapping) -> None:
        if hasattr(logger, "log_image"):
            logger.log_image("samples", [str(self.folder / f"samples/round_{record['round']:02d}.png")],
                             caption=[f"round {record['round']}, sparsity {record['sparsity']:.2%}"])


def grid(pictures: Tensor) -> Tensor:
    """Return pictures (N, C, H, W) as one (1, C, rows H, columns W), in as many columns as rows or one more."""
    n, c, h, w = pictures.shape
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    filled = pictures.new_ones(rows * columns, c, h, w)
    filled[:n] = pictures
    return filled.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(1, c, rows * h, columns * w)


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())
