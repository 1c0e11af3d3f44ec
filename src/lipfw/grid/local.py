"""`hydra/launcher=local`: a process for each run, as many at once as this machine has GPUs or cores."""
import multiprocessing
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait

from lipfw.cores import usable_cores, wait_briefly
from lipfw.errors import InputError, whole
from lipfw.grid.gpus import visible
from lipfw.grid.launcher import GridLauncher, Job
from lipfw.grid.work import Order, Outcome, work

_PATIENCE = 120     # seconds that runs have to keep their state when they are to stop
_END = 10           # seconds that a process has to end after its run
_PRELOADED = ["lipfw.run", "lipfw.restoring", "lipfw.training", "lipfw.grid.local"]


class Local(GridLauncher):
    """An engine of slots. A run's process may crash or be killed: only that run fails.

    On a machine with GPUs a slot is a share of one of them, `jobs_per_gpu` for each of `gpus` (their names as for
    CUDA_VISIBLE_DEVICES; null: all that are visible). Without one, or with trainer=cpu, there are `jobs` slots (null:
    as many as cores go by) of `threads` CPU threads each, and where the system can, processes are forked from one that
    has imported torch, so that a run starts at once.
    """

    def __init__(self, jobs: int | None, threads: int, gpus: Sequence[int | str] | None, jobs_per_gpu: int):
        self._jobs_asked = jobs if jobs is None else whole("hydra.launcher.jobs", jobs, least=1)
        self._threads = whole("hydra.launcher.threads", threads, least=1)
        self._per_gpu = whole("hydra.launcher.jobs_per_gpu", jobs_per_gpu, least=1)
        if gpus is not None and not (isinstance(gpus, Sequence) and not isinstance(gpus, str) and len(gpus)):
            raise InputError(f"hydra.launcher.gpus must be a list such as [0,1], or null for all, got {gpus!r}")
        self._gpus = gpus
        self._slots: list[dict[str, str]] = []      # what the environment of a run in it says; free ones
        self._stopping = False
        self._running: dict[Connection, tuple[Job, multiprocessing.Process, dict[str, str]]] = {}

    def begin(self, jobs: Sequence[Job]) -> str:
        on_gpus = any(job.cell.config.trainer.accelerator != "cpu" for job in jobs)
        gpus = (list(map(str, self._gpus)) if self._gpus is not None else visible()) if on_gpus else []
        if gpus:
            # slot by slot over the GPUs, so that each has a run before one has two
            self._slots = [{"CUDA_VISIBLE_DEVICES": gpu} for _ in range(self._per_gpu) for gpu in gpus]
            told = f"{self._per_gpu} at a time on each of {len(gpus)} GPU{'s' * (len(gpus) > 1)}"
        else:
            count = self._jobs_asked or max(1, len(usable_cores()) // self._threads)
            self._slots = [{"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(self._threads)} for _ in range(count)]
            told = f"{count} at a time with {self._threads} thread{'s' * (self._threads > 1)} each"
        self._slots = self._slots[:len(jobs)]
        wait_briefly()
        # a process that has used a GPU's driver can't be forked, and nobody can be sure that an import does not
        forks = not gpus and "forkserver" in multiprocessing.get_all_start_methods()
        self._processes = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self._processes.set_forkserver_preload(_PRELOADED)
        return told

    def room(self, at_work: int) -> bool:
        return bool(self._slots)

    def start(self, job: Job) -> None:
        slot = self._slots[0]
        mine, theirs = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=_child, args=(theirs, self.order(job, slot)))
        process.start()
        theirs.close()
        self._running[mine] = job, process, self._slots.pop(0)

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        out = []
        for connection in wait(list(self._running), seconds):
            job, process, slot = self._running.pop(connection)
            try:
                outcome = connection.recv()
            except (EOFError, OSError):
                process.join()
                on_request = self._stopping and process.exitcode == -signal.SIGTERM     # it had not begun to listen
                outcome = Outcome("stopped") if on_request else Outcome("failed", died(process.exitcode))
            connection.close()
            process.join(_END)      # its part is done: a thread that is left does not keep the slot
            process.kill()
            self._slots.append(slot)
            out.append((job, outcome))
        return out

    def stop(self) -> bool:
        self._stopping = True
        for _, process, _ in self._running.values():
            process.terminate()
        return True

    def finish(self) -> None:
        self.stop()
        deadline = time.monotonic() + _PATIENCE
        for _, process, _ in self._running.values():
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
        self._running.clear()


def died(code: int | None) -> str:
    """Return why a process ended without a word.

    >>> died(-9)
    'its process was killed by SIGKILL: the system does that when memory runs out; use fewer runs at once'
    """
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ": the system does that when memory runs out; use fewer runs at once" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {code} and without a result"


def _child(connection: Connection, order: Order) -> None:
    """Do one run and tell how it came out; Ctrl-C, which a terminal sends to all processes, is the grid's to heed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outcome = work(order)
    try:
        connection.send(outcome)
    except OSError:
        pass        # the grid is gone; the run's folder tells
