"""Keeping freed memory instead of handing it back to the system at every step (glibc on Linux)."""
import ctypes
import os
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for what it allocates next; False where that can't be set, or the user has.

    glibc maps each block above 32 MiB, an activation of 128 channels at 256 x 256 pixels, from the system afresh and
    returns it when freed, so that every step pays for its pages anew. After this no block is mapped and none returned:
    the process stays as large as it has once been. The user's own MALLOC_* variables, GLIBC_TUNABLES for malloc, or
    another allocator that is preloaded, win. A program decides this for itself: the command line does, `lipfw.restore`
    does not, for a library leaves its host's allocator alone.
    """
    theirs = any(name.startswith("MALLOC_") for name in os.environ)
    theirs = theirs or "malloc" in os.environ.get("GLIBC_TUNABLES", "") + os.environ.get("LD_PRELOAD", "")
    if theirs or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
