"""Which folders the cells of a grid have, remembered: a second start need not compose a thousand configs to skip them.

grid.jsonl in the grid's folder has a line a cell. It is a note and no truth: without it the cells are composed again.
"""
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from lipfw import __version__
from lipfw.folder import named_files, path_digest
from lipfw.redact import text

NAME = "grid.jsonl"
_VARIABLE = re.compile(r"oc\.env\s*:\s*(['\"]?\w*)")


@dataclass(frozen=True)
class Entry:
    """A cell as it is remembered: its overrides, its folders, and the files that these were named by."""

    key: str
    overrides: tuple[str, ...]
    folders: tuple[Path, ...]
    files: tuple[tuple[str, str, str | None, str], ...] = ()    # group, path, part, digest


def read(folder: Path) -> dict[str, Entry]:
    """Return the cells that a grid's folder remembers, by their keys; what is damaged is left out."""
    try:
        lines = (Path(folder) / NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in lines:
        try:
            e = json.loads(line)
            entry = Entry(str(e["key"]), tuple(e["overrides"]), tuple(map(Path, e["folders"])),
                          tuple((g, p, part, d) for g, p, part, d in e["files"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue        # a killed writer's
        found[entry.key] = entry
    return found


class Journal:
    """The memory of one grid: `find` a cell by its overrides, `add` what was composed."""

    def __init__(self, folder: Path, master: DictConfig):
        self.folder, self._configs = Path(folder), _fingerprint(master)
        self._entries = read(folder)

    def key(self, overrides: Sequence[str]) -> str:
        """Return what a cell is found by: its overrides, and everything else that its config follows from."""
        told = [self._configs, *overrides, *_variables(" ".join(overrides))]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def find(self, overrides: Sequence[str]) -> tuple[Path, ...] | None:
        """Return the folders of a cell, None if they are not known or a file that they were named by has changed."""
        entry = self._entries.get(self.key(overrides))
        if entry is None or not entry.folders or any(path_digest(*named) != digest for *named, digest in entry.files):
            return None
        return entry.folders

    def add(self, cells: Iterable) -> None:
        """Remember composed cells, in one write."""
        new = []
        for cell in cells:
            named = named_files(cell.config)
            weights = cell.config.prior.get("weights")
            if isinstance(weights, str) and ("prior", weights, None) not in named:     # a name, as yet
                named.append(("prior", weights, None))
            files = [(*one, path_digest(*one)) for one in named]
            if any(text(path) != path for _, path, *_ in files):
                continue        # a path that holds a secret is not written down
            new.append({"key": self.key(cell.overrides), "overrides": [text(o) for o in cell.overrides],
                        "folders": [str(f) for f in cell.folders], "files": files})
        if new:
            with open(self.folder / NAME, "ab", buffering=0) as f:      # another start's lines do not come between
                f.write("".join(json.dumps(e) + "\n" for e in new).encode())


def _fingerprint(master: DictConfig) -> str:
    """Return a digest of all that the config of a cell follows from, besides its overrides."""
    digest, variables = hashlib.sha256(), set()

    def take(text: str) -> None:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
        variables.update(_variables(text))

    take(f"{__version__} {master.hydra.job.config_name} {list(master.hydra.overrides.hydra)}")
    for source in master.hydra.runtime.config_sources:      # the loader itself does not know of hydra.searchpath
        for path in _files(source.schema, source.path, str(master.out)):
            try:
                take(f"{path} {os.path.realpath(path)}\n{path.read_text(encoding='utf-8', errors='replace')}")
            except OSError:
                pass        # Hydra can't read it either
    take("\n".join(sorted(variables)))
    return digest.hexdigest()


def _files(schema: str, where: str, out: str) -> Iterator[Path]:
    """Yield the YAML files of a source of configs, also behind links; `out` may lie in it, and has none."""
    if schema == "file":
        folders = [where]
    else:
        try:
            spec = find_spec(where) if schema == "pkg" else None
        except ImportError:
            spec = None     # Hydra warns of it
        folders = spec.submodule_search_locations or [] if spec is not None else []
    seen, out = set(), os.path.realpath(out)
    for folder in folders:
        for at, inside, files in os.walk(folder, followlinks=True):
            if (real := os.path.realpath(at)) in seen or (real == out and at != folder):
                inside.clear()
                continue
            seen.add(real)
            inside.sort()
            yield from (Path(at, name) for name in sorted(files) if name.endswith(".yaml"))


def _variables(text: str) -> list[str]:
    """Return the environment variables that a text reads, with their values; all if it reads their names as well."""
    names = [name.strip("'\"") for name in _VARIABLE.findall(text.replace("\\", ""))]       # Hydra escapes overrides
    return [f"{name}={os.environ.get(name)}" for name in (names if all(names) else sorted(os.environ))]
