"""python -m lipfw.status: plans against real runs, a real grid in all five states, tables of 80 columns, a thousand."""
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from rich.console import Console

from lipfw import cli, failed, interrupt
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.files import write_json, write_jsonl
from lipfw.fit.restoration import Restoration
from lipfw.fit.stopping import last_before_rises
from lipfw.folder import run_folder
from lipfw.grid.state import State
from lipfw.mask import prunable
from lipfw.report.__main__ import main as report
from lipfw.run import _build, run
from lipfw.status.__main__ import main, show
from lipfw.status.forecast import forecast, over
from lipfw.status.listed import Listed, listed
from lipfw.status.plan import Plan, chosen, plan
from lipfw.status.read import Reader, Standing
from lipfw.status.table import FULL, cut, view
from lipfw.tickets.__main__ import main as tickets

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=8", "fit.log_every=2", "image.size=16",
        "prior.channels=4", "prior.depth=2"]
TRAIN = ["trainer=smoke", "trainer.progress=false", "logger=none", "image.size=8", "fit.batch=16"]


def config(*overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.create(OmegaConf.to_container(compose("config", list(overrides)), resolve=True))


def plain(cfg) -> dict:
    """What config.yaml holds."""
    return yaml.safe_load(OmegaConf.to_yaml(cfg, resolve=True))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder is empty, and the terminal has 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def shown(capsys, *argv) -> list[str]:
    """The lines that are printed, none longer than the terminal."""
    assert main([str(a) for a in argv]) == 0
    out, err = capsys.readouterr()
    assert err == "" and max(map(len, out.splitlines())) <= 80, out
    return [line.rstrip() for line in out.splitlines()]


def fails(capsys, *argv) -> str:
    """The one line of a mistake."""
    assert main([str(a) for a in argv]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lipfw: ") and err.count("\n") == 1, err
    return err


# ---- how many rounds and steps ----------------------------------------------------------------------------------

PRUNERS = ["none", *(f"{p} pruner.rounds=3" for p in ("imp", "magnitude", "random", "random_layerwise", "snip", "grasp",
                                                      "synflow"))]
TARGETS = ["imp pruner.sparsities=[0.2,0.5,0.8]", "imp pruner.sparsities=[0.36,0.488]", "imp pruner.params=1000",
           "magnitude pruner.sparsities=[0.2,0.5]", "random pruner.sparsities=[0.0,0.5]", "snip pruner.params=2000",
           "random pruner.doubled=true pruner.sparsities=[0.2,0.6]", "random pruner.params=1500",
           "imp pruner.rate=0.35 pruner.sparsities=[0.0001,0.3,0.9]"]
REWOUND = ["imp pruner.rewind_step=3 pruner.retrain=remaining", "imp pruner.rewind_step=3",
           "random pruner.rewind_step=30% pruner.retrain=remaining"]


@pytest.mark.parametrize("pruner", [*PRUNERS, *TARGETS, *REWOUND])
def test_a_plan_is_that_of_the_run(pruner):
    cfg = config(*TINY, *f"pruner={pruner}".split())
    job = _build(cfg, 1)
    network = job.pruning.network(job.module)
    total = sum(p.numel() for p in prunable(network).values())
    known = plan(plain(cfg), Path(), weights=(total, sum(p.numel() for p in network.parameters()) - total))
    steps = job.pruning.steps(job.module)
    assert known.rounds == job.pruning.rounds == len(steps) and known.steps == sum(steps)
    assert [known.before(r) for r in range(known.rounds + 1)] == [sum(steps[:r]) for r in range(known.rounds + 1)]
    foreseen = plan(plain(cfg), Path())
    assert foreseen.rounds in (known.rounds, None)
    if pruner in PRUNERS + REWOUND:     # no target: nothing depends on the network
        assert foreseen == known


def test_a_plan_with_targets_is_told_before_the_network_is_known_where_sizes_agree():
    def rounds(*overrides):
        return plan(plain(config(*TINY, *overrides)), Path()).rounds

    assert rounds("pruner=snip", "pruner.sparsities=[0.2,0.5,0.9]") == 4
    assert rounds("pruner=imp", "pruner.sparsities=[0.5,0.9]") is not None
    # on the ladder itself, rounding decides whether another pruning of a single weight is needed
    assert rounds("pruner=imp", "pruner.sparsities=[0.36]") is None
    assert rounds("pruner=imp", "pruner.params=1000") is None


@pytest.mark.parametrize("task", ["task=gan fit.fade=32 fit.stable=40 prior.channels=[8,4]",
                                  "task=gan fit.fade=[0,32] fit.stable=[16,50] prior.channels=[8,4]",
                                  "task=gan fit.fade=20 fit.stable=20 prior.channels=null prior.latent=4",
                                  "task=finetune fit.epochs=3 pruner=imp pruner.rounds=2 image.size=32",
                                  "task=classify fit.epochs=3 pruner=imp pruner.rounds=2 prior.depth=2"])
def test_a_training_s_plan(task):
    cfg = config(*TRAIN, *task.split())
    job = _build(cfg, 1)
    steps, found = job.pruning.steps(job.module), plan(plain(cfg), Path())
    assert found.rounds == len(steps)
    if "task=gan" not in task:      # until a round has been done
        assert found.steps is None
        found = plan(plain(cfg), Path(), [{"step_last": steps[0]}])
    assert found.steps == sum(steps)


def test_a_replay_has_a_round_for_each_ticket(here):
    run(config(*TINY, "fit.steps=2", "pruner=imp", "pruner.rounds=2", "name=found"))
    for pruner in ("ticket", "random_like"):
        cfg = config(*TINY, f"pruner={pruner}", "pruner.path=runs/found")
        assert plan(plain(cfg), here).rounds == _build(cfg, 1).pruning.rounds == 3
        assert plan(plain(cfg), here / "elsewhere").rounds is None


@pytest.mark.parametrize("nothing", [{}, {"pruner": 1, "fit": []}, {"pruner": {"_target_": "x"}, "fit": {}},
                                     {"pruner": {"_target_": "a.b.C"}, "fit": {"_target_": "a.B", "steps": "x"}}])
def test_what_is_no_config_of_a_run_has_no_plan(nothing):
    assert plan(nothing, Path()) == Plan()


def test_the_best_round_so_far_is_the_run_s():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 8, 20):
        for patience in (1, 2, 3):
            losses = list(rng.random(n))
            assert chosen(losses, patience) == last_before_rises(losses, patience)


# ---- a real grid ------------------------------------------------------------------------------------------------

def grid(monkeypatch, *overrides):
    """Run a grid in this process."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["lipfw", *TINY, *overrides])
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    try:
        cli.main()
    except SystemExit as e:
        return e.code


def test_a_grid_in_all_five_states_watched_to_its_end(here, monkeypatch, capsys):
    record, at_work, go_on = Restoration.record, threading.Event(), threading.Event()

    def recorded(self, outputs, loss):
        if (self.prior.seed, self.step) == (1, 6):
            raise InputError("no luck with a long reason " * 5)
        if (self.prior.seed, self.step) == (2, 6) and not go_on.is_set():
            interrupt.ask("SIGTERM")
        if (self.prior.seed, self.step) == (4, 6):
            at_work.set()
            go_on.wait(60)
        return record(self, outputs, loss)

    monkeypatch.setattr(Restoration, "record", recorded)
    options = ["pruner=imp", "pruner.rounds=1", "fit.steps_per_batch=2", "name=study"]
    assert grid(monkeypatch, *options, "-m", "seed=0..4") == 143
    capsys.readouterr()
    folders = {s: run_folder(config(*TINY, *options, f"seed={s}")) for s in range(5)}
    assert [f.exists() for f in folders.values()] == [True, True, True, False, False]

    def work():
        for s in (4, 2, 3):
            run(config(*TINY, *options, f"seed={s}"))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert at_work.wait(60)
        out = shown(capsys, "runs/study")
        rows = {line.split()[0]: line.split()[1:] for line in out[1:6]}
        assert out[0].split() == ["run", "state", "rounds", "done", "PSNR", "left"]
        assert rows["seed=0"][:3] == ["done", "2/2", "100%"] and 5 < float(rows["seed=0"][3]) < 20
        assert rows["seed=1"][:3] == ["failed", "0/2", "25%"] and rows["seed=2"][:3] == ["stopped", "0/2", "37%"]
        assert rows["seed=3"] == ["waiting"] and rows["seed=4"][:3] == ["running", "0/2", "25%"]
        assert out[6] == "5 runs: 1 done, 1 running, 1 failed, 1 stopped, 1 waiting"
        assert "% of all work done; " in out[7]
        below = " ".join(out[8:])
        assert "failed: seed=1" in below and "no luck with a long reason" in below and str(folders[1]) in "".join(out)
        go_on.set()
        start = time.monotonic()
        assert show([Path("runs/study")], every=0.5) == 0       # ends by itself
        assert time.monotonic() - start < 60
    finally:
        go_on.set()
        worker.join()
    last = capsys.readouterr().out.rsplit("run  ", 1)[1]
    assert "5 runs: 4 done, 1 failed" in last
    assert main(["runs/study", "--watch", "0.5"]) == 0 and "4 done, 1 failed" in capsys.readouterr().out

    # what else lies in a grid's folder is no run to the other tools
    assert {p.name for p in Path("runs/study").iterdir() if not p.name.startswith("denoise")} >= {"grid.jsonl",
                                                                                                  "multirun.yaml"}
    (here / "runs/study/logs").mkdir(exist_ok=True)
    (here / "runs/study/logs/x.log").write_text("output\n")
    assert report(["runs/study", "--no-figures"]) == 0
    told = capsys.readouterr().out
    assert "logs" not in told and f"left out: {folders[1]} (0 of 2 rounds done)" in told
    assert tickets([str(folders[0])]) == 0 and tickets(["runs/study"]) == 1
    assert "holds 4 runs with tickets" in capsys.readouterr().err


def test_ctrl_c_ends_a_watch_and_the_command_needs_no_torch(here):
    synthetic(here / "runs/x", 2, lambda i: State.STOPPED)
    code = ("import sys; from lipfw.status.__main__ import main; status = main(sys.argv[1:]);"
            "print(status, [m for m in ('torch', 'pytorch_lightning', 'matplotlib') if m in sys.modules])")
    process = subprocess.Popen([sys.executable, "-c", code, "--watch", "runs/x"], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout.readline().startswith("run ")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0].splitlines()[-1] == "0 []" and process.returncode == 0


# ---- folders written by hand ------------------------------------------------------------------------------------

def options(seed=0, rounds=3, **fit):
    return {"task": {"_target_": "lipfw.task.denoise.Denoise"}, "image": {"size": None},
            "pruner": {"_target_": "lipfw.pruner.imp.IMP", "rounds": rounds - 1, "rate": 0.2, "sparsities": None,
                       "params": None, "retrain": "all", "patience": 2, "rewind_step": 0},
            "fit": {"_target_": "lipfw.fit.restoration.Restoration", "steps": 100, **fit}, "seed": seed, "name": "x",
            "out": "runs"}


def round_record(r, seconds=10.0, psnr=25.0, steps=100):
    return {"round": r, "sparsity": 0.2 * r, "params_left": 1000, "loss": 0.1, "psnr_picked": psnr + r / 10,
            "step_first": 1, "step_last": steps, "seconds": seconds}


def write_run(folder, state, rounds=1, step=50, seed=0, **fit):
    """Write a run's folder: so many rounds, and so many steps of the next."""
    folder.mkdir(parents=True)
    done = state is State.DONE
    records = [round_record(r) for r in range(3 if done else rounds)]
    (folder / "config.yaml").write_text(yaml.safe_dump(options(seed, **fit)))
    write_jsonl(folder / "rounds.jsonl", records)
    write_jsonl(folder / "steps.jsonl", [{"round": rounds, "step": s, "loss": 1.0, "psnr": 20 + s / 100}
                                         for s in range(10, step + 1, 10)])
    if done:
        write_json(folder / "result.json", {"rounds": records, "best_round": 1, "seconds": 30.0, "ended": None,
                                            "config": options(seed)})
    if state is State.FAILED:
        failed.leave(folder, InputError("no luck"))
    if state is State.RUNNING:
        claim(folder)
    return folder


def claim(folder, host="elsewhere"):
    (folder / ".lock").write_text(f"host={host}\npid=1\n")


def entry(folder, *overrides, key=None):
    return {"key": key or " ".join(overrides), "overrides": list(overrides), "folders": [str(f) for f in
            (folder if isinstance(folder, list) else [folder])], "files": []}


def synthetic(folder, count, state_of, *swept):
    """Write a grid's folder, of seeds and what else is swept."""
    swept, cells = swept or ("pruner=imp",), []
    for i in range(count):
        of = swept[i % len(swept)]
        name = f"denoise-astronaut-skip-{of.split('=')[1]}-s{i}-{i:08x}"
        state = state_of(i)
        if state is not State.WAITING:
            write_run(folder / name, state, seed=i)
        cells.append(entry(f"runs/{folder.name}/{name}", "task=denoise", of, f"seed={i}"))
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "grid.jsonl", cells)


