"""Fits of codes against plain loops: each picture and start as if alone, the game as the published code plays it."""
import copy
import math
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from conftest import tiny_generator

from lipfw.errors import InputError
from lipfw.fit.evaluation import mse
from lipfw.fit.objectives import permutation
from lipfw.fit.restoration import Restoration
from lipfw.gan.weights import Weights
from lipfw.image.picture import Picture
from lipfw.prior import pggan
from lipfw.prior.skip import build as hourglass
from lipfw.pruner.none import Dense
from lipfw.task.clean import Clean
from lipfw.task.cs import CompressedSensing
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint
from lipfw.task.superres import SuperRes

SHAPE = (3, 16, 16)


def pictures(count, seed=5):
    """Return pictures in the tiny generator's range, cut to [0, 1]."""
    z = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        made = (tiny_generator()(z) + 1) / 2
    return [Picture(f"p{i}", x[None].clamp(0, 1)) for i, x in enumerate(made)]


@pytest.fixture
def make(generator_file):
    """Return a function that builds a tiny search for codes on fresh objects: equal arguments make equal fits."""
    def make(problems, steps=20, seed=3, **options):
        prior = pggan.build([p.shape for p in problems], weights=str(generator_file), seed=seed)
        options = {"log_every": 4, "steps_per_batch": 7, "smoothing": 0.0, "lr": 0.05, **options}
        return Restoration(problems, prior, steps=steps, **options)
    return make


def steps_of(module, steps):
    """Do steps without Lightning; returns the pictures and the loss of each."""
    seen = []
    module.follow = lambda outputs, loss: seen.append((outputs, float(loss)))
    stepper = module._make_stepper(torch.optim.Adam(module.prior.unknowns(), lr=module.lr, fused=True))
    for step in range(steps):
        stepper.step(step)
    return tuple(zip(*seen, strict=True))


