"""The command line: where the configs lie, how a sweep is spelled, and one clear line for each mistake.

Nothing here imports torch, so that --help, --cfg job and shell completion are quick.
"""
import os
import shlex
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lipfw import __version__, redact
from lipfw.argv import normalise, typed
from lipfw.configs import CONF, EXPERIMENTS, check_keys
from lipfw.cores import wait_briefly
from lipfw.errors import SeedsFailed
from lipfw.folder import members, run_folder
from lipfw.grid.launcher import NotAllDone
from lipfw.interrupt import Interrupted, listening
from lipfw.mistakes import explain
from lipfw.yamlfile import checked

_failed: list[str] = []     # mistakes of this process's runs, already told


def run(cfg: DictConfig) -> dict | None:
    """Do one run, unless it is finished; a user's mistake is told at once in one line and the sweep goes on."""
    sys.argv[1:] = map(redact.text, sys.argv[1:])       # loggers look it up
    try:
        check_keys(cfg.keys())
        folders = [run_folder(one) for one in members(cfg)]
        if all((folder / "result.json").exists() for folder in folders):
            for folder in folders:
                print(f"already finished: {folder}", flush=True)    # before torch is imported: a sweep skips in no time
            return None
        wait_briefly()
        with listening():       # before torch is imported, which takes a while
            from lipfw.run import run

            return run(cfg, shlex.join(["python", "-m", "lipfw", *map(redact.text, typed)]))
    except Interrupted as e:
        _tell_run(explain(e))
        raise
    except SeedsFailed as e:
        told = {seed: explain(error, typed) for seed, error in e.errors.items()}
        for seed, message in told.items():
            if message is not None:
                _tell_run(f"seed {seed}: {message}")
        unexplained = [e.errors[seed] for seed, message in told.items() if message is None]
        if unexplained:
            raise unexplained[0] from None      # the program's fault: its traceback is shown
        _failed.append(str(e))
        raise
    except Exception as e:
        message = explain(e, typed)
        if message is None:
            raise
        _tell_run(message)
        _failed.append(message)
        raise


def main() -> None:
    """Entry point of `lipfw` and `python -m lipfw`; exits with 0 only if every run was done."""
    os.environ["HYDRA_FULL_ERROR"] = "1"    # errors reach us instead of being printed by Hydra
    sys.stdout, sys.stderr = redact.Told(sys.stdout), _Filter(sys.stderr)
    typed[:] = sys.argv[1:]
    if typed == ["--version"]:
        print(f"lipfw {__version__}")
        return
    try:
        with checked():
            sys.argv[1:] = normalise(typed, EXPERIMENTS)
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
    except Interrupted:     # told already
        return
    except NotAllDone:
        sys.exit(1)
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as e:
        if isinstance(e.__context__, KeyboardInterrupt):    # Lightning turns Ctrl-C into an exit
            _stopped()
        raise
    except Exception as e:
        message = explain(e, typed)
        if message is None:
            raise
        if message not in _failed:
            which = [f"[{note}] " for note in getattr(e, "__notes__", ())]      # of a grid's cells
            _tell("".join(which) + message)
        sys.exit(1)


def _stopped() -> None:
    _tell("stopped; the same command continues")
    sys.exit(130)


def _tell_run(message: str) -> None:
    """Tell what went wrong in a run; of a sweep, in which."""
    job = HydraConfig.get()
    _tell(f"[{' '.join(job.overrides.task)}] {message}" if job.mode == RunMode.MULTIRUN else message)


def _tell(message: str) -> None:
    print(f"lipfw: {message}", file=sys.stderr)


class _Filter(redact.Told):
    """Standard error without what tells a user nothing: Hydra's line before our own on a failed run, and a remark of
    wandb on a setting that Lightning passes."""

    _DROPPED = ("Error executing job with overrides:", "The anonymous setting has no effect")

    def write(self, told: str) -> int:
        return len(told) if any(d in told for d in self._DROPPED) else super().write(told)
