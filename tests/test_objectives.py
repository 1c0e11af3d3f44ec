"""Objectives on residuals: against the published pseudo-code, picture by picture, and what they are for."""
import numpy as np
import pytest
import torch

from lipfw.errors import InputError
from lipfw.fit.objectives import (
    bucket_means,
    buckets,
    fourth_power,
    least_squares,
    median_of_means,
    permutation,
    robust_loss,
)
from lipfw.image.picture import Picture
from lipfw.task.cs import CompressedSensing

M, N, B = 107, 40, 3    # measurements that buckets do not divide, values, pictures


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def published(a, y, f, g, order, bucket):
    """The median-of-means value of one picture as in the pseudo-code: the rows of A and y are permuted literally."""
    a, y = a[order], y[order]
    rf, rg = (a @ f - y) ** 2, (a @ g - y) ** 2
    count = len(y) // bucket
    means = [(rf - rg)[i * bucket:(i + 1) * bucket].mean().item() for i in range(count)]
    k = np.argsort(means, kind="stable")[count // 2]
    return (rf[k * bucket:(k + 1) * bucket] - rg[k * bucket:(k + 1) * bucket]).mean()


@pytest.mark.parametrize("bucket", [1, 2, 5, 20, 35])
def test_median_of_means_is_the_published_one_with_its_gradient(bucket):
    a, y = draw(M, N), draw(B, M, seed=1)
    f, g = draw(B, N, seed=2).requires_grad_(), draw(B, N, seed=3).requires_grad_()
    order = permutation(0, 4, M, 1)
    value = median_of_means((f @ a.T - y) ** 2, (g @ a.T - y) ** 2, order, bucket)
    expected = torch.stack([published(a, *row, order, bucket) for row in zip(y, f, g, strict=True)])
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    assert value.shape == (B,)
    have, want = (torch.autograd.grad(v.sum(), (f, g)) for v in (value, expected))
    torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)


def test_of_50_buckets_the_one_of_index_25_is_taken():
    means = torch.arange(50.).flip(0)
    values = means.repeat_interleave(20)
    assert median_of_means(values, torch.zeros(1000), torch.arange(1000), 20) == 25
    assert robust_loss(values, torch.arange(1000), 20) == 25


def test_restarts_are_rows_of_their_own():
    r, s = draw(B, 4, M).square(), draw(B, 4, M, seed=5).square()
    order = permutation(0, 0, M, 0)
    value = median_of_means(r, s, order, 10)
    assert value.shape == (B, 4)
    for i in range(B):
        torch.testing.assert_close(value[i], median_of_means(r[i], s[i], order, 10))
    shared = median_of_means(r, s[:, :1], order, 10)       # one opponent for all restarts
    torch.testing.assert_close(shared, median_of_means(r, s[:, :1].expand_as(r), order, 10))
    torch.testing.assert_close(robust_loss(r, order, 10)[2, 1], robust_loss(r[2, 1], order, 10))


def test_equal_buckets_give_one_gradient():
    """Both players at the same point, as at a start from one code: all buckets are zero, and one of them is taken."""
    r = draw(B, 100).square().requires_grad_()
    value = median_of_means(r, r.detach(), torch.arange(100), 20)
    value.sum().backward()
    assert not value.any() and torch.equal(r.grad != 0, (torch.arange(100) // 20 == 2).expand(B, -1))


def test_bucket_means_cut_what_is_over():
    values = torch.arange(11.)
    assert bucket_means(values, torch.arange(11).flip(0), 3).tolist() == [9, 6, 3]
    assert bucket_means(values[None, None], torch.arange(11), 3).shape == (1, 1, 3)


@pytest.mark.parametrize("m, size, count", [(1000, 20, 50), (1000, 333, 3), (107, 10, 10), (3, 1, 3)])
def test_number_of_buckets(m, size, count):
    assert buckets(m, size) == count


@pytest.mark.parametrize("m, size, words", [
    (1000, 334, ("fit.bucket=334", "2 buckets of 1000", "fit.bucket=333 or less")),
    (2, 1, ("fit.bucket=1", "2 buckets of 2", "more measurements")),
    (1000, 0, ("fit.bucket", "at least 1", "0")),
    (1000, 2.5, ("fit.bucket", "whole number", "2.5")),
])
def test_too_few_buckets(m, size, words):
    with pytest.raises(InputError) as error:
        buckets(m, size)
    assert "\n" not in str(error.value) and all(w in str(error.value) for w in words)


def test_permutations_differ_by_seed_step_and_player_alone():
    drawn = {(s, t, h): tuple(permutation(s, t, 50, h).tolist()) for s in (0, 1) for t in (0, 1, 2) for h in (0, 1)}
    assert len(set(drawn.values())) == len(drawn)
    torch.manual_seed(8)
    for (s, t, h), order in drawn.items():
        assert sorted(order) == list(range(50)) and order == tuple(permutation(s, t, 50, h).tolist())


def test_least_squares_is_the_mean_of_each_picture():
    r = draw(B, 2, 5, 7)
    torch.testing.assert_close(least_squares(r), torch.stack([(x ** 2).mean() for x in r]))


def test_the_fourth_power_has_the_published_gradient():
    """The published code calls backward on the unreduced e^2 with e^2 as the seed."""
    e = draw(B, 2, 5, 7).requires_grad_()
    square = e ** 2
    want, = torch.autograd.grad(square, e, square.detach())
    have, = torch.autograd.grad(fourth_power(e).sum() * e[0].numel(), e)
    torch.testing.assert_close(have, want)
    assert fourth_power(e).shape == (B,)


def test_20_outliers_of_10000_leave_the_robust_loss_at_the_clean_scale():
    x = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    problem = CompressedSensing(1000, 20)(Picture("x", x))
    guess = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    r2 = (problem.operator(guess) - problem.measurement).square()
    clean = r2[:, ~torch.isin(torch.arange(1000), CompressedSensing(1000, 20).bad)].mean()
    for step in range(20):
        assert 0.6 < robust_loss(r2, permutation(0, step, 1000, 0), 20) / clean < 2.5
    assert r2.mean() > 1e5 * clean
