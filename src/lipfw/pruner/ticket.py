"""Replay the tickets of an earlier run, on the same or another picture, task and seed."""
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, choice
from lipfw.listing import tickets_in
from lipfw.mask import Mask, prunable
from lipfw.pruner.pruner import Fit, Pruner
from lipfw.ticket import Ticket, checksum
from lipfw.zoo import is_named, one

_FOUND = ("label", "options", "seed", "run", "round")       # what a result tells of where a ticket was found


class Replay(Pruner):
    """One round for each ticket that `path` names: a file, a run with its tickets, or those that ship, "zoo:multi-s89".

    `init="ticket"` starts from the weights stored with the tickets (the winning ticket), "fresh" from the run's own
    (the mask alone): those drawn from its seed or, of a pre-trained generator, those of prior.weights, which "ticket"
    does not use. Where the network makes pictures of other channels, grey or colour, than the one that the tickets
    were found in, its last convolution is kept whole, with weights of the run's own; so are, between an hourglass that
    restores and one that classifies (networks that are `related`), the two convolutions that take the input, and a
    linear layer is the run's own. Raises InputError for a ticket of another architecture, naming the first tensor that
    does not fit.
    """

    def __init__(self, path: str, init: str = "ticket", weights: str = "pretrained"):
        super().__init__(rounds=0)
        self.init = choice("pruner.init", init, ("ticket", "fresh"))
        self.brings_weights = self.init == "ticket"
        self.weights = choice("pruner.weights", weights, ("pretrained", "trained"))
        if (init, weights) == ("fresh", "trained"):
            raise InputError("pruner.init=fresh takes the mask alone and pruner.weights=trained its weights too; use "
                             "one of them")
        self.paths = tickets_in(path)
        self.tickets = [Ticket.load(p) for p in self.paths]
        self.masks = [t.mask for t in self.tickets]
        self.whole: list[str] = []          # layers of another shape than the tickets', known once prepared
        if weights == "trained":        # a file that is missing is told before anything is fitted
            for t, p in zip(self.tickets, self.paths, strict=True):
                t.trained(p)

    def prepare(self, network: nn.Module) -> None:
        """Fit the masks to the network, and load the tickets' initial weights if they are to be used."""
        first, weights = self.tickets[0].mask, prunable(network)
        kin = _network_of(self.tickets[0]) in getattr(network, "related", ())
        head, inputs = differing_head(first, network), differing_inputs(first, network) if kin else []
        self.whole = [*inputs, *([head] if head is not None else [])]
        whole = {n: torch.ones_like(weights[n], dtype=torch.bool) for n in self.whole}
        self.masks, self.remarks = [Mask({**t.mask, **whole}) for t in self.tickets], []
        if inputs:
            self.remarks = [f"{' and '.join(inputs)} take{'s' * (len(inputs) == 1)} {weights[inputs[0]].shape[1]} "
                            f"channels and the ticket's {first[inputs[0]].shape[1]}: kept whole, with weights of this "
                            "run's seed"]
        if head is not None:
            self.remarks += [f"{head} makes {len(weights[head])} channels and the ticket's {len(first[head])}: it is "
                             "kept whole, with weights of this run's seed"]
        for mask, ticket, path in zip(self.masks, self.tickets, self.paths, strict=True):
            try:
                mask.check(network)
            except ValueError as e:
                raise InputError(f"{path} belongs to another network: {e}; use the prior it was found with: "
                                 f"{ticket.about.get('architecture', 'not recorded')}") from None
        if self.init == "ticket":
            initial, state = self.tickets[0].initial(self.paths[0]), network.state_dict()
            if kin:
                own = {n: v for n, v in state.items() if n not in initial or initial[n].shape != v.shape}
                initial = {n: v for n, v in initial.items() if n in state}
                others = sorted({n.rpartition(".")[0] for n in own} - {n.rpartition(".")[0] for n in self.whole})
                self.remarks += [f"{', '.join(others)} has weights of this run's seed, too" if self.whole else
                                 f"{', '.join(others)} differs from the ticket's: it has weights of this run's seed"
                                 ] if others else []
            else:
                own = {n: v for n, v in state.items() if head is not None and n.startswith(head.removesuffix("weight"))}
            try:
                network.load_state_dict(initial | own)
            except RuntimeError as e:       # what no mask has: a linear layer
                reason = str(e).strip().split("\n")[-1].strip()
                raise InputError(f"{self.paths[0]} starts from the weights of another network: {reason} use the prior "
                                 f"it was found with: {self.tickets[0].about.get('architecture', 'not recorded')}"
                                 ) from None
        elif checksum(network.state_dict()) == self.tickets[0].about.get("initial"):
            self.remarks = [*self.remarks, "pruner.init=fresh starts from the very weights that the ticket starts "
                            "from: the seeds, or a generator's weights, are the same; for others use another "
                            "prior.seed, or other prior.weights"]

    def counts(self, network: nn.Module) -> list[int]:
        """Return the number of weights that each ticket keeps."""
        return [m.count for m in self.masks]

    def prune(self, network: nn.Module, fit: Fit, count: int, within: Mask | None, round_: int) -> Mask:
        """Return the stored mask of a round."""
        return self.masks[round_]

    def start(self, round_: int) -> dict[str, Tensor] | None:
        """Return the weights that a round's ticket was left with, if it is to start from those."""
        return self.tickets[round_].trained(self.paths[round_]) if self.weights == "trained" else None

    def origins(self) -> list[dict]:
        """Return where the ticket of each round lies, where it was `found`, and which layers are `kept_whole`."""
        whole = {"kept_whole": self.whole} if self.whole else {}
        return [{"file": str(p), "found": {n: t.about.get(n, "") for n in _FOUND}
                 | {"sparsity": round(t.mask.sparsity, 6)}, **whole}
                for p, t in zip(self.paths, self.tickets, strict=True)]


def best_ticket(path) -> Path:
    """Return the file of one ticket: the path itself, or of a run that of its best round.

    Raises InputError where there is none, or no telling which.
    """
    files = [one(path)] if is_named(path) else tickets_in(path)
    if len(files) == 1:
        return files[0]
    try:
        best = json.loads((files[0].parent.parent / "result.json").read_text())["best_round"]
        return next(f for f in files if f.stem == f"round_{best:02d}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, StopIteration):
        raise InputError(f"{path} has {len(files)} tickets and no result that says which is the best; name one of "
                         f"them, e.g. {files[-1]}") from None


def differing_head(mask: Mask, network: nn.Module) -> str | None:
    """Return the name of the last convolution's weight if its number of outputs, and no more, differs from the mask's.
    """
    name, weight = list(prunable(network).items())[-1]
    if name in mask and len(mask[name]) != len(weight) and mask[name].shape[1:] == weight.shape[1:]:
        return name
    return None


def differing_inputs(mask: Mask, network: nn.Module) -> list[str]:
    """Return the names of the two first convolutions' weights, where their number of inputs alone differs from the
    mask's.
    """
    return [n for n, w in list(prunable(network).items())[:2] if n in mask and mask[n].shape[1] != w.shape[1]
            and (len(mask[n]), *mask[n].shape[2:]) == (len(w), *w.shape[2:])]


def _network_of(ticket: Ticket) -> str | None:
    """Return which network a ticket says that it was found in."""
    try:
        return json.loads(ticket.about["architecture"])["network"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
