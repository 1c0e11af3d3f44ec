"""Where a run's results lie: a folder whose name follows from what the run is. No torch here: launchers ask it too."""
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

# Options that change where or how fast a run happens, or how it is shown, and not its result.
_IRRELEVANT = {"name", "out", "logger", "trainer", "protocol", "hydra"}
_IRRELEVANT_FIT = {"steps_per_batch", "kernel"}


def options(cfg: DictConfig) -> dict:
    """Return the resolved options that change a run's result."""
    every = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    out = {k: v for k, v in every.items() if k not in _IRRELEVANT}
    if isinstance(out.get("fit"), dict):
        out["fit"] = {k: v for k, v in out["fit"].items() if k not in _IRRELEVANT_FIT}
    return out


def identity(cfg: DictConfig) -> dict:
    """Return `options` with each file that they name (a picture, a mask, tickets) replaced by a hash of its content.

    So the same command on a changed picture is another run, and a copy of the picture elsewhere is the same.
    """
    return _by_content(options(cfg))


def label_parts(cfg: DictConfig) -> list[str]:
    """Return the readable parts of a run's name: task, image, prior, pruner, sSEED."""
    image = cfg.image
    picture = Path(str(image.path)).stem if "path" in image else image.get("name") or image.get("set") or _module(image)
    parts = [_module(cfg.task), str(picture), _module(cfg.prior), _module(cfg.pruner), f"s{cfg.seed}"]
    return [re.sub(r"[^A-Za-z0-9._]+", "_", p) or "_" for p in parts]


def run_folder(cfg: DictConfig) -> Path:
    """Return <out>/<name>/<task>-<image>-<prior>-<pruner>-s<seed>-<8 hex digits of the hash of `identity`>."""
    text = json.dumps(identity(cfg), sort_keys=True, default=str)
    digits = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path(str(cfg.out)) / str(cfg.name) / "-".join([*label_parts(cfg), digits])


def _module(node: DictConfig) -> str:
    """Return the last module name of a `_target_`: lipfw.pruner.imp.IMP -> imp."""
    return str(node._target_).split(".")[-2]


def _by_content(value):
    if isinstance(value, Mapping):
        return {k: _digest(v) if k in ("path", "mask") and isinstance(v, str) else _by_content(v)
                for k, v in value.items()}
    return value


def _digest(path: str) -> str:
    """Return a hash of a file or of all files in a folder; the path itself if there is nothing (an error follows)."""
    p = Path(path).expanduser()
    files = sorted(f for f in p.rglob("*") if f.is_file()) if p.is_dir() else [p] if p.is_file() else []
    if not files:
        return path
    digest = hashlib.sha256()
    for f in files:
        digest.update((str(f.relative_to(p)) if p.is_dir() else "").encode() + b"\0")
        with open(f, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
