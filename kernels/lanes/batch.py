"""Many small problems: eight of a shape together, or one by one. Threads share nothing, so each calls this for a part of them."""

from typing import NamedTuple

import numpy as np

from ..compiling.jit import serial
from ..layouts.panel import padded
from ..newton.small import STATUS, alloc_small, newton_small
from ..registers.simd import LANES
from .lanes import LEFT, MOST_COLUMNS, MOST_ENTRIES, alloc_lanes, interleave, solve_lanes


@serial
def suits_lanes(n, d):
    """Whether eight such problems are solved together: decided by the shape alone, so that answers do not depend on neighbours."""
    return d <= MOST_COLUMNS and n * d <= MOST_ENTRIES


@serial
def alike(n, d, j):
    """How many problems from j on have its shape, at most eight."""
    count = 1
    while count < LANES and j + count < n.shape[0] and n[j + count] == n[j] and d[j + count] == d[j]:
        count += 1
    return count


class Places(NamedTuple):
    """The place of each problem: all A lie end to end, and so do b, w and x."""

    n: np.ndarray
    d: np.ndarray
    entry: np.ndarray  # the first of its A
    row: np.ndarray  # of its b and w
    column: np.ndarray  # of its x


class Outcomes(NamedTuple):
    """How each problem ended."""

    status: np.ndarray
    fun: np.ndarray
    nit: np.ndarray
    nfev: np.ndarray


@serial
def solve_each(link, A, x, b, w, places, tol, max_iter, out):
    """Solve each problem from the start in x to the solution there."""
    n, d = places.n, places.d
    start, weighted = 0, w.shape[0] > 0
    one = np.int64(1)  # Numba would give a literal a type of its own; room is made when the first shape is known
    small, lanes = alloc_small(one, one, link), alloc_lanes(one, one, weighted)
    some, fates, nits, nfevs = np.empty((4, LANES), np.int64)
    while start < n.shape[0]:
        rows, columns, count = n[start], d[start], alike(n, d, start)
        together = suits_lanes(rows, columns)
        if together:
            if lanes.b.shape[0] != padded(rows) or lanes.U.shape[0] != columns:
                lanes = alloc_lanes(rows, columns, weighted)
            for i in range(LANES):  # the last problem is repeated to make eight
                some[i] = start + min(i, count - 1)
            interleave(A, places.entry[some], rows * columns, lanes.A)
            interleave(x, places.column[some], columns, lanes.x)
            interleave(b, places.row[some], rows, lanes.b)
            if weighted:
                interleave(w, places.row[some], rows, lanes.w)
            solve_lanes(link, rows, tol, max_iter, lanes, fates, nits, nfevs)
        for i in range(count):
            j = start + i
            entry, row, column = places.entry[j], places.row[j], places.column[j]
            if together and fates[i] != LEFT:
                out.status[j], out.fun[j], out.nit[j], out.nfev[j] = STATUS[fates[i]], lanes.numbers.fun[0, i], nits[i], nfevs[i]
                for m in range(columns):
                    x[column + m] = lanes.x[0, LANES * m + i]
            else:
                if small.work.a.shape[0] != rows or small.scale.shape[0] != columns:
                    small = alloc_small(rows, columns, link)
                result = newton_small(
                    A[entry : entry + rows * columns].reshape((rows, columns)),
                    x[column : column + columns],
                    b[row : row + rows],
                    w[row : row + rows],
                    tol,
                    max_iter,
                    small,
                )
                out.status[j], out.fun[j], out.nit[j], out.nfev[j] = result.status, result.fun, result.nit, result.nfev
        start += count
