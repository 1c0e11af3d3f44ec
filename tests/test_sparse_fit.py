"""Steps by the sparse kernels: those of torch up to rounding, with the same state before and after."""
import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lipfw.errors import InputError
from lipfw.fit import sparse as sparse_module
from lipfw.fit import stepping
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.eager import Eager
from lipfw.fit.sparse import Sparse
from lipfw.fit.stepping import make_stepper
from lipfw.image.picture import Picture
from lipfw.kernel.interface import library
from lipfw.kernel.library import Unavailable
from lipfw.mask import Mask, keep_top, prunable
from lipfw.prior.decoder import build as build_decoder
from lipfw.pruner.imp import IMP
from lipfw.pruner.ticket import Replay
from lipfw.task.denoise import Denoise
from lipfw.ticket import INITIAL, Ticket, save_state


@pytest.fixture(autouse=True, scope="module")
def kernels():
    try:
        library()
    except Unavailable as e:
        pytest.skip(f"no kernel library: {e}")


@pytest.fixture(autouse=True)
def always_faster(monkeypatch):
    """Whatever the processor, `auto` takes the kernels."""
    monkeypatch.setattr(stepping, "BREAK_EVEN", (1.0, 1.0, 1.0))


@pytest.fixture
def two(picture):
    """Problems of two pictures of different sizes."""
    other = Picture("other", picture.pixels[:, :, 3:20, 1:].flip(3))
    return [Denoise(25, 3)(picture), Denoise(25, 4)(other)]


@pytest.fixture
def three(two, picture):
    """The third is as large as the first."""
    return [*two, Denoise(25, 5)(Picture("third", picture.pixels.flip(2)))]


def random_mask(network, density, seed=0):
    g = torch.Generator().manual_seed(seed)
    weights = prunable(network)
    scores = {n: torch.rand(w.shape, generator=g) for n, w in weights.items()}
    return keep_top(scores, round(density * sum(w.numel() for w in weights.values())))


def start(module, density):
    """Return a mask, applied, and an optimiser: what a round starts with."""
    mask = random_mask(module.prior.network, density) if density < 1 else None
    if mask is not None:
        mask.apply(module.prior.network)
    return mask, module.configure_optimizers()


def gradients(module, stepper):
    """Return the gradients of the step that a stepper has done."""
    named = dict(module.prior.network.named_parameters())
    if not isinstance(stepper, Sparse):
        return {n: p.grad.clone() for n, p in named.items()}
    out = {n: torch.zeros_like(p) for n, p in named.items()}
    stepper.packed.unpack(stepper.unknowns.grad, out)
    return out


def without_effect(module):
    """Return the names of biases that batch norm takes away again: torch's gradients of them are rounding noise."""
    return {f"{n}.bias" for n, m in module.prior.network.named_modules() if isinstance(m, nn.Conv2d) and n != "head"}


@pytest.mark.parametrize("kernel", ["sparse", "auto"])
@pytest.mark.parametrize("density", [1.0, 0.4, 0.08])
@pytest.mark.parametrize("pictures", [1, 3])
def test_one_step_has_the_gradients_and_the_loss_of_torch(make, three, kernel, density, pictures):
    steppers, losses, outputs = [], [], []
    for k in ("dense", kernel):
        module = make(problems=three[:pictures])
        mask, optimizer = start(module, density)
        steppers.append((module, make_stepper(module, optimizer, mask, k)))
        pictures_made, loss = steppers[-1][1].step(0)
        outputs.append(pictures_made)
        losses.append(float(loss))
    assert isinstance(steppers[1][1], Sparse) and steppers[1][1].note is None
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert not a.requires_grad and not b.requires_grad
    expected, own = (gradients(*s) for s in steppers)
    largest = max(g.abs().max() for g in expected.values())
    for name in expected:
        assert (own[name] - expected[name]).abs().max() < 2e-5 * largest, name
        assert name not in without_effect(steppers[1][0]) or (own[name] == 0).all()


