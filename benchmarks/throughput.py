"""Many fits on one machine: steps a second of all together at 97 %, against the published loop alone. Larger is better.

On a CPU one process a core with one thread each, against one process with all threads; on a GPU eight fits, each on a
stream of its own.
"""
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from statistics import median

import torch

from benchmarks import masks
from benchmarks.contenders import stepping
from benchmarks.row import Row, speed
from benchmarks.setting import Setting
from benchmarks.timing import in_turns, ratio, seconds_of
from benchmarks.worker import Worker

FITS = 8


def measure(setting: Setting) -> Iterator[Row]:
    """Let both sides run in windows that take turns."""
    if setting.device == "cuda":
        yield _streams(setting)
        return
    ticket = masks.found(setting)[masks.ROUNDS[97]]
    cores = 1 if setting.quick else setting.cores
    for size in (32,) if setting.quick else (64, 128):
        with contextlib.ExitStack() as stack:
            sides = {"published": [(setting.spec("published", size, ticket), setting.threads)],
                     "lipfw": [(setting.spec("auto", size, ticket), 1)] * cores}
            workers = {name: [stack.enter_context(Worker(*w)) for w in side] for name, side in sides.items()}
            samples = in_turns({name: partial(_rate, setting, each) for name, each in workers.items()},
                               1 if setting.quick else 3)
            yield Row(f"lipfw, kernel=auto, one process a core ({cores}), 1 thread each, {size} px",
                      f"published loop, one process, threads: {setting.threads}",
                      ratio(samples["lipfw"], samples["published"]),
                      {"steps/s": median(samples["lipfw"]), "steps/s against": median(samples["published"])},
                      f"auto chose: {workers['lipfw'][0].says}", "throughput" if size == 64 else "")


def _rate(setting: Setting, workers: list[Worker]) -> float:
    """Return the steps a second of all workers together, in a window in which all are busy."""
    start = time.time() + (0.2 if setting.quick else 1.5)
    end = start + (0.5 if setting.quick else 8)
    for worker in workers:
        worker.send("window", start=start, end=end)
    return sum(worker.receive() for worker in workers)


def _streams(setting: Setting) -> Row:
    """The row of fits side by side on a GPU, dense, at 256 pixels."""
    size, main = 32 if setting.quick else 256, torch.cuda.default_stream()
    published, _ = stepping(setting.spec("published", size))
    fits = [(torch.cuda.Stream(), stepping(setting.spec("auto", size))[0]) for _ in range(FITS)]

    def together(steps: int) -> None:
        for stream, _ in fits:
            stream.wait_stream(main)
        for _ in range(steps):
            for stream, run in fits:
                with torch.cuda.stream(stream):
                    run(1)
        for stream, _ in fits:
            main.wait_stream(stream)

    for run in (published, together):
        run(5)
    samples = in_turns({"published": lambda: seconds_of(lambda: published(10), "cuda") / 10,
                        "fits": lambda: seconds_of(lambda: together(10), "cuda") / 10 / FITS}, setting.turns(9))
    return speed(f"lipfw, kernel=auto, {FITS} fits side by side, {size} px, per fit", "published loop, one fit",
                 samples, ("fits", "published"), goal="gpu batched")
