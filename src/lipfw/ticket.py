"""A ticket on disk: which weights are kept, and where the weights they start from lie.

A ticket file `round_07.safetensors` holds one bit a prunable weight (276 kB for the full hourglass) and text metadata.
The weights that every round starts from are the same for a whole run and lie once beside them, in
`initial.safetensors`; the ticket knows their checksum. A packed ticket (`python -m lipfw.tickets --pack`) needs no such
file: it holds the recipe by which they are drawn again.
"""
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lipfw.errors import InputError
from lipfw.files import write_bytes
from lipfw.mask import Mask
from lipfw.redraw import redrawn
from lipfw.zoo import is_named, one

FORMAT, VERSION = "lipfw-ticket", 1
INITIAL = "initial.safetensors"
REDRAW = "redraw"       # what `about` calls the recipe of a packed ticket


def checksum(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a state dict: names, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Ticket:
    """A mask with what is needed to replay it: `about` holds architecture, round, pruner, seed, task, image, initial.

    `architecture` is a JSON object; `initial` the checksum of the weights it starts from; all other values are text.
    """

    mask: Mask
    about: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the ticket in one step; equal tickets make equal files."""
        packed = {n: torch.from_numpy(np.packbits(m.cpu().numpy().reshape(-1))) for n, m in self.mask.items()}
        header = {"version": VERSION, "bits": checksum(packed), "density": self.mask.density, "kept": self.mask.count,
                  "total": self.mask.total, "shapes": {n: list(m.shape) for n, m in self.mask.items()},
                  "about": dict(sorted(self.about.items()))}
        metadata = {FORMAT: json.dumps(header)}     # one entry: safetensors writes several in random order
        write_bytes(path, save(packed, metadata=metadata))

    @staticmethod
    def load(path: Path) -> "Ticket":
        """Read a ticket file, or one of the zoo, "zoo:multi-s89". Raises InputError for a missing, corrupt or foreign
        file.
        """
        path = one(path) if is_named(path) else Path(path)
        if not path.is_file():
            raise InputError(f"no ticket at {path}; give a file such as tickets/round_07.safetensors of a finished run")
        try:
            with safe_open(path, "pt") as f:
                metadata = dict(f.metadata() or {})
                packed = {n: f.get_tensor(n) for n in f.keys()}
        except (SafetensorError, OSError) as e:
            raise InputError(f"{path} is not a readable ticket ({e}); it may be cut off: copy it again") from None
        if FORMAT not in metadata:
            raise InputError(f"{path} is a safetensors file but no lipfw ticket; tickets lie in the tickets/ folder "
                             "of a run as round_NN.safetensors")
        try:
            header = json.loads(metadata[FORMAT])
            if header["version"] != VERSION:
                raise InputError(f"{path} has ticket format {header['version']}, this lipfw reads {VERSION}; "
                                 "find the ticket again or use the lipfw that wrote it")
            mask = Mask({n: _unpack(packed[n], shape) for n, shape in header["shapes"].items()})
            sound = (checksum(packed), mask.count, mask.total) == (header["bits"], header["kept"], header["total"])
            about = {str(k): str(v) for k, v in header["about"].items()}
        except InputError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError):   # also RecursionError
            sound = False
        if not sound:
            raise InputError(f"{path} is damaged: its masks do not match its own header; copy it again")
        return Ticket(mask, about)

    def initial(self, path: Path) -> dict[str, Tensor]:
        """Return the weights this ticket starts from: drawn again, or read from the file beside the ticket at `path`.

        Raises InputError if they are missing or belong to another run, or if this torch draws others.
        """
        if REDRAW in self.about:
            return self._redrawn(path)
        remedy = "copy it from the run that found the ticket, or use pruner.init=fresh to take the mask alone"
        return self._beside(path, INITIAL, "initial", "starts from", remedy)

    def _redrawn(self, path: Path) -> dict[str, Tensor]:
        try:
            state = redrawn(self.about[REDRAW], self.mask.total)
        except InputError as e:
            raise InputError(f"{path} can't be used: {e}; copy it again") from None
        if (drawn := checksum(state)) != (known := self.about.get("initial", "")):
            raise InputError(f"torch {torch.__version__} draws other initial weights for {path} than it was found with "
                             f"(sha256 {drawn[:16]}, not {known[:16]}); use pruner.init=fresh to take the mask alone")
        return state

    def trained(self, path: Path) -> dict[str, Tensor]:
        """Return the weights that the round which used this ticket ended with, from the file beside it at `path`.

        Raises InputError if they were not saved, are missing or belong to another run.
        """
        remedy = "use pruner.weights=pretrained, or find the ticket again with task.save_trained=true"
        if "trained" not in self.about or not self.about.get("round", "").isdecimal():
            raise InputError(f"{path} has no trained weights, they were not saved; {remedy}")
        return self._beside(path, trained_name(int(self.about["round"])), "trained", "ended with", remedy)

    def _beside(self, path: Path, name: str, kind: str, relation: str, remedy: str) -> dict[str, Tensor]:
        beside = Path(path).parent / name
        if not beside.is_file():
            raise InputError(f"the ticket's {kind} weights {beside} are missing; {remedy}")
        try:
            state = load_file(beside)
        except (SafetensorError, OSError) as e:
            raise InputError(f"{beside} is not readable ({e}); {remedy}") from None
        if checksum(state) != self.about.get(kind):
            raise InputError(f"{beside} holds other weights than the ticket {Path(path).name} {relation}; {remedy}")
        return state


def trained_name(round_: int) -> str:
    """Return the name of the file with the weights that a round ended with."""
    return f"trained_{round_:02d}.safetensors"


def save_state(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write weights, such as those that the tickets of a folder start from, in one step; returns their checksum."""
    state = {n: t.detach().cpu().contiguous().clone() for n, t in state.items()}   # clone: weights may be shared
    write_bytes(Path(path), save(state))
    return checksum(state)


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    """Return the boolean tensor of a shape from its packed bits; ValueError if the bytes are not that many."""
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("no shape")
    n = math.prod(shape)        # exact: numpy's product of absurd sides wraps around
    if packed.dtype != torch.uint8 or packed.numel() != (n + 7) // 8:
        raise ValueError("wrong number of bits")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=n).astype(bool)).reshape(shape)
