"""Rounds of one fit: score, mask, rewind. A round is an epoch of one Trainer.fit."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lipfw.errors import InputError
from lipfw.fit.stopping import rises
from lipfw.mask import Degenerate, Mask, prunable
from lipfw.measures import connected
from lipfw.pruner.none import Dense
from lipfw.pruner.pruner import Fit, Pruner


class Ended(InputError):
    """The rounds can't go on: the pruner can't tell the weights apart, or nothing would pass through the network."""


class IterativePruning(pl.Callback):
    """Prune at the start of a round and rewind what the fit may change; the last round so stays fitted.

    Round 0 starts from the prior's weights and, at step `rewind_step`, records what later rounds go back to: network
    with batch-norm buffers, and optimiser; a pruner that does not rewind has them take up the optimiser alone. A round
    that keeps fewer weights than there are zeroes the removed ones once; the module's steps then hold them at zero.
    Where the pruner has a stopping rule, no round starts after it has ended them. State (mask, rewind, losses) lies in
    checkpoints.

    `target` names the pruned network inside the LightningModule, which must have `steps` (in a round), `length`,
    `snapshot()`, `rewind(snapshot, begin)`, `start_from(weights)`, `start_round(round)`, `hold(mask)`, `round_loss()`,
    a list `after_step`, and what a pruner may see of it (`Fit`).
    """

    def __init__(self, pruner: Pruner, target: str = "prior.network"):
        self.pruner, self.target = pruner, target
        self.counts: list[int] = []         # kept weights of each round, by plan; known once prepared
        self.rewind_step = 0
        self.mask: Mask | None = None       # None: dense
        self.start: dict | None = None      # the state that rounds go back to, or the first
        self.losses: list[float] = []       # of the rounds that are done
        self.enough = False                 # set by who wants no further round
        self.remarks: list[str] = []        # what a user is told before the fit

    def network(self, module: pl.LightningModule) -> nn.Module:
        """Return the network that is pruned."""
        return module.get_submodule(self.target)

    @property
    def rounds(self) -> int:
        """Number of fits, the dense round 0 included."""
        return len(self.counts)

    @property
    def densities(self) -> list[float]:
        """Kept fraction of the prunable weights, round by round, as planned."""
        return [c / self.total if self.total else 1.0 for c in self.counts]

    def density(self) -> float:
        """Return the kept fraction of the prunable weights in this round."""
        return 1.0 if self.mask is None else self.mask.density

    def steps(self, module: pl.LightningModule) -> list[int]:
        """Return the number of steps of each round."""
        again = module.steps - (self.rewind_step if self.pruner.retrain == "remaining" else 0)
        return [module.steps] + [again] * (self.rounds - 1)

    def prepare(self, module: pl.LightningModule) -> None:
        """Plan the rounds, and look at what can be told of them before a fit. Raises InputError."""
        self.plan(module)
        foreseeable = self.pruner.blind and self.rewind_step == 0
        self.remarks = [*self.pruner.remarks,
                        *(self._look_ahead(self.network(module), module) if foreseeable else [])]

    def plan(self, module: pl.LightningModule) -> None:
        """Set the network's first weights and count the rounds. Raises InputError for what does not go together."""
        network = self.network(module)
        if not prunable(network) and not isinstance(self.pruner, Dense):
            raise InputError("the network has no convolutions, whose weights are what pruners remove; use pruner=none")
        self.pruner.prepare(network)
        self.total = sum(p.numel() for p in prunable(network).values())
        self.counts = self.pruner.counts(network)
        self.rewind_step = self.pruner.rewind(module.steps, module.length)
        if self.pruner.retrain == "remaining" and self.rewind_step == module.steps:
            raise InputError(f"pruner.rewind_step={self.pruner.rewind_step} with pruner.retrain=remaining leaves no "
                             f"step of {module.length}; use an earlier one")

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.prepare(module)    # a checkpoint, if there is one, is loaded over it

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Take up the mask: also in the middle of a round, where no epoch start is announced."""
        def record(step: int) -> None:
            if self.start is None and step == self.rewind_step:
                self.start = module.snapshot()

        module.after_step.append(record)
        module.start_round(trainer.current_epoch)
        module.hold(self.mask)
        trainer.should_stop = self.ended

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        round_, network = trainer.current_epoch, self.network(module)
        module.start_round(round_)
        if round_ == 0 and self.rewind_step == 0:
            self.start = module.snapshot()
        self.mask = self._next(network, module, round_, self.start)
        if round_:      # after the scores, whose forward passes move batch norm's statistics
            start = self.start if self.pruner.rewinds else _renewed(module.snapshot(), self.start)
            module.rewind(start, self.rewind_step if self.pruner.retrain == "remaining" else 0)
        if (own := self.pruner.start(round_)) is not None:
            module.start_from(own)
        if self.mask is not None:
            self.mask.apply(network)
        module.hold(self.mask)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.start is None:
            raise InputError(f"round 0 was stopped at step {module.step}, before pruner.rewind_step="
                             f"{self.rewind_step}; use an earlier step, or fit.stop=null and fit.minutes=null")
        self.losses.append(module.round_loss())
        trainer.should_stop = self.ended

    @property
    def ended(self) -> bool:
        """No further round is to start: somebody wants none, or the loss of the last ones kept rising."""
        return self.enough or self.pruner.stop is not None and rises(self.losses) >= self.pruner.patience

    def state_dict(self) -> dict:
        return {"mask": dict(self.mask) if self.mask is not None else None, "start": self.start, "losses": self.losses}

    def load_state_dict(self, state: dict) -> None:
        self.mask = Mask(state["mask"]) if state["mask"] is not None else None
        self.start, self.losses = state["start"], list(state["losses"])

    def _next(self, network: nn.Module, module: pl.LightningModule, round_: int, start: dict | None) -> Mask | None:
        """Return the mask of a round; scores at initialisation are taken of a network that has gone back to `start`."""
        if self.counts[round_] == self.total:
            return None
        if not round_ or self.pruner.scores_trained:
            return self._prune(network, module, round_)
        left = None if self.pruner.rewinds else module.snapshot()
        module.rewind(start)
        mask = self._prune(network, module, round_)
        if left is not None:
            module.rewind(left)
        return mask

    def input_shape(self, module: pl.LightningModule) -> torch.Size:
        """Return the shape (1, ...) of what goes into the pruned network."""
        return module.code_shape()

    def seen(self, module: pl.LightningModule) -> Fit:
        """Return what the pruner may see of the fit."""
        return module

    def _prune(self, network: nn.Module, module: pl.LightningModule, round_: int) -> Mask:
        """Return the mask of a round. Raises Ended if the pruner can't tell weights apart or cuts all paths."""
        within = self.mask if self.pruner.iterative and round_ else None
        count = self.pruner.keep(self.counts, round_, within)
        try:
            mask = self.pruner.prune(network, self.seen(module), count, within, round_)
            for name in self.pruner.exempted(network):
                mask = Mask({**mask, name: torch.ones_like(mask[name])})
            check_connected(network, mask, self.input_shape(module))
        except Degenerate as e:
            raise Ended(f"round {round_}, {1 - count / self.total:.2%} sparse: {e}; {e.remedy}") from None
        return mask

    def _look_ahead(self, network: nn.Module, module: pl.LightningModule) -> list[str]:
        """Tell how far a pruner can go if scores alone tell that. Raises Ended at once if it can't prune at all."""
        prunings, error = [r for r, count in enumerate(self.counts) if count < self.total], None
        while prunings:
            try:
                self._prune(network, module, prunings[-1])
                break
            except Ended as e:
                error = e
                prunings.pop()
        if error is not None and not prunings:
            raise error
        return [] if error is None else [f"the run will end after round {prunings[-1]}: {error}"]


