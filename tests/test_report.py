"""Reports of many runs. The run folders are written by hand, and the numbers are told by numpy."""
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from lipfw.errors import InputError
from lipfw.report import compare, read, screen, stats
from lipfw.report.__main__ import main as command


def main(argv):
    """The command without figures, which are drawn in tests of their own and take a second each."""
    return command([*argv, "--no-figures"])


METRICS = ("psnr_peak", "psnr_picked", "psnr_final", "ssim_picked", "loss", "seconds")


def config(seed=0, task="denoise", pruner="imp", image="astronaut", **changes):
    """A run's config.yaml; `changes` spells the dots of an option as two underscores."""
    c = {"task": {"_target_": f"lipfw.task.{task}.X", "sigma": 25, "seed": seed},
         "protocol": {"steps": 3000, "jitter": 0.0333333333},
         "image": {"_target_": "lipfw.image.skimage.load", "size": None, "name": image},
         "prior": {"_target_": "lipfw.prior.skip.build", "channels": 16, "jitter": 0.0333333333, "seed": seed},
         "pruner": {"_target_": f"lipfw.pruner.{pruner}.X"},
         "fit": {"_target_": "lipfw.fit.restoration.Restoration", "steps": 3000, "steps_per_batch": 50},
         "logger": {"_target_": None}, "trainer": {"accelerator": "cpu"}, "seed": seed, "name": "study", "out": "runs"}
    if pruner == "imp":
        c["pruner"] |= {"rounds": 2, "rate": 0.2}
    for key, value in changes.items():
        *path, last = key.split("__")
        node = c
        for part in path:
            node = node[part]
        node[last] = value
    return c


def records(seed, n=3, **changes):
    rng = np.random.default_rng([seed, n])
    return [{"round": r, "sparsity": round(1 - 0.8 ** r, 6), "params_left": 8583 - 1000 * r,
             "loss": rng.uniform(0.01, 0.02), "psnr_peak": rng.uniform(30, 32), "psnr_picked": rng.uniform(28, 30),
             "psnr_final": rng.uniform(27, 29), "ssim_peak": 0.9, "ssim_picked": rng.uniform(0.8, 0.9),
             "ssim_final": 0.8, "step_peak": 20, "step_picked": 14, "seconds": rng.uniform(0, 500), **changes}
            for r in range(n)]


def rounds(*pairs, **changes):
    """Records of (sparsity, picked PSNR); the peak is 1 dB above."""
    return [{"round": i, "sparsity": s, "params_left": round(1000 * (1 - s)), "loss": 0.01, "psnr_picked": p,
             "psnr_peak": p if p is None else p + 1, "psnr_final": p, "ssim_picked": 0.8, "seconds": 1.0, **changes}
            for i, (s, p) in enumerate(pairs)]


def ticket(round_, sparsity=0.5, seed=0, label="denoise-baby-skip-imp", options="0a1b2c3d", run=None):
    """What result.json tells of a ticket that was replayed."""
    found = {"label": label, "options": options, "seed": str(seed), "run": run or f"{label}-s{seed}-{options}",
             "round": str(round_), "sparsity": sparsity}
    return {"file": f"runs/found/{found['run']}/tickets/round_{round_:02d}.safetensors", "found": found}


def make(folder, c, rounds, best=1, degraded=20.5, finished=True, **more):
    """Write a run folder as lipfw does."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(c))
    (folder / "rounds.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rounds))
    if finished:
        result = {"run": folder.name, "best_round": best, "rounds": rounds,
                  "degraded": {"psnr": degraded, "ssim": None if degraded is None else 0.4}, "config": c, **more}
        (folder / "result.json").write_text(json.dumps(result, indent=1))
    return folder


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """The current folder is empty, and the terminal has 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def study(narrow):
    """runs/study with three seeds of imp, in the current folder."""
    for seed, best in enumerate((1, 2, 1)):
        make(Path(f"runs/study/denoise-astronaut-skip-imp-s{seed}-0000000{seed}"), config(seed), records(seed), best,
             20.5 + seed / 10)
    Path("runs/study/multirun.yaml").write_text("a: 1\n")      # Hydra's, beside the runs
    return Path("runs/study")


def lines(path):
    return list(csv.DictReader(io.StringIO(Path(path).read_text())))


def fails(capsys, *argv):
    """The one line of a mistake."""
    assert main([str(a) for a in argv]) == 1
    err = capsys.readouterr().err
    assert err.startswith("lipfw: ") and err.count("\n") == 1, err
    return err


# --- priors, fits and classical methods beside each other

def overview(folder):
    return compare.overviews(stats.group(read.read_runs([folder]).finished)[0])


def method(folder, name, seed, psnr, **more):
    c = config(seed, pruner="none", prior={"_target_": "lipfw.prior.none.build"},
               fit={"_target_": "lipfw.fit.baseline.Baseline", "method": name, "sigma": None}, **more)
    return make(folder / f"{name}-{seed}-{len(more)}", c, rounds((0, psnr), params_left=0, psnr_peak=psnr), 0)


def test_dense_ticket_and_classical_methods_are_one_table(narrow, capsys):
    folder = Path("runs/all")
    for seed in (0, 1):
        make(folder / f"dense{seed}", config(seed, pruner="none"), rounds((0, 27.0 + seed)), 0)
        make(folder / f"ticket{seed}", config(seed, pruner="ticket", pruner__path="x", pruner__init="ticket"),
             rounds((0.8, 28.0 + seed)), 0, tickets=[ticket(7, 0.8, label="denoise-astronaut-skip-imp")])
        make(folder / f"random{seed}", config(seed, pruner="ticket", pruner__path="y", pruner__init="ticket"),
             rounds((0.8, 20.0 + seed)), 0, tickets=[ticket(7, 0.8, label="denoise-astronaut-skip-random")])
        method(folder, "nlm", seed, 26.0 + seed)
        method(folder, "tv", seed, 29.0 - seed)
    method(folder, "nlm", 0, 23.0, task__sigma=50)
    (o,) = overview(folder)         # the other noise level has one method alone
    assert o.title == "denoise-astronaut task.sigma=25"
    assert o.labels == ["nlm", "skip", "skip ticket of imp round 7", "skip ticket of random round 7", "tv"]
    assert [r.stats["psnr_picked"].mean for r in o.rows] == [26.5, 27.5, 28.5, 20.5, 28.5]
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    at = out.index("denoise-astronaut task.sigma=25: restorations (*: the best)")
    shown = "\n".join(out[at:at + 12])
    assert "*28.50±.71" in shown and "degraded" in shown and all(len(line) <= 80 for line in out[at:at + 12])
    text = (folder / "report.md").read_text()
    assert "| `tv` | 0.00% | 0 | 2 | 28.50 ± 0.71 | **28.50 ± 0.71** |" in text
    assert "| degraded |  |  | 2 |  | 20.50 ± 0.00 |" in text


