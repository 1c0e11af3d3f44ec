"""The shared library of CPU kernels: the one that came with the package, one in the user's cache, or built now."""
import ctypes
import os
import platform
import stat
import sys
from pathlib import Path

import torch

from lipfw.kernel.build import BORROWED, HERE, NONE, OWN, Failed, OpenMP, Unavailable, compile_library, file_name

compiled_now = False    # whether this process had to compile it, which takes seconds


def load() -> ctypes.CDLL:
    """Return the library. Raises Unavailable with the reason, in one line, why there is none.

    The one in the wheel is taken if it was made from these sources, else the one in `$XDG_CACHE_HOME/lipfw/kernels` or
    `~/.cache/lipfw/kernels`, which is compiled at first use. It runs on torch's OpenMP threads; on one thread where it
    can't be built with OpenMP.
    """
    if sys.platform == "win32":
        raise Unavailable("the kernels are not built on Windows")
    borrow = _lend_openmp_of_torch()
    shipped = HERE / file_name(BORROWED)
    if borrow and shipped.is_file():
        try:
            return ctypes.CDLL(str(shipped))
        except OSError:
            pass        # made for another system than this one
    try:
        return _cached(BORROWED if borrow else OWN)
    except Failed as e:
        try:
            return _cached(NONE)        # a compiler without OpenMP, or with another kind than torch's
        except Unavailable:
            raise e from None


def _cached(openmp: OpenMP) -> ctypes.CDLL:
    """Return the library from the user's cache, compiled if it is not there or does not load."""
    global compiled_now
    path = _cache() / file_name(openmp, sys.platform, platform.machine(), *platform.libc_ver())
    if path.exists():
        _check_mine(path)
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            pass            # torn by a power cut, or an older system: built anew
    try:
        compile_library(path, openmp)
    except OSError as e:
        raise Unavailable(f"the cache folder {path.parent} can't be written: {e.strerror}") from e
    compiled_now = True
    try:
        return ctypes.CDLL(str(path))
    except OSError as e:
        raise Failed(f"the compiled library can't be loaded: {e}") from e


def _cache() -> Path:
    """Return the folder for compiled libraries, made if need be. Raises Unavailable."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:        # a relative path counts as none, says the standard of that variable
        folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "lipfw" / "kernels"
    except RuntimeError as e:
        raise Unavailable("there is no home folder for the cache; set XDG_CACHE_HOME") from e
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_mine(folder)
        for above in folder.resolve().parents:      # who may rename there may put another folder in its place
            if above.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
                raise Unavailable(f"{above} can be written by everybody; chmod o-w, or set XDG_CACHE_HOME")
    except OSError as e:
        raise Unavailable(f"the cache folder {folder} can't be made: {e.strerror}") from e
    return folder


def _check_mine(path: Path) -> None:
    """Raise Unavailable if another user owns a path or may write there: what lies there is executed."""
    there = path.stat()
    if there.st_uid != os.geteuid():
        raise Unavailable(f"{path} belongs to another user")
    if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Unavailable(f"{path} can be written by other users; chmod go-w, or delete it")


def _lend_openmp_of_torch() -> bool:
    """Let libraries that name no OpenMP runtime find the one that torch's operators run on; False if there is none."""
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))   # loaded already
        address = ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p).value
        mapped = Path("/proc/self/maps").read_text()
        for line in mapped.splitlines():    # 7f5d71600000-7f5d71608000 r-xp 00000000 fe:00 1234    /path/libgomp.so.1
            span, *_, path = line.split(maxsplit=5)
            start, end = (int(a, 16) for a in span.split("-"))
            if start <= address < end:
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
                return True
    except (OSError, AttributeError):
        pass
    return False
