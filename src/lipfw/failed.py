"""Why a run has failed, left in its folder for whoever looks at many of them."""
import contextlib
import socket
from datetime import UTC, datetime
from pathlib import Path

from lipfw.errors import InputError
from lipfw.files import write_json

NAME = "failed.json"


def leave(folder: Path, error: BaseException) -> None:
    """Write the reason, the time and the machine; a folder that is gone or can't be written to stays as it is."""
    with contextlib.suppress(OSError):
        write_json(Path(folder) / NAME, {"error": reason(error), "when": datetime.now(UTC).isoformat("T", "seconds"),
                                         "host": socket.gethostname()})


def clear(folder: Path) -> None:
    """Forget an earlier failure: the run starts again."""
    (Path(folder) / NAME).unlink(missing_ok=True)


def reason(error: BaseException) -> str:
    """Return an error in one line: a program's fault with its type, what a user can mend without.

    >>> reason(InputError("no luck")), reason(OSError(28, "Disk full", "a.png")), reason(KeyError("weight"))
    ('no luck', 'Disk full: a.png', "KeyError: 'weight'")
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, InputError) else f"{type(error).__name__}: {line}".removesuffix(": ")