ORDER = [State.DONE, State.DONE, State.DONE, State.WAITING, State.STOPPED]


def test_a_thousand_runs(here, capsys):
    def state(i):
        return State.RUNNING if i in (500, 501) else State.FAILED if i % 100 == 99 else ORDER[i % 5]

    synthetic(here / "runs/x", 1000, state, "pruner=imp", "pruner=snip")
    started = time.perf_counter()
    out = shown(capsys, "runs/x")
    first = time.perf_counter() - started
    assert [line for line in out if " running " in line][0].startswith("pruner=imp seed=500")
    assert len([line for line in out if " failed " in line]) >= 10 and len(out) < 60
    (row,) = [line for line in out if line.startswith("299 x pruner=imp")]
    assert row.split()[-3:] == ["done", "100%", "25.10"]
    assert any(line == "1,000 runs: 598 done, 2 running, 10 failed, 190 stopped, 200 waiting" for line in out), out
    assert "... and 5 more have failed: --all names them" in out
    assert len(shown(capsys, "runs/x", "--all")) > 1000
    reader, times = Reader(), []
    for _ in range(3):
        started = time.perf_counter()
        rows = [(r, reader(r.folder)) for r in listed([Path("runs/x")])]
        times.append(time.perf_counter() - started)
    assert len(rows) == 1000
    print(f"1,000 runs: {first:.2f} s shown, {times[0]:.2f} s read, {times[-1]:.2f} s read again")


