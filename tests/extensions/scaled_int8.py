"""A layout from outside: int8 with a scale for each column."""

from typing import NamedTuple

import numba
import numpy as np

from fastrsx.kernels.layouts.registry import Layout, register


class ScaledInt8:
    """A = values diag(scale), in an eighth of the memory."""

    ndim, dtype = 2, np.dtype(np.float64)

    def __init__(self, A):
        largest = np.abs(A).max(axis=0)
        self.scale = np.where(largest > 0, largest / 127, 1.0)
        self.values = np.round(A / self.scale).astype(np.int8)
        self.shape = A.shape

    def __getitem__(self, rows):
        return self.values[rows] * self.scale


class Source(NamedTuple):
    """What kernels take."""

    values: np.ndarray
    scale: np.ndarray
    n: int
    d: int


@numba.njit(nogil=True)
def fill(A, start, rows, out):
    """Rows start : start + rows, padded with zeros."""
    for i in range(rows):
        for j in range(A.d):
            out[i, j] = A.values[start + i, j] * A.scale[j]
        out[i, A.d :] = 0.0


register(
    Layout(
        name="scaled int8",
        words="A read in place, as int8 times a scale for each column",
        recognises=lambda A: isinstance(A, ScaledInt8),
        source_of=lambda A: Source(A.values, A.scale, *A.shape),
        source=Source,
        fill=fill,
    )
)
