"""Panels: some rows of A as the micro-kernel wants them.

A panel is a C-ordered float64 matrix whose rows are a whole number of registers wide and whose row count is
readable in eights. Where A is one already, its panel is A itself; else the rows are packed into a buffer, widened and padded
with zeros. Whatever comes after sees panels only, so a new layout of A is a new loader here and nothing else.
"""

from numba.core import types
from numba.core.errors import TypingError
from numba.extending import overload

from .jit import serial
from .simd import LANES, load_first, splat, store

ROWS = 128  # of a panel: with its weights it stays in the nearest caches while it is read several times


@serial
def padded(count):
    """A number of columns or rows rounded up to whole registers."""
    return (count + LANES - 1) // LANES * LANES


@serial
def is_in_place(A, rows):
    """Whether rows of A are a panel where they lie."""
    return A.itemsize == 8 and A.shape[1] % LANES == 0 and rows % LANES == 0


def loaded_panel(A, start, rows, buffer):
    """The panel that `load_panel` gave, while the buffer holds it."""
    raise NotImplementedError("compiled only")


@overload(loaded_panel)
def _loaded_panel(A, start, rows, buffer):
    if A.layout != "C" or A.dtype not in (types.float64, types.float32):
        raise TypingError(f"A must be a C-ordered array of float64 or float32, got {A}; np.ascontiguousarray makes one")
    if A.dtype == types.float32:
        return lambda A, start, rows, buffer: buffer
    return lambda A, start, rows, buffer: A[start : start + rows] if is_in_place(A, rows) else buffer


@serial
def pack_rows(A, start, rows, out):
    """The first rows of `out`, padded with zeros, are rows start : start + rows of A."""
    d = A.shape[1]
    whole = d // LANES * LANES
    for i in range(rows):
        for j in range(0, whole, LANES):
            store(out, i, j, load_first(A, start + i, j, LANES))
        if whole < d:
            store(out, i, whole, load_first(A, start + i, whole, d - whole))


@serial
def load_panel(A, start, rows, buffer):
    """Rows start : start + rows of C-ordered A, float64 or float32; `buffer` is ROWS x padded(d)."""
    if not is_in_place(A, rows):
        pack_rows(A, start, rows, buffer)
        for i in range(rows, padded(rows)):
            for j in range(0, A.shape[1], LANES):
                store(buffer, i, j, splat(0.0))
    return loaded_panel(A, start, rows, buffer)