def test_many_groups_are_a_row_a_state(here, capsys):
    synthetic(here / "runs/x", 60, lambda i: State.DONE, *(f"task.sigma={i}" for i in range(30)))
    assert any(line.startswith("60 runs") and "done" in line for line in shown(capsys, "runs/x"))


def test_more_running_than_rows(here, capsys):
    synthetic(here / "runs/x", FULL + 10, lambda i: State.RUNNING)
    out = shown(capsys, "runs/x")
    assert sum(line.startswith("seed=") for line in out) == FULL and any("... and 10 more" in line for line in out)
    assert f"{FULL + 10} runs: {FULL + 10} running" in out


@pytest.mark.parametrize("height", [10, 24, 50])
@pytest.mark.parametrize("count", [3, 15, 30, 200])
def test_a_watched_table_fits_its_terminal(here, height, count):
    states = [State.FAILED, State.RUNNING, State.DONE, State.WAITING, State.STOPPED]
    synthetic(here / "runs/x", count, lambda i: states[i % 5], "pruner=imp", "pruner=snip", "pruner=random")
    reader, console = Reader(), Console(width=80, height=height, file=io.StringIO())
    console.print(view([(r, reader(r.folder)) for r in listed([Path("runs/x")])], 80, height=height))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= 80
    assert any(line.startswith(f"{count} runs: ") for line in lines)


