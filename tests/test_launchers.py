"""Launchers with real processes: all give the same results, and none loses a run, whatever is killed."""
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from forked import Forked

TINY = ["trainer=smoke", "trainer.threads=1", "logger=none", "fit.log_every=2", "image.size=16", "prior.channels=4",
        "prior.depth=2"]
GRID = ["task=denoise,inpaint", "pruner=imp", "-m", "seed=0..2", "fit.steps=8", "pruner.rounds=2"]
STAND_INS = Path(__file__).parent / "standins/slurm.py"
BEGUN = "runs/default/*-s%d-*/config.yaml"      # is there once the run of that seed has begun
KILLS = int(os.environ.get("LIPFW_KILLS", "2"))     # of the kill test; more take longer


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """Start a command as the leader of its own group, so that all of its processes can be killed."""
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-m", "lipfw", *TINY, *arguments], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                            env={**os.environ, **environment})


def lipfw(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    process = start(folder, *arguments, **environment)
    out, _ = process.communicate(timeout=300)
    return process.returncode, out


def read(path: Path) -> str:
    """Return what a file says that may go away at any moment."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def results(folder: Path) -> dict:
    """Return what each run has come to, without times: its rounds and steps, and the hashes of pictures and tickets."""
    found = {}
    for path in sorted(folder.glob("runs/default/*/result.json")):
        run = path.parent
        rounds = [{k: v for k, v in json.loads(line).items() if k != "seconds"}
                  for line in (run / "rounds.jsonl").read_text().splitlines()]
        files = {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest()
                 for p in sorted(run.rglob("*")) if p.suffix in (".png", ".safetensors")}
        found[run.name] = rounds, (run / "steps.jsonl").read_text(), files, sorted(p.name for p in run.iterdir())
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of the grid by the basic launcher."""
    folder = tmp_path_factory.mktemp("basic")
    done = forked.run("lipfw", *TINY, *GRID, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = results(folder)
    assert len(found) == 6
    return found


def test_local_gives_the_same_results_and_a_killed_process_fails_its_run_alone(tmp_path, undisturbed):
    """One run's process kills itself before its first step; without that the same command does the rest."""
    own = tmp_path / "own/pruner"
    own.mkdir(parents=True)
    (tmp_path / "dies.py").write_text(
        "import os, signal\nfrom lipfw.pruner.imp import IMP\n\n\nclass Dies(IMP):\n    def __init__(self, **o):\n"
        "        super().__init__(**o)\n        if os.environ.get('DIES'):\n            os.kill(os.getpid(), 9)\n")
    shipped = Path("conf/pruner/imp.yaml")
    shipped = (Path(__file__).parents[1] / shipped).read_text().replace("lipfw.pruner.imp.IMP", "dies.Dies")
    (own / "dies.yaml").write_text(shipped)
    local = ["hydra/launcher=local", "hydra.launcher.jobs=2"]
    dying = ["--config-dir", "own", "task=denoise", "pruner=imp,dies", "-m", "seed=0..2", "fit.steps=8",
             "pruner.rounds=2", *local]
    code, out = lipfw(tmp_path, *dying, DIES="1", PYTHONPATH=str(tmp_path))
    assert code == 1 and out.count("FAILED") == 3 and "3 done, 3 failed" in out, out
    assert out.count("its process was killed by SIGKILL") == 6 and "Traceback" not in out
    code, out = lipfw(tmp_path, *GRID, *local)
    assert code == 0 and "grid of 6 runs, 3 finished before: 3 to do, 2 at a time with 1 thread each" in out, out
    assert "grid: 3 done, 3 skipped, finished before" in out
    assert results(tmp_path) == undisturbed
    logs = {p.stem for p in tmp_path.glob("runs/default/logs/*.log")}
    assert set(undisturbed) <= logs and "round 2: sparsity" in (
        tmp_path / f"runs/default/logs/{sorted(undisturbed)[0]}.log").read_text()


def test_two_starts_of_a_grid_share_it(tmp_path, undisturbed):
    local = ["hydra/launcher=local", "hydra.launcher.jobs=2"]
    both = [Forked("lipfw", *TINY, *GRID, *local, cwd=tmp_path, merged=True) for _ in range(2)]
    outs = [p.communicate(timeout=300)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], outs
    assert sum(out.count("] done ") for out in outs) == 6, outs     # each run once
    assert results(tmp_path) == undisturbed


def test_runs_that_are_killed_at_any_moment_lose_nothing(tmp_path):
    """Of a grid, all processes, or the first alone, or one worker, are killed again and again; the same command goes
    on, beside workers that may have survived."""
    chance = random.Random(0)
    grid = ["task=denoise,inpaint", "pruner=imp", "-m", f"seed=0..{KILLS}", "fit.steps=45", "pruner.rounds=2",
            "hydra/launcher=local", "hydra.launcher.jobs=2", "trainer.checkpoint_seconds=0", "fit.steps_per_batch=3"]
    code, out = lipfw(tmp_path / "undisturbed", *grid)
    assert code == 0, out
    expected, killed = results(tmp_path / "undisturbed"), tmp_path / "killed"
    assert len(expected) == 2 * (KILLS + 1)

    def at_work() -> list[int]:
        """Return the processes of the running command that hold a run's folder."""
        members = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True).stdout.split()
        holders = re.findall(r"pid=(\d+)", "".join(map(read, killed.glob("runs/default/*/.lock"))))
        return sorted(int(p) for p in {*holders} & {*members})

    process, killed_so_far = None, 0
    while killed_so_far < KILLS:
        if process is None or process.poll() is not None:
            killed.mkdir(exist_ok=True)
            with open(killed / "log", "a") as log:
                process = subprocess.Popen([sys.executable, "-m", "lipfw", *TINY, *grid], cwd=killed, stdout=log,
                                           stderr=log, start_new_session=True)
            begun = time.monotonic()
            while process.poll() is None and not at_work():
                time.sleep(0.05)
        time.sleep(chance.uniform(0, 1.5))
        workers, what = at_work(), chance.choice(["all processes", "the first process", "a worker"])
        if process.poll() is not None:
            break       # a quick machine: all is done
        if what == "all processes":
            os.killpg(process.pid, signal.SIGKILL)
        elif what == "a worker" and workers:    # the others go on
            os.kill(chance.choice(workers), signal.SIGKILL)
        else:       # its workers go on, beside those of the next start
            what = "the first process"
            process.kill()
        if what != "a worker":
            process.wait()
        killed_so_far += 1
        done = len(list(killed.glob("runs/default/*/result.json")))
        print(f"kill {killed_so_far}: {what}, {time.monotonic() - begun:.1f} s after its start; "
              f"{done} of {len(expected)} runs done")
    assert killed_so_far
    process.wait()
    code, out = lipfw(killed, *grid)
    assert code == 0, out
    found = results(killed)
    differ = [name for name in expected if found.get(name) != expected[name]]
    print(f"{killed_so_far} kills, {len(expected) - len(found)} results lost, {len(differ)} differences")
    assert found == expected


def test_sigterm_has_the_runs_keep_their_state(tmp_path):
    """What a batch system does before it takes a machine away; Ctrl-C does the same."""
    grid = ["-m", "seed=0..2", "fit.steps=100000", "fit.steps_per_batch=1000", "hydra/launcher=local",
            "hydra.launcher.jobs=2"]
    process = Forked("lipfw", *TINY, *grid, cwd=tmp_path, merged=True)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("runs/default/*/config.yaml"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "grid: 2 stopped, 1 not run (SIGINT)" in out and "the same command goes on" in out, out
    assert len(list(tmp_path.glob("runs/default/*/checkpoint.ckpt"))) == 2
    assert not list(tmp_path.glob("runs/default/*/failed.json"))


@pytest.fixture
def slurm(tmp_path) -> dict[str, str]:
    """The environment of a machine that has SLURM's commands."""
    pytest.importorskip("submitit")
    commands, state = tmp_path / "commands", tmp_path / "slurm"
    commands.mkdir()
    state.mkdir()
    for name in ("sbatch", "srun", "sacct", "scontrol", "scancel"):
        (commands / name).symlink_to(STAND_INS)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "FAKE_SLURM": str(state)}


def test_slurm_gives_the_same_results_and_requeues_what_needs_more_time(tmp_path, undisturbed, slurm):
    """A job whose time is over keeps its run's state and goes on when it is requeued, as often as it may."""
    options = ["hydra/launcher=slurm", "hydra.launcher.cpus=1", "hydra.launcher.at_once=2", "hydra.launcher.minutes=1",
               "hydra.launcher.warning=20", "hydra.launcher.more={account: vision}"]
    code, out = lipfw(tmp_path, "task=denoise", "pruner=imp", "-m", "seed=0..1", "fit.steps=8",
                      "pruner.rounds=2", *options, **slurm)
    assert code == 0 and "as jobs of SLURM, at most 2 at once" in out and "grid: 2 done" in out, out
    found = results(tmp_path)
    assert len(found) == 2 and all(undisturbed[name] == found[name] for name in found)
    (script,) = (tmp_path / "slurm").glob("*.sbatch")
    for line in ("--array=0-1%2", "--time=1", "--signal=USR2@20", "--account=vision", "--requeue", "--job-name=lipfw"):
        assert f"#SBATCH {line}\n" in script.read_text()

    long = ["-m", "pruner=none", "fit.steps=3000", "fit.steps_per_batch=3000", "fit.kernel=dense", *options]
    code, out = lipfw(tmp_path, *long, "seed=7", "hydra.launcher.timeouts=0", **slurm, FAKE_SLURM_SHORT=BEGUN % 7)
    assert code == 1 and "timed-out too many times; give it more hydra.launcher.minutes or timeouts; see" in out, out
    code, out = lipfw(tmp_path, *long, "seed=8", **slurm, FAKE_SLURM_SHORT=BEGUN % 8)
    assert code == 0 and "grid: 1 done" in out, out
    starts = {p.name: len(p.read_text().splitlines()) for p in (tmp_path / "slurm").glob("*.starts")}
    assert starts == {"4000_0.starts": 1, "4000_1.starts": 1, "4001.starts": 1, "4002.starts": 2}


def test_without_slurm_it_says_so(tmp_path):
    pytest.importorskip("submitit")
    code, out = lipfw(tmp_path, "-m", "seed=0..1", "hydra/launcher=slurm", PATH="/nowhere")
    assert code == 1 and "lipfw: hydra/launcher=slurm finds no srun here" in out and "Traceback" not in out


def test_ray_gives_the_same_results_and_continues_what_has_died(tmp_path, undisturbed):
    """On a Ray that it starts here; a worker is killed on the way."""
    pytest.importorskip("ray")
    options = ["hydra/launcher=ray", "hydra.launcher.init={num_cpus: 2}"]
    process = start(tmp_path, *GRID, *options)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/default/*/result.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    subprocess.run(["pkill", "-KILL", "-n", "-f", "ray::work"], check=False)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "grid: 6 done" in out and "on Ray: 1 node with 2 CPUs" in out, out
    assert results(tmp_path) == undisturbed
    code, out = lipfw(tmp_path, *GRID, *options, "hydra.launcher.cpus=3", "seed=9")
    assert code == 1 and "a run asks for 3 CPU, but the Ray cluster has 2" in out, out


def test_a_ray_that_is_not_there_is_told_at_once(tmp_path):
    pytest.importorskip("ray")
    begun = time.monotonic()
    code, out = lipfw(tmp_path, "-m", "seed=0..1", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:1")
    assert code == 1 and "lipfw: Ray can't be reached or started" in out and time.monotonic() - begun < 60, out
    assert "refused" in out and "hydra.launcher.address=" in out and len(out.splitlines()) == 1, out


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_launcher_that_is_not_installed_is_named(tmp_path, name):
    """Where its package can't be imported."""
    module = {"ray": "ray", "slurm": "submitit"}[name]
    (tmp_path / f"{module}.py").write_text("raise ImportError('not here')\n")
    code, out = lipfw(tmp_path, "-m", "seed=0..1", f"hydra/launcher={name}", PYTHONPATH=str(tmp_path))
    assert code == 1 and f"pip install 'lipfw[{name}]'" in out and "Traceback" not in out, out
