"""Which twin of a kernel may run now, and on how many threads."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba

from . import forks
from .forks import layer as layer

_launching = threading.Lock()


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock."""
    global _launching
    _launching = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def available() -> int:
    """The most threads a kernel can use in this process."""
    return int(numba.config.NUMBA_NUM_THREADS)


def in_use() -> int:
    """How many a kernel called from this Python thread uses."""
    return available() if layer() is None else int(numba.get_num_threads())


def _may_abort() -> bool:
    """Whether Numba's workqueue layer would be launched off the main thread, perhaps beside another launch."""
    if threading.get_ident() == threading.main_thread().ident:
        return False
    if layer() is None:
        numba.get_num_threads()  # starts the layer
    return layer() == "workqueue"


def launch(kernel: Callable[..., Any], serial_twin: Callable[..., Any], *args: Any) -> Any:
    """Call the parallel kernel, or its serial twin where another Python thread is in a kernel, or a launch could end the process.

    The workqueue layer aborts when two threads launch at once, and launches by others cannot be detected. Of our own launches it gets those of
    the main thread, so that in a pool the other threads may launch the caller's. The twins give the same bits, so results do not depend on this.
    """
    if forks.is_after_launch or _may_abort() or not _launching.acquire(blocking=False):
        return serial_twin(*args)
    try:
        return kernel(*args)
    finally:
        _launching.release()


@contextmanager
def limited_to(num_threads: int) -> Iterator[None]:
    """Run the body with this many Numba threads, and restore the setting."""
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(num_threads)  # in here, because Ctrl-C comes after a call
        yield
    finally:
        numba.set_num_threads(before)
