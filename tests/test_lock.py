"""A folder is one process's at a time, also where a file system does not lock across machines."""
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import lipfw.lock
from lipfw.errors import InputError
from lipfw.lock import Busy, Claim, alone

LEASE = 1.5
HOLD = ("import sys, time; from lipfw.lock import alone\n"
        "with alone(sys.argv[1], float(sys.argv[2])): print('held', flush=True); time.sleep(60)")


def hold(folder) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, str(LEASE)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(folder) -> str:
    """Leave the claim of a process on another machine, which died right after; returns it."""
    process = hold(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    marker = (folder / ".lock").read_text()
    host = next(line for line in marker.splitlines() if line.startswith("host="))
    marker = marker.replace(host, "host=elsewhere")
    (folder / ".lock").write_text(marker)
    return marker


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_process_is_refused_and_a_dead_ones_claim_is_taken_over_at_once(tmp_path, end):
    process = hold(tmp_path)
    started = time.monotonic()
    with pytest.raises(Busy, match="another process is at work"), alone(tmp_path, LEASE):
        pass
    assert not Claim(tmp_path, LEASE).take()
    process.send_signal(end)
    process.wait()
    with alone(tmp_path, LEASE):
        assert time.monotonic() - started < LEASE
    assert not list(tmp_path.iterdir())


def test_two_claims_of_one_process(tmp_path):
    with alone(tmp_path):
        with pytest.raises(Busy), alone(tmp_path):
            pass
    with alone(tmp_path):
        pass


def test_a_dead_process_of_another_machine_is_taken_over_after_the_lease(tmp_path):
    elsewhere(tmp_path)
    claim = Claim(tmp_path, LEASE)
    assert not claim.take()
    claim.release()
    started = time.monotonic()
    with alone(tmp_path, LEASE):
        assert time.monotonic() - started >= LEASE


def test_a_living_process_of_another_machine_is_left_alone(tmp_path):
    marker, over = elsewhere(tmp_path), threading.Event()

    def renew():
        while not over.wait(LEASE / 3):
            os.utime(tmp_path / ".lock")

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(Busy), alone(tmp_path, LEASE):
            pass
        claim, until = Claim(tmp_path, LEASE), time.monotonic() + 2 * LEASE
        while time.monotonic() < until:     # a grid asks again and again
            assert not claim.take()
            time.sleep(0.1)
        claim.release()
    finally:
        over.set()
        thread.join()
    assert (tmp_path / ".lock").read_text() == marker


def test_without_the_kernels_lock_the_lease_does(tmp_path, monkeypatch):
    """A file system that refuses flock, as some network ones do."""
    process = hold(tmp_path)

    def refuse(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lipfw.lock.fcntl, "flock", refuse)
    with pytest.raises(Busy), alone(tmp_path, LEASE):
        pass
    process.kill()
    process.wait()
    with alone(tmp_path, LEASE):
        with pytest.raises(Busy), alone(tmp_path, LEASE):
            pass


def test_one_who_lost_the_folder_is_told(tmp_path):
    with alone(tmp_path, LEASE) as claim:
        claim.check()
        (tmp_path / ".lock").unlink()
        deadline = time.monotonic() + 10
        while claim.lost is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(InputError, match="no longer this process's .*; the same command continues"):
            claim.check(1)


def test_a_folder_that_goes_away_inside_the_block_is_no_error_of_the_lock(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with alone(folder):
        folder.rename(tmp_path / "away")
