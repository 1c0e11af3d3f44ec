"""Whole runs that seek codes: what they leave, what a kill leaves, their rounds and tickets, what is refused."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import tiny_generator
from hydra import compose, initialize_config_dir
from PIL import Image

import lipfw
from lipfw.cli import CONF, main
from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.fit import memory
from lipfw.fit.restoration import Restoration
from lipfw.folder import run_folder
from lipfw.gan.network import Generator
from lipfw.gan.weights import Weights, save
from lipfw.image.write import write_png
from lipfw.prior import pggan
from lipfw.pruner.random import Random
from lipfw.recorder import Recorder
from lipfw.report.__main__ import report
from lipfw.run import run
from lipfw.task.clean import Clean
from lipfw.ticket import Ticket, save_state, trained_name

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=6", "fit.log_every=2", "image=face",
        "image.size=16", "prior=pggan", "prior.weights=tiny.safetensors"]
CS = ["task=cs", "task.measurements=100", "task.corrupted=5", "fit.bucket=5"]


@pytest.fixture
def go(tmp_path, monkeypatch, generator_file):
    """Return a function that does a tiny run in a fresh folder with a generator; gives its folder and result."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(generator_file, "tiny.safetensors")

    def go(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*TINY, *overrides])
        return run_folder(cfg), run(cfg)
    return go


@pytest.fixture
def folder_of_pictures(tmp_path):
    (tmp_path / "set").mkdir()
    with torch.no_grad():
        made = (tiny_generator()(torch.randn(3, 6, generator=torch.Generator().manual_seed(0))) + 1) / 2
    for i, x in enumerate(made):
        write_png(tmp_path / "set" / f"p{i}.png", x[None].clamp(0, 1))
    return ["image=folder", "image.path=set"]


def bare(result):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in result["rounds"]]


def chain(error):
    """Return the InputError that an error is or comes from."""
    return error if isinstance(error, InputError) else error.__cause__


# ---- what a run leaves -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", [CS, ["task=inpaint"], ["task=superres"], ["task=denoise"], ["task=clean"]])
def test_each_task(go, task):
    folder, result = go(*task)
    (only,) = result["rounds"]
    assert only["step_picked"] == only["step_last"] == 6 and only["mse_final"] == only["mse_picked"] > 0
    assert only["kernel"] == "latent"
    assert Image.open(folder / "restored.png").size == (16, 16) and (folder / "compare.png").stat().st_size > 0
    assert not (folder / "tickets").exists()
    stamp = (folder / "steps.jsonl").stat().st_mtime_ns
    _, again = go(*task)
    assert again == result and (folder / "steps.jsonl").stat().st_mtime_ns == stamp


def test_several_pictures_are_one_problem(go, folder_of_pictures):
    folder, result = go(*CS, *folder_of_pictures, "fit.restarts=2")
    each = result["rounds"][0]["images"]
    assert set(each) == {"p0", "p1", "p2"}
    assert result["rounds"][0]["mse_final"] == pytest.approx(np.mean([v["mse_final"] for v in each.values()]))
    assert {p.name for p in folder.glob("*.png")} == {f"{k}-p{i}.png" for k in ("restored", "compare")
                                                      for i in range(3)}


def test_seeds_side_by_side_are_seeds_alone_and_make_a_report(go):
    go(*CS, "fit.batch_seeds=2", "pruner=random", "pruner.rounds=1", "name=both")
    for seed in (0, 1):
        folder, result = go(*CS, f"seed={seed}", "pruner=random", "pruner.rounds=1", "name=alone")
        other = json.loads((Path("runs/both") / folder.name / "result.json").read_text())
        assert bare(other) == bare(result)
    report([Path("runs/alone")], Path("out"))
    told = Path("out/report.md").read_text()
    assert "cs" in told and "pggan" in told


