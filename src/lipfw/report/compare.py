"""Groups beside each other: pruners at the sparsities that they share, and priors or fits of the same pictures."""
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lipfw.report.stats import Group, Row, Stat, shown, text_of

_SHARED = ("task", "image")     # groups of options: what is restored, by whatever
_SAME = 0.001 + 1e-9        # sparsities no further apart than a thousandth are compared; and room for rounding


@dataclass(frozen=True)
class Comparison:
    """At least two groups that differ in their pruner and its options alone, at sparsities that two of them reached.

    Replayed tickets stand at the sparsity that they were found with: layers that fit no longer are kept whole, and make
    theirs a little smaller.

    `title` is what their labels share. `sparsities` has the mean of each column, `rows[c]` its row of each group, None
    for a group that has none there.
    """

    title: str
    groups: Sequence[Group]
    sparsities: Sequence[float]
    rows: Sequence[Sequence[Row | None]]

    @property
    def labels(self) -> list[str]:
        """What tells the groups apart: `imp rate=0.5`.

        Of tickets that were replayed, `ticket of imp`, if all were found by one task, image and prior; else their run.
        """
        found = {o.label.rpartition("-")[0] for g in self.groups for r in g.runs for o in r.found}
        labels = [g.pruner for g in self.groups]
        if len(found) == 1:
            start = f"path={found.pop()}-"
            labels = [label.replace(start, "of ") for label in labels]
        return labels

    def stats(self, metric: str) -> list[list[Stat]]:
        """Return a list a column, with the statistics of each group."""
        return [[row.stats[metric] if row else Stat.of([]) for row in column] for column in self.rows]


@dataclass(frozen=True)
class Overview:
    """Groups that restore the same measurements by different priors or fits, classical methods among them.

    `title` is what they share: the task, the image and the options of these.
    """

    title: str
    groups: Sequence[Group]

    @property
    def rows(self) -> list[Row]:
        """The row of each group: the round that most of its runs chose."""
        return [max(g.rows, key=lambda r: r.chosen) for g in self.groups]

    @property
    def labels(self) -> list[str]:
        """What tells the groups apart: `nlm`, `skip`, `skip imp rate=0.5`, `skip ticket of imp`."""
        labels = []
        for g in self.groups:
            way = g.base.rpartition("-")[0]
            parts = [way.rpartition("-")[2], *([] if g.pruner == "none" else [g.pruner]),
                     *(shown(k, v) for k, v in g.options.items() if k.partition(".")[0] not in (*_SHARED, "pruner"))]
            labels.append(" ".join(parts).replace(f"path={way}-", "of "))
        return labels


def best(column: Iterable[Stat], lowest: bool = False) -> float | None:
    """Return the highest mean, or the lowest; None where there are no two different ones: none is better then."""
    means = {s.mean for s in column if s.mean is not None}
    return (min if lowest else max)(means) if len(means) > 1 else None


def compare(groups: Iterable[Group]) -> list[Comparison]:
    """Return the comparisons that can be made, each of one task, image, prior and fit.

    The dense round belongs to a comparison, even of one group (pruner=none beside tickets), but makes none by itself:
    it tells nothing of pruners.
    """
    families: dict[str, list[Group]] = {}
    for g in groups:
        others = {k: v for k, v in g.runs[0].options.items() if not k.startswith("pruner.")}
        families.setdefault(text_of([g.base.rpartition("-")[0], others]), []).append(g)
    found = []
    for members in families.values():
        columns = [c for c in _by_sparsity(members) if len(c) > 1 or not any(r.sparsity for r in c.values())]
        if not any(r.sparsity for c in columns for r in c.values()):
            continue
        told = {k: v for g in members for k, v in g.options.items() if not k.startswith("pruner.")}
        title = " ".join([members[0].base.rpartition("-")[0], *(shown(k, v) for k, v in told.items())])
        found.append(Comparison(title, members, [statistics.mean(_place(members[i], r) for i, r in c.items())
                                                 for c in columns],
                                [[c.get(i) for i in range(len(members))] for c in columns]))
    return found


def overviews(groups: Iterable[Group]) -> list[Overview]:
    """Return the overviews that can be made: of a clean picture that is known, and at least two priors or fits."""
    problems: dict[str, list[Group]] = {}
    for g in groups:
        shared = {k: v for k, v in g.runs[0].options.items() if k.partition(".")[0] in _SHARED}
        if g.has("psnr_picked"):
            problems.setdefault(text_of([g.base.split("-")[:2], shared]), []).append(g)
    found = []
    for members in problems.values():
        if len({(g.base.split("-")[2], g.runs[0].options.get("fit._target_")) for g in members}) > 1:
            told = {k: v for g in members for k, v in g.options.items() if k.partition(".")[0] in _SHARED}
            found.append(Overview(" ".join(["-".join(members[0].base.split("-")[:2]),
                                            *(shown(k, v) for k, v in told.items())]), members))
    return found


def _by_sparsity(groups: Sequence[Group]) -> list[dict[int, Row]]:
    """Return the rows of all groups by sparsity, as {index of the group: its row}.

    Rows of nearly the same sparsity share a column, the nearest ones first, and no two of one group.
    """
    places = {(i, r.round): _place(g, r) for i, g in enumerate(groups) for r in g.rows}
    columns = [{i: r} for r, i in sorted(((r, i) for i, g in enumerate(groups) for r in g.rows),
                                         key=lambda pair: places[pair[1], pair[0].round])]

    def width(c: int) -> float:
        """How far apart the sparsities of columns c and c + 1 are, at most."""
        if columns[c].keys() & columns[c + 1].keys():
            return math.inf
        both = [places[i, r.round] for i, r in (columns[c] | columns[c + 1]).items()]
        return max(both) - min(both)

    while len(columns) > 1 and width(nearest := min(range(len(columns) - 1), key=width)) <= _SAME:
        columns[nearest:nearest + 2] = [columns[nearest] | columns[nearest + 1]]
    return columns


def _place(group: Group, row: Row) -> float:
    """Return the sparsity that a row is compared at."""
    replays = [r.place(row.round) for r in group.runs if len(r.found) == 1 and row.round < len(r.rounds)]
    return statistics.mean(replays) if replays else row.sparsity


