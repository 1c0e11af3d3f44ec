"""Pruners: the published ladder, magnitudes, and replayed tickets."""
import pytest
import torch
from torch import nn

from lipfw.errors import InputError
from lipfw.mask import Mask, keep_top, prunable
from lipfw.prior.skip import Skip
from lipfw.pruner.imp import IMP
from lipfw.pruner.none import Dense
from lipfw.pruner.pruner import Pruner, Schedule
from lipfw.pruner.ticket import Replay
from lipfw.ticket import Ticket, save_initial

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


def loss():
    raise AssertionError("this pruner has no use for the loss")


# ---- schedules and magnitudes -----------------------------------------------------------------------------------

def test_the_ladder_is_the_published_one():
    schedule = IMP(rounds=25, rate=0.2).schedule
    assert schedule.counts(2_208_768) == LADDER and schedule.rounds == 26
    nominal = [1 - 0.8**i for i in range(26)]
    assert [1 - d for d in schedule.densities] == pytest.approx(nominal, abs=1e-12)


def test_a_schedule_without_a_rate_rounds_each_density():
    schedule = Schedule([1.0, 0.5, 0.4128, 100_224 / 2_208_768])
    assert schedule.counts(2_208_768) == [2_208_768, 1_104_384, 911_779, 100_224]
    assert schedule.counts(1) == [1, 0, 0, 0]


def test_dense_is_one_fit_of_everything():
    assert Dense().schedule.counts(17) == [17] and Dense().schedule.rewind_step == 0
    with pytest.raises(TypeError, match="Pruner has no score"):
        Pruner().score(nn.Identity(), loss)


def test_imp_scores_magnitudes_of_trained_weights():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    scores = IMP().score(network, loss)
    assert list(scores) == ["0.weight", "2.weight"] and IMP().scores_trained
    for name, score in scores.items():
        w = network.get_parameter(name)
        assert torch.equal(score, torch.where(w < 0, -w, w)) and not score.requires_grad


def test_imp_keeps_the_largest_of_what_was_left():
    network = nn.Conv1d(1, 8, 1, bias=False)
    within = Mask({"weight": torch.tensor([True] * 4 + [False] * 4).view(8, 1, 1)})
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1.0, -4, 0, 3, 9, 9, 9, 9]).view(8, 1, 1))
    mask = IMP().prune(network, loss, 2, within, 1)
    assert mask["weight"].flatten().tolist() == [False, True, False, True, False, False, False, False]


@pytest.mark.parametrize("rounds, rate, rewind_step", [(0, 0.2, 0), (3, 0.5, 7), (1, 1e-6, 0)])
def test_good_options_of_imp(rounds, rate, rewind_step):
    schedule = IMP(rounds, rate, rewind_step).schedule
    assert (schedule.rounds, schedule.rate, schedule.rewind_step) == (rounds + 1, rate, rewind_step)


@pytest.mark.parametrize("rate, words", [
    (20, ("did you mean 0.2?",)), (20.0, ("did you mean 0.2?",)), (12.5, ("did you mean 0.125?",)),
    (0, ()), (1, ()), (-1, ()), (True, ()), ("a", ()), (None, ()), (float("nan"), ())])
def test_bad_rates(rate, words):
    refused(lambda: IMP(rate=rate), "pruner.rate", "(0, 1)", f"got {rate!r}", *words)


@pytest.mark.parametrize("rate", [0, -1, True, "a"])
def test_no_rate_is_proposed_for_what_is_no_percentage(rate):
    with pytest.raises(InputError) as error:
        IMP(rate=rate)
    assert "did you mean" not in str(error.value)


@pytest.mark.parametrize("name", ["rounds", "rewind_step"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", True])
def test_bad_counts(name, value):
    refused(lambda: IMP(**{name: value}), f"pruner.{name}", "at least 0", f"got {value!r}")


# ---- replay -----------------------------------------------------------------------------------------------------

def network(seed, **options):
    torch.manual_seed(seed)
    return Skip(**{"inputs": 4, "channels": 6, "depth": 2, "skip": 2, **options})


@pytest.fixture
def run(tmp_path):
    """A run folder with three tickets of one network."""
    tickets = tmp_path / "run" / "tickets"
    tickets.mkdir(parents=True)
    found = network(1)
    initial = save_initial(tickets, found.state_dict())
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
    assert pruner.schedule.counts(Mask.ones(net).total) == counts and not pruner.scores_trained
    expected = {n: w.abs() for n, w in prunable(network(1)).items()}
    for round_, count in enumerate(counts):
        mask = pruner.prune(net, loss, count, None, round_)
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
    ({"outputs": 1}, ("head.weight", "(1, 6, 1, 1)", "(3, 6, 1, 1)")),
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
