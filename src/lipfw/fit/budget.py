"""How long a round may take."""
import time
from collections.abc import Callable


class Budget:
    """The seconds of a round, counted from its first step on, while its process is there.

    `seconds` is the limit, None for none. What a round had used when it was interrupted is `used`: it is kept in the
    checkpoint. `clock` tells the time in seconds, from any start.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic):
        self.seconds, self.clock = seconds, clock
        self.restart()

    def restart(self, used: float = 0.0) -> None:
        """Begin a round, or go on with one that has used so many seconds; the clock runs from the next `start` on."""
        self._used, self._since = used, None

    def start(self) -> None:
        """Let the clock run, if it does not."""
        if self._since is None:
            self._since = self.clock()

    @property
    def used(self) -> float:
        """Seconds of this round."""
        return self._used + (0.0 if self._since is None else self.clock() - self._since)

    @property
    def over(self) -> bool:
        """The round has no time left."""
        return self.seconds is not None and self.used >= self.seconds
