"""What a kind of run brings to `run`: its module, its rounds, its callbacks and its results."""
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from rich.table import Table

from lipfw.fit.rounds import IterativePruning
from lipfw.fit.stepped import Stepped
from lipfw.prior.isnas import Search
from lipfw.records import Records


class Job(ABC):
    """A run whose parts are made and checked against each other; nothing is written yet.

    `title` says what is fitted, `about` what its tickets tell of their origin besides what every run's do; `large`
    pictures gain from an allocator that keeps freed memory. Where `search` is not None another network is to be chosen
    first, by what `search.choose` does; `found` is its record.
    """

    module: Stepped
    pruning: IterativePruning
    title: str
    about: dict[str, str]
    large: bool = False
    search: Search | None = None
    found: dict | None = None

    def callbacks(self) -> Sequence[pl.Callback]:
        """Return callbacks that come before the rounds' own."""
        return []

    @abstractmethod
    def recorder(self, folder: Path, about: dict[str, str]) -> Records:
        """Return what writes the run's files as it goes."""

    @abstractmethod
    def finish(self, folder: Path, recorder: Records, rounds: list[dict], best: int) -> dict:
        """Write what a finished run leaves, and return what its result has besides the rounds."""

    @abstractmethod
    def table(self, result: dict) -> Table:
        """Return the rounds as a table for the terminal."""

    @abstractmethod
    def closing(self, folder: Path, result: dict) -> str:
        """Return the last lines of the run."""
