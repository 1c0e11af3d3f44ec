"""Training against a critic: a plain loop of torch's own, and what must hold whatever is trained."""
import copy
import functools

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lipfw.errors import InputError
from lipfw.fit.adversarial import at_scale, per_scale
from lipfw.fit.checkpoint import Checkpoint
from lipfw.fit.finetuning import FineTuning
from lipfw.fit.growing import Growing, Phase, phases
from lipfw.fit.rounds import Following, IterativePruning
from lipfw.gan.quality import sliced_wasserstein
from lipfw.mask import Mask, prunable
from lipfw.prior.pggan import build
from lipfw.pruner.imp import IMP
from lipfw.pruner.magnitude import Magnitude
from lipfw.pruner.none import Dense
from lipfw.pruner.random import Random
from lipfw.pruner.snip import SNIP
from lipfw.pruner.synflow import SynFlow
from lipfw.pruner.ticket import Replay
from lipfw.records import plain
from lipfw.streams import stream
from lipfw.ticket import INITIAL, Ticket, save_state, trained_name

PICTURES = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
COMMON = dict(lr=0.01, batch=4, penalty=10.0, penalised=None, drift=1e-3, smoothing=0.9, mirror=True, judge_every=1000,
              seed=5, log_every=1, steps_per_batch=3)


def prior(pictures=PICTURES, channels=(8, 4), seed=5):
    return build([tuple(pictures.shape[1:])], weights=None, channels=list(channels), latent=6, seed=seed)


def tuning(pictures=PICTURES, seed=5, **options):
    """Six steps of fine-tuning: two passes over 10 pictures, the last of three batches smaller."""
    return FineTuning(pictures, prior(pictures, seed=seed), **COMMON | {"epochs": 2, "seed": seed} | options)


def growing(**options):
    """Two steps at 4 pixels, three that fade 8 in, two at 8."""
    return Growing(PICTURES, prior(), **COMMON | {"fade": [0, 12], "stable": [8, 7]} | options)


class Watch(pl.Callback):
    """Keep what each step's batch has recorded, and copies of the networks at each round's start and end."""

    def __init__(self):
        self.records, self.starts, self.ends, self.steps = [], [], [], []

    def on_train_start(self, trainer, module):
        module.after_step.append(lambda step: self.steps.append((trainer.current_epoch, state(module))))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.starts.append((state(module), copy.deepcopy([o.state_dict() for o in module.optimizers(False)])))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.records += module.records

    def on_train_epoch_end(self, trainer, module):
        self.ends.append((state(module), dict(module.masks)))


def state(module):
    return {name: copy.deepcopy(network.state_dict()) for name, network in module.networks().items()}


