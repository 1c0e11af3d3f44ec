"""study.json and the runs that it plans -> a Study: what was asked, every planned cell, and series of points.

The manifest lists every cell of a study before any of its runs is there, so that what is missing is told, and not left
out. `claims` and `published` take their numbers from here, the figures theirs.
"""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lipfw.errors import InputError, choice
from lipfw.report.manifest import MANIFEST, Manifest, joined, matches, read_manifest
from lipfw.report.read import Run, Unfinished, is_run, natural, read_run, reason

SERIES = ("stage", "where", "label", "round")       # the keys of a series


@dataclass(frozen=True)
class Point:
    """One round of one run of a series.

    `sparsity` in [0, 1) is that of the ticket where one was replayed: layers that fit no longer are kept whole, and
    make the run's own a little smaller. `record` is the line of rounds.jsonl, `values` are the cell's in study.json.
    """

    folder: Path
    round: int
    sparsity: float
    params_left: int
    record: Mapping
    values: Mapping[str, str]
    run: Run

    @property
    def picture(self) -> str:
        """The name of the picture, or of the set of several."""
        return self.run.base.split("-")[1]

    @property
    def seed(self) -> str:
        return str(self.run.seeds.get("seed", self.values.get("seed", "")))


@dataclass(frozen=True)
class Series:
    """Points of the runs of one stage that a study compares under one name, and the cells without a result.

    `fixed` is the one round that is taken of each run, None where all are. `planned` has the values of every cell of
    `stage`, done or not, that belongs to it.
    """

    name: str
    label: str
    points: tuple[Point, ...]
    missing: tuple[Mapping, ...]
    fixed: int | None = None
    planned: tuple[Mapping[str, str], ...] = ()
    stage: str = ""

    @property
    def level(self) -> bool:
        """It stands beside every sparsity of another series: one fixed round, or networks that nothing was cut from."""
        return self.fixed is not None or not any(p.sparsity for p in self.points)


@dataclass(frozen=True)
class Study:
    """A study as its manifests and runs tell it; `folder` is the first of `folders`.

    `cells` are those of study.json, each with `state` (done, failed, unfinished, unreadable or planned), `reason` (in
    words, "" where it is done) and `path`, the run's folder (None: not yet known). `others` are runs that lie in the
    folders and belong to no cell. `seconds` sums those of all rounds that are done, `devices` are those of their runs.
    """

    folder: Path
    name: str
    figure: str
    question: str
    expected: str
    scale: str
    metric: str
    cells: Sequence[Mapping]
    series: Mapping[str, Series]
    spec: Mapping
    given: Sequence[str] = ()
    folders: Sequence[Path] = ()
    runs: Mapping[Path, Run] = field(default_factory=dict, repr=False)
    others: Sequence[Path] = ()

    @cached_property
    def done(self) -> int:
        """How many cells have their result."""
        return sum(c["state"] == "done" for c in self.cells)

    @property
    def seconds(self) -> float:
        return sum(r.get("seconds") or 0 for run in self.runs.values() for r in run.rounds)

    @property
    def devices(self) -> list[str]:
        return sorted({run.device for run in self.runs.values() if run.device})

    @property
    def manifest(self) -> Path:
        """What an error names."""
        return self.folder / MANIFEST


def read_study(folder: Path) -> Study | None:
    """Return the study in a folder, None if it has no study.json. Raises InputError, naming the file and the key."""
    manifest = read_manifest(folder)
    return _study([manifest]) if manifest else None


def read_studies(folders: Iterable[Path]) -> list[Study]:
    """Return the studies in the folders that have a study.json, by name; several folders of one are joined.

    A cell of two folders counts once, where it has a result. Raises InputError for a broken study.json, for folders of
    one study that differ in their scale, their options (but for seeds and pictures) or what they ask, and for a run
    whose options are not those of its cell.
    """
    by_name: dict[str, list[Manifest]] = {}
    for folder in {Path(f).resolve(): Path(f) for f in folders}.values():
        if manifest := read_manifest(folder):
            by_name.setdefault(manifest.name, []).append(manifest)
    return [_study(by_name[name]) for name in sorted(by_name, key=natural)]


