"""Runs side by side share the cores of a machine, and what a dead one held is free."""
import os
import subprocess
import sys

import pytest

from lipfw import cores
from lipfw.cores import claim

pytestmark = pytest.mark.skipif(cores.fcntl is None, reason="no locks here: each run takes all cores")
HOLD = ("import sys\nfrom lipfw.cores import claim\n"
        "with claim(None if sys.argv[1] == 'all' else int(sys.argv[1])) as (threads, remark):\n"
        "    print(threads, remark, flush=True)\n    sys.stdin.readline()\n")


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine of four cores that nobody uses, without a launcher."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cores.tempfile, "tempdir", None)     # it remembers
    monkeypatch.setattr(cores, "usable_cores", lambda: [0, 1, 2, 3])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield tmp_path
    cores.tempfile.tempdir = None


def other(asked: str) -> tuple[subprocess.Popen, str]:
    """Start another process that holds cores until its input ends; gives it and what it was given."""
    code = "from lipfw import cores\ncores.usable_cores = lambda: [0, 1, 2, 3]\n" + HOLD
    process = subprocess.Popen([sys.executable, "-c", code, asked], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    return process, process.stdout.readline().strip()


def test_a_run_alone_takes_all_and_gives_them_back():
    for _ in range(2):
        with claim(None) as given:
            assert given == (4, "")


def test_two_processes_share_and_a_crash_releases():
    process, said = other("3")
    assert said == "3"
    with claim(None) as given:
        assert given == (1, "1 of 4 cores: another run is using the others")
        with claim(None) as (threads, remark):
            assert threads == 1 and remark.startswith("none of 4 cores is free")
    process.kill()
    process.wait()
    with claim(None) as given:
        assert given == (4, "")
        process, said = other("all")
        assert said.startswith("1 none of 4 cores is free")
        process.communicate("\n")


def test_a_number_is_used_exactly():
    with claim(None), claim(3) as given:
        assert given == (3, "")
    with claim(9) as (threads, remark):
        assert threads == 9
        assert remark.startswith("trainer.threads=9, but there are 4 cores") and "trainer.threads=4 or less" in remark


@pytest.mark.parametrize("value, threads", [("2", 2), ("3,1", 3), ("", 4), ("0", 4), ("many", 4)])
def test_a_launchers_number_is_not_exceeded(monkeypatch, value, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with claim(None) as given:
        assert given == (threads, "")
        if threads < 4:
            with claim(None) as beside:
                assert beside == (threads, "")
    with claim(1) as given:
        assert given == (1, "")


def test_a_launchers_number_above_the_cores_is_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with claim(None) as (threads, remark):
        assert threads == 8 and remark.startswith("OMP_NUM_THREADS=8, but there are 4 cores")


def test_fits_side_by_side_share_the_cores(monkeypatch):
    for fits, threads in ((2, 2), (3, 1), (4, 1)):
        with claim(None, fits) as given:
            assert given == (threads, "")
    with claim(None, 5) as (threads, remark):
        assert threads == 1 and remark.startswith("1 thread for each of 5 fits, but there are 4 cores")
    with claim(2, 2) as given:
        assert given == (2, "")
        with claim(None) as (_, remark):
            assert remark.startswith("none of 4 cores is free")
    with claim(2, 3) as (threads, remark):
        assert threads == 2 and remark.startswith("trainer.threads=2 for each of 3 fits, but there are 4 cores")
        assert remark.endswith("use fit.batch_seeds=4 or less")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with claim(None, 3) as given:
        assert given == (1, "")


def test_a_folder_that_others_could_lock_is_not_used(machine):
    folder = machine / f"lipfw-cores-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with claim(None), claim(None) as given:
        assert given == (4, "") and not list(folder.iterdir())


def test_the_cores_are_those_of_the_affinity_and_of_the_control_group(tmp_path):
    code = "import os; from lipfw import cores; print(cores.usable_cores(), sorted(os.sched_getaffinity(0)))"
    if hasattr(os, "sched_getaffinity"):
        one = min(os.sched_getaffinity(0))
        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                             preexec_fn=lambda: os.sched_setaffinity(0, {one})).stdout
        found, affinity = out.replace("] [", "]|[").split("|")
        assert affinity.strip() == f"[{one}]" and found.count(",") == 0
    for text, share in (("150000 100000\n", 1.5), ("max 100000\n", float("inf")), ("", float("inf"))):
        (tmp_path / "cpu.max").write_text(text)
        assert cores._share(tmp_path) == share
    (tmp_path / "cpu").mkdir()
    for quota, share in (("-1", float("inf")), ("300000", 3)):
        (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
        (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
        assert cores._share(tmp_path) == share
