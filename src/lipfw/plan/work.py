"""What the runs of a kind take: rounds, steps, FLOPs, bytes and, measured here, seconds."""
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from omegaconf import DictConfig

from lipfw.cores import claim
from lipfw.errors import InputError
from lipfw.fit.memory import check_memory
from lipfw.fit.restoration import Restoration
from lipfw.fit.stepping import check_kernel
from lipfw.fit.trainer import device_name
from lipfw.folder import label_parts
from lipfw.image.classes import Labelled
from lipfw.image.dataset import Dataset
from lipfw.job import Job
from lipfw.malloc import keep_freed_memory
from lipfw.plan.devices import Device
from lipfw.plan.disk import Disk, disk_of
from lipfw.plan.flops import step_flops, steps_on_scales
from lipfw.plan.kinds import Kind
from lipfw.run import parts


@dataclass(frozen=True)
class Work:
    """What one cell of a kind takes. `side` runs are in a cell; `cells` are of the kind.

    `steps` are those of each round, `searched` those of finalists before them; `flops` are of a step of the dense
    network, by scale, and `shares` the part of a round's steps that is done on each. `seconds` are those of a step in
    each round, measured, None where they are not.
    """

    task: str
    pictures: str
    prior: str
    pruner: str
    precision: str
    parameters: int
    steps: tuple[int, ...]
    flops: dict[int, int]
    shares: dict[int, float]
    disk: Disk
    cells: int = 1
    side: int = 1
    seconds: tuple[float, ...] | None = None
    remarks: tuple[str, ...] = ()
    searched: int = 0

    @property
    def steps_a_run(self) -> int:
        """Of all rounds, and of what is before them."""
        return self.searched + sum(self.steps)

    @property
    def runs(self) -> int:
        return self.cells * self.side

    @property
    def flops_a_step(self) -> float:
        """The mean over a round's steps."""
        return sum(self.flops[s] * self.shares[s] for s in self.flops)

    @property
    def flops_a_run(self) -> float:
        """Over all rounds, as if nothing were removed."""
        return self.steps_a_run * self.flops_a_step

    def hours_here(self) -> float | None:
        """Return the hours of a cell on this machine, by the measured steps."""
        if self.seconds is None:
            return None
        first = self.seconds[0] * self.searched     # finalists are dense, as round 0 is
        return self.side * (first + sum(s * n for s, n in zip(self.seconds, self.steps, strict=True))) / 3600

    def hours_on(self, device: Device, utilisation: float, floor: float) -> float:
        """Return the hours of a cell on a device that does a part of its peak, but no step in less than `floor` s."""
        rate = device.rate(self.precision)[0] * 1e12 * utilisation
        step = sum(share * max(self.side * self.flops[s] / rate, floor) for s, share in self.shares.items())
        return self.steps_a_run * step / 3600


