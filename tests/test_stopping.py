"""Stopping rules against brute force over all outputs."""
import numpy as np
import pytest
import torch

from lipfw.fit.stopping import MovingVariance, WindowedVariance, last_before_rises, rises


def outputs(steps, n=7, seed=0, scale=None):
    """A sequence of outputs whose spread changes, so that the least variance moves."""
    rng = np.random.default_rng(seed)
    spread = 0.05 + rng.random((steps, 1)) if scale is None else np.asarray(scale)[:, None]
    return (0.5 + 0.1 * spread * rng.standard_normal((steps, n))).astype(np.float32)


def brute(x, window, patience):
    """Return WMV_t for t = 1, 2, ... (NaN until the window is full) and the pick after each step."""
    variance, picks, least, best = [], [], np.inf, None
    for t in range(1, len(x) + 1):
        v = np.var(x[t - window:t].astype(np.float64), axis=0).sum() / x.shape[1] if t >= window else np.nan
        variance.append(v)
        if t < window:
            picks.append(t)
            continue
        stands = best is not None and t - best > patience     # best + 1 ... best + patience brought nothing better
        if v < least and not stands:
            least, best = v, t
        picks.append(best)
    return np.array(variance), picks


def run(rule, x, first=1):
    """Return the variances, the picks, and the steps at which the rule said "this one"."""
    variance, picks, said = [], [], []
    for t, value in enumerate(x, first):
        better = rule.update([torch.from_numpy(value)], torch.tensor(t))
        assert better.shape == () and better.dtype == torch.bool
        variance.append(float(rule.variance))
        picks.append(int(rule.step))
        said += [t] * bool(better)
    return np.array(variance), picks, said


