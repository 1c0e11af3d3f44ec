"""Tasks: linear operators against scipy, PIL and the published formula; degradations against their statistics."""
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import nn

from lipfw.errors import InputError
from lipfw.image.picture import Picture
from lipfw.task.clean import Clean
from lipfw.task.denoise import Denoise
from lipfw.task.inpaint import Inpaint
from lipfw.task.operators import Downsample, Hide, Identity, lanczos2
from lipfw.task.superres import SuperRes

H, W = 37, 31   # odd and unequal, so that swapped axes show


def picture(height=H, width=W, channels=3, name="x", degraded=False, seed=0):
    pixels = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return Picture(name, pixels, degraded=degraded)


def flat(value, height=H, width=W, name="x"):
    return Picture(name, torch.full((1, 3, height, width), value))


def refused(call, *words):
    """Assert that `call` raises InputError in one line that holds the words."""
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# ---- operators --------------------------------------------------------------------------------------------------

def operators():
    g = torch.Generator().manual_seed(1)
    yield "identity", Identity(), (H, W)
    yield "hide", Hide((torch.rand(1, 1, H, W, generator=g) > 0.5).float()), (H, W)
    yield "hide by channel", Hide((torch.rand(1, 3, H, W, generator=g) > 0.5).float()), (H, W)
    for t, (h, w) in itertools.product((2, 3, 4, 5, 8), ((1, 3), (7, 5))):
        yield f"down {t}, {h * t}x{w * t}", Downsample(t, h * t, w * t), (h * t, w * t)


OPERATORS = [pytest.param(a.double(), size, id=name) for name, a, size in operators()]


