"""Which frequencies a restoration keeps: its spectrum, the difference from another, and the power by frequency."""
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure

from lipfw.errors import InputError
from lipfw.report.figure.points import at, check, first, label, series, sparsities
from lipfw.report.figure.raster import given, luma, read, restored
from lipfw.report.figure.style import FAINT, INK, LEVEL, image, style
from lipfw.report.figure.words import NOT_RUN, percent
from lipfw.report.study import Point, Series, Study
from lipfw.spectrum import decibels, psd

_SIDE, _BOTH = 1.5, 3.0      # inches of a map's column, and of the two rows of a sparsity


def draw(study: Study, spec: Mapping, narrow: bool = False) -> Figure:
    """Draw for each of `sparsities` log(1 + |FFT|) of the luma of what `series` restored, and its difference maps.

    Below them is the power at each frequency, a panel a sparsity, mean and deviation over seeds. The maps are of one
    picture and the lowest seed. Spec: `series`, `sparsities`, `against` (clean, the default, or one of the series).
    """
    check(spec, ("series", "sparsity", "sparsities", "against"))
    every, against = series(study, spec), spec.get("against", "clean")
    if against != "clean" and against not in study.series:
        raise InputError(f"draw=spectrum: against must be clean or one of {', '.join(study.series)}, got {against!r}")
    start = first([p for s in every for p in s.points])
    picture = start.picture if start else None
    mine = {s.name: [p for p in s.points if p.picture == picture] for s in every}
    clean = _clean(start)
    wanted = sparsities(spec, [s for s in every if not s.level]) or [0.0]
    references = [clean] * len(wanted)
    if against != "clean":
        other = study.series[against]
        references = [_luma(first(at(other, [p for p in other.points if p.picture == picture], v))) for v in wanted]
    high = _BOTH * len(wanted)
    figure = Figure(figsize=(_SIDE * (len(every) + 1) + 0.9, high + 2.7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[high, 2.7])
    name = study.series[against].label if against != "clean" else "clean" if clean is not None else "clean\n(not kept)"
    lumas = [[_luma(first(at(s, mine[s.name], v))) for s in every] for v in wanted]
    _maps(above, [label(s) if s.points else s.label + NOT_RUN for s in every], lumas, name, references, wanted)
    panels = below.subplots(1, len(wanted), squeeze=False)[0]
    for axes, v in zip(panels, wanted, strict=True):
        _curves(axes, study, every, mine, v, clean)
    panels[0].set_ylabel("power, dB")
    below.supxlabel("spatial frequency, cycles a pixel", fontsize=9)
    if panels[0].lines:
        panels[0].legend(loc="upper right", fontsize=8)
    return figure


def log_magnitude(y: np.ndarray) -> np.ndarray:
    """Return log(1 + |FFT|) of a luma (H, W), the frequency 0 in the middle."""
    return np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(y))))


