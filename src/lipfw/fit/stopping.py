"""Picking a step, and a round, without the clean picture."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WindowedVariance(nn.Module):
    """The ES-WMV rule: pick the step where the variance of the last outputs is smallest (Wang et al., 2021).

    WMV_t = 1/W sum_w ||x_{t-w} - mean||^2 / n over the window of the last W outputs. The pick stands once the minimum
    has not improved for `patience` steps. Constant work a step, from running sums; all state is in buffers, so that it
    is checkpointed and nothing is read back from the device.

    `values` is n, the number of output values; of more than MOST_VALUES every k-th is watched, so that the window takes
    26 MB at most.
    """

    MOST_VALUES = 65_536

    def __init__(self, values: int, window: int = 100, patience: int = 1000):
        super().__init__()
        self.window, self.patience = window, patience
        self.stride = -(-values // self.MOST_VALUES)
        n = -(-values // self.stride)
        self.register_buffer("outputs", torch.zeros(window, n))
        self.register_buffer("squares", torch.zeros(window, dtype=torch.float64))
        self.register_buffer("sum", torch.zeros(n, dtype=torch.float64))
        self.register_buffer("variance", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("least", torch.tensor(torch.inf, dtype=torch.float64))
        self.register_buffer("step", torch.tensor(0))

    def reset(self) -> None:
        """Forget everything: a new round starts."""
        for buffer in (self.outputs, self.squares, self.sum, self.step):
            buffer.zero_()
        self.variance.fill_(torch.nan)
        self.least.fill_(torch.inf)

    def update(self, outputs: Sequence[Tensor], step: Tensor) -> Tensor:
        """Take the outputs of a step (1, 2, ...); returns a boolean scalar, True if this step is the pick so far.

        Until the window is full, the latest step is the pick. `step` is a whole number on the outputs' device, and
        nothing here depends on its value but numbers: the same calls do every step, so that a CUDA graph can hold them.
        """
        x = torch.cat([o.flatten() for o in outputs])[::self.stride]
        slot = ((step - 1) % self.window).view(1)
        exact = x.double()
        self.sum += exact - self.outputs.index_select(0, slot)[0].double()
        self.outputs.index_copy_(0, slot, x[None])
        self.squares.index_copy_(0, slot, exact.square().sum()[None])
        full = step >= self.window
        mean = self.sum / self.window
        variance = (self.squares.sum() / self.window - mean.square().sum()) / x.numel()
        better = full & (variance < self.least) & ((step - self.step <= self.patience) | torch.isinf(self.least))
        torch.where(full, variance, self.variance, out=self.variance)
        torch.where(better, variance, self.least, out=self.least)
        better |= ~full
        torch.where(better, step, self.step, out=self.step)
        return better


def last_before_rises(losses: Sequence[float], rises: int = 2) -> int:
    """Return the round before the loss rises `rises` times in a row; the last round if it never does.

    Pruning may go on while the fit to the measurement gets no worse; no clean picture is needed (the lottery image
    prior, appendix B).

    >>> last_before_rises([5.0, 4.0, 4.1, 3.9, 4.0, 4.2, 4.5])
    3
    """
    run = 0
    for r in range(1, len(losses)):
        run = run + 1 if losses[r] > losses[r - 1] else 0
        if run == rises:
            return r - rises
    return len(losses) - 1
