"""Classification: counts, a plain loop of torch's own, resuming, and tickets that travel between it and restoration."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import nn
from torch.nn.utils import prune

from lipfw.classifying import Classifying
from lipfw.cli import CONF
from lipfw.errors import InputError
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.classification import Classification
from lipfw.fit.rounds import IterativePruning
from lipfw.mask import Mask, prunable
from lipfw.mistakes import explain
from lipfw.prior import decoder, skip
from lipfw.prior.classifier import Classifier, build
from lipfw.prior.prior import rebuild
from lipfw.pruner.grasp import GraSP
from lipfw.pruner.imp import IMP
from lipfw.pruner.magnitude import Magnitude
from lipfw.pruner.none import Dense
from lipfw.pruner.random import Random
from lipfw.pruner.snip import SNIP
from lipfw.pruner.synflow import SynFlow
from lipfw.pruner.ticket import Replay
from lipfw.run import run
from lipfw.streams import stream
from lipfw.ticket import INITIAL, Ticket, save_state

SIDE, CLASSES = 6, 3


def labelled(n, seed):
    """Return noisy pictures whose class is their brightest channel."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    pixels = torch.randint(0, 120, (n, 3, SIDE, SIDE), generator=g)
    pixels[torch.arange(n), labels] += 100
    return pixels.to(torch.uint8), labels


def tiny(seed=5, train=17, **options):
    """Twelve steps: four passes over 17 pictures, of which batches of 5 leave two out."""
    network = build([(3, SIDE, SIDE)], classes=CLASSES, channels=5, depth=2, skip_channels=2, seed=seed)
    return Classification(labelled(train, 1), labelled(11, 2), network, **dict(
        epochs=4, batch=5, lr=0.05, judge_every=5, log_every=1, steps_per_batch=2, seed=seed) | options)


class Watch(pl.Callback):
    """Keep the records, and the network, mask and summary of each round's end."""

    def __init__(self):
        self.records, self.kept, self.rates = [], [], []

    def on_train_start(self, trainer, module):
        module.after_step.append(lambda step: self.rates.append(module.optimizers(False).param_groups[0]["lr"]))

    def on_train_batch_end(self, trainer, module, *_):
        self.records += module.records

    def on_train_epoch_end(self, trainer, module):
        pruning = next(c for c in trainer.callbacks if isinstance(c, IterativePruning))
        self.kept.append((copy.deepcopy(module.network.state_dict()), pruning.mask, module.summary()))


@pytest.fixture
def train(tmp_path):
    """Return a function that fits a module with a pruner and gives what was watched."""
    def train(module, pruner, *callbacks, ckpt_path=None):
        pruning, watch = IterativePruning(pruner, "network"), Watch()
        pruning.prepare(module)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=pruning.rounds, logger=False, enable_progress_bar=False,
                             callbacks=[pruning, watch, *callbacks], enable_model_summary=False,
                             enable_checkpointing=False, default_root_dir=tmp_path)
        trainer.fit(module, ckpt_path=ckpt_path)
        return watch
    return train


# --- the network

def test_the_published_classifier_has_so_many_parameters():
    network = build([(3, 50, 50)], classes=10)
    convolutions, hourglass = prunable(network), prunable(skip.Skip())
    assert sum(p.numel() for p in network.parameters()) == 2_259_317
    assert sum(w.numel() for w in convolutions.values()) == 2_175_244
    assert list(convolutions) == list(hourglass) and len(convolutions) == 26
    differing = [n for n in hourglass if hourglass[n].shape != convolutions[n].shape]
    assert [convolutions[n].shape for n in differing] == [(4, 3, 1, 1), (128, 3, 3, 3)]
    assert differing == list(hourglass)[:2] and network.linear.weight.shape == (10, 7500)
    sides = []
    for scale in network.encoders:
        scale.conv.register_forward_hook(lambda *args: sides.append(args[2].shape[2]))
    logits = network(torch.randn(2, 3, 50, 50, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 10) and sides == [25, 13, 7, 4, 2]
    assert logits.min() < 0     # no sigmoid


@pytest.mark.parametrize("depth, size", [(1, 3), (2, 5), (3, 9), (3, 14), (4, 17)])
def test_any_size_above_two_to_the_depth_will_do(depth, size):
    network = build([(3, size, size)], classes=4, channels=3, depth=depth)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 4)
    with pytest.raises(InputError, match=rf"too small for prior.depth={depth}: {2 ** depth + 1} px"):
        build([(3, 2 ** depth, 2 ** depth)], classes=4, channels=3, depth=depth)


