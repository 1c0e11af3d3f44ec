"""Random pruners: uniform over all weights, by layer, like a ticket, and the published code's doubled one."""
import pytest
import torch
from test_pruner import NoFit, network, refused
from torch import nn
from torch.nn.utils import prune

from lipfw.errors import InputError
from lipfw.fit.rounds import Ended, IterativePruning, check_connected
from lipfw.mask import Degenerate, Mask, keep_top, prunable
from lipfw.pruner.random import Random, uniform
from lipfw.pruner.random_layerwise import RandomLayerwise
from lipfw.pruner.random_like import RandomLike
from lipfw.pruner.ticket import Replay
from lipfw.ticket import INITIAL, Ticket, save_state


def layers(*sizes):
    """A chain of layers of these numbers of weights."""
    return nn.Sequential(*(nn.Conv1d(1, n, 1) for n in sizes))


def kept(mask):
    """The number of kept weights of each layer."""
    return [int(m.sum()) for m in mask.values()]


def nested(masks):
    return all((small[n] <= large[n]).all() for large, small in zip(masks[:-1], masks[1:], strict=True) for n in small)


# ---- uniform over all weights ---------------------------------------------------------------------------------------

def test_each_weight_is_as_likely_kept_as_another():
    """Chi-square of 60 weights over 400 seeds: mean 60 - 1, standard deviation 11; counts are exact."""
    net, seeds, count = layers(40, 20), 400, 24
    masks = [Random(seed=s).prune(net, NoFit(), count, None, 1) for s in range(seeds)]
    assert {m.count for m in masks} == {count}
    often = sum(torch.cat([m.flatten() for m in mask.values()]).double() for mask in masks)
    p = count / 60
    chi2 = float(((often - seeds * p) ** 2).sum() / (seeds * p * (1 - p)))
    assert 59 - 4 * 11 < chi2 < 59 + 4 * 11


def test_every_layer_keeps_about_the_same_fraction_and_layers_are_drawn_apart():
    net = layers(40_000, 40_000, 3_000)
    mask = Random(seed=1).prune(net, NoFit(), 20_000, None, 1)
    p = 20_000 / 83_000
    for m in mask.values():
        assert abs(float(m.float().mean()) - p) < 4 * (p * (1 - p) / m.numel()) ** 0.5
    both = float((mask["0.weight"] & mask["1.weight"]).float().mean())
    assert abs(both - p * p) < 4 * (p * p / 40_000) ** 0.5


@pytest.mark.parametrize("pruner", [Random, RandomLayerwise])
def test_draws_follow_from_the_seed_alone(pruner):
    net = layers(50, 30)
    torch.manual_seed(5)
    before, state = pruner(seed=3).prune(net, NoFit(), 20, None, 1), torch.get_rng_state()
    torch.manual_seed(6)
    again, other = (pruner(seed=s).prune(net, NoFit(), 20, None, 4) for s in (3, 4))
    assert all(torch.equal(before[n], again[n]) for n in before)        # whatever the round
    assert any(not torch.equal(before[n], other[n]) for n in before)
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("pruner", [Random, RandomLayerwise])
def test_sparser_rounds_keep_some_of_what_denser_ones_kept(pruner):
    net = layers(50, 30, 7)
    counts = pruner(rounds=6, rate=0.4, seed=2).counts(net)
    masks = [pruner(seed=2).prune(net, NoFit(), c, None, r) for r, c in enumerate(counts)]
    assert [m.count for m in masks] == counts and nested(masks)


@pytest.mark.parametrize("pruner", [Random, RandomLayerwise])
@pytest.mark.parametrize("seed", [-1, 0.5, "0", True, None])
def test_bad_seeds(pruner, seed):
    refused(lambda: pruner(seed=seed), "pruner.seed", "at least 0", f"got {seed!r}")


# ---- the published code's slip --------------------------------------------------------------------------------------

def doubled_rounds(net, rounds):
    """Return the masks of a doubled random pruner as a run makes them, each within the one before."""
    pruner = Random(seed=7, rounds=rounds, doubled=True)
    counts, masks = pruner.counts(net), [None]
    for r in range(1, rounds + 1):
        masks.append(pruner.prune(net, NoFit(), pruner.keep(counts, r, masks[-1]), masks[-1], r))
    return masks[1:]


