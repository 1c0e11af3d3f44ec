"""Spell the command line for Hydra 1.3: flags first, and A..B ranges as Hydra's own."""
import re
from pathlib import Path

from lipfw.errors import InputError
from lipfw.yamlfile import text_of

typed: list[str] = []       # the arguments of this process's command, as the user gave them

_SPAN = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
               "--experimental-rerun", "--info", "-i", "--shell-completion", "-sc"}
_PATHS = {"image.path", "task.mask", "task.measurement", "task.operator", "task.kernel", "prior.network", "pruner.path",
          "out"}
_SHOWS = {"--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--shell-completion", "-sc"}
_CHOICES = {"--info", "-i"}     # the value may be left out
_OF_STUDY = ("scale", "name", "out", "max_failures")    # options of an experiment of several stages, not of its runs


def expand(override: str) -> str:
    """Return an override with its A..B and A..B..STEP spans written out; both ends belong to the span.

    >>> expand("seed=0..9"), expand("seed=0..3,7")
    ('seed=range(0,10,1)', 'seed=0,1,2,3,7')
    """
    key, _, value = override.partition("=")
    items = value.split(",")
    spans = [_SPAN.fullmatch(i) for i in items]
    if not any(spans):
        return override
    out = []
    for item, m in zip(items, spans, strict=True):
        if m is None:
            out.append(item)
            continue
        first, last, step = int(m[1]), int(m[2]), int(m[3] or 1)
        if step == 0:
            raise InputError(f"{override}: the step of a range must be at least 1, got 0")
        sign = -1 if first > last else 1
        if len(items) == 1:     # short in multirun.yaml
            return f"{key}=range({first},{last + sign},{sign * step})"
        out += map(str, range(first, last + sign, sign * step))
    return f"{key}={','.join(out)}"


def normalise(argv: list[str], experiments: Path | None = None) -> list[str]:
    """Return the arguments as Hydra 1.3 takes them. Raises InputError for a span without -m.

    Hydra's parser refuses overrides on both sides of a flag (`a=1 -m b=2`), so flags go first. `experiments` is
    searched for the config that -cn names.

    >>> normalise(["task=denoise", "-m", "seed=0..1"])
    ['-m', 'task=denoise', 'seed=range(0,2,1)']
    """
    flags, overrides, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        if word in _WITH_VALUE:
            flags.append(word)
            if rest and not (word in _CHOICES and ("=" in rest[0] or rest[0].startswith("-"))):
                flags.append(rest.pop(0))
        elif word.startswith("-"):
            flags.append(word)
        else:
            overrides.append(word)
    study = _names_study(flags, experiments)
    if study and not _SHOWS & set(flags) and not {"-m", "--multirun"} & set(flags):
        flags.append("--multirun")
    multirun = any(f in ("-m", "--multirun") for f in flags) or any(o.startswith("hydra.mode=") for o in overrides)
    for old in overrides:
        if re.match(r"\+*(hydra/launcher=|hydra\.launcher\.|max_failures=(?!null))", old) and not (
                multirun or _SHOWS & set(flags)):
            raise InputError(f"{old} is for a grid of several runs: add -m, or leave it out")
        if expand(old) != old and not multirun:
            key, _, value = old.partition("=")
            raise InputError(f"{old} asks for several runs: add -m to start them all, or quote it, "
                             f"{key}=\"'{value}'\", to pass the text itself")
    overrides = [_quoted(expand(o), multirun) for o in overrides]
    if multirun:
        swept = {key for key, _, value in (o.partition("=") for o in overrides) if "." not in key and _several(value)}
        overrides = [_each(o) if o.partition(".")[0] in swept else o for o in overrides]
        if study:       # what its stages have and the study's own config does not
            overrides = [o if o.partition("=")[0] in _OF_STUDY or o.startswith("hydra") else _of_stages(o)
                         for o in overrides]
    if experiments is not None and not {"-cp", "--config-path"} & set(flags):
        flags, overrides = _with_experiments(flags, overrides, experiments)
    return flags + overrides


def _names_study(flags: list[str], experiments: Path | None) -> bool:
    """Return whether -cn names an experiment of several stages."""
    named = next((flags[i + 1] for i, f in enumerate(flags[:-1]) if f in ("-cn", "--config-name")), None)
    own = next((flags[i + 1] for i, f in enumerate(flags[:-1]) if f in ("-cd", "--config-dir")), None)
    if named is None:
        return False
    for folder in (experiments, own):
        file = folder and Path(folder) / f"{named.removesuffix('.yaml')}.yaml"
        if file and file.is_file():
            return re.search(r"^study:", text_of(file), re.M) is not None
    return False


def _of_stages(override: str) -> str:
    """Return an option as one that Hydra leaves to the runs, so that the study's own config need not have it."""
    key, eq, value = override.partition("=")
    return override if not eq or _several(value) else f"{key}=choice({value})"


def _each(override: str) -> str:
    """Return an option of a group that is swept as one for each of the runs.

    Hydra first composes a config without the groups that are swept, and it is in vain to look for their options there.

    >>> _each("pruner.sparsities=[0.2,0.5]")
    'pruner.sparsities=choice([0.2,0.5])'
    """
    key, eq, value = override.partition("=")
    return override if "." not in key or not eq or _several(value) else f"{key}=choice({value})"


def _several(value: str) -> bool:
    """Return whether a value stands for several runs: a,b or one of Hydra's functions.

    >>> [_several(v) for v in ("a,b", "range(0,3,1)", "[0.2,0.5]", "'a,b'", "{a:1,b:2}", "7")]
    [True, True, False, False, False, False]
    """
    if re.match(r"(choice|range|interval|glob|tag|sort|shuffle)\(", value):
        return True
    bare = re.sub(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", "", value)
    while (inner := re.sub(r"\[[^\[\]]*\]|\{[^{}]*\}|\([^()]*\)", "", bare)) != bare:
        bare = inner
    return "," in bare


def _quoted(override: str, multirun: bool) -> str:
    """Quote the value of an option that names a file: Hydra's grammar has no place for ü, ~, brackets or apostrophes.

    >>> print(_quoted("image.path=~/a (1).png", False))
    image.path='~/a (1).png'
    """
    key, eq, value = override.partition("=")
    several = multirun and ("," in value or "(" in value)       # a sweep over files
    if key not in _PATHS or not value or value[0] in "'\"" or several or value in ("null", "???"):
        return override
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _with_experiments(flags: list[str], overrides: list[str], experiments: Path) -> tuple[list[str], list[str]]:
    """Make `experiments` Hydra's --config-dir; a folder that the user gave there stays searched for options.

    Only --config-dir is searched for the config that -cn names, and there can be one: the user's own, if that config
    is not an experiment.
    """
    own = next((i for i, f in enumerate(flags) if f in ("-cd", "--config-dir")), None)
    if own is None:
        return ["--config-dir", str(experiments), *flags], overrides
    named = next((flags[i + 1] for i, f in enumerate(flags[:-1]) if f in ("-cn", "--config-name")), "")
    if not (experiments / f"{named.removesuffix('.yaml')}.yaml").is_file():
        return flags, overrides
    folder = Path(flags[own + 1]).absolute()
    flags = [*flags[:own], "--config-dir", str(experiments), *flags[own + 2:]]
    return flags, [*overrides, f"hydra.searchpath=[file://{folder}]"]
