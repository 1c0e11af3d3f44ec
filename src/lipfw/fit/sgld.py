"""Sampling a prior's weights instead of fitting them: the Bayesian deep image prior."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, number, step_or_percentage, steps_of, whole
from lipfw.fit.langevin import WeightNoise
from lipfw.fit.restoration import Restoration
from lipfw.mask import Mask
from lipfw.prior.prior import Prior
from lipfw.problem import Problem


class Langevin(Restoration):
    """Stochastic gradient Langevin dynamics: noise on the convolution weights after each step of Adam.

    The restoration is the posterior mean, the average of the raw outputs at each `thin`-th step after the first
    `burn_in` steps (a number or a percentage of them), and before the first of these samples the output itself. The
    noise keeps it from fitting that of the picture, so that the last step is what is picked.

    The noise has the standard deviation `noise` * `lr`; with a mask kept weights alone get it. Weights, biases and
    batch norm decay by `weight_decay`. Other options are those of `Restoration`.
    Source: Cheng, Gadelha, Maji, Sheldon, A Bayesian perspective on the deep image prior, CVPR 2019, with the numbers
    of its code: 20,000 steps of which 7,000 are burn-in, noise of twice the learning rate, every 50th output.
    """

    rule_by_default = "last"

    def __init__(self, problems: Sequence[Problem], prior: Prior, *, steps: int = 20_000, noise: float = 2.0,
                 burn_in: int | str = "35%", thin: int = 50, weight_decay: float = 5e-8, **options):
        if prior.fits == "code":
            raise InputError("fit=sgld samples the weights of a network, and this prior's code is sought; use "
                             "prior=skip, or fit=restoration")
        super().__init__(problems, prior, steps=steps, smoothing=0.0, **options)
        self.noise = number("fit.noise", noise, 0, 1e3)
        self.weight_decay = number("fit.weight_decay", weight_decay, 0, 1)
        self.burn_in = steps_of(step_or_percentage("fit.burn_in", burn_in), self.steps)
        self.thin = whole("fit.thin", thin, least=1)
        if (self.steps - 1) // thin <= self.burn_in // thin:
            raise InputError(f"fit.burn_in={burn_in} and fit.thin={thin} leave no sample in fit.steps={steps}; use "
                             "more steps, less burn-in, or a smaller fit.thin")

    def optimizer_of(self, prior: Prior) -> torch.optim.Adam:
        return torch.optim.Adam(prior.unknowns(), lr=self.lr, weight_decay=self.weight_decay, fused=True)

    def weight_noise(self, network: nn.Module, mask: Mask | None) -> WeightNoise | None:
        return WeightNoise(network, mask, self.noise * self.lr, self.prior.seed) if self.noise else None

    def share(self) -> Tensor:
        """Return 1 up to the first sample, 1/k at the k-th, and 0 between two of them."""
        first = torch.clamp(self.begun, min=self.burn_in)       # a round may begin after the burn-in
        iteration = self.now - 1                                # counted from 0, as published
        samples = iteration // self.thin - first // self.thin   # taken, with this one if it is one
        share = (iteration % self.thin == 0) / samples.clamp(min=1)
        return torch.where(samples < 1, 1.0, share)

    @property
    def averages(self) -> bool:
        return True
