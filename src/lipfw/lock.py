"""A folder is one process's at a time, on one machine or on a file system that several machines share."""
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from lipfw.errors import InputError

try:
    import fcntl
except ImportError:     # Windows
    fcntl = None

LEASE = 60.0    # seconds without a sign of life after which a process on another machine counts as gone
_NAME = ".lock"


class Busy(InputError):
    """Another process is at work in a folder."""

    def __init__(self, folder: Path):
        super().__init__(f"another process is at work in {folder}; wait for it, or stop it")


class Claim:
    """A claim on a folder, which must exist: a lock of the kernel's on it, and a lease in its file .lock.

    The kernel's lock ends with the process, however that ends, but on some shared file systems it is seen on one
    machine only, or not had at all. The lease names its process and machine and is renewed three times in LEASE
    seconds: a dead process's on this machine is taken over at once, another machine's once it has not been renewed for
    LEASE.
    """

    def __init__(self, folder: Path, lease: float = LEASE):
        self.folder, self._lease_seconds = Path(folder), lease
        self._handle: int | None = None
        self._lease = SoftFileLease(self.folder / _NAME, lease_duration=lease, thread_local=False,
                                    on_compromise=self._compromised)
        self.lost: str | None = None

    def take(self) -> bool:
        """Return whether the folder is this process's now; to be asked again for one of another machine's."""
        if self._handle is None and not self._lock():
            return False
        try:
            self._lease.acquire(timeout=0.2, poll_interval=0.05)    # to break a dead process's takes two tries
        except Timeout:
            return False        # the kernel's lock is kept meanwhile: nobody on this machine overtakes
        return True

    def wait(self) -> bool:
        """Return whether the folder is this process's, once it is known whether a holder on another machine lives."""
        if self.take():
            return True
        if self._handle is None:
            return False
        seen, started = self._renewed(), time.monotonic()
        while time.monotonic() - started < 1.5 * self._lease_seconds:
            if self.take():
                return True
            if (now := self._renewed()) != seen and now is not None:
                break           # alive
            time.sleep(min(0.5, self._lease_seconds / 10))
        return False

    def release(self) -> None:
        """Give the folder back."""
        with contextlib.suppress(OSError):      # it may be gone
            self._lease.release(force=True)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def check(self, step: int = 0) -> None:
        """Raise InputError if another process has taken the folder over, since this one gave no sign of life."""
        if self.lost is not None:
            raise InputError(f"{self.folder} is no longer this process's ({self.lost}): it gave no sign of life for "
                             f"{self._lease_seconds:g} s, or its folder went away; the same command continues")

    def _lock(self) -> bool:
        if fcntl is None:
            return True
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError:
            pass        # a file system without locks; the lease must do
        self._handle = handle
        return True

    def _renewed(self) -> int | None:
        try:
            return (self.folder / _NAME).stat().st_mtime_ns
        except OSError:
            return None

    def _compromised(self, how) -> None:
        self.lost = str(how.reason)


@contextlib.contextmanager
def alone(folder: Path, lease: float = LEASE) -> Iterator[Claim]:
    """Hold a folder for this process inside the block; raises Busy if another one holds it.

    That may take 1.5 times `lease` to find out if a process on another machine has died in it.
    """
    claim = Claim(folder, lease)
    try:
        if not claim.wait():
            raise Busy(folder)
        yield claim
    finally:
        claim.release()


def holder(folder: Path) -> str | None:
    """Return who is at work in a folder, "HOST, process PID", or None; nothing is locked or waited for.

    It may be wrong about another machine whose clock differs from this one's by more than LEASE.
    """
    try:
        fields = dict(line.split("=", 1) for line in (Path(folder) / _NAME).read_text().splitlines() if "=" in line)
        host, pid = fields["host"], int(fields["pid"])
        renewed = (Path(folder) / _NAME).stat().st_mtime
    except (OSError, ValueError, KeyError):
        return None
    if host == socket.gethostname():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass        # another user's
    elif time.time() - renewed > 2 * LEASE:
        return None
    return f"{host}, process {pid}"
