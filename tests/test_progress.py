"""What a person sees: durations, the estimate, a bar that fits 80 columns, a line per round without a terminal."""
import io
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.estimate import seconds_a_step, seconds_of_rounds
from lipfw.fit.progress import FitProgress
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.trainer import make_trainer
from lipfw.pruner.imp import IMP
from lipfw.words import spoken


@pytest.mark.parametrize("seconds, words", [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (3600, "1 h 00 min"),
                                            (8100, "2 h 15 min"), (200_000, "55 h 33 min")])
def test_durations(seconds, words):
    assert spoken(seconds) == words


def fit(module, console, tmp_path, rounds=2, ckpt_path=None, more=()):
    pruning = IterativePruning(IMP(rounds=rounds - 1))
    trainer = make_trainer(rounds, [pruning, FitProgress(pruning, console), *more], "cpu", folder=tmp_path)
    trainer.fit(module, ckpt_path=ckpt_path)


def test_a_line_per_round_without_a_terminal(make, tmp_path):
    out = io.StringIO()
    fit(make(), Console(file=out, width=80), tmp_path)
    first, *rounds = out.getvalue().splitlines()
    assert first.startswith("about ") and "2 rounds of 12 steps" in first and first.endswith("on this CPU")
    assert [line.split(":")[0] for line in rounds] == ["round 0", "round 1"]
    assert float(rounds[1].split("sparsity ")[1].split("%")[0]) == pytest.approx(20, abs=0.1)
    assert all("PSNR peak" in line for line in rounds)


def test_a_bar_of_80_columns_on_a_terminal(make, tmp_path):
    out = io.StringIO()
    fit(make(), Console(file=out, width=80, force_terminal=True, legacy_windows=False), tmp_path)
    text = out.getvalue()
    assert "round 1/1" in text and "sparse" in text and " dB" in text and "…" not in text


def test_the_estimate_knows_what_is_done(make, tmp_path):
    path = tmp_path / "c.ckpt"
    fit(make(), Console(file=io.StringIO()), tmp_path, rounds=1, more=[Checkpoint(path)])
    out = io.StringIO()
    fit(make(), Console(file=out, width=80), tmp_path, rounds=4, ckpt_path=path)
    assert "3 rounds of 12 steps" in out.getvalue()


def test_long_runs_name_the_options_that_shorten_them(make, tmp_path, monkeypatch):
    monkeypatch.setattr("lipfw.fit.restoration.seconds_of_rounds", lambda module, d: ([500.0] * len(d), None))
    out = io.StringIO()
    fit(make(), Console(file=out, width=80), tmp_path)
    assert "about 3 h 20 min" in out.getvalue() and "image.size=" in out.getvalue()


def test_measuring_leaves_the_fit_untouched(make):
    module = make()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert seconds_a_step(module)[0] > 0 and seconds_a_step(module, 0.3)[0] > 0
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_sparser_rounds_take_less_time_in_the_estimate(make, monkeypatch):
    """Measured at both ends, a straight line between."""
    times = {1.0: 10.0, 0.1: 1.0}
    monkeypatch.setattr("lipfw.fit.estimate.seconds_a_step",
                        lambda module, density: (times[density], "a reason" if density < 1 else None))
    seconds, note = seconds_of_rounds(make(), [1.0, 0.8, 0.55, 0.1])
    assert seconds == pytest.approx([10, 8, 5.5, 1]) and note == "a reason"
    assert seconds_of_rounds(make(), [1.0])[0] == [10.0]


def test_the_reason_for_slow_steps_is_told_once(make, tmp_path, monkeypatch):
    from lipfw.fit import stepping
    from lipfw.kernel.library import Unavailable

    def missing():
        raise Unavailable("no C++ compiler is found")

    monkeypatch.setattr(stepping, "library", missing)
    out = io.StringIO()
    fit(make(kernel="auto"), Console(file=out, width=80), tmp_path)
    assert out.getvalue().count("torch does all the work: no C++ compiler is found") == 1


def test_the_estimate_counts_the_remaining_steps(make, tmp_path, monkeypatch):
    """Taken up in a round of the steps 901 to 1000, at 951: those before 901 are not of it."""
    monkeypatch.setattr("lipfw.fit.restoration.seconds_of_rounds", lambda module, d: ([60.0] * len(d), None))
    out = io.StringIO()
    pruning = IterativePruning(IMP(rounds=1, rewind_step=900, retrain="remaining"))
    module = make(steps=1000)
    pruning.prepare(module)
    module.begin, module.step = 900, 950
    FitProgress(pruning, Console(file=out, width=80)).on_train_start(SimpleNamespace(current_epoch=1), module)
    assert out.getvalue().startswith("about 50 min: 1 round of")
