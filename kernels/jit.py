"""How kernels are compiled: flags, disk cache, and serial twins."""

import hashlib
import os
import types
import warnings
from pathlib import Path

from numba import njit
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

# No fastmath: kernels say with explicit lanes and fma what may be vectorised, and every twin gives the same bits.
FLAGS = {"nogil": True, "error_model": "numpy"}

# Numba's cache knows when the file of a function changes, not when a file it calls into does.
SOURCE_STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()

cache_problem: str | None = None if os.environ.get("FASTRSX_CACHE", "1") != "0" else "turned off by FASTRSX_CACHE=0"


class KernelCache(FunctionCache):
    """Numba's disk cache, keyed on the source of all kernels together."""

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), SOURCE_STAMP)

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling what is damaged, or from another layout of the package, can raise anything
            self.flush()
            return None


def _cached(dispatcher):
    global cache_problem
    if cache_problem is None:
        try:
            dispatcher._cache = KernelCache(dispatcher.py_func)
        except RuntimeError as error:  # no directory can be written: a read-only install without a home
            cache_problem = str(error)
            warnings.warn(
                "fastrsx: no writable directory for compiled kernels, so each process compiles its own; set NUMBA_CACHE_DIR "
                "to a writable directory, or FASTRSX_CACHE=0 to silence this.",
                RuntimeWarning,
                stacklevel=3,
            )
    return dispatcher


def serial(func):
    """Compile `func` for one thread."""
    return _cached(njit(**FLAGS)(func))


def parallel(func):
    """Compile `func` with its prange loops on all threads."""
    return _cached(njit(parallel=True, **FLAGS)(func))


def part(func):
    """A part of one kernel, spliced into it: not compiled apart, which would optimise all it calls once more."""
    return njit(inline="always", **FLAGS)(func)


_serial_twins: dict[Dispatcher, Dispatcher] = {}


def serial_twin(dispatcher):
    """The same source for one thread: prange is range, and the name of a kernel that has a serial twin means that twin."""
    func = dispatcher.py_func
    kernels = {name: value for name, value in func.__globals__.items() if isinstance(value, Dispatcher)}
    twins = {name: _serial_twins[kernel] for name, kernel in kernels.items() if kernel in _serial_twins}
    twin = types.FunctionType(func.__code__, func.__globals__ | twins, f"{func.__name__}_serial", func.__defaults__)
    twin.__qualname__, twin.__module__, twin.__doc__ = f"{func.__qualname__}_serial", func.__module__, func.__doc__
    _serial_twins[dispatcher] = part(twin) if dispatcher.targetoptions.get("inline") == "always" else serial(twin)
    return _serial_twins[dispatcher]
