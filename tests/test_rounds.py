"""A round is an epoch: bit-equal to a plain loop with torch's own pruning, and resumable anywhere."""
import copy

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils import prune

from lipfw.fit.checkpoint import Checkpoint
from lipfw.mask import Mask, prunable
from lipfw.pruner.imp import IMP
from lipfw.pruner.ticket import Replay
from lipfw.ticket import Ticket, save_initial

ROUNDS = 3


class Rounds(pl.Callback):
    """Keep the network, mask and summary of each round's end."""

    def __init__(self, pruning=None):
        self.kept = []

    def on_train_epoch_end(self, trainer, module):
        pruning = trainer.callbacks[0]
        self.kept.append((copy.deepcopy(module.prior.network.state_dict()), pruning.mask, module.summary()))


def reference(make, rewind_step=0, steps=12, rate=0.2):
    """Iterative magnitude pruning as papers' code does it: one loop a round, torch.nn.utils.prune, a new Adam."""
    module = make(steps=steps)
    network, problem = module.prior.network, module.problems[0]
    start, rounds = None, []
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for r in range(ROUNDS + 1):
        if r:       # torch counts and ranks only what its earlier masks have left
            _refresh(convolutions)
            prune.global_unstructured([(c, "weight") for c in convolutions], prune.L1Unstructured, amount=rate)
            masks = [c.weight_mask.clone() for c in convolutions]
            for c in convolutions:
                prune.remove(c, "weight")
            network.load_state_dict(start)
            for c, m in zip(convolutions, masks, strict=True):
                prune.custom_from_mask(c, "weight", m)
        elif rewind_step == 0:
            start = copy.deepcopy(network.state_dict())
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)
        for step in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(module.prior(0, step), problem.measurement).backward()
            optimizer.step()
            if r == 0 and step + 1 == rewind_step:
                start = copy.deepcopy(network.state_dict())
        _refresh(convolutions)
        rounds.append({n: w.detach().clone() for n, w in _effective(network).items()})
    return rounds


def _refresh(convolutions):
    """torch computes weight = weight_orig * weight_mask before a forward pass: after a step it is one step old."""
    for c in convolutions:
        if prune.is_pruned(c):
            c.weight = c.weight_orig * c.weight_mask


def _effective(network):
    state = {k: v for k, v in network.state_dict().items() if not k.endswith(("_orig", "_mask"))}
    for name, m in network.named_modules():
        if isinstance(m, nn.Conv2d):
            state[f"{name}.weight"] = m.weight
    return state


def test_rounds_are_the_plain_loop_with_torch_prune(make, train):
    expected = reference(make)
    rounds = Rounds()
    train(make(), IMP(rounds=ROUNDS, rate=0.2), rounds)
    assert len(rounds.kept) == len(expected) == ROUNDS + 1
    for (state, _, _), want in zip(rounds.kept, expected, strict=True):
        assert state.keys() == want.keys()
        for name in want:
            assert torch.equal(state[name], want[name]), name


@pytest.mark.parametrize("rewind_step", [0, 2])
def test_masks_are_nested_and_counts_exact(make, train, rewind_step):
    """Also where rounds start from an Adam that remembers how the removed weights moved."""
    rounds = Rounds()
    module = make(steps=4)
    total = sum(p.numel() for p in prunable(module.prior.network).values())
    train(module, IMP(rounds=5, rate=0.3, rewind_step=rewind_step), rounds)
    left = total
    assert rounds.kept[0][1] is None
    for r in range(1, 6):
        left -= round(0.3 * left)
        state, mask, _ = rounds.kept[r]
        assert mask.count == left
        if r > 1:
            assert all((mask[n] <= rounds.kept[r - 1][1][n]).all() for n in mask)
        for n in mask:
            assert (state[n][~mask[n]] == 0).all() and (state[n][mask[n]] != 0).any()


def test_rounds_start_from_the_rewind_step(make, train):
    """With rewind_step=6 round 1 starts from the weights that round 0 had after 6 steps."""
    seen = {}

    class Starts(pl.Callback):
        def on_train_start(self, trainer, module):
            module.after_step.append(lambda s: seen.setdefault(
                (trainer.current_epoch, s), copy.deepcopy(module.prior.network.state_dict())))

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.setdefault((trainer.current_epoch, module.step if batch_idx else 0),
                            copy.deepcopy(module.prior.network.state_dict()))

    pruning = train(make(), IMP(rounds=1, rate=0.5, rewind_step=6), Starts())
    for name, want in seen[0, 6].items():
        have = seen[1, 0][name]
        if name in pruning.mask:
            assert torch.equal(have, want * pruning.mask[name])
        else:
            assert torch.equal(have, want), name
    assert any(not torch.equal(seen[0, 0][n], seen[0, 6][n]) for n in seen[0, 0])


class Die(pl.Callback):
    """Raise in the middle of a round, after a batch or at its very end."""

    def __init__(self, round_, batch):
        self.at = (round_, batch)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("killed")


@pytest.mark.parametrize("round_, batch", [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 1)])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["each batch", "round ends"])
@pytest.mark.parametrize("rewind_step", [0, 7])
def test_resume_is_exact(make, train, tmp_path, round_, batch, seconds, rewind_step):
    """Killed before a checkpoint is written, resumed from the last: the same bits as without the interruption."""
    pruner = dict(rounds=ROUNDS, rate=0.2, rewind_step=rewind_step)
    whole = Rounds()
    train(make(), IMP(**pruner), whole)
    path = tmp_path / "checkpoint.ckpt"
    before, after = Rounds(), Rounds()
    with pytest.raises(RuntimeError, match="killed"):
        train(make(), IMP(**pruner), before, Die(round_, batch), Checkpoint(path, seconds))
    torch.manual_seed(99)       # nothing may depend on the global generator
    train(make(), IMP(**pruner), after, Checkpoint(path, seconds), ckpt_path=path if path.exists() else None)
    resumed = before.kept[:len(whole.kept) - len(after.kept)] + after.kept
    assert len(resumed) == len(whole.kept)
    for (a, mask_a, summary_a), (b, mask_b, summary_b) in zip(resumed, whole.kept, strict=True):
        assert summary_a == summary_b
        assert all(torch.equal(a[k], b[k]) for k in b)
        assert mask_a is mask_b is None or all(torch.equal(mask_a[n], mask_b[n]) for n in mask_b)


def test_a_replayed_ticket_is_the_round_that_found_it(make, train, tmp_path):
    """Ticket r with its initial weights gives round r's weights again; as a folder, all rounds."""
    rounds = Rounds()
    pruning = train(make(), IMP(rounds=2), rounds)
    checksum = save_initial(tmp_path, pruning.start["network"])
    for r, (_, mask, _) in enumerate(rounds.kept):
        mask = mask or Mask.ones(make().prior.network)
        Ticket(mask, {"initial": checksum}).save(tmp_path / f"round_{r:02d}.safetensors")
    for path, expected in ((tmp_path / "round_02.safetensors", rounds.kept[2:]), (tmp_path, rounds.kept)):
        replayed = Rounds()
        train(make(), Replay(str(path)), replayed)
        for (a, _, _), (b, _, _) in zip(replayed.kept, expected, strict=True):
            assert all(torch.equal(a[k], b[k]) for k in b)
    fresh = Rounds()
    train(make(), Replay(str(tmp_path / "round_02.safetensors"), init="fresh"), fresh)     # the same seed: the same
    assert all(torch.equal(fresh.kept[0][0][k], v) for k, v in rounds.kept[2][0].items())
