"""Runs that train a classifier: rounds, tickets and test accuracies."""
import inspect
import json
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.table import Table

from lipfw.errors import InputError
from lipfw.fit.classification import Classification
from lipfw.fit.rounds import IterativePruning
from lipfw.image.classes import Labelled
from lipfw.job import Job
from lipfw.records import Records
from lipfw.summary import numbers, tickets_used
from lipfw.words import spoken


class Classifying(Job):
    """One training of a classifier: `task` says what of the labelled data is used."""

    def __init__(self, cfg: DictConfig, task, data: Labelled, device: str | None, fits: int):
        data, build = task(data), instantiate(cfg.prior)
        if "classes" not in inspect.signature(build).parameters:
            raise InputError(f"classification needs a network that tells classes apart, and "
                             f"prior={cfg.prior._target_.split('.')[-2]} makes pictures; use prior=classifier")
        self.data, network = data, build(shapes=[tuple(data.train.shape[1:])], classes=len(data.classes))
        self.pruning = IterativePruning(instantiate(cfg.pruner), target="network")
        self.module: Classification = instantiate(cfg.fit)(
            train=(data.train, data.train_labels), test=(data.test, data.test_labels), network=network,
            precision=cfg.trainer.precision)
        self.title = (f"{len(data.train):,} + {len(data.test):,} pictures of {data.name}, {data.size}x{data.size}, "
                      f"{len(data.classes)} classes")
        self.about = {"architecture": json.dumps(network.architecture), "image": data.name}

    def recorder(self, folder: Path, about: dict[str, str]) -> Records:
        return Accuracies(folder, self.pruning, about)

    def finish(self, folder: Path, recorder: Records, rounds: list[dict], best: int) -> dict:
        """Return the round that the test pictures would choose: of equal ones the chosen one, if it is among them."""
        return {"oracle_round": max(rounds, key=lambda r: (r["accuracy"], r["round"] == best))["round"],
                "degraded": {"psnr": None, "ssim": None}}

    def table(self, result: dict) -> Table:
        columns = ["round", "sparsity", "params", "loss", "train", "accuracy", "best", "steps", "time"]
        table = numbers(columns, "percentages of pictures that are told right: of the last epoch's training pictures, "
                                 "of the test pictures at the end (accuracy) and at the best step (best, an oracle)")
        for r in result["rounds"]:
            star = "*" if r["round"] == result["best_round"] else " "
            table.add_row(f"{star}{r['round']}", f"{r['sparsity']:.2%}", f"{r['params_left']:,}", f"{r['loss']:.3e}",
                          *(f"{r[k]:.2f}" for k in ("train_accuracy", "accuracy", "accuracy_best")),
                          f"{r['step_last']:,}", spoken(r["seconds"]))
        return table

    def closing(self, folder: Path, result: dict) -> str:
        chosen, oracle = (result["rounds"][result[k]] for k in ("best_round", "oracle_round"))
        lines = [f"* round {chosen['round']}, chosen by the training loss: {chosen['sparsity']:.1%} sparse, "
                 f"{chosen['accuracy']:.2f} % of the test pictures"]
        if oracle["round"] != chosen["round"]:
            lines.append(f"best round by the test pictures: {oracle['round']} ({oracle['sparsity']:.1%} sparse, "
                         f"{oracle['accuracy']:.2f} %)")
        there = [n for n in ("tickets", "rounds.jsonl", "result.json") if (folder / n).exists()]
        return "\n".join([*lines, *tickets_used(result), f"{folder}/: {', '.join(there)}"])


class Accuracies(Records):
    """The records; a classifier leaves no pictures."""

    reported = ("loss", "train_accuracy", "accuracy", "accuracy_best")
