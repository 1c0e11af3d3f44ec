"""What a person sees while a fit runs: how long it will take, a bar, a line per round."""
import math

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stepped import Stepped
from lipfw.kernel import library as kernel_library
from lipfw.words import spoken


class FitProgress(pl.Callback):
    """Announce the expected time, then show round, sparsity, loss, PSNR and time left, or a line per round.

    A bar is drawn where the output is a terminal; elsewhere each round prints one line.
    """

    LONG = 3600     # seconds from which the options that shorten a run are named

    def __init__(self, pruning: IterativePruning, console: Console | None = None):
        self.pruning, self.console = pruning, console or Console()
        self.bar: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: Stepped) -> None:
        # not in on_fit_start: there a resumed run does not know its round yet
        for remark in self.pruning.remarks:
            self.console.print(remark, highlight=False, soft_wrap=True)
        densities = self.pruning.densities[trainer.current_epoch:]
        compiled = kernel_library.compiled_now
        seconds, note = module.estimate(densities)
        rounds, steps = len(densities), self.pruning.steps(module)[trainer.current_epoch:]
        done = module.step_in_round and module.step_in_round - module.begin     # of the running round's steps
        most = module.budget.seconds or math.inf
        total = min(seconds[0] * (steps[0] - done), most - module.budget.used)
        total += sum(min(s * n, most) for s, n in zip(seconds[1:], steps[1:], strict=True))
        kind = module.device.type
        where = torch.cuda.get_device_name(module.device) if kind == "cuda" else kind.upper()
        span = f"{seconds[0]:.3g} s" if seconds[-1] == seconds[0] else f"{seconds[0]:.3g} to {seconds[-1]:.3g} s"
        line = (f"about {spoken(total)}: {rounds} round{'s' * (rounds > 1)} of {module.steps:,} steps, {span} a step "
                f"on this {where}")
        if note:
            line += f"\n  {note}"
        if kernel_library.compiled_now and not compiled:
            line += "\n  the kernels for this processor were compiled, once and for all runs"
        if total > self.LONG and module.device.type == "cpu":
            line += f"\n  shorter with {module.shorter}, or on a GPU"
        self.console.print(line, highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            self.bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=None),
                                TimeRemainingColumn(compact=True), _State(), console=self.console)
            self.bar.start()
            done = trainer.current_epoch * module.steps + module.step_in_round
            self.task = self.bar.add_task("", total=trainer.max_epochs * module.steps, completed=done, state="")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if self.bar is None:
            return
        latest = {"state": module.told(module.records[-1])} if module.records else {}     # else what was told last
        where = f"round {trainer.current_epoch}/{trainer.max_epochs - 1} {1 - self.pruning.density():.1%} sparse"
        self.bar.update(self.task, completed=trainer.current_epoch * module.steps + module.step, **latest,
                        description=where)

    def on_train_epoch_end(self, trainer, module) -> None:
        if self.bar is not None:
            return
        line = f"round {trainer.current_epoch}: sparsity {1 - self.pruning.density():.2%}, {module.told_round()}"
        if empty := self.pruning.mask.empty() if self.pruning.mask is not None else []:
            line += f"; {len(empty)} of {len(self.pruning.mask)} layers keep nothing, {empty[0]} first"
        self.console.print(line, highlight=False, soft_wrap=True)

    def teardown(self, trainer, module, stage) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_exception(self, trainer, module, exception) -> None:
        self.teardown(trainer, module, "fit")


class _State(ProgressColumn):
    """The free text of a task, last in the line, so that a narrow terminal cuts it and nothing else."""

    def render(self, task) -> Text:
        return Text(task.fields.get("state", ""), style="cyan", no_wrap=True, overflow="ellipsis")
