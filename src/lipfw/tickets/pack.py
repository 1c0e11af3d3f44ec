"""Tickets without their initial weights, which are drawn again from the seed: 280 kB to share instead of 9 MB."""
from dataclasses import replace
from pathlib import Path

from lipfw.errors import InputError
from lipfw.redraw import recipe, redrawn
from lipfw.ticket import REDRAW, checksum
from lipfw.tickets.rows import Found, network_of


def pack(found: Found, to: Path, seed: int | None = None) -> list[Path]:
    """Write a ticket to the file `to`, or a run's tickets into the folder `to`; returns the files.

    `seed` is the prior's (default: that of the run). Before anything is written it is checked that the weights drawn
    from it are, to the bit, those that the tickets start from. Raises InputError if they are not, as after a rewind or
    of a pre-trained generator, and for files that are there already.
    """
    targets = [to / f.name for f in found.files] if found.is_run else [to / found.path.name if to.is_dir() else to]
    if taken := [t for t in targets if t.exists()]:
        raise InputError(f"{taken[0]} is there already; name another place for what is packed")
    packed, checked = [], {}        # the tickets of a run start from the same weights
    for file, ticket in zip(found.files, found.tickets, strict=True):
        drawn_from = seed if seed is not None else _seed(file, ticket.about.get("seed", ""))
        key = ticket.about.get("initial"), ticket.about.get("architecture"), drawn_from
        if key not in checked:
            initial = ticket.initial(file)
            text = recipe(network_of(ticket), initial, drawn_from)
            if checksum(redrawn(text, ticket.mask.total)) != checksum(initial):
                raise InputError(f"{file} does not start from the weights that prior.seed={drawn_from} draws (it may "
                                 "have been rewound to a later step, or found with another prior.seed, which --seed "
                                 "tells); share it together with its initial.safetensors")
            checked[key] = text
        about = {k: v for k, v in ticket.about.items() if k != "trained"}       # of weights that do not come along
        packed.append(replace(ticket, about={**about, REDRAW: checked[key]}))
    for target, ticket in zip(targets, packed, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        ticket.save(target)
    return targets


def _seed(file: Path, told: str) -> int:
    if not told.isdecimal():
        raise InputError(f"{file} does not tell its seed; give the prior.seed of its run by --seed")
    return int(told)
