"""Sums of all blocks, on a GPU: d-vectors, and what follows from them. Always in the order of the blocks."""

from typing import Any, NamedTuple

import numpy as np

from ..formulas import finish, states
from ..formulas.records import VB, VU, W2A, Q, R, V
from .block import THREADS, WARPS, cuda, kernel
from .reduction import block_max, block_sum
from .scalar import scalar
from .vectors import merged_residuals, rescale, store_domain_of_all, store_loss

gradient_entry, rank_2, rescaled_sums = scalar(finish.gradient_entry), scalar(finish.rank_2), scalar(states.rescaled_sums)


class Combined(NamedTuple):
    """The numbers of a point that the entries of a gradient need."""

    alpha: Any
    s: Any
    ff: Any


@kernel
def merge_vectors(vectors, first, start, stop, out):
    """out[kind, j] = the sum over blocks of vectors[:, first + kind, j] for kinds start : stop; a block for each column j."""
    scratch = cuda.shared.array(WARPS, np.float64)
    j = cuda.blockIdx.x
    for kind in range(start, stop):
        total = 0.0
        for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
            total += vectors[k, first + kind, j]
        total = block_sum(scratch, total)
        if cuda.threadIdx.x == 0:
            out[kind, j] = total


@kernel
def finish_gradient(sums, point, vectors, kinds, out):
    """The point, and from the sums of `fold_sums` of that many kinds: A^T v/alpha, A^T q/alpha and the gradient; a block for each column."""
    scratch = cuda.shared.array(WARPS, np.float64)
    j, at = cuda.blockIdx.x, point[0]
    residuals = merged_residuals(scratch, sums)
    if j == 0:
        store_domain_of_all(scratch, sums, point)
        store_loss(residuals, point)
    v, vu, vb, w2a = 0.0, 0.0, 0.0, 0.0
    for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
        factor = rescale(sums[k].shift, at.shift)
        more_v, more_vu, more_vb = rescaled_sums(factor, vectors[k, V, j], vectors[k, VU, j], vectors[k, VB, j])
        v, vu, vb = v + more_v, vu + more_vu, vb + more_vb
        if kinds > W2A:
            w2a += vectors[k, W2A, j]
    v, vu, vb, w2a = block_sum(scratch, v), block_sum(scratch, vu), block_sum(scratch, vb), block_sum(scratch, w2a)
    if cuda.threadIdx.x == 0:
        there = Combined(at.alpha, residuals.fc, residuals.ff)
        out[V, j], out[Q, j], out[R, j] = gradient_entry(v, vu, vb, w2a, there)


@kernel
def finish_columns(vectors, out):
    """out[0] = the sum of squares of each column, out[1] = the largest entry; a block for each column."""
    scratch = cuda.shared.array(WARPS, np.float64)
    j = cuda.blockIdx.x
    squares, largest = 0.0, 0.0
    for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
        squares += vectors[k, 0, j]
        largest = max(largest, vectors[k, 1, j])
    squares, largest = block_sum(scratch, squares), block_max(scratch, largest)
    if cuda.threadIdx.x == 0:
        out[0, j], out[1, j] = squares, largest


@kernel
def finish_hess_vec(vectors, combined, p, out):
    """out = Hess p, of A^T (h * A p) of each block in `vectors` and the rows v/alpha and q/alpha of `combined`; a block for each column."""
    scratch = cuda.shared.array(WARPS, np.float64)
    j = cuda.blockIdx.x
    vp, qp, total = 0.0, 0.0, 0.0
    for k in range(cuda.threadIdx.x, out.shape[0], THREADS):
        vp += combined[V, k] * p[k]
        qp += combined[Q, k] * p[k]
    for k in range(cuda.threadIdx.x, vectors.shape[0], THREADS):
        total += vectors[k, R, j]
    vp, qp, total = block_sum(scratch, vp), block_sum(scratch, qp), block_sum(scratch, total)
    if cuda.threadIdx.x == 0:
        out[j] = total - 2.0 * rank_2(combined[V, j], combined[Q, j], vp, qp)