def equal(a, b):
    """Return whether two nests of dicts, lists and tensors hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return all(map(equal, a, b)) and len(a) == len(b) if isinstance(a, list | tuple) else a == b


@pytest.fixture
def follow(tmp_path):
    """Return a function that fits a module with a pruner for each of generator and critic."""
    def follow(module, pruner, of_critic=None, *callbacks, ckpt_path=None):
        leader = IterativePruning(pruner)
        following = [] if of_critic is None else [Following(of_critic, leader)]
        for callback in (leader, *following):
            callback.prepare(module)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=leader.rounds, logger=False,
                             callbacks=[*following, leader, *callbacks], enable_progress_bar=False,
                             enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path)
        trainer.fit(module, ckpt_path=ckpt_path)
        return leader, *following
    return follow


# --- the method, against a plain loop

def plain_loop(module, schedule, options):
    """Train copies of a module's networks as the papers' loop does; gives them and the scores' records.

    `schedule` has (scale, fade) of each step.
    """
    g, d = copy.deepcopy(module.prior.network), copy.deepcopy(module.critic)
    for p in (*g.parameters(), *d.parameters()):
        p.requires_grad_(True)
    mean = copy.deepcopy(g)
    of_g = torch.optim.Adam(g.parameters(), lr=options["lr"], betas=(0.0, 0.99), fused=True)
    of_d = torch.optim.Adam(d.parameters(), lr=options["lr"], betas=(0.0, 0.99), fused=True)
    n, batch, seed, records = len(PICTURES), options["batch"], options["seed"], []
    per_epoch = -(-n // batch)
    for step, (scale, fade) in enumerate(schedule):
        epoch, place = step // per_epoch, step % per_epoch
        order = torch.randperm(n, generator=stream(seed, "order", epoch)).tolist()[batch * place:batch * (place + 1)]
        draws = torch.rand(len(order), generator=stream(seed, "mirror", step)).tolist()
        real = []
        for i, draw in zip(order, draws, strict=True):
            x = PICTURES[i].float() / 127.5 - 1
            real.append(torch.flip(x, (2,)) if options["mirror"] and draw < 0.5 else x)
        real, side = torch.stack(real), 4 * 2 ** scale
        real = nn.functional.interpolate(real, size=(side, side), mode="area")
        if fade:
            low = nn.functional.interpolate(real, size=(side // 2,) * 2, mode="area")
            real = (1 - fade) * real + fade * low.repeat_interleave(2, 2).repeat_interleave(2, 3)

        z = torch.randn(len(order), 6, generator=stream(seed, "codes of the critic", step))
        fake = g(z, scale, fade).detach()
        share = torch.rand(len(order), 1, 1, 1, generator=stream(seed, "mixture", step))
        between = (share * real + (1 - share) * fake)[:options["penalised"]].requires_grad_()
        (gradient,) = torch.autograd.grad(d(between, scale, fade).sum(), between, create_graph=True)
        norms = torch.stack([one.square().sum().sqrt() for one in gradient])
        of_real, of_fake = d(real, scale, fade), d(fake, scale, fade)
        loss = (of_fake.mean() - of_real.mean() + options["penalty"] * ((norms - 1) ** 2).mean()
                + options["drift"] * (of_real ** 2).mean())
        of_d.zero_grad()
        loss.backward()
        of_d.step()
        records.append([x.item() for x in (loss, of_real.mean() - of_fake.mean(), norms.mean())])

        count = options.get("generator_batch") or batch
        z = torch.randn(count, 6, generator=stream(seed, "codes of the generator", step))
        of_g.zero_grad()
        (-d(g(z, scale, fade), scale, fade).mean()).backward()
        of_g.step()
        with torch.no_grad():
            for a, b in zip(mean.parameters(), g.parameters(), strict=True):
                a.copy_(options["smoothing"] * a + (1 - options["smoothing"]) * b)
    return {"network": g.state_dict(), "critic": d.state_dict(), "average": mean.state_dict()}, records


GROWTH = [(0, 0.0), (0, 0.0), (1, 1.0), (1, 2 / 3), (1, 1 / 3), (1, 0.0), (1, 0.0)]


@pytest.mark.parametrize("make, schedule, options", [
    (tuning, [(1, 0.0)] * 6, {}),
    (tuning, [(1, 0.0)] * 6, {"penalised": 2, "generator_batch": 3, "drift": 1.0, "mirror": False}),
    (growing, GROWTH, {}), (growing, GROWTH, {"smoothing": 0.0})], ids=["tuning", "options", "growing", "unsmoothed"])
def test_it_is_the_plain_loop(make, schedule, options, follow):
    module, watch = make(**options), Watch()
    want, records = plain_loop(module, schedule, COMMON | options)
    follow(module, Dense(), None, watch)
    assert len(watch.steps) == len(schedule)
    for name, network in want.items():
        for key, value in network.items():
            torch.testing.assert_close(state(module)[name][key], value, rtol=1e-3, atol=1e-4, msg=f"{name}.{key}")
    for record, (loss, distance, slope) in zip(watch.records, records, strict=True):
        assert (record["loss"], record["wasserstein"], record["slope"]) == pytest.approx((loss, distance, slope),
                                                                                       rel=1e-3, abs=1e-3)
    assert [(r["resolution"], r["fade"]) for r in watch.records] == [
        (4 * 2 ** s, pytest.approx(f)) for s, f in schedule]
    if options.get("smoothing") == 0:
        assert equal(state(module)["average"], state(module)["network"])


def test_the_penalty_is_each_pictures_own_slope():
    """By finite differences, in float64, of the sum of scores: the batch deviation couples the pictures."""
    module, seen = tuning(penalty=1.0, drift=0.0), []
    real = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    made = module.prior.network(module.codes(3, "codes of the critic", 2)).detach()
    handle = module.critic.register_forward_hook(lambda m, args, out: seen.append(args[0].detach().double()))
    loss, distance, slope = module.critic_loss(real, 2, 1, 0.0)
    handle.remove()
    share = torch.rand(3, 1, 1, 1, generator=stream(5, "mixture", 2))
    x, critic, norms = seen[-1], copy.deepcopy(module.critic).double(), []
    torch.testing.assert_close(x.float(), share * real + (1 - share) * made, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for i in range(3):
            squares = 0.0
            for j in range(x[i].numel()):
                up, down = x.clone(), x.clone()
                up[i].view(-1)[j] += 1e-6
                down[i].view(-1)[j] -= 1e-6
                squares += float((critic(up, 1, 0.0).sum() - critic(down, 1, 0.0).sum()) / 2e-6) ** 2
            norms.append(squares ** 0.5)
    assert float(slope) == pytest.approx(sum(norms) / 3, rel=1e-4)
    assert float(loss.detach() + distance) == pytest.approx(sum((n - 1) ** 2 for n in norms) / 3, rel=1e-3)


def test_drift_is_the_mean_of_squares():
    module = tuning(penalty=0.0, drift=2.0)
    real = at_scale(PICTURES[:4], 1)
    loss, distance, _ = module.critic_loss(real, 0, 1, 0.0)
    scores, loss = module.critic(real, 1, 0.0).detach().double(), loss.detach()
    assert float(loss + distance) == pytest.approx(float(2 * scores.square().mean()), rel=1e-4)
    assert abs(float(scores.square().mean() - scores.mean().square())) > 1e-4 * float(scores.square().mean())


def test_the_generators_step_leaves_the_critic_alone(follow):
    """Weights and gradients: what the critic learns from is its own loss."""
    module, seen = tuning(epochs=1), []

    class Look(pl.Callback):
        def on_train_start(self, trainer, module):
            loss = module.generator_loss

            def watched(*args):
                seen.append((copy.deepcopy(module.critic.state_dict()), [p.grad for p in module.critic.parameters()],
                             [None if p.grad is None else p.grad.clone() for p in module.critic.parameters()]))
                return loss(*args)

            def after(step):
                weights, grads, values = seen[-1]
                assert equal(weights, module.critic.state_dict())
                assert all(p.grad is g for p, g in zip(module.critic.parameters(), grads, strict=True))
                assert all(g is None or torch.equal(g, v) for g, v in zip(grads, values, strict=True))

            module.generator_loss = watched
            module.after_step.append(after)

    follow(module, Dense(), None, Look())
    assert len(seen) == 3


# --- which pictures, on which scale

def test_phases_and_fades():
    assert phases([99, 32, 0], [32, 0, 17], 16) == [
        Phase(0, 2, 0, False), Phase(2, 4, 1, True), Phase(4, 6, 2, False)]
    assert phases([5], [0], 1) == []
    module = Growing(PICTURES, prior(), **COMMON | {"fade": 40, "stable": 20})
    where = [module.where(s) for s in range(module.steps)]
    assert where == [(0, 0.0)] * 5 + [(1, pytest.approx(1 - i / 10)) for i in range(10)] + [(1, 0.0)] * 5
    assert module.steps_on() == {0: 5, 1: 15} and 0 < where[14][1] < 1 == where[5][1]
    assert tuning().steps_on() == {1: 6}


def test_real_pictures_fade_as_the_generators_do():
    """At fade 1 they are those of the scale below, enlarged; the mean of each 2x2 block never changes."""
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    whole = pixels.double() / 127.5 - 1
    for scale, side in enumerate((4, 8, 16)):
        blocks = whole.view(3, 3, side, 16 // side, side, 16 // side).mean((3, 5))
        x = at_scale(pixels, scale)
        torch.testing.assert_close(x.double(), blocks, rtol=0, atol=1e-6)
        if scale:
            below = at_scale(pixels, scale - 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
            torch.testing.assert_close(at_scale(pixels, scale, 1.0), below, rtol=0, atol=1e-6)
            torch.testing.assert_close(at_scale(pixels, scale, 0.25), 0.75 * x + 0.25 * below, rtol=0, atol=1e-6)
    assert pixels.dtype == torch.uint8 and at_scale(torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1).expand(
        1, 2, 4, 4), 0).unique().tolist() == [-1, 1]


def which(module, step):
    """Return the numbers of the pictures in a step's batch, and which of them are flipped."""
    whole, found = at_scale(PICTURES, 1), []
    for x in module.reals(step, 1, 0.0):
        (hit,) = [(i, flipped) for i, y in enumerate(whole) for flipped in (False, True)
                  if torch.equal(x, y.flip(2) if flipped else y)]
        found.append(hit)
    return found


