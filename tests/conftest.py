"""What the tests share: one thread, no account, small problems.

Fixtures import what they need: the process that only hands the tests out would wait for torch, and the others for it.
"""
import os
import signal

# a shell that starts the tests in its background ignores Ctrl-C for all of their processes
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"

import pytest  # noqa: E402

LONG = ("test_launchers", "test_readme")    # files that take minutes


def pytest_collection_modifyitems(items):
    """Begin with the long files, so that none of them is left alone at the end."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def picture():
    """A smooth picture of unequal sides."""
    import torch

    from lipfw.image.picture import Picture

    y, x = torch.meshgrid(torch.linspace(0, 3, 24), torch.linspace(0, 4, 20), indexing="ij")
    return Picture("waves", torch.stack([(x * y).sin(), (x + y).cos(), (x - y).sin()])[None] / 2 + 0.5)


@pytest.fixture
def make(picture):
    """Return a function that builds a tiny Restoration on fresh objects: equal arguments make equal fits."""
    from lipfw.fit.restoration import Restoration
    from lipfw.prior.skip import build
    from lipfw.task.denoise import Denoise

    def make(steps=12, seed=3, problems=None, **options):
        problems = problems or [Denoise(25, seed)(picture)]
        prior = build([p.shape for p in problems], channels=6, depth=2, skip_channels=2, code_channels=4, seed=seed)
        options = {"log_every": 3, "steps_per_batch": 5, "window": 4, "kernel": "dense", **options}
        return Restoration(problems, prior, steps=steps, **options)
    return make


def tiny_generator(seed=0, channels=(8, 8, 4), latent=6):
    """Return a generator of 16 pixels with random weights, whose pictures lie in [-1, 1] but for a few values."""
    import torch

    from lipfw.gan.network import Generator

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        g = Generator(channels, latent)
    with torch.no_grad():
        g.to_rgb_layers[-1].weight.mul_(0.25)
    return g


@pytest.fixture(scope="session")
def generator_file(tmp_path_factory):
    """The file of a tiny generator with its critic."""
    import torch

    from lipfw.gan.network import Critic
    from lipfw.gan.weights import save

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save(path, tiny_generator(), Critic((8, 8, 4)))
    return path


@pytest.fixture
def go(tmp_path, monkeypatch, request):
    """Return a function that does a run of a test's TINY in a fresh folder; gives its folder and result."""
    from hydra import compose, initialize_config_dir

    from lipfw.cli import CONF
    from lipfw.folder import run_folder
    from lipfw.run import run
    from lipfw.yamlfile import checked

    monkeypatch.chdir(tmp_path)

    def go(*overrides, tiny=request.module.TINY):
        with checked(), initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*tiny, *overrides])
        return run_folder(cfg), run(cfg)
    return go


@pytest.fixture
def train(tmp_path):
    """Return a function that fits a module with a pruner and further callbacks, quietly."""
    import pytorch_lightning as pl

    from lipfw.fit.rounds import IterativePruning

    def train(module, pruner, *callbacks, ckpt_path=None, max_epochs=None):
        pruning = IterativePruning(pruner)
        pruning.prepare(module)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=max_epochs or pruning.rounds, logger=False,
                             callbacks=[pruning, *callbacks], enable_progress_bar=False, enable_model_summary=False,
                             enable_checkpointing=False, default_root_dir=tmp_path)
        trainer.fit(module, ckpt_path=ckpt_path)
        return pruning
    return train


@pytest.fixture
def masks_of_rounds():
    """A callback that keeps the mask of each round, None where all is kept."""
    import pytorch_lightning as pl

    from lipfw.fit.rounds import IterativePruning

    class Masks(pl.Callback):
        def __init__(self):
            self.kept = []

        def on_train_epoch_end(self, trainer, module):
            self.kept.append(next(c for c in trainer.callbacks if isinstance(c, IterativePruning)).mask)

    return Masks()
