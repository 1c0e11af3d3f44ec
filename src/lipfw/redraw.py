"""Initial weights that are drawn again instead of being stored: from a seed and a recipe, the same bits everywhere.

torch fills a layer by u * 2b - b, with u uniform in [0, 1) and b = 1 / sqrt(fan in). Whether the product is rounded
before the sum depends on the processor that torch runs on, and so do the bits. Here it is (2u - 1) * b: the draws u are
multiples of 2^-24, 2u - 1 is exact, and the one product is rounded once, by the rule of IEEE 754 that every processor
keeps. That is what processors with fused multiply-add, almost all since 2013, make of torch's own way.
"""
import json
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lipfw.errors import InputError
from lipfw.streams import stream

_MORE = 1 << 20     # numbers that a recipe may have besides the weights that its masks are of
_DRAWN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def recipe(network: nn.Module, state: Mapping[str, Tensor], seed: int) -> str:
    """Return how a network's initial `state` is made from the seed of its prior, as JSON.

    Weights and biases of convolutions and linear layers are drawn, in module order; everything else must be a constant
    a tensor. Raises InputError for a state that is not. Whether the draws are those of `state` is not looked at.
    """
    entries = []
    for prefix, layer in network.named_modules():
        own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
        for key in own:
            name = f"{prefix}.{key}" if prefix else key
            tensor = state[name]
            if isinstance(layer, _DRAWN):
                entries.append([name, list(tensor.shape), {"fan_in": math.prod(layer.weight.shape[1:])}])
            elif tensor.numel() and (tensor == tensor.flatten()[0]).all():
                dtype = "float32" if tensor.is_floating_point() else "int64"
                entries.append([name, list(tensor.shape), {dtype: tensor.flatten()[0].item()}])
            else:
                raise InputError(f"{name} is neither drawn uniformly nor a constant; share the tickets together with "
                                 "their initial.safetensors")
    return json.dumps({"seed": seed, "state": entries}, separators=(",", ":"))


def redrawn(text: str, weights: int) -> dict[str, Tensor]:
    """Return the state that a recipe tells of, float32 on the CPU; `weights` is the number that its masks are of.

    Raises InputError for a text that is no recipe, or one of far more numbers than that: it may come from anyone.
    """
    try:
        told = json.loads(text)
        seed, entries = told["seed"], [(str(n), tuple(map(_side, shape)), how) for n, shape, how in told["state"]]
        if type(seed) is not int or sum(math.prod(s) for _, s, _ in entries) > weights + _MORE:
            raise ValueError
        generator = stream(seed, "weights")
        return {name: _filled(shape, generator, **how) for name, shape, how in entries}
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError):    # also RecursionError
        raise InputError("its recipe of initial weights is damaged") from None


def _filled(shape: tuple[int, ...], generator: torch.Generator, fan_in: int | None = None,
            float32: float | None = None, int64: int | None = None) -> Tensor:
    if fan_in is None:
        value, dtype = (float32, torch.float32) if float32 is not None else (int64, torch.int64)
        return torch.full(shape, value, dtype=dtype, device="cpu")
    u = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
    return u.mul_(2).sub_(1).mul_(1 / math.sqrt(fan_in))        # three kernels, so that nothing is fused


def _side(value) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("no side")
    return value
