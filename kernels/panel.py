"""Panels: some rows of A as the micro-kernel wants them.

A panel is a C-ordered float64 matrix whose rows are a whole number of registers wide and whose row count is
readable in eights. Where A is one already, its panel is A itself; else the rows are packed into a buffer, padded
with zeros. Whatever comes after sees panels only, so a new layout of A is a new loader here and nothing else.
"""

from .jit import serial
from .simd import LANES, load_first, splat, store

ROWS = 128  # of a panel: with its weights it stays in the nearest caches while it is read several times


@serial
def padded(d):
    """d rounded up to whole registers."""
    return (d + LANES - 1) // LANES * LANES


@serial
def is_in_place(A, rows):
    """Whether rows of C-ordered float64 A are a panel where they lie."""
    return A.shape[1] % LANES == 0 and rows % LANES == 0


@serial
def loaded_panel(A, start, rows, buffer):
    """The panel that `load_panel` gave, while the buffer holds it."""
    return A[start : start + rows] if is_in_place(A, rows) else buffer


@serial
def load_panel(A, start, rows, buffer):
    """Rows start : start + rows of C-ordered float64 A; `buffer` is ROWS x padded(d)."""
    if not is_in_place(A, rows):
        d = A.shape[1]
        whole = d // LANES * LANES
        for i in range(rows):
            for j in range(0, whole, LANES):
                store(buffer, i, j, load_first(A, start + i, j, LANES))
            if whole < d:
                store(buffer, i, whole, load_first(A, start + i, whole, d - whole))
        for i in range(rows, (rows + LANES - 1) // LANES * LANES):
            for j in range(0, d, LANES):
                store(buffer, i, j, splat(0.0))
    return loaded_panel(A, start, rows, buffer)