def test_each_epoch_sees_each_picture_once():
    module, epochs = tuning(), []
    for epoch in range(4):
        batches = [which(module, 3 * epoch + i) for i in range(3)]
        assert [len(b) for b in batches] == [4, 4, 2]       # the last one is smaller, and kept
        epochs.append([i for b in batches for i, _ in b])
        assert sorted(epochs[-1]) == list(range(10))
    other = [i for s in range(3) for i, _ in which(tuning(seed=6), s)]
    assert len({tuple(e) for e in [*epochs, other]}) == 5
    assert which(module, 7) == which(tuning(), 7)


def test_the_mirror_flips_about_half_of_whole_pictures_and_none_without():
    flips = [flipped for step in range(60) for _, flipped in which(tuning(), step)]
    assert 70 < sum(flips) < 130 and len(flips) == 200
    assert not any(flipped for step in range(9) for _, flipped in which(tuning(mirror=False), step))


def test_a_batch_larger_than_the_pictures_is_all_of_them(follow):
    module = tuning(batch=64, epochs=3)
    assert module.steps == 3 and sorted(i for i, _ in which(module, 1)) == list(range(10))
    follow(module, Dense())


# --- records

def test_it_is_judged_where_it_should_be_and_the_records_say_so(follow):
    """Every so many steps and at the end; 4 pixels are too few for patches of 7: NaN, which JSON has as null."""
    module, watch = growing(judge_every=2, steps_per_batch=2), Watch()
    sheets = []

    class Sheets(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            sheets.extend(module.sheets)

    follow(module, Dense(), None, watch, Sheets())
    assert [set(r) for r in watch.records] == [{"step", *module.recorded}] * 7
    judged = [r["step"] for r in watch.records if r["swd"] == r["swd"]]
    assert judged == [4, 6, 7] and [s for s, _ in sheets] == [2, 4, 6, 7]
    assert [x.shape[2:] for _, x in sheets] == [(4, 4), (8, 8), (8, 8), (8, 8)]
    assert all(x.shape[:2] == (64, 3) and 0 <= x.min() and x.max() <= 1 for _, x in sheets)
    assert plain(watch.records[1])["swd"] is None and plain(watch.records[3])["swd"] == watch.records[3]["swd"]
    real = at_scale(PICTURES[torch.randperm(10, generator=stream(5, "judged"))], 1)
    with torch.no_grad():
        made = module.average(torch.randn(10, 6, generator=stream(5, "judged")))
    distance = sliced_wasserstein(real, made, 5).mean
    assert watch.records[-1]["swd"] == pytest.approx(distance, rel=1e-5)
    assert module.summary() == {"loss": module.round_loss(), "swd": module.round_loss(), "step_first": 1,
                                "step_last": 7} and module.round_loss() == pytest.approx(distance, rel=1e-5)


def test_bf16_trains_nearly_as_float32_does(follow):
    exact, rough = Watch(), Watch()
    module = tuning(precision="bf16")
    follow(tuning(), Dense(), None, exact)
    follow(module, Dense(), None, rough)
    assert all(p.dtype == torch.float32 for p in module.parameters())
    first = [(a["loss"], b["loss"]) for a, b in zip(exact.records, rough.records, strict=True)][0]
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.1)


