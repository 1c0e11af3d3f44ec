"""Grids: what is started, left out, watched, counted and told, whoever the engine is."""
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobStatus
from hydra.types import HydraContext
from omegaconf import OmegaConf

from lipfw import failed, interrupt
from lipfw.cli import CONF, EXPERIMENTS
from lipfw.grid import journal
from lipfw.grid.basic import Basic
from lipfw.grid.cells import Composer, opened
from lipfw.grid.gpus import visible
from lipfw.grid.launcher import GridLauncher, Job, NotAllDone
from lipfw.grid.local import Local, died
from lipfw.grid.state import State, state
from lipfw.grid.work import Outcome
from lipfw.lock import LEASE, Claim, alone


class Instant(GridLauncher):
    """An engine that does a job, as the test's `does` says, one look after it was started."""

    signals = (signal.SIGTERM,)

    def __init__(self, does, slots=2):
        self.does, self.slots = does, slots
        self.at_work, self.started, self.stops = [], [], 0

    def room(self, at_work):
        return at_work < self.slots

    def start(self, job):
        self.started.append(job.number)
        self.at_work.append(job)

    def ended(self, seconds):
        out = [(job, self.does(job)) for job in self.at_work]
        self.at_work = []
        return out

    def stop(self):
        self.stops += 1
        return True


