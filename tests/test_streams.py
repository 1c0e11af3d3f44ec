"""Random streams: a draw follows from (seed, purpose, step) and from nothing else."""
import itertools

import pytest
import torch
from scipy import stats

from lipfw.streams import global_stream, stream, stream_seed


def draw(*key):
    return torch.rand(4, generator=stream(*key)).tolist()


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    expected = draw(3, "noise", 7)
    torch.manual_seed(99)
    torch.rand(1000)
    draw(3, "noise", 6)
    assert draw(3, "noise", 7) == expected


def test_every_part_of_the_key_counts():
    keys = list(itertools.product((0, 1, 11), ("noise", "mask", "code 1", "code 11"), (0, 1, 11)))
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)
    assert draw(5, "code") == draw(5, "code", 0)


def test_seed_0_is_a_seed():
    assert draw(0, "noise") == draw(0, "noise") != draw(1, "noise")


@pytest.mark.parametrize("seed", [0, 1, 2**40, -1])
def test_seeds_fit_a_signed_64_bit_integer(seed):
    assert all(0 <= stream_seed(seed, "noise", step) < 2**63 for step in range(50))


def test_streams_of_neighbouring_steps_are_independent_normal_draws():
    first = torch.stack([torch.empty(2).normal_(generator=stream(0, "jitter", s)) for s in range(2000)]).double()
    assert stats.kstest(first[:, 0].numpy(), "norm").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([first[:-1, 0], first[1:, 0]]))[0, 1]) < 4 / 2000**0.5


def test_global_stream_restores_the_global_generator_even_after_an_error():
    before = torch.random.get_rng_state()
    with pytest.raises(KeyError), global_stream(0, "weights"):
        torch.rand(10)
        raise KeyError
    assert torch.equal(torch.random.get_rng_state(), before)


def test_global_stream_depends_on_seed_and_purpose_alone():
    def layer(seed, purpose):
        with global_stream(seed, purpose):
            return torch.nn.Linear(3, 3).weight.tolist()

    expected = layer(0, "weights")
    torch.manual_seed(5)
    assert layer(0, "weights") == expected
    assert expected != layer(1, "weights") and expected != layer(0, "other")


def test_global_stream_gives_torchs_default_initialisation():
    with global_stream(0, "weights"):
        conv = torch.nn.Conv2d(20, 30, 3)
    bound = (20 * 9) ** -0.5
    weights = conv.weight.detach().flatten().double().numpy()
    assert abs(weights).max() <= bound
    assert stats.kstest(weights, stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3
