"""The README tells the truth: its commands run as written, shrunk by what is appended; its table names every option."""
import json
import re
import shlex
from pathlib import Path

import forked
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import lipfw
from lipfw.cli import CONF
from lipfw.configs import KEYS
from lipfw.image.write import write_png

README = Path(__file__).parents[1] / "README.md"
OPTIONS = README.parent / "docs" / "options.md"
pytestmark = pytest.mark.skipif(not README.is_file(), reason="not a checkout")
TEXT = README.read_text() + OPTIONS.read_text() if README.is_file() else ""
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
            for line in block.splitlines() if line.startswith("python -m lipfw")]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SWEEP = ["task=denoise", "pruner=imp", "-m", "seed=0..9"]
TINY = ["image.size=32", "prior.channels=4", "prior.depth=3", "fit.steps=2", "logger=none", "trainer=smoke"]


def test_the_literal_sweep_and_the_two_commands_stand_there():
    assert shlex.join(["python", "-m", "lipfw", *SWEEP]) == "python -m lipfw task=denoise pruner=imp -m seed=0..9"
    assert shlex.join(["python", "-m", "lipfw", *SWEEP]) in COMMANDS
    assert "make run " in TEXT and "make test " in TEXT and len(COMMANDS) >= 9


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run all commands in order in one folder and one process; gives each one's (exit status, standard error)."""
    folder = tmp_path_factory.mktemp("readme")
    for name, size in (("noisy", (40, 36)), ("holes", (32, 32)), ("small", (20, 24))):
        write_png(folder / f"{name}.png", torch.rand(1, 3, *size))
    (mine,) = (code for code in PYTHON if code.startswith("# mine.py"))
    (folder / "mine.py").write_text(mine)
    (folder / "photos").mkdir()
    for i in range(2):
        write_png(folder / "photos" / f"{i}.png", torch.rand(1, 3, 40, 36))
    write_png(folder / "mask.png", (torch.rand(1, 1, 32, 32) > 0.2).float())
    jobs = []
    for command in COMMANDS:
        module, *words = shlex.split(command)[2:]
        if module == "lipfw":
            kept = [w for w in words if not w.startswith(("image.size=", "trainer=", "seed=", "pruner.rounds="))]
            seed = [f"seed=0..{int(words == SWEEP)}"] if any(w.startswith("seed=") for w in words) else []
            tiny = [w for w in TINY if "task=classify" not in words or not w.startswith("fit.steps=")]
            if "fit=sgld" in words:             # a sample comes after the burn-in
                tiny = ["fit.steps=4" if t.startswith("fit.steps=") else t for t in TINY]
            if "fit=baseline" in words:         # no network, and no steps
                tiny = ["logger=none", "trainer=smoke"]
            if "prior=custom" in words:     # it has options of its own
                tiny = [t for t in TINY if not t.startswith("prior.")]
            if {"task=cs", "task=gan", "task=finetune", "prior=pggan"} & set(words):     # a generator has its own size
                trains = {"task=gan", "task=finetune"} & set(words)
                tiny = ["logger=none", "trainer=smoke", *(["fit.fade=4", "fit.stable=4"] if "task=gan" in words else
                                                          [] if trains else ["fit.steps=2"])]
                kept = [w if not w.startswith("prior.channels=") else "prior.channels=[4,4,4,4]" for w in kept]
            if {"prior=nas", "prior=isnas"} & set(words):       # their depth is given
                tiny = [w for w in TINY if not w.startswith("prior.depth=")]
            if any("zoo:" in w for w in words):     # tickets of the standard network
                tiny = ["image.size=64", "fit.steps=1", "logger=none"]
            one = ["pruner.sparsities=[0.5]"] if any(w.startswith("pruner.sparsities=") for w in words) else []
            words = [*kept, *seed, *tiny, *one, *(["pruner.rounds=1"] if "pruner=imp" in words else [])]
        if module == "lipfw.plan":
            words = [re.sub(r"(seed=0)\.\.\d", r"\1", w) for w in words]
        jobs.append((module, words))
    (folder / "commands.py").write_text("""
import contextlib, io, json, runpy, sys
from hydra.core.global_hydra import GlobalHydra
if __name__ == "__main__":       # the processes of a grid import it too
    found = []
    for module, words in json.loads(sys.argv[1]):
        GlobalHydra.instance().clear()
        sys.argv, status = [module, *words], 0
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                runpy.run_module(module, run_name="__main__")
            except SystemExit as e:
                status = e.code or 0
        found.append((status, err.getvalue()))
    print(json.dumps(found))
""")
    process = forked.run("commands", json.dumps(jobs), cwd=folder, timeout=600)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=COMMANDS)
