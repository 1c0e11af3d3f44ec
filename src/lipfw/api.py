"""Restoring a picture from Python, without a config."""
import contextlib
import inspect
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lipfw.errors import InputError, choice, nearest
from lipfw.fit.restoration import Restoration
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.trainer import make_trainer, quiet
from lipfw.image.kinds import given, given_mask
from lipfw.image.meaning import Meaning
from lipfw.image.picture import Picture, finish
from lipfw.image.write import write_png
from lipfw.prior import skip
from lipfw.prior.prior import Prior
from lipfw.problem import Problem
from lipfw.protocol import follows, in_python, prior_of, protocol_of, task_class
from lipfw.pruner.none import Dense
from lipfw.pruner.pruner import Pruner
from lipfw.pruner.ticket import Replay, best_ticket
from lipfw.recorder import alpha_like, meaning_like

_OF_FIT = tuple(n for n in inspect.signature(Restoration).parameters if n not in ("problems", "prior"))


@dataclass(frozen=True, eq=False)       # arrays have no single truth value to compare by
class Restored:
    """A restored picture: `picture` is of the kind that was given; `array` (H, W) or (H, W, 3), float32 in [0, 1].

    Of `steps` steps `step` was picked; what ended the fit before its last one is `stopped_by`: "rule", "time" or
    "progress", or None. `alpha` is the given picture's transparency, (H, W), or None. `bits` is the depth of a saved
    file, `meaning` what that says of the colours and the size in print.
    """

    array: np.ndarray = field(repr=False)
    alpha: np.ndarray | None = field(repr=False)
    step: int
    bits: int = 8
    picture: object = field(default=None, repr=False)
    steps: int = 0
    stopped_by: str | None = None
    meaning: Meaning | None = field(default=None, repr=False)

    def save(self, path: str | Path) -> None:
        """Write a PNG at the depth of the picture that was given.

        Raises InputError for a name that ends otherwise, and where nothing can be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(f"{path} must end in .png: that is what is written; save .picture for another format")
        if not path.parent.is_dir():
            raise InputError(f"{path} can't be written: there is no folder {path.parent}")
        pixels = torch.from_numpy(np.atleast_3d(self.array)).permute(2, 0, 1)[None]
        alpha = None if self.alpha is None else torch.from_numpy(self.alpha)[None, None]
        try:
            write_png(path, pixels, alpha, self.bits, self.meaning)
        except OSError as e:
            raise InputError(f"{path} can't be written ({e.strerror})") from None


@dataclass(frozen=True)
class Progress:
    """Where a restoration stands: `step` of `steps` of `round` (from 0) of `rounds`.

    `loss` is the mean over the last steps, `seconds` have gone by and at most `seconds_left` are to come, by the pace
    so far; a fit may end earlier. `picture()` is the restoration so far, of the kind that was given.
    """

    round: int
    rounds: int
    step: int
    steps: int
    loss: float
    seconds: float
    seconds_left: float
    picture: Callable[[], object] = field(repr=False)


@contextlib.contextmanager
def _as_by_default() -> Iterator[None]:
    """Let torch compute as it does by default, whatever the caller's program has set, and Lightning be quiet; tell
    mistakes in the caller's words.
    """
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    elsewhere = torch.get_default_device().type != "cpu"
    try:
        with quiet(), torch.inference_mode(False), torch.enable_grad(), \
                torch.device("cpu") if elsewhere else contextlib.nullcontext():
            yield
    except InputError as e:
        raise InputError(in_python(str(e))) from None
    finally:
        torch.set_default_dtype(dtype)


def _own(value):
    """Return numbers of numpy's as Python's."""
    return value.item() if isinstance(value, np.generic) else value


@_as_by_default()
def restore(picture, task: str | Callable[[Picture], Problem] = "denoise", *, ticket: str | Path | None = None,
            minutes: float | None = None, progress: Callable[[Progress], object] | None = None,
            prior: Callable[..., Prior] | None = None, pruner: Pruner | None = None, steps: int | None = None,
            smoothing: float | None = None, seed: int = 0, device: str = "auto", fit: Mapping | None = None,
            **options) -> Restored:
    """Restore one degraded picture by fitting an untrained network to it, or by seeking a generator's code of it.

    No clean picture is needed or used, nor the level of the noise.

    `picture` is a path, a PIL image, an array (H, W) or (H, W, 3 or 4), or a tensor (H, W), (3, H, W) or (1, C, H, W),
    of uint8, uint16 or floats in [0, 1]; the result is of the same kind. `task` says what happened to it: "denoise",
    "inpaint" with mask= (any kind of picture, or booleans; white or True is known), "superres" with factor=, "deblur"
    with kernel= (an array, or as in the task's options), "jpeg", "custom" with operator=; or a function of a `Picture`
    that makes a `Problem`. Further `options` are those of the task or of the prior, e.g. channels=32, or
    weights="faces32" with `prior=pggan.build`. Steps, smoothing and jitter are the literature's for the task unless
    given.

    `ticket` is a ticket file, the folder of a run, of which the best round is taken, or "zoo:NAME"; the network is that
    of the ticket. `pruner` is for any other. `minutes` ends the fit in time with the best so far (each round, if the
    pruner makes several); a fit so ended can't be repeated to the bit. `device` is auto (a CUDA GPU if there is one),
    cpu or gpu. `progress` is called every few steps with a `Progress`; if it returns True the fit ends there, and an
    exception that it raises comes out of here. `fit` holds further options of `Restoration`; by default a small part of
    the measurement is held out of the loss, and the step that agrees best with it is picked; the fit ends once that
    stands. Raises InputError for a picture or options that can't be used.

    >>> restored = restore("noisy.png", minutes=5)         # doctest: +SKIP
    >>> restored.save("restored.png")                      # doctest: +SKIP
    """
    started = time.monotonic()
    for name, value in {"task": task, "progress": progress, "prior": prior}.items():
        if not callable(value) and (not isinstance(value, str) if name == "task" else value is not None):
            raise InputError(f"{name}= must be something to call{', or a name' * (name == 'task')}, got {value!r}")
    steps, smoothing, minutes, seed, device = map(_own, (steps, smoothing, minutes, seed, device))
    device = "gpu" if str(device) == "cuda" else choice("device", device, ("auto", "cpu", "gpu"))
    if fit is not None and not isinstance(fit, Mapping):
        raise InputError(f'fit= must be a dictionary of options, such as {{"lr": 0.02}}, got {fit!r}')
    fit = {name: _own(value) for name, value in (fit or {}).items()}
    if pruner is not None and not isinstance(pruner, Pruner):
        raise InputError(f"pruner= must be a Pruner, such as RandomLayerwise(rounds=1), got {pruner!r}")
    found, back = given(picture)
    (found,) = finish([found], degraded=True)
    if task == "cs":
        raise InputError('task="cs" measures a clean picture; what was measured by an operator of yours is restored by '
                         'task="custom" with operator= and measurement=FILE.npy')
    protocol, of_prior = protocol_of(task), {}
    if ticket is not None:
        if pruner is not None:
            raise InputError("ticket= and pruner= both say what is pruned; give one of them")
        path = best_ticket(ticket)
        pruner = Replay(str(path))
        if prior is None:
            prior, of_prior = prior_of(pruner.tickets[0])
    prior = prior or skip.build
    of_task, own = _sorted(task, prior, options, seed)
    problem = (task_class(task)(**of_task) if isinstance(task, str) else task)(found)
    if not isinstance(problem, Problem):
        raise InputError(f"task= must make a Problem of a Picture, got {type(problem).__name__} from {task!r}")
    followed = follows(protocol, "prior", prior.__module__.rpartition(".")[2])
    prior = prior([problem.shape], seed=seed, **{**followed, **of_prior, **own})
    if prior.search is not None:
        raise InputError("the network of isnas is searched for in a run's folder: python -m lipfw prior=isnas; its "
                         "search.json tells the options for prior=nas.build")
    said = {k: v for k, v in dict(steps=steps, smoothing=smoothing, minutes=minutes).items() if v is not None}
    for name in fit:
        if name not in _OF_FIT:
            raise InputError(f"fit= has no option {name!r}; it has {', '.join(_OF_FIT)}{nearest(name, _OF_FIT)}")
    module = Restoration([problem], prior, **{**_defaults(protocol, prior, fit), **fit, **said})
    pruning = IterativePruning(pruner or Dense())
    pruning.prepare(module)

    def result(kind: str) -> tuple[Tensor, Tensor | None]:
        pixels = module.pictures(kind)[0].detach().cpu().clamp(0, 1)    # a generator's reach a little further
        return pixels, alpha_like(found, pixels.shape)

    if progress is not None:
        module.after_step.append(_Teller(progress, module, pruning, started, lambda: back(*result("picked"))))
    _run(make_trainer(pruning.rounds, [pruning], device), module)
    pixels, alpha = result("picked")
    return Restored(pixels[0].permute(1, 2, 0).squeeze(-1).numpy(), None if alpha is None else alpha[0, 0].numpy(),
                    module.summary()["step_picked"], found.bits, back(pixels, alpha), module.step, module.stopped_by,
                    meaning_like(found, pixels.shape))


def _defaults(protocol: Mapping, prior: Prior, fit: Mapping) -> dict:
    """Return the fit's options for a task and a prior, where the user says nothing else."""
    options = follows(protocol, "fit", "restoration")
    if prior.fits == "code":
        return options
    if options["objective"] == "mom":       # a game of codes
        options["objective"] = "ls"
    return options if {"pick", "stop"} & set(fit) else {**options, "stop": "holdout", "patience": 300}


def _sorted(task: str | Callable, prior: Callable, options: Mapping, seed: int) -> tuple[dict, dict]:
    """Return the options of the task and those of the prior. Raises InputError for one that neither has."""
    known = _names(task_class(task)) if isinstance(task, str) else []
    of_task = {k: _converted(k, v) for k, v in options.items() if k in known}
    rest = {k: _own(v) for k, v in options.items() if k not in known}
    names = _names(prior)
    for name in rest:
        if names is not None and name not in names:
            raise InputError(f"restore() has no option {name}=; this task has {', '.join(known) or 'none'}, the prior "
                             f"{', '.join(names)}{nearest(name, [*known, *names])}")
    must = {"custom": "operator", "inpaint": "mask"}.get(task) if isinstance(task, str) else None
    if must and of_task.get(must) in (None, ""):
        raise InputError(f'task="{task}" needs {must}=' + (
            "; white or True marks the pixels that are known" if must == "mask" else
            ": a function of the picture, of torch's own, that gives the measurement"))
    if isinstance(task, str) and "seed" in inspect.signature(task_class(task)).parameters:
        of_task["seed"] = seed
    return of_task, rest


def _names(call: Callable) -> list[str] | None:
    """Return the names of what a task or prior is made of; None if it takes any."""
    parameters = inspect.signature(call).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return [p.name for p in parameters if p.name not in ("self", "seed", "shapes")]


def _converted(name: str, value):
    """Return an option as the task takes it: a mask that is no file as a picture."""
    if name != "mask" or value is None or isinstance(value, (str, Path, Picture)):
        return str(value) if isinstance(value, Path) else _own(value)
    return given_mask(value)


class _Teller:
    """Calls `progress` after the recorded steps of a fit, and after the last."""

    def __init__(self, progress: Callable, module: Restoration, pruning: IterativePruning, started: float,
                 picture: Callable[[], object]):
        self.progress, self.module, self.pruning = progress, module, pruning
        self.started, self.picture = started, picture
        self.done, self.since = 0, 0.0      # steps of all rounds, and when the first was done: it takes longer

    def __call__(self, step: int) -> None:
        module, now = self.module, time.monotonic()
        self.done += 1
        self.since = self.since or now
        if not (module.to_record or module.round_over):
            return
        rounds, steps = self.pruning.rounds, self.pruning.steps(module)
        pace = (now - self.since) / max(1, self.done - 1)
        here = 0.0 if module.round_over else pace * (module.steps - step)
        if module.budget.seconds is not None:
            here = min(here, module.budget.seconds - module.budget.used)
        round_ = module.current_epoch
        left = max(0.0, here) + pace * sum(steps[round_ + 1:])
        told = Progress(round_, rounds, step, module.steps, module.round_loss(), now - self.started, left, self.picture)
        try:
            answer = self.progress(told)
        except StopIteration as e:      # Lightning would take it for the end of the steps
            raise RuntimeError("progress= raised StopIteration") from e
        if isinstance(answer, (bool, np.bool_, Tensor)) and bool(answer):
            self.pruning.enough = True
            module.stop("progress")


def _run(trainer: pl.Trainer, module: Restoration) -> None:
    """Fit. Lightning would answer Ctrl-C by ending the program, and by ignoring it from then on."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module)
    except SystemExit as e:
        if not isinstance(e.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None
