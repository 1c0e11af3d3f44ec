"""Picking a step, and a round, without the clean picture."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

RULES = ("wmv", "emv", "holdout", "last")      # the last one never ends a fit


def make_rule(name: str, shapes: Sequence[torch.Size], window: int, patience: int) -> "Rule":
    """Return the rule that picks a step for pictures of these shapes: wmv, emv, holdout or last."""
    if name == "last":
        return Last(patience)
    if name == "holdout":
        return HeldOutError(patience)
    if name == "emv":
        return MovingVariance(shapes, patience)
    return WindowedVariance(sum(torch.Size(s).numel() for s in shapes), window, patience)


class Rule(nn.Module):
    """Pick the step where a variance of what is watched is smallest; a subclass says which, in `update`.

    The pick stands once the minimum has not improved for `patience` steps. All state is in buffers, so that it is
    checkpointed and nothing is read back from the device.
    """

    watches = "outputs"     # or "residuals": of the measured values that the loss leaves out

    def __init__(self, patience: int):
        super().__init__()
        self.patience = patience
        self.register_buffer("variance", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("least", torch.tensor(torch.inf, dtype=torch.float64))
        self.register_buffer("step", torch.tensor(0))       # the pick so far

    def reset(self) -> None:
        """Forget everything: a new round starts."""
        self.variance.fill_(torch.nan)
        self.least.fill_(torch.inf)
        self.step.zero_()

    def update(self, outputs: Sequence[Tensor], step: Tensor) -> Tensor:
        """Take the outputs of a step (1, 2, ...); returns a boolean scalar, True if this step is the pick so far.

        `step` is a whole number on the outputs' device, and nothing here depends on its value but numbers: the same
        calls do every step, so that a CUDA graph can hold them.
        """
        raise NotImplementedError

    def pick(self, variance: Tensor, step: Tensor, begun: Tensor) -> Tensor:
        """Take the variance at a step; returns whether this step is the pick so far.

        Until the variance means something, as `begun` says, the latest step is the pick.
        """
        better = begun & (variance < self.least) & ~self.over(step - 1)
        torch.where(begun, variance, self.variance, out=self.variance)
        torch.where(better, variance, self.least, out=self.least)
        better |= ~begun
        torch.where(better, step, self.step, out=self.step)
        return better

    def over(self, step: Tensor) -> Tensor:
        """Return a boolean scalar: after this step the pick stands, and no later one can be picked."""
        return (step - self.step >= self.patience) & torch.isfinite(self.least)

    def pictures(self, averages: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what is kept as the answer of the latest step: the restorations of the fit as they are."""
        return averages


class Last(Rule):
    """Pick the latest step, whatever the outputs are."""

    def update(self, outputs: Sequence[Tensor], step: Tensor) -> Tensor:
        return self.pick(self.variance, step, torch.zeros_like(step, dtype=torch.bool))


