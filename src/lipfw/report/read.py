"""Run folders -> records. Nothing is averaged or written here."""
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.folder import label_parts
from lipfw.folder import options as relevant
from lipfw.pruner.schedule import planned
from lipfw.report.origin import Origin, origins, spans

# Numbers of a round, each of which may be missing: PSNR in dB, MSE in the range [-1, 1]; of generators in training the
# sliced Wasserstein distance (swd) in 1/1000 and of classifiers accuracies in percent, and none of those
METRICS = ("psnr_peak", "psnr_picked", "psnr_final", "ssim_picked", "mse_peak", "mse_picked", "mse_final", "swd",
           "accuracy", "accuracy_best", "train_accuracy", "loss", "seconds")
_FILES = ("result.json", "rounds.jsonl", "config.yaml")     # any of them makes a folder a run folder


@dataclass(frozen=True)
class Run:
    """One finished run.

    `base` is <task>-<image>-<prior>-<pruner>. `options` are the flat options (`task.sigma`) that change the result,
    without the seeds, and `seeds` are those. `protocol` are the task's recommended settings, which options may follow.
    `rounds` are the records of rounds.jsonl, round r at index r: METRICS may be None or missing, and of several
    pictures `images` has each one's. `best_round` was chosen without the clean picture. `degraded` has psnr (dB) and
    ssim of the measurement, None where no clean picture is known.

    `found` tells where the replayed tickets were found. The option `pruner.path` then names what found them and not
    where they lie, and their seed is one of `seeds`: replays of tickets that differ in their seeds are one group.
    `ended` says why a run has fewer rounds than planned, if its pruner could not go on. `device` is `cpu` or a GPU's
    name, None of older runs.
    """

    folder: Path
    base: str
    options: Mapping[str, object]
    seeds: Mapping[str, object]
    protocol: Mapping[str, object]
    rounds: list[dict]
    best_round: int
    degraded: Mapping[str, float | None]
    found: Sequence[Origin] = ()
    ended: str | None = None
    device: str | None = None

    def place(self, round_: int) -> float:
        """Return the sparsity that a round is compared at: that which the ticket was found with, of one replayed."""
        told = self.found[0].sparsities if len(self.found) == 1 else ()
        return told[round_] if round_ < len(told) else self.rounds[round_]["sparsity"]

    @property
    def generator(self) -> bool:
        """The prior is a trained generator, or one in training, and not an untrained network."""
        return str(self.options["prior._target_"]).startswith("lipfw.prior.pggan.")


@dataclass(frozen=True)
class Unfinished:
    """A run without result.json: `done` rounds are complete, of `total` (None where the config does not tell)."""

    folder: Path
    done: int
    total: int | None


@dataclass
class Runs:
    """What lies in the folders that were given: finished and unfinished runs, and (folder, reason) of broken ones."""

    finished: list[Run] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def read_runs(folders: Iterable[Path]) -> Runs:
    """Read every run in `folders`: run folders, or folders that hold run folders; one that is met twice counts once.

    A broken run becomes one of `unreadable`. Raises InputError for a folder that does not exist or holds no runs.
    """
    # all folders are looked at before any run is read: a typo in the last one is told at once
    found: dict[Path, Path] = {}
    for given in folders:
        for f in run_folders(Path(given)):
            found.setdefault(f.resolve(), f)
    runs = Runs()
    for folder in found.values():
        try:
            run = read_run(folder)
        except (ValueError, OSError) as e:
            runs.unreadable.append((folder, reason(e)))
        else:
            (runs.finished if isinstance(run, Run) else runs.unfinished).append(run)
    return runs


def run_folders(given: Path) -> list[Path]:
    """Return `given` if it is a run folder, else the run folders in it, s2 before s10. Raises InputError."""
    if not given.is_dir():
        raise InputError(f"no such folder: {given}{_instead(given)}")
    if is_run(given):
        return [given]
    inside = sorted((f for f in given.iterdir() if f.is_dir()), key=lambda f: natural(f.name))
    if runs := [f for f in inside if is_run(f)]:
        return runs
    names = [str(f) for f in inside if any(is_run(g) for g in f.iterdir() if g.is_dir())]
    raise InputError(f"no runs in {given}; "
                     + (f"give one of {', '.join(names)}" if names else "give runs/<name> or the folder of one run"))


def read_run(folder: Path) -> Run | Unfinished:
    """Read one run folder. Raises ValueError, with what is broken, or OSError.

    A finished run is told by result.json alone, so a copy of only that file can be reported too; a rounds.jsonl that
    lies beside it must agree.
    """
    result = _json(folder / "result.json")
    try:
        lines = read_jsonl(folder / "rounds.jsonl")
    except ValueError as e:
        raise ValueError(f"rounds.jsonl is broken ({e})") from None
    if result is None:
        config = _checked(_yaml(folder / "config.yaml"), "config.yaml")
        return Unfinished(folder, len(_rounds(lines, "rounds.jsonl")), _total(folder, config))
    if not isinstance(result, dict):
        raise ValueError("result.json holds no result")
    config = _checked(result.get("config"), "result.json")
    rounds = _rounds(result.get("rounds"), "result.json")
    best, degraded = result.get("best_round"), result.get("degraded")
    if (folder / "rounds.jsonl").exists() and lines != rounds:
        raise ValueError(f"rounds.jsonl ({len(lines)} rounds) and result.json ({len(rounds)}) do not agree")
    if not rounds or isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < len(rounds):
        raise ValueError(f"result.json: best_round is {best!r}, but there are {len(rounds)} rounds")
    if not isinstance(degraded, dict) or not all(_number_or_none(degraded.get(k)) for k in ("psnr", "ssim")):
        raise ValueError("result.json: degraded must have psnr and ssim, each a number or null")
    options = _flat(relevant(OmegaConf.create(config)))
    seeds = {k: v for k, v in options.items() if k.rpartition(".")[2] == "seed"}
    options = {k: v for k, v in options.items() if k not in seeds}
    if found := origins(result):
        options |= {"pruner.path": _found_by(found),
                    "pruner.path.options": ", ".join(dict.fromkeys(o.options for o in found))}
        # the run's name tells apart what its first seed does not: task.seed, prior.seed
        seeds |= {"ticket.seed": [o.seed for o in found], "ticket.run": [o.run for o in found]}
    return Run(folder, "-".join(label_parts(OmegaConf.create(config))[:-1]), options, seeds,
               config.get("protocol") or {}, rounds, best, degraded, found, result.get("ended"), result.get("device"))


