"""Peak memory of a fit, from before it is set up to after two steps. Smaller is better; the bare loop is 1.

Each in a process of its own: on a CPU the growth of its peak resident memory, on a GPU what torch allocated at most.
"""
from collections.abc import Iterator

from benchmarks import masks
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import ratio
from benchmarks.worker import Worker

TURNS = 2


def measure(setting: Setting) -> Iterator[Row]:
    """Measure lipfw dense, as it chooses, and with a sparse mask."""
    sparse = masks.found(setting)[masks.ROUNDS[89]]
    for size in (32,) if setting.quick else (128, 256):
        specs = {"bare loop": setting.spec("bare", size), "lipfw, kernel=auto": setting.spec("auto", size)}
        if not setting.quick:
            specs |= {"lipfw, kernel=dense": setting.spec("dense", size),
                      "lipfw, kernel=auto, 89 % removed": setting.spec("auto", size, sparse)}
        peaks = {name: [_peak(spec, setting) for _ in range(1 if setting.quick else TURNS)]
                 for name, spec in specs.items()}
        bare = peaks.pop("bare loop")
        for name, peak in peaks.items():
            yield Row(f"{name}, {size} px", "bare loop", ratio(peak, bare),
                      {"MB": min(peak) / 1e6, "MB against": min(bare) / 1e6},
                      goal="memory 256" if (name, size) == ("lipfw, kernel=auto", 256) else "")


def _peak(spec, setting: Setting) -> float:
    with Worker(spec, setting.threads) as worker:
        return worker.ask("peak")
