"""The experiment logger that a config names: opened in the run folder, given pictures and tickets, and closed."""
import hashlib
import os
import shutil
from pathlib import Path

from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from lipfw.errors import InputError
from lipfw.folder import label_parts


def open_logger(cfg: DictConfig, folder: Path) -> Logger | None:
    """Return the configured logger, or None. Its files go into the run folder, so that the folder can be moved.

    Raises InputError if it can't be started; a folder that was empty is then removed again.
    """
    if cfg.logger._target_ is None:
        return None
    os.environ.setdefault("WANDB_SILENT", "true")               # its start-up remarks are about an account
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):      # else artifacts are staged in the home folder
        os.environ[variable] = str((folder / "wandb").resolve())
    new = not any(folder.iterdir())
    (folder / "wandb").mkdir(exist_ok=True)
    # one id for a run however often it is taken up again, so that its pieces meet in one place
    run_id = hashlib.sha256(f"{cfg.name}/{folder.name}".encode()).hexdigest()[:16]
    try:
        make = instantiate({k: v for k, v in cfg.logger.items() if k != "close"}, _partial_=True)
        logger = make(name=folder.name, id=run_id, save_dir=str(folder), tags=label_parts(cfg),
                      config=OmegaConf.to_container(cfg))
        _ = logger.experiment       # connects: what is wrong with mode, project or key shows here
    except OSError:
        raise
    except Exception as e:
        if new:
            shutil.rmtree(folder)
        told = " ".join(str(e).split())
        raise InputError(f"the logger can't start ({told[:200]}); use logger.mode=offline, or logger=none") from e
    return logger


def log_result(logger: Logger, folder: Path) -> None:
    """Log the comparison pictures and the tickets."""
    if hasattr(logger, "log_image"):
        sheets = sorted(folder.glob("compare*.png"))
        logger.log_image("compare", [str(p) for p in sheets], caption=[p.stem for p in sheets])
    tickets = folder / "tickets"
    if tickets.is_dir() and hasattr(logger.experiment, "log_artifact"):
        logger.experiment.log_artifact(str(tickets), name=f"tickets-{folder.name}", type="tickets")


def close_logger(logger: Logger, cfg: DictConfig) -> None:
    """End the logger's run, so that the next run of a sweep gets its own, and wait until its files are complete."""
    if hasattr(logger.experiment, "finish"):
        logger.experiment.finish()
    if cfg.logger.get("close"):
        get_method(cfg.logger.close)()
