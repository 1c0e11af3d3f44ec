"""Where the shipped configs lie, and which options a config has at its top."""
from pathlib import Path


def _shipped(name: str) -> Path:
    """Return a folder of configs: inside the installed package, else at the top of the checkout."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / name
    return checkout if (here.parents[1] / "pyproject.toml").is_file() and checkout.is_dir() else here / name


CONF, EXPERIMENTS = _shipped("conf"), _shipped("experiments")
KEYS = {"task", "image", "prior", "pruner", "fit", "trainer", "logger", "protocol", "shrunk", "seed", "name", "out",
        "max_failures"}
