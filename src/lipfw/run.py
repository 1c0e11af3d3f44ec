"""One run: config -> pictures, problems, prior, pruner, fit, callbacks -> Trainer.fit -> result.json."""
import json
import logging
import os
import platform
import shutil
import time
import warnings
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from lipfw.errors import InputError, whole
from lipfw.files import read_jsonl, write_atomic, write_json, write_text
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.evaluation import psnr, ssim
from lipfw.fit.progress import FitProgress, spoken
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stopping import last_before_rises
from lipfw.folder import label_parts, run_folder
from lipfw.image.picture import Picture
from lipfw.image.read import read
from lipfw.image.write import sheet
from lipfw.problem import Problem
from lipfw.recorder import Recorder


def run(cfg: DictConfig, command: str | None = None) -> dict:
    """Do one run, or take it up where it was killed; returns its result. A finished run returns at once.

    Results lie in `run_folder(cfg)`: config.yaml, steps.jsonl, rounds.jsonl, restored pictures, tickets and, written
    last, result.json. Nothing is written before the whole config has proved sound. `command` is what the user typed,
    for result.json.
    """
    started = time.monotonic()
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    folder = run_folder(cfg)
    console = Console(quiet=cfg.trainer.progress is False)
    done = folder / "result.json"
    if done.exists():
        console.print(f"already finished: {folder}", highlight=False, soft_wrap=True)
        return json.loads(done.read_text())

    whole("seed", cfg.seed, least=0)
    accelerator = _accelerator(cfg.trainer.accelerator)
    if cfg.trainer.threads is not None:
        torch.set_num_threads(whole("trainer.threads", cfg.trainer.threads, least=1))
    pictures: list[Picture] = instantiate(cfg.image)
    task = instantiate(cfg.task)
    problems: list[Problem] = [task(p) for p in pictures]
    prior = instantiate(cfg.prior)(shapes=[p.shape for p in problems])
    pruning = IterativePruning(instantiate(cfg.pruner))
    module = instantiate(cfg.fit)(problems=problems, prior=prior)
    if pruning.schedule.rewind_step > module.steps:
        raise InputError(f"pruner.rewind_step={pruning.schedule.rewind_step} lies beyond fit.steps={module.steps}; "
                         "use a step of the fit")
    pruning.pruner.prepare(prior.network)      # refuses a foreign ticket before anything is written

    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"{folder}: {', '.join(f'{p.name} {p.shape[2]}x{p.shape[1]}' for p in problems)}",
                  highlight=False, soft_wrap=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    about = {"architecture": json.dumps(prior.architecture), "pruner": cfg.pruner._target_, "seed": str(cfg.seed),
             "task": cfg.task._target_, "image": ", ".join(p.name for p in pictures), "run": folder.name}
    recorder = Recorder(folder, pruning, pictures, about)
    checkpoint = folder / "checkpoint.ckpt"
    callbacks = [pruning, recorder, Checkpoint(checkpoint, cfg.trainer.checkpoint_seconds)]
    if cfg.trainer.progress is not False:
        callbacks.insert(2, FitProgress(pruning, console))
    _quiet_libraries()
    logger = _logger(cfg, folder)
    try:
        trainer = pl.Trainer(accelerator=accelerator, devices=1, max_epochs=pruning.schedule.rounds,
                             callbacks=callbacks, logger=logger or False, enable_progress_bar=False,
                             enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
                             default_root_dir=folder)
        trainer.fit(module, ckpt_path=checkpoint if checkpoint.exists() else None)
        result = _finish(folder, cfg, recorder, problems, started, str(module.device), command)
        if logger is not None:
            _log_result(logger, folder, result)
    finally:
        if logger is not None:
            _close(logger, cfg)
    write_json(done, result)
    checkpoint.unlink(missing_ok=True)
    console.print(_table(result))
    console.print(_closing(folder, result), highlight=False, soft_wrap=True)
    return result


def _accelerator(name: str) -> str:
    """Return Lightning's word for the device. Raises InputError if it is not there."""
    if name == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise InputError("trainer=gpu, but torch sees no GPU on this machine; use trainer=auto or trainer=cpu")
    return name


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
        sheet(_panels(p, view, restored, degraded[-1]["psnr"]), folder / f"compare{suffix}.png")
    n = len(problems)
    known = all(p.image is not None for p in problems)
    return {
        "run": folder.name, "best_round": best, "rounds": rounds,
        "degraded": {k: sum(d[k] for d in degraded) / n if known else None for k in ("psnr", "ssim")},
        "versions": {"lipfw": _version(), "torch": torch.__version__, "pytorch_lightning": pl.__version__,
                     "python": platform.python_version()},
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "threads": torch.get_num_threads(),
        "seconds": round(sum(r["seconds"] for r in rounds), 3),
        "wall_seconds_this_start": round(time.monotonic() - started, 3),
        "command": command,
        "config": OmegaConf.to_container(cfg),
    }


