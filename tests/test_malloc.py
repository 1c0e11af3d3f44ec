"""Freed memory is kept: a process of its own counts the pages that it is given."""
import os
import platform
import subprocess
import sys

import pytest

from lipfw import malloc

CODE = ("import resource, torch\nfrom lipfw.malloc import keep_freed_memory\n"
        "def pages():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.zeros(16 << 20)\n"       # 64 MiB, given back at once
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "def rest(): return sum([pages() for _ in range(40)][20:])\n"    # until the holes fit
        "before, kept = rest(), keep_freed_memory()\n"
        "print(kept, before, rest())\n")


def count(**environment) -> tuple[bool, int, int]:
    """Return whether it was set, and the pages that 20 allocations took before and after."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True,
                          env={**own, **environment})
    kept, before, after = done.stdout.split()
    return kept == "True", int(before), int(after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_memory_is_kept():
    kept, before, after = count()
    assert kept and before > 20 * (after + 1)     # huge pages make few


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
@pytest.mark.parametrize("name, value", [("MALLOC_TRIM_THRESHOLD_", "100000"),
                                         ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=100000")])
def test_the_users_own_settings_win(name, value):
    kept, before, after = count(**{name: value})
    assert not kept and after > before / 2 > 100


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(malloc.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: pytest.fail("mallopt was looked for"))
    assert malloc.keep_freed_memory() is False
