"""Records -> groups of runs that differ only in their seeds -> means and deviations over the seeds."""
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lipfw.report.read import METRICS, Run, natural

# options that <task>-<image>-<prior>-<pruner>, or pruner.path, already tells
_TOLD = {*(f"{part}._target_" for part in ("task", "image", "prior", "pruner")),
         "image.name", "image.set", "image.path", "pruner.path.options", "fit.method"}


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
        return " ".join([self.base, *(shown(k, v) for k, v in self.options.items())])

    @property
    def pruner(self) -> str:
        """The part of the label that tells the pruner: `imp rate=0.5`."""
        return " ".join([self.base.rpartition("-")[2], *(shown(k, v).removeprefix("pruner.")
                                                         for k, v in self.options.items() if k.startswith("pruner."))])


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
        members = by_key.setdefault(text_of([run.base, run.options]), {})
        kept = members.setdefault(text_of(run.seeds), run)
        if kept is not run:
            twins.append(Twin(run, kept, _numbers(kept) == _numbers(run)))
    cells = [list(members.values()) for members in by_key.values()]
    told = distinguishing([c[0] for c in cells])
    groups = [Group(c[0].base, t, c, _rows(c), {k: Stat.of(r.degraded.get(k) for r in c) for k in ("psnr", "ssim")},
                    Stat.of(map(_lost, c))) for c, t in zip(cells, told, strict=True)]
    return sorted(groups, key=lambda g: natural(g.label)), twins


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
            values.setdefault(scope(r, k), set()).add(text_of(v))
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
        alike.setdefault(text_of([r.base, told[i]]), []).append(i)
    for members in alike.values():
        every = dict.fromkeys(k for i in members for k in runs[i].options)
        differing = [k for k in every if len({text_of(runs[i].options.get(k)) for i in members}) > 1
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


def text_of(value) -> str:
    """Return a value as a text that is equal for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def shown(key: str, value) -> str:
    """Return `task.sigma=15` as it is typed on the command line; `fit=adversarial` for a `_target_`."""
    if key.endswith("._target_") and str(value).count(".") > 1:
        return f"{key.removesuffix('._target_')}={value.split('.')[-2]}"
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"
