"""What lies in the folder LIPFW_DATA and is downloaded from nowhere."""
import os
from pathlib import Path

from lipfw.errors import InputError, choice, whole


def local(option: str, name: str, instead: str) -> Path:
    """Return the path of `$LIPFW_DATA/<name>`. Raises InputError if it is not there; `instead` says what else to do."""
    folder = os.environ.get("LIPFW_DATA")
    path = Path(folder or "").expanduser() / name
    if folder and path.exists():
        return path
    looked = f"{path} does not exist" if folder else "LIPFW_DATA is not set"
    raise InputError(f"image={option} is not here ({looked}); set LIPFW_DATA to a folder that holds {name}, or use "
                     f"{instead}")


def chosen(names: list[str], name: str | int | None, count: int | None) -> list[str]:
    """Return the one that `name` says, else the first `count`, else all. Raises InputError for what is not there."""
    if count is not None:
        whole("image.count", count, least=1, most=len(names))
    if name is None:
        return names[:count]
    return [choice("image.name", f"{name:06d}" if type(name) is int else name, names)]      # 193457 is a number
