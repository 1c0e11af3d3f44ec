"""SNIP, GraSP and SynFlow against finite differences, Hessians and closed forms."""
import copy
from itertools import pairwise

import pytest
import torch
from test_pruner import refused
from torch import nn

from lipfw.mask import Degenerate, prunable
from lipfw.prior.decoder import DeepDecoder
from lipfw.prior.skip import Skip
from lipfw.pruner.grasp import GraSP
from lipfw.pruner.magnitude import Magnitude
from lipfw.pruner.snip import SNIP
from lipfw.pruner.synflow import SynFlow, absolute, ones
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint


class Scalar:
    """A fit of one network to a number: the loss is the square of (its output for `x`, summed) - `target`."""

    def __init__(self, network, x, target):
        self.network, self.x, self.target = network, x, target

    def losses(self, draw=0):
        yield (self.network(self.x).sum() - self.target) ** 2

    def code_shape(self):
        return self.x.shape


def objective(module, draws):
    """The loss averaged over draws of the jitter, written once more: mean squared errors of masked pictures."""
    total = 0
    for draw in range(draws):
        for i, p in enumerate(module.problems):
            made = p.operator(module.prior(i, draw))
            total = total + ((made - p.measurement.to(made)) ** 2).mean() / len(module.problems) / draws
    return total


@pytest.fixture
def module(make, picture):
    """A fit in float64 of two pictures, one with noise and one with holes, with batch norm and in-place leaky ReLUs."""
    module = make(problems=[Denoise(25, 1)(picture), Inpaint(missing=0.5, seed=2)(picture)]).double()
    for p in module.problems:
        p.operator.double()
    return module.train()


def entries(network, each):
    """Some entries of each weight, as (name, weight, index)."""
    generator = torch.Generator().manual_seed(0)
    for name, w in prunable(network).items():
        for i in torch.randperm(w.numel(), generator=generator)[:each].tolist():
            yield name, w.data.view(-1), i


@pytest.mark.parametrize("draws", [1, 3])
def test_snip_is_the_derivative_of_the_loss_by_the_mask(module, draws):
    scores = SNIP(draws=draws).score(module.prior.network, module)
    eps = 1e-5
    with torch.no_grad():
        for name, w, i in entries(module.prior.network, 6):
            theta, by_mask = w[i].item(), []
            for m in (1 + eps, 1 - eps):
                w[i] = theta * m
                by_mask.append(float(objective(module, draws)))
            w[i] = theta
            want = abs(by_mask[0] - by_mask[1]) / (2 * eps)
            assert float(scores[name].view(-1)[i]) / draws == pytest.approx(want, rel=1e-4, abs=1e-10), name


@pytest.mark.parametrize("draws", [1, 3])
def test_grasp_is_the_hessian_times_the_gradient(module, draws):
    """By central differences of the gradient, which the test of SNIP has compared with the loss."""
    network = module.prior.network
    scores, weights = GraSP(draws=draws).score(network, module), prunable(network)

    def gradient():
        return torch.autograd.grad(objective(module, draws), list(weights.values()))

    g, eps, ends = gradient(), 1e-5, []
    for sign in (1, -1):
        moved = copy.deepcopy(network.state_dict())
        with torch.no_grad():
            for w, d in zip(weights.values(), g, strict=True):
                w += sign * eps * d
        ends.append(gradient())
        network.load_state_dict(moved)
    for (name, w), high, low in zip(weights.items(), *ends, strict=True):
        want = w.detach() * (high - low) / (2 * eps)
        assert torch.allclose(scores[name] / draws**2, want, rtol=1e-4, atol=1e-7 * float(want.abs().max())), name
        assert (want > 0).any() and (want < 0).any()


