"""What all pruners share: the published ladder, targets, rewinding, exempt tensors; magnitudes and replayed tickets."""
import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lipfw.errors import InputError
from lipfw.mask import Degenerate, Mask, keep_top, prunable
from lipfw.prior.skip import Skip
from lipfw.pruner.imp import IMP
from lipfw.pruner.magnitude import Magnitude
from lipfw.pruner.none import Dense
from lipfw.pruner.pruner import Pruner, check_scores
from lipfw.pruner.schedule import Schedule
from lipfw.pruner.ticket import Replay
from lipfw.ticket import INITIAL, Ticket, save_state

TOTAL, OTHERS = 2_208_768, 9_063
LADDER = [2_208_768, 1_767_014, 1_413_611, 1_130_889, 904_711, 723_769, 579_015, 463_212, 370_570, 296_456, 237_165,
          189_732, 151_786, 121_429, 97_143, 77_714, 62_171, 49_737, 39_790, 31_832, 25_466, 20_373, 16_298, 13_038,
          10_430, 8_344]                                                        # facts, section 4.1


def refused(call, *words):
    """Assert that `call` raises InputError in one line that holds the words."""
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


class NoFit:
    """The fit for pruners that must not look at it."""

    def losses(self, draw=0):
        raise AssertionError("this pruner has no use for the loss")

    code_shape = losses


# ---- how many weights ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pruner", [IMP, Magnitude])
def test_the_ladder_is_the_published_one(pruner):
    assert pruner(rounds=25, rate=0.2).counts(Skip()) == LADDER
    for r, count in enumerate(LADDER):
        assert count == pytest.approx(TOTAL * 0.8**r, abs=3)        # rounding errors shrink too


def test_the_default_is_sixteen_prunings_by_a_fifth():
    assert Schedule(16, 0.2).counts(TOTAL) == LADDER[:17] == IMP().counts(Skip())


@pytest.mark.parametrize("sparsities", [[0.2, 0.5, 0.9], [0.958728], [0.0, 0.3], [1e-7, 0.7237, 0.7238, 0.999]])
def test_one_shot_pruners_meet_sparsities_and_do_nothing_else(sparsities):
    want = [TOTAL] + [round(TOTAL - s * TOTAL) for s in sparsities if round(s * TOTAL)]
    assert Magnitude(sparsities=sparsities).counts(Skip()) == want


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("sparsities", [[0.2, 0.5, 0.9], [0.958728], [0.0, 0.3], [1e-7, 0.7237, 0.7238, 0.999],
                                        [0.2, 0.36, 0.488]])
def test_iterative_pruning_meets_sparsities_by_steps_of_the_rate_at_most(sparsities, rate):
    counts = IMP(sparsities=sparsities, rate=rate).counts(Skip())
    assert {round(TOTAL - s * TOTAL) for s in sparsities} <= set(counts) and counts[0] == TOTAL
    assert counts[-1] == round(TOTAL - sparsities[-1] * TOTAL)
    steps = [(a - b, round(rate * a)) for a, b in zip(counts[:-1], counts[1:], strict=True)]
    assert all(0 < removed <= most for removed, most in steps)
    assert sum(removed < most for removed, most in steps) <= len(sparsities)      # only the last before a target


def test_targets_on_the_ladder_are_the_ladder():
    sparsities = [1 - c / TOTAL for c in LADDER[1:]]
    assert IMP(sparsities=sparsities).counts(Skip()) == Magnitude(sparsities=sparsities).counts(Skip()) == LADDER


@pytest.mark.parametrize("params, left", [(100_224, 91_161), (619_200, 610_137)])     # facts, section 4.1
def test_a_number_of_parameters_counts_those_that_are_never_removed(params, left):
    network = Skip()
    assert Magnitude(params=params).counts(network) == [TOTAL, left]
    counts = IMP(params=params).counts(network)
    assert counts[-1] == left == params - OTHERS and counts[:-1] == [c for c in LADDER if c > left]


