"""The published weights, downloaded once into a cache and verified each time they are read."""
import hashlib
from collections.abc import Callable
from pathlib import Path

from lipfw.bounded import bounded
from lipfw.errors import InputError

URL = "https://dl.fbaipublicfiles.com/gan_zoo/PGAN/"
FILES = {"celebahq256": "celebaHQ_s6_i80000-6196db68.pth", "celebahq512": "celebaHQ16_december_s7_i96000-9c72988c.pth"}
MAX_BYTES = 1 << 30
TIMEOUT = 10  # seconds for a connection and between two pieces of an answer


def fetch(name: str, downloader: Callable | None = None) -> Path:
    """Return where the weights called `name`, a key of FILES, lie; the file's name ends in the start of its SHA-256.

    `downloader(url, file, pooch)` is pooch's, by default over HTTP. Raises InputError without pooch or a network, and
    if what came, or what lies in the cache, is another file.
    """
    file = FILES[name]
    remedy = f"download {URL}{file} yourself and give prior.weights=PATH"
    try:
        import pooch
    except ImportError:
        raise InputError(f"prior.weights={name} cannot be downloaded without pooch; pip install 'lipfw[data]', or "
                         f"{remedy}") from None
    download = downloader or bounded(pooch.HTTPDownloader(timeout=TIMEOUT), MAX_BYTES)

    def verified(url, output_file, pooch):     # before pooch moves it into the cache, so nothing else gets there
        download(url, output_file, pooch)
        if not _right(Path(output_file), file):
            raise ValueError("what came is another file: its SHA-256 does not begin as its name ends")

    try:
        path = Path(pooch.retrieve(f"{URL}{file}", known_hash=None, fname=file, path=pooch.os_cache("lipfw") / "gan",
                                   downloader=verified))
        right = _right(path, file)
    except (OSError, ValueError) as error:      # no network, a full disk; another file
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise InputError(f"prior.weights={name} is not here and could not be downloaded ({why}); {remedy}") from None
    if not right:
        raise InputError(f"{path} is damaged: its SHA-256 does not begin as its name ends; delete it to have it "
                         f"downloaded again, or {remedy}")
    return path


def _right(path: Path, file: str) -> bool:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest().startswith(Path(file).stem.rpartition("-")[2])
