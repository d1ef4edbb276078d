"""How kernels are compiled: flags, disk cache, and serial twins."""

import hashlib
import os
import types
import warnings
from pathlib import Path

from numba import njit
from numba.core.caching import FunctionCache

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


def serial_twin(dispatcher):
    """The same source for one thread: prange is range, and each name that has a `_serial` twin means that twin."""
    func = dispatcher.py_func
    names = func.__globals__
    twins = {name: names[f"{name}_serial"] for name in func.__code__.co_names if f"{name}_serial" in names}
    twin = types.FunctionType(func.__code__, names | twins, f"{func.__name__}_serial", func.__defaults__)
    twin.__qualname__, twin.__module__, twin.__doc__ = f"{func.__qualname__}_serial", func.__module__, func.__doc__
    return serial(twin)