def test_a_ticket_s_architecture_gives_the_classifier_again():
    network = build([(3, 9, 9)], classes=4, channels=3, depth=2, skip_channels=1)
    again = rebuild(json.loads(json.dumps(network.architecture)))
    assert isinstance(again, Classifier)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}


# --- the method, against a plain loop

def plain_loop(module, amounts=(), rewind=True, epochs=4, batch=5, lr=0.05, seed=5):
    """Train and prune a copy of the module's network as published code does: masks in the forward pass, a new SGD."""
    (x, y), network = labelled(17, 1), copy.deepcopy(module.network)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    first, rounds = copy.deepcopy(network.state_dict()), []
    for amount in (None, *amounts):
        if amount is not None:
            _refresh(convolutions)
            prune.global_unstructured([(c, "weight") for c in convolutions], prune.L1Unstructured, amount=amount)
            masks = [c.weight_mask.clone() for c in convolutions]
            for c in convolutions:
                prune.remove(c, "weight")
            if rewind:
                network.load_state_dict(first)
            for c, m in zip(convolutions, masks, strict=True):
                prune.custom_from_mask(c, "weight", m)
        optimizer, losses = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=2e-4), []
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])      # 0.5 and 0.75 of 4
        for epoch in range(epochs):
            order = torch.randperm(17, generator=stream(seed, "order", epoch)).tolist()
            for i in range(0, 17 - batch + 1, batch):
                chosen = order[i:i + batch]
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network((x[chosen] / 255 - 0.5) / 0.5), y[chosen])
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            schedule.step()
        _refresh(convolutions)
        state = {k: v.clone() for k, v in network.state_dict().items() if not k.endswith(("_orig", "_mask"))}
        state |= {f"{n}.weight": m.weight.detach().clone() for n, m in network.named_modules()
                  if isinstance(m, nn.Conv2d)}
        network.eval()
        tx, ty = labelled(11, 2)
        with torch.no_grad():
            right = (network((tx / 255 - 0.5) / 0.5).argmax(1) == ty).float().mean().item()
        network.train()
        rounds.append((losses, state, 100 * right))
    return rounds


def _refresh(convolutions):
    for c in convolutions:
        if prune.is_pruned(c):
            c.weight = c.weight_orig * c.weight_mask


@pytest.mark.parametrize("rewind_step", [0, None])
def test_rounds_are_the_plain_loop_with_torch_prune(train, rewind_step):
    """With momentum and weight decay, which in the plain loop move what the mask hides and here nothing."""
    module = tiny()
    expected = plain_loop(module, [0.3, 0.3], rewind_step is not None)
    watch = train(module, IMP(rounds=2, rate=0.3, rewind_step=rewind_step))
    losses = [r["loss"] for r in watch.records]
    assert len(losses) == 3 * 12 and len(watch.kept) == 3
    for i, ((state, mask, summary), plain) in enumerate(zip(watch.kept, expected, strict=True)):
        want_losses, want, accuracy = plain
        torch.testing.assert_close(losses[12 * i:12 * i + 12], want_losses, rtol=1e-3, atol=1e-4)
        assert state.keys() == want.keys()
        for name in want:
            torch.testing.assert_close(state[name], want[name], rtol=1e-3, atol=1e-4, msg=name)
        if mask is not None:
            assert all(torch.equal(mask[n], want[n] != 0) for n in mask)
        assert summary["accuracy"] == pytest.approx(accuracy)
        assert summary["loss"] == pytest.approx(sum(want_losses[-3:]) / 3, rel=1e-3)
        assert (summary["step_first"], summary["step_last"]) == (1, 12)


def test_the_published_schedule(train):
    module = tiny(epochs=182, batch=17)
    assert module.steps == 182 and module.drops == [91, 136]
    watch = train(tiny(epochs=8, batch=9, drops=[0.5, 0.75]), Dense())
    assert watch.rates == pytest.approx([0.05] * 4 + [0.005] * 2 + [0.0005] * 2)
    assert train(tiny(epochs=2, drops=[]), Dense()).rates == [0.05] * 6


