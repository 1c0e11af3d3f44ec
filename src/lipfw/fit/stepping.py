"""What does the steps of a round: torch's own operators, sparse kernels, or a replayed CUDA graph.

All do the same step: forward with jitter, loss, backward, gradients of removed weights zeroed, Adam, and `follow` with
what came of it. Between `settle` and the next step the network and its optimiser hold the state, whatever did the
steps: that is what checkpoints, tickets, rewinding and the next round see.
"""
import torch

from lipfw.errors import InputError
from lipfw.fit.eager import Eager, Objective
from lipfw.fit.graphed import Graphed
from lipfw.fit.sparse import Sparse
from lipfw.kernel.graph import Unsupported
from lipfw.kernel.interface import library
from lipfw.kernel.library import Unavailable
from lipfw.mask import Mask, prunable

KERNELS = ("auto", "dense", "sparse")
# The kept fraction up to which the sparse kernels are faster than torch's own: measured with the hourglass at 64 pixels
# on one core, for portable code, AVX2 (torch too kept to it) and AVX-512.
BREAK_EVEN = (0.3, 0.65, 1.0)


def check_kernel(kernel: str, device: str) -> None:
    """Raise InputError for a kernel that a kind of device (cpu, cuda), or this machine, does not have."""
    if kernel != "sparse":
        return
    if device == "cuda":
        raise InputError("fit.kernel=sparse is for CPUs, this fit runs on a GPU; use fit.kernel=auto or trainer=cpu")
    try:
        library()
    except Unavailable as e:
        raise _cant_be_had(e) from None


def _cant_be_had(reason: Exception) -> InputError:
    return InputError(f"fit.kernel=sparse can't be had: {reason}; use fit.kernel=auto, which then leaves all to torch")


def make_stepper(fit: Objective, optimizer: torch.optim.Adam, mask: Mask | None, kernel: str) -> Eager:
    """Return what does the steps of a round, for a mask (None: dense) and the option fit.kernel: auto, dense or sparse.

    On a CPU `auto` takes the sparse kernels for masks at which they are faster, and says in `note` why they can't be
    had; on a GPU it takes a CUDA graph. Raises InputError for a kernel that can't be had.
    """
    if mask is not None:
        forget(optimizer, fit.prior.network, mask)
    device = next(fit.prior.network.parameters()).device.type
    check_kernel(kernel, device)
    if device == "cuda" and kernel == "auto":
        return Graphed(fit, optimizer, mask)
    if device != "cpu" or kernel == "dense" or fit.prior.bf16:      # the sparse kernels compute in float32
        return Eager(fit, optimizer, mask)
    try:
        if kernel == "auto" and (mask.density if mask is not None else 1.0) > _break_even():
            return Eager(fit, optimizer, mask)
        return Sparse(fit, optimizer, mask)
    except (Unavailable, Unsupported) as e:
        if kernel == "sparse":
            raise _cant_be_had(e) from None
        stepper = Eager(fit, optimizer, mask)
        stepper.note = f"torch does all the work: {e}"
        return stepper


def _break_even() -> float:
    """Return the kept fraction up to which the sparse kernels are faster here. Raises Unavailable."""
    c = library()
    if not c.lipfw_parallel() and torch.get_num_threads() > 1:
        raise Unavailable("the kernels were built without OpenMP and would run on one core")
    return BREAK_EVEN[c.lipfw_isa()]


def forget(optimizer: torch.optim.Adam, network: torch.nn.Module, mask: Mask) -> None:
    """Zero what Adam remembers of removed weights: rewound to a later step, it would go on moving them."""
    for name, weight in prunable(network).items():
        for moment in optimizer.state.get(weight, {}).values():
            if moment.shape == weight.shape:
                moment.mul_(mask[name].to(moment.device))
