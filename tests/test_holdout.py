"""Measured values that the loss leaves out: they never reach the weights, and the rule that watches them."""
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.fit.holdout import held_out
from lipfw.fit.restoration import Restoration
from lipfw.fit.stopping import HeldOutError
from lipfw.image.picture import Picture
from lipfw.prior import pggan, skip
from lipfw.pruner.imp import IMP
from lipfw.pruner.none import Dense
from lipfw.run import parts
from lipfw.task.deblur import Deblur
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint
from lipfw.task.operators import Hide, Identity
from lipfw.task.superres import SuperRes

TASKS = [Denoise(25, 3), Inpaint(0.4, seed=3), Inpaint(0.4, per_channel=True, seed=3), SuperRes(2, border=0),
         Deblur(size=5)]
NAMES = ["denoise", "inpaint", "per_channel", "superres", "deblur"]


def draw(operator, y, fraction, seed=0):
    return held_out(operator, y, fraction, torch.Generator().manual_seed(seed))


def test_whole_pixels_are_drawn_and_a_part_of_them():
    y = torch.rand(1, 3, 90, 110)
    places = draw(Identity(), y, 0.03)
    chosen = torch.zeros(y.numel(), dtype=torch.bool).index_fill_(0, places, True).view(3, 90, 110)
    assert len(places) == 3 * round(0.03 * 90 * 110) == len(places.unique())
    assert torch.equal(chosen[0], chosen[1]) and torch.equal(chosen[0], chosen[2])
    assert torch.equal(places, draw(Identity(), y, 0.03)) and not torch.equal(places, draw(Identity(), y, 0.03, 1))


