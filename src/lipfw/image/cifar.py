"""CIFAR-10's binary files: of each picture a byte that is its label, then 1024 red, green and blue ones."""
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from lipfw.errors import InputError
from lipfw.image.archive import MAX_FILE
from lipfw.image.classes import Labelled, from_arrays
from lipfw.listing import CIFAR, cifar_files

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE
_MEMBERS = 100      # of a tar that are looked at: the published one has 8


def read(path: Path) -> Labelled:
    """Return the data set of data_batch_1.bin ... and test_batch.bin, in a folder, the cifar-10-batches-bin in it, or a
    tar archive; fewer training batches are a smaller set. Raises InputError for what is missing or cut off.
    """
    files = {f.name: (f.stat().st_size, f.read_bytes) for f in cifar_files(path)} if path.is_dir() else _unpacked(path)
    if "test_batch.bin" not in files or len(files) < 2:
        lacks = "data_batch_1.bin" if "test_batch.bin" in files else "test_batch.bin"
        raise InputError(f"{path} lacks {lacks}; it must hold CIFAR-10's binary files, data_batch_1.bin to "
                         "data_batch_5.bin and test_batch.bin")
    parts = {name: _records(f"{path}: {name}", *file) for name, file in sorted(files.items())}
    test = parts.pop("test_batch.bin")
    train = np.concatenate(list(parts.values()))
    return from_arrays("cifar10", _pictures(train), train[:, 0], _pictures(test), test[:, 0], CLASSES)


def _records(name: str, size: int, read_: Callable[[], bytes]) -> np.ndarray:
    if not size or size % RECORD or size > MAX_FILE:
        raise InputError(f"{name} has {size:,} bytes, which is no number of CIFAR-10's records of {RECORD:,} bytes, up "
                         f"to {MAX_FILE >> 20} MiB; it may be cut off: copy it again")
    return np.frombuffer(read_(), np.uint8).reshape(-1, RECORD)


def _pictures(records: np.ndarray) -> np.ndarray:
    return records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _unpacked(path: Path) -> dict[str, tuple[int, Callable[[], bytes]]]:
    """Return the size of each of the files in a tar archive, which are read here, and what gives their bytes."""
    files = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for count, member in enumerate(archive):
                if count == _MEMBERS:
                    raise InputError(f"{path} holds more than {_MEMBERS} files; CIFAR-10's binary version has 8")
                name = PurePosixPath(member.name).name
                if member.size > MAX_FILE:      # to go past it, it would be unpacked
                    raise InputError(f"{path}: {name} has {member.size >> 20:,} MiB, more than the limit of "
                                     f"{MAX_FILE >> 20} MiB; CIFAR-10's files have 30")
                if member.isfile() and CIFAR.fullmatch(name):
                    there = archive.extractfile(member).read()
                    files[name] = len(there), lambda there=there: there
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise InputError(f"{path} is no tar archive, or a damaged one ({reason}); copy it again") from None
    return files
