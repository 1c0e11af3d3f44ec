"""A fit in rounds of steps: what every LightningModule here does alike."""
from collections.abc import Callable, Sequence

import pytorch_lightning as pl
from torch import Tensor

from lipfw.errors import InputError, number, whole
from lipfw.fit.budget import Budget
from lipfw.interrupt import asked

MOST = 10 ** 9      # steps: what numbers on the device, and Lightning's, take


class Stepped(pl.LightningModule):
    """Rounds of `steps` optimisation steps: an epoch is a round, a Lightning batch is `steps_per_batch` steps of it.

    So Lightning's own cost is paid once a batch. Steps count from 1; every `log_every`-th is recorded, and the last. A
    subclass does the steps, in `fit_step`, which returns numbers in the order of `recorded` for a step to record;
    `settle` is called before anything looks at what the steps have left.

    A round that has taken `minutes` ends after the step that is being done.
    A fit whose state is kept (`resumable`: a callback sees to that) ends a batch at once when its process is to stop.
    """

    does: str                           # what it is for: a task says the same of itself
    recorded: Sequence[str] = ()        # names of what a record holds besides its step
    shorter = "fit.steps="              # options that make a fit take less time
    length_by = ""                      # options that make the number of steps, where it is not one itself
    cpu_only = False                    # a GPU, if there is one, is of no use

    def __init__(self, steps: int, log_every: int, steps_per_batch: int, minutes: float | None = None):
        super().__init__()
        self.automatic_optimization = False
        self.steps = whole("fit.steps", steps, least=1, most=MOST)
        self.log_every = whole("fit.log_every", log_every, least=1)
        self.steps_per_batch = whole("fit.steps_per_batch", steps_per_batch, least=1)
        self.begin = 0                                      # the step that the round began after
        self.step = 0                                       # steps done, counted from the start of round 0's
        self.stopped = False                                # before all steps are done
        self.stopped_by: str | None = None                  # then: rule, time, ...
        self.budget = Budget(None if minutes is None else 60 * number("fit.minutes", minutes, 0, 1e6, open_low=True))
        self.resumable = False
        self.cut = 0                                        # batches of this round that a request to stop has ended
        self.after_step: list[Callable[[int], None]] = []   # called with the number of steps done
        self.records: list[dict] = []                       # of the last batch, read by callbacks at its end
        self.keep: frozenset[int] = frozenset()             # steps whose pictures are kept, too
        self.kept: list[tuple[int, list[Tensor]]] = []      # those of the last batch, taken by callbacks at its end

    @property
    def length(self) -> str:
        """The number of a round's steps in the words of a user's options."""
        return f"the {self.steps:,} steps of {self.length_by}" if self.length_by else f"fit.steps={self.steps}"

    def fit_step(self) -> Tensor | None:
        """Do one optimisation step and count it; returns the recorded numbers of the step if it is one to record."""
        raise NotImplementedError

    def estimate(self, densities: Sequence[float]) -> tuple[list[float], str | None]:
        """Return the time in seconds of a step in each round, by its density, and why it is not less, if that is known.
        """
        raise NotImplementedError

    def told(self, record: dict) -> str:
        """Return a record in a few words, for a progress bar."""
        raise NotImplementedError

    def told_round(self) -> str:
        """Return what a round has come to, in a line."""
        raise NotImplementedError

    def stop(self, why: str) -> None:
        """End the round after the step that is being done."""
        if not self.round_over:
            self.stopped, self.stopped_by = True, why

    def settle(self) -> None:
        """Bring networks and optimisers up to date, whatever does the steps."""

    def reset(self, begin: int = 0) -> None:
        """Start a round after step `begin`."""
        self.begin = self.step = begin
        self.stopped, self.stopped_by, self.cut = False, None, 0
        self.budget.restart()

    # --- what Lightning calls

    def train_dataloader(self) -> list[int]:
        # one more than the steps need, and than those cut short: Lightning takes a round for done after its last batch
        return [0] * (-(-self.steps // self.steps_per_batch) + self.cut + 1)

    def on_train_epoch_start(self) -> None:
        if self.round_over:
            self.reset()

    def training_step(self, batch, batch_idx) -> None:
        pending = []
        self.budget.start()
        for _ in range(self.steps_per_batch):
            if self.round_over:     # the batches that a round has left over do nothing
                break
            if self.resumable and asked():
                self.cut += 1
                break
            record = self.fit_step()
            if record is not None:
                pending.append((self.step, record))
            if self.budget.over:
                self.stop("time")
            for hook in self.after_step:
                hook(self.step)
        if self.round_over:
            self.settle()
        # one look at the device a batch
        self.records = [{"step": s, **{k: float(v) for k, v in zip(self.recorded, r.tolist(), strict=True)}}
                        for s, r in pending]

    def state_dict(self, *args, **kwargs) -> dict:
        self.settle()       # Lightning reads the optimisers' state after this
        return super().state_dict(*args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["round"] = {"step": self.step, "begin": self.begin, "stopped": self.stopped, "cut": self.cut,
                               "steps_per_batch": self.steps_per_batch,     # Lightning counts the batches of a round
                               "stopped_by": self.stopped_by}
        if self.budget.seconds is not None:
            checkpoint["used"] = self.budget.used

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        for name, value in checkpoint["round"].items():
            setattr(self, name, value)
        self.budget.restart(checkpoint.get("used", 0.0))

    # --- where the round is

    @property
    def to_record(self) -> bool:
        """The step just done is one to record."""
        return self.step % self.log_every == 0 or self.step >= self.steps

    @property
    def round_over(self) -> bool:
        """All steps of this round are done."""
        return self.stopped or self.step >= self.steps

    @property
    def step_in_round(self) -> int:
        """The step that the running round is at; between two rounds that at which one begins, 0."""
        return 0 if self.round_over else self.step

    def records_between(self, begin: int, end: int) -> int:
        """Return how many of the steps begin + 1 ... end are recorded."""
        return end // self.log_every - begin // self.log_every + (end == self.steps and end % self.log_every > 0)


def diverged(module: Stepped, round_: int, step: int, what: str) -> InputError:
    """Return the error for a fit whose loss, or whose weights, are no longer finite."""
    return InputError(f"the fit diverged in round {round_} before step {step}: its {what} no longer finite; use a "
                      f"smaller fit.lr than {module.lr:g}")
