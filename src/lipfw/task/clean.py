"""No degradation: the network is fitted to the picture as it is."""
from lipfw.image.picture import Picture
from lipfw.problem import Problem
from lipfw.task.operators import Identity


class Clean:
    """y = x."""

    def __call__(self, picture: Picture) -> Problem:
        """Return the problem of one picture; one that is degraded has no clean version to score against."""
        x = picture.pixels
        return Problem(picture.name, tuple(x.shape[1:]), Identity(), x, None if picture.degraded else x)
