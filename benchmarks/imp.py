"""A whole IMP run of 17 rounds: the dense one and 16 sparser ones. Larger is faster."""
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks import masks
from benchmarks.command import TINY, lipfw, result
from benchmarks.row import Row, speed
from benchmarks.setting import Setting
from benchmarks.timing import in_turns

NAMES = ("published", "dense", "auto")
ROUNDS = 17
LOOK = ["image.size=64", "fit.steps=40"]


def measure(setting: Setting) -> Iterator[Row]:
    """Sum the steps of every round's mask; then do whole runs with few steps a round."""
    yield from _rounds(setting)
    yield _runs(setting)


def _rounds(setting: Setting) -> Iterator[Row]:
    """Rows from the time of a step in every round, summed over the rounds turn by turn."""
    size = 32 if setting.quick else 128
    turns = setting.turns(3)
    total = {name: [0.0] * turns for name in NAMES}
    chose = []
    for ticket in masks.found(setting)[:ROUNDS:8 if setting.quick else 1]:
        samples, says = setting.compare({name: setting.spec(name, size, ticket) for name in NAMES}, turns)
        chose.append(says["auto"])
        total = {name: [a + b for a, b in zip(total[name], samples[name], strict=True)] for name in NAMES}
    kernels = ", ".join(f"{kernel} {rounds} times" for kernel, rounds in Counter(chose).items())
    note = f"one step of each of {len(chose)} rounds; auto chose: {kernels}"
    for name, base, goal in (("auto", "published", "IMP run"), ("dense", "published", ""), ("auto", "dense", "")):
        yield speed(f"lipfw, kernel={name}, {size} px", "published loop" if base == "published" else "kernel=dense",
                    total, (name, base), note, goal if setting.device == "cpu" and size == 128 else "")


def _runs(setting: Setting) -> Row:
    """The row of complete runs with all they do between the steps: pruning, pictures, tickets, checkpoints."""
    size = ["pruner.rounds=1", *TINY] if setting.quick else [f"pruner.rounds={ROUNDS - 1}", *LOOK]

    def seconds(kernel: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            run = lipfw(Path(folder), "imp", "pruner=imp", f"fit.kernel={kernel}", *size, threads=setting.threads)
            return result(run)["wall_seconds_this_start"]

    samples = in_turns({k: lambda k=k: seconds(k) for k in ("dense", "auto")}, 1 if setting.quick else 2)
    return speed(f"a complete run, kernel=auto, {' '.join(size)}", "kernel=dense", samples, ("auto", "dense"),
                 "wall time of the run without the imports")
