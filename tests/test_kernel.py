"""The sparse kernels, and how a network becomes a program of them: against torch's own layers in float64."""
import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lipfw.kernel.graph import Map, Unsupported, read
from lipfw.kernel.interface import ISAS, library
from lipfw.kernel.library import Unavailable
from lipfw.kernel.network import SparseNetwork
from lipfw.kernel.program import ConvStep
from lipfw.kernel.weights import live_weights
from lipfw.prior.decoder import DeepDecoder
from lipfw.prior.skip import Skip

SIZES = [(2, 2), (3, 5), (2, 9), (8, 3), (17, 31)]


@pytest.fixture(scope="module")
def c():
    """The kernel library."""
    try:
        return library()
    except Unavailable as e:
        pytest.skip(f"no kernel library: {e}")


@pytest.fixture(params=range(len(ISAS)), ids=ISAS)
def isa(request, c):
    """Run a test with each instruction set that the processor has."""
    before = c.lipfw_isa()
    if c.lipfw_use_isa(request.param) != request.param:
        pytest.skip(f"this processor has no {ISAS[request.param]}")
    yield request.param
    c.lipfw_use_isa(before)


@contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Net(nn.Module):
    """Layers by name, and a function (net, x) that says how they follow each other."""

    def __init__(self, follow, **layers):
        super().__init__()
        self.follow = follow
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.follow(self, x)


