"""A network from a state dict that may be of anything: every name and shape is checked, no random number is drawn."""
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from lipfw.errors import InputError

N = TypeVar("N", bound=nn.Module)


def filled(make: Callable[[], N], state: Mapping[str, Tensor], what: str) -> N:
    """Return `make()` with the weights of `state`, in float32 on the CPU.

    Raises InputError, beginning with `what`, for the first weight that is missing, of another shape, not finite or one
    too many.
    """
    with torch.device("meta"):      # so that no weights are drawn only to be replaced
        network = make()
    expected = {name: tuple(p.shape) for name, p in network.state_dict().items()}
    for name, shape in expected.items():
        if name not in state:
            raise InputError(f"{what} lacks {name} of shape {shape}; download or copy it again")
        tensor = state[name]
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tuple(tensor.shape) != shape:
            have = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise InputError(f"{what} has {name} as {have}, not as numbers of shape {shape}; download or copy it again")
        if not tensor.isfinite().all():
            raise InputError(f"{what} has numbers in {name} that are not finite; download or copy it again")
    for name in state:
        if name not in expected:
            raise InputError(f"{what} has {name[:60]!r}, which is no weight of this network; download or copy it again")
    network.load_state_dict({name: state[name].detach().float().contiguous().clone() for name in expected}, assign=True)
    return network