@pytest.mark.parametrize("epochs, drops, after", [(100, [0.29, 0.57], [29, 57]), (7, [0.5, 1], [3, 7])])
def test_a_part_of_the_epochs_is_what_it_says(epochs, drops, after):
    assert tiny(epochs=epochs, drops=drops).drops == after      # 0.29 * 100 is a little less than 29


@pytest.mark.parametrize("batch, steps", [(5, 3), (17, 1), (16, 1), (256, 1), (1, 17)])
def test_what_fills_no_batch_is_left_out_but_never_all(batch, steps):
    module = tiny(epochs=1, batch=batch)
    assert module.steps == steps
    sizes = [len(module.order(0)[i * module.batch:(i + 1) * module.batch]) for i in range(steps)]
    assert sizes == [min(batch, 17)] * steps
    assert sorted(module.order(0).tolist()) == list(range(17)) != module.order(0).tolist()
    assert not torch.equal(module.order(0), module.order(1))


def test_removed_weights_stay_zero_whatever_momentum_remembers(train):
    """Rewound to a later step, the optimiser has moments of weights that are removed since."""
    checked = []

    class Zeros(pl.Callback):
        def on_train_start(self, trainer, module):
            module.after_step.append(lambda step: self.look(trainer, module))

        def look(self, trainer, module):
            mask = trainer.callbacks[0].mask
            for n, w in prunable(module.network).items() if mask is not None else ():
                checked.append(bool((w[~mask[n]] == 0).all()) and bool((w[mask[n]] != 0).all()))

    train(tiny(), IMP(rounds=2, rate=0.4, rewind_step=5), Zeros())
    assert len(checked) == 2 * 12 * len(prunable(tiny().network)) and all(checked)


def test_a_separable_set_is_learnt(train):
    watch = train(tiny(train=60, batch=15, epochs=40, judge_every=20), Dense())
    state, _, summary = watch.kept[0]
    assert summary["accuracy"] == summary["accuracy_best"] == summary["train_accuracy"] == 100
    assert watch.records[0]["loss"] > 0.5 and summary["loss"] < 0.05
    judged = [(r["step"], r["accuracy"]) for r in watch.records if r["accuracy"] == r["accuracy"]]
    assert [s for s, _ in judged] == list(range(20, 161, 20))
    assert summary["step_best"] == next(s for s, a in judged if a == 100)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_accuracy_is_by_running_statistics(train, precision):
    module = tiny(precision=precision)
    summary = train(module, Dense()).kept[0][2]
    x, y = labelled(11, 2)
    network = copy.deepcopy(module.network).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        right = network(x / 127.5 - 1).argmax(1) == y
    assert summary["accuracy"] == pytest.approx(100 * right.float().mean().item(), abs=100 / 11 + 1e-4
                                                if precision == "bf16" else 1e-4)
    assert module.network.training


class Die(pl.Callback):
    def __init__(self, *at):
        self.at = at

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("killed")


@pytest.mark.parametrize("pruner, at, seconds", [
    ({}, (1, 3), 0.0), ({}, (1, 1), 1e9), ({"rewind_step": None}, (0, 1), 0.0), ({"rewind_step": None}, (1, 0), 1e9),
    ({"rewind_step": None}, (2, 2), 0.0), ({"rewind_step": 4, "retrain": "remaining"}, (1, 3), 0.0)])
def test_resume_is_exact(train, tmp_path, pruner, at, seconds):
    pruner = dict(rounds=2, rate=0.3, **pruner)
    whole = train(tiny(), IMP(**pruner)).kept
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(RuntimeError, match="killed"):
        train(tiny(), IMP(**pruner), Die(*at), Checkpoint(path, seconds))
    torch.manual_seed(99)       # nothing may depend on the global generator
    resumed = train(tiny(), IMP(**pruner), Checkpoint(path, seconds), ckpt_path=path if path.exists() else None).kept
    for (a, mask_a, summary_a), (b, mask_b, summary_b) in zip(resumed, whole[3 - len(resumed):], strict=True):
        assert summary_a == summary_b and all(torch.equal(a[k], b[k]) for k in b)
        assert mask_a is mask_b is None or all(torch.equal(mask_a[n], mask_b[n]) for n in mask_b)


