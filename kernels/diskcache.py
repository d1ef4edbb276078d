"""Compiled kernels on disk: one file for each signature, named by all that went into it."""

import hashlib
import os
import pickle
import sys
import uuid
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite
import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

# A kernel has others compiled into it, so a change of any file is a change of all. The names of the files on disk tell one source
# from another, and no time does: a copy of the package with other times finds its kernels.
SOURCES = sorted(Path(__file__).parent.glob("*.py"))
SOURCE_STAMP = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()

cache_problem: str | None = None
if os.environ.get("FASTRSX_CACHE", "1") == "0":
    cache_problem = "turned off by FASTRSX_CACHE=0"
elif not SOURCES:
    cache_problem = "the source of the kernels is not on disk, so nothing tells two versions apart"

_warned = False


def _warn_once(problem):
    """Say it once in a process: all kernels have the same problem."""
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastrsx: compiled kernels cannot be kept, so each process compiles its own ({problem}); set NUMBA_CACHE_DIR "
            "to a writable directory, or FASTRSX_CACHE=0 to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )


def _hash(*values):
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def build(codegen):
    """A hash of all that the kernels of a process share; those of another build are stale."""
    settings = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT
    return _hash(SOURCE_STAMP, numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, codegen.magic_tuple(), settings)


def is_cacheable(numba_type):
    """Whether no class in a type says `cacheable = False`, as one does whose formulas are not in the source of the kernels."""
    own = getattr(getattr(numba_type, "instance_class", None), "cacheable", True)
    return own and all(map(is_cacheable, getattr(numba_type, "types", ())))


@cache
def _folders():
    """The first writable one of numba's directories, and before it, to be read only, those that numba would rather have."""
    folders = []
    for locator in (UserProvidedCacheLocator, InTreeCacheLocator, UserWideCacheLocator)[0 if config.CACHE_DIR else 1 :]:
        place = locator(_hash, __file__)  # of a function only its file counts, and all kernels lie beside this one
        folders.append(Path(place.get_cache_path()))
        with suppress(OSError):
            place.ensure_cache_path()
            break
    return folders


class Locator(InTreeCacheLocator):
    """Numba's way to be told of `_folders`."""

    def __init__(self, py_func, py_file):
        super().__init__(py_func, py_file)
        self.folders = _folders()
        self._cache_path = str(self.folders[-1])

    @classmethod
    def from_function(cls, py_func, py_file):
        return cls(py_func, py_file)

    def get_source_stamp(self):
        return SOURCE_STAMP


class KernelFiles:
    """One file for each signature of a kernel: numba's index can give it the data of another, where two processes fill the cache."""

    def __init__(self, name, folders):
        self._name, self._folders = name, folders

    def _file_name(self, key):
        build_hash, *_ = key
        return f"{self._name}.{build_hash}.{_hash(key)}.nbc"

    def load(self, key):
        for folder in self._folders:
            try:
                content = memoryview((folder / self._file_name(key)).read_bytes())
            except OSError:
                continue
            if hashlib.sha256(content[32:]).digest() == content[:32]:  # else damaged machine code would run
                held, data = pickle.loads(content[32:])
                if held == key:
                    return data
        return None

    def save(self, key, data):
        path = self._folders[-1] / self._file_name(key)
        temporary = path.with_suffix(f".nbc-{uuid.uuid4().hex}")  # not of tempfile, whose files only their owner can read
        content = dumps((key, data))
        try:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def flush(self):
        for path in self._folders[-1].glob(f"{self._name}.*.nbc"):
            path.unlink(missing_ok=True)


class KernelImpl(CompileResultCacheImpl):
    _locator_classes = (Locator,)


class KernelCache(FunctionCache):
    """Numba's disk cache on KernelFiles. Whatever goes wrong in it, the kernel is compiled and runs."""

    _impl_class = KernelImpl

    def __init__(self, dispatcher):
        super().__init__(dispatcher.py_func)
        self._function = dispatcher.py_func.__module__, dispatcher.py_func.__qualname__, sorted(dispatcher.targetoptions.items())
        # NUMBA_CACHE_LOCATOR_CLASSES may name a locator without `folders`.
        self.folders = getattr(self._impl.locator, "folders", [Path(self._cache_path)])
        self._cache_file = KernelFiles(self._impl.filename_base, self.folders)

    def ensure_path(self):
        self._impl.locator.ensure_cache_path()

    def _index_key(self, sig, codegen):
        return (build(codegen), self._function, *super()._index_key(sig, codegen))

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context) if self._keeps(sig) else None
        except Exception:  # unpickling what another NumPy has pickled can raise anything
            return None

    def save_overload(self, sig, data):
        try:
            if self._keeps(sig):
                super().save_overload(sig, data)
        except OSError as error:  # no directory, no permission, no space
            _warn_once(error)

    def _keeps(self, sig):
        return all(map(is_cacheable, normalize_signature(sig)[0]))


def cached(dispatcher):
    """The dispatcher, with its compiled code kept on disk where that can be."""
    global cache_problem
    if cache_problem is None and dispatcher.py_func.__module__.rpartition(".")[0] == __package__:  # no other source is in SOURCE_STAMP
        try:
            dispatcher._cache = KernelCache(dispatcher)
        except RuntimeError as error:  # NUMBA_CACHE_LOCATOR_CLASSES names none that has a directory
            cache_problem = str(error)
            _warn_once(error)
    return dispatcher
