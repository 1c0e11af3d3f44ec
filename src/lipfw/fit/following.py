"""What is kept of a fit while its steps go by: restorations, the loss, and which step was best or picked."""
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lipfw.errors import number
from lipfw.fit.evaluation import mse, psnr, ssim
from lipfw.fit.stepped import Stepped
from lipfw.fit.stopping import Rule
from lipfw.problem import Problem

_LOSS_TAIL = 100    # a round's loss is the mean over its last steps: one step's is noisy


class Following(Stepped):
    """Steps that give an output for each problem, of which restorations are kept.

    The restoration at step t is the running average of the outputs, x_t = s x_{t-1} + (1 - s) f_t with s = `smoothing`
    (x_1 = f_1), or the output itself for s = 0. Three of them are kept: `peak` (the recorded step with the best PSNR:
    an oracle), `picked` (that of the `rule`) and `final`. All is in buffers, so that it is checkpointed, and nothing is
    read back from the device.
    """

    recorded = ("loss", "psnr", "psnr_raw", "ssim", "variance")
    rule: Rule      # a subclass says which

    def __init__(self, problems: Sequence[Problem], smoothing: float, steps: int, log_every: int, steps_per_batch: int,
                 minutes: float | None):
        super().__init__(steps, log_every, steps_per_batch, minutes)
        self.smoothing = number("fit.smoothing", smoothing, 0, 1, open_high=True)
        self.problems = list(problems)
        for i, p in enumerate(problems):
            for kind in ("average", "peak", "picked"):
                self.register_buffer(f"{kind}{i}", torch.zeros(1, *p.shape))
        self.register_buffer("peak_psnr", torch.tensor(-torch.inf))
        self.register_buffer("peak_step", torch.tensor(0))
        self.register_buffer("recent", torch.zeros(_LOSS_TAIL))             # losses of the last steps, in a ring
        self.register_buffer("now", torch.tensor(0), persistent=False)      # the step that is being done, on the device
        self.register_buffer("begun", torch.tensor(0))                      # the step that the round began after

    def on_fit_start(self) -> None:
        """Follow the module to its device with what only evaluation sees."""
        self.problems = [p if p.image is None else replace(p, image=p.image.to(self.device)) for p in self.problems]

    def on_fit_end(self) -> None:
        """Lightning takes the module back to the CPU after this."""
        self.problems = [p if p.image is None else replace(p, image=p.image.cpu()) for p in self.problems]

    @torch.no_grad()
    def follow(self, outputs: Sequence[Tensor], loss: Tensor) -> None:
        """Update average, pick and the round's loss after the step `now`: what steppers do as the end of their step.

        The same calls at every step, and no number from the host or to it, so that a CUDA graph can hold them.
        """
        done = self.now - self.begun                                # steps of this round
        share = self.share()
        for i, output in enumerate(outputs):
            getattr(self, f"average{i}").lerp_(output, share)
        better = self.rule.update(self.watched(outputs), done)
        self._keep("picked", self.rule.pictures(self.pictures("final")), better)
        self.recent.index_copy_(0, (done % _LOSS_TAIL).view(1), loss.view(1))

    def watched(self, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what the rule looks at: the outputs."""
        return outputs

    def share(self) -> Tensor:
        """Return the share in [0, 1] that the output of the step `now` has in the restoration after it."""
        return (self.now - self.begun == 1).float().clamp(min=1 - self.smoothing)   # 1 at a round's first step

    @property
    def averages(self) -> bool:
        """The restoration is another picture than the output."""
        return self.smoothing > 0

    @torch.no_grad()
    def record(self, outputs: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Take the metrics of the step just done, update the peak, and return the numbers to record."""
        restored = self.pictures("final")
        value = self.mean(psnr, restored)
        better = value > self.peak_psnr
        self._keep("peak", restored, better)
        self.peak_psnr.copy_(torch.where(better, value, self.peak_psnr))
        self.peak_step.copy_(torch.where(better, self.now, self.peak_step))
        raw = self.mean(psnr, outputs) if self.averages else value
        return torch.stack([loss, value, raw, self.mean(ssim, restored), self.rule.variance.float()])

    def reset(self, begin: int = 0) -> None:
        """Start a round after step `begin`: no averages, no picks."""
        super().reset(begin)
        self.begun.fill_(begin)
        self.rule.reset()
        self.peak_psnr.fill_(-torch.inf)
        for buffer in (self.peak_step, self.recent):
            buffer.zero_()

    def round_loss(self) -> float:
        """Return the round's loss: the mean over its last steps, 100 at most."""
        return float(self.recent.sum()) / max(1, min(_LOSS_TAIL, self.step - self.begin))

    def mean(self, metric: Callable, pictures: Sequence[Tensor]) -> Tensor:
        """Return the mean of a metric over the pictures."""
        return torch.stack([metric(p, x) for p, x in zip(self.problems, pictures, strict=True)]).mean()

    def told(self, record: dict) -> str:
        return f"loss {record['loss']:.2e}" + (f" {record['psnr']:.2f} dB" if record["psnr"] == record["psnr"] else "")

    def told_round(self) -> str:
        s = self.summary()
        known = s["psnr_final"] == s["psnr_final"]
        return f"loss {s['loss']:.3e}" + (f", PSNR peak {s['psnr_peak']:.2f} picked {s['psnr_picked']:.2f} final "
                                          f"{s['psnr_final']:.2f} dB" if known else "")

    def _keep(self, kind: str, pictures: Sequence[Tensor], where: Tensor) -> None:
        for i, x in enumerate(pictures):
            kept = getattr(self, f"{kind}{i}")
            torch.where(where, x, kept, out=kept)

    def pictures(self, kind: str) -> list[Tensor]:
        """Return the restorations (1, C, H, W) of the round so far, one a problem: kind is peak, picked or final."""
        return [getattr(self, f"{'average' if kind == 'final' else kind}{i}") for i in range(len(self.problems))]

    def summary(self) -> dict:
        """Return the round's numbers: loss (mean of its last 100 steps), PSNR in dB, SSIM, MSE and steps.

        Means over the pictures; NaN where no clean picture is known. With several pictures, `images` has each one's.
        """
        kinds = ("peak", "picked", "final")
        each = [{f"{name}_{kind}": float(metric(p, self.pictures(kind)[i]))
                 for name, metric in (("psnr", psnr), ("ssim", ssim), ("mse", mse)) for kind in kinds}
                for i, p in enumerate(self.problems)]
        peak_step = int(self.peak_step) or float("nan")
        if not int(self.peak_step):
            each = [{k: float("nan") if k.endswith("_peak") else v for k, v in e.items()} for e in each]
        out = {"loss": self.round_loss()}
        out |= {k: sum(e[k] for e in each) / len(each) for k in each[0]}
        out |= {"step_peak": peak_step, "step_picked": self.begin + int(self.rule.step), "step_first": self.begin + 1,
                "step_last": self.step}
        if self.stopped_by is not None:
            out["stopped_by"] = self.stopped_by
        if len(each) > 1:
            out["images"] = {p.name: e for p, e in zip(self.problems, each, strict=True)}
        return out
