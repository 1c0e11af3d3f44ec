"""No pruning."""
from lipfw.pruner.pruner import Pruner


class Dense(Pruner):
    """One fit of the whole network."""