def done(job) -> Outcome:
    for folder in job.cell.folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(json.dumps({"best_round": 0, "rounds": [{"psnr_picked": 25.0}]}))
    return Outcome("done", seconds=1.0)


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Return a function that launches a grid on an engine; gives the JobReturns."""
    monkeypatch.chdir(tmp_path)

    def launch(engine, *arguments):
        with opened(arguments, CONF, EXPERIMENTS) as (cells, composer):
            context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(composer._master))
            engine.setup(hydra_context=context, task_function=print, config=composer._master)
            return engine.launch(cells, 0)
    return launch


def folders() -> list[str]:
    return sorted(p.name for p in Path("runs/default").glob("*-*"))


def test_all_runs_are_done_once_and_a_second_start_does_none(launch, capsys, monkeypatch):
    engine = Instant(done)
    returns = launch(engine, "seed=0..3", "task=denoise,clean")
    assert engine.started == list(range(8)) and [r.status for r in returns] == [JobStatus.COMPLETED] * 8
    out = capsys.readouterr().out
    assert "grid of 8 runs: 8 to do" in out and "[8/8] done clean-astronaut-skip-none-s3" in out
    assert "25.00 dB, 1 s" in out and out.endswith("grid: 8 done\n") and len(folders()) == 8

    monkeypatch.setattr(Composer, "__call__", lambda *a: pytest.fail("composed again"))
    again = Instant(done)
    assert [r.status for r in launch(again, "seed=0..3", "task=denoise,clean")] == [JobStatus.COMPLETED] * 8
    assert again.started == [] and capsys.readouterr().out == "grid: 8 skipped, finished before\n"
    assert len(journal.read(Path("runs/default"))) == 8


def test_the_same_run_asked_for_twice_is_done_once(launch, capsys):
    engine = Instant(done)
    returns = launch(engine, "seed=0,1", "fit.kernel=dense,sparse")     # which changes no result
    assert len(engine.started) == 2 == len(folders()) and len(returns) == 4
    assert "grid of 4 runs, 2 asked for twice: 2 to do" in capsys.readouterr().out
    again = Instant(done)
    launch(again, "seed=0,1", "fit.kernel=dense,sparse")
    assert not again.started and "2 skipped" in capsys.readouterr().out


def test_a_failed_run_stops_no_other_and_is_tried_again(launch, capsys):
    def does(job):
        if job.number in (1, 2):
            job.cell.folders[0].mkdir(parents=True)
            if job.number == 1:
                failed.leave(job.cell.folders[0], KeyError("weight"))
            return Outcome("failed", f"no luck with {job.number}")
        return done(job)

    engine = Instant(does)
    returns = launch(engine, "seed=0..4")
    assert engine.started == [0, 1, 2, 3, 4] and engine.stops == 0
    assert [r.status == JobStatus.FAILED for r in returns] == [False, True, True, False, False]
    with pytest.raises(NotAllDone, match="no luck with 1"):
        _ = returns[1].return_value
    out = capsys.readouterr().out
    assert "grid: 3 done, 2 failed" in out
    for number in (1, 2):
        (folder,) = Path("runs/default").glob(f"*-s{number}-*")
        assert f"failed: seed={number}\n    no luck with {number}\n    {folder}\n" in out
        assert state(folder) == State.FAILED
    assert failed.read(next(Path("runs/default").glob("*-s1-*"))) == "KeyError: 'weight'"       # its own word stays
    engine = Instant(done)
    launch(engine, "seed=0..4")
    assert engine.started == [1, 2] and "grid: 2 done, 3 skipped, finished before\n" in capsys.readouterr().out


def test_max_failures_ends_early_and_asks_the_others_to_stop(launch, capsys):
    engine = Instant(lambda job: Outcome("failed", "no luck") if job.number in (1, 2) else done(job), slots=1)
    returns = launch(engine, "seed=0..9", "max_failures=2")
    assert engine.started == [0, 1, 2] and engine.stops == 1
    assert sum(r.status == JobStatus.FAILED for r in returns) == 9
    assert "grid: 1 done, 2 failed, 7 not run" in capsys.readouterr().out
    for bad in ("0", "-1", "1.5", "some"):
        with pytest.raises(ValueError, match="max_failures must be a whole number of at least 1"):
            launch(Instant(done), "seed=0..1", f"max_failures={bad}")


def test_a_run_without_a_result_has_not_been_done(launch, capsys):
    returns = launch(Instant(lambda job: Outcome("done")), "seed=0..1")
    assert all(r.status == JobStatus.FAILED for r in returns)
    assert "it ended without a result" in capsys.readouterr().out


def test_asked_to_stop_it_passes_that_on_and_says_what_is_left(launch, capsys):
    def does(job):
        if job.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return Outcome("stopped", "stopped by SIGTERM", "SIGTERM")
        return done(job)

    engine = Instant(does, slots=1)
    with pytest.raises(SystemExit) as e:
        launch(engine, "seed=0..4")
    assert e.value.code == 143 and engine.started == [0, 1] and engine.stops == 1
    out = capsys.readouterr().out
    assert "grid: 1 done, 1 stopped, 3 not run (SIGTERM)" in out and "same command goes on" in out
    assert interrupt.asked() is None


def test_a_run_that_another_process_is_at_is_waited_for_and_not_done_twice(launch, capsys):
    with opened(["seed=0..2"], CONF, EXPERIMENTS) as (cells, compose):
        busy = compose(cells[0]).folders[0]
    busy.mkdir(parents=True)

    def other():
        with alone(busy):
            held.set()
            over.wait()
            (busy / "result.json").write_text("{}")

    held, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    assert state(busy) == State.RUNNING

    def does(job):
        if job.number == 2:
            threading.Timer(1.0, over.set).start()
        return done(job)

    engine = Instant(does)
    returns = launch(engine, "seed=0..2")
    thread.join()
    assert sorted(engine.started) == [1, 2] and all(r.status == JobStatus.COMPLETED for r in returns)
    out = capsys.readouterr().out
    assert "waiting for 1 run that another process is at" in out and "2 done, 1 skipped" in out


def test_a_run_whose_other_process_dies_is_taken_over(launch):
    """The other holds no result when it lets go."""
    with opened(["seed=0..1"], CONF, EXPERIMENTS) as (cells, compose):
        busy = compose(cells[0]).folders[0]
    busy.mkdir(parents=True)
    claim = Claim(busy)
    assert claim.take()
    threading.Timer(1.0, claim.release).start()
    engine = Instant(done)
    launch(engine, "seed=0..1")
    assert engine.started == [1, 0] and len(list(Path("runs/default").glob("*/result.json"))) == 2


def test_a_worker_that_comes_too_late_is_busy_and_its_run_is_watched(launch):
    """Between the grid's look and the worker's, another process has begun."""
    tries = []

    def does(job):
        tries.append(job.number)
        if job.number == 0 and tries.count(0) == 1:
            return Outcome("busy", "another process is at work")
        return done(job)

    launch(Instant(does), "seed=0..1")
    assert tries.count(0) == 2


def test_a_run_that_another_start_has_finished_in_between_is_not_counted_as_done(launch, capsys):
    launch(Instant(lambda job: Outcome("already" if done(job) and job.number == 1 else "done")), "seed=0..2")
    assert "grid: 2 done, 1 skipped, finished before" in capsys.readouterr().out


def test_a_grid_without_a_run_is_a_mistake(launch):
    with pytest.raises(ValueError, match="this grid has no run"):
        launch(Instant(done), "image.name=glob(nothing*)", "task=clean")


def test_options_that_look_like_secrets_make_other_runs():
    """They are hidden where they are told, and still are what a run is."""
    with opened(["+prior.mix_token=mean,cls"], CONF, EXPERIMENTS) as (cells, compose):
        assert len({compose(c).folders for c in cells}) == 2


def test_a_mistake_in_one_cell_is_told_before_any_run_starts(launch):
    engine = Instant(done)
    with pytest.raises(Exception) as e:
        launch(engine, "task=denoise,clean", "task.sigma=25")
    assert engine.started == [] and e.value.__notes__ == ["task=clean task.sigma=25"]


def test_the_journal_knows_when_a_config_or_a_file_has_changed(launch, tmp_path, monkeypatch):
    from PIL import Image

    own = tmp_path / "own/logger"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: null\nmode: ${oc.env:LIPFW_TEST_MODE,x}\n")
    Image.new("RGB", (64, 64), (10, 20, 30)).save("a.png")
    grid = ["--config-dir", "own", "logger=mine", "image=file", "image.path=a.png", "seed=0..2"]

    def composed():
        calls = []
        original = Composer.__call__
        monkeypatch.setattr(Composer, "__call__", lambda self, o: calls.append(o) or original(self, o))
        engine = Instant(done)
        launch(engine, *grid)
        monkeypatch.setattr(Composer, "__call__", original)
        return len(calls), len(engine.started)

    assert composed() == (3, 3) and composed() == (0, 0)
    Image.new("RGB", (64, 64), (11, 20, 30)).save("a.png")
    assert composed() == (3, 3) and composed() == (0, 0)            # another picture, other runs
    (own / "mine.yaml").write_text("_target_: null\nmode: ${oc.env:LIPFW_TEST_MODE,y}\n")
    assert composed() == (3, 0) and composed() == (0, 0)            # another config, the same runs
    monkeypatch.setenv("LIPFW_TEST_MODE", "z")
    assert composed() == (3, 0) and composed() == (0, 0)
    for folder in Path("runs/default").glob("*-s1-*"):
        (folder / "result.json").unlink()
    assert composed() == (1, 1)                                     # the run is gone, not its name
    note = Path("runs/default") / journal.NAME
    note.write_text('{"key": 1}\n[]\nnull\n{"key"' + "\n\x00\n")
    assert composed() == (3, 0)                                     # damage costs time alone


def test_basic_does_each_in_this_process_and_goes_on_after_a_fault(launch, capsys):
    def function(cfg):
        if cfg.seed == 1:
            raise KeyError("a fault of the program")
        (folder,) = (f for f in seen if f.name.split("-")[-2] == f"s{cfg.seed}")
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
        return {}

    with opened(["seed=0..2"], CONF, EXPERIMENTS) as (cells, compose):
        seen = [compose(c).folders[0] for c in cells]
        engine = Basic()
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(compose._master))
        engine.setup(hydra_context=context, task_function=function, config=compose._master)
        returns = engine.launch(cells, 0)
    assert [r.status == JobStatus.FAILED for r in returns] == [False, True, False]
    told = capsys.readouterr()
    assert "KeyError: 'a fault of the program'" in told.out and "Traceback" in told.err
    assert "2 done, 1 failed" in told.out


@pytest.mark.parametrize("environment, listed, expected", [
    ({"CUDA_VISIBLE_DEVICES": "2,3"}, None, ["2", "3"]), ({"CUDA_VISIBLE_DEVICES": ""}, "0\n1\n", []),
    ({"CUDA_VISIBLE_DEVICES": "GPU-8a,-1,3"}, None, ["GPU-8a"]), ({}, "0\n1\n", ["0", "1"]), ({}, None, [])])
def test_the_gpus_that_may_be_used(monkeypatch, tmp_path, environment, listed, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    if listed is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listed}'\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert visible() == expected


class _Job:
    def __init__(self, accelerator):
        self.cell = type("Cell", (), {"config": OmegaConf.create({"trainer": {"accelerator": accelerator}})})


@pytest.mark.parametrize("options, accelerator, slots", [
    ({"gpus": [0, 2], "jobs_per_gpu": 2}, "auto", ["0", "2", "0", "2"]), ({"gpus": None}, "gpu", ["5"]),
    ({"gpus": [0]}, "cpu", ["", "", ""])])
def test_the_slots_of_a_machine(monkeypatch, options, accelerator, slots):
    monkeypatch.setattr("lipfw.grid.local.visible", lambda: ["5"])
    monkeypatch.setattr("lipfw.grid.local.usable_cores", lambda: list(range(7)))
    engine = Local(**{"jobs": None, "threads": 2, "gpus": None, "jobs_per_gpu": 1, **options})
    engine.begin([_Job(accelerator)] * 20)
    assert [s["CUDA_VISIBLE_DEVICES"] for s in engine._slots] == slots
    assert all(("OMP_NUM_THREADS" in s) == (s["CUDA_VISIBLE_DEVICES"] == "") for s in engine._slots)


@pytest.mark.parametrize("bad, told", [({"jobs": 0}, "hydra.launcher.jobs must be a whole number of at least 1, got 0"),
                                       ({"threads": "x"}, "hydra.launcher.threads"),
                                       ({"gpus": "0,1"}, r"hydra.launcher.gpus must be a list such as \[0,1\]"),
                                       ({"gpus": []}, "hydra.launcher.gpus"),
                                       ({"jobs_per_gpu": 0.5}, "hydra.launcher.jobs_per_gpu")])
def test_slots_that_can_not_be(bad, told):
    with pytest.raises(ValueError, match=told):
        Local(**{"jobs": None, "threads": 1, "gpus": None, "jobs_per_gpu": 1, **bad})


def test_how_a_process_died():
    assert "SIGKILL" in died(-9) and "memory" in died(-9) and "SIGSEGV" in died(-11) and "exit code 3" in died(3)


def test_states(tmp_path):
    folder = tmp_path / "run"
    assert state(folder) == State.WAITING
    folder.mkdir()
    (folder / "config.yaml").write_text("")
    assert state(folder) == State.STOPPED
    with alone(folder):
        assert state(folder) == State.RUNNING
        old = time.time() - 10 * LEASE
        os.utime(folder / ".lock", (old, old))      # this machine's clock tells nothing of a process that lives here
        assert state(folder) == State.RUNNING
    failed.leave(folder, KeyError("x"))
    assert state(folder) == State.FAILED
    (folder / "result.json").write_text("{}")
    assert state(folder) == State.DONE


def test_the_journal_knows_all_that_a_config_follows_from(launch, tmp_path, monkeypatch):
    """Configs behind links, in packages and of hydra.searchpath; variables that only the command line reads."""
    shipped = (CONF / "pruner/imp.yaml").read_text()
    for folder in ("own", "real", "path/pruner", "pack/conf/pruner", "own/a_folder.yaml"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "own/pruner").symlink_to(tmp_path / "real")
    (tmp_path / "own/nowhere.yaml").symlink_to("nowhere")
    for package in ("pack", "pack/conf"):
        (tmp_path / package / "__init__.py").write_text("")
    files = [tmp_path / p for p in ("real/linked.yaml", "path/pruner/searched.yaml", "pack/conf/pruner/packed.yaml")]
    monkeypatch.syspath_prepend(str(tmp_path))

    def scores(value):
        monkeypatch.setenv("LIPFW_TEST_SCORES", value)
        for file in files:
            file.write_text(shipped.replace("scores: raw", f"scores: {value}"))

    grids = [["--config-dir", "own", "pruner=linked"], ["hydra.searchpath=[file://path]", "pruner=searched"],
             ["hydra.searchpath=[pkg://pack.conf]", "pruner=packed"],
             ["--config-dir", "path", "pruner=searched", "out=path"],
             ["pruner=imp", "pruner.scores=${oc.env:LIPFW_TEST_SCORES}"]]
    for i, grid in enumerate(grids):
        for value, begun in (("raw", 2), ("effective", 2), ("raw", 0)):
            scores(value)
            engine = Instant(done)
            launch(engine, *grid, "seed=0..1", f"name=grid{i}")
            assert len(engine.started) == begun, (grid, value)
    with monkeypatch.context() as m:
        m.setattr(Composer, "__call__", lambda *a: pytest.fail("composed again"))
        for i, grid in enumerate(grids):
            launch(Instant(done), *grid, "seed=0..1", f"name=grid{i}")


def test_the_results_in_a_folder_of_configs_are_none(launch, monkeypatch):
    """With --config-dir . the runs' own configs lie below it."""
    Path("runs/default/x").mkdir(parents=True)
    grid = ["--config-dir", ".", "seed=0..1"]
    launch(Instant(done), *grid)
    Path("runs/default/x/config.yaml").write_text("a: 1\n")
    monkeypatch.setattr(Composer, "__call__", lambda *a: pytest.fail("composed again"))
    launch(Instant(done), *grid)


