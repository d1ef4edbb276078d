"""The kernels for dense A (n x d, C-ordered, float64 or float32): the fold over blocks, in parallel; each has a `_serial` twin.

Public: `value`, `value_grad`, `value_grad_hess`, `hess_vec`, `factors`, with the arguments: data (A), x, b, w,
outputs, workspace. They can be called from Python and from your own @njit code, release the GIL, write nothing but
their outputs and the workspace, and allocate nothing. They check nothing: see `fastrsx.Problem` for that. An empty w
means none. What they share are the phases below: each reads A once (`products`, `derivatives`, `transposed`,
`columns`) or only n-vectors (`evaluate`, `diagonal`, `predictions`).

>>> import numpy as np
>>> from fastrsx.kernels import dense
>>> A, b, w = np.eye(3, 2), np.full(3, 1 / 3), np.empty(0)
>>> work = dense.alloc_workspace(3, 2, False)
>>> grad = np.empty(2)
>>> round(dense.value_grad_serial(A, np.array([0.5, 0.0]), b, w, grad, work), 6)
0.05111
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from .compiling.jit import parallel, part, serial, serial_twin
from .cpu import fold
from .cpu.fold import POINT, POINT_ALPHA, POINT_FUN, SUMS
from .formulas.links import RSX
from .layouts.panel import ROWS, padded
from .registers.simd import LANES
from .registers.tile import strip_count

LEAST_ENTRY = 1e-140  # of a column, the largest: a Gram matrix holds its square times a weight of 1/n^2 or so with all digits
UNSEEN = 1e151  # the scale of a column below that, which no other has


class Workspace(NamedTuple):
    """What the kernels write between passes; nothing in it but `a` grows with n."""

    a: np.ndarray  # n: A x at the last x
    point: np.ndarray  # scalars there, see fold.POINT_*
    sums: np.ndarray  # blocks x scalars: the state of each block, and below its d-vectors and Gram matrix
    vectors: np.ndarray  # blocks x 4 x padded d
    gram: np.ndarray  # blocks x padded d x padded d, blocks x 0 x 0 without; for large d, padded d x padded d
    buffers: np.ndarray  # blocks x rows of a panel x padded d: packed panels
    packed: np.ndarray  # blocks x columns / 8 x rows of a panel x 8: weighted panels
    weights: np.ndarray  # blocks x 4 x rows of a panel
    link: NamedTuple  # see formulas/links.py; its type decides what is compiled


@serial
def alloc_workspace(n, d, hessian, link=RSX):
    """A workspace for n x d data; without `hessian`, not for value_grad_hess."""
    blocks, wide = fold.block_count(n, d), padded(d)
    gram = wide if hessian else 0
    return Workspace(
        np.empty(n),
        np.zeros(POINT),
        np.zeros((blocks, SUMS)),
        np.empty((blocks, 4, wide)),
        np.empty((blocks, gram, gram)),
        np.empty((blocks, ROWS, wide)),
        np.empty((blocks, wide // LANES, ROWS, LANES)),
        np.zeros((blocks, 4, ROWS)),
        link,
    )


def workspace_size(n, d, panels=True):
    """The numbers in a workspace without `hessian`, and without `panels` in one of sparse A."""
    blocks, wide = fold.block_count.py_func(n, d), padded.py_func(d)
    return n + blocks * (SUMS + 4 * wide + (2 * ROWS * wide if panels else 0) + 4 * ROWS)


@serial
def alloc_sparse_workspace(n, d, link=RSX):
    """A workspace for sparse A (see layouts/csr.py), and not for value_grad_hess: nothing in it is padded d x rows of a panel."""
    blocks, wide = fold.block_count(n, d), padded(d)
    none = np.empty((blocks, 0, 0))
    return Workspace(
        np.empty(n),
        np.zeros(POINT),
        np.zeros((blocks, SUMS)),
        np.empty((blocks, 4, wide)),
        none,
        none,
        np.empty((blocks, 0, 0, LANES)),
        np.zeros((blocks, 4, ROWS)),
        link,
    )


@serial
def alloc_wide_workspace(n, d):
    """A workspace for value_grad_hess and weighted_gram of large d: one Gram matrix, not one for each block."""
    work, wide = alloc_workspace(n, d, False), padded(d)
    return Workspace(work.a, work.point, work.sums, work.vectors, np.empty((wide, wide)), work.buffers, work.packed, work.weights, work.link)


# -- phases ---------------------------------------------------------------------------------------------------


@parallel
def products(A, x, out, buffers):
    """out = A x."""
    blocks = buffers.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, A.shape[0])
        fold.fold_products(A, x, start, stop, out, buffers[k])


@parallel
def transposed(A, y, out, buffers, weights, vectors):
    """out = A^T y."""
    blocks = buffers.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, A.shape[0])
        fold.fold_transposed(A, y, start, stop, buffers[k], weights[k], vectors[k])
    fold.combine_vectors(vectors[:, 2:3])
    for j in range(A.shape[1]):
        out[j] = vectors[0, 2, j]


@serial
def finish_columns(sums, n, most, scale):
    """scale = the RMS of each column, of the sums that `columns` leaves in vectors[0]; what `columns` returns.

    A zero column gets 1. A column whose squares underflow gets `UNSEEN`: its step, gradient and curvature are then 0 beside those
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
    """scale = the RMS of each column; the first column with an entry that is not finite or beyond `most`, or -1."""
    blocks = buffers.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, A.shape[0])
        fold.fold_columns(A, start, stop, buffers[k], vectors[k])
    for k in range(1, blocks):
        for j in range(A.shape[1]):
            vectors[0, 0, j] += vectors[k, 0, j]
            vectors[0, 1, j] = max(vectors[0, 1, j], vectors[k, 1, j])
    return finish_columns(vectors[0], A.shape[0], most, scale)


