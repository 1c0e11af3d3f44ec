"""Fitting a prior to measurements: the deep image prior as a LightningModule."""
import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, choice, number, step_or_percentage, steps_of, whole
from lipfw.fit.eager import Eager, pictures_and_loss
from lipfw.fit.estimate import seconds_of_rounds
from lipfw.fit.following import Following
from lipfw.fit.holdout import held_out
from lipfw.fit.langevin import WeightNoise
from lipfw.fit.latent import Latent, TwoPlayers
from lipfw.fit.objectives import OBJECTIVES, buckets, total_variation
from lipfw.fit.stepped import MOST
from lipfw.fit.stepping import KERNELS, make_stepper
from lipfw.fit.stopping import RULES, make_rule
from lipfw.mask import Mask
from lipfw.prior.prior import Prior
from lipfw.problem import Problem
from lipfw.streams import stream

PRECISIONS = ("32", "bf16")


class Restoration(Following):
    """min over theta of the mean over pictures of ||A(f(z + jitter; theta)) - y||^2 / m, by Adam.

    Several problems share the network and have a code each, or one code, as the prior has it; codes are forwarded one
    by one: their sizes may differ and batch statistics must not mix.

    What is restored and kept step by step is said by `Following`. What is picked is said by a rule that looks at the
    raw outputs and at no clean picture: `pick` is wmv or emv, and emv gives its own average of the outputs; or holdout,
    which leaves a part `held_out` of the measurement out of the loss and picks the step whose restoration agrees best
    with it. With `stop` the rule ends the round once its pick stands, at the next recorded step; the rule that stops is
    the one that picks. A round also ends once it has taken `minutes`, after the step that is being done.
    A prior whose code is sought (`prior.fits` is "code") has its codes fitted instead of its weights, all pictures in
    one batch, from `restarts` starts each, of which the one with the smallest loss counts at each step. Its range
    leaves little room for noise, so that the last step is what is picked there, unless `pick` says otherwise.
    `objective` is what is made small of the residual A(f) - y: "ls" its square; "fourth" its fourth power, which the
    published inpainting script minimises by a slip; "mom", for codes alone, plays the median-of-means game over buckets
    of `bucket` measurements (`latent.TwoPlayers`). To it `tv` times the mean total variation of the picture is added.
    The restorations of the steps in `keep`, numbers or percentages of `steps`, are handed to callbacks in `kept`.
    With `precision` bf16 the network computes in bfloat16; loss, optimiser and averages stay in float32.
    """

    does = "restores pictures"
    rule_by_default = "wmv"     # where weights are fitted
    shorter = "image.size=128, fit.steps=, pruner.rounds=, prior.channels=32"

    def __init__(self, problems: Sequence[Problem], prior: Prior, *, steps: int = 3000, lr: float = 0.01,
                 smoothing: float = 0.99, target: str = "degraded", pick: str | None = None, stop: str | None = None,
                 window: int = 100, patience: int = 1000, log_every: int = 10, steps_per_batch: int = 50,
                 kernel: str = "auto", precision: int | str = 32, objective: str = "ls", restarts: int = 1,
                 bucket: int = 20, tv: float = 0.0, held_out: float = 0.03, minutes: float | None = None,
                 keep: Sequence[int | str] = ()):
        if choice("fit.target", target, ("degraded", "clean")) == "clean":
            problems = [p.noiseless() for p in problems]
        super().__init__(problems, smoothing, steps, log_every, steps_per_batch, minutes)
        self.keep = _kept(keep, self.steps)
        if prior.fits == "nothing":
            raise InputError("prior=none has nothing to fit and is for fit=baseline; use e.g. prior=skip")
        self.lr = number("fit.lr", lr, 0, 10, open_low=True)
        self.tv = number("fit.tv", tv, 0, 1e6)
        self.kernel = choice("fit.kernel", kernel, KERNELS)
        self.precision = choice("trainer.precision", str(precision), PRECISIONS)
        if (self.precision, self.kernel) == ("bf16", "sparse"):
            raise InputError("fit.kernel=sparse computes in 32 bits; use fit.kernel=auto with trainer.precision=bf16")
        prior.bf16 = self.precision == "bf16"
        window, patience = (whole("fit.window", window, least=2, most=MOST),
                            whole("fit.patience", patience, least=1, most=MOST))
        window = min(window, self.steps + 1)    # one that is never full takes no more memory than the steps need
        rules = [choice(f"fit.{name}", rule, RULES[:-1] if name == "stop" else RULES)
                 for name, rule in {"stop": stop, "pick": pick}.items() if rule is not None]
        if len(set(rules)) > 1:
            raise InputError(f"fit.stop={stop} also picks, and fit.pick={pick} asks for another rule; use one rule for "
                             "both, or fit.stop=null")
        self.stops = stop is not None
        self.prior = prior
        self.operators = torch.nn.ModuleList(p.operator for p in problems)      # moves to the device with the module
        for i, p in enumerate(problems):
            self.register_buffer(f"target{i}", p.measurement, persistent=False)
        self.latent = prior.fits == "code"
        self._prepare_search(objective, restarts, bucket)
        rule = rules[0] if rules else "last" if self.latent else self.rule_by_default
        self._hold_out(number("fit.held_out", held_out, 0, 0.5, open_low=True), rule)
        self.picks_by = rule
        self.rule = make_rule(rule, [p.shape for p in problems], window, patience)
        self.mask: Mask | None = None                       # None: dense
        self.stepper: Eager | None = None                   # made when a step is due

    def _prepare_search(self, objective: str, restarts: int, bucket: int) -> None:
        """Take up the objective and, of a prior whose code is sought, the starts."""
        game = choice("fit.objective", objective, (*OBJECTIVES, "mom")) == "mom"
        whole("fit.restarts", restarts, least=1)
        self.bucket = whole("fit.bucket", bucket, least=1)
        if not self.latent:
            if game:
                raise InputError("fit.objective=mom plays two codes of a generator against each other, and this "
                                 "prior's weights are fitted; use fit.objective=ls, or prior=pggan")
            if restarts > 1:
                raise InputError(f"fit.restarts={restarts} starts the search for a code several times, and this "
                                 "prior's weights are fitted; use fit.restarts=1, and several seeds")
        else:
            self.prior.critic = None        # of no use here, and as large as the network
            self.prior.draw(restarts, opponents=game)
            if self.kernel == "sparse":
                raise InputError("fit.kernel=sparse is for weights that are fitted, and this prior's code is sought; "
                                 "use fit.kernel=auto")
        if game and self.tv:
            raise InputError(f"fit.tv={self.tv:g} adds to a loss, and fit.objective=mom plays a game; use "
                             "fit.objective=ls")
        for p in self.problems if game else ():
            buckets(known(p.operator, p.measurement)[0].numel(), bucket)    # refuses too few
        # how good a picture is without the game: what the pruners look at, and the loss of a restoration of weights
        self.objective = OBJECTIVES["ls" if game else objective]
        self.game = game

    def _hold_out(self, fraction: float, rule: str) -> None:
        """Choose the measured values that the loss leaves out, if the rule watches those."""
        self.holds_out = rule == "holdout"
        if self.holds_out and self.latent:
            raise InputError("fit.pick=holdout leaves measured values out of the fit of weights, and this prior's code "
                             "is sought; use fit.pick=last")
        for i, p in enumerate(self.problems if self.holds_out else ()):
            y = p.measurement
            places = held_out(p.operator, y, fraction, stream(self.prior.seed, f"held out {p.name}"))
            fitted = torch.ones(y.numel()).index_fill_(0, places, 0.0).view(y.shape).to(y.device)
            self.register_buffer(f"held{i}", places.to(y.device), persistent=False)     # they follow from the seed
            self.register_buffer(f"fitted{i}", fitted, persistent=False)

    # --- what Lightning calls

    def configure_optimizers(self):
        return self.optimizer_of(self.prior)

    def optimizer_of(self, prior: Prior) -> torch.optim.Adam:
        """Return a new optimiser of what is unknown of a prior, this fit's own or a copy of it."""
        return torch.optim.Adam(prior.unknowns(), lr=self.lr, fused=True)

    def on_train_end(self) -> None:
        """Give back what the steps needed: a CUDA graph holds memory of its own."""
        self.settle()
        self.stepper = None

    # --- the method

    def loss(self, output: Tensor, index: int) -> Tensor:
        """Return the objective's mean over the measurements of one picture, divided by the number of pictures."""
        residual, share = self.residual(output, index), 1.0
        if self.holds_out:      # the mean is over the others
            residual = residual * getattr(self, f"fitted{index}")
            share = 1 - len(getattr(self, f"held{index}")) / residual.numel()
        value = self.objective(residual)[0] / share
        if self.tv:
            value = value + self.tv * total_variation(output)[0]
        return value / len(self.problems)

    def residual(self, output: Tensor, index: int) -> Tensor:
        """Return A(x) - y of one picture."""
        return self.operators[index](output) - getattr(self, f"target{index}")

    def penalty(self, made: Tensor) -> Tensor | float:
        """Return what is added to the objective (starts, pictures) of pictures (starts, pictures, C, H, W)."""
        return self.tv * total_variation(made.flatten(0, 1)).unflatten(0, made.shape[:2]) if self.tv else 0.0

    def weight_noise(self, network: nn.Module, mask: Mask | None) -> WeightNoise | None:
        """Return what is done to the weights of a network, the prior's or a copy of it, after each step; here nothing.
        """
        return None

    def residuals(self, made: Tensor) -> list[tuple[list[int], Tensor]]:
        """Return A(x) - y, (starts, pictures, ...), of pictures (starts, pictures, C, H, W), operator by operator.

        Each part has the indices of the pictures that share the operator and are measured at once. For the game, what
        an operator hides is left out: right for any picture, buckets of it would be the median.
        """
        groups: dict[int, list[int]] = {}
        for i, operator in enumerate(self.operators):
            groups.setdefault(id(operator), []).append(i)
        parts = []
        for pictures in groups.values():
            operator = self.operators[pictures[0]]
            measured = operator(made[:, pictures].flatten(0, 1)).unflatten(0, (len(made), len(pictures)))
            residual = measured - torch.cat([getattr(self, f"target{i}") for i in pictures])
            parts.append((pictures, known(operator, residual) if self.game else residual))
        return parts

    def losses(self, draw: int = 0) -> Iterator[Tensor]:
        """Yield the terms of the objective code by code, each with its graph: what pruners at initialisation look at.

        In float32, at the jitter of optimisation step `draw`.
        """
        frozen = [p for p in self.prior.network.parameters() if not p.requires_grad]
        for p in frozen:        # a pruner asks for the gradient of weights, also of those that no step moves
            p.requires_grad_(True)
        try:
            for code in range(len(self.prior.pictures_of)):
                yield pictures_and_loss(self, self.prior.network(self.prior.code(code, draw)), code)[1]
        finally:
            for p in frozen:
                p.requires_grad_(False)

    def code_shape(self) -> torch.Size:
        """Return the shape (1, C, H, W) of the first code, or (1, latent)."""
        return torch.Size((1, *self.prior.code().shape[1:]))

    def fit_step(self) -> Tensor | None:
        """Do one optimisation step; returns the recorded numbers of the step if it is one to record."""
        if self.stepper is None:
            self.stepper = self._make_stepper(self.optimizers(use_pl_optimizer=False))
        self.now.fill_(self.step + 1)
        outputs, loss = self.stepper.step(self.step)
        self.step += 1
        if self.step in self.keep:
            self.kept.append((self.step, [x.clone() for x in self.pictures("final")]))
        record = self.record(outputs, loss) if self.to_record else None
        if record is not None and self.stops and bool(self.rule.over(self.now - self.begun)):
            self.stop("rule")
        return record

    @property
    def search(self) -> type[Latent]:
        """What does the steps that seek codes."""
        return TwoPlayers if self.game else Latent

    def _make_stepper(self, optimizer: torch.optim.Adam) -> Eager:
        if self.latent:
            return self.search(self, optimizer)
        return make_stepper(self, optimizer, self.mask, self.kernel)

    def watched(self, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return what the rule looks at: the outputs, or what the restorations miss of the values left out."""
        if self.rule.watches == "outputs":
            return outputs
        return [self.residual(x, i).flatten().index_select(0, getattr(self, f"held{i}"))
                for i, x in enumerate(self.pictures("final"))]

    @property
    def kernel_name(self) -> str:
        """What did the steps of the round."""
        return self.stepper.name

    def estimate(self, densities: Sequence[float]) -> tuple[list[float], str | None]:
        return seconds_of_rounds(self, densities)

    # --- rounds

    def start_round(self, round_: int) -> None:
        """Take up what a round has of its own: its codes, if they are drawn anew."""
        self.prior.start_round(round_)

    def snapshot(self) -> dict:
        """Return a copy of what a rewind goes back to: the network with its buffers, and the optimiser."""
        self.settle()
        optimizer = self.optimizers(use_pl_optimizer=False)
        return copy.deepcopy({"network": self.prior.network.state_dict(), "optimizer": optimizer.state_dict(),
                              "codes": self.prior.start()})

    def rewind(self, snapshot: dict, begin: int = 0) -> None:
        """Go back to a snapshot, for a round that goes on after step `begin`: the averages and picks start empty."""
        self.prior.network.load_state_dict(snapshot["network"])
        self.prior.restart(snapshot["codes"])
        self.optimizers(use_pl_optimizer=False).load_state_dict(copy.deepcopy(snapshot["optimizer"]))
        self.stepper = None
        self.reset(begin)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights of the network than those of the rewind."""
        self.prior.network.load_state_dict(weights)

    def hold(self, mask: Mask | None) -> None:
        """Keep the weights that a mask removes, zero now, at zero in the steps to come; None: keep all."""
        self.settle()
        self.mask, self.stepper = mask, None

    def settle(self) -> None:
        """Bring network and optimiser up to date, whatever does the steps."""
        if self.stepper is not None:
            self.stepper.settle()


def _kept(keep: Sequence[int | str], steps: int) -> frozenset[int]:
    """Return the steps that are kept of a round, of numbers and percentages. Raises InputError for those it has not."""
    if isinstance(keep, str) or not isinstance(keep, Sequence):
        raise InputError(f"fit.keep must be a list of steps, e.g. [100,500] or [5%,50%], got {keep!r}")
    asked = [steps_of(step_or_percentage("fit.keep", one), steps) for one in keep]
    return frozenset(whole("each of fit.keep", step, least=1, most=steps) for step in asked)


def known(operator: nn.Module, y: Tensor) -> Tensor:
    """Return a measurement without the values that its operator hides."""
    return operator.measured(y) if hasattr(operator, "measured") else y
