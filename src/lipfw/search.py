"""Which of many candidate networks a run fits: ranking them, fitting the best ones briefly, choosing (ISNAS-DIP)."""
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from lipfw.errors import InputError
from lipfw.files import append_jsonl, read_jsonl, write_json, write_jsonl
from lipfw.fit.evaluation import luma
from lipfw.image.read import read
from lipfw.interrupt import heed
from lipfw.prior.isnas import Search, mean
from lipfw.problem import Problem
from lipfw.words import spoken

FOLDER = "search"           # in the run's: the candidates, and the finalists' own runs
_SMOOTHING = 0.99           # running average of a finalist's output, whatever the task's, as published
_TOLD = ("cell", "skips")   # what tells candidates apart


def check(search: Search, pruner: dict, problems: Sequence[Problem]) -> None:
    """Raise InputError for a run whose network can't be searched for."""
    search.check(problems)
    if "path" in pruner:
        raise InputError("prior=isnas chooses a network of its own, and tickets belong to the one they were found in; "
                         "use prior=nas with the prior.cell, prior.skips, prior.code_channels and prior.unused that "
                         "search.json of their run tells as chosen")


def choose(search: Search, problems: Sequence[Problem], folder: Path, tell: Callable[[str], None],
           fit: Callable[[dict], tuple[Path, float]], device: str) -> dict:
    """Return the record of the choice, with the chosen candidate's options for `nas.build` under `chosen`.

    `fit` fits a finalist's options briefly and returns the folder of its pictures and the seconds that it took. The
    record lies in search.json of the run's `folder`; where it is there already nothing is done again, and of a search
    that was interrupted only what is missing. The published code goes on with whichever finalist was fitted last, and
    with the weights that it has; here the caller fits the chosen one, from its first weights.
    """
    path = folder / "search.json"
    if path.exists():
        return json.loads(path.read_text())
    (folder / FOLDER).mkdir(exist_ok=True)
    measured = _rank(search, problems, folder / FOLDER / "candidates.jsonl", tell, device)
    best = sorted(measured, key=lambda m: (m["metric"], m["candidate"]))[:search.finalists]
    finalists = _compared(search, problems, best, tell, fit)
    won = max(finalists, key=lambda f: f.get("psnr", 0))        # of equal ones the lower metric
    seconds = sum(m["seconds"] for m in measured) + sum(f.get("seconds", 0) for f in finalists)
    record = {"candidates": search.candidates, "metric": search.metric, "finalists": finalists,
              "chosen": search.candidate(won["candidate"]), "candidate": won["candidate"], "seconds": round(seconds, 3)}
    write_json(path, record)
    tell(f"chosen: candidate {won['candidate']}, {_named(won)}, number {finalists.index(won) + 1} by {search.metric}; "
         f"the search took {spoken(seconds)}")
    return record


def _rank(search: Search, problems: Sequence[Problem], path: Path, tell: Callable[[str], None],
          device: str) -> list[dict]:
    """Return a record of each candidate with its metric, those that `path` has first."""
    done = read_jsonl(path)
    write_jsonl(path, done)     # without what a killed writer may have left of a line
    for number in range(len(done), search.candidates):
        heed(f"after {number} of {search.candidates} candidates")
        since = time.monotonic()
        metric = search.measure(number, problems, device)
        candidate = search.candidate(number)
        record = {"candidate": number, **{k: candidate[k] for k in _TOLD}, "metric": metric,
                  "seconds": round(time.monotonic() - since, 3)}
        append_jsonl(path, [record])
        done.append(record)
        if number == 0:
            briefly = f", then {search.finalists} fits of {search.finalist_steps:,} steps" * (search.finalists > 1)
            tell(f"searching: {search.candidates:,} candidates by {search.metric}, about "
                 f"{spoken(record['seconds'] * search.candidates)}{briefly}")
    return done


def _compared(search: Search, problems: Sequence[Problem], best: Sequence[dict], tell: Callable[[str], None],
              fit: Callable[[dict], tuple[Path, float]]) -> list[dict]:
    """Return the records of the finalists, each with its PSNR to their weighted mean; of a single one as it is."""
    told = [{k: m[k] for k in ("candidate", *_TOLD, "metric")} for m in best]
    if len(told) == 1:
        return told
    outputs = []
    for i, finalist in enumerate(told):
        folder, finalist["seconds"] = fit(search.candidate(finalist["candidate"]))
        finalist["run"] = folder.name
        outputs.append([read(f).pixels for f in sorted(folder.glob("restored*.png"))])
        tell(f"finalist {i + 1} of {len(told)}: {_named(finalist)}, {spoken(finalist['seconds'])}")
    for finalist, psnr in zip(told, agreement(outputs, [m["metric"] for m in best], problems[0].luma), strict=True):
        finalist["psnr"] = psnr
    return told


def agreement(outputs: Sequence[Sequence[Tensor]], metrics: Sequence[float], on_luma: bool) -> list[float]:
    """Return the PSNR in dB of each finalist's outputs to the weighted mean of all, averaged over the pictures.

    Of `outputs` each finalist has one (1, C, H, W) a picture. Of equal pictures it is 100 dB at most.
    """
    def psnr(a: Tensor, b: Tensor) -> float:
        a, b = (luma(x) if on_luma else x for x in (a, b))
        return float(-10 * (a - b).square().mean().clamp(min=1e-10).log10())

    means = [mean(made, metrics) for made in zip(*outputs, strict=True)]
    return [sum(map(psnr, made, means)) / len(made) for made in outputs]


def _named(record: dict) -> str:
    return f"cell {record['cell']}, skips [{','.join(record['skips'])}]"


def with_network(cfg: dict, options: dict) -> dict:
    """Return a config whose prior is a network of these options."""
    return {**cfg, "prior": {"_target_": "lipfw.prior.nas.build", "_partial_": True, **options}}


def of_finalist(cfg: dict, options: dict, steps: int, folder: Path) -> dict:
    """Return the config of a finalist's fit, a dense run below the `folder` of the run that searches."""
    fit = {**cfg["fit"], "steps": steps, "stop": None, "pick": "last", "minutes": None, "batch_seeds": 1}
    if "smoothing" in fit:      # else its restoration is a mean already
        fit["smoothing"] = _SMOOTHING
    return {**with_network(cfg, options), "fit": fit, "pruner": {"_target_": "lipfw.pruner.none.Dense"},
            "logger": {"_target_": None}, "out": str(folder), "name": FOLDER}
