"""Where a run's results lie: a folder whose name follows from what the run is. No torch here: launchers ask it too."""
import contextlib
import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lipfw.errors import InputError, whole
from lipfw.listing import cifar_files, pictures_below, pictures_in, tickets_in
from lipfw.redact import tree
from lipfw.skips import bits

# Options that change where or how fast a run happens, or how it is shown, and not its result. Of the trainer's,
# precision does.
_IRRELEVANT = {"name", "out", "max_failures", "logger", "trainer", "protocol", "shrunk", "hydra"}
_FILES = {      # options that name files; those marked so may name something else, too, or FILE.py:NAME
    "image": ("path",), "task": ("mask", "measurement", "kernel?", "operator?"), "pruner": ("path",),
    "prior": ("weights?", "network?"),
}
_CODE = ("operator?", "network?")      # those that may name a module, too: package.module.name
_SAID_IF_NOT = (("image", "box", None), ("fit", "keep", []), ("fit", "minutes", None), ("task", "target", "clean"))
_IRRELEVANT_IN = {"fit": {"steps_per_batch", "kernel", "batch_seeds"}, "image": {"max_pixels"}}


def members(cfg: DictConfig) -> list[DictConfig]:
    """Return the configs of the single runs that a config asks for: fit.batch_seeds of them, from its seed on."""
    count = whole("fit.batch_seeds", cfg.fit.get("batch_seeds", 1), least=1)
    if count == 1:
        return [cfg]
    out = [copy.deepcopy(cfg) for _ in range(count)]
    for i, one in enumerate(out):
        one.seed, one.fit.batch_seeds = whole("seed", cfg.seed, least=0) + i, 1
    return out


def told(cfg: DictConfig) -> dict:
    """Return the resolved options as they may be written down: without secrets. `cfg` must still name where they come
    from."""
    return tree(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True), OmegaConf.to_container(cfg))


def options(cfg: DictConfig) -> dict:
    """Return the resolved options that change a run's result. They may hold secrets: only their hash is written down.
    """
    every = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    out = {k: v for k, v in every.items() if k not in _IRRELEVANT}
    precision = str(every.get("trainer", {}).get("precision", 32))
    if precision != "32":       # said only then, so that runs keep the names they have
        out["precision"] = precision
    for group, names in _IRRELEVANT_IN.items():
        if isinstance(out.get(group), dict):
            out[group] = {k: v for k, v in out[group].items() if k not in names}
    for group, key, plain in _SAID_IF_NOT:
        if isinstance(out.get(group), dict) and out[group].get(key, plain) == plain:    # so, too
            out[group] = {k: v for k, v in out[group].items() if k != key}
    if out.get("task", {}).get("_target_") == "lipfw.task.clean.Clean" and "target" not in out["task"]:
        out["task"].pop("seed", None)       # nothing is drawn
    prior = out.get("prior")
    if isinstance(prior, dict) and prior.get("_target_") == "lipfw.prior.nas.build" and prior.get("skips") is not None:
        with contextlib.suppress(InputError):       # what is no matrix the prior will tell
            out["prior"] = {**prior, "skips": bits(prior["skips"])}     # the same network, whatever YAML makes of it
    fit = out.get("fit")
    if isinstance(fit, dict) and picking(fit, bool((out.get("image") or {}).get("degraded"))) != "holdout":
        fit.pop("held_out", None)
    return out


def picking(fit: Mapping, degraded: bool) -> str | None:
    """Return the rule that picks a step of a fit of weights with these options; None: the fit's own.

    The fit's own is for comparison with the literature; without a clean picture nobody could see where it fails.
    """
    return fit.get("pick") or fit.get("stop") or ("holdout" if degraded else None)


def identity(cfg: DictConfig) -> dict:
    """Return `options` with each file that they name (a picture, a mask, tickets, weights) replaced by its hash.

    So the same command on a changed picture is another run, and a copy of the picture elsewhere is the same. Of code of
    the user's own the file counts that it is named by, and not what that imports.
    """
    out = options(cfg)
    for group, key, path, part in _named(out):
        name = out[group][key].removeprefix(path)       # of a file of Python, which of what it holds
        out[group][key] = path_digest(group, path, part) + name
    return out


def named_files(options: Mapping) -> list[tuple[str, str, str | None]]:
    """Return the files that a config's run is named by: their group, path and, of a data set, part ("" for all)."""
    return [(group, path, part) for group, _, path, part in _named(options)]


