"""Reading a file of torch.save without trusting it: tensors, plain data and one class of settings, and nothing else.

`torch.load(weights_only=True)` is not used: up to torch 2.5 it ran code (CVE-2025-32434), up to 2.9 it could be made to
corrupt memory (CVE-2026-24747), and it does not read a pickled class. Here a pickle can reach four things, all inert:
an ordered dictionary, the names of storage types, and two stand-ins, for a tensor and for the settings.
"""
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from lipfw.errors import InputError

MAGIC = 0x1950a86a20f9469cfc6c       # what a file of torch.save before 1.6 begins with
AGAIN = "download or copy it again, from where you trust"
_DTYPES = {"FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
           "LongStorage": torch.int64, "IntStorage": torch.int32}


class Settings:
    """Stands in for the pickled class of settings; its attributes are whatever the file holds, by name in `values`."""

    __slots__ = ("values",)

    def __new__(cls):       # an object that is never given a state has no values
        self = super().__new__(cls)
        self.values = {}
        return self

    def __setstate__(self, state) -> None:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise pickle.UnpicklingError("the settings are no dictionary")
        self.values = state


class _Stored:
    """A tensor that is not made yet: a storage, and which of its numbers in which order."""

    __slots__ = ("storage", "offset", "size", "stride")

    def __init__(self, storage, offset, size, stride, *_):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state) -> None:
        raise pickle.UnpicklingError("a tensor has no state")


class _Unpickler(pickle.Unpickler):
    """Finds nothing but what tensors and `settings`, a "module.Class", need."""

    def __init__(self, file: BinaryIO, settings: str):
        super().__init__(file)
        self.settings = settings
        self.storages = {}      # key -> type and count

    def find_class(self, module, name):
        wanted = f"{module}.{name}"
        if wanted == "collections.OrderedDict":
            return OrderedDict
        if wanted == "torch._utils._rebuild_tensor_v2":
            return _Stored
        if module == "torch" and name in _DTYPES:
            return name
        if wanted == self.settings:
            return Settings
        raise _Refused(_line(wanted))

    def persistent_load(self, pid):
        kind, dtype, key, _, count, *view = pid     # the fourth is the device it was on
        if kind != "storage" or any(v is not None for v in view) or type(key) is not str or type(count) is not int:
            raise pickle.UnpicklingError("no storage")
        self.storages[key] = _DTYPES[dtype], count
        return key, _DTYPES[dtype], count


class _Refused(Exception):
    """A pickle that asks for what it may not have, by its name."""


def read(path: Path, settings: str) -> dict:
    """Return the dictionary in a file of torch.save, of either format, with the tensors of dictionaries in it made.

    They are on the CPU. An object of the class called `settings` ("module.Class") becomes a `Settings`. Raises
    InputError for a file that is missing, damaged or of another kind, and for one that asks for anything else.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(64)
            if start.lstrip()[:1] == b"<":
                raise InputError(f"{path} is a web page and no weights, as a failed download leaves it; {AGAIN}")
            file.seek(0)
            found, raw = (_zipped if start[:2] == b"PK" else _legacy)(file, settings)
        if not isinstance(found, dict):
            raise InputError(f"{path} holds a {type(found).__name__} and no dictionary of weights; {AGAIN}")
        return {str(name): _tensors(value, raw) if isinstance(value, dict) else value
                for name, value in dict(found).items()}
    except InputError:
        raise
    except _Refused as refused:
        raise InputError(f"{path} asks for {refused}, which no weights need and which may run code: it was not read; "
                         f"{AGAIN}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); give the path of a weights file") \
            from None
    except Exception as error:      # a damaged pickle may raise anything; nothing of it is kept
        why = _line(f"{type(error).__name__}: {error}")
        raise InputError(f"{path} is damaged or no file of torch.save ({why}); {AGAIN}") from None


def _line(text: str) -> str:
    """Return the start of a text that a file may have chosen, on one line and with nothing that a terminal obeys."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:100]).split())


def _zipped(file: BinaryIO, settings: str) -> tuple[object, dict[str, bytes]]:
    """Return the object of a zip file and its storages' bytes; the archive's checksums are verified."""
    with zipfile.ZipFile(file) as archive:
        # torch.save does not compress: what is compressed may unpack to more than the memory holds
        stored = [i for i in archive.infolist() if i.compress_type == zipfile.ZIP_STORED]
        if sum(i.file_size for i in stored) > file.seek(0, io.SEEK_END):        # several that are the same bytes
            raise zipfile.BadZipFile("it holds more than itself")
        plain = [i.filename for i in stored]
        name, = (n for n in plain if n.endswith("/data.pkl"))
        folder = name.removesuffix(".pkl") + "/"
        found = _Unpickler(io.BytesIO(archive.read(name)), settings).load()
        return found, {n.removeprefix(folder): archive.read(n) for n in plain if n.startswith(folder)}


def _legacy(file: BinaryIO, settings: str) -> tuple[object, dict[str, bytes]]:
    """Return the same of a stream: a magic number, a version, the machine, the object, the storages' keys and they."""
    if _Unpickler(file, settings).load() != MAGIC:
        raise pickle.UnpicklingError("another magic number")
    for _ in range(2):
        _Unpickler(file, settings).load()
    unpickler = _Unpickler(file, settings)
    found, raw = unpickler.load(), {}
    for key in _Unpickler(file, settings).load():
        count = int.from_bytes(file.read(8), "little")
        dtype, expected = unpickler.storages[key]
        if count != expected:
            raise pickle.UnpicklingError("a storage of another length")
        raw[key] = file.read(count * dtype.itemsize)
    return found, raw


def _tensors(values: Mapping, raw: Mapping[str, bytes]) -> dict:
    """Return a dictionary with its tensors made; they share no memory."""
    return {str(name): _tensor(v, raw) if isinstance(v, _Stored) else v for name, v in dict(values).items()}


def _tensor(stored: _Stored, raw: Mapping[str, bytes]) -> Tensor:
    key, dtype, count = stored.storage
    numbers = (stored.offset, *stored.size, *stored.stride)
    if any(type(n) is not int or n < 0 for n in numbers):       # before they are multiplied: a text may be, too
        raise pickle.UnpicklingError("a tensor of no size")
    last = stored.offset + sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
    if last >= count or math.prod(stored.size) > count:
        raise pickle.UnpicklingError("a tensor outside its storage")
    if len(raw[key]) != count * dtype.itemsize:
        raise pickle.UnpicklingError("a storage is cut off")
    if not math.prod(stored.size):
        return torch.zeros(stored.size, dtype=dtype)
    flat = torch.frombuffer(bytearray(raw[key]), dtype=dtype)
    return flat.as_strided(stored.size, stored.stride, stored.offset).clone(memory_format=torch.contiguous_format)
