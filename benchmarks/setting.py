"""What a benchmark is told: where results go, on which device, how much time it may take."""
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import Spec, Unavailable, runner
from benchmarks.timing import Runner, in_turns, sampler
from benchmarks.worker import Worker

LARGE = 256     # pixels a side from which memory decides: contenders then have processes, and allocators, of their own


@dataclass(frozen=True)
class Setting:
    """The options of `python -m benchmarks`. `quick` shrinks everything to a look whether it runs at all."""

    out: Path
    device: str
    threads: int
    quick: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the pictures."""
        if self.quick:
            return (32,)
        return (64, 128, 256, 512) if self.device == "cuda" else (64, 128, 256)

    @property
    def cores(self) -> int:
        """Cores that this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def turns(self, wanted: int) -> int:
        """Return how many turns to take."""
        return 2 if self.quick else wanted

    def spec(self, name: str, size: int, ticket: Path | None = None) -> Spec:
        """Return a fit at full width; in a quick look, of a tiny network."""
        width = {"channels": 8, "depth": 3} if self.quick else {}
        return Spec(name, size, ticket=str(ticket) if ticket else None, device=self.device, **width)

    @contextlib.contextmanager
    def runners(self, specs: Mapping[str, Spec]) -> Iterator[tuple[dict[str, Runner], dict[str, str]]]:
        """Set fits up side by side; gives the runners and what they say of themselves, or why they can't run here."""
        with contextlib.ExitStack() as stack:
            runners, says = {}, {}
            for name, spec in specs.items():
                try:
                    if spec.size >= LARGE and self.device == "cpu":
                        worker = stack.enter_context(Worker(spec, self.threads))
                        runners[name], says[name] = worker.seconds, worker.says
                    else:
                        runners[name], says[name] = runner(spec)
                except Unavailable as e:
                    says[name] = str(e)
            yield runners, says

    def compare(self, specs: Mapping[str, Spec], turns: int) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Time fits in turns; returns the seconds a step of those that can run, and what each says of itself."""
        with self.runners(specs) as (runners, says):
            samplers = {name: sampler(run, 0 if self.quick else 0.5) for name, run in runners.items()}
            return in_turns(samplers, self.turns(turns)), says