class WindowedVariance(Rule):
    """The ES-WMV rule: pick the step where the variance of the last outputs is smallest (Wang et al., 2021).

    WMV_t = 1/W sum_w ||x_{t-w} - mean||^2 / n over the window of the last W outputs, from step W on. Constant work a
    step, from running sums.

    `values` is n, the number of output values; of more than MOST_VALUES every k-th is watched, so that the window takes
    26 MB at most.
    """

    MOST_VALUES = 65_536

    def __init__(self, values: int, window: int = 100, patience: int = 1000):
        super().__init__(patience)
        self.window = window
        self.stride = -(-values // self.MOST_VALUES)
        n = -(-values // self.stride)
        self.register_buffer("outputs", torch.zeros(window, n))
        self.register_buffer("squares", torch.zeros(window, dtype=torch.float64))
        self.register_buffer("sum", torch.zeros(n, dtype=torch.float64))

    def reset(self) -> None:
        super().reset()
        for buffer in (self.outputs, self.squares, self.sum):
            buffer.zero_()

    def update(self, outputs: Sequence[Tensor], step: Tensor) -> Tensor:
        x = torch.cat([o.flatten() for o in outputs])[::self.stride]
        slot = ((step - 1) % self.window).view(1)
        exact = x.double()
        self.sum += exact - self.outputs.index_select(0, slot)[0].double()
        self.outputs.index_copy_(0, slot, x[None])
        self.squares.index_copy_(0, slot, exact.square().sum()[None])
        mean = self.sum / self.window
        variance = (self.squares.sum() / self.window - mean.square().sum()) / x.numel()
        return self.pick(variance, step, step >= self.window)


class MovingVariance(Rule):
    """The ES-EMV rule: the same with exponential moving averages, and no window (Wang et al., 2021, Algorithm 2).

    E_t = E_{t-1} + a d with d = x_t - E_{t-1} (E_1 = x_1), clipped to [0, 1], and V_t = (1 - a)(V_{t-1} + a |d|^2 / n)
    (V_1 = 0), with a = 0.1, compared from step FIRST on. The answer is E, the moving average of the outputs itself.
    """

    RATE, FIRST = 0.1, 100

    def __init__(self, shapes: Sequence[torch.Size], patience: int = 1000):
        super().__init__(patience)
        self.count = len(shapes)
        for i, shape in enumerate(shapes):
            self.register_buffer(f"mean{i}", torch.zeros(1, *shape))
        self.register_buffer("moving", torch.tensor(0.0, dtype=torch.float64))

    def reset(self) -> None:
        super().reset()
        self.moving.zero_()

    def update(self, outputs: Sequence[Tensor], step: Tensor) -> Tensor:
        first = step == 1
        squares = 0
        for mean, x in zip(self.pictures(outputs), outputs, strict=True):
            torch.where(first, x, mean, out=mean)
            difference = x - mean
            mean.add_(difference, alpha=self.RATE).clamp_(0, 1)
            squares = squares + difference.double().square().sum()
        n = sum(x.numel() for x in outputs)
        self.moving.add_(self.RATE * squares / n).mul_(1 - self.RATE)
        return self.pick(self.moving, step, step >= self.FIRST)

    def pictures(self, averages: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return the moving averages (1, C, H, W) of the outputs."""
        return [getattr(self, f"mean{i}") for i in range(self.count)]


class HeldOutError(Rule):
    """Pick the step whose restoration agrees best with the measured values that the loss leaves out.

    Their mean squared error is that of the restoration there plus the noise's, which no step can know: it rises once
    the fit begins to follow the noise. It is smoothed, e_t = e_{t-1} + RATE (r_t - e_{t-1}) (e_1 = r_1), and compared
    from step FIRST on.
    Source: Ding, Qin, Jiang, Zhou, Zhu, A validation approach to over-parameterized matrix and image recovery, 2022.
    """

    RATE, FIRST = 0.1, 50
    watches = "residuals"

    def __init__(self, patience: int = 1000):
        super().__init__(patience)
        self.register_buffer("error", torch.tensor(0.0, dtype=torch.float64))

    def reset(self) -> None:
        super().reset()
        self.error.zero_()

    def update(self, outputs: Sequence[Tensor], step: Tensor) -> Tensor:
        """Take the residuals, at the values left out, of the restoration after a step; returns as any rule does."""
        error = torch.cat([r.flatten() for r in outputs]).double().square().mean()
        smooth = torch.where(step == 1, error, self.error.lerp(error, self.RATE))
        self.error.copy_(smooth)
        return self.pick(smooth, step, step >= self.FIRST)


def rises(losses: Sequence[float]) -> int:
    """Return how many times in a row the last losses have risen.

    >>> rises([5.0, 4.0, 4.1, 4.2])
    2
    """
    run = 0
    for before, after in zip(losses[:-1], losses[1:], strict=True):
        run = run + 1 if after > before else 0
    return run


def last_before_rises(losses: Sequence[float], patience: int = 2) -> int:
    """Return the round before the loss rises `patience` times in a row; the last round if it never does.

    Pruning may go on while the fit to the measurement gets no worse; no clean picture is needed (the lottery image
    prior, appendix B).

    >>> last_before_rises([5.0, 4.0, 4.1, 3.9, 4.0, 4.2, 4.5])
    3
    """
    for r in range(len(losses)):
        if rises(losses[:r + 1]) == patience:
            return r - patience
    return len(losses) - 1
