"""Several fits side by side in one process: small pictures leave most of a GPU idle."""
import contextlib
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from rich.console import Console

from lipfw.errors import SeedsFailed
from lipfw.interrupt import Interrupted


@dataclass(frozen=True)
class Side:
    """What a fit needs to know that has others beside it: where it prints, how many there are, when to stop."""

    console: Console
    fits: int
    stop: threading.Event

    def check(self, step: int) -> None:
        """End the fit if all are to stop; its last checkpoint stays."""
        if self.stop.is_set():
            raise Stopped


class Stopped(Exception):
    """The user has stopped all fits."""


def side_by_side(jobs: Mapping[int, Callable[[Side], dict]], *, cuda: bool, quiet: bool = False) -> list[dict]:
    """Do one job a seed, each in a thread and, on a GPU, on a stream of its own; returns their results in order.

    Each line a job prints starts with its seed. A failed job stops no other. When all are done, raises SeedsFailed if
    one has failed, and Interrupted if all that are not done have stopped on request.
    """
    results, errors, stop, cores = {}, {}, threading.Event(), torch.get_num_threads()

    def work(seed: int, job: Callable[[Side], dict]) -> None:
        console = Console(file=_Lines(f"seed {seed}: "), quiet=quiet, force_terminal=False, width=100)
        torch.set_num_threads(cores)        # OpenMP counts for each thread
        stream = torch.cuda.stream(torch.cuda.Stream()) if cuda else contextlib.nullcontext()
        try:
            with stream:
                results[seed] = job(Side(console, len(jobs), stop))
        except BaseException as e:      # a thread's own end tells nobody
            errors[seed] = e

    threads = [threading.Thread(target=work, args=item, name=f"seed {item[0]}", daemon=True) for item in jobs.items()]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if cuda and not quiet:
        print(f"{len(jobs)} fits side by side: {torch.cuda.max_memory_reserved() / len(jobs) / 1e9:.2f} GB of GPU "
              "memory each", flush=True)
    if errors:
        errors = {seed: errors[seed] for seed in jobs if seed in errors}
        if all(isinstance(e, Interrupted) for e in errors.values()):
            reason = next(iter(errors.values())).reason
            raise Interrupted(reason, "with " + ", ".join(f"seed {s} {e.where}" for s, e in errors.items()))
        raise SeedsFailed(errors)
    return [results[seed] for seed in jobs]


class _Lines:
    """Standard output for one of several threads: whole lines, each with the thread's name before it."""

    def __init__(self, name: str):
        self._name, self._rest = name, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            sys.stdout.write("".join(f"{self._name}{line}".rstrip() + "\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()
