"""Studies of several stages: which runs they have, what these replay, and what becomes of a study that goes on."""
import json
import signal
import textwrap
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from lipfw import argv
from lipfw.cli import CONF, EXPERIMENTS
from lipfw.errors import InputError
from lipfw.files import write_json, write_text
from lipfw.grid.cells import opened
from lipfw.grid.manifest import NAME, Manifest, read
from lipfw.grid.staged import run_stages
from lipfw.grid.stages import Stages
from lipfw.interrupt import listening

SPEC = """
    common: image=skimage image.name=chelsea,coffee
    scales: {tiny: "image.size=32 fit.steps=5 seed=0..1", paper: "seed=0..9"}
    stages:
      found: {run: "pruner=imp,random", tiny: pruner.rounds=2, paper: pruner.rounds=16}
      judged: {of: found, across: [pruner], run: task=inpaint}
      other: {of: found, where: {pruner: imp}, across: [image.name], run: image.name=astronaut}
      single: {of: found, where: {pruner: imp}, sparsity: [0.2, 0.36], run: pruner.init=fresh}
      like: {of: found, where: {pruner: imp}, run: pruner=random_like}
      large: {run: prior=decoder, scale: [paper]}
"""


HEAD = {"study": "mine", "scale": "tiny", "given": [], "spec": {"stages": {"found": {}}}}


def made(given=(), scale="tiny", spec=SPEC) -> tuple[Stages, object]:
    with opened(["name=mine"], CONF, EXPERIMENTS) as (_, compose):
        words = [w for w in argv.normalise(["-m", *given]) if w != "-m"]
        stages = Stages(OmegaConf.create(textwrap.dedent(spec)), scale, ["name=mine", *words], compose._loader,
                        lambda overrides: compose.compose(overrides)[0])
        return stages, compose


def test_a_stage_has_a_run_for_each_combination_and_each_replayed_run():
    stages, _ = made()
    assert {name: len(cells) for name, cells in stages.cells.items()} == {
        "found": 2 * 2 * 2, "judged": 2 * 2 * 2, "other": 2 * 2, "single": 2 * 2 * 2, "like": 4}
    paper, _ = made(scale="paper")
    assert len(paper.cells["found"]) == 2 * 2 * 10 and len(paper.cells["large"]) == 2 * 10


def test_a_replayed_run_agrees_in_all_that_its_stage_sweeps():
    stages, _ = made()
    for cell in stages.cells["judged"]:
        found = cell.of.values
        assert all(found[k] == cell.values[k] for k in ("image.name", "seed"))
        assert cell.values["of.pruner"] == found["pruner"] and cell.values["of"] == "found"
        assert "pruner=ticket" in cell.overrides and cell.values["task"] == "inpaint"
    assert {c.values["of.pruner"] for c in stages.cells["judged"]} == {"imp", "random"}
    for cell in stages.cells["other"]:
        assert cell.of.values["seed"] == cell.values["seed"] and cell.of.values["pruner"] == "imp"
    pictures = [(c.values["image.name"], c.of.values["image.name"]) for c in stages.cells["other"]]
    assert sorted(set(pictures)) == [("astronaut", "chelsea"), ("astronaut", "coffee")]
    assert all("pruner=random_like" in c.overrides and "pruner=ticket" not in c.overrides for c in stages.cells["like"])
    assert [c.sparsity for c in stages.cells["single"][:2]] == [0.2, 0.36]


def test_what_the_user_gives_comes_last_and_counts_where_it_exists():
    stages, _ = made(["seed=5", "fit.steps=7", "pruner.rounds=1", "image.size=48", "logger=none"])
    assert all(c.values["seed"] == "5" and c.values["fit.steps"] == "7" for cs in stages.cells.values() for c in cs)
    assert all(c.values["pruner.rounds"] == "1" for c in stages.cells["found"])
    assert not any("pruner.rounds" in c.values for c in stages.cells["judged"])
    assert len(stages.cells["found"]) == 4      # one seed, each once
    assert stages.given == ["fit.steps=7", "image.size=48", "pruner.rounds=1"]