@pytest.mark.parametrize("pruner", [Magnitude, Random, SNIP, GraSP, SynFlow])
def test_pruners_at_initialisation_work_on_it(train, pruner):
    total = sum(w.numel() for w in prunable(tiny().network).values())
    masks = [mask for _, mask, _ in train(tiny(epochs=1), pruner(sparsities=[0.3, 0.6])).kept]
    assert masks[0] is None and [m.count for m in masks[1:]] == [round(0.7 * total), round(0.4 * total)]


@pytest.mark.parametrize("options, words", [
    ({"epochs": 0}, "fit.epochs"), ({"batch": 0}, "fit.batch"), ({"lr": -1}, "fit.lr"),
    ({"momentum": 1}, "fit.momentum"), ({"weight_decay": "no"}, "fit.weight_decay"),
    ({"drops": 0.5}, "fit.drops must be a list"), ({"drops": [91]}, "each of fit.drops.*part of the epochs"),
    ({"judge_every": 0}, "fit.judge_every"),
    ({"precision": 16}, "trainer.precision")])
def test_bad_options(options, words):
    with pytest.raises(InputError, match=words):
        tiny(**options)


# --- tickets between the hourglass that restores and the one that classifies

def hourglass(seed, channels=3):
    return skip.build([(channels, 8, 8)], channels=5, depth=2, skip_channels=2, code_channels=4, seed=seed)


def classifier(seed, classes=CLASSES, size=SIDE):
    return build([(3, size, size)], classes=classes, channels=5, depth=2, skip_channels=2, seed=seed)


NETWORKS = {"hourglass": (lambda seed: hourglass(seed).network, lambda seed: hourglass(seed).architecture),
            "grey": (lambda seed: hourglass(seed, 1).network, lambda seed: hourglass(seed, 1).architecture),
            "classifier": (classifier, lambda seed: classifier(seed).architecture),
            "of others": (lambda seed: classifier(seed, 4, 9), lambda seed: classifier(seed, 4, 9).architecture)}
FIRST = ["encoders.0.skip.0.weight", "encoders.0.down.0.weight"]


def stored(folder, network, architecture):
    mask = Mask({n: torch.rand(w.shape, generator=torch.Generator().manual_seed(3)) < 0.4
                 for n, w in prunable(network).items()})
    about = {"initial": save_state(folder / INITIAL, network.state_dict()), "architecture": json.dumps(architecture)}
    Ticket(mask, about).save(folder / "round_00.safetensors")
    return mask


@pytest.mark.parametrize("found, here, whole, own", [
    ("hourglass", "classifier", FIRST, {*FIRST, "linear.weight", "linear.bias"}),
    ("classifier", "hourglass", FIRST, {*FIRST}),
    ("grey", "classifier", [*FIRST, "head.weight"], {*FIRST, "head.weight", "head.bias", "linear.weight",
                                                      "linear.bias"}),
    ("classifier", "grey", [*FIRST, "head.weight"], {*FIRST, "head.weight", "head.bias"}),
    ("classifier", "of others", [], {"linear.weight", "linear.bias"})])
@pytest.mark.parametrize("init", ["ticket", "fresh"])
def test_what_fits_is_the_tickets_and_the_rest_the_runs_own(tmp_path, found, here, whole, own, init):
    make, architecture = NETWORKS[found]
    source = make(1)
    mask = stored(tmp_path, source, architecture(1))
    target, fresh = (NETWORKS[here][0](2) for _ in range(2))
    pruner = Replay(str(tmp_path), init)
    pruner.prepare(target)
    fits = pruner.prune(target, None, 0, None, 0)
    assert list(fits) == list(prunable(target)) and pruner.whole == whole
    for n, m in fits.items():
        assert m.all() and m.shape == prunable(target)[n].shape if n in whole else torch.equal(m, mask[n]), n
    theirs = source.state_dict()
    for n, v in target.state_dict().items():
        assert torch.equal(v, fresh.state_dict()[n] if init == "fresh" or n in own else theirs[n]), n
    told = " ".join(pruner.remarks)
    assert ("differs" in told) == (init == "ticket" and not whole)      # it is all that is the run's own
    assert all(n in told for n in whole) and ("linear" in told) == (init == "ticket" and "linear.weight" in own)
    assert all(o.get("kept_whole", []) == whole for o in pruner.origins())


