"""Where the shipped configs lie, and which options a config has at its top."""
from collections.abc import Iterable
from pathlib import Path

from lipfw.errors import InputError


def _shipped(name: str) -> Path:
    """Return a folder of configs: inside the installed package, else at the top of the checkout."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / name
    return checkout if (here.parents[1] / "pyproject.toml").is_file() and checkout.is_dir() else here / name


CONF, EXPERIMENTS = _shipped("conf"), _shipped("experiments")
KEYS = {"task", "image", "prior", "pruner", "fit", "trainer", "logger", "protocol", "shrunk", "seed", "name", "out",
        "max_failures"}


def check_keys(keys: Iterable[str]) -> None:
    """Raise InputError for the top of a config that has an option of no run's, or lacks one of every run's."""
    if surplus := sorted(map(str, set(keys) - KEYS)):
        raise InputError(f"{surplus[0]} is no option; an option of your own belongs into a group, e.g. "
                         f"+task.{surplus[0]}=")
    if missing := sorted(KEYS - {"protocol", "shrunk"} - set(keys)):
        raise InputError(f"{missing[0]} is missing: this config does not start from the shipped one; begin it with "
                         "defaults: [config, _self_]")
