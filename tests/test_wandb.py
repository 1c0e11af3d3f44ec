"""Weights & Biases without an account: what an offline run holds, read back from its own log."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from lipfw.ticket import Ticket

TINY = ["trainer=smoke", "image.size=16", "prior.channels=4", "prior.depth=2", "fit.steps=4", "fit.log_every=2",
        "pruner=imp", "pruner.rounds=1", "fit.window=2"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """Two runs with the default logger, with no key, no network and no setting; gives the folder of the first."""
    folder = tmp_path_factory.mktemp("wandb")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(folder)}
    done = forked.run("lipfw", *TINY, "-m", "seed=0,1", "name=both", cwd=folder, env=environment)
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
        (artifact,) = [r["artifact"] for r in log if r["type"] == "artifact" and r["artifact"]["type"] == "tickets"]
        files = {c["path"]: Path(c["local_path"]) for c in artifact["manifest"]["contents"]}
        assert set(files) == {p.name for p in folder.glob("tickets/*")}
        for name, staged in files.items():      # the log's own copy lies in the run folder, which may be moved
            assert folder.resolve() in staged.resolve().parents
            assert staged.read_bytes() == (folder / "tickets" / name).read_bytes()
    assert not (sweep / ".local").exists()


def _keys(item: dict) -> set[str]:
    """Return the names of a row of the log; a picture is there as its parts, restored.captions and others."""
    return set(item) | {key.partition(".")[0] for key in item}


def test_every_panel_shows_what_runs_log(sweep):
    from lipfw.dashboard.panels import COLUMNS, GROUP, RESTORATION, Bars, Curve, Pictures, Scatter, Table

    def shown(panel) -> tuple[list[str], list[str]]:
        """Return what a panel takes of the history, and of the summary."""
        match panel:
            case Curve(_, x, y, pattern):
                return [x, *y, *([pattern] if pattern else [])], []
            case Pictures(_, keys):
                return list(keys), []
            case Table(key):
                return [], [key]
            case Bars(_, key):
                return [], [key]
            case Scatter(_, x, y):
                return [], [x, y]

    cells = []
    for folder in sorted(p.parent for p in sweep.glob("runs/both/*/result.json")):
        log, result = records(folder), json.loads((folder / "result.json").read_text())
        history = {key for r in log if r["type"] == "history" for key in _keys(r["history"]["item"])}
        summary = {}
        for r in log:
            if r["type"] == "summary":
                summary |= r["summary"]["update"]
        config = [r["run"] for r in log if r["type"] == "run"][0]["config"]["update"]
        for panel in (p for section in RESTORATION for p in section.panels):
            of_history, of_summary = shown(panel)
            assert all(any(re.match(name, key) for key in history) if name.startswith("^") else name in history
                       for name in of_history), panel
            assert set(of_summary) <= _keys(summary), panel
        columns = [c.partition(":") for c in COLUMNS]
        assert {c for section, _, c in columns if section == "config"} <= set(config)
        assert {c for section, _, c in columns if section == "summary"} <= set(summary)
        best = result["rounds"][result["best_round"]]
        assert summary["best/psnr_picked"] == best["psnr_picked"]
        assert summary["degraded/psnr"] == pytest.approx(result["degraded"]["psnr"])
        layers = [r["history"]["item"] for r in log if r["type"] == "history" and "layers/head" in r["history"]["item"]]
        assert len(layers) == 2 and {k for k in layers[0] if k.startswith("layers/")} == {
            f"layers/{n.removesuffix('.weight')}" for n in Ticket.load(folder / "tickets/round_01.safetensors").mask}
        assert layers[0]["layers/head"] == 0
        (table,) = folder.glob("wandb/offline-run-*/files/media/table/tickets*.json")
        rows = json.loads(table.read_text())
        assert [row[0] for row in rows["data"]] == [0, 1] and rows["columns"][-1] == "chosen"
        assert [row[-1] for row in rows["data"]] == [r is best for r in result["rounds"]]
        cells.append(config[GROUP])
    assert len(cells) == 2 and len(set(cells)) == 1     # of both seeds
