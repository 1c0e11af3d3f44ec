"""How many threads a run takes, so that runs side by side on one machine do not ask for more cores than there are.

A core is a file in a folder of the user's, and whoever holds its lock uses it. The locks are the kernel's: they end
with the process, however that ends.
"""
import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:     # Windows
    fcntl = None


def wait_briefly() -> None:
    """Have threads that wait for the others of their run sleep soon; to be called before torch is imported.

    GNU's OpenMP has them spin for milliseconds otherwise, which is quick on a quiet machine and takes the core from the
    very thread that is waited for on a busy one: two fits of 2 threads on 2 cores went 20 times slower. What the user
    has set about it stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


@contextlib.contextmanager
def claim(asked: int | None, fits: int = 1) -> Iterator[tuple[int, str]]:
    """Hold cores inside the block; gives the number of threads for each of the fits, and a line to tell the user or "".

    `asked` (trainer.threads) is used exactly as it stands, for each fit. If it is None, the fits share OMP_NUM_THREADS,
    which launchers set; without either, all cores that no other run holds; one thread each at least.
    """
    cores, launched = usable_cores(), _from_launcher() if asked is None else None
    total = asked * fits if asked is not None else launched
    with contextlib.ExitStack() as held:
        mine = _hold(cores, min(total or len(cores), len(cores)), held)
        threads = asked or max((launched or mine) // fits, 1)
        there = f"{len(cores)} core{'s' * (len(cores) > 1)}"
        if total is None and mine < len(cores):
            remark = (f"{mine} of {there}: another run is using the others" if mine else f"none of {there} is free: 1 "
                      "thread beside the other runs; trainer.threads= for each shares them out")
        elif threads * fits > len(cores):
            source = f"trainer.threads={asked}" if asked else f"OMP_NUM_THREADS={launched}" if launched else "1 thread"
            each = f" for each of {fits} fits" if fits > 1 else ""
            remedy = f"trainer.threads={len(cores)} or less" if fits == 1 else f"fit.batch_seeds={len(cores)} or less"
            remark = (f"{source}{each}, but there {'are' if len(cores) > 1 else 'is'} {there}: threads that wait for a "
                      f"core make a fit several times slower; use {remedy}")
        else:
            remark = ""
        yield threads, remark


def usable_cores() -> list[int]:
    """Return the numbers of the cores that this process may use: its affinity, one for the hardware threads of a core,
    and no more than its control group's share of time."""
    numbers = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = sorted({_first_sibling(n) for n in numbers})
    return cores[:int(min(len(cores), max(1, _share())))]


def _first_sibling(number: int) -> int:
    """Return the lowest number among the hardware threads of a core ("0,64" or "0-1"): torch uses one of them."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text()
        return int(text.replace("-", ",").split(",")[0])
    except (OSError, ValueError):
        return number


def _share(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return how many cores' time the control group gives, as a container sees it (version 2, or 1); infinity: any."""
    for quota, period in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = (root / quota).read_text().split() + ((root / period).read_text().split() if period else [])
            if int(words[0]) > 0:
                return int(words[0]) / int(words[1])
        except (OSError, ValueError, IndexError):
            pass
    return math.inf


def _from_launcher() -> int | None:
    """Return the number in OMP_NUM_THREADS (of "4,2" the 4), None if there is none."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def _hold(cores: list[int], most: int, held: contextlib.ExitStack) -> int:
    """Lock up to `most` of the cores that are free until `held` ends; returns how many. Without locks: all of them."""
    if fcntl is None:
        return most
    try:
        folder = _folder()
    except OSError:
        return most
    count = 0
    for core in cores:
        if count == most:
            break
        try:
            handle = os.open(folder / f"{core}", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return most         # a full disk
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        except OSError:
            os.close(handle)
            return most         # a file system without locks
        held.callback(os.close, handle)
        count += 1
    return count


def _folder() -> Path:
    """Return this user's folder of cores on this machine. Raises OSError if there can be none, or it is another's."""
    folder = Path(tempfile.gettempdir(), f"lipfw-cores-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    there = folder.lstat()
    if there.st_uid != os.geteuid() or there.st_mode & 0o022:
        raise PermissionError(folder)
    return folder
