"""A request to stop: who hears it, and a run that is stopped by it again and again is the run that never was."""
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from forked import Forked
from hydra import compose, initialize_config_dir

from lipfw.api import restore
from lipfw.cli import CONF
from lipfw.files import read_jsonl
from lipfw.fit.adversarial import Adversarial
from lipfw.fit.restoration import Restoration
from lipfw.folder import run_folder
from lipfw.interrupt import Interrupted, ask, asked, heed, listening
from lipfw.run import run

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.log_every=2", "image.size=16",
        "trainer.checkpoint_seconds=1000"]
SKIP = [*TINY, "prior.channels=4", "prior.depth=2", "pruner=imp", "fit.steps=6"]


# --- who hears it

def test_a_signal_is_a_request_and_is_forgotten_at_the_end():
    before = signal.getsignal(signal.SIGUSR2)
    with listening((signal.SIGTERM, signal.SIGUSR2)):
        heed("nowhere")
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked() == "SIGUSR2"
        with pytest.raises(Interrupted, match="^stopped by SIGUSR2 after step 3$") as e:
            heed("after step 3")
        assert (e.value.reason, e.value.where) == ("SIGUSR2", "after step 3")
    assert asked() is None and signal.getsignal(signal.SIGUSR2) is before


def test_an_inner_block_leaves_the_request_to_the_outer_one():
    with listening((signal.SIGUSR2,)):
        outer = signal.getsignal(signal.SIGUSR2)
        with listening((signal.SIGUSR2,)):
            ask("a test")
        assert asked() == "a test" and signal.getsignal(signal.SIGUSR2) is outer
    assert asked() is None


def test_another_thread_sees_the_request_and_takes_no_signals():
    def work():
        before = signal.getsignal(signal.SIGTERM)
        with listening():
            seen.append((asked(), signal.getsignal(signal.SIGTERM) is before))

    seen = []
    with listening():
        ask("a test")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [("a test", True)] and asked() == "a test"


def test_the_same_signal_again_kills_but_not_at_once():
    """timeout(1) sends it twice in one go."""
    code = ("import os, signal, sys, time\nfrom lipfw import interrupt\n"
            "with interrupt.listening():\n"
            "    for _ in range(2): os.kill(os.getpid(), signal.SIGTERM)\n"
            "    print(interrupt.asked(), 'torch' in sys.modules, flush=True)\n"
            "    interrupt.ONE_REQUEST = 0\n"
            "    os.kill(os.getpid(), signal.SIGTERM)\n"
            "    print('alive')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "SIGTERM False\n")


def test_restoring_from_python_is_nobody_elses_to_stop(tmp_path, monkeypatch, picture):
    """It keeps no checkpoint, so that a batch cut short would be a worse picture; and takes no signals."""
    step, before = Restoration.fit_step, signal.getsignal(signal.SIGTERM)

    def watched(self):
        handlers.add(signal.getsignal(signal.SIGTERM))
        return step(self)

    monkeypatch.setattr(Restoration, "fit_step", watched)
    array, handlers = picture.pixels[0].permute(1, 2, 0).clamp(0, 1).numpy(), set()
    whole = restore(array, steps=4, channels=4, depth=2)
    assert handlers == {before}
    with listening():
        ask("a test")
        assert (restore(array, steps=4, channels=4, depth=2).array == whole.array).all()


# --- runs

def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def outcome(folder: Path) -> tuple:
    """Return what must not depend on interruptions: the rounds without seconds, and all other files."""
    rounds = [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(folder / "rounds.jsonl")]
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and "wandb" not in p.parts]
    timed = ("rounds.jsonl", "result.json", "config.yaml")
    return rounds, {str(p.relative_to(folder)): p.name in timed or hashlib.sha256(p.read_bytes()).hexdigest()
                    for p in files}


