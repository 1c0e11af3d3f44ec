"""How all figures look: colours that colour-blind people and a grey printer tell apart, type, axes, legends."""
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lipfw.report.figure.words import NOT_RUN, count

INK, FAINT, GRID, PAPER = "#1b1d20", "#6a6f76", "#dfe2e6", "#fefefe"   # each its own: a page swaps them in the dark
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)     # Okabe and Ito, 2008
MARKERS = "os^DvPX*"
LINES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)))
WIDE, NARROW = 7.2, 3.7         # inches: of a page's column, and of a phone

_THEME = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 9,
    "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8.5, "legend.frameon": False,
    "axes.titlelocation": "left", "axes.edgecolor": FAINT, "axes.labelcolor": INK, "text.color": INK,
    "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "axes.grid": True, "grid.color": GRID,
    "grid.linewidth": 0.6, "axes.axisbelow": True, "xtick.major.size": 3, "ytick.major.size": 3,
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "lines.linewidth": 1.6,
    "lines.markersize": 4.5, "figure.constrained_layout.h_pad": 0.06, "figure.constrained_layout.w_pad": 0.05,
    "svg.fonttype": "none", "svg.hashsalt": "lipfw", "axes.unicode_minus": True,
    "text.parse_math": False,       # a label may have a $ in it
}
@dataclass(frozen=True)
class Style:
    """Colour, marker and line of a series: any one of them tells it from its neighbours."""

    color: str
    marker: str
    linestyle: object

    @property
    def line(self) -> dict:
        """Arguments of `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.linestyle, "markeredgecolor": PAPER,
                "markeredgewidth": 0.6}


LEVEL = {"color": INK, "linestyle": (0, (4, 2)), "linewidth": 1.2}      # of the dense network


def style(names: Sequence[str], name: str) -> Style:
    """Return the style of the series `name` among all `names` of a study: the same in each of its figures."""
    i = list(names).index(name)
    return Style(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], LINES[i % len(LINES)])


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """Have what is drawn or written inside look like all figures, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_THEME)
        yield


def panels(number: int, narrow: bool, height: float = 2.5, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with `number` panels in reading order: side by side, or one below the other on a phone.

    With `rows` the panels stand in so many rows that belong together, each of `number` / `rows` columns; on a phone a
    column's rows follow each other.
    """
    across = number // rows
    if narrow:
        columns, down = 1, number
    elif rows > 1:
        columns, down = across, rows
    else:
        columns = 1 if number == 1 else 2 if number in (2, 4) else 3
        down = -(-number // columns)
    tall = height + 0.6 if number == 1 and not narrow else height
    figure = Figure(figsize=(NARROW if narrow else max(WIDE, 2.2 * columns), tall * down + 0.5), layout="constrained")
    made = [figure.add_subplot(down, columns, i + 1) for i in range(number)]
    if narrow and rows > 1:
        made = [made[(i % across) * rows + i // across] for i in range(number)]
    return figure, made


def params_axis(axes: Axes) -> None:
    """Make the x axis one of parameters, logarithmic, with the dense network on the left."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(count))
    axes.xaxis.set_inverted(True)


def loss_axis(axes: Axes) -> None:
    """Make the y axis one of a loss: logarithmic where what was drawn spans a decade, with plain numbers."""
    values = [v for line in axes.lines for v in line.get_ydata() if v > 0]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def image(axes: Axes, pixels, **options):
    """Draw a picture or map: single pixels to be seen of a small one, a large one made as small as it stands there."""
    return axes.imshow(pixels, interpolation="none" if max(pixels.shape[:2]) <= 128 else "antialiased", **options)


def legend(figure: Figure, handles: Sequence, labels: Sequence[str], narrow: bool) -> None:
    """Put one legend above all panels."""
    if handles:
        longest = max(map(len, labels))
        room = 46 if narrow else 100
        columns = max(1, min(len(labels), room // (longest + 6)))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=2.6, columnspacing=1.4,
                      borderaxespad=0.2, handletextpad=0.6)


def absent(label: str) -> tuple[Line2D, str]:
    """Return the legend's handle and text of a series without any result."""
    return Line2D([], [], color=FAINT, linewidth=0.8, linestyle=(0, (1, 3))), label + NOT_RUN
