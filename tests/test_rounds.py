"""A round is an epoch: bit-equal to a plain loop with torch's own pruning, and resumable anywhere."""
import copy
import functools

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.utils import prune

from lipfw.errors import InputError
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.rounds import Ended, IterativePruning
from lipfw.mask import Mask, prunable
from lipfw.prior.prior import uniform_code
from lipfw.pruner.imp import IMP
from lipfw.pruner.pruner import Pruner
from lipfw.pruner.random import Random
from lipfw.pruner.ticket import Replay
from lipfw.ticket import INITIAL, Ticket, save_state

ROUNDS = 3


class Rounds(pl.Callback):
    """Keep the network, mask and summary of each round's end."""

    def __init__(self, pruning=None):
        self.kept = []

    def on_train_epoch_end(self, trainer, module):
        pruning = trainer.callbacks[0]
        self.kept.append((copy.deepcopy(module.prior.network.state_dict()), pruning.mask, module.summary()))


def reference(make, rewind_step=0, steps=12, rate=0.2, remaining=False, rounds=ROUNDS):
    """Iterative magnitude pruning as papers' code does it: one loop a round, torch.nn.utils.prune, a new Adam."""
    module = make(steps=steps)
    network, problem = module.prior.network, module.problems[0]
    start, remembered, states = None, {}, []
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    for r in range(rounds + 1):
        if r:       # torch counts and ranks only what its earlier masks have left
            _refresh(convolutions)
            prune.global_unstructured([(c, "weight") for c in convolutions], prune.L1Unstructured, amount=rate)
            masks = [c.weight_mask.clone() for c in convolutions]
            for c in convolutions:
                prune.remove(c, "weight")
            if rewind_step is not None:
                network.load_state_dict(start)
            for c, m in zip(convolutions, masks, strict=True):
                prune.custom_from_mask(c, "weight", m)
        elif rewind_step == 0:
            start = copy.deepcopy(network.state_dict())
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)
        masks = {f"{n}.weight": m.weight_mask for n, m in network.named_modules() if hasattr(m, "weight_mask")}
        for name, p in network.named_parameters() if r and rewind_step else ():
            name = name.removesuffix("_orig")
            state = copy.deepcopy(remembered[name])
            if name in masks:       # what Adam remembers of removed weights is forgotten with them
                state |= {k: state[k] * masks[name] for k in ("exp_avg", "exp_avg_sq")}
            optimizer.state[p] = state
        for step in range(rewind_step if r and remaining else 0, steps):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(module.prior(0, step), problem.measurement).backward()
            optimizer.step()
            if r == 0 and step + 1 == rewind_step:
                start = copy.deepcopy(network.state_dict())
                remembered = {n: copy.deepcopy(optimizer.state[p]) for n, p in network.named_parameters()}
        _refresh(convolutions)
        states.append({n: w.detach().clone() for n, w in _effective(network).items()})
    return states


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


@pytest.mark.parametrize("rewind_step, retrain", [(0, "all"), (5, "all"), (5, "remaining"), (None, "all")])
def test_five_rounds_are_the_plain_loop_with_torch_prune(make, train, rewind_step, retrain):
    """Bit for bit, also where rounds start from a later step of the dense one, by all steps or the remaining ones, and
    where nothing is rewound: each goes on from what the last one left."""
    expected = reference(make, rewind_step, remaining=retrain == "remaining", rounds=5)
    rounds = Rounds()
    train(make(), IMP(rounds=5, rate=0.2, rewind_step=rewind_step, retrain=retrain), rounds)
    assert len(rounds.kept) == len(expected) == 6
    for (state, _, _), want in zip(rounds.kept, expected, strict=True):
        assert state.keys() == want.keys()
        for name in want:
            assert torch.equal(state[name], want[name]), name


