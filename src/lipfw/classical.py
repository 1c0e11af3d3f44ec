"""Classical restorations, which fit no network: what a prior is measured against.

Pictures are float64 arrays (H, W, C) with values in [0, 1], and so are restorations. scikit-image is imported where it
is used: it takes a second. Strengths are the published ones for a noise level and not tuned to any picture.
"""
from collections.abc import Callable

import numpy as np

from lipfw.errors import InputError

_TV_WEIGHTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4)    # in units of the noise level


def noise_level(y: np.ndarray) -> float:
    """Return the standard deviation of a noisy picture's noise, by the median of its finest wavelet coefficients.

    Source: Donoho and Johnstone, Biometrika 81, 1994. 0 for a picture in which nothing changes.
    """
    from skimage.restoration import estimate_sigma

    if np.ptp(y, axis=(0, 1)).max() == 0:
        return 0.0
    level = estimate_sigma(y, average_sigmas=True, channel_axis=-1)
    return float(level) if level > 0 else 0.0       # NaN where all of these coefficients are 0


def nlm(y: np.ndarray, sigma: float) -> np.ndarray:
    """Return the non-local means: each pixel is the mean of those with like patches around them.

    Source: Buades, Coll, Morel, CVPR 2005, in Darbon's fast form; patches of 5x5, looked for in 13x13, are those of
    scikit-image's guide, h = 0.8 sigma its rule for that form.
    """
    from skimage.restoration import denoise_nl_means

    out = denoise_nl_means(y, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, fast_mode=True,
                           channel_axis=-1)
    return out.reshape(y.shape)     # a single channel is dropped


def tv(y: np.ndarray, sigma: float) -> np.ndarray:
    """Return min over x of ||x - y||^2 / 2 + w TV(x), by Chambolle's projections (2004).

    w is the multiple of the noise level whose result predicts pixels that it was not shown best, which needs no clean
    picture (Noise2Self: Batson and Royer, ICML 2019). To leave exactly the noise in y - x, as is classical, would
    smooth too much.
    """
    from skimage.restoration import calibrate_denoiser, denoise_tv_chambolle

    weights = [c * sigma for c in _TV_WEIGHTS]
    tried, losses = calibrate_denoiser(y, denoise_tv_chambolle, {"weight": weights, "channel_axis": [-1]},
                                       extra_output=True)[1]
    return denoise_tv_chambolle(y, weight=tried[int(np.argmin(losses))]["weight"], channel_axis=-1)


def wavelet(y: np.ndarray, sigma: float) -> np.ndarray:
    """Return BayesShrink: wavelet coefficients soft-thresholded band by band, of colours in YCbCr.

    Source: Chang, Yu, Vetterli, IEEE TIP 9, 2000, with their wavelet of eight vanishing moments and four scales, or as
    many as the picture has room for.
    """
    import pywt
    from skimage.restoration import denoise_wavelet

    levels = min(4, max(1, pywt.dwt_max_level(min(y.shape[:2]), "sym8")))
    return denoise_wavelet(y, sigma=sigma, wavelet="sym8", wavelet_levels=levels, mode="soft", method="BayesShrink",
                           convert2ycbcr=y.shape[2] == 3, channel_axis=-1)


def bilateral(y: np.ndarray, sigma: float) -> np.ndarray:
    """Return the bilateral filter: the mean of an 11x11 window, weighted by Gaussians of distance and of difference.

    Source: Tomasi and Manduchi, ICCV 1998; spatial deviation 1.8 and range deviation 2 sigma by Zhang and Gunturk, IEEE
    TIP 17, 2008, for one channel: noise alone puts colours of C channels sqrt(C) times as far apart. Computed here, as
    scikit-image's (up to 0.26) reads its table of spatial weights askew: its window is not centred on the pixel.
    """
    radius, spatial, colour = 5, 1.8, 2 * sigma * y.shape[2] ** 0.5
    h, w, _ = y.shape
    padded = np.pad(y, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    total, weights = np.zeros_like(y), np.zeros((h, w, 1))
    for i in range(-radius, radius + 1):
        for j in range(-radius, radius + 1):
            there = padded[radius + i:radius + i + h, radius + j:radius + j + w]
            far = ((there - y) ** 2).sum(2, keepdims=True)
            weight = np.exp(-(i * i + j * j) / (2 * spatial ** 2) - far / (2 * colour ** 2))
            total += weight * there
            weights += weight
    return total / weights


def bm3d(y: np.ndarray, sigma: float) -> np.ndarray:
    """Return block matching and 3D filtering (Dabov et al., IEEE TIP 16, 2007), by its authors' package."""
    package = bm3d_package()
    out = package.bm3d(y[:, :, 0], sigma) if y.shape[2] == 1 else package.bm3d_rgb(y, sigma)
    return np.asarray(out, dtype=float).reshape(y.shape)


def bm3d_package():
    """Return the module bm3d. Raises InputError where the user has not installed it."""
    try:
        import bm3d as package
    except ImportError:
        raise InputError("fit.method=bm3d needs the package bm3d, which lipfw does not bring since its licence allows "
                         "non-commercial use only; where that is yours: pip install bm3d") from None
    return package


def bicubic(y: np.ndarray, factor: int) -> np.ndarray:
    """Return the picture `factor` times larger by Pillow's bicubic interpolation (a = -1/2), not quantised."""
    from PIL import Image

    h, w, _ = y.shape
    planes = [Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32)) for plane in np.moveaxis(y, 2, 0)]
    large = [p.resize((w * factor, h * factor), Image.Resampling.BICUBIC) for p in planes]
    return np.stack([np.asarray(p, dtype=float) for p in large], axis=2)


def biharmonic(y: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the picture whose missing pixels solve the biharmonic equation; `known` is boolean, (H, W, 1 or C).

    Source: Damelin and Hoang, On Surface Completion and Image Inpainting by Biharmonic Functions, 2018. Raises
    InputError where nothing is known.
    """
    from skimage.restoration import inpaint_biharmonic

    if known.all():
        return y
    if not known.any():
        raise InputError("the mask hides a whole colour channel, and fit.method=biharmonic takes each by itself; lower "
                         "task.missing, or use task.per_channel=false")
    if known.shape[2] == 1:
        return inpaint_biharmonic(y, ~known[:, :, 0], channel_axis=-1)
    return np.stack([biharmonic(y[:, :, c:c + 1], known[:, :, c:c + 1])[:, :, 0] for c in range(y.shape[2])], axis=2)


# what happened to the picture, as its operator says -> the methods for it; the second argument is the noise level, the
# factor, or what is known
METHODS: dict[str, dict[str, Callable[..., np.ndarray]]] = {
    "identity": {"nlm": nlm, "tv": tv, "wavelet": wavelet, "bilateral": bilateral, "bm3d": bm3d},
    "downsampling": {"bicubic": bicubic},
    "mask": {"biharmonic": biharmonic},
}