def test_the_bounds_of_params():
    network = Skip()
    assert Magnitude(params=OTHERS + 1).counts(network) == [TOTAL, 1]
    assert Magnitude(params=OTHERS + TOTAL).counts(network) == [TOTAL]
    for params in (1, OTHERS, OTHERS + TOTAL + 1):
        refused(lambda p=params: Magnitude(params=p).counts(network), f"pruner.params={params:,}", "2,217,831",
                "more than 9,063")


@pytest.mark.parametrize("sparsities, words", [
    ([1], ("[0, 1)", "got 1")), ([1.0], ("[0, 1)", "got 1.0")), ([-0.1], ("got -0.1",)),
    ([20], ("got 20", "did you mean 0.2?")), ([0.5, 95.5], ("got 95.5", "did you mean 0.955?")),
    (["half"], ("got 'half'",)), ([None], ("got None",)), ([True], ("got True",)), ([float("nan")], ("got nan",)),
    ([0.5, 0.2], ("ascend", "0.2 comes after 0.5")), ([0.2, 0.2], ("ascend", "0.2 comes after 0.2")),
    ([], ("list", "[0.2,0.5,0.9]", "got []")), (0.5, ("list", "got 0.5")), ("0.5", ("list", "got '0.5'")),
    ({"a": 0.5}, ("list",))])
@pytest.mark.parametrize("pruner", [IMP, Magnitude])
def test_bad_sparsities(pruner, sparsities, words):
    refused(lambda: pruner(sparsities=sparsities), "pruner.sparsities", *words)


def test_other_bad_targets():
    refused(lambda: IMP(sparsities=[0.5], params=9), "pruner.sparsities", "pruner.params", "one of them")
    for params in (0, -1, 1.5, "9", True):
        refused(lambda p=params: IMP(params=p), "pruner.params", "at least 1", f"got {params!r}")
    refused(lambda: Magnitude(sparsities=[0.3, 0.99]).counts(nn.Conv1d(1, 40, 1)), "keep none of", "40", "0.99")
    refused(lambda: IMP(rounds=9, rate=0.9).counts(nn.Conv1d(1, 40, 1)), "round 2 would keep none", "pruner.rounds")
    refused(lambda: IMP(sparsities=[0.9], rate=0.05).counts(nn.Conv1d(1, 40, 1)), "pruner.rate=0.05 removes none of")


@pytest.mark.parametrize("rate, words", [
    (20, ("did you mean 0.2?",)), (20.0, ("did you mean 0.2?",)), (12.5, ("did you mean 0.125?",)),
    (0, ()), (1, ()), (-1, ()), (True, ()), ("a", ()), (None, ()), (float("nan"), ())])
def test_bad_rates(rate, words):
    with pytest.raises(InputError) as error:
        IMP(rate=rate)
    assert "pruner.rate must be a number in (0, 1), got" in str(error.value) and repr(rate) in str(error.value)
    assert all(w in str(error.value) for w in words) and ("did you mean" in str(error.value)) == bool(words)


@pytest.mark.parametrize("value", [-1, 1.5, "3", True])
def test_bad_rounds(value):
    refused(lambda: IMP(rounds=value), "pruner.rounds", "at least 0", f"got {value!r}")


def test_dense_is_one_fit_of_everything():
    assert Dense().counts(nn.Conv1d(1, 17, 1)) == [17] and Dense().rewind(9) == 0
    with pytest.raises(TypeError, match="Pruner has no score"):
        Pruner().score(nn.Identity(), NoFit())


# ---- rewinding and stopping ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("given, steps, step", [
    (0, 3000, 0), (150, 3000, 150), (3000, 3000, 3000), ("0%", 3000, 0), ("5%", 3000, 150), ("10%", 3000, 300),
    ("20%", 3000, 600), ("100%", 3000, 3000), ("5%", 50, 2), (".5%", 1000, 5), ("12.5%", 40, 5),
    (1, 1, 1)])     # facts, section 4.2
def test_the_rewind_step_is_a_number_or_a_percentage(given, steps, step):
    assert IMP(rewind_step=given).rewind(steps) == step