def test_cells_of_earlier_configs_wait_for_nothing(here, capsys):
    folder = here / "runs/x"
    write_run(folder / "denoise-a-skip-imp-s0-00000000", State.STOPPED)
    write_jsonl(folder / "grid.jsonl", [
        entry("runs/x/denoise-a-skip-imp-s0-00000000", "pruner=imp", "seed=0", key="old 0"),
        entry("runs/x/denoise-a-skip-imp-s1-00000001", "pruner=imp", "seed=1", key="old 1"),
        entry("runs/x/denoise-a-skip-imp-s0-10000000", "pruner=imp", "seed=0", key="new 0"),
        entry("runs/x/denoise-a-skip-imp-s1-10000001", "pruner=imp", "seed=1", key="new 1")])
    out = shown(capsys, "runs/x")
    assert [line.split()[:3] for line in out[1:4]] == [["seed=0", "(earlier)", "stopped"],
                                                       ["seed=0", "waiting"], ["seed=1", "waiting"]]
    assert out[4] == "3 runs: 1 stopped, 2 waiting" and out[5].startswith("0% of all work")
    with open(folder / "grid.jsonl", "a") as f:     # the same folder under a newer key is the same run
        f.write(json.dumps(entry("runs/x/denoise-a-skip-imp-s0-10000000", "pruner=imp", "seed=0", key="3")) + "\n")
    assert shown(capsys, "runs/x")[4] == out[4]


