"""Numbers -> the texts of table cells: rounded, short ones for the terminal and long ones for Markdown."""
import math
from collections.abc import Iterable

from lipfw.report.stats import Stat


def brief(stat: Stat, digits: int, n: int, pm: str, scale: float = 1) -> str:
    """Return `31.24±.12`, `31.24` for one run, `-` for none; `(2)` after it if 2 of the row's n runs have a value."""
    if stat.mean is None:
        return "-"
    text = f"{stat.mean / scale:.{digits}f}"
    if digits > 2:      # SSIM and MSE lie below 1: their 0 is room for another digit
        text = text.removeprefix("0").replace("-0.", "-.")
    if stat.sd is not None:
        sd = stat.sd / scale
        text += pm + (f"{sd:.{digits}f}".removeprefix("0") if sd < 0.995 else f"{sd:.{digits - 1}f}")
    return text if stat.n == n else f"{text} ({stat.n})"


def full(stat: Stat, spec: str, n: int) -> str:
    """Return `31.24 ± 0.12`, as `brief`."""
    if stat.mean is None:
        return "-"
    text = f"{stat.mean:{spec}}" + (f" ± {stat.sd:{spec}}" if stat.sd is not None else "")
    return text if stat.n == n else f"{text} ({stat.n})"


def spec_of(metric: str, means: Iterable[float | None]) -> str:
    """Return how a metric is written in full: an MSE with three digits of the largest one."""
    if metric == "mse_picked":
        return f".{max(2, 2 - round(math.log10(scale_of(means))))}f"
    return {"ssim_picked": ".3f", "loss": ".3e"}.get(metric, ".2f")


def scale_of(values: Iterable[float | None]) -> float:
    """Return the power of ten of the largest value, so that all take few digits."""
    largest = max((abs(v) for v in values if v is not None), default=0)
    return 10.0 ** math.floor(math.log10(largest)) if largest else 1.0


def power(scale: float) -> str:
    """Return what a head says of a scale.

    >>> power(1e-3), power(1)
    ('/1e-3', '')
    """
    return f"/{scale:.0e}".replace("e-0", "e-").replace("/1e+00", "")


def count(n: float) -> str:
    """Return a number of parameters in at most 6 characters.

    >>> [count(n) for n in (8583, 100_224, 2_217_831)]
    ['8,583', '100.2k', '2.218M']
    """
    if n < 99_999.5:
        return f"{n:,.0f}"
    return f"{n / 1e3:.1f}k" if n < 999_950 else f"{n / 1e6:.3f}M" if n < 9_999_500 else f"{n / 1e6:.1f}M"


def duration(seconds: float | None) -> str:
    """Return a time in at most 4 characters.

    >>> [duration(s) for s in (0.24, 35, 99.4, 720, 9000, 86400)]
    ['0.2s', '35s', '99s', '12m', '2.5h', '24h']
    """
    if seconds is None:
        return "-"
    unit, name = (1, "s") if seconds < 99.5 else (60, "m") if seconds < 99.5 * 60 else (3600, "h")
    value = seconds / unit
    return f"{value:.1f}{name}" if value < 9.95 else f"{value:.0f}{name}"