def test_a_doubled_round_keeps_64_percent():
    """0.6402, then 0.4095 in a trial of the published code (facts, section 4.5), and as torch does it."""
    net = layers(150_000, 30_000, 20_000)
    first, second = doubled_rounds(net, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        twice = [(m, "weight") for m in net for _ in range(2)]
        theirs = []
        for _ in range(2):
            prune.global_unstructured(twice, prune.RandomUnstructured, amount=0.2)
            theirs.append(sum(int(m.weight_mask.sum()) for m in net) / 200_000)
    for mask, published, torchs, p in zip((first, second), (0.6402, 0.4095), theirs, (0.64, 0.4096), strict=True):
        sigma = (p * (1 - p) / 200_000) ** 0.5
        assert abs(mask.density - p) < 4 * sigma and abs(mask.density - torchs) < 6 * sigma
        assert mask.density == pytest.approx(published, abs=2e-3 + 4 * sigma)
        for m in mask.values():         # in each layer
            assert abs(float(m.float().mean()) - p) < 4 * (p * (1 - p) / m.numel()) ** 0.5


def test_a_doubled_round_drops_its_number_from_both_lists_together():
    """Of 2 * 500 entries 200 go: 100 to 200 weights, more than 100 as no draw is likely to hit all twice; nested."""
    net = layers(300, 200)
    within = None
    for left, mask in zip((500, None), doubled_rounds(net, 2), strict=True):
        left = left or within.count
        dropped = left - mask.count
        removed = round(0.2 * left)
        assert removed < dropped <= 2 * removed
        assert within is None or nested([within, mask])
        within = mask


def test_doubled_lists_by_hand(monkeypatch):
    """The entries of two lists, ranked together: the lowest 2 go, wherever they stand."""
    draws = {"1 weight": [0.5, 0.1, 0.9, 0.8], "2 weight": [0.2, 0.7, 0.3, 0.6]}
    monkeypatch.setattr("lipfw.pruner.random.uniform",
                        lambda lists, seed, round_: {k: torch.tensor(draws[k]).view(4, 1, 1) for k in lists})
    net = nn.Conv1d(1, 4, 1)
    mask = Random(doubled=True).prune(net, NoFit(), 3, None, 1)         # 0.1 and 0.2 go
    assert mask["weight"].flatten().tolist() == [False, False, True, True]
    draws |= {"1 weight": [0.5, 0.1, 0.9, 0.2], "2 weight": [0.2, 0.7, 0.8, 0.6]}
    mask = Random(doubled=True).prune(net, NoFit(), 1, mask, 2)         # of what is left 0.2 and 0.6 go
    assert mask["weight"].flatten().tolist() == [False, False, True, False]


def test_undoubled_random_is_exact_beside_it():
    net = layers(150, 30)
    assert [Random(seed=1).prune(net, NoFit(), c, None, 1).count for c in (144, 115)] == [144, 115]


# ---- the same ratio in each layer -----------------------------------------------------------------------------------

@pytest.mark.parametrize("count, by_layer", [(36, [10, 20, 6]), (18, [5, 10, 3]), (9, [3, 5, 1]), (7, [2, 4, 1]),
                                             (1, [0, 1, 0]), (0, [0, 0, 0])])
def test_layerwise_counts_by_hand(count, by_layer):
    """Of 10 + 20 + 6 weights; 9 would be 2.5, 5 and 1.5: of two equal remainders the earlier layer's is rounded up."""
    mask = RandomLayerwise(seed=1).prune(layers(10, 20, 6), NoFit(), count, None, 1)
    assert kept(mask) == by_layer and mask.count == count


@pytest.mark.parametrize("sizes", [(10, 20, 6), (100, 1, 1, 1), (128, 9216, 147456, 384), (7, 13, 29, 31)])
def test_layers_keep_the_same_ratio_whatever_the_count(sizes):
    """Each keeps its share up to rounding; counts are exact and masks nested (by largest remainders they'd not be)."""
    net, total = layers(*sizes), sum(sizes)
    counts = sorted({*range(total, 0, -max(1, total // 60)), 3, 2, 1}, reverse=True)
    masks = [RandomLayerwise(seed=4).prune(net, NoFit(), c, None, 1) for c in counts]
    assert nested(masks)
    for mask, count in zip(masks, counts, strict=True):
        assert mask.count == count
        for have, n in zip(kept(mask), sizes, strict=True):
            assert abs(have - count * n / total) < 1.5


def test_layerwise_places_are_random():
    """Over 300 seeds each of 30 places of a layer is kept as often: chi-square of mean 29, standard deviation 8."""
    net = layers(30, 60)
    masks = [RandomLayerwise(seed=s).prune(net, NoFit(), 30, None, 1) for s in range(300)]
    assert {tuple(kept(m)) for m in masks} == {(10, 20)}
    often = sum(m["0.weight"].flatten().double() for m in masks)
    chi2 = float(((often - 100) ** 2).sum() / (300 * 2 / 9))
    assert 29 - 4 * 8 < chi2 < 29 + 4 * 8 and often.min() > 60


# ---- like a ticket --------------------------------------------------------------------------------------------------

@pytest.fixture
def tickets(tmp_path):
    """Three nested tickets of one network, with very unequal layers, as a run leaves them."""
    folder = tmp_path / "run" / "tickets"
    folder.mkdir(parents=True)
    found = network(1)
    initial = save_state(folder / INITIAL, found.state_dict())
    scores = {n: w.abs() for n, w in prunable(found).items()}
    for r, count in enumerate((Mask.ones(found).total, 801, 333)):
        Ticket(keep_top(scores, count), {"initial": initial, "architecture": "the 6-channel one", "run": "found"}).save(
            folder / f"round_{r:02d}.safetensors")
    return tmp_path / "run"


def test_random_tickets_have_the_layers_of_the_found_ones_at_other_places(tickets):
    found, net = Replay(str(tickets)), network(2)
    pruner = RandomLike(str(tickets), seed=5)
    own = {n: v.clone() for n, v in net.state_dict().items()}
    pruner.prepare(net)
    assert all(torch.equal(v, own[n]) for n, v in net.state_dict().items())     # the run's own initial weights
    assert pruner.counts(net) == found.counts(net) == [Mask.ones(net).total, 801, 333]
    masks = [pruner.prune(net, NoFit(), c, None, r) for r, c in enumerate(pruner.counts(net))]
    assert nested(masks)
    for mask, like in zip(masks, found.masks, strict=True):
        assert kept(mask) == kept(like) and list(mask) == list(like)
    assert len({k / m.numel() for k, m in zip(kept(masks[2]), masks[2].values(), strict=True)}) > 3     # of all kinds
    both = sum(int((masks[2][n] & found.masks[2][n]).sum()) for n in masks[2])
    expected = sum(int(m.sum()) ** 2 / m.numel() for m in masks[2].values())
    assert abs(both - expected) < 4 * expected ** 0.5 and both < 333 - 4 * 333 ** 0.5
    other = RandomLike(str(tickets), seed=6)
    assert any(not torch.equal(m, masks[2][n]) for n, m in other.prune(net, NoFit(), 333, None, 2).items())


def test_one_ticket_file_is_one_round(tickets):
    pruner, net = RandomLike(str(tickets / "tickets/round_02.safetensors")), network(2)
    pruner.prepare(net)
    assert pruner.counts(net) == [333] and pruner.prune(net, NoFit(), 333, None, 0).count == 333


def test_random_tickets_tell_where_the_found_ones_lie(tickets):
    pruner = RandomLike(str(tickets))
    assert pruner.origins() == Replay(str(tickets)).origins()
    assert [o["found"]["run"] for o in pruner.origins()] == ["found"] * 3


def test_another_head_is_kept_whole_and_told(tickets):
    net, pruner = network(2, outputs=1), RandomLike(str(tickets))
    pruner.prepare(net)
    assert len(pruner.remarks) == 1 and "head.weight" in pruner.remarks[0]
    mask = pruner.prune(net, NoFit(), pruner.counts(net)[2], None, 2)
    assert mask["head.weight"].shape == (1, 6, 1, 1) and mask["head.weight"].all()
    assert mask.count == pruner.counts(net)[2]


def test_bad_options_of_random_like(tickets, tmp_path):
    refused(lambda: RandomLike(str(tickets)).prepare(network(2, channels=8)), "round_00.safetensors",
            "encoders.0.down.0.weight", "the prior it was found with: the 6-channel one")
    refused(lambda: RandomLike(str(tmp_path / "none")), "none", "no ticket")
    refused(lambda: RandomLike(str(tickets), seed=-1), "pruner.seed", "got -1")


def test_draws_are_the_same_on_every_device():
    """They are made on the CPU, in float32, whatever the weights are."""
    net = layers(30, 20)
    a, b = uniform(prunable(net), 3), uniform(prunable(net.double()), 3)
    assert all(torch.equal(a[n], b[n]) and a[n].dtype == torch.float32 for n in a)


@pytest.mark.parametrize("value", ["no", None, 1, "true"])
def test_doubled_is_true_or_false(value):
    with pytest.raises(InputError, match=f"pruner.doubled must be true or false, got {value!r}"):
        Random(doubled=value)


def test_a_single_ticket_that_nothing_like_it_can_replace_is_refused_before_the_fit(make, tmp_path):
    """Round 0 is the only one, and pruned."""
    module = make()
    mask = Mask.ones(module.prior.network)
    Ticket(Mask({n: m & (n != "head.weight") for n, m in mask.items()})).save(tmp_path / "round_03.safetensors")
    with pytest.raises(Ended, match="round 0, .* no path is left"):
        IterativePruning(RandomLike(str(tmp_path / "round_03.safetensors"))).prepare(module)


def test_how_far_doubled_masks_go_is_not_foretold(make):
    """Each follows from the one before, and masks drawn from all weights would tell of others."""
    module = make()
    pruning = IterativePruning(Random(doubled=True, rounds=12))
    pruning.prepare(module)
    assert pruning.remarks == []


def test_layers_that_are_not_empty_may_be_cut_off_too(make):
    """The head reads one channel, and what makes that channel is removed."""
    module = make()
    network = module.prior.network
    mask = {n: m.clone() for n, m in Mask.ones(network).items()}
    check_connected(network, Mask(mask), module.code_shape())
    mask["head.weight"][:, 1:] = False
    mask["decoders.1.mix.0.weight"][0] = False
    assert all(m.any() for m in mask.values())
    with pytest.raises(Degenerate, match="no path is left .*: the kept weights of the layers don't meet"):
        check_connected(network, Mask(mask), module.code_shape())