def test_grasp_by_a_whole_hessian():
    """torch's own Hessian of a network of 2 convolutions with a batch norm, a function of all weights at once."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(3),
                            nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(3, 1, 1)).double()
    fit = Scalar(network, torch.rand(1, 2, 5, 4, dtype=torch.float64), 3.0)
    weights = prunable(network)

    def loss(flat):
        parts = flat.split([w.numel() for w in weights.values()])
        given = {n: p.view_as(w) for (n, w), p in zip(weights.items(), parts, strict=True)}
        return (torch.func.functional_call(network, given, (fit.x,)).sum() - fit.target) ** 2

    theta = torch.cat([w.detach().flatten() for w in weights.values()])
    g = torch.autograd.functional.jacobian(loss, theta)
    h = torch.autograd.functional.hessian(loss, theta)
    have = torch.cat([s.flatten() for s in GraSP().score(network, fit).values()])
    assert torch.allclose(have, theta * (h @ g), rtol=1e-9) and (have.abs() > 1e-6).sum() > 20


def chain(*weights):
    """1x1 convolutions without biases, of these weights."""
    network = nn.Sequential(*(nn.Conv2d(w.shape[1], w.shape[0], 1, bias=False) for w in weights)).double()
    for layer, w in zip(network, weights, strict=True):
        layer.weight.data.copy_(w[..., None, None])
    return network


def test_snip_and_grasp_of_two_numbers_by_hand():
    """L = (a b x - t)^2 with a = 2, b = -0.5, x = 3, t = 1: r = -4; g = (12, -48); H = [[4.5, 42 - 84], [., 72]]."""
    network = chain(torch.tensor([[2.0]]), torch.tensor([[-0.5]]))
    fit = Scalar(network, torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64), 1.0)
    a, b, x, r = 2, -0.5, 3, -4
    ga, gb = 2 * r * b * x, 2 * r * a * x
    haa, hbb, hab = 2 * (b * x) ** 2, 2 * (a * x) ** 2, 2 * a * b * x * x + 2 * r * x
    assert [s.item() for s in SNIP().score(network, fit).values()] == [abs(ga * a), abs(gb * b)] == [24, 24]
    assert [s.item() for s in GraSP().score(network, fit).values()] == pytest.approx(
        [a * (haa * ga + hab * gb), b * (hab * ga + hbb * gb)])


def test_grasp_keeps_the_largest_theta_hg():
    """Of either sign: the lowest go, and those are where the gradient's norm grows most when they are removed."""
    torch.manual_seed(3)
    network = chain(torch.randn(2, 3), torch.randn(1, 2))
    fit = Scalar(network, torch.rand(1, 3, 1, 1, dtype=torch.float64), 1.0)
    pruner = GraSP()
    scores = torch.cat([s.flatten() for s in pruner.score(network, fit).values()])
    mask = pruner.prune(network, fit, 5, None, 1)
    kept = torch.cat([m.flatten() for m in mask.values()])
    assert kept.sum() == 5 and scores[kept].min() >= scores[~kept].max() and (scores < 0).any()


def test_a_shared_convolution_is_scored_once_for_both_its_uses():
    torch.manual_seed(0)
    shared = nn.Conv2d(2, 2, 1, bias=False)
    network = nn.Sequential(shared, nn.LeakyReLU(0.2), shared).double()
    fit = Scalar(network, torch.rand(1, 2, 3, 3, dtype=torch.float64), 1.0)
    scores, eps = SNIP().score(network, fit), 1e-6
    w = shared.weight.data.view(-1)
    for i in range(4):
        theta, ends = w[i].item(), []
        for m in (1 + eps, 1 - eps):
            w[i] = theta * m
            ends.append(next(fit.losses()).item())
        w[i] = theta
        assert scores["0.weight"].view(-1)[i].item() == pytest.approx(abs(ends[0] - ends[1]) / (2 * eps), rel=1e-5)
    for pruner in (SNIP(), GraSP(), SynFlow()):
        assert list(pruner.score(network, fit)) == ["0.weight"]


# ---- SynFlow --------------------------------------------------------------------------------------------------------

def test_synflow_of_two_linear_layers_by_hand():
    """R = pixels * sum |V| |W|; a weight of W carries what leaves its output, one of V what comes into its input."""
    torch.manual_seed(0)
    w, v = torch.randn(4, 3).double(), torch.randn(2, 4).double()
    scores = SynFlow().score(chain(w, v), Scalar(None, torch.empty(1, 3, 8, 6), 0))
    pixels = 4          # a code of 2 x 2 tells as much
    assert torch.allclose(scores["0.weight"][..., 0, 0], pixels * w.abs() * v.abs().sum(0)[:, None])
    assert torch.allclose(scores["1.weight"][..., 0, 0], pixels * v.abs() * w.abs().sum(1))


def test_synflow_steps_are_those_of_a_plain_loop():
    """Three steps to 13 of 20 weights: 17, 15, 13 are left (20 * 0.65^(k / 3)), each ranked anew."""
    torch.manual_seed(1)
    w, v = torch.randn(4, 3).double(), torch.randn(2, 4).double()
    mask = SynFlow(steps=3).prune(chain(w, v), Scalar(None, torch.empty(1, 3, 1, 1), 0), 13, None, 1)
    a, b = w.abs(), v.abs()
    for left in (17, 15, 13):
        scores = torch.cat([(a * b.sum(0)[:, None]).flatten(), (b * a.sum(1)).flatten()])
        threshold = scores.sort(descending=True).values[left - 1]
        kept = scores >= threshold
        assert kept.sum() == left
        a, b = a * kept[:12].view(4, 3), b * kept[12:].view(2, 4)
    assert torch.equal(mask["0.weight"][..., 0, 0], a > 0) and torch.equal(mask["1.weight"][..., 0, 0], b > 0)


