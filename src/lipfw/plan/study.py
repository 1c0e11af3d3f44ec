"""The paper's whole study as study.yaml lists it: what each figure takes, as far as lipfw can do it."""
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lipfw.configs import CONF, EXPERIMENTS
from lipfw.grid.cells import opened
from lipfw.image.classes import Labelled
from lipfw.image.dataset import Dataset
from lipfw.image.picture import Picture
from lipfw.plan.blank import dataset, labelled, pictures, sizes
from lipfw.plan.kinds import Kind, Kinds
from lipfw.plan.work import Work


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper: its name and question, the work it takes, and remarks on it."""

    name: str
    about: str
    works: Sequence[Work]
    remarks: Sequence[str]


def figures(planner: Callable[[Kind], Work], names: Sequence[str] | None = None) -> Iterator[Figure]:
    """Yield the figures of the study one by one, in the order of study.yaml; `names` are the only ones, None: all."""
    listed = _listed()
    with opened([], CONF, EXPERIMENTS) as (_, compose):         # one for all: their cells have much in common
        for row in listed["rows"]:
            if names is not None and row["figure"] not in names:
                continue
            kinds = Kinds()
            for entry in row.get("runs", ()):
                times, standing = row.get("seeds", listed["seeds"]) * entry.get("times", 1), _standing(entry)
                for overrides, alike in _cells(entry, listed):
                    kinds.add(compose(overrides).config, times * alike, standing)
            remarks = [f"{text} {row[key]}" for key, text in (("none", "nothing to run:"), ("uses", "looks at runs of"),
                                                              ("assumed", "assumed:"), ("not_yet", "not yet:"))
                       if key in row]
            yield Figure(row["figure"], row["about"], [planner(kind) for kind in kinds], remarks)


def _cells(entry: dict, listed: dict) -> Iterator[tuple[list[str], int]]:
    """Yield the overrides of each cell of an entry but for its seeds, and how many cells take the same as it."""
    common = [listed["common"], *([] if "data" in entry else [listed["restored"]])]
    parsed = OverridesParser.create().parse_overrides(shlex.split(" ".join([*common, entry["run"]])))
    cells = [list(map(str, cell)) for cell in BasicSweeper.split_arguments(parsed, None)[0]]
    for cell in cells:
        if "each" not in entry:
            yield cell, 1
            continue
        names = sizes()[entry["each"]]
        for size, count in Counter(names.values()).items():     # one picture of each size
            name = next(n for n, s in names.items() if s == size)
            yield [*cell, f"image={entry['each']}", f"image.name={name}"], count


def _listed() -> dict:
    text = files("lipfw.plan").joinpath("study.yaml").read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text))


def _standing(entry: dict) -> list[Picture] | Dataset | Labelled | None:
    """Return what stands in for the pictures or the data set that an entry gives the size of, None if it does not."""
    named = entry.get("pictures") or entry.get("data") or ""
    if match := re.fullmatch(r"(\d+) \+ (\d+) of (\d+)x\d+ in (\d+) classes", named):
        return labelled(*map(int, match.groups()))
    match = re.fullmatch(r"(?:(\d+) of )?(\d+)x(\d+)", named)
    if match is None:
        return None
    count, width, height = (int(n or 1) for n in match.groups())
    return dataset(count, width) if "data" in entry else pictures(count, width, height)
