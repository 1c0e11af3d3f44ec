"""Timing in turns: contenders run one after another in every turn, and only ratios within a turn are kept.

A shared machine drifts by tens of per cent within minutes, so a single time means little. The order is reversed every
other turn, so that a steady drift favours nobody.
"""
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Runner = Callable[[int], float]     # does so many steps, returns the seconds that they took

MOST_STEPS = 10     # lipfw takes its metrics every tenth step: a whole sample holds them once


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Return how long a piece of work takes: by events on a GPU, by the wall clock elsewhere."""
    if device == "cuda":
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        work()
        after.record()
        after.synchronize()
        return before.elapsed_time(after) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sampler(run: Runner, seconds: float) -> Callable[[], float]:
    """Return a function that takes one sample, the seconds of a step: the mean over 1 to 10 of them.

    As many steps as fill `seconds`; the first ones, which pay for memory, kernels and calibration, are not counted.
    """
    run(2)
    steps = min(MOST_STEPS, max(1, round(seconds / run(1))))
    return lambda: run(steps) / steps


def in_turns(samplers: Mapping[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Return the samples of each contender, one a turn."""
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for turn in range(turns):
        for name in list(samplers)[::-1 if turn % 2 else 1]:
            samples[name].append(samplers[name]())
    return samples


@dataclass(frozen=True)
class Ratio:
    """Median of the ratios of all turns, with their quartiles (the extremes, of fewer than 5 turns)."""

    median: float
    low: float
    high: float
    pairs: int


def ratio(over: list[float], under: list[float]) -> Ratio:
    """Return the ratio of two contenders' samples, turn by turn: of times, how many times faster the second is.

    >>> ratio([2.0, 3.0, 5.0], [1.0, 1.0, 1.0])
    Ratio(median=3.0, low=2.0, high=5.0, pairs=3)
    """
    each = [a / b for a, b in zip(over, under, strict=True)]
    low, high = min(each), max(each)
    if len(each) >= 5:
        low, _, high = statistics.quantiles(each, n=4, method="inclusive")
    return Ratio(statistics.median(each), low, high, len(each))
