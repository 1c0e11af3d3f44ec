"""Whole trainings: what lies in the folder, what a kill leaves, what other commands make of it, what is refused."""
import hashlib
import json
import re
from pathlib import Path

import forked
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file

from lipfw.cli import CONF, explain
from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.fit.adversarial import Adversarial
from lipfw.folder import run_folder
from lipfw.gan.network import Generator
from lipfw.gan.weights import load, save
from lipfw.report.__main__ import report
from lipfw.run import run
from lipfw.ticket import Ticket
from lipfw.training import SampleRecorder, grid

WIDTHS, LATENT = "[8,4]", 6
COMMON = ["trainer=smoke", "trainer.progress=false", "logger=none", "image.size=8", "fit.batch=16", "fit.log_every=2",
          "fit.steps_per_batch=3"]
SCRATCH = ["task=gan", *COMMON, f"prior.channels={WIDTHS}", f"prior.latent={LATENT}", "fit.fade=32", "fit.stable=32"]
PRUNED = ["task=finetune", *COMMON, "fit.epochs=3", "pruner=imp", "pruner.rounds=2", "fit.judge_every=4"]


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Return a function that does a run in a fresh folder; gives its folder and result."""
    monkeypatch.chdir(tmp_path)

    def go(*overrides):
        cfg = config(*overrides)
        return run_folder(cfg), run(cfg)
    return go


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The generator.safetensors of a training from scratch, and the average generator it was made of."""
    folder, kept = tmp_path_factory.mktemp("scratch"), []
    follow = SampleRecorder.write

    def write(self, round_, module):
        follow(self, round_, module)
        kept.append((module.average.state_dict(), module.critic.state_dict()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SampleRecorder, "write", write)
        cfg = config(*SCRATCH, f"out={folder}")
        run(cfg)
    return run_folder(cfg) / "generator.safetensors", kept[0]


def outcome(folder: Path) -> tuple:
    """Return what must not depend on interruptions: records without seconds, and all other files."""
    rounds = [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(folder / "rounds.jsonl")]
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in
             ("rounds.jsonl", "result.json", "config.yaml")]
    return rounds, {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- what a run leaves

def test_a_training_from_scratch_leaves_its_generator(weights):
    path, (average, critic) = weights
    folder, read = path.parent, load(path)
    assert all(torch.equal(t, average[n]) for n, t in read.generator.state_dict().items())
    assert all(torch.equal(t, critic[n]) for n, t in read.critic.state_dict().items())
    assert read.about["image"] == "lfw" and read.about["seed"] == "0"
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml", "generator.safetensors", "result.json",
                                                        "rounds.jsonl", "samples", "samples.png", "steps.jsonl"]
    (only,) = read_jsonl(folder / "rounds.jsonl")
    assert (only["step_first"], only["step_last"]) == (1, 6)
    assert only["params_left"] == sum(t.numel() for t in average.values())
    steps = read_jsonl(folder / "steps.jsonl")
    assert [(r["step"], r["resolution"], r["fade"]) for r in steps] == [(2, 4, 0), (4, 8, 0.5), (6, 8, 0)]
    assert [r["swd"] for r in steps] == [None, None, only["swd"]]
    assert Image.open(folder / "samples.png").size == (64, 64)
    assert (folder / "samples.png").read_bytes() == (folder / "samples/round_00.png").read_bytes()
    result = json.loads((folder / "result.json").read_text())
    assert result["degraded"] == {"psnr": None, "ssim": None} and result["oracle_round"] is None


def test_a_sheet_has_the_pictures_in_rows():
    x = torch.arange(5.).view(5, 1, 1, 1).expand(5, 1, 2, 2)
    assert grid(x)[0, 0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 1]]


