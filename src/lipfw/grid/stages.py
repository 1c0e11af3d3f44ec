"""A study: stages of runs, later ones of which replay the tickets that earlier ones found. No torch here.

Its config lists them (experiments/): `common` overrides, those of each scale, and of each stage what it runs:

    stages:
      found: {run: "pruner=imp,random", tiny: "pruner.rounds=8"}
      judged: {of: found, across: [pruner], run: "task=inpaint"}

A stage `of` another replays, in each of its runs, the run of that stage which has the same values of what it sweeps
(picture, seed); `across` names what need not agree: there is a run for each value. `where` narrows what is replayed
down, and `sparsity` takes single tickets, the nearest, instead of all rounds.
"""
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString
from omegaconf import DictConfig, OmegaConf

from lipfw.argv import normalise
from lipfw.errors import InputError, nearest

_STUDY = ("figure", "question", "expected", "common", "scales", "stages", "series", "metric", "claims", "published",
          "figures")
_STAGE = ("run", "of", "across", "where", "sparsity", "scale")
_SCHEDULE = ("pruner.rounds", "pruner.rate", "pruner.sparsities", "pruner.params")
TOP = ("scale", "name", "out", "max_failures")      # options of the study itself, and not of a stage


@dataclass(frozen=True)
class Planned:
    """A run of a stage: its overrides, the same as option -> text in `values`, and the run whose tickets it replays.

    `values` also has what the replayed run's stage sweeps, and what its own is across, as `of.OPTION`, and `of`, that
    stage; `sparsity` is that of the single ticket that is replayed, None: all of them.
    """

    stage: str
    overrides: tuple[str, ...]
    values: Mapping[str, str]
    of: "Planned | None" = None
    sparsity: float | None = None


def study_of(config: DictConfig) -> DictConfig | None:
    """Return the study of a composed config, None if it has none. Raises InputError for one that says nothing."""
    if "study" not in config:
        return None
    study = config.study
    if not study or not OmegaConf.is_dict(study):
        raise InputError(f"study: {'is empty' if not study else 'must be a mapping'}; it has at least scales and "
                         "stages, as those of experiments/ do")
    if "scale" not in config:
        raise InputError("study: without scale=; begin the config with defaults: [study, _self_]")
    return study