@pytest.mark.parametrize("found, here", [
    (lambda: (hourglass(1).network, {"network": "skip"}),       # another code, of one hourglass and another
     lambda: skip.build([(3, 8, 8)], channels=5, depth=2, skip_channels=2, code_channels=3).network),
    (lambda: (hourglass(1).network, {}), lambda: classifier(2)),        # whose network is not told
    (lambda: (hourglass(1).network, {"network": "skip"}),
     lambda: build([(3, SIDE, SIDE)], classes=2, channels=6, depth=2, skip_channels=2)),        # of another width
    (lambda: (decoder.build([(3, 8, 8)], channels=5, depth=2).network, {"network": "decoder"}), lambda: classifier(2))])
def test_other_networks_are_refused_as_ever(tmp_path, found, here):
    stored(tmp_path, *found())
    with pytest.raises(InputError, match="round_00.safetensors belongs to another network: .*use the prior it was"):
        Replay(str(tmp_path)).prepare(here())


# --- whole runs

SMOKE = ["trainer=smoke", "trainer.progress=false", "logger=none"]
SMALL = ["prior.channels=4", "prior.depth=2", "image.size=16"]


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Return a function that does a run here and returns its folder and result."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIPFW_DATA", raising=False)

    def go(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*SMOKE, *overrides])
        result = run(cfg)
        return tmp_path / "runs" / cfg.name / result["run"], result
    return go


def test_tickets_travel_both_ways_by_the_command_line(go):
    cls, found = go("task=classify", "pruner=imp", "pruner.rounds=2", "fit.epochs=2", "name=cls", *SMALL)
    assert found["run"].startswith("classify-lfw_labelled-classifier-imp-s0-")
    assert [round(r["sparsity"], 2) for r in found["rounds"]] == [0, 0.2, 0.36]
    assert all(0 <= r[k] <= 100 for r in found["rounds"] for k in ("accuracy", "accuracy_best", "train_accuracy"))
    assert found["oracle_round"] == max(range(3), key=lambda r: found["rounds"][r]["accuracy"])
    assert sorted(p.name for p in cls.iterdir() if p.name != ".lock") == [
        "config.yaml", "result.json", "rounds.jsonl", "steps.jsonl", "tickets"]
    dn, _ = go("pruner=imp", "pruner.rounds=2", "fit.steps=4", "name=dn", *SMALL)
    _, used = go("task=classify", "pruner=ticket", f"pruner.path={dn}", "name=to_cls", *SMALL)
    assert [t["kept_whole"] for t in used["tickets"]] == [FIRST] * 3
    assert used["tickets"][1]["found"]["label"] == "denoise-astronaut-skip-imp"
    mask, total = Ticket.load(dn / "tickets/round_02.safetensors").mask, sum(
        w.numel() for w in prunable(build([(3, 16, 16)], classes=2, channels=4, depth=2)).values())
    kept = sum(int(m.sum()) for n, m in mask.items() if n not in FIRST) + 4 * 3 + 4 * 3 * 9
    assert used["rounds"][2]["sparsity"] == pytest.approx(1 - kept / total, abs=1e-6)
    _, back = go("task=denoise", "pruner=ticket", f"pruner.path={cls}", "fit.steps=4", "name=to_dn", *SMALL)
    assert [t["kept_whole"] for t in back["tickets"]] == [FIRST] * 3 and back["rounds"][2]["psnr_picked"] > 0


def test_a_run_that_does_not_rewind_leaves_its_first_weights_with_the_tickets(go):
    folder, result = go("task=classify", "pruner=imp", "pruner.rounds=1", "pruner.rewind_step=null", *SMALL)
    from safetensors.torch import load_file

    first = build([(3, 16, 16)], classes=2, channels=4, depth=2, seed=0).state_dict()
    initial = load_file(folder / "tickets" / INITIAL)
    assert all(torch.equal(initial[n], v) for n, v in first.items())
    _, replayed = go("task=classify", "pruner=ticket", f"pruner.path={folder}/tickets/round_00.safetensors", *SMALL)
    keys = ("loss", "accuracy", "train_accuracy")
    assert [replayed["rounds"][0][k] for k in keys] == [result["rounds"][0][k] for k in keys]