@part
def complete_point(link, a, b, w, sums, point):
    """L and the `point`, of the blocks' domains; +inf where alpha <= 0."""
    blocks, n = sums.shape[0], a.shape[0]
    fold.combine_domain(sums, point)
    if not point[POINT_ALPHA] > 0.0:
        point[POINT_FUN] = np.inf
        return np.inf
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, n)
        fold.fold_residuals(link, a, b, w, point, start, stop, sums[k])
    fold.combine_residuals(sums, point)
    return point[POINT_FUN]


@parallel
def evaluate(link, a, da, t, b, w, out, sums, point):
    """L and the whole `point` at out = a + t da; with an empty da, at out, which is then a. +inf where alpha <= 0."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, n)
        fold.fold_domain(link, a, da, t, start, stop, out, sums[k])
    return complete_point(link, out, b, w, sums, point)


@parallel
def project(link, A, x, b, w, a, sums, point, buffers):
    """a = A x, L and the whole `point` there: one pass."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, n)
        fold.fold_projection(link, A, x, start, stop, a, sums[k], buffers[k])
    return complete_point(link, a, b, w, sums, point)


@parallel
def project_grad(link, A, x, b, w, a, sums, point, vectors, buffers, weights):
    """The same, and what `derivatives` leaves in vectors[0], in the same pass; of no use near an exact fit."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, n)
        fold.fold_gradient_sums(link, A, x, b, w, start, stop, a, sums[k], buffers[k], weights[k], vectors[k])
    fun = complete_point(link, a, b, w, sums, point)
    if fun < np.inf:
        fold.finish_gradient(sums, point, vectors)
    return fun


@parallel
def gradient(link, A, a, b, w, point, vectors, buffers, weights):
    """A^T v/alpha, A^T q/alpha and the gradient, combined in vectors[0]."""
    blocks = vectors.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, a.shape[0])
        fold.fold_gradient(link, A, a, b, w, point, start, stop, buffers[k], weights[k], vectors[k])
    fold.combine_vectors(vectors)


@parallel
def derivatives_by_blocks(link, A, a, b, w, point, vectors, gram, buffers, packed, weights):
    """The same and the blocks' Gram matrices A^T diag(h) A."""
    blocks = vectors.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, a.shape[0])
        fold.fold_derivatives(link, A, a, b, w, point, start, stop, buffers[k], weights[k], packed[k], vectors[k], gram[k])
    fold.combine_vectors(vectors)


