"""The loop that published code runs: what all speed-ups are measured against.

What it does each step follows the public scripts of the deep image prior and of its lottery tickets: nested modules,
jitter drawn into a buffer, torch's default Adam, weight * mask in the forward pass, an average of the outputs, two
PSNRs by scikit-image on the CPU, and a copy of all parameters to the CPU to fall back to when the loss jumps. (On a CPU
that copy is free, there and here: `.cpu()` returns the tensor itself.)
"""
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn
from torch.nn.utils import prune

from benchmarks.plain_dip import Scale
from lipfw.mask import Mask


def nested(outputs: int, channels: int, depth: int, mask: Mask | None = None) -> nn.Sequential:
    """Return the hourglass as nested modules, pruned by a mask of lipfw's, which lists convolutions in the same order.
    """
    network = nn.Sequential(Scale(32, channels, depth), nn.Conv2d(channels, outputs, 1), nn.Sigmoid())
    if mask is not None:
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        for convolution, kept in zip(convolutions, mask.values(), strict=True):
            prune.custom_from_mask(convolution, "weight", kept)
    return network


class Published:
    """A fit of one picture, step by step."""

    def __init__(self, clean: Tensor, noisy: Tensor, channels: int, depth: int, mask: Mask | None, device: str):
        self.clean, self.noisy = (x[0].numpy() for x in (clean, noisy))
        self.target = noisy.to(device)
        self.network = nested(clean.shape[1], channels, depth, mask).to(device)
        self.code = (torch.rand(1, 32, *clean.shape[2:]) * 0.1).to(device)
        self.noise = self.code.clone()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.average, self.last, self.best = None, [], 0.0

    def step(self) -> None:
        """Do one optimisation step and its bookkeeping."""
        self.optimizer.zero_grad()
        out = self.network(self.code + self.noise.normal_() * (1 / 30))
        seen = out.detach()
        self.average = seen if self.average is None else self.average * 0.99 + seen * 0.01
        nn.functional.mse_loss(out, self.target).backward()
        peak_signal_noise_ratio(self.noisy, seen.cpu().numpy()[0], data_range=1.0)
        psnr = peak_signal_noise_ratio(self.clean, self.average.cpu().numpy()[0], data_range=1.0)
        self.best = max(self.best, psnr)
        self.last = [p.detach().cpu() for p in self.network.parameters()]
        self.optimizer.step()