class Stages:
    """The stages of a study at a scale, with the user's own overrides; `stages.cells` has each one's runs.

    `config` composes the config of overrides: an option that the user gives counts in the stages that have it. Raises
    InputError for what is wrong in a study, or in those overrides.
    """

    def __init__(self, study: DictConfig, scale: str, given: Sequence[str], loader: ConfigLoader,
                 config: Callable[[Sequence[str]], DictConfig]):
        self.spec, self.scale = OmegaConf.to_container(study, resolve=True), scale
        self._line, self._config = cache(OverridesParser.create(config_loader=loader).parse_override), config
        self._check()
        parsed = self._parse(given)
        if several := next((o for o in parsed if o.key_or_group in TOP and o.is_sweep_override()), None):
            key = several.key_or_group
            raise InputError(f"{key}={','.join(_texts(several))}: a study has one {key}; start it once for each")
        self._top = [o.input_line for o in parsed if o.key_or_group in TOP and o.key_or_group != "scale"]
        self._given = {o.get_key_element(): o for o in parsed if o.key_or_group not in TOP}
        self._used: set[str] = set()
        self._takes: dict[tuple[str, ...], list[str]] = {}      # overrides of the user's, by the options that a run has
        self._options: dict[str, dict[str, None]] = {}      # of groups, for a hint at a misspelt one
        self.cells: dict[str, list[Planned]] = {}
        for name, stage in self.spec["stages"].items():
            if scale in stage.get("scale", self.spec["scales"]):
                self.cells[name] = self._stage(name, stage)
        if unused := next((key for key in self._given if key not in self._used), None):
            group, told = unused.partition(".")[0], f"{unused}={','.join(_texts(self._given[unused]))}"
            raise InputError(f"{told}: no run of this study has such an option"
                             + nearest(unused, [f"{group}.{k}" for k in self._options.get(group, ())]))

    @property
    def given(self) -> list[str]:
        """The user's own overrides that change results, sorted, but for the seed."""
        return sorted(f"{key}={','.join(_texts(o))}" for key, o in self._given.items()
                      if key != "seed" and (key.partition(".")[0] not in ("logger", "trainer")
                                            or key in ("trainer", "trainer.precision")))

    def _parse(self, words: Sequence[str]) -> list[Override]:
        """Return overrides; the runs of a study have most of theirs in common, and Hydra takes a millisecond for each.
        """
        return list(map(self._line, words))

    def _check(self) -> None:
        for key in self.spec:
            if key not in _STUDY:
                raise InputError(f"study.{key} is no part of a study{nearest(key, _STUDY)}; there are "
                                 f"{', '.join(_STUDY)}")
        for key in ("scales", "stages"):
            if not isinstance(self.spec.get(key), Mapping) or not self.spec[key]:
                raise InputError(f"study.{key} must name at least one of them, e.g. "
                                 + ('scales: {tiny: "fit.steps=500"}' if key == "scales" else
                                    'stages: {found: {run: "pruner=imp"}}'))
        scales = self.spec["scales"]
        for name, words in {"common": self.spec.get("common"),
                            **{f"scales.{scale}": words for scale, words in scales.items()}}.items():
            _words(f"study.{name}", words)
        if self.scale not in scales:
            raise InputError(f"scale={self.scale} is not one of this study's: use {' or '.join(scales)}")
        for name, stage in self.spec["stages"].items():
            allowed = (*_STAGE, *scales)
            if not isinstance(stage, Mapping):
                raise InputError(f"study.stages.{name} must say what is run, e.g. {name}: {{run: \"pruner=imp\"}}, got "
                                 f"{stage!r}")
            for key in stage:
                if key not in allowed:
                    raise InputError(f"study.stages.{name}.{key} is no part of a stage{nearest(key, allowed)}; there "
                                     f"are {', '.join(allowed)}")
            for key in ("run", *scales):
                _words(f"study.stages.{name}.{key}", stage.get(key))

    def _stage(self, name: str, stage: Mapping) -> list[Planned]:
        words = [self.spec.get("common"), stage.get("run"), self.spec["scales"][self.scale], stage.get(self.scale)]
        argv = normalise(["-m", *shlex.split(" ".join(w for w in words if w))])
        own = self._parse([w for w in argv if w != "-m"])
        cells: dict[tuple[str, ...], None] = {}     # a set in order: what the user gives once for all makes some alike
        for cell in _split(own):
            if stage.get("of") is not None and not any(w.startswith("pruner=") for w in cell):
                cell = [*cell, "pruner=ticket"]
            every = [*cell, *self._wanted(cell), *self._top]
            cells |= {tuple(one): None for one in _split(self._parse(every))}
        return [planned for cell in cells for planned in self._replays(name, stage, cell)]

    def _wanted(self, cell: Sequence[str]) -> list[str]:
        """Return the user's overrides that a run takes: choices of groups, and options that its groups have."""
        if not self._given:
            return []
        # which options a group has is decided by choices and by what is added, not by plain values; which a mapping in
        # it has may be
        deep = any(key.count(".") > 1 for key in self._given)
        alike = tuple(o.key_or_group if _plain(o) and not deep else o.input_line for o in self._parse(cell))
        if alike not in self._takes:
            self._takes[alike] = self._options_taken(cell)
        return self._takes[alike]

    def _options_taken(self, cell: Sequence[str]) -> list[str]:
        config, wanted = self._config(cell), []
        for key, override in self._given.items():
            group, _, rest = key.lstrip("+~").partition(".")
            node = config.get(group)
            if not rest or key[0] in "+~" or node is None or OmegaConf.is_dict(node) and _has(node, rest):
                self._used.add(key)
                wanted.append(override.input_line)
            elif OmegaConf.is_dict(node):
                self._options.setdefault(group, {}).update(dict.fromkeys(map(str, node)))
        return wanted

    def _replays(self, name: str, stage: Mapping, overrides: Sequence[str]) -> list[Planned]:
        """Return a run of a stage, once for each run whose tickets it is to replay."""
        values = {o.key_or_group: _texts(o)[0] for o in self._parse(overrides)
                  if o.key_or_group not in TOP}
        sources = stage.get("of")
        if sources is None:
            return [Planned(name, tuple(overrides), values)]
        sparsities = stage.get("sparsity")
        runs = []
        for source in [sources] if isinstance(sources, str) else sources:
            if source not in self.cells:
                raise InputError(f"study.stages.{name}.of is {source!r}, which is no stage before it"
                                 f"{nearest(source, self.cells)}")
            found = [f for f in self.cells[source]
                     if all(f.values.get(k) == str(v) for k, v in (stage.get("where") or {}).items())]
            for f in _agreeing(found, values, stage.get("across") or (), f"stage {name} of {source}"):
                swept = {f"of.{k}": f.values[k] for k in (*_swept(self.cells[source]), *(stage.get("across") or ()))
                         if k in f.values}
                for s in [sparsities] if not isinstance(sparsities, list) else sparsities:
                    at = {} if s is None else {"of.sparsity": str(s)}
                    runs.append(Planned(name, tuple(overrides), {**values, "of": source, **swept, **at}, f, s))
        return runs