def test_remaining_steps_have_the_averages_and_picks_of_their_own(make, train):
    """A round that starts at step 7 of 20 averages, picks and records the steps 8 to 20 alone."""
    records, outputs = [], []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            records.extend((trainer.current_epoch, r["step"]) for r in module.records)

        def on_train_batch_start(self, trainer, module, *_):
            if not hasattr(module, "listened"):
                module.listened, follow = True, module.follow
                module.follow = lambda made, loss: (outputs.append((trainer.current_epoch, made[0].clone(),
                                                                    float(loss))), follow(made, loss))[1]

    rounds = Rounds()
    module = make(steps=20, window=3, smoothing=0.9)
    train(module, IMP(rounds=1, rewind_step="35%", retrain="remaining"), Watch(), rounds)
    own = [(x, loss) for r, x, loss in outputs if r == 1]
    assert len(own) == 13 and [s for r, s in records if r == 1] == [9, 12, 15, 18, 20]
    average = own[0][0]
    averages = [average := 0.9 * average + 0.1 * x if i else x for i, (x, _) in enumerate(own)]
    torch.testing.assert_close(module.pictures("final")[0], averages[-1], atol=1e-6, rtol=0)
    spread = [float(torch.stack([x for x, _ in own[i - 2:i + 1]]).var(0, correction=0).mean()) for i in range(2, 13)]
    picked = 2 + min(range(11), key=spread.__getitem__)
    summary = module.summary()
    assert (summary["step_picked"], summary["step_first"], summary["step_last"]) == (7 + picked + 1, 8, 20)
    torch.testing.assert_close(module.pictures("picked")[0], averages[picked], atol=1e-6, rtol=0)
    assert summary["loss"] == pytest.approx(sum(loss for _, loss in own) / 13, rel=1e-5)
    assert rounds.kept[0][2]["step_first"] == 1 and rounds.kept[0][2]["step_last"] == 20


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


@pytest.fixture(scope="module")
def unbroken() -> dict:
    """What runs without an interruption have come to, by their options."""
    return {}


@pytest.mark.parametrize("round_, batch", [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 1)])
@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["each batch", "round ends"])
@pytest.mark.parametrize("pruner, fit", [
    ({}, {}), ({"rewind_step": 7}, {}), ({"rewind_step": 7, "retrain": "remaining"}, {}),
    ({"rewind_step": None}, {}), ({}, {"stop": "wmv", "patience": 1, "log_every": 2})],
    ids=["start", "rewound", "remaining", "not rewound", "stopped"])
def test_resume_is_exact(make, train, tmp_path, unbroken, round_, batch, seconds, pruner, fit):
    """Killed before a checkpoint is written, resumed from the last: the same bits as without the interruption."""
    pruner = dict(rounds=ROUNDS, rate=0.2, **pruner)
    make = functools.partial(make, **fit)
    if (key := f"{pruner} {fit}") not in unbroken:
        unbroken[key] = Rounds()
        train(make(), IMP(**pruner), unbroken[key])
    whole = unbroken[key]
    if fit:
        assert min(s["step_last"] for _, _, s in whole.kept) < 12
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


@pytest.mark.parametrize("pruner, fit", [
    ({"rewind_step": 7, "retrain": "remaining"}, {}), ({}, {"stop": "wmv", "patience": 1, "log_every": 2})],
    ids=["remaining", "stopped"])
def test_no_checkpoint_lies_between_the_last_step_and_the_end_of_a_round(make, train, tmp_path, pruner, fit):
    """Batches that are left over do nothing: taken up there, a round would have no steps to be recorded of."""
    path, saved = tmp_path / "checkpoint.ckpt", []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            saved.append((trainer.current_epoch, module.round_over, path.exists()))
            path.unlink(missing_ok=True)

    train(make(steps_per_batch=2, **fit), IMP(rounds=1, **pruner), Checkpoint(path, 0.0), Watch())
    assert {(over, there) for r, over, there in saved if r} == {(False, True), (True, False)}
    assert sum(over for r, over, _ in saved if r) > 1


def test_a_replayed_ticket_is_the_round_that_found_it(make, train, tmp_path):
    """Ticket r with its initial weights gives round r's weights again; as a folder, all rounds."""
    rounds = Rounds()
    pruning = train(make(), IMP(rounds=2), rounds)
    checksum = save_state(tmp_path / INITIAL, pruning.start["network"])
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


# ---- stopping across rounds -------------------------------------------------------------------------------------

class Losses(pl.Callback):
    """Have the rounds end with given losses."""

    def __init__(self, *losses):
        self.losses = losses

    def on_train_start(self, trainer, module):
        module.round_loss = lambda: self.losses[trainer.current_epoch]


@pytest.mark.parametrize("stop, patience, fits", [(None, 2, 6), ("loss_rises", 2, 5), ("loss_rises", 1, 2),
                                                  ("loss_rises", 3, 6)])
def test_no_round_starts_once_the_loss_keeps_rising(make, train, stop, patience, fits):
    rounds = Rounds()
    train(make(steps=2), IMP(rounds=5, stop=stop, patience=patience), Losses(3, 3.1, 2, 2.5, 2.6, 2.4), rounds)
    assert len(rounds.kept) == fits


