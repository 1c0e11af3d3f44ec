"""Priors: the networks against ones that are built apart, codes and jitter against their definition."""
import importlib
import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from lipfw.errors import InputError
from lipfw.prior import decoder, skip
from lipfw.prior.prior import Prior, rebuild
from lipfw.prior.skip import Skip

BUILDS = {"skip": lambda shapes, **o: skip.build(shapes, **{"channels": 6, "depth": 3, "code_channels": 4, **o}),
          "decoder": lambda shapes, **o: decoder.build(shapes, **{"channels": 6, "depth": 3, **o})}
both = pytest.mark.parametrize("build", BUILDS.values(), ids=list(BUILDS))


# ---- the hourglass ----------------------------------------------------------------------------------------------

def plain_dip():
    spec = importlib.util.spec_from_file_location(
        "plain_dip", Path(__file__).parents[1] / "benchmarks" / "plain_dip.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_in_order(source, target):
    pairs = list(zip(source.parameters(), target.parameters(), strict=True))
    with torch.no_grad():
        for a, b in pairs:
            assert a.shape == b.shape
            b.copy_(torch.randn_like(a) * 0.3 + a)      # batch norm's ones and zeros would hide a swap
            a.copy_(b)


@pytest.mark.parametrize("depth, size", [(5, (64, 64)), (5, (64, 96)), (2, (8, 12))])
def test_the_hourglass_is_the_nested_network_of_the_benchmark(depth, size):
    torch.manual_seed(0)
    network = Skip(8, 3, channels=12, depth=depth, skip=4)
    nested = nn.Sequential(plain_dip().Scale(8, 12, depth, skip=4), nn.Conv2d(12, 3, 1))
    copy_in_order(network, nested)
    for _ in range(2):                                  # twice: the running averages must not matter
        x = torch.rand(1, 8, *size)
        torch.testing.assert_close(network(x), nested(x), rtol=0, atol=1e-5)


def published(parameters, x, depth):
    """The recursive definition of facts, section 2.1, in plain functions; `parameters` in creation order."""
    def norm(x):
        weight, bias = next(parameters), next(parameters)
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)

    def conv(x, stride=1):
        weight, bias = next(parameters), next(parameters)
        return F.conv2d(F.pad(x, 4 * (weight.shape[-1] // 2,), mode="reflect"), weight, bias, stride)

    def block(x, stride=1):
        return F.leaky_relu(norm(conv(x, stride)), 0.2)

    def centre(x, like):
        top, left = ((n - m) // 2 for n, m in zip(x.shape[2:], like, strict=True))
        return x[:, :, top:top + like[0], left:left + like[1]]

    def scale(x, level):
        skipped = block(x)
        deep = block(block(x, stride=2))
        if level < depth:
            deep = scale(deep, level + 1)
        deep = F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
        size = [min(a, b) for a, b in zip(skipped.shape[2:], deep.shape[2:], strict=True)]
        return block(block(norm(torch.cat([centre(skipped, size), centre(deep, size)], 1))))

    return conv(scale(x, 1))


@pytest.mark.parametrize("depth, size", [(3, (16, 24)), (3, (33, 45)), (3, (50, 27)), (5, (33, 50)), (1, (3, 5))])
def test_the_hourglass_is_its_definition_at_odd_sizes_too(depth, size):
    torch.manual_seed(0)
    network = Skip(4, 3, channels=6, depth=depth, skip=2)
    copy_in_order(network, Skip(4, 3, channels=6, depth=depth, skip=2))
    x = torch.rand(1, 4, *size)
    expected = published(iter(network.parameters()), x, depth)
    assert expected.shape == (1, 3, *size)
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)


def test_convolutions_start_as_torch_starts_them():
    prior = skip.build([(3, 64, 64)], channels=16, depth=2)
    for conv in (m for m in prior.network.modules() if isinstance(m, nn.Conv2d)):
        bound = conv.weight[0].numel() ** -0.5
        assert conv.weight.abs().max() <= bound and conv.bias.abs().max() <= bound
        cdf = stats.uniform(-bound, 2 * bound).cdf
        assert stats.kstest(conv.weight.detach().flatten().numpy(), cdf).pvalue > 1e-4
    for norm in (m for m in prior.network.modules() if isinstance(m, nn.BatchNorm2d)):
        assert (norm.weight == 1).all() and (norm.bias == 0).all() and (norm.eps, norm.momentum) == (1e-5, 0.1)


@pytest.mark.parametrize("depth", range(1, 7))
def test_a_picture_that_is_too_small_is_refused_with_a_depth_that_works(depth):
    for side in {4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 2 ** (depth + 1) - 1} & set(range(4, 2 ** (depth + 1))):
        with pytest.raises(InputError) as error:
            BUILDS["skip"]([(3, 128, 128), (3, side, 90)], depth=depth)
        text = str(error.value)
        assert "\n" not in text and f"90x{side}" in text and f"prior.depth={depth}" in text
        fits = int(re.search(r"use prior.depth=(\d+)", text)[1])
        BUILDS["skip"]([(3, side, 90)], depth=fits)
        with pytest.raises(InputError):
            BUILDS["skip"]([(3, side, 90)], depth=fits + 1)
    prior = BUILDS["skip"]([(1, 2 ** (depth + 1), 2 ** (depth + 1))], depth=depth)
    assert prior().isfinite().all()


@pytest.mark.parametrize("side", [1, 2, 3])
def test_no_depth_is_promised_where_none_works(side):
    with pytest.raises(InputError) as error:
        BUILDS["skip"]([(3, side, 90)], depth=1)
    assert "use prior.depth" not in str(error.value) and "prior.depth=1" in str(error.value)


# ---- the deep decoder -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("depth, size", [(5, (1, 2)), (2, (3, 5))])
def test_the_deep_decoder_is_its_definition(depth, size):
    torch.manual_seed(0)
    network = decoder.DeepDecoder(3, channels=7, depth=depth)
    copy_in_order(network, decoder.DeepDecoder(3, channels=7, depth=depth))
    x = expected = torch.rand(1, 7, *size)
    parameters = iter(network.parameters())
    for block in range(depth + 1):
        expected = torch.einsum("oi,bihw->bohw", next(parameters)[:, :, 0, 0], expected)
        if block < depth:
            expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=False)
        expected = expected.clamp(min=0)
        var, mean = torch.var_mean(expected, (2, 3), correction=0, keepdim=True)
        gamma, beta = next(parameters), next(parameters)
        expected = (expected - mean) / (var + 1e-5).sqrt() * gamma.view(1, -1, 1, 1) + beta.view(1, -1, 1, 1)
    expected = torch.einsum("oi,bihw->bohw", next(parameters)[:, :, 0, 0], expected)
    assert not list(parameters)
    found = network(x)
    assert found.shape == (1, 3, size[0] * 2**depth, size[1] * 2**depth)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_deep_decoders_code_is_the_picture_divided_and_rounded_up():
    prior = decoder.build([(3, 50, 70), (3, 64, 64)], channels=5, depth=5)
    assert prior.code(0).shape == (1, 5, 2, 3) and prior.code(1).shape == (1, 5, 2, 2)


# ---- both -------------------------------------------------------------------------------------------------------

@both
@pytest.mark.parametrize("shape", [(3, 50, 70), (3, 64, 64), (1, 37, 31), (3, 17, 16)])
def test_the_output_is_a_picture_of_the_size_asked_for(build, shape):
    x = build([shape], jitter=0.1)(0, 1)
    assert x.shape == (1, *shape) and 0 < x.min() < x.max() < 1


@both
def test_several_pictures_of_several_sizes_share_the_network(build):
    prior = build([(1, 50, 70), (1, 16, 20)])
    assert prior(0).shape == (1, 1, 50, 70) and prior(1).shape == (1, 1, 16, 20)
    assert [id(p) for p in prior.unknowns()] == [id(p) for p in prior.network.parameters()]
    same = build([(1, 16, 20)] * 2)
    assert not torch.equal(same.code(0), same.code(1))


def test_the_surplus_is_cut_evenly_and_squashed():
    z = torch.randn(1, 2, 8, 9)
    prior = Prior(nn.Identity(), [z], [(2, 5, 5)])
    torch.testing.assert_close(prior(), 1 / (1 + (-z[:, :, 1:6, 2:7]).exp()), rtol=0, atol=1e-6)


@both
def test_codes_are_uniform_up_to_a_tenth(build):
    z = build([(3, 512, 512)]).code().flatten()[:20_000]
    assert stats.kstest(z.numpy(), stats.uniform(0, 0.1).cdf).pvalue > 1e-3


@both
def test_weights_and_codes_follow_from_the_seed_alone(build):
    def values(seed):
        prior = build([(3, 20, 24)], seed=seed)
        return torch.cat([v.flatten() for v in (*prior.network.parameters(), prior.code())])

    expected = values(0)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    assert torch.equal(values(0), expected)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (values(1) != expected).float().mean() > 0.6     # batch norm's ones and zeros are the same


@both
def test_weights_do_not_depend_on_the_pictures(build):
    a, b = build([(3, 20, 24)]), build([(3, 33, 16), (3, 64, 64)])
    assert all(torch.equal(p, q) for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True))


@pytest.mark.parametrize("jitter", [1 / 30, 0.05])
def test_jitter_is_a_function_of_seed_picture_and_step(jitter):
    def noise(seed=0, index=0, step=3):
        prior = Prior(nn.Identity(), [torch.zeros(1, 4, 50, 50)] * 2, [(4, 50, 50)] * 2, jitter=jitter, seed=seed)
        prior.code(index, 99)
        return prior.code(index, step).flatten()

    expected = noise()
    torch.manual_seed(1)
    assert torch.equal(noise(), expected)
    assert stats.kstest(expected.numpy() / jitter, "norm").pvalue > 1e-3
    for other in (noise(seed=1), noise(index=1), noise(step=0), noise(step=4)):
        assert abs(torch.corrcoef(torch.stack([expected, other]))[0, 1]) < 0.04


def test_jitter_is_added_to_the_code_only_at_a_step():
    z = torch.rand(1, 2, 8, 8)
    prior = Prior(nn.Identity(), [z], [(2, 8, 8)], jitter=0.5)
    assert torch.equal(prior.code(), z) and torch.equal(prior.code(0, None), z)
    first = prior.code(0, 0)
    assert 0.3 < (first - z).std() < 0.7 and torch.equal(prior.code(0, 0), first) and torch.equal(prior.code(), z)
    assert torch.equal(prior(0, 0), torch.sigmoid(first))
    still = Prior(nn.Identity(), [z], [(2, 8, 8)])
    assert torch.equal(still.code(0, 5), z)


@both
def test_checkpoints_hold_the_network_and_no_codes(build):
    prior = build([(3, 20, 24)])
    assert all(key.startswith("network.") for key in prior.state_dict())


@both
def test_the_architecture_is_told_in_json_and_builds_the_network_again(build):
    prior = build([(1, 20, 24)])
    told = json.loads(json.dumps(prior.architecture))
    network = rebuild(told)
    assert type(network) is type(prior.network) and network.code_channels == prior.code().shape[1]
    assert all(p.is_meta for p in network.parameters())
    network.to_empty(device="cpu").load_state_dict(prior.network.state_dict())
    with pytest.raises(ValueError, match="no network can be built from the architecture .*colour"):
        rebuild(prior.architecture | {"colour": 3})


@pytest.mark.parametrize("name", ["prior", "os", "skip.Skip", "", None, ["skip"]])
def test_no_other_module_is_a_network(name):
    with pytest.raises(InputError, match=r"the network must be one of .*decoder.*skip.*, got"):
        rebuild({"network": name})


def test_every_prior_tells_how_its_network_is_built_again():
    priors = {p.stem for p in Path(decoder.__file__).parent.glob("*.py")} - {"__init__", "prior", "custom", "none"}
    assert priors >= set(BUILDS)
    for name in priors - {"unet", "convdecoder"}:       # deepinv's: test_custom
        assert issubclass(importlib.import_module(f"lipfw.prior.{name}").NETWORK, nn.Module)


@both
def test_grey_and_colour_do_not_share_a_network(build):
    with pytest.raises(ValueError, match=r"pictures of \[1, 3\] channels"):
        build([(3, 32, 32), (1, 32, 32)])


@both
@pytest.mark.parametrize("name", ["channels", "depth"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "5", True, None])
def test_bad_sizes(build, name, value):
    with pytest.raises(InputError, match=rf"prior\.{name} must be a whole number of at least 1, got"):
        build([(3, 64, 64)], **{name: value})


@pytest.mark.parametrize("name", ["skip_channels", "code_channels"])
def test_bad_sizes_of_the_hourglass(name):
    with pytest.raises(InputError, match=rf"prior\.{name} must be a whole number of at least 1, got 0"):
        BUILDS["skip"]([(3, 64, 64)], **{name: 0})


@both
@pytest.mark.parametrize("jitter", [-0.1, 11, "0.1", None, float("nan")])
def test_bad_jitter(build, jitter):
    with pytest.raises(InputError, match=r"prior\.jitter must be a number in \[0, 10\], got"):
        build([(3, 64, 64)], jitter=jitter)


@both
def test_one_code_for_all_pictures_of_a_size(build):
    prior = build([(1, 50, 70), (1, 49, 66), (1, 50, 70)], code="shared", jitter=0.1)
    assert prior.pictures_of == [[0, 1, 2]] and [prior.code_of(i) for i in range(3)] == [0, 0, 0]
    assert not hasattr(prior, "code1")
    assert torch.equal(prior(0, 3), prior(2, 3)) and prior(1, 3).shape == (1, 1, 49, 66)
    assert torch.equal(prior.code(), build([(1, 50, 70)] * 2).code(0))
    with pytest.raises(InputError, match="prior.code=shared needs pictures of one size, their codes would be"):
        build([(1, 50, 70), (1, 16, 20)], code="shared")
    with pytest.raises(InputError, match="prior.code must be one of own, shared, got 'mine'"):
        build([(1, 50, 70)], code="mine")


@both
def test_codes_are_drawn_anew_each_round_if_asked(build):
    prior, still = build([(1, 50, 70), (1, 16, 20)], redraw=True), build([(1, 50, 70), (1, 16, 20)])
    first = [prior.code(i).clone() for i in range(2)]
    assert all(torch.equal(z, still.code(i)) for i, z in enumerate(first))
    seen = []
    for round_ in (1, 2, 1, 0):
        prior.start_round(round_)
        still.start_round(round_)
        seen.append([prior.code(i).clone() for i in range(2)])
        assert all(torch.equal(z, still.code(i)) for i, z in enumerate(first))
    for i in range(2):
        assert torch.equal(seen[0][i], seen[2][i]) and torch.equal(seen[3][i], first[i])
        assert not torch.equal(seen[0][i], seen[1][i]) and not torch.equal(seen[0][i], first[i])
        assert 0 <= seen[0][i].min() and seen[0][i].max() <= 0.1


@pytest.mark.parametrize("value", ["no", None, 0])
def test_redraw_is_true_or_false(value):
    with pytest.raises(InputError, match=f"prior.redraw must be true or false, got {value!r}"):
        skip.build([(3, 32, 32)], channels=4, depth=2, redraw=value)