def _panels(problem: Problem, view: torch.Tensor, restored: torch.Tensor, view_psnr: float) -> list:
    """Return compare.png's panels: clean, degraded, restored, error x4; what is not known is left out."""
    x = problem.image.cpu() if problem.image is not None else None
    if x is None:
        return [("degraded", view), ("restored", restored), ("change x4", ((restored - view).abs() * 4).clamp(0, 1))]
    return [("clean", x), (f"degraded\n{view_psnr:.2f} dB", view),
            (f"restored\n{float(psnr(problem, restored)):.2f} dB", restored),
            ("error x4", ((restored - x).abs() * 4).clamp(0, 1))]


def _table(result: dict) -> Table:
    """Return the rounds as a table; a star marks the ticket that was chosen without the clean picture."""
    known = result["rounds"][0]["psnr_final"] is not None
    columns = ["round", "sparsity", "params", "loss"] + (["peak", "picked", "final", "SSIM"] if known else [])
    table = Table(*columns, "step", "time", box=None, pad_edge=False, caption_justify="left", caption=(
        "PSNR in dB: best step (peak, an oracle), picked without the clean picture, last; SSIM and step of the picked"
        if known else "step: the one picked"))
    for column in table.columns:
        column.justify = "right"
    for r in result["rounds"]:
        star = "*" if r["round"] == result["best_round"] else " "
        cells = [f"{star}{r['round']}", f"{r['sparsity']:.2%}", f"{r['params_left']:,}", f"{r['loss']:.3e}"]
        if known:
            cells += [f"{r[f'psnr_{k}']:.2f}" for k in ("peak", "picked", "final")]
            cells += [f"{r['ssim_picked']:.3f}" if r["ssim_picked"] is not None else "-"]
        table.add_row(*cells, str(r["step_picked"]), spoken(r["seconds"]))
    return table


def _closing(folder: Path, result: dict) -> str:
    """Return the last lines of a run: what was gained and where it lies."""
    best = result["rounds"][result["best_round"]]
    line = f"* round {best['round']}, chosen without the clean picture: {best['sparsity']:.1%} sparse"
    if result["degraded"]["psnr"] is not None:
        line += f", {result['degraded']['psnr']:.2f} -> {best['psnr_picked']:.2f} dB"
    return f"{line}\n{folder}/: restored.png, compare.png, rounds.jsonl, result.json"


def _version() -> str:
    from lipfw import __version__

    return __version__


# --- the logger

def _quiet_libraries() -> None:
    """Keep Lightning's adverts and its warnings about things that are on purpose here off the terminal."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (".*does not have many workers.*", ".*`train_dataloader`.*", ".*anonymous.*", ".*LeafSpec.*",
                 ".*tensorboardX.*", ".*GPU available but not used.*", ".*mid-epoch.*"):
        warnings.filterwarnings("ignore", text)


def _logger(cfg: DictConfig, folder: Path):
    """Return the configured logger, or None. Its files go into the run folder, so that the folder can be moved."""
    if cfg.logger._target_ is None:
        return None
    os.environ.setdefault("WANDB_SILENT", "true")               # its start-up remarks are about an account
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):      # else artifacts are staged in the home folder
        os.environ[variable] = str((folder / "wandb").resolve())
    (folder / "wandb").mkdir(exist_ok=True)
    make = instantiate({k: v for k, v in cfg.logger.items() if k != "close"}, _partial_=True)
    return make(name=folder.name, save_dir=str(folder), tags=label_parts(cfg),
                config=OmegaConf.to_container(cfg))


def _log_result(logger, folder: Path, result: dict) -> None:
    """Log the comparison pictures and the tickets."""
    if hasattr(logger, "log_image"):
        sheets = sorted(folder.glob("compare*.png"))
        logger.log_image("compare", [str(p) for p in sheets], caption=[p.stem for p in sheets])
    tickets = folder / "tickets"
    if tickets.is_dir() and hasattr(logger.experiment, "log_artifact"):
        logger.experiment.log_artifact(str(tickets), name=f"tickets-{folder.name}", type="tickets")


def _close(logger, cfg: DictConfig) -> None:
    """End the logger's run, so that the next run of a sweep gets its own, and wait until its files are complete."""
    if hasattr(logger.experiment, "finish"):
        logger.experiment.finish()
    if cfg.logger.get("close"):
        get_method(cfg.logger.close)()
