"""What stands in for files that planning needs only the size of: pictures of named sets, and published generators."""
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lipfw.errors import InputError, choice, whole
from lipfw.gan.download import FILES
from lipfw.gan.network import PUBLISHED
from lipfw.image.classes import Labelled
from lipfw.image.dataset import Dataset
from lipfw.image.named import tables
from lipfw.image.paper import PICTURES
from lipfw.image.picture import Picture, finish
from lipfw.prior import pggan
from lipfw.prior.pggan import PGGAN
from lipfw.task.inpaint import TEXT

_NAMED, _PAPER, _FACES = (f"lipfw.image.{m}.load" for m in ("named", "paper", "faces"))
_SETS = {"lipfw.image.labelled.load": lambda *counts, size: labelled(*counts[:2], size, counts[2]),
         "lipfw.image.dataset.load": lambda count, size: dataset(count, size)}
_PGGAN = "lipfw.prior.pggan.build"
FACES = 56      # photographs of image=faces
_SIDES = {"celebahq256": 256, "celebahq512": 512}


def load(image: DictConfig) -> list[Picture] | Dataset | Labelled:
    """Return what a config's image node names, or pictures of the same sizes where it names a set: no download.

    A data set that the experiments name and that is not there has a stand-in, too.
    """
    if image._target_ in _SETS and not Path(os.path.expanduser(image.path)).exists():
        counts = standins()["data"].get(Path(image.path).name)
        return instantiate(image) if counts is None else _SETS[image._target_](*counts, size=image.size)
    if image._target_ not in (_NAMED, _PAPER, _FACES):
        return instantiate(image)
    options = {k: v for k, v in OmegaConf.to_container(image).items() if k not in ("_target_", "set", "name", "count")}
    if image._target_ == _FACES:
        count = 1 if image.name is not None else whole("image.count", image.count or FACES, least=1, most=FACES)
        return finish([_grey(f"face {i}", *_size(standins()["faces"])) for i in range(count)], **options)
    if image._target_ == _PAPER:
        of = PICTURES[choice("image.name", image.name, tuple(PICTURES))]
        size = sizes()[of][image.name] if of in sizes() else _size(standins()["pictures"].get(of, standins()["faces"]))
        return finish([_grey(image.name, *size)], **options)
    known = sizes()[choice("image.set", image.set, tuple(tables()))]
    stems = {e["file"].rpartition(".")[0]: n for n, e in tables()[image.set]["files"].items()}
    name = f"{image.name:02d}" if type(image.name) is int else image.name       # on a command line 10 is a number
    names = list(known) if name is None else [choice("image.name", stems.get(name, name), tuple(known))]
    return finish([_grey(n, *known[n]) for n in names], **options)


def pictures(count: int, width: int, height: int, channels: int = 3) -> list[Picture]:
    """Return so many grey pictures, of three equal channels or one."""
    return [_grey(f"picture {i}", width, height, channels) for i in range(count)]


def dataset(count: int, side: int) -> Dataset:
    """Return a data set of so many square colour pictures that has a shape and no values."""
    return Dataset("pictures", torch.empty(count, 3, side, side, dtype=torch.uint8, device="meta"))


def labelled(train: int, test: int, side: int, classes: int) -> Labelled:
    """Return a data set of so many square colour pictures to train and to test on, with labels and without values."""
    parts = [(torch.empty(n, 3, side, side, dtype=torch.uint8, device="meta"), torch.arange(n) % classes)
             for n in (train, test)]
    return Labelled("pictures", *parts[0], *parts[1], tuple(map(str, range(classes))))


def generator(shapes: Sequence[tuple[int, int, int]], *, weights: str, seed: int = 0, **ignored) -> PGGAN:
    """Return a prior of a published generator's architecture with other weights."""
    side = _SIDES[weights]
    if {s[1:] for s in shapes} != {(side, side)}:
        raise InputError(f"prior.weights={weights} makes pictures of {side}x{side} pixels; use image.size={side}")
    prior = pggan.build(shapes, weights=None, channels=PUBLISHED[:side.bit_length() - 2], latent=512, seed=seed)
    prior.trained = True
    return prior


def stand_in(prior: Mapping) -> dict:
    """Return a config's prior node, or where it names a published generator one that needs no download."""
    published = prior["_target_"] == _PGGAN and prior.get("weights") in FILES
    return {**prior, "_target_": "lipfw.plan.blank.generator"} if published else dict(prior)


@cache
def sizes() -> dict[str, dict[str, tuple[int, int, int]]]:
    """Return width, height and channels of each picture of each set, from sizes.yaml."""
    listed = OmegaConf.to_container(OmegaConf.create(files("lipfw.plan").joinpath("sizes.yaml").read_text("utf-8")))
    return {s: {n: _size(size) for n, size in names.items()} for s, names in listed.items()}


@cache
def standins() -> dict:
    """Return standins.yaml."""
    return OmegaConf.to_container(OmegaConf.create(files("lipfw.plan").joinpath("standins.yaml").read_text("utf-8")))


def without_mask(task: Mapping) -> dict:
    """Return a config's task node, or where it names a mask of the experiments that is not there one with lines of
    text: which pixels are hidden makes no difference to a plan."""
    mask = task.get("mask")
    away = isinstance(mask, str) and not Path(mask).exists() and any(mask.endswith(p) for p in standins()["pictures"])
    return {**task, "mask": TEXT} if away else dict(task)


def _size(text: str) -> tuple[int, int, int]:
    """Return width, height and channels: "512x512 grey" -> (512, 512, 1)."""
    return *map(int, text.split()[0].split("x")), 1 if text.endswith("grey") else 3


def _grey(name: str, width: int, height: int, channels: int) -> Picture:
    return Picture(name, torch.full((1, channels, height, width), 0.5))
