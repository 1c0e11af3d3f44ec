"""Tickets that ship with the package, and packed ones: initial weights drawn again from a seed, to the bit, or refused.
"""
import json
import math
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

import lipfw
from lipfw import zoo
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.folder import path_digest
from lipfw.listing import tickets_in
from lipfw.mask import Mask, prunable
from lipfw.measures import parameters_left
from lipfw.prior import skip
from lipfw.pruner.ticket import Replay
from lipfw.redraw import recipe, redrawn
from lipfw.status.plan import plan
from lipfw.streams import global_stream, stream, stream_seed
from lipfw.ticket import INITIAL, REDRAW, Ticket, checksum, save_state
from lipfw.tickets.__main__ import main

SHARES = {"multi-s59": 0.5904, "multi-s79": 0.7903, "multi-s89": 0.8926, "multi-s95": 0.9560}
FUSED = torch.backends.cpu.get_cpu_capability() != "DEFAULT"        # torch's kernels have fused multiply-add
SMALL = dict(inputs=4, outputs=3, channels=6, depth=2, skip=2)


def words(seed: int, count: int) -> np.ndarray:
    """Return the first 32-bit numbers of the Mersenne Twister, by the 1998 recipe: numpy's own, seeded as in 2002."""
    bits = np.random.MT19937()
    bits._legacy_seeding(seed & 0xFFFFFFFF)
    return bits.random_raw(count)


def uniform(seed: int, count: int) -> np.ndarray:
    """Return float64 multiples of 2^-24 in [0, 1)."""
    return (words(seed, count) & 0xFFFFFF) * 2.0 ** -24


def refused(call, *parts):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for part in parts:
        assert str(part) in str(error.value), str(error.value)


# --- draws

@pytest.mark.parametrize("count", [1, 3, 15, 16, 17, 624, 4_099])
def test_uniform_draws_are_those_of_the_mersenne_twister_whatever_the_size(count):
    seed = stream_seed(5, "weights")
    drawn = torch.rand(count, generator=stream(5, "weights"), dtype=torch.float32)
    np.testing.assert_array_equal(drawn.double().numpy(), uniform(seed, count))


def test_redrawn_weights_against_numpy():
    """In the order of the modules, weight and bias; u * 2b - b with a single rounding; the rest is constant."""
    network = skip.Skip(**SMALL)
    state = redrawn(recipe(network, network.state_dict(), 11), 1_000)
    assert {n: (t.shape, t.dtype) for n, t in state.items()} == \
        {n: (t.shape, t.dtype) for n, t in network.state_dict().items()}
    total = sum(m.weight.numel() + m.bias.numel() for m in network.modules() if isinstance(m, nn.Conv2d))
    draws, at = uniform(stream_seed(11, "weights"), total), 0
    for name, m in network.named_modules():
        if isinstance(m, nn.Conv2d):
            bound = np.float64(np.float32(1 / math.sqrt(m.in_channels * m.kernel_size[0] * m.kernel_size[1])))
            for key in ("weight", "bias"):
                drawn = state[f"{name}.{key}"]
                u = draws[at:at + drawn.numel()]
                at += drawn.numel()
                expected = (u * (2 * bound) - bound).astype(np.float32)     # float64 holds product and sum exactly
                np.testing.assert_array_equal(drawn.flatten().numpy(), expected)
    assert at == total
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    constant = [n for n in state if ".norm." in n or n.rpartition(".")[2] in ("running_mean", "running_var")]
    assert norms and all(state[n].unique().numel() == 1 for n in constant)


@pytest.mark.skipif(not FUSED, reason="this processor has no fused multiply-add: torch rounds twice")
def test_they_are_the_weights_that_a_run_starts_from():
    prior = skip.build([(3, 64, 64)], channels=16, seed=4)
    state = prior.network.state_dict()
    drawn = redrawn(recipe(prior.network, state, 4), 10_000)
    assert checksum(drawn) == checksum(state) != checksum(redrawn(recipe(prior.network, state, 5), 10_000))


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"seed": "a", "state": []}', '{"seed": 0, "state": [["w", [4], {"fan_in": 0}]]}',
    '{"seed": 0, "state": [["w", [-1], {"fan_in": 3}]]}', '{"seed": 0, "state": [["w", [4], {"eval": "1"}]]}',
    '{"seed": 0, "state": [["w", [4], {"fan_in": "x"}]]}', '{"seed": 0, "state": [["w", [4], {}]]}', "[" * 100_000,
    '{"seed": 0, "state": [["w", [1000000, 1000000], {"float32": 1}]]}',        # 4 TB
])
def test_a_recipe_that_is_none_is_refused(text):
    refused(lambda: redrawn(text, 100), "damaged")


