"""A fit in a process of its own: for memory, for allocators that differ, and for many fits on one machine.

The process reads commands, a line of JSON each, and answers each with a line. Between commands it sleeps.
"""
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.contenders import LIPFW, Spec, Unavailable, runner
from lipfw.malloc import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]


class Worker:
    """The other end: starts the process, sets the fit up in it, and asks. Raises Unavailable if it can't run here."""

    def __init__(self, spec: Spec, threads: int):
        command = [sys.executable, "-m", "benchmarks.worker"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if spec.name in LIPFW:
            environment.setdefault("GOMP_SPINCOUNT", "1000")    # as the command line does
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        try:
            self.says = self.ask("setup", spec=asdict(spec), threads=threads)
        except Unavailable:
            self.close()
            raise

    def send(self, what: str, **arguments) -> None:
        """Give a command."""
        self.process.stdin.write(json.dumps({"what": what, **arguments}) + "\n")
        self.process.stdin.flush()

    def receive(self):
        """Wait for the answer to the last command."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self.process.wait()}; its error stands above")
        answer = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer["answer"]

    def ask(self, what: str, **arguments):
        """Give a command and wait for its answer."""
        self.send(what, **arguments)
        return self.receive()

    def seconds(self, steps: int) -> float:
        """Return how long the steps take."""
        return self.ask("steps", count=steps)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error) -> None:
        self.close()


class Here:
    """This end: what the commands do."""

    def setup(self, spec: dict, threads: int) -> str:
        """Set a fit up and do two steps; returns what it says of itself."""
        torch.set_num_threads(threads)
        self.spec = Spec(**spec)
        if self.spec.name in LIPFW and self.spec.device == "cpu":
            keep_freed_memory()     # as the command line does
        forget_peak()           # of the imports
        before = peak_memory(self.spec.device)
        self.run, says = runner(self.spec)
        self.run(2)
        self.grown = peak_memory(self.spec.device) - before
        return says

    def steps(self, count: int) -> float:
        """Return how long so many steps take."""
        return self.run(count)

    def window(self, start: float, end: float) -> float:
        """Step until `end`, a time; returns the steps a second that lie wholly within [start, end]."""
        done = []
        while not done or done[-1] < end:
            self.run(1)
            done.append(time.time())
        inside = [t for t in done if start <= t <= end]
        return (len(inside) - 1) / (inside[-1] - inside[0]) if len(inside) > 1 else 0.0

    def peak(self) -> float:
        """Return by how many bytes the peak memory of this process has grown since before the fit was set up."""
        return self.grown


def forget_peak() -> None:
    """Let this process's peak memory be what it has now; nothing where that can't be done, outside Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> float:
    """Return the peak memory in bytes: of the GPU's, or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Answer commands until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr      # nothing but answers goes there
    here = Here()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"answer": getattr(here, command.pop("what"))(**command)}
        except Unavailable as e:
            answer = {"unavailable": str(e)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
