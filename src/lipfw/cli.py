"""The command line: where the configs lie, how a sweep is spelled, and one clear line for each mistake.

Nothing here imports torch, so that --help, --cfg job and shell completion are quick.
"""
import contextlib
import errno
import os
import re
import shlex
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lipfw import __version__, redact
from lipfw.argv import normalise
from lipfw.cores import wait_briefly
from lipfw.errors import InputError, SeedsFailed, nearest
from lipfw.files import write_text
from lipfw.folder import members, run_folder


def _shipped(name: str) -> Path:
    """Return a folder of configs: inside the installed package, else at the top of the checkout."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / name
    return checkout if (here.parents[1] / "pyproject.toml").is_file() and checkout.is_dir() else here / name


CONF, EXPERIMENTS = _shipped("conf"), _shipped("experiments")
_KEYS = {"task", "image", "prior", "pruner", "fit", "trainer", "logger", "protocol", "shrunk", "seed", "name", "out"}
_failed: list[str] = []     # mistakes of this process's runs, already told
_typed: list[str] = []      # the arguments as the user gave them
_cleared: set[Path] = set()     # files of sweeps that tell no secrets any more


def run(cfg: DictConfig) -> dict | None:
    """Do one run, unless it is finished; a user's mistake is told at once in one line and the sweep goes on."""
    _hide_secrets()
    try:
        if surplus := sorted(cfg.keys() - _KEYS):
            raise InputError(f"{surplus[0]} is no option; an option of your own belongs into a group, e.g. "
                             f"+task.{surplus[0]}=")
        folders = [run_folder(one) for one in members(cfg)]
        if all((folder / "result.json").exists() for folder in folders):
            for folder in folders:
                print(f"already finished: {folder}", flush=True)    # before torch is imported: a sweep skips in no time
            return None
        wait_briefly()
        from lipfw.run import run

        return run(cfg, shlex.join(["python", "-m", "lipfw", *map(redact.text, _typed)]))
    except SeedsFailed as e:
        told = {seed: explain(error) for seed, error in e.errors.items()}
        for seed, message in told.items():
            if message is not None:
                _tell_run(f"seed {seed}: {message}")
        unexplained = [e.errors[seed] for seed, message in told.items() if message is None]
        if unexplained:
            raise unexplained[0] from None      # the program's fault: its traceback is shown
        _failed.append(str(e))
        raise
    except Exception as e:
        message = explain(e)
        if message is None:
            raise
        _tell_run(message)
        _failed.append(message)
        raise


def main() -> None:
    """Entry point of `lipfw` and `python -m lipfw`; exits with 0 only if every run was done."""
    os.environ["HYDRA_FULL_ERROR"] = "1"    # errors reach us instead of being printed by Hydra
    sys.stdout, sys.stderr = _Told(sys.stdout), _Filter(sys.stderr)
    _typed[:] = sys.argv[1:]
    if _typed == ["--version"]:
        print(f"lipfw {__version__}")
        return
    try:
        sys.argv[1:] = normalise(_typed, EXPERIMENTS)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as e:
        if isinstance(e.__context__, KeyboardInterrupt):    # Lightning turns Ctrl-C into an exit
            _stopped()
        raise
    except Exception as e:
        message = explain(e)
        if message is None:
            raise
        if message not in _failed:
            _tell(message)
        sys.exit(1)


def _hide_secrets() -> None:
    """Hide secrets in what others tell of a run: the command line, which loggers look up, and the sweep's own file."""
    sys.argv[1:] = map(redact.text, sys.argv[1:])
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    path = Path(HydraConfig.get().sweep.dir, "multirun.yaml").absolute()
    if path not in _cleared and path.is_file():
        written = OmegaConf.to_container(OmegaConf.load(path))
        if redact.tree(written) != written:
            with contextlib.suppress(FileNotFoundError):    # another job of the sweep does it at this moment
                write_text(path, OmegaConf.to_yaml(redact.tree(written)))
        _cleared.add(path)


def _stopped() -> None:
    _tell("stopped; the same command continues")
    sys.exit(130)


def explain(error: BaseException) -> str | None:
    """Return the one line that tells a user's mistake, None for an error of the program: that keeps its traceback."""
    chain, seen = [], error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    for e in chain:
        if isinstance(e, (InputError, SeedsFailed)):
            return str(e)
    for e in chain:
        if isinstance(e, OSError) and e.errno is not None and not isinstance(e, (ConnectionError, TimeoutError)):
            full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR,
                               errno.ENOENT, errno.EEXIST)
            remedy = "; results go to the folder out=, which must be writable and have room" if full else ""
            return f"{e.strerror}{f': {e.filename}' if e.filename else ''}{remedy}"
    for e in chain:
        if isinstance(e, (HydraException, OmegaConfBaseException)) or "Config group override must be" in str(e):
            return _config_mistake(e, chain)
    return None


