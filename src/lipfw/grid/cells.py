"""The cells of a grid: each combination of what is swept, composed into the config of a run. No torch here."""
import copy
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig, OmegaConf, flag_override

from lipfw.argv import normalise
from lipfw.configs import check_keys
from lipfw.folder import members, run_folder
from lipfw.grid.stages import Stages, stand_in, study_of
from lipfw.yamlfile import checked


@dataclass(frozen=True)
class Cell:
    """One run of a grid, or `fit.batch_seeds` of them in one process: `folders` has one each.

    `overrides` are those that tell the cell from the others, `config` the config that they compose, without Hydra's own
    part, which is `hydra` but for the overrides.
    """

    overrides: tuple[str, ...]
    config: DictConfig
    hydra: DictConfig
    folders: tuple[Path, ...]

    def whole(self) -> DictConfig:
        """Return the config with Hydra's own part, as its launchers have it."""
        whole = copy.deepcopy(self.config)
        with flag_override(whole, ["struct", "readonly"], [False, False]):
            whole.hydra = copy.deepcopy(self.hydra)
            whole.hydra.overrides.task = list(self.overrides)
        return whole


class Composer:
    """Composes the cells of a grid as Hydra does, but those that choose the same groups from one composition.

    Hydra takes tens of milliseconds for each, and a grid of a thousand runs has a few choices of groups and a thousand
    seeds. `loader` and `master` are those that Hydra gives to a sweeper.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig):
        self._loader, self._master = loader, master
        self._parse = cache(lambda line: OverridesParser.create(config_loader=loader).parse_override(line))
        self._is_group = cache(lambda key: bool(loader.get_group_options(key)))
        self._bases: dict[tuple[str, ...], tuple[bytes, DictConfig]] = {}

    def __call__(self, overrides: Sequence[str]) -> Cell:
        """Return the cell of a list of overrides. Raises what Hydra raises for a mistake in them."""
        config, hydra = self.compose(overrides)
        check_keys(config.keys())
        return Cell(tuple(overrides), config, hydra, tuple(run_folder(one) for one in members(config)))

    def compose(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """Return the config of a list of overrides, and Hydra's part of it; what it lacks is not asked for."""
        parsed = [self._parse(line) for line in overrides]
        chosen = tuple(o.input_line for o in parsed if self._chooses(o))
        if chosen not in self._bases:
            base = self._loader.load_sweep_config(self._master, list(chosen))
            with flag_override(base, ["struct", "readonly"], [False, False]):
                for key in ("study", "scale"):      # of the study that the cell is part of
                    base.pop(key, None)
                hydra = base.pop("hydra")
            self._bases[chosen] = pickle.dumps(base), hydra     # copying it takes seven times as long as loading
        base, hydra = self._bases[chosen]
        config = pickle.loads(base)
        ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if not self._chooses(o)], config)
        return config, hydra

    def _chooses(self, override: Override) -> bool:
        """Return whether an override is one that Hydra composes by: it chooses a config of a group, or is Hydra's."""
        return (override.package is not None or override.is_hydra_override()
                or self._is_group(override.key_or_group))


def split(loader: ConfigLoader, master: DictConfig, arguments: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each cell, in the order of Hydra's own sweeper; `hydra.sweeper.params` count too."""
    params = [f"{k}={v}" for k, v in (master.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*params, *arguments])
    return [list(map(str, cell)) for cell in BasicSweeper.split_arguments(parsed, None)[0]]


@contextmanager
def opened(arguments: Sequence[str], conf: Path, experiments: Path) -> Iterator[tuple[list[list[str]], Composer]]:
    """Open the grid that a command line asks for; gives the overrides of each cell, and what composes them.

    `arguments` are spelled as those of `python -m lipfw`, with or without -m. Of a study these are the runs of all its
    stages, with random pruning for tickets that are not found yet. Raises what a mistake in them raises.
    """
    parsed = get_args_parser().parse_args(normalise(["-m", *arguments], experiments))
    path = create_config_search_path(str(conf))
    if parsed.config_dir:
        path.prepend("command-line", f"file://{Path(parsed.config_dir).absolute()}", "schema")    # which must be last
    with checked():
        try:
            hydra = Hydra.create_main_hydra2("lipfw", path)
            setbase("1.3")      # as the command line has it
            setup_globals()
            loader = hydra.config_loader
            master = hydra.compose_config(parsed.config_name or "config", parsed.overrides, RunMode.MULTIRUN, False)
            task, composer = OmegaConf.to_container(master.hydra.overrides.task), Composer(loader, master)
            if (study := study_of(master)) is not None:
                stages = Stages(study, str(master.scale), task, loader, lambda cell: composer.compose(cell)[0])
                yield [stand_in(cell) for cells in stages.cells.values() for cell in cells], composer
            else:
                yield split(loader, master, task), composer
        finally:
            GlobalHydra.instance().clear()
