"""Files that are never seen half-written: write to a temporary name, then rename."""
import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from lipfw.errors import InputError
from lipfw.redact import tree

_PART = ".part"


def sweep_parts(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder; nobody else may be writing there."""
    for part in Path(folder).rglob(f".*{_PART}.*"):
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Have errors of the system name the file that a user knows: a full disk's name none, others a temporary one."""
    try:
        yield
    except OSError as e:
        if e.errno is not None and e.filename in (None, str(temporary)):
            e.filename = str(path)
        raise


def write_atomic(path: Path, write: Callable[[Path], None], keep: Path | None = None) -> None:
    """Call `write(temporary)` and rename the result to `path`; on any error `path` keeps what it had.

    The temporary file lies in the same folder (a rename across file systems is a copy) and keeps the suffix, since
    some writers choose the format by it. What `path` had goes to `keep` then, if that is given: one of the two files
    is there at any moment.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}{_PART}{path.suffix}")
    with _told(path, temporary):
        try:
            write(temporary)
            with open(temporary, "rb") as f:
                os.fsync(f.fileno())  # a rename may reach the disk before the data does
            if keep is not None:
                with contextlib.suppress(FileNotFoundError):    # there is none yet
                    os.replace(path, keep)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):      # the drive may be gone: what went wrong first is told
                temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one step."""
    write_atomic(path, lambda p: p.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value) -> None:
    """Write `value` to `path` as indented JSON in one step, secrets hidden; NaN is refused (write None)."""
    write_text(path, json.dumps(tree(value), indent=1, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[dict]) -> None:
    """Replace `path` by one JSON object a line, in one step."""
    write_text(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_jsonl(path: Path) -> list[dict]:
    """Return the objects of a JSON-lines file, [] if there is none.

    A last line without its end is what a killed writer leaves; it is dropped. Raises InputError for any other damage.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    try:
        return [json.loads(line) for line in text.split("\n")[:-1] if line]
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: a line of it is no JSON; restore the file, or delete its folder to start "
                         "that run over") from None


def append_jsonl(path: Path, records: Iterable[dict]) -> None:
    """Append one JSON object a line, in one write; the file must end with a whole line (`write_jsonl` sees to that)."""
    text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records)
    with _told(path), open(path, "a", encoding="utf-8") as f:
        f.write(text)
