"""Whole runs: what lies in the folder, what a kill leaves, what a user without a clean picture gets."""
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from PIL import Image

from lipfw import cores
from lipfw.errors import InputError
from lipfw.files import read_jsonl
from lipfw.image.read import read
from lipfw.image.skimage import load as skimage_picture
from lipfw.image.write import write_png
from lipfw.recorder import Recorder
from lipfw.report.__main__ import report
from lipfw.ticket import Ticket

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=6", "fit.log_every=2", "image.size=16",
        "prior.channels=4", "prior.depth=2"]


def test_a_fit_that_stops_says_how_many_steps_it_did(go, capsys):
    _, result = go("fit.stop=wmv", "fit.patience=3", "fit.steps=40", "trainer.progress=auto")
    (only,) = result["rounds"]
    assert only["step_last"] < 40 and only["step_last"] % 2 == 0
    assert f"{only['step_picked']} of {only['step_last']}" in capsys.readouterr().out


def test_rounds_that_cannot_go_on_leave_a_result_and_an_error(go, capsys):
    """A head of 12 weights in a network of ever fewer: at last nothing passes."""
    with pytest.raises(InputError, match="round .*: no path is left from the code to the output"):
        go("pruner=imp", "pruner.rounds=14", "pruner.rate=0.4")
    (folder,) = Path("runs/default").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["ended"].startswith(f"round {len(result['rounds'])}, ")
    for r in result["rounds"]:
        mask = Ticket.load(folder / f"tickets/round_{r['round']:02d}.safetensors").mask
        assert r["empty_layers"] == sum(int(m.sum()) == 0 for m in mask.values())
    assert report([folder], Path("out")) == 0
    assert f"ended: {folder}: {result['ended']}" in " ".join(capsys.readouterr().out.split())
    assert result["ended"] in Path("out/report.md").read_text()
    assert len(result["rounds"]) > 3 and (folder / "restored.png").is_file()
    assert not list(folder.glob("*.ckpt")) and not (folder / "failed.json").exists()
    folder, result = go("pruner=imp", "pruner.rounds=1")
    assert result["ended"] is None


def test_a_pruner_that_cannot_prune_at_all_is_refused_before_anything_is_written(go):
    with pytest.raises(InputError, match="round 1, 99.91% sparse: no path is left"):
        go("pruner=magnitude", "pruner.sparsities=[0.999]")
    assert not Path("runs").exists()


