"""Tickets -> rows of names and numbers: a run by rounds, a ticket by layers, and their overlap with others."""
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from lipfw.errors import InputError
from lipfw.listing import tickets_in
from lipfw.mask import Mask
from lipfw.measures import (
    bytes_on_disk,
    comparable,
    cumulative_sparsity,
    dead_channels,
    iou,
    layer_iou,
    layer_random_iou,
    layer_sparsity,
    parameters_left,
    random_iou,
)
from lipfw.prior.prior import rebuild
from lipfw.ticket import REDRAW, Ticket
from lipfw.zoo import is_named

_LARGEST = 1024     # up to this side a code is tried that the network takes: enough for 9 scales of an hourglass


@dataclass(frozen=True)
class Found:
    """The tickets that a path names, with their files, by round."""

    path: Path
    files: list[Path]
    tickets: list[Ticket]

    @property
    def is_run(self) -> bool:
        return self.files != [self.path]


def read(path: Path) -> Found:
    """Return the tickets that a path names. Raises InputError if there is none, or one that can't be measured."""
    path = Path(os.path.expanduser(path))
    files = tickets_in(path)
    if is_named(path) and len(files) == 1:
        path = files[0]
    found = Found(path, files, [Ticket.load(f) for f in files])
    for file, ticket in zip(files, found.tickets, strict=True):
        if not ticket.mask:
            raise InputError(f"{file} is a ticket without layers; find it again")
    return found


@functools.cache
def _network(architecture: str) -> nn.Module:
    """Return the network that a ticket's JSON tells of, without weights; InputError if it can't be told."""
    try:
        told = json.loads(architecture)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise InputError(f"the ticket tells no architecture, but {architecture!r}")
    return rebuild(told)


def network_of(ticket: Ticket) -> nn.Module:
    """Return a ticket's network, without weights; InputError if it is not known."""
    return _network(ticket.about.get("architecture", ""))


def _structure(ticket: Ticket) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a ticket's network, without weights, and its dead channels; InputError if its network is not known."""
    network = network_of(ticket)
    try:
        sides = getattr(network, "code_size", [_LARGEST] * getattr(network, "code_sides", 2))
        return network, dead_channels(network, ticket.mask, (network.code_channels, *sides))
    except (AttributeError, ValueError, RuntimeError) as e:
        raise InputError(str(e).split("\n")[0]) from None


# --- rows: names and numbers, None where there is none

def rounds(found: Found) -> tuple[list[dict], list[str]]:
    """Return a row for each ticket of a run, and what else is to be said."""
    rows, unknown, cut, why = [], [], [], ""
    for round_, (file, ticket) in enumerate(zip(found.files, found.tickets, strict=True)):
        mask, left, dead, channels = ticket.mask, None, None, None
        try:
            network, dead_in = _structure(ticket)
            left = parameters_left(network, mask)
            dead, channels = sum(map(_number, dead_in.values())), sum(map(len, dead_in.values()))
            if dead == channels:
                cut.append(round_)
        except InputError as e:
            unknown, why = [*unknown, round_], why or str(e)
        size = bytes_on_disk(file)
        rows.append({
            "ticket": str(file), "round": round_, "sparsity": mask.sparsity, "kept": mask.count, "weights": mask.total,
            "params_left": left, "dead_channels": dead, "channels": channels,
            "empty_layers": sum(not m.any() for m in mask.values()), "mask_bytes": size.mask,
            "initial_bytes": size.initial, "float32_bytes": None if left is None else 4 * left})
    initial, drawn = rows[0]["initial_bytes"], REDRAW in found.tickets[0].about
    where = "drawn again from their seed" if drawn else f"{initial:,} bytes" if initial else "not beside them"
    return rows, [f"the initial weights of all rounds: {where}",
                  *([_unknown(_named(unknown), why)] if unknown else []), *([_cut(_named(cut))] if cut else [])]


