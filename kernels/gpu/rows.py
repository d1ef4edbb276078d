"""Passes over A on a GPU: a few threads take a row for A x, and a few take a column for a d-vector.

A pass for both reads A once from memory: the rows of a block are in the first-level cache when its columns are summed.
"""

import operator

import numpy as np

from ..formulas import finish, states
from ..formulas import rows as formulas
from ..formulas.links import terms
from ..formulas.records import VB, VU, W2A, Q, R, V
from .block import THREADS, block_max, block_rows, block_sum, cuda, device, kernel, sum_lanes, unsigned
from .scalar import linked_kernel, scalar
from .vectors import over_exp, raised, rescale, row_weights

gradient_entry, rank_2 = scalar(finish.gradient_entry), scalar(finish.rank_2)
rescaled_sums, sum_weights = scalar(states.rescaled_sums), scalar(formulas.sum_weights)
WIDEST = THREADS  # columns up to which a pass for both rows and columns reads A once


# -- rows: A x --------------------------------------------------------------------------------------------------


@device
def row_threads(d):
    """Threads for a row, a power of two: enough to read whole sectors of 32 bytes, and for each to read at most 8 numbers."""
    lanes = 1
    while lanes < min(4, d) or (8 * lanes < d and lanes < THREADS):
        lanes *= 2
    return lanes


@device
def share_rows(A):
    """The rows of this block; the threads for each, the rows at a time, and which of these is this thread's."""
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, A.shape[0])
    lanes = row_threads(A.shape[1])
    return start, stop, lanes, THREADS // lanes, cuda.threadIdx.x // lanes


@device
def row_product(A, x, i, stop, lanes, scratch):
    """<A_i, x> of a row for each `lanes` threads, for the first of them; 0 from row `stop` on."""
    total = 0.0
    if i < stop:
        j, d, step = unsigned(cuda.threadIdx.x % lanes), unsigned(A.shape[1]), unsigned(lanes)
        while j + step < d:  # no range: Numba counts its steps beforehand, and it is unrolled further; both take registers
            total += A[unsigned(i), j] * np.float64(x[j]) + A[unsigned(i), j + step] * np.float64(x[j + step])
            j += step + step
        if j < d:
            total += A[unsigned(i), j] * np.float64(x[j])
    return sum_lanes(scratch, total, lanes)


@kernel
def fold_products(A, x, out):
    """out = A x."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop, lanes, rows, row = share_rows(A)
    for i in range(start, stop, rows):
        ai = row_product(A, x, i + row, stop, lanes, scratch)
        if cuda.threadIdx.x % lanes == 0 and i + row < stop:
            out[i + row] = ai


# -- columns: A^T y ---------------------------------------------------------------------------------------------


@device
def column_threads(d):
    """The threads for a column, up to THREADS columns: how many, the column of this one, and its number among them."""
    width = 1
    while width < d and width < THREADS:
        width *= 2
    t = cuda.threadIdx.x
    return THREADS // width, t % width, t // width


@device
def share_columns(A):
    """The rows of this block; the first of its WIDEST columns, and how many there are."""
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, A.shape[0])
    first = cuda.blockIdx.y * WIDEST
    return start, stop, first, min(WIDEST, A.shape[1] - first)


@device
def clear(sums):
    for k in range(4):
        sums[k] = 0.0


@device
def add_columns(A, i, stop, first, d, weights, kinds, sums):
    """sums[k] += sum over the rows i : stop, THREADS at most, of weights[k] A, for this thread's share of the d columns from `first` on."""
    groups, column, group = column_threads(d)
    if column < d:
        for row in range(group, stop - i, groups):
            x = A[unsigned(i + row), unsigned(first + column)]
            for k in range(kinds):
                sums[k] += weights[k, unsigned(row)] * x


def make_store(join):
    """A function that stores vector = the values of the threads for each of its d columns, joined in their order."""

    @device
    def store(scratch, value, d, vector):
        groups, column, group = column_threads(d)
        width = THREADS // groups
        cuda.syncthreads()
        scratch[cuda.threadIdx.x] = value
        cuda.syncthreads()
        if group == 0 and column < d:
            total = scratch[column]
            for other in range(1, groups):
                total = join(total, scratch[column + other * width])
            vector[column] = total

    return store