def test_rounds_leave_tickets_samples_and_trained_networks(go, weights, capsys):
    """And the report and the ticket command read them."""
    folder, result = go(*PRUNED, f"prior.weights={weights[0]}", "task.save_trained=true", "task.prune_critic=true")
    assert sorted(p.name for p in (folder / "tickets").iterdir()) == sorted(
        ["initial.safetensors", *[f"{k}_{r:02d}.safetensors" for k in ("round", "trained") for r in range(3)]])
    assert sorted(p.name for p in (folder / "samples").iterdir()) == sorted(
        f"round_{r:02d}{s}.png" for r in range(3) for s in ("", "_step_000004", "_step_000008", "_step_000009"))
    assert not (folder / "generator.safetensors").exists() and (folder / "samples.png").is_file()
    start, left = load(weights[0]).generator.state_dict(), 936
    initial = load_file(folder / "tickets/initial.safetensors")
    assert all(torch.equal(initial[n], t) for n, t in start.items())
    for r, record in enumerate(result["rounds"]):
        ticket = Ticket.load(folder / f"tickets/round_{r:02d}.safetensors")
        trained = ticket.trained(folder / f"tickets/round_{r:02d}.safetensors")
        left = ticket.mask.total if r == 0 else left - round(0.2 * left)
        assert ticket.mask.count == left and record["swd"] > 0 and record["loss"] == record["swd"]
        assert all((trained[n][~m] == 0).all() for n, m in ticket.mask.items())
        assert record["params_left"] == sum(t.numel() for t in start.values()) - ticket.mask.total + left
    capsys.readouterr()
    assert report([Path("runs/default")], Path("out")) == 0
    assert "finetune-lfw-pggan-imp" in capsys.readouterr().out and "degraded" not in Path("out/report.md").read_text()
    done = forked.run("lipfw.tickets", str(folder), cwd=Path.cwd())
    assert done.returncode == 0 and "finetune" in done.stdout, done.stderr


def test_tickets_of_a_generator_are_replayed_in_training(go, weights):
    """The same weights, seed and pictures: the same numbers, but for the round that a single ticket then is."""
    found, first = go(*PRUNED, f"prior.weights={weights[0]}")
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in first["rounds"]]
    options = [o for o in PRUNED if not o.startswith("pruner")] + [f"prior.weights={weights[0]}", "pruner=ticket"]
    _, again = go(*options, f"pruner.path={found}")
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in again["rounds"]] == strip
    with pytest.raises(InputError, match="belongs to another network: the network has no convolution weight named gro"):
        go(*options, f"pruner.path={found}", "task.prune_critic=true")
    # drawn weights are fine where the tickets bring others
    untrained = ["prior.weights=null", f"prior.channels={WIDTHS}", f"prior.latent={LATENT}"]
    cs = ["task=cs", "trainer=smoke", "trainer.progress=false", "logger=none", "image=face", "image.size=8",
          "task.measurements=90", "task.corrupted=0"]
    go(*cs, *untrained, "pruner=ticket", f"pruner.path={found}/tickets/round_01.safetensors")
    for pruner in ("pruner=none", "pruner=ticket"):
        more = ["pruner.init=fresh", f"pruner.path={found}"] if pruner == "pruner=ticket" else []
        with pytest.raises(InputError, match="prior.weights=null is an untrained generator, none of whose codes"):
            go(*cs, *untrained, pruner, *more)


def test_a_finished_training_is_not_done_again(go, capsys):
    folder, first = go(*SCRATCH)
    stamp = (folder / "steps.jsonl").stat().st_mtime_ns
    assert go(*SCRATCH, "trainer.progress=auto")[1] == first and "already finished" in capsys.readouterr().out
    assert (folder / "steps.jsonl").stat().st_mtime_ns == stamp


def test_a_network_is_trained_at_one_size_from_drawn_weights(go):
    """task=finetune without weights is a training without growth."""
    folder, result = go("task=finetune", *COMMON, "prior.weights=null", f"prior.channels={WIDTHS}",
                        f"prior.latent={LATENT}", "fit.epochs=1")
    assert isinstance(load(folder / "generator.safetensors").generator, Generator)
    assert result["rounds"][0]["step_last"] == 3        # 40 of 100 pictures by 16


# --- killing

@pytest.mark.parametrize("options, deaths", [
    ([*PRUNED, "task.prune_critic=true", "task.save_trained=true", "trainer.checkpoint_seconds=0"],
     [(0, 1), (1, 0), (1, 2), (2, 1)]),
    ([*PRUNED, "task.prune_critic=true", "trainer.checkpoint_seconds=1000", "pruner.rewind_step=4",
      "pruner.retrain=remaining"], [(0, 2), (1, 1), (2, 0)]),
    ([*SCRATCH, "trainer.checkpoint_seconds=0"], [(0, 0), (0, 1)])], ids=["pruned", "rewound", "growing"])
