"""Where the tickets that a run replayed were found, as its result.json tells."""
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """The tickets of one earlier run that were replayed.

    `label` is that run's <task>-<image>-<prior>-<pruner>, `options` a hash of its options without the seeds, `run` the
    name of its folder. `rounds` are those that found the tickets, in the order of the replay, `sparsities` in [0, 1).
    """

    label: str
    options: str
    seed: int
    run: str
    rounds: tuple[int, ...]
    sparsities: tuple[float, ...]


def origins(result: Mapping) -> list[Origin]:
    """Return the origins that a result tells, one a run that found tickets.

    [] for a run that replayed none, and where one ticket's origin is not told: older runs and tickets do not.
    """
    found: dict[tuple, list[tuple[int, float]]] = {}
    try:
        for f in (ticket["found"] for ticket in result.get("tickets") or ()):
            key = f["label"], f["options"], int(f["seed"]), f["run"]
            if not all(isinstance(k, str) and k for k in (key[0], key[1], key[3])):
                return []
            found.setdefault(key, []).append((int(f["round"]), float(f["sparsity"])))
    except (KeyError, TypeError, ValueError):
        return []
    return [Origin(*key, *zip(*tickets, strict=True)) for key, tickets in found.items()]


def spans(numbers: Iterable[int]) -> str:
    """Return whole numbers as a command line takes them, each once.

    >>> spans([0, 1, 2, 7]), spans([3, 5, 4, 5]), spans([2, 1])
    ('0..2,7', '3..5', '1,2')
    """
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ",".join(f"{r[0]}..{r[-1]}" if len(r) > 2 else ",".join(map(str, r)) for r in runs)