store_sum, store_largest = make_store(operator.add), make_store(max)


@device
def store_columns(scratch, sums, kinds, d, vectors):
    """vectors[k] = sums[k] of the threads for each column."""
    for k in range(kinds):
        store_sum(scratch, sums[k], d, vectors[k])


@linked_kernel
def fold_gradient(link, A, a, b, w, point, h, vectors):
    """A^T v/alpha, A^T q/alpha and A^T r of each block and WIDEST columns; and h of each row, unless that is empty."""
    scratch = cuda.shared.array(THREADS, np.float64)
    weights = cuda.shared.array((3, THREADS), np.float64)
    t = cuda.threadIdx.x
    start, stop, first, d = share_columns(A)
    sums = cuda.local.array(4, np.float64)
    clear(sums)
    for i in range(start, stop, THREADS):
        cuda.syncthreads()
        if i + t < stop:
            row = row_weights(link, a, b, w, point, i + t)
            weights[V, t], weights[Q, t], weights[R, t] = row.v, row.q, row.r
            if h.shape[0] > 0 and first == 0:
                h[i + t] = row.h
        cuda.syncthreads()
        add_columns(A, i, min(i + THREADS, stop), first, d, weights, 3, sums)
    store_columns(scratch, sums, 3, d, vectors[cuda.blockIdx.x, :, first:])


@kernel
def fold_transposed(A, y, vectors):
    """A^T y of each block and WIDEST columns, into the third of `vectors`."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop, first, d = share_columns(A)
    groups, column, group = column_threads(d)
    total = 0.0
    if column < d:
        for i in range(start + group, stop, groups):
            total += y[unsigned(i)] * A[unsigned(i), unsigned(first + column)]
    store_sum(scratch, total, d, vectors[cuda.blockIdx.x, R, first:])


@kernel
def fold_columns(A, vectors):
    """The sum of squares and the largest |A_ij| of each column, of each block and WIDEST columns; a NaN or inf shows in the first."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop, first, d = share_columns(A)
    groups, column, group = column_threads(d)
    squares, largest = 0.0, 0.0
    if column < d:
        for i in range(start + group, stop, groups):
            x = np.float64(A[unsigned(i), unsigned(first + column)])  # the square of a float32 would be float32 too
            squares += x * x
            largest = max(largest, abs(x))
    store_sum(scratch, squares, d, vectors[cuda.blockIdx.x, 0, first:])
    store_largest(scratch, largest, d, vectors[cuda.blockIdx.x, 1, first:])


# -- both: one read of A ----------------------------------------------------------------------------------------


@linked_kernel
def fold_gradient_sums(link, A, x, b, w, a, shifts, vectors):
    """a = A x, and M, A^T v^, A^T (v^ u^), A^T (v^ b) and A^T (w^2 a) of each block, in one read of A, of at most WIDEST columns."""
    scratch = cuda.shared.array(THREADS, np.float64)
    weights = cuda.shared.array((4, THREADS), np.float64)
    start, stop, lanes, rows, row = share_rows(A)
    d = A.shape[1]
    shift = link.low
    sums = cuda.local.array(4, np.float64)
    clear(sums)
    for i in range(start, stop, rows):
        ai = row_product(A, x, i + row, stop, lanes, scratch)
        has_row = cuda.threadIdx.x % lanes == 0 and i + row < stop
        top = raised(link, shift, ai) if has_row else shift
        if cuda.syncthreads_or(1 if top > shift else 0):
            top = block_max(scratch, top)
            factor = rescale(shift, top)
            shift = top
            sums[V], sums[VU], sums[VB] = rescaled_sums(factor, sums[V], sums[VU], sums[VB])
        if has_row:
            a[i + row] = ai
            u, v, _, _ = terms(link, ai, shift, over_exp(shift))
            weights[V, row], weights[VU, row], weights[VB, row] = sum_weights(u, v, np.float64(b[i + row]))
            weights[W2A, row] = np.float64(w[i + row]) ** 2 * ai if w.shape[0] > 0 else 0.0
        cuda.syncthreads()
        add_columns(A, i, min(i + rows, stop), 0, d, weights, 4, sums)
    store_columns(scratch, sums, 4, d, vectors[cuda.blockIdx.x])
    if cuda.threadIdx.x == 0:
        shifts[cuda.blockIdx.x] = shift