@pytest.mark.parametrize("operator, size", OPERATORS)
def test_operators_are_linear(operator, size):
    x, y = torch.randn(2, 1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(operator(2 * x - 3 * y), 2 * operator(x) - 3 * operator(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("operator, size", OPERATORS)
def test_gradients_are_the_adjoint(operator, size):
    g = torch.Generator().manual_seed(3)
    x, elsewhere = torch.randn(2, 1, 3, *size, dtype=torch.float64, generator=g)
    y = torch.randn(operator(x).shape, dtype=torch.float64, generator=g)
    elsewhere.requires_grad_()
    adjoint, = torch.autograd.grad((operator(elsewhere) * y).sum(), elsewhere)
    torch.testing.assert_close((operator(x) * y).sum(), (x * adjoint).sum(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operator, size", OPERATORS)
def test_a_measurement_can_be_shown_at_the_pictures_size(operator, size):
    y = operator(torch.rand(1, 3, *size, dtype=torch.float64))
    view = operator.view(y)
    assert view.shape == (1, 3, *size) and view.min() >= 0 and view.max() <= 1


@pytest.mark.parametrize("t", [4, 8])
def test_lanczos_taps_are_the_published_formula(t):
    d = np.abs(np.arange(1, 4 * t + 1) + 0.5 - (4 * t + 2) / 2) / t
    w = 2 * np.sin(np.pi * d) * np.sin(np.pi * d / 2) / (np.pi * d) ** 2
    assert len(w) == {4: 16, 8: 32}[t]
    np.testing.assert_allclose(lanczos2(t).numpy(), w / w.sum(), rtol=1e-12)


@pytest.mark.parametrize("t", [2, 3, 4, 5, 8])
def test_lanczos_taps_are_symmetric_and_sum_to_1(t):
    w = lanczos2(t)
    torch.testing.assert_close(w, w.flip(0), rtol=0, atol=1e-15)
    assert abs(float(w.sum()) - 1) < 1e-15 and w.argmax() in (len(w) // 2, len(w) // 2 - 1)


@pytest.mark.parametrize("t", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("h, w", [(1, 2), (2, 1), (7, 5)])
def test_downsample_is_scipys_correlation_at_every_factor(t, h, w):
    x = picture(h * t, w * t).pixels
    expected = x[0].double().numpy()
    for axis in (1, 2):
        expected = ndimage.correlate1d(expected, lanczos2(t).numpy(), axis, mode="nearest")
    expected = expected[:, t // 2::t, t // 2::t]      # the middle tap lies on the block's centre or right after it
    np.testing.assert_allclose(Downsample(t, h * t, w * t)(x)[0].numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t, padding", [(4, 6), (8, 12)])
def test_downsample_is_the_published_strided_convolution(t, padding):
    x = picture(5 * t, 3 * t).pixels
    kernel = torch.outer(lanczos2(t), lanczos2(t)).float().expand(3, 1, -1, -1)
    padded = nn.functional.pad(x, 4 * (padding,), mode="replicate")
    expected = nn.functional.conv2d(padded, kernel, stride=t, groups=3)
    torch.testing.assert_close(Downsample(t, 5 * t, 3 * t)(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [2, 3, 4, 5, 8])
def test_downsample_keeps_constants_and_does_not_shift(t):
    h, w = 12 * t, 10 * t
    operator = Downsample(t, h, w).double()
    rows = torch.arange(h, dtype=torch.float64).view(1, 1, -1, 1).expand(1, 1, h, w)
    columns = torch.arange(w, dtype=torch.float64).expand(1, 1, h, w)
    torch.testing.assert_close(operator(torch.ones_like(rows)), torch.ones(1, 1, 12, 10, dtype=torch.float64),
                               rtol=0, atol=1e-6)
    centre = t * torch.arange(12, dtype=torch.float64) + (t - 1) / 2
    for line in (operator(rows)[0, 0, :, 5], operator(columns)[0, 0, 5]):
        inside = slice(2, len(line) - 2)
        torch.testing.assert_close(line[inside], centre[:len(line)][inside], rtol=0, atol=1e-4)


@pytest.mark.parametrize("h, w", [(9, 8), (8, 9)])
def test_downsample_refuses_sizes_that_the_factor_does_not_divide(h, w):
    with pytest.raises(ValueError, match=f"{w}x{h} is not a multiple of 4"):
        Downsample(4, h, w)


def test_operators_leave_nothing_in_checkpoints():
    assert not Downsample(2, 4, 4).state_dict() and not Hide(torch.ones(1, 1, 2, 2)).state_dict()


# ---- clean and denoise ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", [Clean(), Denoise(0)])
def test_nothing_is_changed_without_noise(task):
    p = picture()
    problem = task(p)
    assert torch.equal(problem.measurement, p.pixels) and torch.equal(problem.image, p.pixels)
    assert torch.equal(problem.operator(p.pixels), p.pixels)
    assert (problem.name, problem.shape, problem.luma, problem.border) == ("x", (3, H, W), False, 0)


def test_the_targets_that_tell_how_a_network_resists_noise():
    p = picture()
    noisy, shuffled, white = (Clean(t, seed=4)(p) for t in ("noisy", "shuffled", "white"))
    assert torch.equal(noisy.measurement, Denoise(25, 4)(p).measurement) and torch.equal(noisy.image, p.pixels)
    colours, there = ({tuple(c) for c in x[0].flatten(1).T.tolist()} for x in (p.pixels, shuffled.measurement))
    assert colours == there and not torch.equal(shuffled.measurement, p.pixels)     # whole pixels move
    big = Clean("white", seed=4)(flat(0.3, 100, 100)).measurement
    assert stats.kstest(big.double().flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(big[0].flatten(1).numpy())[0, 1]) < 0.05
    for problem in (shuffled, white):
        assert torch.equal(problem.image, problem.measurement) and problem.measurement.shape == p.pixels.shape
    for target in ("noisy", "shuffled", "white"):
        assert torch.equal(Clean(target, 4)(p).measurement, Clean(target, 4)(p).measurement)
        assert not torch.equal(Clean(target, 4)(p).measurement, Clean(target, 5)(p).measurement)
    assert Clean("white")(picture(degraded=True)).image is None
    with pytest.raises(InputError, match="task.target=noisy adds noise"):
        Clean("noisy")(picture(degraded=True))
    with pytest.raises(InputError, match="task.target must be one of clean, noisy, shuffled, white"):
        Clean("nosy")


@pytest.mark.parametrize("task", [Clean(), Denoise(25)])
def test_a_degraded_picture_is_taken_as_it_is(task):
    p = picture(degraded=True)
    problem = task(p)
    assert torch.equal(problem.measurement, p.pixels) and problem.image is None


@pytest.mark.parametrize("sigma", [5, 25])
def test_noise_has_the_given_deviation_in_grey_levels(sigma):
    p = flat(0.5, 160, 170)
    noise = ((Denoise(sigma)(p).measurement - p.pixels).double() * 255).flatten()
    n = len(noise)
    assert abs(noise.mean()) < 4 * sigma / n**0.5
    assert abs(noise.std() / sigma - 1) < 4 / (2 * n) ** 0.5
    assert stats.kstest(noise[:20_000].numpy() / sigma, "norm").pvalue > 1e-3


def test_channels_have_their_own_noise():
    noise = Denoise(25)(flat(0.5, 100, 100)).measurement[0].flatten(1) - 0.5
    assert (torch.corrcoef(noise) - torch.eye(3)).abs().max() < 4 / 100


def test_noisy_pictures_are_clipped_and_not_quantised():
    noisy = Denoise(25)(flat(1.0, 100, 100)).measurement
    assert noisy.max() == 1 and 0.48 < (noisy == 1).float().mean() < 0.52
    assert Denoise(25)(flat(0.0)).measurement.min() == 0
    assert noisy.unique().numel() > 10_000


def test_noise_depends_on_seed_and_name_alone():
    def noise(seed=0, name="x", value=0.5):
        return Denoise(10, seed)(flat(value, name=name)).measurement - value

    expected = noise()
    torch.manual_seed(9)
    assert torch.equal(noise(), expected)
    torch.testing.assert_close(noise(value=0.4), expected, rtol=0, atol=1e-6)
    for other in (noise(seed=1), noise(name="y")):
        assert abs(torch.corrcoef(torch.stack([expected.flatten(), other.flatten()]))[0, 1]) < 0.1


@pytest.mark.parametrize("sigma", [-1, 256, "25", True, None, float("nan")])
def test_bad_sigma(sigma):
    refused(lambda: Denoise(sigma), "task.sigma", "[0, 255]", repr(sigma), "grey levels of 255")


# ---- inpaint ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("missing", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_fraction_that_is_hidden(missing, per_channel):
    p = flat(1.0, 150, 130)
    hidden = 1 - Inpaint(missing, per_channel)(p).operator.known
    assert hidden.shape == (1, 3 if per_channel else 1, 150, 130) and set(hidden.unique().tolist()) == {0, 1}
    assert abs(hidden.mean() - missing) < 4 * (missing * (1 - missing) / hidden.numel()) ** 0.5


@pytest.mark.parametrize("per_channel", [False, True])
def test_known_pixels_are_measured_and_the_rest_is_zero(per_channel):
    p = Picture("x", picture().pixels * 0.9 + 0.1)
    problem = Inpaint(0.4, per_channel)(p)
    zero = problem.measurement == 0
    assert torch.equal(problem.measurement[~zero], p.pixels[~zero]) and 0.3 < zero.float().mean() < 0.5
    assert torch.equal(problem.image, p.pixels) and torch.equal(problem.operator(p.pixels), problem.measurement)
    assert (zero.sum(1).unique().tolist() == [0, 3]) != per_channel


def test_nothing_hidden():
    p = picture()
    assert torch.equal(Inpaint(0)(p).measurement, p.pixels)


def test_the_random_mask_depends_on_seed_and_name_alone():
    def known(seed=0, name="x", pixels=0):
        return Inpaint(0.5, seed=seed)(picture(name=name, seed=pixels)).operator.known

    expected = known()
    torch.manual_seed(9)
    assert torch.equal(known(pixels=5), expected)
    for other in (known(seed=1), known(name="y")):
        assert 0.4 < (other == expected).float().mean() < 0.6


def mask_file(path, white):
    Image.fromarray((white * 255).astype(np.uint8)).save(path)
    return str(path)


@pytest.mark.parametrize("degraded", [False, True])
def test_a_mask_file_is_white_where_a_pixel_is_known(tmp_path, degraded):
    white = np.random.default_rng(0).random((H, W)) < 0.7
    p = picture(degraded=degraded)
    problem = Inpaint(mask=mask_file(tmp_path / "m.png", white))(p)
    np.testing.assert_array_equal(problem.measurement.numpy(), p.pixels.numpy() * white)
    assert (problem.image is None) == degraded and problem.shape == (3, H, W)


def test_a_mask_file_is_cut_at_half_grey_and_may_be_coloured(tmp_path):
    levels = np.zeros((H, W, 3))
    levels[:, 1], levels[:, 2] = 127 / 255, 128 / 255
    levels[:, 3, 0], levels[:, 4, :2] = 1, 1
    known = Inpaint(mask=mask_file(tmp_path / "m.png", levels))(picture()).operator.known
    assert known.shape == (1, 1, H, W)
    assert known[0, 0].all(0).tolist()[:5] == [False, False, True, False, True]


@pytest.mark.parametrize("h, w", [(W, H), (H, W - 1), (H + 1, W)])
def test_a_mask_of_another_size(tmp_path, h, w):
    path = mask_file(tmp_path / "m.png", np.ones((h, w)))
    refused(lambda: Inpaint(mask=path)(picture()), path, f"is {w}x{h} pixels", f"picture {W}x{H}", "give a mask")


def test_masks_that_cannot_be_used(tmp_path):
    path = mask_file(tmp_path / "black.png", np.zeros((H, W)))
    refused(lambda: Inpaint(mask=path)(picture()), path, "hides the whole picture", "marks the known pixels")
    refused(lambda: Inpaint(0.999999)(picture(1, 2)), "the random mask hides the whole picture", "lower task.missing")
    refused(lambda: Inpaint(0.5)(picture(degraded=True)), "image.degraded=true", "task.mask=PATH", "white")
    refused(lambda: Inpaint(mask=str(tmp_path / "none.png"))(picture()), "none.png")


def test_a_mask_that_is_not_there_is_told_as_the_mask(tmp_path):
    with pytest.raises(InputError) as error:
        Inpaint(mask=str(tmp_path / "none.png"))(picture())
    assert "task.mask" in str(error.value) and "image.path" not in str(error.value)


@pytest.mark.parametrize("missing", [-0.1, 1, 50, "a", True, float("nan")])
def test_bad_missing(missing):
    refused(lambda: Inpaint(missing), "task.missing", "[0, 1)", repr(missing), "fraction that is hidden")


# ---- super-resolution -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("t, border", [(2, 4), (3, 0), (4, 4), (5, 1), (8, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sides_that_the_factor_does_not_divide_are_cut_in_the_centre(t, border, channels):
    p = picture(channels=channels)
    problem = SuperRes(t, border=border)(p)
    h, w = t * (H // t), t * (W // t)
    top, left = (H - h) // 2, (W - w) // 2
    assert torch.equal(problem.image, p.pixels[:, :, top:top + h, left:left + w])
    assert problem.shape == (channels, h, w) and problem.measurement.shape == (1, channels, H // t, W // t)
    assert torch.equal(problem.measurement, problem.operator(problem.image))
    assert (problem.luma, problem.border) == (True, border)


def test_a_degraded_picture_is_the_small_one():
    p = picture(9, 7, degraded=True)
    problem = SuperRes(4)(p)
    assert problem.shape == (3, 36, 28) and problem.image is None and problem.luma
    assert torch.equal(problem.measurement, p.pixels)
    assert problem.operator(torch.zeros(1, *problem.shape)).shape == p.pixels.shape


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB")])
def test_pillow_makes_the_measurement_if_asked(channels, mode):
    levels = np.random.default_rng(0).integers(0, 256, (H, W, channels), dtype=np.uint8)
    p = Picture("x", torch.from_numpy(levels).permute(2, 0, 1)[None] / 255)
    cut = Image.fromarray(levels[..., 0] if mode == "L" else levels).crop((1, 0, 29, 36))
    expected = np.asarray(cut.resize((7, 9), Image.Resampling.LANCZOS)).reshape(9, 7, channels)
    problem = SuperRes(4, downsample="pillow")(p)
    y = problem.measurement[0].permute(1, 2, 0).double().numpy() * 255
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    gap = (problem.measurement - problem.operator(problem.image)).abs()
    assert 0.001 < gap.mean() < 0.05


@pytest.mark.parametrize("options, words", [
    ({"factor": 1}, ("task.factor", "at least 2", "got 1")),
    ({"factor": 2.5}, ("task.factor", "whole number", "2.5")),
    ({"factor": True}, ("task.factor", "True")),
    ({"factor": "4"}, ("task.factor", "'4'")),
    ({"border": -1}, ("task.border", "at least 0", "-1")),
    ({"downsample": "pilow"}, ("task.downsample", "operator, pillow", "'pilow'", "did you mean pillow?")),
])
def test_bad_options_of_super_resolution(options, words):
    refused(lambda: SuperRes(**options), *words)


@pytest.mark.parametrize("h, w, t, border", [(8, 40, 4, 4), (40, 7, 2, 4), (7, 9, 8, 0), (3, 3, 4, 0)])
def test_a_picture_that_is_too_small(h, w, t, border):
    refused(lambda: SuperRes(t, border=border)(picture(h, w)), f"{w}x{h} pixels", f"task.factor={t}",
            f"task.border={border}", "larger picture")


# ---- all --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", [Clean(), Denoise(), Inpaint(), SuperRes(4, border=1)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_task_leaves_the_picture_alone_and_makes_a_fitting_problem(task, channels):
    p = picture(channels=channels)
    before = p.pixels.clone()
    problem = task(p)
    assert torch.equal(p.pixels, before)
    assert problem.image.shape == (1, *problem.shape)
    assert problem.operator(problem.image).shape == problem.measurement.shape
    assert problem.measurement.dtype == torch.float32
