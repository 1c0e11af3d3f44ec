"""Ticket files: what goes in comes out, equal tickets are equal files, damage is one clear line."""
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lipfw import ticket as module
from lipfw.errors import InputError
from lipfw.listing import tickets_in
from lipfw.mask import Mask, keep_top, prunable
from lipfw.prior.skip import Skip
from lipfw.ticket import INITIAL, Ticket, checksum, save_state

ABOUT = {"architecture": '{"network": "skip"}', "round": "3", "pruner": "σ", "seed": "0", "initial": "abc", "image": ""}
SHAPES = {"up.weight": (5, 3, 3, 3), "down.weight": (1,), "head.weight": (7,), "even.weight": (2, 4, 1, 1)}


def masked():
    rng = np.random.default_rng(0)
    return Mask({n: torch.from_numpy(rng.random(s) < 0.3) for n, s in SHAPES.items()})


@pytest.fixture
def path(tmp_path):
    Ticket(masked(), ABOUT).save(tmp_path / "round_03.safetensors")
    return tmp_path / "round_03.safetensors"


def refused(call, *words):
    """Assert that `call` raises InputError in one line that holds the words."""
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert str(word) in str(error.value)


def rewrite(path, header=None, tensors=None, key=None):
    """Write a ticket file again with a changed header (a function of it, or text) or tensors."""
    packed = load_file(path) if tensors is None else tensors
    with module.safe_open(path, "pt") as f:
        (own, text), = f.metadata().items()
    text = header if isinstance(header, str) else json.dumps((header or (lambda h: h))(json.loads(text)))
    save_file(packed, path, metadata={key or own: text})


# ---- masks ------------------------------------------------------------------------------------------------------

def test_a_ticket_comes_back_as_it_was(path):
    ticket, mask = Ticket.load(path), masked()
    assert ticket.about == ABOUT and list(ticket.mask) == list(SHAPES)
    assert all(torch.equal(ticket.mask[n], mask[n]) and ticket.mask[n].dtype == torch.bool for n in mask)
    assert (ticket.mask.count, ticket.mask.total) == (mask.count, mask.total)


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 17])
def test_every_size_keeps_its_last_bits(tmp_path, size, fill):
    Ticket(Mask({"w": torch.full((size,), fill)})).save(tmp_path / "t")
    assert Ticket.load(tmp_path / "t").mask["w"].tolist() == [fill] * size


def test_the_file_of_the_full_hourglass_is_its_bits_and_a_short_header(tmp_path):
    network = Skip()
    weights = prunable(network)
    mask = keep_top({n: w.abs() for n, w in weights.items()}, 463_212)
    Ticket(mask, ABOUT).save(tmp_path / "t")
    bits = 2_208_768 // 8
    assert bits == 276_096 and bits < (tmp_path / "t").stat().st_size < bits + 10_000
    assert Ticket.load(tmp_path / "t").mask.count == 463_212


def test_equal_tickets_are_equal_files_in_every_process(tmp_path, path):
    code = f"""
import sys
import numpy as np
import torch
from lipfw.mask import Mask
from lipfw.ticket import Ticket
{inspect.getsource(masked)}
SHAPES = {SHAPES!r}
Ticket(masked(), {ABOUT!r}).save(sys.argv[1])
"""
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / f"{seed}.safetensors")],
                                env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)})
               for seed in "12"]
    assert [p.wait(120) for p in started] == [0, 0]
    for _ in range(5):
        Ticket(masked(), ABOUT).save(tmp_path / "same")
        assert (tmp_path / "same").read_bytes() == path.read_bytes()
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes() == path.read_bytes()


def test_a_file_is_never_half_written(tmp_path, path, monkeypatch):
    old = path.read_bytes()

    def cut(file, data):
        os.write(os.open(file, os.O_WRONLY | os.O_CREAT), data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut)
    for target in (path, tmp_path / "new.safetensors"):
        with pytest.raises(OSError):
            Ticket(masked(), ABOUT).save(target)
    with pytest.raises(OSError):
        save_state(tmp_path / INITIAL, {"w": torch.ones(1)})
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]


