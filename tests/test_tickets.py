"""python -m lipfw.tickets: numbers against loops over the masks, tables in 80 columns, mistakes in one line."""
import csv
import json
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch

from lipfw.mask import Mask, prunable
from lipfw.prior.decoder import DeepDecoder
from lipfw.prior.skip import Skip
from lipfw.ticket import INITIAL, Ticket, save_state
from lipfw.tickets.__main__ import main

SMALL = {"inputs": 4, "outputs": 3, "channels": 6, "depth": 2, "skip": 2}
ABOUT = {"task": "lipfw.task.denoise.Denoise", "image": "astronaut", "pruner": "lipfw.pruner.imp.IMP", "seed": "7",
         "run": "denoise-astronaut-skip-imp-s7-00000000"}
DENSITIES = (1.0, 0.6, 0.3, 0.01)


def write(folder, densities=DENSITIES, seed=0, make=Skip, architecture=None, **options):
    """Write a run's tickets; returns its masks."""
    options = {**SMALL, **options} if make is Skip else options
    network = make(**options)
    name = {Skip: "skip", DeepDecoder: "decoder"}[make]
    told = json.dumps({"network": name, **options}) if architecture is None else architecture
    (folder / "tickets").mkdir(parents=True)
    rng, masks = np.random.default_rng(seed), []
    initial = save_state(folder / "tickets" / INITIAL, network.state_dict())
    for r, d in enumerate(densities):
        masks.append(Mask({n: torch.from_numpy(rng.random(tuple(p.shape)) < d) for n, p in prunable(network).items()}))
        Ticket(masks[-1], ABOUT | {"architecture": told, "round": str(r), "initial": initial}).save(
            folder / "tickets" / f"round_{r:02d}.safetensors")
    return masks


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The current folder; the terminal has 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Path()


def show(capsys, *argv):
    """The lines that are printed."""
    status = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("overlap with")) <= 80
    return lines


