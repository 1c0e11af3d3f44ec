"""study.json: the list of a study's runs, what is planned and not begun too. No torch here, and no Hydra.

The report and the status go by it, so that a run that is missing is known to be.
"""
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lipfw.errors import InputError
from lipfw.files import write_json

NAME = "study.json"


def read(folder: Path) -> dict | None:
    """Return the list of a folder, None if there is none that can be read: it is written anew at the next start."""
    try:
        there = json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))
        sound = (all(isinstance(there[k], t) for k, t in (("study", str), ("scale", str), ("given", list),
                                                          ("spec", dict), ("cells", list)))
                 and all(isinstance(c["stage"], str) and isinstance(c["values"], dict)
                         and isinstance(c["folder"], str | None) for c in there["cells"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return there if sound else None


class Manifest:
    """The list of a study's folder. Runs of an earlier start that differ in their seeds alone stay in it.

    `head` has study, scale, given and spec. Raises InputError if the folder holds that study with other options.
    """

    def __init__(self, folder: Path, head: Mapping):
        self.path, self._head = folder / NAME, dict(head)
        self._earlier()

    def write(self, cells: Sequence[Mapping]) -> None:
        """Write the list of all runs, those to come too: stage, values, and the folder's name, None: not known yet."""
        known = {_key(c) for c in cells}
        before = self._earlier()        # read again: another start, with other seeds, may have written since
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {**self._head, "cells": [*cells, *(c for c in before if _key(c) not in known)]})

    def _earlier(self) -> list[dict]:
        """Return the runs of an earlier start. Raises InputError if that was of other options."""
        there = read(self.path.parent)
        if there is None:
            return []
        before, cells = {k: there[k] for k in self._head}, there["cells"]
        for key in ("study", "scale", "given"):
            if before[key] != self._head[key]:
                raise InputError(f"{self.path.parent} holds {_told(before)}, and this is {_told(self._head)}: add "
                                 f"name={self.path.parent.name}_2, or another name, to have both")
        # of a study that has been changed since, only what is asked for now counts
        return cells if all(before["spec"].get(k) == self._head["spec"].get(k) for k in ("common", "scales", "stages")
                            ) else []


def _key(cell: Mapping) -> str:
    return json.dumps([cell["stage"], cell["values"]], sort_keys=True)


def _told(head: Mapping) -> str:
    return " ".join([f"{head['study']} scale={head['scale']}", *head["given"]])
