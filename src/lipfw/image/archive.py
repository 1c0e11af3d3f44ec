"""The pictures of a folder or of a zip, by name; a zip is read where it is and never unpacked to the disk."""
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lipfw.errors import InputError
from lipfw.listing import picked, pictures_below

MAX_BYTES = 32 << 30            # of all files together, unpacked
MAX_FILE = 1 << 28              # of one file: more than a picture of 64 million pixels takes


@contextmanager
def opened(path, part: str | None = None) -> Iterator[dict[str, Callable[[], BinaryIO]]]:
    """Give the pictures at `path`, a folder or a zip, inside the block: name -> function that opens the file.

    Names are sorted, the same for a folder and its zip; `part` leaves those below that folder of it. Raises InputError
    if there is none or the zip is damaged, encrypted or absurdly large.
    """
    path = Path(os.path.expanduser(str(path)))
    if path.is_dir():
        yield {name: partial(_file, path / name) for name in pictures_below(path, part)}
        return
    try:
        archive = zipfile.ZipFile(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist; image.path must be a folder, or a zip, that holds pictures") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is no zip, or a damaged one ({error}); copy it again, or give a folder") from None
    except (OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a folder, or a zip, that holds pictures") from None
    with archive:
        members = {m.filename: m for m in archive.infolist()}
        names = picked(members, path, part)
        for name in names:
            _check(members[name], path)
        total = sum(members[name].file_size for name in names)
        if total > MAX_BYTES:
            raise InputError(f"{path} would unpack to {total / 2 ** 30:,.0f} GiB, more than the limit of "
                             f"{MAX_BYTES >> 30} GiB; name a folder in it by image.part, or make the pictures smaller")
        yield {name: partial(_member, archive, members[name], path) for name in names}


def _file(path: Path) -> BinaryIO:
    """Return an open file of a folder; not of what is no file: a pipe would be waited for, a device never ends."""
    if not path.is_file():
        raise InputError(f"{path} is not a regular file, or gone; remove it from the folder")
    return open(path, "rb")


def _check(member: zipfile.ZipInfo, path: Path) -> None:
    """Raise InputError for a member that is not to be read."""
    if member.flag_bits & 1:
        raise InputError(f"{path}: {member.filename} is encrypted; unpack it and give the folder")
    if member.file_size > MAX_FILE:
        raise InputError(f"{path}: {member.filename} would unpack to {member.file_size >> 20:,} MiB, more than the "
                         f"limit of {MAX_FILE >> 20} MiB for a picture; remove it from the zip")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> BinaryIO:
    """Return an open file with the bytes of a member, at most as many as it declares; its checksum is checked."""
    try:
        return io.BytesIO(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: {member.filename} is damaged or packed in an unknown way ({error}); "
                         "copy the zip again") from None