def positive_chain():
    """No biases, and all that the hourglass has: reflection, strides, batch norm, leaky ReLUs, doubling."""
    reflect = dict(padding=1, padding_mode="reflect", bias=False)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, **reflect), nn.BatchNorm2d(8), nn.LeakyReLU(0.2, inplace=True),
                         nn.Conv2d(8, 16, 3, **reflect), nn.BatchNorm2d(16), nn.LeakyReLU(0.2, inplace=True),
                         nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 2, 1, bias=False))


def test_synflow_is_conserved_from_layer_to_layer():
    """Without biases each layer's scores sum to R, whatever the signs of the weights."""
    torch.manual_seed(0)
    network, shape = positive_chain(), torch.Size([1, 3, 16, 12])
    scores = SynFlow().score(network, Scalar(None, torch.empty(shape), 0))
    positive = absolute(network)
    r = positive(ones(positive, shape)).sum().item()
    sums = [float(s.sum()) for s in scores.values()]
    assert len(sums) == 3 and sums == pytest.approx([r] * 3, rel=1e-12) and r > 0


def test_synflow_empties_no_layer_where_magnitudes_do():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 32, 1), nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"),
                            nn.Conv2d(32, 1, 1))
    fit = Scalar(None, torch.empty(1, 1, 8, 8), 0)
    count = 30
    by_magnitude = Magnitude().prune(network, fit, count, None, 1)
    assert not by_magnitude["1.weight"].any()       # 9,216 weights of at most 1 / sqrt(288)
    mask = SynFlow().prune(network, fit, count, None, 1)
    assert mask.count == count and all(m.any() for m in mask.values())
    positive = absolute(network)
    for p in positive.parameters():
        if p.ndim == 1:
            p.data.zero_()          # biases would pass something where no weight does
    mask.apply(positive)
    assert positive(torch.ones(1, 1, 8, 8, dtype=torch.float64)).sum().item() > 0


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12, 17, 30, 31, 60])
def test_synflow_goes_down_to_a_single_path_and_no_further(count):
    """A unit that is cut off leaves weights that carry nothing: they go next, and are no reason to give up."""
    torch.manual_seed(0)
    network = chain(torch.randn(6, 2), torch.randn(6, 6), torch.randn(6, 6), torch.randn(1, 6))
    fit = Scalar(None, torch.empty(1, 2, 1, 1), 0)
    if count < 4:
        with pytest.raises(Degenerate, match="same score, 0"):
            SynFlow().prune(network, fit, count, None, 1)
        return
    mask = SynFlow().prune(network, fit, count, None, 1)
    assert mask.count == count
    mask.apply(network)
    assert absolute(network)(torch.ones(1, 2, 1, 1, dtype=torch.float64)).item() > 0


def hourglass():
    torch.manual_seed(0)
    return Skip(inputs=8, channels=8, depth=5, skip=2)


def test_synflow_ranks_are_those_of_any_size_for_the_hourglass(monkeypatch):
    """Masks by a code of 64, 128 and 96 x 128 pixels are those by the small one, bit for bit."""
    network, fit = hourglass(), Scalar(None, torch.empty(1, 8, 256, 320), 0)
    want = SynFlow(steps=6).prune(network, fit, 1500, None, 1)
    assert want.count == 1500
    for size in ((64, 64), (128, 128), (96, 128)):
        monkeypatch.setattr("lipfw.pruner.synflow.ones",
                            lambda net, shape, size=size: torch.ones(1, 8, *size, dtype=torch.float64))
        mask = SynFlow(steps=6).prune(network, fit, 1500, None, 1)
        assert all(torch.equal(mask[n], want[n]) for n in want)


@pytest.mark.parametrize("make, shape, small", [
    (hourglass, (1, 8, 256, 320), (33, 33)), (lambda: DeepDecoder(channels=4), (1, 4, 8, 10), (2, 2)),
    (lambda: DeepDecoder(channels=4), (1, 4, 8, 1), (2, 1)), (lambda: DeepDecoder(channels=4), (1, 4, 1, 1), (1, 1)),
    (lambda: Skip(4, 3, 6, 2, 2), (1, 4, 24, 20), (5, 5)), (lambda: Skip(4, 3, 6, 2, 2), (1, 4, 40, 8), (5, 5)),
    (lambda: nn.Conv2d(4, 4, 3, padding=1), (1, 4, 24, 20), (24, 20)),      # zeros beside: the size tells
    (lambda: nn.Conv2d(4, 4, 3), (1, 4, 24, 20), (3, 3))])
