"""Downloads that stop at a size: what is too large is refused before it has filled the disk."""
from collections.abc import Callable
from typing import BinaryIO


def bounded(download: Callable, most: int) -> Callable:
    """Return a downloader of pooch's kind that raises ValueError once more than `most` bytes have come.

    `download` is one that can write to an open file, such as pooch.HTTPDownloader.
    """
    def stopping(url, output_file, pooch) -> None:
        with open(output_file, "wb") as file:
            download(url, _Counted(file, most), pooch)

    return stopping


class _Counted:
    """An open file that takes so many bytes and no more."""

    def __init__(self, file: BinaryIO, most: int):
        self._file, self._most, self._left = file, most, most

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"more than {self._most >> 20} MiB came")
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
