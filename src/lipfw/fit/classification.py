"""Training a classifier in rounds, as a LightningModule."""
import copy
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lipfw.errors import InputError, choice, number, whole
from lipfw.fit.restoration import PRECISIONS
from lipfw.fit.stepped import Stepped
from lipfw.fit.stepping import forget
from lipfw.mask import Mask
from lipfw.streams import stream

_PROBED = 8     # pictures in the step that tells how long one takes on a CPU, if the whole batch would take longer
_SHORT = 1.0    # than so many seconds


class Classification(Stepped):
    """min over theta of the cross-entropy of f(x; theta), by SGD with momentum and weight decay on all parameters.

    A round is `epochs` passes over the training pictures in batches of `batch`, in another order each time; what fills
    no batch at the end of a pass is left out (of fewer pictures than a batch all are one). After each part of the
    epochs that `drops` has, the learning rate falls to a tenth. Pictures, (N, C, S, S) of uint8 with labels (N,), stay
    on the device and are made x / 127.5 - 1: mean and deviation 0.5, as published. With `precision` bf16 the network
    computes in bfloat16; cross-entropy and optimiser stay in float32.

    Every `judge_every` steps and at the end of a round the network is tested, with batch norm's running statistics:
    `accuracy` is the percentage of test pictures that it tells right. The best of a round, `accuracy_best`, is chosen
    by the test pictures themselves: an oracle. The round's loss and `train_accuracy` are means over its last epoch.
    The defaults are those of the published code on CIFAR-10: 182 epochs, drops after 91 and 136.
    """

    does = "trains a classifier"
    recorded = ("loss", "train_accuracy", "accuracy")
    kernel_name = "dense"       # torch does all the work
    shorter = "fit.epochs=, image.size=, prior.channels="
    length_by = "fit.epochs="

    def __init__(self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], network: nn.Module, *,
                 epochs: int = 182, batch: int = 256, lr: float = 0.01, drops: Sequence[float] = (0.5, 0.75),
                 momentum: float = 0.9, weight_decay: float = 2e-4, judge_every: int = 100, seed: int = 0,
                 log_every: int = 10, steps_per_batch: int = 10, precision: int | str = 32):
        self.batch = min(whole("fit.batch", batch, least=1), len(train[0]))
        self.epoch_steps = len(train[0]) // self.batch
        super().__init__(whole("fit.epochs", epochs, least=1) * self.epoch_steps, log_every, steps_per_batch)
        self.lr = number("fit.lr", lr, 0, 10, open_low=True)
        self.drops = [int(round(part * epochs, 9)) for part in _parts(drops)]      # 57 % of 100 is 57
        self.momentum = number("fit.momentum", momentum, 0, 1, open_high=True)
        self.weight_decay = number("fit.weight_decay", weight_decay, 0, 1)
        self.judge_every, self.seed = whole("fit.judge_every", judge_every, least=1), whole("fit.seed", seed, least=0)
        self.precision = choice("trainer.precision", str(precision), PRECISIONS)
        self.network = network
        for name, (pixels, labels) in (("train", train), ("test", test)):
            self.register_buffer(f"{name}_pixels", pixels, persistent=False)
            self.register_buffer(f"{name}_labels", labels, persistent=False)
        self.register_buffer("recent", torch.zeros(2, self.epoch_steps))    # loss and accuracy of an epoch's steps
        self.register_buffer("accuracy", torch.tensor(torch.nan))           # of the last test
        self.register_buffer("best", torch.tensor(-torch.inf))
        self.register_buffer("best_step", torch.tensor(0))
        self.mask: Mask | None = None       # None: dense
        self._order: tuple[int, Tensor] | None = None       # of the pictures in an epoch

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=self.lr, momentum=self.momentum,
                               weight_decay=self.weight_decay, fused=True)

    # --- the method

    def order(self, epoch: int) -> Tensor:
        """Return the order that the training pictures have in an epoch, of each round the same."""
        if self._order is None or self._order[0] != epoch or self._order[1].device != self.train_pixels.device:
            order = torch.randperm(len(self.train_pixels), generator=stream(self.seed, "order", epoch))
            self._order = epoch, order.to(self.train_pixels.device)
        return self._order[1]

    def logits(self, pixels: Tensor) -> Tensor:
        """Return what the network says of pictures (B, C, S, S), uint8: (B, classes), float32."""
        x = pixels.float().div_(127.5).sub_(1)
        if self.precision == "32":
            return self.network(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.network(x.contiguous(memory_format=torch.channels_last)).float()

    def loss(self, step: int, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy on the batch of the step after `step` steps, or on `count` pictures of it, and the
        percentage of them that is told right.
        """
        epoch, place = divmod(step, self.epoch_steps)
        chosen = self.order(epoch)[place * self.batch:(place + 1) * self.batch][:count]
        logits, labels = self.logits(self.train_pixels[chosen]), self.train_labels[chosen]
        return cross_entropy(logits, labels), (logits.detach().argmax(1) == labels).float().mean() * 100

    def losses(self, draw: int = 0) -> Iterator[Tensor]:
        """Yield the loss on the batch of step `draw`: what pruners at initialisation look at."""
        yield self.loss(draw)[0]

    def code_shape(self) -> torch.Size:
        """Return the shape (1, C, S, S) of a picture."""
        return torch.Size((1, *self.train_pixels.shape[1:]))

    def fit_step(self) -> Tensor | None:
        optimizer, epoch = self.optimizers(use_pl_optimizer=False), self.step // self.epoch_steps
        for group in optimizer.param_groups:
            group["lr"] = self.lr * 0.1 ** sum(epoch >= drop for drop in self.drops)
        optimizer.zero_grad(set_to_none=True)
        loss, right = self.loss(self.step)
        loss.backward()
        if self.mask is not None:
            self._mask_gradients()
        optimizer.step()
        self.step += 1
        place = (self.step - self.begin) % self.epoch_steps
        self.recent[0, place], self.recent[1, place] = loss.detach(), right
        judged = self.step % self.judge_every == 0 or self.round_over
        if judged:
            self.judge()
        if not self.to_record:
            return None
        return torch.stack([loss.detach(), right, self.accuracy if judged else torch.full_like(right, torch.nan)])

    # --- how good it is

    @torch.no_grad()
    def judge(self) -> None:
        """Test the network as it is."""
        self.network.eval()
        right = sum((self.logits(x).argmax(1) == labels).sum() for x, labels in
                    zip(self.test_pixels.split(self.batch), self.test_labels.split(self.batch), strict=True))
        self.network.train()
        self.accuracy.copy_(100 * right / len(self.test_pixels))
        better = self.accuracy > self.best
        self.best.copy_(torch.where(better, self.accuracy, self.best))
        self.best_step.copy_(torch.where(better, torch.full_like(self.best_step, self.step), self.best_step))

    def round_loss(self) -> float:
        """Return the mean loss of the round's last epoch."""
        return self._mean(0)

    def _mean(self, row: int) -> float:
        return float(self.recent[row].sum()) / max(1, min(self.epoch_steps, self.step - self.begin))

    def summary(self) -> dict:
        """Return the round's numbers: loss, accuracies in percent, and steps."""
        return {"loss": self.round_loss(), "train_accuracy": self._mean(1), "accuracy": float(self.accuracy),
                "accuracy_best": float(self.best), "step_best": int(self.best_step), "step_first": self.begin + 1,
                "step_last": self.step}

    def estimate(self, densities: Sequence[float]) -> tuple[list[float], str | None]:
        """Return the time of a step, the same for all rounds, from steps of a copy; of few pictures, if that is long.
        """
        probe = copy.copy(self)
        probe._modules = {"network": copy.deepcopy(self.network)}

        def seconds(count: int) -> float:
            times = []
            for _ in range(2):      # the first pays for memory and kernels
                started = time.perf_counter()
                probe.loss(0, count)[0].backward()
                if self.device.type == "cuda":
                    torch.cuda.current_stream(self.device).synchronize()
                times.append(time.perf_counter() - started)
            return min(times) / count * self.batch

        long = seconds(min(_PROBED, self.batch))
        return [seconds(self.batch) if long < _SHORT or self.device.type == "cuda" else long] * len(densities), None

    def told(self, record: dict) -> str:
        return f"loss {record['loss']:.2e}" + (f" {now:.1f} %" if (now := float(self.accuracy)) == now else "")

    def told_round(self) -> str:
        s = self.summary()
        return f"loss {s['loss']:.3e}, accuracy {s['accuracy']:.2f} %, best {s['accuracy_best']:.2f} %"

    # --- rounds

    def start_round(self, round_: int) -> None:
        """Nothing of a training belongs to a round alone."""

    def reset(self, begin: int = 0) -> None:
        """Start a round after step `begin`: nothing is tested yet."""
        super().reset(begin)
        self.recent.zero_()
        self.accuracy.fill_(torch.nan)
        self.best.fill_(-torch.inf)
        self.best_step.zero_()

    def snapshot(self) -> dict:
        """Return a copy of what a rewind goes back to: the network with its buffers, and the optimiser."""
        return copy.deepcopy({"network": self.network.state_dict(),
                              "optimizer": self.optimizers(use_pl_optimizer=False).state_dict()})

    def rewind(self, snapshot: dict, begin: int = 0) -> None:
        """Go back to a snapshot, for a round that goes on after step `begin`."""
        self.network.load_state_dict(snapshot["network"])
        self.optimizers(use_pl_optimizer=False).load_state_dict(copy.deepcopy(snapshot["optimizer"]))
        self.reset(begin)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights of the network than those of the rewind."""
        self.network.load_state_dict(weights)

    def hold(self, mask: Mask | None) -> None:
        """Keep the weights that a mask removes, zero now, at zero in the steps to come; None: keep all."""
        self.mask = mask
        if mask is not None:
            self._mask_gradients = mask.gradients(self.network)
            forget(self.optimizers(use_pl_optimizer=False), self.network, mask)     # momentum would move them


def _parts(drops) -> list[float]:
    """Return fit.drops as a list of numbers in (0, 1]. Raises InputError for what is none."""
    if isinstance(drops, str) or not isinstance(drops, Sequence):
        raise InputError(f"fit.drops must be a list such as [0.5,0.75], [] for a constant learning rate, got {drops!r}")
    return [number("each of fit.drops", part, 0, 1, open_low=True, hint="it is a part of the epochs") for part in drops]