@pytest.mark.parametrize("accuracies, best, oracle", [([50.0, 50.0], 1, 1), ([60.0, 50.0], 1, 0), ([50.0, 60.0], 0, 1)])
def test_no_other_round_is_called_better_that_is_as_good(accuracies, best, oracle):
    rounds = [{"round": i, "accuracy": a} for i, a in enumerate(accuracies)]
    assert Classifying.finish(None, Path(), None, rounds, best)["oracle_round"] == oracle


def test_reports_status_and_tickets_know_classifiers(go, capsys, monkeypatch):
    from lipfw.report.__main__ import main as report
    from lipfw.status.__main__ import main as status
    from lipfw.tickets.__main__ import main as tickets

    monkeypatch.setenv("COLUMNS", "80")
    accuracies = {}
    for pruner in ("imp", "random"):
        for seed in (0, 1):
            folder, result = go("task=classify", f"pruner={pruner}", "pruner.rounds=1", f"seed={seed}", *SMALL)
            accuracies[pruner, seed] = [r["accuracy"] for r in result["rounds"]]
    capsys.readouterr()
    assert report(["runs/default"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert max(map(len, out)) <= 80 and any("accuracy, % (*: the best)" in line for line in out)
    heads = [line.split() for line in out if line.startswith("round") or line.startswith("   round")]
    assert heads[0] == ["round", "sparse", "params", "n", "accuracy", "best", "train", "loss/1e-1", "time"] or \
        heads[0][:7] == ["round", "sparse", "params", "n", "accuracy", "best", "train"]
    assert any("chosen by the training loss" in line for line in out)
    mean, sd = (float(f([accuracies["imp", s][1] for s in (0, 1)])) for f in (np.mean, lambda x: np.std(x, ddof=1)))
    text = Path("runs/default/report.md").read_text()
    assert f"| {mean:.2f} ± {sd:.2f} |" in text
    assert status(["runs/default"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["run", "state", "rounds", "done", "accuracy", "left"][:5]
    assert tickets([str(folder)]) == 0
    told = capsys.readouterr()
    assert "not known" not in told.out + told.err


@pytest.mark.parametrize("overrides, words", [
    (["task=classify", *SMALL, "pruner=imp", "pruner.rewind_step=100%", "pruner.retrain=remaining"],
     "leaves no step of the [0-9,]+ steps of fit.epochs=; use an earlier one"),
    (["task=classify", "image=skimage"], "task=classify takes pictures with labels.*image=lfw_labelled"),
    (["task=classify", "image=lfw"], "task=classify takes pictures with labels"),
    (["task=classify", "prior=skip", "prior.jitter=0", "image=lfw_labelled"], "prior=skip makes pictures; use prior="),
    (["task=classify", "prior=pggan"], "prior=pggan makes pictures"),
    (["task=classify", "fit=finetune"], "task=classify trains a classifier, which FineTuning does not; use fit=class"),
    (["task=denoise", "fit=classification"], "task=denoise restores pictures, which Classification does not"),
    (["prior=classifier"], "prior=classifier tells classes apart and makes no pictures"),
    (["image=lfw_labelled"], "lfw_labelled is a data set"),
    (["task=gan", "image=lfw_labelled"], "training takes many pictures of one size"),
    (["task=classify", "image.size=8", "prior.depth=3"], "8x8 pixels are too small for prior.depth=3: 9 px"),
    (["task=classify", "image.size=2", "prior.depth=1"], "a larger image.size")])
def test_mistakes_are_told_in_a_line_before_anything_is_written(go, overrides, words):
    with pytest.raises(InputError, match=words) as e:
        go(*overrides)
    assert "\n" not in str(e.value) and not list(Path().iterdir())


@pytest.mark.parametrize("overrides, words", [
    (["image=cifar10_small"], "image=cifar10_small is not here (LIPFW_DATA is not set); set LIPFW_DATA"),
    (["image=labelled", "image.path=nothing"], "nothing does not exist; image.path must be a folder"),
    (["image=labelled", "image.path=one"], "one has one class, cat")])
def test_what_is_wrong_with_data_is_told_in_a_line(go, overrides, words):
    from PIL import Image

    Path("one/cat").mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (8, 8)).save(f"one/cat/{i}.png")
    with pytest.raises(Exception) as e:
        go("task=classify", *overrides)
    assert words in explain(e.value) and not Path("runs").exists()