def test_what_a_run_leaves(go):
    folder, result = go("pruner=imp", "pruner.rounds=2")
    assert folder.name.startswith("denoise-astronaut-skip-imp-s0-") and folder.parent == Path("runs/default")
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert names == {"config.yaml", "steps.jsonl", "rounds.jsonl", "result.json", "restored.png", "compare.png",
                     *(f"restored/round_0{r}.png" for r in range(3)), "tickets/initial.safetensors",
                     *(f"tickets/round_0{r}.safetensors" for r in range(3))}
    rounds = read_jsonl(folder / "rounds.jsonl")
    assert list(rounds[0]) == ["round", "sparsity", "params_left", "empty_layers", "loss", "psnr_peak", "psnr_picked",
                               "psnr_final", "ssim_peak", "ssim_picked", "ssim_final", "mse_peak", "mse_picked",
                               "mse_final", "step_peak", "step_picked", "step_first", "step_last", "kernel", "seconds"]
    assert [r["round"] for r in rounds] == [0, 1, 2] and result["rounds"] == rounds
    steps = read_jsonl(folder / "steps.jsonl")
    assert [(r["round"], r["step"]) for r in steps] == [(r, s) for r in range(3) for s in (2, 4, 6)]
    # the numbers of rounds.jsonl are those of the pictures on disk, to 8 bits
    best = result["best_round"]
    assert (folder / "restored.png").read_bytes() == (folder / f"restored/round_0{best}.png").read_bytes()
    masks = [Ticket.load(folder / f"tickets/round_0{r}.safetensors") for r in range(3)]
    assert [round(m.mask.sparsity, 6) for m in masks] == [r["sparsity"] for r in rounds]
    dense = rounds[0]["params_left"]
    assert [r["params_left"] for r in rounds] == [dense - (m.mask.total - m.mask.count) for m in masks]
    about = masks[1].about
    assert about["seed"] == "0" and about["image"] == "astronaut" and json.loads(about["architecture"])["channels"] == 4
    assert result["config"]["fit"]["steps"] == 6 and result["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("kernel", ["dense", "sparse"])
def test_pictures_of_the_way_are_those_of_their_steps(go, kernel):
    options = ["fit.log_every=1", "fit.steps=20", f"fit.kernel={kernel}", "fit.pick=last", "pruner=random",
               "pruner.rounds=1"]
    plain, without = go(*options)
    folder, result = go(*options, "fit.keep=[4,25%,100%]")
    assert folder != plain and [r["psnr_final"] for r in result["rounds"]] == [
        r["psnr_final"] for r in without["rounds"]]
    psnr = {(r["round"], r["step"]): r["psnr"] for r in read_jsonl(folder / "steps.jsonl")}
    clean = skimage_picture("astronaut", size=16)[0].pixels
    for round_ in (0, 1):
        for step in (4, 5, 20):
            kept = read(folder / f"restored/round_0{round_}_step_{step:05d}.png").pixels
            found = 10 * torch.log10(1 / (kept - clean).square().mean())
            assert float(found) == pytest.approx(psnr[round_, step], abs=0.02)      # 8 bits
        last = folder / f"restored/round_0{round_}.png"
        assert last.read_bytes() == last.with_stem(last.stem + "_step_00020").read_bytes()
    assert len(list((folder / "restored").iterdir())) == 2 * 4 and len(list((plain / "restored").iterdir())) == 2


@pytest.mark.parametrize("keep, words", [("[7]", "each of fit.keep must be at most 6, got 7"), ("5%", "must be a list"),
                                         ("[0]", "each of fit.keep"), ("[half]", "fit.keep must be a whole number")])
def test_steps_that_a_round_has_not_are_refused(go, keep, words):
    with pytest.raises(Exception, match=words):
        go(f"fit.keep={keep}")


def test_a_picture_of_the_way_that_is_gone_is_missed(go, monkeypatch):
    options = ["pruner=imp", "pruner.rounds=2", "trainer.checkpoint_seconds=0", "fit.keep=[2]"]
    record = Recorder.on_train_epoch_end

    def die(self, trainer, module):
        record(self, trainer, module)
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Recorder, "on_train_epoch_end", die)
        go(*options)
    (gone,) = Path.cwd().glob("runs/default/*/restored/round_00_step_00002.png")
    gone.unlink()
    with pytest.raises(InputError, match="round_00_step_00002.png is missing"):
        go(*options)


def test_the_precision_of_a_run_is_part_of_it(go):
    plain, exact = go()
    other, rounded = go("trainer.precision=bf16")
    assert plain != other and (exact["precision"], rounded["precision"]) == ("32", "bf16")
    assert "tf32" not in exact      # the GPU's affair
    with pytest.raises(Exception, match="trainer.precision must be one of 32, bf16, got '16'"):
        go("trainer.precision=16")


def test_a_finished_run_is_not_done_again(go):
    folder, first = go("pruner=imp", "pruner.rounds=1")
    stamp = (folder / "steps.jsonl").stat().st_mtime_ns
    _, second = go("pruner=imp", "pruner.rounds=1")
    assert first == second and (folder / "steps.jsonl").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("task", ["denoise", "clean", "superres", "inpaint"])
@pytest.mark.parametrize("prior", ["skip", "decoder"])
def test_each_task_and_prior(go, task, prior):
    folder, result = go(f"task={task}", f"prior={prior}", *(["image.size=32"] if task == "superres" else []))
    assert result["rounds"][0]["psnr_final"] > 0 and folder.name.startswith(f"{task}-astronaut-{prior}-none-s0-")
    size = Image.open(folder / "restored.png").size
    assert size == ((32, 32) if task == "superres" else (16, 16))


