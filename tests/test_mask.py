"""Masks: which weights count, exactly how many are kept, and that removed ones stay zero."""
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from lipfw.mask import Mask, keep_top, prunable
from lipfw.prior.decoder import DeepDecoder
from lipfw.prior.skip import Skip

SKIP_SHAPES = [                                                                 # facts, section 2.1
    (4, 32, 1, 1), (128, 32, 3, 3), (128, 128, 3, 3),
    (4, 128, 1, 1), (128, 128, 3, 3), (128, 128, 3, 3),
    (4, 128, 1, 1), (128, 128, 3, 3), (128, 128, 3, 3),
    (4, 128, 1, 1), (128, 128, 3, 3), (128, 128, 3, 3),
    (4, 128, 1, 1), (128, 128, 3, 3), (128, 128, 3, 3),
    (128, 132, 3, 3), (128, 128, 1, 1), (128, 132, 3, 3), (128, 128, 1, 1), (128, 132, 3, 3), (128, 128, 1, 1),
    (128, 132, 3, 3), (128, 128, 1, 1), (128, 132, 3, 3), (128, 128, 1, 1),
    (3, 128, 1, 1),
]


@pytest.mark.parametrize("name, make, total, weights, tensors", [
    ("hourglass, RGB", lambda: Skip(), 2_217_831, 2_208_768, 26),
    ("hourglass, grey", lambda: Skip(outputs=1), 2_217_573, 2_208_512, 26),
    ("deep decoder 128, RGB", lambda: DeepDecoder(), 100_224, 98_688, 7),
    ("deep decoder 128, grey", lambda: DeepDecoder(outputs=1), 99_968, 98_432, 7),
    ("deep decoder 320, RGB", lambda: DeepDecoder(channels=320), 619_200, 615_360, 7),
    ("deep decoder 320, grey", lambda: DeepDecoder(outputs=1, channels=320), 618_560, 614_720, 7),
])
def test_parameter_counts(name, make, total, weights, tensors):
    network = make()
    parameters, found = sum(p.numel() for p in network.parameters()), prunable(network)
    count = sum(p.numel() for p in found.values())
    print(f"{name}: {parameters:,} parameters, {count:,} prunable in {len(found)} tensors")
    assert (parameters, count, len(found)) == (total, weights, tensors)


def test_the_hourglass_has_the_published_tensors_in_a_fixed_order():
    shapes = [tuple(p.shape) for p in prunable(Skip()).values()]
    assert shapes == SKIP_SHAPES


def every_kind():
    shared = nn.Conv2d(2, 2, 3)
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Conv2d(1, 2, 3), nn.Conv3d(1, 2, 3), nn.ConvTranspose1d(1, 2, 3),
                         nn.ConvTranspose2d(1, 2, 3), nn.ConvTranspose3d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2),
                         nn.LayerNorm(2), shared, nn.Sequential(shared))


def test_convolutions_of_every_kind_count_and_nothing_else():
    assert list(prunable(every_kind())) == [f"{i}.weight" for i in (0, 1, 2, 3, 4, 5, 9)]


def test_a_network_without_convolutions_has_an_empty_mask():
    mask = Mask.ones(nn.Linear(2, 2))
    assert (len(mask), mask.total, mask.density, mask.sparsity) == (0, 0, 1.0, 0.0)


# ---- the mask itself --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int64])
def test_a_mask_that_is_not_boolean_is_refused(dtype):
    with pytest.raises(ValueError, match="mask of w must be boolean, got torch"):
        Mask({"w": torch.ones(3, dtype=dtype)})


def test_a_mask_knows_its_numbers():
    mask = Mask({"a": torch.tensor([True, False, False]), "b": torch.tensor([[False]])})
    assert (mask.count, mask.total, mask.density, mask.sparsity) == (1, 4, 0.25, 0.75)
    assert list(mask) == ["a", "b"] and "1 of 4 kept, sparsity 0.7500" in repr(mask)


def test_a_mask_does_not_follow_the_dict_it_was_made_of():
    kept = {"a": torch.ones(2, dtype=torch.bool)}
    mask = Mask(kept)
    kept["a"] = torch.zeros(2, dtype=torch.bool)
    assert mask["a"].all()


@pytest.mark.parametrize("change, message", [
    (lambda m: m.pop("1.weight"), "the mask has nothing for 1.weight"),
    (lambda m: m.update({"x.weight": torch.ones(1, dtype=torch.bool)}), "no convolution weight named x.weight"),
    (lambda m: m.update({"7.weight": torch.ones(2, 2, dtype=torch.bool)}), "no convolution weight named 7.weight"),
    (lambda m: m.update({"1.weight": torch.ones(2, 3, dtype=torch.bool)}), r"1.weight is \(2, 1, 3, 3\).*\(2, 3\)"),
])
def test_check_names_the_first_tensor_that_does_not_fit(change, message):
    network = every_kind()
    kept = dict(Mask.ones(network))
    Mask(kept).check(network)
    change(kept)
    with pytest.raises(ValueError, match=message):
        Mask(kept).check(network)


# ---- keep_top ---------------------------------------------------------------------------------------------------

@st.composite
def scored(draw):
    """(scores, which are available, count), with many ties."""
    values = st.one_of(st.integers(-2, 2).map(float), st.floats(-2.0**99, 2.0**99, width=32))
    scores = draw(st.lists(values, min_size=2, max_size=30))
    within = draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    return scores, within, draw(st.integers(0, len(scores) if within is None else sum(within)))


