"""Training a generator against a critic: WGAN-GP, in rounds, as a LightningModule."""
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lipfw.errors import InputError, choice, flag, number, whole
from lipfw.fit.restoration import PRECISIONS
from lipfw.fit.stepped import Stepped
from lipfw.fit.stepping import forget
from lipfw.gan.network import enlarged
from lipfw.gan.quality import PATCH, sliced_wasserstein
from lipfw.mask import Mask
from lipfw.prior.prior import Prior
from lipfw.streams import stream

BETAS = (0.0, 0.99)
_JUDGED = 1024      # pictures on each side of the sliced Wasserstein distance
_PROBED = 4         # pictures in the step that tells how long one takes
_CHUNK = 64         # pictures that are made at once where none of them is trained on


class Adversarial(Stepped):
    """max over the critic D, min over the generator G of E D(x) - E D(G(z)), by Adam with beta = (0, 0.99).

    A step trains D on a batch, with the penalty `penalty` * mean (|grad D(x')| - 1)^2 at one point x' between each real
    and made picture (Gulrajani et al., 2017), or those of the first `penalised` pairs alone, which takes less time, and
    the drift term `drift` * mean D(x)^2; then G on `generator_batch` new codes. The generator that counts is the
    running average of G's weights, G' <- s G' + (1 - s) G with s = `smoothing` (0: G itself). With `precision` bf16
    both networks compute in bfloat16, the penalty, optimisers and averages in 32 bits.

    Every random draw is a function of (seed, step), so that a resumed training goes on to the same result.
    Every `judge_every` steps and at the end of a round the average generator is judged by its sliced Wasserstein
    distance to the pictures, in units of 1/1000 (Karras et al., 2018), and shows samples; the distance at the end is
    the round's loss, since the critic's own loss tells nothing from one round to the next.

    A subclass says how many steps a round has and, in `where`, on which scale each is done.
    """

    does = "trains a generator"
    recorded = ("loss", "wasserstein", "slope", "swd", "resolution", "fade")
    kernel_name = "dense"       # torch does all the work
    shorter = "image.size=16, fewer pictures (fit.stable=, fit.fade= or fit.epochs=), prior.channels="

    def __init__(self, pixels: Tensor, prior: Prior, *, steps: int, lr: float, batch: int, generator_batch: int | None,
                 penalty: float, penalised: int | None, drift: float, smoothing: float, mirror: bool,
                 judge_every: int, seed: int, log_every: int, steps_per_batch: int, precision: int | str = 32):
        super().__init__(steps, log_every, steps_per_batch)
        self.lr = number("fit.lr", lr, 0, 1, open_low=True)
        self.batch = whole("fit.batch", batch, least=1)
        self.generator_batch = self.batch if generator_batch is None else whole("fit.generator_batch", generator_batch,
                                                                                least=1)
        self.penalty, self.drift = number("fit.penalty", penalty, 0, 1e6), number("fit.drift", drift, 0, 1e6)
        self.penalised = self.batch if penalised is None else whole("fit.penalised", penalised, least=1)
        self.smoothing = number("fit.smoothing", smoothing, 0, 1, open_high=True)
        self.mirror, self.seed = flag("fit.mirror", mirror), whole("fit.seed", seed, least=0)
        self.judge_every = whole("fit.judge_every", judge_every, least=1)
        self.precision = choice("trainer.precision", str(precision), PRECISIONS)
        if prior.critic is None:
            raise InputError("these weights have no critic, which training needs; use a checkpoint that has one, or "
                             "prior.weights=null to train both from scratch")
        self.prior, self.critic = prior, prior.critic
        self.prior.requires_grad_(True)
        self.average = copy.deepcopy(prior.network)
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("distance", torch.tensor(torch.nan))       # the last sliced Wasserstein distance
        self.masks: dict[str, Mask] = {}                                # by network: those that are held
        self.zero_gradients: dict[str, Callable[[], None]] = {}         # for each of them
        self.sheets: list[tuple[int, Tensor]] = []                      # steps and samples of the last batch

    def where(self, step: int) -> tuple[int, float]:
        """Return the scale of the step after `step` steps, and how much of the scale below is faded in."""
        raise NotImplementedError

    def steps_on(self) -> dict[int, int]:
        """Return how many of a round's steps are done on each scale."""
        raise NotImplementedError

    # --- what Lightning calls

    def setup(self, stage: str) -> None:
        """Let the average start where the generator does: a pruner may have brought weights since both were made."""
        self.average.load_state_dict(self.prior.network.state_dict())   # a checkpoint is loaded over it

    def configure_optimizers(self):
        options = dict(lr=self.lr, betas=BETAS, fused=True)
        return [torch.optim.Adam(self.prior.network.parameters(), **options),
                torch.optim.Adam(self.critic.parameters(), **options)]

    def training_step(self, batch, batch_idx) -> None:
        self.sheets = []
        super().training_step(batch, batch_idx)

    # --- the method

    def reals(self, step: int, scale: int, fade: float) -> Tensor:
        """Return the step's batch of real pictures (B, C, R, R) in [-1, 1], faded as those of the generator are."""
        n = len(self.pixels)
        epoch, place = divmod(step, -(-n // self.batch))
        order = torch.randperm(n, generator=stream(self.seed, "order", epoch))
        chosen = order[place * self.batch:(place + 1) * self.batch]
        x = self.pixels[chosen.to(self.device)]
        if self.mirror:
            flipped = torch.rand(len(chosen), generator=stream(self.seed, "mirror", step)) < 0.5
            x = torch.where(flipped.to(self.device).view(-1, 1, 1, 1), x.flip(3), x)
        return at_scale(x, scale, fade)

    def codes(self, count: int, purpose: str, step: int) -> Tensor:
        """Return codes (count, latent), standard normal."""
        draw = torch.randn(count, self.prior.network.latent, generator=stream(self.seed, purpose, step))
        return draw.to(self.device)

    def fit_step(self) -> Tensor | None:
        (scale, fade), step = self.where(self.step), self.step
        generator, (of_g, of_d) = self.prior.network, self.optimizers(use_pl_optimizer=False)
        real = self.reals(step, scale, fade)
        of_d.zero_grad(set_to_none=True)
        loss, distance, slope = self.critic_loss(real, step, scale, fade)
        loss.backward()
        self._masked("critic")
        of_d.step()

        of_g.zero_grad(set_to_none=True)
        # only the generator's gradients are wanted: those of the critic's weights would take as long again
        self.generator_loss(step, scale, fade).backward(inputs=list(generator.parameters()))
        self._masked("prior.network")
        of_g.step()
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), generator.parameters(), strict=True):
                mean.lerp_(now, 1 - self.smoothing)
        self.step += 1
        judged = self.step % self.judge_every == 0 or self.round_over
        if judged:
            self.judge(scale, fade)
            self.sheets.append((self.step, self.samples(scale, fade)))
        if not self.to_record:
            return None
        nan = loss.new_full((), torch.nan)
        return torch.stack([loss.detach(), distance, slope, self.distance.to(loss) if judged else nan,
                            *(loss.new_full((), float(v)) for v in (4 * 2 ** scale, fade))])

    def critic_loss(self, real: Tensor, step: int, scale: int, fade: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the critic's loss, its estimate of the Wasserstein distance, and the mean |grad D|."""
        with torch.no_grad(), self._autocast():
            made = self.prior.network(self.codes(len(real), "codes of the critic", step), scale, fade).float()
        with self._autocast():
            of_real, of_made = self.critic(real, scale, fade).float(), self.critic(made, scale, fade).float()
        share = torch.rand(len(real), 1, 1, 1, generator=stream(self.seed, "mixture", step)).to(self.device)
        between = torch.lerp(made, real, share)[:self.penalised].requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(between, scale, fade).sum(), between, create_graph=True)
        slope = gradient.flatten(1).norm(dim=1)
        distance = of_real.mean() - of_made.mean()
        loss = -distance + self.penalty * (slope - 1).square().mean() + self.drift * of_real.square().mean()
        return loss, distance.detach(), slope.detach().mean()

    def generator_loss(self, step: int, scale: int, fade: float, count: int | None = None) -> Tensor:
        """Return - mean D(G(z)) over the step's codes, or over `count` of them."""
        with self._autocast():
            z = self.codes(count or self.generator_batch, "codes of the generator", step)
            made = self.prior.network(z, scale, fade)
            return -self.critic(made, scale, fade).float().mean()

    def losses(self, draw: int = 0) -> Iterator[Tensor]:
        """Yield the generator's loss at the codes of step `draw`: what pruners at initialisation look at."""
        yield self.generator_loss(draw, len(self.prior.network.scale_layers), 0.0)

    def code_shape(self) -> torch.Size:
        """Return the shape (1, latent) of a code."""
        return torch.Size([1, self.prior.network.latent])

    def picture_shape(self) -> torch.Size:
        """Return the shape (1, C, R, R) of what the critic looks at."""
        return torch.Size([1, self.prior.network.outputs, *[self.prior.network.resolution] * 2])

    # --- how good it is

    @torch.no_grad()
    def made(self, count: int, purpose: str, scale: int | None = None, fade: float = 0.0) -> Tensor:
        """Return pictures (count, C, R, R) of the average generator, from codes that depend on the purpose alone."""
        return torch.cat([self.average(z, scale, fade) for z in self.codes(count, purpose, 0).split(_CHUNK)])

    def samples(self, scale: int | None = None, fade: float = 0.0, count: int = 64) -> Tensor:
        """Return pictures (count, C, R, R) in [0, 1], from the same codes every time."""
        return (self.made(count, "samples", scale, fade).clamp(-1, 1) + 1).cpu() / 2

    def judge(self, scale: int, fade: float = 0.0) -> None:
        """Take the sliced Wasserstein distance between made and real pictures, at a scale."""
        if 4 * 2 ** scale < PATCH:      # too small for the distance's patches
            return
        count = min(_JUDGED, len(self.pixels))
        order = torch.randperm(len(self.pixels), generator=stream(self.seed, "judged"))[:count]
        real = at_scale(self.pixels[order.to(self.device)], scale, fade)
        self.distance.fill_(sliced_wasserstein(real, self.made(count, "judged", scale, fade), self.seed).mean)

    def round_loss(self) -> float:
        """Return the sliced Wasserstein distance at the end of the round, in 1/1000."""
        return float(self.distance)

    def summary(self) -> dict:
        """Return the round's numbers: loss, the sliced Wasserstein distance (swd, the same), and its steps."""
        swd = self.round_loss()
        return {"loss": swd, "swd": swd, "step_first": self.begin + 1, "step_last": self.step}

    def estimate(self, densities: Sequence[float]) -> tuple[list[float], str | None]:
        """Return the mean time of a step in each round, from a step of a few pictures on each scale, on a copy."""
        probe = copy.copy(self)
        few = min(_PROBED, self.batch, len(self.pixels))
        probe._modules = {n: copy.deepcopy(m) for n, m in self._modules.items()}
        seconds = {}
        for scale in self.steps_on():
            times = []
            for _ in range(2):      # the first pays for memory and kernels
                started = time.perf_counter()
                real = at_scale(self.pixels[:few], scale)
                probe.critic_loss(real, 0, scale, 0.0)[0].backward()
                probe.generator_loss(0, scale, 0.0, few).backward()
                if self.device.type == "cuda":
                    torch.cuda.current_stream(self.device).synchronize()
                times.append(time.perf_counter() - started)
            seconds[scale] = min(times) / few * (self.batch + self.generator_batch) / 2
        mean = sum(seconds[s] * n for s, n in self.steps_on().items()) / self.steps
        return [mean] * len(densities), None

    def told(self, record: dict) -> str:
        return f"{record['resolution']:.0f} px, critic {record['loss']:.2f}"

    def told_round(self) -> str:
        return f"sliced Wasserstein distance {self.round_loss():.2f}"

    # --- rounds

    def start_round(self, round_: int) -> None:
        """Nothing of a training belongs to a round alone."""

    def reset(self, begin: int = 0) -> None:
        super().reset(begin)
        self.distance.fill_(torch.nan)

    def networks(self) -> dict[str, nn.Module]:
        """Return generator, critic and average, by the names that snapshots have them under."""
        return {"network": self.prior.network, "critic": self.critic, "average": self.average}

    def snapshot(self) -> dict:
        """Return a copy of what a rewind goes back to: networks and optimisers."""
        optimizers = self.optimizers(use_pl_optimizer=False)
        return copy.deepcopy({name: n.state_dict() for name, n in self.networks().items()}
                             | {"optimizers": [o.state_dict() for o in optimizers]})

    def rewind(self, snapshot: dict, begin: int = 0) -> None:
        """Go back to a snapshot, for a round that goes on after step `begin`."""
        for name, network in self.networks().items():
            network.load_state_dict(snapshot[name])
        for optimizer, state in zip(self.optimizers(use_pl_optimizer=False), snapshot["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
        if "critic" in self.masks:      # its mask is known before the rewind, the generator's after it
            self._zero("critic")
        self.reset(begin)

    def hold(self, mask: Mask | None, target: str = "prior.network") -> None:
        """Keep the weights that a mask removes, zero now, at zero in the steps to come; None: keep all."""
        self.masks.pop(target, None)
        if mask is not None:
            self.masks[target] = mask
            self.zero_gradients[target] = mask.gradients(self.get_submodule(target))
            self._zero(target)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights of the generator than those of the rewind; its average starts from them too."""
        self.prior.network.load_state_dict(weights)
        self.average.load_state_dict(weights)

    def _zero(self, target: str) -> None:
        """Zero the weights that a mask removes, what Adam remembers of them, and the generator's in its average."""
        mask, (of_g, of_d) = self.masks[target], self.optimizers(use_pl_optimizer=False)
        network, optimizer = (self.critic, of_d) if target == "critic" else (self.prior.network, of_g)
        for held in (network, self.average) if network is self.prior.network else (network,):
            mask.apply(held)
        forget(optimizer, network, mask)

    def _masked(self, target: str) -> None:
        if target in self.masks:
            self.zero_gradients[target]()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def at_scale(pixels: Tensor, scale: int, fade: float = 0.0) -> Tensor:
    """Return pictures (B, C, S, S) of uint8 as floats in [-1, 1], averaged down to 4 * 2^scale pixels a side.

    With `fade` in (0, 1] that much of them comes from the scale below, as in a generator that grows.
    """
    x = pixels.float().div_(127.5).sub_(1)
    x = F.avg_pool2d(x, x.shape[2] // (4 * 2 ** scale))
    return torch.lerp(x, enlarged(F.avg_pool2d(x, 2)), fade) if fade else x


def per_scale(name: str, value: int | Sequence[int], scales: int) -> list[int]:
    """Return a number for each scale: a list of them as it is, one number for all. Raises InputError for others."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    values = list(value) if listed else [whole(name, value, least=0)] * scales
    if len(values) != scales:
        raise InputError(f"{name} has {len(values)} numbers and the network {scales} scales, 4 to {2 * 2 ** scales} "
                         "pixels; give one for each, or one for all")
    return [whole(name, v, least=0) for v in values]