def test_weights_that_were_a_name_and_are_a_file_now(launch):
    grid = ["prior=pggan", "image=face", "prior.weights=faces32", "seed=0"]
    engine = Instant(done)
    launch(engine, *grid)
    Path("faces32").write_bytes(b"a generator of the user's")
    launch(engine, *grid)
    assert len(engine.started) == len(folders()) == 2


def test_a_line_of_the_journal_without_a_folder_is_no_finished_run(launch):
    launch(Instant(lambda job: Outcome("stopped")), "seed=0")
    note = Path("runs/default") / journal.NAME
    entry = json.loads(note.read_text())
    note.write_text(json.dumps(entry | {"folders": []}) + "\n")
    engine = Instant(done)
    launch(engine, "seed=0")
    assert engine.started == [0]


def test_two_grids_never_wait_for_each_other(launch):
    """Each has taken one of two seeds' folders, which both want to do in one process."""
    with opened(["fit.batch_seeds=2"], CONF, EXPERIMENTS) as (cells, compose):
        cell = compose(cells[0])
    for folder in cell.folders:
        folder.mkdir(parents=True)
    busy = Claim(cell.folders[1])
    assert busy.take()
    engine, job = Instant(done), Job(0, cell)
    assert not engine._free(job)
    other = Claim(cell.folders[0])
    assert other.take()     # it is not kept
    other.release()
    busy.release()
    assert engine._free(job)


def test_a_folder_that_can_not_be_claimed_fails_alone(launch):
    with opened(["seed=0..2"], CONF, EXPERIMENTS) as (cells, compose):
        bad = compose(cells[1]).folders[0]
    (bad / ".lock").mkdir(parents=True)
    engine = Instant(lambda job: Outcome("failed", "no luck") if job.number == 1 else done(job))
    launch(engine, "seed=0..2")
    assert engine.started == [0, 1, 2]


def test_max_failures_counts_runs_that_can_not_be_started(launch):
    class Full(Instant):
        def start(self, job):
            self.started.append(job.number)
            raise BlockingIOError(11, "Resource temporarily unavailable")

    engine = Full(done)
    launch(engine, "seed=0..9", "max_failures=3")
    assert engine.started == [0, 1, 2]


def test_a_fault_inside_what_is_made_is_told_by_its_own_error():
    from hydra.utils import instantiate

    with pytest.raises(Exception) as e:
        instantiate({"_target_": "math.sqrt", "_args_": ["x"]})
    assert failed.reason(e.value) == "TypeError: must be real number, not str"