def test_a_picture_of_ones_own_without_a_clean_version(go, tmp_path):
    """Grey with alpha, 16 bit, odd sizes: the result has the same size, channels, depth and transparency."""
    y, x = np.mgrid[0:21, 0:37]
    pixels = torch.tensor((np.sin(x / 5) * np.cos(y / 4) + 1) / 2, dtype=torch.float32)[None, None]
    alpha = torch.linspace(0, 1, 21 * 37).reshape(1, 1, 21, 37)
    write_png(tmp_path / "mine.png", pixels, alpha, bits=16)
    folder, result = go("image=file", "image.path=mine.png", "image.degraded=true", "image.size=null", "pruner=imp",
                        "pruner.rounds=1")
    restored = read(folder / "restored.png")
    assert restored.pixels.shape == pixels.shape and restored.bits == 16
    assert torch.equal(restored.alpha, read(tmp_path / "mine.png").alpha)
    last = result["rounds"][-1]
    assert last["psnr_final"] is None and last["step_peak"] is None and last["step_picked"] >= 1
    assert result["degraded"] == {"psnr": None, "ssim": None} and result["picked_by"] == "holdout"
    assert (folder / "compare.png").stat().st_size > 0


def test_a_users_small_picture_and_a_users_holes(go, tmp_path):
    write_png(tmp_path / "small.png", torch.rand(1, 3, 10, 13))
    folder, _ = go("task=superres", "task.factor=3", "image=file", "image.path=small.png", "image.degraded=true",
                   "image.size=null")
    assert Image.open(folder / "restored.png").size == (39, 30)
    mask = np.full((10, 13), 255, np.uint8)
    mask[3:6, 2:9] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    folder, _ = go("task=inpaint", "task.mask=mask.png", "image=file", "image.path=small.png", "image.degraded=true",
                   "image.size=null")
    assert Image.open(folder / "restored.png").size == (13, 10)


def test_a_folder_of_pictures_is_one_problem(go, tmp_path):
    (tmp_path / "set").mkdir()
    for i, shape in enumerate([(1, 3, 20, 18), (1, 3, 17, 30), (1, 1, 16, 16)]):
        write_png(tmp_path / "set" / f"p{i}.png", torch.rand(shape, generator=torch.Generator().manual_seed(i)))
    folder, result = go("image=folder", "image.path=set", "image.size=null", "pruner=imp", "pruner.rounds=1")
    assert set(result["rounds"][1]["images"]) == {"p0", "p1", "p2"}
    assert {p.name for p in folder.glob("*.png")} == {f"{k}-p{i}.png" for k in ("restored", "compare")
                                                      for i in range(3)}
    assert len(list((folder / "tickets").glob("round_*"))) == 2


def test_a_ticket_goes_to_another_picture_and_task(go):
    found, _ = go("pruner=imp", "pruner.rounds=2")
    folder, result = go("task=inpaint", "image.name=chelsea", "pruner=ticket", f"pruner.path={found}/tickets")
    assert [r["sparsity"] for r in result["rounds"]] == [r["sparsity"] for r in read_jsonl(found / "rounds.jsonl")]
    one = f"pruner.path={found}/tickets/round_02.safetensors"
    _, result = go("seed=5", "pruner=ticket", "pruner.init=fresh", one)
    assert [r["sparsity"] for r in result["rounds"]] == [pytest.approx(0.36, abs=0.001)]
    with pytest.raises(InputError, match="encoders.0.skip.0.weight is"):
        go("pruner=ticket", f"pruner.path={found}/tickets", "prior.code_channels=7")
    with pytest.raises(InputError, match="belongs to another network"):
        go("pruner=ticket", f"pruner.path={found}/tickets", "prior=decoder")


def test_replaying_all_tickets_repeats_the_run(go):
    """Evaluation in isolation: the same picture, task and seed give the same numbers."""
    found, result = go("pruner=imp", "pruner.rounds=2")
    _, again = go("pruner=ticket", f"pruner.path={found}")
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in result["rounds"]]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in again["rounds"]] == strip


def test_nothing_is_written_for_a_bad_config(go):
    for bad in (["pruner=imp", "pruner.rate=20"], ["prior.depth=9"], ["task=inpaint", "task.missing=1"],
                ["pruner=imp", "pruner.rewind_step=7"], ["seed=-1"], ["pruner=ticket", "pruner.path=none"],
                ["fit.target=clean", "image.degraded=true"], ["trainer.threads=0"], ["image.name=nobody"]):
        with pytest.raises(Exception) as e:
            go(*bad)
        chain = [e.value, e.value.__cause__]
        assert any(isinstance(x, InputError) for x in chain), bad
    assert not Path("runs").exists()


def test_a_fit_that_diverges_says_so(go, monkeypatch):
    from lipfw.fit import restoration

    original = restoration.Restoration.loss
    monkeypatch.setattr(restoration.Restoration, "loss", lambda self, o, i: original(self, o, i) * float("nan"))
    with pytest.raises(InputError, match="diverged in round 0"):
        go()


