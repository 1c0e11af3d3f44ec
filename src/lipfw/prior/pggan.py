"""A pre-trained progressive GAN as a prior: its weights are known, and the codes of the pictures are not."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, flag, whole
from lipfw.gan.network import PUBLISHED, Critic, Generator
from lipfw.gan.weights import Weights, load
from lipfw.prior.prior import Prior, one_channel_count
from lipfw.streams import global_stream, stream

NETWORK = Generator     # what `rebuild` makes of an architecture's arguments


class PGGAN(Prior):
    """f(z; theta) = (G(z) + 1) / 2, about in [0, 1] and not clipped: theta is fixed, the z of each picture sought.

    `codes` is (restarts, pictures, latent): so many starts from which each picture is sought, in one batch. For fits
    that play two codes against each other, `opponents` are as many. The network is frozen; training one thaws it.
    """

    fits = "code"
    trained = True      # else its weights are drawn, and no code makes a picture

    def __init__(self, weights: Weights, shapes: Sequence[tuple[int, int, int]], *, seed: int = 0):
        g = weights.generator
        super().__init__(g, [torch.zeros(1, g.latent)], shapes, seed=seed, architecture={
            "network": "pggan", "channels": list(g.channels), "latent": g.latent, "outputs": g.outputs})
        self.critic = weights.critic
        self.requires_grad_(False)
        self.draw(1)

    def draw(self, restarts: int, opponents: bool = False) -> None:
        """Draw the codes from which the fit starts; each picture's first is the same for any number of restarts."""
        self.codes = nn.Parameter(self._normal("code", restarts))
        self.opponents = nn.Parameter(self._normal("opponent", restarts)) if opponents else None

    @property
    def at_once(self) -> int:
        """All codes, and their opponents if there are any."""
        return sum(len(p.flatten(0, 1)) for p in self.unknowns())

    def code(self, index: int = 0, noise: int | torch.Generator | None = None) -> Tensor:
        """Return the codes (pictures, latent) of the first start; noise is never added to them."""
        return self.codes[0]

    def made(self, codes: Tensor) -> Tensor:
        """Return the pictures (restarts, pictures, C, H, W) of codes (restarts, pictures, latent)."""
        return (self.unsquashed(codes.flatten(0, 1)).unflatten(0, codes.shape[:2]) + 1) / 2

    def squash(self, output: Tensor, index: int = 0) -> Tensor:
        """Return one picture of the network's output for all codes of a start."""
        return (output[index:index + 1] + 1) / 2

    def unknowns(self) -> list[nn.Parameter]:
        """Return what the fit may change: the codes, and their opponents if there are any."""
        return [self.codes] if self.opponents is None else [self.codes, self.opponents]

    def start(self) -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in (("codes", self.codes), ("opponents", self.opponents))
                if p is not None}

    def restart(self, start: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in start.items():
                getattr(self, name).copy_(value)

    def _normal(self, purpose: str, restarts: int) -> Tensor:
        device = next(self.network.parameters()).device
        codes = [torch.randn(self.network.latent, generator=stream(self.seed, f"{purpose} {i}", r))
                 for r in range(restarts) for i in range(len(self.shapes))]
        return torch.stack(codes).view(restarts, len(self.shapes), -1).to(device)


def build(shapes: Sequence[tuple[int, int, int]], *, weights: str | None = "faces32", average: bool = False,
          channels: Sequence[int] | None = None, latent: int = 512, seed: int = 0) -> PGGAN:
    """Return the prior of a pre-trained generator, for pictures of these (C, H, W) shapes.

    `weights` names a generator that ships with the package or is published, or the file of one (`gan.weights.load`).
    None: a network to be trained, of `channels` at 4, 8, 16 ... pixels (None: as published) and codes of `latent`
    numbers, its weights drawn from the seed. `average` takes the running average of a file that also has the network
    that it is the average of. Raises InputError for pictures of another size than the generator's.
    """
    flag("prior.average", average)
    outputs, sides = one_channel_count(shapes), {s[1:] for s in shapes}
    if weights is None:
        made = _fresh(max(max(s) for s in sides), outputs, channels, latent, seed)
    else:
        if channels is not None:
            raise InputError("prior.channels is for networks that are trained from scratch; these weights bring their "
                             "own: use prior.weights=null with it")
        made = load(weights, average)
    r = made.generator.resolution
    if sides != {(r, r)} or outputs != made.generator.outputs:
        other = next(s for s in shapes if s != (made.generator.outputs, r, r))
        raise InputError(f"prior.weights={weights} makes pictures of {r}x{r} pixels and {made.generator.outputs} "
                         f"channels, this one has {other[2]}x{other[1]} and {other[0]}; use image.size={r}"
                         + (" and a colour picture" if other[0] < made.generator.outputs else ""))
    prior = PGGAN(made, shapes, seed=seed)
    prior.trained = weights is not None
    return prior


def _fresh(side: int, outputs: int, channels: Sequence[int] | None, latent: int, seed: int) -> Weights:
    """Return generator and critic with weights drawn from the seed."""
    whole("prior.latent", latent, least=1)
    scales = side.bit_length() - 2
    if channels is None:
        channels = PUBLISHED[:scales]
    if isinstance(channels, str) or not isinstance(channels, Sequence) or not channels:
        raise InputError(f"prior.channels must be a list, a number for each of 4, 8 ... pixels, got {channels!r}")
    channels = [whole("prior.channels", c, least=1) for c in channels]
    if 4 * 2 ** (len(channels) - 1) != side:
        raise InputError(f"prior.channels={channels} has {len(channels)} scales, for pictures of "
                         f"{4 * 2 ** (len(channels) - 1)} pixels, these have {side}; give one number for each of 4, 8 "
                         f"... pixels, or use another image.size")
    with global_stream(seed, "weights"):
        return Weights(Generator(channels, latent, outputs), Critic(channels, outputs), {})
