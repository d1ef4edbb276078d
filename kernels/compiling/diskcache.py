"""Compiled kernels on disk: one file for each signature, named by all of its inputs."""

import errno
import hashlib
import os
import pickle
import shlex
import stat
import sys
import tempfile
import uuid
import warnings
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import llvmlite
import numba
import platformdirs
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

import fastrsx.kernels

PACKAGE = fastrsx.kernels.__name__


def stamp(root):
    """A hash of all source below a directory, or None where there is none.

    A kernel has others compiled into it, so a change of any file is a change of all. The names of the files on disk identify a source,
    not their times: a copy of the package with other times finds its kernels.
    """
    sources = [path for path in sorted(root.rglob("*.py")) if path.is_file()]  # an editor's lock is a dangling link
    found = [(path.relative_to(root).as_posix(), path.read_bytes()) for path in sources]
    return hashlib.sha256(repr(found).encode()).hexdigest() if found else None


SOURCE_STAMP = stamp(Path(fastrsx.kernels.__file__).parent)

SETTING = os.environ.get("FASTRSX_CACHE", "")  # a folder, unless it is one of these
OFF, ON = ("0", "no", "off", "false"), ("", "1", "yes", "on", "true")

cache_problem: str | None = None
if SETTING.lower() in OFF:
    cache_problem = f"turned off by FASTRSX_CACHE={SETTING}"
elif SOURCE_STAMP is None:
    cache_problem = "the source of the kernels is not on disk, so nothing tells two versions apart"

# -- where they are ----------------------------------------------------------------------------------------------


HAS_OWNERS = hasattr(os, "geteuid")  # Windows has none; a user's folder is private there
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UnsafeError(PermissionError):
    """Users other than this one and root could put machine code there."""

    def __init__(self, reason):
        super().__init__(errno.EPERM, f"not read either: {reason}")


def _is_foreign(status):
    return HAS_OWNERS and status.st_uid not in (0, os.geteuid())


def _check(place, is_parent):
    """Raise UnsafeError where others can write to a folder, or replace it.

    The folders above it may belong to other users and groups: a folder that they put in its place is theirs, and not read.
    """
    status = place.stat()
    if is_parent:
        is_sticky = status.st_mode & stat.S_ISVTX and not _is_foreign(status)  # like /tmp: only its owner can replace an entry
        writers, danger, mode = 0 if is_sticky else stat.S_IWOTH, f"replace it, for {place} has", "o-w"
    else:
        writers, danger, mode = OTHERS_WRITE, "write to it,", "700"
        if _is_foreign(status):
            raise UnsafeError(f"it belongs to another user, with uid {status.st_uid}")
    if HAS_OWNERS and status.st_mode & writers:
        is_mine = status.st_uid == os.geteuid() and not status.st_mode & stat.S_ISVTX  # never advise root to close /tmp
        remedy = f"; chmod {mode} {shlex.quote(str(place))}" if is_mine else ""
        raise UnsafeError(f"others can {danger} mode {stat.S_IMODE(status.st_mode):o}{remedy}")


def private(folder):
    """The folder with links resolved, made for the user alone if missing; OSError where it cannot or should not be used."""
    folder = Path(os.path.abspath(folder))
    for place in (folder, *folder.parents):
        if place.is_symlink() and _is_foreign(place.lstat()):
            raise UnsafeError(f"{place} is a link of another user's")
    path = Path(os.path.realpath(folder))
    for place in (*reversed(path.parents), path):
        if not place.exists():
            place.mkdir(0o700, exist_ok=True)
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder" if place == path else f"{place} is not a folder")
        _check(place, is_parent=place != path)
    return path


def _wanted():
    """The possible folders of the cache, the preferred first, and whether the user has named them for it."""
    if SETTING.lower() not in ON:
        yield Path(os.path.expanduser(SETTING)), True
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR, "fastrsx"), False
    home = Path()
    with suppress(RuntimeError):  # there is no home, as for a user unknown to a container
        home = platformdirs.user_cache_path("fastrsx", appauthor=False)
    if home.is_absolute():  # older releases of platformdirs return ~ for it
        yield home, False


class Folders(NamedTuple):
    """The folders of the cache."""

    read: tuple[Path, ...]  # in this order
    written: Path | None  # the last of them
    unusable: tuple[str, ...]  # preferred folders that were not used, each with the reason
    refused: bool  # whether one of those is unsafe, or was named for the cache


@cache
def folders():
    """The most preferred writable folder, and before it, for reading only, those that are preferred to it."""
    read, unusable, refused = [], [], False
    for folder, is_named in _wanted():
        try:
            read.append(private(folder))
        except OSError as error:
            unusable.append(f"{folder} ({error.strerror})")
            refused |= is_named or isinstance(error, UnsafeError)
            continue
        with suppress(OSError):
            tempfile.TemporaryFile(dir=read[-1]).close()
            return Folders(tuple(read), read[-1], tuple(unusable), refused)
    return Folders(tuple(read), None, tuple(unusable), refused)


_warned = False


def _warn_once(places, written):
    """Warn once in a process: all kernels have the same problem."""
    global _warned
    if not _warned:
        _warned = True
        rest = (
            f"they are kept in {written}; set FASTRSX_CACHE to a folder that only you can write to."
            if written
            else "each process compiles its own; set FASTRSX_CACHE or NUMBA_CACHE_DIR to a folder that only you can write to, "
            "or FASTRSX_CACHE=0 to silence this."
        )
        where = "; ".join(places) or "a home, for there is none"
        warnings.warn(f"fastrsx: compiled kernels cannot be kept in {where}, so {rest}", RuntimeWarning, stacklevel=2)