def layers(found: Found) -> tuple[list[dict], list[str]]:
    """Return a row for each layer of a ticket, and what else is to be said."""
    mask, dead = found.tickets[0].mask, {}
    try:
        dead = _structure(found.tickets[0])[1]
        remarks = [_cut("this ticket")] if all(d.all() for d in dead.values()) else []
    except InputError as e:
        remarks = [_unknown("this ticket", str(e))]
    own, together = layer_sparsity(mask), cumulative_sparsity(mask)
    return [{"layer": i, "name": name, "shape": _shape(m), "kept": _number(m), "weights": m.numel(),
             "sparsity": own[name], "cumulative_sparsity": together[name],
             "dead_channels": _number(dead[name]) if dead else None, "channels": len(dead[name]) if dead else None}
            for i, (name, m) in enumerate(mask.items(), 1)], remarks


@dataclass(frozen=True)
class Overlap:
    """The overlap with another run or ticket: what to add to each row, a row for all of them, remarks."""

    other: Path
    rows: list[dict]
    whole: list[dict]
    remarks: list[str]


def compare(found: Found, other: Found) -> Overlap:
    """Return the overlap of a run with a run (by rounds) or a ticket, or of a ticket with a ticket (by layers)."""
    if other.is_run and not found.is_run:
        raise InputError(f"{found.path} is a single ticket and {other.path} is not; name a ticket of it, such as "
                         f"{other.files[0]}, or give the run first")
    try:
        return (_by_rounds if found.is_run else _by_layers)(found, other)
    except ValueError as e:
        raise InputError(f"{found.path} and {other.path} can't be compared, they are tickets of two networks: "
                         f"{e}") from None


def _by_layers(found: Found, other: Found) -> Overlap:
    a, b = found.tickets[0].mask, other.tickets[0].mask
    names = comparable(a, b)
    mine, theirs = (Mask({name: m[name] for name in names}) for m in (a, b))
    whole = {"layer": "", "name": "all compared", "sparsity": mine.sparsity} | _overlap(mine, theirs, other.path)
    return Overlap(other.path, _overlap_of_layers(a, b, other.path), [whole], _left_out(a, b))


def _by_rounds(found: Found, other: Found) -> Overlap:
    count = len(found.tickets)
    theirs = [t.mask for t in other.tickets] if other.is_run else [other.tickets[0].mask] * count
    remarks = _left_out(found.tickets[0].mask, theirs[0])
    if len(theirs) != count:
        remarks.append(f"{other.path} has {len(theirs)} rounds, {found.path} has {count}")
    theirs = [*theirs, *[None] * count][:count]
    rows = [_overlap(t.mask, m, other.path) for t, m in zip(found.tickets, theirs, strict=True)]
    return Overlap(other.path, rows, [], remarks)


def _overlap(a: Mask, b: Mask | None, other: Path) -> dict:
    there = b is not None
    return {"other": str(other), "other_sparsity": b.sparsity if there else None,
            "iou": iou(a, b) if there else None, "random_iou": random_iou(a, b) if there else None}


def _overlap_of_layers(a: Mask, b: Mask, other: Path) -> list[dict]:
    theirs, both, chance = layer_sparsity(b), layer_iou(a, b), layer_random_iou(a, b)
    return [{"other": str(other), "other_sparsity": theirs.get(name), "iou": both.get(name),
             "random_iou": chance.get(name)} for name in a]


# --- what is said

def _left_out(a: Mask, b: Mask) -> list[str]:
    names = comparable(a, b)
    differ = [name for name in {**a, **b} if name not in set(names)]
    if not differ:
        return []
    first = f"{differ[0]} is {_shape(a.get(differ[0]))} here and {_shape(b.get(differ[0]))} there"
    weights = sum(a[n].numel() for n in names)
    return [f"compared: {len(names)} layers with {weights:,} of the {a.total:,} weights; left out: {len(differ)} that "
            f"differ ({first})"]


def _unknown(which: str, reason: str) -> str:
    return f"{which}: the network is not known, nor its dead channels and other parameters: {reason}"


def _cut(which: str) -> str:
    return f"{which}: no path of kept weights leads from the code to the output"


def _named(rounds: Sequence[int]) -> str:
    return f"round{'s' * (len(rounds) > 1)} {', '.join(map(str, rounds))}"


def _shape(m: Tensor | None) -> str:
    return "missing" if m is None else "x".join(map(str, m.shape))


def _number(m: Tensor) -> int:
    return int(m.sum())
