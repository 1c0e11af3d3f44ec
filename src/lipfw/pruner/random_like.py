"""Random tickets with the layer-wise ratios of found ones: is it only the ratios that matter?"""
from torch import nn

from lipfw.errors import whole
from lipfw.listing import tickets_in
from lipfw.mask import Mask, keep_top, prunable
from lipfw.pruner.pruner import Fit, Pruner
from lipfw.pruner.random import uniform
from lipfw.pruner.ticket import fitted, head_remark, origins
from lipfw.ticket import Ticket


class RandomLike(Pruner):
    """One round for each ticket that `path` names: a file, or a run with its tickets.

    Each layer keeps as many weights as in the ticket, at places drawn at random, and starts from the run's own initial
    weights. Where tickets are nested, so are these. A last convolution of other outputs is kept whole, as in `Replay`.
    Raises InputError for a ticket of another architecture, naming the first tensor that does not fit.
    """

    blind = True

    def __init__(self, path: str, seed: int = 0):
        super().__init__(rounds=0)
        self.seed = whole("pruner.seed", seed, least=0)
        self.paths = tickets_in(path)
        self.tickets = [Ticket.load(p) for p in self.paths]
        self.masks = [t.mask for t in self.tickets]

    def prepare(self, network: nn.Module) -> None:
        """Check the tickets against the network."""
        self.masks = [fitted(t, p, network) for t, p in zip(self.tickets, self.paths, strict=True)]
        self.remarks = head_remark(self.tickets[0].mask, network)

    def counts(self, network: nn.Module) -> list[int]:
        """Return the number of weights that each ticket keeps."""
        return [m.count for m in self.masks]

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return a mask with the layer-wise counts of a round's ticket."""
        like = self.masks[round_]
        return Mask({n: keep_top({n: u}, int(like[n].sum()))[n]
                     for n, u in uniform(prunable(network), self.seed).items()})

    def origins(self) -> list[dict]:
        """Return where the ticket of each round lies and, under `found`, where it was found."""
        return origins(self.paths, self.tickets)