def test_a_study_s_later_stages_wait_and_are_known(here, capsys):
    write_run(here / "runs/s" / "found-s0", State.DONE)
    cells = [{"stage": "found", "values": {"pruner": "imp"}, "folder": "found-s0"},
             *({"stage": "judged", "values": {"task": t, "of": "found"}, "folder": None} for t in ("clean", "inpaint"))]
    write_json(here / "runs/s/study.json", {"study": "s", "scale": "tiny", "given": [], "spec": {}, "cells": cells})
    write_run(here / "runs/s" / "denoise-x-skip-none-s7-12345678", State.DONE)      # of one's own, beside it
    lines = shown(capsys, "runs/s")
    assert "4 runs: 2 done, 2 waiting" in lines
    assert any(line.startswith("stage=judged task=clean") and "waiting" in line for line in lines)
    assert not over([(one, Reader()(one.folder)) for one in listed([Path("runs/s")])])      # a watch goes on


def test_several_seeds_in_a_process_single_runs_and_several_folders(here, capsys):
    folder = here / "runs/x"
    names = [f"denoise-a-skip-imp-s{i}-0000000{i}" for i in range(4)]
    write_run(folder / names[1], State.DONE, seed=1)
    write_run(folder / "superres-a-skip-imp-s7-00000007", State.STOPPED)
    write_jsonl(folder / "grid.jsonl", [entry([f"runs/x/{n}" for n in names[:2]], "seed=0", "fit.batch_seeds=2"),
                                        entry([f"runs/x/{n}" for n in names[2:]], "seed=2", "fit.batch_seeds=2")])
    out = shown(capsys, "runs/x")
    assert [line.split()[:2] for line in out[1:6]] == [
        ["seed=0", "waiting"], ["seed=1", "done"], ["seed=2", "waiting"], ["seed=3", "waiting"],
        ["superres-a-skip-imp-s7-00000007", "stopped"]]
    for seed in (3, 12):
        write_run(here / f"runs/y/denoise-a-skip-imp-s{seed}-00000000", State.DONE)
    assert [line.split()[:2] for line in shown(capsys, "runs/y")[1:3]] == [["seed=3", "done"], ["seed=12", "done"]]
    both = shown(capsys, "runs/x", "runs/y", "runs/x")
    assert both[-2].startswith("7 runs") and both[6].startswith("runs/y: ")
    one = shown(capsys, "runs/y/denoise-a-skip-imp-s3-00000000")
    assert one[1].split()[:2] == ["denoise-a-skip-imp-s3-00000000", "done"] and one[2] == "1 run: 1 done"


