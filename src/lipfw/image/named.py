"""The image sets that papers report on: read from the folder LIPFW_DATA, else downloaded once, and always verified.

`named.toml` says for each set where its files come from, and each picture's name, file name and SHA-256.
"""
import hashlib
import os
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from lipfw.bounded import bounded
from lipfw.errors import InputError, choice
from lipfw.image.picture import MAX_PIXELS, Picture, decode_limit, finish
from lipfw.image.read import read

MAX_BYTES = 1 << 24  # of a picture; those of the sets are much smaller
TIMEOUT = 10  # seconds for a connection and between two pieces of an answer


def load(set: str, name: str | int | None = None, *, size: int | None = None, fit_size: str = "pad",
         degraded: bool = False, max_pixels: int = MAX_PIXELS, box: Sequence[int] | None = None) -> list[Picture]:
    """Return one picture of a set, or all of them in their usual order; the other arguments are those of `finish`.

    `name` is a name of `named.toml` or the file's stem; the picture bears the former. Files come from the folder
    `$LIPFW_DATA/<set>` if they are there, else from a cache that pooch fills. Raises InputError for an unknown set or
    name, for a file in LIPFW_DATA whose checksum is not the set's, and if a file can be had from neither place.
    """
    limit = decode_limit(size, max_pixels)
    table = tables()
    choice("image.set", set, tuple(table))
    entries = table[set]["files"]
    names = list(entries) if name is None else [_friendly(name, entries)]
    pictures = [replace(read(_path(set, entries[n]["file"], entries[n]["sha256"], table[set]["url"]), limit), name=n)
                for n in names]
    return finish(pictures, size=size, fit_size=fit_size, degraded=degraded, max_pixels=max_pixels, box=box)


@cache
def tables() -> dict:
    """Return `named.toml`: set -> {"url": base, "files": {name: {"file": ..., "sha256": ...}}}."""
    return tomllib.loads(files("lipfw.image").joinpath("named.toml").read_text(encoding="utf-8"))


def _friendly(name, entries: dict) -> str:
    """Return the table's name for a name or a file's stem; on a command line 10 is a number, 01 is not."""
    stems = {Path(e["file"]).stem: n for n, e in entries.items()}
    name = f"{name:02d}" if type(name) is int else name
    if isinstance(name, str) and name in stems:
        return stems[name]
    return choice("image.name", name, tuple(entries))


def _path(set: str, file: str, sha256: str, url: str) -> Path:
    """Return where the verified file lies, downloading it if need be."""
    looked = "LIPFW_DATA is not set"
    if os.environ.get("LIPFW_DATA"):
        path = Path(os.environ["LIPFW_DATA"]).expanduser() / set / file
        if path.is_file():
            _verify(path, set, sha256)
            return path
        looked = f"{path} does not exist"
    remedy = f"set LIPFW_DATA to a folder that holds {set}/{file}, or have a network"
    try:
        import pooch
    except ImportError:
        raise InputError(f"{set}/{file} is not here ({looked}) and without pooch it cannot be downloaded; {remedy} "
                         "and pip install 'lipfw[data]'") from None
    try:  # pooch downloads to a temporary name, so no half file stays
        return Path(pooch.retrieve(f"{url}/{file}", known_hash=sha256, fname=file, path=pooch.os_cache("lipfw") / set,
                                   downloader=bounded(pooch.HTTPDownloader(timeout=TIMEOUT), MAX_BYTES)))
    except (OSError, ValueError) as error:  # no network, a full disk; another checksum
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise InputError(f"{set}/{file} is not here ({looked}) and could not be downloaded from {url} ({why}); "
                         f"{remedy} (and pip install 'lipfw[data]')") from None


def _verify(path: Path, set: str, sha256: str) -> None:
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); make it readable or unset LIPFW_DATA") from None
    if found != sha256:
        raise InputError(f"{path} is not the picture of {set} (SHA-256 {found[:12]}..., not {sha256[:12]}...), so "
                         "results on it could not be compared; replace it, or use it by image=file")
