"""Reports of studies: manifests and run folders are written by hand, verdicts are known by hand or from scipy."""
import csv
import itertools
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from omegaconf import OmegaConf
from test_report import command, config, fails, main, make, rounds, ticket

from lipfw.cli import CONF, EXPERIMENTS
from lipfw.errors import InputError
from lipfw.grid.cells import opened
from lipfw.grid.manifest import Manifest
from lipfw.grid.stages import Stages
from lipfw.report import account, claims, manifest, pairing, published
from lipfw.report import study as studies
from lipfw.report.claims import FAILS, HOLDS, UNDECIDED, UNMEASURED

LADDER = (0.0, 0.2, 0.36, 0.488)
SERIES = {"imp": {"stage": "found", "where": {"pruner": "imp"}, "label": "LIP"},
          "random": {"stage": "found", "where": {"pruner": "random"}},
          "dense": {"stage": "found", "where": {"pruner": "imp"}, "round": 0}}


def values(pruner="imp", seed=0, picture="bird", **more):
    return {"image": "skimage", "image.name": picture, "pruner": pruner, "seed": str(seed), "fit.steps": "3000",
            **{k.replace("__", "."): str(v) for k, v in more.items()}}


def run(folder, name, psnr, pruner="imp", seed=0, picture="bird", ladder=LADDER, images=None, tickets=(), **changes):
    """Make a run whose picked PSNR at each sparsity is `psnr` and its peak one more; `images`: each picture's peaks."""
    records = rounds(*zip(ladder, psnr, strict=True))
    for i, r in enumerate(records if images else ()):
        r["images"] = {k: {"psnr_peak": v[i]} for k, v in images.items()}
    return make(folder / name, config(seed, pruner=pruner, image=picture, **changes), records, 0, device="cpu",
                tickets=list(tickets))


