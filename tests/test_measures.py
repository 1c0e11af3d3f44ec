"""Measures of tickets, each against a reference that shares nothing with it: loops, graph searches, torch, drawing."""
import copy
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lipfw.mask import Mask, prunable
from lipfw.measures import (
    bytes_on_disk,
    comparable,
    connected,
    cumulative_sparsity,
    dead_channels,
    iou,
    layer_iou,
    layer_random_iou,
    layer_sparsity,
    parameters_left,
    random_iou,
)
from lipfw.prior.decoder import DeepDecoder
from lipfw.prior.skip import Skip
from lipfw.ticket import INITIAL, Ticket, save_state


def drawn(network, density, seed=0):
    """A mask that keeps each weight with a probability."""
    rng = np.random.default_rng(seed)
    return Mask({n: torch.from_numpy(rng.random(tuple(p.shape)) < density) for n, p in prunable(network).items()})


def keep(network, **kept):
    """A mask that keeps the named entries alone; names spell dots as two underscores, `weight` left out."""
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in prunable(network).items()}
    for name, entries in kept.items():
        for entry in entries:
            masks[name.replace("__", ".").lstrip("_") + ".weight"][entry] = True
    return Mask(masks)


# ---- sparsity ---------------------------------------------------------------------------------------------------

SIZES = [128, 36_864, 147_456, *[512, 147_456, 147_456] * 4, *[152_064, 16_384] * 5, 384]      # facts, section 2.1


def test_sparsity_by_layer_is_torchs_and_that_of_a_loop():
    """The hourglass, pruned by torch.nn.utils.prune over all layers together."""
    torch.manual_seed(0)
    network = Skip()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    prune.global_unstructured([(m, "weight") for m in convolutions], prune.L1Unstructured, amount=0.59)
    found = {n.removesuffix("_mask"): b.bool() for n, b in network.named_buffers() if n.endswith("_mask")}
    mask = Mask({n: found[n] for n in prunable(Skip())})
    assert [m.numel() for m in mask.values()] == SIZES and sum(SIZES) == mask.total == 2_208_768

    zeros = [int((m.weight == 0).sum()) for m in convolutions]
    own, together = layer_sparsity(mask), cumulative_sparsity(mask)
    assert list(own) == list(together) == list(prunable(Skip()))
    for i, name in enumerate(mask):
        assert own[name] == zeros[i] / SIZES[i]
        assert together[name] == sum(zeros[:i + 1]) / sum(SIZES[:i + 1])
    assert together["head.weight"] == pytest.approx(mask.sparsity, abs=1e-15)
    assert together["head.weight"] == pytest.approx(0.59, abs=1e-6)
    assert 0.1 < abs(own["head.weight"] - together["head.weight"])       # the two are not the same thing


def test_sparsity_of_full_empty_and_nothing():
    mask = Mask({"full": torch.ones(3, dtype=torch.bool), "empty": torch.zeros(1, dtype=torch.bool),
                 "nothing": torch.ones(0, dtype=torch.bool)})
    assert layer_sparsity(mask) == {"full": 0.0, "empty": 1.0, "nothing": 0.0}
    assert cumulative_sparsity(mask) == {"full": 0.0, "empty": 0.25, "nothing": 0.25}


# ---- overlap ----------------------------------------------------------------------------------------------------

SHAPES = {"a": (5, 3, 3, 3), "b": (4, 5, 1, 1), "c": (7,)}


def masks(density=0.4, other=0.3):
    rng = np.random.default_rng(1)
    return [Mask({n: torch.from_numpy(rng.random(s) < d) for n, s in SHAPES.items()}) for d in (density, other)]


def test_overlap_is_that_of_sets():
    a, b = masks()
    whole = [set(), set()]
    for name in SHAPES:
        x, y = ({(name, *map(int, i)) for i in m[name].nonzero()} for m in (a, b))
        assert layer_iou(a, b)[name] == len(x & y) / len(x | y)
        whole[0] |= x
        whole[1] |= y
    assert iou(a, b) == iou(b, a) == len(whole[0] & whole[1]) / len(whole[0] | whole[1])
    assert iou(a, a) == 1 and iou(a, Mask({n: ~m for n, m in a.items()})) == 0


