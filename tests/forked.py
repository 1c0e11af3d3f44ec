"""Commands that start at once: forked from a process that has imported torch, as a local grid's are.

To import it takes longer than most runs of the tests. What a command does and says before, and that nothing depends on
an interpreter's own hashes, is tested where a real one is started: all of a test process's have the hashes, and what is
read from the environment at import, in common.
"""
import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_PRELOADED = ["lipfw.cli", "lipfw.run", "lipfw.restoring", "lipfw.training", "lipfw.grid.local"]
_FORKS = "forkserver" in multiprocessing.get_all_start_methods()


class Forked:
    """`python -m MODULE WORDS` in a folder, in place of a subprocess.Popen with pipes of text for its output.

    Other than that, one that is not over in time is killed, and an exception that it does not catch, Ctrl-C too, is 1.
    """

    def __init__(self, module: str, *words: str, cwd: Path, env: Mapping[str, str] = os.environ, merged: bool = False):
        self.args, self.returncode = (module, *words), None
        self._said = tempfile.TemporaryDirectory(prefix="said", ignore_cleanup_errors=True)
        context = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
        if _FORKS:
            context.set_forkserver_preload(_PRELOADED)
        self._process = context.Process(target=_do, args=(self.args, str(cwd), dict(env), self._said.name, merged))
        self._process.start()
        atexit.register(self._process.kill)     # tests that fail do not wait for it
        self.pid = self._process.pid

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self.args, timeout, self.said("out"), self.said("err"))
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.said("out"), self.said("err")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def said(self, stream: str) -> str:
        """Return what it has written so far to its standard "out" or "err"."""
        path = Path(self._said.name, stream)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def run(module: str, *words: str, cwd: Path, env: Mapping[str, str] = os.environ,
        timeout: float = 300) -> subprocess.CompletedProcess:
    """Do a command to its end, as subprocess.run with its output captured as text."""
    process = Forked(module, *words, cwd=cwd, env=env)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _do(command: tuple[str, ...], cwd: str, env: dict[str, str], said: str, merged: bool) -> None:
    """Be the command, in a process that was a copy of one that has imported a lot and done nothing."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((1, "out"), (2, "out" if merged else "err")):
        handle = os.open(Path(said, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    # as a fresh interpreter has them where output goes to a file
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = list(command)
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()     # a forked process leaves without
        sys.stdout.flush()
