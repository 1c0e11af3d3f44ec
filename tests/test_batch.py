"""Fits side by side: each is the run that it is alone."""
import hashlib
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from forked import Forked
from hydra import compose, initialize_config_dir
from pytorch_lightning.trainer import trainer

from lipfw.cli import CONF
from lipfw.errors import InputError, SeedsFailed
from lipfw.files import read_jsonl
from lipfw.fit.restoration import Restoration
from lipfw.folder import members, run_folder
from lipfw.run import run
from lipfw.streams import global_stream

TINY = ["trainer=smoke", "trainer.progress=false", "logger=none", "fit.steps=8", "fit.log_every=2", "image.size=16",
        "prior.channels=4", "prior.depth=2", "pruner=imp", "pruner.rounds=2"]


def config(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*TINY, *overrides])


def outcome(folder: Path) -> tuple:
    """Return what does not depend on the time or the neighbours."""
    rounds = [{k: v for k, v in r.items() if k != "seconds"} for r in read_jsonl(folder / "rounds.jsonl")]
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".safetensors"))
    hashes = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return rounds, (folder / "steps.jsonl").read_text(), hashes, sorted(p.name for p in folder.iterdir())


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """The outcome of seeds 3, 4, 5, each done by itself, by folder name; then an empty working directory."""
    monkeypatch.chdir(tmp_path)
    found = {}
    for seed in (3, 4, 5):
        run(config(f"seed={seed}"))
        folder = run_folder(config(f"seed={seed}"))
        found[folder.name] = outcome(folder)
    (tmp_path / "together").mkdir()
    monkeypatch.chdir(tmp_path / "together")
    return found


def together() -> dict:
    return {p.name: outcome(p) for p in Path("runs/default").iterdir()}


def test_each_fit_is_what_it_is_alone(alone, capsys):
    results = run(config("seed=3", "fit.batch_seeds=3"))
    assert together() == alone
    assert [r["config"]["seed"] for r in results] == [3, 4, 5]
    assert [r["config"]["task"]["seed"] for r in results] == [3, 4, 5]
    again = run(config("seed=3", "fit.batch_seeds=3"))
    assert again == results and capsys.readouterr().out == ""


def test_one_that_fails_stops_no_other_and_is_done_again(alone, monkeypatch, capsys):
    record = Restoration.record

    def fails(self, outputs, loss):
        if self.prior.seed == 4 and self.step == 6:
            raise InputError("no luck")
        return record(self, outputs, loss)

    monkeypatch.setattr(Restoration, "record", fails)
    with pytest.raises(SeedsFailed, match=r"seed 4 \(InputError: no luck\)") as e:
        run(config("seed=3", "fit.batch_seeds=3", "trainer.progress=auto"))
    assert list(e.value.errors) == [4]
    done = {p.parent.name for p in Path("runs/default").glob("*/result.json")}
    assert len(done) == 2 and all(f"-s{s}-" in "".join(done) for s in (3, 5))
    lines = [line for line in capsys.readouterr().out.splitlines() if "for each of 3 fits" not in line]     # few cores
    assert lines and all(line.startswith(("seed 3:", "seed 4:", "seed 5:")) for line in lines)
    monkeypatch.setattr(Restoration, "record", record)
    run(config("seed=3", "fit.batch_seeds=3"))
    assert together() == alone


def test_members():
    seeds = [c.seed for c in members(config("seed=7", "fit.batch_seeds=3"))]
    assert seeds == [7, 8, 9] and members(config())[0].seed == 0
    for bad, told in (("fit.batch_seeds=0", "fit.batch_seeds must be a whole number of at least 1, got 0"),
                      ("seed=x", "seed must be a whole number")):
        with pytest.raises(InputError, match=told):
            members(config("fit.batch_seeds=2", bad))


def start(folder: Path, *overrides) -> Forked:
    return Forked("lipfw", *TINY, "trainer.progress=auto", *overrides, cwd=folder, merged=True)


def test_from_the_command_line_with_ctrl_c_and_the_same_command_again(tmp_path):
    # long enough that neither is done before both have begun
    options = ["fit.batch_seeds=2", "fit.steps=600", "fit.kernel=dense", "trainer.checkpoint_seconds=0",
               "logger=wandb"]
    process = start(tmp_path, *options)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(tmp_path.glob("runs/default/*/checkpoint.ckpt"))) == 2:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.05)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "lipfw: stopped; the same command continues" in out, out
    assert not list(tmp_path.glob("runs/default/*/result.json"))
    process = start(tmp_path, *options)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    folders = list(tmp_path.glob("runs/default/*/"))
    assert len(folders) == 2 and all((f / "result.json").exists() for f in folders)
    # each run's own log, with its own pictures and tickets
    for folder in folders:
        assert list(folder.glob("wandb/offline-run-*/*.wandb")) and list(folder.glob("wandb/artifacts/staging/*"))
    out, _ = start(tmp_path, *options).communicate(timeout=60)
    assert out.count("already finished") == 2


def test_each_failure_is_told_in_its_line(tmp_path):
    """Seed 1's folder can't be made; seed 0 is done."""
    blocked = run_folder(config("seed=1", "trainer.progress=auto"))
    (tmp_path / blocked.parent).mkdir(parents=True)
    (tmp_path / blocked).write_text("a file")
    process = start(tmp_path, "fit.batch_seeds=2")
    out, _ = process.communicate(timeout=120)
    told = [line for line in out.splitlines() if line.startswith("lipfw: ")]
    assert process.returncode == 1 and "Traceback" not in out, out
    assert len(told) == 1 and told[0].startswith("lipfw: seed 1: ") and blocked.name in told[0]
    assert len(list(tmp_path.glob("runs/default/*-s0-*/result.json"))) == 1


def test_the_global_generator_is_held_by_one_thread_at_a_time():
    def draw(k):
        with global_stream(k, "weights"):
            parts = []
            for _ in range(20):
                parts.append(torch.rand(3))
                time.sleep(0.001)
        found[k] = torch.cat(parts)

    found = {}
    threads = [threading.Thread(target=draw, args=(k,)) for k in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    side = dict(found)
    for k in range(3):
        draw(k)
        assert torch.equal(found[k], side[k])


def test_no_fit_that_begins_turns_back_the_draws_of_another_thread():
    """Lightning begins each fit by putting the global generator back to where it was a moment ago."""
    def drawn():
        with global_stream(0, "weights"):
            return torch.stack([torch.rand(20_000) for _ in range(5)])

    expected, stop = drawn(), threading.Event()

    def begin():
        while not stop.is_set():
            with trainer.isolate_rng():
                pass

    beginning = threading.Thread(target=begin)
    beginning.start()
    try:
        assert all(torch.equal(drawn(), expected) for _ in range(200))
    finally:
        stop.set()
        beginning.join()
