"""Rounds of one fit: score, mask, rewind. A round is an epoch of one Trainer.fit."""
import pytorch_lightning as pl
from torch import nn

from lipfw.errors import InputError
from lipfw.mask import Mask, prunable
from lipfw.pruner.pruner import Pruner, Schedule


class IterativePruning(pl.Callback):
    """Prune at the start of a round and rewind what the fit may change; the last round so stays fitted.

    Round 0 starts from the prior's weights and, at step `schedule.rewind_step`, records what later rounds go back to:
    network with batch-norm buffers, and optimiser. A round that keeps fewer weights than there are zeroes the removed
    ones once; the module's steps then hold them at zero. State (mask, rewind) lies in checkpoints.

    `target` names the pruned network inside the LightningModule, which must have `steps` (in a round), `snapshot()`,
    `rewind(snapshot)`, `objective()`, `hold(mask)` and a list `after_step`.
    """

    def __init__(self, pruner: Pruner, schedule: Schedule | None = None, target: str = "prior.network"):
        self.pruner, self.schedule, self.target = pruner, schedule or pruner.schedule, target
        self.mask: Mask | None = None       # None: dense
        self.start: dict | None = None      # the state that rounds go back to

    def network(self, module: pl.LightningModule) -> nn.Module:
        """Return the network that is pruned."""
        return module.get_submodule(self.target)

    def counts(self, module: pl.LightningModule) -> list[int]:
        """Return the number of kept prunable weights of each round."""
        return self.schedule.counts(sum(p.numel() for p in prunable(self.network(module)).values()))

    def density(self) -> float:
        """Return the kept fraction of the prunable weights in this round."""
        return 1.0 if self.mask is None else self.mask.density

    def prepare(self, module: pl.LightningModule) -> None:
        """Set the network's first weights. Raises InputError for what does not fit it or its number of steps."""
        if self.schedule.rewind_step > module.steps:
            raise InputError(f"pruner.rewind_step={self.schedule.rewind_step} lies beyond fit.steps={module.steps}; "
                             "use a step of the fit")
        for round_, count in enumerate(self.counts(module)):
            if count < 1:
                raise InputError(f"round {round_} would keep none of the network's weights; use fewer pruner.rounds or "
                                 "a smaller pruner.rate")
        self.pruner.prepare(self.network(module))

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.prepare(module)    # a checkpoint, if there is one, is loaded over it

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take up the mask: also in the middle of a round, where no epoch start is announced."""
        def record(step: int) -> None:
            if self.start is None and step == self.schedule.rewind_step:
                self.start = module.snapshot()

        module.after_step.append(record)
        module.hold(self.mask)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        round_, network = trainer.current_epoch, self.network(module)
        if round_ == 0 and self.schedule.rewind_step == 0:
            self.start = module.snapshot()
        counts = self.counts(module)
        if round_ and self.pruner.scores_trained:
            mask = self.pruner.prune(network, module.objective, counts[round_], self.mask, round_)
            module.rewind(self.start)
        else:
            if round_:
                module.rewind(self.start)
            total = sum(p.numel() for p in prunable(network).values())
            mask = (self.pruner.prune(network, module.objective, counts[round_], None, round_)
                    if counts[round_] < total else None)
        self.mask = mask
        if mask is not None:
            mask.apply(network)
        module.hold(mask)

    def state_dict(self) -> dict:
        return {"mask": dict(self.mask) if self.mask is not None else None, "start": self.start}

    def load_state_dict(self, state: dict) -> None:
        self.mask = Mask(state["mask"]) if state["mask"] is not None else None
        self.start = state["start"]
