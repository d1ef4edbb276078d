"""Compiled GPU kernels on disk: the folders, the files and the rules of `diskcache`, for kernels of numba-cuda. CUDA is not imported.

numba-cuda's own cache tells kernels of one source apart by pickles of what they close over, which differ from process to process where that
is a compiled function. And it does not see a name that `rebuilt` has given another meaning.
"""

import hashlib
import importlib.metadata
import sys
import types
from functools import cache

import numpy as np
from numba.core import types as numba_types
from numba.core.sigutils import normalize_signature

from . import diskcache
from .diskcache import PACKAGE, KernelFiles, KernelImpl, hash_of, is_cacheable


class UntoldError(Exception):
    """A kernel depends on something that has no name, or whose source is not that of the kernels."""


def _code_names(code):
    """The names of globals in a code object, and in those of functions within it."""
    inside = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return {*code.co_names, *(name for each in inside for name in _code_names(each))}


def _is_ours(module):
    return f"{module}.".startswith(f"{PACKAGE}.")


def _told(value, seen):
    """What tells a value from others, the same in each process."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    if isinstance(value, tuple | list):
        return type(value).__name__, *(_told(each, seen) for each in value)
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, np.dtype | numba_types.Type) or type(value).__module__.startswith("llvmlite."):
        return str(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type):
        if (_is_ours(value.__module__) and getattr(value, "cacheable", True)) or value.__module__ in ("builtins", "numpy"):
            return value.__module__, value.__qualname__
    elif isinstance(value, types.BuiltinFunctionType):
        return value.__module__, value.__qualname__
    else:
        func = getattr(value, "py_func", getattr(value, "_defn", value))  # of a dispatcher, of an intrinsic
        if isinstance(func, types.FunctionType):
            return _told_function(func, seen)
    raise UntoldError(repr(value))


def _told_function(func, seen):
    """The name of a function of ours, the values that it closes over, and the globals that are not those of its module."""
    if not _is_ours(func.__module__):
        raise UntoldError(func.__qualname__)
    name = func.__module__, func.__qualname__, func.__code__.co_firstlineno
    if func in seen:  # it calls itself
        return name
    seen = {*seen, func}
    cells = [_told(cell.cell_contents, seen) for cell in func.__closure__ or ()]
    names, others = func.__globals__, vars(sys.modules[func.__module__])
    changed = sorted(name for name in _code_names(func.__code__) if name in names and names[name] is not others.get(name, names))
    return *name, cells, [(name, _told(names[name], seen)) for name in changed]


def identity(dispatcher):
    """A hash that tells kernels of one source and signature apart; None where none can, as for the code of a user's link."""
    try:
        options = {name: _told(value, ()) for name, value in sorted(dispatcher.targetoptions.items())}
        return hash_of(_told_function(dispatcher.py_func, ()), options)
    except UntoldError:
        return None


@cache
def build():
    """A hash of all that the kernels of a process share; kernels of another build are stale."""
    try:
        return hash_of(*diskcache.common(), importlib.metadata.version("numba-cuda"))
    except importlib.metadata.PackageNotFoundError:
        return None


class KernelCache:
    """What numba-cuda asks of a cache. If anything fails in it, the kernel is compiled and runs."""

    def __init__(self, dispatcher):
        self.identity = identity(dispatcher)
        self._files = KernelFiles(KernelImpl(dispatcher.py_func).filename_base)

    @property
    def cache_path(self):
        return str(diskcache.folders().written or "")

    def _key(self, sig, codegen):
        """Also the version of CUDA and the compute capability."""
        return build(), self.identity, normalize_signature(sig)[0], codegen.magic_tuple()

    def _keeps(self, sig):
        return self.identity is not None and all(map(is_cacheable, normalize_signature(sig)[0]))

    def load_overload(self, sig, target_context):
        diskcache.warn_of_refused()
        try:
            if not self._keeps(sig):
                return None
            target_context.refresh()
            states = self._files.load(self._key(sig, target_context.codegen()))
            if states is None:
                return None
            from numba.cuda.dispatcher import _Kernel

            return _Kernel._rebuild(**states)
        except Exception:  # unpickling data of another version can raise anything
            return None

    def save_overload(self, sig, kernel):
        try:
            if self._keeps(sig) and not kernel.launch_config_sensitive:
                diskcache.ensure_written()
                self._files.save(self._key(sig, kernel.codegen), kernel._reduce_states())
        except OSError as error:
            diskcache.warn_of_unwritten(error)
        except Exception:  # what cannot be pickled is not kept
            return

    def flush(self):
        self._files.flush()


def cached(dispatcher):
    """The dispatcher of a GPU kernel, with its compiled code kept on disk where possible."""
    if diskcache.cache_problem is None and hasattr(dispatcher, "_cache") and not isinstance(dispatcher._cache, KernelCache):
        dispatcher._cache = KernelCache(dispatcher)
    return dispatcher
