"""The dashboard without an account: what would be sent, and the mistakes. That runs log it is tested in test_wandb.py.
"""
import json
import os
import subprocess
import sys

import pytest

from lipfw.classifying import Accuracies
from lipfw.dashboard.__main__ import main
from lipfw.dashboard.panels import SECTIONS, TRAINING, Curve
from lipfw.recorder import Recorder
from lipfw.training import SampleRecorder


def test_every_panel_is_in_what_would_be_sent(tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")
    assert main(["--entity", "me", "--project", "p", "--show", str(tmp_path / "view.json")]) == 0
    assert capsys.readouterr().out.startswith("written: ")
    sent = json.loads((tmp_path / "view.json").read_text())
    assert (sent["entity"], sent["project"]) == ("me", "p")
    sections = sent["spec"]["section"]["panelBankConfig"]["sections"]
    assert [s["name"] for s in sections] == [s.name for s in SECTIONS]
    for made, told in zip(sections, SECTIONS, strict=True):
        assert len(made["panels"]) == len(told.panels)
        curves = [(p["config"], c) for p, c in zip(made["panels"], told.panels, strict=True) if isinstance(c, Curve)]
        for config, curve in curves:
            assert (config["chartTitle"], config["xAxis"]) == (curve.title, curve.x)
            assert config["metrics"] == list(curve.y) and config.get("metricRegex") == curve.pattern
            # a line for each group of runs that differ in their seeds alone: mean and standard deviation
            assert (config["groupBy"], config["groupAgg"], config["groupArea"]) == ("cell.value", "mean", "stddev")
    text = json.dumps(sections)
    for name in ("restored", "compare", "tickets", "best/psnr_picked", "best/params_left", "samples"):
        assert f'"{name}"' in text or f'"summary:{name}"' in text
    pinned = sent["spec"]["section"]["runSets"][0]["runFeed"]["columnPinned"]
    assert pinned["summary:best/psnr_picked"] is True


def test_panels_show_what_rounds_report():
    known = {"seconds", *Recorder.reported, *SampleRecorder.reported, *Accuracies.reported}
    shown = {y for s in SECTIONS for p in s.panels if isinstance(p, Curve) for y in p.y if y.startswith("rounds/")}
    assert shown and {y.removeprefix("rounds/") for y in shown} <= known
    trained = {y for s in TRAINING for p in s.panels if isinstance(p, Curve) for y in p.y}
    assert {y.removeprefix("rounds/") for y in trained} <= {*SampleRecorder.reported, *Accuracies.reported}


def test_without_an_account_it_is_a_line(tmp_path):
    pytest.importorskip("wandb_workspaces")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "lipfw.dashboard", "--entity", "me"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "wandb login" in done.stderr and "--show" in done.stderr


def test_without_the_package_it_is_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["--show"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == "lipfw: the dashboard needs the package wandb-workspaces: pip install " \
                                "'lipfw[dashboard]'\n"


def test_what_the_service_refuses_is_a_line(capsys, monkeypatch):
    """With an account that is none of the service's: a stand-in for the answer."""
    pytest.importorskip("wandb_workspaces")
    from wandb_workspaces.workspaces import internal

    def refuse(view):
        raise ValueError("project not found\n(404)")

    monkeypatch.setattr("lipfw.dashboard.__main__.account", lambda: "me")
    monkeypatch.setattr(internal, "upsert_view2", refuse)
    assert main(["--project", "nowhere"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "project not found (404)" in err and "--project" in err


def test_what_is_sent_goes_to_the_account_that_is_logged_in(capsys, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    from wandb_workspaces.workspaces import interface, internal

    sent = []

    def take(view):
        sent.append(view)
        return {"upsertView": {"view": {"name": view.name, "id": "1"}}}

    monkeypatch.setattr("lipfw.dashboard.__main__.account", lambda: "mine")
    monkeypatch.setattr(internal, "upsert_view2", take)
    monkeypatch.setattr(interface.Workspace, "url", property(lambda self: f"https://there/{self.entity}"))
    assert main([]) == 0
    assert capsys.readouterr().out == "https://there/mine\n"
    assert [(v.entity, v.project, v.display_name) for v in sent] == [("mine", "lipfw", "lottery image priors")]