def test_an_overview_takes_two_priors_or_fits_and_a_clean_picture(tmp_path):
    make(tmp_path / "a", config(pruner="imp"), records(0))
    make(tmp_path / "b", config(pruner="random"), records(0))
    assert overview(tmp_path) == []                                     # that is a comparison of pruners
    make(tmp_path / "c", config(prior___target_="lipfw.prior.decoder.build", image="baby"), records(0))
    assert overview(tmp_path) == []                                     # that is another picture
    make(tmp_path / "d", config(prior___target_="lipfw.prior.decoder.build"), rounds((0, None)), 0, degraded=None)
    assert overview(tmp_path) == []
    make(tmp_path / "e", config(fit___target_="lipfw.fit.other.Other", pruner="none"), rounds((0, 20.0)), 0)
    (o,) = overview(tmp_path)
    assert o.labels == ["skip imp fit=restoration", "skip fit=other", "skip random fit=restoration"]
    assert [r.round for r in o.rows] == [1, 0, 1]                       # the rounds that were chosen


# --- the numbers

def test_means_and_deviations_are_numpys(study):
    assert main([str(study)]) == 0
    rows = lines(study / "report.csv")
    assert [r["round"] for r in rows] == ["0", "1", "2"]
    every = [records(s) for s in range(3)]
    for i, row in enumerate(rows):
        assert row["n"] == "3" and float(row["sparsity"]) == every[0][i]["sparsity"]
        assert int(row["params_left"]) == 8583 - 1000 * i
        for m in METRICS:
            values = [run[i][m] for run in every]
            assert float(row[f"{m}_mean"]) == pytest.approx(np.mean(values), rel=1e-14)
            assert float(row[f"{m}_sd"]) == pytest.approx(np.std(values, ddof=1), rel=1e-12)
            assert row[f"{m}_n"] == "3"
        assert float(row["degraded_psnr_mean"]) == pytest.approx(20.6)
        assert float(row["degraded_psnr_sd"]) == pytest.approx(0.1)
    assert [r["chosen"] for r in rows] == ["0", "2", "1"]


def test_one_run_has_no_deviation(study, capsys):
    one = study / "denoise-astronaut-skip-imp-s1-00000001"
    assert main([str(one)]) == 0
    row = lines(one / "report.csv")[0]
    assert float(row["psnr_peak_mean"]) == records(1)[0]["psnr_peak"]
    assert row["psnr_peak_sd"] == "" and row["psnr_peak_n"] == "1"
    out = capsys.readouterr().out.split("PSNR in dB")[0]
    assert "±" not in out and "nan" not in out


def test_missing_values_are_left_out_and_counted(study, capsys):
    make(study / "own-s3", config(3), records(3, psnr_peak=None), 1)
    main([str(study)])
    row = lines(study / "report.csv")[0]
    assert row["n"] == "4" and row["psnr_peak_n"] == "3" and row["loss_n"] == "4"
    assert float(row["psnr_peak_mean"]) == pytest.approx(np.mean([records(s)[0]["psnr_peak"] for s in range(3)]))
    assert " (3)" in capsys.readouterr().out


def test_without_a_clean_picture_there_are_dashes(tmp_path, capsys):
    no = {f"{m}_{k}": None for m in ("psnr", "ssim") for k in ("peak", "picked", "final")}
    for s in range(2):
        make(tmp_path / "a" / f"r{s}", config(s), records(s, **no, step_peak=None), degraded=None)
    assert main([str(tmp_path / "a")]) == 0
    row = lines(tmp_path / "a/report.csv")[0]
    assert row["psnr_peak_mean"] == row["psnr_peak_sd"] == row["degraded_psnr_mean"] == "" and row["psnr_peak_n"] == "0"
    assert row["loss_sd"]
    out = capsys.readouterr().out
    assert out.splitlines()[2].split()[4:8] == ["-"] * 4 and "degraded" not in out
    assert "| - | - | - | - |" in (tmp_path / "a/report.md").read_text()


def test_stat_of_nothing_and_one():
    assert stats.Stat.of([None]) == stats.Stat(None, None, 0)
    assert stats.Stat.of([None, 2.0]) == stats.Stat(2.0, None, 1)


# --- groups

def grouped(tmp_path, *configs):
    runs = [make(tmp_path / "g" / f"r{i}", c, records(i)) for i, c in enumerate(configs)]
    groups, twins = stats.group(read.read_runs(runs).finished)
    return [(g.label, len(g.runs)) for g in groups], twins


def test_only_the_seeds_are_averaged(tmp_path):
    mixed = config(4) | {"name": "other", "out": "elsewhere", "trainer": {"accelerator": "gpu"}}
    mixed["fit"] = mixed["fit"] | {"steps_per_batch": 10, "kernel": "graph"}
    groups, twins = grouped(tmp_path, config(0), config(1), config(1, task__seed=7), mixed, config(5, task__sigma=15),
                            config(5, task__sigma=100))
    assert groups == [("denoise-astronaut-skip-imp task.sigma=15", 1), ("denoise-astronaut-skip-imp task.sigma=25", 4),
                      ("denoise-astronaut-skip-imp task.sigma=100", 1)]
    assert not twins


def test_label_tells_what_differs_and_no_more(tmp_path):
    other = config(0, task="inpaint", fit__steps=2000, protocol__steps=2000)    # follows its task: the task tells it
    groups, _ = grouped(tmp_path, config(0), config(0, pruner="none"), config(0, image="camera"), other,
                        config(0, pruner__rate=0.5))
    assert [g for g, _ in groups] == ["denoise-astronaut-skip-imp pruner.rate=0.2",
                                      "denoise-astronaut-skip-imp pruner.rate=0.5", "denoise-astronaut-skip-none",
                                      "denoise-camera-skip-imp pruner.rate=0.2",
                                      "inpaint-astronaut-skip-imp pruner.rate=0.2"]


def test_groups_that_the_base_cannot_tell_apart_are_told_in_full(tmp_path):
    a, b = (config(0) for _ in range(2))
    for c, folder in ((a, "x"), (b, "y")):
        c["image"] = {"_target_": "lipfw.image.file.load", "path": f"{folder}/bird.png"}
    b["prior"]["norm"] = None
    assert [g for g, _ in grouped(tmp_path, a, b)[0]] == [
        "denoise-bird-skip-imp image.path=x/bird.png prior.norm=-",
        "denoise-bird-skip-imp image.path=y/bird.png prior.norm=null"]


def test_whole_floats_are_the_same_option(tmp_path):
    assert grouped(tmp_path, config(0), config(1, task__sigma=25.0))[0] == [("denoise-astronaut-skip-imp", 2)]


def test_options_have_csv_columns(tmp_path):
    for i, sigma in enumerate((15, 25)):
        make(tmp_path / "a" / f"r{i}", config(0, task__sigma=sigma), records(i))
    main([str(tmp_path / "a")])
    assert [r["task.sigma"] for r in lines(tmp_path / "a/report.csv")] == ["15"] * 3 + ["25"] * 3


