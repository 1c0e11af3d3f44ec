"""What the shipped YAML says of a task, for Python: its class, and the literature's settings of prior and fit."""
import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from omegaconf import OmegaConf

from lipfw.configs import CONF
from lipfw.errors import choice
from lipfw.prior.prior import Prior, rebuild
from lipfw.ticket import Ticket

_BUILT = ("skip", "decoder", "nas", "unet", "convdecoder")      # networks that can be built from what tickets tell
_SAME = {"inputs": "code_channels", "skip": "skip_channels"}    # their arguments by the names of the prior's options


@lru_cache(maxsize=1)
def _tasks() -> dict[str, dict]:
    every = {p.stem: OmegaConf.to_container(OmegaConf.load(p)) for p in sorted((CONF / "task").glob("[!_]*.yaml"))}
    return {name: node for name, node in every.items() if "jitter" in node.get("protocol", {})}     # those that restore


def task_class(name: str) -> type:
    """Return the class of a task that restores: denoise, inpaint, ... Raises InputError for another name."""
    module, _, own = _tasks()[choice("task", name, tuple(_tasks()))]["task"]["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), own)


def in_python(message: str) -> str:
    """Return an error's line in the words of `lipfw.restore` instead of a command's: fit.steps is steps=.

    >>> in_python("task.factor must be a whole number; use fit.pick=wmv")
    'factor must be a whole number; use fit={"pick": "wmv"}'
    """
    priors = [OmegaConf.to_container(OmegaConf.load(p)) for p in (CONF / "prior").glob("[!_]*.yaml")]
    names = "|".join(sorted({k for node in (*priors, *(t["task"] for t in _tasks().values())) for k in node
                             if not k.startswith("_")}))
    for spelled, said in ((rf"(?:task|prior)\.({names})\b", r"\1"), (r"fit\.(steps|smoothing|minutes)\b", r"\1"),
                          (r"fit\.(\w+)=(\w+)", r'fit={"\1": "\2"}'), (r"trainer=(\w+)", r'device="\1"')):
        message = re.sub(r"(?<![\w/\\.])" + spelled, said, message)      # but not in the name of a file
    return message


def protocol_of(task: str | Callable) -> dict:
    """Return a task's settings (steps, smoothing, jitter, ...); those of denoise for a function of the user's own."""
    name = task if isinstance(task, str) else type(task).__module__.removeprefix("lipfw.task.")
    return _tasks().get(name, _tasks()["denoise"])["protocol"]


def follows(protocol: Mapping, group: str, option: str) -> dict:
    """Return the options that conf/GROUP/OPTION.yaml takes from the protocol, with the protocol's values.

    None for an option that is not shipped: a prior of the user's own.
    """
    path = CONF / group / f"{option}.yaml"
    node = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    taken = {k: v for k, v in node.items() if isinstance(v, str) and "protocol." in v}
    return OmegaConf.to_container(OmegaConf.create({"protocol": dict(protocol), "taken": taken}), resolve=True)["taken"]


def prior_of(ticket: Ticket) -> tuple[Callable[..., Prior] | None, dict]:
    """Return what builds the network that a ticket was found in, and its options; (None, {}) if that is not told.

    Raises InputError for an architecture that no such network has.
    """
    try:
        told = json.loads(ticket.about["architecture"])
        name = told["network"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None, {}
    if name not in _BUILT:
        return None, {}
    rebuild(told)       # it is what a file says
    build = importlib.import_module(f"lipfw.prior.{name}").build
    options = {_SAME.get(k, k): v for k, v in told.items()}
    return build, {k: v for k, v in options.items() if k in inspect.signature(build).parameters}
