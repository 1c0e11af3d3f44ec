"""What a person sees of a grid: its size, a line for each run that ends, and at the end what became of all."""
import json
import sys
from pathlib import Path

from lipfw.grid.cells import Cell
from lipfw.words import spoken


class Tally:
    """Counts what becomes of the cells of a grid, and tells it.

    `errors` has the first line of each failure by its cell's number. With `tells` false the runs tell their own ends.
    """

    def __init__(self, total: int, tells: bool):
        self.total, self.tells = total, tells
        self.skipped = self.done = self.halted = self.same = 0      # same: cells that are the same run as one before
        self.errors: dict[int, str] = {}
        self._failed: list[tuple[Cell, str, str | None]] = []
        self._to_do, self._waits = 0, 0

    def begin(self, how: str, to_do: int) -> None:
        """Tell how many runs there are to do, and how they will be done."""
        self._to_do = to_do
        before = f", {self.skipped} finished before" if self.skipped else ""
        same = f", {self.same} asked for twice" if self.same else ""
        _tell(f"grid of {_runs(self.total)}{before}{same}: {to_do} to do, {how}")

    def end_done(self, cell: Cell, seconds: float) -> None:
        """Count a run that has its result."""
        self.done += 1
        said = [w for w in (headline(cell.folders[0]), spoken(seconds)) if w]
        self._one("done", f"{_names(cell)}: {', '.join(said)}")

    def end_failed(self, number: int, cell: Cell, error: str, log: str | None) -> None:
        """Count a run that ended by an error, of which the first line is given."""
        self.errors[number] = error
        self._failed.append((cell, error, log))
        self._one("FAILED", f"{_names(cell)}: {error}")

    def end_stopped(self, cell: Cell) -> None:
        """Count a run that was stopped on request, with its state kept."""
        self.halted += 1
        self._one("stopped", _names(cell))

    def elsewhere(self, count: int) -> None:
        """Tell, when it changes, that nothing is left but what other processes are at."""
        if count != self._waits:
            _tell(f"waiting for {_runs(count)} that another process is at")
        self._waits = count

    def end(self, reason: str | None) -> None:
        """Tell what has become of all runs, and of each that failed where it lies and why."""
        left = self.total - self.same - self.skipped - self.done - self.halted - len(self.errors)
        counts = [(self.done, "done"), (self.skipped, "skipped, finished before"), (len(self.errors), "failed"),
                  (self.halted, "stopped"), (left, "not run")]
        _tell("grid: " + ", ".join(f"{n} {word}" for n, word in counts if n) + (f" ({reason})" if reason else ""))
        for cell, error, log in self._failed:
            _tell(f"  failed: {' '.join(cell.overrides)}\n    {error}")
            for folder in cell.folders:
                _tell(f"    {folder}")
            if log is not None and Path(log).exists():
                _tell(f"    output: {log}")
        if self.halted or left or self.errors:
            _tell("  the same command goes on with what is not done")

    def _one(self, what: str, line: str) -> None:
        if self.tells:
            ended = self.done + self.halted + len(self.errors)
            _tell(f"[{ended}/{self._to_do}] {what} {line}")


def headline(folder: Path) -> str:
    """Return the number that a finished run is known by, "25.61 dB", or "" if it has none."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        psnr = result["rounds"][result["best_round"]].get("psnr_picked")
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return ""
    return f"{psnr:.2f} dB" if psnr is not None else ""


def _names(cell: Cell) -> str:
    more = len(cell.folders) - 1
    return cell.folders[0].name + (f" and {more} more" if more else "")


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"


def _tell(line: str) -> None:
    print(line, flush=True)
    sys.stdout.flush()
