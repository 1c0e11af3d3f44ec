"""Replay the tickets of an earlier run, on the same or another picture, task and seed."""
from torch import nn

from lipfw.errors import InputError, choice
from lipfw.listing import tickets_in
from lipfw.mask import Mask
from lipfw.pruner.pruner import Loss, Pruner, Schedule
from lipfw.ticket import Ticket


class Replay(Pruner):
    """One round for each ticket that `path` names: a file, or a run with its tickets.

    `init="ticket"` starts from the weights stored with the tickets (the winning ticket), "fresh" from the run's own
    (the mask alone). Raises InputError for a ticket of another architecture, naming the first tensor that does not fit.
    """

    def __init__(self, path: str, init: str = "ticket"):
        self.init = choice("pruner.init", init, ("ticket", "fresh"))
        self.paths = tickets_in(path)
        self.tickets = [Ticket.load(p) for p in self.paths]
        self.schedule = Schedule([t.mask.density for t in self.tickets])

    def prepare(self, network: nn.Module) -> None:
        """Check the tickets against the network, and load their initial weights if they are to be used."""
        for path, ticket in zip(self.paths, self.tickets, strict=True):
            try:
                ticket.mask.check(network)
            except ValueError as e:
                raise InputError(f"{path} belongs to another network: {e}; use the prior it was found with: "
                                 f"{ticket.about.get('architecture', 'not recorded')}") from None
        if self.init == "ticket":
            network.load_state_dict(self.tickets[0].initial(self.paths[0]))

    def prune(self, network: nn.Module, loss: Loss, count: int, within: Mask | None, round_: int) -> Mask:
        """Return the stored mask of a round."""
        return self.tickets[round_].mask
