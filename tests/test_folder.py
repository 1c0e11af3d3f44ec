"""The run folder follows from what changes the result, and from nothing else."""
import copy
import functools
import re
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from lipfw.cli import CONF
from lipfw.folder import identity, label_parts, run_folder
from lipfw.mask import Mask
from lipfw.ticket import Ticket

GROUPS = {p.name for p in CONF.iterdir() if p.is_dir()}


@functools.cache
def composed(*groups):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(groups))


def config(*overrides):
    """The composed config; composing takes 0.1 s, so single values are set afterwards."""
    groups = [o for o in overrides if o.split("=")[0] in GROUPS]
    cfg = copy.deepcopy(composed(*groups))
    cfg.merge_with_dotlist([o for o in overrides if o not in groups])
    return cfg


def digits(*overrides):
    return run_folder(config(*overrides)).name.rsplit("-", 1)[1]


CHANGES = [
    ["seed=1"],
    *([f"task={t}"] for t in ("clean", "inpaint", "superres")), ["task.sigma=10"], ["task.seed=1"],
    ["task=inpaint", "task.missing=0.7"], ["task=inpaint", "task.per_channel=true"],
    ["task=superres", "task.factor=2"], ["task=superres", "task.downsample=pillow"], ["task=superres", "task.border=0"],
    ["image=set5"], ["image=set5", "image.name=bird"], ["image.name=camera"], ["image.size=64"], ["image.size=65"],
    ["image.fit_size=crop"], ["image.degraded=true"],
    ["prior=decoder"], ["prior.channels=64"], ["prior.depth=4"], ["prior.skip_channels=8"], ["prior.code_channels=16"],
    ["prior.jitter=0"], ["prior.seed=1"], ["protocol.jitter=0.2"],
    ["pruner=imp"], ["pruner=imp", "pruner.rounds=3"], ["pruner=imp", "pruner.rate=0.3"],
    ["pruner=imp", "pruner.rewind_step=150"],
    ["fit.steps=500"], ["fit.lr=0.001"], ["fit.smoothing=0"], ["fit.target=clean"], ["fit.window=50"],
    ["fit.patience=500"], ["fit.keep=[5]"], ["task=clean", "task.target=white"],
    ["task=clean", "task.target=white", "task.seed=1"], ["fit.log_every=1"], ["trainer=smoke"],
    ["trainer.precision=bf16"],
]


def test_every_option_that_changes_the_result_has_a_folder_of_its_own():
    found = [digits(*change) for change in ([], *CHANGES)]
    assert len(set(found)) == len(CHANGES) + 1


@pytest.mark.parametrize("change", ["name=x", "out=elsewhere", "logger=none", "logger.project=x", "trainer=cpu",
                                    "trainer=gpu", "trainer.threads=3", "trainer.checkpoint_seconds=5",
                                    "trainer.progress=false", "fit.steps_per_batch=7",
                                    "trainer.precision=32"])
def test_options_that_do_not_change_the_result(change):
    assert digits(change) == digits()


@pytest.mark.parametrize("options, counts", [
    ([], False), (["fit.pick=holdout"], True), (["fit.stop=holdout"], True), (["image.degraded=true"], True),
    (["image.degraded=true", "fit.pick=wmv"], False), (["image.degraded=true", "fit.stop=emv"], False)])