def test_each_command_runs(done, number):
    status, err = done[number]
    assert status == 0, err


def test_the_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("noisy", "holes"):
        write_png(tmp_path / f"{name}.png", torch.rand(1, 3, 20, 20))
    write_png(tmp_path / "mask.png", (torch.rand(1, 1, 20, 20) > 0.2).float())
    (code,) = (code for code in PYTHON if "lipfw.restore" in code)
    restore, there = lipfw.restore, {}
    monkeypatch.setattr(lipfw, "restore", lambda *args, **options: restore(
        *args, **{**options, "steps": 2, "channels": 4, "depth": 2}), raising=False)
    exec(code, there)
    assert (tmp_path / "restored.png").is_file() and there["restored"].picture.dtype == there["array"].dtype == "uint8"
    assert there["without_text"].size == (20, 20) and there["tensor"].shape == (1, 3, 128, 128)


def test_the_table_names_every_option_and_no_other():
    groups = "task|image|prior|pruner|fit|trainer|logger"
    in_table = set(re.findall(rf"^\| `(\w+|(?:{groups})\.\w+)` \|", TEXT, re.MULTILINE))
    there = KEYS - set(groups.split("|")) - {"protocol", "shrunk"}
    for group in ("task", "image", "prior", "pruner", "fit", "trainer", "logger"):
        for path in (CONF / group).glob("[!_]*.yaml"):
            with initialize_config_dir(str(CONF), version_base="1.3"):
                node = OmegaConf.to_container(compose("config", [f"{group}={path.stem}"])[group])
            there |= {f"{group}.{k}" for k in node if not k.startswith("_")}
    # fixed by the YAML that is chosen
    internal = {"image.set", "logger.settings", "logger.close", "logger.side_by_side"}
    assert in_table == there - internal
    launchers = {k for p in (CONF / "hydra/launcher").glob("*.yaml") for k in OmegaConf.load(p) if k != "_target_"}
    assert set(re.findall(r"^\| `hydra\.launcher\.(\w+)` \|", TEXT, re.MULTILINE)) == launchers


def test_the_table_tells_the_defaults():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config")
    cfg, resolved = OmegaConf.to_container(composed), OmegaConf.to_container(composed, resolve=True)
    for option, default in re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", TEXT, re.MULTILINE):
        group, _, key = option.rpartition(".")
        node = cfg.get(group, {}) if group else cfg
        if key in node and option != "logger.mode":
            value = node[key]
            if "oc.select" in str(value):       # a value of its own, where neither task nor trainer=smoke has another
                value = resolved[group][key]
            told = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert default == told, option


@pytest.mark.parametrize("pruner", [p.stem for p in sorted((CONF / "pruner").glob("[!_]*.yaml"))])
def test_the_table_tells_the_defaults_of_each_pruner(pruner):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = OmegaConf.to_container(compose("config", [f"pruner={pruner}"]).pruner)
    told = dict(re.findall(r"^\| `pruner\.(\w+)` \| `?([^`|]*?)`? \|", TEXT, re.MULTILINE))
    words = {"None": "null", "False": "false", "???": "(must be given)"}
    for option, value in node.items():
        if not option.startswith("_"):
            assert told[option] == words.get(str(value), str(value)), option
    assert f"`{pruner}`" in next(line for line in TEXT.splitlines() if line.startswith("| **`pruner=`**"))
