"""The cells of a grid: the same configs that Hydra composes, only quicker."""
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lipfw.cli import CONF, EXPERIMENTS
from lipfw.errors import InputError
from lipfw.grid.cells import opened

GRIDS = {
    "groups and values": ["task=denoise,superres", "pruner=imp,random", "-m", "seed=0..2", "image.name=chelsea"],
    "values of a swept group": ["task=inpaint,cs", "+pruner.own=1", "fit.steps=5,6", "~fit.kernel"],
    "an experiment": ["-cn", "quickstart", "-m", "prior.channels=8,16", "trainer=smoke,cpu"],
    "a list": ["pruner=imp", "pruner.sparsities=[0.2,0.5],[0.3]", "name=a,b"],
    "Hydra's own": ["seed=3,4", "hydra.job.name=x", "-m"],
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_cells_are_what_hydra_composes(grid):
    with opened(grid, CONF, EXPERIMENTS) as (cells, compose):
        assert len(cells) > 1
        for overrides in cells:
            hydras = OmegaConf.to_container(compose._loader.load_sweep_config(compose._master, overrides))
            ours = OmegaConf.to_container(compose(overrides).whole())
            for h in (hydras, ours):
                del h["hydra"]["job"]["override_dirname"]       # deprecated, and used by nothing here
            assert {k: sorted(v) if k == "overrides" else v for k, v in ours.items()} == hydras


def test_a_grid_has_a_cell_for_each_combination_in_hydras_order():
    with opened(["task=denoise,clean", "-m", "seed=0..1,7"], CONF, EXPERIMENTS) as (cells, compose):
        assert cells == [[f"task={t}", f"seed={s}"] for t in ("denoise", "clean") for s in (0, 1, 7)]
        assert len({compose(c).folders for c in cells}) == 6


def test_a_cell_of_several_seeds_has_a_folder_each():
    with opened(["fit.batch_seeds=3", "seed=0,3"], CONF, EXPERIMENTS) as (cells, compose):
        folders = [f.name for c in cells for f in compose(c).folders]
        assert [f.split("-")[-2] for f in folders] == [f"s{i}" for i in range(6)]


@pytest.mark.parametrize("mistake, error", [("task=denois,clean", HydraException), ("seeed=1", HydraException),
                                            ("seed=x fit.batch_seeds=2", InputError)])
def test_mistakes_are_raised(mistake, error):
    with pytest.raises(error), opened(mistake.split(), CONF, EXPERIMENTS) as (cells, compose):
        [compose(c) for c in cells]
