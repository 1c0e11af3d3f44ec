"""A run's folder -> where it stands. Files that are damaged, or vanish meanwhile, tell nothing and are no error."""
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lipfw import failed
from lipfw.grid.state import State, state
from lipfw.lock import holder
from lipfw.report.read import started_in
from lipfw.status.plan import Plan, chosen, plan

_TAIL = 32_768      # bytes of steps.jsonl that are looked at: more than 100 records
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)       # the latter takes 5 ms for a config
_DEEPEST = 50       # levels of a config
_MEASURES = ("swd", "accuracy")     # keys in the records of runs that train, and what a table calls them
_BEGUN = 5.0        # seconds from which on what has been seen of a round tells its pace


@dataclass(frozen=True)
class Standing:
    """Where a run stands; None: not known.

    `rounds` are complete, of `planned`; `share` is the fraction of all steps that is done. `quality` is what `measure`
    says: a PSNR in dB, the distance swd of a generator in training in 1/1000, a classifier's accuracy in percent.
    `seconds` have been worked, `left` are still to be, at the slower pace of the last round and this one: rounds to
    come are sparser and may be faster. `host` is at it; `reason` is why it failed, or why it ended before its last
    round.
    """

    state: State
    rounds: int | None = None
    planned: int | None = None
    share: float | None = None
    quality: float | None = None
    measure: str = "PSNR"
    seconds: float | None = None
    left: float | None = None
    host: str | None = None
    reason: str | None = None


class Reader:
    """Reads run folders again and again: of their files what has changed since, and of steps.jsonl only the end."""

    def __init__(self):
        self._files: dict[Path, tuple[tuple[int, int], Any]] = {}           # when a file was read, and what it told
        self._seen: dict[Path, tuple[int, int, float]] = {}     # a run's round, and step and time when first seen in it

    def __call__(self, folder: Path) -> Standing:
        """Return where the run of a folder stands."""
        now = state(folder)
        if now is State.WAITING:
            return Standing(now)
        if now is State.DONE:
            return self._file(folder / "result.json", _finished) or Standing(now)
        config = self._file(folder / "config.yaml", _config) or {}
        rounds = self._file(folder / "rounds.jsonl", _records) or []
        latest = self._file(folder / "steps.jsonl", _tail) or []
        planned = plan(config, started_in(folder, config), rounds, self._weights(folder, rounds))
        step = latest[-1]["step"] if latest and latest[-1]["round"] == len(rounds) else 0
        if step and rounds and planned.steps is not None:
            step -= planned.first - planned.later       # steps count from the start of round 0's
        quality, measure = _quality(rounds, latest, config)
        common = dict(rounds=len(rounds), planned=planned.rounds, quality=quality, measure=measure,
                      share=_share(planned, len(rounds), step), reason=failed.read(folder))
        spent = sum(r["seconds"] for r in rounds)
        if now is not State.RUNNING:
            return Standing(now, **common, seconds=spent)
        pace, here = self._pace(folder, rounds, step)
        left = None
        if pace is not None and planned.steps is not None:
            left = pace * max(0, planned.steps - planned.before(len(rounds)) - step)
        return Standing(now, **common | {"reason": None}, seconds=spent + here, left=left,
                        host=(holder(folder) or "").rpartition(", process ")[0] or None)

    def _pace(self, folder: Path, rounds: Sequence[Mapping], step: int) -> tuple[float | None, float]:
        """Return a run's seconds a step, None if they are not known yet, and the seconds that this round has taken.

        Files tell when a round began, or was taken up: rounds.jsonl is written then. How many of its steps had been
        done before that, they do not tell: of the first round a checkpoint from before shows that there were some, and
        of a later one the pace of the last round is known.
        """
        paces, here, last_steps = [], 0.0, 0
        if rounds:
            last_steps = max(1, rounds[-1]["step_last"] - rounds[-1]["step_first"] + 1)
            paces.append(rounds[-1]["seconds"] / last_steps)
        began, now = _changed(folder / "rounds.jsonl"), _changed(folder / "steps.jsonl")
        if step and began is not None and now is not None:
            here = max(0.0, now - began)
            before = [_changed(folder / n) for n in ("checkpoint.ckpt", "checkpoint.before.ckpt")]
            taken_up = not rounds and any(t is not None and t < began for t in before)
            if here and not taken_up and step >= last_steps / 4:    # before, a round's time is that of its pruning
                paces.append(here / step)
        if now is not None:
            seen = self._seen.get(folder)
            if seen is None or seen[0] != len(rounds) or seen[1] > step:
                self._seen[folder] = seen = len(rounds), step, now
            if step > max(seen[1], last_steps / 4) and now - seen[2] >= _BEGUN:
                paces.append((now - seen[2]) / (step - seen[1]))
        return max(paces, default=None), here

    def _weights(self, folder: Path, rounds: Sequence[Mapping]) -> tuple[int, int] | None:
        """Return the number of prunable weights and of other parameters, which the first round leaves."""
        total = self._file(folder / "tickets/round_00.safetensors", _total) if rounds else None
        return None if total is None else (total, rounds[0]["params_left"] - total)

    def _file(self, path: Path, parse: Callable[[Path], Any]):
        """Return what a file tells, None if it is not there or damaged."""
        try:
            there = path.stat()
            stamp = there.st_mtime_ns, there.st_size
            if path not in self._files or self._files[path][0] != stamp:
                self._files[path] = stamp, parse(path)
            return self._files[path][1]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, yaml.YAMLError):
            return None