@pytest.mark.parametrize("objective", ["ls", "mom"])
def test_a_kill_in_the_middle_of_a_round(go, monkeypatch, objective):
    options = [*CS, f"fit.objective={objective}", "fit.restarts=2", "pruner=random", "pruner.rounds=1", "fit.steps=20",
               "fit.steps_per_batch=3", "trainer.checkpoint_seconds=0"]
    whole, result = go(*options, "out=whole")
    follow = Recorder.on_train_batch_end

    def die(self, trainer, module, outputs, batch, batch_idx):
        follow(self, trainer, module, outputs, batch, batch_idx)
        if (trainer.current_epoch, batch_idx) == (1, 3):
            raise RuntimeError("killed")

    monkeypatch.setattr(Recorder, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="killed"):
        go(*options)
    monkeypatch.setattr(Recorder, "on_train_batch_end", follow)
    folder, resumed = go(*options)
    assert bare(resumed) == bare(result)
    for name in ("steps.jsonl", "restored.png", "restored/round_00.png", "tickets/round_01.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_weights_name_the_run_by_their_content(go):
    save(Path("other.safetensors"), tiny_generator(seed=1))
    Path("elsewhere").mkdir()
    shutil.copy("tiny.safetensors", "elsewhere/same.safetensors")
    first, _ = go(*CS)
    assert go(*CS, "prior.weights=elsewhere/same.safetensors")[0] == first
    other, result = go(*CS, "prior.weights=other.safetensors")
    assert other != first and len(list(Path("runs/default").iterdir())) == 2


# ---- rounds ------------------------------------------------------------------------------------------------------

class Starts(pl.Callback):
    """What each round starts from; give it to the Trainer after the rounds."""

    def __init__(self):
        self.codes, self.weights, self.masks = [], [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.codes.append(module.prior.codes.detach().clone())
            self.weights.append({n: t.clone() for n, t in module.prior.network.state_dict().items()})
            self.masks.append(module.mask)


def search(weights, *, average=False, steps=6, **options):
    picture = Clean()(lipfw.image.picture.Picture("x", torch.rand(1, 3, 16, 16)))
    prior = pggan.build([picture.shape], weights=str(weights))
    return Restoration([picture], prior, steps=steps, log_every=3, smoothing=0.0, **options)


def test_each_round_starts_from_the_same_codes_and_the_masked_generator(generator_file, train):
    module, starts = search(generator_file), Starts()
    before = module.prior.codes.detach().clone()
    train(module, Random(rounds=2), starts)
    assert [m is None for m in starts.masks] == [True, False, False]
    g = tiny_generator().state_dict()
    for codes, weights, mask in zip(starts.codes, starts.weights, starts.masks, strict=True):
        assert torch.equal(codes, before)
        for name, value in weights.items():
            kept = mask[name] if mask is not None and name in mask else 1
            assert torch.equal(value, g[name] * kept), name
    last = module.prior.network.state_dict()
    assert all(torch.equal(last[n], v) for n, v in starts.weights[-1].items())


@pytest.mark.parametrize("pruner", ["random_layerwise", "magnitude", "imp", "synflow", "snip", "grasp"])
def test_each_pruner_prunes_a_generator(go, pruner):
    with torch.no_grad():
        g = tiny_generator()
        g.to_rgb_layers[-1].weight.mul_(8)      # else raw magnitudes empty this layer first
    save(Path("tiny.safetensors"), g)
    folder, result = go(*CS, f"pruner={pruner}", "pruner.rounds=2", "fit.steps=2")
    assert [r["sparsity"] for r in result["rounds"]] == [0, 0.2, pytest.approx(0.36, abs=0.001)]
    assert result["rounds"][2]["params_left"] == 3157 - Ticket.load(
        folder / "tickets/round_02.safetensors").mask.total + Ticket.load(folder / "tickets/round_02.safetensors"
                                                                          ).mask.count


def test_a_layer_that_is_emptied_ends_in_a_line(go):
    with pytest.raises(InputError, match="to_rgb_layers.2.weight first; prune less"):
        go(*CS, "pruner=magnitude", "pruner.sparsities=[0.9]")
    assert not Path("runs").exists()


def test_tickets_are_replayed_on_codes(go):
    found, result = go(*CS, "pruner=random", "pruner.rounds=2")
    _, again = go(*CS, "pruner=ticket", f"pruner.path={found}")
    assert bare(again) == bare(result)
    _, other = go("task=inpaint", "pruner=ticket", f"pruner.path={found}", "pruner.init=fresh")
    assert [r["sparsity"] for r in other["rounds"]] == [r["sparsity"] for r in result["rounds"]]
    # the ticket brings the weights: no others are needed, and others are not used
    _, untrained = go(*CS, "pruner=ticket", f"pruner.path={found}", "prior.weights=null", "prior.channels=[8,8,4]",
                      "prior.latent=6")
    assert bare(untrained) == bare(result)
    save(Path("other.safetensors"), tiny_generator(latent=7))
    with pytest.raises(InputError, match="starts from the weights of another network: size mismatch for format_layer"):
        go(*CS, "pruner=ticket", f"pruner.path={found}", "prior.weights=other.safetensors")


def test_fresh_weights_of_a_generator_are_those_of_the_run(go, capsys):
    found, result = go(*CS, "pruner=random", "pruner.rounds=1")
    _, same = go(*CS, "pruner=ticket", f"pruner.path={found}", "pruner.init=fresh", "trainer.progress=auto")
    assert bare(same) == bare(result) and "the very weights that the ticket starts from" in capsys.readouterr().out
    save(Path("other.safetensors"), tiny_generator(seed=1))
    _, other = go(*CS, "pruner=ticket", f"pruner.path={found}", "pruner.init=fresh", "prior.weights=other.safetensors")
    _, dense = go(*CS, "prior.weights=other.safetensors")
    assert bare(other)[0]["loss"] == bare(dense)[0]["loss"] != result["rounds"][0]["loss"]


@pytest.fixture
def with_trained(go):
    """Tickets of a run with trained weights beside them, as `task.save_trained=true` leaves them."""
    found, _ = go(*CS, "pruner=random", "pruner.rounds=1")
    for r in (0, 1):
        path = found / f"tickets/round_{r:02d}.safetensors"
        t = Ticket.load(path)
        digest = save_state(found / "tickets" / trained_name(r), tiny_generator(seed=10 + r).state_dict())
        Ticket(t.mask, {**t.about, "trained": digest}).save(path)
    return found


def test_trained_weights_of_each_round(go, with_trained):
    """A round's fit is that of its own trained generator times its mask: as if that were prior.weights."""
    _, result = go(*CS, "pruner=ticket", f"pruner.path={with_trained}", "pruner.weights=trained")
    for r in (0, 1):
        g = tiny_generator(seed=10 + r)
        Ticket.load(with_trained / f"tickets/round_{r:02d}.safetensors").mask.apply(g)
        save(Path(f"g{r}.safetensors"), g)
        _, alone = go(*CS, f"prior.weights=g{r}.safetensors")
        for key in ("loss", "mse_final", "psnr_final"):
            assert result["rounds"][r][key] == alone["rounds"][0][key]
    _, pretrained = go(*CS, "pruner=ticket", f"pruner.path={with_trained}")
    assert pretrained["rounds"][0]["loss"] != result["rounds"][0]["loss"]


def test_trained_weights_that_cannot_be_had(go, with_trained):
    trained = ["pruner=ticket", f"pruner.path={with_trained}", "pruner.weights=trained", "out=new"]
    with pytest.raises(Exception) as e:
        go(*CS, *trained, "pruner.init=fresh")
    assert "takes the mask alone" in str(chain(e.value))
    file = with_trained / "tickets" / trained_name(1)
    save_state(file, tiny_generator(seed=3).state_dict())
    with pytest.raises(Exception) as e:
        go(*CS, *trained)
    assert "holds other weights than the ticket round_01.safetensors ended with" in str(chain(e.value))
    file.unlink()
    with pytest.raises(Exception) as e:
        go(*CS, *trained)
    assert "trained weights" in str(chain(e.value)) and "are missing" in str(chain(e.value))
    plain, _ = go(*CS, "pruner=random", "pruner.rounds=1", "seed=1")
    with pytest.raises(Exception) as e:
        go(*CS, "pruner=ticket", f"pruner.path={plain}", "pruner.weights=trained", "out=new")
    assert "has no trained weights, they were not saved" in str(chain(e.value))
    assert not Path("new").exists()


# ---- what is refused ---------------------------------------------------------------------------------------------

BAD = [(["image.size=32"], "makes pictures of 16x16 pixels and 3 channels, this one has 32x32 and 3; use "
                           "image.size=16"),
       (["image=skimage", "image.name=camera"], "use image.size=16 and a colour picture"),
       (["prior.weights=celebahq25"], "did you mean celebahq256?"), (["prior.weights=no.pth"], "no weights at no.pth"),
       (["prior.weights=cut.safetensors"], "cut.safetensors is no readable safetensors file"),
       (["prior.weights=null"], "prior.weights=null is an untrained generator"),
       (["task.corrupted=60"], "task.corrupted=60 is not less than half of task.measurements=100"),
       (["task.measurements=800"], "are more than the 768 values"), (["fit.bucket=40"], "makes 2 buckets of 100"),
       (["fit.restarts=0"], "fit.restarts must be"), (["fit.kernel=sparse"], "fit.kernel=sparse is for weights"),
       (["image.degraded=true"], "task=cs with image.degraded=true"),
       (["prior.channels=[8,8,4]"], "use prior.weights=null with it"), (["fit.lr=0"], "fit.lr must be")]


@pytest.mark.parametrize("options, told", BAD, ids=[" ".join(o) for o, _ in BAD])
def test_one_clear_line_and_nothing_written(go, options, told):
    Path("cut.safetensors").write_bytes(Path("tiny.safetensors").read_bytes()[:500])
    with pytest.raises(Exception) as e:
        go(*CS, *options)
    error = chain(e.value)
    assert isinstance(error, InputError) and told in str(error) and "\n" not in str(error)
    assert not Path("runs").exists()


def test_the_command_ends_with_one_line(go, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lipfw", *TINY, *CS, "fit.bucket=40"])
    with pytest.raises(SystemExit) as e:
        main()
    assert e.value.code == 1
    told = capsys.readouterr()
    (line,) = (told.out + told.err).strip().splitlines()
    assert line.startswith("lipfw: fit.bucket=40 makes 2 buckets") and not Path("runs").exists()


# ---- from Python, and memory -------------------------------------------------------------------------------------

def test_from_python(generator_file):
    z = torch.randn(1, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        picture = ((tiny_generator()(z) + 1) / 2)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    restored = lipfw.restore(picture, prior=pggan.build, weights=str(generator_file), steps=10, smoothing=0.0,
                             fit={"restarts": 2})
    assert restored.array.shape == (16, 16, 3) and restored.step == 10
    assert 0 <= restored.array.min() and restored.array.max() <= 1
    with pytest.raises(InputError, match="use image.size=16"):
        lipfw.restore(picture[:8], prior=pggan.build, weights=str(generator_file), steps=10)


@pytest.mark.parametrize("scales", [8, 9])
def test_memory_of_large_generators(scales, monkeypatch):
    side = 4 * 2 ** (scales - 1)
    prior = pggan.PGGAN(Weights(Generator([2] * scales, 3)), [(3, side, side)] * 2)
    two = memory.bytes_needed(prior)
    prior.draw(3, opponents=True)
    assert memory.bytes_needed(prior) == pytest.approx(6 * two) and two > 0
    memory.check_memory(prior, "cpu")
    monkeypatch.setattr(memory, "bytes_needed", lambda prior: 1e15)
    with pytest.raises(InputError, match=f"12 codes of {side}x{side} pixels needs .*fit.restarts"):
        memory.check_memory(prior, "cpu")


def test_records_have_the_generators_error(go):
    folder, _ = go(*CS)
    (record,) = read_jsonl(folder / "rounds.jsonl")
    assert record["mse_final"] == pytest.approx(4 * 10 ** (-record["psnr_final"] / 10), rel=1e-4)