# ---- damage -----------------------------------------------------------------------------------------------------

def test_a_file_that_is_cut_off_anywhere(path):
    whole = path.read_bytes()
    for size in sorted({0, 1, 7, 8, 9, 50, *range(100, len(whole), 97), len(whole) - 1}):
        path.write_bytes(whole[:size])
        refused(lambda: Ticket.load(path), path, "copy it again")


def test_a_bit_that_flipped(path):
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 0x10
    path.write_bytes(whole)
    refused(lambda: Ticket.load(path), path, "damaged", "copy it again")


def test_two_bits_that_changed_places(path):
    """One bit on and another off: the number of kept weights is as before."""
    packed = load_file(path)
    bits = np.unpackbits(packed["up.weight"].numpy(), count=135)
    on, off = np.flatnonzero(bits)[0], np.flatnonzero(bits == 0)[0]
    bits[[on, off]] = bits[[off, on]]
    rewrite(path, tensors=packed | {"up.weight": torch.from_numpy(np.packbits(bits))})
    refused(lambda: Ticket.load(path), path, "damaged")


@pytest.mark.parametrize("header", [
    "not JSON", "[]", "null", "{}",
    lambda h: {k: v for k, v in h.items() if k != "version"},
    lambda h: {k: v for k, v in h.items() if k != "shapes"},
    lambda h: {k: v for k, v in h.items() if k != "about"},
    lambda h: h | {"about": "text"},
    lambda h: h | {"kept": h["kept"] + 1},
    lambda h: h | {"total": h["total"] + 8},
    lambda h: h | {"shapes": h["shapes"] | {"more.weight": [3]}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": [5, 3, 3, 4]}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": [-5, -3, 3, 3]}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": "5333"}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": None}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": [2 ** 32, 2 ** 32]}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": [10 ** 400]}},
    lambda h: h | {"shapes": h["shapes"] | {"up.weight": [float("inf"), 1]}},
    "[" * 100_000,
])
def test_a_header_that_does_not_fit(path, header):
    rewrite(path, header)
    refused(lambda: Ticket.load(path), path, "damaged")


@pytest.mark.parametrize("change", [
    lambda t: t | {"up.weight": t["up.weight"].to(torch.int32)},
    lambda t: t | {"up.weight": t["up.weight"][:-1]},
    lambda t: {n: v for n, v in t.items() if n != "head.weight"},
])
def test_masks_that_do_not_fit_the_header(path, change):
    rewrite(path, tensors=change(load_file(path)))
    refused(lambda: Ticket.load(path), path, "damaged")


def test_another_format_version(path):
    rewrite(path, lambda h: h | {"version": 2})
    refused(lambda: Ticket.load(path), path, "format 2", "reads 1")


