"""Where a run stands, as its folder tells. No torch here."""
from enum import StrEnum
from pathlib import Path

from lipfw import failed
from lipfw.lock import holder


class State(StrEnum):
    """What has become of a run."""

    DONE = "done"           # there is a result
    RUNNING = "running"     # a process is at work
    FAILED = "failed"       # it ended by an error; the same command tries again
    STOPPED = "stopped"     # it was begun and nobody is at work; the same command continues
    WAITING = "waiting"     # it has not begun


def state(folder: Path) -> State:
    """Return where the run of a folder stands."""
    folder = Path(folder)
    if finished(folder):
        return State.DONE
    if holder(folder) is not None:
        return State.RUNNING
    if failed.read(folder) is not None:
        return State.FAILED
    return State.STOPPED if (folder / "config.yaml").exists() else State.WAITING


def finished(folder: Path) -> bool:
    """Return whether a run has its result, which is written last."""
    return (Path(folder) / "result.json").exists()
