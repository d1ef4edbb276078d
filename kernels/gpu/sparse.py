"""Sparse A on a GPU: compressed rows for A x, and the same entries by columns for A^T y, so that nothing needs atomics and sums have one order.

Some lanes of a warp share a row. They also share a part of a column, of at most PART entries; the sums of parts are added up in their order.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from .block import WARP, cuda, device, kernel, unsigned
from .ptx import swapped
from .scalar import linked_kernel
from .vectors import row_weights

PART = 2048


class Csr(NamedTuple):
    """Sparse A, n x d, on the GPU."""

    values: Any  # entries, float64 or float32
    columns: Any  # of entries
    starts: Any  # n + 1: where rows start
    by_column: Any  # the values again, column by column, and by rows within each
    rows: Any  # of these
    bounds: Any  # parts + 1: where parts of columns start in these
    firsts: Any  # d + 1: the first part of each column
    sums: Any  # 3 x parts: room for those of the parts
    shape: tuple[int, int]

    @property
    def nnz(self):
        """Entries."""
        return self.values.shape[0]

    @property
    def gpu_data(self):
        """Memory on the GPU that holds it."""
        return self.values.gpu_data


def lanes_for(mean):
    """Lanes that share so many entries, on average."""
    lanes = 1
    while lanes < WARP and lanes < mean:
        lanes *= 2
    return lanes


def parts_of(starts):
    """Parts of columns that begin at these entries: where each begins and the last ends, and the first part of each column."""
    sizes = np.diff(starts)
    counts = -(-sizes // PART)
    firsts = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(firsts[-1]) - np.repeat(firsts[:-1], counts)
    return np.append(np.repeat(starts[:-1], counts) + within * PART, starts[-1]), firsts


def make_segments(lanes):
    """Functions for the first segment of a warp, and from one to the next; this lane's segment and place in it; and sums over its lanes."""
    groups = WARP // lanes

    @device
    def segments():
        t = cuda.threadIdx.x % WARP
        return cuda.grid(1) // WARP * groups, cuda.gridsize(1) // WARP * groups, t // lanes, t % lanes

    @device
    def add(x):
        half = lanes // 2
        while half > 0:
            x += swapped(x, half)
            half //= 2
        return x

    @device
    def largest(x):
        half = lanes // 2
        while half > 0:
            x = max(x, swapped(x, half))
            half //= 2
        return x

    return segments, add, largest


# Loops over segments go on for all lanes of a warp, since sums need them all; loops over entries are no ranges, which would take registers.


@functools.cache
def products(lanes):
    """For A x."""
    segments, add, _ = make_segments(lanes)

    @kernel
    def fold_sparse_products(values, columns, starts, x, out):
        """out = A x."""
        first, step, group, lane = segments()
        while first < out.shape[0]:
            i, total = first + group, 0.0
            if i < out.shape[0]:
                k, stop = unsigned(starts[i]) + unsigned(lane), unsigned(starts[i + 1])
                while k < stop:
                    total += np.float64(values[k]) * np.float64(x[unsigned(columns[k])])
                    k += unsigned(lanes)
            total = add(total)
            if lane == 0 and i < out.shape[0]:
                out[i] = total
            first += step

    return fold_sparse_products


@functools.cache
def transposed(lanes):
    """For A^T y."""
    segments, add, _ = make_segments(lanes)

    @kernel
    def fold_sparse_transposed(values, rows, bounds, y, sums):
        """sums[0] = A^T y, of parts of columns."""
        first, step, group, lane = segments()
        while first < sums.shape[1]:
            p, total = first + group, 0.0
            if p < sums.shape[1]:
                k, stop = unsigned(bounds[p]) + unsigned(lane), unsigned(bounds[p + 1])
                while k < stop:
                    total += np.float64(values[k]) * np.float64(y[unsigned(rows[k])])
                    k += unsigned(lanes)
            total = add(total)
            if lane == 0 and p < sums.shape[1]:
                sums[0, p] = total
            first += step

    return fold_sparse_transposed


