"""What stands in for files that planning needs only the size of: pictures of named sets, and published generators."""
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lipfw.errors import InputError, choice
from lipfw.gan.download import FILES
from lipfw.gan.network import PUBLISHED
from lipfw.image.classes import Labelled
from lipfw.image.dataset import Dataset
from lipfw.image.named import tables
from lipfw.image.picture import Picture, finish
from lipfw.prior import pggan
from lipfw.prior.pggan import PGGAN

_NAMED, _PGGAN = "lipfw.image.named.load", "lipfw.prior.pggan.build"
_SIDES = {"celebahq256": 256, "celebahq512": 512}


def load(image: DictConfig) -> list[Picture] | Dataset | Labelled:
    """Return what a config's image node names, or pictures of the same sizes where it names a set: no download."""
    if image._target_ != _NAMED:
        return instantiate(image)
    options = {k: v for k, v in OmegaConf.to_container(image).items() if k not in ("_target_", "set", "name")}
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
    return {s: {n: tuple(map(int, size.split()[0].split("x"))) + (1 if size.endswith("grey") else 3,)
                for n, size in names.items()} for s, names in listed.items()}


def _grey(name: str, width: int, height: int, channels: int) -> Picture:
    return Picture(name, torch.full((1, channels, height, width), 0.5))
