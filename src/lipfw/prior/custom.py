"""Any network: a prior by code of the user's own."""
import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lipfw.errors import InputError, whole
from lipfw.imported import called, imported, named, reason, spelled
from lipfw.interrupt import Interrupted
from lipfw.prior.prior import Prior, one_channel_count, round_up, uniform_codes
from lipfw.streams import global_stream

_SMALL = 256 * 256      # pixels of a picture whose graph fits into any memory


def build(shapes: Sequence[tuple[int, int, int]], *, network: str | Callable, arguments: Mapping | None = None,
          code_channels: int = 32, multiple: int = 32, reduction: int = 1, sigmoid: bool = True, jitter: float = 0.0,
          code: str = "own", redraw: bool = False, seed: int = 0) -> Prior:
    """Return the prior of the network that an import path names, or that is given, for pictures of (C, H, W) shapes.

    It is a class or function that makes an `nn.Module` of `arguments`, with weights drawn from the seed if torch
    draws them; or a module, whose weights are as they are. The module turns a code (1, code_channels, h, w) into a
    picture (1, C, at least H, at least W), of which the centre is used; h and w are those of the picture, rounded up to
    a `multiple` and divided by `reduction`. Its output goes through a sigmoid, unless it lies in [0, 1] already
    (`sigmoid` false). Modules stay in the mode, training or evaluation, that they are made in.
    Raises InputError for what is no network, makes no picture, or makes another one each time.
    """
    option = f"prior.network={spelled(network)}"
    for name, value in (("prior.code_channels", code_channels), ("prior.multiple", multiple),
                        ("prior.reduction", reduction)):
        whole(name, value, least=1)
    if multiple % reduction:
        raise InputError(f"prior.reduction={reduction} does not divide prior.multiple={multiple}, so that codes have "
                         "no whole sides; use a multiple of it")
    one_channel_count(shapes)
    arguments = named("prior.arguments", arguments)
    found = imported("prior.network", network)
    with global_stream(seed, "weights"):
        made = _made(found, option, arguments)
    codes = uniform_codes([(code_channels, *(round_up(side, multiple) // reduction for side in shape[1:]))
                           for shape in shapes], code, seed)
    prior = Prior(made, codes, shapes, jitter=jitter, seed=seed, redraw=redraw, sigmoid=sigmoid,
                  architecture={"network": "custom", "path": spelled(network), "arguments": arguments})
    for index, shape in enumerate(shapes):
        if shape not in shapes[:index]:
            _check(prior, index, option)
    return prior


def _made(found, option: str, arguments: dict) -> nn.Module:
    """Return the module that a user's path stands for."""
    if isinstance(found, nn.Module):
        if arguments:
            raise InputError(f"{option} is an object, made already; prior.arguments is for classes and functions")
        made = copy.deepcopy(found)     # each run starts from the weights that it had
    else:
        made = called(option, found, arguments) if isinstance(found, Callable) else found
    if not isinstance(made, nn.Module):
        what = "makes" if callable(found) else "is"
        raise InputError(f"{option} {what} a {type(made).__name__}; a network is a torch.nn.Module: name a class of "
                         "one, or a function that makes one")
    if not any(p.requires_grad for p in made.parameters()):
        raise InputError(f"{option} has no weights that can be fitted")
    return made


def _check(prior: Prior, index: int, option: str) -> None:
    """Try the network on a picture's code, on a copy: batch norm's statistics must not see it."""
    channels, h, w = prior.shapes[index]
    code = prior.code(prior.code_of(index))
    network = copy.deepcopy(prior.network)
    wanted = (f"a picture is made of a code {tuple(code.shape)}, as a tensor (1, {channels}, >= {h}, >= {w}) of "
              f"{code.dtype}")
    try:
        # one stream for both, so that what a network itself draws differs from the first time to the second
        with torch.set_grad_enabled(h * w <= _SMALL), global_stream(prior.seed, "first look"):
            first, second = network(code.clone()), network(code.clone())
    except (InputError, Interrupted, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as e:      # the user's code may raise anything
        raise InputError(f"{option} fails: {reason(e)}; {wanted} (see prior.code_channels, multiple and reduction)"
                         ) from e
    if not isinstance(first, Tensor) or first.dim() != 4 or tuple(first.shape[:2]) != (1, channels) \
            or first.shape[2] < h or first.shape[3] < w or first.dtype != torch.float32:
        gives = f"a tensor {tuple(first.shape)} of {first.dtype}" if isinstance(first, Tensor) else \
            f"a {type(first).__name__}"
        raise InputError(f"{option} does not return a picture but {gives}; {wanted} (see prior.code_channels, multiple "
                         "and reduction)")
    if not torch.isfinite(first).all():
        raise InputError(f"{option} makes values that are not finite of a code in [0, 0.1]")
    if not torch.equal(first, second):
        raise InputError(f"{option} makes another picture of the same code each time, so that no fit could be "
                         "repeated; take what is random out of it (dropout: p=0)")
    if h * w <= _SMALL and not first.requires_grad:
        raise InputError(f"{option} has no gradient with respect to its weights; compute it with torch's functions, "
                         "without detach or no_grad")