def conv(inputs, outputs, taps=1, stride=1, pad="reflect", bias=True):
    return nn.Conv2d(inputs, outputs, taps, stride, taps // 2, padding_mode=pad if taps > 1 else "zeros", bias=bias)


def draw(network, seed=0):
    """Draw all parameters anew, so that none is left at 0 or 1."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / max(p[0].numel(), 4) ** 0.5)
            if p.dim() == 1:
                p.add_(1)
    return network


def random_masks(network, density, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {n: torch.rand(p.shape, generator=g) < density for n, p in network.named_parameters() if p.dim() == 4}


def apply(masks, network):
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name in masks:
                p.mul_(masks[name])
    return network


def start(c, network, masks, codes, **options):
    """Return the sparse network with the weights of the dense one."""
    sparse = SparseNetwork(c, network, masks, [torch.Size((1, *code)) for code in codes], **options)
    sparse.packed.pack(dict(network.named_parameters()), sparse.weights)
    return sparse


def inputs(network, code, seed=0):
    """Return a code and a gradient of the output that it makes."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(1, *code, generator=g)
    with torch.no_grad():
        shape = copy.deepcopy(network)(z).shape
    return z, torch.randn(shape, generator=g)


def by_torch(network, masks, z, gradient, dtype=torch.float64):
    """Return the output, all gradients (zero where masks remove) and buffers, by torch's autograd."""
    network = copy.deepcopy(network).to(dtype)
    output = network(z.to(dtype))
    output.backward(gradient.to(dtype))
    gradients = {n: p.grad * masks.get(n, 1) for n, p in network.named_parameters()}
    return output.detach(), gradients, dict(network.named_buffers())


def by_kernels(sparse, network, z, gradient):
    output = sparse.forward(z).clone()
    gradients = {n: torch.zeros_like(p) for n, p in network.named_parameters()}
    sparse.packed.unpack(sparse.backward(gradient), gradients)
    return output, gradients


def error(a, b, scale=None):
    return float((a.double() - b).abs().max() / (b.abs().max() if scale is None else scale).clamp(min=1e-30))


def assert_same(c, network, codes, masks=None, tolerance=2e-6, **options):
    """Compare output and gradients with float64, in turn for all codes, twice: memory is used again.

    Errors are relative to the largest value, of gradients to the largest of all: some are zero but for rounding.
    """
    masks = masks or {}
    apply(masks, network)
    sparse = start(c, network, masks, codes, **options)
    for seed, code in enumerate([*codes, *codes]):
        z, gradient = inputs(network, code, seed)
        output, gradients, _ = by_torch(network, masks, z, gradient)
        own_output, own = by_kernels(sparse, network, z, gradient)
        assert error(own_output, output) < tolerance
        largest = max(g.abs().max() for g in gradients.values())
        for name, g in gradients.items():
            assert error(own[name], g, largest) < tolerance, name
    return sparse


# --- one convolution

GEOMETRIES = [(1, 1, "zeros"), (1, 2, "zeros"), (3, 1, "reflect"), (3, 2, "reflect"), (3, 1, "zeros"), (3, 2, "zeros")]


def one_conv(channels, taps, stride, pad):
    """Return a network that ends in the convolution, behind one with batch norm: the gradient of its input shows."""
    inputs, outputs = channels
    return draw(Net(lambda s, x: s.conv(s.norm(s.front(x))), front=conv(2, inputs), norm=nn.BatchNorm2d(inputs),
                    conv=conv(inputs, outputs, taps, stride, pad)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("taps, stride, pad", GEOMETRIES)
def test_a_convolution(c, isa, taps, stride, pad, size):
    network = one_conv((5, 7), taps, stride, pad)
    assert_same(c, network, [(2, *size)], random_masks(network, 0.3))


def _rows(m):
    m[::2] = False


def _columns(m):
    m[:, 1:3] = False


def _one(m):
    m[:] = False
    m.view(-1)[-1] = True


@pytest.mark.parametrize("cut", [_rows, _columns, _one, lambda m: m.fill_(False), lambda m: m.fill_(True)],
                         ids=["empty rows", "pruned input channels", "a single weight", "fully pruned", "dense"])
@pytest.mark.parametrize("taps, stride, pad", GEOMETRIES)
def test_a_convolution_with_holes(c, taps, stride, pad, cut):
    network = one_conv((5, 7), taps, stride, pad)
    mask = random_masks(network, 0.5)["conv.weight"]
    cut(mask)
    assert_same(c, network, [(2, 6, 5)], {"conv.weight": mask})


@pytest.mark.parametrize("channels", [(1, 1), (1, 9), (33, 1), (40, 37)], ids=str)
@pytest.mark.parametrize("taps, stride", [(1, 1), (3, 1), (3, 2)])
def test_channel_counts_and_blocks_of_planes(c, isa, taps, stride, channels):
    """Planes so wide and many that the kernels work on them block by block, and in many tiles."""
    network = one_conv(channels, taps, stride, "reflect")
    assert_same(c, network, [(2, 5, 301)], random_masks(network, 0.6), tolerance=5e-6)


@pytest.mark.parametrize("row", range(1, 260, 37))
def test_planes_around_a_tile(c, isa, row):
    """A plane may hold some positions less or more than whole vectors and tiles."""
    network = one_conv((3, 4), 3, 1, "zeros")
    assert_same(c, network, [(2, 2, row)], random_masks(network, 0.5))


@pytest.mark.parametrize("size", [(5, 7), (40, 33)], ids=str)
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_any_number_of_threads_gives_the_same_bits(c, isa, size, density):
    network = draw(Skip(4, 3, 12, 1, 3) if min(size) > 5 else one_conv((12, 9), 3, 1, "reflect"))
    code = (4 if min(size) > 5 else 2, *(2 * (n // 2) for n in size))
    masks = random_masks(network, density)
    apply(masks, network)
    sparse = start(c, network, masks, [code])
    z, gradient = inputs(network, code)
    results = []
    for n in (1, 2, 3, 4):
        with threads(n):
            results.append(by_kernels(sparse, network, z, gradient))
    for output, gradients in results[1:]:
        assert torch.equal(output, results[0][0])
        assert all(torch.equal(g, results[0][1][n]) for n, g in gradients.items())


# --- batch norm and what stands around it

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "leaky": lambda x: F.leaky_relu(x, 0.2)}


def twice(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(1, 2), (2, 3), (9, 20)], ids=str)
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("after", ACTIVATIONS)
@pytest.mark.parametrize("before", ACTIVATIONS)
def test_batch_norm(c, isa, before, after, doubled, size):
    def follow(s, x):
        y = s.conv(x)
        return s.head(ACTIVATIONS[after](s.norm(ACTIVATIONS[before](twice(y) if doubled else y))))

    network = draw(Net(follow, conv=conv(3, 5, bias=before == "none"), norm=nn.BatchNorm2d(5, eps=1e-3),
                       head=conv(5, 2, 3, pad="zeros")))
    assert_same(c, network, [(3, *size)], tolerance=1e-5)


@pytest.mark.parametrize("pad", ["reflect", "zeros"])
def test_concatenation_with_every_kind_of_part(c, isa, pad):
    """A convolution's map, one doubled, a batch norm's own and the code, in one batch norm."""
    def follow(s, x):
        a = F.leaky_relu(s.n1(s.c1(x)), 0.1)            # read by three
        b = s.n2(s.c2(a))
        y = s.n3(torch.cat([s.c3(a), twice(s.c4(b)), a, x], 1))
        return s.head(F.relu(s.n4(torch.cat([y, twice(b)], 1))))

    network = draw(Net(follow, c1=conv(3, 4, 3, pad=pad), n1=nn.BatchNorm2d(4), c2=conv(4, 5, 3, 2, pad),
                       n2=nn.BatchNorm2d(5), c3=conv(4, 3), c4=conv(5, 2, 3, pad=pad), n3=nn.BatchNorm2d(12),
                       n4=nn.BatchNorm2d(17), head=conv(17, 3, 3, pad=pad)))
    for density in (1.0, 0.3, 0.1):
        assert_same(c, network, [(3, 8, 6)], random_masks(network, density, seed=2), tolerance=1e-5)


def test_running_statistics_are_those_of_torch(c):
    """With each layer's momentum, and the bias that the kernels leave out; several steps and sizes."""
    def follow(s, x):
        return s.head(s.n2(twice(s.c2(F.relu(s.n1(s.c1(x)))))))

    network = draw(Net(follow, c1=conv(3, 4, 3), n1=nn.BatchNorm2d(4, momentum=0.3), c2=conv(4, 5),
                       n2=nn.BatchNorm2d(5, momentum=0.05), head=conv(5, 2)))
    expected = copy.deepcopy(network).double()
    sparse = start(c, network, {}, [(3, 5, 7), (3, 4, 4)])
    for seed, code in enumerate([(3, 5, 7), (3, 4, 4), (3, 5, 7)]):
        z, _ = inputs(network, code, seed)
        expected(z.double())
        sparse.forward(z)
    for name, b in network.named_buffers():
        if "running" in name:
            assert error(b, dict(expected.named_buffers())[name]) < 1e-6, name


def test_batch_norm_without_running_statistics(c):
    network = draw(Net(lambda s, x: s.head(s.norm(s.conv(x))), conv=conv(3, 4, 3), head=conv(4, 2),
                       norm=nn.BatchNorm2d(4, track_running_stats=False)))
    assert_same(c, network, [(3, 5, 6)])


def test_two_readers_of_which_one_leaves_channels_out(c):
    """The gradient of a channel that only one of them reads has nothing of what lay in memory before."""
    def follow(s, x):
        y = s.n1(s.c1(x))
        return s.head(s.n3(torch.cat([s.n2(s.c2(y)), y], 1)))

    network = draw(Net(follow, c1=conv(3, 4), n1=nn.BatchNorm2d(4), c2=conv(4, 4), n2=nn.BatchNorm2d(4),
                       n3=nn.BatchNorm2d(8), head=conv(8, 2)))
    masks = random_masks(network, 1.0)
    masks["head.weight"][:, 5:7] = False
    assert_same(c, network, [(3, 6, 8)], masks)


# --- whole networks

@pytest.mark.parametrize("density", [1.0, 0.2, 0.03])
@pytest.mark.parametrize("network, code", [
    (lambda: Skip(4, 3, 8, 1, 2), (4, 6, 4)), (lambda: Skip(5, 1, 10, 2, 3), (5, 8, 28)),
    (lambda: Skip(8, 3, 24, 3, 4), (8, 32, 16)), (lambda: DeepDecoder(3, 9, 2), (9, 3, 5)),
    (lambda: DeepDecoder(1, 20, 3), (20, 4, 2))], ids=["skip 1", "skip 2", "skip 3", "decoder 2", "decoder 3"])
def test_priors_are_as_near_to_float64_as_torch(c, isa, network, code, density):
    """No farther off than torch's float32, up to a factor; torch's worst of some that differ by rounding alone."""
    network = draw(network(), seed=3)
    masks = random_masks(network, density)
    apply(masks, network)
    sparse = start(c, network, masks, [code])
    z, gradient = inputs(network, code)
    output, gradients, _ = by_torch(network, masks, z, gradient)
    largest = max(g.abs().max() for g in gradients.values())
    off_output, off = 1e-7, dict.fromkeys(gradients, 1e-7)
    for seed in range(4):
        nudged = copy.deepcopy(network)
        g = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in nudged.parameters():
                p.mul_(1 + 6e-8 * torch.randn(p.shape, generator=g))
        out, grads, _ = by_torch(nudged, masks, z, gradient, torch.float32)
        off_output = max(off_output, error(out, output))
        off = {n: max(off[n], error(grads[n], gradients[n], largest)) for n in off}
    own_output, own = by_kernels(sparse, network, z, gradient)
    assert error(own_output, output) < 4 * off_output
    worst = max(off.values())
    for name in gradients:
        assert error(own[name], gradients[name], largest) < 4 * max(off[name], worst / 4), name


def test_biases_before_batch_norm_have_no_gradient(c):
    """Exactly: torch's is rounding noise, which Adam would turn into steps."""
    network = draw(Skip(4, 3, 8, 2, 2))
    sparse = start(c, network, {}, [(4, 8, 8)])
    _, own = by_kernels(sparse, network, *inputs(network, (4, 8, 8)))
    biases = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    assert len(biases) == 11
    for name in biases:
        assert (own[f"{name}.bias"] == 0).all() == (name != "head")


def test_codes_of_several_sizes(c):
    """One vector of weights, a program for each size."""
    network = draw(Skip(4, 3, 8, 2, 2))
    masks = random_masks(network, 0.1)
    for i, name in enumerate(masks):
        if i % 2:
            masks[name] = random_masks(network, 0.7)[name]
    del masks["head.weight"]            # nothing said of it: it keeps everything
    assert_same(c, network, [(4, 8, 12), (4, 12, 8), (4, 16, 16)], masks, tolerance=2e-5)


@pytest.mark.parametrize("pad", ["reflect", "zeros"])
@pytest.mark.parametrize("last", ["1x1", "3x3", "norm"])
def test_readers_of_one_map(c, pad, last):
    """1x1 and 3x3, of stride 1 and 2, and a batch norm add to one gradient, whichever comes first on the way back."""
    def follow(s, x):
        y = s.n1(s.c1(x))
        first = s.c5(y) if last == "1x1" else s.n2(s.c2(y))
        b, d = twice(s.n3(s.c3(y))), twice(s.n4(s.c4(y)))
        rest = [s.n2(s.c2(y)) if last == "1x1" else s.c5(y), y]
        whole = s.n5(torch.cat([first, b, d, *(rest if last == "norm" else rest[:1])], 1))
        return s.head(whole)

    channels = 11 + (last == "norm")
    network = draw(Net(follow, c1=conv(2, 1), n1=nn.BatchNorm2d(1), c2=conv(1, 3), n2=nn.BatchNorm2d(3),
                       c3=conv(1, 3, 3, 2, pad), n3=nn.BatchNorm2d(3), c4=conv(1, 3, 1, 2), n4=nn.BatchNorm2d(3),
                       c5=conv(1, 2, 3, pad=pad), n5=nn.BatchNorm2d(channels), head=conv(channels, 2)))
    for turn in range(2):
        masks = random_masks(network, 0.8)
        del masks["c1.weight"]
        for i, name in enumerate(masks):
            if i % 2 == turn:
                masks[name] = random_masks(network, 0.4)[name]
        assert_same(c, network, [(2, 6, 8)], masks, tolerance=1e-5)


def test_channels_last_weights_and_codes_of_other_kinds(c):
    network = draw(one_conv((5, 7), 3, 1, "reflect")).to(memory_format=torch.channels_last)
    sparse = assert_same(c, network, [(2, 6, 5)], random_masks(network, 0.5))
    z, _ = inputs(network, (2, 6, 5))
    expected = sparse.forward(z).clone()
    for other in (z.double(), z.to(memory_format=torch.channels_last), z.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.equal(sparse.forward(other), expected)


def test_memory_that_may_hold_anything(c, isa):
    """NaN in all that is written before it is read, or never read, and huge values in gaps that meet zeros alone.

    Between two programs' steps any of it may hold an earlier step's numbers: here it would show.
    """
    network = draw(Skip(4, 3, 8, 2, 3))
    masks = random_masks(network, 0.3)
    apply(masks, network)
    sparse = start(c, network, masks, [(4, 8, 12)])
    z, gradient = inputs(network, (4, 8, 12))
    expected, gradients = by_kernels(sparse, network, z, gradient)
    expected, gradients = expected.clone(), {n: g.clone() for n, g in gradients.items()}
    (program,) = sparse.programs.values()

    def spoil(planes, whole):
        kept = planes.picture().clone()
        planes.tensor.fill_(torch.nan if whole else 0)
        planes.picture().copy_(torch.full_like(kept, torch.nan))

    for layer_map, planes in program.maps.items():
        if layer_map.readers and isinstance(program.makers.get(layer_map), ConvStep):
            spoil(planes, whole=True)                   # only pixels are ever read
        planes.tensor[planes.channels * planes.stride:] = 1e30      # room to read a tile too far
    for step in program.steps:
        if isinstance(step, ConvStep) and step.split:
            step.input.tensor[step.input.channels * step.input.stride:] = 1e30
    for layout, free in program.memory._free.items():
        for planes in free:
            spoil(planes, whole=layout[-1])             # of gradients without halo only pixels
            if not layout[-1]:
                planes.tensor[planes.channels * planes.stride:] = 1e30
    program.gradient.nan_to_num_(0)
    again, own = by_kernels(sparse, network, z, gradient)
    assert torch.equal(again, expected)
    for name in gradients:
        assert torch.equal(own[name], gradients[name]), name


# --- weights without effect

def live(network, masks, code):
    layers = read(network, torch.Size((1, *code)))
    return live_weights(layers, {n: masks[n].numpy() for n in masks})


@pytest.mark.parametrize("density", [0.15, 0.05])
@pytest.mark.parametrize("network, code", [
    (lambda: Skip(4, 3, 12, 2, 3), (4, 8, 12)), (lambda: DeepDecoder(3, 12, 2), (12, 3, 4)),
    (lambda: nn.Sequential(conv(3, 9, 3, pad="zeros"), nn.BatchNorm2d(9), nn.LeakyReLU(0.2), conv(9, 9, 3, pad="zeros"),
                           nn.BatchNorm2d(9), nn.ReLU(), conv(9, 9), nn.BatchNorm2d(9), conv(9, 2, 3, pad="zeros")),
     (3, 6, 5))], ids=["skip", "decoder", "zero padding"])
def test_weights_without_effect_have_none(network, code, density):
    """Whatever they are, in float64 the output is the same, and so are the gradients of all others."""
    removed = 0
    for seed in range(4):
        net = draw(network(), seed)
        masks = random_masks(net, density, seed)
        apply(masks, net)
        kept, _ = live(net, masks, code)
        inert = {n: masks[n] & ~torch.from_numpy(kept[n]) for n in masks}
        removed += sum(int(m.sum()) for m in inert.values())
        z, gradient = inputs(net, code, seed)
        output, gradients, _ = by_torch(net, masks, z, gradient)
        changed = copy.deepcopy(net)
        with torch.no_grad():
            for name, p in changed.named_parameters():
                if name in inert:
                    p[inert[name]] = torch.randn(int(inert[name].sum()))
        other, others, _ = by_torch(changed, masks, z, gradient)
        assert error(other, output) < 1e-9
        largest = max(g.abs().max() for g in gradients.values())
        for name in gradients:
            assert error(others[name], gradients[name], largest) < 1e-9, name
            if name in inert:
                assert (gradients[name] * inert[name]).abs().max() < 1e-9 * largest, name
    assert removed > 10


def test_live_weights_of_a_chain():
    """A channel that nothing reads takes its row along, and the channels that only this row read."""
    network = nn.Sequential(conv(2, 3), nn.BatchNorm2d(3), conv(3, 3), nn.BatchNorm2d(3), conv(3, 1))
    masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in network.named_parameters() if p.dim() == 4}
    masks["4.weight"][:, 2] = False         # channel 2 of the second convolution is not read
    masks["2.weight"][:2, 1] = False        # channel 1 of the first only by that
    masks["0.weight"][0] = False            # channel 0 of the first is constant
    kept, used = live(network, masks, (2, 4, 4))
    assert kept["4.weight"][0, :, 0, 0].tolist() == [True, True, False]
    assert kept["2.weight"][:, :, 0, 0].tolist() == [[False, False, True], [False, False, True], [False] * 3]
    assert kept["0.weight"][:, 0, 0, 0].tolist() == [False, False, True]
    assert [u.tolist() for m, u in used.items() if m.channels == 3] == [
        [False, False, True], [False, False, True], [True, True, False], [True, True, False]]


# --- reading a network

def chain(*layers):
    return nn.Sequential(conv(3, 4, 3), nn.BatchNorm2d(4), *layers, conv(4, 2))


def after_norm(change):
    """Return a network that does something with the output of its batch norm before the last convolution."""
    return Net(lambda s, x: s.head(change(s, s.norm(s.conv(x)))), conv=conv(3, 4, 3), norm=nn.BatchNorm2d(4),
               head=conv(4, 2))


def _zero_a_channel(s, y):
    y[:, 0] = 0
    return y


def _add_in_place(s, y):
    y += 1
    return y


def _unseen(s, y):
    y.data.mul_(2)
    return y


def _foreach(s, y):
    torch._foreach_mul_([y], 2)
    return y


def _change_weight(s, y):
    with torch.no_grad():
        s.head.weight.mul_(0.5)
    return y


def _tied():
    network = nn.Sequential(conv(3, 3, 3), nn.BatchNorm2d(3), conv(3, 3, 3), nn.BatchNorm2d(3), conv(3, 2))
    network[2].weight = network[0].weight
    return network


def _frozen():
    network = chain()
    network[0].weight.requires_grad_(False)
    return network


def _buffer_weight():
    network = Net(lambda s, x: F.conv2d(s.norm(s.conv(x)), s.weight), conv=conv(3, 4, 3), norm=nn.BatchNorm2d(4))
    network.register_buffer("weight", torch.ones(2, 4, 1, 1))
    return network


def _both(order):
    """Return a network that reads a batch norm with and without the activation behind it."""
    def follow(s, x):
        y = s.norm(s.conv(x))
        early = torch.cat([y, x], 1)
        pair = {"activation first": lambda: [F.relu(y), y], "activation last": lambda: [s.mix(y), F.relu(y)],
                "concatenated before": lambda: [F.relu(y), early]}[order]()
        return s.head(s.join(torch.cat(pair, 1)))

    wide = {"concatenated before": 11}.get(order, 8)
    return Net(follow, conv=conv(3, 4, 3), norm=nn.BatchNorm2d(4), mix=conv(4, 4), join=nn.BatchNorm2d(wide),
               head=conv(wide, 2))


def _extra_head(s, x):
    y = s.norm(s.conv(x))
    out = s.head(y)
    s.other(y)
    return out


REFUSED = {
    "groups": (nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, groups=2)), "2 groups"),
    "5x5": (nn.Conv2d(3, 2, 5, padding=2), "5x5"),
    "3x1": (nn.Conv2d(3, 2, (3, 1), padding=(1, 0)), "not square"),
    "dilation": (nn.Conv2d(3, 2, 3, padding=2, dilation=2), "dilation 2"),
    "stride 3": (nn.Conv2d(3, 2, 3, 3, 1), "stride 3"),
    "3x3 unpadded": (nn.Conv2d(3, 2, 3), "padding 0"),
    "same": (nn.Conv2d(3, 2, 3, padding="same"), "same"),
    "replicate": (nn.Conv2d(3, 2, 3, padding=1, padding_mode="replicate"), "replicate"),
    "wider padding": (nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(3, 2, 3)), r"padding \(2, 2, 2, 2\)"),
    "padded with ones": (nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 2, 3)), "padding"),
    "two paddings": (nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 2, 3, padding=1)), "padding 1"),
    "paddings that differ": (Net(lambda s, x: s.head(s.norm(torch.cat([s.a(x), s.b(x)], 1))), a=conv(3, 2, 3),
                                 b=conv(3, 2, 3, pad="zeros"), norm=nn.BatchNorm2d(4), head=conv(4, 2)), "pads with"),
    "transposed": (nn.ConvTranspose2d(3, 2, 3), "conv_transpose2d"),
    "conv after conv": (nn.Sequential(conv(3, 4, 3), conv(4, 2)), "without batch norm"),
    "conv relu conv": (nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 2)), "no plain feature map"),
    "bias before relu": (nn.Sequential(conv(3, 4), nn.ReLU(), nn.BatchNorm2d(4), conv(4, 2)), "0.bias is followed"),
    "nearest": (chain(nn.Upsample(scale_factor=2)), "nearest"),
    "aligned corners": (chain(nn.UpsamplingBilinear2d(scale_factor=2)), "not bilinear doubling"),
    "three times": (chain(nn.Upsample(scale_factor=3, mode="bilinear")), "not bilinear doubling"),
    "2.1 times": (chain(nn.Upsample(scale_factor=2.1, mode="bilinear")), "not bilinear doubling"),
    "doubled twice": (chain(twice_module := nn.Upsample(scale_factor=2, mode="bilinear"), twice_module), "doubling"),
    "doubled before a conv": (chain(nn.Upsample(scale_factor=2, mode="bilinear")), "no plain feature map"),
    "a constant added": (after_norm(lambda s, y: y + 1), "comes from add"),
    "residual": (Net(lambda s, x: s.head(s.a(x) + s.b(x)), a=conv(3, 2), b=conv(3, 2), head=conv(2, 1)), "from add"),
    "added in place": (after_norm(_add_in_place), "comes from add_"),
    "a channel set": (after_norm(_zero_a_channel), "changed in place"),
    "changed by foreach": (after_norm(_foreach), "changed in place"),
    "changed through data": (after_norm(_unseen), "data of a tensor"),
    "a weight changed": (after_norm(_change_weight), "head.weight is changed in place"),
    "weight norm": (nn.utils.parametrizations.weight_norm(conv(3, 2)), "the weight of a convolution is none"),
    "a weight doubled": (Net(lambda s, x: F.conv2d(x, s.head.weight * 2, s.head.bias), head=conv(3, 2)), "weight of a"),
    "a bias doubled": (Net(lambda s, x: F.conv2d(x, s.head.weight, s.head.bias * 2), head=conv(3, 2)), "bias beside"),
    "a weight that is a buffer": (_buffer_weight(), "none of the network's own"),
    "channels sorted": (after_norm(lambda s, y: y[:, [1, 0, 2, 3]]), "cuts or sorts"),
    "cut": (after_norm(lambda s, y: y[:, :, 1:]), "cuts or sorts"),
    "activated twice": (chain(nn.ReLU(), nn.LeakyReLU(0.1)), "with and without"),
    "activated after concatenation": (after_norm(lambda s, y: F.relu(torch.cat([y[:, :], y[:, :]], 1))), "activation"),
    **{f"read both ways, {order}": (_both(order), "without") for order in
       ("activation first", "activation last", "concatenated before")},
    "elu": (chain(nn.ELU()), "comes from elu"),
    "dropout": (chain(nn.Dropout()), "comes from dropout"),
    "sigmoid at the end": (chain(nn.Identity()).append(nn.Sigmoid()), "comes from sigmoid"),
    "norm at the end": (nn.Sequential(conv(3, 4), nn.BatchNorm2d(4)), "does not end in a convolution"),
    "norm at the start": (nn.Sequential(nn.BatchNorm2d(3), conv(3, 4)), "begins with a batch norm"),
    "an extra head": (Net(_extra_head, conv=conv(3, 4), norm=nn.BatchNorm2d(4), head=conv(4, 2), other=conv(4, 2)),
                      "other.weight is not used"),
    "an unused layer": (Net(lambda s, x: s.head(x), head=conv(3, 2), other=conv(3, 2)), "other.weight is not used"),
    "a tuple": (Net(lambda s, x: (s.head(x),), head=conv(3, 2)), "returns a tuple"),
    "a conv used twice": (Net(lambda s, x: s.head(s.b(s.conv(s.a(s.conv(x))))), conv=conv(3, 3, 3), a=nn.BatchNorm2d(3),
                              b=nn.BatchNorm2d(3), head=conv(3, 2)), "conv.weight is used twice"),
    "a norm used twice": (Net(lambda s, x: s.head(s.norm(s.b(s.norm(s.a(x))))), a=conv(3, 3, 3), b=conv(3, 3, 3),
                              norm=nn.BatchNorm2d(3), head=conv(3, 2)), "norm.weight is used twice"),
    "a conv read by two norms": (Net(lambda s, x: (lambda y: s.head(s.c(torch.cat([s.a(y), s.b(y)], 1))))(s.conv(x)),
                                     conv=conv(3, 3), a=nn.BatchNorm2d(3), b=nn.BatchNorm2d(3), c=nn.BatchNorm2d(6),
                                     head=conv(6, 2)), "conv.weight is used twice"),
    "tied weights": (_tied(), "0.weight and 2.weight are one"),
    "frozen": (_frozen(), "0.weight is frozen"),
    "64 bits": (chain().double(), "float64"),
    "eval": (chain().eval(), "training mode"),
    "no affine": (nn.Sequential(conv(3, 4), nn.BatchNorm2d(4, affine=False), conv(4, 2)), "without weights"),
    "momentum None": (nn.Sequential(conv(3, 4), nn.BatchNorm2d(4, momentum=None), conv(4, 2)), "without its numbers"),
    "instance norm": (nn.Sequential(conv(3, 4), nn.InstanceNorm2d(4, affine=True), conv(4, 2)), "instance_norm"),
    "looks at numbers": (Net(lambda s, x: s.head(x) if x.mean() > 0 else x, head=conv(3, 2)), "without its numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused(name):
    network, reason = REFUSED[name]
    with pytest.raises(Unsupported, match=reason):
        read(network.train(name != "eval"), torch.Size((1, 3, 4, 4)))


@pytest.mark.parametrize("code", [(2, 3, 4, 4), (3, 4, 4)])
def test_codes_come_one_by_one(code):
    with pytest.raises(Unsupported, match="a code of shape"):
        read(chain(), torch.Size(code))


def test_a_network_must_not_depend_on_the_size_of_its_code(c):
    network = Net(lambda s, x: s.head(F.relu(s.norm(s.conv(x))) if x.shape[2] > 4 else s.norm(s.conv(x))),
                  conv=conv(3, 4), norm=nn.BatchNorm2d(4), head=conv(4, 2))
    with pytest.raises(Unsupported, match="depends on the size"):
        start(c, network, {}, [(3, 4, 4), (3, 8, 8)])


def test_any_spelling_of_what_is_understood_reads_the_same(c):
    """Functional calls, in-place or not, keywords, a module known under two names, crops of nothing."""
    def follow(s, x):
        y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), s.c1.weight, s.c1.bias, stride=(2, 2))
        y = F.leaky_relu(s.n1(y), 0.1, True)
        y = F.interpolate(y[:, :, :, :], size=(y.shape[2] * 2, y.shape[3] * 2), mode="bilinear")
        y = torch.relu(s.n2(torch.cat((y, x[..., 0:]), dim=-3)))
        return torch.conv2d(y, s.c2.weight)

    network = draw(Net(follow, c1=conv(3, 4, 3), n1=nn.BatchNorm2d(4), n2=nn.BatchNorm2d(7), c2=conv(7, 2, bias=False)))
    network.same = nn.ModuleList([network.c1])
    assert_same(c, network, [(3, 6, 8)])


def test_the_first_map_is_the_code():
    layers = read(chain(), torch.Size((1, 3, 4, 6)))
    first = layers[0].source
    assert isinstance(first, Map) and (first.channels, first.height, first.width, first.pad) == (3, 4, 6, "reflect")
    assert np.unique([la.out.height for la in layers]).tolist() == [4]