def fails(capsys, *argv):
    """The one line of a mistake."""
    assert main([str(a) for a in argv]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("lipfw: ") and err.count("\n") == 1 and out == ""
    return err


def table(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def row(lines, start):
    """The cells of the first line that begins with a word."""
    return next(line.split() for line in lines if line.split()[:1] == [start])


# ---- a run ------------------------------------------------------------------------------------------------------

def test_a_run_round_by_round(runs, capsys):
    masks = write(runs / "a")
    lines = show(capsys, "a", "--csv", "a.csv")
    parameters = sum(p.numel() for p in Skip(**SMALL).parameters())
    rows = table("a.csv")
    assert len(rows) == 4
    for r, (found, mask) in enumerate(zip(rows, masks, strict=True)):
        file = Path(f"a/tickets/round_{r:02d}.safetensors")
        kept = sum(int(m.sum()) for m in mask.values())
        removed = sum(int((~m).sum()) for m in mask.values())
        assert found["ticket"] == str(file) and int(found["round"]) == r and float(found["sparsity"]) == mask.sparsity
        assert (int(found["kept"]), int(found["weights"])) == (kept, kept + removed)
        assert int(found["params_left"]) == parameters - removed == int(found["float32_bytes"]) / 4
        assert int(found["empty_layers"]) == [bool(m.sum() == 0) for m in mask.values()].count(True)
        assert int(found["mask_bytes"]) == file.stat().st_size
        assert int(found["initial_bytes"]) == (file.parent / INITIAL).stat().st_size
        assert int(found["channels"]) == 2 * 2 + 4 * 6 + 4 * 6 + 3
        printed = row(lines[lines.index(next(line for line in lines if line.startswith("round"))):], str(r))
        assert printed[1:] == [f"{mask.sparsity:.2%}", f"{parameters - removed:,}", found["dead_channels"],
                               found["empty_layers"], f"{file.stat().st_size:,}", f"{4 * (parameters - removed):,}"]
    assert [int(r["dead_channels"]) for r in rows][::3] == [0, 55] and int(rows[3]["empty_layers"]) > 0
    assert any(line.startswith("round 3: no path of kept weights") for line in lines)
    assert row(lines, "image")[1] == "astronaut" and row(lines, "pruner")[1] == "imp" and row(lines, "seed")[1] == "7"
    assert row(lines, "task")[1] == "denoise" and row(lines, "run")[1] == ABOUT["run"]


def test_the_deep_decoder_is_known_too(runs, capsys):
    write(runs / "d", (1.0, 0.0), make=DeepDecoder, outputs=1, channels=5, depth=2)
    show(capsys, "d", "--csv", "d.csv")
    assert [(r["dead_channels"], r["channels"]) for r in table("d.csv")] == [("0", "16"), ("16", "16")]


@pytest.mark.parametrize("architecture, reason", [
    ("", "tells no architecture"), ("[]", "tells no architecture"), ("not JSON", "tells no architecture"),
    ('{"network": "os"}', "must be one of"), ("{}", "must be one of"),
    ('{"network": "skip", "colour": 1}', "colour"), ('{"network": "skip", "channels": "many"}', "no network can be"),
    ('{"network": "skip"}', "in the network"), ('{"network": "skip", "depth": 1000000000}', "at most 32"),
    ('{"network": "decoder", "channels": 1e300}', "at most 65536"),
    ('{"network": "pggan", "channels": [1, 1000000], "latent": 8}', "at most 65536"),
])
def test_an_architecture_that_is_not_known_costs_only_what_needs_it(runs, capsys, architecture, reason):
    masks = write(runs / "a", architecture=architecture)
    lines = show(capsys, "a", "--csv", "a.csv")
    text = " ".join(lines)
    assert "rounds 0, 1, 2, 3: the network is not known" in text and reason in text
    for found, mask in zip(table("a.csv"), masks, strict=True):
        assert float(found["sparsity"]) == mask.sparsity
        assert found["dead_channels"] == found["params_left"] == found["float32_bytes"] == ""
    assert row([line for line in lines if "%" in line], "1")[2:4] == ["-", "-"]
    show(capsys, "a/tickets/round_01.safetensors", "--csv", "b.csv")
    assert {r["dead_channels"] for r in table("b.csv")} == {""}


def test_tickets_without_their_weights_and_origin(runs, capsys):
    write(runs / "a")
    (runs / "a/tickets" / INITIAL).unlink()
    ticket = Ticket.load(runs / "a/tickets/round_00.safetensors")
    Ticket(ticket.mask, {}).save(runs / "a/tickets/round_00.safetensors")
    lines = show(capsys, "a", "--csv", "a.csv")
    assert any("not beside them" in line for line in lines) and table("a.csv")[0]["initial_bytes"] == ""
    assert not [line for line in lines if line.startswith("image")]
    assert any(line.startswith("round 0: the network is not known") for line in lines)


# ---- a ticket ---------------------------------------------------------------------------------------------------

def test_a_ticket_layer_by_layer(runs, capsys):
    mask = write(runs / "a")[2]
    lines = show(capsys, "a/tickets/round_02.safetensors", "--csv", "a.csv")
    rows, removed, total = table("a.csv"), 0, 0
    assert [r["name"] for r in rows] == list(prunable(Skip(**SMALL)))
    for i, (found, m) in enumerate(zip(rows, mask.values(), strict=True), 1):
        zeros = int((~m).sum())
        removed, total = removed + zeros, total + m.numel()
        assert int(found["layer"]) == i and found["shape"] == "x".join(map(str, m.shape))
        assert (int(found["kept"]), int(found["weights"])) == (m.numel() - zeros, m.numel())
        assert float(found["sparsity"]) == zeros / m.numel() and float(found["cumulative_sparsity"]) == removed / total
        assert int(found["channels"]) == m.shape[0]
        assert row(lines, str(i)) == [str(i), found["name"].removesuffix(".weight"), found["shape"], found["kept"],
                                      f"{zeros / m.numel():.2%}", f"{removed / total:.2%}", found["dead_channels"]]
    assert row(lines, "round")[1] == "2" and row(lines, "run")[1] == ABOUT["run"]
    assert row(lines, "kept")[1:4] == [f"{mask.count:,}", "of", f"{mask.total:,}"]


def test_the_full_hourglass_fits_80_columns(runs, capsys):
    write(runs / "a", (0.4,), seed=1, **{"inputs": 32, "channels": 128, "depth": 5, "skip": 4})
    write(runs / "b", (0.4,), seed=2, **{"inputs": 32, "channels": 128, "depth": 5, "skip": 4})
    for first, second in (("a", "b"), ("a/tickets/round_00.safetensors", "b/tickets/round_00.safetensors")):
        lines = show(capsys, first, second)
    numbered = [line.split() for line in lines if line.split()[:1] and line.split()[0].isdigit()]
    assert [cells[0] for cells in numbered] == [str(i) for i in range(1, 27)] * 2       # a line a layer, none folded


# ---- overlap ----------------------------------------------------------------------------------------------------

def jaccard(pairs):
    return sum(int((x & y).sum()) for x, y in pairs) / sum(int((x | y).sum()) for x, y in pairs)


def test_the_overlap_of_runs_is_that_of_their_rounds(runs, capsys):
    a, b = write(runs / "a"), write(runs / "b", DENSITIES[:3], seed=1)
    lines = show(capsys, "a", "b", "--csv", "ab.csv")
    rows = table("ab.csv")
    for r, (x, y) in enumerate(zip(a, b, strict=False)):
        assert float(rows[r]["iou"]) == jaccard([(x[n], y[n]) for n in x])
        # independent draws: what they share is what chance gives
        assert float(rows[r]["random_iou"]) == pytest.approx(float(rows[r]["iou"]), rel=0.1)
        assert float(rows[r]["other_sparsity"]) == y.sparsity
    assert rows[3]["iou"] == rows[3]["random_iou"] == rows[3]["other_sparsity"] == "" and rows[3]["other"] == "b"
    below = lines[lines.index("overlap with b"):]
    assert row(below, "1")[1:] == [f"{a[1].sparsity:.2%}", f"{b[1].sparsity:.2%}", f"{float(rows[1]['iou']):.4f}",
                                   f"{float(rows[1]['random_iou']):.4f}"]
    assert row(below, "3")[2:] == ["-", "-", "-"] and "b has 3 rounds, a has 4" in below


def test_each_round_of_a_run_against_one_ticket_and_against_several_runs(runs, capsys):
    a = write(runs / "a")
    write(runs / "b", seed=1)
    show(capsys, "a", "a/tickets/round_01.safetensors", "b", "--csv", "ab.csv")
    rows = table("ab.csv")
    assert [r["other"] for r in rows] == ["a/tickets/round_01.safetensors"] * 4 + ["b"] * 4
    assert [float(r["iou"]) for r in rows[:4]] == [jaccard([(m[n], a[1][n]) for n in m]) for m in a]
    assert float(rows[1]["iou"]) == 1 > float(rows[5]["iou"])


def test_the_overlap_of_tickets_of_grey_and_colour_leaves_the_head_out(runs, capsys):
    a, b = write(runs / "a")[2], write(runs / "b", seed=1, outputs=1)[2]
    lines = show(capsys, "a/tickets/round_02.safetensors", "b/tickets/round_02.safetensors", "--csv", "ab.csv")
    *rows, head = table("ab.csv")
    for found in rows:
        assert float(found["iou"]) == jaccard([(a[found["name"]], b[found["name"]])])
    assert head["name"] == "head.weight" and head["iou"] == head["random_iou"] == ""
    text = " ".join(lines)
    assert "compared: 10 layers" in text and "head.weight is 3x6x1x1 here and 1x6x1x1 there" in text
    (whole,) = [line.split() for line in lines if line.strip().startswith("all compared")]
    common = [n for n in a if n != "head.weight"]
    sparsities = [1 - sum(int(m[n].sum()) for n in common) / sum(m[n].numel() for n in common) for m in (a, b)]
    assert whole[2:5] == [f"{s:.2%}" for s in sparsities] + [f"{jaccard([(a[n], b[n]) for n in common]):.4f}"]


# ---- mistakes ---------------------------------------------------------------------------------------------------

def test_mistakes_are_one_line(runs, capsys):
    write(runs / "a")
    write(runs / "d", (1.0,), make=DeepDecoder, outputs=3, channels=5, depth=2)
    (runs / "text.safetensors").write_text("no ticket")
    one = "a/tickets/round_01.safetensors"
    assert "no ticket at none" in fails(capsys, "none")
    assert "no ticket at none" in fails(capsys, "a", "none")
    assert "text.safetensors is not a readable ticket" in fails(capsys, "text.safetensors")
    assert "a and d can't be compared" in fails(capsys, "a", "d")
    message = fails(capsys, one, "a")
    assert "single ticket" in message and "a/tickets/round_00.safetensors" in message
    assert "required: PATH;" in fails(capsys) and "--help" in fails(capsys)
    assert "--cvs" in fails(capsys, "a", "--cvs", "x")
    (runs / one).unlink()
    assert f"{one} is missing" in fails(capsys, "a")


def test_a_folder_of_mixed_tickets_and_a_ticket_of_nothing(runs, capsys):
    write(runs / "a")
    write(runs / "d", (1.0,), make=DeepDecoder, outputs=3, channels=5, depth=2)
    (runs / "d/tickets/round_00.safetensors").rename(runs / "a/tickets/round_02.safetensors")
    own = sum(p.numel() for p in DeepDecoder(outputs=3, channels=5, depth=2).parameters())
    assert row(show(capsys, "a", "a"), "2")[2] == f"{own:,}"        # each ticket's network is its own
    assert "can't be compared" in fails(capsys, "a", "a/tickets/round_01.safetensors")
    Ticket(Mask({}), {}).save(runs / "a/tickets/round_03.safetensors")
    assert "round_03.safetensors is a ticket without layers" in fails(capsys, "a")


def test_a_table_that_cannot_be_written_is_one_line(runs, capsys):
    write(runs / "a", (1.0,))
    for file in (runs / "a", runs / "none" / "x.csv"):
        assert main(["a", "--csv", str(file)]) == 1
        err = capsys.readouterr().err
        assert err.startswith("lipfw: ") and err.count("\n") == 1
    assert sorted(p.name for p in runs.iterdir()) == ["a"]


def test_the_command_itself(runs):
    write(runs / "a", (1.0, 0.5))
    good = subprocess.run([sys.executable, "-m", "lipfw.tickets", "a"], capture_output=True, text=True)
    assert good.returncode == 0 and good.stderr == "" and "params left" in good.stdout
    bad = forked.run("lipfw.tickets", "b", cwd=runs)
    assert bad.returncode == 1 and bad.stdout == "" and bad.stderr.count("\n") == 1
    told = forked.run("lipfw.tickets", "--help", cwd=runs)
    assert told.returncode == 0 and "PATH" in told.stdout and "OTHER" in told.stdout