@parallel
def derivatives_by_strips(link, A, h, a, b, w, point, vectors, gram, buffers, packed, weights):
    """The same for large d, and one Gram matrix for all; for an h that is not empty, only A^T diag(h) A."""
    slots = buffers.shape[0]
    vectors[:] = 0.0
    gram[:] = 0.0
    pairs = (strip_count(gram.shape[0]) + 1) // 2
    for i in range(0, A.shape[0], slots * ROWS):
        for k in prange(slots):
            fold.fold_panel(link, A, h, a, b, w, point, i + np.int64(k) * ROWS, buffers[k], weights[k], packed[k], vectors[k])
        for t in prange(pairs):
            fold.add_strips(A, i, buffers, packed, np.int64(t), gram)
    fold.combine_vectors(vectors)


derivatives_by_strips_serial = serial_twin(derivatives_by_strips)
derivatives_by_blocks_serial = serial_twin(derivatives_by_blocks)


@serial
def derivatives(link, A, a, b, w, point, vectors, gram, buffers, packed, weights):
    """The same by what `gram` has room for, decided when it is compiled, so that nobody waits for the other."""
    if gram.ndim == 2:
        derivatives_by_strips(link, A, a[:0], a, b, w, point, vectors, gram, buffers, packed, weights)
    else:
        derivatives_by_blocks(link, A, a, b, w, point, vectors, gram, buffers, packed, weights)


@parallel
def curvature(link, A, p, a, b, w, point, vectors, buffers, weights, da):
    """A^T (h * A p), combined in vectors[0, 2], and da = A p unless da is empty."""
    blocks = vectors.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, a.shape[0])
        fold.fold_curvature(link, A, p, a, b, w, point, start, stop, buffers[k], weights[k], vectors[k], da)
    fold.combine_vectors(vectors[:, 2:3])


@parallel
def gram_by_blocks(A, h, gram, buffers, packed):
    """The blocks' Gram matrices A^T diag(h) A."""
    blocks = gram.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, A.shape[0])
        fold.fold_gram(A, h, start, stop, buffers[k], packed[k], gram[k])


gram_by_blocks_serial = serial_twin(gram_by_blocks)


@parallel
def gram_by_blocks_mixed(A, h, gram, buffers, roots, scales, panels32):
    """The same in mixed precision; roots: blocks x rows of a panel, scales: blocks x 4 x padded d, panels32: blocks x columns / 16 x rows x 16."""
    blocks = gram.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, A.shape[0])
        fold.fold_gram_mixed(A, h, start, stop, buffers[k], roots[k], scales[k], panels32[k], gram[k])


gram_by_blocks_mixed_serial = serial_twin(gram_by_blocks_mixed)


@serial
def weigh_gram(link, A, h, gram, a, point, vectors, buffers, packed, weights):
    """A^T diag(h) A in `gram`, likewise; zeros for the vectors."""
    if gram.ndim == 2:
        derivatives_by_strips(link, A, h, a, a, a, point, vectors, gram, buffers, packed, weights)
    else:
        gram_by_blocks(A, h, gram, buffers, packed)
        vectors[0] = 0.0


@parallel
def finish_hessian(gram, vectors, hess):
    """The Hessian of the blocks' Gram matrices and the combined vectors."""
    for k in prange((hess.shape[0] + LANES - 1) // LANES):
        fold.finish_hessian_rows(LANES * np.int64(k), gram, vectors, hess)


@parallel
def diagonal(link, a, b, w, point, D, weights):
    """D = v^2/alpha^2 + e (c - s)/alpha + w^2/2."""
    blocks, n = weights.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, n)
        for i in range(start, stop, ROWS):
            rows = min(ROWS, stop - i)
            fold.panel_weights(link, a, b, w, point, i, rows, weights[k])
            for j in range(rows):
                D[i + j] = 0.5 * weights[k, fold.H, j]


