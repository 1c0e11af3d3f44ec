"""Weights & Biases without an account: what an offline run holds, read back from its own log."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TINY = ["trainer=smoke", "image.size=16", "prior.channels=4", "prior.depth=2", "fit.steps=4", "fit.log_every=2",
        "pruner=imp", "pruner.rounds=1"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Two runs with the default logger, with no key, no network and no setting; gives the folder of the first."""
    folder = tmp_path_factory.mktemp("wandb")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(folder)}
    done = subprocess.run([sys.executable, "-m", "lipfw", *TINY, "-m", "seed=0,1", "name=both"], cwd=folder,
                          capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL, env=environment)
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stderr and "WARNING" not in done.stderr
    return folder


def records(run: Path) -> list[dict]:
    """Return the records of a run's offline log, by wandb's own inspector."""
    (offline,) = (run / "wandb").glob("offline-run-*")
    done = subprocess.run([sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(offline)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_metrics_config_picture_and_tickets_come_back(sweep):
    runs = sorted(p.parent for p in sweep.glob("runs/both/*/result.json"))
    assert len(runs) == 2       # and each in a log of its own
    for folder in runs:
        log = records(folder)
        (run,) = [r["run"] for r in log if r["type"] == "run"]
        result = json.loads((folder / "result.json").read_text())
        assert run["display_name"] == folder.name and run["run_group"] == "both"
        assert run["config"]["update"]["pruner"] == result["config"]["pruner"]
        assert run["config"]["update"]["seed"] == result["config"]["seed"]
        rows = [r["history"]["item"] for r in log if r["type"] == "history"]
        for r in result["rounds"]:
            (row,) = [x for x in rows if x.get("round") == r["round"] and "rounds/loss" in x]
            assert row["sparsity"] == pytest.approx(r["sparsity"], abs=1e-6)
            for name in ("psnr_peak", "psnr_picked", "psnr_final", "ssim_picked", "loss", "params_left"):
                if r[name] is not None:
                    assert row[f"rounds/{name}"] == r[name]
        steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        logged = [x for x in rows if "steps/loss" in x]
        assert [x["steps/psnr"] for x in logged] == [x["psnr"] for x in steps]
        assert [x["steps/iteration"] for x in logged] == [4 * x["round"] + x["step"] for x in steps]
        axes = {r["metric"].get("name"): r["metric"].get("step_metric") for r in log if r["type"] == "metric"}
        assert axes["rounds/psnr_picked"] == "sparsity" and axes["steps/psnr"] == "steps/iteration"
        captions = [x["restored.captions"][0] for x in rows if "restored.captions" in x]
        assert captions[1].startswith("round 1, sparsity 20.0")
        pictures = {p.read_bytes() for p in folder.glob("wandb/offline-run-*/files/media/images/restored*.png")}
        assert pictures == {p.read_bytes() for p in folder.glob("restored/*.png")}
        (artifact,) = [r["artifact"] for r in log if r["type"] == "artifact"]
        files = {c["path"]: Path(c["local_path"]) for c in artifact["manifest"]["contents"]}
        assert set(files) == {p.name for p in folder.glob("tickets/*")}
        for name, staged in files.items():      # the log's own copy lies in the run folder, which may be moved
            assert folder.resolve() in staged.resolve().parents
            assert staged.read_bytes() == (folder / "tickets" / name).read_bytes()
    assert not (sweep / ".local").exists()
