"""Running `python -m lipfw` as a user does, in a process of its own."""
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.worker import ROOT

TINY = ["image.size=32", "prior.channels=8", "prior.depth=3", "fit.steps=2", "fit.window=2"]


def lipfw(out: Path, name: str, *words: str, threads: int) -> Path:
    """Do one run quietly and return its folder, where a finished one already lies. Raises RuntimeError if it fails."""
    words = ["logger=none", "trainer.progress=false", f"out={out.resolve()}", f"name={name}",
             f"trainer.threads={threads}", *words]
    done = subprocess.run([sys.executable, "-m", "lipfw", *words], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    if done.returncode:
        raise RuntimeError(f"lipfw {' '.join(words)} failed:\n{done.stderr[-2000:]}")
    (folder,) = [p.parent for p in (out / name).glob("*/result.json")]
    return folder


def result(folder: Path) -> dict:
    """Return a run's result.json."""
    return json.loads((folder / "result.json").read_text())
