"""Why a run has failed, left in its folder for whoever looks at many of them."""
import contextlib
import json
import socket
from datetime import UTC, datetime
from pathlib import Path

from lipfw.files import write_json
from lipfw.mistakes import explain

NAME = "failed.json"


def leave(folder: Path, error: BaseException) -> None:
    """Write the reason, the time and the machine; a folder that is gone or can't be written to stays as it is."""
    with contextlib.suppress(OSError):
        write_json(Path(folder) / NAME, {"error": reason(error), "when": datetime.now(UTC).isoformat("T", "seconds"),
                                         "host": socket.gethostname()})


def read(folder: Path) -> str | None:
    """Return the reason that a run has left, None if it has not failed."""
    try:
        return str(json.loads((Path(folder) / NAME).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def clear(folder: Path) -> None:
    """Forget an earlier failure: the run starts again."""
    (Path(folder) / NAME).unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """Return an error in one line: a program's fault with its type, what a user can mend as the user is told it.

    >>> reason(KeyError("weight"))
    "KeyError: 'weight'"
    """
    if explain(error) is None and type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__     # Hydra's tells where, and not what
    line = next(iter((explain(error) or f"{type(error).__name__}: {error}").splitlines()), "")
    return line.removesuffix(": ")
