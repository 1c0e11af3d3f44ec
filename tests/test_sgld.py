"""Langevin dynamics against a plain loop; its noise, its samples, and that removed weights stay removed."""
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils import prune

from lipfw.errors import InputError
from lipfw.fit import stepping
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.eager import Eager
from lipfw.fit.graphed import Graphed
from lipfw.fit.langevin import WeightNoise
from lipfw.fit.sgld import Langevin
from lipfw.fit.sparse import Sparse
from lipfw.fit.stepping import make_stepper
from lipfw.kernel.interface import library
from lipfw.kernel.library import Unavailable
from lipfw.mask import Mask, prunable
from lipfw.prior.skip import build
from lipfw.pruner.imp import IMP
from lipfw.pruner.none import Dense
from lipfw.streams import stream
from lipfw.task.denoise import Denoise


@pytest.fixture
def sample(picture):
    """Return a function that builds a tiny fit by Langevin dynamics."""
    def sample(seed=3, **options):
        problem = Denoise(25, seed)(picture)
        prior = build([problem.shape], channels=6, depth=2, skip_channels=2, code_channels=4, seed=seed)
        options = {"steps": 14, "burn_in": 5, "thin": 3, "log_every": 1, "steps_per_batch": 5, "kernel": "dense",
                   **options}
        return Langevin([problem], prior, **options)
    return sample


class Collect(pl.Callback):
    def __init__(self):
        self.records = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.records += module.records


def plain(module, steps, burn_in, thin, std, lr=0.01, decay=5e-8):
    """Fit a module's prior without lipfw's steps; returns losses and posterior means (None before the first sample)."""
    prior, problem = module.prior, module.problems[0]
    convolutions = [m for m in prior.network.modules() if isinstance(m, nn.Conv2d)]
    optimizer = torch.optim.Adam(prior.network.parameters(), lr=lr, weight_decay=decay)
    samples, losses, means = [], [], []
    for i in range(steps):
        out = prior(0, i)
        loss = nn.functional.mse_loss(out, problem.measurement)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        generator = stream(prior.seed, "noise on weights", i)
        noise = torch.empty(sum(c.weight.numel() for c in convolutions)).normal_(0, std, generator=generator)
        with torch.no_grad():
            for c in convolutions:
                part, noise = noise[:c.weight.numel()], noise[c.weight.numel():]
                c.weight += part.view_as(c.weight)
        if i > burn_in and i % thin == 0:
            samples.append(out.detach())
        losses.append(float(loss.detach()))
        means.append(torch.stack(samples).mean(0) if samples else None)
    return losses, means


def test_the_fit_is_the_plain_loop(sample, train):
    module, collect = sample(noise=3.0), Collect()
    train(module, Dense(), collect)
    losses, means = plain(sample(), 14, 5, 3, 0.03)
    assert [r["loss"] for r in collect.records] == pytest.approx(losses, rel=1e-4)
    assert [m is None for m in means] == [True] * 6 + [False] * 8     # iterations 6, 9 and 12 are samples
    torch.testing.assert_close(module.pictures("final")[0], means[-1], atol=1e-5, rtol=1e-4)
    assert torch.equal(module.pictures("picked")[0], module.pictures("final")[0])


def test_before_the_first_sample_the_restoration_is_the_output(sample, train):
    collect = Collect()
    train(sample(), Dense(), collect)
    alike = [r["psnr"] == pytest.approx(r["psnr_raw"], abs=1e-4) for r in collect.records]
    assert alike == [True] * 7 + [False] * 7


def test_the_published_numbers_make_259_samples(sample):
    """Iterations 7050, 7100 ... 19,950 of 20,000, all with the same share of the mean."""
    module = sample(steps=20_000, burn_in="35%", thin=50)
    mean, taken = torch.tensor(0.0, dtype=torch.float64), 0
    for step in range(7001, 20_001):
        module.now.fill_(step)
        share = float(module.share())
        mean = mean + share * (step - 1 - mean)
        taken += 0 < share and step > 7050
    wanted = range(7050, 20_000, 50)
    assert taken == len(wanted) == 259
    assert float(mean) == pytest.approx(sum(wanted) / 259, rel=1e-6)


