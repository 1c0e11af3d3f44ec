"""One run: config -> pictures, problems, prior, pruner, fit, callbacks -> Trainer.fit -> result.json."""
import contextlib
import json
import math
import platform
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lipfw import __version__, failed
from lipfw.batch import Side, Stopped, side_by_side
from lipfw.classifying import Classifying
from lipfw.cores import claim
from lipfw.errors import InputError, choice, number, whole
from lipfw.files import read_jsonl, sweep_parts, write_json, write_text
from lipfw.fit.adversarial import Adversarial
from lipfw.fit.checkpoint import Checkpoint, before, usable
from lipfw.fit.classification import Classification
from lipfw.fit.progress import FitProgress
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import Ended
from lipfw.fit.stepping import check_kernel
from lipfw.fit.stopping import last_before_rises
from lipfw.fit.trainer import device_name, make_trainer, quiet
from lipfw.folder import group_digest, label_parts, members, run_folder, told
from lipfw.interrupt import Interrupted, heed
from lipfw.job import Job
from lipfw.lock import Claim, alone
from lipfw.malloc import keep_freed_memory
from lipfw.prior.isnas import Search
from lipfw.records import Records
from lipfw.redact import tree
from lipfw.restoring import Restoring
from lipfw.search import choose, of_finalist, with_network
from lipfw.tracking import close_logger, end_loggers, log_result, open_logger
from lipfw.training import Training

_JOBS = {       # what tasks and fits say that they do -> the kind of run, and the fits that do it
    Restoration.does: (Restoring, "fit=restoration"),
    Adversarial.does: (Training, "fit=adversarial, or fit=finetune"),
    Classification.does: (Classifying, "fit=classification"),
}


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
    for result.json. Raises InputError for the user's mistakes, among them a folder that another process works in, and
    Interrupted when the process is asked to stop; a run that fails leaves failed.json.
    """
    shown, folder = told(cfg), run_folder(cfg)      # before the next line: it forgets which values are secrets
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    if get_class(cfg.fit._target_).cpu_only:
        cfg.trainer.accelerator = "cpu"
    quiet = choice("trainer.progress", cfg.trainer.progress, ("auto", False)) is False
    console = Console(quiet=quiet) if side is None else side.console
    done = folder / "result.json"
    if not done.exists():
        with contextlib.nullcontext() if side is not None else _threads(cfg, console):
            heed("before the first step")
            job = _build(cfg, side.fits if side is not None else 1)
            heed("before the first step")
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder) as claim:
                if not done.exists():       # nobody else has finished it meanwhile
                    with _reason_left(folder):
                        if job.search is not None:
                            job = _searched(cfg, shown, folder, console, side, job, claim)
                        job.module.after_step.append(claim.check)
                        return _fit(cfg, shown, folder, console, command, side, job)
    result = json.loads(done.read_text())
    ended = f" ({result['ended']})" if result.get("ended") else ""
    console.print(f"already finished: {folder}{ended}", highlight=False, soft_wrap=True)
    return result


@contextlib.contextmanager
def _reason_left(folder: Path) -> Iterator[None]:
    """Leave the reason in the folder if what is done inside the block fails; a run that has been stopped has not."""
    failed.clear(folder)
    try:
        yield
    except (Interrupted, Stopped):
        raise
    except Exception as e:
        if not (folder / "result.json").exists():
            failed.leave(folder, e)
        raise


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


def _build(cfg: DictConfig, fits: int) -> Job:
    """Make all parts of a run and check them against each other and the machine."""
    device = device_name(cfg.trainer.accelerator)
    check_kernel(cfg.fit.get("kernel", "auto"), device)
    job = parts(cfg, instantiate(cfg.image), device, fits)
    if job.search is None:
        job.pruning.prepare(job.module)     # refuses a foreign ticket before anything is written
    else:       # the network is another one later, and the finalists' fits must be possible, too
        job.pruning.plan(job.module)
        try:
            _build(_of_finalist(cfg, job.search, job.search.candidate(0), Path()), fits)
        except InputError as e:     # it speaks of the steps as the run's own
            raise InputError(f"a finalist's fit, of prior.finalist_steps={job.search.finalist_steps}: {e}") from None
    return job


def _of_finalist(cfg: DictConfig, search: Search, options: dict, folder: Path) -> DictConfig:
    return OmegaConf.create(of_finalist(OmegaConf.to_container(cfg), options, search.finalist_steps, folder))


def parts(cfg: DictConfig, pictures, device: str | None, fits: int = 1) -> Job:
    """Make the parts of a run on `pictures`, as cfg.image gives them, and check them against each other.

    The device is where it is to run: its memory is checked. None: no machine that is known.
    """
    whole("seed", cfg.seed, least=0)
    number("trainer.checkpoint_seconds", cfg.trainer.checkpoint_seconds, 0, math.inf)
    task = instantiate(cfg.task)
    does = getattr(task, "does", Restoration.does)
    if get_class(cfg.fit._target_).does != does:
        fit, name = cfg.fit._target_.rpartition(".")[2], cfg.task._target_.split(".")[-2]
        raise InputError(f"task={name} {does}, which {fit} does not; use {_JOBS[does][1]}")
    return _JOBS[does][0](cfg, task, pictures, device, fits)


def _searched(cfg: DictConfig, shown: dict, folder: Path, console: Console, side: Side | None, job: Job,
              claim: Claim) -> Job:
    """Return the job on the network that is chosen of many: the finalists' fits are runs inside the folder."""
    fits = side.fits if side is not None else 1
    tell = partial(console.print, highlight=False, soft_wrap=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(shown))        # from now on it is seen to be a run's folder

    def fit(options: dict) -> tuple[Path, float]:
        one, told_of = (_of_finalist(c, job.search, options, folder) for c in (cfg, OmegaConf.create(shown)))
        below = run_folder(one)
        if not (below / "result.json").exists():
            below.mkdir(parents=True, exist_ok=True)
            finalist = _build(one, fits)
            finalist.module.after_step.append(claim.check)
            _fit(one, OmegaConf.to_container(told_of), below, Console(quiet=True), None, side, finalist)
        return below, json.loads((below / "result.json").read_text())["seconds"]

    record = choose(job.search, job.problems, folder, tell, fit, device_name(cfg.trainer.accelerator))
    found = _build(OmegaConf.create(with_network(OmegaConf.to_container(cfg), record["chosen"])), fits)
    found.found = record
    return found