def test_folders_are_found_from_elsewhere_after_a_move_and_under_other_names(here, capsys, monkeypatch):
    synthetic(here / "project/runs/x", 2, lambda i: State.DONE)
    assert shown(capsys, "project/runs/x")[-1] == "2 runs: 2 done"
    (here / "project/runs/x").rename(here / "moved")
    assert shown(capsys, "moved")[-1] == "2 runs: 2 done"
    write_run(here / "project/runs/a/denoise-a-skip-imp-s0-00000000", State.DONE)       # name=a,b
    (here / "project/runs/default").mkdir()
    write_jsonl(here / "project/runs/default/grid.jsonl", [
        entry(f"runs/{n}/denoise-a-skip-imp-s0-00000000", f"name={n}") for n in "ab"])
    for cwd in (here, here / "project", here / "project/runs"):
        monkeypatch.chdir(cwd)
        out = shown(capsys, here / "project/runs/default")
        assert [line.split()[:2] for line in out[1:3]] == [["name=a", "done"], ["name=b", "waiting"]]


def test_hosts_stand_there_if_there_are_several(here, capsys):
    synthetic(here / "runs/x", 3, lambda i: State.RUNNING)
    assert "host" not in shown(capsys, "runs/x")[0]
    claim(here / "runs/x/denoise-astronaut-skip-imp-s1-00000001", "another")
    out = shown(capsys, "runs/x")
    assert out[0].endswith("host") and [line.split()[-1] for line in out[1:4]] == ["elsewhere", "another", "elsewhere"]


def test_long_labels_lose_their_middle(here, capsys):
    (here / "runs/x").mkdir(parents=True)
    write_jsonl(here / "runs/x/grid.jsonl", [
        entry(f"runs/x/denoise-a-skip-imp-s{i}-0000000{i}", f"image.path={'/long' * 30}/{i}.png", f"seed={i}")
        for i in range(2)])
    out = shown(capsys, "runs/x")
    assert out[1].startswith("path=/long/") and "1.png seed=1 waiting" in out[2] and "..." in out[2]
    assert cut("abcdefghij", 10) == "abcdefghij" and cut("abcdefghijk", 10) == "abcd...ijk"


def test_waiting_runs_that_left_only_output(here, capsys):
    synthetic(here / "runs/x", 2, lambda i: State.WAITING)
    (here / "runs/x/logs").mkdir()
    (here / "runs/x/logs/denoise-astronaut-skip-imp-s1-00000001.log").write_text("lipfw: no such picture\n")
    out = " ".join(shown(capsys, "runs/x"))
    assert "1 waiting now was started before and left nothing; see" in out and "s1-00000001.log" in out


# ---- pace and forecast ------------------------------------------------------------------------------------------

def at(folder, **seconds):
    """Set the times of a run's files, in seconds from a common start."""
    for name, when in seconds.items():
        path = folder / {"rounds": "rounds.jsonl", "steps": "steps.jsonl", "checkpoint": "checkpoint.ckpt"}[name]
        path.touch()
        os.utime(path, (1e9 + when, 1e9 + when))