def _config_mistake(error: Exception, chain: list[BaseException]) -> str | None:
    """Return one line for what Hydra or OmegaConf refused."""
    text = " ".join(str(e) for e in chain)
    if "Config group override must be" in text:
        return "a group takes a name, not null, e.g. task=denoise"
    if m := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group = m[1]
        allowed = sorted(p.stem for p in _files(group))
        return f"{group}={m[2]} is unknown; {group} is one of {', '.join(allowed)}{nearest(m[2], allowed)}"
    if m := re.search(r"Cannot find primary config '([^']*)'", text):
        allowed = sorted(p.stem for p in EXPERIMENTS.glob("*.yaml"))
        return f"no experiment {m[1]}; there are {', '.join(allowed)}{nearest(m[1], allowed)}"
    if m := re.search(r"Could not (?:override|append to config)[^']*'\+*([^'=]+)", text):
        return _unknown(m[1])
    if m := re.search(r"unexpected keyword argument '(\w+)'.*full_key: (\w+)", text, re.DOTALL):
        return _unknown(f"{m[2]}.{m[1]}")
    if m := re.search(r"Missing mandatory value.*full_key: ([\w.]+)", text, re.DOTALL):
        return f"{m[1]} must be given: {m[1]}=..."
    if m := re.search(r"Interpolation key 'protocol\.\w+' not found.*full_key: (\w+)", text, re.DOTALL):
        return f"this {m[1]}= and this task= do not go together; leave {m[1]}= out, and the task's own is taken"
    if isinstance(error, OverrideParseException):
        return " ".join(str(error).split("\n")[0].split()) + "; options are written name=value"
    if isinstance(error, InstantiationException) and "Error locating target" not in text:
        return None     # an error inside what was made is the program's
    return " ".join(str(error).split("\n")[0].split())


def _unknown(key: str) -> str:
    """Return the line for an option that does not exist, with the nearest that does."""
    group, _, name = key.partition(".")
    options = {p.stem: _keys(p, group) for p in _files(group)}
    homes = sorted(h for h, keys in options.items() if name in keys)
    if homes:
        return f"{key} is an option of {' or '.join(f'{group}={h}' for h in homes)}, which is not chosen here"
    if name and options:
        every = sorted({f"{group}.{k}" for keys in options.values() for k in keys})
    else:
        every = sorted(_KEYS - {"protocol", "shrunk"})
    return f"{key} is no option{nearest(key, every) or '; there are ' + ', '.join(every)}"


def _files(group: str) -> list[Path]:
    """Return the YAML files that a group's options lie in: the shipped ones and those of the user's --config-dir."""
    folders = [CONF] + [Path(after) for flag, after in zip(_typed, _typed[1:], strict=False)
                        if flag in ("-cd", "--config-dir")]
    return [p for folder in folders for p in sorted((folder / group).glob("[!_]*.yaml"))]


def _keys(path: Path, group: str) -> set[str]:
    """Return the options that a group's YAML file has, those of its base among them if it names it."""
    node = OmegaConf.load(path)
    has_base = any(str(d).endswith("_common") for d in node.get("defaults") or ())
    if path.read_text().startswith("# @package _global_"):
        node = node.get(group) or {}
    keys = set(node) | (set(OmegaConf.load(CONF / group / "_common.yaml")) if has_base else set())
    return {str(k) for k in keys if not str(k).startswith("_") and k != "defaults"}


def _tell_run(message: str) -> None:
    """Tell what went wrong in a run; of a sweep, in which."""
    job = HydraConfig.get()
    _tell(f"[{' '.join(job.overrides.task)}] {message}" if job.mode == RunMode.MULTIRUN else message)


def _tell(message: str) -> None:
    print(f"lipfw: {message}", file=sys.stderr)


class _Told:
    """A stream that tells no secrets."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, told: str) -> int:
        self._stream.write(redact.text(told))
        return len(told)

    def __getattr__(self, name):
        return getattr(self._stream, name)


class _Filter(_Told):
    """Standard error without what tells a user nothing: Hydra's line before our own on a failed run, and a remark of
    wandb on a setting that Lightning passes."""

    _DROPPED = ("Error executing job with overrides:", "The anonymous setting has no effect")

    def write(self, told: str) -> int:
        return len(told) if any(d in told for d in self._DROPPED) else super().write(told)
