"""Records -> groups of runs that differ only in their seeds -> means and deviations over the seeds; groups compared."""
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lipfw.report.read import METRICS, Run, natural

# options that <task>-<image>-<prior>-<pruner>, or pruner.path, already tells
_TOLD = {*(f"{part}._target_" for part in ("task", "image", "prior", "pruner")),
         "image.name", "image.set", "image.path", "pruner.path.options", "fit.method"}
_SHARED = ("task", "image")     # groups of options: what is restored, by whatever
_SAME = 0.001 + 1e-9        # sparsities no further apart than a thousandth are compared; and room for rounding


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (n - 1 below) of the `n` values that there are.

    `mean` is None without values, `sd` with fewer than two: one run tells nothing of the spread. But of a group of one
    run whose generator made several pictures, `sd` is that over the pictures (`Group.over_pictures`), and `n` is 1.
    """

    mean: float | None
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Stat":
        """Return the statistics of the values that are not None.

        >>> Stat.of([1.0, None, 3.0])
        Stat(mean=2.0, sd=1.4142135623730951, n=2)
        """
        known = [v for v in values if v is not None]
        return cls(statistics.mean(known) if known else None, statistics.stdev(known) if len(known) > 1 else None,
                   len(known))


@dataclass(frozen=True)
class Row:
    """A round of a group: `n` runs reached it, `chosen` of them chose it without the clean picture.

    `sparsity` and `params_left` are means, though all seeds of a group should agree. `stats` is keyed by METRICS.
    `marked`: no other round was chosen more often.
    """

    round: int
    sparsity: float
    params_left: float
    n: int
    chosen: int
    marked: bool
    stats: Mapping[str, Stat]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seeds: one row a round, and psnr (dB) and ssim of the measurement.

    `options` are those that tell the group from the others; `label` is `base` and these. `lost` is how much lower the
    picked PSNR (dB) of the chosen round is than that of the round the clean picture would choose.
    """

    base: str
    options: Mapping[str, object]
    runs: Sequence[Run]
    rows: Sequence[Row]
    degraded: Mapping[str, Stat]
    lost: Stat

    @property
    def generator(self) -> bool:
        """The prior is a generator."""
        return self.runs[0].generator

    @property
    def over_pictures(self) -> bool:
        """Deviations are those over the pictures of a single run."""
        return _over_pictures(self.runs)

    def has(self, metric: str) -> bool:
        """Return whether a round has a value."""
        return any(r.stats[metric].n for r in self.rows)

    @property
    def label(self) -> str:
        return " ".join([self.base, *(_shown(k, v) for k, v in self.options.items())])

    @property
    def pruner(self) -> str:
        """The part of the label that tells the pruner: `imp rate=0.5`."""
        return " ".join([self.base.rpartition("-")[2], *(_shown(k, v).removeprefix("pruner.")
                                                         for k, v in self.options.items() if k.startswith("pruner."))])


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
                     *(_shown(k, v) for k, v in g.options.items() if k.partition(".")[0] not in (*_SHARED, "pruner"))]
            labels.append(" ".join(parts).replace(f"path={way}-", "of "))
        return labels


def best(column: Iterable[Stat], lowest: bool = False) -> float | None:
    """Return the highest mean, or the lowest; None where there are no two different ones: none is better then."""
    means = {s.mean for s in column if s.mean is not None}
    return (min if lowest else max)(means) if len(means) > 1 else None


@dataclass(frozen=True)
class Twin:
    """A run that was left out: it has the options and seeds of `kept`. `same`: and its numbers."""

    run: Run
    kept: Run
    same: bool


def group(runs: Iterable[Run]) -> tuple[list[Group], list[Twin]]:
    """Return the groups, ordered by label, and the runs that are in none since the same one is there already."""
    by_key: dict[str, dict[str, Run]] = {}
    twins = []
    for run in runs:
        members = by_key.setdefault(_text([run.base, run.options]), {})
        kept = members.setdefault(_text(run.seeds), run)
        if kept is not run:
            twins.append(Twin(run, kept, _numbers(kept) == _numbers(run)))
    cells = [list(members.values()) for members in by_key.values()]
    told = distinguishing([c[0] for c in cells])
    groups = [Group(c[0].base, t, c, _rows(c), {k: Stat.of(r.degraded.get(k) for r in c) for k in ("psnr", "ssim")},
                    Stat.of(map(_lost, c))) for c, t in zip(cells, told, strict=True)]
    return sorted(groups, key=lambda g: natural(g.label)), twins


def compare(groups: Iterable[Group]) -> list[Comparison]:
    """Return the comparisons that can be made, each of one task, image, prior and fit.

    The dense round belongs to a comparison, even of one group (pruner=none beside tickets), but makes none by itself:
    it tells nothing of pruners.
    """
    families: dict[str, list[Group]] = {}
    for g in groups:
        others = {k: v for k, v in g.runs[0].options.items() if not k.startswith("pruner.")}
        families.setdefault(_text([g.base.rpartition("-")[0], others]), []).append(g)
    found = []
    for members in families.values():
        columns = [c for c in _by_sparsity(members) if len(c) > 1 or not any(r.sparsity for r in c.values())]
        if not any(r.sparsity for c in columns for r in c.values()):
            continue
        told = {k: v for g in members for k, v in g.options.items() if not k.startswith("pruner.")}
        title = " ".join([members[0].base.rpartition("-")[0], *(_shown(k, v) for k, v in told.items())])
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
            problems.setdefault(_text([g.base.split("-")[:2], shared]), []).append(g)
    found = []
    for members in problems.values():
        if len({(g.base.split("-")[2], g.runs[0].options.get("fit._target_")) for g in members}) > 1:
            told = {k: v for g in members for k, v in g.options.items() if k.partition(".")[0] in _SHARED}
            found.append(Overview(" ".join(["-".join(members[0].base.split("-")[:2]),
                                            *(_shown(k, v) for k, v in told.items())]), members))
    return found


