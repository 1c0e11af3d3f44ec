"""A request to this process to stop: who has asked, and how far the work had come.

Long work looks at `asked` between two steps, keeps what it has and raises Interrupted: nothing is torn off half-way.
"""
import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

ONE_REQUEST = 1.0       # seconds within which a signal that comes twice has been sent once: timeout(1) and batch
#                         systems send it to the process and to its group

_reason: str | None = None
_listeners = 0          # blocks of `listening` that the main thread is in


class Interrupted(Exception):
    """Work has stopped on request and can go on from there: `reason` names what asked, `where` how far it had come."""

    def __init__(self, reason: str, where: str):
        super().__init__(reason, where)     # both, so that it can go from one process to another
        self.reason, self.where = reason, where

    def __str__(self) -> str:
        return f"stopped by {self.reason} {self.where}"


def asked() -> str | None:
    """Return the name of what has asked this process to stop, such as SIGTERM; None if nothing has."""
    return _reason


def ask(reason: str) -> None:
    """Ask this process to stop; the first to ask is the reason that is told."""
    global _reason
    _reason = _reason or reason


def heed(where: str) -> None:
    """Raise Interrupted if this process is to stop; `where` tells how far the work has come, "after step 3"."""
    if _reason is not None:
        raise Interrupted(_reason, where)


@contextlib.contextmanager
def listening(signals: Sequence[int] = (signal.SIGTERM,)) -> Iterator[None]:
    """Take these signals as a request to stop inside the block; the same one again, later, does what it always does.

    Blocks may be nested; the outermost forgets the request at its end. Outside the main thread, where Python allows no
    handlers, nothing is done.
    """
    global _listeners, _reason
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    since: dict[int, float] = {}

    def handle(number: int, frame) -> None:
        now = time.monotonic()
        if now - since.setdefault(number, now) >= ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        ask(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in signals}
    _listeners += 1
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)     # None: not set by Python
        _listeners -= 1
        if not _listeners:
            _reason = None