def _finished(path: Path) -> Standing:
    """Return where a run stands that has its result."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rounds, best, ended = result["rounds"], result["best_round"], result.get("ended")
    quality, measure = _of_round(rounds[best])
    planned = plan(result["config"], Path(), rounds).rounds if ended else len(rounds)
    return Standing(State.DONE, len(rounds), planned, 1.0, quality, measure, _number(result.get("seconds")), 0.0,
                    reason=ended)


def _config(path: Path) -> dict:
    text, depth = path.read_bytes(), 0
    for event in yaml.parse(text, _YAML):       # loading goes as deep as the text does, in C until the process dies
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST or isinstance(event, yaml.AliasEvent):      # of aliases a few lines fill the memory
            raise ValueError(f"{path.name} is no config that lipfw has written")
    config = yaml.load(text, _YAML)
    return config if isinstance(config, dict) else {}


def _records(path: Path) -> list[dict]:
    """Return the records of rounds 0, 1, 2, ..., up to the first that is damaged."""
    found = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        record = _record(line)
        if record is None or record.get("round") != len(found) or not _sound(record):
            break
        found.append(record)
    return found


def _tail(path: Path) -> list[dict]:
    """Return the last records of a long file."""
    with open(path, "rb") as f:
        size = f.seek(0, 2)
        f.seek(max(0, size - _TAIL))
        lines = f.read().decode(errors="replace").split("\n")[:-1]
    records = map(_record, lines[1:] if size > _TAIL else lines)     # the first is a piece of one
    return [r for r in records if r is not None and type(r.get("round")) is type(r.get("step")) is int]


def _record(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _sound(record: Mapping) -> bool:
    return all(_number(record.get(k)) is not None for k in ("seconds", "loss", "step_first", "step_last",
                                                                 "params_left"))


def _total(path: Path) -> int:
    """Return how many prunable weights there are, by the header of a ticket (`lipfw.ticket` writes it)."""
    with open(path, "rb") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(min(size, 10_000_000)))
    return int(json.loads(header["__metadata__"]["lipfw-ticket"])["total"])


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _share(planned: Plan, rounds: int, step: int) -> float | None:
    if planned.steps is None:
        return None
    return min(1.0, (planned.before(rounds) + step) / planned.steps)


def _quality(rounds: Sequence[Mapping], latest: Sequence[Mapping], config: Mapping) -> tuple[float | None, str]:
    """Return the quality of the best round so far, that of the last step before a round is complete; and what it is.
    """
    if rounds:
        pruner = config.get("pruner")
        patience = pruner.get("patience", 2) if isinstance(pruner, Mapping) else 2
        return _of_round(rounds[chosen([r["loss"] for r in rounds], patience)])
    key = next((k for k in _MEASURES if any(k in r for r in latest)), "psnr")
    known = [v for r in latest if (v := _number(r.get(key))) is not None]
    return (known[-1] if known else None), key if key in _MEASURES else "PSNR"


def _of_round(record: Mapping) -> tuple[float | None, str]:
    key = next((k for k in _MEASURES if k in record), "psnr_picked")
    return _number(record.get(key)), key if key in _MEASURES else "PSNR"


def _number(value) -> float | None:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
