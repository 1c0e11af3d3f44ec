"""The library of kernels: built once, found again, refused where it must be, on torch's own threads."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lipfw.kernel import build, library
from lipfw.kernel.library import Unavailable

LOAD = "from lipfw.kernel import library\nassert library.load().lipfw_tile() > 0\nprint(library.compiled_now)\n"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are tried on Linux")
needs_compiler = pytest.mark.skipif(not any(map(build.shutil.which, ("c++", "g++", "clang++"))), reason="no compiler")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache; flags of our own keep a library that came with the package out, and the builds short."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LIPFW_KERNEL_FLAGS", "-O0")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(library, "compiled_now", False)
    return tmp_path / "lipfw" / "kernels"


def load():
    """Load as a fresh process would; gives whether it had to compile."""
    library.compiled_now = False
    assert library.load().lipfw_tile() > 0
    return library.compiled_now


@needs_compiler
def test_it_is_built_once(cache, monkeypatch):
    assert load() and not load()
    (built,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700 and not built.stat().st_mode & 0o022
    monkeypatch.setenv("LIPFW_KERNEL_FLAGS", "-O0 -DOTHER")
    assert load() and len(list(cache.iterdir())) == 2


@needs_compiler
def test_a_torn_file_is_built_anew(cache, monkeypatch):
    monkeypatch.setenv("LIPFW_KERNEL_FLAGS", "-O0 -DTORN")
    compile_library = library.compile_library
    monkeypatch.setattr(library, "compile_library", lambda path, openmp: path.touch(mode=0o700))
    with pytest.raises(Unavailable, match="file too short"):
        load()
    assert {p.stat().st_size for p in cache.iterdir()} == {0}
    monkeypatch.setattr(library, "compile_library", compile_library)
    assert load()


@needs_compiler
def test_two_processes_at_once_and_one_that_is_killed(cache, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 4\n")
    slow.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-c", LOAD], env={**os.environ, "CXX": str(slow)})
    while not list(cache.glob(".part-*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(cache.iterdir())) == 1      # what it left under a name of its own
    both = [subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE) for _ in range(2)]
    assert b"True\n" in [process.communicate()[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert len(list(cache.glob("_kernels-*.so"))) == 1 and len(list(cache.iterdir())) == 2
    assert not load()


def test_no_compiler(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler .* is on the PATH"):
        load()
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    with pytest.raises(Unavailable, match="CXX=no-such-compiler is not there"):
        load()


@pytest.mark.parametrize("script, told", [
    ("echo 'In file included' >&2; echo 'k.cpp:3: error: no thing' >&2; exit 1", "failed: k.cpp:3: error: no thing$"),
    ("exit 7", "failed: it ended with 7"),
    ("for last; do :; done; echo nonsense > $last", "can't be loaded: .*(invalid ELF header|file too short)")])
def test_a_broken_compiler(cache, monkeypatch, tmp_path, script, told):
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(Unavailable, match=told) as e:
        load()
    assert "\n" not in str(e.value)


@needs_compiler
def test_a_compiler_without_openmp_gives_one_thread(cache, monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) echo "error: unsupported -fopenmp" >&2; exit 1;; esac\n'
                        'exec c++ "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert load() and not load()


def test_a_cache_that_cannot_be_written(cache, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="cache folder .* can't be made: Not a directory"):
        load()


@needs_compiler
def test_what_others_may_have_written_is_not_executed(cache, monkeypatch):
    assert load()
    (built,) = cache.iterdir()
    for path, good in ((built, 0o700), (cache, 0o700)):
        for bad in (0o720, 0o702):
            path.chmod(bad)
            with pytest.raises(Unavailable, match=f"{path} can be written by other users"):
                load()
        path.chmod(good)
    assert not load()
    cache.parent.chmod(0o777)
    with pytest.raises(Unavailable, match=f"{cache.parent} can be written by everybody"):
        load()
    cache.parent.chmod(0o1777)      # there only the owner renames, as in /tmp
    assert not load()
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(Unavailable, match=f"{cache} belongs to another user"):
        load()


# --- OpenMP

CROWD = """
#include <omp.h>
extern "C" int crowd(void) {
    int most = 0;
    #pragma omp parallel num_threads(2) reduction(max : most)
    most = omp_get_thread_num() + 1;
    return most;
}
"""
RUNTIMES = "print(*{m.split()[-1] for m in open('/proc/self/maps') if '/libgomp' in m or '/libgamp' in m})\n"


@pytest.fixture
def crowd(tmp_path) -> Path:
    """A library that says how many threads it had, built as the kernels are."""
    (tmp_path / "crowd.cpp").write_text(CROWD)
    build.compile_library(tmp_path / "crowd.so", build.BORROWED, tmp_path / "crowd.cpp")
    return tmp_path / "crowd.so"


@needs_compiler
def test_torchs_threads_are_used(crowd):
    """No second runtime is loaded, and no thread is started beyond torch's."""
    code = ("import ctypes, os, torch\nfrom lipfw.kernel import library\n"
            "torch.set_num_threads(2); torch.rand(1 << 22).add_(1)\n"
            "assert library._lend_openmp_of_torch()\n"
            "before = len(os.listdir('/proc/self/task')); most = ctypes.CDLL(os.sys.argv[1]).crowd()\n"
            "assert (most, len(os.listdir('/proc/self/task'))) == (2, before), (most, before)\n" + RUNTIMES)
    done = subprocess.run([sys.executable, "-c", code, str(crowd)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1


@needs_compiler
def test_a_runtime_of_another_name_serves_too(crowd, tmp_path):
    """As in torch's CUDA wheels, where it is called libgomp-<hash>.so.1: there nothing is called libgomp.so.1."""
    original = next((Path(torch.__file__).parent / "lib").glob("libgomp.so.1"), None)
    if original is None:
        pytest.skip("this torch has no libgomp.so.1 to rename")
    renamed = tmp_path / "libgamp.so.1"
    renamed.write_bytes(original.read_bytes().replace(b"libgomp.so.1", b"libgamp.so.1"))
    code = ("import ctypes, sys\nctypes.CDLL(sys.argv[1])\nctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)\n"
            "assert ctypes.CDLL(sys.argv[2]).crowd() == 2\n" + RUNTIMES)
    done = subprocess.run([sys.executable, "-c", code, str(renamed), str(crowd)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(renamed)]


@needs_compiler
def test_the_kernels_bring_no_second_runtime(cache):
    done = subprocess.run([sys.executable, "-c", LOAD + RUNTIMES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")[1].split()) == 1
