"""One step with the masks of a real IMP run: lipfw with kernel=auto. Larger is faster."""
from collections.abc import Iterator

from benchmarks import masks
from benchmarks.row import Row, speed
from benchmarks.setting import LARGE, Setting

GOALS = {(89, 128): "IMP 89", (97, 128): "IMP 97"}
FEW = (89, 97)      # sparsities that large pictures are timed at


def measure(setting: Setting) -> Iterator[Row]:
    """Time the published loop, lipfw dense and lipfw auto in the same turns, mask by mask."""
    tickets = masks.found(setting)
    for size in [s for s in setting.sizes if s <= LARGE]:
        for percent, round_ in masks.ROUNDS.items():
            if (size < LARGE and not setting.quick) or percent in FEW:
                yield from _rows(setting, size, f"IMP mask, {percent} %", tickets[round_], GOALS.get((percent, size)))
        if size < LARGE:
            random = masks.random(tickets[masks.ROUNDS[97]], setting.out / "masks")
            yield from _rows(setting, size, "uniform random mask, 97 %", random)


def _rows(setting: Setting, size: int, label: str, ticket, goal: str | None = None) -> Iterator[Row]:
    specs = {name: setting.spec(name, size, ticket) for name in ("published", "dense", "auto")}
    samples, says = setting.compare(specs, 7 if size >= LARGE else 9)
    for base, called in (("published", "published loop, masked"), ("dense", "lipfw, kernel=dense")):
        yield speed(f"{label}, {size} px", called, samples, ("auto", base), f"auto chose: {says['auto']}",
                    (goal or "") if base == "published" and setting.device == "cpu" else "")
