"""The fit against a plain loop, and what it may and may not look at."""
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from skimage.metrics import peak_signal_noise_ratio

from lipfw.errors import InputError
from lipfw.fit.objectives import total_variation
from lipfw.fit.restoration import Restoration
from lipfw.image.picture import Picture
from lipfw.prior.skip import build
from lipfw.pruner.none import Dense
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint
from lipfw.task.superres import SuperRes


def plain_loop(module, steps, lr=0.01, smoothing=0.99):
    """Fit a module's prior without Lightning; returns losses, outputs and averages of each step."""
    prior, problem = module.prior, module.problems[0]
    optimizer = torch.optim.Adam(prior.network.parameters(), lr=lr)
    losses, outputs, averages = [], [], []
    for step in range(steps):
        out = prior(0, step)
        loss = torch.nn.functional.mse_loss(problem.operator(out), problem.measurement)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out = out.detach()
        averages.append(out if not averages else smoothing * averages[-1] + (1 - smoothing) * out)
        losses.append(float(loss.detach()))
        outputs.append(out)
    return losses, outputs, averages


class Collect(pl.Callback):
    def __init__(self):
        self.records = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.records += module.records


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_fit_is_the_plain_loop(make, train, smoothing):
    module, collect = make(smoothing=smoothing), Collect()
    train(module, Dense(), collect)
    reference = make(smoothing=smoothing)
    losses, outputs, averages = plain_loop(reference, 12, smoothing=smoothing)
    clean = reference.problems[0].image.numpy()
    assert [r["step"] for r in collect.records] == [3, 6, 9, 12]
    for r in collect.records:
        i = r["step"] - 1
        assert r["loss"] == pytest.approx(losses[i], rel=1e-5)
        assert r["psnr"] == pytest.approx(peak_signal_noise_ratio(clean, averages[i].numpy(), data_range=1), abs=1e-3)
        assert r["psnr_raw"] == pytest.approx(peak_signal_noise_ratio(clean, outputs[i].numpy(), data_range=1),
                                              abs=1e-3)
    assert torch.allclose(module.pictures("final")[0], averages[-1], atol=1e-6)
    best = max(collect.records, key=lambda r: r["psnr"])
    summary = module.summary()
    assert summary["step_peak"] == best["step"] and summary["psnr_peak"] == pytest.approx(best["psnr"], abs=1e-4)
    assert torch.allclose(module.pictures("peak")[0], averages[best["step"] - 1], atol=1e-6)
    windows = {t: np.var([o.numpy() for o in outputs[t - 4:t]], axis=0).mean() for t in range(4, 13)}
    picked = min(windows, key=windows.get)
    assert summary["step_picked"] == picked
    assert torch.allclose(module.pictures("picked")[0], averages[picked - 1], atol=1e-6)
    assert summary["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_batches_change_nothing(make, train):
    results = []
    for steps_per_batch in (1, 5, 50):
        module = make(steps_per_batch=steps_per_batch)
        train(module, Dense())
        results.append((module.summary(), module.prior.network.state_dict()))
    for summary, state in results[1:]:
        assert summary == results[0][0]
        assert all(torch.equal(state[k], v) for k, v in results[0][1].items())


@pytest.mark.parametrize("task", [Denoise(25), Inpaint(0.5), SuperRes(2)])
def test_nobody_peeks(make, train, picture, task):
    """With a clean picture of NaN, and with none, the fit is the same to the last bit."""
    problem = task(Picture("waves", picture.pixels.repeat(1, 1, 2, 2)))
    fits = []
    for image in (problem.image, torch.full_like(problem.image, torch.nan), None):
        module = make(problems=[replace(problem, image=image)])
        train(module, Dense())
        fits.append(module)
    for module in fits[1:]:
        assert torch.equal(module.pictures("picked")[0], fits[0].pictures("picked")[0])
        assert torch.equal(module.pictures("final")[0], fits[0].pictures("final")[0])
        assert module.summary()["loss"] == fits[0].summary()["loss"]
        assert module.summary()["step_picked"] == fits[0].summary()["step_picked"]
        assert np.isnan(module.summary()["psnr_final"]) and np.isnan(module.summary()["step_peak"])


def test_clean_target_is_the_noiseless_measurement(make, train, picture):
    clean = make(target="clean")
    assert torch.equal(clean.target0, picture.pixels)
    with pytest.raises(InputError, match="fit.target=clean needs a clean picture"):
        make(problems=[replace(Denoise(25)(picture), image=None)], target="clean")


def test_several_pictures_share_the_weights(make, train, picture):
    """The gradient is the mean of the pictures' gradients, each at its own size and code."""
    other = Picture("ramp", torch.linspace(0, 1, 3 * 16 * 28).reshape(1, 3, 16, 28))
    module = make(problems=[Denoise(25)(picture), Denoise(25)(other)], steps=1, smoothing=0.0)
    reference = make(problems=[Denoise(25)(picture), Denoise(25)(other)])
    losses = [(reference.prior(i, 0) - p.measurement).square().mean() for i, p in enumerate(reference.problems)]
    optimizer = torch.optim.Adam(reference.prior.network.parameters(), lr=0.01)
    (sum(losses) / 2).backward()
    optimizer.step()
    train(module, Dense())
    for a, b in zip(module.prior.network.parameters(), reference.prior.network.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)      # Adam's first step is lr * sign: tiny gradients may flip
    summary = module.summary()
    assert summary["loss"] == pytest.approx(float(sum(losses).detach()) / 2, rel=1e-5)
    assert set(summary["images"]) == {"waves", "ramp"}
    mean = np.mean([v["psnr_final"] for v in summary["images"].values()])
    assert summary["psnr_final"] == pytest.approx(mean)


@pytest.mark.parametrize("option, value, told", [
    ("steps", 0, "fit.steps must be a whole number of at least 1, got 0"), ("lr", 0, "fit.lr must be"),
    ("smoothing", 1.0, "fit.smoothing must be"), ("target", "dirty", "fit.target must be one of degraded, clean"),
    ("window", 1, "fit.window must be"), ("log_every", 2.5, "fit.log_every must be"),
    ("precision", 16, "trainer.precision must be one of 32, bf16, got '16'")])
def test_refuses_bad_options(make, option, value, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        make(**{option: value})


def test_bf16_rounds_the_network_and_nothing_else(make, train):
    """The output differs from float32's by bfloat16's rounding and is itself not rounded; the state stays float32."""
    exact, rounded = make(), make(precision="bf16")
    a, b = exact.prior(0, 0), rounded.prior(0, 0)
    assert b.dtype == torch.float32 and b.is_contiguous()
    assert 1e-5 < (a - b).abs().max() < 0.1
    assert not torch.equal(b, b.bfloat16().float())
    assert torch.equal(exact.prior.code(0, 5), rounded.prior.code(0, 5))
    train(exact, Dense())
    train(rounded, Dense())
    assert {t.dtype for t in rounded.state_dict().values()} == {t.dtype for t in exact.state_dict().values()}
    assert rounded.summary()["loss"] == pytest.approx(exact.summary()["loss"], rel=0.1)
    assert rounded.summary()["loss"] != exact.summary()["loss"]


def test_bf16_has_no_sparse_kernels(make):
    with pytest.raises(InputError, match="fit.kernel=sparse computes in 32 bits"):
        make(precision="bf16", kernel="sparse")


# ---- rules that pick and stop ------------------------------------------------------------------------------------

@pytest.mark.parametrize("rule", ["wmv", "emv"])
def test_a_fit_that_stops_picks_what_the_whole_fit_picks(make, train, rule):
    options = {"steps": 180, "window": 4, "patience": 6, "log_every": 7}
    whole, stopped, collect = make(pick=rule, **options), make(stop=rule, **options), Collect()
    train(whole, Dense())
    train(stopped, Dense(), collect)
    a, b = whole.summary(), stopped.summary()
    assert a["step_last"] == 180 and b["step_last"] < 180 and b["step_last"] % 7 == 0
    assert a["step_picked"] == b["step_picked"] <= b["step_last"] - 6
    assert b["step_last"] - 6 - b["step_picked"] < 7        # it is looked at when a step is recorded
    assert torch.equal(whole.pictures("picked")[0], stopped.pictures("picked")[0])
    assert [r["step"] for r in collect.records] == list(range(7, b["step_last"] + 1, 7))
    losses, outputs, _ = plain_loop(make(**options), b["step_last"])
    assert b["loss"] == pytest.approx(np.mean(losses[-100:]), rel=1e-4)     # of the steps that were done
    if rule == "emv":
        mean = outputs[0]
        for x in outputs[:b["step_picked"]]:
            mean = mean + 0.1 * (x - mean)
        torch.testing.assert_close(stopped.pictures("picked")[0], mean, atol=1e-5, rtol=0)


def test_where_a_fit_stops_does_not_depend_on_its_batches(make, train):
    ends = set()
    for steps_per_batch in (1, 5, 13, 500):
        module = make(steps=120, stop="wmv", patience=5, steps_per_batch=steps_per_batch)
        train(module, Dense())
        ends.add((module.step, module.summary()["loss"], module.summary()["psnr_final"]))
    assert len(ends) == 1 and ends.pop()[0] < 120


def test_the_rule_that_stops_is_the_rule_that_picks(make):
    assert type(make().rule) is type(make(stop="wmv").rule) is type(make(pick="wmv").rule)
    assert type(make(stop="emv").rule) is type(make(pick="emv", stop="emv").rule) is type(make(pick="emv").rule)
    with pytest.raises(InputError, match="fit.stop=wmv also picks, and fit.pick=emv asks for another rule"):
        make(pick="emv", stop="wmv")
    with pytest.raises(InputError, match="fit.stop must be one of wmv, emv, holdout, got 'wvm'; did you mean wmv"):
        make(stop="wvm")


# ---- codes -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kernel", ["dense", "sparse"])
def test_a_shared_code_is_fitted_to_the_mean_picture(picture, train, kernel):
    """Algorithm 2: one output for all pictures, the gradient that of the loss to their mean (facts, section 4.4)."""
    other = Picture("inverse", 1 - picture.pixels ** 2)
    problems = [Denoise(25, s)(p) for s, p in enumerate((picture, other))]

    def prior():
        return build([p.shape for p in problems], channels=6, depth=2, skip_channels=2, code_channels=4, code="shared")

    module = Restoration(problems, prior(), steps=1, kernel=kernel, smoothing=0.0)
    train(module, Dense())
    reference = prior()
    mean = torch.stack([p.measurement for p in problems]).mean(0)
    optimizer = torch.optim.Adam(reference.network.parameters(), lr=0.01)
    out = reference(0, 0)
    torch.nn.functional.mse_loss(out, mean).backward()
    optimizer.step()
    a, b = module.pictures("final")
    assert torch.equal(a, b)
    out = out.detach()
    torch.testing.assert_close(a, out, atol=1e-5, rtol=0)
    expected = sum(float((out - p.measurement).square().mean()) for p in problems) / 2
    assert module.summary()["loss"] == pytest.approx(expected, rel=1e-4)
    for (name, p), q in zip(module.prior.network.named_parameters(), reference.network.parameters(), strict=True):
        if name.endswith("weight"):     # biases before batch norm move by rounding alone; so do a few tiny gradients
            assert ((p - q).abs() < 1e-4).float().mean() > 0.97, name


def test_losses_are_the_objective_term_by_term(make, picture):
    module = make(problems=[Denoise(25, s)(picture) for s in range(3)])
    terms = list(module.losses(5))
    expected = [(module.prior(i, 5) - p.measurement).square().mean() / 3 for i, p in enumerate(module.problems)]
    torch.testing.assert_close(torch.stack(terms), torch.stack(expected), rtol=1e-6, atol=0)
    assert all(t.requires_grad for t in terms) and module.code_shape() == (1, 4, 24, 20)


def test_numbers_beyond_all_bounds(make):
    for name in ("steps", "patience", "window"):
        with pytest.raises(InputError, match=f"fit.{name} must be at most 1,000,000,000, got 10,000,000,000"):
            make(**{name: 10 ** 10})


def test_a_window_that_is_never_full_takes_no_memory(make, train):
    """And picks the last step, as every window that is longer than the fit."""
    summaries = []
    for window in (13, 10 ** 9):
        module = make(steps=12, window=window)
        assert len(module.rule.outputs) == 13
        train(module, Dense())
        summaries.append(module.summary())
    assert summaries[0] == summaries[1] and summaries[0]["step_picked"] == 12


# --- total variation

@pytest.mark.parametrize("shape", [(1, 3, 24, 20), (2, 1, 7, 5)])
def test_total_variation_is_kornias(shape):
    from kornia.losses import total_variation as reference

    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    n = x[0].numel()
    torch.testing.assert_close(total_variation(x), reference(x, reduction="sum").sum(1) / n)


def test_the_weight_of_total_variation_is_in_the_loss_and_smooths(make, train):
    from kornia.losses import total_variation as reference

    plain, smooth, collect = make(steps=40), make(steps=40, tv=0.3), Collect()
    train(plain, Dense())
    train(smooth, Dense(), collect)
    first = make(tv=0.3)
    out = first.prior(0, 0)
    problem = first.problems[0]
    expected = torch.nn.functional.mse_loss(out, problem.measurement) + 0.3 * reference(out, reduction="sum").sum() / \
        out.numel()
    torch.testing.assert_close(first.loss(out, 0), expected)
    ends = [float(total_variation(m.prior(0).detach())) for m in (plain, smooth)]
    assert ends[1] < 0.8 * ends[0]