# --- the zoo

def test_the_tickets_that_ship():
    assert set(SHARES) | {"multi"} == set(zoo.names())
    assert [f.stem for f in zoo.tickets("zoo:multi")] == list(SHARES)
    card = (Path(zoo.__file__).parent / "multi.md").read_text()
    network, within = skip.Skip(), None
    for name, share in SHARES.items():
        (file,) = zoo.tickets(f"zoo:{name}")
        ticket = Ticket.load(f"zoo:{name}")
        ticket.mask.check(network)
        assert ticket.mask.sparsity == pytest.approx(share, abs=5e-5) and file.stat().st_size < 500_000
        assert within is None or all((m <= within[n]).all() for n, m in ticket.mask.items())    # each in the one before
        within = ticket.mask
        state = ticket.initial(file)
        assert checksum(state) == ticket.about["initial"] and ticket.about["initial"][:16] in card
        assert not (file.parent / INITIAL).exists() and "seed" in json.loads(ticket.about[REDRAW])
        network.load_state_dict(state)
        assert f"{ticket.mask.count:,}" in card and f"{parameters_left(network, ticket.mask):,}" in card
        assert json.loads(ticket.about["architecture"])["channels"] == 128


def test_a_name_that_is_not_there_is_told_with_the_nearest():
    refused(lambda: tickets_in("zoo:mutli-s89"), "mutli-s89", "multi-s89")
    refused(lambda: Replay("zoo:"), "multi")
    refused(lambda: tickets_in("zoo:../multi-s89"), "must be one of")
    refused(lambda: Ticket.load("zoo:multi"), "4 tickets", "zoo:multi-s89")


def test_a_run_is_named_by_the_bytes_of_its_tickets_wherever_they_lie(tmp_path):
    (file,) = zoo.tickets("zoo:multi-s89")
    shutil.copy(file, tmp_path / "mine.safetensors")
    assert path_digest("pruner", "zoo:multi-s89") == path_digest("pruner", str(tmp_path / "mine.safetensors"))
    digests = {path_digest("pruner", f"zoo:{name}") for name in zoo.names()}
    assert len(digests) == 5 and all(len(d) == 64 for d in digests)


@pytest.mark.parametrize("channels", [3, 1])
def test_a_ticket_of_the_zoo_restores_colour_and_grey(channels):
    """Of grey pictures the last layer, which makes one channel instead of three, is kept whole."""
    replay = Replay("zoo:multi")
    prior = skip.build([(channels, 64, 64)], seed=9)
    replay.prepare(prior.network)
    assert replay.whole == ([] if channels == 3 else ["head.weight"])
    initial, state = Ticket.load("zoo:multi-s59").initial(Path()), prior.network.state_dict()
    same = [n for n in state if torch.equal(state[n], initial[n])]
    assert [n for n in state if n not in same] == ([] if channels == 3 else ["head.weight", "head.bias"])
    picture = np.random.default_rng(0).random((64, 64, 3) if channels == 3 else (64, 64)).astype(np.float32)
    restored = lipfw.restore(picture, ticket="zoo:multi-s95", steps=1)
    assert restored.array.shape == picture.shape and np.isfinite(restored.array).all()


@pytest.mark.parametrize("options", [dict(channels=64), dict(depth=4), dict(skip_channels=2), dict(code_channels=16)])
def test_another_network_is_refused_in_a_line(options):
    prior = skip.build([(3, 64, 64)], **options)
    refused(lambda: Replay("zoo:multi-s89").prepare(prior.network), "multi-s89", "another network", '"channels": 128')


def test_a_torch_that_draws_otherwise_is_told(monkeypatch):
    ticket = Ticket.load("zoo:multi-s95")
    other = json.loads(ticket.about[REDRAW]) | {"seed": 123}
    changed = replace(ticket, about={**ticket.about, REDRAW: json.dumps(other)})
    refused(lambda: changed.initial(Path("x.safetensors")), "x.safetensors", torch.__version__, "pruner.init=fresh",
            ticket.about["initial"][:16])
    damaged = replace(ticket, about={**ticket.about, REDRAW: "{"})
    refused(lambda: damaged.initial(Path("x.safetensors")), "x.safetensors", "damaged", "copy it again")


