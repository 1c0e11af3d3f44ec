"""Runs a study's stages one after another, each as a grid, and keeps the list of all its runs: study.json.

The list is what the report and other readers go by: also a run that is missing is known.
"""
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from lipfw.errors import InputError
from lipfw.files import read_jsonl, write_json
from lipfw.grid.cells import Composer
from lipfw.grid.stages import Planned, Stages
from lipfw.grid.state import finished

NAME = "study.json"


def run_stages(stages: Stages, name: str, folder: Path, compose: Composer,
               launch: Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]) -> list[JobReturn]:
    """Run all stages of a study; `launch` does a grid. Returns what became of the runs.

    Runs whose tickets another run has failed to find are left out, and told. Raises InputError if `folder` holds the
    same study with other options.
    """
    cells = [cell for stage in stages.cells.values() for cell in stage]
    manifest = Manifest(folder, name, stages)
    folders: dict[int, Path | None] = {}
    returns, first = [], 0
    for number, (stage, planned) in enumerate(stages.cells.items(), 1):
        ready, waiting = [], 0
        for cell in planned:
            overrides = _with_ticket(cell, folders)
            if overrides is None:
                waiting += 1
                continue
            found = compose(overrides).folders
            if len(found) > 1:
                raise InputError("fit.batch_seeds fits several runs in one process, which a study with stages can't: "
                                 "leave it out, or use hydra/launcher=local hydra.launcher.jobs_per_gpu=8")
            folders[id(cell)] = found[0]
            ready.append(overrides)
        manifest.write(cells, folders)
        print(f"{name}, scale={stages.scale}: stage {number} of {len(stages.cells)}, {stage}", flush=True)
        if ready:
            returns += launch(ready, first)
            first += len(ready)
        if waiting:
            print(f"  {waiting} not started: the runs that find their tickets have no result", flush=True)
    return returns


class Manifest:
    """study.json of a folder. Runs of an earlier start that differ in their seeds alone stay in it."""

    def __init__(self, folder: Path, name: str, stages: Stages):
        self.path = folder / NAME
        self._head = {"study": name, "scale": stages.scale, "given": stages.given, "spec": stages.spec}
        self._before = self._earlier()

    def write(self, cells: Sequence[Planned], folders: Mapping[int, Path | None]) -> None:
        """Write the list of all runs, those to come too."""
        listed = [{"stage": c.stage, "values": dict(c.values),
                   "folder": None if (f := folders.get(id(c))) is None else f.name} for c in cells]
        known = {_key(c) for c in listed}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self._head, "cells": [*listed, *(c for c in self._before if _key(c) not in known)]})

    def _earlier(self) -> list[dict]:
        """Return the runs of an earlier start. Raises InputError if that was of other options."""
        try:
            there = json.loads(self.path.read_text(encoding="utf-8"))
            before = {k: there[k] for k in self._head}
            cells = [c for c in there["cells"] if isinstance(c["stage"], str) and isinstance(c["values"], dict)]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, UnicodeDecodeError):
            return []       # it is written anew
        for key in ("study", "scale", "given"):
            if before[key] != self._head[key]:
                raise InputError(f"{self.path.parent} holds {_told(before)}, and this is {_told(self._head)}: add "
                                 f"name={self.path.parent.name}_2, or another name, to have both")
        # of a study that has been changed since, only what is asked for now counts
        return cells if all(before["spec"].get(k) == self._head["spec"].get(k) for k in ("common", "scales", "stages")
                            ) else []


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


def _key(cell: Mapping) -> str:
    return json.dumps([cell["stage"], cell["values"]], sort_keys=True)


def _told(head: Mapping) -> str:
    return " ".join([f"{head['study']} scale={head['scale']}", *head["given"]])


def staged(config: DictConfig) -> bool:
    """Return whether a composed config is that of a study with stages."""
    return bool(config.get("study"))
