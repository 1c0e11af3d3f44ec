"""Files that are never seen half-written: write to a temporary name, then rename."""
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write(temporary)` and rename the result to `path`; on any error `path` keeps what it had.

    The temporary file lies in the same folder (a rename across file systems is a copy) and keeps the suffix, since
    some writers choose the format by it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())  # a rename may reach the disk before the data does
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in one step."""
    write_atomic(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_json(path: Path, value) -> None:
    """Write `value` to `path` as indented JSON in one step; NaN is refused (write None)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[dict]) -> None:
    """Replace `path` by one JSON object a line, in one step."""
    write_text(path, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def read_jsonl(path: Path) -> list[dict]:
    """Return the objects of a JSON-lines file, [] if there is none.

    A last line without its end is what a killed writer leaves; it is dropped.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def append_jsonl(path: Path, records: Iterable[dict]) -> None:
    """Append one JSON object a line, in one write."""
    text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records)
    with open(path, "a", encoding="utf-8") as f:
        f.write(text)
