"""The command line as typed: sweeps, one line for each mistake, and no torch where none is needed."""
import json
import os
import subprocess
import sys

import forked
import pytest

from lipfw.argv import expand, normalise
from lipfw.errors import InputError

TINY = ["trainer=smoke", "logger=none", "image.size=16", "prior.channels=4", "prior.depth=2", "fit.steps=2"]


def lipfw(*arguments, cwd, **environment):
    done = forked.run("lipfw", *arguments, cwd=cwd, env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("typed, spelled", [
    ("seed=0..9", "seed=range(0,10,1)"), ("seed=0..3,7", "seed=0,1,2,3,7"), ("seed=9..7", "seed=range(9,6,-1)"),
    ("seed=0..90..30", "seed=range(0,91,30)"), ("s=-2..1", "s=range(-2,2,1)"), ("seed=3,0..1", "seed=3,0,1"),
    ("seed=range(0,10)", "seed=range(0,10)"), ("seed=0,3,7", "seed=0,3,7"), ("image.path=../a.png",) * 2,
    ("v=1.2..3",) * 2, ("a=[0..3]",) * 2, ("x='0..9'",) * 2, ("flag",) * 2])
def test_ranges(typed, spelled):
    assert expand(typed) == spelled


def test_flags_may_stand_anywhere():
    assert normalise(["task=denoise", "pruner=imp", "-m", "seed=0..1", "image.name=baby,bird"]) == [
        "-m", "task=denoise", "pruner=imp", "seed=range(0,2,1)", "image.name=baby,bird"]
    assert normalise(["a=1", "--cfg", "job", "b=2"]) == ["--cfg", "job", "a=1", "b=2"]
    assert normalise(["-cn", "fig3", "a=1", "-p", "fit"]) == ["-cn", "fig3", "-p", "fit", "a=1"]
    assert normalise(["a=1", "--info", "b=2"]) == ["--info", "a=1", "b=2"]
    with pytest.raises(InputError, match="add -m to start them all"):
        normalise(["seed=0..9"])
    for grids in ("hydra/launcher=local", "hydra.launcher.jobs=2", "max_failures=3"):
        assert grids in normalise([grids, "-m"]) and grids in normalise([grids, "--cfg", "job"])
        with pytest.raises(InputError, match="is for a grid of several runs: add -m"):
            normalise(["task=clean", grids])
    with pytest.raises(InputError, match="step of a range must be at least 1, got 0"):
        normalise(["-m", "seed=0..9..0"])


def test_options_of_a_group_that_is_swept_go_to_each_run():
    """Hydra would look for them in the group's default, which does not have them."""
    assert normalise(["pruner=imp,random", "pruner.sparsities=[0.2,0.5]", "-m", "pruner.rewind_step=5%,10", "fit.lr=1",
                      "pruner.rounds=0..1", "+pruner.x=1"]) == [
        "-m", "pruner=imp,random", "pruner.sparsities=choice([0.2,0.5])", "pruner.rewind_step=5%,10", "fit.lr=1",
        "pruner.rounds=range(0,2,1)", "+pruner.x=1"]
    assert normalise(["-m", "pruner=imp", "pruner.rounds=2"]) == ["-m", "pruner=imp", "pruner.rounds=2"]
    assert normalise(["pruner=a,b", "pruner.rounds=2"]) == ["pruner=a,b", "pruner.rounds=2"]


def test_a_sweep_over_pruners_with_an_option_of_theirs(tmp_path):
    code, out, err = lipfw("pruner=imp,magnitude", "pruner.sparsities=[0.25,0.5]", "-m", *TINY, cwd=tmp_path)
    assert code == 0, err
    results = tmp_path.glob("runs/default/*/result.json")
    found = {p.parent.name.split("-")[3]: json.loads(p.read_text()) for p in results}
    assert set(found) == {"imp", "magnitude"}
    for result in found.values():
        assert result["config"]["pruner"]["sparsities"] == [0.25, 0.5]
        assert {0.25, 0.5} <= {round(r["sparsity"], 2) for r in result["rounds"]}


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP")
@pytest.mark.parametrize("given, told", [({}, "GOMP_SPINCOUNT = '1000'"),
                                         ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'")])
def test_waiting_threads_soon_sleep(tmp_path, monkeypatch, given, told):
    """As OpenMP itself read it, so it was set in time; the user's own setting stays."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):      # of whoever runs the tests
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-m", "lipfw", *TINY], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "OMP_DISPLAY_ENV": "VERBOSE", **given})
    assert done.returncode == 0 and told in done.stderr
    assert not given or "GOMP_SPINCOUNT = '1000'" not in done.stderr


def test_a_users_own_pruner_from_a_folder_of_ones_own(tmp_path):
    """Two files outside the package, as the README says; with an experiment too."""
    (tmp_path / "conf/pruner").mkdir(parents=True)
    (tmp_path / "conf/pruner/largest.yaml").write_text(
        "defaults: [_common, _self_]\n_target_: mypruners.largest.Largest\nrounds: 2\nrate: 0.3\npower: 1\n")
    (tmp_path / "mypruners").mkdir()
    (tmp_path / "mypruners/largest.py").write_text(
        "from lipfw.mask import prunable\nfrom lipfw.pruner.pruner import Pruner\n"
        "class Largest(Pruner):\n"
        "    def __init__(self, power, **options):\n        super().__init__(**options)\n        self.power = power\n"
        "    def score(self, network, fit):\n"
        "        assert all(term.requires_grad for term in fit.losses()) and len(fit.code_shape()) == 4\n"
        "        return {n: w.detach().abs() ** self.power for n, w in prunable(network).items()}\n")
    for extra in ([], ["-cn", "quickstart"]):
        code, out, err = lipfw("--config-dir", "conf", *extra, "pruner=largest", *TINY, cwd=tmp_path,
                               PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        assert code == 0, err
    results = [json.loads(p.read_text()) for p in tmp_path.glob("runs/*/*-largest-s0-*/result.json")]
    assert len(results) == 2
    for result in results:
        assert [round(r["sparsity"], 2) for r in result["rounds"]][:3] == [0, 0.3, 0.51]    # quickstart has more


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["--info", "searchpath"],
                                       ["-sc", "install=bash"], ["--hydra-help"]])
def test_no_torch_for_looking(tmp_path, arguments):
    code = ("import sys; sys.argv = ['lipfw', *sys.argv[1:]]\n"
            "from lipfw.cli import main\n"
            "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules and 'wandb' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_completion_knows_the_options(tmp_path):
    environment = {**os.environ, "COMP_LINE": "lipfw pruner=", "_HYDRA_NEW": "1"}
    done = subprocess.run([sys.executable, "-m", "lipfw", "-sc", "query=bash"], cwd=tmp_path, capture_output=True,
                          text=True, env=environment)
    assert {"pruner=imp", "pruner=none", "pruner=snip", "pruner=ticket"} <= set(done.stdout.split())


MISTAKES = [
    (["task.sgima=3"], "task.sgima is no option; did you mean task.sigma?"),
    (["task=denoize"], "did you mean denoise?"), (["tsk=clean"], "did you mean task?"),
    (["fit.stepz=3"], "did you mean fit.steps?"), (["seeed=1"], "did you mean seed?"),
    (["pruner.doubled=true"], "pruner.doubled is an option of pruner=random,"),
    (["pruner.rounds=3"], "pruner.rounds is an option of pruner=grasp or pruner=imp or pruner=magnitude or "),
    (["pruner=ticket", "pruner.path=x", "pruner.rate=0.3"], "pruner.rate is an option of pruner=grasp or "),
    (["pruner=snip", "pruner.draws=0"], "pruner.draws must be a whole number of at least 1, got 0"),
    (["pruner=snip", "pruner.sparsities=[90]"], "did you mean 0.9?"),
    (["pruner=snip", "pruner.sparsities=0.9"], "pruner.sparsities must be a list, in brackets, got 0.9"),
    (["pruner=imp", "pruner.exempt=null"], "pruner.exempt must be a list, in brackets, got None"),
    (["pruner=imp", "pruner.rewind_step=9"], "pruner.rewind_step=9 lies beyond fit.steps=2"),
    (["pruner=random_like"], "pruner.path must be given"),
    (["+nonsense=1"], "nonsense is no option"),
    (["pruner=imp", "+pruner.depth=1"], "pruner.depth is no option"),
    (["pruner=imp", "pruner.rate=20"], "did you mean 0.2?"), (["task=superres", "task.factor=1"], "at least 2, got 1"),
    (["task.sigma=-5"], "task.sigma must be a number in [0, 255], got -5"),
    (["image=lfw"], "lfw is a data set to train a network on, not a picture to restore"),
    (["image=file"], "image.path must be given"),
    (["image=file", "image.path=nowhere.png"], "nowhere.png does not exist"),
    (["image=file", "image.path=text.png"], "text.png"), (["image=file", "image.path=empty.png"], "empty.png"),
    (["image=file", "image.path=cut.png"], "cut.png"), (["image.max_pixels=100"], "image.max_pixels"),
    (["image.size=16", "prior.depth=5"], "prior.depth=3"), (["trainer.accelerator=gpu"], "no GPU"),
    (["pruner=ticket", "pruner.path=empty.png"], "empty.png is not a readable ticket"),
    (["seed=0..9"], "add -m"), (["task.sigma=[1"], "lipfw:"), (["word"], "options are written name=value"),
    (["-cn", "quickstrat"], "did you mean quickstart?"), (["fit.steps=many"], "fit.steps must be a whole number"),
    (["image=set5", "image.name=bird"], "LIPFW_DATA"), (["seed=zero"], "seed must be a whole number"),
    (["task=inpaint", "task.mask=cut.png"], "cut.png"), (["trainer.accelerator=tpux"], "trainer.accelerator"),
    (["image.path=ü (1).png", "image=file"], "ü (1).png does not exist"), (["task=null"], "a group takes a name"),
    (["image=file", "image.path=it's~[x],a=b.png"], "it's~[x],a=b.png does not exist"),
    (["task._target_=nowhere.X"], "nowhere"), (["seed='${nope}'"], "nope"), (["name=../up"], "name must be"),
    (["logger=wandb", "logger.mode=ofline"], "logger.mode=offline, or logger=none"),
    (["logger=wandb", "logger.mode=online"], "logger.mode=offline, or logger=none"),
    (["prior=decoder", "prior.depth=40"], "prior.depth=40"),
    (["+task.foo=1"], "task.foo is no option; did you mean task."),
    (["trainer.checkpoint_seconds=soon"], "trainer.checkpoint_seconds"),
    (["trainer.progress=maybe"], "trainer.progress"),
]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    """One process meets all mistakes: starting one each would take minutes. Yields (code, out, err) of each."""
    from skimage import data
    from skimage.io import imsave

    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "text.png").write_text("this is no picture\n")
    (folder / "empty.png").write_bytes(b"")
    imsave(folder / "whole.png", data.chelsea()[:64, :64])
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:2000])
    (folder / "mistakes.py").write_text("""
import contextlib, io, json, os, sys
from hydra.core.global_hydra import GlobalHydra
from lipfw import cli
found = []
for arguments in json.loads(sys.argv[1]):
    GlobalHydra.instance().clear()
    sys.argv, status = ["lipfw", *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            cli.main()
        except SystemExit as e:
            status = e.code
        except BaseException as e:
            print("TRACEBACK", repr(e), file=err)
            status = 1
    found.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(found))
""")
    arguments = json.dumps([[*TINY, *a] for a, _ in MISTAKES])
    environment = {k: v for k, v in os.environ.items() if k != "LIPFW_DATA" and not k.startswith("WANDB")}
    environment |= {"HOME": str(folder), "NETRC": str(folder / "none"),
                    "XDG_CACHE_HOME": str(folder / "cache"), "https_proxy": "http://127.0.0.1:9"}
    done = forked.run("mistakes", arguments, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    assert [f.parent.name for f in folder.glob("runs/*/*")] == []       # nothing half-written
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line(mistakes, number):
    status, out, err = mistakes[number]
    arguments, told = MISTAKES[number]
    assert status not in (0, None)
    lines = [line for line in err.splitlines() if not line.startswith("Downloading")]
    assert len(lines) == 1 and lines[0].startswith("lipfw: "), err
    assert told in lines[0]


def test_options_that_pruners_share_are_not_those_of_all(mistakes):
    number = [a for a, _ in MISTAKES].index(["pruner.rounds=3"])
    told = mistakes[number][2]
    assert "pruner=synflow" in told and not any(f"pruner={n}" in told for n in ("none", "ticket", "random_like"))


def test_a_sweep_goes_on_after_a_failed_run(tmp_path):
    code, out, err = lipfw(*TINY, "-m", "seed=0..1", "task.sigma=-1,3", cwd=tmp_path)
    assert code == 1
    assert [line for line in err.splitlines() if line.startswith("lipfw: ")] == [
        line for line in err.splitlines() if "task.sigma must be" in line] and err.count("task.sigma must be") == 2
    assert len(list((tmp_path / "runs/default").glob("*/result.json"))) == 2


def test_the_literal_sweep(tmp_path):
    """task=denoise pruner=imp -m seed=0..9: ten folders; again: at once; another option: other folders."""
    command = ["task=denoise", "pruner=imp", "-m", "seed=0..9", *TINY, "pruner.rounds=2"]
    done = subprocess.run([sys.executable, "-m", "lipfw", *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    results = sorted((tmp_path / "runs/default").glob("*/result.json"))
    assert len(results) == 10 and {r.parent.name.split("-")[4] for r in results} == {f"s{i}" for i in range(10)}
    stamps = [r.stat().st_mtime_ns for r in results]
    code, out, err = lipfw(*command, cwd=tmp_path)
    assert code == 0 and "10 skipped, finished before" in out
    assert [r.stat().st_mtime_ns for r in results] == stamps
    code, out, err = lipfw(*TINY, "task.sigma=15,25", "-m", cwd=tmp_path)
    assert code == 0 and len(list((tmp_path / "runs/default").glob("*/result.json"))) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for out in ("file", "/proc/lipfw"):
        code, _, err = lipfw(*TINY, f"out={out}", cwd=tmp_path)
        assert code == 1 and err.count("\n") == 1 and "out=" in err


def test_a_full_disk(tmp_path):
    """A writer that finds no room: one line is told, the run is not called done, and goes on once there is room."""
    (tmp_path / "full_disk.py").write_text(
        "import lipfw.run, lipfw.records\n"
        "def full(*a): raise OSError(28, 'No space left on device', 'rounds.jsonl')\n"
        "lipfw.records.write_jsonl = full\n"
        "from lipfw.cli import main; main()")
    done = forked.run("full_disk", *TINY, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "lipfw: No space left on device: rounds.jsonl; results go to the folder out=, which must be writable and have "
        "room; then the same command continues"]
    assert not list(tmp_path.glob("runs/*/*/result.json"))
    code, _, err = lipfw(*TINY, cwd=tmp_path)
    assert code == 0, err