def radial(y: np.ndarray, bins: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return (frequency, power): the mean power spectral density of a luma in rings up to 1/2 cycle a pixel.

    The frequency is that of a ring's middle; the frequency 0, the mean brightness, is in none.
    """
    power = psd(y[None])[0].ravel()
    f = np.sqrt(_squared(y).ravel())
    bins = min(bins, max(2, min(y.shape) // 2))     # each ring has values
    edges = np.linspace(0, 0.5, bins + 1)
    ring = np.digitize(f, edges, right=True)        # (a, b]; 0 is the frequency 0
    total, n = np.bincount(ring, power, bins + 2), np.bincount(ring, minlength=bins + 2)
    return (edges[1:] + edges[:-1]) / 2, total[1:bins + 1] / np.maximum(n[1:bins + 1], 1)


def high_energy(y: np.ndarray) -> float:
    """Return the part of a luma's energy, its mean brightness left out, above half the Nyquist frequency."""
    power, f = psd(y[None])[0], _squared(y)
    rest = power[f > 0].sum()
    return float(power[f > 0.25 ** 2].sum() / rest) if rest else 0.0


def _maps(figure: SubFigure, titles: Sequence[str], lumas: Sequence[Sequence], name: str, references: Sequence,
          wanted: Sequence[float]) -> None:
    """Draw two rows a sparsity: spectra, the reference's first, and below them what each has more or less than it."""
    grid = figure.subplots(2 * len(wanted), len(titles) + 1, squeeze=False)
    logs = [[None if y is None else log_magnitude(y) for y in row] for row in lumas]
    beside = [None if y is None else log_magnitude(y) for y in references]
    differences = [[m - r if m is not None and r is not None and m.shape == r.shape else None for m in row]
                   for row, r in zip(logs, beside, strict=True)]
    top = max((m.max() for row in logs for m in row if m is not None), default=1)
    most = max((np.quantile(np.abs(d), 0.995) for row in differences for d in row if d is not None), default=0) or 1
    shown = None
    for i, v in enumerate(wanted):
        spectra, below = grid[2 * i], grid[2 * i + 1]
        _map(spectra[0], beside[i], "magma", 0, top, _energy(references[i]), "" if i else name, f"{percent(v)} removed")
        _map(below[0], None, "magma", 0, top, "", "", f"minus\n{name}")
        for j, title in enumerate(titles):
            _map(spectra[j + 1], logs[i][j], "magma", 0, top, _energy(lumas[i][j]), "" if i else title, "")
            shown = _map(below[j + 1], differences[i][j], "RdBu_r", -most, most, "", "", "") or shown
    if shown is not None:
        bar = figure.colorbar(shown, ax=grid.ravel().tolist(), shrink=0.6, aspect=40, pad=0.01)
        bar.set_label(f"log magnitude, less (blue) or more (red) than {name}", fontsize=8)
        bar.outline.set_visible(False)


def _squared(y: np.ndarray) -> np.ndarray:
    """Return the squared frequency of each value of a `psd`, in cycles a pixel; the shifted zero is at n // 2."""
    return np.add.outer(*(np.fft.fftshift(np.fft.fftfreq(n)) ** 2 for n in y.shape))


def _luma(point: Point | None) -> np.ndarray | None:
    file = restored(point) if point else None
    return None if file is None else luma(read(file))


def _clean(point: Point | None) -> np.ndarray | None:
    """Return the luma of a run's clean picture; None if it is not known, or kept only at a smaller size."""
    clean, made = given(point).get("clean") if point else None, _luma(point)
    return None if clean is None or made is None or clean.shape[:2] != made.shape else luma(clean)


def _energy(y: np.ndarray | None) -> str:
    return "" if y is None else f"{100 * high_energy(y):.2g} % high"


def _map(axes, values, cmap: str, low: float, high: float, below: str, title: str, side: str):
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("none")
    axes.set_xlabel(below, fontsize=8, labelpad=2)
    if title:
        axes.set_title(title, fontsize=8.5, color=FAINT if title.endswith(NOT_RUN) else INK)
    axes.set_ylabel(side, fontsize=8.5)
    return None if values is None else image(axes, values, cmap=cmap, vmin=low, vmax=high)


def _curves(axes, study: Study, every: Sequence[Series], mine: Mapping, sparsity: float, clean) -> None:
    known = list(study.series)
    if clean is not None:
        f, power = radial(clean)
        axes.plot(f, decibels(power), **LEVEL, label="clean")
    for s in every:
        lumas = [y for y in map(_luma, at(s, mine[s.name], sparsity)) if y is not None]
        if not lumas:
            continue
        f, _ = radial(lumas[0])
        table = np.array([decibels(radial(y)[1]) for y in lumas if y.shape == lumas[0].shape])
        look = style(known, s.name)
        axes.plot(f, table.mean(0), **look.line | {"markersize": 3.5}, markevery=4, label=s.label, gid=f"line-{s.name}")
        if len(table) > 1:
            sd = table.std(0, ddof=1)
            axes.fill_between(f, table.mean(0) - sd, table.mean(0) + sd, color=look.color, alpha=0.18, linewidth=0)
    axes.set_title(f"{percent(sparsity)} removed")