def _words(name: str, words) -> None:
    """Raise InputError for what is no list of overrides in a text."""
    if words is not None and not isinstance(words, str):
        raise InputError(f"{name} must be a text of options, e.g. \"fit.steps=500 seed=0..1\", got {words!r}")


def stand_in(cell: Planned) -> list[str]:
    """Return the overrides of a run that takes what `cell` takes, whose tickets are not found yet: random pruning."""
    if cell.of is None:
        return list(cell.overrides)
    kept = [w for w in cell.overrides if not w.lstrip("+").startswith(("pruner=", "pruner."))]
    if cell.sparsity is not None:
        return [*kept, "pruner=random", f"pruner.sparsities=[{cell.sparsity}]"]
    return [*kept, "pruner=random", *(w for w in stand_in(cell.of) if w.partition("=")[0] in _SCHEDULE)]


def _agreeing(found: Sequence[Planned], values: Mapping[str, str], across: Sequence[str], where: str) -> list[Planned]:
    """Return the runs that agree with `values` in what they sweep, one for each combination of what is `across`.

    Their pruner need not: it found the tickets, and the run that replays them has another.
    """
    swept = _swept(found)
    if missing := next((k for k in across if k not in swept and not all(k in f.values for f in found)), None):
        raise InputError(f"{where}: across names {missing}, which those runs have no value of")
    agree = [k for k in swept if k in values and k not in across and k.partition(".")[0] != "pruner"]
    alike = [f for f in found if all(f.values.get(k) == values[k] for k in agree)]
    if not alike:
        raise InputError(f"{where}: none of its runs has the values of this one: "
                         f"{' '.join(f'{k}={values[k]}' for k in agree) or 'there are none'}")
    by: dict[tuple, list[Planned]] = {}
    for f in alike:
        by.setdefault(tuple(f.values.get(k) for k in across), []).append(f)
    if several := next((fs for fs in by.values() if len(fs) > 1), None):
        raise InputError(f"{where}: several runs could be replayed, {_apart(several)}; name one by where, or across "
                         "for each of them")
    return alike


def _apart(runs: Sequence[Planned]) -> str:
    keys = _swept(runs)
    return ", ".join(" ".join(f"{k}={f.values.get(k)}" for k in keys) for f in runs[:3])


def _swept(runs: Sequence[Planned]) -> list[str]:
    """Return the options whose values differ among runs."""
    keys = dict.fromkeys(k for f in runs for k in f.values)
    return [k for k in keys if len({f.values.get(k) for f in runs}) > 1]


def _split(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the combinations of what is swept; of an option that is given twice the last counts."""
    each = {}
    for o in overrides:
        each[o.get_key_element()] = BasicSweeper.split_arguments([o], None)[0]
    return [[word for (word,) in cell] for cell in product(*each.values())]


def _texts(override: Override) -> list[str]:
    """Return the values of an override, without quotes."""
    if override.is_sweep_override():
        return [str(s).strip("'\"") for s in override.sweep_string_iterator()]
    value = override.value()
    return [value.text if isinstance(value, QuotedString) else override.get_value_element_as_str()]


def _plain(override: Override) -> bool:
    """Return whether an override gives an option that there is a number, or a text that stands for itself."""
    key = override.key_or_group
    return (override.type == OverrideType.CHANGE and override.package is None and ("." in key or key == "seed")
            and isinstance(override.value(), (int, float, str, QuotedString))
            and not any("${" in text or text == "???" for text in _texts(override)))


def _has(node: DictConfig, path: str) -> bool:
    for part in path.split(".")[:-1]:
        node = node.get(part)
        if not OmegaConf.is_dict(node):
            return False
    return path.rpartition(".")[2] in node
