"""study.json: what a study planned. It is checked here, once; and whether a run is the one that a cell asked for."""
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

import lipfw
from lipfw.errors import InputError, nearest
from lipfw.redact import HIDDEN
from lipfw.report.read import Run

MANIFEST = "study.json"
_GROUPS = ("task", "prior", "pruner")       # whose YAML has the name of its module
# options that may differ between folders of one study: samples of it, and where and how its runs were made
_SAMPLES = ("seed", "image.name")
_ELSEWHERE = ("name", "out", "trainer", "logger", "hydra", "max_failures", "fit.steps_per_batch", "fit.kernel",
              "fit.batch_seeds")
_MACHINES = ("auto", "cpu", "gpu")      # a trainer that is none of these shrinks what is run


@dataclass(frozen=True)
class Manifest:
    """What study.json of `folder` holds: `cells` have `stage`, `values` (strings) and `folder` (a name, or None)."""

    folder: Path
    name: str
    scale: str
    given: Sequence[str]
    spec: Mapping
    cells: Sequence[Mapping]

    @property
    def path(self) -> Path:
        return self.folder / MANIFEST

    def check(self, cell: Mapping, run: Run) -> None:
        """Raise InputError if a run is another than its cell asked for, with the option that tells."""
        options = {**run.options, **run.seeds}
        for key, text in cell["values"].items():
            key = key.lstrip("+")
            had = options.get(f"{key}._target_" if key in _GROUPS else key)
            if key == "pruner.path" or key in _GROUPS and not _ours(key, text):
                continue        # told by where the tickets were found; a YAML of the user's own
            told = str(had).split(".")[-2:-1] == [text] if key in _GROUPS else same(text, had)
            told = told or key == "prior" and had == "lipfw.prior.none.build"       # a classical method takes it
            if (key in options or key in _GROUPS) and not told:
                raise InputError(f"{self.path}: {key} is {text} in the cell of {cell['folder']}, but its run had "
                                 f"{had}; delete that folder and start the study again")


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a folder, None if there is none. Raises InputError, naming the file and the key."""
    path = Path(folder) / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path} cannot be read ({e})") from None
    try:
        node = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path} is broken ({e}); start the study again to write it anew") from None
    if not isinstance(node, dict):
        raise InputError(f"{path} holds no study")
    for key, kind, what in (("study", str, "a name"), ("scale", str, "a name"), ("given", list, "a list"),
                            ("spec", dict, "a mapping"), ("cells", list, "a list")):
        if not isinstance(node.get(key), kind):
            raise InputError(f"{path}: {key} must be {what}, got {node.get(key)!r}")
    for key in ("series", "stages"):
        if not isinstance(node["spec"].get(key) or {}, dict):
            raise InputError(f"{path}: spec.{key} must be a mapping, got {node['spec'][key]!r}")
    for i, cell in enumerate(node["cells"]):
        _check_cell(f"{path}: cells[{i}]", cell)
    return Manifest(Path(folder), node["study"], node["scale"], [str(g) for g in node["given"]], node["spec"],
                    node["cells"])


def joined(manifests: Sequence[Manifest]) -> Manifest:
    """Return the first of the manifests of one study if all agree with it, else raise InputError."""
    first = manifests[0]
    for other in manifests[1:]:
        pairs = [("scale", first.scale, other.scale)]
        ours, theirs = changing(first.given), changing(other.given)
        pairs += [(k, ours.get(k, "not given"), theirs.get(k, "not given")) for k in dict.fromkeys([*ours, *theirs])]
        pairs += [(f"spec.{k}", first.spec.get(k), other.spec.get(k))
                  for k in dict.fromkeys([*first.spec, *other.spec])]
        for key, a, b in pairs:
            if a != b:
                raise InputError(f"{first.path} and {other.path} are no one study: {key} is {_brief(a)} in the one and "
                                 f"{_brief(b)} in the other; report them one by one")
    return first


def matches(values: Mapping[str, str], where, name: str, among: Sequence[Mapping[str, str]]) -> bool:
    """Return whether a cell's values are those that `where` wants: {key: value, or a list of values}.

    Raises InputError, naming `name`, if `where` is no mapping, or if none of the cells `among` has one of its keys.
    """
    if where is None:
        return True
    if not isinstance(where, Mapping):
        raise InputError(f"{name} must be a mapping of options to values, got {where!r}")
    for key in where:
        if among and not any(key in v for v in among):      # the first one has it, mostly
            known = dict.fromkeys(k for v in among for k in v)
            raise InputError(f"{name}: no cell has a value of {key}{nearest(key, known)}")
    return all(key in values and any(same(values[key], w) for w in (wanted if isinstance(wanted, list) else [wanted]))
               for key, wanted in where.items())


def same(text: str, value) -> bool:
    """Return whether a value on the command line means an option's value; it may, where that cannot be told.

    >>> same("1e-3", 0.001), same("null", None), same("[20, 0.5]", [20, 0.5]), same("'bird'", "bird"), same("5", 6)
    (True, True, True, True, False)
    """
    if "${" in text or HIDDEN in (text, value):
        return True
    if value is None or isinstance(value, bool):
        return text.lower() == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        try:
            return float(text) == value
        except ValueError:
            return False
    if isinstance(value, list):
        try:
            items = yaml.safe_load(text)
        except yaml.YAMLError:
            return False
        return isinstance(items, list) and len(items) == len(value) and all(
            same(json.dumps(i) if isinstance(i, (bool, type(None), list)) else str(i), v)
            for i, v in zip(items, value, strict=True))
    return str(value) in (text, text.strip("'\""))


def changing(given: Sequence[str]) -> dict[str, str]:
    """Return the options among those typed by the user that change what is studied: neither where nor which samples.

    >>> changing(["seed=0..2", "fit.steps=100", "trainer.threads=1", "trainer=cpu", "hydra/launcher=local"])
    {'fit.steps': '100'}
    >>> changing(["trainer=smoke", "trainer.precision=16"])
    {'trainer': 'smoke', 'trainer.precision': '16'}
    """
    options = dict(g.lstrip("+").partition("=")[::2] for g in given)
    return {k: v for k, v in options.items()
            if k == "trainer.precision" or k == "trainer" and v not in _MACHINES
            or k not in _SAMPLES and not {k, k.partition(".")[0].partition("/")[0]} & set(_ELSEWHERE)}


def _ours(group: str, name: str) -> bool:
    return (Path(lipfw.__file__).parent / group / f"{name}.py").is_file()


def _check_cell(name: str, cell) -> None:
    if not isinstance(cell, dict):
        raise InputError(f"{name} must be a mapping, got {cell!r}")
    if not isinstance(cell.get("stage"), str):
        raise InputError(f"{name}.stage must be a name, got {cell.get('stage')!r}")
    values, folder = cell.get("values"), cell.get("folder")
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise InputError(f"{name}.values must be a mapping of options to strings, got {values!r}")
    if folder is not None and (not isinstance(folder, str) or folder in ("", "..") or folder != Path(folder).name):
        raise InputError(f"{name}.folder must be the name of a folder beside it or null, got {folder!r}")


def _brief(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
