"""The layers of a ticket file, read without torch, so that a report starts in a moment."""
import json
import math
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from lipfw.errors import InputError

_FORMAT, _VERSION = "lipfw-ticket", 1       # as in lipfw.ticket, which imports torch


def layer_sparsity(path: Path) -> dict[str, float]:
    """Return the removed fraction of each layer by itself, in [0, 1], in module order.

    Raises InputError for a file that is no ticket or is damaged.
    """
    try:
        with safe_open(path, "np") as f:
            header = json.loads((f.metadata() or {})[_FORMAT])
            shapes = header["shapes"]
            packed = {name: f.get_tensor(name) for name in shapes}
        if header["version"] != _VERSION:
            raise ValueError(f"its version is {header['version']}")
        return {name: _removed(packed[name], math.prod(shape)) for name, shape in shapes.items()}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise InputError(f"{path} is not a readable ticket ({e}); copy it again") from None


def _removed(packed: np.ndarray, weights: int) -> float:
    if packed.dtype != np.uint8 or packed.size != (weights + 7) // 8:
        raise ValueError("wrong number of bits")
    return 1 - int(np.unpackbits(packed, count=weights).sum()) / weights if weights else 0.0
