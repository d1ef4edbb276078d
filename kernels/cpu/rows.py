"""Folds over the rows of A, a panel at a time: A x, and the sums A^T y and A^T diag(h) A with the weights of formulas/rows.py."""

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.centred import corrected_entries
from ..formulas.finish import derivative_entries, rank_2
from ..formulas.records import VC, VF, W2A, H, Q, R, V, as_point, as_state
from ..layouts.panel import ROWS, add_columns, add_row_sum, add_row_sums, load_panel, loaded_panel, panel_rows, row_products, view_rows
from ..registers.gram import add_gram_strip, add_gram_strips, pack, pack_strips, strip_count, strip_start, strips_of_part
from ..registers.narrow import NARROW, add_narrow_gram
from ..registers.simd import LANES, address_of, load_first, store, store_first
from ..registers.sums import add_row_sums_and_pack, add_sums_and_gram
from .mixed import add_gram_mixed, pack_mixed, start_scales
from .vectors import add_point, delta_of, panel_weights, start_state

NEAR_FIT = 1e-3  # ||c|| / ||f||: below, the one-pass gradient is computed once more, from c
MOST_LOST = 1e3  # ||delta f~||^2 / ||c||^2, likewise: 1.5 digits
BY_STRIPS = 1024  # columns; beyond, one Gram matrix serves all blocks (bench/test_passes.py, rows "weighted Gram")

# -- A x ------------------------------------------------------------------------------------------------------


@part
def fold_products(A, x, start, stop, out, buffer):
    """out = A x on the rows start : stop."""
    most = panel_rows(A.shape[1])
    for i in range(start, stop, most):
        rows = min(most, stop - i)
        row_products(view_rows(A, i, rows, buffer), x, rows, out, i, A, i + most, True)