def test_the_time_left_follows_the_slower_of_the_last_round_and_this_one(here):
    first = write_run(here / "a", State.RUNNING, rounds=0, step=50)
    at(first, rounds=0, steps=100)      # 2 s a step, of 300
    s = Reader()(first)
    assert (s.share, s.seconds, s.left) == (50 / 300, 100, 500) and s.quality == 20.5 and s.rounds == 0
    at(first, checkpoint=-1)            # taken up in the middle: who knows where
    assert Reader()(first).left is None
    later = write_run(here / "b", State.RUNNING, rounds=1, step=50)      # the round before: 0.1 s a step
    at(later, rounds=0, steps=100)
    assert Reader()(later).left == 300 and Reader()(later).seconds == 110
    at(later, rounds=0, steps=1)
    assert Reader()(later).left == pytest.approx(15) and Reader()(later).quality == 25
    reader = Reader()                   # what is seen of a round counts too
    reader(first)
    write_jsonl(first / "steps.jsonl", [{"round": 0, "step": 60, "loss": 1.0, "psnr": 21.0}])
    at(first, steps=130)
    assert reader(first).left == 3 * 240


def test_steps_that_begin_after_the_rewind(here):
    folder = write_run(here / "a", State.STOPPED, rounds=1, step=50)
    c = options()
    c["pruner"] |= {"retrain": "remaining", "rewind_step": 20}
    (folder / "config.yaml").write_text(yaml.safe_dump(c))
    assert Reader()(folder).share == (100 + 30) / (100 + 80 + 80)


def row(state, alike="a", kind="cell", **more):
    return Listed(Path("x"), "x", alike, kind, Path("x.log")), Standing(state, **more)


@pytest.mark.parametrize("kind, told", [("cell", True), ("single", False)])
def test_no_share_is_told_of_what_is_not_waited_for(kind, told):
    """A single run that has stopped is not counted: neither 0% nor, beside one that is done, 100% would be true."""
    out = Console(file=io.StringIO(), width=80)
    out.print(view([row(State.DONE, kind=kind, seconds=9.0, share=1.0), row(State.STOPPED, kind=kind, share=0.5)], 80))
    assert ("of all work done" in out.file.getvalue()) is told


def test_the_forecast():
    done = row(State.DONE, share=1.0, seconds=100.0)
    other = row(State.DONE, "b", share=1.0, seconds=10.0)
    running = [row(State.RUNNING, share=0.5, seconds=50.0, left=50.0), row(State.RUNNING, share=0.2, seconds=20.0,
                                                                           left=80.0)]
    waiting = [row(State.WAITING), row(State.WAITING, "b")]
    f = forecast([done, other, *running, *waiting])
    assert f.at_once == 2 and f.seconds == pytest.approx((50 + 80 + 100 + 10) / 2)
    assert f.share == pytest.approx((110 + 50 + 20) / 420)
    assert forecast([done, running[1]]).seconds == 80       # no shorter than its longest run
    alone = forecast([done, row(State.WAITING), row(State.STOPPED, share=0.5)])
    assert alone.at_once == 0 and alone.seconds == pytest.approx(150)
    assert forecast([row(State.WAITING)]).seconds is None
    skipped = forecast([done, row(State.FAILED, share=0.1), row(State.STOPPED, kind="earlier"),
                        row(State.STOPPED, kind="single")])
    assert skipped.seconds == 0 and skipped.share == pytest.approx((100 + 10) / 200)
    assert over([done, row(State.FAILED), row(State.STOPPED, kind="earlier")])
    assert not over([done, row(State.STOPPED, kind="single")]) and not over([running[0]]) and not over(waiting)


# ---- damage and mistakes ----------------------------------------------------------------------------------------

BROKEN = [b"", b"\x00\xff\xfe", b"{", b"[1, 2]\n", b'{"round": 0}\n', b"null\n", b'{"rounds": [], "best_round": 0}\n',
          b"a: [\n", b'{"round": "x", "step": []}\n{"round": 0, "step": 7', b"- 1\n- 2\n",
          b'{"key": 1, "overrides": 3, "folders": []}\n', b'{"round": 1, "step": 3, "psnr": "x"}\n']