def test_a_round_that_begins_after_the_burn_in_samples_at_once(sample, train):
    module = sample(burn_in=2)
    train(module, IMP(rounds=1, rewind_step=6, retrain="remaining"))
    assert module.begun == 6
    shares = []
    for step in range(7, 15):
        module.now.fill_(step)
        shares.append(round(float(module.share()), 6))
    assert shares == [1, 1, 1, 1, 0, 0, 0.5, 0]     # iterations 9 and 12; before them the output itself


def test_only_kept_convolution_weights_get_noise(sample):
    network = sample().prior.network
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    mask = Mask({n: torch.rand(w.shape, generator=stream(1, n)) < 0.4 for n, w in prunable(network).items()})
    WeightNoise(network, mask, 0.1, seed=0)(stream(0, "x"))
    added = {n: p.detach() - before[n] for n, p in network.named_parameters()}
    for name, difference in added.items():
        kept = mask[name] if name in mask else torch.zeros_like(difference, dtype=torch.bool)
        assert (difference[~kept] == 0).all() and (difference[kept] != 0).all(), name
    noise = torch.cat([added[n][m] for n, m in mask.items()])
    assert noise.mean().abs() < 4 * 0.1 / len(noise) ** 0.5
    assert noise.std() == pytest.approx(0.1, rel=4 / (2 * len(noise)) ** 0.5)


@pytest.mark.parametrize("mask_of", [lambda n, w: None, lambda n, w: torch.rand(w.shape, generator=stream(1, n)) < 0.4])
def test_the_layout_of_weights_makes_no_difference(sample, mask_of):
    plain, last = sample().prior.network, sample().prior.network.to(memory_format=torch.channels_last)
    masks = {n: mask_of(n, w) for n, w in prunable(plain).items()}
    assert not all(w.is_contiguous() for w in prunable(last).values())
    for network in (plain, last):
        WeightNoise(network, None if None in masks.values() else Mask(masks), 0.1, seed=0)(stream(0, "x"))
    assert all(torch.equal(w, prunable(last)[n]) for n, w in prunable(plain).items())


def test_each_step_has_noise_of_its_own(sample):
    noise = WeightNoise(sample().prior.network, None, 0.1, seed=0)
    a, b, again = (noise.draw(torch.Generator().manual_seed(noise.seed(s))) for s in (0, 1, 0))
    assert torch.equal(a, again)
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 4 / len(a) ** 0.5


def test_a_ticket_is_fitted_as_by_torchs_own_masks(sample, train, masks_of_rounds):
    """With torch's masks in the forward pass and noise on the kept weights, in the order of the parameters."""
    module, masks, collect = sample(), masks_of_rounds, Collect()
    train(module, IMP(rounds=1), masks, collect)
    mask = masks.kept[1]
    for name, w in prunable(module.prior.network).items():
        assert (w[~mask[name]] == 0).all()
    other = sample()
    layers = {n.removesuffix(".weight"): m for n, m in mask.items()}
    for name, kept in layers.items():
        prune.custom_from_mask(other.prior.network.get_submodule(name), "weight", kept.float())
    optimizer = torch.optim.Adam(other.prior.network.parameters(), lr=0.01, weight_decay=5e-8)
    losses = []
    for i in range(14):
        loss = nn.functional.mse_loss(other.prior(0, i), other.problems[0].measurement)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        noise = torch.empty(mask.count).normal_(0, 0.02, generator=stream(other.prior.seed, "noise on weights", i))
        with torch.no_grad():
            for name, kept in layers.items():
                weight = other.prior.network.get_submodule(name).weight_orig
                weight[kept] += noise[:int(kept.sum())]
                noise = noise[int(kept.sum()):]
        losses.append(float(loss.detach()))
    assert [r["loss"] for r in collect.records][-14:] == pytest.approx(losses, rel=2e-3)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_the_sparse_kernels_add_the_same_noise(sample, density, monkeypatch):
    try:
        library()
    except Unavailable as e:
        pytest.skip(f"no kernel library: {e}")
    ends = []
    for kernel in ("dense", "sparse"):
        module = sample()
        network, mask = module.prior.network, None
        if density < 1:
            mask = Mask({n: torch.rand(w.shape, generator=stream(1, n)) < 0.3 for n, w in prunable(network).items()})
            mask.apply(network)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0, fused=True)      # nothing moves but by the noise
        stepper = make_stepper(module, optimizer, mask, kernel)
        assert (type(stepper) is Sparse) == (kernel == "sparse")
        for step in range(3):
            stepper.step(step)
        stepper.settle()
        ends.append({n: p.detach().clone() for n, p in network.named_parameters()})
    for name, end in ends[0].items():
        torch.testing.assert_close(ends[1][name], end, atol=1e-6, rtol=1e-5)


