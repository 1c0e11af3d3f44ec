"""Runs a study's stages, those that wait for the same as one grid, and keeps the list of all its runs."""
import glob
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.grid.cells import Composer
from lipfw.grid.manifest import Manifest
from lipfw.grid.stages import Planned, Stages
from lipfw.grid.state import finished
from lipfw.interrupt import asked


def run_stages(stages: Stages, name: str, folder: Path, compose: Composer,
               launch: Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]],
               most: int | None = None) -> list[JobReturn]:
    """Run all stages of a study; `launch` does a grid. Returns what became of the runs.

    Stages that replay nothing are one grid, those that replay these the next, and so on: no device waits for the last
    run of a stage that nothing hangs on. Runs whose tickets another run has failed to find are left out and told. After
    `most` failures no further grid begins (None: all do). Raises InputError if `folder` holds the same study with other
    options, SystemExit if this process is asked to stop and grids are left.
    """
    cells = [cell for stage in stages.cells.values() for cell in stage]
    manifest = Manifest(folder, {"study": name, "scale": stages.scale, "given": stages.given, "spec": stages.spec})
    folders: dict[int, Path | None] = {}
    returns, first = [], 0
    waves = _waves(stages)
    for number, names in enumerate(waves, 1):
        ready, waiting = [], 0
        for cell in (cell for stage in names for cell in stages.cells[stage]):
            overrides = _with_ticket(cell, folders)
            if overrides is None:
                waiting += 1
                continue
            found = compose(overrides).folders
            if len(found) > 1:
                raise InputError("fit.batch_seeds fits several runs in one process, which a study with stages can't: "
                                 "leave it out, or use hydra/launcher=local hydra.launcher.jobs_per_gpu=8")
            folders[id(cell)] = found[0]
            _take_over(found[0])
            ready.append(overrides)
        manifest.write([_listed(c, folders.get(id(c))) for c in cells])
        left = f"not started: {', '.join(stage for wave in waves[number - 1:] for stage in wave)}"
        _heed(left)
        if most is not None and sum(r.status is JobStatus.FAILED for r in returns) >= most:
            print(f"{left}: max_failures={most}", flush=True)
            break
        print(f"{name}, scale={stages.scale}: grid {number} of {len(waves)}, {', '.join(names)}", flush=True)
        if ready:
            returns += launch(ready, first)
            first += len(ready)
        if waiting:
            print(f"  {waiting} not started: the runs that find their tickets have no result", flush=True)
    return returns


def _waves(stages: Stages) -> list[list[str]]:
    """Return the names of stages that can be run together: those whose tickets the ones before have found."""
    depth: dict[str, int] = {}
    for name, cells in stages.cells.items():
        depth[name] = max((1 + depth[cell.of.stage] for cell in cells if cell.of is not None), default=0)
    return [[name for name, d in depth.items() if d == wave] for wave in range(max(depth.values(), default=-1) + 1)]


def _heed(left: str) -> None:
    """End the process, as a grid does, if it has been asked to stop before a grid: the last one was done."""
    if (reason := asked()) is not None:
        print(f"{left}: {reason}; start the study again to go on", flush=True)
        sys.exit(128 + signal.Signals[reason])


def _take_over(folder: Path) -> None:
    """Link the same run in, if another study beside this one has finished it: it is what its options make it."""
    if folder.exists():
        return
    there = next((f.parent for f in folder.parent.parent.glob(f"*/{glob.escape(folder.name)}/result.json")), None)
    if there is not None:
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*"):       # by a start that was killed
            shutil.rmtree(left, ignore_errors=True)
        part = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            shutil.copytree(there, part, copy_function=_link)
            part.rename(folder)
        except OSError:     # another process was quicker, or the other run is being removed: it is run here
            shutil.rmtree(part, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)     # a finished run's files are never written to again
    except OSError:
        shutil.copy2(source, target)


def _with_ticket(cell: Planned, folders: Mapping[int, Path | None]) -> list[str] | None:
    """Return a run's overrides, with the ticket that it replays; None if that is not found."""
    if cell.of is None:
        return list(cell.overrides)
    found = folders.get(id(cell.of))
    if found is None or not finished(found):
        return None
    path = found if cell.sparsity is None else _nearest(found, float(cell.sparsity))
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return [*cell.overrides, f"pruner.path='{quoted}'"]


def _nearest(found: Path, sparsity: float) -> Path:
    rounds = read_jsonl(found / "rounds.jsonl")
    best = min(rounds, key=lambda r: abs(r["sparsity"] - sparsity))
    if abs(best["sparsity"] - sparsity) > 0.05:
        raise InputError(f"{found} has no ticket near sparsity {sparsity}: the nearest is {best['sparsity']:.4f}")
    return found / "tickets" / f"round_{best['round']:02d}.safetensors"


def _listed(cell: Planned, folder: Path | None) -> dict:
    return {"stage": cell.stage, "values": dict(cell.values), "folder": None if folder is None else folder.name}