@pytest.mark.parametrize("value", [-1, 1.5, 0.05, "5 %%", "-5%", "101%", "%", "five%", "nan%", "5", "", True, [5]])
def test_bad_rewind_steps(value):
    refused(lambda: IMP(rewind_step=value), "pruner.rewind_step", "percentage such as 5%", f"got {value!r}")


def test_without_a_rewind_step_nothing_is_rewound():
    assert not IMP(rewind_step=None).rewinds and IMP(rewind_step=None).rewind(7) == 0 and IMP(rewind_step=0).rewinds
    refused(lambda: IMP(rewind_step=None, retrain="remaining"), "pruner.rewind_step=null", "pruner.retrain=all")


@pytest.mark.parametrize("step", [3001, 10 ** 12])
def test_a_rewind_step_beyond_the_fit(step):
    refused(lambda: IMP(rewind_step=step).rewind(3000), f"pruner.rewind_step={step}", "fit.steps=3000")


@pytest.mark.parametrize("name, value, words", [
    ("retrain", "some", ("all, remaining",)), ("retrain", "remainin", ("did you mean remaining?",)),
    ("stop", "loss_rise", ("did you mean loss_rises?",)), ("stop", True, ("loss_rises",)),
    ("patience", 0, ("at least 1",)), ("patience", "2", ("at least 1",))])
def test_bad_words(name, value, words):
    refused(lambda: IMP(**{name: value}), f"pruner.{name}", f"got {value!r}", *words)


# ---- scores -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("pruner, trained", [(IMP, True), (Magnitude, False)])
def test_scores_are_magnitudes(pruner, trained):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    scores = pruner().score(network, NoFit())
    assert list(scores) == ["0.weight", "2.weight"] and pruner.scores_trained is pruner.iterative is trained
    for name, score in scores.items():
        w = network.get_parameter(name)
        assert torch.equal(score, torch.where(w < 0, -w, w)) and not score.requires_grad


def test_imp_keeps_the_largest_of_what_was_left():
    network = nn.Conv1d(1, 8, 1, bias=False)
    within = Mask({"weight": torch.tensor([True] * 4 + [False] * 4).view(8, 1, 1)})
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1.0, -4, 0, 3, 9, 9, 9, 9]).view(8, 1, 1))
    mask = IMP().prune(network, NoFit(), 2, within, 1)
    assert mask["weight"].flatten().tolist() == [False, True, False, True, False, False, False, False]


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("scores, count, words", [
    ([1.0, 1, 1, 1], 2, "all 4 weights have the same score, 1"), ([0.0, 0, 0, 0], 2, "the same score, 0"),
    ([0.0, 0, 0, 3], 2, "2 weights are to be kept and only 1"), ([1, NAN, 2, 3], 2, "of w are not finite"),
    ([1, INF, 2, 3], 2, "of w are not finite"), ([1, -INF, 2, 3], 4, "of w are not finite")])
def test_scores_that_tell_nothing(scores, count, words):
    with pytest.raises(Degenerate, match=words):
        check_scores({"w": torch.tensor(scores)}, count)


@pytest.mark.parametrize("scores, count", [([1.0, 1, 1, 2], 2), ([0.0, 0, 0, 3], 1), ([1.0, 1, 1, 1], 4),
                                           ([1.0, 1, 1, 1], 0), ([0.0, 0, -1, 3], 3)])
def test_scores_that_tell_enough(scores, count):
    check_scores({"w": torch.tensor(scores)}, count)


def test_only_the_scores_of_what_is_left_must_tell():
    scores = {"w": torch.tensor([1.0, 1, 2, 0]), "v": torch.tensor([1.0, 5])}
    within = Mask({"w": torch.tensor([True, True, False, False]), "v": torch.tensor([True, False])})
    check_scores(scores, 2)
    with pytest.raises(Degenerate, match="all 3 weights have the same score, 1"):
        check_scores(scores, 2, within)


# ---- tensors that are kept whole ----------------------------------------------------------------------------------

