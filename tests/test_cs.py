"""Compressed sensing: the matrix by its statistics, the products against float64, the memory by measuring it."""
import os
import subprocess
import sys

import pytest
import torch
from scipy import stats

from lipfw.errors import InputError
from lipfw.image.picture import Picture
from lipfw.streams import stream
from lipfw.task.cs import CompressedSensing
from lipfw.task.gaussian import Gaussian

C, H, W = 3, 13, 9      # odd and unequal, so that swapped axes show
N = C * H * W
KINDS = [torch.float32, torch.float16]


def picture(height=H, width=W, channels=C, name="x", degraded=False, seed=0):
    pixels = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    return Picture(name, pixels, degraded=degraded)


def gaussian(dtype=torch.float32, rows=50, ones=(3, 20), seed=0):
    return Gaussian((C, H, W), rows, 1 / 48, ones=ones, seed=seed, dtype=dtype)


def refused(call, *words):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


# ---- the operator -----------------------------------------------------------------------------------------------

def test_it_is_the_matrix_times_the_picture_in_minus_one_to_one():
    a = gaussian()
    x = torch.rand(4, C, H, W)
    expected = (2 * x.double() - 1).flatten(1) @ a.matrix.double().T
    torch.testing.assert_close(a(x).double(), expected, rtol=0, atol=1e-4)
    assert a(x).shape == (4, 50) and a(x).dtype == torch.float32
    torch.testing.assert_close(a(x)[:, 3], (2 * x - 1).sum((1, 2, 3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", KINDS)
def test_statistics_of_the_rows(dtype):
    good = torch.tensor([i for i in range(200) if i not in (3, 20)])
    a = Gaussian((3, 16, 16), 200, 1 / 198, ones=(3, 20), dtype=dtype).matrix.double()
    assert bool((a[[3, 20]] == 1).all())
    rows = a[good] * 198 ** 0.5
    assert abs(rows.mean()) < 4 / rows.numel() ** 0.5
    assert abs(rows.var() - 1) < 4 * (2 / rows.numel()) ** 0.5
    assert stats.kstest(rows.flatten()[:20_000].numpy(), "norm").pvalue > 1e-3
    assert (torch.corrcoef(rows) - torch.eye(198)).abs().max() < 6 / 768 ** 0.5


def test_the_same_seed_gives_the_same_matrix_and_another_another():
    expected = gaussian().matrix
    torch.manual_seed(9)
    assert torch.equal(gaussian().matrix, expected)
    other = gaussian(seed=1).matrix
    clean = [i for i in range(50) if i not in (3, 20)]
    assert abs(torch.corrcoef(torch.stack([expected[clean].flatten(), other[clean].flatten()]))[0, 1]) < 0.05
    assert torch.equal(gaussian(rows=30).matrix, expected[:30])     # a row depends on seed and place alone
    assert torch.equal(gaussian(torch.float16).matrix, expected.half())


@pytest.mark.parametrize("dtype", KINDS)
def test_the_matrix_is_no_state_and_is_held_once(dtype):
    a = gaussian(dtype)
    assert not a.state_dict() and [b.dtype for b in a.buffers()] == [dtype, torch.float32]
    assert not list(a.parameters())


@pytest.mark.parametrize("dtype", KINDS)
def test_gradients_are_the_adjoint(dtype):
    a, g = gaussian(dtype), torch.Generator().manual_seed(3)
    x, elsewhere = torch.randn(2, 2, C, H, W, dtype=torch.float64, generator=g)
    if dtype == torch.float32:
        a = a.double()
    y = torch.randn(2, 50, dtype=torch.float64, generator=g)
    elsewhere.requires_grad_()
    adjoint, = torch.autograd.grad((a(elsewhere) * y).sum(), elsewhere)
    constant = a(torch.zeros_like(x))       # A is affine: it measures 2x - 1
    torch.testing.assert_close(((a(x) - constant) * y).sum(), (x * adjoint).sum(), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("dtype", KINDS)
def test_derivatives_of_any_order(dtype):
    """GraSP differentiates twice."""
    a, x = gaussian(dtype, rows=5), torch.rand(2, C, H, W, dtype=torch.float64, requires_grad=True)
    a = a.double() if dtype == torch.float32 else a
    assert torch.autograd.gradcheck(a, x) and torch.autograd.gradgradcheck(lambda x: a(x).square(), x)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("autocast", [False, True])
def test_products_are_exact_to_float32(dtype, autocast):
    """Against float64 with the same matrix, in many chunks; halves are converted, never multiplied in 16 bits."""
    a = Gaussian((3, 128, 128), 100, 1 / 98, ones=(7, 60), dtype=dtype)
    m = a.matrix.double()
    x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = a(x)
    expected = (2 * x.detach().double() - 1).flatten(1) @ m.T
    assert y.dtype == torch.float32
    assert ((y - expected).square().mean() / expected.square().mean()).sqrt() < 1e-5
    weight = torch.randn(2, 100, generator=torch.Generator().manual_seed(1))
    gradient, = torch.autograd.grad((y * weight).sum(), x)
    expected = 2 * (weight.double() @ m).view_as(x)
    assert ((gradient - expected).square().mean() / expected.square().mean()).sqrt() < 1e-5


def test_what_rounding_the_matrix_moves():
    """Float16 moves a measurement by less than the published noise, 0.01 where measurements deviate by 7."""
    a = Gaussian((3, 64, 64), 100, 1 / 98).matrix.double()
    x = 2 * torch.rand(a.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    moved = {d: float(((a.to(d).double() - a) @ x).std() / (a @ x).std()) for d in (torch.float16, torch.bfloat16)}
    assert moved[torch.float16] < 3e-4 and moved[torch.bfloat16] > 1e-3


@pytest.mark.parametrize("dtype", KINDS)
def test_a_measurement_can_be_shown(dtype):
    """The back-projection resembles the picture, and outliers in a hundred measurements do not drown it."""
    x = torch.zeros(2, C, H, W)
    x[0, :, :6], x[1, :, :, 4:] = 1, 1
    a = Gaussian((C, H, W), N, 1 / (N - 7), ones=range(7), dtype=dtype)
    y = a(x)
    for bad in (0, 1e4):
        y[:, :7] += bad
        view = a.view(y)
        assert view.shape == x.shape and view.dtype == torch.float32 and 0 <= view.min() and view.max() <= 1
        for shown, true, other in zip(view, x, x.flip(0), strict=True):
            pairs = (torch.stack([shown.flatten(), v.flatten()]) for v in (true, other))
            near, far = (float(torch.corrcoef(pair)[0, 1]) for pair in pairs)
            assert near > 0.5 and near > far + 0.3
    assert torch.equal(a.view(torch.zeros(1, N)), torch.full((1, C, H, W), 0.5))


def test_a_matrix_larger_than_the_machine_is_refused():
    refused(lambda: Gaussian((3, 4000, 4000), 10 ** 6, 1), "task.measurements=1000000", "4000x4000", "192,000 GB",
            "task.matrix=16")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak of memory from Linux' /proc")
@pytest.mark.parametrize("bits", [32, 16])
def test_building_fitting_and_showing_hold_the_matrix_once(bits):
    """The peak, above what the process held before, of 1000 measurements of 128 x 128 pixels: 1.3 matrices at most."""
    code = f"""
import torch
from lipfw.image.picture import Picture
from lipfw.task.cs import CompressedSensing
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024
def work(side, m):
    p = CompressedSensing(m, m // 50, matrix={bits})(Picture("x", torch.rand(1, 3, side, side)))
    for batch in (1, 4):
        x = p.image.repeat(batch, 1, 1, 1).requires_grad_()
        (p.operator(x) - p.measurement).square().mean().backward()
    p.operator.view(p.measurement)
work(32, 50)
before = memory("VmRSS")
work(128, 1000)
print((memory("VmHWM") - before) / (1000 * 3 * 128 * 128 * {bits} / 8))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert 0.9 < float(done.stdout) < 1.3


# ---- the task ---------------------------------------------------------------------------------------------------

def residual(task, p):
    problem = task(p)
    return (problem.measurement - problem.operator(p.pixels))[0], problem


@pytest.mark.parametrize("matrix", [32, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_published_corruption(matrix, channels):
    p = picture(40, 20, channels)
    before = p.pixels.clone()
    task = CompressedSensing(500, 20, matrix=matrix)
    r, problem = residual(task, p)
    good = torch.ones(500, dtype=torch.bool).index_fill(0, task.bad, False)
    assert problem.measurement.shape == (1, 500) and problem.shape == (channels, 40, 20)
    assert torch.equal(problem.image, before) and torch.equal(p.pixels, before)
    assert bool((problem.measurement[0, ~good] == 10_000).all()) and bool((problem.operator.matrix[~good] == 1).all())
    assert abs(r[good].std() / 0.01 - 1) < 4 / (2 * 480) ** 0.5 and abs(r[good].mean()) < 4 * 0.01 / 480 ** 0.5
    assert abs(problem.operator.matrix[good].float().var() * 480 - 1) < 0.02
    assert torch.equal(problem.noiseless().measurement, problem.operator(p.pixels))


def test_heavy_tailed_corruption():
    p = picture(40, 40)
    task = CompressedSensing(1000, 400, "heavy", noise=0)
    r, problem = residual(task, p)
    good = torch.ones(1000, dtype=torch.bool).index_fill(0, task.bad, False)
    assert not r[good].abs().gt(1e-3).any() and not (problem.operator.matrix == 1).all(1).any()
    assert abs(problem.operator.matrix.var() * 600 - 1) < 0.02
    deviation = problem.operator(p.pixels).std()
    assert stats.kstest((r[~good] / deviation).numpy(), "cauchy").pvalue > 1e-3
    noisy, _ = residual(CompressedSensing(1000, 400, "heavy", noise=0.5), p)
    assert abs((noisy - r).std() / 0.5 - 1) < 4 / 2000 ** 0.5      # bad measurements are noisy too


def test_bad_rows_lie_anywhere_and_follow_from_the_seed():
    bad = [CompressedSensing(1000, 100, seed=s).bad for s in (0, 0, 1)]
    assert torch.equal(bad[0], bad[1]) and not torch.equal(bad[0], bad[2])
    assert len(set(bad[0].tolist())) == 100
    assert stats.kstest(bad[0].numpy() / 1000, "uniform").pvalue > 1e-3
    assert torch.equal(CompressedSensing(1000, 100, "heavy").bad, bad[0])


def test_nothing_corrupted():
    task = CompressedSensing(50, 0, noise=0)
    r, problem = residual(task, picture())
    assert not r.any() and len(task.bad) == 0


def test_the_measurement_depends_on_seed_name_and_picture_alone():
    def measured(seed=0, name="x", kind="heavy"):
        return CompressedSensing(50, 5, kind, seed=seed)(picture(name=name)).measurement

    expected = measured()
    torch.manual_seed(9)
    assert torch.equal(measured(), expected)
    for other in (measured(seed=1), measured(name="y"), measured(kind="ones")):
        assert not torch.equal(other, expected)


def test_pictures_of_one_shape_share_one_operator():
    task = CompressedSensing(50, 2)
    x, y, other = task(picture(name="x")), task(picture(name="y", seed=1)), task(picture(9, 13))
    assert x.operator is y.operator and x.operator is not other.operator
    assert not torch.equal(x.measurement, y.measurement)
    together = x.operator(torch.cat([x.image, y.image]))
    torch.testing.assert_close(together, torch.cat([p.operator(p.image) for p in (x, y)]), rtol=0, atol=1e-5)
    assert len(task._operators) == 2
    del x, y
    assert len(task._operators) == 1        # no matrix is held for nothing


@pytest.mark.parametrize("options, words", [
    ({"measurements": 0}, ("task.measurements", "at least 1", "0")),
    ({"measurements": 2.5}, ("task.measurements", "whole number", "2.5")),
    ({"measurements": 10 ** 7}, ("task.measurements", "at most 1,000,000")),
    ({"corrupted": -1}, ("task.corrupted", "at least 0", "-1")),
    ({"corrupted": 500}, ("task.corrupted=500", "half of task.measurements=1000", "at most 499")),
    ({"measurements": 1, "corrupted": 1}, ("task.corrupted=1", "at most 0")),
    ({"corruption": "one"}, ("task.corruption", "ones, heavy", "'one'", "did you mean ones?")),
    ({"outlier": float("inf")}, ("task.outlier", "inf")),
    ({"outlier": "a"}, ("task.outlier", "'a'")),
    ({"noise": -0.1}, ("task.noise", "[0, 1e+06]", "-0.1", "standard deviation")),
    ({"matrix": 8}, ("task.matrix", "32, 16", "8")),
    ({"matrix": True}, ("task.matrix", "32, 16", "True")),
    ({"seed": -1}, ("task.seed", "-1")),
])
def test_bad_options(options, words):
    refused(lambda: CompressedSensing(**options), *words)


def test_pictures_that_cannot_be_measured():
    refused(lambda: CompressedSensing(N + 1, 2)(picture()), f"task.measurements={N + 1}", f"{N} values", "3 x 13 x 9",
            "image.size")
    assert CompressedSensing(N, 2)(picture()).measurement.shape == (1, N)
    refused(lambda: CompressedSensing(50, 2)(picture(degraded=True)), "task=cs", "image.degraded=true",
            "image.degraded=false")


def test_the_row_streams_are_the_documented_ones():
    row = torch.empty(N).normal_(0, 0.25, generator=stream(3, "measuring row", 1))
    assert torch.equal(Gaussian((C, H, W), 2, 1 / 16, seed=3).matrix[1], row)
