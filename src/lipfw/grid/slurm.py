"""`hydra/launcher=slurm`: runs are jobs of a SLURM cluster, submitted as arrays by submitit."""
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lipfw.errors import InputError, whole
from lipfw.grid.launcher import GridLauncher, Job
from lipfw.grid.work import Order, Outcome, work
from lipfw.interrupt import asked

_ARRAY = 1000       # jobs of one array: what SLURM allows unless MaxArraySize says otherwise


class OnSlurm(GridLauncher):
    """An engine that submits runs to SLURM and waits for them.

    A job has `minutes`, `cpus`, `gpus` and `memory_gb` in a `partition`; at most `at_once` of them run. `warning`
    seconds before its time is over, or when it has to make way for others, SLURM tells it: it keeps its state and is
    requeued, up to `timeouts` times for want of time. `setup` are lines of shell before each job, `more` further
    options of sbatch by their names, e.g. {account: vision}. Jobs stay in the queue when this process ends.
    """

    def __init__(self, partition: str | None, minutes: int, cpus: int, gpus: int, memory_gb: float | None,
                 at_once: int | None, timeouts: int, warning: int, setup: Sequence[str], more: Mapping | None):
        self._parameters = {
            "partition": partition, "time": whole("hydra.launcher.minutes", minutes, least=1),
            "cpus_per_task": whole("hydra.launcher.cpus", cpus, least=1),
            "mem": f"{memory_gb:g}GB" if memory_gb is not None else None,
            "signal_delay_s": whole("hydra.launcher.warning", warning, least=1),
            "array_parallelism": _ARRAY if at_once is None else whole("hydra.launcher.at_once", at_once, least=1),
            "setup": list(setup) or None, "job_name": "lipfw"}
        self._gpus = whole("hydra.launcher.gpus", gpus, least=0)
        self._timeouts = whole("hydra.launcher.timeouts", timeouts, least=0)
        self._more = {"requeue": True, **(more or {})}
        self._waiting: list[Job] = []
        self._running: list[tuple[Job, object]] = []

    def begin(self, jobs: Sequence[Job]) -> str:
        try:
            from submitit.slurm.slurm import SlurmExecutor
        except ImportError:
            raise InputError("hydra/launcher=slurm needs submitit; install it by pip install 'lipfw[slurm]'") from None
        if SlurmExecutor.affinity() <= 0:
            raise InputError("hydra/launcher=slurm finds no srun here; start it on a machine that submits to SLURM, or "
                             "use hydra/launcher=local")
        folder = Path(str(self.config.hydra.sweep.dir), "logs", "slurm").absolute()
        self._executor = SlurmExecutor(folder=folder, max_num_timeout=self._timeouts)
        on_gpus = self._gpus and any(job.cell.config.trainer.accelerator != "cpu" for job in jobs)
        wanted = {**self._parameters, "gpus_per_node": self._gpus if on_gpus else None}
        self._executor.update_parameters(additional_parameters=self._more,
                                         **{k: v for k, v in wanted.items() if v is not None})
        at_once = min(self._parameters["array_parallelism"], len(jobs))
        return f"as jobs of SLURM, at most {at_once} at once"

    def room(self, at_work: int) -> bool:
        return True     # SLURM has a queue

    def start(self, job: Job) -> None:
        self._waiting.append(job)

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        while self._waiting:
            batch, self._waiting = self._waiting[:_ARRAY], self._waiting[_ARRAY:]
            threads = {"OMP_NUM_THREADS": str(self._parameters["cpus_per_task"])}
            calls = [_Call(self.order(job, threads)) for job in batch]
            with self._executor.batch():
                submitted = [self._executor.submit(call) for call in calls]
            self._running += zip(batch, submitted, strict=True)
            print(f"submitted to SLURM: {len(batch)} jobs, {submitted[0].job_id} first", flush=True)
        time.sleep(seconds)
        over = [(job, submitted) for job, submitted in self._running if submitted.done()]
        self._running = [pair for pair in self._running if pair not in over]
        return [(job, _outcome(submitted)) for job, submitted in over]

    def stop(self) -> bool:
        if asked() is None:     # too many have failed
            for _, submitted in self._running:
                submitted.cancel()
            return True
        if self._running:
            print(f"{len(self._running)} jobs stay in SLURM's queue; scancel stops them", flush=True)
        return False


class _Call:
    """What a SLURM job does: one run; told to make way, it keeps the run's state and lets submitit requeue the job."""

    def __init__(self, order: Order):
        self.order = order

    def __call__(self) -> Outcome:
        from submitit.core.job_environment import JobEnvironment

        requeues = JobEnvironment._usr_sig()
        self.order = replace(self.order, signals=(signal.SIGTERM, requeues))
        outcome = work(self.order)
        if outcome.kind == "stopped":
            number = signal.Signals[outcome.by]
            if number == requeues:
                signal.getsignal(number)(number, None)      # submitit's own: it requeues the job and exits
            sys.exit(128 + number)      # no result: SLURM itself says if the job is requeued or over
        return outcome

    def checkpoint(self):
        """Return what a requeued job does: the same command continues."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _outcome(submitted) -> Outcome:
    """Return how a job came out by what it has left, or by what SLURM says of it."""
    from submitit.core.utils import FailedJobError

    error = submitted.exception()
    if error is None:
        return submitted.result()
    if submitted.state.startswith("CANCELLED"):
        return Outcome("stopped")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, FailedJobError):       # it frames the job's traceback by rules, and adds where to read more
        lines = lines[:max((i for i, line in enumerate(lines) if not line.strip("-")), default=len(lines))]
    why = lines[-1].rstrip(".") if lines else type(error).__name__
    if "timed-out too many times" in why:
        why += "; give it more hydra.launcher.minutes or timeouts"
    return Outcome("failed", f"its SLURM job {submitted.job_id} ended without a result ({submitted.state}): {why}; see "
                             f"{submitted.paths.stderr}")