@settings(max_examples=150, deadline=None)
@given(scored(), st.data())
def test_keep_top_is_a_sort_by_score_then_position(case, data):
    scores, within, count = case
    cut = data.draw(st.integers(1, len(scores) - 1))
    allowed = [i for i in range(len(scores)) if within is None or within[i]]
    best = set(sorted(allowed, key=lambda i: (-scores[i], i))[:count])

    def parts(values, **kwargs):
        t = torch.tensor(values, **kwargs)
        return {"b": t[:cut].reshape(1, -1), "a": t[cut:]}

    mask = keep_top(parts(scores), count, None if within is None else Mask(parts(within)))
    kept = torch.cat([m.flatten() for m in mask.values()]).tolist()
    assert kept == [i in best for i in range(len(scores))] and mask.count == count
    assert mask["b"].shape == (1, cut) and list(mask) == ["b", "a"]


def test_all_equal_scores_are_kept_by_position():
    mask = keep_top({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, 7)
    assert mask["a"].all() and mask["b"].tolist() == [True, False, False, False]


def test_masks_of_later_rounds_are_nested():
    torch.manual_seed(0)
    mask = None
    for count in (80, 64, 51, 1, 0):
        scores = {n: torch.randn(50).abs() for n in "ab"}
        last, mask = mask, keep_top(scores, count, mask)
        assert mask.count == count
        assert last is None or all((mask[n] <= last[n]).all() for n in "ab")


@pytest.mark.parametrize("count, within", [(5, None), (-1, None), (3, [True, False, True, False])])
def test_a_count_that_is_not_available_is_refused(count, within):
    within = within and Mask({"w": torch.tensor(within)})
    with pytest.raises(ValueError, match=f"can't keep {count} of {2 if within else 4} weights"):
        keep_top({"w": torch.arange(4.0)}, count, within)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="scores of up.weight are not finite"):
        keep_top({"down.weight": torch.ones(2), "up.weight": torch.tensor([1.0, bad])}, 1)


@pytest.mark.parametrize("count", [0, 1, 500, 1131, 1132])
def test_the_smallest_magnitudes_go_as_in_torchs_global_pruning(count):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ConvTranspose2d(16, 8, 2), nn.Conv2d(8, 2, 2, bias=False))
    weights = prunable(network)
    total = sum(w.numel() for w in weights.values())
    mask = keep_top({n: w.abs() for n, w in weights.items()}, total - count)
    prune.global_unstructured([(m, "weight") for m in network], prune.L1Unstructured, amount=count)
    for i, layer in enumerate(network):
        assert torch.equal(mask[f"{i}.weight"], layer.weight_mask.bool())


# ---- removed weights stay zero ----------------------------------------------------------------------------------

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6), nn.LeakyReLU(0.2),
                         nn.ConvTranspose2d(6, 4, 2, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


OPTIMISERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "foreach adam": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_held_weights_stay_zero_and_the_others_move_as_with_weight_times_mask(optimiser):
    network = small()
    mask = keep_top({n: torch.rand_like(w) for n, w in prunable(network).items()}, 60)
    product = copy.deepcopy(network)
    for name in mask:
        prune.custom_from_mask(product[int(name.split(".")[0])], "weight", mask[name])
    mask.apply(network)
    mask_gradients = mask.gradients(network)
    assert not any("mask" in key for key in network.state_dict())

    pair = [(net, OPTIMISERS[optimiser](list(net.parameters()))) for net in (network, product)]
    for step in range(6):
        torch.manual_seed(step)
        inputs = torch.rand(2, 1, 2, 8, 8)
        for net, opt in pair:
            opt.zero_grad(set_to_none=step % 2 == 0)
            for x in inputs:                            # two backward passes a step, as with two pictures
                (net(x) - 0.3).square().mean().backward()
            if net is network:
                mask_gradients()
            opt.step()
        for name, kept in mask.items():
            layer, weight = product[int(name.split(".")[0])], prunable(network)[name]
            assert (weight[~kept] == 0).all() and weight[kept].ne(0).all()
            assert torch.equal(weight.grad, layer.weight_orig.grad)
            assert weight.grad[kept].ne(0).any()
            assert torch.equal(weight[kept], layer.weight_orig[kept])
        for own, other in zip(network.buffers(), (b for n, b in product.named_buffers() if "mask" not in n),
                              strict=True):
            assert torch.equal(own, other)


def test_apply_zeroes_the_removed_weights_and_nothing_else():
    network = small()
    before = copy.deepcopy(network.state_dict())
    mask = keep_top({n: torch.rand_like(w) for n, w in prunable(network).items()}, 60)
    mask.apply(network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] * mask[name] if name in mask else before[name])


def test_weights_without_a_gradient_are_left_alone():
    network = small()
    mask = keep_top({n: torch.rand_like(w) for n, w in prunable(network).items()}, 10)
    mask_gradients = mask.gradients(network)
    mask_gradients()
    first = next(iter(mask))
    prunable(network)[first].grad = torch.ones_like(mask[first], dtype=torch.float32)
    mask_gradients()
    assert torch.equal(prunable(network)[first].grad, mask[first].float())


def test_a_shared_module_is_masked_once():
    torch.manual_seed(1)        # some draws have a dead ReLU
    shared = nn.Conv2d(2, 2, 3, padding=1)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    mask = keep_top({n: w.abs() for n, w in prunable(network).items()}, 20)
    mask.apply(network)
    network(torch.rand(1, 2, 5, 5)).square().mean().backward()
    mask.gradients(network)()
    assert (shared.weight.grad[~mask["0.weight"]] == 0).all() and shared.weight.grad[mask["0.weight"]].ne(0).all()
