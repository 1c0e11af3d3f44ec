"""Labelled pictures in class folders: train/CLASS/1.jpg and test/CLASS/2.jpg, or CLASS/1.jpg with some held out."""
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from lipfw.errors import InputError, number
from lipfw.image.archive import opened
from lipfw.image.classes import Labelled, check_bytes
from lipfw.image.dataset import centre_square, fitted
from lipfw.image.picture import DECODED_FOR_RESIZE
from lipfw.image.read import decode

TESTS = ("test", "val")


def read(path: Path, size: int | None, held_out: float) -> Labelled:
    """Return the pictures of a folder, or of a zip, with subfolders; the folder that a picture lies in is its class.

    Of a picture the centre square is made size x size pixels by Lanczos; None: all must be square and have one size.
    Grey pictures become three equal channels, transparency is ignored. Without train/ the part `held_out` of each class
    is tested on, chosen by a hash of the names, the same for all seeds. Raises InputError.
    """
    number("image.held_out", held_out, 0, 1, open_low=True, open_high=True)
    with opened(path) as files:
        train, test = _parts(path, files, held_out)
        classes = sorted(train)
        pixels = [_decoded(path, files, [n for c in classes for n in part[c]], size) for part in (train, test)]
    labels = [torch.tensor([i for i, c in enumerate(classes) for _ in part[c]]) for part in (train, test)]
    name = Path(os.path.abspath(path)).stem
    return Labelled(name, pixels[0], labels[0], pixels[1], labels[1], tuple(classes))


def _parts(path: Path, names: Iterable[str], held_out: float) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the names of the pictures to train on and to test on, by class."""
    tops = {n.split("/")[0] for n in names}
    if "train" not in tops:
        every = _classes(path, names)
        if few := next((c for c, members in every.items() if len(members) < 2), None):
            raise InputError(f"{path}: class {few} has one picture, and some of each class are held out to test on; "
                             "add another, or put pictures into train/ and test/")
        by_hash = {c: sorted(m, key=lambda n: hashlib.sha256(n.encode()).digest()) for c, m in every.items()}
        count = {c: min(len(m) - 1, max(1, round(held_out * len(m)))) for c, m in by_hash.items()}
        return ({c: sorted(m[count[c]:]) for c, m in by_hash.items()},
                {c: sorted(m[:count[c]]) for c, m in by_hash.items()})
    of_test = next((t for t in TESTS if t in tops), None)
    if of_test is None:
        raise InputError(f"{path} has a folder train and neither test nor val; add one of them, or give {path}/train "
                         "to have pictures of each class held out")
    train, test = (_classes(f"{path}/{p}", [n.partition("/")[2] for n in names if n.startswith(f"{p}/")], f"{p}/")
                   for p in ("train", of_test))
    if differing := sorted(train.keys() ^ test.keys()):
        there, lacks = ("train", of_test) if differing[0] in train else (of_test, "train")
        raise InputError(f"{path}: class {differing[0]} is in {there}/ and not in {lacks}/; both must have the same "
                         "classes")
    return train, test


def _classes(path, names: Iterable[str], prefix: str = "") -> dict[str, list[str]]:
    """Return the names, with a prefix, by the folder that they begin with."""
    found: dict[str, list[str]] = {}
    for n in names:
        folder, slash, _ = n.partition("/")
        if not slash:
            raise InputError(f"{path}: {n} lies in no class folder; move it into one, or away")
        found.setdefault(folder, []).append(prefix + n)
    return found


def _decoded(path: Path, files: Mapping, names: list[str], size: int | None) -> torch.Tensor:
    """Return the pictures (N, 3, S, S)."""
    pixels = first = None
    for i, name in enumerate(names):
        what = f"{path}: {name}"
        array = decode(what, files[name], DECODED_FOR_RESIZE, "shrink or remove the picture")
        height, width = array.shape[:2]
        first = first or (name, width, height)
        if size is None and (width != height or (width, height) != first[1:]):
            other = f", {name} {width}x{height}" if name != first[0] else ""
            raise InputError(f"{path} holds pictures that are not square or of mixed sizes: {first[0]} has "
                             f"{first[1]}x{first[2]} pixels{other}; give them one size by image.size=, with "
                             "image.resize=lanczos")
        if pixels is None:
            side = size or width
            check_bytes(path, len(names), side)
            pixels = np.empty((len(names), 3, side, side), np.uint8)
        pixels[i] = fitted(array, centre_square(width, height), side, 3)
    return torch.from_numpy(pixels)
