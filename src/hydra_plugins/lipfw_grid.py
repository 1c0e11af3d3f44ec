"""Where Hydra looks for plugins: our sweeper, and our launchers by the names that conf/hydra/launcher/ gives.

`hydra/launcher=basic` is a name of Hydra's own, which the sweeper takes for ours.
"""
import signal
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import OmegaConf

from lipfw.grid import basic, local, ray, slurm
from lipfw.grid.cells import Composer
from lipfw.grid.staged import run_stages
from lipfw.grid.stages import Stages, study_of
from lipfw.interrupt import listening
from lipfw.redact import tree

_HYDRAS_OWN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper, which leaves it to our launchers to compose each cell, once and quickly."""

    def __init__(self, params=None):
        super().__init__(max_batch_size=None, params=params)    # of batches, one failure would end those after it

    def setup(self, *, hydra_context, task_function, config) -> None:
        if config.hydra.launcher._target_ != _HYDRAS_OWN:
            super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
            return
        self.hydra_context, self.config, self.launcher = hydra_context, config, basic.Basic()
        self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]):
        written = OmegaConf.to_container(self.config)
        if (told := tree(written)) != written:      # Hydra writes it to multirun.yaml; the launcher has its own
            self.config = OmegaConf.create(told)
        if (study := study_of(self.config)) is None:
            return super().sweep(arguments)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        compose = Composer(self.hydra_context.config_loader, self.config)
        stages = Stages(study, str(self.config.scale), arguments, self.hydra_context.config_loader,
                        lambda overrides: compose.compose(overrides)[0])
        with listening(getattr(self.launcher, "signals", (signal.SIGTERM,))):   # a request counts between stages, too
            returns = run_stages(stages, str(self.config.hydra.job.config_name), folder, compose,
                                 self.launcher.launch, self.config.get("max_failures"))
        for ret in returns:
            _ = ret.return_value        # raises the error of a run that has no result
        return returns

    def validate_batch_is_legal(self, batch) -> None:
        """Our launchers compose all before they start any."""


class LocalLauncher(local.Local):
    """See lipfw.grid.local."""


class RayLauncher(ray.OnRay):
    """See lipfw.grid.ray."""


class SlurmLauncher(slurm.OnSlurm):
    """See lipfw.grid.slurm."""
