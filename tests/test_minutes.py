"""A round that is to end in time, by a clock that the test turns."""
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.fit.budget import Budget
from lipfw.fit.restoration import Restoration
from lipfw.folder import run_folder
from lipfw.pruner.imp import IMP
from lipfw.pruner.none import Dense
from lipfw.run import run

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "image.size=16", "prior.channels=4", "prior.depth=2"]


class Clock:
    """Each step takes `pace` seconds; nothing else takes any."""

    def __init__(self, monkeypatch, pace=1.0):
        self.now, self.pace = 100.0, pace
        step = Restoration.fit_step

        def timed(module):
            module.budget.clock = self
            self.now += self.pace
            return step(module)

        monkeypatch.setattr(Restoration, "fit_step", timed)
        start = Budget.start
        monkeypatch.setattr(Budget, "start", lambda b: (setattr(b, "clock", self), start(b))[1])

    def __call__(self):
        return self.now


@pytest.mark.parametrize("minutes, steps", [(0.05, 3), (0.059, 4), (0.13, 8), (1, 12), (None, 12)])
def test_a_round_ends_after_the_step_in_which_its_time_is_over(make, train, monkeypatch, minutes, steps):
    Clock(monkeypatch)
    module = make(minutes=minutes, log_every=5)
    train(module, Dense())
    summary = module.summary()
    assert module.step == summary["step_last"] == steps and 1 <= summary["step_picked"] <= steps
    assert summary.get("stopped_by") == ("time" if steps < 12 else None)


def test_each_round_has_the_time(make, train, monkeypatch):
    Clock(monkeypatch)
    ends, module = [], make(minutes=0.1)
    module.after_step.append(lambda step: ends.append(step))
    train(module, IMP(rounds=2))
    assert ends == [1, 2, 3, 4, 5, 6] * 3


def test_what_is_left_of_the_pictures_is_that_of_a_shorter_fit(make, train, monkeypatch):
    Clock(monkeypatch)
    timed, plain = make(minutes=0.1, log_every=2), make(steps=6, log_every=2)
    for module in (timed, plain):
        train(module, Dense())
    a, b = timed.summary(), plain.summary()
    assert a.pop("stopped_by") == "time" and a == b


def test_the_clock_counts_over_resumes():
    now = [0.0]
    first = Budget(10, lambda: now[0])
    assert first.used == 0 and not first.over
    first.start()
    now[0] = 4
    first.start()               # it runs already
    assert first.used == 4 and not first.over
    now[0] = 1000               # hours later, in another process
    second = Budget(10, lambda: now[0])
    second.restart(4.0)
    assert second.used == 4 and not second.over
    second.start()
    now[0] = 1005.5
    assert second.used == 9.5 and not second.over
    now[0] = 1006
    assert second.over
    second.restart()
    assert second.used == 0 and not Budget(None, lambda: now[0]).over


def test_a_checkpoint_keeps_what_was_used(make, monkeypatch):
    clock = Clock(monkeypatch)
    a, b, checkpoint = make(minutes=1), make(minutes=1), {}
    a.budget.start()
    clock.now += 33
    a.on_save_checkpoint(checkpoint)
    clock.now += 1000
    b.on_load_checkpoint(json.loads(json.dumps(checkpoint)))
    assert b.budget.used == 33
    a.on_save_checkpoint(none := {})
    old = make()
    old.on_load_checkpoint({"round": {k: v for k, v in none["round"].items() if k != "stopped_by"}})    # of before
    assert old.budget.used == 0 and old.stopped_by is None


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*TINY, *overrides])


def test_a_run_says_that_time_ended_it_and_how_far_it_came(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Clock(monkeypatch)
    result = run(config("fit.minutes=0.1", "fit.steps=20", "pruner=imp", "pruner.rounds=1"))
    assert [(r["stopped_by"], r["step_last"]) for r in result["rounds"]] == [("time", 6)] * 2
    assert (Path("runs/default") / result["run"] / "restored.png").is_file()
    plain = run(config("fit.steps=20"))
    assert "stopped_by" not in plain["rounds"][0]


def test_old_runs_keep_their_names():
    """The new options are part of a run's name where they change it, and nowhere else."""
    def name(*overrides):
        return run_folder(config(*overrides)).name

    def without(cfg, *keys):
        with open_dict(cfg):
            for key in keys:
                del cfg.fit[key]
        return run_folder(cfg).name

    plain = name()
    assert plain == without(config(), "minutes", "held_out") == name("fit.held_out=0.1")
    assert len({plain, name("fit.minutes=5"), name("fit.minutes=6"), name("fit.pick=holdout"), name("fit.stop=holdout"),
                name("fit.pick=holdout", "fit.held_out=0.1")}) == 6


@pytest.mark.parametrize("bad", [0, -1, "5m", True])
def test_what_is_no_time_is_refused(make, bad):
    with pytest.raises(InputError, match=r"fit.minutes must be a number in \(0, "):
        make(minutes=bad)