@dataclass
class Planner:
    """Builds a run of each kind, counts, and measures if it is to; what kinds have in common is done once.

    `say` is told what is going on, in a line.
    """

    measure: bool
    say: Callable[[str], None] = lambda line: None
    where: str = ""             # what was measured, e.g. "2 threads of this CPU"
    _works: dict[str, Work] = field(default_factory=dict)
    _flops: dict[str, dict[int, int]] = field(default_factory=dict)
    _seconds: dict[tuple, list[float] | str] = field(default_factory=dict)

    def __call__(self, kind: Kind) -> Work:
        """Return the work of a kind. Raises InputError for one that can't be run, or can't be counted."""
        if kind.work not in self._works:
            self._works[kind.work] = self._work(kind)
        return replace(self._works[kind.work], cells=kind.cells, side=kind.side)

    def _work(self, kind: Kind) -> Work:
        cfg = kind.config
        job = parts(cfg, kind.pictures, None)
        module, pruning = job.module, job.pruning
        pruning.plan(module)
        network, densities, steps = pruning.network(module), pruning.densities, pruning.steps(module)
        remarks = [] if cfg.fit.get("stop") is None else ["fit.stop ends rounds early"]
        remarks += [] if cfg.fit.get("minutes") is None else [
            f"fit.minutes={cfg.fit.minutes:g} may end rounds early; all steps are counted"]
        remarks += ["fit=baseline computes on the CPU, also where there is a GPU"] if module.cpu_only else []
        remarks += [] if pruning.pruner.stop is None else ["pruner.stop ends runs early"]
        searched = 0 if job.search is None else job.search.fitted
        remarks += [] if job.search is None else [
            f"prior=isnas: {searched:,} steps of finalists come before the rounds; each step is counted as one of the "
            "first candidate, though candidates differ; ranking them is not counted"]
        disk = disk_of(job, cfg, kind.pictures if isinstance(kind.pictures, list) else None)
        seconds = None
        if self.measure:
            measured = self._measured(kind, job, densities)
            if isinstance(measured, str):
                remarks.append(f"not measured: {measured}")
            else:
                seconds = tuple(measured)
        if kind.step not in self._flops:
            counted = step_flops(module)
            if counted is None:
                raise InputError(f"what a step of {type(module).__name__} is can't be counted")
            self._flops[kind.step] = counted
        on = steps_on_scales(module)
        task, _, prior, pruner, _ = label_parts(cfg)
        return Work(task, _shapes(kind.pictures, module), prior, pruner, module.precision,
                    sum(p.numel() for p in network.parameters()), tuple(steps), self._flops[kind.step],
                    {s: n / sum(on.values()) for s, n in on.items()}, disk, seconds=seconds,
                    remarks=tuple(remarks), searched=searched)

    def _measured(self, kind: Kind, job: Job, densities: list[float]) -> list[float] | str:
        """Return the seconds of a step in each round, or why they can't be had."""
        low, high = min(densities), max(densities)
        key = (kind.step, low, high)
        if key not in self._seconds:
            self.say(f"measuring steps: {job.title}, {100 - 100 * high:.0f} to {100 - 100 * low:.1f} % sparse")
            try:
                self._seconds[key] = self._measure(kind.config, job, sorted({high, low}, reverse=True))
            except InputError as e:
                self._seconds[key] = str(e)
        ends = self._seconds[key]
        if isinstance(ends, str) or high == low:
            return ends if isinstance(ends, str) else ends * len(densities)
        # the estimate of a run, too, puts the rounds between the densest and the sparsest on a straight line
        return [ends[1] + (d - low) / (high - low) * (ends[0] - ends[1]) for d in densities]

    def _measure(self, cfg: DictConfig, job: Job, ends: list[float]) -> list[float]:
        module = job.module
        if any(b.is_meta for b in module.buffers()):
            raise InputError("its pictures are not here")
        device = device_name("cpu" if module.cpu_only else cfg.trainer.accelerator)
        check_kernel(cfg.fit.get("kernel", "auto"), device)
        if isinstance(module, Restoration):
            check_memory(module.prior, device)
        with _threads(cfg, device) as threads:
            if device == "cpu":
                keep_freed_memory()
                self.where = f"{threads} thread{'s' * (threads > 1)} of this CPU"
            else:
                self.where = torch.cuda.get_device_name()
            module.to(device)
            seconds, note = module.estimate(ends)
            module.to("cpu")
        if note:
            self.say(note)
        return seconds


@contextlib.contextmanager
def _threads(cfg: DictConfig, device: str) -> Iterator[int]:
    """Have torch take as many threads as a run would; gives their number."""
    before = torch.get_num_threads()
    with claim(cfg.trainer.threads) if device == "cpu" else contextlib.nullcontext((before, "")) as (threads, _):
        torch.set_num_threads(threads)
        try:
            yield threads
        finally:
            torch.set_num_threads(before)


def _shapes(pictures, module) -> str:
    """Return the pictures of a run in a few letters: 512x512, 5 of 224x224, 12,000 of 256x256, 5 pictures."""
    if isinstance(pictures, Labelled):
        return f"{len(pictures.train):,} of {pictures.size}x{pictures.size}"
    if isinstance(pictures, Dataset):
        side = pictures.pixels.shape[3]
        return f"{len(module.pixels):,} of {side}x{side}"
    sizes = {p.shape[:0:-1] for p in module.problems}       # as restored: super-resolution enlarges
    if len(sizes) > 1:
        return f"{len(module.problems)} pictures"
    size = "x".join(map(str, sizes.pop()))
    return size if len(module.problems) == 1 else f"{len(module.problems)} of {size}"
