"""Passes: the folds over all blocks, in parallel or serial, and the merge of their states.

Each reads A once (`products`, `project`, `gradient`, `derivatives`, `curvature`, `transposed`, `columns`) or only n-vectors
(`evaluate`, `diagonal`, `predictions`). `link` is that of the workspace, `point` the numbers of the Point of a.
"""

import numpy as np
from numba import prange

from ..compiling.jit import parallel, part, serial, serial_twin
from ..formulas.records import H, R, as_point, as_state
from ..layouts.panel import ROWS
from ..registers.gram import strip_count
from ..registers.simd import LANES
from . import rows as row_folds
from .blocks import block_rows, share, share_part
from .vectors import fold_point, fold_predictions, fold_residuals, merge_corrected, merge_domains, merge_residuals, panel_weights

LEAST_ENTRY = 1e-140  # of the largest in a column: a Gram matrix holds its square times a weight of 1/n^2 or so with all digits
MOST_ENTRY = 1e150  # its square, summed over any n, is finite
UNSEEN = 1e151  # the scale of a column below that, which no other has

# -- A x and A^T y --------------------------------------------------------------------------------------------


@parallel
def products(A, x, out, buffers):
    """out = A x."""
    blocks = buffers.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, A.shape[0])
        row_folds.fold_products(A, x, start, stop, out, buffers[k])


@parallel
def transposed(A, y, out, buffers, weights, vectors):
    """out = A^T y."""
    blocks = vectors.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, A.shape[0])
        row_folds.fold_transposed(A, y, start, stop, buffers[k], weights[k], vectors[k])
    row_folds.merge_vectors(vectors[:, R : R + 1])
    for j in range(A.shape[1]):
        out[j] = vectors[0, R, j]


@serial
def finish_columns(sums, n, most, scale):
    """scale = the RMS of each column, from the sums that `columns` leaves in vectors[0]; returns what `columns` returns.

    A zero column gets 1. A column whose squares underflow gets `UNSEEN`: its step, gradient and curvature are then 0 relative to those
    of the others, so that it counts as 0.
    """
    for j in range(scale.shape[0]):
        squares, largest = sums[0, j], sums[1, j]
        if not squares < np.inf or largest > most:
            return j
        scale[j] = np.sqrt(squares / n) if largest >= LEAST_ENTRY else UNSEEN if largest > 0.0 else 1.0
    return -1


@parallel
def columns(A, most, scale, buffers, vectors):
    """scale = the RMS of each column; returns the first column with an entry that is not finite or beyond `most`, else -1."""
    blocks = vectors.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, A.shape[0])
        row_folds.fold_columns(A, start, stop, buffers[k], vectors[k])
    for k in range(1, blocks):
        for j in range(A.shape[1]):
            vectors[0, 0, j] += vectors[k, 0, j]
            vectors[0, 1, j] = max(vectors[0, 1, j], vectors[k, 1, j])
    return finish_columns(vectors[0], A.shape[0], most, scale)


# -- the point ------------------------------------------------------------------------------------------------


@part
def complete_point(link, a, b, w, sums, point):
    """L and the `point`, of the blocks' states; +inf where alpha <= 0."""
    blocks, n = sums.shape[0], a.shape[0]
    merge_domains(sums, as_point(point))
    if not as_point(point).alpha > 0.0:
        as_point(point).fun = np.inf
        return np.inf
    if not merge_corrected(sums, as_point(point)):
        for k in prange(blocks):
            start, stop = block_rows(k, blocks, n)
            fold_residuals(link, a, b, w, as_point(point), start, stop, as_state(sums[k]))
        merge_residuals(sums, as_point(point))
    return as_point(point).fun


@parallel
def evaluate(link, a, da, t, b, w, out, sums, point):
    """L and the whole `point` at out = a + t da; with an empty da, at out, which is then a. +inf where alpha <= 0."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        fold_point(link, a, da, t, b, w, start, stop, out, as_state(sums[k]))
    return complete_point(link, out, b, w, sums, point)


@parallel
def project(link, A, x, b, w, a, sums, point, buffers):
    """a = A x, L and the whole `point` there."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        row_folds.fold_projection(link, A, x, b, w, start, stop, a, as_state(sums[k]), buffers[k])
    return complete_point(link, a, b, w, sums, point)


@parallel
def project_grad(link, A, x, b, w, a, point, scratch):
    """The same, and what `derivatives` leaves in vectors[0], in the same read; useless near an exact fit."""
    n = a.shape[0]
    for k in prange(scratch.vectors.shape[0]):
        row_folds.fold_gradient_sums(link, A, x, b, w, a, share(scratch, k, n))
    fun = complete_point(link, a, b, w, scratch.sums, point)
    if fun < np.inf:
        row_folds.finish_gradient(scratch.sums, as_point(point), scratch.vectors)
    return fun


# -- derivatives ----------------------------------------------------------------------------------------------


@parallel
def gradient(link, A, a, b, w, point, scratch):
    """A^T v/alpha, A^T q/alpha and the gradient, merged in vectors[0]."""
    n = a.shape[0]
    for k in prange(scratch.vectors.shape[0]):
        row_folds.fold_gradient(link, A, a, b, w, as_point(point), share(scratch, k, n))
    row_folds.merge_vectors(scratch.vectors)