def test_files_that_are_no_tickets(tmp_path):
    save_file({"w": torch.ones(3)}, tmp_path / "plain.safetensors")
    refused(lambda: Ticket.load(tmp_path / "plain.safetensors"), "plain.safetensors", "no lipfw ticket", "tickets/")
    save_file({"w": torch.ones(3)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    refused(lambda: Ticket.load(tmp_path / "other.safetensors"), "no lipfw ticket")
    (tmp_path / "text").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    refused(lambda: Ticket.load(tmp_path / "text"), "text", "not a readable ticket")
    for missing in (tmp_path, tmp_path / "none.safetensors"):
        refused(lambda p=missing: Ticket.load(p), missing, "no ticket at", "round_07.safetensors")


# ---- the weights it starts from ---------------------------------------------------------------------------------

def state(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).state_dict()


def test_initial_weights_come_back_bit_for_bit(tmp_path):
    given = state() | {"turned": torch.arange(6.0).reshape(2, 3).T, "tiny": torch.tensor(-0.0)}
    ticket = Ticket(masked(), {"initial": save_state(tmp_path / INITIAL, given)})
    found = ticket.initial(tmp_path / "round_00.safetensors")
    assert found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    assert torch.signbit(found["tiny"])


def test_a_network_with_a_shared_module_can_be_saved(tmp_path):
    shared = nn.Conv2d(2, 2, 3)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    initial = save_state(tmp_path / INITIAL, network.state_dict())
    found = Ticket(masked(), {"initial": initial}).initial(tmp_path / "round_00.safetensors")
    network.load_state_dict(found)


@pytest.mark.parametrize("change", [
    lambda s: s | {"0.bias": s["0.bias"] + 1e-6},
    lambda s: s | {"0.bias": s["0.bias"].double()},
    lambda s: s | {"0.bias": s["0.bias"].reshape(3, 1)},
    lambda s: s | {"1.weight": s["1.bias"], "1.bias": s["1.weight"]},
    lambda s: s | {"more": torch.ones(1)},
    lambda s: {n: v for n, v in s.items() if n != "0.bias"},
])
def test_the_checksum_sees_every_change_and_no_order(change):
    assert checksum(state()) == checksum(dict(reversed(state().items()))) != checksum(change(state()))


def test_initial_weights_of_another_run_missing_or_damaged(tmp_path, path):
    ticket = Ticket(masked(), {"initial": checksum(state())})
    remedies = ("copy it from the run", "pruner.init=fresh")
    refused(lambda: ticket.initial(path), tmp_path / INITIAL, "missing", *remedies)
    save_state(tmp_path / INITIAL, state(1))
    refused(lambda: ticket.initial(path), "other weights", path.name, *remedies)
    refused(lambda: Ticket(masked()).initial(path), "other weights", *remedies)
    save_state(tmp_path / INITIAL, state())
    assert ticket.initial(path).keys() == state().keys()
    (tmp_path / INITIAL).write_bytes((tmp_path / INITIAL).read_bytes()[:-3])
    refused(lambda: ticket.initial(path), "not readable", *remedies)


# ---- which tickets a path names ---------------------------------------------------------------------------------

def test_a_path_names_one_ticket_a_folder_or_a_run(tmp_path):
    tickets = tmp_path / "run" / "tickets"
    tickets.mkdir(parents=True)
    refused(lambda: tickets_in(tickets), tickets, "round_07.safetensors")
    files = [tickets / f"round_{r:02d}.safetensors" for r in (2, 1, 0)]
    for file in (*files, tickets / INITIAL, tickets / "notes.txt"):
        file.touch()
    assert tickets_in(tickets) == tickets_in(tmp_path / "run") == files[::-1]
    assert tickets_in(str(files[0])) == [files[0]]
    assert tickets_in(tmp_path) == files[::-1]      # runs/<name> with a single run
    other = tmp_path / "other" / "tickets"
    other.mkdir(parents=True)
    (other / "round_00.safetensors").touch()
    assert tickets_in(other.parent) == [other / "round_00.safetensors"]
    refused(lambda: tickets_in(tmp_path), tmp_path, "holds 2 runs")
    refused(lambda: tickets_in(tmp_path / "none"), "none", "pruner=imp")


def test_more_than_a_hundred_rounds_stay_in_order(tmp_path):
    for r in range(102):
        (tmp_path / f"round_{r:02d}.safetensors").touch()
    assert [int(p.stem.split("_")[1]) for p in tickets_in(tmp_path)] == list(range(102))


@pytest.mark.parametrize("there, missing", [((0, 2), "01"), ((1, 2), "00"), ((7,), "00"), ((0, 1, 2, 4, 6), "03"),
                                            ((*range(100), 101), "100")])
def test_a_round_that_is_missing_between_others(tmp_path, there, missing):
    tickets = tmp_path / "run" / "tickets"
    tickets.mkdir(parents=True)
    for r in there:
        (tickets / f"round_{r:02d}.safetensors").touch()
    last = tickets / f"round_{there[-1]:02d}.safetensors"
    for path in (tickets, tickets.parent, tmp_path):
        refused(lambda p=path: tickets_in(p), tickets / f"round_{missing}.safetensors", "is missing", "copy", last)
    assert tickets_in(last) == [last]
