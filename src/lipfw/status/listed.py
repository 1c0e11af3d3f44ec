"""Which runs a folder has: the cells that its grids remember, begun or not, and what else lies there."""
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lipfw.errors import InputError
from lipfw.grid import journal, manifest
from lipfw.grid.journal import Entry
from lipfw.report.read import is_run, natural, run_folders

_PARTS = ("task", "image", "prior", "pruner", "seed")     # of a folder's name, before the digits
_TOP = {"seed", "name", "out"}
Kind = Literal["cell", "earlier", "single"]


@dataclass(frozen=True)
class Listed:
    """A run: its folder, what it is called, and `alike`, which is the same for runs that differ in their seeds alone.

    A `cell` is a grid's, as its configs were when it was last asked for; an `earlier` one's have been changed since; a
    `single` run is no grid's. `log` is where its output goes.
    """

    folder: Path
    label: str
    alike: str
    kind: Kind
    log: Path


@dataclass(frozen=True)
class _Found:
    """A run before it has its label: `told` are its overrides, or the parts of its folder's name."""

    folder: Path
    told: Mapping[str, str]
    kind: Kind
    log: Path


def listed(given: Sequence[Path]) -> list[Listed]:
    """Return the runs of the folders that are given, a run that is met twice once. Raises InputError for none.

    Of several entries of a grid with the same overrides the last counts: its folder is the one that the same command
    works at. An earlier one is of configs (or of a lipfw) that have been changed since; it is shown only where its run
    has been begun, and is waiting for nothing.
    """
    found: dict[Path, tuple[Path, _Found]] = {}
    for folder in given:
        for one in _runs(folder):
            found.setdefault(Path(os.path.abspath(one.folder)), (folder, one))
    several = len(set(map(os.path.abspath, given))) > 1
    return _labelled([(str(folder), one) for folder, one in found.values()], several)


def _runs(given: Path) -> list[_Found]:
    study = manifest.read(given)
    try:
        found = _grids_runs(given)
    except InputError:      # no run has been begun
        if study is None:
            raise
        found = []
    if study is None:
        return found
    # its own list tells more than the overrides do, and has the stages to come, whose folders have no names yet
    known = {os.path.abspath(f.folder): f for f in found}
    cells = []
    for number, cell in enumerate(study["cells"]):
        folder = given / (cell["folder"] or f"later-{number}")
        log = known.pop(os.path.abspath(folder), None)
        cells.append(_Found(folder, {"stage": cell["stage"], **{k: str(v) for k, v in cell["values"].items()}}, "cell",
                            log.log if log else given / "logs" / f"{folder.name}.log"))
    return [*cells, *known.values()]


def _grids_runs(given: Path) -> list[_Found]:
    entries = list(journal.read(given).values())
    if not entries:
        return [_single(folder) for folder in run_folders(given)]
    last = {e.overrides: e for e in entries}
    found = {}
    for entry in entries:
        current = last[entry.overrides] is entry
        for path in entry.folders:
            folder = _located(path, given)
            if current or is_run(folder):
                one = _Found(folder, _told(entry, path), "cell" if current else "earlier",
                             given / "logs" / f"{entry.folders[0].name}.log")
                if current or folder not in found:
                    found[folder] = one
    known = {os.path.abspath(f) for f in found}
    with os.scandir(given) as inside:
        others = [given / e.name for e in inside
                  if not e.name.startswith(".") and os.path.join(os.path.abspath(given), e.name) not in known]
    others.sort(key=lambda f: natural(f.name))
    return [*found.values(), *(_single(f) for f in others if is_run(f))]


def _located(path: Path, given: Path) -> Path:
    """Return where a cell's folder is: it was told relative to the folder that its grid was started in.

    Nearly always it lies beside the grid's file, whose folder may have been moved since. Where the cells differ in
    name= or out= it does not; then it is looked for from here and from above.
    """
    beside, whole = given / path.name, given.absolute()
    if path.parent.name == whole.name or beside.is_dir():
        return beside
    return next((p for p in (path, *(above / path for above in whole.parents)) if p.is_dir()), beside)


def _told(entry: Entry, path: Path) -> dict[str, str]:
    """Return the options that a cell's overrides set; one of several seeds has its own."""
    told = {}
    for line in map(str, entry.overrides):
        key, equals, value = line.partition("=")
        told[key.lstrip("+") if equals else line] = value
    if len(entry.folders) > 1 and (seed := _named(path).get("seed")) is not None:
        told |= {"seed": seed}
    return told


def _single(folder: Path) -> _Found:
    return _Found(folder, _named(folder), "single", folder.parent / "logs" / f"{folder.name}.log")


def _named(folder: Path) -> dict[str, str]:
    """Return the parts of a run's name, {} for a folder that has been given another."""
    parts = Path(os.path.abspath(folder)).name.split("-")
    if len(parts) != len(_PARTS) + 1 or not re.fullmatch(r"s\d+", parts[4]):
        return {}
    return dict(zip(_PARTS, parts[:-1], strict=False)) | {"seed": parts[4][1:]}


def _labelled(found: Sequence[tuple[str, _Found]], several: bool) -> list[Listed]:
    """Return runs with labels of what tells them apart; with the digits of their names where nothing else does.

    A single run beside a grid's cells goes by its folder's name.
    """
    cells = {id(one): one.told for _, one in found if one.kind != "single"} or {id(one): one.told for _, one in found}
    keys = dict.fromkeys(k for told in cells.values() for k in told)
    differ = [k for k in keys if len({told.get(k) for told in cells.values()}) > 1]
    tails = Counter(k.rpartition(".")[2] for k in differ)
    out = []
    for given, one in found:
        words = {k: _word(k, one.told[k], tails) for k in differ if k in one.told} if id(one) in cells else {}
        front = [f"{given}:"] if several else []
        back = ["(earlier)"] if one.kind == "earlier" else []
        alike = [w for k, w in words.items() if k != "seed"] or [v for k, v in _named(one.folder).items()
                                                                  if k != "seed" and not words]
        out.append((one, " ".join([*front, *(words.values() or [one.folder.name]), *back]),
                    " ".join([*front, *alike, *back])))
    twice = Counter(label for _, label, _ in out)
    return [Listed(one.folder, label if twice[label] == 1 else f"{label} {one.folder.name.rpartition('-')[2]}", alike,
                   one.kind, one.log) for one, label, alike in out]


def _word(key: str, value: str, tails: Counter) -> str:
    """Return an override in short: sigma=25 for task.sigma=25 where no other option that differs ends so."""
    tail = key.rpartition(".")[2]
    short = tail if tails[tail] == 1 and (tail not in _TOP or key == tail) else key
    return f"{short}={value}" if value else short
