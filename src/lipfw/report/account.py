"""What is told of a study before its tables: what was asked, how far it is, its verdicts, published numbers."""
import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lipfw.report.cells import duration
from lipfw.report.claims import FAILS, HOLDS, UNDECIDED, UNMEASURED, Verdict, verdicts
from lipfw.report.manifest import changing
from lipfw.report.pairing import lower
from lipfw.report.published import Row, comparable, published
from lipfw.report.stats import Stat
from lipfw.report.study import Study

_UNITS = {"psnr": "dB", "accuracy": "points", "train_accuracy": "points"}
_DIGITS = {"psnr": 2, "accuracy": 2, "train_accuracy": 2, "ssim": 3, "params_left": 0}


@dataclass(frozen=True)
class Account:
    """A study, what became of its claims, and published numbers beside its own."""

    study: Study
    verdicts: Sequence[Verdict]
    published: Sequence[Row]

    @property
    def title(self) -> str:
        return f"{self.study.name}: {self.study.figure}" if self.study.figure else self.study.name

    @property
    def head(self) -> list[tuple[str, str]]:
        """What was asked and how far it is, as (name, text)."""
        s = self.study
        rows = [("question", s.question), ("expected", s.expected), ("scale", s.scale),
                ("metric", s.metric if self.verdicts or self.published else ""),
                ("changed", " ".join(f"{k}={v}" for k, v in changing(s.given).items())),
                ("done", f"{s.done} of {len(s.cells)} runs"),
                ("computing", f"{duration(s.seconds)} in all these runs" if s.runs else ""),
                ("device", ", ".join(s.devices))]
        return [(name, " ".join(text.split())) for name, text in rows if text]

    @property
    def missing(self) -> list[str]:
        """A line for each run that began and has no result, one for those of a stage that did not, and for others."""
        s = self.study
        begun = [c for c in s.cells if c["state"] in ("failed", "unfinished", "unreadable")]
        waiting = Counter((c["stage"], c["reason"]) for c in s.cells if c["state"] == "planned")
        return [*(f"missing: {label(c, s.cells)}: {c['path']}: {c['reason']}" for c in begun),
                *(f"missing: {n} run{'s' * (n > 1)} of {stage}: {reason}" for (stage, reason), n in waiting.items()),
                *(f"not of this study, left out: {folder}" for folder in s.others)]

    @property
    def remark(self) -> str:
        """How far the published numbers can be held against ours; "" without any."""
        return comparable(self.study) if self.published else ""

    @property
    def notes(self) -> list[str]:
        """What the columns of the verdicts are."""
        if not self.verdicts:
            return []
        lines = ["difference: by how much the first side is better, mean over pairs of picture and seed and over the "
                 "sparsities compared, with its 95 % bootstrap interval, which is too narrow of few pairs"]
        if others := sorted({v.metric for v in self.verdicts} - {self.study.metric}):
            lines.append(f"some claims are about {', '.join(others)}, as their numbers say")
        if any(lower(v.metric) for v in self.verdicts):
            lines += ["of errors, distances, losses and times: in percent of the second side's"]
        return [*lines, "above: at how many of the sparsities that were compared the mean is above 0"]


def account(study: Study) -> Account:
    """Return the account of a study. Raises InputError for a claim or a published number that is not understood."""
    return Account(study, verdicts(study), published(study))


def label(cell: Mapping, cells: Iterable[Mapping]) -> str:
    """Return a cell's stage and those of its values that others of its stage have different ones of."""
    values: dict[str, set] = {}
    of_stage = [c["values"] for c in cells if c["stage"] == cell["stage"]]
    for key in cell["values"]:
        values[key] = {v.get(key) for v in of_stage}
    return " ".join([cell["stage"], *(f"{k}={v}" for k, v in cell["values"].items()
                                      if len(values[k]) > 1 and k != "pruner.path")])