def test_two_masks_that_keep_nothing_are_equal():
    empty = Mask({"a": torch.zeros(4, dtype=torch.bool)})
    full = Mask({"a": torch.ones(4, dtype=torch.bool)})
    assert (iou(empty, empty), random_iou(empty, empty)) == (1, 1)
    assert (iou(empty, full), random_iou(empty, full)) == (0, 0)
    assert (iou(full, full), random_iou(full, full)) == (1, 1)


def test_the_overlap_by_chance_is_that_of_drawing():
    """The mean intersection over the mean union of shuffled masks."""
    a, b = masks()
    rng = np.random.default_rng(2)
    both, either = defaultdict(list), defaultdict(list)
    for _ in range(4000):
        for name in SHAPES:
            x, y = (rng.permutation(m[name].numpy().reshape(-1)) for m in (a, b))
            both[name].append((x & y).sum())
            either[name].append((x | y).sum())
    for name, expected in layer_random_iou(a, b).items():
        assert expected == pytest.approx(np.mean(both[name]) / np.mean(either[name]), rel=0.03)
    inter, union = (np.sum([v[n] for n in SHAPES], axis=0) for v in (both, either))
    assert random_iou(a, b) == pytest.approx(inter.mean() / union.mean(), rel=0.02)
    # the mean ratio is larger, and much so only in the layer of 7 weights
    assert np.mean(inter / union) > random_iou(a, b) and np.mean(inter / union) == pytest.approx(random_iou(a, b), 0.03)
    tiny = np.mean(np.array(both["c"]) / np.array(either["c"]))
    assert tiny > 1.03 * layer_random_iou(a, b)["c"]


def test_the_overlap_by_chance_knows_the_layers():
    """Masks that empty the same layer overlap more by chance than their density tells."""
    part = Mask({"a": torch.arange(100) < 50, "b": torch.zeros(100, dtype=torch.bool)})
    assert random_iou(part, part) == pytest.approx(25 / 75)
    even = Mask({"a": torch.arange(100) < 25, "b": torch.arange(100) < 25})
    assert random_iou(even, even) == pytest.approx(12.5 / 87.5)


def test_layers_of_another_shape_are_left_out():
    colour, grey = (Skip(inputs=4, outputs=o, channels=6, depth=2, skip=2) for o in (3, 1))
    a, b = drawn(colour, 0.5, 1), drawn(grey, 0.5, 2)
    assert comparable(a, b) == [n for n in a if n != "head.weight"] == list(layer_iou(a, b))
    without = [Mask({n: m[n] for n in m if n != "head.weight"}) for m in (a, b)]
    assert iou(a, b) == iou(*without) and random_iou(a, b) == random_iou(*without)
    with pytest.raises(ValueError, match="no layer of the same name and shape"):
        iou(a, Mask({"head.weight": b["head.weight"]}))


# ---- connection -------------------------------------------------------------------------------------------------

def search(edges, start):
    """All nodes that can be reached."""
    seen, todo = set(start), list(start)
    while todo:
        for node in edges[todo.pop()]:
            if node not in seen:
                seen.add(node)
                todo.append(node)
    return seen


def dead_by_search(mask, wiring, code, last):
    """Dead channels by breadth-first search; `wiring` has for each layer the channels it reads, as (layer, channel)."""
    onwards, back = defaultdict(list), defaultdict(list)
    for name, reads in wiring.items():
        kept = mask[f"{name}.weight"]
        assert kept.shape[1] == len(reads)
        for o, i in {(int(o), int(i)) for o, i, *_ in kept.nonzero()}:
            onwards[reads[i]].append((name, o))
            back[name, o].append(reads[i])
    ends = [(last, c) for c in range(mask[f"{last}.weight"].shape[0])]
    alive = search(onwards, [("code", c) for c in range(code)]) & search(back, ends)
    return {f"{name}.weight": [(name, c) not in alive for c in range(mask[f"{name}.weight"].shape[0])]
            for name in wiring}


