"""The captured step does what the eager one does.

Without a GPU: the body that is captured, and the order of seeding, capture and replay against a stand-in for torch's
graphs; a capture that fails. With one: the graph itself.
"""
import contextlib
import copy
import logging

import pytest
import pytorch_lightning as pl
import torch

from lipfw.errors import InputError
from lipfw.fit import graphed, restoration
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.eager import Eager
from lipfw.fit.graphed import Graphed
from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stepping import check_kernel
from lipfw.image.picture import Picture
from lipfw.pruner.imp import IMP
from lipfw.pruner.none import Dense
from lipfw.task.denoise import Denoise

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Die(pl.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            raise RuntimeError("killed")


class StandIn:
    """A graph whose capture undoes what the body did, as a real one never does it, and whose replay does it."""

    made: list["StandIn"] = []

    def __init__(self):
        self.generators, self.replays = [], 0
        StandIn.made.append(self)

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1
        outputs, loss = self.stepper.body(self.generators)
        for static, fresh in zip([*self.stepper.made[0], self.stepper.made[1]], [*outputs, loss], strict=True):
            static.copy_(fresh)


class Stream:
    device = torch.device("cpu")

    def wait_stream(self, other):
        pass


@pytest.fixture
def stand_in(monkeypatch):
    """Put stand-ins in the place of torch's CUDA graphs; gives those that were made."""
    @contextlib.contextmanager
    def capture(graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        stepper = graph.stepper = StandIn.stepper()
        assert all(g["capturable"] for g in stepper.optimizer.param_groups)
        adam = [v for state in stepper.optimizer.state.values() for v in state.values()]
        tensors = [*stepper.fit.parameters(), *stepper.fit.buffers(), *adam]
        before = [t.detach().clone() for t in tensors]
        yield
        with torch.no_grad():
            for t, value in zip(tensors, before, strict=True):
                t.copy_(value)

    StandIn.made = []
    monkeypatch.setattr(graphed, "side_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandIn)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream())
    return StandIn.made


@pytest.fixture
def use(monkeypatch):
    """Return a function that says which class does the steps."""
    def use(kind):
        def make_stepper(fit, optimizer, mask, kernel):
            stepper = kind(fit, optimizer, mask)
            StandIn.stepper = staticmethod(lambda: stepper)
            return stepper
        monkeypatch.setattr(restoration, "make_stepper", make_stepper)
    return use


def fitted(make, train, use, kind, tmp_path, resumed=False):
    """Fit two pictures for a dense and two pruned rounds; returns all state at the end."""
    def module():
        y = torch.linspace(0, 1, 3 * 16 * 28).reshape(1, 3, 16, 28)
        pictures = [Picture("ramp", y), Picture("waves", (y * 30).sin() / 2 + 0.5)]
        return make(problems=[Denoise(25)(p) for p in pictures])

    use(kind)
    path = tmp_path / f"{kind.__name__}{resumed}.ckpt"
    last = module()
    if resumed:
        with pytest.raises(RuntimeError, match="killed"):
            train(module(), IMP(rounds=2), Checkpoint(path, 0.0), Die())
    adam = {}

    class Adam(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            adam.update(copy.deepcopy(trainer.optimizers[0].state_dict()))

    train(last, IMP(rounds=2), Adam(), Checkpoint(path, 0.0), ckpt_path=path if resumed else None)
    return last.state_dict(), last.summary(), adam


def same(a, b):
    assert a[0].keys() == b[0].keys() and all(torch.equal(a[0][k], b[0][k]) for k in b[0])
    assert a[1] == b[1]
    assert a[2]["param_groups"] == b[2]["param_groups"]
    for i, state in b[2]["state"].items():
        assert all(torch.equal(a[2]["state"][i][k], v) for k, v in state.items())


@pytest.mark.parametrize("rule", ["wmv", "emv"])
def test_what_follows_a_step_reads_nothing_from_the_device(make, picture, rule):
    """On torch's meta device a number that is read back, or branched on, is an error: a graph can't hold it either."""
    module = make(problems=[Denoise(25, s)(picture) for s in range(2)], pick=rule).to("meta")
    outputs = [torch.empty(1, 3, 24, 20, device="meta") for _ in range(2)]
    assert module.follow(outputs, torch.empty((), device="meta")) is None
    with pytest.raises(RuntimeError, match="meta"):
        bool(module.rule.over(module.now))


@pytest.mark.parametrize("resumed", [False, True])
def test_the_body_that_is_captured_is_the_eager_step(make, train, use, tmp_path, resumed):
    same(fitted(make, train, use, Graphed, tmp_path, resumed), fitted(make, train, use, Eager, tmp_path))


@pytest.mark.parametrize("resumed", [False, True])
def test_seeded_captured_and_replayed_in_order(make, train, use, tmp_path, stand_in, resumed):
    """The same bits, from one capture a round after three eager steps; the optimiser's state dict does not show it."""
    found = fitted(make, train, use, Graphed, tmp_path, resumed)
    same(found, fitted(make, train, use, Eager, tmp_path))
    # of 12 steps; the killed fit did 10 of its second round, and the 2 that were left need no graph
    assert [g.replays for g in stand_in] == ([9, 7, 9] if resumed else [9, 9, 9])
    assert all(len(g.generators) == 2 for g in stand_in)


def test_a_step_that_can_not_be_captured_stays_eager(make, train, use, tmp_path, stand_in, monkeypatch, caplog):
    @contextlib.contextmanager
    def refuses(graph, stream, capture_error_mode):
        yield
        raise RuntimeError("\noperation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    use(Graphed)
    module, done = make(steps=12), []
    monkeypatch.setattr(Graphed, "body", lambda self, noise: done.append(len(done)) or Eager.body(self, noise))
    with caplog.at_level(logging.WARNING):
        pruning = train(module, Dense())
    assert pruning.mask is None and len(done) == 13         # twelve steps and the refused capture
    told = [r.getMessage() for r in caplog.records if r.name == "lipfw.fit.graphed"]
    assert told == ["the step can't be captured as a CUDA graph and is done eagerly: "
                    "operation not permitted when stream is capturing"]


def test_sparse_kernels_are_refused_on_a_gpu():
    with pytest.raises(InputError, match="fit.kernel=sparse is for CPUs"):
        check_kernel("sparse", "cuda")
    check_kernel("sparse", "cpu")
    check_kernel("auto", "cuda")


# --- on a GPU

def on_gpu(make, kernel, steps, tmp_path, callbacks=(), ckpt_path=None, **options):
    module = make(steps=steps, kernel=kernel, **options)
    pruning = IterativePruning(IMP(rounds=1))
    trainer = pl.Trainer(accelerator="gpu", devices=1, max_epochs=2, logger=False, callbacks=[pruning, *callbacks],
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                         default_root_dir=tmp_path)
    trainer.fit(module, ckpt_path=ckpt_path)
    return module


class Losses(pl.Callback):
    def __init__(self):
        self.found, self.kinds = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.found += [r["loss"] for r in module.records]
        self.kinds.append((module.stepper.name, module.stepper.graph is not None
                           if module.stepper.name == "graphed" else False))


@needs_gpu
def test_on_a_gpu_the_graph_gives_the_eager_losses(make, tmp_path):
    """Some backward passes add in no fixed order there: the first steps agree to rounding."""
    eager, replayed = Losses(), Losses()
    on_gpu(make, "dense", 10, tmp_path, [eager], log_every=1)
    on_gpu(make, "auto", 10, tmp_path, [replayed], log_every=1)
    assert replayed.kinds[-1] == ("graphed", True) and eager.kinds[-1] == ("dense", False)
    assert replayed.found[:8] == pytest.approx(eager.found[:8], rel=1e-3)
    assert replayed.found[3:] != replayed.found[2:-1]       # each replay is a step


@needs_gpu
def test_on_a_gpu_the_graph_ends_where_the_eager_fit_ends(make, tmp_path):
    eager, replayed = (on_gpu(make, k, 300, tmp_path, steps_per_batch=50).summary() for k in ("dense", "auto"))
    assert replayed["psnr_final"] == pytest.approx(eager["psnr_final"], abs=0.5)


@needs_gpu
def test_on_a_gpu_a_killed_fit_goes_on(make, tmp_path):
    whole, before, after = Losses(), Losses(), Losses()
    on_gpu(make, "auto", 12, tmp_path, [whole], log_every=1)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(RuntimeError, match="killed"):
        on_gpu(make, "auto", 12, tmp_path, [before, Die(), Checkpoint(path, 0.0)], log_every=1)
    on_gpu(make, "auto", 12, tmp_path, [after, Checkpoint(path, 0.0)], ckpt_path=path, log_every=1)
    assert len(after.found) == 7        # steps 6 to 12 of the second round
    assert after.found[:3] == pytest.approx(whole.found[-7:-4], rel=2e-2)