def test_a_killed_training_ends_as_an_unbroken_one(go, weights, monkeypatch, options, deaths):
    if "task=finetune" in options:
        options = [*options, f"prior.weights={weights[0]}"]
    whole, _ = go(*options, "out=whole")
    follow = SampleRecorder.on_train_batch_end
    for death in deaths:
        def die(self, trainer, module, outputs, batch, batch_idx, death=death):
            if (trainer.current_epoch, batch_idx) == death:
                raise RuntimeError("killed")
            follow(self, trainer, module, outputs, batch, batch_idx)

        monkeypatch.setattr(SampleRecorder, "on_train_batch_end", die)
        with pytest.raises(RuntimeError, match="killed"):
            go(*options)
    monkeypatch.setattr(SampleRecorder, "on_train_batch_end", follow)
    torch.manual_seed(7)
    folder, _ = go(*options)
    assert outcome(folder) == outcome(whole)


def test_a_kill_between_two_rounds_and_what_is_missing_then(go, weights, monkeypatch):
    options = [*PRUNED, f"prior.weights={weights[0]}", "trainer.checkpoint_seconds=1000"]
    whole, _ = go(*options, "out=whole")
    step = Adversarial.fit_step

    def die(self):
        if self.trainer.current_epoch == 1:
            raise RuntimeError("killed")
        return step(self)

    monkeypatch.setattr(Adversarial, "fit_step", die)
    with pytest.raises(RuntimeError, match="killed"):
        go(*options)
    monkeypatch.setattr(Adversarial, "fit_step", step)
    (folder,) = Path("runs/default").iterdir()
    sheet = folder / "samples/round_00.png"
    kept = sheet.read_bytes()
    sheet.unlink()
    with pytest.raises(InputError, match="round_00.png is missing or incomplete, and the run can't go on without it"):
        go(*options)
    sheet.write_bytes(kept)
    go(*options)
    assert outcome(folder) == outcome(whole)


# --- what goes wrong

def test_a_training_that_diverges_says_so(go, monkeypatch):
    loss = Adversarial.critic_loss
    monkeypatch.setattr(Adversarial, "critic_loss", lambda self, *a: tuple(x * float("nan") for x in loss(self, *a)))
    with pytest.raises(InputError, match="the fit diverged in round 0 before step .*: its loss is no longer finite"):
        go(*SCRATCH, "fit.lr=1")
    assert not list(Path("runs").rglob("result.json"))


def test_a_generator_that_breaks_in_the_last_step_says_so(go, weights, monkeypatch):
    """The critic's loss was finite; the distance of what the generator makes is not."""
    monkeypatch.setattr(Adversarial, "judge", lambda self, *a: self.distance.fill_(torch.nan))
    with pytest.raises(InputError, match="the fit diverged in round 0 before step 9"):
        go(*PRUNED, f"prior.weights={weights[0]}")


