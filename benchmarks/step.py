"""One optimisation step of the full-width hourglass, nothing removed. Larger is faster; the published loop is 1.

lipfw's steps are those of a run: average, pick and, every tenth, metrics. From 256 pixels on a CPU each contender has
a process, and so a memory allocator, of its own.
"""
from collections.abc import Iterator

from benchmarks.row import Row, speed
from benchmarks.setting import LARGE, Setting

CONTENDERS = {"bare": "bare loop", "dense": "lipfw, kernel=dense", "auto": "lipfw, kernel=auto",
              "dense bf16": "lipfw, kernel=dense, bf16", "auto bf16": "lipfw, kernel=auto, bf16",
              "deepinv": "deepinv's DeepImagePrior"}
GOALS = {("auto", 128, "cpu"): "dense 128", ("auto", 256, "cpu"): "dense 256", ("auto bf16", 128, "cpu"): "bf16 128",
         ("auto", 512, "cuda"): "gpu 512", ("auto", 256, "cuda"): "gpu 256"}


def measure(setting: Setting) -> Iterator[Row]:
    """Time all contenders in the same turns, size by size."""
    for size in setting.sizes:
        specs = {name: setting.spec(name, size) for name in ("published", *CONTENDERS)}
        samples, says = setting.compare(specs, 9 if size >= LARGE else 15)
        for name, called in CONTENDERS.items():
            yield speed(f"{called}, {size} px", "published loop", samples, (name, "published"), says[name],
                        GOALS.get((name, size, setting.device), ""))
