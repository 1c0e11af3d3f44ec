"""How far many runs have come together, and how long they will still take."""
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lipfw.grid.state import State
from lipfw.status.listed import Listed
from lipfw.status.read import Standing

Row = tuple[Listed, Standing]


@dataclass(frozen=True)
class Forecast:
    """`share` of all work is done, by time if that is known, else by runs. `seconds` are left (None: not known).

    So many runs are `at_once` at work now; with none of them `seconds` are those of one run after another.
    """

    share: float
    seconds: float | None
    at_once: int


def forecast(rows: Sequence[Row]) -> Forecast:
    """Return what is to be expected of runs: that those to come take as long as those alike, and are as many at once.

    To come are a grid's cells that wait or have stopped. What has failed is left out, and single runs that have
    stopped: nobody may start them again.
    """
    known: dict[str, list[float]] = {}
    for run, standing in rows:
        if (seconds := _whole(standing)) is not None:
            known.setdefault(run.alike, []).append(seconds)
    typical = {alike: fmean(values) for alike, values in known.items()}
    average = fmean(s for values in known.values() for s in values) if known else None
    weights, done, left, unknown = 0.0, 0.0, [], False
    running = [s for _, s in rows if s.state is State.RUNNING]
    for run, s in rows:
        if not counts(run, s):
            continue
        whole = _whole(s)
        whole = typical.get(run.alike, average) if whole is None else whole
        share = s.share or 0.0
        weights += whole or 1.0
        done += (whole or 1.0) * share
        if s.state in (State.RUNNING, State.STOPPED, State.WAITING):
            rest = s.left if s.left is not None else whole * (1 - share) if whole is not None else None
            unknown |= rest is None
            left.append(rest or 0.0)
    longest = max((s.left or 0.0 for s in running), default=0.0)
    seconds = None if unknown else max(longest, sum(left) / max(1, len(running)))
    return Forecast(done / weights if weights else 0.0, seconds, len(running))


def counts(run: Listed, standing: Standing) -> bool:
    """Return whether a run is part of the work: a grid's, or one that is done or at work whoever has started it."""
    return run.kind == "cell" or standing.state in (State.DONE, State.RUNNING)


def over(rows: Sequence[Row]) -> bool:
    """Return whether nothing is left that anybody may work at: all runs are done or have failed."""
    return not any(s.state is State.RUNNING or run.kind != "earlier" and s.state in (State.STOPPED, State.WAITING)
                   for run, s in rows)


def _whole(standing: Standing) -> float | None:
    """Return the seconds that a run takes in all, as far as it tells itself."""
    if standing.state is State.DONE:
        return standing.seconds
    if standing.left is not None and standing.seconds is not None:
        return standing.seconds + standing.left
    return None
