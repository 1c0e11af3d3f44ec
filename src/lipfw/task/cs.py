"""Compressed sensing: far fewer random measurements than pixels, some of them corrupted."""
from weakref import WeakValueDictionary

import torch

from lipfw.errors import InputError, choice, number, whole
from lipfw.image.picture import Picture
from lipfw.problem import Problem
from lipfw.streams import stream
from lipfw.task.gaussian import Gaussian

_STORED = {32: torch.float32, 16: torch.float16}


class CompressedSensing:
    """y = A(x) + `noise` * N(0, 1): `measurements` products of the picture, as 2x - 1, with random rows N(0, 1 / good).

    Of them `corrupted` are bad, at random places, and good is the number of the others. With `corruption` "ones", the
    published one, a bad row is all ones and its measurement `outlier`; with "heavy" a bad row is as the others and its
    measurement has Cauchy noise added, in units of the clean measurements' standard deviation. `matrix` says in how
    many bits the rows are stored. All pictures of one shape have the same matrix; those that are there at one time
    share one operator.
    Source: the median-of-means experiment of the published code (n = 3 * 256 * 256, 1000 measurements, 20 corrupted).
    Raises InputError for values out of range, more measurements than values in the picture, and degraded pictures.
    """

    def __init__(self, measurements: int = 1000, corrupted: int = 20, corruption: str = "ones",
                 outlier: float = 10_000.0, noise: float = 0.01, matrix: int = 32, seed: int = 0):
        self.measurements = whole("task.measurements", measurements, least=1, most=1_000_000)
        self.corrupted = whole("task.corrupted", corrupted, least=0)
        if 2 * corrupted >= measurements:
            raise InputError(f"task.corrupted={corrupted} is not less than half of task.measurements={measurements}: "
                             f"which are right can't be told; use at most {(measurements - 1) // 2}")
        self.corruption = choice("task.corruption", corruption, ("ones", "heavy"))
        self.outlier = number("task.outlier", outlier, -1e9, 1e9, hint="it is what a corrupted measurement says")
        self.noise = number("task.noise", noise, 0, 1e6, hint="it is the standard deviation on each measurement")
        self.matrix = choice("task.matrix", matrix, tuple(_STORED))
        self.seed = whole("task.seed", seed, least=0)
        order = torch.randperm(measurements, generator=stream(seed, "corrupted rows"))
        self.bad = order[:corrupted].sort().values                                      # their places
        self._operators: WeakValueDictionary[tuple, Gaussian] = WeakValueDictionary()   # a matrix goes with its users

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture, y (1, m); its noise depends on the seed and the picture's name alone."""
        if picture.degraded:
            raise InputError("task=cs with image.degraded=true: measurements are no picture and can't be read from "
                             "one; give a clean picture, which task=cs measures, and image.degraded=false")
        x, shape = picture.pixels, tuple(picture.pixels.shape[1:])
        operator = self._operator(shape)
        # an operator that is shared may have followed a fit to its device
        y = operator(x.to(operator.matrix.device)).to(x.device)
        noisy = y + self.noise * torch.empty_like(y).normal_(generator=stream(self.seed, f"noise {picture.name}"))
        if self.corruption == "ones":
            noisy[:, self.bad] = self.outlier
        else:
            cauchy = torch.empty(len(self.bad)).cauchy_(generator=stream(self.seed, f"outliers {picture.name}"))
            noisy[:, self.bad] += y.std(correction=0) * cauchy
        return Problem(picture.name, shape, operator, noisy, x)

    def _operator(self, shape: tuple[int, int, int]) -> Gaussian:
        (c, h, w), m = shape, self.measurements
        if m > c * h * w:
            raise InputError(f"task.measurements={m} are more than the {c * h * w} values of the picture, {c} x {h} x "
                             f"{w} (C x H x W); use fewer, or a larger picture (image.size=)")
        operator = self._operators.get(shape)
        if operator is None:
            ones = self.bad.tolist() if self.corruption == "ones" else ()
            operator = Gaussian(shape, m, 1 / (m - self.corrupted), ones=ones, seed=self.seed,
                                dtype=_STORED[self.matrix])
            self._operators[shape] = operator
        return operator