def test_the_same_run_counts_once(study, capsys):
    make(Path("runs/again/x"), config(0), records(0, seconds=1.0))
    make(Path("runs/again/y"), config(1), records(8))
    assert main([str(study), "runs/again", str(study)]) == 0
    out = capsys.readouterr().out
    assert {r["n"] for r in lines(study / "report.csv")} == {"3"}
    assert "counted once: runs/again/x has the options and the seed of runs/study/denoise-astronaut-skip-imp-s0" in out
    told = [x for x in out.splitlines() if x.startswith("counted once")]
    assert len(told) == 2 and "numbers differ" not in told[0] and "numbers differ" in told[1]
    assert told[0] in (study / "report.md").read_text()


def test_several_folders_make_one_report(study):
    make(Path("runs/more/x"), config(9), records(9))
    assert main([str(study), "runs/more"]) == 0
    assert lines(study / "report.csv")[0]["n"] == "4" and not Path("runs/more/report.csv").exists()


def test_options_of_the_same_name_tell_no_other_pruner_apart(tmp_path):
    snip = config(0, pruner="snip")
    snip["pruner"] |= {"rounds": 5, "rate": None}
    assert [g for g, _ in grouped(tmp_path / "a", config(0), snip)[0]] == [
        "denoise-astronaut-skip-imp", "denoise-astronaut-skip-snip"]
    assert [g for g, _ in grouped(tmp_path / "b", config(0), snip, config(0, pruner__rate=0.5))[0]] == [
        "denoise-astronaut-skip-imp pruner.rate=0.2", "denoise-astronaut-skip-imp pruner.rate=0.5",
        "denoise-astronaut-skip-snip"]


def test_a_seed_that_stopped_early_counts_in_its_own_rounds_alone(narrow, capsys):
    make(Path("a/0"), config(0), rounds((0, 30), (0.2, 31), (0.36, 29)), 1)
    make(Path("a/1"), config(1), rounds((0, 32), (0.2, 33)), 0)
    make(Path("a/2"), config(2), rounds((0, 34)), 0)
    assert main(["a"]) == 0
    rows = lines(Path("a/report.csv"))
    assert [(r["n"], r["chosen"], float(r["sparsity"]), float(r["psnr_picked_mean"])) for r in rows] == [
        ("3", "2", 0, 32), ("2", "1", 0.2, 32), ("1", "0", 0.36, 29)]
    assert float(rows[0]["psnr_picked_sd"]) == 2 and rows[2]["psnr_picked_sd"] == ""
    table = [x.split()[:6] for x in capsys.readouterr().out.splitlines()[3:6]]
    assert table == [["*0", "0.00%", "1,000", "3", "33.00±2.0", "32.00±2.0"],
                     ["1", "20.00%", "800", "2", "33.00±1.4", "32.00±1.4"],
                     ["2", "36.00%", "640", "1", "30.00", "29.00"]]


# --- groups side by side

def compared(folder):
    return compare.compare(stats.group(read.read_runs([folder]).finished)[0])


@pytest.fixture
def pruners(narrow):
    """Two seeds of imp, of which one stopped early, and two of snip, in the current folder."""
    make(Path("p/imp0"), config(0), rounds((0, 30), (0.2, 29), (0.36, 28), (0.5904, 27)))
    make(Path("p/imp1"), config(1), rounds((0, 32), (0.2, 30)))
    make(Path("p/snip0"), config(0, pruner="snip"), rounds((0, 30), (0.2, 28), (0.59, 26), (0.79, 25)))
    make(Path("p/snip1"), config(1, pruner="snip"), rounds((0, 32), (0.2, 29), (0.59, 27), (0.79, None)))
    return Path("p")


def test_pruners_stand_side_by_side_at_the_sparsities_that_two_reached(pruners, capsys):
    assert main([str(pruners)]) == 0
    out = [x.rstrip() for x in capsys.readouterr().out.splitlines()]
    assert out[:9] == ["denoise-astronaut-skip: PSNR picked, dB (*: the best)",
                       "pruner n     0.00%     20.00%     59.02%",
                       "imp    2 31.00±1.4 *29.50±.71 *27.00 (1)",
                       "snip   2 31.00±1.4  28.50±.71  26.50±.71",
                       "",
                       "denoise-astronaut-skip: PSNR peak, dB (*: the best)",
                       "pruner n     0.00%     20.00%     59.02%",
                       "imp    2 32.00±1.4 *30.50±.71 *28.00 (1)",
                       "snip   2 32.00±1.4  29.50±.71  27.50±.71"]
    text = (pruners / "report.md").read_text().splitlines()
    assert text[:6] == ["### `denoise-astronaut-skip`: PSNR picked, dB (bold: the best)", "",
                        "| pruner | n | 0.00% | 20.00% | 59.02% |", "| :--- | ---: | ---: | ---: | ---: |",
                        "| `imp` | 2 | 31.00 ± 1.41 | **29.50 ± 0.71** | **27.00 (1)** |",
                        "| `snip` | 2 | 31.00 ± 1.41 | 28.50 ± 0.71 | 26.50 ± 0.71 |"]


def test_a_group_without_a_sparsity_has_a_dash_there(pruners):
    for i, last in enumerate((24, 22)):
        make(pruners / f"random{i}", config(i, pruner="random"), rounds((0, 30), (0.79, last)))
    make(pruners / "dense", config(0, pruner="none"), rounds((0, 31)), 0)
    assert main([str(pruners)]) == 0
    assert (pruners / "report.md").read_text().splitlines()[2:8] == [
        "| pruner | n | 0.00% | 20.00% | 59.02% | 79.00% |", "| :--- | ---: | ---: | ---: | ---: | ---: |",
        "| `imp` | 2 | **31.00 ± 1.41** | **29.50 ± 0.71** | **27.00 (1)** | - |",
        "| `none` | 1 | **31.00** | - | - | - |",
        "| `random` | 2 | 30.00 ± 0.00 | - | - | 23.00 ± 1.41 |",
        "| `snip` | 2 | **31.00 ± 1.41** | 28.50 ± 0.71 | 26.50 ± 0.71 | **25.00 (1)** |"]


def test_sparsities_a_thousandth_apart_are_the_same_and_no_further(tmp_path):
    for i, s in enumerate((0.7, 0.701)):
        make(tmp_path / f"a/{i}", config(0, pruner__rate=i), rounds((s, 30), (0.8 + 2 * s / 1000, 30)))
    assert [c.sparsities for c in compared(tmp_path / "a")] == [pytest.approx([0.7005, 0.801401])]
    for i, s in enumerate((0.7, 0.7011)):
        make(tmp_path / f"b/{i}", config(0, pruner__rate=i), rounds((s, 30)), 0)
    assert compared(tmp_path / "b") == []


