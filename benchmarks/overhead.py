"""What do Lightning, logging, metrics and picks add to a bare PyTorch loop of the same step? Printed as a ratio.

    python benchmarks/overhead.py [--size 128] [--channels 128] [--steps 20] [--repeats 14]

Bare: zero_grad, forward with jitter, loss, backward, fused Adam. Ours: a Trainer.fit of Restoration with the callbacks
of a run (records to disk, PSNR and SSIM every 10 steps, pick and peak, checkpoints). Both take turns in one process;
the median of the ratios is the answer, since single times on a shared machine mean little.
"""
import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.trainer import make_trainer
from lipfw.image.skimage import load
from lipfw.prior.skip import build
from lipfw.pruner.none import Dense
from lipfw.recorder import Recorder
from lipfw.task.denoise import Denoise


def bare(prior, problem, steps):
    """Return the seconds that the steps take in a plain loop."""
    optimizer = torch.optim.Adam(prior.unknowns(), lr=0.01, fused=True)
    started = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(problem.operator(prior(0, step)), problem.measurement).backward()
        optimizer.step()
    return time.perf_counter() - started


class Clock(Checkpoint):
    """Times the batches of a fit, from the first one's start to the last one's end, all callbacks included."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self.seconds_taken = time.perf_counter() - self.started


def ours(prior, problem, picture, steps):
    """Return the seconds that the steps take in a run."""
    module = Restoration([problem], prior, steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        pruning = IterativePruning(Dense())
        clock = Clock(Path(folder) / "checkpoint.ckpt")
        make_trainer(1, [pruning, Recorder(Path(folder), pruning, [picture], {}), clock], "cpu").fit(module)
    return clock.seconds_taken


def main():
    """Time both in turns and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=14)
    args = parser.parse_args()
    (picture,) = load("astronaut", size=args.size)
    problem = Denoise(25)(picture)
    prior = build([problem.shape], channels=args.channels)
    bare(prior, problem, 2)
    ours(prior, problem, picture, 2)
    pairs = []
    for turn in range(args.repeats):    # a b, b a, a b ...: a machine that drifts favours neither
        if turn % 2:
            b, a = ours(prior, problem, picture, args.steps), bare(prior, problem, args.steps)
        else:
            a, b = bare(prior, problem, args.steps), ours(prior, problem, picture, args.steps)
        pairs.append((a, b))
        print(f"bare {a / args.steps:.4f} s a step, lipfw {b / args.steps:.4f} s a step, ratio {b / a:.3f}", flush=True)
    print(f"{args.size}x{args.size}, {args.channels} channels: median of the ratios "
          f"{statistics.median(b / a for a, b in pairs):.3f}, ratio of the minima "
          f"{min(b for _, b in pairs) / min(a for a, _ in pairs):.3f}")


if __name__ == "__main__":
    main()