def test_a_run_takes_the_free_cores_and_gives_them_back(go, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cores.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cores, "usable_cores", lambda: [0, 1])
    monkeypatch.delenv("OMP_NUM_THREADS")
    try:
        with cores.claim(1):
            _, result = go("trainer.threads=null", "trainer.progress=auto")
        assert result["threads"] == 1 and "1 of 2 cores: another run is using the others" in capsys.readouterr().out
        _, result = go("trainer.threads=null", "seed=1")
        assert result["threads"] == 2
        with pytest.raises(InputError):
            go("trainer.threads=null", "seed=2", "prior.depth=9")
        with cores.claim(None) as given:
            assert given == (2, "")
    finally:
        torch.set_num_threads(1)


def test_large_pictures_keep_their_memory(go, monkeypatch, capsys):
    set_ = []
    monkeypatch.setattr("lipfw.run.keep_freed_memory", lambda: not set_.append(1))
    for size, told in ((16, False), (256, True)):
        go("trainer.progress=auto", f"image.size={size}", "fit.steps=1")
        assert ("freed memory is kept" in capsys.readouterr().out) == told
    assert len(set_) == 2


# --- killing

KILLED = ["pruner=imp", "pruner.rounds=3", *TINY, "fit.steps=80", "fit.steps_per_batch=2", "image.size=32",
          "prior.channels=16", "fit.keep=[7,50%]"]


def start(folder: Path, *overrides) -> Forked:
    return Forked("lipfw", *KILLED, *overrides, cwd=folder, merged=True)


