"""The paper's whole study as study.yaml lists it: what each figure takes, as far as lipfw can do it."""
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from omegaconf import OmegaConf

from lipfw.cli import CONF, EXPERIMENTS
from lipfw.grid.cells import opened
from lipfw.image.dataset import Dataset
from lipfw.image.picture import Picture
from lipfw.plan.blank import dataset, pictures, sizes
from lipfw.plan.kinds import Kinds
from lipfw.plan.work import Planner, Work


@dataclass(frozen=True)
class Figure:
    """A figure or table of the paper: its name and question, the work it takes, and remarks on it."""

    name: str
    about: str
    works: Sequence[Work]
    remarks: Sequence[str]


def figures(planner: Planner, rows: Sequence[dict] | None = None) -> Iterator[Figure]:
    """Yield the figures of the study one by one, in the order of the paper; `rows` as in study.yaml, None: those."""
    listed = _listed()
    for row in listed["rows"] if rows is None else rows:
        kinds = Kinds()
        seeds = row.get("seeds", listed["seeds"])
        for entry in row.get("runs", ()):
            common = [listed["common"], *([] if "data" in entry else [listed["restored"]])]
            arguments = shlex.split(" ".join([*common, entry["run"]]))
            if "each" in entry:
                arguments += [f"image={entry['each']}", f"image.name={','.join(sizes()[entry['each']])}"]
            standing = _standing(entry)
            with opened(arguments, CONF, EXPERIMENTS) as (cells, compose):
                for overrides in cells:
                    kinds.add(compose(overrides).config, seeds * entry.get("times", 1), standing)
        remarks = [f"{text} {row[key]}" for key, text in (("uses", "with the runs of"), ("assumed", "assumed:"),
                                                          ("not_yet", "not yet:")) if key in row]
        yield Figure(row["figure"], row["about"], [planner(kind) for kind in kinds], remarks)


def _listed() -> dict:
    text = files("lipfw.plan").joinpath("study.yaml").read_text(encoding="utf-8")
    return OmegaConf.to_container(OmegaConf.create(text))


def _standing(entry: dict) -> list[Picture] | Dataset | None:
    """Return what stands in for the pictures or the data set that an entry gives the size of, None if it does not."""
    match = re.fullmatch(r"(?:(\d+) of )?(\d+)x(\d+)", entry.get("pictures") or entry.get("data") or "")
    if match is None:
        return None
    count, width, height = (int(n or 1) for n in match.groups())
    return dataset(count, width) if "data" in entry else pictures(count, width, height)
