"""A problem: its parts fit, and its noiseless version is A(x)."""
import pytest
import torch

from lipfw.errors import InputError
from lipfw.problem import Problem
from lipfw.task.operators import Downsample, Hide, Identity

X = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3, 12, 8), (1, 8, 12), (8, 12)])
def test_a_clean_picture_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"image \(1, 3, 8, 12\) does not fit"):
        Problem("x", shape, Identity(), X, X)


@pytest.mark.parametrize("operator", [Identity(), Hide((X[:, :1] > 0.5).float()), Downsample(2, 8, 12)])
def test_the_noiseless_problem_measures_the_clean_picture(operator):
    y = operator(X)
    noisy = Problem("x", (3, 8, 12), operator, y + 0.1, X, luma=True, border=2)
    problem = noisy.noiseless()
    assert torch.equal(problem.measurement, y) and torch.equal(noisy.measurement, y + 0.1)
    assert (problem.name, problem.shape, problem.operator, problem.luma, problem.border) == (
        "x", (3, 8, 12), operator, True, 2)
    assert torch.equal(problem.image, X)


def test_there_is_no_noiseless_version_without_a_clean_picture():
    with pytest.raises(InputError) as error:
        Problem("x", (3, 8, 12), Identity(), X).noiseless()
    for word in ("fit.target=clean", "image.degraded=true", "use fit.target=degraded"):
        assert word in str(error.value)