def alone(problem, z, steps, lr, power=2):
    """Seek one code by a plain loop; returns it, and the picture and the loss of each step. In the code's precision.

    Comparisons are in float64: a step that crosses a kink of the network blows up float32's rounding.
    """
    network, z = tiny_generator().to(z.dtype), z.detach().clone().requires_grad_()
    optimizer, made, losses = torch.optim.Adam([z], lr=lr), [], []
    for _ in range(steps):
        x = (network(z[None]) + 1) / 2
        r = problem.operator(x) - problem.measurement.to(z.dtype)
        loss = (r ** power).mean() / (power / 2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        made.append(x.detach())
        losses.append(float(loss.detach()))
    return z.detach(), made, losses


# ---- least squares -----------------------------------------------------------------------------------------------

TASKS = {"cs": lambda: CompressedSensing(60, corrupted=0), "inpaint": lambda: Inpaint(0.5),
         "superres": lambda: SuperRes(2, border=0), "denoise": lambda: Denoise(25)}


@pytest.mark.parametrize("objective", ["ls", "fourth"])
@pytest.mark.parametrize("task", TASKS)
def test_each_picture_and_start_is_as_if_alone(make, task, objective):
    """Three pictures and two starts in a batch are six plain loops, of which each picture's best start counts."""
    task = TASKS[task]()
    problems = [task(p) for p in pictures(3)]
    module = make(problems, restarts=2, objective=objective).double()
    starts = module.prior.codes.detach().clone()
    outputs, losses = steps_of(module, 20)
    power = {"ls": 2, "fourth": 4}[objective]
    runs = [[alone(p, starts[r, i], 20, 0.05, power) for i, p in enumerate(problems)] for r in range(2)]
    same_codes_pictures_and_losses(module.prior, outputs, losses, runs)


def same_codes_pictures_and_losses(prior, outputs, losses, runs):
    """Compare with plain loops of each start and picture: (code, pictures, losses)."""
    for r, starts in enumerate(runs):
        for i, (code, _, _) in enumerate(starts):
            torch.testing.assert_close(prior.codes[r, i].detach(), code, atol=1e-8, rtol=0)
    for step, (made, loss) in enumerate(zip(outputs, losses, strict=True)):
        best = [min(range(len(runs)), key=lambda r: runs[r][i][2][step]) for i in range(len(made))]
        for i, x in enumerate(made):
            torch.testing.assert_close(x, runs[best[i]][i][1][step], atol=1e-8, rtol=0)
        assert loss == pytest.approx(sum(runs[r][i][2][step] for i, r in enumerate(best)) / len(made), rel=1e-8)


@pytest.mark.parametrize("options", [{}, {"objective": "mom", "bucket": 4, "restarts": 2}])
def test_the_whole_fit_is_its_steps(make, train, options):
    """What Lightning, recording and batches of steps add changes nothing: bit for bit."""
    task = CompressedSensing(60, corrupted=5)
    module, bare = (make([task(p) for p in pictures(2)], **options) for _ in range(2))
    train(module, Dense())
    outputs, losses = steps_of(bare, 20)
    assert torch.equal(module.prior.codes, bare.prior.codes)
    assert all(torch.equal(a, b) for a, b in zip(module.pictures("final"), list(outputs)[-1], strict=True))
    assert module.summary()["loss"] == pytest.approx(sum(losses) / 20, rel=1e-5)


def test_a_code_does_not_depend_on_its_company(make):
    task = CompressedSensing(60, corrupted=0)
    problems = [task(p) for p in pictures(3)]
    few, many = make(problems[:1]).double(), make(problems, restarts=3).double()
    assert torch.equal(few.prior.codes[0, 0], many.prior.codes[0, 0])
    assert len({tuple(z.tolist()) for z in many.prior.codes.detach().flatten(0, 1)}) == 9
    steps_of(few, 20)
    steps_of(many, 20)
    torch.testing.assert_close(few.prior.codes[0, 0], many.prior.codes[0, 0], atol=1e-8, rtol=0)


@pytest.mark.parametrize("objective", ["ls", "mom"])
def test_operators_in_any_order(make, objective):
    """Masks of their own, a shared matrix, and both in turn: each picture meets its own operator and measurement."""
    cs, inpaint = CompressedSensing(60, corrupted=0), Inpaint(0.5)
    problems = [(cs, inpaint)[i % 2](p) for i, p in enumerate(pictures(5))]
    assert problems[0].operator is problems[2].operator and problems[1].operator is not problems[3].operator
    module = make(problems, objective=objective, bucket=4).double()
    starts = module.prior.codes.detach().clone()
    rivals = starts if module.prior.opponents is None else module.prior.opponents.detach().clone()
    outputs, losses = steps_of(module, 10)
    runs = [[alone(p, starts[0, i], 10, 0.05) if objective == "ls" else
             game(p, starts[0, i], rivals[0, i], 10, 0.05, bucket=4, seed=3) for i, p in enumerate(problems)]]
    same_codes_pictures_and_losses(module.prior, outputs, losses, runs)


def test_the_generator_stays_as_it_is(make, train):
    for objective in ("ls", "mom"):
        module = make([CompressedSensing(60)(pictures(1)[0])], objective=objective)
        train(module, Dense())
        for (name, p), q in zip(module.prior.network.named_parameters(), tiny_generator().parameters(), strict=True):
            assert torch.equal(p, q) and p.grad is None and not p.requires_grad, name
        assert list(module.losses(0))[0].requires_grad and not any(
            p.requires_grad for p in module.prior.network.parameters())


# ---- the game ----------------------------------------------------------------------------------------------------

def game(problem, zf, zg, steps, lr, bucket, seed):
    """Play the median-of-means game as the facts write it down (6.3); returns z_f, and its pictures and losses.

    Of compressed sensing the rows of A themselves are permuted; another operator's measurements are.
    """
    network = tiny_generator().to(zf.dtype)
    zf, zg = zf.detach().clone().requires_grad_(), zg.detach().clone().requires_grad_()
    of, og, made, losses = torch.optim.Adam([zf], lr=lr), torch.optim.Adam([zg], lr=lr), [], []

    def picture(z):
        return (network(z[None]) + 1) / 2

    def squares(x, order):
        y = problem.measurement.to(x.dtype).flatten()
        if hasattr(problem.operator, "matrix"):
            return (problem.operator.matrix[order] @ (2 * x - 1).flatten() - y[order]) ** 2
        known = problem.operator.known.expand_as(x).flatten() == 1
        return ((x.flatten() - y)[known][order]) ** 2

    def mom(x, rival, order):
        rf, rg = squares(x, order), squares(rival, order)
        k = len(rf) // bucket
        cut = (rf - rg)[:k * bucket].reshape(k, bucket)
        return cut[cut.mean(1).argsort()[k // 2]].mean()

    m = problem.measurement.numel()
    if hasattr(problem.operator, "known"):
        m = 3 * int(problem.operator.known.sum())
    for step in range(steps):
        first, second = permutation(seed, step, m, 0), permutation(seed, step, m, 1)
        x = picture(zf)
        made.append(x.detach())
        k = m // bucket
        means = squares(made[-1], first)[:k * bucket].reshape(k, bucket).mean(1)
        losses.append(float(means.sort().values[k // 2]))
        of.zero_grad()
        mom(x, picture(zg).detach(), first).backward()
        of.step()
        og.zero_grad()
        (-mom(picture(zf).detach(), picture(zg), second)).backward()
        og.step()
    return zf.detach(), made, losses


@pytest.mark.parametrize("corruption", ["ones", "heavy"])
def test_the_game_is_the_published_one(make, corruption):
    task = CompressedSensing(103, corrupted=7, corruption=corruption)
    problems = [task(p) for p in pictures(2)]
    module = make(problems, objective="mom", restarts=2, bucket=5).double()
    starts, rivals = module.prior.codes.detach().clone(), module.prior.opponents.detach().clone()
    outputs, losses = steps_of(module, 10)
    runs = [[game(p, starts[r, i], rivals[r, i], 10, 0.05, 5, 3) for i, p in enumerate(problems)] for r in range(2)]
    same_codes_pictures_and_losses(module.prior, outputs, losses, runs)


def test_pictures_made_once_and_used_twice_change_nothing(make, train):
    """A step that forgets the pictures of the step before, as one after a resume does, is the same to the last bit."""
    class Forget(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if module.stepper is not None:
                module.stepper.made = None

    problem = CompressedSensing(103, corrupted=7)(pictures(1)[0])
    kept, forgotten = (make([problem], objective="mom", bucket=5, steps_per_batch=1) for _ in range(2))
    train(kept, Dense())
    train(forgotten, Dense(), Forget())
    assert torch.equal(kept.prior.codes, forgotten.prior.codes)
    assert torch.equal(kept.prior.opponents, forgotten.prior.opponents)
    assert torch.equal(kept.pictures("final")[0], forgotten.pictures("final")[0])


@pytest.mark.parametrize("objective", ["ls", "mom"])
@pytest.mark.parametrize("side", [1, 2])
def test_a_resume_in_the_middle_of_a_round_is_exact(make, train, tmp_path, objective, side):
    class Stop(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == side:
                trainer.save_checkpoint(tmp_path / "c.ckpt")
                raise InterruptedError

    problems = [CompressedSensing(103, corrupted=7)(p) for p in pictures(2)]
    options = {"objective": objective, "bucket": 5, "restarts": 2, "steps_per_batch": 5}
    whole = make(problems, **options)
    train(whole, Dense())
    with pytest.raises(InterruptedError):
        train(make(problems, **options), Dense(), Stop())
    resumed = make(problems, **options)
    train(resumed, Dense(), ckpt_path=tmp_path / "c.ckpt")
    assert torch.equal(whole.prior.codes, resumed.prior.codes)
    assert whole.summary() == resumed.summary()
    assert all(torch.equal(a, b) for a, b in zip(whole.pictures("picked"), resumed.pictures("picked"), strict=True))


@pytest.mark.parametrize("seed", [3, 4])
def test_corrupted_measurements_mislead_least_squares_and_not_the_game(seed):
    """20 of 200 measurements say 10,000, of pictures that the generator can make: the game finds them."""
    with torch.no_grad():
        made = (tiny_generator(latent=2)(torch.randn(2, 2, generator=torch.Generator().manual_seed(5))) + 1) / 2
    task = CompressedSensing(200, corrupted=20)
    problems, errors = [task(Picture(f"p{i}", x[None])) for i, x in enumerate(made)], {}
    for objective in ("ls", "mom"):
        prior = pggan.PGGAN(Weights(tiny_generator(latent=2)), [SHAPE] * 2, seed=seed)
        module = Restoration(problems, prior, lr=0.05, objective=objective, restarts=4, bucket=4)
        outputs = list(steps_of(module, 150)[0])[-1]
        errors[objective] = [float(mse(p, x)) for p, x in zip(problems, outputs, strict=True)]
    assert max(errors["mom"]) < 1e-3 and min(errors["ls"]) > 0.02


def test_outliers_do_not_choose_the_start(make):
    """Of several starts that one counts whose robust loss is least, though its mean squared residual is not."""
    problem = CompressedSensing(200, corrupted=20)(pictures(1)[0])
    module = make([problem], objective="mom", restarts=6, bucket=3)
    module.prior.codes.data[4] = torch.randn(6, generator=torch.Generator().manual_seed(5))    # the picture's own
    module.target0[:, problem.measurement[0] == 10_000] = -10_000   # for a mean, the darkest start is then the best
    with torch.no_grad():
        made = module.prior.made(module.prior.codes)
        (_, r), = module.residuals(made)
    torch.testing.assert_close(made[4, 0].clamp(0, 1), problem.image[0], atol=1e-5, rtol=0)
    assert int(r.square().mean(2).argmin()) != 4
    (outputs,), _ = steps_of(module, 1)
    torch.testing.assert_close(outputs[0][0], made[4, 0], atol=1e-5, rtol=0)


def test_the_game_leaves_out_hidden_pixels(make, train):
    """Hidden pixels are right whatever the code: buckets of them would be the median, and nothing would move."""
    problem = Inpaint(0.97)(pictures(1)[0])
    module = make([problem], steps=5, objective="mom", bucket=2)
    before = module.prior.codes.detach().clone()
    train(module, Dense())
    assert module.summary()["loss"] > 0 and not torch.equal(before, module.prior.codes)


# ---- what is kept and told ---------------------------------------------------------------------------------------

def test_pictures_are_the_generators_moved_to_zero_and_one(generator_file):
    prior = pggan.build([SHAPE] * 2, weights=str(generator_file))
    g, z = tiny_generator(), prior.codes.detach()
    torch.testing.assert_close(prior.made(prior.codes)[0], (g(z[0]) + 1) / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(prior(1), (g(z[0, 1:]) + 1) / 2, atol=1e-6, rtol=0)


def test_the_last_step_is_picked_unless_a_rule_is_asked_for(make, train):
    problem = Denoise(25)(pictures(1)[0])
    module = make([problem])
    train(module, Dense())
    assert module.summary()["step_picked"] == module.summary()["step_last"] == 20
    assert torch.equal(module.pictures("picked")[0], module.pictures("final")[0])
    _, made, _ = alone(problem, make([problem]).prior.codes[0, 0], 20, 0.05)
    watched = make([problem], pick="wmv", window=4)
    train(watched, Dense())
    variances = {t: float(torch.stack(made[t - 4:t]).var(0, correction=0).mean()) for t in range(4, 21)}
    picked = min(variances, key=variances.get)
    assert watched.summary()["step_picked"] == picked
    torch.testing.assert_close(watched.pictures("picked")[0], made[picked - 1], atol=2e-4, rtol=0)


def test_a_rule_can_end_the_search(make, train):
    module = make([Denoise(25)(pictures(1)[0])], stop="wmv", window=4, patience=6, steps=400, lr=0.2)
    train(module, Dense())
    s = module.summary()
    assert s["step_last"] < 400 and s["step_picked"] <= s["step_last"] - 6


def test_the_mean_squared_error_is_the_generators_and_goes_with_the_psnr(make, train):
    module = make([Inpaint(0.5)(p) for p in pictures(2)])
    train(module, Dense())
    s = module.summary()
    for i, own in enumerate(s["images"].values()):
        for kind in ("peak", "picked", "final"):
            assert own[f"mse_{kind}"] == pytest.approx(4 * 10 ** (-own[f"psnr_{kind}"] / 10), rel=1e-4)
        x, clean = module.pictures("final")[i], module.problems[i].image
        assert own["mse_final"] == pytest.approx(float(((2 * x - 1) - (2 * clean - 1)).square().mean()), rel=1e-5)
    assert s["mse_final"] == pytest.approx(sum(v["mse_final"] for v in s["images"].values()) / 2)
    assert s["psnr_peak"] >= s["psnr_final"] and s["step_peak"] % 4 == 0


def test_without_a_clean_picture_nothing_is_told_and_the_search_is_the_same(make, train):
    problem = Denoise(25)(pictures(1)[0])
    known, unknown = make([problem]), make([replace(problem, image=None)])
    train(known, Dense())
    train(unknown, Dense())
    assert torch.equal(known.prior.codes, unknown.prior.codes)
    assert all(math.isnan(unknown.summary()[f"{m}_final"]) for m in ("psnr", "ssim", "mse"))


def test_the_clean_target_is_the_noiseless_measurement(make):
    problem = CompressedSensing(60, corrupted=20)(pictures(1)[0])
    module = make([problem], target="clean")
    torch.testing.assert_close(module.target0, problem.operator(problem.image), atol=0, rtol=0)


def test_bf16_rounds_the_network_and_nothing_else(make, train):
    problem = CompressedSensing(60, corrupted=0)(pictures(1)[0])
    exact, rounded = make([problem], steps=3), make([problem], steps=3, precision="bf16")
    a, b = exact.prior.made(exact.prior.codes), rounded.prior.made(rounded.prior.codes)
    assert b.dtype == torch.float32 and 1e-5 < (a - b).abs().max() < 0.1
    train(exact, Dense())
    train(rounded, Dense())
    assert {t.dtype for t in rounded.state_dict().values()} == {t.dtype for t in exact.state_dict().values()}
    assert rounded.summary()["loss"] == pytest.approx(exact.summary()["loss"], rel=0.1)


# ---- what is refused ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, told", [
    ({"restarts": 0}, "fit.restarts must be a whole number of at least 1, got 0"),
    ({"objective": "mon"}, "fit.objective must be one of ls, fourth, mom, got 'mon'; did you mean mom"),
    ({"objective": "mom", "bucket": 31}, "fit.bucket=31 makes 1 buckets of 60 measurements"),
    ({"objective": "mom", "bucket": 0}, "fit.bucket must be"),
    ({"kernel": "sparse"}, "fit.kernel=sparse .* fit.kernel=auto")])
def test_bad_options(make, options, told):
    with pytest.raises(InputError, match=told):
        make([CompressedSensing(60)(pictures(1)[0])], **options)


@pytest.mark.parametrize("options, told", [({"objective": "mom"}, "fit.objective=mom plays two codes"),
                                           ({"restarts": 2}, "fit.restarts=2 starts the search")])
def test_options_of_codes_alone(options, told):
    p = Clean()(pictures(1)[0])
    prior = hourglass([p.shape], channels=4, depth=2, skip_channels=2, code_channels=4)
    with pytest.raises(InputError, match=told):
        Restoration([p], prior, **options)


def test_copies_do_not_share_codes(make):
    module = make([Clean()(pictures(1)[0])])
    other = copy.deepcopy(module.prior)
    other.codes.data.zero_()
    assert module.prior.codes.abs().sum() > 0