class Following(IterativePruning):
    """Prune a second network, the critic, in the rounds of a leading callback, which rewinds both networks.

    Give it to the Trainer before the leader: it looks at the weights that a round has left.
    """

    def __init__(self, pruner: Pruner, leader: IterativePruning, target: str = "critic"):
        super().__init__(pruner, target)
        self.leader = leader

    @property
    def state_key(self) -> str:
        return f"Following({self.target})"

    def prepare(self, module: pl.LightningModule) -> None:
        super().prepare(module)
        leading = self.leader.pruner.counts(self.leader.network(module))
        if len(self.counts) != len(leading):
            raise InputError(f"pruning the {self.target} takes {len(self.counts) - 1} rounds and the generator "
                             f"{len(leading) - 1}: they differ in size; use pruner.sparsities, or pruner.rounds and "
                             "pruner.rate")

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.hold(self.mask, self.target)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.hold(None, self.target)      # a rewind for scores at initialisation goes back to the whole network
        self.mask = self._next(self.network(module), module, trainer.current_epoch, self.leader.start)
        module.hold(self.mask, self.target)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The leader says when the rounds end."""

    def input_shape(self, module: pl.LightningModule) -> torch.Size:
        return module.picture_shape()

    def seen(self, module: pl.LightningModule) -> Fit:
        return _Seen(module.losses, self.input_shape(module))


def _renewed(left: dict, first: dict) -> dict:
    """Return a snapshot with the optimisers of another."""
    return left | {name: state for name, state in first.items() if name.startswith("optimizer")}


@dataclass(frozen=True)
class _Seen:
    """A fit as the pruner of a network that takes pictures sees it."""

    losses: Callable[..., Iterator[Tensor]]
    shape: torch.Size

    def code_shape(self) -> torch.Size:
        return self.shape


def check_connected(network: nn.Module, mask: Mask, shape: torch.Size) -> None:
    """Raise Degenerate for a mask that cuts every path from the code, of a shape (1, C, H, W), to the output.

    So do layers that are not empty and whose weights don't meet. It takes less than a step.
    """
    try:
        there = connected(network, mask, shape[1:])
    except (ValueError, RuntimeError):      # a network whose paths can't be told, e.g. one that knows float32 alone
        return
    if not there:
        empty = mask.empty()
        raise Degenerate("no path is left from the code to the output: " + (
            f"{len(empty)} of {len(mask)} layers are empty, {empty[0]} first" if empty else
            "the kept weights of the layers don't meet"))
