"""`hydra/launcher=ray`: Ray places each run on a node of a cluster, or of one that it starts on this machine."""
import os
import re
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lipfw.errors import InputError, number, whole
from lipfw.grid.launcher import GridLauncher, Job
from lipfw.grid.work import Outcome, work

_SMALL = 100 * 2**20        # bytes: Ray takes a third of the memory for objects that are shared; runs share none


class OnRay(GridLauncher):
    """An engine that leaves it to Ray where and when a run goes: a task of `cpus` and `gpus` (a fraction shares one).

    `address` is that of a cluster that exists ("auto": the one of this machine, or $RAY_ADDRESS), null starts one
    here, with `init` for ray.init. All nodes see the same folders, and have lipfw installed. `resources` are custom
    ones, e.g. {big: 1}. A run whose worker or node dies is started again up to `retries` times, and continues.
    """

    passes = (signal.SIGTERM, signal.SIGINT)        # Ray cancels a task by what Ctrl-C does

    def __init__(self, address: str | None, cpus: float, gpus: float | None,
                 resources: Mapping[str, float] | None, retries: int, init: Mapping | None):
        self._address, self._resources, self._init = address, _plain(resources), _plain(init)
        self._cpus = number("hydra.launcher.cpus", cpus, 0, float("inf"))
        self._gpus = gpus if gpus is None else number("hydra.launcher.gpus", gpus, 0, float("inf"))
        self._retries = whole("hydra.launcher.retries", retries, least=0)
        self._running: dict = {}

    def begin(self, jobs: Sequence[Job]) -> str:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")       # it reports home otherwise
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        if Path("~/.ray/auth_token").expanduser().exists():     # the first Ray of a machine has made one, and wants it
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        try:
            import ray
        except ImportError:
            raise InputError("hydra/launcher=ray needs Ray; install it by pip install 'lipfw[ray]'") from None
        self._ray = ray
        try:
            if re.fullmatch(r"[\w.-]+:\d+", self._address or ""):      # Ray itself tries for minutes, aloud
                host, _, port = self._address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=20).close()
            if self._address is None:
                ray.init(**{"object_store_memory": _SMALL, "include_dashboard": False, "log_to_driver": False,
                            "logging_level": "ERROR", **self._init})
            else:
                ray.init(address=self._address, **{"log_to_driver": False, "logging_level": "ERROR", **self._init})
        except Exception as e:      # Ray's own errors have no common kind
            told = " ".join(str(e).split())
            raise InputError(f"Ray can't be reached or started ({told[:300]}); see hydra.launcher.address= and init="
                             ) from e
        there = ray.cluster_resources()
        if self._gpus is None:
            on_gpus = any(job.cell.config.trainer.accelerator != "cpu" for job in jobs)
            self._gpus = 1.0 if on_gpus and there.get("GPU") else 0.0
        for name, each in (("CPU", self._cpus), ("GPU", self._gpus), *self._resources.items()):
            if each > there.get(name, 0):
                raise InputError(f"a run asks for {each:g} {name}, but the Ray cluster has {there.get(name, 0):g}; see "
                                 "hydra.launcher.cpus=, gpus= and resources=")
        self._remote = ray.remote(work).options(
            num_cpus=self._cpus, num_gpus=self._gpus, resources=self._resources or None, max_retries=self._retries)
        nodes = sum(node["Alive"] for node in ray.nodes())
        return (f"on Ray: {nodes} node{'s' * (nodes > 1)} with {there.get('CPU', 0):g} CPUs and "
                f"{there.get('GPU', 0):g} GPUs, {self._cpus:g} and {self._gpus:g} a run")

    def room(self, at_work: int) -> bool:
        return True     # Ray has a queue

    def start(self, job: Job) -> None:
        environment = {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}
        self._running[self._remote.remote(self.order(job, environment))] = job

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        out, errors = [], self._ray.exceptions
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        for ref in ready:
            job = self._running.pop(ref)
            try:
                out.append((job, self._ray.get(ref)))
            except errors.TaskCancelledError:
                out.append((job, Outcome("stopped")))
            except errors.RayError as e:
                out.append((job, Outcome("failed", f"its Ray task ended without a result: {_first(e)}")))
        return out

    def stop(self) -> bool:
        for ref in self._running:
            self._ray.cancel(ref, force=False)
        return True

    def finish(self) -> None:
        if hasattr(self, "_ray"):
            self._ray.shutdown()


def _plain(node: Mapping | None) -> dict:
    return OmegaConf.to_container(OmegaConf.create(dict(node or {})))


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
