"""What goes wrong around a run: its checkpoint, its folder, the memory, its weights; then the same command again."""
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

import lipfw.lock
from lipfw import files
from lipfw.cli import CONF, explain
from lipfw.errors import InputError, SeedsFailed
from lipfw.files import read_jsonl, write_atomic
from lipfw.fit import checkpoint
from lipfw.fit.checkpoint import before, usable
from lipfw.fit.restoration import Restoration
from lipfw.folder import run_folder
from lipfw.interrupt import Interrupted, ask, listening
from lipfw.lock import alone
from lipfw.recorder import Recorder
from lipfw.report.__main__ import report
from lipfw.run import run
from lipfw.tickets.__main__ import main as tickets

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=12", "fit.steps_per_batch=3",
        "fit.log_every=3", "image.size=16", "prior.channels=4", "prior.depth=2", "pruner=imp", "pruner.rounds=1",
        "trainer.checkpoint_seconds=0"]


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*TINY, *overrides])


def outcome(folder: Path) -> tuple:
    """Return what must not depend on what went wrong: the rounds without seconds, and all other files."""
    rounds = [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(folder / "rounds.jsonl")]
    timed = ("rounds.jsonl", "result.json", "config.yaml")
    return rounds, {str(p.relative_to(folder)): p.name in timed or hashlib.sha256(p.read_bytes()).hexdigest()
                    for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def whole(tmp_path_factory, monkeypatch, request):
    """The outcome of an undisturbed run; then an empty working directory."""
    if not hasattr(request.config, "undisturbed"):
        monkeypatch.chdir(tmp_path_factory.mktemp("whole"))
        run(config())
        request.config.undisturbed = outcome(run_folder(config()))
    monkeypatch.chdir(tmp_path_factory.mktemp("again"))
    return request.config.undisturbed


@pytest.fixture
def at_batch(monkeypatch):
    """Have something done before the records of a batch are written: (round, batch) -> None."""
    follow = Recorder.on_train_batch_end

    def at_batch(round_, batch, do):
        def on_train_batch_end(self, trainer, module, outputs, batch_, batch_idx):
            if (trainer.current_epoch, batch_idx) == (round_, batch):
                monkeypatch.setattr(Recorder, "on_train_batch_end", follow)
                do()
            follow(self, trainer, module, outputs, batch_, batch_idx)
        monkeypatch.setattr(Recorder, "on_train_batch_end", on_train_batch_end)
    return at_batch


def die():
    raise RuntimeError("killed")


@pytest.fixture
def killed(whole, at_batch):
    """The folder of a run that was killed in the middle of round 1, with both its checkpoints."""
    at_batch(1, 2, die)
    with pytest.raises(RuntimeError, match="killed"):
        run(config())
    folder = run_folder(config())
    assert (folder / "checkpoint.ckpt").exists() and (folder / "checkpoint.before.ckpt").exists()
    return folder


def place(path: Path) -> tuple[int, int]:
    """Return the round and the step of a checkpoint."""
    state = torch.load(path, weights_only=True)
    return state["epoch"], state["round"]["step"]


# --- checkpoints

def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flipped(path):
    """One bit of the weights: torch reads it without complaint."""
    data = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["state_dict"]["prior.network.encoders.0.down.0.weight"]
    data[data.index(weights.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)


@pytest.mark.parametrize("damage", [empty, cut, flipped])
@pytest.mark.parametrize("both", [False, True], ids=["the last", "both"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(killed, whole, capsys, damage, both):
    last, older = killed / "checkpoint.ckpt", killed / "checkpoint.before.ckpt"
    assert (place(last), place(older)) == ((1, 6), (1, 3))
    damage(last)
    if both:
        damage(older)
    run(config("trainer.progress=auto"))
    told = capsys.readouterr().out
    further = "the run starts over" if both else "the run goes on from the one before it"
    assert f"{last} is damaged and was deleted; the run goes on from the one before it" in told
    assert told.count("is damaged") == 1 + both and further in told
    assert outcome(killed) == whole


def test_a_checkpoint_of_another_version_is_refused(killed, whole):
    """It could be taken up by another lipfw; a damaged newer one beside it changes nothing."""
    for name, damaged in (("checkpoint.ckpt", None), ("checkpoint.before.ckpt", "checkpoint.ckpt")):
        kept = (killed / name).read_bytes()
        torch.save({**torch.load(killed / name, weights_only=True), "lipfw": 99}, killed / name)
        if damaged:
            (killed / damaged).write_bytes(b"")
        with pytest.raises(InputError, match=rf"{name} is from another version of lipfw \(99\); delete .*\*.ckpt to"):
            run(config())
        (killed / name).write_bytes(kept)
    torch.save({"epoch": 1}, killed / "checkpoint.ckpt")
    with pytest.raises(InputError, match=r"another version of lipfw \(KeyError\)"):
        run(config())
    (killed / "checkpoint.ckpt").unlink()
    run(config())
    assert outcome(killed) == whole


def test_a_drive_that_fails_to_read_damages_no_checkpoint(killed, whole, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "checkpoint.ckpt")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.zipfile, "ZipFile", fails)
        with pytest.raises(OSError) as e:
            run(config())
    assert "Input/output error: checkpoint.ckpt; the drive fails or is gone; once it is back," in explain(e.value)
    assert place(killed / "checkpoint.ckpt") == (1, 6)
    run(config())
    assert outcome(killed) == whole


@pytest.mark.parametrize("call", [0, 1])
def test_one_good_checkpoint_is_there_at_any_moment(tmp_path, monkeypatch, call):
    """A kill before or between the two renames."""
    path, real, calls = tmp_path / "checkpoint.ckpt", os.replace, []

    def save(i):
        write_atomic(path, lambda p: torch.save({"lipfw": checkpoint.FORMAT, "i": i}, p), keep=before(path))

    def replace(*names):
        calls.append(names)
        if len(calls) > call:
            raise KeyboardInterrupt
        real(*names)

    save(0)
    save(1)
    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save(2)
    assert torch.load(usable(path), weights_only=True)["i"] == 1
    assert {p.name for p in tmp_path.iterdir()} <= {"checkpoint.ckpt", "checkpoint.before.ckpt"}


# --- weights that are no longer finite

@pytest.mark.parametrize("options", [[], ["fit.log_every=12"], ["fit.steps_per_batch=12"]],
                         ids=["recorded", "unrecorded", "at the end"])
def test_a_fit_that_diverges_keeps_the_last_good_checkpoint(whole, monkeypatch, options):
    step = Restoration.fit_step

    def breaks(self):
        result = step(self)
        if (self.trainer.current_epoch, self.step) == (1, 8):
            self.settle()
            self.stepper = None         # sparse kernels keep weights of their own
            with torch.no_grad():
                next(self.prior.network.parameters()).view(-1)[0] = torch.nan
        return result

    monkeypatch.setattr(Restoration, "fit_step", breaks)
    with pytest.raises(InputError, match="the fit diverged in round 1 before step (9|12): its (weights|loss) (is|are)"):
        run(config(*options))
    folder = run_folder(config(*options))
    state = torch.load(folder / "checkpoint.ckpt", weights_only=True)
    assert (state["epoch"], state["round"]["step"]) in ((1, 6), (0, 12))
    assert all(t.isfinite().all() for n, t in state["state_dict"].items() if n.startswith("prior."))
    assert json.loads((folder / "failed.json").read_text())["error"].startswith("the fit diverged in round 1")
    monkeypatch.setattr(Restoration, "fit_step", step)
    run(config(*options))
    if not options:
        assert outcome(folder) == whole


# --- folders and drives

def test_a_folder_that_is_moved_away_and_back(whole, at_batch, monkeypatch):
    monkeypatch.setattr(lipfw.lock, "LEASE", 1.0)       # this process lives on: its claim, moved away, is waited out
    folder, away = run_folder(config()), Path("away")
    at_batch(1, 2, lambda: shutil.move(folder, away))
    with pytest.raises(OSError) as e:
        run(config())
    assert explain(e.value) == (f"No such file or directory: {folder}/steps.jsonl; results go to the folder out=, "
                                "which must be writable and have room; then the same command continues")
    assert not folder.exists()      # nothing is made in its place
    shutil.move(away, folder)
    run(config())
    assert outcome(folder) == whole


@pytest.mark.parametrize("number, told", [
    (errno.ESTALE, "the drive fails or is gone"), (errno.EIO, "the drive fails or is gone"),
    (errno.ENOTCONN, "the drive fails or is gone"), (errno.EROFS, "must be writable"),
    (errno.ENOSPC, "have room"), (errno.EDQUOT, "have room")])
def test_what_a_drive_refuses_is_told_with_what_helps(number, told):
    line = explain(OSError(number, os.strerror(number), "steps.jsonl"))
    assert line.startswith(f"{os.strerror(number)}: steps.jsonl; ") and told in line
    assert line.endswith("the same command continues")


@pytest.mark.parametrize("where, number", [("append", errno.ENOSPC), ("append", errno.ESTALE), ("sync", errno.EIO)])
def test_a_write_that_fails(whole, at_batch, monkeypatch, where, number):
    """In the middle of a line, and where a file is brought to the disk; the errors of a write name no file."""
    def broken():
        if where == "sync":
            monkeypatch.setattr(files.os, "fsync", fails)
        else:
            monkeypatch.setattr(files, "open", lambda *a, **k: Half(open(*a, **k)), raising=False)

    def fails(*_):
        raise OSError(number, os.strerror(number))

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, text):
            self.file.write(text[:len(text) // 2])
            self.file.flush()
            fails()

        def fileno(self):
            fails()

    at_batch(1, 2, broken)
    with pytest.raises(OSError) as e:
        run(config())
    line, folder = explain(e.value), run_folder(config())
    named = folder / ("checkpoint.ckpt" if where == "sync" else "steps.jsonl")
    assert line.startswith(f"{os.strerror(number)}: {named}; ") and "\n" not in line
    assert not list(folder.glob(".*")) and not (folder / "result.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder.absolute().parents[2])
    run(config())
    assert outcome(folder) == whole


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_disk_that_is_too_small(whole, at_batch, batch):
    """Files may grow no further: the kernel itself refuses, and what there is stays whole."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = run_folder(config())
    at_batch(1, batch, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000 * (batch - 1), hard)))
    try:
        with pytest.raises(OSError) as e:
            run(config())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large: " in explain(e.value) and "have room" in explain(e.value)
    assert usable(folder / "checkpoint.ckpt") and not list(folder.glob(".*"))
    run(config())
    assert outcome(folder) == whole


def test_a_folder_that_cannot_be_made(whole, monkeypatch):
    def refused(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused)
        with pytest.raises(OSError) as e:
            run(config())
    assert explain(e.value).startswith(f"Read-only file system: {run_folder(config())}; results go to the folder out=")
    assert not list(Path.cwd().iterdir())


# --- memory

@pytest.mark.parametrize("fill", [
    lambda: torch.empty(1 << 50), lambda: np.empty(1 << 50), lambda: bytearray(1 << 60),
    lambda: raised(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total ...")),
    lambda: raised(RuntimeError("CUDA error: out of memory")), lambda: raised(OSError(errno.ENOMEM, "no memory")),
], ids=["torch", "numpy", "python", "cuda", "driver", "system"])
def test_too_little_memory_is_told_with_what_helps(whole, at_batch, fill):
    at_batch(0, 1, fill)
    with pytest.raises(Exception) as e:
        run(config())
    told = explain(e.value)
    assert told.startswith("out of memory") and "\n" not in told
    for option in ("image.size=", "prior.channels=", "fit.batch_seeds=", "hydra.launcher.jobs_per_gpu="):
        assert option in told
    if "Tried" in str(e.value):
        assert "2.50 GiB more" in told


def raised(error):
    raise error


def test_other_errors_of_torch_are_not_the_memorys():
    assert explain(RuntimeError("size mismatch")) is None and explain(ValueError("out of memory")) is None


# --- the reason that is left

def test_a_failed_run_leaves_its_reason_until_it_starts_again(whole, at_batch, capsys):
    folder = run_folder(config())
    at_batch(1, 2, lambda: raised(KeyError("two\nlines")))
    with pytest.raises(KeyError):
        run(config())
    left = json.loads((folder / "failed.json").read_text())
    assert left["error"] == "KeyError: 'two\\nlines'" and left["host"] and left["when"].endswith("+00:00")
    with alone(folder), pytest.raises(InputError, match="another process"):
        run(config())
    assert json.loads((folder / "failed.json").read_text()) == left
    run(config("seed=1"))
    capsys.readouterr()
    assert report([folder.parent], Path("out")) == 0 and tickets([str(folder)]) == 0
    assert folder.name in "".join(capsys.readouterr().out.split())
    at_batch(1, 2, lambda: raised(InputError("one\ntwo")))
    with pytest.raises(InputError):
        run(config())
    assert json.loads((folder / "failed.json").read_text())["error"] == "one"
    at_batch(1, 2, lambda: ask("a test"))
    with listening(), pytest.raises(Interrupted):
        run(config())
    assert not (folder / "failed.json").exists()
    run(config())
    assert outcome(folder) == whole


def test_no_reason_is_left_where_nothing_was_begun(whole):
    with pytest.raises(Exception, match="prior.depth"):
        run(config("prior.depth=9"))
    assert not list(Path.cwd().iterdir())


def test_each_of_several_fits_leaves_its_own(whole, monkeypatch):
    record = Restoration.record

    def fails(self, outputs, loss):
        if self.prior.seed:
            raise InputError(f"no luck with {self.prior.seed}")
        return record(self, outputs, loss)

    monkeypatch.setattr(Restoration, "record", fails)
    with pytest.raises(SeedsFailed):
        run(config("fit.batch_seeds=3"))
    left = {p.parent.name.split("-s")[-1][0]: json.loads(p.read_text())["error"]
            for p in Path("runs/default").glob("*/failed.json")}
    assert left == {"1": "no luck with 1", "2": "no luck with 2"}
