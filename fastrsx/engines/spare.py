"""Arrays of a solve that has ended, for the next one: to allocate on a GPU takes longer than all that a small problem has to do there."""

import threading
import weakref
from typing import Any

import numpy as np

from fastrsx.kernels.gpu.block import cuda

from ..system import device

KEPT = 2**26  # bytes of one thread on one GPU, at most: larger problems take longer than their arrays

_spares = threading.local()


class Spare:
    """Arrays that no engine has, of one stream: what is queued there on an array ends before what its next owner queues."""

    def __init__(self) -> None:
        self.lock, self.arrays, self.bytes = threading.RLock(), dict[tuple[Any, ...], list[Any]](), 0

    def take(self, key: tuple[Any, ...]) -> Any:
        """An array; None where there is none like that."""
        with self.lock:
            if not (found := self.arrays.get(key)):
                return None
            array = found.pop()
            self.bytes -= array.nbytes
            return array

    def keep(self, taken: list[tuple[tuple[Any, ...], Any]]) -> None:
        """Take back the arrays of an engine; those of former ones go where they are too many together."""
        size = sum(array.nbytes for _, array in taken)
        if size > KEPT:
            return
        with self.lock:
            if self.bytes + size > KEPT:
                self.arrays.clear()
                self.bytes = 0
            for key, array in taken:
                self.arrays.setdefault(key, []).append(array)
            self.bytes += size


def spare() -> Spare:
    """That of this thread on the current GPU, as `device.stream` is."""
    made = vars(_spares).setdefault("made", {})
    return made.setdefault(device.current(), Spare())


class Rooms:
    """The arrays of one engine, from those to spare where there are such; they go back when it is gone."""

    def __init__(self, engine: Any, stream: Any) -> None:
        self.stream, self._spare = stream, spare()
        self._taken: list[tuple[tuple[Any, ...], Any]] = []
        weakref.finalize(engine, self._spare.keep, self._taken).atexit = False

    def _take(self, is_pinned: bool, shape: Any, dtype: Any) -> Any:
        key = is_pinned, shape, np.dtype(dtype)
        array = self._spare.take(key)
        if array is None:
            array = cuda.pinned_array(shape, dtype) if is_pinned else cuda.device_array(shape, dtype, stream=self.stream)
        self._taken.append((key, array))
        return array

    def new(self, shape: Any, dtype: Any = np.float64) -> Any:
        """An array on the GPU, with any numbers."""
        return self._take(False, shape, dtype)

    def pinned(self, size: int) -> Any:
        """A vector in memory that the GPU copies from and to."""
        return self._take(True, size, np.float64)