def published(make, rounds, exempt, steps):
    """The published script's loop: masks of two tensors are dropped, so that they train dense and are ranked anew."""
    module = make(steps=steps)
    network, problem = module.prior.network, module.problems[0]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    names = [f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    start, masks = copy.deepcopy(network.state_dict()), []
    dense = sum(convolutions[e].weight.numel() for e in exempt)
    others = sum(c.weight.numel() for c in convolutions) - dense
    for r in range(rounds + 1):
        if r:
            for c in convolutions:      # torch computes weight = weight_orig * weight_mask before a forward pass
                if prune.is_pruned(c):
                    c.weight = c.weight_orig * c.weight_mask
            prune.global_unstructured([(c, "weight") for c in convolutions], prune.L1Unstructured, amount=0.2)
            kept = [c.weight_mask.bool().clone() for c in convolutions]
            k = sum(int((~kept[e]).sum()) for e in exempt)
            others -= round(0.2 * (others + dense)) - k                                     # facts, section 4.3
            for c in convolutions:
                prune.remove(c, "weight")
            network.load_state_dict(start)
            for i, c in enumerate(convolutions):
                if i in exempt:
                    kept[i] = torch.ones_like(kept[i])
                else:
                    prune.custom_from_mask(c, "weight", kept[i].float())
            masks.append(dict(zip(names, kept, strict=True)))
            assert sum(int(m.sum()) for m in kept) == others + dense and k
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)
        for step in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(module.prior(0, step), problem.measurement).backward()
            optimizer.step()
    return masks


@pytest.mark.parametrize("given", [[0, 1], ["encoders.0.skip.0.weight", "encoders.0.down.0.weight"]])
def test_exempt_tensors_make_the_published_scripts_masks(make, train, masks_of_rounds, given):
    want = published(make, 4, [0, 1], steps=5)
    train(make(steps=5), IMP(rounds=4, exempt=given), masks_of_rounds)
    assert len(masks_of_rounds.kept) == 5
    for mask, expected in zip(masks_of_rounds.kept[1:], want, strict=True):
        assert all(torch.equal(mask[n], m) for n, m in expected.items())


def test_exempt_tensors_are_kept_beside_one_shot_masks(make, train, masks_of_rounds):
    train(make(steps=2), Magnitude(sparsities=[0.3, 0.6], exempt=["head.weight"]), masks_of_rounds)
    weights = prunable(make().prior.network)
    total = sum(w.numel() for w in weights.values())
    for mask, s in zip(masks_of_rounds.kept[1:], (0.3, 0.6), strict=True):
        plain = keep_top({n: w.abs() for n, w in weights.items()}, round(total - s * total))
        assert all(torch.equal(mask[n], plain[n]) for n in mask if n != "head.weight")
        assert mask["head.weight"].all() and not plain["head.weight"].all()


@pytest.mark.parametrize("options, planned, kept", [
    ({"rounds": 2}, [1000, 800, 640], 680), ({"sparsities": [0.36]}, [1000, 800, 640], 680),
    ({"sparsities": [0.2, 0.3]}, [1000, 800, 700], 744)])
def test_what_a_round_keeps_of_more_weights_than_planned(options, planned, kept):
    """850 are left instead of 800: the rate of them goes, or towards a target the planned fraction: an eighth."""
    network, pruner = nn.Conv1d(1, 1000, 1), IMP(**options)
    assert pruner.counts(network) == planned
    left = torch.arange(1000).view(1000, 1, 1)
    assert pruner.keep(planned, 1, None) == 800 == pruner.keep(planned, 1, Mask.ones(network))
    assert pruner.keep(planned, 2, Mask({"weight": left < 800})) == planned[2]
    assert pruner.keep(planned, 2, Mask({"weight": left < 850})) == kept


@pytest.mark.parametrize("exempt, words", [
    ([26], ("26", "tensors 0 to 25")), ([-1], ("-1", "tensors 0 to 25")), ([True], ("True",)),
    (["hed.weight"], ("'hed.weight'", "did you mean head.weight?")), (["head.bias"], ("'head.bias'",)),
    ([1.5], ("1.5",))])
