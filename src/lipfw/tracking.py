"""The experiment logger that a config names: opened in the run folder, given pictures and tickets, and closed."""
import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from lipfw.errors import InputError
from lipfw.folder import group_digest, label_parts
from lipfw.redact import literals, text

_NOT_OPTIONS = ("close", "side_by_side")       # keys of a logger's config that it is not made with
_place = threading.Lock()       # the environment is one for all threads


@contextlib.contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let the logger put its own files into the run folder; else artifacts are staged in the home folder."""
    with _place:
        for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
            os.environ[variable] = str((folder / "wandb").resolve())
        yield


def open_logger(cfg: DictConfig, shown: dict, folder: Path, side_by_side: bool = False) -> Logger | None:
    """Return the configured logger, or None. Its files go into the run folder, so that the folder can be moved.

    It is made as `cfg` says and told `shown`, the config without secrets, and as `cell` what runs have in common that
    differ in their seeds alone. Of several runs in one process each is made
    with the config's `side_by_side` options too. Raises InputError if it can't be started; a folder that was empty is
    then removed again.
    """
    if cfg.logger._target_ is None:
        return None
    os.environ.setdefault("WANDB_SILENT", "true")               # its start-up remarks are about an account
    os.environ.setdefault("WANDB_DISABLE_GIT", "true")          # the URL of a remote may hold a token
    new = all(p.name == ".lock" for p in folder.iterdir())
    (folder / "wandb").mkdir(exist_ok=True)
    # one id for a run however often it is taken up again, so that its pieces meet in one place
    run_id = hashlib.sha256(f"{cfg.name}/{folder.name}".encode()).hexdigest()[:16]
    try:
        make = instantiate({k: v for k, v in cfg.logger.items() if k not in _NOT_OPTIONS}, _partial_=True)
        with _staged_in(folder):
            logger = make(name=folder.name, id=run_id, save_dir=str(folder), tags=label_parts(cfg),
                          config={**shown, "cell": _cell(cfg, shown)},
                          **(cfg.logger.get("side_by_side") or {} if side_by_side else {}))
            _ = logger.experiment       # connects: what is wrong with mode, project or key shows here
    except OSError:
        raise
    except Exception as e:
        if new:
            shutil.rmtree(folder)
        told = text(" ".join(str(e).split()), *literals(OmegaConf.to_container(cfg)))
        raise InputError(f"the logger can't start ({told[:200]}); use logger.mode=offline, or logger=none") from None
    return logger


def _cell(cfg: DictConfig, shown: dict) -> str:
    return "-".join([*label_parts(cfg)[:-1], group_digest(OmegaConf.create(shown))])


_IN_TABLE = ("round", "sparsity", "params_left", "empty_layers", "loss", "psnr_peak", "psnr_picked", "psnr_final",
             "ssim_picked", "step_picked", "swd", "accuracy", "seconds")


def log_result(logger: Logger, folder: Path, result: Mapping) -> None:
    """Log the comparison pictures, if there are any, the tickets, a table of the rounds, and the round that was chosen.
    """
    rounds, best = result["rounds"], result["rounds"][result["best_round"]]
    columns = [c for c in _IN_TABLE if c in best]
    if hasattr(logger, "log_table"):
        with _staged_in(folder):
            logger.log_table("tickets", columns=[*columns, "chosen"],
                             data=[[*(r[c] for c in columns), r is best] for r in rounds])
    if hasattr(logger.experiment, "summary"):       # what runs are sorted and compared by
        chosen = {f"best/{c}": best[c] for c in columns} | {f"degraded/{k}": v for k, v in result["degraded"].items()}
        logger.experiment.summary.update({k: v for k, v in chosen.items() if v is not None})
    sheets = sorted(folder.glob("compare*.png"))
    if sheets and hasattr(logger, "log_image"):
        logger.log_image("compare", [str(p) for p in sheets], caption=[p.stem for p in sheets])
    tickets = folder / "tickets"
    if tickets.is_dir() and hasattr(logger.experiment, "log_artifact"):
        with _staged_in(folder):
            logger.experiment.log_artifact(str(tickets), name=f"tickets-{folder.name}", type="tickets")


def close_logger(logger: Logger) -> None:
    """End the logger's run, so that the next run of a sweep gets its own."""
    if hasattr(logger.experiment, "finish"):
        logger.experiment.finish()


def end_loggers(cfg: DictConfig) -> None:
    """Wait until the files of all closed loggers of this process are complete."""
    if cfg.logger._target_ is not None and cfg.logger.get("close"):
        get_method(cfg.logger.close)()
