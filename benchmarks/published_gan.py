"""What published code does with a generator: the median-of-means loop, a network in plain operators, WGAN-GP.

The loops follow the public scripts: the matrix is copied and its rows permuted for either player's move, an optimiser
each, both pictures made anew for each move, and gradients of all weights taken along, since nobody freezes them.
"""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lipfw.fit.adversarial import BETAS
from lipfw.gan.network import Critic, Generator
from lipfw.problem import Problem

BUCKET = 20


class PlainGenerator(Generator):
    """The same function of the same weights, operator by operator."""

    def forward(self, z: Tensor) -> Tensor:
        def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
            return F.conv2d(x, layer.weight, layer.bias, padding=layer.padding) * layer.gain

        def norm(x: Tensor) -> Tensor:
            return x * (x ** 2).mean(1, keepdim=True).add(1e-8).rsqrt()

        first = self.format_layer
        x = F.leaky_relu(F.linear(norm(z), first.weight, first.bias) * first.gain, 0.2)
        x = norm(x.view(-1, self.channels[0], 4, 4))
        x = norm(F.leaky_relu(conv(self.group_scale0[0], x), 0.2))
        for layers in self.scale_layers:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            for layer in layers:
                x = norm(F.leaky_relu(conv(layer, x), 0.2))
        return conv(self.to_rgb_layers[-1], x)


class Game:
    """The median-of-means game against one problem of compressed sensing, move by move."""

    def __init__(self, generator: PlainGenerator, problem: Problem):
        self.generator, self.problem = generator, problem
        self.codes = [torch.randn(1, generator.latent, requires_grad=True) for _ in range(2)]
        self.optimizers = [torch.optim.Adam([z], lr=0.01) for z in self.codes]

    def step(self) -> None:
        """Let both move."""
        for player, sign in ((0, 1), (1, -1)):
            order = torch.randperm(len(self.problem.operator.matrix))
            matrix, y = self.problem.operator.matrix.clone()[order], self.problem.measurement[0].clone()[order]
            ours, theirs = (((matrix @ self.generator(z).flatten() - y) ** 2).view(-1, BUCKET).mean(1)
                            for z in self.codes)
            value = (ours - theirs)
            middle = value.argsort()[len(value) // 2]
            self.optimizers[player].zero_grad()
            (sign * value[middle]).backward()
            self.optimizers[player].step()


class Training:
    """WGAN-GP in 32 bits: the penalty at every pair, and the critic's gradients taken along with the generator's."""

    def __init__(self, generator: PlainGenerator, critic: Critic, pixels: Tensor):
        self.generator, self.critic, self.pixels = generator, critic, pixels.float() / 127.5 - 1
        self.average = [p.detach().clone() for p in generator.parameters()]
        self.of_d, self.of_g = (torch.optim.Adam(n.parameters(), lr=1e-3, betas=BETAS) for n in (critic, generator))

    def step(self) -> None:
        """Train the critic, then the generator."""
        real = self.pixels
        self.of_d.zero_grad()
        made = self.generator(torch.randn(len(real), self.generator.latent)).detach()
        of_real, of_made = self.critic(real), self.critic(made)
        share = torch.rand(len(real), 1, 1, 1)
        between = (share * real + (1 - share) * made).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        penalty = ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
        (of_made.mean() - of_real.mean() + 10 * penalty + 1e-3 * (of_real ** 2).mean()).backward()
        self.of_d.step()
        self.of_g.zero_grad()
        self.of_d.zero_grad()
        (-self.critic(self.generator(torch.randn(len(real), self.generator.latent))).mean()).backward()
        self.of_g.step()
        with torch.no_grad():
            for mean, now in zip(self.average, self.generator.parameters(), strict=True):
                mean.mul_(0.999).add_(now, alpha=0.001)
