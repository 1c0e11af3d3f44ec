"""Refusing a fit that can't fit into memory, before hours of swapping or a killed process."""
import copy
import os

import torch

from lipfw.errors import InputError
from lipfw.prior.prior import Prior

_SMALL = 256 * 256      # a picture that any machine can fit
_TILE = 128             # side of the piece of a code that is tried
_OVER_SAVED = 1.3       # peak over what the graph holds: 1.25 measured with the hourglass at 256 and 384 pixels


def bytes_needed(prior: Prior) -> float:
    """Return about how many bytes a step takes, scaled up from a forward pass of a piece of the largest picture."""
    index = max(range(len(prior.shapes)), key=lambda i: prior.shapes[i][1] * prior.shapes[i][2])
    code = prior.code(prior.code_of(index))[:1]
    piece = (code[:, :, :_TILE, :_TILE] if code.dim() == 4 else code).clone()      # a view would be counted whole
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    network = copy.deepcopy(prior.network)      # batch norm's running statistics must not see the piece
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(piece)
    saved = sum(n for pointer, n in held.items() if pointer not in weights)
    del output
    return _OVER_SAVED * saved * code.numel() / piece.numel() * prior.at_once


def check_memory(prior: Prior, device: str, fits: int = 1) -> None:
    """Raise InputError if a step of so many fits needs more memory than the machine, or its GPU, has."""
    if max(h * w for _, h, w in prior.shapes) * prior.at_once <= _SMALL:
        return
    if device == "cuda":
        there = torch.cuda.mem_get_info()[1]
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        return
    try:
        need = bytes_needed(prior) * fits
    except RuntimeError:        # a network of the user's own that takes no piece of its code
        return
    if need > there:
        _, h, w = max(prior.shapes, key=lambda s: s[1] * s[2])
        many, remedy = ("", "use a smaller picture (image.size=) or network (prior.channels=)") if prior.at_once == 1 \
            else (f"{prior.at_once} codes of ", "use fewer pictures, or starts (fit.restarts=)")
        raise InputError(f"a fit of {many}{w}x{h} pixels needs about {need / 1e9:.0f} GB of memory, and there are "
                         f"{there / 1e9:.0f} GB; {remedy}")