def _named(options: Mapping) -> list[tuple[str, str, str, str | None]]:
    """Return these files with the option that names each."""
    found = []
    for group, keys in _FILES.items():
        node = options.get(group)
        for key in keys if isinstance(node, Mapping) else ():
            path, perhaps = node.get(key.removesuffix("?")), key.endswith("?")
            if not isinstance(path, str):
                continue
            if perhaps:
                path = path.rpartition(":")[0] if ".py:" in path else path
                if not Path(os.path.expanduser(path)).is_file():
                    path = _module_file(path) if key in _CODE else None
                if path is None:
                    continue        # a name
            of_data = "part" in node or "held_out" in node
            found.append((group, key.removesuffix("?"), path, (node.get("part") or "") if of_data else None))
    return found


def _module_file(path: str) -> str | None:
    """Return the file of package.module.name below the current folder; None if none is there, but it is installed."""
    names = path.partition(":")[0].split(".")
    for i in range(len(names) if all(n.isidentifier() for n in names) else 0, 0, -1):
        for file in (f"{'/'.join(names[:i])}.py", f"{'/'.join(names[:i])}/__init__.py"):
            if Path(file).is_file():
                return file
    return None


def group_digest(cfg: DictConfig) -> str:
    """Return 8 hex digits that are the same for runs that differ only in their seeds."""
    def unseeded(node):
        return {k: unseeded(v) for k, v in node.items() if k != "seed"} if isinstance(node, dict) else node

    return _hash(unseeded(identity(cfg)))


def label_parts(cfg: DictConfig) -> list[str]:
    """Return the readable parts of a run's name: task, image, prior, pruner, sSEED.

    A classical method stands in the place of the prior, which it has none of.
    """
    image = cfg.image
    picture = Path(str(image.path)).stem if "path" in image else image.get("name") or image.get("set") or _module(image)
    prior = _module(cfg.prior)
    if prior == "none":
        prior = str(cfg.get("fit", {}).get("method", prior))
    parts = [_module(cfg.task), str(picture), prior, _module(cfg.pruner), f"s{cfg.seed}"]
    return [short(re.sub(r"[^A-Za-z0-9._]+", "_", p) or "_") for p in parts]


def short(name: str, most: int = 60) -> str:
    """Return a name, or of a long one its start with a hash: file systems and loggers have limits.

    >>> short("astronaut")
    'astronaut'
    """
    return name if len(name) <= most else f"{name[:most - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def run_folder(cfg: DictConfig) -> Path:
    """Return <out>/<name>/<task>-<image>-<prior>-<pruner>-s<seed>-<8 hex digits of the hash of `identity`>."""
    name = Path(str(cfg.name))
    if not str(cfg.name) or name.is_absolute() or ".." in name.parts:
        raise InputError(f"name must be the name of a folder inside out=, got {cfg.name!r}; put results elsewhere with "
                         "out=")
    return Path(str(cfg.out)) / name / "-".join([*label_parts(cfg), _hash(identity(cfg))])


def _hash(options: dict) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _module(node: DictConfig) -> str:
    """Return the last module name of a `_target_`: lipfw.pruner.imp.IMP -> imp."""
    return str(node._target_).split(".")[-2]


def path_digest(group: str, path: str, part: str | None = None) -> str:
    """Return a hash of the file, pictures or tickets at a path; the path itself if there is nothing (an error).

    `part` is the folder of a data set that counts, "" for all of it, None if it is no data set.
    """
    p = Path(os.path.expanduser(path))
    try:
        if p.is_file():
            files = {"": p}
        elif part is not None:      # with subfolders
            files = {f.name: f for f in cifar_files(p)} or {n: p / n for n in pictures_below(p, part or None)}
        else:
            files = {f.name: f for f in (tickets_in(p) if group == "pruner" else pictures_in(p))}
        if not all(f.is_file() for f in files.values()):
            return path     # a pipe, which would be waited for: an error, too
        digest = hashlib.sha256()
        for name, f in files.items():
            there = f.stat()
            digest.update((name if len(files) > 1 else "").encode() + b"\0")
            digest.update(_file_digest(f, there.st_size, there.st_mtime_ns, there.st_ino))
    except InputError:
        return path
    return digest.hexdigest()


@lru_cache(maxsize=100_000)
def _file_digest(path: Path, size: int, changed: int, inode: int) -> bytes:
    """Return the hash of a file's bytes: the cells of a grid name the same files again and again."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
