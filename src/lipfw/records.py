"""What every run writes while it goes: a line per recorded step, a line and a ticket per round; also to the logger."""
import math
import time
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch import Tensor

from lipfw.errors import InputError
from lipfw.files import append_jsonl, read_jsonl, write_jsonl
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stepped import Stepped, diverged
from lipfw.mask import Mask, prunable
from lipfw.measures import layer_sparsity
from lipfw.ticket import INITIAL, Ticket, save_state, trained_name


class Records(pl.Callback):
    """Write steps.jsonl, rounds.jsonl and tickets/round_NN.safetensors as the rounds go; a subclass adds the pictures.

    Files are the truth and are complete before the checkpoint that counts on them (put the Checkpoint callback after
    this one). When a run is taken up again, records later than its checkpoint are dropped: they will be made again, the
    same. The Trainer's logger, if there is one, gets the same names as steps/... and rounds/....

    `about` is what tickets tell of their origin. No tickets are written where nothing is ever pruned.
    """

    reported = ("loss",)        # numbers of a round's summary that the logger gets

    def __init__(self, folder: Path, pruning: IterativePruning, about: Mapping[str, str]):
        self.folder, self.pruning, self.about = Path(folder), pruning, dict(about)
        self.steps, self.rounds = self.folder / "steps.jsonl", self.folder / "rounds.jsonl"
        self.seconds = 0.0                  # of this round, before it was last interrupted
        self._since = time.monotonic()
        self._initial: str | None = None    # checksum of the weights that rounds start from

    @property
    def prunes(self) -> bool:
        """Weights are removed in some round; else there are no tickets."""
        return min(self.pruning.densities) < 1

    def files(self, round_: Mapping, module: Stepped) -> list[Path]:
        """Return the files that a subclass has written of a round that is done, by its record."""
        return []

    def write(self, round_: int, module: Stepped) -> None:
        """Write what a subclass has to write of a round."""

    def trained(self, module: Stepped) -> Mapping[str, Tensor] | None:
        """Return the weights of a round's end that are to be kept beside its ticket, if any are."""
        return None

    def log_files(self, logger: Logger, record: Mapping) -> None:
        """Give the logger what `write` has written."""

    def on_train_start(self, trainer: pl.Trainer, module: Stepped) -> None:
        round_, step = trainer.current_epoch, module.step_in_round
        rounds = [r for r in read_jsonl(self.rounds) if r["round"] < round_]
        steps = [r for r in read_jsonl(self.steps) if (r["round"], r["step"]) <= (round_, step)]
        spans = [(r["step_first"] - 1, r["step_last"]) for r in rounds] + [(min(module.begin, step), step)]
        self._check(round_, module, rounds, sum(module.records_between(*span) for span in spans), steps)
        write_jsonl(self.rounds, rounds)
        write_jsonl(self.steps, steps)
        self._since = time.monotonic()
        run = getattr(trainer.logger, "experiment", None)
        if hasattr(run, "define_metric"):
            # name by name: the logger's own glob would win over one of ours
            for key in module.recorded:
                run.define_metric(f"steps/{key}", step_metric="steps/iteration")
            for key in self.reported:
                run.define_metric(f"rounds/{key}", step_metric="round" if key == "loss" else "sparsity")
            for name in prunable(self.pruning.network(module)) if self.prunes else ():
                run.define_metric(_layer(name), step_metric="sparsity")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        round_ = trainer.current_epoch
        if module.records:
            _check_finite(module.records[-1]["loss"], round_, module.records[-1]["step"], module)
        append_jsonl(self.steps, [{"round": round_, **plain(r)} for r in module.records])
        if trainer.logger is not None:
            for r in module.records:
                names = {f"steps/{k}": v for k, v in r.items() if k != "step" and math.isfinite(v)}
                iteration = round_ * module.steps + r["step"]
                self._log(trainer.logger, {**names, "steps/iteration": iteration}, round_, iteration)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Stepped) -> None:
        round_, network = trainer.current_epoch, self.pruning.network(module)
        total = sum(p.numel() for p in network.parameters())
        mask, summary = self.pruning.mask, module.summary()
        _check_finite(summary["loss"], round_, summary["step_last"], module)
        record = {"round": round_, "sparsity": round(1 - self.pruning.density(), 6),
                  "params_left": total - (mask.total - mask.count if mask is not None else 0),
                  "empty_layers": len(mask.empty()) if mask is not None else 0,
                  **plain(summary), "kernel": module.kernel_name, "seconds": round(self._elapsed(), 3)}
        self.write(round_, module)
        self._ticket(round_, module)
        write_jsonl(self.rounds, [*read_jsonl(self.rounds), record])
        if trainer.logger is not None:
            names = {f"rounds/{k}": record[k] for k in (*self.reported, "params_left", "seconds")
                     if record.get(k) is not None}
            if self.prunes:
                kept = mask if mask is not None else Mask.ones(network)
                names |= {_layer(name): s for name, s in layer_sparsity(kept).items()}
            self._log(trainer.logger, names, round_, (round_ + 1) * module.steps)
            self.log_files(trainer.logger, record)
        self.seconds, self._since = 0.0, time.monotonic()

    def state_dict(self) -> dict:
        return {"seconds": self._elapsed()}

    def load_state_dict(self, state: dict) -> None:
        self.seconds = state["seconds"]

    def _check(self, round_: int, module: Stepped, rounds: list[dict], recorded: int, steps: list[dict]) -> None:
        """Raise InputError if something is gone that a checkpoint counts on: it would be missing from the result."""
        files = [f for r in rounds for f in self.files(r, module)]
        if self.prunes and round_:
            files += [self.folder / "tickets" / f"round_{r:02d}.safetensors" for r in range(round_)]
        gone = [f for f in files if not f.is_file()]
        gone += [self.rounds] if [r["round"] for r in rounds] != list(range(round_)) else []
        gone += [self.steps] if len(steps) != recorded else []
        if gone:
            raise InputError(f"{gone[0]} is missing or incomplete, and the run can't go on without it; delete "
                             f"{self.folder / 'checkpoint*.ckpt'} to start the run over")

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self._since

    def _ticket(self, round_: int, module: Stepped) -> None:
        if not self.prunes:
            return
        tickets = self.folder / "tickets"
        tickets.mkdir(exist_ok=True)
        if self._initial is None:
            self._initial = save_state(tickets / INITIAL, self.pruning.start["network"])
        mask = self.pruning.mask if self.pruning.mask is not None else Mask.ones(self.pruning.network(module))
        about = {**self.about, "round": str(round_), "initial": self._initial}
        if (trained := self.trained(module)) is not None:
            about["trained"] = save_state(tickets / trained_name(round_), trained)
        Ticket(mask, about).save(tickets / f"round_{round_:02d}.safetensors")

    def _log(self, logger: Logger, names: dict, round_: int, iteration: int) -> None:
        logger.log_metrics({**names, "round": round_, "sparsity": 1 - self.pruning.density()}, step=iteration)


def _layer(weight: str) -> str:
    """Return what a layer's sparsity is called in the logger."""
    return f"layers/{weight.removesuffix('.weight')}"


def _check_finite(loss: float, round_: int, step: int, module: Stepped) -> None:
    if not math.isfinite(loss):
        raise diverged(module, round_, step, "loss is")


def plain(record: Mapping) -> dict:
    """Return a record fit for JSON: None for NaN, and for the infinite PSNR of a restoration without any error."""
    return {k: plain(v) if isinstance(v, Mapping) else None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in record.items()}