@pytest.mark.parametrize("window", [2, 5, 13])
@pytest.mark.parametrize("patience", [1, 4, 1000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_windowed_variance_and_its_pick(window, patience, seed):
    x = outputs(60, seed=seed)
    variance, picks, said = run(WindowedVariance(7, window, patience), x)
    expected, expected_picks = brute(x, window, patience)
    np.testing.assert_allclose(variance, expected, rtol=1e-9, atol=1e-12)
    assert picks == expected_picks
    assert said == [t for t in range(1, 61) if picks[t - 1] == t]


@pytest.mark.parametrize("late, taken", [(29, True), (30, True), (31, False), (50, False)])
def test_the_pick_stands_after_patience_steps_without_a_new_minimum(late, taken):
    """The minimum lies at step 20 and patience is 10: steps 21 to 30 may still bring a lower one."""
    scale = np.ones(60)
    scale[:20], scale[late - 2:late] = np.linspace(1, 0.1, 20), 1e-6
    x = 0.5 + scale[:, None] * np.where(np.arange(60) % 2, 0.1, -0.1)[:, None] * np.ones((1, 7))
    rule = WindowedVariance(7, window=2, patience=10)
    variance, picks, _ = run(rule, x.astype(np.float32))
    assert np.nanargmin(variance[:21]) == 19 and variance[late - 1] < variance[19]
    assert picks[-1] == (late if taken else 20)


def test_until_the_window_is_full_the_latest_step_is_picked():
    variance, picks, said = run(WindowedVariance(7, window=10), outputs(9))
    assert np.isnan(variance).all() and picks == said == list(range(1, 10))


def test_a_constant_output_has_no_variance():
    variance, picks, _ = run(WindowedVariance(7, window=4), np.full((20, 7), 0.3, np.float32))
    assert abs(variance[3:]).max() < 1e-15
    assert picks[3] == 4


def test_long_runs_lose_no_precision():
    x = outputs(1200, n=3, scale=np.geomspace(1, 1e-4, 1200))
    variance, _, _ = run(WindowedVariance(3, window=50), x)
    expected, _ = brute(x, 50, 1000)
    np.testing.assert_allclose(variance[49:], expected[49:], rtol=1e-5)


def test_several_outputs_are_watched_together():
    x = outputs(20, n=12)
    rule = WindowedVariance(12, window=4)
    for t, value in enumerate(x, 1):
        value = torch.from_numpy(value)
        rule.update([value[:4].view(1, 1, 2, 2), value[4:].view(1, 2, 2, 2)], torch.tensor(t))
    expected, picks = brute(x, 4, 1000)
    assert float(rule.variance) == pytest.approx(expected[-1], rel=1e-9) and int(rule.step) == picks[-1]


@pytest.mark.parametrize("n", [65_536, 65_537, 200_001])
def test_large_pictures_are_thinned(n):
    x = np.random.default_rng(0).random((6, n), np.float32)
    rule = WindowedVariance(n, window=3)
    variance, _, _ = run(rule, x)
    assert rule.outputs.shape[1] <= 65_536 and rule.outputs.shape[1] > 65_536 / 2
    expected, _ = brute(x, 3, 1000)
    assert variance[-1] == pytest.approx(expected[-1], rel=0.02)
    watched = brute(x[:, ::-(-n // 65_536)], 3, 1000)[0]
    np.testing.assert_allclose(variance, watched, rtol=1e-9)


def test_the_default_window_takes_26_mb_at_most():
    rule = WindowedVariance(3 * 512 * 768)
    assert sum(b.numel() * b.element_size() for b in rule.buffers()) < 27e6


@pytest.mark.parametrize("stop", [3, 8, 23, 45])
def test_state_is_taken_up_in_the_middle(stop):
    x = outputs(60)
    whole = WindowedVariance(7, 5, 12)
    variance, picks, said = run(whole, x)
    first, second = WindowedVariance(7, 5, 12), WindowedVariance(7, 5, 12)
    a = run(first, x[:stop])
    second.load_state_dict(first.state_dict())
    b = run(second, x[stop:], stop + 1)
    np.testing.assert_array_equal(np.concatenate([a[0], b[0]]), variance)
    assert a[1] + b[1] == picks and a[2] + b[2] == said


@pytest.mark.parametrize("before", [3, 40])
def test_reset_forgets_everything(before):
    x, rule = outputs(60), WindowedVariance(7, 5, 12)
    run(rule, 0.01 + 0 * x[:before])
    rule.reset()
    for found, expected in zip(run(rule, x), run(WindowedVariance(7, 5, 12), x), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("losses, patience, last", [
    ([1.0], 2, 0),
    ([3.0, 2.0, 1.0], 2, 2),
    ([1.0, 2.0], 2, 1),                        # one rise is not two
    ([1.0, 2.0, 3.0], 2, 0),
    ([3.0, 2.0, 2.5, 2.6, 1.0], 2, 1),         # what comes after is not looked at
    ([3.0, 4.0, 2.0, 3.0, 2.5, 2.6], 2, 5),    # rises that are not in a row
    ([1.0, 1.0, 1.0], 2, 2),                   # equal is no rise
    ([1.0, 2.0, 2.0, 3.0], 2, 3),
    ([1.0, 2.0, 3.0, 4.0], 3, 0),
    ([2.0, 1.0, 2.0, 3.0, 2.9, 3.0, 3.1, 3.2], 3, 4),
    ([2.0, 1.0, 2.0], 1, 1),
])
def test_the_last_round_before_the_loss_rises(losses, patience, last):
    assert last_before_rises(losses, patience) == last


@pytest.mark.parametrize("losses, count", [([], 0), ([1.0], 0), ([1.0, 2.0], 1), ([3.0, 1.0, 2.0, 3.0], 2),
                                           ([1.0, 2.0, 3.0, 3.0], 0), ([1.0, 2.0, 1.5, 1.6], 1)])
def test_rises_in_a_row(losses, count):
    assert rises(losses) == count


def moving(x, patience, rate=0.1, first=100):
    """Return V_t (NaN before step `first`), the picks and E at the last pick, in plain numpy (facts, section 5)."""
    mean, v, variance, picks, least, best, answer = x[0].astype(float), 0.0, [], [], np.inf, None, None
    for t, value in enumerate(x.astype(float), 1):
        delta = value - mean
        mean = np.clip(mean + rate * delta, 0, 1)
        v = (1 - rate) * (v + rate * (delta**2).mean())
        variance.append(v if t >= first else np.nan)
        if t < first:
            picks.append(t)
            continue
        if v < least and not (best is not None and t - best > patience):
            least, best, answer = v, t, mean
        picks.append(best)
    return np.array(variance), picks, answer


@pytest.mark.parametrize("patience", [3, 30, 1000])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_moving_variance_and_its_pick(patience, seed):
    x = outputs(220, seed=seed, scale=1 + np.sin(np.arange(220) / 30 + seed)).reshape(220, 7)
    rule = MovingVariance([(1, 1, 7)], patience)
    variance, picks, kept = [], [], None
    for t, value in enumerate(x, 1):
        if rule.update([torch.from_numpy(value).view(1, 1, 1, 7)], torch.tensor(t)):
            kept = rule.pictures([])[0].clone()
        variance.append(float(rule.variance))
        picks.append(int(rule.step))
    expected, expected_picks, answer = moving(x, patience)
    np.testing.assert_allclose(variance, expected, rtol=1e-4)
    assert picks == expected_picks
    np.testing.assert_allclose(kept.flatten().numpy(), answer, atol=1e-6)


def test_the_moving_average_is_clipped_and_reset():
    rule = MovingVariance([(1, 1, 2), (1, 1, 1)])
    for _ in range(2):      # the second time after a reset: the same
        rule.reset()
        for t, value in enumerate((0.2, 30.0, 0.5), 1):
            rule.update([torch.full((1, 1, 1, 2), value), torch.full((1, 1, 1, 1), -value)], torch.tensor(t))
        assert [float(p.mean()) for p in rule.pictures([])] == pytest.approx([0.95, 0.0])


@pytest.mark.parametrize("patience", [1, 7])
def test_a_pick_is_over_once_nothing_later_can_be_picked(patience):
    scale = np.ones(40)
    scale[:12] = np.linspace(1, 0.1, 12)
    x = (0.5 + scale[:, None] * np.where(np.arange(40) % 2, 0.1, -0.1)[:, None] * np.ones((1, 7))).astype(np.float32)
    rule, over = WindowedVariance(7, window=2, patience=patience), []
    for t, value in enumerate(x, 1):
        rule.update([torch.from_numpy(value)], torch.tensor(t))
        over.append(bool(rule.over(torch.tensor(t))))
    assert over == [t >= 12 + patience for t in range(1, 41)]