def reason(error: Exception) -> str:
    """Return why a run cannot be read."""
    return f"{error.strerror}: {Path(error.filename).name}" if getattr(error, "filename", None) else str(error)


def natural(text: str) -> list:
    """Return a sort key that orders the numbers in a text by value.

    >>> sorted(["s10", "s2", "sigma=15", "sigma=5"], key=natural)
    ['s2', 's10', 'sigma=5', 'sigma=15']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [float(p) if i % 2 else p for i, p in enumerate(parts)]


# --- folders

def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a run, however far it has come."""
    return any((folder / name).is_file() for name in _FILES)


def started_in(folder: Path, config: Mapping) -> Path:
    """Return the folder that a run was started in, which the paths in its config are relative to."""
    depth = len(Path(str(config.get("out", "")), str(config.get("name", ""))).parts)
    parents = folder.absolute().parents
    return parents[depth] if depth < len(parents) else Path()


def _instead(given: Path) -> str:
    """Return a hint at the existing folder nearest to a name; a bare name is looked for in runs/ too."""
    folders = {f.name: f for parent in (Path("runs"), given.parent) if parent.is_dir()
               for f in parent.iterdir() if f.is_dir() and not f.name.startswith(".")}
    close = get_close_matches(given.name, folders, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {folders[close[0]]}?"
    siblings = sorted(str(f) for f in folders.values() if f.parent == given.parent)
    return f"; there are {', '.join(siblings[:8])}{', ...' if siblings[8:] else ''}" if siblings else ""


# --- files

def _json(path: Path):
    """Return what a JSON file holds, None if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path.name} is broken ({e})") from None


def _yaml(path: Path):
    if not path.exists():
        raise ValueError(f"it has no {path.name}")
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError(f"{path.name} has aliases, of which a few lines fill the memory; lipfw writes none")
        return OmegaConf.to_container(OmegaConf.create(text))
    except RecursionError:
        raise ValueError(f"{path.name} is broken (nested too deeply)") from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as e:
        raise ValueError(f"{path.name} is broken ({' '.join(str(e).split())})") from None


def _checked(config, name: str) -> dict:
    """Return a run's config if it has what a group's label needs, else raise ValueError."""
    if not isinstance(config, dict) or "seed" not in config:
        raise ValueError(f"{name} holds no config of a run")
    if "${" in json.dumps(config, default=str):     # it would be looked up here: ${oc.env:...} in this environment
        raise ValueError(f"{name}: the config has an interpolation ${{...}}; lipfw writes resolved ones")
    for section in ("task", "image", "prior", "pruner"):
        node = config.get(section)
        if not isinstance(node, dict) or "." not in str(node.get("_target_")):
            raise ValueError(f"{name}: the config has no {section}")
    return config


def _rounds(records, name: str) -> list[dict]:
    """Return the records of rounds 0, 1, 2, ... if they are that, else raise ValueError."""
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ValueError(f"{name} holds no rounds")
    for i, r in enumerate(records):
        if r.get("round") != i:
            raise ValueError(f"{name}: round {i} is missing")
        for key in ("sparsity", "params_left", *METRICS):
            must = key in ("sparsity", "params_left")
            if not _number_or_none(r.get(key)) or must and r.get(key) is None:
                raise ValueError(f"{name}: {key} of round {i} is {r.get(key)!r}, not a number")
        images = r.get("images", {})
        if not isinstance(images, dict) or not all(isinstance(x, dict) and all(map(_number_or_none, x.values()))
                                                   for x in images.values()):
            raise ValueError(f"{name}: images of round {i} do not hold the scores of each picture")
    return records


def _number_or_none(value) -> bool:
    return value is None or isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _found_by(found: Sequence[Origin]) -> str:
    """Return what stands for pruner.path: the label of the run, and the rounds where they are not all from 0 on."""
    labels = ", ".join(dict.fromkeys(o.label for o in found))
    rounds = [r for o in found for r in o.rounds]
    if len(rounds) > 1 and rounds == list(range(len(rounds))):
        return labels       # however many: a run that stopped early replays as its longer sisters do
    return f"{labels} round{'s' if len(rounds) > 1 else ''} {spans(rounds)}"


def _total(folder: Path, config: Mapping) -> int | None:
    """Return how many rounds a run will have; None where its config does not tell, or the loss may end them sooner."""
    pruner = config["pruner"]
    try:
        return None if pruner.get("stop") == "loss_rises" else planned(pruner, started_in(folder, config))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _flat(node: Mapping, prefix: str = "") -> dict[str, object]:
    """Return {"task.sigma": 25, ...}; 25.0 is 25, since it makes the same run."""
    out = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            whole = isinstance(value, float) and value.is_integer()
            out[f"{prefix}{key}"] = int(value) if whole else value
    return out