@quiet()
def _fit(cfg: DictConfig, shown: dict, folder: Path, console: Console, command: str | None, side: Side | None,
         job: Job) -> dict:
    """Fit all rounds from the last checkpoint on, in a folder that this process holds alone, and write the result.

    `shown` is the config as it may be written down. Raises Ended, with the result of the rounds before it written, if a
    round can't be pruned.
    """
    started = time.monotonic()
    sweep_parts(folder)
    path, module, pruning = folder / "checkpoint.ckpt", job.module, job.pruning
    checkpoint = usable(path, partial(console.print, highlight=False, soft_wrap=True))
    console.print(f"{folder}: {job.title}", highlight=False, soft_wrap=True)
    # below that size, it makes no difference
    if device_name(cfg.trainer.accelerator) == "cpu" and keep_freed_memory() and job.large:
        console.print("freed memory is kept for the next step, which pictures of 256x256 pixels and more gain from; "
                      "MALLOC_* variables of your own would win", highlight=False, soft_wrap=True)
    about = {**job.about, "pruner": cfg.pruner._target_, "seed": str(cfg.seed), "task": cfg.task._target_,
             "run": folder.name, "label": "-".join(label_parts(cfg)[:-1]),
             "options": group_digest(OmegaConf.create(shown))}
    recorder = job.recorder(folder, tree(about))
    # the recorder's clock starts after the estimate, and a checkpoint counts on what the recorder has written
    callbacks = [*job.callbacks(), pruning, *([] if console.quiet else [FitProgress(pruning, console)]), recorder,
                 Checkpoint(path, cfg.trainer.checkpoint_seconds)]
    if side is not None:
        module.after_step.append(side.check)
    logger = open_logger(cfg, shown, folder, side is not None)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(shown))
    ended = None
    try:
        trainer = make_trainer(pruning.rounds, callbacks, cfg.trainer.accelerator, logger, folder)
        try:
            trainer.fit(module, ckpt_path=checkpoint)
        except Ended as e:      # the rounds that there are make a result; then the user is told
            if not read_jsonl(folder / "rounds.jsonl"):
                raise
            ended = e
        result = _result(folder, shown, job, recorder)
        device = device_name(cfg.trainer.accelerator)       # the module is back on the CPU
        result |= {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                   "precision": module.precision, **_tf32(device), "threads": torch.get_num_threads(),
                   "wall_seconds_this_start": round(time.monotonic() - started, 3), "command": command,
                   "ended": str(ended) if ended is not None else None}
        if logger is not None:
            log_result(logger, folder, result)
    finally:
        if logger is not None:
            close_logger(logger)
            if side is None:
                end_loggers(cfg)
    write_json(folder / "result.json", result)
    for p in (path, before(path)):
        p.unlink(missing_ok=True)
    console.print(job.table(result))
    console.print(job.closing(folder, result), highlight=False, soft_wrap=True)
    if ended is not None:
        raise ended
    return result


def _result(folder: Path, shown: dict, job: Job, recorder: Records) -> dict:
    """Choose the best ticket without a clean picture, let the job write its pictures, and return the result."""
    rounds, pruner = read_jsonl(folder / "rounds.jsonl"), job.pruning.pruner
    best = last_before_rises([r["loss"] for r in rounds], pruner.patience)
    origins = getattr(pruner, "origins", list)()
    return {
        "run": folder.name, "best_round": best, "rounds": rounds, **({"tickets": origins} if origins else {}),
        **({"search": job.found} if job.found is not None else {}),
        **job.finish(folder, recorder, rounds, best),
        "seconds": round(sum(r["seconds"] for r in rounds), 3),
        "versions": {"lipfw": __version__, "torch": torch.__version__, "pytorch_lightning": pl.__version__,
                     "python": platform.python_version()},
        "config": shown,
    }


def _tf32(device: str) -> dict:
    """Return whether a GPU rounds the factors of 32-bit products to 19 bits, in convolutions and in matrix products."""
    if device != "cuda":
        return {}
    return {"tf32": {"convolutions": torch.backends.cudnn.allow_tf32,
                     "matrix_products": torch.get_float32_matmul_precision() != "highest"}}
