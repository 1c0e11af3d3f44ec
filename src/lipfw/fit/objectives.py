"""What is minimised, as functions of the residual r = A(x) - y of a batch of pictures."""
import torch
from torch import Tensor

from lipfw.errors import InputError, whole
from lipfw.streams import stream


def least_squares(residual: Tensor) -> Tensor:
    """Return the mean of r^2 of each picture: (B, ...) -> (B,)."""
    return residual.flatten(1).square().mean(1)


def fourth_power(residual: Tensor) -> Tensor:
    """Return the mean of r^4 / 2 of each picture: (B, ...) -> (B,).

    The published inpainting script gives r^2 itself as the gradient of r^2 and so descends on this, not on r^2.
    """
    return residual.flatten(1).square().square().mean(1) / 2


def total_variation(x: Tensor) -> Tensor:
    """Return the mean of |x_i+1,j - x_ij| + |x_i,j+1 - x_ij| over the values of each picture: (B, C, H, W) -> (B,).

    The anisotropic total variation, by the number of values; it regularises deep image priors in Liu et al., ICASSP
    2019.
    """
    down, across = (x[:, :, 1:] - x[:, :, :-1]).abs(), (x[..., 1:] - x[..., :-1]).abs()
    return (down.flatten(1).sum(1) + across.flatten(1).sum(1)) / x[0].numel()


OBJECTIVES = {"ls": least_squares, "fourth": fourth_power}


def buckets(measurements: int, size: int) -> int:
    """Return how many whole buckets of `size` measurements there are; a remainder is left out.

    Of an even number of buckets the median is the upper of the two in the middle, as published: of 50 the one of index
    25 in ascending order. It is a right one as long as fewer than half of the buckets hold a corrupted measurement.
    Raises InputError for fewer than 3, whose median is one of the extremes.

    >>> buckets(1000, 20)
    50
    """
    whole("fit.bucket", size, least=1)
    if measurements // size < 3:
        raise InputError(f"fit.bucket={size} makes {measurements // size} buckets of {measurements} measurements, and "
                         f"a median of means needs 3; use fit.bucket={max(1, measurements // 3)} or less, or more "
                         "measurements")
    return measurements // size


def permutation(seed: int, step: int, measurements: int, half: int) -> Tensor:
    """Return the order (m,) in which measurements fill the buckets in `half` (0 or 1: a player each) of a step.

    On the CPU, so that it is the same on every device.
    """
    return torch.randperm(measurements, generator=stream(seed, "buckets", 2 * step + half))


def bucket_means(values: Tensor, permutation: Tensor, bucket: int) -> Tensor:
    """Return the means of `bucket` values each, taken in the order of a permutation (m,): (..., m) -> (..., k)."""
    count = buckets(values.shape[-1], bucket)
    return values[..., permutation[:count * bucket]].unflatten(-1, (count, bucket)).mean(-1)


def upper_median(means: Tensor) -> Tensor:
    """Return the median, of an even number the upper one: (..., k) -> (...).

    Its place is not differentiated; equal values are ranked by place.
    """
    middle = means.detach().argsort(dim=-1, stable=True)[..., means.shape[-1] // 2]
    return means.gather(-1, middle.unsqueeze(-1)).squeeze(-1)


def median_of_means(rf2: Tensor, rg2: Tensor, permutation: Tensor, bucket: int) -> Tensor:
    """Return the median over buckets of the mean of rf2 - rg2: (..., m) -> (...), each row on its own.

    rf2 and rg2 are the squared residuals of two players, of which the first descends on it and the second ascends: a
    bucket that an outlier spoils is far from zero for both and not the median. The residuals are permuted and never
    the matrix, which comes to the same.
    Source: Lecue and Lerasle, Robust machine learning by median-of-means, 2020; the published code for a GAN prior.
    """
    return upper_median(bucket_means(rf2 - rg2, permutation, bucket))


def robust_loss(r2: Tensor, permutation: Tensor, bucket: int) -> Tensor:
    """Return the median over buckets of the mean squared residual: (..., m) -> (...).

    It tells how good a fit is, and which of several is the best, where the mean would tell the outliers alone.
    """
    return upper_median(bucket_means(r2, permutation, bucket))
