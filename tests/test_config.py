"""Every shipped YAML composes and builds what it names; every experiment runs, shrunk."""
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf

from lipfw.cli import CONF, EXPERIMENTS
from lipfw.run import run

GROUPS = ("task", "image", "prior", "pruner", "fit", "trainer", "logger")
OPTIONS = [(g, p.stem) for g in GROUPS for p in sorted((CONF / g).glob("[!_]*.yaml"))]
NEEDED = {"image=file": "image.path=x.png", "image=folder": "image.path=x", "image=dataset": "image.path=x",
          "image=labelled": "image.path=x", "pruner=ticket": "pruner.path=x",
          "pruner=random_like": "pruner.path=x",
          "task=custom": "task.operator=torch.fft.fft2", "prior=custom": "prior.network=torch.nn.Conv2d"}
QUIET = ["trainer.progress=false", "logger=none"]
SHRINK = ["trainer=smoke", *QUIET, "image.size=16", "prior.channels=4", "prior.depth=2", "fit.steps=4",
          "fit.log_every=2"]
# the data sets of experiments are not here; what the experiments train is
SHRINK_TRAINING = ["trainer.accelerator=cpu", *QUIET, "image=lfw", "image.size=16", "prior.channels=[4,4,4]",
                   "fit.fade=[0,4,4]", "fit.stable=4", "fit.batch=4"]


def composed(*overrides, name="config", folder=CONF):
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize("group, option", OPTIONS)
def test_each_option_composes_and_names_what_exists(group, option):
    choice = f"{group}={option}"
    cfg = composed(choice, *filter(None, [NEEDED.get(choice)]))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    target = cfg[group].get("_target_")
    if target is None:
        assert group in ("trainer", "logger")
        return
    made = get_method(target) if target.rpartition(".")[2][0].islower() else get_class(target)
    assert made.__doc__
    if target.startswith("lipfw."):     # conf/pruner/imp.yaml is src/lipfw/pruner/imp.py
        assert target.split(".")[1] == group


@pytest.mark.parametrize("group, option", [(g, o) for g, o in OPTIONS if g in ("task", "pruner")
                                           and f"{g}={o}" not in NEEDED])
def test_tasks_and_pruners_are_built_from_their_yaml_alone(group, option):
    assert callable(getattr(instantiate(composed(f"{group}={option}")[group]), "prune", None)
                    or instantiate(composed(f"{group}={option}")[group]))


def test_trainer_files_have_the_same_keys():
    keys = {p.stem: set(composed(f"trainer={p.stem}").trainer) for p in (CONF / "trainer").glob("*.yaml")}
    assert len({frozenset(k) for k in keys.values()}) == 1


def test_every_key_has_a_comment():
    """A newcomer reads the options in the YAML: each line with a value says what it is."""
    for path in CONF.glob("*/*.yaml"):
        for line in path.read_text().splitlines():
            plain = line.strip()
            if not plain or plain.startswith("#") or ":" not in plain or plain.endswith(":") or "_target_" in plain:
                continue
            own = plain.split(":")[0] in ("defaults", "_partial_", "set", "project", "silent", "x_disable_stats")
            derived = "${protocol" in plain or path.parent.name == "trainer"
            assert "#" in plain or own or derived or path.parent.name == "task", f"{path.name}: {plain}"


# those of several stages have a file of their own, test_experiments.py
@pytest.mark.parametrize("name", [p.stem for p in sorted(EXPERIMENTS.glob("*.yaml"))
                                  if "study" not in OmegaConf.load(p)])
def test_each_experiment_runs_shrunk(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(EXPERIMENTS), version_base="1.3"):
        path = f"hydra.searchpath=[file://{CONF}]"
        trains = compose(name, [path]).task._target_.startswith("lipfw.task.gan.")
        cfg = compose(name, [*(SHRINK_TRAINING if trains else SHRINK), path])
    result = run(cfg)
    left = "generator.safetensors" if trains else "compare.png"
    assert len(result["rounds"]) >= 1 and Path("runs", cfg.name, result["run"], left).is_file()


def test_protocol_is_the_literatures():
    """Steps, smoothing, jitter of facts 3.2."""
    for task, steps, smoothing, jitter in (("denoise", 3000, 0.99, 1 / 30), ("inpaint", 3000, 0, 0.03),
                                           ("superres", 2000, 0, 0.03), ("jpeg", 2400, 0.99, 1 / 30)):
        cfg = composed(f"task={task}")
        assert (cfg.fit.steps, cfg.fit.smoothing) == (steps, smoothing)
        assert cfg.prior.jitter == pytest.approx(jitter, abs=1e-9)
        assert cfg.fit.lr == 0.01 and cfg.prior.channels == 128 and cfg.prior.depth == 5
    assert composed("prior=decoder").prior.jitter == 0
    assert (composed("pruner=imp").pruner.rounds, composed("pruner=imp").pruner.rate) == (16, 0.2)
