"""The C functions of the kernel library, with their argument types."""
import ctypes
import threading

from lipfw.kernel.library import Unavailable, load
from lipfw.kernel.program import CNorm
from lipfw.kernel.weights import CWeights

ISAS = ("portable", "avx2", "avx512")

_P, _L, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_FUNCTIONS = {
    "lipfw_isa": [], "lipfw_use_isa": [_I], "lipfw_parallel": [], "lipfw_threads": [_I], "lipfw_tile": [],
    "lipfw_conv": [_P, ctypes.POINTER(CWeights), _P, _P, _L, _L, _I],
    "lipfw_weights": [_P, _P, _L, ctypes.POINTER(CWeights), _P, _L],
    "lipfw_norm_forward": [ctypes.POINTER(CNorm)], "lipfw_norm_backward": [ctypes.POINTER(CNorm)],
    "lipfw_pad": [_P, _P, _L, _I, _I, _I, _I], "lipfw_split": [_P, _L, _I, _I, _I, _P, _L],
    "lipfw_join": [_P, _L, _P, _L, _I, _I, _I, _I], "lipfw_gather": [_P, _P, _P, _L],
}

_RETURN = {"lipfw_isa", "lipfw_use_isa", "lipfw_parallel", "lipfw_tile"}     # an int; the others nothing

_lock = threading.Lock()
_found: list[ctypes.CDLL | Unavailable] = []     # one look in a process, whatever comes of it


def library() -> ctypes.CDLL:
    """Return the kernel library. Raises Unavailable if it can't be had."""
    with _lock:
        if not _found:
            _found.append(_declared())
    if isinstance(_found[0], Unavailable):
        raise _found[0]
    return _found[0]


def _declared() -> ctypes.CDLL | Unavailable:
    try:
        c = load()
    except Unavailable as e:
        return e
    for name, types in _FUNCTIONS.items():
        function = getattr(c, name)
        function.argtypes = types
        function.restype = _I if name in _RETURN else None
    return c