def test_the_step_after_some_dense_ones_is_that_of_torch(make):
    """Adam's moments are taken over and handed back: one step from the same state makes the same state."""
    module = make()
    mask, optimizer = start(module, 0.3)
    dense = Eager(module, optimizer, mask)
    for step in range(3):
        dense.step(step)
    twin = copy.deepcopy(module)
    twin_optimizer = twin.configure_optimizers()
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    dense.step(3)
    sparse = Sparse(twin, twin_optimizer, mask)
    sparse.step(3)
    sparse.settle()
    own = dict(twin.prior.network.named_parameters())
    skip = without_effect(module)
    for name, p in module.prior.network.named_parameters():
        a, b = optimizer.state[p], twin_optimizer.state[own[name]]
        assert float(a["step"]) == float(b["step"]) == 4 and a["step"].dtype == b["step"].dtype
        for moment in ("exp_avg", "exp_avg_sq"):
            if name not in skip:
                torch.testing.assert_close(b[moment], a[moment], atol=1e-6 * float(a[moment].abs().max()) + 1e-9,
                                           rtol=1e-3)
    for name, b in module.prior.network.named_buffers():
        if "running" not in name:
            assert torch.equal(b, dict(twin.prior.network.named_buffers())[name])


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_what_is_left_has_the_structure_of_torch(make, two, density):
    states = []
    for kernel in ("dense", "sparse"):
        module = make(problems=two)
        mask, optimizer = start(module, density)
        stepper = make_stepper(module, optimizer, mask, kernel)
        for step in range(3):
            stepper.step(step)
        stepper.settle()
        states.append((module.prior.network.state_dict(), optimizer.state_dict()))
        for name in mask or ():
            assert (module.prior.network.get_parameter(name)[~mask[name]] == 0).all()
    (a, a_optimizer), (b, b_optimizer) = states
    assert [(n, t.shape, t.dtype) for n, t in a.items()] == [(n, t.shape, t.dtype) for n, t in b.items()]
    assert all(a[n] == b[n] == 6 for n in a if n.endswith("num_batches_tracked"))
    assert a_optimizer["param_groups"] == b_optimizer["param_groups"]
    assert a_optimizer["state"].keys() == b_optimizer["state"].keys()
    for i, state in a_optimizer["state"].items():
        assert [(k, v.shape, v.dtype) for k, v in state.items()] == \
            [(k, v.shape, v.dtype) for k, v in b_optimizer["state"][i].items()]


def test_settling_and_taking_up_again_changes_nothing(make):
    """Bit for bit: five steps are two, settled, taken up by another stepper, and three."""
    ends = []
    for stops in ((), (2,), (1, 2, 4)):
        module = make()
        mask, optimizer = start(module, 0.5)
        stepper = Sparse(module, optimizer, mask)
        for step in range(5):
            if step in stops:
                stepper.settle()
                stepper.settle()
                stepper = Sparse(module, optimizer, mask)
            stepper.step(step)
        stepper.settle()
        ends.append((module.prior.network.state_dict(), optimizer.state_dict()["state"]))
    for network, state in ends[1:]:
        assert all(torch.equal(network[n], v) for n, v in ends[0][0].items())
        assert all(torch.equal(state[i][k], v) for i, s in ends[0][1].items() for k, v in s.items())


def test_settling_in_the_middle_changes_nothing(make):
    """As a checkpoint, a snapshot or a metric does; what is then in the network is what the steps have made of it."""
    ends = []
    for settle in (False, True):
        module = make()
        mask, optimizer = start(module, 0.2)
        stepper = Sparse(module, optimizer, mask)
        for step in range(4):
            stepper.step(step)
            if settle:
                stepper.settle()
        stepper.settle()
        ends.append(module.prior.network.state_dict())
    assert all(torch.equal(ends[1][n], v) for n, v in ends[0].items())


# --- whole runs

class Rounds(pl.Callback):
    """Keep the network, mask, summary and stepper of each round's end."""

    def __init__(self):
        self.kept = []

    def on_train_epoch_end(self, trainer, module):
        network = copy.deepcopy(module.prior.network.state_dict())
        self.kept.append((network, trainer.callbacks[0].mask, module.summary(), type(module.stepper)))


class Die(pl.Callback):
    def __init__(self, round_, batch):
        self.at = (round_, batch)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("killed")