def hourglass_wiring(inputs, channels, depth, skip):
    """What each convolution of the hourglass reads, by facts 2.1."""
    def maps(name, n):
        return [(name, c) for c in range(n)]

    wiring, here = {}, maps("code", inputs)
    for i in range(depth):
        wiring[f"encoders.{i}.skip.0"] = wiring[f"encoders.{i}.down.0"] = here
        wiring[f"encoders.{i}.conv.0"] = maps(f"encoders.{i}.down.0", channels)
        here = maps(f"encoders.{i}.conv.0", channels)
    for j in range(depth):
        wiring[f"decoders.{j}.conv.0"] = maps(f"encoders.{depth - 1 - j}.skip.0", skip) + here
        wiring[f"decoders.{j}.mix.0"] = maps(f"decoders.{j}.conv.0", channels)
        here = maps(f"decoders.{j}.mix.0", channels)
    return wiring | {"head": here}


SMALL = dict(inputs=3, channels=5, depth=3, skip=2)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.15, 0.2, 0.3, 0.4, 1.0])
def test_dead_channels_of_the_hourglass_are_those_of_a_graph_search(density):
    network, dead, channels = Skip(**SMALL), 0, 69
    for seed in range(6):
        mask = drawn(network, density, seed)
        expected = dead_by_search(mask, hourglass_wiring(**SMALL), 3, "head")
        found = dead_channels(network, mask, (3, 40, 33))
        assert list(found) == list(mask) and {n: d.tolist() for n, d in found.items()} == {
            n: expected[n] for n in mask}
        alive = not all(map(all, expected.values()))
        assert connected(network, mask, (3, 40, 33)) == alive
        dead += sum(map(sum, expected.values()))
    assert (dead > 0) == (density < 1) and (dead < 6 * channels) == (density > 0.05)      # both were there


def test_dead_channels_of_the_deep_decoder_are_those_of_a_graph_search():
    network = DeepDecoder(channels=6, depth=2)
    names = [n.removesuffix(".weight") for n in prunable(network)]
    wiring = {n: [(before, c) for c in range(6)] for before, n in zip(["code", *names], names, strict=False)}
    seen = set()
    for seed in range(20):
        mask = drawn(network, 0.15, seed)
        expected = dead_by_search(mask, wiring, 6, names[-1])
        assert {n: d.tolist() for n, d in dead_channels(network, mask, (6, 4, 4)).items()} == expected
        seen.add(connected(network, mask, (6, 4, 4)))
    assert seen == {True, False}


def test_one_path_through_the_full_hourglass_keeps_its_channels_alone():
    """Down all scales and up again: 5 x 2 + 5 x 2 + 1 convolutions with one tap each, the corners among them."""
    network, wiring = Skip(), hourglass_wiring(32, 128, 5, 4)
    masks = {n: torch.zeros_like(p, dtype=torch.bool) for n, p in prunable(network).items()}
    node, channel = "head", 1
    path = []
    while node != "code":
        path.append((node, channel))
        reads = wiring[node]
        i = 128 if len(reads) == 132 else 17        # of the deep branch, not the skip
        masks[f"{node}.weight"][channel, i].view(-1)[0] = True
        node, channel = reads[i]
    mask = Mask(masks)
    assert mask.count == len(path) == 21 and connected(network, mask, (32, 512, 512))
    dead = dead_channels(network, mask, (32, 512, 512))
    assert {(n.removesuffix(".weight"), int(c)) for n, d in dead.items() for c in (~d).nonzero()} == set(path)
    cut = Mask({n: m & (n != "encoders.4.conv.0.weight") for n, m in masks.items()})
    assert not connected(network, cut, (32, 512, 512))
    assert all(d.all() for d in dead_channels(network, cut, (32, 512, 512)).values())