@pytest.mark.parametrize("state", [State.DONE, State.RUNNING, State.FAILED, State.STOPPED])
def test_damaged_files_are_no_error(here, capsys, state):
    names = ["config.yaml", "rounds.jsonl", "steps.jsonl", "result.json", "failed.json", ".lock",
             "tickets/round_00.safetensors"]
    synthetic(here / "runs/x", 1, lambda i: state)
    (folder,) = (here / "runs/x").glob("denoise*")
    for path in [*(folder / n for n in names), here / "runs/x/grid.jsonl"]:
        whole = path.read_bytes() if path.exists() else None
        if whole is None and path.name == "result.json":
            continue        # it would be done
        path.parent.mkdir(exist_ok=True)
        for broken in [*BROKEN, *([whole[:len(whole) // 2], whole[:-1]] if whole else [])]:
            path.write_bytes(broken)
            assert any(line.startswith("1 run: 1 ") for line in shown(capsys, "runs/x")), (path, broken)
        path.unlink()
        if path.name != "config.yaml":
            shown(capsys, "runs/x")
        if whole is not None:
            path.write_bytes(whole)


def test_a_strange_entry_is_shown_as_it_is(here, capsys):
    synthetic(here / "runs/x", 1, lambda i: State.DONE)
    with open(here / "runs/x/grid.jsonl", "a") as f:
        f.write('{"key": 1, "overrides": [2, "~a"], "folders": ["b"], "files": []}\n')
    assert shown(capsys, "runs/x")[2].split() == ["2", "~a", "waiting"]


def test_a_folder_that_vanishes_while_it_is_watched(here, capsys, monkeypatch):
    synthetic(here / "runs/x", 2, lambda i: State.RUNNING)
    monkeypatch.setattr(time, "sleep", lambda _: shutil.rmtree(here / "runs/x") if (here / "runs/x").exists() else
                        write_run(here / "runs/x/denoise-a-skip-imp-s0-00000000", State.DONE))
    assert show([Path("runs/x")], every=1) == 0
    assert "2 runs: 2 waiting" in (out := capsys.readouterr().out) and out.rstrip().endswith("1 run: 1 done")


def test_mistakes_are_one_line(here, capsys):
    synthetic(here / "runs/study", 1, lambda i: State.DONE)
    (here / "empty").mkdir()
    assert "no such folder: stud; did you mean runs/study?" in fails(capsys, "stud")
    assert "no runs in empty" in fails(capsys, "empty") and "runs/study" in fails(capsys, "runs")
    assert "no such folder: none" in fails(capsys, "runs/study", "none")
    assert "--watch must be a number in [0.5" in fails(capsys, "runs/study", "--watch", "0.1")
    assert "--watch" in fails(capsys, "runs/study", "--watch", "nan")
    assert "no such folder: 0,5" in fails(capsys, "runs/study", "--watch", "0,5") and "--help" in fails(capsys)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize("name, text", [
    ("config.yaml", "[" * 100_000), ("config.yaml", "a: &a [1]\nb: [*a, *a]\n"), ("result.json", "[" * 100_000),
    ("rounds.jsonl", "[" * 100_000 + "\n"), ("steps.jsonl", "[" * 50_000 + "\n"),
    ("result.json", '{"rounds": [{"psnr_picked": {}}], "best_round": 0, "seconds": NaN}'),
    ("rounds.jsonl", '{"round": 0, "seconds": 1, "loss": 1, "step_first": 1, "step_last": 8, "params_left": 9, '
                     '"psnr_picked": {}}\n')])
def test_what_a_hostile_file_holds_is_not_shown(here, capsys, name, text):
    """Deep nesting ended the process, in C."""
    folder = Path("runs/a/x")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / name).write_text(text)
    assert main(["runs/a"]) == 0
    out = capsys.readouterr().out
    assert "1 run" in out and "nan" not in out and "{}" not in out