@pytest.mark.parametrize("kernel", ["sparse", "auto"])
@pytest.mark.parametrize("rewind_step", [0, 3])
def test_pruning_rounds(make, train, two, kernel, rewind_step):
    """Exact counts, nested masks, removed weights exactly zero; also with two pictures, and after a later rewind."""
    rounds = Rounds()
    module = make(steps=4, problems=two, kernel=kernel)
    train(module, IMP(rounds=4, rate=0.4, rewind_step=rewind_step), rounds)
    left = sum(p.numel() for p in prunable(module.prior.network).values())
    for r, (state, mask, summary, stepper) in enumerate(rounds.kept):
        assert stepper is Sparse and len(summary["images"]) == 2
        if r:
            left -= round(0.4 * left)
            assert mask.count == left
            for name in mask:
                assert r == 1 or (mask[name] <= rounds.kept[r - 1][1][name]).all()
                assert (state[name][~mask[name]] == 0).all() and (state[name][mask[name]] != 0).any()


@pytest.mark.parametrize("kernel, rewind_step", [("sparse", 7), ("auto", 0)])
@pytest.mark.parametrize("round_, batch", [(0, 1), (2, 0), (2, 1)])
def test_resume_is_exact(make, train, tmp_path, kernel, round_, batch, rewind_step):
    """Killed and taken up again in the middle of a round: the same bits as without."""
    pruner = dict(rounds=2, rate=0.4, rewind_step=rewind_step)
    whole, before, after = Rounds(), Rounds(), Rounds()
    train(make(kernel=kernel), IMP(**pruner), whole)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(RuntimeError, match="killed"):
        train(make(kernel=kernel), IMP(**pruner), before, Die(round_, batch), Checkpoint(path, 0.0))
    train(make(kernel=kernel), IMP(**pruner), after, Checkpoint(path, 0.0), ckpt_path=path if path.exists() else None)
    resumed = before.kept[:len(whole.kept) - len(after.kept)] + after.kept
    assert len(resumed) == len(whole.kept)
    for (a, mask_a, summary_a, _), (b, mask_b, summary_b, _) in zip(resumed, whole.kept, strict=True):
        assert summary_a == summary_b
        assert all(torch.equal(a[k], b[k]) for k in b)
        assert mask_a is mask_b is None or all(torch.equal(mask_a[n], mask_b[n]) for n in mask_b)


@pytest.mark.parametrize("first, then", [("dense", "sparse"), ("sparse", "dense")])
def test_a_run_goes_on_with_another_kernel(make, train, tmp_path, first, then):
    """From a checkpoint in the middle of a round; its loss goes on falling, so nothing was lost on the way."""
    path = tmp_path / "checkpoint.ckpt"
    pruner = dict(rounds=1, rate=0.5)
    whole, rounds = Rounds(), Rounds()
    train(make(steps=40, kernel=first), IMP(**pruner), whole)
    with pytest.raises(RuntimeError, match="killed"):
        train(make(steps=40, kernel=first), IMP(**pruner), Die(1, 4), Checkpoint(path, 0.0))
    train(make(steps=40, kernel=then), IMP(**pruner), rounds, ckpt_path=path)
    (state, mask, summary, stepper), = rounds.kept
    assert stepper is {"dense": Eager, "sparse": Sparse}[then]
    assert all(torch.equal(mask[n], whole.kept[1][1][n]) and (state[n][~mask[n]] == 0).all() for n in mask)
    assert summary["psnr_final"] == pytest.approx(whole.kept[1][2]["psnr_final"], abs=0.5)
    assert all(int(v) == 40 for n, v in state.items() if n.endswith("num_batches_tracked"))


def test_a_replayed_ticket_is_the_round_that_found_it(make, train, tmp_path):
    rounds, replayed = Rounds(), Rounds()
    pruning = train(make(kernel="sparse"), IMP(rounds=2, rate=0.5), rounds)
    checksum = save_state(tmp_path / INITIAL, pruning.start["network"])
    for r, (_, mask, *_) in enumerate(rounds.kept):
        mask = mask or Mask.ones(make().prior.network)
        Ticket(mask, {"initial": checksum}).save(tmp_path / f"round_{r:02d}.safetensors")
    train(make(kernel="sparse"), Replay(str(tmp_path)), replayed)
    for (a, *_), (b, *_) in zip(replayed.kept, rounds.kept, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in b)