def tally(every: Iterable[Verdict]) -> str:
    """Return how many claims have which verdict: `2 hold, 1 undecided`; "no claims" of none."""
    counts = Counter(v.verdict for v in every)
    words = {HOLDS: ("holds", "hold"), FAILS: ("does not hold", "do not hold"), UNDECIDED: ("undecided",) * 2,
             UNMEASURED: ("not measured",) * 2}
    return ", ".join(f"{counts[v]} {words[v][counts[v] > 1]}" for v in words if counts[v]) or "no claims"


def measured(v: Verdict, usual: str | None = None) -> str:
    """Return the difference with its unit: `+0.31 [+0.12, +0.50] dB`; "" where nothing was measured.

    The metric is told, too, if it is not the `usual` one of the study.
    """
    if v.mean is None:
        return ""
    unit = "%" if lower(v.metric) else _of(_UNITS, v.metric, "")
    ends = "" if v.low is None else f" [{_signed(v.metric, v.low)}, {_signed(v.metric, v.high)}]"
    metric = "" if usual in (None, v.metric) else v.metric
    return " ".join(f"{_signed(v.metric, v.mean)}{ends} {unit} {metric}".split())


def above(v: Verdict) -> str:
    """Return at how many of the sparsities the mean lies above 0, and which these are: `7/8 at 20-79%`."""
    if not v.sparsities:
        return ""
    ends = dict.fromkeys(f"{100 * s:.0f}" for s in (min(v.sparsities), max(v.sparsities)))
    return f"{v.above}/{len(v.sparsities)} at {'-'.join(ends)}%"


def row(r: Row, cell) -> list[str]:
    """Return the cells of a published number's row; `cell(stat, digits)` writes ours."""
    digits = _of(_DIGITS, r.metric, 4)
    at = "" if r.sparsity is None else f"{r.sparsity:.1%}"
    if r.ours_at is not None and r.sparsity is not None and abs(r.ours_at - r.sparsity) >= 0.0005:
        at += f" ({r.ours_at:.1%})"
    difference = "-" if r.difference is None else f"{r.difference:+.{digits}f}"
    return [r.series, r.picture, at, r.metric, cell(r.ours, digits), str(r.ours.n), f"{r.published:g}", difference,
            r.source]


ROW = ("series", "picture", "sparsity (ours)", "metric", "ours", "n", "published", "difference", "source")


def to_csv(accounts: Iterable[Account]) -> str:
    """Return one header, and of each claim a line over its range of sparsities and one a sparsity, all digits.

    The first has no `sparsity`, and the verdict. Differences are as `Differences` has them, of errors parts of one.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "scale", "claim", "say", "better", "worse", "metric", "margin", "sparsity", "verdict",
                     "mean", "low", "high", "pairs", "sparsities", "above", "note"])
    for a in accounts:
        for i, v in enumerate(a.verdicts):
            told = [a.study.name, a.study.scale, i, v.say, v.better, v.worse, v.metric, v.margin]
            writer.writerow([*told, None, v.verdict, v.mean, v.low, v.high, v.pairs, len(v.sparsities), v.above,
                             v.note])
            for c in v.columns:
                writer.writerow([*told, c.sparsity, None, c.mean, c.low, c.high, c.pairs, 1, int(c.mean > 0), None])
    return text.getvalue()


def full_stat(stat: Stat, digits: int) -> str:
    """Return `31.24 ± 0.12`, `-` of nothing."""
    if stat.mean is None:
        return "-"
    return f"{stat.mean:.{digits}f}" + (f" ± {stat.sd:.{digits}f}" if stat.sd is not None else "")


def _signed(metric: str, value: float) -> str:
    return f"{100 * value:+.1f}" if lower(metric) else f"{value:+.{_of(_DIGITS, metric, 3)}f}"


def _of(by_start: Mapping, metric: str, otherwise):
    return next((v for start, v in by_start.items() if metric.startswith(start)), otherwise)
