"""The progressive GAN against its definition, written again in numpy with float64 and loops."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from lipfw.gan.network import (
    PUBLISHED,
    Critic,
    EqualizedConv2d,
    EqualizedLinear,
    Generator,
    enlarged,
    folded,
    leaky_norm_,
    pixel_norm,
    with_batch_deviation,
)
from lipfw.mask import prunable

CHANNELS, LATENT, OUTPUTS = (5, 4, 3, 2), 6, 3


# --- the definition --------------------------------------------------------------------------------------------------

def conv(x, weight, bias):
    """c (W * x + b) with c = sqrt(2 / fan-in), zeros outside; each output number is one sum over a patch."""
    outputs, inputs, k, _ = weight.shape
    b, _, h, w = x.shape
    p = k // 2
    padded = np.zeros((b, inputs, h + 2 * p, w + 2 * p))
    padded[:, :, p:p + h, p:p + w] = x
    y = np.empty((b, outputs, h, w))
    for n in range(b):
        for i in range(h):
            for j in range(w):
                patch = padded[n, :, i:i + k, j:j + k]
                for o in range(outputs):
                    y[n, o, i, j] = (weight[o] * patch).sum() + bias[o]
    return y * math.sqrt(2 / (inputs * k * k))


def linear(x, weight, bias):
    y = np.empty((len(x), len(weight)))
    for n in range(len(x)):
        for o in range(len(weight)):
            y[n, o] = sum(weight[o, i] * x[n, i] for i in range(x.shape[1])) + bias[o]
    return y * math.sqrt(2 / x.shape[1])


def leaky(x):
    return np.where(x < 0, 0.2 * x, x)


def norm(x):
    return x / np.sqrt((x ** 2).mean(axis=1, keepdims=True) + 1e-8)


def double(x):
    return np.kron(x, np.ones((1, 1, 2, 2)))


def halve(x):
    b, c, h, w = x.shape
    return np.array([[[[x[n, k, 2 * i:2 * i + 2, 2 * j:2 * j + 2].mean() for j in range(w // 2)]
                       for i in range(h // 2)] for k in range(c)] for n in range(b)])


def deviation(x, group=4):
    """One more channel: the mean of the unbiased deviations of every G-th picture, for the next four in a row."""
    b, c, h, w = x.shape
    group = min(b, group) if b % min(b, group) == 0 else b
    y = np.zeros((b, 1, h, w))
    groups = b // group
    for start in range(0, b, group) if group > 1 else ():
        total = 0.0
        for k in range(c):
            for i in range(h):
                for j in range(w):
                    values = [x[n, k, i, j] for n in range(start // group, b, groups)]
                    mean = sum(values) / group
                    total += math.sqrt(sum((v - mean) ** 2 for v in values) / (group - 1) + 1e-8)
        y[start:start + group] = total / (c * h * w)
    return np.concatenate([x, y], axis=1)


def generate(p, z, scale, fade):
    """`p` holds the parameters by name."""
    def apply(f, name, x):
        return f(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = leaky(apply(linear, "format_layer", norm(z)))
    x = norm(x.reshape(len(z), -1, 4, 4))
    x = norm(leaky(apply(conv, "group_scale0.0", x)))
    stages = [x]
    for j in range(scale):
        x = double(x)
        for k in (0, 1):
            x = norm(leaky(apply(conv, f"scale_layers.{j}.{k}", x)))
        stages.append(x)
    picture = apply(conv, f"to_rgb_layers.{scale}", x)
    if scale:
        picture = (1 - fade) * picture + fade * double(apply(conv, f"to_rgb_layers.{scale - 1}", stages[-2]))
    return picture


def score(p, picture, scale, fade):
    def apply(f, name, x):
        return leaky(f(x, p[f"{name}.weight"], p[f"{name}.bias"]))

    x = apply(conv, f"from_rgb_layers.{scale}", picture)
    for j in range(scale, 0, -1):
        x = apply(conv, f"scale_layers.{j - 1}.0", x)
        x = apply(conv, f"scale_layers.{j - 1}.1", x)
        x = halve(x)
        if j == scale:
            x = (1 - fade) * x + fade * apply(conv, f"from_rgb_layers.{scale - 1}", halve(picture))
    x = apply(conv, "group_scale_zero.0", deviation(x))
    x = apply(linear, "group_scale_zero.1", x.reshape(len(x), -1))
    return linear(x, p["decision_layer.weight"], p["decision_layer.bias"])[:, 0]


# --- the layers ------------------------------------------------------------------------------------------------------

@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def random(network):
    """The network in float64 with biases that are not zero, as they are at first."""
    for name, p in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p)
    return network.double()


def parameters(network):
    return {n: p.detach().numpy() for n, p in network.named_parameters()}


def close(ours, expected):
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kernel", [1, 3])
def test_equalized_convolution(kernel):
    layer, x = random(EqualizedConv2d(3, 5, kernel)), torch.randn(2, 3, 7, 4, dtype=torch.float64)
    close(layer(x), conv(x.numpy(), *parameters(layer).values()))
    assert layer.gain == pytest.approx(math.sqrt(2 / (3 * kernel ** 2)))


def test_equalized_linear():
    layer, x = random(EqualizedLinear(7, 4)), torch.randn(3, 7, dtype=torch.float64)
    close(layer(x), linear(x.numpy(), *parameters(layer).values()))


@pytest.mark.parametrize("make", [lambda: EqualizedConv2d(64, 64, 3), lambda: EqualizedLinear(200, 200)])
def test_weights_are_drawn_standard_normal_and_biases_zero(make):
    layer = make()
    assert not layer.bias.any()
    assert abs(layer.weight.mean().item()) < 0.02 and layer.weight.std().item() == pytest.approx(1, abs=0.02)
    x = torch.randn(16, *([64, 8, 8] if layer.weight.ndim == 4 else [200]))
    assert 0.8 < layer(x).square().mean().item() / 2 < 1.1, "the gain keeps the size of the signal: E y^2 = 2 E x^2"


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4, 6)])
def test_pixel_norm(shape):
    x = torch.randn(shape, dtype=torch.float64)
    close(pixel_norm(x), norm(x.numpy()))
    assert torch.equal(pixel_norm(torch.zeros(shape)), torch.zeros(shape))


def test_enlarging():
    x = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    close(enlarged(x), double(x.numpy()))
    assert enlarged(torch.tensor([[[[1., 2.]]]])).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


@pytest.mark.parametrize("b", range(1, 13))
def test_batch_deviation(b):
    """Of 1, of up to 4, of two and three groups, and of batches that 4 does not divide."""
    x = torch.randn(b, 3, 4, 2, dtype=torch.float64)
    close(with_batch_deviation(x), deviation(x.numpy()))


# --- the networks ----------------------------------------------------------------------------------------------------

STAGES = [(None, 0.0), (3, 0.0), (3, 0.25), (2, 0.0), (2, 0.7), (1, 0.5), (1, 1.0), (0, 0.0), (0, 0.5)]


@pytest.mark.parametrize(("scale", "fade"), STAGES)
def test_generator(scale, fade):
    network, z = random(Generator(CHANNELS, LATENT, OUTPUTS)), torch.randn(3, LATENT, dtype=torch.float64)
    picture = network(z, scale, fade)
    side = 4 * 2 ** (3 if scale is None else scale)
    assert picture.shape == (3, OUTPUTS, side, side)
    close(picture, generate(parameters(network), z.numpy(), 3 if scale is None else scale, fade))


@pytest.mark.parametrize(("scale", "fade"), STAGES)
@pytest.mark.parametrize("b", [1, 2, 5])
def test_critic(scale, fade, b):
    network, top = random(Critic(CHANNELS, OUTPUTS)), 3 if scale is None else scale
    picture = torch.randn(b, OUTPUTS, 4 * 2 ** top, 4 * 2 ** top, dtype=torch.float64)
    scores = network(picture, scale, fade)
    assert scores.shape == (b,)
    close(scores, score(parameters(network), picture.numpy(), top, fade))


def test_critic_of_two_groups():
    network, picture = random(Critic(CHANNELS[:2])), torch.randn(8, 3, 8, 8, dtype=torch.float64)
    close(network(picture), score(parameters(network), picture.numpy(), 1, 0.0))


def test_generator_and_critic_of_other_sizes():
    """Grey pictures, channels that grow, a single scale."""
    for channels in ((2, 3, 4), (3,)):
        g, c = random(Generator(channels, 4, 1)), random(Critic(channels, 1))
        z = torch.randn(2, 4, dtype=torch.float64)
        picture = g(z)
        close(picture, generate(parameters(g), z.numpy(), len(channels) - 1, 0.0))
        close(c(picture), score(parameters(c), picture.detach().numpy(), len(channels) - 1, 0.0))


def test_only_the_stage_in_use_gets_a_gradient():
    g = Generator(CHANNELS, LATENT)
    g(torch.randn(2, LATENT), 1, 0.5).sum().backward()
    used = {n.rsplit(".", 1)[0] for n, p in g.named_parameters() if p.grad is not None}
    assert used == {"format_layer", "group_scale0.0", "scale_layers.0.0", "scale_layers.0.1", "to_rgb_layers.0",
                    "to_rgb_layers.1"}


@pytest.mark.parametrize("scales", range(2, 10))
def test_every_resolution(scales):
    """From 8 to 1024 pixels, without memory."""
    side = 4 * 2 ** (scales - 1)
    with torch.device("meta"):
        g, c = Generator(PUBLISHED[:scales]), Critic(PUBLISHED[:scales])
        picture = g(torch.empty(2, 512))
        assert g.resolution == side and picture.shape == (2, 3, side, side) and c(picture).shape == (2,)


@pytest.mark.parametrize(("scales", "make", "total", "weights", "convolutions"), [
    (7, Generator, 23_051_989, 18_844_992, 20), (7, Critic, 23_052_353, 18_849_600, 20),
    (8, Generator, 23_079_800, 18_872_736, 23), (8, Critic, 23_080_225, 18_877_344, 23)])
def test_the_published_numbers_of_parameters(scales, make, total, weights, convolutions):
    with torch.device("meta"):
        network = make(PUBLISHED[:scales])
    assert sum(p.numel() for p in network.parameters()) == total
    assert sum(p.numel() for p in prunable(network).values()) == weights and len(prunable(network)) == convolutions
    assert not list(network.buffers())


# --- what the graph of a fixed generator keeps

@pytest.mark.parametrize("side, kernel, enlarge", [(5, 3, False), (5, 1, False), (6, 3, True), (32, 3, True)])
@pytest.mark.parametrize("inputs, outputs", [(3, 2), (40, 30)])      # the gain goes to the input, or to the weights
def test_a_fixed_convolution_is_the_trained_one(side, kernel, enlarge, inputs, outputs):
    torch.manual_seed(0)
    layer = EqualizedConv2d(inputs, outputs, kernel).double()
    nn.init.normal_(layer.bias)
    results = []
    for fixed in (False, True):
        layer.requires_grad_(not fixed)
        x = torch.randn(2, inputs, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x.requires_grad_()
        y = layer(x, enlarge) if enlarge else layer(x)
        (gradient,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        results.append([t.detach() for t in (y, gradient, second)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_folded_kernel_sums_what_a_pixels_copies_meet():
    w = torch.arange(9.0).view(1, 1, 3, 3)
    k = folded(w)[0, 0]
    # transposed, a corner meets one of the nine weights, and the middle four of them
    assert k.shape == (4, 4) and k.sum() == 4 * w.sum()
    assert k[0, 0] == w[0, 0, 2, 2] and k[1, 1] == w[0, 0, 1:, 1:].sum()


def test_the_norm_has_the_gradients_of_its_definition():
    x = torch.randn(2, 5, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for f in (pixel_norm, lambda x: leaky_norm_(x * 1)):
        assert torch.autograd.gradcheck(f, x) and torch.autograd.gradgradcheck(f, x)
    plain = nn.functional.leaky_relu(x, 0.2)
    plain = plain * torch.rsqrt(plain.square().mean(1, keepdim=True) + 1e-8)
    torch.testing.assert_close(leaky_norm_(x * 1), plain, rtol=1e-14, atol=0)


def test_channels_that_are_all_zero_have_torchs_gradient():
    """Pruned channels are: at zero a leaky ReLU has the slope of its negative side."""
    x = torch.zeros(1, 3, 2, 2)
    x[:, 0] = 1
    gradients = []
    for f in (lambda x: leaky_norm_(x * 1), lambda x: pixel_norm(nn.functional.leaky_relu(x, 0.2))):
        a = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(f(a).sum(), a)
        gradients.append(g)
    torch.testing.assert_close(*gradients)


def kept_by(generator, z):
    """Bytes that the graph of a picture keeps, without parameters."""
    parameters = {p.data_ptr() for p in generator.parameters()}
    kept = {}

    def keep(t):
        kept[t.data_ptr()] = t.nbytes
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        generator(z)
    return sum(n for at, n in kept.items() if at not in parameters)


def test_the_graph_of_a_fixed_generator_keeps_a_picture_a_layer():
    torch.manual_seed(0)
    g = Generator((16, 16, 8, 8), 16).requires_grad_(False)
    z = torch.randn(1, 16, requires_grad=True)
    layers = [(16, 4)] * 3 + [(w, s) for w, s in ((16, 8), (8, 16), (8, 32)) for _ in range(2)]
    activations = sum((w + 1) * s * s for w, s in layers) * 4
    assert kept_by(g, z) <= activations + 4 * 16 * 4
    assert kept_by(g.requires_grad_(True), z) > 1.5 * activations


def test_a_fixed_generator_computes_in_bfloat16_too():
    torch.manual_seed(0)
    g, start, gradients = Generator((32,) * 5, 8).requires_grad_(False), torch.randn(1, 8), []
    for bf16 in (False, True):
        z = start.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = g(z)
        assert y.dtype == (torch.bfloat16 if bf16 else torch.float32)
        gradients.append(torch.autograd.grad(y.float().square().sum(), z)[0])
    exact, rounded = gradients
    assert rounded.dtype == torch.float32 and (rounded - exact).norm() < 0.3 * exact.norm()