def test_each_run_is_asked_only_where_its_options_can_differ():
    """Alike runs have the same options; but a value may decide what a mapping in a group is."""
    spec = 'scales: {tiny: "seed=0..3"}\nstages:\n  found: {run: "pruner=imp pruner.kind=one,two image.name=a,b"}'
    asked = []

    def config(cell):
        asked.append(cell)
        kind = next(w for w in cell if w.startswith("pruner.kind=")).partition("=")[2]
        return OmegaConf.create({"pruner": {"plans": {"one": {"x": 1}, "two": {"y": 1}}, "kind": kind, "rate": 0.2,
                                            "plan": "${.plans.${.kind}}"}, "image": {"name": "a", "path": "???"}})

    def taken(*given):
        asked.clear()
        with opened(["name=mine"], CONF, EXPERIMENTS) as (_, compose):
            return Stages(OmegaConf.create(spec), "tiny", given, compose._loader, config).cells["found"]

    assert all(c.values["pruner.rate"] == "0.1" for c in taken("pruner.rate=0.1")) and len(asked) == 1
    assert {(c.values["pruner.kind"], c.values.get("pruner.plan.x")) for c in taken("pruner.plan.x=5")} == {
        ("one", "5"), ("two", None)}
    assert len(asked) == 2 * 2 * 4


@pytest.mark.parametrize(("change", "said"), [
    (("of: found, across: [pruner]", "of: found"), "several runs could be replayed, pruner=imp, pruner=random"),
    (("of: found, across: [pruner]", "of: fuond, across: [pruner]"), "did you mean found?"),
    (("run: task=inpaint", "runs: task=inpaint"), "study.stages.judged.runs is no part of a stage; did you mean run?"),
    (("run: image.name=astronaut", "tiny: seed=7"), "none of its runs has the values of this one: seed=7"),
    (("common:", "comon:"), "study.comon is no part of a study; did you mean common?"),
    (("across: [pruner]", "across: [task.sigma]"), "across names task.sigma"),
], ids=lambda v: v if isinstance(v, str) else v[1])
def test_mistakes_in_a_study_are_told(change, said):
    with pytest.raises(InputError) as told:
        made(spec=SPEC.replace(*change, 1))
    assert said in str(told.value)


@pytest.mark.parametrize(("given", "scale", "said"), [
    (["fit.stepz=3"], "tiny", "fit.stepz=3: no run of this study has such an option; did you mean fit.steps?"),
    (["name=a,b"], "tiny", "name=a,b: a study has one name; start it once for each"),
    (["scale=tiny,paper"], "tiny", "scale=tiny,paper: a study has one scale"),
    ([], "big", "scale=big is not one of this study's: use tiny or paper"),
])
def test_mistakes_on_the_command_line_are_told(given, scale, said):
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        made(given, scale)


