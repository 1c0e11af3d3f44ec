"""Replay the tickets of an earlier run, on the same or another picture, task and seed."""
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, choice
from lipfw.listing import tickets_in
from lipfw.mask import Mask, prunable
from lipfw.pruner.pruner import Fit, Pruner
from lipfw.ticket import Ticket


class Replay(Pruner):
    """One round for each ticket that `path` names: a file, or a run with its tickets.

    `init="ticket"` starts from the weights stored with the tickets (the winning ticket), "fresh" from the run's own
    (the mask alone). Where the network makes pictures of other channels, grey or colour, than the one that the tickets
    were found in, its last convolution is kept whole, with weights of the run's own. Raises InputError for a ticket of
    another architecture, naming the first tensor that does not fit.
    """

    def __init__(self, path: str, init: str = "ticket"):
        super().__init__(rounds=0)
        self.init = choice("pruner.init", init, ("ticket", "fresh"))
        self.paths = tickets_in(path)
        self.tickets = [Ticket.load(p) for p in self.paths]
        self.masks = [t.mask for t in self.tickets]

    def prepare(self, network: nn.Module) -> None:
        """Check the tickets against the network, and load their initial weights if they are to be used."""
        self.masks = [fitted(t, p, network) for t, p in zip(self.tickets, self.paths, strict=True)]
        if self.init == "ticket":
            head = differing_head(self.tickets[0].mask, network)
            own = {n: v for n, v in network.state_dict().items()
                   if head is not None and n.startswith(head.rpartition(".")[0] + ".")}
            network.load_state_dict(self.tickets[0].initial(self.paths[0]) | own)
        self.remarks = head_remark(self.tickets[0].mask, network)

    def counts(self, network: nn.Module) -> list[int]:
        """Return the number of weights that each ticket keeps."""
        return [m.count for m in self.masks]

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return the stored mask of a round."""
        return self.masks[round_]

    def origins(self) -> list[dict]:
        """Return where the ticket of each round lies and, under `found`, where it was found."""
        return origins(self.paths, self.tickets)


def fitted(ticket: Ticket, path: Path, network: nn.Module) -> Mask:
    """Return a ticket's mask for a network, which may differ in the outputs of its last convolution: kept whole then.

    Raises InputError, naming the ticket and the first tensor that does not fit.
    """
    mask, head = ticket.mask, differing_head(ticket.mask, network)
    if head is not None:
        mask = Mask({**mask, head: torch.ones_like(prunable(network)[head], dtype=torch.bool)})
    try:
        mask.check(network)
    except ValueError as e:
        raise InputError(f"{path} belongs to another network: {e}; use the prior it was found with: "
                         f"{ticket.about.get('architecture', 'not recorded')}") from None
    return mask


def differing_head(masks: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """Return the name of the last convolution's weight if all but its number of outputs fits the masks, else None."""
    weights = prunable(network)
    name = list(weights)[-1]
    if name not in masks or masks[name].shape == weights[name].shape:
        return None
    return name if masks[name].shape[1:] == weights[name].shape[1:] else None


def head_remark(masks: Mapping[str, Tensor], network: nn.Module) -> list[str]:
    """Return a line about a head that differs, if it does."""
    head = differing_head(masks, network)
    if head is None:
        return []
    return [f"{head} makes {prunable(network)[head].shape[0]} channels and the ticket's {masks[head].shape[0]}: it is "
            "kept whole, with weights of this run's seed"]


def origins(paths: list[Path], tickets: list[Ticket]) -> list[dict]:
    """Return where tickets lie and, under `found`, where they were found."""
    names = ("label", "options", "seed", "run", "round")
    return [{"file": str(p), "found": {n: t.about.get(n, "") for n in names} | {"sparsity": round(t.mask.sparsity, 6)}}
            for p, t in zip(paths, tickets, strict=True)]