def outcome(folder: Path) -> tuple:
    """Return what must not depend on interruptions: rounds without seconds, steps, pictures and tickets."""
    (run_,) = folder.glob("runs/default/*/")
    rounds = [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(run_ / "rounds.jsonl")]
    files = sorted([*run_.glob("tickets/*"), *run_.glob("restored/*"), run_ / "restored.png", run_ / "compare.png"])
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return rounds, (run_ / "steps.jsonl").read_text(), hashes, sorted(p.name for p in run_.iterdir())


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_kill_9_and_the_same_command_again(tmp_path, seconds):
    """SIGKILL at several moments; the same command in the end leaves what an uninterrupted run leaves, bit for bit."""
    option = f"trainer.checkpoint_seconds={seconds}"
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    # a process of its own, with its own hashes: no result may hang on the order of a set
    whole = subprocess.run([sys.executable, "-m", "lipfw", *KILLED, option], cwd=tmp_path / "whole",
                           capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    for lines in (3, 50, 90):       # records of 2 steps: in rounds 0, 1 and 2
        process = start(tmp_path / "killed", option)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            files = list((tmp_path / "killed").glob("runs/default/*/steps.jsonl"))
            if files and files[0].read_text().count("\n") >= lines:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
        process.wait(timeout=60)
        assert process.returncode == -signal.SIGKILL, process.said("out")
    last = start(tmp_path / "killed", option)
    out, _ = last.communicate(timeout=300)
    assert last.returncode == 0, out
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    again = start(tmp_path / "killed", option)
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and "already finished" in out


@pytest.mark.parametrize("options, batch", [
    (["fit.stop=wmv", "fit.patience=1"], 5), (["pruner.retrain=remaining", "pruner.rewind_step=75%"], 2)])
def test_a_kill_in_the_batches_that_a_round_has_left_over(go, monkeypatch, options, batch):
    """The round has done its steps before its last batch: it is not to be lost, nor its records."""
    options = ["pruner=imp", "pruner.rounds=2", "fit.steps=24", "fit.steps_per_batch=3", "fit.window=3",
               "trainer.checkpoint_seconds=0", "fit.keep=[2,19]", *options]
    go(*options, "out=whole/runs")
    follow = Recorder.on_train_batch_end

    def die(self, trainer, module, outputs, batch_, batch_idx):
        follow(self, trainer, module, outputs, batch_, batch_idx)
        if (trainer.current_epoch, batch_idx) == (1, batch):
            assert module.round_over and batch_idx + 2 < trainer.num_training_batches
        if (trainer.current_epoch, batch_idx) == (1, batch + 1):
            raise RuntimeError("killed")

    monkeypatch.setattr(Recorder, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="killed"):
        go(*options)
    monkeypatch.setattr(Recorder, "on_train_batch_end", follow)
    go(*options)
    assert outcome(Path(".")) == outcome(Path("whole"))


@pytest.mark.parametrize("first, then", [(1, 3), (3, 10), (20, 1)])
def test_a_run_taken_up_with_other_batches_is_the_same(go, monkeypatch, first, then):
    """fit.steps_per_batch changes no result and so no folder: no step may be lost or done twice."""
    options = ["pruner=imp", "pruner.rounds=1", "fit.steps=60", "trainer.checkpoint_seconds=0"]
    go(*options, "out=whole/runs")
    follow = Recorder.on_train_batch_end

    def die(self, trainer, module, outputs, batch, batch_idx):
        follow(self, trainer, module, outputs, batch, batch_idx)
        if trainer.current_epoch == 1 and module.step >= 8:
            raise RuntimeError("killed")

    monkeypatch.setattr(Recorder, "on_train_batch_end", die)
    with pytest.raises(RuntimeError, match="killed"):
        go(*options, f"fit.steps_per_batch={first}")
    monkeypatch.setattr(Recorder, "on_train_batch_end", follow)
    go(*options, f"fit.steps_per_batch={then}")
    assert outcome(Path(".")) == outcome(Path("whole"))


@pytest.fixture
def killed(tmp_path):
    """A run that was killed in round 2, with a checkpoint of it; gives its folder."""
    process = start(tmp_path, "trainer.checkpoint_seconds=0")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        files = list(tmp_path.glob("runs/default/*/steps.jsonl"))
        if files and files[0].read_text().count("\n") >= 90:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    process.wait(timeout=60)
    (folder,) = tmp_path.glob("runs/default/*/")
    return folder


def test_a_run_does_not_go_on_without_what_its_checkpoint_counts_on(killed, tmp_path):
    """Each thing removed or damaged in turn: one line that names it; put back, the run ends as it should."""
    def again() -> str:
        process = start(tmp_path, "trainer.checkpoint_seconds=0")
        out, _ = process.communicate(timeout=120)
        told = [line for line in out.splitlines() if line.startswith("lipfw: ")]
        assert process.returncode == 1 and len(told) == 1 and "Traceback" not in out, out
        return told[0]

    for name in ("rounds.jsonl", "steps.jsonl", "tickets/round_00.safetensors", "restored/round_01.png"):
        file = killed / name
        content = file.read_bytes()
        file.unlink()
        told = again()
        assert name in told and "checkpoint*.ckpt to start the run over" in told
        file.write_bytes(content)
    file = killed / "rounds.jsonl"
    kept = file.read_bytes()
    file.write_bytes(b"garbage\n")
    assert file.name in again()
    file.write_bytes(kept)
    leftover = killed / ".checkpoint.part.ckpt"
    leftover.write_bytes(b"half")
    process = start(tmp_path, "trainer.checkpoint_seconds=0")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert len(read_jsonl(killed / "rounds.jsonl")) == 4 and not leftover.exists()


def test_two_processes_do_not_share_a_folder(go, tmp_path):
    from lipfw.lock import alone

    folder, _ = go()
    (folder / "result.json").unlink()
    with alone(folder):
        process = subprocess.run([sys.executable, "-c", "import sys\nfrom lipfw.lock import alone\n"
                                  "with alone(sys.argv[1]): pass", str(folder)], capture_output=True, text=True)
        assert process.returncode == 1 and "another process is at work in" in process.stderr
        with pytest.raises(InputError, match="another process is at work"):
            go()
    go()        # and free again


def test_ctrl_c_says_that_it_can_go_on(tmp_path):
    process = start(tmp_path, "fit.steps=5000")
    while process.poll() is None:       # until the first steps are done
        if any(f.stat().st_size for f in tmp_path.glob("runs/default/*/steps.jsonl")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and out.splitlines()[-1] == (
        "lipfw: stopped; the same command continues"), out


def test_a_ladder_that_ends_in_nothing_is_refused(go):
    with pytest.raises(InputError, match="would keep none of the network's weights"):
        go("pruner=imp", "pruner.rate=0.99", "pruner.rounds=4")
    with pytest.raises(InputError, match="round .* would remove none of 2 weights; use fewer pruner.rounds"):
        go("pruner=imp", "pruner.rounds=1000000000")
    assert not Path("runs").exists()
