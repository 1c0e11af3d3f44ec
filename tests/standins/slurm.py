#!/usr/bin/env python3
"""A stand-in for SLURM's commands on one machine, named by how it is called: sbatch, srun, sacct, scontrol, scancel.

A folder, $FAKE_SLURM, holds what its controller would know. Of a job's options it heeds --array and --signal. Time is
what happens, so that a slow machine has enough of it: with $FAKE_SLURM_SHORT, a pattern, the first start of a job is
over as soon as a file of that name is there, and the job is sent its signal; a later start has all the time it wants.
"""
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(os.environ["FAKE_SLURM"])
SHORT = os.environ.get("FAKE_SLURM_SHORT")


def note(job: str, what: str, text: str) -> None:
    part = ROOT / f"{job}.{what}.{os.getpid()}.{threading.get_ident()}"
    part.write_text(text)
    part.rename(ROOT / f"{job}.{what}")


def sbatch(arguments: list[str]) -> None:
    script = Path(arguments[-1])
    number = 4000 + len(list(ROOT.glob("*.sbatch")))
    (ROOT / f"{number}.sbatch").write_text(script.read_text())
    options = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script.read_text()))
    tasks, at_once = [None], 1
    if "array" in options:
        first, last, limit = re.match(r"(\d+)-(\d+)(?:%(\d+))?", options["array"]).groups()
        tasks, at_once = list(range(int(first), int(last) + 1)), int(limit or 1000)
    if os.fork() == 0:      # the controller, which outlives this command
        os.setsid()
        with open(os.devnull, "r+") as nowhere:
            for stream in (0, 1, 2):
                os.dup2(nowhere.fileno(), stream)
        room = threading.Semaphore(at_once)
        threads = []
        for task in tasks:
            note(f"{number}_{task}" if task is not None else f"{number}", "state", "PENDING")
        for task in tasks:
            room.acquire()
            threads.append(threading.Thread(target=attend, args=(number, task, script, options, room)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        os._exit(0)
    print(f"Submitted batch job {number}")


def attend(number: int, task: int | None, script: Path, options: dict, room: threading.Semaphore) -> None:
    """Run a job, and again whenever it has been requeued."""
    job = f"{number}_{task}" if task is not None else f"{number}"
    environment = {**os.environ, "SLURM_JOB_ID": f"{number + (task or 0)}", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
                   "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "vm",
                   "SLURM_CPUS_PER_TASK": options.get("cpus-per-task", "1")}
    if task is not None:
        environment |= {"SLURM_ARRAY_JOB_ID": f"{number}", "SLURM_ARRAY_TASK_ID": f"{task}"}
    name = options.get("signal", "USR2@0").partition("@")[0]
    while not (ROOT / f"{job}.cancelled").exists():
        (ROOT / f"{job}.requeue").unlink(missing_ok=True)
        process = subprocess.Popen(["bash", str(script)], env=environment, start_new_session=True)
        note(job, "pid", str(process.pid))
        note(job, "state", "RUNNING")
        with open(ROOT / f"{job}.starts", "a") as starts:
            starts.write(f"{time.time()}\n")
        first = len((ROOT / f"{job}.starts").read_text().splitlines()) == 1
        while SHORT and first and process.poll() is None:
            if any(Path.cwd().glob(SHORT)):
                subprocess.run(["pkill", f"-{name}", "-P", str(process.pid)], check=False)    # the step, not the script
                break
            time.sleep(0.05)
        code = process.wait()
        if not (ROOT / f"{job}.requeue").exists():
            note(job, "state", "COMPLETED" if code == 0 else "FAILED")
            break
        note(job, "state", "PENDING")
    if (ROOT / f"{job}.cancelled").exists():
        note(job, "state", "CANCELLED by 0")
    room.release()


def srun(arguments: list[str]) -> None:
    array, task = (os.environ.get(f"SLURM_ARRAY_{n}_ID") for n in ("JOB", "TASK"))
    names = {"%A": array, "%a": task, "%j": os.environ["SLURM_JOB_ID"], "%t": "0"}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in ("--output", "--error"):
            path = rest.pop(0)
            for short, value in names.items():
                path = path.replace(short, value or "")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(handle, 1 if word == "--output" else 2)
    os.execvp(rest[0], rest)


def sacct(arguments: list[str]) -> None:
    print("JobID|State|NodeList")
    for path in sorted(ROOT.glob("*.state")):
        print(f"{path.stem}|{path.read_text()}|vm")


def scontrol(arguments: list[str]) -> None:
    assert arguments[0] == "requeue", arguments
    note(arguments[1], "requeue", "")


def scancel(arguments: list[str]) -> None:
    for path in ROOT.glob("*.state"):
        if path.stem == arguments[-1] or path.stem.startswith(f"{arguments[-1]}_"):
            note(path.stem, "cancelled", "")
            pid = ROOT / f"{path.stem}.pid"
            if pid.exists():
                try:
                    os.killpg(int(pid.read_text()), signal.SIGTERM)
                except ProcessLookupError:
                    pass


if __name__ == "__main__":
    with open(ROOT / "commands.log", "a") as log:
        log.write(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) + "\n")
    globals()[Path(sys.argv[0]).name](sys.argv[1:])
