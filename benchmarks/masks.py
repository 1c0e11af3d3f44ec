"""The masks that kernels are timed with: those of a real run of iterative magnitude pruning, and random ones.

A real mask keeps more in some layers than in others and leaves channels that nobody reads; a random one of the same
sparsity is neither. The run is short, which changes where weights are removed a little and how many not at all; it is
made once a folder.
"""
from pathlib import Path

import torch

from benchmarks.command import TINY, lipfw
from benchmarks.setting import Setting
from lipfw.mask import keep_top
from lipfw.ticket import Ticket

ROUNDS = {0: 0, 59: 4, 79: 7, 89: 10, 95: 13, 97: 16, 98: 18}     # sparsity in per cent: round, at 20 % a round


def found(setting: Setting) -> list[Path]:
    """Return the tickets of 19 rounds, found on a clean picture of 64 pixels with 150 steps a round."""
    # a tiny network pruned at the full rate would soon have no path left from code to output, which ends a run
    size = ["pruner.rate=0.05", *TINY] if setting.quick else ["image.size=64", "fit.steps=150"]
    folder = lipfw(setting.out / "runs", f"masks{'-quick' * setting.quick}", "pruner=imp", "pruner.rounds=18",
                   "fit.target=clean", *size, threads=setting.threads)
    return sorted((folder / "tickets").glob("round_*.safetensors"))


def random(like: Path, folder: Path) -> Path:
    """Return a ticket that keeps as many weights as another, chosen uniformly at random."""
    mask = Ticket.load(like).mask
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(kept.shape, generator=generator) for name, kept in mask.items()}
    path = folder / f"random_{like.stem}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    Ticket(keep_top(scores, mask.count)).save(path)
    return path