def test_the_code_of_ones_is_as_small_as_the_network_allows(make, shape, small):
    network = absolute(make())
    code = ones(network, torch.Size(shape))
    assert code.shape == (*shape[:2], *small) and code.dtype == torch.float64 and (code == 1).all()
    assert network(code).isfinite().all()


def test_synflow_scores_absolute_weights_whatever_a_fit_left_in_batch_norm():
    """A rewound network has statistics of its pictures; subtracted means would make maps negative."""
    torch.manual_seed(0)
    network, shape = positive_chain(), torch.Size([1, 3, 16, 12])
    fit = Scalar(None, torch.empty(shape), 0)
    want = SynFlow().score(network, fit)
    negative = copy.deepcopy(network)
    with torch.no_grad():
        for w in prunable(negative).values():
            w.neg_()
    for _ in range(9):
        negative(torch.rand(4, 3, 16, 12))
    have = SynFlow().score(negative, fit)
    assert all(torch.equal(have[n], want[n]) and (want[n] > 0).all() for n in want)
    assert float(negative[1].running_mean.abs().max()) > 0.01


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_synflow_refuses_a_network_that_nothing_flows_through(value):
    network = positive_chain()
    nn.init.constant_(network[-1].weight, value)
    with pytest.raises(Degenerate):
        SynFlow(steps=4).prune(network, Scalar(None, torch.empty(1, 3, 16, 16), 0), 40, None, 1)


# ---- all of them ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pruner", [SNIP(), SNIP(draws=2), GraSP(), SynFlow(steps=3)])
def test_scoring_leaves_nothing_behind(make, pruner):
    """Neither gradients nor other weights, settings or random numbers; scores are those of the prunable weights."""
    module = make().train()
    network = module.prior.network
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    state, modes = torch.get_rng_state(), [m.training for m in network.modules()]
    scores = pruner.score(network, module)
    mask = pruner.prune(network, module, 300, None, 1)
    assert mask.count == 300 and list(mask) == list(scores) == list(prunable(network))
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None and p.requires_grad, name
    for name, w in prunable(network).items():
        assert scores[name].shape == w.shape and scores[name].device == w.device and not scores[name].requires_grad
        assert torch.isfinite(scores[name]).all()
    assert torch.equal(state, torch.get_rng_state()) and modes == [m.training for m in network.modules()]


def test_draws_differ_by_the_jitter_and_are_averaged(make):
    module = make().train()
    network = module.prior.network

    class One:
        """The same fit, of one draw."""
        def __init__(self, draw):
            self.draw = draw

        def losses(self, draw=0):
            return module.losses(self.draw)

    first, second = (SNIP().score(network, One(d)) for d in (0, 1))
    assert any(not torch.equal(first[n], second[n]) for n in first)
    both = SNIP(draws=2).score(network, module)
    assert any((both[n] < (first[n] + second[n]) * 0.999).any() for n in both)      # signs are averaged, not sizes
    assert all((both[n] <= (first[n] + second[n]) * 1.001 + 1e-9).all() for n in both)


def test_more_weights_stay_in_denser_rounds_of_one_shot_scores(make):
    module = make().train()
    network = module.prior.network
    for pruner in (SNIP(), GraSP()):
        masks = [pruner.prune(network, module, c, None, r) for r, c in enumerate((900, 500, 100))]
        assert [m.count for m in masks] == [900, 500, 100]
        assert all((small[n] <= large[n]).all() for large, small in pairwise(masks) for n in small)


@pytest.mark.parametrize("pruner", [SNIP, GraSP])
def test_scores_of_a_network_that_has_nothing_to_learn_are_refused(pruner):
    network = chain(torch.ones(2, 2))
    fit = Scalar(network, torch.ones(1, 2, 1, 1, dtype=torch.float64), 4.0)     # the loss is 0, and so its gradient
    with pytest.raises(Degenerate, match="all 4 weights have the same score, 0"):
        pruner().prune(network, fit, 2, None, 1)


@pytest.mark.parametrize("pruner, name", [(SNIP, "draws"), (GraSP, "draws"), (SynFlow, "steps")])
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", True, None])
def test_bad_counts(pruner, name, value):
    refused(lambda: pruner(**{name: value}), f"pruner.{name}", "at least 1", f"got {value!r}")
