"""Scores against scikit-image."""
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lipfw.fit.evaluation import luma, psnr, scored, ssim
from lipfw.problem import Problem
from lipfw.task.operators import Identity

SIZES = [(37, 31), (16, 64), (11, 11)]


def pair(channels, size, noise=0.1, seed=0):
    """A smooth clean picture and a noisy one, (1, C, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size[0], :size[1]] / 12
    clean = np.stack([0.5 + 0.4 * np.sin(x * (c + 1)) * np.cos(y) for c in range(channels)])
    noisy = np.clip(clean + noise * rng.standard_normal(clean.shape), 0, 1)
    return torch.from_numpy(clean[None]).float(), torch.from_numpy(noisy[None]).float()


def problem(x, **options):
    return Problem("x", tuple(x.shape[1:]), Identity(), x, x, **options)


def array(x):
    return x[0].double().numpy()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (3, 200)])
@pytest.mark.parametrize("noise", [0.3, 0.1, 1e-3])
def test_psnr_is_scikit_images(channels, size, noise):
    x, y = pair(channels, size, noise)
    expected = peak_signal_noise_ratio(array(x), array(y), data_range=1)
    assert float(psnr(problem(x), y)) == pytest.approx(expected, abs=1e-3)


def ssim_by_definition(a, b):
    """Wang et al. with scipy's Gaussian (sigma 1.5, 11 taps), over all pixels whose window is whole."""
    def blur(v):
        return ndimage.gaussian_filter(v, (0, 1.5, 1.5), mode="mirror", truncate=3.5)

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    each = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    return each[..., 5:-5, 5:-5].mean()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("noise", [0.3, 0.1, 1e-2])
def test_ssim_is_its_definition(channels, size, noise):
    """float32 cancels in E[x^2] - m^2: about 1e-7 against the constant 9e-4, so 1e-4 in flat regions."""
    x, y = pair(channels, size, noise)
    assert float(ssim(problem(x), y)) == pytest.approx(ssim_by_definition(array(x), array(y)), abs=2e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.1, 1e-2])
@pytest.mark.parametrize("size", [(256, 256), (37, 31)])
def test_ssim_is_scikit_images(channels, noise, size):
    x, y = pair(channels, size, noise)
    expected = structural_similarity(array(x), array(y), data_range=1, channel_axis=0, gaussian_weights=True,
                                     sigma=1.5, use_sample_covariance=False)
    assert float(ssim(problem(x), y)) == pytest.approx(expected, abs=1e-4)


def test_luma_is_the_standards():
    x, _ = pair(3, (37, 31))
    expected = rgb2ycbcr(array(x), channel_axis=0)[0] / 255
    np.testing.assert_allclose(luma(x)[0, 0].numpy(), expected, rtol=0, atol=1e-6)
    ends = luma(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)) * 255
    assert ends.flatten().tolist() == pytest.approx([16, 235], abs=1e-4)
    grey = x[:, :1]
    assert torch.equal(luma(grey), grey)


def test_luma_adds_1_32_db_to_full_range_luma():
    x, y = pair(3, (37, 31))
    full = [np.tensordot([0.299, 0.587, 0.114], array(v), 1) for v in (x, y)]
    gain = float(psnr(problem(x, luma=True), y)) - peak_signal_noise_ratio(*full, data_range=1)
    assert gain == pytest.approx(1.32, abs=5e-3)


@pytest.mark.parametrize("use_luma", [False, True])
@pytest.mark.parametrize("border", [1, 4])
def test_the_border_is_left_out(use_luma, border):
    x, y = pair(3, (37, 31))
    inside = (slice(None), slice(None), slice(border, 37 - border), slice(border, 31 - border))
    cropped = problem(x[inside], luma=use_luma)
    whole = problem(x, luma=use_luma, border=border)
    noise = y.clone()
    noise[inside] = x[inside]
    assert scored(whole, y).shape == (1, 1 if use_luma else 3, 37 - 2 * border, 31 - 2 * border)
    for score in (psnr, ssim):
        assert float(score(whole, y)) == float(score(cropped, y[inside]))
    assert float(psnr(whole, noise)) == float("inf") and float(ssim(whole, noise)) == pytest.approx(1, abs=1e-6)


def test_no_border_is_the_whole_picture():
    x, y = pair(3, (12, 14))
    assert torch.equal(scored(problem(x), y), y)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_there_is_no_score_without_a_clean_picture(score):
    x, y = pair(3, (37, 31))
    value = score(Problem("x", (3, 37, 31), Identity(), x), y)
    assert value.shape == () and value.isnan()


@pytest.mark.parametrize("size, border", [((10, 40), 0), ((40, 10), 0), ((18, 40), 4), ((1, 1), 0)])
def test_tiny_pictures_have_a_psnr_and_no_ssim(size, border):
    x, y = pair(3, size)
    assert ssim(problem(x, border=border), y).isnan() and psnr(problem(x, border=border), y).isfinite()


def test_the_smallest_picture_with_an_ssim():
    x, y = pair(3, (19, 40))
    assert ssim(problem(x, border=4), y).isfinite()
