"""One run: config -> pictures, problems, prior, pruner, fit, callbacks -> Trainer.fit -> result.json."""
import contextlib
import copy
import json
import math
import platform
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lipfw import __version__
from lipfw.batch import Side, side_by_side
from lipfw.cores import claim
from lipfw.errors import InputError, choice, number, whole
from lipfw.files import alone, read_jsonl, sweep_parts, write_atomic, write_json, write_text
from lipfw.fit.checkpoint import Checkpoint, usable
from lipfw.fit.evaluation import psnr, ssim
from lipfw.fit.memory import check_memory
from lipfw.fit.progress import FitProgress
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import Ended, IterativePruning
from lipfw.fit.stepping import check_kernel
from lipfw.fit.stopping import last_before_rises
from lipfw.fit.trainer import device_name, make_trainer
from lipfw.folder import group_digest, label_parts, members, run_folder
from lipfw.image.dataset import Dataset
from lipfw.image.picture import Picture, check_pixels
from lipfw.image.read import read
from lipfw.image.write import sheet
from lipfw.malloc import keep_freed_memory
from lipfw.problem import Problem
from lipfw.recorder import Recorder
from lipfw.summary import closing, panels, rounds_table
from lipfw.tracking import close_logger, end_loggers, log_result, open_logger


def run(cfg: DictConfig, command: str | None = None) -> dict | list[dict]:
    """Do one run, or fit.batch_seeds of them side by side; returns its result, or a list of theirs."""
    each = members(cfg)
    if len(each) == 1:
        return _run(cfg, command)
    cuda, quiet = device_name(cfg.trainer.accelerator) == "cuda", cfg.trainer.progress is False
    try:
        with _threads(cfg, Console(quiet=quiet), len(each)):
            return side_by_side({one.seed: partial(_run, one, command) for one in each}, cuda=cuda, quiet=quiet)
    finally:
        end_loggers(cfg)


def _run(cfg: DictConfig, command: str | None, side: Side | None = None) -> dict:
    """Do one run, or take it up where it was killed; returns its result. A finished run returns at once.

    Results lie in `run_folder(cfg)`: config.yaml, steps.jsonl, rounds.jsonl, restored pictures, tickets and, written
    last, result.json. Nothing is written before the whole config has proved sound. `command` is what the user typed,
    for result.json. Raises InputError for the user's mistakes, among them a folder that another process works in.
    """
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    folder = run_folder(cfg)
    quiet = choice("trainer.progress", cfg.trainer.progress, ("auto", False)) is False
    console = Console(quiet=quiet) if side is None else side.console
    done = folder / "result.json"
    if not done.exists():
        with contextlib.nullcontext() if side is not None else _threads(cfg, console):
            parts = _build(cfg, side.fits if side is not None else 1)
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder):
                if not done.exists():       # nobody else has finished it meanwhile
                    return _fit(cfg, folder, console, command, side, *parts)
    result = json.loads(done.read_text())
    ended = f" ({result['ended']})" if result.get("ended") else ""
    console.print(f"already finished: {folder}{ended}", highlight=False, soft_wrap=True)
    return result


@contextlib.contextmanager
def _threads(cfg: DictConfig, console: Console, fits: int = 1) -> Iterator[None]:
    """Have torch run on the cores that are free, or on as many threads as the user says; on a GPU no core is held.

    Fits side by side share the cores out, unless the user says how many threads each has.
    """
    asked = cfg.trainer.threads
    if asked is not None:
        whole("trainer.threads", asked, least=1)
    if device_name(cfg.trainer.accelerator) == "cuda":
        if asked is not None:
            torch.set_num_threads(asked)
        yield
        return
    with claim(asked, fits) as (threads, remark):
        torch.set_num_threads(threads)
        if remark:
            console.print(remark, highlight=False, soft_wrap=True)
        yield


def _build(cfg: DictConfig, fits: int) -> tuple[list[Picture], list[Problem], Restoration, IterativePruning]:
    """Make all parts of a run and check them against each other and the machine."""
    whole("seed", cfg.seed, least=0)
    device = device_name(cfg.trainer.accelerator)
    check_kernel(cfg.fit.kernel, device)
    number("trainer.checkpoint_seconds", cfg.trainer.checkpoint_seconds, 0, math.inf)
    pictures = instantiate(cfg.image)
    if isinstance(pictures, Dataset):
        raise InputError(f"{pictures.name} is a data set to train a network on, not a picture to restore; use e.g. "
                         "image=face or image=folder")
    task = instantiate(cfg.task)
    problems = [task(p) for p in pictures]
    for p in problems:      # super-resolution makes pictures larger than the file
        check_pixels(f"the restored {p.name}", p.shape[2], p.shape[1], cfg.image.max_pixels)
    prior = instantiate(cfg.prior)(shapes=[p.shape for p in problems])
    check_memory(prior, device, fits)
    pruning = IterativePruning(instantiate(cfg.pruner))
    fit = copy.deepcopy(cfg).fit
    fit.pop("batch_seeds", None)        # around a fit, not in it
    module = instantiate(fit)(problems=problems, prior=prior, precision=cfg.trainer.precision)
    pruning.prepare(module)     # refuses a foreign ticket before anything is written
    return pictures, problems, module, pruning