@parallel
def derivatives_by_blocks(link, A, a, b, w, point, gram, scratch):
    """The same and the blocks' Gram matrices A^T diag(h) A."""
    n = a.shape[0]
    for t in prange(scratch.buffers.shape[0]):
        block = share_part(scratch, np.int64(t), n)
        row_folds.fold_derivatives(link, A, a, b, w, as_point(point), block, gram[block.number])
    row_folds.merge_vectors(scratch.vectors)


@parallel
def derivatives_by_strips(link, A, h, a, b, w, point, gram, scratch):
    """The same for large d, and one Gram matrix for all; for an h that is not empty, only A^T diag(h) A."""
    slots, n = scratch.vectors.shape[0], A.shape[0]
    scratch.vectors[:] = 0.0
    gram[:] = 0.0
    pairs = (strip_count(gram.shape[0]) + 1) // 2
    for i in range(0, n, slots * ROWS):
        for k in prange(slots):
            row_folds.fold_panel(link, A, h, a, b, w, as_point(point), i + np.int64(k) * ROWS, share(scratch, k, n))
        for t in prange(pairs):
            row_folds.add_strips(A, i, slots, scratch.buffers, scratch.packed, np.int64(t), gram)
    row_folds.merge_vectors(scratch.vectors)


derivatives_by_blocks_serial = serial_twin(derivatives_by_blocks)
derivatives_by_strips_serial = serial_twin(derivatives_by_strips)


@serial
def derivatives(link, A, a, b, w, point, gram, scratch):
    """By blocks if `gram` has three axes, by strips if two; its type decides, so only one of them is compiled."""
    if gram.ndim == 2:
        derivatives_by_strips(link, A, a[:0], a, b, w, point, gram, scratch)
    else:
        derivatives_by_blocks(link, A, a, b, w, point, gram, scratch)


@parallel
def curvature(link, A, p, a, b, w, point, da, scratch):
    """A^T (h * A p), merged in the place of the gradient, and da = A p unless da is empty."""
    n = a.shape[0]
    for k in prange(scratch.vectors.shape[0]):
        row_folds.fold_curvature(link, A, p, a, b, w, as_point(point), da, share(scratch, k, n))
    row_folds.merge_vectors(scratch.vectors[:, R : R + 1])


@parallel
def gram_by_blocks(A, h, gram, scratch):
    """The blocks' Gram matrices A^T diag(h) A."""
    for t in prange(scratch.buffers.shape[0]):
        block = share_part(scratch, np.int64(t), A.shape[0])
        row_folds.fold_gram(A, h, block, gram[block.number])


gram_by_blocks_serial = serial_twin(gram_by_blocks)


@parallel
def gram_by_blocks_mixed(A, h, gram, buffers, roots, scales, panels32):
    """The same in mixed precision; roots: blocks x rows of a panel, scales: blocks x 4 x padded d, panels32: blocks x columns / 16 x rows x 16."""
    blocks = gram.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, A.shape[0])
        row_folds.fold_gram_mixed(A, h, start, stop, buffers[k], roots[k], scales[k], panels32[k], gram[k])


@serial
def weigh_gram(link, A, h, gram, a, point, scratch):
    """A^T diag(h) A in `gram`, likewise; vectors[0] = 0, so that `finish_hessian` gives that matrix alone."""
    if gram.ndim == 2:
        derivatives_by_strips(link, A, h, a, a, a, point, gram, scratch)  # with an h, a, b and w are not read
    else:
        gram_by_blocks(A, h, gram, scratch)
        scratch.vectors[0] = 0.0


@parallel
def finish_hessian(gram, vectors, hess):
    """The Hessian of the blocks' Gram matrices and the merged vectors."""
    for k in prange((hess.shape[0] + LANES - 1) // LANES):
        row_folds.finish_hessian_rows(LANES * np.int64(k), gram, vectors, hess)


# -- n-vectors at a point -------------------------------------------------------------------------------------


@parallel
def diagonal(link, a, b, w, point, D, weights):
    """D = v^2/alpha^2 + e (c - s)/alpha + w^2/2."""
    blocks, n = weights.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        for i in range(start, stop, ROWS):
            rows = min(ROWS, stop - i)
            panel_weights(link, a, b, w, as_point(point), i, rows, weights[k])
            for j in range(rows):
                D[i + j] = 0.5 * weights[k, H, j]


@parallel
def predictions(link, a, point, f, v, sums):
    """f and v/alpha."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        fold_predictions(link, a, as_point(point), start, stop, f, v)


products_serial = serial_twin(products)
transposed_serial = serial_twin(transposed)
columns_serial = serial_twin(columns)
evaluate_serial = serial_twin(evaluate)
project_serial = serial_twin(project)
project_grad_serial = serial_twin(project_grad)
gradient_serial = serial_twin(gradient)
derivatives_serial = serial_twin(derivatives)
curvature_serial = serial_twin(curvature)
gram_by_blocks_mixed_serial = serial_twin(gram_by_blocks_mixed)
weigh_gram_serial = serial_twin(weigh_gram)
finish_hessian_serial = serial_twin(finish_hessian)
diagonal_serial = serial_twin(diagonal)
predictions_serial = serial_twin(predictions)
