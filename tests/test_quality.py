"""The sliced Wasserstein distance: against scipy along each direction, and what it must and must not see."""
import pytest
import torch
from scipy.stats import wasserstein_distance

from lipfw.gan import quality
from lipfw.gan.quality import descriptors, enlarged, laplacian_pyramid, sliced_wasserstein, wasserstein
from lipfw.streams import stream

RNG = torch.Generator().manual_seed(0)


def pictures(n=24, side=32, channels=3, seed=0):
    """Smooth shapes with some noise, in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.interpolate(torch.randn(n, channels, 6, 6, generator=g), side, mode="bicubic")
    return (x / 3 + 0.05 * torch.randn(n, channels, side, side, generator=g)).clamp(-1, 1)


@pytest.mark.parametrize("at_once", [1, 100, 1 << 24])
def test_each_direction_is_scipys(at_once, monkeypatch):
    monkeypatch.setattr(quality, "AT_ONCE", at_once)
    a, b = torch.randn(50, 7, generator=RNG), torch.randn(50, 7, generator=RNG) * 2 + 1
    directions = torch.randn(7, 5, generator=RNG)
    found = wasserstein(a, b, directions)
    for k in range(5):
        expected = wasserstein_distance((a @ directions)[:, k].numpy(), (b @ directions)[:, k].numpy())
        assert found[k] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("side, levels", [(8, [8]), (16, [16]), (24, [24]), (32, [32, 16]), (33, [33]),
                                          (128, [128, 64, 32, 16])])
def test_the_pyramid_gives_the_picture_back(side, levels):
    x = torch.rand(2, 3, side, side, generator=RNG) * 2 - 1
    found = laplacian_pyramid(x)
    assert [level.shape[3] for level in found] == levels
    back = found[-1]
    for level in reversed(found[:-1]):
        back = enlarged(back) + level
    assert (back - x).abs().max() < 1e-6


def test_a_constant_has_no_detail_and_a_filter_is_separable():
    detail, rest = laplacian_pyramid(torch.full((1, 1, 32, 32), 0.3))
    assert detail.abs().max() < 1e-6 and (rest - 0.3).abs().max() < 1e-6
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 256
    row = torch.tensor([1., 4, 6, 4, 1])
    assert torch.equal(quality.blurred(dot)[0, 0, 2:7, 2:7], torch.outer(row, row))


def test_descriptors_are_patches_of_the_pictures():
    x = torch.arange(2 * 3 * 9 * 9, dtype=torch.float32).view(2, 3, 9, 9)
    found = descriptors(x, 5, stream(0, "test")).view(2, 5, 3, 7, 7)
    flat = found.transpose(0, 2).reshape(3, -1)
    assert flat.mean(1).abs().max() < 1e-5 and (flat.std(1, correction=0) - 1).abs().max() < 1e-5
    steps = found.diff(dim=4).flatten(), found.diff(dim=3).flatten() / 9       # a pixel to the right, a row down
    assert torch.cat(steps).std() < 1e-4 * torch.cat(steps).mean()


def test_nothing_between_a_set_and_itself():
    x = pictures()
    distance = sliced_wasserstein(x, x.clone())
    assert distance.levels == {32: 0, 16: 0} and distance.mean == 0


def test_it_is_symmetric_repeatable_and_the_mean_of_its_levels():
    a, b = pictures(), pictures(seed=1)
    d = sliced_wasserstein(a, b, 3)
    assert d == sliced_wasserstein(a, b, 3) != sliced_wasserstein(a, b, 4)
    assert d.mean == pytest.approx(sum(d.levels.values()) / 2)
    assert sliced_wasserstein(b, a, 3).mean == pytest.approx(d.mean, rel=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        before = torch.get_rng_state()
        sliced_wasserstein(a, b, 3)
        assert torch.equal(before, torch.get_rng_state())


def test_tint_and_contrast_of_a_whole_set_do_not_count():
    a, b = pictures(), pictures(seed=1)
    tint = torch.tensor([0.1, -0.2, 0.3]).view(1, 3, 1, 1)
    assert sliced_wasserstein(a, b * 0.5 + tint).mean == pytest.approx(sliced_wasserstein(a, b).mean, rel=1e-3)


@pytest.mark.parametrize("worse", [
    lambda x, s: x + s * torch.randn(x.shape, generator=torch.Generator().manual_seed(9)),
    lambda x, s: torch.lerp(x, quality.blurred(x), 2 * s),
    lambda x, s: torch.where(x < -1 + 4 * s, x.roll(1, 1), x)], ids=["noise", "blur", "colours"])
def test_it_grows_with_noise_blur_and_wrong_colours(worse):
    real, made = pictures(64), pictures(64, seed=1)
    found = [sliced_wasserstein(real, worse(made, s)).mean for s in (0, 0.1, 0.3)]
    assert found[0] < found[1] < found[2]


def test_fine_detail_is_told_from_coarse():
    real, made = pictures(64), pictures(64, seed=1)
    noise = 0.1 * torch.randn(made.shape, generator=RNG)
    good, noisy = (sliced_wasserstein(real, m).levels for m in (made, made + noise))
    assert noisy[32] - good[32] > 5 * abs(noisy[16] - good[16])


@pytest.mark.parametrize("side, channels", [(8, 3), (16, 1), (64, 1)])
def test_other_sizes_and_grey(side, channels):
    a, b = pictures(6, side, channels), pictures(6, side, channels, seed=1)
    assert sliced_wasserstein(a, b).mean > 0


def test_constant_pictures_give_a_number():
    assert sliced_wasserstein(torch.zeros(4, 3, 32, 32), pictures(4)).mean > 0


@pytest.mark.parametrize("words, a, b", [
    (r"\(4, 3, 32, 32\) and \(5, 3, 32, 32\)", pictures(4), pictures(5)),
    ("equally many", pictures(4)[:, :, :30], pictures(4)[:, :, :30]),
    ("equally many", pictures(4)[:0], pictures(4)[:0]),
    ("at least 7 pixels a side, got 4", torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)),
    ("float32.*uint8", pictures(2), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))])
def test_other_sets_are_refused(words, a, b):
    with pytest.raises(ValueError, match=words):
        sliced_wasserstein(a, b)
