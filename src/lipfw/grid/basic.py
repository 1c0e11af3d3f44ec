"""`hydra/launcher=basic`: one run after another in this process, each telling its progress on the terminal."""
import signal

from hydra.core.utils import configure_log, run_job

from lipfw.grid.launcher import GridLauncher, Job
from lipfw.grid.work import Outcome, outcome


class Basic(GridLauncher):
    """An engine that does a job where it is started; what kills a run kills the grid, and the same command goes on."""

    signals = (signal.SIGTERM,)     # Ctrl-C is each run's own
    tells = False

    def __init__(self):
        self._last: list[tuple[Job, Outcome]] = []

    def start(self, job: Job) -> None:
        print(f"run {job.number}: {' '.join(job.cell.overrides)}", flush=True)
        ret = run_job(self.function, self.order(job, {}).config, "hydra.sweep.dir", "hydra.sweep.subdir", self.context)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)       # a job has its own
        self._last.append((job, outcome(ret)))

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        last, self._last = self._last, []
        return last

    def log(self, job: Job) -> str | None:
        return None