@pytest.fixture
def steps(monkeypatch):
    """Steps (round, step), by those done so far, after which a request to stop comes; gives all that were done."""
    done = []

    def watch(fit):
        step = fit.fit_step

        def watched(self):
            result = step(self)
            done.append((self.trainer.current_epoch, self.step))
            if done[-1] in watch.stops:
                ask("SIGTERM")
            return result
        monkeypatch.setattr(fit, "fit_step", watched)

    watch.stops, watch.done = (), done
    watch(Restoration)
    watch(Adversarial)
    return watch


def until_done(cfg) -> list[Interrupted]:
    """Start a run until it is finished; returns the interruptions."""
    stopped = []
    while True:
        try:
            with listening():
                run(cfg)
            return stopped
        except Interrupted as e:
            stopped.append(e)
            assert not (run_folder(cfg) / "failed.json").exists() and len(stopped) < 30


class Everywhere:
    def __contains__(self, step) -> bool:
        return True


@pytest.mark.parametrize("options, stops", [
    ([*SKIP, "fit.steps_per_batch=50", "pruner.rounds=1"], Everywhere()),
    ([*SKIP, "fit.steps_per_batch=2", "pruner.rounds=2"], [(0, 3), (0, 4), (0, 5), (1, 1), (1, 6), (2, 6)]),
    ([*SKIP, "fit.steps_per_batch=4", "pruner.rounds=2", "pruner.rewind_step=4", "pruner.retrain=remaining"],
     [(0, 3), (1, 5), (2, 5), (2, 6)]),
    ([*SKIP, "fit.steps=24", "fit.stop=wmv", "fit.patience=1", "fit.window=3", "pruner.rounds=1"], [(0, 3), (1, 4)]),
    ([*TINY, "task=cs", "prior=pggan", "prior.weights=WEIGHTS", "task.measurements=100", "task.corrupted=5",
      "fit.bucket=5", "fit.objective=mom", "fit.restarts=2", "pruner=random", "pruner.rounds=1", "fit.steps=6",
      "fit.steps_per_batch=4"], [(0, 3), (0, 5), (1, 3), (1, 6)]),
    ([*TINY, "task=finetune", "prior.weights=WEIGHTS", "fit.batch=16", "fit.epochs=2", "fit.judge_every=4",
      "task.prune_critic=true", "task.save_trained=true", "pruner=imp", "pruner.rounds=1", "fit.steps_per_batch=4"],
     [(0, 3), (0, 4), (0, 6), (1, 5)]),
    ([*TINY, "image.size=8", "task=gan", "prior.channels=[8,4]", "prior.latent=6", "fit.batch=16", "fit.fade=32",
      "fit.stable=32", "fit.steps_per_batch=4"], [(0, 3), (0, 5)]),
], ids=["each step", "batches", "remaining", "early", "codes", "finetune", "growing"])
def test_stopped_at_any_step_it_ends_as_if_it_never_was(tmp_path, monkeypatch, generator_file, steps, options, stops):
    """All within the step; none is done twice, and after the last step of the last round the run just ends."""
    monkeypatch.chdir(tmp_path)
    options = [o.replace("WEIGHTS", str(generator_file)) for o in options]
    cfg, whole = config(*options), config(*options, "out=whole")
    run(whole)
    once, steps.done[:], steps.stops = list(steps.done), [], stops
    stopped = until_done(cfg)
    assert steps.done == once
    assert [e.where for e in stopped] == [f"after step {s} of round {r}" for r, s in once if (r, s) in stops
                                          and (r, s) != once[-1]]
    assert outcome(run_folder(cfg)) == outcome(run_folder(whole))


def test_asked_before_the_first_step_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with listening(), pytest.raises(Interrupted, match="stopped by SIGTERM before the first step"):
        os.kill(os.getpid(), signal.SIGTERM)
        run(config(*SKIP))
    assert not list(tmp_path.iterdir())


