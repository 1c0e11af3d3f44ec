"""One clear line for each mistake of a user's: what was refused, what is allowed, what to do. No torch here."""
import errno
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from lipfw.configs import CONF, EXPERIMENTS, KEYS
from lipfw.errors import InputError, SeedsFailed, nearest
from lipfw.interrupt import Interrupted
from lipfw.yamlfile import check, text_of

_UNSAID = {"protocol", "shrunk"}    # of the top: a task's and a trainer's own, which no user gives


def explain(error: BaseException, typed: Sequence[str] = ()) -> str | None:
    """Return the one line that tells a user's mistake, None for an error of the program: that keeps its traceback.

    `typed` are the arguments of the command line: a --config-dir among them has options too.
    """
    chain, seen = [], error
    while seen is not None and seen not in chain:
        chain.append(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    for e in chain:
        if isinstance(e, (InputError, SeedsFailed)):
            return str(e)
        if isinstance(e, Interrupted):
            return f"{e}; the same command continues"
    for e in chain:
        if _out_of_memory(e):
            size = re.search(r"allocate ([\d.]+ ?\w+)", str(e))
            return (f"out of memory{f': {size[1]} more were asked for' if size else ''}; use a smaller image.size= or "
                    "prior.channels=, fewer fit.batch_seeds=, or fewer runs on a GPU (hydra.launcher.jobs_per_gpu=)")
    for e in chain:
        if isinstance(e, OSError) and e.errno is not None and not isinstance(e, (ConnectionError, TimeoutError)):
            return f"{e.strerror}{f': {e.filename}' if e.filename else ''}{_remedy(e.errno)}"
    for e in chain:
        if isinstance(e, (HydraException, OmegaConfBaseException)) or "Config group override must be" in str(e):
            return _config_mistake(e, chain, typed)
    return None


def _out_of_memory(error: BaseException) -> bool:
    """Tell whether the machine's or the GPU's memory was too small; torch's own errors, without importing it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    told = ("can't allocate memory", "not enough memory", "out of memory", "cudaErrorMemoryAllocation",
            "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in told)


def _remedy(number: int) -> str:
    """Return what helps when the system refuses a file of a run."""
    name = errno.errorcode.get(number)      # not every system has all of them
    if name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOTDIR", "ENOENT", "EEXIST"):
        return ("; results go to the folder out=, which must be writable and have room; then the same command "
                "continues")
    if name in ("EIO", "ESTALE", "ENOTCONN", "ENODEV", "ENXIO", "EREMOTEIO", "EHOSTDOWN"):
        return "; the drive fails or is gone; once it is back, the same command continues"
    return ""


def _config_mistake(error: Exception, chain: list[BaseException], typed: Sequence[str]) -> str | None:
    """Return one line for what Hydra or OmegaConf refused."""
    text = " ".join(str(e) for e in chain)
    if "Config group override must be" in text:
        return "a group takes a name, not null, e.g. task=denoise"
    if m := re.search(r"Could not find '([\w/]+)/([^'/]*)'", text):
        group = m[1]
        allowed = sorted({*(p.stem for p in _files(group, typed)), *(["basic"] if group == "hydra/launcher" else [])})
        return f"{group}={m[2]} is unknown; {group} is one of {', '.join(allowed)}{nearest(m[2], allowed)}"
    if m := re.search(r"Cannot find primary config '([^']*)'", text):
        allowed = sorted(p.stem for p in EXPERIMENTS.glob("*.yaml"))
        return f"no experiment {m[1]}; there are {', '.join(allowed)}{nearest(m[1], allowed)}"
    if m := re.search(r"Could not (?:override|append to config)[^']*'\+*([^'=]+)", text):
        return _unknown(m[1], typed)
    if m := re.search(r"unexpected keyword argument '(\w+)'.*full_key: (\w+)", text, re.DOTALL):
        return _unknown(f"{m[2]}.{m[1]}", typed)
    if m := re.search(r"Missing mandatory value.*full_key: ([\w.]+)", text, re.DOTALL):
        return f"{m[1]} must be given: {m[1]}=..."
    if m := re.search(r"Interpolation key 'protocol\.\w+' not found.*full_key: (\w+)", text, re.DOTALL):
        return f"this {m[1]}= and this task= do not go together; leave {m[1]}= out, and the task's own is taken"
    if isinstance(error, OverrideParseException):
        return " ".join(str(error).split("\n")[0].split()) + "; options are written name=value"
    if isinstance(error, InstantiationException) and "Error locating target" not in text:
        return None     # an error inside what was made is the program's
    lines = [" ".join(line.split()) for e in (error, *chain) for line in str(e).splitlines() if line.strip()]
    if lines[0].endswith("raised while composing config:") and len(lines) > 1:      # the cause comes after
        return f"{lines[0].split(':')[0]}: {next((x for x in lines[1:] if x not in lines[0]), lines[1])}"
    key = getattr(error, "full_key", None)
    return (f"{key}: " if key and key not in lines[0] else "") + lines[0]


def _unknown(key: str, typed: Sequence[str]) -> str:
    """Return the line for an option that does not exist, with the nearest that does."""
    if key in KEYS - _UNSAID:
        return (f"{key} is no option of this config, which does not start from the shipped one; begin it with "
                "defaults: [config, _self_]")
    group, _, name = key.rpartition(".") if key.startswith("hydra.launcher.") else key.partition(".")
    group = group.replace(".", "/")
    options = {p.stem: _keys(p, group) for p in _files(group, typed)}
    homes = sorted(h for h, keys in options.items() if name in keys)
    if homes:
        return f"{key} is an option of {' or '.join(f'{group}={h}' for h in homes)}, which is not chosen here"
    if name and options:
        every = sorted({f"{group.replace('/', '.')}.{k}" for keys in options.values() for k in keys})
    else:
        every = sorted(KEYS - _UNSAID)
    return f"{key} is no option{nearest(key, every) or '; there are ' + ', '.join(every)}"


def _files(group: str, typed: Sequence[str]) -> list[Path]:
    """Return the YAML files that a group's options lie in: the shipped ones and those of the user's --config-dir."""
    folders = [CONF] + [Path(after) for flag, after in zip(typed, typed[1:], strict=False)
                        if flag in ("-cd", "--config-dir")]
    return [p for folder in folders for p in sorted((folder / group).glob("[!_]*.yaml"))]


def _keys(path: Path, group: str) -> set[str]:
    """Return the options that a group's YAML file has, those of its base among them if it names it."""
    try:
        check(path)
        node = OmegaConf.load(path)
    except (InputError, OmegaConfBaseException, YAMLError):     # another file of the user's
        return set()
    has_base = any(str(d).endswith("_common") for d in node.get("defaults") or ())
    if text_of(path).startswith("# @package _global_"):
        node = node.get(group) or {}
    keys = set(node) | (set(OmegaConf.load(CONF / group / "_common.yaml")) if has_base else set())
    return {str(k) for k in keys if not str(k).startswith("_") and k != "defaults"}