@functools.cache
def gradient(lanes):
    """For A^T v, A^T q and A^T r."""
    segments, add, _ = make_segments(lanes)

    @kernel
    def fold_sparse_gradient(values, rows, bounds, weights, sums):
        """The three of parts of columns; weights: h, v, q and r of each row, side by side."""
        first, step, group, lane = segments()
        while first < sums.shape[1]:
            p, v, q, r = first + group, 0.0, 0.0, 0.0
            if p < sums.shape[1]:
                k, stop = unsigned(bounds[p]) + unsigned(lane), unsigned(bounds[p + 1])
                while k < stop:
                    value, place = np.float64(values[k]), unsigned(4) * unsigned(rows[k])
                    v += value * weights[place + unsigned(1)]
                    q += value * weights[place + unsigned(2)]
                    r += value * weights[place + unsigned(3)]
                    k += unsigned(lanes)
            v, q, r = add(v), add(q), add(r)
            if lane == 0 and p < sums.shape[1]:
                sums[0, p], sums[1, p], sums[2, p] = v, q, r
            first += step

    return fold_sparse_gradient


@functools.cache
def columns(lanes):
    """For the sizes of columns."""
    segments, add, largest = make_segments(lanes)

    @kernel
    def fold_sparse_columns(values, bounds, sums):
        """The sum of squares and the largest |A_ij| of parts of columns; a NaN or inf shows in the first."""
        first, step, group, lane = segments()
        while first < sums.shape[1]:
            p, squares, most = first + group, 0.0, 0.0
            if p < sums.shape[1]:
                k, stop = unsigned(bounds[p]) + unsigned(lane), unsigned(bounds[p + 1])
                while k < stop:
                    value = np.float64(values[k])
                    squares += value * value
                    most = max(most, abs(value))
                    k += unsigned(lanes)
            squares, most = add(squares), largest(most)
            if lane == 0 and p < sums.shape[1]:
                sums[0, p], sums[1, p] = squares, most
            first += step

    return fold_sparse_columns


@functools.cache
def merge(lanes, has_largest):
    """For the sums of all parts of a column; with `has_largest`, the second kind is the largest instead."""
    segments, add, largest = make_segments(lanes)

    @kernel
    def merge_parts(sums, firsts, kind, vectors):
        """vectors[0, kind + k, j] of all parts of column j, for each k of the grid's second axis."""
        first, step, group, lane = segments()
        each = cuda.blockIdx.y
        while first < vectors.shape[2]:
            j, total = first + group, 0.0
            if j < vectors.shape[2]:
                p, stop = unsigned(firsts[j]) + unsigned(lane), unsigned(firsts[j + 1])
                while p < stop:
                    total = max(total, sums[each, p]) if has_largest and each == 1 else total + sums[each, p]
                    p += unsigned(lanes)
            total = largest(total) if has_largest and each == 1 else add(total)
            if lane == 0 and j < vectors.shape[2]:
                vectors[0, kind + each, j] = total
            first += step

    return merge_parts


@linked_kernel
def weigh_sparse_rows(link, a, b, w, point, out):
    """h, v/alpha, q/alpha and r of each row, side by side: one sector of memory for an entry of that row."""
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        row = row_weights(link, a, b, w, point, i)
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = row.h, row.v, row.q, row.r


@kernel
def permute(values, order, out):
    """out[k] = values[order[k]]."""
    for k in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[k] = values[order[k]]


@kernel
def scatter_column(values, rows, bounds, firsts, j, out):
    """out[row] = A[row, j], where column j has an entry."""
    for k in range(bounds[firsts[j]] + cuda.grid(1), bounds[firsts[j + 1]], cuda.gridsize(1)):
        out[rows[k]] = values[k]


@kernel
def scatter_rows(values, columns, starts, numbers, out):
    """out[k] = row numbers[k] of A, where that has entries."""
    for k in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        for e in range(starts[numbers[k]], starts[numbers[k] + 1]):
            out[k, columns[e]] = values[e]
