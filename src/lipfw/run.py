"""One run: config -> pictures, problems, prior, pruner, fit, callbacks -> Trainer.fit -> result.json."""
import json
import math
import platform
import shutil
import time
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lipfw import __version__
from lipfw.errors import choice, number, whole
from lipfw.files import read_jsonl, write_atomic, write_json, write_text
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.evaluation import psnr, ssim
from lipfw.fit.memory import check_memory
from lipfw.fit.progress import FitProgress
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stopping import last_before_rises
from lipfw.fit.trainer import device_name, make_trainer
from lipfw.folder import run_folder
from lipfw.image.picture import Picture, check_pixels
from lipfw.image.read import read
from lipfw.image.write import sheet
from lipfw.problem import Problem
from lipfw.recorder import Recorder
from lipfw.summary import closing, panels, rounds_table
from lipfw.tracking import close_logger, log_result, open_logger


def run(cfg: DictConfig, command: str | None = None) -> dict:
    """Do one run, or take it up where it was killed; returns its result. A finished run returns at once.

    Results lie in `run_folder(cfg)`: config.yaml, steps.jsonl, rounds.jsonl, restored pictures, tickets and, written
    last, result.json. Nothing is written before the whole config has proved sound. `command` is what the user typed,
    for result.json.
    """
    started = time.monotonic()
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    folder = run_folder(cfg)
    quiet = choice("trainer.progress", cfg.trainer.progress, ("auto", False)) is False
    console = Console(quiet=quiet)
    done = folder / "result.json"
    if done.exists():
        console.print(f"already finished: {folder}", highlight=False, soft_wrap=True)
        return json.loads(done.read_text())

    whole("seed", cfg.seed, least=0)
    device = device_name(cfg.trainer.accelerator)
    seconds = number("trainer.checkpoint_seconds", cfg.trainer.checkpoint_seconds, 0, math.inf)
    if cfg.trainer.threads is not None:
        torch.set_num_threads(whole("trainer.threads", cfg.trainer.threads, least=1))
    pictures: list[Picture] = instantiate(cfg.image)
    task = instantiate(cfg.task)
    problems: list[Problem] = [task(p) for p in pictures]
    for p in problems:      # super-resolution makes pictures larger than the file
        check_pixels(f"the restored {p.name}", p.shape[2], p.shape[1], cfg.image.max_pixels)
    prior = instantiate(cfg.prior)(shapes=[p.shape for p in problems])
    check_memory(prior, device)
    pruning = IterativePruning(instantiate(cfg.pruner))
    module = instantiate(cfg.fit)(problems=problems, prior=prior)
    pruning.prepare(module)     # refuses a foreign ticket before anything is written

    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"{folder}: {', '.join(f'{p.name} {p.shape[2]}x{p.shape[1]}' for p in problems)}",
                  highlight=False, soft_wrap=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    about = {"architecture": json.dumps(prior.architecture), "pruner": cfg.pruner._target_, "seed": str(cfg.seed),
             "task": cfg.task._target_, "image": ", ".join(p.name for p in pictures), "run": folder.name}
    recorder = Recorder(folder, pruning, pictures, about)
    checkpoint = folder / "checkpoint.ckpt"
    callbacks = [pruning, recorder, Checkpoint(checkpoint, seconds)]
    if not quiet:
        callbacks.insert(2, FitProgress(pruning, console))
    logger = open_logger(cfg, folder)
    try:
        trainer = make_trainer(pruning.schedule.rounds, callbacks, cfg.trainer.accelerator, logger, folder)
        trainer.fit(module, ckpt_path=checkpoint if checkpoint.exists() else None)
        result = _finish(folder, cfg, recorder, problems, started, str(module.device), command)
        if logger is not None:
            log_result(logger, folder, result)
    finally:
        if logger is not None:
            close_logger(logger, cfg)
    write_json(done, result)
    checkpoint.unlink(missing_ok=True)
    console.print(rounds_table(result))
    console.print(closing(folder, result), highlight=False, soft_wrap=True)
    return result


def _finish(folder: Path, cfg: DictConfig, recorder: Recorder, problems: list[Problem], started: float,
            device: str, command: str | None) -> dict:
    """Choose the best ticket without the clean picture, write restored.png and compare.png, return the result."""
    rounds = read_jsonl(folder / "rounds.jsonl")
    best = last_before_rises([r["loss"] for r in rounds])
    degraded = []
    for i, p in enumerate(problems):
        picture = recorder.picture_name(best, i)
        suffix = f"-{p.name}" if len(problems) > 1 else ""
        write_atomic(folder / f"restored{suffix}.png", partial(shutil.copyfile, folder / picture))
        restored = read(folder / picture).pixels
        view = p.operator.cpu().view(p.measurement.cpu())
        degraded.append({"psnr": float(psnr(p, view)), "ssim": float(ssim(p, view))})
        sheet(panels(p, view, restored, degraded[-1]["psnr"]), folder / f"compare{suffix}.png")
    n = len(problems)
    return {
        "run": folder.name, "best_round": best, "rounds": rounds,
        "degraded": {k: _finite(sum(d[k] for d in degraded) / n) for k in ("psnr", "ssim")},
        "versions": {"lipfw": __version__, "torch": torch.__version__, "pytorch_lightning": pl.__version__,
                     "python": platform.python_version()},
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "seconds": round(sum(r["seconds"] for r in rounds), 3),
        "wall_seconds_this_start": round(time.monotonic() - started, 3),
        "command": command,
        "config": OmegaConf.to_container(cfg),
    }


def _finite(value: float) -> float | None:
    """Return None for NaN (no clean picture) and infinity (nothing was degraded): JSON has neither."""
    return value if math.isfinite(value) else None
