"""Runs and where they stand -> a table that fits the terminal, and what they come to."""
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lipfw.grid.state import State
from lipfw.status.forecast import Row, counts, forecast
from lipfw.status.read import Standing
from lipfw.words import spoken

FULL = 40       # runs that have a row each
_GROUPS = 20    # rows of runs that differ in their seeds alone; beyond, a row a state
_BELOW = 10     # lines of a terminal that are kept for what stands around the rows
_STYLES = {State.DONE: "green", State.RUNNING: "bold", State.FAILED: "bold red", State.STOPPED: "magenta",
           State.WAITING: "dim"}
_IN_FULL = (State.RUNNING, State.FAILED)
_LEAST = 12     # columns of a label


def view(rows: Sequence[Row], width: int, everything: bool = False, height: int | None = None) -> Group:
    """Return what is shown of runs in `width` columns, and in about `height` lines if that is given.

    With more than FULL runs, or than there are lines, those that are not at work and have not failed share rows; with
    `everything` each run has its own, whatever the height.
    """
    most = FULL if height is None else max(1, min(FULL, height - _BELOW))
    grouped = len(rows) > most and not everything
    single, hidden, lines = rows, [], []
    if grouped:     # the terminal is no place for hundreds of rows
        single, others = ([r for r in rows if (r[1].state in _IN_FULL) is full] for full in (True, False))
        single, hidden = single[:most], single[most:]
        lines = _summaries(others, most - len(single))
    more = Counter(s.state for _, s in hidden)
    lines = [*(_line(f"... and {more[state]:,} more", Standing(state)) for state in _IN_FULL if more[state]), *lines]
    lines = [*(_line(run.label, s) for run, s in single), *lines]
    measures = sorted({s.measure for _, s in rows if s.quality is not None})
    hosts = len({s.host for _, s in rows if s.host}) > 1
    failures = len(rows) if everything else 5 if height is None else max(0, (height - len(lines) - 5) // 4)
    return Group(_table(lines, "/".join(measures) or "PSNR", hosts, width), *_below(rows, failures))


def _line(label: str, s: Standing) -> tuple[str, State, list[str], Standing]:
    rounds = "" if s.rounds is None else f"{s.rounds}/{'?' if s.planned is None else s.planned}"
    share = "ended" if s.state is State.DONE and s.reason else "" if s.share is None else f"{int(100 * s.share)}%"
    left = spoken(s.left) if s.state is State.RUNNING and s.left is not None else ""
    return label, s.state, [rounds, share, "" if s.quality is None else f"{s.quality:.2f}", left], s


def _summaries(rows: Sequence[Row], most: int) -> list[tuple[str, State, list[str], Standing]]:
    """Return a line for each group of runs in the same state that differ in their seeds alone: their number and mean.
    """
    groups: dict[tuple[State, str], list[Row]] = {}
    for state in (State.STOPPED, State.WAITING, State.DONE):
        for row in rows:
            if row[1].state is state:
                groups.setdefault((state, row[0].alike), []).append(row)
    if len(groups) > min(_GROUPS, most):
        groups = {(state, ""): [r for r in rows if r[1].state is state] for state, _ in groups}
    out = []
    for (state, alike), members in groups.items():
        known = [s.quality for _, s in members if s.quality is not None]
        share = fmean(s.share or 0.0 for _, s in members)
        label = f"{len(members):,} {'x ' + alike if alike else 'runs'}"
        mean = Standing(state, quality=fmean(known) if known and alike else None, measure=members[0][1].measure,
                        share=share if share else None)
        out.append(_line(label, mean))
    return out


def _table(lines: Sequence[tuple], quality: str, hosts: bool, width: int) -> Table:
    """Return the table; labels have the columns that the rest leaves, and are cut in the middle."""
    heads = ["run", "state", "rounds", "done", quality, "left", *(["host"] if hosts else [])]
    cells = []
    for label, state, numbers, s in lines:
        cells.append([label, str(state), *numbers, *([(s.host or "")[:16]] if hosts else [])])
    used = [i for i in range(len(heads)) if i < 2 or any(c[i] for c in cells)]
    rest = sum(1 + max(len(heads[i]), *(len(c[i]) for c in cells)) for i in used[1:])
    room = max(_LEAST, width - rest)
    out = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for i in used:
        out.add_column(heads[i], justify="right" if 2 <= i <= 5 else "left", no_wrap=True, overflow="crop",
                       max_width=room if i == 0 else None)
    for c, (_, state, _, _) in zip(cells, lines, strict=True):
        style = _STYLES[state]
        out.add_row(*(Text(cut(c[i], room) if i == 0 else c[i], style=style if i == 1 or state is State.WAITING else "")
                      for i in used))
    return out


def _below(rows: Sequence[Row], most: int) -> list[Text | Padding]:
    """Return the lines below the table: counts, how far all have come, what failed and why."""
    states = Counter(s.state for _, s in rows)
    counted = ", ".join(f"{states[state]:,} {state}" for state in State if states[state])
    lines = [Text(f"{len(rows):,} run{'s' * (len(rows) != 1)}: {counted}", style="bold")]
    if any(counts(run, s) and s.state not in (State.DONE, State.FAILED) for run, s in rows):
        lines.append(Text(_outlook(rows)))
    failures = [(run, s) for run, s in rows if s.state is State.FAILED]
    for run, s in failures[:most]:
        lines.append(Text(f"failed: {run.label}", style=_STYLES[State.FAILED]))
        told = [(s.reason or "").split("\n")[0], str(run.folder), *([f"output: {run.log}"] if run.log.exists() else [])]
        lines += [Padding(Text(line, overflow="fold"), (0, 0, 0, 2), expand=False) for line in told]
    if len(failures) > most:
        lines.append(Text(f"... and {len(failures) - most:,} more have failed: --all names them"))
    tried = [run for run, s in rows if s.state is State.WAITING and run.log.exists()]
    if tried and not states[State.RUNNING]:
        lines.append(Text(f"{len(tried):,} waiting now {'were' if len(tried) > 1 else 'was'} started before and left "
                          f"nothing; see {tried[0].log}"))
    early = [s.reason for _, s in rows if s.state is State.DONE and s.reason]
    if early:
        lines.append(Text(f"{len(early):,} ended before their last round, the first: {early[0]}"))
    return lines


def _outlook(rows: Sequence[Row]) -> str:
    told = forecast(rows)
    done = f"{int(100 * told.share)}% of all work done"
    if told.seconds is not None and told.at_once:
        return f"{done}; about {spoken(told.seconds)} left with {told.at_once} at once, at this pace"
    if told.at_once:
        return f"{done}; the time left is not known yet"
    return f"{done}; nothing is running" + (f": about {spoken(told.seconds)} left, one by one" if told.seconds else "")


def cut(text: str, room: int) -> str:
    """Return a text in so many columns, without its middle if it is longer.

    >>> cut("pruner=random_layerwise seed=3", 20)
    'pruner=ra...e seed=3'
    """
    if len(text) <= room:
        return text
    end = (room - 3) // 2
    return f"{text[:room - 3 - end]}...{text[len(text) - end:]}"