def test_a_run_that_ended_by_itself_stays_ended(make, train, tmp_path):
    """Killed after its last round and taken up again: no further round."""
    path, rounds = tmp_path / "checkpoint.ckpt", Rounds()
    pruner = dict(rounds=5, stop="loss_rises", patience=2)
    losses = Losses(3, 3.1, 3.2, 2.5, 2.6, 2.4)
    train(make(steps=2), IMP(**pruner), losses, rounds, Checkpoint(path))
    assert len(rounds.kept) == 3
    train(make(steps=2), IMP(**pruner), losses, rounds, Checkpoint(path), ckpt_path=path)
    assert len(rounds.kept) == 3


def test_a_round_that_stops_before_the_rewind_step_is_told(make, train):
    with pytest.raises(InputError, match="round 0 was stopped at step .*, before pruner.rewind_step=60"):
        train(make(steps=60, stop="wmv", patience=1), IMP(rounds=1, rewind_step=60))
    with pytest.raises(InputError, match="pruner.rewind_step=100% with pruner.retrain=remaining leaves no step"):
        train(make(), IMP(rounds=1, rewind_step="100%", retrain="remaining"))


def test_each_round_has_its_own_code_if_asked(make, train):
    codes = []

    class Codes(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            codes.append((trainer.current_epoch, module.prior.code().clone()))

    module = make()
    module.prior.redraw = True
    train(module, IMP(rounds=2), Codes())
    for round_, code in codes:
        assert torch.equal(code, uniform_code(4, 24, 20, 3, 0, round_))
    assert {r for r, _ in codes} == {0, 1, 2}


# ---- scores and masks that are no good --------------------------------------------------------------------------

class Scores(Pruner):
    """A pruner with given scores."""

    def __init__(self, scores, blind=False, **options):
        super().__init__(**options)
        self.scores, self.blind = scores, blind

    def score(self, network, fit):
        return {n: self.scores(n, w) for n, w in prunable(network).items()}


def cut(name, weight):
    """Scores that empty the head first."""
    return torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) - 10 * (name == "head.weight")


@pytest.mark.parametrize("scores, told", [
    (lambda n, w: torch.ones_like(w), "all .* weights have the same score, 1"),
    (lambda n, w: torch.full_like(w, torch.nan), "the scores of encoders.0.skip.0.weight are not finite"),
    (lambda n, w: (w > 0.25).float(), ".* weights are to be kept and only .* have a score other than 0; prune more"),
    (cut, "no path is left from the code to the output: 1 of 11 layers are empty, head.weight first")])
def test_scores_that_tell_nothing_end_the_rounds(make, train, scores, told):
    rounds = Rounds()
    with pytest.raises(Ended, match=f"round 1, 50.00% sparse: {told}.*, or by another pruner"):
        train(make(steps=2), Scores(scores, sparsities=[0.5]), rounds)
    assert len(rounds.kept) == 1


def test_what_scores_alone_tell_is_told_before_anything_is_fitted(make, train):
    """How far it will go: the head of 18 weights is emptied at the rounds that keep least."""
    module = make(steps=2)

    def late(name, weight):
        return weight.abs().detach() if name != "head.weight" else torch.linspace(0.01, 0.05, 18).view_as(weight)

    scores = torch.cat([late(n, w).flatten() for n, w in prunable(module.prior.network).items()])
    above = int((scores > 0.05).sum())      # so many are kept before the last of the head goes
    counts, last = Scores(late, rounds=16).counts(module.prior.network), 0
    while counts[last] > above:
        last += 1
    assert 2 < last < 16
    pruning = IterativePruning(Scores(late, blind=True, rounds=16))
    for _ in range(2):      # a run prepares twice
        pruning.prepare(module)
        (remark,) = pruning.remarks
        assert remark.startswith(f"the run will end after round {last - 1}: round {last}, ") and "head.weight" in remark
    rounds = Rounds()
    with pytest.raises(Ended, match=f"round {last}, "):
        train(module, Scores(late, blind=True, rounds=16), rounds)
    assert len(rounds.kept) == last
    for fine in (Scores(late, blind=True, rounds=last - 1), Scores(late, rounds=16)):
        pruning = IterativePruning(fine)
        pruning.prepare(make(steps=2))
        assert pruning.remarks == []
    for doubled, lines in ((False, 1), (True, 0)):      # the masks of a doubled one depend on those before
        pruning = IterativePruning(Random(rounds=25, doubled=doubled))
        pruning.prepare(make(steps=2))
        assert len(pruning.remarks) == lines
    with pytest.raises(Ended, match="round 1, 98.98% sparse: no path"):
        IterativePruning(Scores(late, blind=True, sparsities=[0.99])).prepare(make(steps=2))