# -- their contents -----------------------------------------------------------------------------------------------


def hash_of(*values):
    """Sixteen digits for values whose repr says all."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def common():
    """What kernels of a CPU and of a GPU depend on."""
    settings = config.OPT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT
    return SOURCE_STAMP, numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, settings


def build(codegen):
    """A hash of all that the kernels of a process share; kernels of another build are stale."""
    return hash_of(*common(), codegen.magic_tuple())


def is_cacheable(numba_type):
    """Whether no class in a type says `cacheable = False`, as a class does whose formulas are not in the source of the kernels."""
    own = getattr(getattr(numba_type, "instance_class", None), "cacheable", True)
    return own and all(map(is_cacheable, getattr(numba_type, "types", ())))


def ensure_written():
    """Make the folder that is written to; OSError where there is none."""
    if folders().written is None:
        raise OSError("there is no folder to write to")
    private(folders().written)  # it may have been removed since


def warn_of_refused():
    """Warn where a preferred folder is not used."""
    if folders().refused:
        _warn_once(folders().unusable, folders().written)


def warn_of_unwritten(error):
    """Warn of a file that could not be written: there is no folder, no permission or no space."""
    read, written, unusable, _ = folders()
    read_only = (f"{path} (it can only be read)" for path in read)
    _warn_once([f"{written} ({error.strerror})"] if written else [*unusable, *read_only], None)


class Locator(InTreeCacheLocator):
    """Tells Numba about `folders`."""

    def get_cache_path(self):
        return str(folders().written or "")

    def ensure_cache_path(self):
        ensure_written()


def _read(path):
    """The bytes of a file, if only the user and root can have written it: others may have had access to the folder before."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:  # a pipe would block
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or _is_foreign(status) or (HAS_OWNERS and status.st_mode & OTHERS_WRITE):
            raise UnsafeError(f"{path} may be of others")
        return file.read()


class KernelFiles:
    """One file for each signature of a kernel: numba's index can return another signature's data where two processes fill the cache."""

    def __init__(self, name):
        self._name = name

    def _file_name(self, key):
        build_hash, *_ = key
        return f"{self._name}.{build_hash}.{hash_of(key)}.nbc"

    def load(self, key):
        for folder in folders().read:
            with suppress(OSError):
                content = memoryview(_read(folder / self._file_name(key)))
                if hashlib.sha256(content[32:]).digest() == content[:32]:  # else damaged machine code would run
                    held, data = pickle.loads(content[32:])
                    if held == key:
                        return data
        return None

    def save(self, key, data):
        path = folders().written / self._file_name(key)
        temporary = path.with_suffix(f".nbc-{uuid.uuid4().hex}")  # not from tempfile, whose files only their owner can read
        content = dumps((key, data))
        try:
            with open(temporary, "xb", opener=partial(os.open, mode=0o644)) as file:
                file.write(hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def flush(self):
        for path in folders().written.glob(f"{self._name}.*.nbc") if folders().written else ():
            path.unlink(missing_ok=True)


class KernelImpl(CompileResultCacheImpl):
    """Without numba's search for a folder, which may choose one beside the source."""

    def __init__(self, py_func):
        self._lineno = py_func.__code__.co_firstlineno
        self._locator = Locator(py_func, py_func.__code__.co_filename)
        module = py_func.__module__.rpartition(".")[2]
        self._filename_base = self.get_filename_base(f"{module}.{py_func.__qualname__}", getattr(sys, "abiflags", ""))


class KernelCache(FunctionCache):
    """Numba's disk cache on KernelFiles. If anything fails in it, the kernel is compiled and runs."""

    def __init__(self, dispatcher, form):
        self._impl_class = form
        super().__init__(dispatcher.py_func)
        self._function = form.__name__, dispatcher.py_func.__module__, dispatcher.py_func.__qualname__, sorted(dispatcher.targetoptions.items())
        self._cache_file = KernelFiles(self._impl.filename_base)

    def _index_key(self, sig, codegen):
        return (build(codegen), self._function, *super()._index_key(sig, codegen))

    def load_overload(self, sig, target_context):
        warn_of_refused()
        try:
            found = super().load_overload(sig, target_context) if self._keeps(sig) else None
        except Exception:  # unpickling data of another NumPy can raise anything
            return None
        if found is not None:  # what numba does before such code runs is then also done before that of a kernel that it is compiled into
            found.library._reload_init.update(found.reload_init or ())
        return found

    def save_overload(self, sig, data):
        try:
            if self._keeps(sig):
                super().save_overload(sig, data)
        except OSError as error:
            warn_of_unwritten(error)

    def _keeps(self, sig):
        return all(map(is_cacheable, normalize_signature(sig)[0]))


def cached(dispatcher, form=KernelImpl):
    """The dispatcher, with its compiled code kept on disk where possible, in that form."""
    if cache_problem is None and f"{dispatcher.py_func.__module__}.".startswith(f"{PACKAGE}."):  # no other source is in SOURCE_STAMP
        dispatcher._cache = KernelCache(dispatcher, form)
    return dispatcher