def test_exempt_tensors_that_are_not_there(exempt, words):
    refused(lambda: IMP(exempt=exempt).prepare(Skip()), "pruner.exempt names", "no convolution weight", *words)


def test_a_network_that_is_exempt_as_a_whole():
    count = len(prunable(Skip()))
    refused(lambda: IMP(exempt=list(range(count))).prepare(Skip()), f"names all {count} tensors", "pruner=none")
    IMP(exempt=list(range(count - 1))).prepare(Skip())


@pytest.mark.parametrize("exempt", ["head.weight", 0, None, {"a": 1}])
def test_exempt_must_be_a_list(exempt):
    refused(lambda: IMP(exempt=exempt), "pruner.exempt must be a list", f"got {exempt!r}")


# ---- replay -------------------------------------------------------------------------------------------------------

def network(seed, **options):
    torch.manual_seed(seed)
    return Skip(**{"inputs": 4, "channels": 6, "depth": 2, "skip": 2, **options})


@pytest.fixture
def run(tmp_path):
    """A run folder with three tickets of one network."""
    tickets = tmp_path / "run" / "tickets"
    tickets.mkdir(parents=True)
    found = network(1)
    initial = save_state(tickets / INITIAL, found.state_dict())
    total = Mask.ones(found).total
    for r, count in enumerate((total, 801, 333)):
        mask = keep_top({n: w.abs() for n, w in prunable(found).items()}, count)
        Ticket(mask, {"initial": initial, "architecture": "the 6-channel one"}).save(
            tickets / f"round_{r:02d}.safetensors")
    return tmp_path / "run"


@pytest.mark.parametrize("path, rounds", [("tickets/round_01.safetensors", [1]), ("tickets", [0, 1, 2]),
                                          (".", [0, 1, 2])])
def test_one_round_for_each_ticket(run, path, rounds):
    pruner, net = Replay(str(run / path)), network(2)
    counts = [[Mask.ones(net).total, 801, 333][r] for r in rounds]
    assert pruner.counts(net) == counts and not pruner.scores_trained
    expected = {n: w.abs() for n, w in prunable(network(1)).items()}
    for round_, count in enumerate(counts):
        mask = pruner.prune(net, NoFit(), count, None, round_)
        assert all(torch.equal(m, keep_top(expected, count)[n]) for n, m in mask.items())


def test_a_ticket_brings_its_initial_weights_and_a_mask_alone_does_not(run):
    found, own = network(1).state_dict(), network(2).state_dict()
    for init, expected in (("ticket", found), ("fresh", own)):
        net = network(2)
        Replay(str(run), init).prepare(net)
        assert all(torch.equal(v, expected[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("init", ["ticket", "fresh"])
@pytest.mark.parametrize("options, words", [
    ({"channels": 8}, ("encoders.0.down.0.weight", "(8, 4, 3, 3)", "(6, 4, 3, 3)")),
    ({"depth": 1}, ("no convolution weight named encoders.1.skip.0.weight",)),
    ({"depth": 3}, ("nothing for encoders.2.skip.0.weight",)),
])
def test_another_architecture_is_refused_by_its_first_tensor(run, options, words, init):
    refused(lambda: Replay(str(run), init).prepare(network(2, **options)), "round_00.safetensors", *words,
            "the prior it was found with: the 6-channel one")


def test_initial_weights_are_needed_only_for_the_ticket(run):
    (run / "tickets" / "initial.safetensors").unlink()
    refused(lambda: Replay(str(run)).prepare(network(2)), "initial.safetensors", "missing", "pruner.init=fresh")
    Replay(str(run), "fresh").prepare(network(2))


def test_bad_options_of_replay(run, tmp_path):
    refused(lambda: Replay(str(run), "fersh"), "pruner.init", "ticket, fresh", "'fersh'", "did you mean fresh?")
    refused(lambda: Replay(str(tmp_path / "none")), "none", "no ticket")
    (tmp_path / "empty").mkdir()
    refused(lambda: Replay(str(tmp_path / "empty")), "no ticket")
