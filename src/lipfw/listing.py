"""Which files a folder of pictures, or of tickets, stands for. No torch here: run folders are named by them."""
import os
from pathlib import Path

from lipfw.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def pictures_in(path) -> list[Path]:
    """Return the picture files of a folder by name; other endings, hidden files and subfolders are ignored.

    Raises InputError if `path` is no folder or holds no picture.
    """
    path = Path(os.path.expanduser(str(path)))
    try:
        files = sorted(f for f in path.iterdir()
                       if f.suffix.lower() in ENDINGS and not f.name.startswith(".") and not f.is_dir())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; image.path must be a folder that holds pictures") from None
    except NotADirectoryError:
        raise InputError(f"{path} is a file, not a folder; for one picture use image=file image.path={path}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be listed ({error.strerror}); make the folder readable") from None
    if not files:
        raise InputError(f"{path} holds no picture; put files there that end in {', '.join(ENDINGS)}")
    return files


def tickets_in(path) -> list[Path]:
    """Return the ticket files that a path names, by round.

    It is a ticket file, a folder of them, the folder of a run, or one (runs/<name>) that holds a single run with
    tickets. A folder begins with round 0 and has no gap; that of a run which is still going has fewer rounds. Raises
    InputError if there is none, or more than one run, or a round is missing.
    """
    path = Path(os.path.expanduser(str(path)))
    if path.is_file():
        return [path]
    for folder in (path, path / "tickets"):
        found = {int(f.stem[6:]): f for f in folder.glob("round_*.safetensors") if f.stem[6:].isdecimal()}
        if found:
            last = max(found)
            missing = sorted(set(range(last)) - set(found))
            if missing:     # the tickets are replayed in order: those after a gap would stand for other rounds
                raise InputError(f"{folder / f'round_{missing[0]:02d}.safetensors'} is missing; copy the folder again, "
                                 f"or name a single ticket, e.g. {found[last]}")
            return [found[r] for r in sorted(found)]
    runs = sorted(p.parent for p in path.glob("*/tickets") if any(p.glob("round_*.safetensors")))
    if len(runs) == 1:
        return tickets_in(runs[0])
    if runs:
        raise InputError(f"{path} holds {len(runs)} runs with tickets; name one of them, e.g. {runs[0]}")
    raise InputError(f"no ticket at {path}; give a file such as tickets/round_07.safetensors, or the folder of a run "
                     "with pruner=imp")
