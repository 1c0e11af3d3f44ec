"""The C functions of the kernel library, with their argument types."""
import ctypes
import functools

from lipfw.kernel.library import Unavailable, load
from lipfw.kernel.program import CNorm
from lipfw.kernel.weights import CWeights

ABI = 1     # of kernels.cpp; raised when a function's arguments change
ISAS = ("portable", "avx2", "avx512")

_P, _L, _I = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_FUNCTIONS = {
    "lipfw_isa": [], "lipfw_use_isa": [_I], "lipfw_threads": [_I], "lipfw_tile": [],
    "lipfw_conv": [_P, ctypes.POINTER(CWeights), _P, _P, _L, _L, _I],
    "lipfw_weights": [_P, _P, _L, ctypes.POINTER(CWeights), _P, _L],
    "lipfw_norm_forward": [ctypes.POINTER(CNorm)], "lipfw_norm_backward": [ctypes.POINTER(CNorm)],
    "lipfw_pad": [_P, _P, _L, _I, _I, _I, _I], "lipfw_split": [_P, _L, _I, _I, _I, _P, _L],
    "lipfw_join": [_P, _L, _P, _L, _I, _I, _I, _I], "lipfw_gather": [_P, _P, _P, _L],
}


@functools.cache
def library() -> ctypes.CDLL:
    """Return the kernel library. Raises Unavailable if it can't be had, or is of another version."""
    c = load()
    if c.lipfw_abi() != ABI:
        raise Unavailable(f"the kernel library is of version {c.lipfw_abi()}, not {ABI}")
    for name, types in _FUNCTIONS.items():
        function = getattr(c, name)
        function.argtypes = types
        function.restype = _I if name in ("lipfw_isa", "lipfw_use_isa", "lipfw_tile") else None
    return c
