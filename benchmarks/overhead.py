"""What do Lightning, logging, metrics and picks add to a bare loop of the same step? Smaller is better; 1 is nothing.

Bare: zero_grad, forward with jitter, loss, backward, fused Adam. Against it a `Trainer.fit` with the callbacks of a
run: records to disk, PSNR and SSIM every 10 steps, pick and peak, checkpoints.
"""
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.contenders import runner
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turns, ratio
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.trainer import make_trainer, quiet
from lipfw.image.skimage import load
from lipfw.prior.skip import build
from lipfw.pruner.none import Dense
from lipfw.recorder import Recorder
from lipfw.task.denoise import Denoise

STEPS = 10


class Clock(Checkpoint):
    """Times the batches of a fit, from the first one's start to the last one's end, all callbacks included."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self.seconds_taken = time.perf_counter() - self.started


def measure(setting: Setting) -> Iterator[Row]:
    """Time both in turns, the fit with torch's own operators as in the loop."""
    for size in setting.sizes[:2]:
        spec = setting.spec("bare", size)
        (picture,) = load("astronaut", size=size)
        problem = Denoise(25)(picture)
        prior = build([problem.shape], channels=spec.channels, depth=spec.depth)

        def fit(problem=problem, picture=picture, prior=prior) -> float:
            module = Restoration([problem], prior, steps=STEPS, kernel="dense")
            with tempfile.TemporaryDirectory() as folder:
                pruning = IterativePruning(Dense())
                clock = Clock(Path(folder) / "checkpoint.ckpt")
                callbacks = [pruning, Recorder(Path(folder), pruning, [picture], {}), clock]
                with quiet():
                    make_trainer(1, callbacks, "gpu" if setting.device == "cuda" else "cpu").fit(module)
            return clock.seconds_taken / STEPS

        bare, _ = runner(spec)
        bare(2), fit()
        samples = in_turns({"bare": lambda bare=bare: bare(STEPS) / STEPS, "fit": fit}, setting.turns(9))
        yield Row(f"a fit by Lightning, {size} px", "bare loop", ratio(samples["fit"], samples["bare"]),
                  {"ms": 1000 * median(samples["fit"]), "ms against": 1000 * median(samples["bare"])})
