"""Which files a folder of pictures, or of tickets, stands for. No torch here: run folders are named by them."""
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lipfw import zoo
from lipfw.errors import InputError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_PICTURES = 1_000_000     # of one data set; CelebA has 202,599
CIFAR = re.compile(r"(data_batch_\d|test_batch)\.bin")      # the binary files of CIFAR-10


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


def pictures_below(path, part: str | None = None) -> list[str]:
    """Return the names, like train/1.png, of the picture files in a folder and its subfolders: see `picked`.

    Folders of runs (they hold a config.yaml) are ignored: `image.path=.` with `out=runs` would find its own results.
    """
    path = Path(os.path.expanduser(str(path)))
    names = []
    for folder, subfolders, files in os.walk(path, onerror=_unlisted):
        if "config.yaml" in files and Path(folder) != path:
            subfolders.clear()
            continue
        subfolders[:] = [f for f in subfolders if not _ignored(f)]
        names += [Path(folder, f).relative_to(path).as_posix() for f in files]
    return picked(names, path, part)


def picked(names: Iterable[str], path, part: str | None = None) -> list[str]:
    """Return, sorted, those names of a folder or zip that are pictures, and lie below the folder `part` in it.

    Hidden files and folders, and the __MACOSX that a Mac puts into a zip, are ignored. Raises InputError if none is
    left, or more than MAX_PICTURES are.
    """
    if part is not None and (not isinstance(part, str) or not part.strip("/")):
        raise InputError(f"image.part must be the name of a folder in {path}, or null for all of it, got {part!r}")
    every = sorted(n for n in names if PurePosixPath(n).suffix.lower() in ENDINGS and not n.endswith("/")
                   and not any(map(_ignored, n.split("/"))))
    if not every:
        raise InputError(f"{path} holds no picture; it must hold files that end in {', '.join(ENDINGS)}")
    found = every if part is None else [n for n in every if n.startswith(part.strip("/") + "/")]
    if not found:
        folders = list(dict.fromkeys(n.split("/")[0] for n in every if "/" in n))
        known = ", ".join(folders[:5]) + (" ..." if len(folders) > 5 else "") if folders else "none"
        raise InputError(f"{path} holds no picture below image.part={part}; its folders: {known}; null takes all")
    if len(found) > MAX_PICTURES:
        raise InputError(f"{path} holds {len(found):,} pictures, more than the limit of {MAX_PICTURES:,}; name a "
                         "folder in it by image.part, or remove some")
    return found


def cifar_files(path) -> list[Path]:
    """Return CIFAR-10's binary files in a folder, or in the folder cifar-10-batches-bin of it, by name; [] without any.
    """
    path = Path(os.path.expanduser(str(path)))
    for folder in (path, path / "cifar-10-batches-bin"):
        if found := sorted(f for f in folder.glob("*_batch*.bin") if CIFAR.fullmatch(f.name) and f.is_file()):
            return found
    return []


def _unlisted(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be listed ({error.strerror}); image.path must be a folder, or a zip, "
                     "that holds pictures and may be read")


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def tickets_in(path) -> list[Path]:
    """Return the ticket files that a path names, by round.

    It is a ticket file, a folder of them, the folder of a run, or one (runs/<name>) that holds a single run with
    tickets; or zoo:NAME, of those that ship with the package. A folder begins with round 0 and has no gap; that of a
    run which is still going has fewer rounds. Raises InputError if there is none, or more than one run, or a round is
    missing.
    """
    if zoo.is_named(path):
        return zoo.tickets(path)
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
    raise InputError(f"no ticket at {path}; give a file such as tickets/round_07.safetensors, the folder of a run "
                     "with pruner=imp, or one that ships with lipfw, such as zoo:multi-s89")