@pytest.mark.parametrize("options, words", [
    ([*SCRATCH, "image=skimage"], "training takes many pictures of one size, and image= names pictures to restore"),
    ([*SCRATCH, "image=lfw_labelled"], "training takes many pictures of one size, and image= names labelled pictures"),
    ([*SCRATCH, "image.size=24"], "image.size must be a power of two from 8 to 1024, got 24"),
    (["task=gan", *COMMON, "prior=skip", "fit.fade=32", "fit.stable=32"], "do not go together"),
    (["task=gan", *COMMON[:4], "fit=restoration"], "this fit= and this task= do not go together; leave fit= out, and"),
    (["task=denoise", *COMMON[:4], "fit=finetune"], "task=denoise restores pictures, which FineTuning does not; use"),
    ([*SCRATCH, "fit.batch=0"], "fit.batch must be a whole number of at least 1, got 0"),
    ([*SCRATCH, "fit.lr=10"], r"fit.lr must be a number in \(0, 1\], got 10"),
    ([*SCRATCH, "fit.fade=[1,2,3]"], "fit.fade has 3 numbers and the network 2 scales, 4 to 8 pixels; give one for"),
    ([*SCRATCH, "fit.fade=1e5"], "fit.fade must be a whole number of at least 0, got 100000.0"),
    ([*SCRATCH, "fit.stable=[64,0]", "fit.fade=0"], "leave the scale of 8 untrained"),
    ([*SCRATCH, "prior.channels=[8]"], r"prior.channels=\[8\] has 1 scales, for pictures of 4 pixels, these have 8"),
    ([*SCRATCH, "prior.channels=8"], "prior.channels must be a list, a number for each of 4, 8 ... pixels, got 8"),
    ([*SCRATCH, "prior.channels=[8,0]"], "prior.channels must be a whole number of at least 1, got 0"),
    ([*SCRATCH, "prior.latent=0"], "prior.latent must be a whole number of at least 1, got 0"),
    ([*SCRATCH, "pruner=imp", "pruner.rewind_step=9"], "=9 lies beyond the 6 steps of fit.fade= and fit.stable=; use"),
    ([*PRUNED, "prior.weights=WEIGHTS", "pruner.rewind_step=999"], r"=999 lies beyond the \d+ steps of fit.epochs="),
    ([*PRUNED, "prior.weights=WEIGHTS", "image.size=16"], "makes pictures of 8x8 pixels and 3 channels, this"),
    ([*PRUNED, "prior.weights=WEIGHTS", "image.channels=1"], "this one has 8x8 and 1; use image.size=8"),
    ([*PRUNED, "prior.weights=WEIGHTS", "prior.channels=[8,4]"], "prior.channels is for networks that are trained"),
    ([*PRUNED, "prior.weights=WEIGHTS", "prior.average=true"], "has no averaged generator; leave out the average, or"),
    ([*PRUNED, "prior.weights=WEIGHTS", "task.fraction=0"], r"task.fraction must be a number in \(0, 1\], got 0"),
    ([*PRUNED, "prior.weights=WEIGHTS", "task.save_trained=maybe"], "task.save_trained must be true or false, got 'ma"),
    ([*PRUNED, "prior.weights=BARE"], "these weights have no critic, which training needs; use a checkpoint that has"),
    ([*PRUNED, "prior.weights=none.safetensors"], "no weights at none.safetensors"),
])
def test_mistakes_are_told_in_a_line_and_nothing_is_written(tmp_path, monkeypatch, weights, options, words):
    monkeypatch.chdir(tmp_path)
    bare = tmp_path / "bare.safetensors"
    save(bare, load(weights[0]).generator)
    options = [o.replace("WEIGHTS", str(weights[0])).replace("BARE", str(bare)) for o in options]
    with pytest.raises(Exception) as e:
        run(config(*options))
    told = explain(e.value)
    assert told is not None and "\n" not in told
    assert re.search(words, told), told
    assert not Path("runs").exists()


def test_a_foreign_ticket_is_refused(go, weights):
    found, _ = go("trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=2", "image.size=16",
                  "prior.channels=4", "prior.depth=2", "pruner=imp", "pruner.rounds=1")
    options = [o for o in PRUNED if not o.startswith("pruner")]
    with pytest.raises(InputError, match="belongs to another network"):
        go(*options, f"prior.weights={weights[0]}", "pruner=ticket", f"pruner.path={found}")
    assert len(list(Path("runs/default").iterdir())) == 1


def test_the_command_line_tells_a_mistake_in_one_line(tmp_path):
    done = forked.run("lipfw", *SCRATCH, "fit.batch=0", cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and not list(tmp_path.iterdir())
    assert done.stderr == "lipfw: fit.batch must be a whole number of at least 1, got 0\n"


# --- the experiment logger

def test_an_offline_log_gets_the_samples(tmp_path, weights):
    options = [o for o in PRUNED if o != "logger=none"]
    done = forked.run("lipfw", *options, f"prior.weights={weights[0]}", "pruner.rounds=1", cwd=tmp_path)
    assert done.returncode == 0 and "wandb" not in done.stderr, done.stderr
    (folder,) = (tmp_path / "runs/default").iterdir()
    logged = {p.read_bytes() for p in folder.glob("wandb/offline-run-*/files/media/images/samples*.png")}
    assert logged == {(folder / f"samples/round_{r:02d}.png").read_bytes() for r in range(2)}
