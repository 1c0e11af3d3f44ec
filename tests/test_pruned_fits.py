"""Each pruner through a whole fit: exact counts, and rounds that start from the recorded weights times the mask."""
import copy

import pytest
import pytorch_lightning as pl
import torch

from lipfw.mask import keep_top, prunable
from lipfw.pruner.grasp import GraSP
from lipfw.pruner.imp import IMP
from lipfw.pruner.magnitude import Magnitude
from lipfw.pruner.random import Random
from lipfw.pruner.random_layerwise import RandomLayerwise
from lipfw.pruner.random_like import RandomLike
from lipfw.pruner.snip import SNIP
from lipfw.pruner.synflow import SynFlow
from lipfw.ticket import Ticket

PRUNERS = {"imp": IMP, "magnitude": Magnitude, "random": Random, "random_layerwise": RandomLayerwise, "snip": SNIP,
           "grasp": GraSP, "synflow": SynFlow}


class Starts(pl.Callback):
    """Keep the network as each round's first step finds it, and as step `at` of round 0 leaves it."""

    def __init__(self, at):
        self.at, self.rounds, self.recorded = at, [], None

    def on_train_start(self, trainer, module):
        module.after_step.append(lambda step: self.record(trainer, module, step))

    def record(self, trainer, module, step):
        if trainer.current_epoch == 0 and step == self.at:
            self.recorded = copy.deepcopy(module.prior.network.state_dict())

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.rounds.append(copy.deepcopy(module.prior.network.state_dict()))
            if not self.at:
                self.recorded = self.rounds[0]


def options(name):
    return {"steps": 8} if name == "synflow" else {}


@pytest.mark.parametrize("rewind_step", [0, "50%"])
@pytest.mark.parametrize("name", PRUNERS)
def test_counts_and_the_weights_that_rounds_start_from(make, train, masks_of_rounds, name, rewind_step):
    first = copy.deepcopy(make(steps=6).prior.network.state_dict())
    starts = Starts(3 if rewind_step else 0)
    module = make(steps=6)
    total = sum(w.numel() for w in prunable(module.prior.network).values())
    pruner = PRUNERS[name](rounds=2, rate=0.3, rewind_step=rewind_step, **options(name))
    train(module, pruner, starts, masks_of_rounds)
    left = [total, total - round(0.3 * total)]
    left.append(left[1] - round(0.3 * left[1]))
    dense, *masks = masks_of_rounds.kept
    assert dense is None and [m.count for m in masks] == left[1:]
    assert all(torch.equal(starts.rounds[0][n], v) for n, v in first.items())
    for mask, state in zip(masks, starts.rounds[1:], strict=True):
        for n, v in starts.recorded.items():        # batch norm's statistics too
            assert torch.equal(state[n], v * mask[n] if n in mask else v), n
    assert any(not torch.equal(masks[0][n], masks[1][n]) for n in masks[0])


@pytest.mark.parametrize("name", [n for n in PRUNERS if n != "imp"])
def test_one_shot_masks_are_those_of_the_untouched_network(make, train, masks_of_rounds, name):
    """Whatever round 0 did to it: the scores are taken where rounds start, over all weights."""
    pruner = PRUNERS[name](sparsities=[0.4, 0.8], **options(name))
    train(make(steps=5), pruner, masks_of_rounds)
    module = make(steps=5).train()
    network = module.prior.network
    for round_, mask in enumerate(masks_of_rounds.kept[1:], 1):
        want = pruner.prune(network, module, mask.count, None, round_)
        assert all(torch.equal(mask[n], m) for n, m in want.items())


@pytest.mark.parametrize("name", ["random", "snip"])
def test_without_rewinding_the_scores_are_those_of_the_first_weights_too(make, train, masks_of_rounds, name):
    """And each round starts from what the last one left, where its mask keeps it, with a new optimiser."""
    starts, ends, moments = Starts(0), [], []

    class Ends(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            moments.append(len(module.optimizers(False).state)) if batch_idx == 0 else None

        def on_train_epoch_end(self, trainer, module):
            ends.append(copy.deepcopy(module.prior.network.state_dict()))

    pruning = train(make(steps=5), PRUNERS[name](sparsities=[0.4, 0.8], rewind_step=None), starts, masks_of_rounds,
                    Ends())
    module = make(steps=5).train()
    first = copy.deepcopy(module.prior.network.state_dict())
    assert all(torch.equal(pruning.start["network"][n], v) for n, v in first.items()) and moments == [0, 0, 0]
    for round_, mask in enumerate(masks_of_rounds.kept[1:], 1):
        want = PRUNERS[name]().prune(module.prior.network, module, mask.count, None, round_)
        module.prior.network.load_state_dict(first)
        assert all(torch.equal(mask[n], m) for n, m in want.items())
        for n, v in starts.rounds[round_].items():
            assert torch.equal(v, ends[round_ - 1][n] * mask[n] if n in mask else ends[round_ - 1][n]), n


def test_pruners_differ(make, train):
    masks = []
    for name, pruner in PRUNERS.items():
        masks.append(train(make(steps=4), pruner(sparsities=[0.2], **options(name))).mask)
    assert len({m.count for m in masks}) == 1
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert any(not torch.equal(a[n], b[n]) for n in a)


def test_scores_at_the_rewind_step_are_those_of_the_weights_there(make, train, masks_of_rounds):
    """With a rewind_step SNIP looks at the weights, and batch norm's, of that step."""
    starts = Starts(3)
    train(make(steps=6), SNIP(sparsities=[0.5], rewind_step=3), starts, masks_of_rounds)
    module = make(steps=6).train()
    early = SNIP().prune(module.prior.network, module, masks_of_rounds.kept[1].count, None, 1)
    module.prior.network.load_state_dict(starts.recorded)
    late = SNIP().prune(module.prior.network, module, early.count, None, 1)
    mask = masks_of_rounds.kept[1]
    assert all(torch.equal(mask[n], late[n]) for n in mask)
    assert any(not torch.equal(mask[n], early[n]) for n in mask)


def test_a_run_of_random_tickets_like_found_ones(make, train, masks_of_rounds, tmp_path):
    """One round a ticket, the dense one first, from the run's own weights; so too if the first is sparse."""
    weights = prunable(make(seed=8).prior.network)
    total = sum(w.numel() for w in weights.values())
    scores = {n: w.abs() / w.abs().max() for n, w in weights.items()}       # so that no layer is emptied
    found = [keep_top(scores, c) for c in (total, 700, 300)]
    for r, mask in enumerate(found):
        Ticket(mask).save(tmp_path / f"round_{r:02d}.safetensors")
    for path, want in ((tmp_path, found), (tmp_path / "round_02.safetensors", found[2:])):
        starts, masks_of_rounds.kept = Starts(0), []
        module = make(steps=4)
        own = copy.deepcopy(module.prior.network.state_dict())
        train(module, RandomLike(str(path), seed=1), starts, masks_of_rounds)
        assert len(masks_of_rounds.kept) == len(want)
        for mask, like, state in zip(masks_of_rounds.kept, want, starts.rounds, strict=True):
            if mask is None:
                assert like.count == total
                continue
            assert {n: int(m.sum()) for n, m in mask.items()} == {n: int(m.sum()) for n, m in like.items()}
            assert any(not torch.equal(mask[n], like[n]) for n in mask)
            assert all(torch.equal(state[n], v * mask[n] if n in mask else v) for n, v in own.items())