@parallel
def predictions(link, a, point, f, v, sums):
    """f and v/alpha."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, n)
        fold.fold_predictions(link, a, point, start, stop, f, v)


products_serial = serial_twin(products)
transposed_serial = serial_twin(transposed)
columns_serial = serial_twin(columns)
evaluate_serial = serial_twin(evaluate)
project_serial = serial_twin(project)
project_grad_serial = serial_twin(project_grad)
gradient_serial = serial_twin(gradient)
derivatives_serial = serial_twin(derivatives)
curvature_serial = serial_twin(curvature)
weigh_gram_serial = serial_twin(weigh_gram)
finish_hessian_serial = serial_twin(finish_hessian)
diagonal_serial = serial_twin(diagonal)
predictions_serial = serial_twin(predictions)


# -- public kernels: from x -----------------------------------------------------------------------------------


@serial
def value(A, x, b, w, work):
    """L(x); leaves a = A x and the point in the workspace."""
    return project(work.link, A, x, b, w, work.a, work.sums, work.point, work.buffers)


value_serial = serial_twin(value)


@serial
def value_grad(A, x, b, w, grad, work):
    """L(x), and its gradient into grad (d); NaN where alpha <= 0. One pass; near an exact fit, where the one-pass form cancels, two."""
    fun = project_grad(work.link, A, x, b, w, work.a, work.sums, work.point, work.vectors, work.buffers, work.weights)
    if not fun < np.inf:
        grad[:] = np.nan
        return fun
    if fold.cancels(work.point, work.vectors):
        gradient(work.link, A, work.a, b, w, work.point, work.vectors, work.buffers, work.weights)
    for j in range(grad.shape[0]):
        grad[j] = work.vectors[0, 2, j]
    return fun


value_grad_serial = serial_twin(value_grad)


@serial
def value_grad_hess(A, x, b, w, grad, hess, work):
    """L(x), its gradient into grad (d) and its Hessian into hess (d x d); NaN where alpha <= 0."""
    fun = value(A, x, b, w, work)
    if not fun < np.inf:
        grad[:] = np.nan
        hess[:] = np.nan
        return fun
    derivatives(work.link, A, work.a, b, w, work.point, work.vectors, work.gram, work.buffers, work.packed, work.weights)
    for j in range(grad.shape[0]):
        grad[j] = work.vectors[0, 2, j]
    finish_hessian(work.gram, work.vectors, hess)
    return fun


value_grad_hess_serial = serial_twin(value_grad_hess)


@serial
def hess_vec(A, x, b, w, p, out, work):
    """L(x), and Hess(x) p into out (d); NaN where alpha <= 0."""
    fun = value_grad(A, x, b, w, out, work)
    if fun < np.inf:
        curvature(work.link, A, p, work.a, b, w, work.point, work.vectors, work.buffers, work.weights, work.a[:0])
        fold.finish_hess_vec(work.vectors[0, 0], work.vectors[0, 1], work.vectors[0, 2], p, out)
    return fun


hess_vec_serial = serial_twin(hess_vec)


@serial
def factors(A, x, b, w, D, V, work):
    """L(x), D (n) and the rows A^T v/alpha, A^T q/alpha of V (2 x d): Hess = 2 (A^T diag(D) A - V[0] V[1]^T - V[1] V[0]^T)."""
    fun = value_grad(A, x, b, w, V[0], work)
    if not fun < np.inf:
        D[:] = np.nan
        V[:] = np.nan
        return fun
    for j in range(V.shape[1]):
        V[0, j] = work.vectors[0, 0, j]
        V[1, j] = work.vectors[0, 1, j]
    diagonal(work.link, work.a, b, w, work.point, D, work.weights)
    return fun


factors_serial = serial_twin(factors)


@serial
def weighted_gram(A, h, out, work):
    """out (d x d) = A^T diag(h) A for weights h (n) of any sign."""
    weigh_gram(work.link, A, h, work.gram, work.a, work.point, work.vectors, work.buffers, work.packed, work.weights)
    finish_hessian(work.gram, work.vectors, out)


weighted_gram_serial = serial_twin(weighted_gram)
