"""A line of the page."""
from dataclasses import dataclass, field
from statistics import median

from benchmarks.timing import Ratio, ratio


@dataclass(frozen=True)
class Row:
    """`what` was measured against what; `numbers` are further columns, `goal` the goal that it answers.

    A row without a ratio says in `note` why.
    """

    what: str
    against: str = ""
    ratio: Ratio | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    note: str = ""
    goal: str = ""


def speed(what: str, against: str, samples: dict[str, list[float]], names: tuple[str, str], note: str = "",
          goal: str = "") -> Row:
    """Return the row that says how many times faster contender names[0] is than names[1], from samples in turns."""
    name, base = names
    if name not in samples:
        return Row(what, against, note=note or "not measured", goal=goal)
    numbers = {"ms": 1000 * median(samples[name]), "ms against": 1000 * median(samples[base])}
    return Row(what, against, ratio(samples[base], samples[name]), numbers, note, goal)