def write(folder, cells, scale="tiny", given=(), name="fig3", **spec):
    """Write a study.json of (stage, values, folder)."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"figure": "Fig 3", "question": "Do they exist?", "expected": "They do.",
            "stages": {"found": {"run": "pruner=imp,random"}}, "series": SERIES, "metric": "psnr_peak", **spec}
    (folder / "study.json").write_text(json.dumps({
        "study": name, "scale": scale, "given": list(given), "spec": spec,
        "cells": [{"stage": s, "values": v, "folder": f} for s, v, f in cells]}))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return Path("runs/fig3")


def built(folder, curves, **spec):
    """Write a study of the stage `found`: {(pruner, seed, picture): PSNR at each sparsity of LADDER}."""
    cells = []
    for (pruner, seed, picture), psnr in curves.items():
        name = f"{pruner}-{picture}-{seed}"
        run(folder, name, psnr, pruner, seed, picture)
        cells.append(("found", values(pruner, seed, picture), name))
    return write(folder, cells, **spec)


def judged(folder, curves, **claim):
    """The one verdict on such a study, of a claim that imp is better than random."""
    spec = {"claims": [{"say": "it is", "better": "imp", "worse": "random", **claim}]}
    (verdict,) = claims.verdicts(studies.read_study(built(folder, curves, **spec)))
    return verdict


def flat(*pairs):
    """imp and random of so many seeds, at the same PSNR at every sparsity."""
    return {(pruner, seed, "bird"): [v] * 4 for seed, both in enumerate(pairs)
            for pruner, v in zip(("imp", "random"), both, strict=True)}


# --- the manifest and its runs

def test_every_planned_cell_is_there_with_its_state_and_reason(folder):
    run(folder, "done", [25, 26, 27, 28])
    make(folder / "half", config(1), rounds((0, 25.0)), finished=False)
    make(folder / "crashed", config(2), [], finished=False)
    (folder / "crashed/failed.json").write_text('{"error": "out of memory"}')
    make(folder / "torn", config(3), rounds((0, 25.0)))
    (folder / "torn/result.json").write_text("{")
    make(folder / "stranger", config(9), rounds((0, 25.0)), 0)
    (folder / "logs").mkdir()
    names = ["done", "half", "crashed", "torn", "absent", None]
    s = studies.read_study(write(folder, [("found", values(seed=i), f) for i, f in enumerate(names)]))
    assert [c["state"] for c in s.cells] == ["done", "unfinished", "failed", "unreadable", "planned", "planned"]
    assert [c["reason"] for c in s.cells][1:] == [
        "not finished: 1 of 3 rounds done", "failed: out of memory", s.cells[3]["reason"], "not started",
        "its tickets are not found yet"]
    assert "result.json is broken" in s.cells[3]["reason"]
    assert s.done == 1 and s.others == [folder / "stranger"] and s.devices == ["cpu"] and s.seconds == 4
    imp, dense = s.series["imp"], s.series["dense"]
    assert [(p.round, p.sparsity, p.record["psnr_peak"]) for p in imp.points] == list(
        zip(range(4), LADDER, (26, 27, 28, 29), strict=True))
    assert [p.round for p in dense.points] == [0] and dense.level and not imp.level
    assert {(p.picture, p.seed) for p in imp.points} == {("bird", "0")}
    assert (imp.label, s.series["random"].label) == ("LIP", "random")
    assert [c["values"]["seed"] for c in imp.missing] == list("12345") and not s.series["random"].missing
    told = account.account(s).missing
    assert f"missing: found seed=2: {folder}/crashed: failed: out of memory" in told
    assert "missing: 1 run of found: not started" in told and told[-1].endswith("left out: runs/fig3/stranger")


def test_a_folder_without_a_manifest_is_no_study(folder):
    run(folder, "a", [1, 2, 3, 4])
    assert studies.read_study(folder) is None and studies.read_studies([folder, folder / "nowhere"]) == []


def test_where_picks_numbers_words_and_lists(folder):
    cells = [("found", values(seed=i, picture=p, task__sigma=25), None) for i in range(3) for p in ("bird", "baby")]
    series = {"one": {"stage": "found", "where": {"seed": 0, "image.name": "baby"}},
              "two": {"stage": "found", "where": {"seed": [0, 2], "task.sigma": 25.0}},
              "none": {"stage": "found", "where": {"seed": 7}}}
    s = studies.read_study(write(folder, cells, series=series))
    assert {name: len(x.planned) for name, x in s.series.items()} == {"one": 1, "two": 4, "none": 0}


def test_a_replayed_ticket_stands_at_the_sparsity_it_was_found_with(folder):
    run(folder, "replay", [25], "ticket", ladder=[0.35], tickets=[ticket(3, 0.36)])
    s = studies.read_study(write(folder, [("judged", values("ticket", of__pruner="imp"), "replay")],
                                 stages={"judged": {}}, series={"imp": {"stage": "judged"}}))
    assert [p.sparsity for p in s.series["imp"].points] == [0.36]


def test_folders_of_one_study_are_joined_and_a_cell_counts_once(folder):
    a, b, cells = folder / "a", folder / "b", {}
    for seed in range(3):
        cells[seed] = ("found", values(seed=seed), f"s{seed}")
    run(a, "s0", [1] * 4), run(b, "s0", [2] * 4, seed=0), run(b, "s1", [3] * 4, seed=1), run(b, "s2", [4] * 4, seed=2)
    write(a, [cells[0], cells[1]], given=["seed=0,1"])
    write(b, cells.values(), given=["seed=0..2", "trainer.threads=1"])
    (s,) = studies.read_studies([a, b, a])
    assert [(p.seed, p.record["psnr_picked"]) for p in s.series["dense"].points] == [("0", 1), ("1", 3), ("2", 4)]
    assert s.done == 3 and not s.others and s.folder == a
    write(folder / "c", [cells[0]], name="fig4")
    assert [x.name for x in studies.read_studies([a, folder / "c", b])] == ["fig3", "fig4"]
    for name in ("fig10", "tab1", "fig2"):
        write(folder / name, [], name=name)
    assert [x.name for x in studies.read_studies([folder / n for n in ("fig10", "tab1", "c", "fig2")])] == [
        "fig2", "fig4", "fig10", "tab1"]


@pytest.mark.parametrize("other, told", [
    ({"scale": "paper"}, "scale is tiny in the one and paper in the other"),
    ({"given": ["fit.steps=9"]}, "fit.steps is 100 in the one and 9 in the other"),
    ({"given": []}, "fit.steps is 100 in the one and not given in the other"),
    ({"given": ["fit.steps=100"], "metric": "loss"}, "spec.metric is psnr_peak in the one and loss in the other")])
def test_different_studies_are_not_mixed(folder, capsys, other, told):
    for sub, options in (("a", {"given": ["fit.steps=100"]}), ("b", other)):
        run(folder / sub, "x", [1] * 4, fit__steps=100)
        write(folder / sub, [("found", values() | {"fit.steps": "100"}, "x")], **options)
    err = fails(capsys, folder / "a", folder / "b")
    assert f"{folder}/a/study.json and {folder}/b/study.json are no one study: {told}" in err


@pytest.mark.parametrize("wrong, told", [
    ({"fit.steps": "400"}, "fit.steps is 400"), ({"seed": "1"}, "seed is 1"),
    ({"pruner": "random"}, "pruner is random"),
    ({"image.name": "baby"}, "image.name is baby"), ({"+task.sigma": "15"}, "task.sigma is 15"),
    ({"task": "inpaint"}, "task is inpaint"), ({"pruner.rate": "null"}, "pruner.rate is null")])
def test_a_run_that_is_not_its_cells_is_refused(folder, capsys, wrong, told):
    run(folder, "x", [1] * 4)
    write(folder, [("found", values() | wrong, "x")])
    err = fails(capsys, folder)
    assert f"lipfw: {folder}/study.json: {told} in the cell of x, but its run had " in err


def test_options_of_any_spelling_agree_with_their_run(folder):
    run(folder, "x", [1] * 4, task__sigma=25, fit__steps=3000, image__size=[64, 32], prior__jitter=0.001)
    more = {"task.sigma": "25.0", "fit.steps": "3e3", "image.size": "[64,32]", "prior.jitter": "1e-3",
            "image.name": "'bird'", "pruner": "mine", "trainer.threads": "1", "pruner.path": "elsewhere",
            "fit": "restoration", "task.seed": "${seed}"}
    assert studies.read_study(write(folder, [("found", values() | more, "x")])).done == 1


def broken(**changes):
    return lambda node: {**node, **changes}


@pytest.mark.parametrize("change, told", [
    (lambda _: "{", "study.json is broken"), (lambda _: "[]", "holds no study"),
    (broken(cells=None), "cells must be a list, got None"), (broken(given="x"), "given must be a list, got 'x'"),
    (broken(scale=1), "scale must be a name, got 1"), (broken(spec=[]), "spec must be a mapping"),
    (broken(cells=[1]), "cells[0] must be a mapping, got 1"),
    (broken(cells=[{"values": {}}]), "cells[0].stage must be a name"),
    (broken(cells=[{"stage": "a", "values": {"seed": 0}}]), "cells[0].values must be a mapping of options to strings"),
    (broken(cells=[{"stage": "a", "values": {}, "folder": "../x"}]), "cells[0].folder must be the name of a folder"),
    (broken(cells=[{"stage": "a", "values": {}, "folder": "/x"}]), "cells[0].folder must be the name of a folder"),
    (broken(cells=[{"stage": "a", "values": {}, "folder": ".."}]), "cells[0].folder must be the name of a folder"),
    (broken(spec={"series": []}), None), (broken(spec={"series": [1]}), "spec.series must be a mapping"),
    (broken(spec={"series": {"a": "found"}}), "series.a must name its stage"),
    (broken(spec={"series": {"a": {"stage": "foudn"}}}), "series.a.stage must be one of found, got 'foudn'; did you"),
    (broken(spec={"series": {"a": {"stage": "found", "were": {}}}}), "series.a: each key must be one of stage, where"),
    (broken(spec={"series": {"a": {"stage": "found", "where": 1}}}), "series.a.where must be a mapping"),
    (broken(spec={"series": {"a": {"stage": "found", "where": {"prunr": "imp"}}}}),
     "series.a.where: no cell has a value of prunr; did you mean pruner?"),
    (broken(spec={"series": {"a": {"stage": "found", "round": "0"}}}), "series.a.round must be a whole number"),
])
def test_a_broken_manifest_is_one_line_with_file_and_key(folder, capsys, change, told):
    write(built(folder, {("imp", 0, "bird"): [1] * 4}), [("found", values(), "imp-bird-0")])
    node = change(json.loads((folder / "study.json").read_text()))
    (folder / "study.json").write_text(node if isinstance(node, str) else json.dumps(node))
    if told is None:
        assert main([str(folder)]) == 0
        return
    err = fails(capsys, folder)
    assert told in err and f"{folder}/study.json" in err


# --- the bootstrap

@pytest.mark.parametrize("values_", [[0.1, 0.5], [1.0, -2.0, 4.0], [0.3, 0.1, 0.25, 0.9]])
def test_the_interval_is_that_of_all_resamples_there_are(values_):
    every = [np.mean(drawn) for drawn in itertools.product(values_, repeat=len(values_))]
    spread = max(values_) - min(values_)
    low, high = claims.interval(values_, resamples=200_000)
    assert np.allclose([low, high], np.percentile(every, [2.5, 97.5], method="inverted_cdf"), atol=0.03 * spread)


def test_the_interval_is_scipys():
    sample = np.random.default_rng(3).normal(0.2, 1, 12)
    theirs = scipy.stats.bootstrap((sample,), np.mean, method="percentile", n_resamples=50_000,
                                   rng=np.random.default_rng(1)).confidence_interval
    assert np.allclose(claims.interval(sample, resamples=50_000), theirs, atol=0.02)
    assert claims.interval(sample) == claims.interval(sample[::-1]) != claims.interval(sample, seed=1)


# --- the verdicts

def column(mean, low, high, sparsity=0.5):
    return claims.Column(sparsity, mean, low, high, 3)


@pytest.mark.parametrize("low, high, margin, columns, verdict", [
    (0.1, 0.3, 0, [], HOLDS), (-0.1, 0.3, 0, [], UNDECIDED), (-0.3, -0.1, 0, [], FAILS), (0.0, 0.0, 0, [], UNDECIDED),
    (-0.05, 0.3, -0.1, [], HOLDS), (0.1, 0.3, 0.2, [], UNDECIDED), (0.1, 0.15, 0.2, [], FAILS),
    (0.1, 0.3, 0, [column(-0.05, -0.3, 0.2)], HOLDS),              # one sparsity falls short by less than 0.1 dB
    (0.1, 0.3, 0, [column(-0.2, -0.5, 0.2)], UNDECIDED),           # by more, on average
    (0.1, 0.3, 0, [column(-0.2, -0.3, -0.15)], FAILS),             # by more, surely
    (0.1, 0.3, 0, [column(-0.2, None, None)], UNDECIDED),          # there, of one pair
    (-0.05, 0.3, -0.1, [column(-0.15, -0.3, -0.12)], HOLDS)])      # the margin counts there, too
def test_verdicts_by_hand(low, high, margin, columns, verdict):
    every = [column((low + high) / 2, low, high, 0.2), *columns]
    assert claims.decide(every, (low + high) / 2, low, high, margin, 0.1)[0] == verdict


@pytest.mark.parametrize("pairs, claim, verdict, mean, note", [
    ([(25, 24), (26, 24)], {}, HOLDS, 1.5, ""),
    ([(24, 25), (24, 26)], {}, FAILS, -1.5, "the whole interval lies below 0"),
    ([(25, 24), (24, 25)], {}, UNDECIDED, 0, "the interval has 0 in it"),
    ([(25, 24), (26, 24)], {"margin": 1.5}, UNDECIDED, 1.5, "the interval has 1.5 in it"),
    ([(25, 24), (26, 24)], {"margin": 2.5}, FAILS, 1.5, "the whole interval lies below 2.5"),
    ([(25, 25.05), (25, 25.0)], {"margin": -0.1}, HOLDS, -0.025, ""),
    ([(25, 24)], {}, UNDECIDED, 1, "one pair only, whose mean is above 0"),
    ([(25, 24)], {"margin": 2}, UNDECIDED, 1, "one pair only, whose mean is not above 2"),
    ([(25, 24), (26, 24)], {"from": 0.9}, UNMEASURED, None,
     "nothing from 0.9 to 1; both reach 0.0%, 20.0%, 36.0%, 48.8%"),
    ([(25, 24), (26, 24)], {"to": 0.9}, UNDECIDED, 1.5, "holds as far as compared, up to 48.8%"),
    ([(24, 25), (24, 26)], {"to": 0.9}, FAILS, -1.5, "the whole interval lies below 0; compared up to 48.8% only"),
    ([(25, 24), (24, 25)], {"to": 0.9}, UNDECIDED, 0, "the interval has 0 in it; compared up to 48.8% only"),
    ([(25, 24)], {"to": 0.9}, UNDECIDED, 1, "one pair only, whose mean is above 0; compared up to 48.8% only"),
    ([(25, 24), (26, 24)], {"to": 0.5}, HOLDS, 1.5, ""),
    ([(25, 24), (26, 24)], {"metric": "accuracy"}, UNMEASURED, None, "imp has no accuracy"),
])
def test_a_claim_about_runs(folder, pairs, claim, verdict, mean, note):
    v = judged(folder, flat(*pairs), **claim)
    assert (v.verdict, v.note) == (verdict, note)
    assert v.mean == pytest.approx(mean) if mean is not None else v.mean is v.low is v.high is None
    assert v.pairs == (0 if mean is None else len(pairs)) and len(v.sparsities) == (0 if mean is None else 3)
    assert (v.better, v.worse, v.margin) == ("imp", "random", claim.get("margin", 0))


@pytest.mark.parametrize("ours, theirs, claim, note", [
    (LADDER, (0.0, 0.488), {}, ""),                                             # no end is given
    (LADDER, (0.0, 0.488), {"from": 0.2}, "from 48.8%"), (LADDER, (0.0, 0.488), {"from": 0.2, "to": 0.5}, "from 48.8%"),
    (LADDER, (0.0, 0.488), {"from": 0.39}, ""),                                 # near enough
    (LADDER, (0.0, 0.488), {"from": 0.37}, ""), (LADDER, LADDER, {"from": 0.37}, ""),   # neither has one in between
    ((0.0, 0.488), (0.0, 0.488), {"from": 0.2}, ""), ((0.36, 0.488), (0.36, 0.488), {"from": 0.2}, "from 36.0%"),
    (LADDER, (0.0, 0.36), {"from": 0.2, "to": 0.488}, "from 36.0% up to 36.0%"),
    (LADDER, LADDER, {"to": 0.44}, ""), (LADDER, LADDER, {"to": 0.507}, ""), (LADDER, LADDER, {"to": 1}, "up to 48.8%"),
    (LADDER, LADDER[:2], {"to": 0.3}, "up to 20.0%"), (LADDER, (0.0, 0.2, 0.488), {"to": 0.37}, "up to 20.0%"),
    (LADDER, (0.0, 0.2, 0.488), {"to": 0.3}, ""), (LADDER, (0.0, 0.36), {"at": 0.37}, "")])
def test_a_claim_holds_only_where_its_range_was_compared(folder, ours, theirs, claim, note):
    for seed in range(2):
        run(folder, f"imp{seed}", [25 + seed] * len(ours), seed=seed, ladder=ours)
        run(folder, f"random{seed}", [24] * len(theirs), "random", seed, ladder=theirs)
    cells = [("found", values(p, s), f"{p}{s}") for p in ("imp", "random") for s in (0, 1)]
    (v,) = claims.verdicts(studies.read_study(write(folder, cells, claims=[
        {"better": "imp", "worse": "random", **claim}])))
    assert (v.verdict, v.note) == ((UNDECIDED, f"holds as far as compared, {note}") if note else (HOLDS, ""))
    assert v.mean == 1.5


def test_the_numbers_of_a_verdict(folder):
    rng = np.random.default_rng(5)
    table = {(p, s, "bird"): list(rng.uniform(20, 30, 4)) for p in ("imp", "random") for s in range(4)}
    v = judged(folder, table)
    apart = np.array([np.subtract(table["imp", s, "bird"], table["random", s, "bird"]) for s in range(4)])[:, 1:]
    assert v.mean == pytest.approx(apart.mean()) and v.above == (apart.mean(axis=0) > 0).sum()
    assert (v.low, v.high) == pytest.approx(claims.interval(apart.mean(axis=1)))
    assert v.sparsities == LADDER[1:] and v.pairs == 4
    assert [c.mean for c in v.columns] == pytest.approx(list(apart.mean(axis=0)))
    assert [(c.low, c.high) for c in v.columns] == [pytest.approx(claims.interval(a)) for a in apart.T]


def test_pictures_that_differ_much_do_not_hide_a_difference_within_each(folder):
    levels = {"bird": 20.0, "baby": 30.0, "head": 40.0}
    table = {(p, s, name): [level + s + (p == "imp") * (0.3 + 0.01 * s)] * 4
             for p in ("imp", "random") for name, level in levels.items() for s in (0, 1)}
    v = judged(folder, table)
    assert v.verdict == HOLDS and v.pairs == 6 and 0.3 - 1e-9 <= v.low <= v.mean == pytest.approx(0.305)


def test_one_sparsity_can_sink_a_claim(folder):
    table = {("imp", s, "bird"): [25, 27, 27, 24 + s / 10] for s in range(3)}
    table |= {("random", s, "bird"): [25] * 4 for s in range(3)}
    v = judged(folder, table)
    assert v.verdict == FAILS and v.above == 2 and v.low > 0
    assert v.note == "at 48.8% the whole interval lies below -0.1"
    (folder / "again").mkdir()
    assert judged(folder / "again", table, to=0.4).verdict == HOLDS


def test_ranges_and_places(folder):
    s = studies.read_study(built(folder, flat((25, 24), (26, 24))))

    def at(**claim):
        given = [{"better": "imp", "worse": "random", **claim}]
        return claims.verdicts(replace(s, spec=s.spec | {"claims": given}))[0].sparsities

    assert at() == LADDER[1:] and at(**{"from": 0}) == LADDER       # the dense network counts where it is asked for
    assert at(**{"from": 0.2, "to": 0.36}) == (0.2, 0.36) and at(to=0.487) == LADDER[1:]
    assert at(at=0.35) == (0.36,) and at(at=0.0) == (0.0,) and at(at=0.42) == ()
    assert claims.verdicts(replace(s, spec=s.spec | {"claims": [{"better": "imp", "worse": "random"}]}))[0].say == (
        "LIP is better than random")


def test_a_dense_network_stands_beside_every_sparsity(folder):
    table = {("imp", s, "bird"): [25 + s, 25 + s, 25.5 + s, 24 + s] for s in range(2)}
    v = judged(folder, table, worse="dense")
    assert v.sparsities == LADDER[1:] and [c.mean for c in v.columns] == pytest.approx([0, 0.5, -1])
    v = judged(folder / "b", table, better="dense", worse="imp", at=0.488)
    assert v.mean == pytest.approx(1) and v.verdict == HOLDS
    v = judged(folder / "c", table, better="dense", worse="dense")
    assert v.sparsities == (0.0,) and v.mean == 0 and v.verdict == UNDECIDED


def test_two_priors_that_nothing_was_cut_from_are_compared(folder):
    for seed in (0, 1):
        run(folder, f"a{seed}", [25 + seed], "none", seed, ladder=[0.0])
        run(folder, f"b{seed}", [24.5], "none", seed, ladder=[0.0], prior__channels=8)
    cells = [("found", values("none", s, prior__channels=c), f"{n}{s}")
             for n, c in (("a", 16), ("b", 8)) for s in (0, 1)]
    series = {n: {"stage": "found", "where": {"prior.channels": c}} for n, c in (("a", 16), ("b", 8))}
    s = studies.read_study(write(folder, cells, series=series, claims=[{"better": "a", "worse": "b"}]))
    (v,) = claims.verdicts(s)
    assert (v.verdict, v.sparsities, v.mean, v.pairs) == (HOLDS, (0.0,), 1.0, 2)


def test_the_nearest_sparsities_are_compared(folder):
    for s in (0, 1):
        run(folder, f"imp{s}", [1, 2, 3, 4], seed=s, ladder=[0.2, 0.956, 0.965, 0.972])
        run(folder, f"random{s}", [10, 20, 30, 40], "random", s, ladder=[0.25, 0.957, 0.9641, 0.9755])
    cells = [("found", values(p, s), f"{p}{s}") for p in ("imp", "random") for s in (0, 1)]
    s = studies.read_study(write(folder, cells))
    found = pairing.differences(s.series["imp"], s.series["random"], "psnr_picked")
    assert found.sparsities == (0.956, 0.965, 0.972) and found.values.tolist() == [[-18, -27, -36]] * 2


def test_of_errors_less_is_better_and_differences_are_relative(folder):
    for s, (a, b) in enumerate([(0.06, 0.1), (0.09, 0.1)]):
        for name, mse in (("imp", a), ("random", b)):
            make(folder / f"{name}{s}", config(s, pruner=name, image="bird"),
                 rounds((0, 20.0), (0.5, 20.0), mse_picked=mse), 0)
    cells = [("found", values(p, s), f"{p}{s}") for p in ("imp", "random") for s in (0, 1)]
    told = {"better": "imp", "worse": "random", "metric": "mse_picked"}
    v, tight, other = claims.verdicts(studies.read_study(write(folder, cells, claims=[
        told, told | {"margin": 0.2}, {"better": "random", "worse": "imp", "metric": "mse_picked", "margin": -0.07}])))
    assert (v.verdict, tight.verdict, other.verdict) == (HOLDS, UNDECIDED, FAILS)
    assert v.mean == pytest.approx(0.25) and (v.low, v.high) == pytest.approx((0.1, 0.4))
    assert account.measured(v, "psnr_peak") == "+25.0 [+10.0, +40.0] % mse_picked"
    assert account.measured(v, "mse_picked") == account.measured(v) == "+25.0 [+10.0, +40.0] %"
    assert claims.shortfall("mse_picked") == pytest.approx(0.0233, abs=1e-4) and claims.shortfall("psnr_peak") == 0.1


def test_each_of_several_pictures_is_a_pair_where_both_sides_have_it(folder):
    many = {"bird": [1, 1], "baby": [5, 5], "head": [9, 9]}
    run(folder, "a", [5, 5], picture="five", ladder=[0, 0.5], images=many)
    run(folder, "b", [4, 4], "random", picture="five", ladder=[0, 0.5],
        images={"bird": [0.5, 0.5], "baby": [4, 4], "kate": [0, 0]})
    run(folder, "c", [7, 7], "snip", picture="baby", ladder=[0, 0.5])
    run(folder, "d", [7, 3], "magnitude", picture="five", ladder=[0, 0.5])
    cells = [("found", values(p, picture=i), f) for p, i, f in (
        ("imp", "five", "a"), ("random", "five", "b"), ("snip", "baby", "c"), ("magnitude", "five", "d"))]
    series = {p: {"stage": "found", "where": {"pruner": p}} for p in ("imp", "random", "snip", "magnitude")}
    s = studies.read_study(write(folder, cells, series=series))

    def of(worse):
        found = pairing.differences(s.series["imp"], s.series[worse], "psnr_peak")
        return [p[0] for p in found.pairs], found.values[:, 1].tolist()

    assert of("random") == (["baby", "bird"], [1, 0.5])
    assert of("snip") == (["baby"], [5 - 8])
    assert of("magnitude") == (["five"], [6 - 4])       # whose pictures are not told


def test_pairs_agree_in_what_varies_on_both_sides(folder):
    cells = []
    for sigma, of, psnr in itertools.product((15, 25), ("bird", "head"), (10,)):
        for name, pruner in (("imp", "imp"), ("random", "random")):
            folder_ = f"{name}-{sigma}-{of}"
            run(folder, folder_, [psnr + sigma + (of == "head") * 4 + (name == "imp")] * 4, pruner, picture="baby",
                task__sigma=sigma)
            cells.append(("found", values(pruner, picture="baby", task__sigma=sigma, of__image__name=of,
                                          pruner__path=folder_), folder_))
    series = SERIES | {"own": {"stage": "found", "where": {"pruner": "imp", "of.image.name": "head"}}}
    s = studies.read_study(write(folder, cells, series=series))
    assert pairing.shared(s.series["imp"], s.series["random"]) == ["task.sigma", "of.image.name"]
    found = pairing.differences(s.series["imp"], s.series["random"], "psnr_peak")
    assert len(found.pairs) == 4 and (found.values == 1).all()
    assert pairing.shared(s.series["own"], s.series["random"]) == ["task.sigma"]
    found = pairing.differences(s.series["own"], s.series["random"], "psnr_peak")
    assert len(found.pairs) == 2 and (found.values == 3).all()      # of both tickets of random the mean


def test_missing_runs_are_told_with_a_verdict(folder):
    built(folder, flat((25, 24), (26, 24)))
    node = json.loads((folder / "study.json").read_text())
    node["cells"].append({"stage": "found", "values": values("random", 2), "folder": None})
    node["spec"]["claims"] = [{"better": "imp", "worse": "random"}]
    node["spec"]["series"]["snip"] = {"stage": "found", "where": {"pruner": "snip"}}
    node["spec"]["claims"] += [{"better": "imp", "worse": "snip"}]
    (folder / "study.json").write_text(json.dumps(node))
    a, b = claims.verdicts(studies.read_study(folder))
    assert (a.verdict, a.note) == (HOLDS, "1 of 3 runs of random are missing")
    assert (b.verdict, b.note) == (UNMEASURED, "no runs of snip at this scale")
    write(folder / "b", [("found", values(p), None) for p in ("imp", "random")], claims=node["spec"]["claims"][:1])
    (c,) = claims.verdicts(studies.read_study(folder / "b"))
    assert (c.verdict, c.note) == (UNMEASURED, "no run of imp is done, of 1")


def test_neither_order_nor_level_of_the_runs_matters(folder):
    rng = np.random.default_rng(11)
    table = {(p, s, i): list(rng.uniform(20, 22, 4)) for p in ("imp", "random") for s in range(3) for i in ("x", "y")}
    first = judged(folder / "a", table)
    mixed = list(table.items())
    random.Random(1).shuffle(mixed)
    assert judged(folder / "b", dict(mixed)) == first
    moved = judged(folder / "c", {k: [v + 7 for v in psnr] for k, psnr in table.items()})
    assert (moved.verdict, moved.note, moved.above) == (first.verdict, first.note, first.above)
    assert (moved.mean, moved.low, moved.high) == pytest.approx((first.mean, first.low, first.high))


@pytest.mark.parametrize("claim, told", [
    ({"worse": "random"}, "claims[0].better must name a series: imp, random, dense"),
    ({"better": "imp", "worse": "rndom"}, "claims[0].worse must be one of imp, random, dense, got 'rndom'; did you"),
    ({"better": "imp", "worse": "random", "metric": "psnr"}, "claims[0].metric must be one of psnr_peak"),
    ({"better": "imp", "worse": "random", "form": 0.2}, "claims[0]: each key must be one of say, better"),
    ({"better": "imp", "worse": "random", "from": 20}, "claims[0].from must be a sparsity in [0, 1], got 20"),
    ({"better": "imp", "worse": "random", "from": 0.5, "to": 0.2}, "claims[0]: from must not be above to"),
    ({"better": "imp", "worse": "random", "at": 0.5, "to": 0.9}, "claims[0] has both at and a range"),
    ({"better": "imp", "worse": "random", "margin": "x"}, "claims[0].margin must be a number, got 'x'"),
    ("imp > random", "claims[0] must be a mapping")])
def test_a_claim_that_is_not_understood(folder, capsys, claim, told):
    built(folder, flat((25, 24)), claims=[claim])
    assert f"{folder}/study.json: {told}" in fails(capsys, folder)


def test_an_unknown_metric_of_a_study(folder, capsys):
    built(folder, flat((25, 24)), metric="pnsr_peak", claims=[{"better": "imp", "worse": "random"}])
    assert "study.json: metric must be one of psnr_peak" in fails(capsys, folder)


# --- published numbers

def test_published_numbers_stand_beside_ours(folder):
    table = {("imp", s, i): [25, 26 + s, 27 + s + (i == "baby"), 28] for s in (0, 1) for i in ("bird", "baby")}
    table["imp", 2, "bird"] = [0] * 4       # lacks a picture: its mean over pictures would be that of others
    s = studies.read_study(built(folder, table, published=[
        {"series": "imp", "where": {"image.name": "bird"}, "sparsity": 0.37, "value": 31.13, "source": "Table 4"},
        {"series": "imp", "sparsity": 0.2, "value": 30, "metric": "psnr_picked"},
        {"series": "dense", "value": 30}, {"series": "imp", "sparsity": 0.9, "value": 30}]))
    a, b, c, d = published.published(s)
    assert (a.series, a.picture, a.sparsity, a.ours_at, a.metric, a.source) == (
        "LIP", "bird", 0.37, pytest.approx(0.36), "psnr_peak", "Table 4")
    assert (a.ours.mean, a.ours.n) == (pytest.approx((28 + 29 + 1) / 3), 3)
    assert a.difference == pytest.approx(58 / 3 - 31.13)
    assert (b.picture, b.ours.mean, b.ours.n, b.ours.sd) == ("2 pictures", 26.5, 2, pytest.approx(0.5 ** 0.5))
    assert (c.ours.mean, c.sparsity) == (26, None) and (d.ours.n, d.difference, d.ours_at) == (0, None, None)
    assert "only their order does" in published.comparable(s)
    assert published.comparable(replace(s, scale="paper", given=["seed=0..2"])) == ""
    assert "fit.steps=9" in published.comparable(replace(s, scale="paper", given=["fit.steps=9"]))


@pytest.mark.parametrize("number, told", [
    ({"series": "lip", "value": 1}, "published[0].series must be one of imp"),
    ({"series": "imp", "value": "high", "sparsity": 0.2}, "published[0].value must be a number"),
    ({"series": "imp", "value": 1}, "published[0].sparsity is missing"),
    ({"series": "imp", "value": 1, "sparsity": 20}, "published[0].sparsity must be a number in [0, 1]"),
    ({"series": "imp", "value": 1, "sparsity": 0.2, "were": {}}, "published[0]: each key must be one of series"),
    ({"series": "imp", "value": 1, "sparsity": 0.2, "where": {"image": "x", "y": 1}},
     "published[0].where: no cell has a value of y")])
def test_a_published_number_that_is_not_understood(folder, capsys, number, told):
    built(folder, flat((25, 24)), published=[number])
    assert f"{folder}/study.json: {told}" in fails(capsys, folder)


# --- the studies that lipfw has

STUDIES = {p.stem: node.study for p in sorted(EXPERIMENTS.glob("*.yaml")) if "study" in (node := OmegaConf.load(p))}


@pytest.fixture(scope="module")
def loader():
    with opened(["name=mine"], CONF, EXPERIMENTS) as (_, compose):
        yield compose._loader


@pytest.mark.parametrize("name, scale", [(name, scale) for name in STUDIES for scale in ("tiny", "paper")
                                         if (name, scale) != ("tab5_searched", "paper")])      # of 279 runs a seed
def test_every_study_has_runs_for_its_series_and_says_what_is_understood(folder, loader, name, scale):
    stages = Stages(STUDIES[name], scale, ["seed=0"], loader, lambda _: OmegaConf.create())
    cells = [{"stage": c.stage, "values": dict(c.values), "folder": None} for of in stages.cells.values() for c in of]
    Manifest(folder, {"study": name, "scale": scale, "given": [], "spec": stages.spec}).write(cells)
    told = account.account(studies.read_study(folder))
    for s in told.study.series.values():
        assert s.planned or scale == "tiny", f"series {s.name} has no run"
        assert not s.points and len(s.missing) == len(s.planned)
    assert all(v.verdict == UNMEASURED for v in told.verdicts) and len(told.verdicts) == len(
        STUDIES[name].get("claims") or ())
    assert len(told.published) == len(STUDIES[name].get("published") or ())
    absent = {s.name for s in told.study.series.values() if not s.planned}
    assert all(name.startswith(("x8", *(f"{p}_sr_set{n}_x8" for p in ("dip", "lip", "nas", "isnas") for n in (5, 14))))
               for name in absent), "tiny studies leave out super-resolution by 8, and nothing else"


# --- the command

CLAIMS = [{"say": "IMP is above random", "better": "imp", "worse": "random"},
          {"say": "IMP | dense match", "better": "imp", "worse": "dense", "margin": -0.1},
          {"say": "at 90 %", "better": "imp", "worse": "random", "at": 0.9}]


def test_the_report_of_a_study(folder, capsys):
    built(folder, flat((25, 24), (26, 24)), claims=CLAIMS, published=[
        {"series": "imp", "sparsity": 0.37, "value": 31.13, "source": "Table 4"}])
    make(folder / "mine", config(8), rounds((0, 1.0)), 0)
    assert main([str(folder)]) == 0
    told = capsys.readouterr()
    lines = [" ".join(x.split()) for x in told.out.splitlines()]
    assert lines[0] == "fig3: Fig 3" and "done 4 of 4 runs" in lines and "device cpu" in lines
    assert "computing 16s in all these runs" in lines and "question Do they exist?" in lines
    assert any(x.startswith("holds IMP is above random +1.50 2 3/3") for x in lines), lines
    assert any(x.startswith("not measured at 90 % (nothing at 0.9; both reach") for x in lines)
    assert "[+1.00, +2.00] dB at 20-49%" in lines and not told.err
    assert "LIP bird 37.0% (36.0%) psnr_peak 26.50±.71 2 31.13 -4.63 Table 4" in lines
    assert "not of this study, left out: runs/fig3/mine" in lines
    assert lines[-1] == "runs/fig3/: report.csv, report.md, verdicts.csv"
    text = (folder / "report.md").read_text()
    assert "### Claims: 2 hold, 1 not measured" in text and r"| **holds** | IMP \| dense match |  | +0.00" in text
    assert "| **holds** | IMP is above random |  | +1.50 [+1.00, +2.00] dB | 2 | 3/3 at 20-49% |" in text
    assert "| LIP | bird | 37.0% (36.0%) | psnr_peak | 26.50 ± 0.71 | 2 | 31.13 | -4.63 | Table 4 |" in text
    assert "absolute numbers do not compare" in text and "mine" in text and "### `denoise-bird-skip-imp`" in text
    with open(folder / "verdicts.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    whole = [r for r in rows if r["verdict"]]
    assert [r["verdict"] for r in whole] == [HOLDS, HOLDS, UNMEASURED]
    assert (float(whole[0]["mean"]), float(whole[0]["low"]), whole[0]["pairs"]) == (1.5, 1.0, "2")
    assert [(r["sparsity"], float(r["mean"])) for r in rows if r["claim"] == "0" and r["sparsity"]] == [
        ("0.2", 1.5), ("0.36", 1.5), ("0.488", 1.5)]


def test_several_studies_have_a_section_each_and_one_index(folder, capsys):
    built(folder, flat((25, 24), (26, 24)), claims=CLAIMS[:1])
    built(Path("runs/fig4"), flat((24, 25), (24, 26)), claims=CLAIMS[:1], name="fig4")
    run(Path("runs/own"), "x", [30, 31, 32, 33], seed=4)
    assert main([*map(str, (folder, "runs/fig4", "runs/own")), "--out", "here"]) == 0
    out = capsys.readouterr().out
    assert out.index("verdicts") < out.index("fig3: Fig 3") < out.index("fig4: Fig 3") < out.index("30.00")
    text = Path("here/report.md").read_text()
    assert [x for x in text.splitlines() if x.startswith("## ")] == [
        "## Verdicts", "## fig3: Fig 3", "## fig4: Fig 3", "## Other runs"]
    assert "| `fig4` | **does not hold** | IMP is above random |" in text
    with open("here/verdicts.csv", newline="") as f:
        assert [(r["study"], r["verdict"]) for r in csv.DictReader(f) if r["verdict"]] == [
            ("fig3", HOLDS), ("fig4", FAILS)]
    assert not (folder / "report.md").exists()


@pytest.mark.parametrize("names", [["fig3"], ["fig3", "fig4"]], ids=len)
def test_studies_without_a_finished_run_tell_what_they_plan(folder, capsys, names):
    figures = [{"draw": "curves", "series": ["imp", "random"]}, {"draw": "table", "series": ["imp"]}]
    for name in names:
        write(folder.parent / name, [("found", values(p), None) for p in ("imp", "random")], claims=CLAIMS[:1],
              name=name, figures=figures)
    given = [f"runs/{name}" for name in names]
    assert command([*given, "--out", "here"]) == 1
    told = capsys.readouterr()
    said = "missing: 2 runs of found: its tickets are not found yet"
    assert told.out.count(said) == told.out.count("0 of 2 runs") == len(names) and "not measured" in told.out
    assert told.out.endswith("here/: report.md, verdicts.csv, index.html, figures/\n")
    assert told.err == f"lipfw: no finished run to report in {', '.join(given)}\n"
    page, text = (Path("here", name).read_text() for name in ("index.html", "report.md"))
    assert page.count(said) == text.count(said) == len(names)
    assert page.count("<dt>runs done</dt><dd>0 of 2</dd>") == page.count("LIP (not run)</text>") / 2 == len(names)
    assert all(f"{name}-1-curves.svg" in page and f"## {name}" in text for name in names)
    assert not Path("here/report.csv").exists()


def test_a_broken_run_of_a_study_is_told_and_the_rest_reported(folder, capsys):
    built(folder, flat((25, 24), (26, 24)), claims=CLAIMS[:1])
    (folder / "imp-bird-1/result.json").write_text("{")
    assert main([str(folder)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("lipfw: cannot read runs/fig3/imp-bird-1: result.json is broken")
    assert "one pair only" in told.out and (folder / "verdicts.csv").exists()


def test_a_run_of_a_study_given_beside_it_counts_once(folder, capsys):
    built(folder, flat((25, 24), (26, 24)))
    assert main([str(folder), str(folder / "imp-bird-0")]) == 0
    assert "Other runs" not in (folder / "report.md").read_text() and not (folder / "verdicts.csv").exists()


def test_a_page_and_figures_are_drawn_unless_told_not_to(folder, capsys):
    built(folder, flat((25, 24), (26, 24)), claims=CLAIMS, figures=[
        {"draw": "curves", "series": ["imp", "random"], "shows": "what random pruning loses"}])
    run(Path("runs/own"), "x", [30, 31, 32, 33], seed=4)
    run(Path("runs/own"), "y", [30, 31, 32, 30], "random", seed=4)
    where = [str(folder), "runs/own", "--out", "here"]
    assert command([*where, "--no-figures"]) == 0 and not Path("here/index.html").exists()
    assert command(where) == 0
    assert capsys.readouterr().out.endswith(
        "here/: report.csv, report.md, verdicts.csv, index.html, figures/\n")
    page = Path("here/index.html").read_text()
    assert all(f"{name}" in page for name in ("fig3", "IMP is above random", "holds", "denoise-bird-skip"))
    assert {f.suffix for f in Path("here/figures").iterdir()} == {".png", ".svg"}
    assert sorted(f.name for f in Path("here/figures").glob("fig3*")) == ["fig3-1-curves.png", "fig3-1-curves.svg"]


def test_a_figure_that_cannot_be_drawn_leaves_the_tables(folder, capsys):
    built(folder, flat((25, 24), (26, 24)), claims=CLAIMS, figures=[{"draw": "curvs"}])
    assert command([str(folder)]) == 1
    told = capsys.readouterr()
    assert "IMP is above random" in told.out and told.out.endswith("/: report.csv, report.md, verdicts.csv\n")
    assert told.err.startswith("lipfw: runs/fig3/study.json: figures[0]: ") and "did you mean curves?" in told.err
    assert told.err.count("\n") == 1


def test_no_torch_no_hydra_no_matplotlib(folder):
    built(folder, flat((25, 24), (26, 24)), claims=CLAIMS)
    code = ("import sys; from lipfw.report.__main__ import main; assert main(sys.argv[1:]) == 0; "
            "assert not {'torch', 'hydra', 'pytorch_lightning', 'matplotlib', 'scipy'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code, str(folder), "--no-figures"], check=True, capture_output=True,
                   env={"PYTHONPATH": ":".join(sys.path), "PATH": ""})


def test_input_errors_are_raised_by_the_functions(folder):
    folder.mkdir(parents=True)
    (folder / "study.json").write_bytes(b"\xff{")
    with pytest.raises(InputError, match=r"study\.json cannot be read"):
        manifest.read_manifest(folder)