def _study(manifests: Sequence[Manifest]) -> Study:
    first = joined(manifests)
    folders = [m.folder for m in manifests]
    runs: dict[Path, Run] = {}
    by_plan: dict[tuple, dict] = {}
    for manifest in manifests:
        for planned in manifest.cells:
            cell = _cell(manifest, planned, runs)
            key = cell["stage"], tuple(sorted(cell["values"].items()))
            if key not in by_plan or (by_plan[key]["state"] != "done" and cell["state"] != "planned"):
                by_plan[key] = cell
    cells = list(by_plan.values())
    paths = {c["path"] for c in cells}
    mine = {f.resolve() for m in manifests for c in m.cells if c["folder"] for f in [m.folder / c["folder"]]}
    others = [f for folder in folders for f in sorted(folder.iterdir(), key=lambda f: natural(f.name))
              if f.is_dir() and not f.name.startswith(".") and f.resolve() not in mine and is_run(f)]
    spec = first.spec
    series = {name: _series(first, name, node, cells, runs) for name, node in (spec.get("series") or {}).items()}
    return Study(first.folder, first.name, *(str(spec.get(k) or "") for k in ("figure", "question", "expected")),
                 first.scale, str(spec.get("metric") or "psnr_peak"), cells, series, spec, first.given, folders,
                 {f: r for f, r in runs.items() if f in paths}, others)


def _cell(manifest: Manifest, planned: Mapping, runs: dict[Path, Run]) -> dict:
    """Return a cell with its state; its run, if it is done, goes to `runs`."""
    cell = {**planned, "path": None, "state": "planned", "reason": "its tickets are not found yet"}
    if planned["folder"] is None:
        return cell
    path = cell["path"] = manifest.folder / planned["folder"]
    if not is_run(path):
        return cell | _failed(path, "not started")
    try:
        run = runs.get(path) or read_run(path)
    except (ValueError, OSError) as e:
        return cell | {"state": "unreadable", "reason": reason(e)}
    if isinstance(run, Unfinished):
        total = "" if run.total is None else f" of {run.total}"
        return cell | _failed(path, f"not finished: {run.done}{total} rounds done", "unfinished")
    manifest.check(planned, run)
    runs[path] = run
    return cell | {"state": "done", "reason": ""}


def _failed(path: Path, otherwise: str, state: str = "planned") -> dict:
    """Return why a run has failed, if it has left that, else `otherwise`."""
    # imported here: it needs Hydra, and most studies have no such run
    from lipfw.failed import read

    error = read(path)
    return {"state": "failed", "reason": f"failed: {error}"} if error else {"state": state, "reason": otherwise}


def _series(manifest: Manifest, name: str, node, cells: Sequence[Mapping], runs: Mapping[Path, Run]) -> Series:
    where = f"{manifest.path}: series.{name}"
    if not isinstance(node, Mapping):
        raise InputError(f"{where} must name its stage, got {node!r}")
    for key in node:
        choice(f"{where}: each key", key, SERIES)
    stages = dict.fromkeys([*(manifest.spec.get("stages") or {}), *(c["stage"] for c in cells)])
    stage = choice(f"{where}.stage", node.get("stage"), list(stages))
    fixed = node.get("round")
    if fixed is not None and (isinstance(fixed, bool) or not isinstance(fixed, int) or fixed < 0):
        raise InputError(f"{where}.round must be a whole number of at least 0, got {fixed!r}")
    of_stage = [c for c in cells if c["stage"] == stage]
    every = [c["values"] for c in of_stage]
    mine = [c for c in of_stage if matches(c["values"], node.get("where"), f"{where}.where", every)]
    points, missing = [], []
    for c in mine:
        if c["state"] == "done":
            points += _points(c, runs[c["path"]], fixed)
        else:
            missing.append(c)
    return Series(name, str(node.get("label") or name), tuple(points), tuple(missing), fixed,
                  tuple(c["values"] for c in mine), stage)


def _points(cell: Mapping, run: Run, fixed: int | None) -> list[Point]:
    rounds = run.rounds if fixed is None else run.rounds[fixed:fixed + 1]
    return [Point(cell["path"], r["round"], run.place(r["round"]), r["params_left"], r, cell["values"], run)
            for r in rounds]
