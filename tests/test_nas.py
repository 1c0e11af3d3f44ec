"""NAS-DIP's networks: exact counts, each network against one built apart from the bits, all cells, all patterns."""
import json
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.folder import run_folder
from lipfw.mask import Mask, keep_top, prunable
from lipfw.measures import connected, dead_channels
from lipfw.prior import nas
from lipfw.prior.nas import Supernet
from lipfw.prior.prior import rebuild
from lipfw.ticket import Ticket

# facts, section 2.4, once more: cell, rows R_1 ... R_5 for the sources enc0 ... enc4
PUBLISHED = {"denoise": (158, "11111 01111 00111 00011 00001"), "inpaint": (86, "11000 01100 10110 01011 00101"),
             "superres": (119, "10010 11001 01100 00110 00011")}
TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "prior=nas", "fit.steps=3", "fit.log_every=1",
        "image.size=32", "prior.channels=4", "prior.code_channels=4"]


# ---- counts -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("model, outputs, unused, count", [
    ("denoise", 3, True, 4_405_635), ("denoise", 3, False, 3_924_867), ("inpaint", 1, True, 10_710_273),
    ("inpaint", 1, False, 10_710_273), ("superres", 3, True, 3_512_835), ("superres", 3, False, 3_512_835)])
def test_the_searched_networks_have_the_published_numbers_of_parameters(model, outputs, unused, count):
    with torch.device("meta"):
        cell, rows = PUBLISHED[model]
        network = Supernet(32, outputs, 128, cell, [int(row, 2) for row in rows.split()], unused)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_models_are_the_published_ones_and_follow_the_task():
    for task, (cell, rows) in PUBLISHED.items():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert compose("config", ["prior=nas", f"task={task}"]).prior.model == task
        prior = nas.build([(1, 64, 64)], model=task, channels=4)
        assert prior.architecture["cell"] == cell
        assert [f"{row:05b}" for row in prior.architecture["skips"]] == rows.split()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("config", ["prior=nas", "task=clean"]).prior.model == "denoise"


# ---- the networks against plain functions -----------------------------------------------------------------------

