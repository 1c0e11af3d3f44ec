"""Named random streams: a draw depends on (seed, purpose, step) and on nothing that was drawn before."""
import contextlib
import hashlib
import threading
from collections.abc import Iterator

import torch

one_at_a_time = threading.RLock()       # torch's global generator is one for all threads


def stream_seed(seed: int, purpose: str, step: int = 0) -> int:
    """Return the 63-bit seed of a stream.

    >>> stream_seed(0, "code") == stream_seed(0, "code", 0)
    True
    >>> stream_seed(0, "code") == stream_seed(1, "code")
    False
    """
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(seed: int, purpose: str, step: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one use. CPU and GPU generators draw different numbers from the same seed."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, purpose, step))


@contextlib.contextmanager
def global_stream(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and restore it after: for torch's own initialisation."""
    with one_at_a_time, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, purpose))
        yield
