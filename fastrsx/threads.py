"""Which twin of a kernel may run now, and on how many threads."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba

_launching = threading.Lock()
_forked_after_launch = False


def _after_fork_in_child() -> None:
    """A forked child has none of its parent's OpenMP workers, and a launch would kill it: it keeps to the serial twins."""
    global _launching, _forked_after_launch
    _launching = threading.Lock()
    _forked_after_launch = layer() is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def layer() -> str | None:
    """Numba's threading layer, or None before the first launch of threads."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


def available() -> int:
    """The most threads a kernel can use in this process."""
    return int(numba.config.NUMBA_NUM_THREADS)


def launch(kernel: Callable[..., Any], serial_twin: Callable[..., Any], *args: Any) -> Any:
    """Call the parallel kernel, or its serial twin where another Python thread is in a kernel or a fork forbids it.

    Numba's workqueue layer aborts when two threads launch at once. The twins give the same bits, so nobody can tell.
    """
    if _forked_after_launch or not _launching.acquire(blocking=False):
        return serial_twin(*args)
    try:
        return kernel(*args)
    finally:
        _launching.release()


@contextmanager
def limited_to(num_threads: int) -> Iterator[None]:
    """Run the body with this many Numba threads, and restore the setting."""
    before = numba.get_num_threads()
    numba.set_num_threads(num_threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)