class Scale(nn.Module):
    """Makes signals larger or smaller."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize("factor", [1, 1e-4])
def test_nothing_grows_or_fades_through_many_layers(factor):
    """600 layers of 32 channels: sums of paths would overflow, and what is made smaller each time would vanish."""
    deep = nn.Sequential(*(m for _ in range(600) for m in (nn.Conv2d(32, 32, 1), nn.ReLU(inplace=True), Scale(factor))))
    diagonal = torch.eye(32, dtype=torch.bool)[:, :, None, None]
    every, single = torch.ones_like(diagonal), torch.zeros_like(diagonal)
    single[3, 3] = True
    names = list(prunable(deep))
    # where signals are infinite, the zeros of a sparse layer would make them undefined
    mask = Mask({n: diagonal if i % 300 == 299 else every for i, n in enumerate(names)})
    dead = dead_channels(deep, mask, (32, 1, 1))
    assert len(dead) == 600 and not any(d.any() for d in dead.values()) and connected(deep, mask, (32, 1, 1))
    mask = Mask({n: single if i % 300 == 150 else every for i, n in enumerate(names)})
    dead = dead_channels(deep, mask, (32, 1, 1))
    assert [(~d).nonzero().flatten().tolist() for d in dead.values()] == [
        [3] if i % 300 in (149, 150) else list(range(32)) for i in range(600)]


def test_every_kind_of_convolution_links_channels():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, padding=1), nn.ReLU(inplace=True),
                            nn.ConvTranspose2d(4, 3, 2, stride=2), nn.MaxPool2d(2), nn.Conv2d(3, 1, 5, padding=2))
    mask = keep(network, _0=[(0, 0, 0, 0), (3, 0, 2, 2)], _2=[(3, 2, 0, 0), (1, 1, 0, 0)], _4=[(0, 2, 0, 0), (0, 1)])
    # channel 0 -> 0, nowhere; channel 1 -> 3 -> 2 -> 0; and 1 -> 1 of the transposed one comes from nowhere
    assert {n: d.tolist() for n, d in dead_channels(network, mask, (2, 16, 16)).items()} == {
        "0.weight": [True, True, True, False], "2.weight": [True, True, False], "4.weight": [False]}


def test_a_convolution_that_is_used_twice_has_a_channel_alive_if_one_use_has():
    shared = nn.Conv2d(2, 2, 1)
    norm = nn.BatchNorm2d(2)
    norm.bias.data.fill_(1)
    network = nn.Sequential(shared, norm, nn.ReLU(inplace=True), shared, norm, nn.Conv2d(2, 1, 1))
    # code 0 -> 1 in the first use; 1 -> 0 in the second: 0 lives by the second, 1 by the first
    mask = keep(network, _0=[(1, 0), (0, 1)], _5=[(0, 0)])
    assert {n: d.tolist() for n, d in dead_channels(network, mask, (2, 3, 3)).items()} == {
        "0.weight": [False, False], "5.weight": [False]}
    mask = keep(network, _0=[(0, 1)], _5=[(0, 0)])      # the code's 1 -> 0, and no 0 -> anything
    assert not connected(network, mask, (2, 3, 3))


def test_an_activation_in_place_may_come_first_and_weights_may_be_tied():
    first, second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    second.weight = first.weight
    head = nn.Conv2d(2, 1, 1)
    network = nn.Sequential(nn.LeakyReLU(0.1, inplace=True), first, nn.ReLU(inplace=True), second, head)
    mask = keep(network, _1=[(1, 0), (0, 1)], _4=[(0, 0)])      # code 0 -> 1 -> 0 -> 0, each weight used once
    assert not any(d.any() for d in dead_channels(network, mask, (2, 1, 1)).values())
    mask = keep(network, _1=[(1, 0)], _4=[(0, 0)])
    assert all(d.all() for d in dead_channels(network, mask, (2, 1, 1)).values())


def test_the_network_is_left_as_it_was():
    network = Skip(**SMALL)
    network(torch.rand(1, 3, 16, 16)).sum().backward()
    network.head.weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    gradients = {n: None if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}
    parameters, modules, random = list(network.parameters()), list(network.modules()), torch.random.get_rng_state()
    mask = drawn(network, 0.3)
    copies = {n: m.clone() for n, m in mask.items()}
    with torch.no_grad():       # as a pruner may be called
        dead = dead_channels(network, mask, (3, 16, 16))
    connected(network, mask, (3, 16, 16))
    assert all(torch.equal(v, before[n]) for n, v in network.state_dict().items())
    assert all(p.grad is gradients[n] is None or torch.equal(p.grad, gradients[n])
               for n, p in network.named_parameters())
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    assert all(a is b for a, b in zip(network.modules(), modules, strict=True))
    assert network.training and all(m.training and not m._forward_hooks for m in network.modules())
    assert [p.requires_grad for n, p in network.named_parameters() if n.startswith("head")] == [False, True]
    assert torch.equal(torch.random.get_rng_state(), random) and all(torch.equal(mask[n], c) for n, c in copies.items())
    assert any(not d.all() for d in dead.values())      # gradients were on inside


def test_neither_weights_nor_mode_nor_device_nor_size_matter():
    network = Skip(**SMALL)
    mask = drawn(network, 0.3, 4)
    expected = dead_channels(network, mask, (3, 16, 16))
    assert 0 < sum(int(d.sum()) for d in expected.values()) < 69
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(math.nan)
    for net, shape in ((network.eval(), (3, 9, 9)), (network.half(), (3, 61, 19)), (network.to("meta"), (3, 128, 128))):
        found = dead_channels(net, mask, shape)
        assert all(torch.equal(found[n], d) for n, d in expected.items())


def test_the_smallest_size_is_used(monkeypatch):
    seen = []
    network = Skip(**SMALL)
    monkeypatch.setattr(Skip, "forward", lambda self, x, f=Skip.forward: seen.append(tuple(x.shape)) or f(self, x))
    connected(network, Mask.ones(network), (3, 4096, 12))
    assert seen[-1] == (1, 3, 16, 12) and max(seen) == seen[-1]


@pytest.mark.parametrize("network, mask, words", [
    (Skip(**SMALL), Mask.ones(Skip(**SMALL | {"channels": 6})), "encoders.0.down.0.weight is"),
    (nn.Sequential(nn.Conv2d(1, 1, 1), nn.PReLU()), None, "can't tell which channels a PReLU joins"),
    (nn.Sequential(nn.Conv2d(1, 1, 1), nn.Sigmoid()), None, "makes a signal of a code of zeros"),
])
def test_what_cannot_be_told_is_refused(network, mask, words):
    for measure in (dead_channels, connected):
        with pytest.raises(ValueError, match=words):
            measure(network, mask or Mask.ones(network), (1, 4, 4))


def test_a_code_that_no_size_fits_gives_the_networks_own_error():
    network = Skip(**SMALL)
    with pytest.raises(RuntimeError, match="[Pp]adding"):
        connected(network, Mask.ones(network), (3, 4, 4))
    with pytest.raises(RuntimeError, match="channels"):
        connected(network, Mask.ones(network), (4, 16, 16))


# ---- size -------------------------------------------------------------------------------------------------------

def test_bytes_and_parameters_of_a_ticket(tmp_path):
    network = Skip(**SMALL)
    mask = drawn(network, 0.2)
    path = tmp_path / "round_00.safetensors"
    Ticket(mask, {}).save(path)
    assert bytes_on_disk(path) == (len(path.read_bytes()), None)
    save_state(tmp_path / INITIAL, network.state_dict())
    assert bytes_on_disk(path) == (len(path.read_bytes()), len((tmp_path / INITIAL).read_bytes()))
    with torch.no_grad():
        for p in network.parameters():
            p.fill_(1)
    mask.apply(network)
    assert parameters_left(network, mask) == sum(int(p.count_nonzero()) for p in network.parameters())
    with pytest.raises(FileNotFoundError):
        bytes_on_disk(tmp_path / "none")