@pytest.mark.parametrize("make", [tuning, growing])
def test_an_estimate_changes_nothing(make, follow):
    plain_, estimated, told = Watch(), Watch(), []
    follow(make(), IMP(rounds=1), None, plain_)

    class Estimate(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            random, grads = torch.get_rng_state(), [p.grad for p in module.parameters()]
            before = state(module), copy.deepcopy([o.state_dict() for o in module.optimizers(False)])
            told.append(module.estimate([1.0, 0.8]))
            after = state(module), [o.state_dict() for o in module.optimizers(False)]
            assert equal(before, after) and torch.equal(random, torch.get_rng_state())
            assert all(p.grad is g for p, g in zip(module.parameters(), grads, strict=True))

    follow(make(), IMP(rounds=1), None, Estimate(), estimated)
    assert equal(plain_.ends[-1][0], estimated.ends[-1][0])
    assert all(len(seconds) == 2 and seconds[0] > 0 and note is None for seconds, note in told)


# --- rounds

def held(mask, network):
    """Return whether the weights that a mask removes are 0, and not all others are."""
    return all((network[n][~m] == 0).all() for n, m in mask.items()) and any(network[n].any() for n in mask)


@pytest.mark.parametrize("rewind_step, retrain", [(0, "all"), (4, "all"), (4, "remaining"), (None, "all")])
@pytest.mark.parametrize("pruner", [IMP, Random])
def test_rounds_rewind_everything_and_hold_the_ladder_in_both_networks(follow, pruner, rewind_step, retrain):
    """Rewound to a step of round 0, Adam has memories of removed weights, which must not move them. Without rewinding a
    round starts from what the last one left, and Adam remembers nothing.
    """
    module, watch = tuning(), Watch()
    options = dict(rounds=3, rate=0.3, rewind_step=rewind_step, retrain=retrain)
    leader, following = follow(module, pruner(**options), pruner(**options), watch)
    base = watch.steps[rewind_step - 1][1] if rewind_step else watch.starts[0][0]
    steps = 6 if retrain == "all" else 2
    assert [sum(r == round_ for r, _ in watch.steps) for round_ in range(4)] == [6, steps, steps, steps]
    left = {key: sum(p.numel() for p in prunable(n).values()) for key, n in module.networks().items()}
    before = {}
    for round_ in (1, 2, 3):
        (start, optimizers), (_, masks) = watch.starts[round_], watch.ends[round_]
        base = watch.ends[round_ - 1][0] if rewind_step is None else base
        mask_of = {"network": masks["prior.network"], "average": masks["prior.network"], "critic": masks["critic"]}
        for name, mask in mask_of.items():
            left[name] -= round(0.3 * left[name])
            assert mask.count == left[name]
            for key, value in base[name].items():
                assert torch.equal(start[name][key], value * mask[key] if key in mask else value), (name, key)
            assert round_ == 1 or all((mask[n] <= before[name][n]).all() for n in mask)
        before = mask_of
        for optimizer, (name, network) in zip(optimizers, [("network", module.prior.network),
                                                           ("critic", module.critic)], strict=True):
            assert bool(optimizer["state"]) == bool(rewind_step)
            for i, (key, _) in enumerate(network.named_parameters()):
                if rewind_step and key in mask_of[name] and i in optimizer["state"]:    # unused scales have none
                    moments = optimizer["state"][i]
                    assert not any(moments[m][~mask_of[name][key]].any() for m in ("exp_avg", "exp_avg_sq"))
                    assert moments["step"] == rewind_step
        for r, networks in watch.steps:
            assert r != round_ or all(held(mask, networks[name]) for name, mask in mask_of.items())
    total = sum(p.numel() for p in prunable(module.critic).values())
    assert following.mask.total == total and following.mask.keys() != leader.mask.keys()


def test_the_critic_stays_whole_unless_asked(follow):
    module, watch = tuning(), Watch()
    follow(module, IMP(rounds=1), None, watch)
    assert watch.ends[1][1].keys() == {"prior.network"}
    assert equal(watch.starts[1][0]["critic"], watch.starts[0][0]["critic"])
    assert all(p.any() for p in prunable(module.critic).values())


@pytest.mark.parametrize("pruner", [SNIP, functools.partial(SynFlow, steps=3)], ids=["snip", "synflow"])
def test_scores_at_initialisation_see_the_whole_networks(follow, pruner):
    """In a later round too: the masks of both networks are those that a run of that round alone finds."""
    masks = []
    for sparsities in ([0.3, 0.5], [0.5]):
        watch = Watch()
        leader, following = follow(tuning(), pruner(sparsities=sparsities), pruner(sparsities=sparsities), watch)
        masks.append((dict(leader.mask), dict(following.mask)))
    assert equal(masks[0][1], masks[1][1]) and equal(masks[0][0], masks[1][0])


def test_effective_scores_multiply_by_the_gain():
    """The layers' c = sqrt(2 / fan-in), computed here by hand."""
    network = prior().network
    raw, effective = Magnitude().score(network, None), Magnitude(scores="effective").score(network, None)
    assert raw.keys() == effective.keys() and len(raw) == 5
    for name, w in prunable(network).items():
        assert torch.equal(raw[name], w.detach().abs())
        torch.testing.assert_close(effective[name], w.detach().abs() * (2 / w[0].numel()) ** 0.5)
    assert not equal(dict(Magnitude().prune(network, None, 500, None, 1)),
                     dict(Magnitude(scores="effective").prune(network, None, 500, None, 1)))


def test_no_round_starts_once_the_distance_keeps_rising(follow):
    module, losses, watch = tuning(), iter([5.0, 4.0, 4.5, 4.6, 1.0]), Watch()
    module.judge = lambda *_: module.distance.fill_(next(losses))
    leader, following = follow(module, IMP(rounds=8, stop="loss_rises", patience=2), IMP(rounds=8), watch)
    assert len(watch.ends) == 4 and leader.losses == pytest.approx([5, 4, 4.5, 4.6])


def test_networks_that_need_unlike_numbers_of_rounds_are_refused():
    """A number of parameters in all is not to be met by two networks of two sizes in as many rounds."""
    module = tuning(PICTURES[:, :1].contiguous())
    sizes = [sum(p.numel() for p in n.parameters()) for n in (module.prior.network, module.critic)]
    assert sizes[0] != sizes[1]
    for params in range(min(sizes) - 1, 0, -1):
        pruners = [IMP(params=params, rate=0.1) for _ in range(2)]
        if len(pruners[0].counts(module.prior.network)) != len(pruners[1].counts(module.critic)):
            break
    with pytest.raises(InputError, match="pruning the critic takes .* rounds and the generator .*: they differ in siz"):
        Following(pruners[1], IterativePruning(pruners[0])).prepare(module)


class Die(pl.Callback):
    def __init__(self, round_, batch):
        self.at = (round_, batch)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise RuntimeError("killed")


REWOUND = dict(rewind_step=4, retrain="remaining")


@pytest.mark.parametrize("pruner, options, round_, batch, seconds", [
    (IMP, {}, 0, 1, 0.0), (IMP, {}, 1, 0, 1e9), (IMP, {}, 2, 1, 0.0), (Random, {}, 1, 1, 0.0), (Random, {}, 2, 0, 1e9),
    (IMP, REWOUND, 0, 5, 0.0), (IMP, REWOUND, 1, 0, 0.0), (IMP, REWOUND, 2, 0, 1e9)])
def test_resume_is_exact_with_both_networks_pruned(follow, tmp_path, pruner, options, round_, batch, seconds):
    whole, after = Watch(), Watch()
    make, options = dict(steps_per_batch=1), dict(rounds=2, **options)
    leader, following = follow(tuning(**make), pruner(**options), pruner(**options), whole)
    path = tmp_path / "checkpoint.ckpt"
    with pytest.raises(RuntimeError, match="killed"):
        follow(tuning(**make), pruner(**options), pruner(**options), Die(round_, batch), Checkpoint(path, seconds))
    torch.manual_seed(99)
    again = follow(tuning(**make), pruner(**options), pruner(**options), after, Checkpoint(path, seconds),
                   ckpt_path=path if path.exists() else None)
    assert equal(dict(leader.mask), dict(again[0].mask)) and equal(dict(following.mask), dict(again[1].mask))
    assert leader.losses[-1] == again[0].losses[-1] and len(again[0].losses) == 3
    for mine, theirs in zip(after.ends[::-1], whole.ends[::-1], strict=False):
        assert equal(mine[0], theirs[0])
    assert held(again[1].mask, after.ends[-1][0]["critic"])
    for _, networks in after.steps[-2:]:
        assert held(again[1].mask, networks["critic"]) and held(again[0].mask, networks["average"])


@pytest.mark.parametrize("weights", ["pretrained", "trained"])
def test_the_average_of_a_replayed_ticket_starts_with_its_generator(follow, tmp_path, weights):
    """And not with the weights that the run's own seed had drawn before the ticket brought others."""
    other, trained = (prior(seed=s).network.state_dict() for s in (8, 9))
    about = {"initial": save_state(tmp_path / INITIAL, other), "round": "1",
             "trained": save_state(tmp_path / trained_name(1), trained)}
    mask = Magnitude().prune(prior(seed=8).network, None, 400, None, 1)
    Ticket(mask, about).save(tmp_path / "round_01.safetensors")
    ticket = str(tmp_path / "round_01.safetensors")
    watch = Watch()
    follow(tuning(), Replay(ticket, weights=weights), None, watch)
    want = {n: w * mask[n] if n in mask else w for n, w in (trained if weights == "trained" else other).items()}
    assert equal(watch.starts[0][0]["network"], want) and equal(watch.starts[0][0]["average"], want)


# --- what is refused

@pytest.mark.parametrize("options, words", [
    ({"batch": 0}, "fit.batch must be a whole number of at least 1, got 0"), ({"lr": 0}, r"fit.lr must .* \(0, 1\]"),
    ({"lr": -1e-3}, "fit.lr"), ({"penalty": -1}, "fit.penalty"), ({"drift": -1}, "fit.drift"),
    ({"smoothing": 1}, r"fit.smoothing must be a number in \[0, 1\)"), ({"generator_batch": 0}, "fit.generator_batch"),
    ({"penalised": 0}, "fit.penalised"), ({"epochs": 0}, "fit.epochs"), ({"mirror": "no"}, "fit.mirror"),
    ({"judge_every": 0}, "fit.judge_every"), ({"seed": -1}, "fit.seed"), ({"precision": 16}, "trainer.precision"),
    ({"lr": float("nan")}, "fit.lr"), ({"log_every": 0}, "fit.log_every"), ({"batch": 2.5}, "fit.batch")])
def test_bad_values_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        FineTuning(PICTURES, prior(), **COMMON | {"epochs": 2} | options)


@pytest.mark.parametrize("options, words", [
    ({"fade": [0, 1, 2]}, "fit.fade has 3 numbers and the network 2 scales, 4 to 8 pixels"),
    ({"stable": [8]}, "fit.stable has 1 numbers"), ({"fade": -1}, "fit.fade must be a whole number of at least 0"),
    ({"fade": 1e5}, "fit.fade must be a whole number .* got 100000.0"), ({"stable": None}, "fit.stable must be"),
    ({"stable": "many"}, "fit.stable must be a whole number of at least 0, got 'many'"),
    ({"fade": 0, "stable": 0}, "are 0 for all scales; give them pictures"),
    ({"fade": 0, "stable": [8, 0]}, "end at 4 pixels and leave the scale of 8 untrained; give it pictures, or lower"),
    ({"fade": [0, True]}, "fit.fade must be")])
def test_a_growth_that_does_not_fit_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        growing(**options)


def test_one_number_is_for_all_scales():
    assert per_scale("fit.fade", 5, 3) == [5, 5, 5] and per_scale("fit.fade", (1, 0, 2), 3) == [1, 0, 2]


def test_a_generator_without_a_critic_is_refused():
    alone = prior()
    alone.critic = None
    with pytest.raises(InputError, match="these weights have no critic, which training needs; use a checkpoint that"):
        FineTuning(PICTURES, alone, **COMMON)


def test_masks_of_a_network_are_found_whole():
    """A mask of the generator does not fit the critic, nor the other way round."""
    module = tuning()
    with pytest.raises(ValueError, match="the network has no convolution weight named"):
        Mask.ones(module.prior.network).check(module.critic)