@serial
def second_half(A, row, rows):
    """Where the second half of a panel begins that is prefetched during exponentials; all of it for the narrowest A, none of a wide one."""
    d = A.shape[1]
    if d > LANES:
        return 0
    return address_of(A, row if d <= NARROW else row + rows // 2)


@part
def fold_projection(link, A, x, b, w, start, stop, a, sums, buffer):
    """a = A x on the rows start : stop, and their state while they are in cache."""
    start_state(link, sums)
    most = panel_rows(A.shape[1])
    for i in range(start, stop, most):
        end = min(i + most, stop)
        row_products(view_rows(A, i, end - i, buffer), x, end - i, a, i, A, i + most, A.shape[1] > LANES)
        add_point(link, a, None, b, w, start, i, end, sums, None, second_half(A, i + most, most))


# -- A x, and the gradient's sums before the point is known ---------------------------------------------------


@part
def fold_gradient_sums(link, A, x, b, w, a, block):
    """a = A x and its state, and A^T v~, A^T (v~ f~), A^T (v~ c~) and A^T (w^2 a), in one read of the rows."""
    weights, vectors = block.weights, block.vectors
    start_state(link, block.sums)
    vectors[:] = 0.0
    most = panel_rows(A.shape[1])
    for i in range(block.start, block.stop, most):
        rows = min(most, block.stop - i)
        panel = view_rows(A, i, rows, block.buffer)
        row_products(panel, x, rows, a, i, A, i + most, False)
        delta = add_point(link, a, None, b, w, block.start, i, i + rows, block.sums, weights, second_half(A, i + most, most))
        if delta != 0.0:
            correct_vectors(delta, vectors)
        add_row_sums(panel, weights, rows, vectors, A, i + most, False)
        if w.shape[0] > 0:
            add_row_sum(panel, weights[W2A:], rows, vectors[W2A:], A, i + most, False)


@serial
def correct_vectors(delta, vectors):
    """The sums of `fold_gradient_sums` with an alpha~ that is 1 + delta times smaller."""
    for j in range(vectors.shape[1]):
        vectors[V, j], vectors[VF, j], vectors[VC, j] = corrected_entries(vectors[V, j], vectors[VF, j], vectors[VC, j], delta)


@serial
def finish_gradient(sums, point, vectors):
    """From the blocks' sums to A^T v/alpha, A^T q/alpha and the gradient, in vectors[0]; NaN where too many digits cancel."""
    for k in range(sums.shape[0]):
        correct_vectors(delta_of(as_state(sums[k]), point), vectors[k])
    merge_vectors(vectors)
    for j in range(vectors.shape[2]):
        v, q, r = derivative_entries(vectors[0, V, j], vectors[0, VF, j], vectors[0, VC, j], vectors[0, W2A, j], point.s, 0.5 * point.ff)
        vectors[0, V, j], vectors[0, Q, j], vectors[0, R, j] = v, q, r
    if not as_state(sums[0]).lost <= MOST_LOST * point.squares:
        vectors[0, Q, 0] = np.nan


@serial
def cancels(point, vectors):
    """Whether the gradient of `finish_gradient` has lost digits: its terms may be as large as f, but their sum is only as large as c."""
    at, total = as_point(point), 0.0
    for j in range(vectors.shape[2]):
        total += 0.0 * vectors[0, Q, j]  # NaN where a sum has overflowed
    return at.squares <= NEAR_FIT**2 * at.ff or total != 0.0


# -- derivatives, the point known -----------------------------------------------------------------------------


@part
def fold_gradient(link, A, a, b, w, point, block):
    """A^T v/alpha, A^T q/alpha and A^T r."""
    block.vectors[:] = 0.0
    most = panel_rows(A.shape[1])
    for i in range(block.start, block.stop, most):
        rows = min(most, block.stop - i)
        panel = view_rows(A, i, rows, block.buffer)
        panel_weights(link, a, b, w, point, i, rows, block.weights)
        add_row_sums(panel, block.weights, rows, block.vectors, A, i + most, True)


@part
def fold_derivatives(link, A, a, b, w, point, block, gram):
    """The same and A^T diag(h) A into `gram`: all of it, or one of several parts, the first of which has the sums."""
    first, last = strips_of_part(gram.shape[1], block.part, block.parts)
    left, right = strip_start(gram.shape[1], first), strip_start(gram.shape[1], last)
    if block.part == 0:
        block.vectors[:] = 0.0
    gram[:, left:right] = 0.0
    for i in range(block.start, block.stop, ROWS):
        rows = min(ROWS, block.stop - i)
        panel = load_panel(A, i, rows, block.buffer)
        panel_weights(link, a, b, w, point, i, rows, block.weights)
        if block.parts == 1:
            add_sums_and_gram(panel, block.weights[H], block.weights, rows, block.vectors, block.packed, gram, A, i + ROWS)
        else:
            if block.part == 0:
                add_row_sums(panel, block.weights, rows, block.vectors, A, i + ROWS, False)
            pack_strips(panel, block.weights[H], rows, left, right, block.packed)
            add_gram_strips(block.packed, panel, rows, first, last, gram, A, i + ROWS)


@part
def fold_curvature(link, A, p, a, b, w, point, da, block):
    """A^T (h * A p) into the place of A^T r, and A p into `da` unless that is empty."""
    weights = block.weights
    block.vectors[R] = 0.0
    most = panel_rows(A.shape[1])
    for i in range(block.start, block.stop, most):
        rows = min(most, block.stop - i)
        panel = view_rows(A, i, rows, block.buffer)
        panel_weights(link, a, b, w, point, i, rows, weights)
        row_products(panel, p, rows, weights[R], 0, A, i + most, False)
        for j in range(0, rows, LANES):
            products = load_first(weights, R, j, LANES)
            if da.shape[0] > 0:
                store_first(da, 0, i + j, rows - j, products)
            store(weights, R, j, products * load_first(weights, H, j, LANES))
        add_row_sum(panel, weights[R:], rows, block.vectors[R:], A, i + most, False)


@part
def fold_transposed(A, y, start, stop, buffer, weights, vectors):
    """A^T y of the rows start : stop, into the place of A^T r."""
    vectors[R] = 0.0
    most = panel_rows(A.shape[1])
    for i in range(start, stop, most):
        rows = min(most, stop - i)
        for j in range(rows):
            weights[R, j] = y[i + j]
        add_row_sum(view_rows(A, i, rows, buffer), weights[R:], rows, vectors[R:], A, i + most, True)


@part
def fold_gram(A, h, block, gram):
    """A^T diag(h) A of a block's rows, or one of several parts."""
    first, last = strips_of_part(gram.shape[1], block.part, block.parts)
    left, right = strip_start(gram.shape[1], first), strip_start(gram.shape[1], last)
    gram[:, left:right] = 0.0
    for i in range(block.start, block.stop, ROWS):
        rows = min(ROWS, block.stop - i)
        panel = load_panel(A, i, rows, block.buffer)
        if A.shape[1] <= NARROW:
            add_narrow_gram(panel, h[i : i + rows], rows, block.packed, gram, A, i + ROWS)
        else:
            pack_strips(panel, h[i : i + rows], rows, left, right, block.packed)
            add_gram_strips(block.packed, panel, rows, first, last, gram, A, i + ROWS)


@part
def fold_gram_mixed(A, h, start, stop, buffer, roots, scales, panel32, gram):
    """The same in mixed precision: see mixed.py."""
    start_scales(scales)
    gram[:] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = load_panel(A, i, rows, buffer)
        positive = pack_mixed(panel, h[i : i + rows], rows, roots, scales, panel32)
        add_gram_mixed(panel32, scales, rows, positive, gram, A, i + ROWS)


# -- large d: the Gram matrix by strips of its columns --------------------------------------------------------
#
# Where a Gram matrix for each block would take too much memory, there is one for all. Panels are weighted and packed a
# few at a time, in parallel; then the strips of the matrix are summed over them, in parallel.


@part
def fold_panel(link, A, h, a, b, w, point, i, block):
    """The panel at row i, if there is one: weighted, packed, and its row sums added. A nonempty h replaces all weights."""
    rows = min(ROWS, A.shape[0] - i)
    if rows <= 0:
        return
    panel = load_panel(A, i, rows, block.buffer)
    if h.shape[0] > 0:
        pack(panel, h[i : i + rows], rows, block.packed)
    else:
        panel_weights(link, a, b, w, point, i, rows, block.weights)
        add_row_sums_and_pack(panel, block.weights[H], block.weights, rows, block.vectors, block.packed)


@serial
def add_strips(A, i, slots, buffers, packed, t, gram):
    """Strip t and the t-th from the last, together as long as any other such pair, of the panels from row i on."""
    last = strip_count(gram.shape[0]) - 1
    for k in range(slots):
        rows = min(ROWS, A.shape[0] - i - k * ROWS)
        if rows <= 0:
            return
        panel = loaded_panel(A, i + k * ROWS, rows, buffers[k])
        add_gram_strip(packed[k], panel, rows, t, gram, A, i, 0)
        if t != last - t:
            add_gram_strip(packed[k], panel, rows, last - t, gram, A, i, 0)


# -- columns --------------------------------------------------------------------------------------------------


@part
def fold_columns(A, start, stop, buffer, vectors):
    """Per column, the sum of squares and the largest |A_ij| of the rows start : stop; a NaN or inf shows in the first."""
    vectors[:] = 0.0
    most = panel_rows(A.shape[1])
    for i in range(start, stop, most):
        rows = min(most, stop - i)
        add_columns(view_rows(A, i, rows, buffer), rows, vectors)


# -- merge and finish -----------------------------------------------------------------------------------------


@serial
def merge_vectors(vectors):
    """The sum over blocks, into the first."""
    for k in range(1, vectors.shape[0]):
        for i in range(vectors.shape[1]):
            for j in range(vectors.shape[2]):
                vectors[0, i, j] += vectors[k, i, j]


@serial
def finish_hessian_rows(start, gram, vectors, hess):
    """Eight rows of the Hessian from `start` on, right of the diagonal, and their mirror image; `vectors` merged, the blocks of `gram` not."""
    d = hess.shape[0]
    stop = min(start + LANES, d)
    total = gram[0] if gram.ndim == 3 else gram
    v, q = vectors[0, V], vectors[0, Q]
    for i in range(start, stop):
        if gram.ndim == 3:
            for k in range(1, gram.shape[0]):
                for j in range(i, d):
                    total[i, j] += gram[k, i, j]
        for j in range(i, d):
            hess[i, j] = total[i, j] - 2.0 * rank_2(v[i], q[i], v[j], q[j])
    for j in range(start, d):  # eight to a cache line: one by one, large d would write a line for each entry
        for i in range(start, min(stop, j)):
            hess[j, i] = hess[i, j]


@serial
def finish_hess_vec(v, q, sums, p, out):
    """out = Hess p, of v = A^T v/alpha, q = A^T q/alpha and the sums A^T (h * A p)."""
    vp = qp = 0.0
    for j in range(p.shape[0]):
        vp += v[j] * p[j]
        qp += q[j] * p[j]
    for j in range(p.shape[0]):
        out[j] = sums[j] - 2.0 * rank_2(v[j], q[j], vp, qp)