def test_asked_after_a_batch_was_whole_its_steps_are_kept(tmp_path, monkeypatch, steps):
    """The request comes between the last step of a batch and its end."""
    from lipfw.recorder import Recorder

    monkeypatch.chdir(tmp_path)
    options = [*SKIP, "fit.steps_per_batch=3", "pruner.rounds=1"]
    run(config(*options, "out=whole"))
    once, steps.done[:] = list(steps.done), []
    follow, left = Recorder.on_train_batch_end, [0, 1, 4]

    def late(self, trainer, module, outputs, batch, batch_idx):
        follow(self, trainer, module, outputs, batch, batch_idx)
        if left and len(steps.done) >= 3 * left[0]:
            left.pop(0)
            ask("a test")

    monkeypatch.setattr(Recorder, "on_train_batch_end", late)
    stopped = until_done(config(*options))
    assert steps.done == once and 2 <= len(stopped) <= 3
    assert outcome(run_folder(config(*options))) == outcome(run_folder(config(*options, "out=whole")))


def test_fits_side_by_side_all_stop(tmp_path, monkeypatch, steps):
    monkeypatch.chdir(tmp_path)
    options = [*SKIP, "pruner.rounds=1", "fit.steps_per_batch=50", "fit.steps=40"]
    for seed in (0, 1):
        run(config(*options, f"seed={seed}", "out=whole"))
    steps.stops = [(0, 5)]
    with listening(), pytest.raises(Interrupted, match=r"stopped by SIGTERM with seed 0 .*, seed 1 ") as e:
        run(config(*options, "fit.batch_seeds=2"))
    assert "after step 5 of round 0" in e.value.where
    assert len(list(Path("runs/default").glob("*/checkpoint.ckpt"))) == e.value.where.count("after step")
    steps.stops = ()
    run(config(*options, "fit.batch_seeds=2"))
    for folder in Path("runs/default").iterdir():
        assert outcome(folder) == outcome(Path("whole/default") / folder.name)


# --- the command line

def start(folder: Path, *overrides) -> Forked:
    return Forked("lipfw", *SKIP, "pruner.rounds=1", *overrides, cwd=folder)


def stop_once(process: Forked, begun) -> tuple[str, float]:
    """Send SIGTERM when `begun`; returns standard error, and the seconds it took."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not begun():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    _, err = process.communicate(timeout=60)
    return err, time.monotonic() - sent


def test_sigterm_ends_the_command_well_and_the_same_command_continues(tmp_path, monkeypatch):
    """One batch takes minutes: it is cut. A sweep does not go on with its next run."""
    options = ["fit.steps=60000", "fit.steps_per_batch=60000"]
    process = start(tmp_path, *options, "seed=0..1", "-m")
    err, seconds = stop_once(process, lambda: any(tmp_path.glob("runs/default/*/config.yaml")))
    assert process.returncode == 143, err       # of a run alone 0, but a grid is done only if all its runs are
    told = r"lipfw: \[.*seed=0.*\] stopped by SIGTERM after step \d+ of round 0; the same command continues"
    assert re.fullmatch(told, err.splitlines()[-1]) and "Traceback" not in err
    (folder,) = tmp_path.glob("runs/default/*/")
    assert (folder / "checkpoint.ckpt").exists() and not (folder / "failed.json").exists() and seconds < 30


def test_sigterm_with_fits_side_by_side_and_a_logger(tmp_path):
    process = start(tmp_path, "fit.steps=60000", "fit.steps_per_batch=1000", "fit.batch_seeds=2", "logger=wandb")
    err, seconds = stop_once(process, lambda: len(list(tmp_path.glob("runs/default/*/config.yaml"))) == 2)
    assert process.returncode == 0 and "Traceback" not in err, err
    told = [line for line in err.splitlines() if line.startswith("lipfw: ")]
    assert len(told) == 1 and told[0].startswith("lipfw: stopped by SIGTERM with seed 0 after step "), err
    assert ", seed 1 after step " in told[0] and told[0].endswith("; the same command continues") and seconds < 30
    assert len(list(tmp_path.glob("runs/default/*/checkpoint.ckpt"))) == 2
    assert len(list(tmp_path.glob("runs/default/*/wandb/offline-run-*/*.wandb"))) == 2