def test_small_measurements_and_those_that_are_no_picture():
    assert len(draw(Identity(), torch.rand(1, 1, 60, 60), 0.001)) == 256
    assert len(draw(Identity(), torch.rand(1, 3, 10, 10), 0.03)) == 3 * 12
    places = draw(Identity(), torch.rand(1, 1000), 0.2)
    assert len(places.unique()) == 200 and places.max() > 900
    with pytest.raises(InputError, match="12 measured values are too few"):
        draw(Identity(), torch.rand(1, 12), 0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_hidden_is_not_drawn(channels):
    known = (torch.rand(1, channels, 40, 40) > 0.7).float()
    y = torch.rand(1, 3, 40, 40) * known
    places = draw(Hide(known), y, 0.2)
    assert known.expand_as(y).flatten()[places].all()
    pixels = (places % 1600).unique()
    assert len(pixels) == round(0.2 * int(known[0].any(0).sum()))
    assert set(places.tolist()) == {i for i in range(4800) if i % 1600 in set(pixels.tolist())
                                    and known.expand_as(y).flatten()[i]}        # all that is known of a drawn pixel


@pytest.mark.parametrize("task", TASKS, ids=NAMES)
def test_the_loss_has_no_gradient_there_and_is_the_mean_over_the_others(make, picture, task):
    module = make(problems=[task(picture)], pick="holdout", held_out=0.1)
    x = torch.rand(1, *module.problems[0].shape)
    y = module.target0.requires_grad_()
    loss = module.loss(x, 0)
    gradient = torch.autograd.grad(loss, y)[0].flatten()
    rest = torch.ones(y.numel(), dtype=torch.bool).index_fill_(0, module.held0, False)
    assert not gradient[module.held0].any() and len(module.held0)
    squares = (module.operators[0](x) - y).detach().flatten().square()
    assert float(loss.detach()) == pytest.approx(float(squares[rest].mean()), rel=1e-5)
    np.testing.assert_allclose(gradient[rest], -2 * (module.operators[0](x) - y).detach().flatten()[rest] / rest.sum(),
                               rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("kernel", ["dense", "sparse"])
def test_what_is_held_out_changes_no_weight(make, picture, train, kernel):
    """The fits to two measurements that differ there alone are the same to the bit, pruning included."""
    weights = []
    for change in (0.0, 0.5):
        problem = Denoise(25, 3)(picture)
        module = make(problems=[problem], kernel=kernel, pick="holdout", steps=8)
        with torch.no_grad():
            module.target0.flatten()[module.held0] += change
        train(module, IMP(rounds=1))
        weights.append(nn.utils.parameters_to_vector(module.prior.network.parameters()))
    assert torch.equal(*weights)


@pytest.mark.parametrize("patience", [3, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_rule_against_a_plain_loop(patience, seed):
    rng = np.random.default_rng(seed)
    residuals = rng.standard_normal((120, 9)).astype(np.float32) * (1 + np.abs(np.arange(120) - 70)[:, None] / 30)
    rule, picks = HeldOutError(patience), []
    smooth, best, least = None, None, np.inf
    for t, r in enumerate(residuals, 1):
        said = rule.update([torch.from_numpy(r[:4]), torch.from_numpy(r[4:]).view(5, 1)], torch.tensor(t))
        error = np.square(r.astype(float)).mean()
        smooth = error if smooth is None else smooth + 0.1 * (error - smooth)
        if t < 50:
            best = t
        elif smooth < least and not (np.isfinite(least) and t - 1 - best >= patience):
            least, best = smooth, t
        picks.append(best)
        assert int(rule.step) == best and bool(said) == (best == t)
        assert float(rule.variance) == pytest.approx(smooth, rel=1e-9) if t >= 50 else np.isnan(float(rule.variance))
    assert len(set(picks)) > 51
    assert bool(rule.over(torch.tensor(120))) == (patience == 3)
    rule.reset()
    rule.update([torch.full((4,), 2.0)], torch.tensor(1))
    assert float(rule.error) == 4 and int(rule.step) == 1


def test_a_fit_picks_by_the_restorations_error_there(make, picture, train):
    module = make(problems=[Denoise(60, 3)(picture)], pick="holdout", steps=90, smoothing=0.6, held_out=0.1)
    errors, kept = [], []

    def watch(step):
        average = module.pictures("final")[0]
        errors.append(float((average - module.target0).flatten()[module.held0].double().square().mean()))
        kept.append(average.clone())

    module.after_step.append(watch)
    train(module, Dense())
    smooth = [errors[0]]
    for e in errors[1:]:
        smooth.append(smooth[-1] + 0.1 * (e - smooth[-1]))
    best = 49 + int(np.argmin(smooth[49:]))
    assert module.summary()["step_picked"] == best + 1
    assert torch.equal(module.pictures("picked")[0], kept[best])


def test_a_fit_that_follows_noise_is_stopped(make, train):
    """Where the truth is flat and the rest noise, the held-out error rises long before the last step."""
    noise = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    flat = Picture("flat", (0.5 + (noise - 0.5) * 0.8), degraded=True)
    module = make(problems=[Denoise()(flat)], stop="holdout", patience=60, steps=2000, smoothing=0.9, lr=0.02)
    train(module, Dense())
    assert module.stopped_by == "rule" and module.step < 1000
    picked, final = ((module.pictures(k)[0] - 0.5).square().mean() for k in ("picked", "final"))
    assert picked < final / 2


def test_what_does_not_go_together(make, generator_file):
    with pytest.raises(InputError, match="fit.held_out must be a number in"):
        make(pick="holdout", held_out=0)
    problem = Denoise()(Picture("a", torch.rand(1, 3, 16, 16)))
    with pytest.raises(InputError, match="fit.pick=holdout leaves measured values out of the fit of weights"):
        Restoration([problem], pggan.build([problem.shape], weights=str(generator_file)), pick="holdout")
    assert not Restoration([problem], skip.build([problem.shape], channels=4, depth=2)).holds_out


@pytest.mark.parametrize("options, watched", [
    ("", "residuals"), ("fit.pick=wmv", "outputs"), ("fit.stop=emv", "outputs"), ("fit=sgld", "outputs"),
    ("image.degraded=false", "outputs")])
def test_a_run_without_a_clean_picture_picks_by_it(options, watched, tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["image=file", f"image.path={tmp_path}/mine.png", "image.degraded=true", "logger=none",
                                 "prior.channels=4", "prior.depth=2", *options.split()])
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    picture = Picture("mine", torch.rand(1, 3, 24, 24), degraded=cfg.image.degraded)
    assert parts(cfg, [picture], None).module.rule.watches == watched
