"""When the last of many runs is done, on several machines side by side: a run can't be split."""
import heapq
from collections.abc import Sequence


def makespan(runs: Sequence[tuple[float, int]], slots: int) -> float:
    """Return the wall time of runs, (duration, how many such) each, on `slots` machines that take one at a time.

    The longest first, each on the machine that is free first: at most a third more than the best order would take
    (Graham, 1969), and never less than the longest run or an even share. Runs are taken as independent.

    >>> makespan([(2.0, 3), (1.0, 1)], 2), makespan([(2.0, 3)], 64)
    (4.0, 2.0)
    """
    free: list[float] = []
    for duration, count in sorted(runs, reverse=True):
        for _ in range(count):
            if len(free) < slots:
                heapq.heappush(free, duration)
            else:
                heapq.heapreplace(free, free[0] + duration)
    return max(free, default=0.0)