class Launch:
    """Stands in for a launcher: makes results, but those of runs whose overrides hold a word that fails."""

    def __init__(self, compose, fails="nothing"):
        self.compose, self.fails, self.grids = compose, fails, []

    def __call__(self, grid, first):
        self.grids.append(grid)
        for overrides in grid:
            (folder,) = self.compose(overrides).folders
            if self.fails not in overrides and not (folder / "result.json").exists():
                (folder / "tickets").mkdir(parents=True)
                lines = [{"round": r, "sparsity": 1 - 0.8 ** r} for r in range(3)]
                write_text(folder / "rounds.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
                for r in range(3):
                    (folder / f"tickets/round_{r:02d}.safetensors").write_bytes(repr((overrides, r)).encode())
                write_json(folder / "result.json", {})
        return [JobReturn() for _ in grid]


def ran(tmp_path, monkeypatch, fails="nothing", **options):
    monkeypatch.chdir(tmp_path)
    stages, compose = made(**options)
    launch = Launch(compose, fails)
    run_stages(stages, "mine", Path("runs/mine"), compose, launch)
    return json.loads(Path("runs/mine", NAME).read_text()), launch


def test_the_list_names_each_run_and_later_stages_get_the_tickets(tmp_path, monkeypatch):
    listed, launch = ran(tmp_path, monkeypatch)
    assert [len(g) for g in launch.grids] == [8, 8 + 4 + 8 + 4]      # what waits for the same is one grid
    assert listed["study"] == "mine" and listed["scale"] == "tiny" and listed["given"] == []
    assert all((Path("runs/mine") / c["folder"] / "result.json").exists() for c in listed["cells"])
    found = {(c["values"]["image.name"], c["values"]["pruner"], c["values"]["seed"]): c["folder"]
             for c in listed["cells"] if c["stage"] == "found"}
    judged = [c for c in listed["cells"] if c["stage"] == "judged"]
    for overrides, cell in zip(launch.grids[1][:8], judged, strict=True):
        v = cell["values"]
        assert f"pruner.path='runs/mine/{found[v['image.name'], v['of.pruner'], v['seed']]}'" in overrides
    assert {w.rpartition("/")[2] for g in launch.grids[1][12:20] for w in g if w.startswith("pruner.path")} == {
        "round_01.safetensors'", "round_02.safetensors'"}


def test_runs_without_their_tickets_wait_and_stay_in_the_list(tmp_path, monkeypatch, capsys):
    listed, launch = ran(tmp_path, monkeypatch, "image.name=coffee")
    assert "12 not started: the runs that find their tickets have no result" in capsys.readouterr().out
    missing = [c for c in listed["cells"] if c["folder"] is None]
    assert len(listed["cells"]) == 32 and {c["values"]["image.name"] for c in missing} == {"coffee", "astronaut"}
    again, launch = ran(tmp_path, monkeypatch)
    assert not [c for c in again["cells"] if c["folder"] is None]


def test_a_run_that_another_study_has_finished_is_taken_over(tmp_path, monkeypatch):
    ran(tmp_path, monkeypatch, given=["seed=0"])
    Path("runs/mine").rename("runs/other")
    there = next(Path("runs/other").glob("*coffee-skip-imp*/result.json")).parent
    (there / "mark").write_text("x")
    left = Path("runs/mine", f".{there.name}.123")      # by a start that was killed meanwhile
    left.mkdir(parents=True)
    _, launch = ran(tmp_path, monkeypatch, "image.name=coffee", given=["seed=0"])      # the launcher would not do it
    assert (Path("runs/mine") / there.name / "mark").read_text() == "x"
    assert not [f for f in Path("runs/mine").iterdir() if f.name.startswith(".")]


def test_a_request_to_stop_counts_between_stages(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stages, compose = made(given=["seed=0"])
    launch = Launch(compose)

    def last_run_done(grid, first):
        returns = launch(grid, first)
        signal.raise_signal(signal.SIGTERM)     # the grid's own block hears it, and has nothing left to stop
        return returns

    with pytest.raises(SystemExit) as e, listening():
        run_stages(stages, "mine", Path("runs/mine"), compose, last_run_done)
    assert e.value.code == 128 + signal.SIGTERM and len(launch.grids) == 1
    assert "not started: judged, other, single, like: SIGTERM" in capsys.readouterr().out


def test_no_stage_begins_after_as_many_failures_as_are_allowed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stages, compose = made(given=["seed=0"])
    launch = Launch(compose, "image.name=coffee")

    def failing(grid, first):
        launch(grid, first)
        return [JobReturn(status=JobStatus.FAILED if launch.fails in o else JobStatus.COMPLETED) for o in grid]

    for most, grids in ((2, 1), (3, 2)):        # there are two
        launch.grids.clear()
        run_stages(stages, "mine", Path("runs/mine"), compose, failing, most)
        assert len(launch.grids) == grids
        assert (f"not started: judged, other, single, like: max_failures={most}"
                in capsys.readouterr().out) == (grids == 1)


def test_more_seeds_join_and_other_options_are_refused(tmp_path, monkeypatch):
    ran(tmp_path, monkeypatch, given=["seed=0"])
    listed, _ = ran(tmp_path, monkeypatch, given=["seed=3"])
    assert {c["values"]["seed"] for c in listed["cells"]} == {"0", "3"} and len(listed["cells"]) == 32
    before = Path("runs/mine", NAME).read_bytes()
    for options, said in (({"given": ["fit.steps=6"]}, "fit.steps=6"), ({"scale": "paper"}, "scale=paper")):
        with pytest.raises(InputError, match=f"holds mine scale=tiny, and this is .*{said}.*name=mine_2"):
            ran(tmp_path, monkeypatch, **options)
    assert Path("runs/mine", NAME).read_bytes() == before


def test_two_starts_with_other_seeds_keep_each_others_runs(tmp_path):
    first = Manifest(tmp_path, HEAD)
    second = Manifest(tmp_path, HEAD)
    for manifest, seed, folder in ((first, "0", None), (second, "1", None), (first, "0", "r0"), (second, "1", "r1")):
        manifest.write([{"stage": "found", "values": {"seed": seed}, "folder": folder}])
    assert {c["values"]["seed"]: c["folder"] for c in read(tmp_path)["cells"]} == {"0": "r0", "1": "r1"}


def test_the_command_line_of_a_study_needs_no_m(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [study, _self_]\nname: mine\nstudy: {}\n")
    assert argv.normalise(["-cn", "mine", "scale=paper", "seed=0..2", "pruner.rounds=3"], tmp_path)[-3:] == [
        "scale=paper", "seed=range(0,3,1)", "pruner.rounds=choice(3)"]
    assert "--multirun" in argv.normalise(["-cn", "mine"], tmp_path)
    assert "--multirun" not in argv.normalise(["-cn", "mine", "--cfg", "job"], tmp_path)
    assert "--multirun" not in argv.normalise(["-cn", "quickstart"], EXPERIMENTS)