class Die(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            raise RuntimeError("killed")


def test_killed_and_taken_up_it_ends_the_same(sample, train, tmp_path):
    whole, path = sample(), tmp_path / "checkpoint.ckpt"
    train(whole, IMP(rounds=1))
    with pytest.raises(RuntimeError, match="killed"):
        train(sample(), IMP(rounds=1), Checkpoint(path, 0.0), Die())
    again = sample()
    train(again, IMP(rounds=1), Checkpoint(path, 0.0), ckpt_path=path)
    one, two = whole.state_dict(), again.state_dict()
    assert one.keys() == two.keys() and all(
        torch.allclose(one[k], two[k], rtol=0, atol=0, equal_nan=True) for k in one)


def test_nothing_is_read_from_the_device(sample):
    """A CUDA graph can hold a step's end: on torch's meta device a number that is read back is an error."""
    module = sample().to("meta")
    module.follow([torch.empty(1, 3, 24, 20, device="meta")], torch.empty((), device="meta"))


def test_the_graph_has_a_generator_for_the_weights(sample, monkeypatch):
    """The body that is captured is seeded as the eager step; without a GPU it stays eager."""
    ends = []
    for kind in (Eager, Graphed):
        module = sample()
        stepper = kind(module, module.configure_optimizers(), None)
        assert len(stepper.seeds(0)) == 2
        for step in range(5):
            stepper.step(step)
        ends.append(module.prior.network.state_dict())
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_graph_adds_the_noise_of_the_eager_step(sample):
    """Nothing moves but by the noise: the same numbers, for all and for kept weights."""
    for density in (1.0, 0.3):
        ends = []
        for kind in (Eager, Graphed):
            module = sample().to("cuda")
            network, mask = module.prior.network, None
            if density < 1:
                drawn = {n: torch.rand(w.shape, generator=stream(1, n)) for n, w in prunable(network).items()}
                mask = Mask({n: d < density for n, d in drawn.items()})
                mask.apply(network)
            stepper = kind(module, torch.optim.Adam(network.parameters(), lr=0.0, fused=True), mask)
            for step in range(8):
                module.now.fill_(step + 1)
                stepper.step(step)
            assert (kind is Graphed) == (getattr(stepper, "graph", None) is not None)
            ends.append({n: w.detach().cpu() for n, w in prunable(network).items()})
        for name, end in ends[0].items():
            torch.testing.assert_close(ends[1][name], end, atol=1e-6, rtol=1e-5)


def test_mistakes_are_told_in_one_line(sample, picture):
    for options, told in [({"burn_in": 13}, "fit.burn_in=13 and fit.thin=3 leave no sample in fit.steps=14"),
                          ({"burn_in": "120%"}, "fit.burn_in must be a whole number of at least 0 or a percentage"),
                          ({"thin": 0}, "fit.thin must be a whole number of at least 1"),
                          ({"noise": -1}, "fit.noise must be a number in"),
                          ({"weight_decay": 2}, "fit.weight_decay must be a number in")]:
        with pytest.raises(InputError, match=told) as e:
            sample(**options)
        assert "\n" not in str(e.value)


def test_without_noise_there_is_none(sample):
    module = sample(noise=0)
    assert module.weight_noise(module.prior.network, None) is None
    assert stepping.make_stepper(module, module.configure_optimizers(), None, "dense").weight_noise is None
