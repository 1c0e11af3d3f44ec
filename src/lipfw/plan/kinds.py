"""Cells of a grid that take the same work: those that differ only in seeds, noise levels, learning rates and the like.
"""
import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from lipfw.image.classes import Labelled
from lipfw.image.dataset import Dataset
from lipfw.image.picture import Picture
from lipfw.plan.blank import load, stand_in, without_mask

# options that change what a step gives, and not how much it takes; the picture itself is one
_VALUES = {
    "task": {"sigma", "missing", "mask", "target", "per_channel", "noise", "outlier", "corruption", "corrupted",
             "border", "downsample", "seed"},
    "prior": {"jitter", "seed", "redraw"},
    "pruner": {"seed", "exempt", "scores", "doubled", "draws", "steps"},
    "fit": {"lr", "smoothing", "target", "penalty", "drift", "mirror", "seed", "sigma", "steps_per_batch",
            "drops", "momentum", "weight_decay"},
    "trainer": {"checkpoint_seconds", "progress"},
}
# and those of a fit that say how many steps there are, or which count, and not what one takes
_HOW_MANY = {"steps", "epochs", "log_every", "judge_every", "keep", "pick", "stop", "window", "patience",
             "held_out", "minutes", "batch_seeds"}


@dataclass
class Kind:
    """Runs of one kind: `config` is that of the first, resolved; `cells` of them, `side` runs each in one process."""

    config: DictConfig
    pictures: list[Picture] | Dataset | Labelled
    work: str               # equal for kinds that take the same
    step: str               # equal for those of which a step does
    side: int = 1
    cells: int = 0

    @property
    def runs(self) -> int:
        """How many runs that are."""
        return self.cells * self.side


class Kinds:
    """Sorts configs into kinds, in the order of their coming; each picture is read once."""

    def __init__(self):
        self._kinds: dict[str, Kind] = {}
        self._pictures: dict[str, list[Picture] | Dataset | Labelled] = {}

    def __iter__(self):
        return iter(self._kinds.values())

    def add(self, config: DictConfig, times: int = 1,
            pictures: list[Picture] | Dataset | Labelled | None = None) -> None:
        """Take a cell's config, `times` times; `pictures` instead of those that it names. Raises InputError."""
        node = OmegaConf.to_container(OmegaConf.masked_copy(config, [k for k in config if k != "hydra"]), resolve=True,
                                      throw_on_missing=True)
        side = node["fit"].get("batch_seeds", 1)
        if pictures is None:
            named = json.dumps(node["image"], sort_keys=True)
            if named not in self._pictures:
                self._pictures[named] = load(OmegaConf.create(node["image"]))
            pictures = self._pictures[named]
        node["prior"], node["task"] = stand_in(node["prior"]), without_mask(node["task"])
        work = _work(node, pictures)
        key = json.dumps(work, sort_keys=True)
        kind = self._kinds.get(key)
        if kind is None:
            node["fit"].pop("batch_seeds", None)
            kind = self._kinds[key] = Kind(OmegaConf.create(node), pictures, key, json.dumps(_step(work)), side)
        kind.cells += times


def _work(node: dict, pictures: Iterable[Picture] | Dataset | Labelled) -> dict:
    """Return the options that say how much work a run is, with the pictures' shapes for the pictures."""
    out = {group: {k: v for k, v in node[group].items() if k not in _VALUES.get(group, ())}
           for group in ("task", "prior", "pruner", "fit", "trainer")}
    if isinstance(pictures, Labelled):
        shapes = [tuple(pictures.train.shape), tuple(pictures.test.shape), len(pictures.classes)]
    elif isinstance(pictures, Dataset):
        shapes = [tuple(pictures.pixels.shape)]
    else:
        shapes = [(*p.pixels.shape[1:], p.bits, p.alpha is not None) for p in pictures]
    return {**out, "shapes": shapes, "logger": node["logger"].get("_target_")}


def _step(work: dict) -> dict:
    """Return what of it says how much work a step is."""
    out = copy.copy({k: v for k, v in work.items() if k not in ("pruner", "logger")})
    return {**out, "fit": {k: v for k, v in work["fit"].items() if k not in _HOW_MANY}}
