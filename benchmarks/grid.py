"""A grid of 40 runs of a second by each launcher, against one process; and starting 1,000 runs that are all done."""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import ratio
from benchmarks.worker import ROOT
from lipfw.configs import CONF, EXPERIMENTS
from lipfw.grid.cells import opened

STEPS = 350     # about a second of this tiny fit
RUN = ["logger=none", "trainer=smoke", "trainer.threads=1", "image.size=16", "prior.channels=4", "prior.depth=2",
       "fit.kernel=dense", "fit.log_every=50"]


def measure(setting: Setting) -> Iterator[Row]:
    """Each launcher does the grid once, one run at a time and on all cores."""
    runs, steps = (2, 2) if setting.quick else (40, STEPS)
    grid = ["-m", f"seed=0..{runs - 1}", f"fit.steps={steps}", *RUN]
    with tempfile.TemporaryDirectory() as scratch:
        alone = _seconds(scratch, "basic", grid)
        counts = (1,) if setting.quick else sorted({1, setting.cores})
        for what, words, environment in _launchers(Path(scratch), counts, quick=setting.quick):
            seconds = _seconds(scratch, what, [*grid, *words], environment)
            yield Row(what, "one process", ratio([alone], [seconds]),
                      {"s": seconds, "s against": alone})
        for name, package in (("ray", "ray"), ("slurm", "submitit")):
            if importlib.util.find_spec(package) is None:
                yield Row(f"{name}", "one process", note=f"{package} is not installed")
        yield _finished(Path(scratch), 20 if setting.quick else 1000)


def _launchers(scratch: Path, counts: Sequence[int], quick: bool) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Give each way to do the grid that can be tried here: a name, options, and what the environment is to have."""
    for count in counts:
        yield f"local, {count} at a time", ["hydra/launcher=local", f"hydra.launcher.jobs={count}"], {}
        if quick:       # the others start slowly
            continue
        if importlib.util.find_spec("ray"):
            yield f"Ray, {count} at a time", ["hydra/launcher=ray", f"hydra.launcher.init={{num_cpus: {count}}}"], {}
        stand_in = ROOT / "tests/standins/slurm.py"
        if importlib.util.find_spec("submitit") and stand_in.is_file():
            commands, state = scratch / f"commands{count}", scratch / f"slurm{count}"
            commands.mkdir()
            state.mkdir()
            for name in ("sbatch", "srun", "sacct", "scontrol", "scancel"):
                (commands / name).symlink_to(stand_in)
            yield (f"SLURM (a stand-in for it), {count} at a time",
                   ["hydra/launcher=slurm", f"hydra.launcher.at_once={count}", "hydra.launcher.cpus=1"],
                   {"PATH": f"{commands}:{os.environ['PATH']}", "FAKE_SLURM": str(state)})


def _seconds(folder: Path | str, name: str, words: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Return the time of a command, start-up and all. Raises RuntimeError if it fails."""
    out = Path(folder, re.sub(r"\W+", "_", name))
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lipfw", *words, f"out={out}"], cwd=folder, capture_output=True,
                          text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"lipfw {' '.join(words)} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return seconds


def _finished(scratch: Path, runs: int) -> Row:
    """Time the second and third start of a grid whose runs all have results."""
    grid = ["-m", f"seed=0..{runs - 1}", *RUN]
    with opened([*grid, f"out={scratch / 'finished'}"], CONF, EXPERIMENTS) as (cells, compose):
        for cell in cells:
            for folder in compose(cell).folders:
                folder.mkdir(parents=True)
                (folder / "result.json").write_text("{}")
    first, *again = [_seconds(scratch, "finished", grid) for _ in range(3)]
    shutil.rmtree(scratch / "finished")
    return Row(f"start of {runs:,} finished runs", numbers={"s": min(again), "s without a journal": first})
