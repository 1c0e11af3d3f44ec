"""What all launchers do alike: skip what is done, start what is not, count what fails, and tell it at the end."""
import os
import signal
import sys
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from lipfw import argv, failed
from lipfw.errors import InputError, whole
from lipfw.grid.cells import Cell, Composer
from lipfw.grid.journal import Journal
from lipfw.grid.state import finished
from lipfw.grid.tally import Tally
from lipfw.grid.work import Order, Outcome
from lipfw.interrupt import asked, listening
from lipfw.lock import Claim
from lipfw.redact import text

_LOOK = 0.5         # seconds between two looks at what has ended
_ELSEWHERE = 3.0    # seconds between two looks at runs that another process is at


class NotAllDone(InputError):
    """A grid has ended, and some of its runs have no result; that has been told."""


@dataclass
class Job:
    """A cell on its way: its number in the grid, the order for its worker, and a claim while another process has it."""

    number: int
    cell: Cell
    started: float = 0.0
    claims: list[Claim] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return all(map(finished, self.cell.folders))

    def let_go(self) -> None:
        """Give up the claims."""
        for claim in self.claims:
            claim.release()
        self.claims = []


class GridLauncher(Launcher):
    """Runs the cells of a grid. A subclass is an engine: it starts jobs, and says which have ended and how.

    Finished runs are left out before anything is composed or started. A run that another process is at is not started
    but watched, and taken over if that process dies: two starts of the same grid share its work. A failed run stops no
    other; `max_failures` of them end the grid. A request to stop is passed on to the runs, which keep their state.
    """

    signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT)
    passes: Sequence[int] = (signal.SIGTERM,)       # what asks a run to stop
    tells = True        # runs have no terminal of their own, so that each one's end is told

    # --- an engine's part

    def begin(self, jobs: Sequence[Job]) -> str:
        """Prepare for jobs; returns how they will be run, in a few words. Raises InputError if that is impossible."""
        return "one after another"

    def room(self, at_work: int) -> bool:
        """Return whether one more job may be started beside those at work."""
        return at_work == 0

    @abstractmethod
    def start(self, job: Job) -> None:
        """Start a job, or do it."""

    @abstractmethod
    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """Return the jobs that have ended since the last call, after waiting up to some seconds for one."""

    def stop(self) -> bool:
        """Ask all jobs at work to keep their state and end; returns whether they will, and are to be waited for."""
        return True

    def finish(self) -> None:
        """Free what `begin` has taken."""

    # --- Hydra's interface

    def setup(self, *, hydra_context, task_function, config) -> None:
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all cells; returns a JobReturn for each, with the error of those that have no result."""
        if not job_overrides:
            raise InputError("this grid has no run: something that is swept has no values")
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        most = self.config.get("max_failures")
        most = whole("max_failures", most, least=1) if most is not None else sys.maxsize
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        tally = Tally(len(job_overrides), self.tells)
        jobs = self._jobs(folder, job_overrides, initial_job_idx, tally)
        with listening(self.signals):
            try:
                if jobs:
                    tally.begin(self.begin(list(jobs.values())), len(jobs))
                    self._run(deque(jobs.values()), tally, most)
            finally:
                self.finish()
            tally.end(asked())
            if (reason := asked()) is not None and not all(job.finished for job in jobs.values()):
                sys.exit(128 + signal.Signals[reason])
        return [self._returned(overrides, tally.errors.get(initial_job_idx + i), jobs.get(initial_job_idx + i))
                for i, overrides in enumerate(job_overrides)]

    # --- the grid

    def _jobs(self, folder: Path, grid: Sequence[Sequence[str]], first: int, tally: Tally) -> dict[int, Job]:
        """Return the jobs that are not done yet, one for all cells of the same run, by their number."""
        composer = Composer(self.context.config_loader, self.config)
        journal = Journal(folder, self.config)
        jobs, composed, seen = {}, [], set()
        for number, overrides in enumerate(grid, first):
            folders = journal.find(overrides)
            if folders is not None and all(map(finished, folders)):
                tally.same += folders in seen
                tally.skipped += folders not in seen
                seen.add(folders)
                continue
            try:
                cell = composer(overrides)
            except Exception as e:
                e.add_note(" ".join(overrides))
                raise
            if folders is None:
                composed.append(cell)
            if cell.folders in seen:
                tally.same += 1
            elif all(map(finished, cell.folders)):
                tally.skipped += 1
            else:
                jobs[number] = Job(number, cell)
            seen.add(cell.folders)
        journal.add(composed)
        return jobs

    def _run(self, todo: deque[Job], tally: Tally, most: int) -> None:
        """Run jobs until all have ended, a request to stop has been passed on, or too many have failed."""
        at_work, elsewhere, stopped, looked = 0, [], False, 0.0
        while todo or at_work or elsewhere:
            if not stopped and (asked() or len(tally.errors) >= most):
                stopped = True
                for job in elsewhere:
                    job.let_go()
                todo.clear()
                elsewhere.clear()
                if not self.stop():
                    return
            while todo and self.room(at_work) and not asked() and len(tally.errors) < most:
                job = todo.popleft()
                job.started = time.monotonic()
                try:
                    if job.finished:
                        tally.skipped += 1
                    elif not self._free(job):
                        elsewhere.append(job)
                    else:
                        self.start(job)
                        at_work += 1
                except (OSError, EOFError) as e:    # no further process, say
                    self._end(job, Outcome("failed", failed.reason(e)), tally)
            waiting = bool(elsewhere) and not at_work
            if at_work or waiting:
                for job, outcome in self.ended(_LOOK) if at_work else []:
                    at_work -= 1
                    if outcome.kind == "busy" and not stopped:
                        elsewhere.append(job)
                    else:
                        self._end(job, outcome, tally)
                if waiting:
                    tally.elsewhere(len(elsewhere))
                    time.sleep(_LOOK)
            if elsewhere and time.monotonic() - looked > _ELSEWHERE:
                looked = time.monotonic()
                for job in list(elsewhere):
                    if job.finished or self._free(job):
                        job.let_go()
                        elsewhere.remove(job)
                        todo.append(job)

    def _free(self, job: Job) -> bool:
        """Return whether no other process is at a job's runs; of one on another machine, that takes a while to know."""
        try:
            if not job.claims:
                job.claims = [Claim(folder) for folder in job.cell.folders if folder.is_dir()]
            taken = [claim for claim in job.claims if claim.take()]
        except OSError:     # the worker will say what is wrong with the folder
            job.let_go()
            return True
        for claim in taken:     # the worker makes its own; if another comes between, it says so. Kept while others are
            claim.release()     # waited for, two grids could wait for each other
        return len(taken) == len(job.claims)

    def _end(self, job: Job, outcome: Outcome, tally: Tally) -> None:
        """Count a job that has ended, by what its folders say: a process can die after its result is written."""
        seconds = outcome.seconds or time.monotonic() - job.started
        if job.finished and outcome.kind == "already":      # by another process, just before this one's worker began
            tally.skipped += 1
        elif job.finished:
            tally.end_done(job.cell, seconds)
        elif outcome.kind in ("failed", "done", "already"):
            error = outcome.error or "it ended without a result"
            for folder in job.cell.folders:     # a process that was killed has left nothing itself
                if folder.is_dir() and not finished(folder) and failed.read(folder) is None:
                    failed.leave(folder, InputError(error))
            tally.end_failed(job.number, job.cell, error, self.log(job))
        else:
            tally.end_stopped(job.cell)

    def order(self, job: Job, environment: dict[str, str]) -> Order:
        """Return what a worker needs for a job."""
        config = job.cell.whole()
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = job.number
        typed = [text(word) for word in argv.typed]     # SLURM keeps the order in a file
        return Order(config, self.function, typed, os.getcwd(), environment, self.log(job), self.passes)

    def log(self, job: Job) -> str | None:
        """Return the file that a run's output goes to, None for the terminal."""
        return str(Path(str(self.config.hydra.sweep.dir), "logs", f"{job.cell.folders[0].name}.log"))

    def _returned(self, overrides: Sequence[str], error: str | None, job: Job | None) -> JobReturn:
        ret = JobReturn(overrides=list(overrides), cfg=job.cell.config if job else None, working_dir=os.getcwd(),
                        status=JobStatus.COMPLETED)
        if error is not None or (job is not None and not job.finished):
            ret.status, ret.return_value = JobStatus.FAILED, NotAllDone(error or "it was not run")
        return ret

