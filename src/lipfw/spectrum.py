"""How alike two pictures are by their power spectra: the training-free metrics of ISNAS-DIP (Arican et al., 2022).

A metric takes what was measured and what an untrained network makes, (C, H, W) in [0, 1] and float64, and a generator
of random numbers; the lower it is, the better the network is said to suit the picture.
"""
import numpy as np
from numpy import ndarray
from numpy.random import Generator

_BINS = 100
_STRIP = (0.1, 0.2)             # diameters of its edges, in parts of the sampling frequency
_CIRCLES = 99
_ENERGY = 0.99
_FLOOR = 1e-30                  # of a power in dB: that of a constant picture is 0


def psd(x: ndarray) -> ndarray:
    """Return the power spectral density |FFT(x) / (HW)|^2 of each channel, the frequency 0 in the middle."""
    return np.fft.fftshift(np.abs(np.fft.fft2(x, norm="forward")) ** 2, axes=(-2, -1))


def decibels(power: ndarray) -> ndarray:
    """Return 10 log10 of a power. The published code takes 10 ln: 2.3 times as much, and 5.3 times its square."""
    return 10 * np.log10(np.maximum(power, _FLOOR))


def frequency(height: int, width: int) -> ndarray:
    """Return how far each value of a `psd` is from the middle, squared, both axes reaching from -1/2 to 1/2."""
    y, x = np.arange(height)[:, None] / height - 0.5, np.arange(width) / width - 0.5
    return y ** 2 + x ** 2


def strip(power: ndarray) -> ndarray:
    """Return the values of the low frequencies next to 0, a ring, of all channels together."""
    inner, outer = ((d / 2) ** 2 for d in _STRIP)
    f = frequency(*power.shape[1:])
    return power[:, (f >= inner) & (f < outer)]


def psd_db_mse(measured: ndarray, made: ndarray, random: Generator) -> float:
    """Return the mean squared difference of the spectra in dB."""
    return float(np.mean((decibels(psd(measured)) - decibels(psd(made))) ** 2))


def psd_db_strip_mse(measured: ndarray, made: ndarray, random: Generator) -> float:
    """Return that of the ring alone, which tells most for denoising."""
    return float(np.mean((decibels(strip(psd(measured))) - decibels(strip(psd(made)))) ** 2))


def psd_strip_hist_emd(measured: ndarray, made: ndarray, random: Generator) -> float:
    """Return the Wasserstein-1 distance between the heights of two histograms of the ring's powers.

    As published: of 100 bins each, from a picture's own least to its greatest power, as densities; which bin a height
    belongs to does not count.
    """
    a, b = (np.sort(np.histogram(strip(psd(x)), bins=_BINS, density=True)[0]) for x in (measured, made))
    return float(np.mean(np.abs(a - b)))        # of samples of one size it is that of the sorted values


def psd_99_per_bw(measured: ndarray, made: ndarray, random: Generator) -> float:
    """Return the diameter of the circle that holds 99 % of the energy of what was made, in parts of the diagonal.

    Between 99 circles the energy is taken as linear. What was measured does not count.
    """
    power = psd(made).mean(0)
    edges = np.linspace(0, np.sqrt(2), _CIRCLES + 1)
    ring = np.searchsorted((edges / 2) ** 2, frequency(*power.shape), side="right")     # 1: inside the first circle
    held = np.bincount(ring.ravel(), power.ravel(), _CIRCLES + 2).cumsum()[:_CIRCLES + 1]
    return float(np.interp(_ENERGY * power.sum(), held, np.arange(_CIRCLES + 1) / _CIRCLES))


def random_mse(measured: ndarray, made: ndarray, random: Generator) -> float:
    """Return the mean squared difference of two pictures of noise: a choice by chance, to compare with."""
    return float(np.mean((random.standard_normal(measured.shape) - random.standard_normal(made.shape)) ** 2))


METRICS = {f.__name__: f for f in (psd_db_mse, psd_db_strip_mse, psd_strip_hist_emd, psd_99_per_bw, random_mse)}