def distinguishing(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return for each run, one a group, the options that tell it from the others.

    These are the options of which two values are given, among the runs that have them: a pruner's own options do not
    set it apart from another pruner, its name does, even if theirs have the same names. An option that follows the
    task's protocol everywhere is told by the task. Where that leaves two runs alike, all in which they differ is added.
    """
    def scope(run: Run, key: str) -> tuple:
        return key, run.options.get("pruner._target_") if key.startswith("pruner.") else None

    values: dict[tuple, set[str]] = {}
    for r in runs:
        for k, v in r.options.items():
            values.setdefault(scope(r, k), set()).add(_text(v))
    keys = {k for r in runs for k in r.options if k not in _TOLD}
    fits: dict[str, set] = {}
    for r in runs:
        fits.setdefault(r.base.rpartition("-")[0], set()).add(r.options.get("fit._target_"))
    if all(len(f) == 1 for f in fits.values()):     # which fit it is, is told by the prior, or by a classical method
        keys.discard("fit._target_")
    keys -= {k for k in keys if all(_follows(r, k) for r in runs if k in r.options)}
    told = [{k: v for k, v in r.options.items() if k in keys and len(values[scope(r, k)]) > 1} for r in runs]
    alike: dict[str, list[int]] = {}
    for i, r in enumerate(runs):
        alike.setdefault(_text([r.base, told[i]]), []).append(i)
    for members in alike.values():
        every = dict.fromkeys(k for i in members for k in runs[i].options)
        differing = [k for k in every if len({_text(runs[i].options.get(k)) for i in members}) > 1
                     or len({k in runs[i].options for i in members}) > 1]
        for i in members:
            told[i] |= {k: runs[i].options.get(k, "-") for k in differing}
    return told


def _rows(runs: Sequence[Run]) -> list[Row]:
    chosen = Counter(r.best_round for r in runs)
    most = max(chosen.values())
    rows = []
    for i in range(max(len(r.rounds) for r in runs)):
        there = [r.rounds[i] for r in runs if i < len(r.rounds)]
        sparsity, params = (statistics.mean(r[k] for r in there) for k in ("sparsity", "params_left"))
        rows.append(Row(i, sparsity, params, len(there), chosen[i], chosen[i] == most,
                        {m: _stat(m, there, _over_pictures(runs)) for m in METRICS}))
    return rows


def _stat(metric: str, records: Sequence[dict], over_pictures: bool) -> Stat:
    stat = Stat.of(r.get(metric) for r in records)
    if over_pictures and stat.n:
        (record,) = records
        return replace(stat, sd=Stat.of(scores.get(metric) for scores in record["images"].values()).sd)
    return stat


def _over_pictures(runs: Sequence[Run]) -> bool:
    return len(runs) == 1 and runs[0].generator and all(len(r.get("images", ())) > 1 for r in runs[0].rounds)


def _by_sparsity(groups: Sequence[Group]) -> list[dict[int, Row]]:
    """Return the rows of all groups by sparsity, as {index of the group: its row}.

    Rows of nearly the same sparsity share a column, the nearest ones first, and no two of one group.
    """
    columns = [{i: r} for r, i in sorted(((r, i) for i, g in enumerate(groups) for r in g.rows),
                                         key=lambda pair: _place(groups[pair[1]], pair[0]))]

    def width(c: int) -> float:
        """How far apart the sparsities of columns c and c + 1 are, at most."""
        if columns[c].keys() & columns[c + 1].keys():
            return math.inf
        both = [_place(groups[i], r) for i, r in (columns[c] | columns[c + 1]).items()]
        return max(both) - min(both)

    while len(columns) > 1 and width(nearest := min(range(len(columns) - 1), key=width)) <= _SAME:
        columns[nearest:nearest + 2] = [columns[nearest] | columns[nearest + 1]]
    return columns


def _place(group: Group, row: Row) -> float:
    """Return the sparsity that a row is compared at."""
    return statistics.mean([r.place(row.round) for r in group.runs if row.round < len(r.rounds)])


def _lost(run: Run) -> float | None:
    # from the rounds and not from the result's oracle_round, which older runs lack
    picked = [r.get("psnr_picked") for r in run.rounds]
    chosen = picked[run.best_round]
    return None if chosen is None else max(p for p in picked if p is not None) - chosen


def _follows(run: Run, key: str) -> bool:
    name = key.rpartition(".")[2]
    return name in run.protocol and run.protocol[name] == run.options[key]


def _numbers(run: Run) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in run.rounds]


def _text(value) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _shown(key: str, value) -> str:
    """Return `task.sigma=15` as it is typed on the command line; `fit=adversarial` for a `_target_`."""
    if key.endswith("._target_") and str(value).count(".") > 1:
        return f"{key.removesuffix('._target_')}={value.split('.')[-2]}"
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