def test_what_is_held_out_counts_where_it_picks(options, counts, tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    options = [*options, "image=file", f"image.path={tmp_path}/a.png"]
    assert (digits(*options) != digits(*options, "fit.held_out=0.1")) == counts


def test_the_usual_precision_is_not_part_of_a_name():
    assert "precision" not in identity(config()) and identity(config("trainer.precision=bf16"))["precision"] == "bf16"


@pytest.mark.parametrize("one, other", [(["protocol.steps=5"], ["fit.steps=5"]),
                                        (["seed=0"], []),
                                        (["image.name=camera", "seed=2"], ["seed=2", "image.name=camera"])])
def test_the_same_run_spelled_differently(one, other):
    assert run_folder(config(*one)) == run_folder(config(*other))


def test_the_folder_can_be_read():
    path = run_folder(config("out=here", "name=study", "seed=7", "pruner=imp", "task=superres"))
    assert path.parent == Path("here/study")
    assert re.fullmatch(r"superres-astronaut-skip-imp-s7-[0-9a-f]{8}", path.name)


@pytest.mark.parametrize("overrides, label", [
    ([], ["denoise", "astronaut", "skip", "none", "s0"]),
    (["image=set14", "prior=decoder", "task=inpaint"], ["inpaint", "set14", "decoder", "none", "s0"]),
    (["image=set14", "image.name=baboon"], ["denoise", "baboon", "skip", "none", "s0"]),
    (["image=file", "image.path='my photo, 2.final.png'"], ["denoise", "my_photo_2.final", "skip", "none", "s0"]),
    (["image=file", "image.path='/a/東京.png'", "pruner=ticket", "pruner.path=x"],
     ["denoise", "_", "skip", "ticket", "s0"]),
])
def test_labels(overrides, label):
    assert label_parts(config(*overrides)) == label


# ---- files count by their content -------------------------------------------------------------------------------

def paint(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)
    return path


def by_path(option, path):
    extra = {"image.path": ["image=file"], "task.mask": ["task=inpaint"], "pruner.path": ["pruner=ticket"]}[option]
    return digits(*extra, f"{option}={path}")


@pytest.mark.parametrize("option", ["image.path", "task.mask", "pruner.path"])
def test_a_file_counts_by_its_content(tmp_path, option):
    path = paint(tmp_path / "x.png", 1)
    first = by_path(option, path)
    copy = paint(tmp_path / "elsewhere" / "y.png", 1)
    assert by_path(option, copy) == first
    paint(path, 2)
    assert by_path(option, path) != first
    paint(path, 1)
    assert by_path(option, path) == first


def test_a_folder_counts_by_its_pictures(tmp_path):
    def of(folder):
        return digits("image=folder", f"image.path={folder}")

    for i in range(3):
        paint(tmp_path / "a" / f"{i}.png", i)
    first = of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert of(tmp_path / "b") == first
    (tmp_path / "b" / "2.png").rename(tmp_path / "b" / "3.png")
    assert of(tmp_path / "b") != first              # the name is part of a picture: its noise follows from it
    paint(tmp_path / "a" / "2.png", 9)
    assert of(tmp_path / "a") != first


def test_results_inside_the_picture_folder_do_not_make_it_another_run(tmp_path):
    """`image.path=.` with `out=runs`: the same command must find its own result again."""
    paint(tmp_path / "x.png", 1)
    first = digits("image=folder", f"image.path={tmp_path}")
    paint(tmp_path / "runs" / "default" / "restored.png", 2)
    (tmp_path / "notes.txt").write_text("not a picture")
    assert digits("image=folder", f"image.path={tmp_path}") == first


def test_a_run_folder_and_its_tickets_are_one_thing_to_replay(tmp_path):
    tickets = tmp_path / "run" / "tickets"
    tickets.mkdir(parents=True)
    Ticket(Mask({"w": torch.ones(3, dtype=torch.bool)})).save(tickets / "round_00.safetensors")
    first = by_path("pruner.path", tickets)
    (tmp_path / "run" / "result.json").write_text("{}")
    assert by_path("pruner.path", tmp_path / "run") == first


def test_a_path_with_a_tilde_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = paint(tmp_path / "x.png", 1)
    assert by_path("image.path", "'~/x.png'") == by_path("image.path", path)


def test_the_same_bytes_under_another_name_are_another_noise(tmp_path):
    """The noise follows from the picture's name, so a renamed copy is another result."""
    one, other = paint(tmp_path / "a.png", 1), paint(tmp_path / "b.png", 1)
    folders = {run_folder(config("image=file", f"image.path={p}")).name for p in (one, other)}
    assert len(folders) == 2


def test_a_path_with_nothing_there_stays_a_path():
    assert identity(config("image=file", "image.path=no/such.png"))["image"]["path"] == "no/such.png"
    assert by_path("image.path", "no/such.png") != by_path("image.path", "no/other.png")
