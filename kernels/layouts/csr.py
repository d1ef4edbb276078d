"""Sparse A: compressed rows, canonical (columns ascending within a row, none twice), float64 or float32.

A pass costs O(n + entries): sums over rows read the sparse rows directly. A Gram matrix sums the outer products of the entries of each row,
or, where many entries are not zero, uses panels like the other layouts.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..compiling.jit import parallel, serial, serial_twin
from ..registers.simd import LANES, fma, load_first, splat, sum_lanes

RANGES = 32  # of rows of a Gram matrix, each summed by one thread; no sum is split, so this number does not affect the bits
PART = 2**12  # entries sorted at a time
SLOTS = 16  # parts sorted before their products are summed: all stay in L2


class Csr(NamedTuple):
    """Sparse A, n x d."""

    values: np.ndarray  # entries, float64 or float32
    indices: np.ndarray  # entries: their columns, int32
    starts: np.ndarray  # n + 1: where the rows start, int64
    n: int
    d: int


class SparseRows(NamedTuple):
    """Some rows, from `first` on, for sums over rows."""

    values: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    first: int


@serial
def problem_at(indices, starts, d):
    """(row, is_wrong) of the first row that is not canonical, (-1, False) if none; is_wrong: sorting cannot fix it."""
    if starts[0] != 0 or starts[-1] > indices.shape[0]:
        return 0, True
    disorder = -1
    for i in range(starts.shape[0] - 1):
        if starts[i + 1] < starts[i] or starts[i + 1] > indices.shape[0]:
            return i, True
        before = -1
        for k in range(starts[i], starts[i + 1]):
            j = indices[k]
            if j < 0 or j >= d:
                return i, True
            if j <= before and disorder < 0:
                disorder = i
            before = j
    return disorder, False


@serial
def entries(A, i):
    """The positions of the entries of row i; unsigned, because Numba's test of signed indices for negative values takes a third of the time."""
    return range(np.uint64(A.starts[i]), np.uint64(A.starts[i + 1]))


# -- sums over rows ---------------------------------------------------------------------------------------------


@serial
def row_products(P, x, rows, out, start, ahead, row, whole):
    """out[start : start + rows] = P x."""
    for i in range(rows):
        total = 0.0
        for k in entries(P, P.first + i):
            total += P.values[k] * x[np.uint32(P.indices[k])]
        out[start + i] = total


@serial
def add_row_sums(P, W, rows, S, ahead, row, whole):
    """S += W[:, : rows] P for the three rows of W."""
    S0, S1, S2 = S[0], S[1], S[2]
    for i in range(rows):
        w0, w1, w2 = W[0, i], W[1, i], W[2, i]
        for k in entries(P, P.first + i):
            value, j = np.float64(P.values[k]), np.uint32(P.indices[k])
            s0, s1, s2 = S0[j] + w0 * value, S1[j] + w1 * value, S2[j] + w2 * value
            S0[j], S1[j], S2[j] = s0, s1, s2  # stored after all loads: the compiler does not know that they do not overlap


@serial
def add_row_sum(P, W, rows, S, ahead, row, whole):
    """The same for a W of one row."""
    for i in range(rows):
        w = W[0, i]
        for k in entries(P, P.first + i):
            S[0, np.uint32(P.indices[k])] += w * P.values[k]


@serial
def add_columns(P, rows, S):
    """S[0] += the sum of squares of each column, S[1] = the largest |P_ij| so far."""
    for k in range(P.starts[P.first], P.starts[P.first + rows]):
        value, j = np.float64(P.values[k]), np.uint32(P.indices[k])
        S[0, j] += value * value
        S[1, j] = max(S[1, j], abs(value))


@serial
def row_squares(P, B, rows, out, start, ahead, row):
    """out[start : start + rows] = the squares of each row of P B, summed, for a B of eight columns."""
    for i in range(rows):
        image = splat(0.0)
        for k in entries(P, P.first + i):
            image = fma(splat(np.float64(P.values[k])), load_first(B, np.int64(P.indices[k]), 0, LANES), image)
        out[start + i] = sum_lanes(image * image)


@serial
def densify(A, start, rows, out):
    """The first rows of `out`, padded with zeros, are rows start : start + rows of A."""
    out[:rows] = 0.0
    for i in range(rows):
        for k in entries(A, start + i):
            out[i, np.uint32(A.indices[k])] = A.values[k]


# -- Gram -------------------------------------------------------------------------------------------------------


@serial
def share_out(A, bounds):
    """Ranges of rows of A^T diag(h) A that cost about the same, as RANGES + 1 bounds; and the number of products of all."""
    n, d = A.shape
    cost = np.zeros(d)
    for i in range(n):
        for k in range(A.starts[i], A.starts[i + 1]):
            cost[A.indices[k]] += A.starts[i + 1] - k
    total, passed, part = cost.sum(), 0.0, 1
    bounds[0] = 0
    for j in range(d):
        passed += cost[j]
        while part < bounds.shape[0] and passed * (bounds.shape[0] - 1) >= part * total:
            bounds[part] = j + 1
            part += 1
    bounds[part:] = bounds[-1] = d
    return total


@serial
def sort_part(A, p, ends, places, rows):
    """Sort the entries of part p by column, then by row, into places and rows; those of column j end at ends[j].

    A part is the rows that start in the same PART entries. Each range of the Gram matrix finds its rows in it without testing every entry.
    """
    first, last = np.searchsorted(A.starts[: A.n], p * PART), np.searchsorted(A.starts[: A.n], (p + 1) * PART)
    ends[:] = 0
    for k in range(np.uint64(A.starts[first]), np.uint64(A.starts[last])):
        ends[np.uint32(A.indices[k])] += 1
    before = 0
    for j in range(A.d):
        ends[j], before = before, before + ends[j]
    for i in range(first, last):
        for k in entries(A, i):
            column = np.uint32(A.indices[k])
            t = np.uint64(ends[column])
            places[t], rows[t] = k, i
            ends[column] += 1


@serial
def add_gram_rows(A, h, first, last, ends, places, rows, C):
    """Add a sorted part to rows first : last of C, right of the diagonal."""
    for t in range(np.uint64(ends[first - 1] if first > 0 else 0), np.uint64(ends[last - 1] if last > 0 else 0)):
        k, i = places[t], rows[t]
        weighted = h[i] * A.values[k]
        row = C[np.uint32(A.indices[k])]
        for m in range(k, np.uint64(A.starts[i + np.uint64(1)])):
            row[np.uint32(A.indices[m])] += weighted * A.values[m]


@parallel
def sparse_gram(A, h, bounds, ends, places, rows, C):
    """The triangle on and above the diagonal of C (padded d x padded d) = A^T diag(h) A, by outer products of entries.

    ends: slots x d; places, rows: slots x PART + d. Parts are sorted in parallel, then each range of C adds its entries, part by part:
    each sum is in the order of rows.
    """
    for t in prange(RANGES):
        C[bounds[t] : bounds[t + 1]] = 0.0
    slots, parts = ends.shape[0], A.starts[A.n] // PART + 1
    for p in range(0, parts, slots):
        sorted_parts = min(slots, parts - p)
        for s in prange(sorted_parts):
            sort_part(A, p + np.int64(s), ends[s], places[s], rows[s])
        for t in prange(RANGES):
            for s in range(sorted_parts):
                add_gram_rows(A, h, bounds[t], bounds[t + 1], ends[s], places[s], rows[s], C)


sparse_gram_serial = serial_twin(sparse_gram)