def test_the_same_psnr_whatever_the_kernel(make, train):
    """Trajectories part by rounding, results do not: the kernels differ no more than two seeds of the same one."""
    psnr = {}
    for kernel in ("dense", "sparse", "auto"):
        for seed in (0, 1, 2):
            rounds = Rounds()
            train(make(steps=60, seed=seed, kernel=kernel, smoothing=0.9), IMP(rounds=1, rate=0.7), rounds)
            psnr[kernel, seed] = [s["psnr_final"] for _, _, s, _ in rounds.kept]
    dense = torch.tensor([psnr["dense", s] for s in (0, 1, 2)])
    spread = dense.amax(0) - dense.amin(0)
    for kernel in ("sparse", "auto"):
        own = torch.tensor([psnr[kernel, s] for s in (0, 1, 2)])
        assert ((own.mean(0) - dense.mean(0)).abs() < spread.clamp(min=0.3)).all(), (kernel, own, dense)


def test_the_decoder_is_fitted_too(make, train, picture):
    problem = Denoise(25, 3)(picture)
    module = make(problems=[problem], kernel="sparse")
    module.prior = build_decoder([problem.shape], channels=8, depth=2)
    rounds = Rounds()
    train(module, IMP(rounds=2, rate=0.5), rounds)
    assert [k[3] for k in rounds.kept] == [Sparse] * 3
    assert rounds.kept[0][2]["loss"] < 0.2


# --- what can't be had

class Odd(nn.Module):
    """A layer that the kernels don't know."""

    def forward(self, x):
        return x + 1


def test_a_network_that_is_not_understood(make):
    module = make()
    module.prior.network = nn.Sequential(Odd(), module.prior.network)
    stepper = make_stepper(module, module.configure_optimizers(), None, "auto")
    assert type(stepper) is Eager and "comes from add" in stepper.note
    stepper.step(0)
    with pytest.raises(InputError, match="comes from add.*fit.kernel=auto"):
        make_stepper(module, module.configure_optimizers(), None, "sparse")


@pytest.mark.parametrize("density, kept", [(1.0, Eager), (0.6, Eager), (0.4, Sparse)])
def test_auto_changes_at_the_break_even_of_the_processor(make, monkeypatch, density, kept):
    limits = [1.0, 1.0, 1.0]
    limits[library().lipfw_isa()] = 0.5
    monkeypatch.setattr(stepping, "BREAK_EVEN", limits)
    module = make()
    mask, optimizer = start(module, density)
    stepper = make_stepper(module, optimizer, mask, "auto")
    assert type(stepper) is kept and stepper.note is None
    assert type(make_stepper(module, optimizer, mask, "sparse")) is Sparse


def test_bf16_is_left_to_torch(make):
    """At every density: a run does not change its precision midway."""
    module = make(precision="bf16")
    mask, optimizer = start(module, 0.05)
    assert type(make_stepper(module, optimizer, mask, "auto")) is Eager


def test_kernels_on_one_core_are_not_taken_where_torch_has_more(make, monkeypatch):
    class OneCore:
        def lipfw_parallel(self):
            return 0

    monkeypatch.setattr(stepping, "library", OneCore)
    module = make()
    mask, optimizer = start(module, 0.05)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        stepper = make_stepper(module, optimizer, mask, "auto")
    finally:
        torch.set_num_threads(before)
    assert type(stepper) is Eager and "without OpenMP" in stepper.note


def test_no_library(make, monkeypatch):
    def none():
        raise Unavailable("no compiler")

    for module in (stepping, sparse_module):
        monkeypatch.setattr(module, "library", none)
    module = make()
    stepper = make_stepper(module, module.configure_optimizers(), None, "auto")
    assert type(stepper) is Eager and "no compiler" in stepper.note
    with pytest.raises(InputError, match="no compiler"):
        make_stepper(module, module.configure_optimizers(), None, "sparse")


def test_a_network_in_64_bits_is_left_to_torch(make):
    module = make().double()
    stepper = make_stepper(module, module.configure_optimizers(), None, "auto")
    assert type(stepper) is Eager and "float64" in stepper.note