def plain_cell(index, weights, x):
    """The cell of an index in plain functions, one channel at a time where channels are apart; weights in their order.
    """
    act = [lambda x: x, lambda x: x.clamp(min=0), lambda x: torch.where(x > 0, x, 0.2 * x)][index % 3]
    c, h, w = x.shape[1:]

    def double(x):
        kind = min(index // 63, 3)
        if kind == 3:
            n = x.shape[1] // 4
            y = x.new_zeros(1, n, 2 * h, 2 * w)
            for k in range(4 * n):
                y[:, k // 4, k % 4 // 2::2, k % 2::2] = x[:, k]
            return act(y)
        if kind == 2:
            return act(x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return act(F.interpolate(x, size=(2 * h, 2 * w), mode=("bilinear", "bicubic")[kind], align_corners=False))

    def correlate(x, weight):
        return F.conv2d(F.pad(x, 4 * (weight.shape[-1] // 2,)), weight)

    def transposed(x, stride):
        """Each value stamps its kernel; the frame of k // 2 pixels is cut off."""
        weight, bias = next(weights), next(weights)
        k, (rows, columns) = weight.shape[-1], x.shape[2:]
        y = x.new_zeros(1, weight.shape[1], stride * rows + k, stride * columns + k)
        for i in range(rows):
            for j in range(columns):
                y[:, :, stride * i:stride * i + k, stride * j:stride * j + k] += torch.einsum(
                    "bi,iokl->bokl", x[:, :, i, j], weight)
        p = k // 2
        return y[:, :, p:p + stride * rows, p:p + stride * columns] + bias.view(1, -1, 1, 1)

    def conv(x, kind):
        if kind == 0:
            return correlate(x, next(weights))
        if kind == 1:
            return transposed(x, 1)
        if kind == 2:
            parts = min(4, x.shape[1])
            return correlate(sum(x.chunk(parts, 1)), next(weights))
        if kind in (3, 4):
            weight = next(weights)
            many = len(weight) // x.shape[1]
            y = torch.cat([correlate(x[:, o // many:o // many + 1], weight[o:o + 1]) for o in range(len(weight))], 1)
            return torch.einsum("oi,bihw->bohw", next(weights)[:, :, 0, 0], y) if kind == 3 else y
        raise AssertionError

    if index >= 312:
        return act(transposed(x, 2))
    kind = min(index % 63 // 12, 5)
    if index >= 252:
        return double(act(conv(x, kind)))
    x = double(x)
    if kind == 5:
        return torch.cat([x] * (c // x.shape[1]), 1)
    return act(conv(x, kind))


def plain_network(network, index, rows, x):
    """The flow of facts, section 2.4, straight from the bits; every chain is walked on its own."""
    def norm(x, m):
        return F.batch_norm(x, None, None, m.weight, m.bias, training=True, eps=1e-5)

    def block(x, m, stride=1):
        conv, bn, _ = m
        x = F.conv2d(F.pad(x, 4 * (conv.weight.shape[-1] // 2,), mode="reflect"), conv.weight, conv.bias, stride)
        return F.leaky_relu(norm(x, bn), 0.2)

    def up(x, cell):
        return plain_cell(index, iter(cell.parameters()), x)

    enc = [x]
    for first, second in network.encoders:
        enc.append(block(block(enc[-1], first, 2), second))

    def brought(c, j):      # source enc_c to the resolution of add_j
        x = enc[c]
        if c == j - 1:
            return block(x, network.across[str(c)])
        for level in range(c + 1, j):
            x = block(x, network.down[str(level - 1)], 2)
        for level in range(c, j - 1, -1):
            x = up(x, network.up[str(level - 1)])
        return x

    x = enc[5]
    for j in (5, 4, 3, 2, 1):
        x = up(x, network.cells[j - 1]) + sum(brought(c, j) for c in range(5) if rows[j - 1][c] == "1")
        first, *blocks = network.decoders[j - 1]
        x = norm(x, first)
        for m in blocks:
            x = block(x, m)
    return F.conv2d(x, network.head.weight, network.head.bias)


def shuffled(network):
    """Give batch norms and biases other values than ones and zeros, which would hide a swap."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p += torch.empty_like(p).normal_(0, 0.2, generator=generator)
    return network.double()


@pytest.mark.parametrize("index, rows", [*PUBLISHED.values(), (312, "10101 01010 11011 00100 10001"),
                                         (260, "00000 11111 00000 10001 11110"),
                                         (240, "00001 00010 00100 01000 10000")])
def test_a_network_is_what_its_bits_say(index, rows):
    torch.manual_seed(0)
    rows = rows.split()
    network = shuffled(Supernet(3, 2, 8, index, [int(row, 2) for row in rows]))
    x = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = plain_network(network, index, rows, x)
        assert expected.shape == (1, 2, 64, 96)
        torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-8)


def test_every_cell_is_what_its_index_says_and_doubles_the_size():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 3, 2, dtype=torch.float64)
    seen = set()
    for index in range(324):
        cell = nas.up_cell(index, 16).double()
        found = cell(x.clone())
        assert found.shape == (1, 16, 6, 4), index
        torch.testing.assert_close(found, plain_cell(index, iter(cell.parameters()), x), rtol=0, atol=1e-10,
                                   msg=f"cell {index}")
        seen.add(repr(cell))
    assert len(seen) == 4 * (5 * 4 * 3 + 3) + 5 * 4 * 3 + 4 * 3     # no two are alike


@settings(max_examples=15, deadline=None)
@given(cell=st.integers(0, 323), skips=st.lists(st.integers(0, 31), min_size=5, max_size=5),
       size=st.tuples(st.integers(1, 100), st.integers(1, 100)), channels=st.sampled_from([4, 8, 12]))
def test_any_pattern_makes_a_picture_of_any_size(cell, skips, size, channels):
    rows = [f"{row:05b}" for row in skips]
    whole = nas.build([(2, *size)], cell=cell, skips=rows, channels=channels, code_channels=2)
    used = nas.build([(2, *size)], cell=cell, skips=rows, channels=channels, code_channels=2, unused=False)
    made = used()
    assert made.shape == (1, 2, *size) and made.isfinite().all()
    made.mean().backward()
    assert all(p.grad is not None for p in used.network.parameters())       # no block is left that has no use
    used.network.load_state_dict({n: whole.network.state_dict()[n] for n in used.network.state_dict()})
    assert torch.equal(used(), whole())
    again = rebuild(whole.architecture)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in
                                                                 whole.network.named_parameters()}


# ---- pruning ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("index", [158, 86, 119, 320, 300, 250, 240, 190, 30])
def test_what_is_connected_can_be_told(index):
    """A signal by hand: with all weights it comes through, without the head's or the first encoder's and skip's none.
    """
    network = Supernet(4, 1, 8, index, [31, 15, 7, 3, 1])
    shape, whole = (4, 64, 64), Mask.ones(network)
    assert connected(network, whole, shape)
    dead = dead_channels(network, whole, shape)
    assert not any(d.any() for n, d in dead.items() if not n.startswith("down."))
    assert {n for n in prunable(network) if n not in dead or dead[n].all()} == {f"down.{i}.0.weight" for i in range(4)}
    for gone in (["head.weight"], [n for n in whole if n.startswith(("encoders.0.0", "across.0.0"))]):
        mask = Mask({n: torch.zeros_like(m) if n in gone else m for n, m in whole.items()})
        assert not connected(network, mask, shape)
    scores = {n: p.detach().abs() for n, p in prunable(network).items()}
    assert connected(network, keep_top(scores, whole.total // 2), shape)


@pytest.mark.parametrize("overrides", [["task=denoise"], ["task=inpaint"], ["task=superres"], ["prior.cell=320"],
                                       ["prior.cell=309", "prior.unused=false"]], ids=" ".join)
def test_tickets_are_found_in_searched_networks(go, overrides):
    folder, result = go("pruner=imp", "pruner.rounds=2", *overrides)
    assert [r["sparsity"] for r in result["rounds"]] == pytest.approx([0, 0.2, 0.36], abs=2e-3)
    ticket = Ticket.load(folder / "tickets/round_02.safetensors")
    network = rebuild(json.loads(ticket.about["architecture"]))
    ticket.mask.check(network)
    if overrides == ["task=denoise"]:
        _, replayed = go("pruner=ticket", f"pruner.path={folder}", *overrides)
        assert [r["loss"] for r in replayed["rounds"]] == [r["loss"] for r in result["rounds"]]


def test_weights_that_no_step_moves_are_pruned_as_the_others(go):
    """The denoising network has four blocks that nothing leads through: their gradients are none."""
    folder, _ = go("pruner=imp", "pruner.rounds=1", "pruner.rate=0.5")
    mask = Ticket.load(folder / "tickets/round_01.safetensors").mask
    unused = [m for n, m in mask.items() if n.startswith("down.")]
    assert len(unused) == 4 and all(0 < int(m.sum()) < m.numel() for m in unused)
    for pruner, *few in (("snip",), ("synflow", "pruner.steps=3"), ("grasp",)):
        folder, _ = go(f"pruner={pruner}", "pruner.sparsities=[0.5]", *few)
        mask = Ticket.load(folder / "tickets/round_01.safetensors").mask
        kept = sum(int(m.sum()) for n, m in mask.items() if n.startswith("down."))
        assert kept == 0 or pruner == "grasp"       # whose zeros lie between scores of both signs


# ---- options ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spelled", ["[11111,01111,00111,00011,00001]", "['11111','01111','00111','00011','00001']",
                                     "[11111,1111,111,11,1]"])
def test_rows_are_read_however_they_are_spelled(spelled):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["prior=nas", f"prior.skips={spelled}"])
    assert nas.bits(cfg.prior.skips) == ["11111", "01111", "00111", "00011", "00001"]


def test_the_same_network_has_one_folder_however_its_rows_are_spelled(tmp_path):
    """Numbers, octal ones and text are one matrix; what is none is told when the network is made."""
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nprior: {skips: [11111, 01111, 00111, 00011, 1]}\n")
    texts = "['11111','01111','00111','00011','00001']"
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        folders = {run_folder(compose("mine", ["prior=nas", f"hydra.searchpath=[file://{CONF}]", *more])).name
                   for more in ([], [f"prior.skips={texts}"], ["prior.skips=[11111,1111,111,11,1]"],
                                ["prior.skips=[11111,01111,00111,00011,00001]"])}
        other = compose("mine", ["prior=nas", f"hydra.searchpath=[file://{CONF}]", "prior.skips=[11111,1111,111,11,0]"])
        none = compose("mine", ["prior=nas", f"hydra.searchpath=[file://{CONF}]", "prior.skips=[7]"])
    assert len(folders) == 1 and len({*folders, run_folder(other).name, run_folder(none).name}) == 3
    for row in (f"{i:05b}" for i in range(32)):     # a number is one row, be it read as decimal or as octal
        assert nas.bits([int(row), int(row, 8), row, row.lstrip("0") or "0", 0])[:4] == [row] * 4


def test_rows_in_a_file_are_read_whatever_yaml_makes_of_them(tmp_path):
    rows = [f"{i:05b}" for i in range(32)]
    (tmp_path / "a.yaml").write_text(f"skips: [{', '.join(rows)}]")
    read = list(OmegaConf.load(tmp_path / "a.yaml").skips)
    assert any(type(r) is int and str(r) not in rows for r in read)         # octal
    for start in range(0, 30, 5):
        assert nas.bits(read[start:start + 5]) == rows[start:start + 5]


@pytest.mark.parametrize("options, message", [
    (dict(cell=324), "prior.cell must be at most 323, got 324"), (dict(cell=-1), "prior.cell must be a whole number"),
    (dict(cell="158"), "prior.cell must be a whole number"),
    (dict(model="denoize"), "prior.model must be one of denoise, inpaint, superres, got 'denoize'; did you mean"),
    *((dict(skips=s), f"prior.skips must be 5 rows of 5 bits.*e.g. \\[11111,01111.*got {re.escape(str(s))}")
      for s in (["11111"] * 4, ["11111"] * 6, ["11112"] * 5, ["111111"] * 5, "11111", 11111, [31] * 5, [-1] * 5,
                [True] * 5, [1.0] * 5, [""] * 5, [["1"] * 5] * 5)),
    (dict(channels=6), "prior.channels must be a multiple of 4.*got 6"),
    (dict(channels=0), "prior.channels must be a whole number"),
    (dict(code_channels=0), "prior.code_channels must be"), (dict(unused="no"), "prior.unused must be true or false"),
])
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message) as error:
        nas.build([(3, 64, 64)], **{"channels": 4, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"cell": 324}, {"cell": -1}, {"skips": [32] * 5}, {"skips": [1] * 4},
                                    {"skips": [-1] * 5}, {"skips": True}, {"unused": "no"}, {"channels": 6}])
def test_an_architecture_that_there_is_not(change):
    told = nas.build([(3, 64, 64)], channels=4).architecture
    with pytest.raises(InputError, match="no network can be built from the architecture") as error:
        rebuild(told | change)
    assert "\n" not in str(error.value)


def test_the_network_starts_as_torch_starts_it_and_follows_the_seed():
    one, same, other = (nas.build([(3, 64, 64)], channels=4, seed=s) for s in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), same.network.parameters(), strict=True))
    assert not torch.equal(one.network.head.weight, other.network.head.weight)
    assert one.code().shape == (1, 32, 64, 64) and 0 < one.code().max() <= 0.1
    for m in one.network.modules():
        if isinstance(m, nn.Conv2d):
            assert m.weight.abs().max() <= m.weight[0].numel() ** -0.5