def _fit(cfg: DictConfig, folder: Path, console: Console, command: str | None, side: Side | None,
         pictures: list[Picture], problems: list[Problem], module: Restoration, pruning: IterativePruning) -> dict:
    """Fit all rounds from the last checkpoint on, in a folder that this process holds alone, and write the result.

    Raises Ended, with the result of the rounds before it written, if a round can't be pruned.
    """
    started = time.monotonic()
    sweep_parts(folder)
    checkpoint = usable(folder / "checkpoint.ckpt")
    console.print(f"{folder}: {', '.join(f'{p.name} {p.shape[2]}x{p.shape[1]}' for p in problems)}",
                  highlight=False, soft_wrap=True)
    if device_name(cfg.trainer.accelerator) == "cpu" and keep_freed_memory() and any(
            p.shape[1] * p.shape[2] >= 256 * 256 for p in problems):       # below, it makes no difference
        console.print("freed memory is kept for the next step, which pictures of 256x256 pixels and more gain from; "
                      "MALLOC_* variables of your own would win", highlight=False, soft_wrap=True)
    about = {"architecture": json.dumps(module.prior.architecture), "pruner": cfg.pruner._target_,
             "seed": str(cfg.seed), "task": cfg.task._target_, "image": ", ".join(p.name for p in pictures),
             "run": folder.name, "label": "-".join(label_parts(cfg)[:-1]), "options": group_digest(cfg)}
    recorder = Recorder(folder, pruning, pictures, about)
    # the recorder's clock starts after the estimate, and a checkpoint counts on what the recorder has written
    callbacks = [pruning, *([] if console.quiet else [FitProgress(pruning, console)]), recorder,
                 Checkpoint(folder / "checkpoint.ckpt", cfg.trainer.checkpoint_seconds)]
    if side is not None:
        module.after_step.append(side.check)
    logger = open_logger(cfg, folder, side is not None)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    ended = None
    try:
        trainer = make_trainer(pruning.rounds, callbacks, cfg.trainer.accelerator, logger, folder)
        try:
            trainer.fit(module, ckpt_path=checkpoint)
        except Ended as e:      # the rounds that there are make a result; then the user is told
            if not read_jsonl(folder / "rounds.jsonl"):
                raise
            ended = e
        result = _finish(folder, cfg, recorder, pruning, problems)
        device = device_name(cfg.trainer.accelerator)       # the module is back on the CPU
        result |= {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                   "precision": module.precision, **_tf32(device), "threads": torch.get_num_threads(),
                   "wall_seconds_this_start": round(time.monotonic() - started, 3), "command": command,
                   "ended": str(ended) if ended is not None else None}
        if logger is not None:
            log_result(logger, folder)
    finally:
        if logger is not None:
            close_logger(logger)
            if side is None:
                end_loggers(cfg)
    write_json(folder / "result.json", result)
    (folder / "checkpoint.ckpt").unlink(missing_ok=True)
    console.print(rounds_table(result))
    console.print(closing(folder, result), highlight=False, soft_wrap=True)
    if ended is not None:
        raise ended
    return result


def _finish(folder: Path, cfg: DictConfig, recorder: Recorder, pruning: IterativePruning,
            problems: list[Problem]) -> dict:
    """Choose the best ticket without the clean picture, write restored.png and compare.png, return the result."""
    rounds = read_jsonl(folder / "rounds.jsonl")
    best = last_before_rises([r["loss"] for r in rounds], pruning.pruner.patience)
    known = [r for r in rounds if r["psnr_picked"] is not None]
    oracle = max(known, key=lambda r: r["psnr_picked"])["round"] if known else None
    origins = getattr(pruning.pruner, "origins", list)()
    degraded = []
    for i, p in enumerate(problems):
        picture, suffix = recorder.picture_name(best, i), recorder.suffix(i)
        write_atomic(folder / f"restored{suffix}.png", partial(shutil.copyfile, folder / picture))
        restored = read(folder / picture).pixels
        view = p.operator.cpu().view(p.measurement.cpu())
        degraded.append({"psnr": float(psnr(p, view)), "ssim": float(ssim(p, view))})
        sheet(panels(p, view, restored, degraded[-1]["psnr"]), folder / f"compare{suffix}.png")
    return {
        "run": folder.name, "best_round": best, "oracle_round": oracle, "rounds": rounds,
        **({"tickets": origins} if origins else {}),
        "degraded": {k: _finite(sum(d[k] for d in degraded) / len(degraded)) for k in ("psnr", "ssim")},
        "seconds": round(sum(r["seconds"] for r in rounds), 3),
        "versions": {"lipfw": __version__, "torch": torch.__version__, "pytorch_lightning": pl.__version__,
                     "python": platform.python_version()},
        "config": OmegaConf.to_container(cfg),
    }


def _tf32(device: str) -> dict:
    """Return whether a GPU rounds the factors of 32-bit products to 19 bits, in convolutions and in matrix products."""
    if device != "cuda":
        return {}
    return {"tf32": {"convolutions": torch.backends.cudnn.allow_tf32,
                     "matrix_products": torch.get_float32_matmul_precision() != "highest"}}


def _finite(value: float) -> float | None:
    """Return None for NaN (no clean picture) and infinity (nothing was degraded): JSON has neither."""
    return value if math.isfinite(value) else None