@linked_kernel
def fold_curvature(link, A, p, a, b, w, point, vectors, da):
    """A^T (h * A p) into the third of `vectors`, and A p into `da` unless that is empty, of at most WIDEST columns."""
    scratch = cuda.shared.array(THREADS, np.float64)
    weights = cuda.shared.array((1, THREADS), np.float64)
    start, stop, lanes, rows, row = share_rows(A)
    d = A.shape[1]
    sums = cuda.local.array(4, np.float64)
    clear(sums)
    for i in range(start, stop, rows):
        product = row_product(A, p, i + row, stop, lanes, scratch)
        if cuda.threadIdx.x % lanes == 0 and i + row < stop:
            if da.shape[0] > 0:
                da[i + row] = product
            weights[0, row] = row_weights(link, a, b, w, point, i + row).h * product
        cuda.syncthreads()
        add_columns(A, i, min(i + rows, stop), 0, d, weights, 1, sums)
    store_columns(scratch, sums, 1, d, vectors[cuda.blockIdx.x, R:])


# -- merging the blocks' sums ---------------------------------------------------------------------------------


@kernel
def merge_vectors(vectors, first, count, out):
    """out[k, j] = the sum over blocks of vectors[:, first + k, j] for `count` kinds k; a block for each column j."""
    scratch = cuda.shared.array(THREADS, np.float64)
    j = cuda.blockIdx.x
    for kind in range(first, first + count):
        total = 0.0
        for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
            total += vectors[k, kind, j]
        total = block_sum(scratch, total)
        if cuda.threadIdx.x == 0:
            out[kind, j] = total


@kernel
def finish_gradient(shifts, point, vectors, out):
    """From the sums of `fold_gradient_sums`: A^T v/alpha, A^T q/alpha and the gradient; a block for each column."""
    scratch = cuda.shared.array(THREADS, np.float64)
    j = cuda.blockIdx.x
    v, vu, vb, w2a = 0.0, 0.0, 0.0, 0.0
    for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
        factor = rescale(shifts[k], point[0].shift)
        more_v, more_vu, more_vb = rescaled_sums(factor, vectors[k, V, j], vectors[k, VU, j], vectors[k, VB, j])
        v, vu, vb = v + more_v, vu + more_vu, vb + more_vb
        w2a += vectors[k, W2A, j]
    v, vu, vb, w2a = block_sum(scratch, v), block_sum(scratch, vu), block_sum(scratch, vb), block_sum(scratch, w2a)
    if cuda.threadIdx.x == 0:
        out[V, j], out[Q, j], out[R, j] = gradient_entry(v, vu, vb, w2a, point[0])


@kernel
def finish_columns(vectors, out):
    """out[0] = the sum of squares of each column, out[1] = the largest entry; a block for each column."""
    scratch = cuda.shared.array(THREADS, np.float64)
    j = cuda.blockIdx.x
    squares, largest = 0.0, 0.0
    for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
        squares += vectors[k, 0, j]
        largest = max(largest, vectors[k, 1, j])
    squares, largest = block_sum(scratch, squares), block_max(scratch, largest)
    if cuda.threadIdx.x == 0:
        out[0, j], out[1, j] = squares, largest


@kernel
def finish_hess_vec(vectors, p, out):
    """out = Hess p, of the rows v/alpha, q/alpha and A^T (h * A p) of `vectors`. One block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    vp, qp = 0.0, 0.0
    for j in range(cuda.threadIdx.x, out.shape[0], THREADS):
        vp += vectors[V, j] * p[j]
        qp += vectors[Q, j] * p[j]
    vp, qp = block_sum(scratch, vp), block_sum(scratch, qp)
    for j in range(cuda.threadIdx.x, out.shape[0], THREADS):
        out[j] = vectors[R, j] - 2.0 * rank_2(vectors[V, j], vectors[Q, j], vp, qp)
