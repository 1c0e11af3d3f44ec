"""Which folders the cells of a grid have, remembered: a second start need not compose a thousand configs to skip them.

grid.jsonl in the grid's folder has a line a cell. It is a note and no truth: without it the cells are composed again.
"""
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from lipfw import __version__
from lipfw.folder import named_files, path_digest
from lipfw.redact import text

NAME = "grid.jsonl"


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

    def __init__(self, folder: Path, loader: ConfigLoader, master: DictConfig):
        self.folder, self._configs = Path(folder), _fingerprint(loader, master)
        self._entries = read(folder)

    def key(self, overrides: Sequence[str]) -> str:
        """Return what a cell is found by: its overrides, and everything else that its config follows from."""
        return hashlib.sha256(json.dumps([self._configs, *overrides]).encode()).hexdigest()[:16]

    def find(self, overrides: Sequence[str]) -> tuple[Path, ...] | None:
        """Return the folders of a cell, None if they are not known or a file that they were named by has changed."""
        entry = self._entries.get(self.key(overrides))
        if entry is None or any(path_digest(*named) != digest for *named, digest in entry.files):
            return None
        return entry.folders

    def add(self, cells: Iterable) -> None:
        """Remember composed cells, in one write."""
        new = []
        for cell in cells:
            files = [(*named, path_digest(*named)) for named in named_files(cell.config)]
            if any(text(path) != path for _, path, *_ in files):
                continue        # a path that holds a secret is not written down
            new.append({"key": self.key(cell.overrides), "overrides": [text(o) for o in cell.overrides],
                        "folders": [str(f) for f in cell.folders], "files": files})
        if new:
            with open(self.folder / NAME, "a", encoding="utf-8") as f:
                f.write("".join(json.dumps(e) + "\n" for e in new))


def _fingerprint(loader: ConfigLoader, master: DictConfig) -> str:
    """Return a digest of all that the config of a cell follows from, besides its overrides."""
    digest, variables = hashlib.sha256(), set()

    def take(text: str) -> None:
        digest.update(text.encode() + b"\0")
        variables.update(re.findall(r"oc\.env:\s*(\w+)", text))

    take(f"{__version__} {master.hydra.job.config_name} {list(master.hydra.overrides.hydra)}")
    for source in loader.get_sources():
        if source.scheme() == "file":
            for path in sorted(Path(source.path).rglob("*.yaml")):
                take(f"{path}\n{path.read_text(encoding='utf-8', errors='replace')}")
    for name in sorted(variables):
        take(f"{name}={os.environ.get(name)}")
    return digest.hexdigest()
