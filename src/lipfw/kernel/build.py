"""Compiling the CPU kernels into a shared library. No torch here: the build of the wheel uses it too."""
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
SOURCES = (HERE / "kernels.cpp", HERE / "kernels.inc")
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-ffp-contract=fast")


class Unavailable(Exception):
    """There is no library of kernels; says why in one line."""


class Failed(Unavailable):
    """A compiler is there, and what it made does not work or was not made: with other flags it may."""


class OpenMP(NamedTuple):
    """How a library gets its threads: flags of the compiler and of the linker."""

    compiler: tuple[str, ...]
    linker: tuple[str, ...]


# Two OpenMP runtimes in a process each keep a thread per core, so a library must use the one that torch brought. Linked
# to none by name, it takes the one that its loader has made visible, whatever torch's builds call theirs.
BORROWED = OpenMP(("-fopenmp",), ())
OWN = OpenMP(("-fopenmp",), ("-fopenmp",))
NONE = OpenMP((), ())


def file_name(openmp: OpenMP, *more: str) -> str:
    """Return the name of the library that these sources and flags make; `more` is what else it depends on."""
    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update(source.read_bytes() + b"\0")
    digest.update("\0".join([*FLAGS, *_extra_flags(), "|", *openmp.compiler, "|", *openmp.linker, *more]).encode())
    return f"_kernels-{digest.hexdigest()[:16]}.so"


def compile_library(path: Path, openmp: OpenMP, source: Path = SOURCES[0]) -> None:
    """Compile `source` to the shared library `path`, which is there whole or not at all; its folder must exist.

    The compiler is $CXX, else c++, g++ or clang++; $LIPFW_KERNEL_FLAGS adds flags. Raises Unavailable,
    and Failed if the compiler refuses.
    """
    compiler = _compiler()
    # each process writes in a folder of its own: two may do this at once
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        made, whole = Path(folder, "kernels.o"), Path(folder, path.name)
        _call([*compiler, *FLAGS, *openmp.compiler, *_extra_flags(), "-c", str(source), "-o", str(made)])
        _call([*compiler, "-shared", *openmp.linker, *_extra_flags(), str(made), "-o", str(whole)])
        whole.chmod(0o700)
        with open(whole, "rb") as f:
            os.fsync(f.fileno())    # a rename may reach the disk before the data does
        os.replace(whole, path)


def _extra_flags() -> list[str]:
    return shlex.split(os.environ.get("LIPFW_KERNEL_FLAGS", ""))


def _compiler() -> list[str]:
    if chosen := shlex.split(os.environ.get("CXX", "")):
        if shutil.which(chosen[0]) is None:
            raise Unavailable(f"the compiler CXX={chosen[0]} is not there")
        return chosen
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    raise Unavailable("no C++ compiler (c++, g++ or clang++) is on the PATH")


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                              env={**os.environ, "LC_ALL": "C"})
    except OSError as e:
        raise Unavailable(f"the compiler {command[0]} can't be run: {e.strerror}") from e
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        first = next((line for line in lines if re.search(r"\berror\b|\bundefined\b", line)), lines[0])
        raise Failed(f"the compiler {command[0]} failed: {first.strip()}")
