"""The paper's whole study: what each figure and table takes, by the experiments at their published scale."""
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from omegaconf import OmegaConf

from lipfw.configs import CONF, EXPERIMENTS
from lipfw.grid.cells import opened
from lipfw.plan.kinds import Kind, Kinds
from lipfw.plan.work import Work


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper: its name and question, and the work it takes."""

    name: str
    about: str
    works: Sequence[Work]


def figures(planner: Callable[[Kind], Work], names: Sequence[str] | None = None) -> Iterator[Figure]:
    """Yield the figures one by one, figures before tables; `names` are the only ones, None: all.

    A replay of tickets is planned as random pruning with their schedule: tickets that are not found yet can't be read.
    """
    for experiment, name, question in studies():
        if names is not None and name not in names:
            continue
        kinds = Kinds()
        with opened(["-cn", experiment, "scale=paper"], CONF, EXPERIMENTS) as (cells, compose):
            alike = Counter(tuple(w for w in cell if not w.startswith("seed=")) for cell in cells)
            for overrides, seeds in alike.items():
                kinds.add(compose.compose(overrides)[0], seeds)
        yield Figure(name, question, [planner(kind) for kind in kinds])


@cache
def studies() -> list[tuple[str, str, str]]:
    """Return the experiments that make a figure or table of the paper: file name, figure, question; in their order."""
    found = [(path.stem, OmegaConf.load(path).get("study")) for path in EXPERIMENTS.glob("*.yaml")]
    named = [(stem, study.figure, study.question) for stem, study in found if study and "paper" in study.scales]
    return sorted(named, key=lambda s: (s[1].split()[0], int(s[1].split()[1])))      # Fig 2, Fig 10, Tab 1