def test_two_rounds_of_a_group_never_share_a_column(tmp_path):
    make(tmp_path / "a/0", config(0), rounds((0.9988, 20), (0.9990, 21)))
    make(tmp_path / "a/1", config(0, pruner="snip"), rounds((0.9991, 22)), 0)
    (c,) = compared(tmp_path / "a")
    assert [[r and r.stats["psnr_picked"].mean for r in column] for column in c.rows] == [[21, 22]]


def test_only_groups_that_differ_in_their_pruner_are_compared(tmp_path, capsys):
    pair = rounds((0, 30), (0.2, 29))
    for i, c in enumerate([config(0), config(0, pruner="snip"), config(0, fit__steps=9), config(0, task="inpaint"),
                           config(0, image="camera"), config(0, image="camera", pruner__rate=0.5)]):
        make(tmp_path / f"a/{i}", c, pair)
    assert [(c.title, [g.pruner for g in c.groups]) for c in compared(tmp_path / "a")] == [
        ("denoise-astronaut-skip fit.steps=3000", ["imp rate=0.2", "snip"]),
        ("denoise-camera-skip fit.steps=3000", ["imp rate=0.2", "imp rate=0.5"])]
    assert main([str(tmp_path / "a/0"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("denoise-astronaut-skip-imp\n")


def test_the_dense_network_stands_beside_the_tickets(tmp_path):
    """One group alone has a dense round: what the others are measured by."""
    for i, (name, values) in enumerate((("none", [(0, 30)]), ("imp", [(0.2, 29)]), ("ticket", [(0.2, 31)]))):
        make(tmp_path / f"a/{i}", config(0, pruner=name), rounds(*values), 0)
    (c,) = compared(tmp_path / "a")
    rows = dict(zip([g.pruner.split()[0] for g in c.groups], zip(*c.rows, strict=True), strict=True))
    assert c.sparsities == [0, 0.2]
    assert {n: [r and r.stats["psnr_picked"].mean for r in row] for n, row in rows.items()} == {
        "imp": [None, 29], "none": [30, None], "ticket": [None, 31]}


def test_the_dense_round_alone_is_no_comparison(tmp_path):
    for i, (c, s) in enumerate(((config(0), 0.2), (config(0, pruner="snip"), 0.5))):
        make(tmp_path / f"a/{i}", c, rounds((0, 30), (s, 29)))
    assert compared(tmp_path / "a") == []


def test_without_a_clean_picture_nothing_is_compared(tmp_path, capsys):
    for i, c in enumerate((config(0), config(0, pruner="snip"))):
        make(tmp_path / f"a/{i}", c, rounds((0, None), (0.2, None)), degraded=None)
    assert main([str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out + (tmp_path / "a/report.md").read_text()
    assert ": the best)" not in shown and "lost" not in shown and "denoise-astronaut-skip-snip" in shown


def seven_pruners(folder, *sparsities):
    for p in ("imp", "magnitude", "snip", "grasp", "synflow", "random", "random_like"):
        for s in range(3):
            picked = np.random.default_rng([s, len(p)]).uniform(28, 30, len(sparsities))
            make(folder / f"{p}{s}", config(s, pruner=p), rounds(*zip(sparsities, picked, strict=True)))


def test_seven_pruners_at_six_sparsities_take_one_table_in_80_columns(narrow, capsys):
    seven_pruners(Path("a"), 0, 0.2, 0.59, 0.79, 0.89, 0.95)
    assert main(["a"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    assert shown[1].split() == ["pruner", "n", "0.00%", "20.00%", "59.00%", "79.00%", "89.00%", "95.00%"]
    assert [len(x.split()) for x in shown[2:10]] == [8] * 7 + [0]
    stars = [[x.split()[c].startswith("*") for x in shown[2:9]] for c in range(2, 8)]
    assert all(1 <= sum(column) < 7 for column in stars)


def test_a_label_takes_two_lines_where_that_keeps_the_table_whole(narrow, capsys):
    for i, rate in enumerate((0.25, 0.5)):
        for s in range(2):
            made = rounds(*((x, 29 + s / 10 + i) for x in (0, 0.2, 0.59, 0.79, 0.89, 0.95)))
            make(Path(f"a/{rate}-{s}"), config(s, pruner="magnitude", pruner__rate=rate), made)
    assert main(["a"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown[1].split()) == 8 and max(map(len, shown)) <= 80
    assert [x.split()[0] for x in shown[2:6]] == ["magnitude", "rate=0.25", "magnitude", "rate=0.5"]


def test_more_sparsities_than_fit_go_into_tables_below(narrow):
    ladder = [round(1 - 0.8 ** r, 4) for r in range(17)]
    seven_pruners(Path("a"), *ladder)
    make(Path("a/t"), config(0, pruner="ticket", pruner__path="x"), rounds(*((s, 25) for s in ladder)),
         tickets=[ticket(r, s) for r, s in enumerate(ladder)])
    make(Path("a/u"), config(0, pruner="ticket", pruner__path="y" * 70), rounds((0.2, 25)), 0)
    groups = stats.group(read.read_runs([Path("a")]).finished)[0]
    for width in range(60, 100):
        console = Console(width=width, file=io.StringIO())
        console.print(screen.terminal([], compare.compare(groups), console))
        shown = console.file.getvalue().split("\n\n")[0].splitlines()
        assert max(map(len, shown)) <= width and "…" not in "".join(shown)
        heads = [x.split() for x in shown if x.startswith("pruner")]
        assert [h for x in heads for h in x[2:]] == [f"{s:.2%}" for s in ladder]
        assert all(len(x) > 3 for x in heads[:-1]), "a long label leaves room for more than one column"


# --- the choice of the round

def test_what_the_choice_without_the_clean_picture_lost(tmp_path, capsys):
    make(tmp_path / "a/0", config(0), rounds((0, 30), (0.2, 31), (0.36, 31.5)), 1, oracle_round=2)      # lost 0.5
    make(tmp_path / "a/1", config(1), rounds((0, 32), (0.2, 31), (0.36, 30.7)), 2, oracle_round=0)      # lost 1.3
    make(tmp_path / "a/2", config(2), rounds((0, 30), (0.2, 33), (0.36, 32)), 1)        # none, and an older run
    assert main([str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out.splitlines()
    at = next(i for i, x in enumerate(out) if x.startswith("* chosen"))
    assert out[at + 1] == "PSNR picked that this choice lost to the best by the clean picture: 0.60±.66 dB"
    row = lines(tmp_path / "a/report.csv")[0]
    assert float(row["lost_psnr_mean"]) == pytest.approx(0.6) and row["lost_psnr_n"] == "3"
    assert float(row["lost_psnr_sd"]) == pytest.approx(np.sqrt((0.1 ** 2 + 0.7 ** 2 + 0.6 ** 2) / 2))
    assert "by the clean picture: 0.60 ± 0.66 dB" in (tmp_path / "a/report.md").read_text()


def test_one_round_leaves_no_choice_to_lose_by(tmp_path, capsys):
    make(tmp_path / "a/0", config(0, pruner="none"), rounds((0, 30)), 0)
    assert main([str(tmp_path / "a")]) == 0 and "lost" not in capsys.readouterr().out


# --- replayed tickets

def replay(folder, seed, found, pruner="ticket", path="runs/x", init="ticket", **more):
    """A replay's run folder, with a round for each ticket."""
    c = config(seed, task="inpaint", pruner=pruner, pruner__path=path, pruner__init=init)
    made = rounds(*((t["found"]["sparsity"], 30 + seed) for t in found)) if found else rounds((0.5, 30))
    return make(folder, c, made, 0, tickets=found, **more)


def test_tickets_stand_at_the_sparsity_that_they_were_found_with(tmp_path):
    """Layers that another network has in another shape are kept whole there, and the whole is less sparse."""
    make(tmp_path / "a/0", config(0), rounds((0, 30), (0.5, 29), (0.79, 28)), 0)
    make(tmp_path / "a/1", config(0, pruner="ticket", pruner__path="x"), rounds((0, 31), (0.493, 32), (0.777, 33)), 0,
         tickets=[ticket(r, s, label="classify-cifar10-classifier-imp") for r, s in enumerate((0, 0.5, 0.79))])
    (c,) = compared(tmp_path / "a")
    assert c.sparsities == [0, 0.5, 0.79]
    assert [[r.stats["psnr_picked"].mean for r in column] for column in c.rows] == [[30, 31], [29, 32], [28, 33]]
    assert [r.sparsity for r in c.groups[1].rows] == [0, 0.493, 0.777]      # its own table tells its own


def labels(folder):
    groups, twins = stats.group(read.read_runs([folder]).finished)
    return [(g.label, len(g.runs)) for g in groups], twins


def test_tickets_of_other_seeds_are_members_of_one_group(tmp_path):
    for s in range(3):      # each its own ticket, found with another seed and in as many rounds as that run had
        replay(tmp_path / f"a/{s}", 0, [ticket(r, 0.1 * r, s) for r in range(2 + s)], path=f"runs/found/s{s}")
    found, twins = labels(tmp_path / "a")
    assert found == [("inpaint-astronaut-skip-ticket", 3)] and not twins


def test_the_same_ticket_and_seed_counts_once_wherever_it_lies(tmp_path):
    replay(tmp_path / "a/0", 0, [ticket(0)], path="runs/found/s0")
    replay(tmp_path / "a/1", 0, [ticket(0)], path="elsewhere")
    replay(tmp_path / "a/2", 0, [ticket(0, run="its task.seed differed")], path="runs/found/other")
    found, twins = labels(tmp_path / "a")
    assert found == [("inpaint-astronaut-skip-ticket", 2)] and len(twins) == 1
    replay(tmp_path / "a/3", 0, [ticket(0, seed=1, run=ticket(0)["found"]["run"])])
    assert labels(tmp_path / "a")[0] == [("inpaint-astronaut-skip-ticket", 3)]


def test_one_round_another_and_the_whole_run_are_told_apart(tmp_path):
    replay(tmp_path / "a/0", 0, [ticket(r) for r in range(9)])
    replay(tmp_path / "a/1", 0, [ticket(7)])
    replay(tmp_path / "a/2", 0, [ticket(8)])
    replay(tmp_path / "a/3", 0, [ticket(3), ticket(5)])
    replay(tmp_path / "a/4", 0, [ticket(0)])
    assert [g.removeprefix("inpaint-astronaut-skip-ticket pruner.path=") for g, _ in labels(tmp_path / "a")[0]] == [
        "denoise-baby-skip-imp", "denoise-baby-skip-imp round 0", "denoise-baby-skip-imp round 7",
        "denoise-baby-skip-imp round 8", "denoise-baby-skip-imp rounds 3,5"]


def test_tickets_of_other_options_are_told_apart_by_their_hash_where_the_label_does_not(narrow, capsys):
    replay(Path("a/0"), 0, [ticket(0), ticket(1)])
    replay(Path("a/1"), 0, [ticket(0), ticket(1)], init="fresh")
    replay(Path("a/2"), 0, [ticket(0, label="denoise-baby-skip-snip", options="cccccccc"), ticket(1)])
    assert not [g for g, _ in labels(Path("a"))[0] if "options" in g]
    replay(Path("a/3"), 0, [ticket(0, options="ffffffff"), ticket(1, options="ffffffff")])
    assert [g for g, _ in labels(Path("a"))[0] if "options" in g] == [
        "inpaint-astronaut-skip-ticket pruner.path=denoise-baby-skip-imp pruner.init=ticket "
        f"pruner.path.options={x}" for x in ("0a1b2c3d", "ffffffff")]
    assert main(["a"]) == 0
    assert "denoise-baby-skip-imp (ffffffff)" in (Path("a/report.md")).read_text()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("tickets", [None, [], [{"file": "x"}], [{"file": "x", "found": None}],
                                     [{"file": "x", "found": ticket(0)["found"] | {"label": None}}],
                                     [ticket(0), {"file": "x", "found": ticket(1)["found"] | {"seed": "unknown"}}]])
def test_where_the_origin_is_not_told_the_path_stands(tmp_path, tickets, capsys):
    for s in range(2):
        c = config(s, pruner="ticket", pruner__path=f"runs/x{s}")
        make(tmp_path / f"a/{s}", c, rounds((0.5, 30)), 0, tickets=tickets)
    assert labels(tmp_path / "a")[0] == [(f"denoise-astronaut-skip-ticket pruner.path=runs/x{s}", 1) for s in range(2)]
    assert main([str(tmp_path / "a")]) == 0 and "tickets used" not in capsys.readouterr().out


def test_a_table_tells_which_tickets_were_used(narrow, capsys):
    for s in range(3):
        replay(Path(f"a/{s}"), s, [ticket(r, x, s) for r, x in enumerate((0, 0.2, 0.36))])
        replay(Path(f"a/l{s}"), s, [ticket(2, 0.36, s + 1)], pruner="random_like", init="fresh")
    assert main(["a"]) == 0
    out = capsys.readouterr().out.splitlines()
    at = out.index("tickets used")
    assert max(map(len, out)) <= 80
    assert out[at + 1].split() == ["group", "tickets", "found", "by", "seeds", "rounds", "sparsity", "init"]
    assert out[at + 2].split()[-4:] == ["1..3", "2", "36.00%", "fresh"]
    text = (Path("a/report.md")).read_text().split("### tickets used\n\n")[1].splitlines()
    assert text[:5] == [
        "| group | tickets found by | seeds | rounds | sparsity | init |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
        "| `inpaint-astronaut-skip-random_like` | `denoise-baby-skip-imp` | 1..3 | 2 | 36.00% | fresh |",
        "| `inpaint-astronaut-skip-ticket` | `denoise-baby-skip-imp` | 0..2 | 0..2 | 0.00%..36.00% | ticket |", ""]


# --- generators

def generated(folder, seed, *rows, pruner="imp", images=None, task="cs", **more):
    """A run that seeks a generator's codes: rows of (sparsity, MSE picked); `images`: PSNR and MSE of each."""
    made = rounds(*((s, 20 + seed) for s, _ in rows))
    for i, (r, (_, mse)) in enumerate(zip(made, rows, strict=True)):
        r |= {"mse_peak": mse / 2, "mse_picked": mse, "mse_final": 2 * mse}
        if images is not None:
            r["images"] = {f"face {k}": {"psnr_picked": p, "mse_picked": m, "ssim_picked": None}
                           for k, (p, m) in enumerate(images[i])}
    c = config(seed, task=task, pruner=pruner, prior___target_="lipfw.prior.pggan.build")
    return make(folder, c, made, 0, **more)


def tuned(folder, seed, *pairs, pruner="imp"):
    """A fine-tuned generator: (sparsity, distance), and no score against a clean picture."""
    made = [{"round": i, "sparsity": s, "params_left": round(1000 * (1 - s)), "loss": d, "swd": d, "step_first": 1,
             "step_last": 9, "seconds": 1.0} for i, (s, d) in enumerate(pairs)]
    c = config(seed, task="finetune", image="lfw", pruner=pruner, prior___target_="lipfw.prior.pggan.build")
    return make(folder, c, made, 1, None, oracle_round=None)


def test_a_generators_mse_stands_beside_psnr(narrow, capsys):
    generated(Path("a/0"), 0, (0, 0.02), (0.2, 0.012))
    generated(Path("a/1"), 1, (0, 0.04), (0.2, 0.014))
    assert main(["a"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert max(map(len, out)) <= 80
    assert out[1].split() == ["round", "sparse", "params", "n", "peak", "picked", "MSE/1e-2", "SSIM", "loss/1e-2",
                              "time"]
    assert out[2].split() == ["degraded", "2", "20.50±.00", ".400±.000"]
    # means 0.03 and 0.013, deviations sqrt(2 * 0.01^2) and sqrt(2 * 0.001^2)
    assert [x.split()[5:7] for x in out[3:5]] == [["20.50±.71", "3.00±1.4"], ["20.50±.71", "1.30±.14"]]
    text = Path("a/report.md").read_text()
    assert "| PSNR final | MSE | SSIM picked |" in text and "| 0.0300 ± 0.0141 | 0.800 ± 0.000 |" in text
    assert "MSE of the picked: per value, in the range [-1, 1]" in text and "over the pictures" not in text
    row = lines("a/report.csv")[1]
    assert row["sd_over"] == "seeds" and row["swd_n"] == "0"
    for kind, mean in (("peak", 0.0065), ("picked", 0.013), ("final", 0.026)):
        assert float(row[f"mse_{kind}_mean"]) == pytest.approx(mean) and row[f"mse_{kind}_n"] == "2"
    assert float(row["mse_picked_sd"]) == pytest.approx(np.sqrt(2e-6))


def test_an_untrained_network_has_no_mse_column(narrow, capsys):
    make(Path("a/0"), config(0), rounds((0, 30), mse_picked=0.01), 0)
    assert main(["a"]) == 0
    assert "MSE" not in capsys.readouterr().out and "MSE" not in Path("a/report.md").read_text()
    assert float(lines("a/report.csv")[0]["mse_picked_mean"]) == 0.01


def test_older_runs_of_a_generator_have_no_mse(narrow, capsys):
    for s in range(2):
        old = config(s, prior___target_="lipfw.prior.pggan.build")
        make(Path(f"a/{s}"), old, rounds((0, 30), (0.2, 29)), 0)
    assert main(["a"]) == 0
    assert "final" in capsys.readouterr().out.splitlines()[1]
    assert lines("a/report.csv")[0]["mse_picked_mean"] == "" and lines("a/report.csv")[0]["mse_picked_n"] == "0"
    generated(Path("a/2"), 2, (0, 0.02), (0.2, 0.01), task="denoise")
    assert main(["a"]) == 0
    assert "2.00 (1)" in capsys.readouterr().out


def test_of_one_seed_and_several_pictures_the_deviation_is_over_the_pictures(narrow, capsys):
    each = [[(19, 0.01), (20, 0.02), (21, 0.06)], [(20, 0.02), (20, 0.02), (20, 0.05)]]
    generated(Path("a/0"), 0, (0, 0.03), (0.2, 0.03), images=each)
    generated(Path("a/1"), 0, (0, 0.05), (0.2, 0.02), images=each, pruner="random")
    generated(Path("a/2"), 1, (0, 0.06), (0.2, 0.01), images=each, pruner="random")
    assert main(["a"]) == 0
    out = capsys.readouterr().out
    # 0.01, 0.02, 0.06: deviation sqrt(0.0004 + 0.0001 + 0.0009) / sqrt(2) = 0.02646; 0.02, 0.02, 0.05: 0.01732
    imp, random = out.split("cs-astronaut-pggan-imp\n")[1].split("cs-astronaut-pggan-random\n")
    assert [x.split()[3:8] for x in imp.splitlines()[2:4]] == [["1", "21.00", "20.00±1.0", "3.00±2.6", ".800"],
                                                             ["1", "21.00", "20.00±.00", "3.00±1.7", ".800"]]
    assert random.splitlines()[2].split()[6] == "5.50±.71"       # two seeds: over these, and not over pictures
    assert "where a generator's n is 1: ± standard deviation over the pictures of that seed" in " ".join(out.split())
    imp0 = next(r for r in lines("a/report.csv") if r["group"].endswith("imp"))
    assert (imp0["sd_over"], imp0["mse_picked_n"], imp0["loss_sd"]) == ("pictures", "1", "")
    assert float(imp0["mse_picked_sd"]) == pytest.approx(np.sqrt(0.0014 / 2)) and float(imp0["psnr_picked_sd"]) == 1
    assert "| `imp` | 1 | **0.0300 ± 0.0265** | 0.0300 ± 0.0173 |" in Path("a/report.md").read_text()


def test_pictures_of_an_untrained_network_give_no_deviation(narrow):
    each = {f"p{i}": {"psnr_picked": float(i)} for i in range(3)}
    make(Path("a/0"), config(0), rounds((0, 30), images=each), 0)
    assert main(["a"]) == 0
    assert lines("a/report.csv")[0]["psnr_picked_sd"] == "" and lines("a/report.csv")[0]["sd_over"] == "seeds"


@pytest.mark.parametrize("images", [None, [1], {"a": None}, {"a": {"mse_picked": "low"}}])
def test_images_that_hold_no_scores(narrow, images, capsys):
    make(Path("a/0"), config(0), rounds((0, 30), images=images), 0)
    assert main(["a"]) == 1 and "images of round 0" in capsys.readouterr().err


def test_the_lowest_mse_is_the_best(narrow, capsys):
    for s, (imp, random) in enumerate(((0.01, 0.03), (0.02, 0.04))):
        generated(Path(f"a/imp{s}"), s, (0, 0.02), (0.2, imp))
        generated(Path(f"a/random{s}"), s, (0, 0.02), (0.2, random), pruner="random")
    assert main(["a"]) == 0
    out = [x.rstrip() for x in capsys.readouterr().out.splitlines()]
    at = out.index("cs-astronaut-pggan: MSE picked, lower is better (*: the best)")
    assert out[:at][0] == "cs-astronaut-pggan: PSNR picked, dB (*: the best)"
    assert out[at + 1:at + 4] == ["pruner n       0.00%       20.00%",
                                  "imp    2 .0200±.0000 *.0150±.0071",
                                  "random 2 .0200±.0000  .0350±.0071"]
    assert "| `imp` | 2 | 0.0200 ± 0.0000 | **0.0150 ± 0.0071** |" in Path("a/report.md").read_text()


def test_training_runs_show_their_distance(narrow, capsys):
    for s, (imp, random) in enumerate(((10, 40), (12, 42))):
        tuned(Path(f"a/imp{s}"), s, (0, 8 + s), (0.2, imp))
        tuned(Path(f"a/random{s}"), s, (0, 8 + s), (0.2, random), pruner="random")
    assert main(["a"]) == 0
    out = [x.rstrip() for x in capsys.readouterr().out.splitlines()]
    assert max(map(len, out)) <= 80
    assert out[:4] == ["finetune-lfw-pggan: distance, lower is better (*: the best)",
                       "pruner n    0.00%     20.00%",
                       "imp    2 8.50±.71 *11.00±1.4",
                       "random 2 8.50±.71  41.00±1.4"]
    assert out[6].split() == ["round", "sparse", "params", "n", "distance", "time"]
    assert out[8].split() == ["*1", "20.00%", "800", "2", "11.00±1.4", "1.0s"]
    assert out[9] == "* chosen by the distance: round 1 (2 of 2)"
    shown = "\n".join(out) + Path("a/report.md").read_text()
    assert "PSNR" not in shown and "sliced Wasserstein distance" in shown and "degraded" not in shown
    assert "| round | sparsity | params left | n | distance | seconds |" in shown
    row = lines("a/report.csv")[1]
    assert (row["swd_mean"], row["swd_n"], row["psnr_picked_n"]) == ("11", "2", "0")
    assert float(row["swd_sd"]) == pytest.approx(np.sqrt(2))


def test_tickets_of_two_pruners_of_a_generator_stand_side_by_side(narrow, capsys):
    ladder = (0, 0.2, 0.36, 0.488)
    for found, values in (("imp", (2, 2, 3, 4)), ("random", (2, 5, 7, 9))):
        used = [ticket(r, s, 0, f"finetune-lfw-pggan-{found}", f"{found:.>8}") for r, s in enumerate(ladder)]
        for s in range(2):
            c = config(s, task="cs", pruner="ticket", prior___target_="lipfw.prior.pggan.build",
                       pruner__path=f"runs/{found}", pruner__init="trained")
            made = [r | {"mse_picked": (v + s) / 100} for r, v in
                    zip(rounds(*((x, 30 - v) for x, v in zip(ladder, values, strict=True))), values, strict=True)]
            make(Path(f"a/{found}{s}"), c, made, 0, tickets=used)
    assert main(["a"]) == 0
    out = [x.rstrip() for x in capsys.readouterr().out.splitlines()]
    at = out.index("cs-astronaut-pggan: MSE picked, lower is better (*: the best)")
    assert out[at + 1:at + 4] == ["pruner           n       0.00%       20.00%       36.00%       48.80%",
                                  "ticket of imp    2 .0250±.0071 *.0250±.0071 *.0350±.0071 *.0450±.0071",
                                  "ticket of random 2 .0250±.0071  .0550±.0071  .0750±.0071  .0950±.0071"]
    assert max(map(len, out)) <= 80
    assert "| `ticket of imp` | 2 | 28.00 ± 0.00 |" in Path("a/report.md").read_text()
    assert "`finetune-lfw-pggan-random` | 0 | 0..3 | 0.00%..48.80% | trained |" in Path("a/report.md").read_text()


# --- what is shown

def test_the_terminal_table_fits_80_columns(study, capsys):
    make(study / "wide", config(0, prior__channels=128), [r | {"params_left": 2_217_831} for r in records(5)])
    make(study / "wide1", config(1, prior__channels=128), records(6, params_left=2_217_831))
    assert main([str(study)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 80
    values = [records(s)[1]["psnr_picked"] for s in range(3)]
    row = next(x for x in shown if x.lstrip().startswith("*1"))
    assert f"{np.mean(values):.2f}±{np.std(values, ddof=1):.2f}".replace("±0.", "±.") in row.split()
    assert "* chosen without the clean picture: round 1 (2 of 3), round 2 (1 of 3)" in shown
    assert any(x.split() == ["degraded", "3", "20.60±.10", ".400±.000"] for x in shown)
    assert "2.218M" in "\n".join(shown)


def test_a_tie_marks_all(tmp_path):
    for s in range(2):
        make(tmp_path / "a" / f"r{s}", config(s), records(s), best=s)
    g = stats.group(read.read_runs([tmp_path / "a"]).finished)[0][0]
    assert [(r.chosen, r.marked) for r in g.rows] == [(1, True), (1, True), (0, False)]


def test_markdown_is_a_table(study):
    main([str(study), "--out", "new/deep"])
    text = Path("new/deep/report.md").read_text()
    rows = [x for x in text.splitlines() if x.startswith("|")]
    assert len(rows) == 2 + 1 + 3 and len({r.count("|") for r in rows}) == 1
    assert rows[4].startswith(r"| \*1 | 20.00% | 7,583 | 3 | ")
    assert not (study / "report.md").exists() and Path("new/deep/report.csv").exists()


def test_ascii_output(study):
    run = subprocess.run([sys.executable, "-m", "lipfw.report", str(study), "--no-figures"],
                         capture_output=True, text=True,
                         env={"PYTHONPATH": ":".join(sys.path), "PYTHONIOENCODING": "ascii", "PATH": ""})
    assert run.returncode == 0 and "+-" in run.stdout, run.stderr


# --- runs that cannot be counted

def test_unfinished_runs_are_named_and_left_out(study, capsys):
    make(study / "half", config(7), records(7, 2), finished=False)
    make(study / "cut", config(8), records(8, 1), finished=False)
    with open(study / "cut/rounds.jsonl", "a") as f:
        f.write('{"round": 1, "spar')            # what a killed writer leaves
    make(study / "replay", config(8, pruner="ticket"), [], finished=False)
    (study / "replay/rounds.jsonl").unlink()
    assert main([str(study)]) == 0
    out = capsys.readouterr().out
    for told in ("half (2 of 3 rounds done)", "cut (1 of 3 rounds done)", "replay (0 rounds done)"):
        assert f"not finished, left out: runs/study/{told}" in out
        assert told in (study / "report.md").read_text()
    assert {r["n"] for r in lines(study / "report.csv")} == {"3"}


@pytest.mark.parametrize("pruner, options, total", [
    ("none", {}, 1), ("imp", {}, 3), ("imp", {"sparsities": None, "params": None, "rewind_step": "5%"}, 3),
    ("imp", {"sparsities": [0.5]}, 5), ("imp", {"sparsities": [0.36]}, None),       # there rounding decides
    ("imp", {"params": 4000}, None), ("snip", {"rounds": 9, "rate": 0.2, "params": 4000}, 2),
    ("snip", {"rounds": 9, "rate": 0.2, "sparsities": [0.2, 0.9]}, 3), ("imp", {"stop": "loss_rises"}, None),
    ("imp", {"rounds": "many"}, None), ("imp", {"rate": 20}, None), ("snip", {"rounds": 2}, None),
    ("ticket", {"path": "x"}, None), ("ticket", {"path": "found"}, 2), ("ticket", {"path": "zoo:multi-s89"}, 1)])
def test_a_total_is_told_only_where_the_config_tells_it(tmp_path, pruner, options, total):
    c = config(0, pruner=pruner)
    c["pruner"] |= options
    (tmp_path / "found/tickets").mkdir(parents=True)
    for r in range(2):
        (tmp_path / f"found/tickets/round_{r:02d}.safetensors").touch()
    run = read.read_run(make(tmp_path / "runs/study/a", c, records(0, 1), finished=False))
    assert (run.done, run.total) == (1, total)


def test_nothing_finished(study, tmp_path, capsys):
    make(tmp_path / "b/x", config(0), records(0, 1), finished=False)
    assert main([str(tmp_path / "b")]) == 1
    told = capsys.readouterr()
    assert "x (1 of 3 rounds done)" in told.out and "lipfw: no finished run to report in" in told.err
    assert not (tmp_path / "b/report.csv").exists()


def damage(folder, name, change):
    path = folder / name
    path.write_text(change(path.read_text()))


def result_with(**changes):
    return lambda text: json.dumps(json.loads(text) | changes)


@pytest.mark.parametrize("name, change, reason", [
    ("result.json", lambda t: t[:100], "result.json is broken"),
    ("result.json", lambda t: "", "result.json is broken"),
    ("result.json", lambda t: "[]", "holds no result"),
    ("result.json", result_with(rounds=None), "holds no rounds"),
    ("result.json", result_with(rounds=[]), "rounds.jsonl (3 rounds) and result.json (0) do not agree"),
    ("result.json", result_with(best_round=3), "best_round is 3"),
    ("result.json", result_with(degraded=None), "degraded"),
    ("result.json", result_with(config={}), "no config"),
    ("result.json", result_with(config={"seed": 0}), "no task"),
    ("result.json", result_with(rounds=[r | {"loss": "low"} for r in records(1)]), "loss of round 0 is 'low'"),
    ("result.json", result_with(rounds=[r | {"loss": float("nan")} for r in records(1)]), "loss of round 0 is nan"),
    ("result.json", result_with(rounds=records(1)[1:]), "round 0 is missing"),
    ("result.json", result_with(config=config(image="${oc.env:HOME}")), "the config has an interpolation"),
    ("result.json", lambda t: "[" * 100_000, "result.json is broken"),
    ("rounds.jsonl", lambda t: "[" * 100_000 + "\n", "rounds.jsonl is broken"),
    ("rounds.jsonl", lambda t: t[:-20], "do not agree"),
    ("rounds.jsonl", lambda t: "{\n" + t, "rounds.jsonl is broken"),
])
def test_a_broken_run_is_told_and_the_others_reported(study, capsys, name, change, reason):
    damage(study / "denoise-astronaut-skip-imp-s1-00000001", name, change)
    assert main([str(study)]) == 1
    told = capsys.readouterr()
    assert told.err.count("\n") == 1 and reason in told.err
    assert told.err.startswith("lipfw: cannot read runs/study/denoise-astronaut-skip-imp-s1-00000001: ")
    assert {r["n"] for r in lines(study / "report.csv")} == {"2"} and "chosen without" in told.out
    assert reason in (study / "report.md").read_text()


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(20))


@pytest.mark.parametrize("text", ["a: [", "\t", "", "- 1\n", LAUGHS, "!!python/object/apply:os.getcwd []", "[" * 999])
def test_a_broken_config_of_an_unfinished_run(study, capsys, text):
    make(study / "half", config(7), records(7, 2), finished=False)
    (study / "half/config.yaml").write_text(text)
    assert "cannot read runs/study/half: config.yaml" in fails(capsys, study)


def test_result_json_alone_is_enough(study):
    for run in study.iterdir():
        if run.is_dir():
            (run / "config.yaml").unlink(), (run / "rounds.jsonl").unlink()
    assert main([str(study)]) == 0 and lines(study / "report.csv")[0]["n"] == "3"


# --- mistakes

def test_no_such_folder(study, capsys):
    assert "no such folder: runs/studdy; did you mean runs/study?" in fails(capsys, "runs/studdy")
    assert "did you mean runs/study?" in fails(capsys, "study")
    assert "there are runs/study" in fails(capsys, "runs/zzz")
    assert "no such folder: far/away" in fails(capsys, study, "far/away")
    assert not (study / "report.csv").exists()


def test_a_file_is_no_folder(study, capsys):
    assert "no such folder" in fails(capsys, study / "multirun.yaml")


def test_folder_without_runs(study, capsys):
    Path("runs/empty").mkdir()
    assert "no runs in runs/empty" in fails(capsys, "runs/empty")
    assert "give one of runs/study" in fails(capsys, "runs")


def test_unwritable_output_still_prints(study, capsys):
    Path("file").write_text("mine")
    for out in ("file", "file/deeper"):
        assert main([str(study), "--out", out]) == 1
        told = capsys.readouterr()
        assert told.err.startswith(f"lipfw: cannot write to {out}: ") and "--out DIR" in told.err
        assert told.err.count("\n") == 1 and "chosen without" in told.out and "report.csv" not in told.out
    assert Path("file").read_text() == "mine"


def test_a_failed_write_keeps_the_old_report(study, monkeypatch, capsys):
    main([str(study)])
    before = (study / "report.csv").read_text()

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in fails(capsys, study)
    assert (study / "report.csv").read_text() == before and not list(study.glob(".*"))


def test_arguments(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "folder" in fails(capsys)
    assert "--nonsense" in fails(capsys, study, "--nonsense")
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    told = capsys.readouterr().out
    assert stop.value.code == 0 and "report.csv" in told and max(map(len, told.splitlines())) <= 80


def test_input_errors_are_raised_by_the_functions(tmp_path):
    with pytest.raises(InputError, match="no runs"):
        read.read_runs([tmp_path])


def test_no_torch(study):
    code = ("import sys; from lipfw.report.__main__ import main; assert main(sys.argv[1:]) == 0; "
            "assert not {'torch', 'hydra', 'pytorch_lightning'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code, str(study)], check=True, capture_output=True,
                   env={"PYTHONPATH": ":".join(sys.path), "PATH": ""})
