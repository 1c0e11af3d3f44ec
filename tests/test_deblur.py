"""Deblurring and JPEG artefacts: the blur against SciPy, its adjoint, the kernels, Pillow's round trip, short fits."""
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from skimage.data import astronaut

from lipfw.errors import InputError
from lipfw.fit.restoration import Restoration
from lipfw.image.picture import Picture, finish, from_array
from lipfw.image.write import write_png
from lipfw.prior.skip import build
from lipfw.pruner.none import Dense
from lipfw.task.deblur import Deblur
from lipfw.task.jpeg import Jpeg
from lipfw.task.operators import Blur

sides = st.integers(0, 3).map(lambda n: 2 * n + 1)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- the operator

@settings(max_examples=25, deadline=None)
@given(sides, sides, st.integers(4, 9), st.integers(4, 9), st.sampled_from([1, 3]))
def test_the_blur_is_scipys_convolution_of_mirrored_pictures(kh, kw, h, w, channels):
    """SciPy's "mirror" does not repeat the edge; the kernel is not symmetric, so a correlation would differ."""
    kernel, x = random(kh, kw), random(2, channels, h, w, seed=1)
    told = np.stack([[convolve(c.numpy().astype(float), kernel.numpy(), mode="mirror") for c in p] for p in x])
    assert np.allclose(Blur(kernel)(x).numpy(), told, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(sides, sides, st.integers(4, 9), st.integers(4, 9))
def test_the_blur_is_linear_and_its_gradient_the_adjoint(kh, kw, h, w):
    """The adjoint is that of the matrix whose columns are the blurred unit pictures."""
    blur = Blur(random(kh, kw)).double()
    x, other = (random(1, 1, h, w, seed=s).double() for s in (1, 2))
    matrix = torch.stack([blur(e.view(1, 1, h, w)).flatten() for e in torch.eye(h * w, dtype=torch.float64)], 1)
    assert torch.allclose(blur(2 * x - 3 * other), 2 * blur(x) - 3 * blur(other))
    y = random(1, 1, h, w, seed=3).double()
    back, = torch.autograd.grad(blur(x.requires_grad_()), x, y)
    assert torch.allclose(back.flatten(), matrix.T @ y.flatten())
    assert math.isclose(float((matrix @ x.detach().flatten()) @ y.flatten()), float((back * x.detach()).sum()),
                        rel_tol=1e-9)


# --- the kernels

def kernel(picture, **options):
    return Deblur(**options).kernel


@pytest.mark.parametrize("options", [{}, {"sigma": 3, "size": None}, {"sigma": 0.3, "size": 1}, {"kernel": "motion"},
                                     {"kernel": "motion", "length": 15, "angle": -20}])
def test_kernels_sum_to_one_and_are_symmetric(options):
    k = Deblur(**options).kernel
    assert math.isclose(float(k.sum()), 1, rel_tol=1e-5) and (k >= 0).all()
    assert torch.allclose(k, k.flip(0, 1), atol=1e-6)


def test_the_gaussian_is_scipys(picture):
    task = Deblur(sigma=1.2, size=None, noise=0)
    assert task.kernel.shape == (11, 11)
    told = np.stack([gaussian_filter(c.numpy().astype(float), 1.2, mode="mirror", radius=5) for c in picture.pixels[0]])
    assert np.allclose(task(picture).measurement[0].numpy(), told, atol=1e-5)


def test_motion_is_a_line_at_its_angle():
    flat, steep = (Deblur("motion", length=7, angle=a).kernel for a in (0, 90))
    assert torch.allclose(flat[3], torch.full((7,), 1 / 7), atol=1e-6) and torch.allclose(flat, steep.T, atol=1e-6)
    up = Deblur("motion", length=9, angle=45).kernel      # counter-clockwise, rows count downwards
    assert float(up.flip(1).diagonal().sum()) > 0.6 and torch.allclose(up, up.T, atol=1e-6)
    tilted = Deblur("motion", length=21, angle=30).kernel.double()
    y, x = torch.meshgrid(*[torch.arange(-10., 11, dtype=torch.float64)] * 2, indexing="ij")
    slope = math.degrees(0.5 * math.atan2(-2 * float((tilted * x * y).sum()),
                                          float((tilted * (x * x - y * y)).sum())))
    assert abs(slope - 30) < 1


def test_a_kernel_from_a_picture(tmp_path, picture):
    """An even side gets a row of zeros; what is not symmetric is not turned round."""
    shape = torch.zeros(1, 1, 2, 3)
    shape[0, 0, 0, 0], shape[0, 0, 1, 2] = 1.0, 0.5
    write_png(tmp_path / "psf.png", shape, bits=16)
    task = Deblur(str(tmp_path / "psf.png"), noise=0)
    told = torch.tensor([[2 / 3, 0, 0], [0, 0, 1 / 3], [0, 0, 0]])
    assert torch.allclose(task.kernel, told, atol=1e-4)
    blurred = task(picture).measurement
    x = picture.pixels
    assert torch.allclose(blurred[..., 1:-1, 1:-1], (2 * x[..., 2:, 2:] + x[..., 1:-1, :-2]) / 3, atol=1e-4)
    write_png(tmp_path / "black.png", torch.zeros(1, 1, 3, 3))
    with pytest.raises(InputError, match="is all black"):
        Deblur(str(tmp_path / "black.png"))


@pytest.mark.parametrize("options, told", [
    ({"kernel": "gausian"}, "task.kernel must be gaussian, motion or the file .*did you mean gaussian"),
    ({"kernel": "no.png"}, "no.png"), ({"kernel": None}, "task.kernel must be"), ({"size": 4}, "task.size must be odd"),
    ({"kernel": "motion", "length": 8}, "task.length must be odd.*got 8"), ({"sigma": 0}, r"task.sigma .*\(0, 1000\]"),
    ({"length": 1}, "task.length must be a whole number of at least 3"),
    ({"angle": "left"}, "in degrees"), ({"noise": -1}, "grey levels"), ({"size": 2.5}, "task.size must be a whole")])
def test_options_that_cannot_be(options, told):
    with pytest.raises(InputError, match=told):
        Deblur(**options)


def test_a_kernel_too_large_for_its_picture(picture):
    assert Deblur(size=39)(picture)      # 24 x 20: 19 pixels can be mirrored
    with pytest.raises(InputError, match="a kernel of 41x41 pixels is too large for a picture of 20x24"):
        Deblur(size=41)(picture)


# --- the measurements

def test_noise_in_grey_levels_from_seed_and_name(picture):
    grey = Picture("grey", torch.full((1, 1, 64, 64), 0.5))
    one, again, other = (Deblur(noise=10, seed=s)(grey).measurement for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert abs(float((one - 0.5).std()) * 255 - 10) < 0.5 and abs(float((one - 0.5).mean()) * 255) < 0.5


def test_a_blurred_picture_of_ones_own(picture):
    problem = Deblur()(Picture("waves", picture.pixels, degraded=True))
    assert torch.equal(problem.measurement, picture.pixels) and problem.image is None
    assert torch.equal(problem.operator.view(problem.measurement), picture.pixels)
    assert not torch.equal(problem.operator(picture.pixels), picture.pixels)


@pytest.mark.parametrize("channels, mode", [(3, "RGB"), (1, "L")])
@pytest.mark.parametrize("quality", [1, 10, 95])
def test_a_jpeg_is_pillows(picture, channels, mode, quality):
    x = (picture.pixels[:, :channels] * 255).round() / 255
    problem = Jpeg(quality)(Picture("waves", x))
    array = np.uint8(np.rint(x[0].permute(1, 2, 0).squeeze(-1).numpy() * 255))
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, "jpeg", quality=quality)
    told = np.asarray(Image.open(file).convert(mode)).reshape(24, 20, channels)
    assert np.array_equal(np.rint(problem.measurement[0].permute(1, 2, 0).numpy() * 255), told)
    assert torch.equal(problem.operator(x), x) and problem.measurement.shape == x.shape
    worn = Jpeg(quality)(Picture("waves", x, degraded=True))
    assert torch.equal(worn.measurement, x) and worn.image is None


# --- fits

@pytest.mark.parametrize("task", [Deblur(sigma=1.2, size=9), Jpeg(10)], ids=["deblur", "jpeg"])
def test_a_short_fit_restores(train, task):
    """What is restored is nearer to the picture than what was measured."""
    (picture,) = finish([from_array("astronaut", astronaut()[0:200, 120:320])], size=32)
    problem = task(picture)
    prior = build([problem.shape], channels=16, depth=2, code_channels=8, jitter=0.01, seed=0)
    module = Restoration([problem], prior, steps=300, smoothing=0.9, window=20, log_every=20)
    train(module, Dense())

    def psnr(y):
        return -10 * math.log10(float((y - picture.pixels).square().mean()))

    assert psnr(module.pictures("peak")[0]) > psnr(problem.measurement) + 0.3
