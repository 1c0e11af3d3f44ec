"""What the dashboard shows: sections of panels, in the names that runs log."""
from dataclasses import dataclass

GROUP = "cell"      # config: the same for runs that differ in their seeds alone


@dataclass(frozen=True)
class Curve:
    """Numbers over `x`, a line for each group of runs: its mean, in a band of one standard deviation over its seeds.

    `y` are names; or, in their place, those that `pattern` matches, a regular expression.
    """

    title: str
    x: str
    y: tuple[str, ...] = ()
    pattern: str | None = None


@dataclass(frozen=True)
class Pictures:
    """Pictures that runs logged, a row a run, over its rounds."""

    title: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table that each run logged at its end."""

    key: str


@dataclass(frozen=True)
class Bars:
    """A number of each run's summary: the mean of each group and its standard deviation."""

    title: str
    key: str


@dataclass(frozen=True)
class Scatter:
    """Two numbers of the summary, a point a run."""

    title: str
    x: str
    y: str


@dataclass(frozen=True)
class Section:
    """Panels that stand together under a name."""

    name: str
    panels: tuple[Curve | Pictures | Table | Bars | Scatter, ...]


def _over_sparsity(title: str, name: str) -> Curve:
    return Curve(title, "sparsity", (f"rounds/{name}",))


RESTORATION = (
    Section("Quality over sparsity", (
        _over_sparsity("PSNR, picked without the clean picture", "psnr_picked"),
        _over_sparsity("PSNR, best step", "psnr_peak"),
        _over_sparsity("SSIM, picked without the clean picture", "ssim_picked"),
        _over_sparsity("Loss", "loss"),
        _over_sparsity("Picked step", "step_picked"),
        _over_sparsity("Seconds a round", "seconds"),
    )),
    Section("Chosen tickets", (
        Bars("PSNR of the chosen round", "best/psnr_picked"),
        Bars("Sparsity of the chosen round", "best/sparsity"),
        Scatter("PSNR over parameters left, of the chosen round", "best/params_left", "best/psnr_picked"),
        Table("tickets"),
    )),
    Section("Layers", (Curve("Sparsity of each layer", "sparsity", pattern="^layers/"),)),
    Section("Pictures", (
        Pictures("Restored, round by round", ("restored",)),
        Pictures("Clean, degraded, restored, error", ("compare",)),
    )),
    Section("Steps", (
        Curve("PSNR", "steps/iteration", ("steps/psnr",)),
        Curve("SSIM", "steps/iteration", ("steps/ssim",)),
        Curve("Loss", "steps/iteration", ("steps/loss",)),
        Curve("Variance of the last outputs", "steps/iteration", ("steps/variance",)),
    )),
)
TRAINING = (
    Section("Trained generators", (
        _over_sparsity("Distance of made and real pictures, in 1/1000", "swd"), Pictures("Samples", ("samples",)))),
    Section("Classifiers", (_over_sparsity("Accuracy at the end", "accuracy"),
                            _over_sparsity("Best accuracy", "accuracy_best"))),
)
SECTIONS = (*RESTORATION, *TRAINING)
COLUMNS = ("config:cell", "config:seed", "summary:degraded/psnr", "summary:best/psnr_picked", "summary:best/psnr_peak",
           "summary:best/sparsity", "summary:best/params_left")     # beside the names of the runs
