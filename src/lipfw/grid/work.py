"""What a worker does, whoever has started it: one cell of a grid, as Hydra does a job, and how it came out."""
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from hydra.version import setbase
from omegaconf import DictConfig

from lipfw import argv, failed
from lipfw.cores import wait_briefly
from lipfw.errors import SeedsFailed
from lipfw.interrupt import Interrupted, listening
from lipfw.lock import Busy
from lipfw.mistakes import explain
from lipfw.redact import Told


@dataclass(frozen=True)
class Order:
    """All that a worker needs, also in another process or on another machine of the same file system.

    `config` is a cell's whole config, `function` does it, `typed` are the arguments of the command, `folder` the one to
    work in, `environment` is set first, output goes to `log` if there is one, and `signals` ask the run to stop.
    """

    config: DictConfig
    function: Callable[[DictConfig], object]
    typed: Sequence[str]
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    log: str | None = None
    signals: Sequence[int] = (signal.SIGTERM,)


@dataclass(frozen=True)
class Outcome:
    """How a run came out: done, finished already, failed with the first line of its `error`, stopped `by` a signal, or
    busy elsewhere. It took `seconds`, where that is known.
    """

    kind: Literal["done", "already", "failed", "stopped", "busy"]
    error: str | None = None
    by: str | None = None
    seconds: float | None = None


def outcome(ret: JobReturn) -> Outcome:
    """Return how a job of Hydra's came out."""
    if ret.status == JobStatus.COMPLETED:
        return Outcome("done" if ret._return_value is not None else "already")
    error = ret._return_value
    if isinstance(error, Interrupted):
        return Outcome("stopped", str(error), error.reason)
    each = error.errors.values() if isinstance(error, SeedsFailed) else [error]
    if all(isinstance(e, Busy) for e in each):
        return Outcome("busy", str(error))
    if explain(error, argv.typed) is None:      # the program's fault: with its traceback, where the run's output goes
        traceback.print_exception(error)
    return Outcome("failed", failed.reason(error))


def work(order: Order) -> Outcome:
    """Do one cell in this process and return how it came out; a user's mistake or a fault of the program is an outcome.
    """
    os.environ.update(order.environment)
    if order.log is not None:
        _log_to(Path(order.folder, order.log))
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), Told):
            setattr(sys, name, Told(stream))
    os.chdir(order.folder)
    argv.typed[:] = order.typed
    wait_briefly()
    setbase("1.3")      # as the command line has it: jobs stay in the folder that they are started in
    setup_globals()
    HydraConfig.instance().set_config(order.config)
    context = HydraContext(config_loader=None, callbacks=Callbacks(order.config))      # a job does not compose
    started = time.monotonic()
    with listening(order.signals):
        ret = run_job(order.function, order.config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    return replace(outcome(ret), seconds=time.monotonic() - started)


def _log_to(path: Path) -> None:
    """Send all output of this process, that of compiled code too, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as f:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number in (1, 2):
            os.dup2(f.fileno(), number)