def test_the_status_of_a_grid_knows_the_rounds_of_a_family(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["pruner=ticket", "pruner.path=zoo:multi", "fit.steps=10"])
    told = plan(OmegaConf.to_container(config, resolve=True), tmp_path)
    assert (told.rounds, told.steps) == (4, 40)


def test_tickets_are_shown_by_name(capsys):
    assert main(["zoo:multi"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{share:.2%}" in shown for share in SHARES.values()) and "drawn again" in shown
    assert main(["zoo:multi-s89"]) == 0
    assert "encoders.0.down.0" in capsys.readouterr().out


# --- packing

@pytest.fixture
def run(tmp_path):
    """The tickets of a small run whose weights were drawn with fused multiply-add, and its masks."""
    network = skip.Skip(**SMALL)
    state = redrawn(recipe(network, network.state_dict(), 7), 1_000)
    return write(tmp_path / "run", state)


def write(folder, state, rounds=2, **about):
    (folder / "tickets").mkdir(parents=True)
    weights = prunable(skip.Skip(**SMALL))
    told = {"architecture": json.dumps({"network": "skip", **SMALL}), "seed": "7", "run": "a", "label": "b",
            "initial": save_state(folder / "tickets" / INITIAL, state), **about}
    for r in range(rounds):
        draws = {n: np.random.default_rng(zlib.crc32(n.encode())).random(tuple(w.shape)) for n, w in weights.items()}
        mask = Mask({n: torch.from_numpy(d < 0.8 ** r) for n, d in draws.items()})
        Ticket(mask, {**told, "round": str(r)}).save(folder / "tickets" / f"round_{r:02d}.safetensors")
    return folder


def pack(capsys, *argv):
    status = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert err.count("\n") == status
    return out if status == 0 else err


def test_packed_tickets_start_from_the_same_weights(run, tmp_path, capsys):
    out = pack(capsys, run, "--pack", tmp_path / "packed")
    assert out.count("packed: ") == 2 and not (tmp_path / "packed" / INITIAL).exists()
    shutil.copy(tmp_path / "packed/round_01.safetensors", tmp_path / "alone.safetensors")       # what one sends
    states, masks = [], []
    for path in (run / "tickets/round_01.safetensors", tmp_path / "alone.safetensors"):
        prior = skip.build([(3, 16, 16)], channels=6, depth=2, skip_channels=2, code_channels=4, seed=1)
        replay = Replay(str(path))
        replay.prepare(prior.network)
        states.append(prior.network.state_dict())
        masks.append(replay.masks[0])
    assert checksum(states[0]) == checksum(states[1])
    assert all(torch.equal(m, masks[1][n]) for n, m in masks[0].items())
    again = pack(capsys, tmp_path / "alone.safetensors", "--pack", tmp_path / "b/again.safetensors")
    assert "again.safetensors" in again
    assert (tmp_path / "b/again.safetensors").read_bytes() == (tmp_path / "alone.safetensors").read_bytes()


def test_what_can_not_be_packed(run, tmp_path, capsys):
    file, to = run / "tickets/round_01.safetensors", tmp_path / "mine.safetensors"
    assert "prior.seed=8" in pack(capsys, file, "--pack", to, "--seed", "8")
    state = Ticket.load(file).initial(file)
    name = "encoders.0.skip.0.weight"
    moved = write(tmp_path / "moved", state | {name: state[name] + 1e-7})       # rewound to a later step
    assert "initial.safetensors" in pack(capsys, moved, "--pack", tmp_path / "never")
    norm = "decoders.0.norm.weight"
    moved = write(tmp_path / "norm", state | {norm: torch.arange(8.)})
    assert norm in pack(capsys, moved, "--pack", tmp_path / "never")
    unknown = write(tmp_path / "unknown", state, seed="")
    assert "--seed" in pack(capsys, unknown, "--pack", tmp_path / "never")
    assert "give --pack" in pack(capsys, file, "--seed", "7")
    assert not to.exists() and not (tmp_path / "never").exists()
    assert "packed: " in pack(capsys, unknown, "--pack", tmp_path / "there", "--seed", "7")
    before = (tmp_path / "there/round_00.safetensors").read_bytes()
    assert "is there already" in pack(capsys, run, "--pack", tmp_path / "there")
    assert (tmp_path / "there/round_00.safetensors").read_bytes() == before


def test_redraws_do_not_touch_the_streams_of_others():
    with global_stream(3, "weights"):
        expected = torch.rand(3)
    with global_stream(3, "weights"):
        Ticket.load("zoo:multi-s95").initial(Path())
        assert torch.equal(torch.rand(3), expected)
