"""The command line: where the configs lie, how a sweep is spelled, and one clear line for each mistake.

Nothing here imports torch, so that --help, --cfg job and shell completion are quick.
"""
import os
import re
import shlex
import sys
from pathlib import Path

import hydra
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lipfw.argv import normalise
from lipfw.errors import InputError, nearest
from lipfw.folder import run_folder


def _shipped(name: str) -> Path:
    """Return a folder of configs: inside the installed package, else at the top of the checkout."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / name
    return checkout if (here.parents[1] / "pyproject.toml").is_file() and checkout.is_dir() else here / name


CONF, EXPERIMENTS = _shipped("conf"), _shipped("experiments")
_failed: list[str] = []     # mistakes of this process's runs, already told
_typed: list[str] = []      # the arguments as the user gave them


def run(cfg: DictConfig) -> dict | None:
    """Do one run, unless it is finished; a user's mistake is told at once in one line and the sweep goes on."""
    try:
        folder = run_folder(cfg)
        if (folder / "result.json").exists():
            print(f"already finished: {folder}", flush=True)   # before torch is imported: a sweep skips in no time
            return None
        from lipfw.run import run

        return run(cfg, shlex.join(["python", "-m", "lipfw", *_typed]))
    except Exception as e:
        message = explain(e)
        if message is None:
            raise
        overrides = hydra.core.hydra_config.HydraConfig.get().overrides.task
        several = hydra.core.hydra_config.HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN
        _tell(f"[{' '.join(overrides)}] {message}" if several else message)
        _failed.append(message)
        raise


def main() -> None:
    """Entry point of `lipfw` and `python -m lipfw`; exits with 0 only if every run was done."""
    os.environ["HYDRA_FULL_ERROR"] = "1"    # errors reach us instead of being printed by Hydra
    sys.stderr = _Filter(sys.stderr)
    _typed[:] = sys.argv[1:]
    try:
        sys.argv[1:] = normalise(_typed, EXPERIMENTS)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
    except KeyboardInterrupt:
        _tell("stopped; the same command continues")
        sys.exit(130)
    except Exception as e:
        message = explain(e)
        if message is None:
            raise
        if message not in _failed:
            _tell(message)
        sys.exit(1)


def explain(error: BaseException) -> str | None:
    """Return the one line that tells a user's mistake, or None for an error of the program, which keeps its traceback."""
    chain, seen = [], error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    for e in chain:
        if isinstance(e, InputError):
            return str(e)
    for e in chain:
        if isinstance(e, OSError) and e.errno is not None and not isinstance(e, (ConnectionError, TimeoutError)):
            where = f": {e.filename}" if e.filename else ""
            return f"{e.strerror}{where}; results go to the folder out=, which must be writable and have room"
    for e in chain:
        if isinstance(e, (HydraException, OmegaConfBaseException)):
            return _config_mistake(e, chain)
    return None


def _config_mistake(error: Exception, chain: list[BaseException]) -> str | None:
    """Return one line for what Hydra or OmegaConf refused."""
    text = " ".join(str(e) for e in chain)
    if m := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group = m[1]
        allowed = sorted(p.stem for p in (CONF / group).glob("[!_]*.yaml"))
        return f"{group}={m[2]} is unknown; {group} is one of {', '.join(allowed)}{nearest(m[2], allowed)}"
    if m := re.search(r"Cannot find primary config '([^']*)'", text):
        allowed = sorted(p.stem for p in EXPERIMENTS.glob("*.yaml"))
        return f"no experiment {m[1]}; there are {', '.join(allowed)}{nearest(m[1], allowed)}"
    if m := re.search(r"Could not (?:override|append to config)[^']*'\+*([^'=]+)", text):
        return _unknown_key(m[1])
    if m := re.search(r"Missing mandatory value: ([\w.]+)|Structured config .*missing.*full_key: ([\w.]+)", text):
        key = m[1] or m[2]
        return f"{key} must be given: {key}=..."
    if isinstance(error, (OverrideParseException, ConfigCompositionException)):
        return " ".join(str(error).split("\n")[0].split())
    return None


def _unknown_key(key: str) -> str:
    """Return the line for an option that does not exist, with those that do."""
    overrides = [a for a in sys.argv[1:] if re.fullmatch(r"\w+=\w+", a) and (CONF / a.split("=")[0]).is_dir()]
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("config", overrides)
    except Exception:
        return f"{key} is no option"
    parent, _, _ = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if node is None or not OmegaConf.is_dict(node):
        parent, node = "", cfg
    allowed = [f"{parent}.{k}".lstrip(".") for k in node if not str(k).startswith("_")]
    every = [f"{group}.{k}" for group, v in cfg.items() if OmegaConf.is_dict(v) for k in v if not k.startswith("_")]
    hint = nearest(key, allowed) or nearest(key, every)
    return f"{key} is no option{hint or '; ' + (parent or 'lipfw') + ' has ' + ', '.join(allowed)}"


def _tell(message: str) -> None:
    print(f"lipfw: {message}", file=sys.stderr)


class _Filter:
    """Standard error without the line that Hydra writes before each failed run: our own line tells more."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if text.startswith("Error executing job with overrides:") else self._stream.write(text)

    def __getattr__(self, name):
        return getattr(self._stream, name)
