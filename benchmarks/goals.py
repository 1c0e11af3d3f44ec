"""The goals of this project's speed: what is wanted, and which measured row answers it."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """`goal` and `stretch` are ratios to reach, or for `less` not to exceed."""

    key: str
    text: str
    goal: float
    stretch: float
    less: bool = False

    def reached(self, value: float) -> str:
        """Return what a measured ratio amounts to."""
        for bound, word in ((self.stretch, "stretch"), (self.goal, "yes")):
            if value <= bound if self.less else value >= bound:
                return word
        return "no"


GOALS = (
    Goal("dense 128", "dense, 128 px", 1.15, 1.3),
    Goal("dense 256", "dense, 256 px", 1.5, 1.8),
    Goal("bf16 128", "dense, bf16, 128 px", 1.8, 2.2),
    Goal("IMP 89", "IMP mask at 89 %, 128 px", 4, 6),
    Goal("IMP 97", "IMP mask at 97 %, 128 px", 6, 10),
    Goal("IMP run", "a whole 17-round IMP run, 128 px", 2.4, 4),
    Goal("throughput", "whole-machine throughput at 97 %, 64 px", 8, 12),
    Goal("memory 256", "peak memory, 256 px, against the bare loop (less is better)", 1.0, 0.7, less=True),
    Goal("game 64", "1,500 median-of-means iterations, 64 px, of 2 minutes (less is better)", 1.0, 0.5, less=True),
    Goal("code 256", "step with a generator, 256 px, against the bare network (less is better)", 1.1, 1.0, less=True),
    Goal("sensing 256", "peak memory of compressed sensing, 256 px, of the matrix (less is better)", 1.3, 1.2,
         less=True),
    Goal("gpu 512", "GPU, 512 px", 5, 8),
    Goal("gpu 256", "GPU, 256 px", 10, 20),
    Goal("gpu batched", "GPU, 256 px, fits side by side, per fit", 18, 30),
)
