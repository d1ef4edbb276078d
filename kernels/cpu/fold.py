"""The one idea: rows fold into a state, states combine, and a finish turns the state into an answer.

    a = A x    e = exp(a)    u = e + a    v = e + 1    alpha = <u, 1>    f = u / alpha    c = f - b    s = <f, c>
    L    = <c, c> + 1/2 ||w * a||^2
    grad = A^T r,                  r = (2/alpha) v * (c - s) + w^2 * a
    Hess = A^T diag(h) A - 2 (A^T v/alpha) (A^T q/alpha)^T - 2 (A^T q/alpha) (A^T v/alpha)^T,
           h = 2 v^2/alpha^2 + 2 e * (c - s)/alpha + w^2,     q = v * (f + c - s - 1/2 <f, f>)

The problem is that of arXiv:2309.13482, its derivatives derived anew. The letters u, alpha, f and c
are those of that paper and its siblings; v, s, h and q are ours. For other links, too, v = u' and
e = u'' (formulas/links.py). u, v, e and alpha are held divided by exp(M), M = max(0, max a) by default: f, r,
h and the rank-2 vectors do not change, and nothing overflows. A hat in a comment marks such a scaled
quantity.

Rows are folded in blocks whose number depends on n and d alone; each block folds its rows in order and the blocks
combine in order, so the answer has the same bits on any number of threads.
"""

import math

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.links import growth, terms
from ..layouts.panel import ROWS, add_columns, add_row_sum, add_row_sums, load_panel, loaded_panel, padded, row_products, view_rows
from ..registers.simd import LANES, absolute, first, fma, load_first, max_lanes, maximum, splat, store, store_first, sum_lanes, zeros
from ..registers.tile import add_gram, add_gram_strip, add_row_sums_and_pack, pack, strip_count
from .mixed import add_gram_mixed, pack_mixed, start_scales

# The scalar state of a block, a row of `sums`: first what needs no global, then what needs alpha and M.
SHIFT, ALPHA, ABSOLUTE, SLOPE, STEP, SQUARES, FC, FF, PENALTY = range(9)
SUMS = 9

# The point that a = A x is: combined sums and what follows from them.
(
    POINT_SHIFT,  # M
    POINT_K,  # exp(-M)
    POINT_ALPHA,  # alpha^ = alpha exp(-M)
    POINT_KAPPA,  # sum(e^ + |a^|) / alpha^: how much of alpha cancels
    POINT_SLOPE,  # <v^, da>: d alpha^ / dt along the step
    POINT_STEP,  # max |da|
    POINT_SQUARES,  # <c, c>
    POINT_S,  # s = <f, c>
    POINT_FF,  # <f, f>
    POINT_FUN,  # L
) = range(10)
POINT = 10

EPS, LARGEST = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).max)
SUMS_ROUNDING = 16  # eps, of f where a is small: 0.5 to 7 were measured
NEAR_FIT = 1e-3  # ||c|| / ||f||: below, the one-pass gradient is computed once more, from c
BY_STRIPS = 1024  # columns; beyond, one Gram matrix serves all blocks (bench/test_passes.py, rows "weighted Gram")
MOST_SHIFT = 1e4  # beyond, rounding in a leaves f no digits worth the name

# Rows of `weights` in a panel: h for the Gram matrix, then the three weights of `vectors`.
H, V, Q, R = range(4)


@serial
def block_count(n, d):
    """How many blocks the n rows are folded in: enough for many threads, and at most 16 MB of partial Gram matrices up to d = 512."""
    most = max(8, min(32, 2**21 // max(1, padded(d) ** 2)))
    return max(1, min(most, (n + 4 * ROWS - 1) // (4 * ROWS)))


@serial
def block_rows(k, blocks, n):
    """First row of block k and of the next, on panel boundaries."""
    panels = (n + ROWS - 1) // ROWS
    return min(n, panels * k // blocks * ROWS), min(n, panels * (k + 1) // blocks * ROWS)


@serial
def rounding(point):
    """The relative error of f: of its sums, and of a, which is near M in the rows that matter."""
    return (SUMS_ROUNDING + min(abs(point[POINT_SHIFT]), MOST_SHIFT)) * EPS


@serial
def noise(point):
    """The rounding error of L: a relative error of f, times 2 c in the squares of c = f - b, and squared."""
    error = rounding(point)
    return error * (point[POINT_FUN] + 2.0 * math.sqrt(point[POINT_SQUARES] * point[POINT_FF]) + error * point[POINT_FF])


# -- fold: A x ----------------------------------------------------------------------------------------------


@part
def fold_products(A, x, start, stop, out, buffer):
    """out = A x on the rows start : stop."""
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        row_products(view_rows(A, i, rows, buffer), x, rows, out, i, A, i + ROWS, True)


# -- fold: alpha, without knowing M in advance ----------------------------------------------------------------


@serial
def start_sums(link, sums):
    """The scalar state before any row."""
    sums[:] = 0.0
    sums[SHIFT] = link.low


@serial
def add_domain(link, a, da, start, stop, sums, u_out, v_out):
    """Rows join M, alpha^ = sum(u^), sum(e^ + k |a|), <v^, da> and max |da|; an empty da counts as 0.

    Leaves u^ and v^ in `u_out` and `v_out`, unless they are empty. Returns exp(M before - M), which what was summed before is multiplied by.
    """
    top = splat(sums[SHIFT])
    for j in range(start, stop, LANES):
        below_all = first(splat(LARGEST), stop - j) - splat(LARGEST)  # 0, and in the padding what is no maximum
        top = maximum(growth(link, load_first(a, 0, j, stop - j)) + below_all, top)
    shift = min(max_lanes(top), link.high)
    factor = 1.0
    if shift > sums[SHIFT]:
        factor = math.exp(sums[SHIFT] - shift)
        for i in (ALPHA, ABSOLUTE, SLOPE):
            sums[i] = rescaled(factor, sums[i])
        sums[SHIFT] = shift
    k = splat(math.exp(-shift))
    alpha, magnitude, slope = zeros(3)
    largest = splat(0.0)
    for j in range(start, stop, LANES):
        aj = load_first(a, 0, j, stop - j)
        u, v, _, size = terms(link, aj, splat(shift), k)
        alpha += first(u, stop - j)
        magnitude += first(size, stop - j)
        if da.shape[0] > 0:
            step = load_first(da, 0, j, stop - j)
            slope = fma(first(v, stop - j), step, slope)
            largest = maximum(absolute(step), largest)
        if u_out.shape[0] > 0:
            store(u_out, 0, j - start, u)
            store(v_out, 0, j - start, v)
    sums[ALPHA] += sum_lanes(alpha)
    sums[ABSOLUTE] += sum_lanes(magnitude)
    sums[SLOPE] += sum_lanes(slope)
    sums[STEP] = max(sums[STEP], max_lanes(largest))
    return factor


@serial
def rescaled(factor, x):
    """factor x, where a factor 0 drops even an inf."""
    return factor * x if factor > 0.0 else 0.0


@part
def fold_domain(link, a, da, t, start, stop, out, sums):
    """The domain of out = a + t da on the rows start : stop; with an empty da, of out, which is then a."""
    start_sums(link, sums)
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        if da.shape[0] > 0:
            for j in range(i, end, LANES):
                step = load_first(da, 0, j, end - j)
                store_first(out, 0, j, end - j, fma(splat(t), step, load_first(a, 0, j, end - j)))
        add_domain(link, out, da, i, end, sums, out[:0], out[:0])


@part
def fold_projection(link, A, x, start, stop, a, sums, buffer):
    """a = A x on the rows start : stop, and its domain while it is in cache."""
    start_sums(link, sums)
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        row_products(view_rows(A, i, end - i, buffer), x, end - i, a, i, A, i + ROWS, True)
        add_domain(link, a, a[:0], i, end, sums, a[:0], a[:0])


@serial
def combine_domain(sums, point):
    """M, k, alpha^, kappa, the slope and the step of all blocks."""
    shift, step = sums[0, SHIFT], 0.0
    for block in range(sums.shape[0]):
        shift = max(shift, sums[block, SHIFT])
        step = max(step, sums[block, STEP])
    alpha = magnitude = slope = 0.0
    for block in range(sums.shape[0]):
        factor = math.exp(sums[block, SHIFT] - shift)
        if factor > 0.0:
            alpha += factor * sums[block, ALPHA]
            magnitude += factor * sums[block, ABSOLUTE]
            slope += factor * sums[block, SLOPE]
    point[POINT_SHIFT] = shift
    point[POINT_K] = math.exp(-shift)
    point[POINT_ALPHA] = alpha
    point[POINT_KAPPA] = magnitude / alpha if alpha > 0.0 else np.inf
    point[POINT_SLOPE] = slope
    point[POINT_STEP] = step


# -- fold: the loss, alpha known ------------------------------------------------------------------------------


@serial
def fold_residuals(link, a, b, w, point, start, stop, sums):
    """<c, c>, <f, c>, <f, f> and 1/2 ||w * a||^2 of the rows start : stop."""
    shift, k = splat(point[POINT_SHIFT]), splat(point[POINT_K])
    over_alpha = splat(1.0 / point[POINT_ALPHA])
    squares, fc, ff, penalty = zeros(4)
    for j in range(start, stop, LANES):
        aj = load_first(a, 0, j, stop - j)
        u, _, _, _ = terms(link, aj, shift, k)
        f = first(u, stop - j) * over_alpha
        c = f - load_first(b, 0, j, stop - j)
        squares = fma(c, c, squares)
        fc = fma(f, c, fc)
        ff = fma(f, f, ff)
        if w.shape[0] > 0:
            wa = load_first(w, 0, j, stop - j) * aj
            penalty = fma(wa, wa, penalty)
    sums[SQUARES] = sum_lanes(squares)
    sums[FC] = sum_lanes(fc)
    sums[FF] = sum_lanes(ff)
    sums[PENALTY] = 0.5 * sum_lanes(penalty)


@serial
def combine_residuals(sums, point):
    """L, <c, c>, s and <f, f> of all blocks; L is +inf outside the domain alpha > 0."""
    squares = fc = ff = penalty = 0.0
    for block in range(sums.shape[0]):
        squares += sums[block, SQUARES]
        fc += sums[block, FC]
        ff += sums[block, FF]
        penalty += sums[block, PENALTY]
    point[POINT_SQUARES] = squares
    point[POINT_S] = fc
    point[POINT_FF] = ff
    point[POINT_FUN] = squares + penalty


# -- fold: A x, and the gradient's sums before the point is known ---------------------------------------------


@part
def fold_gradient_sums(link, A, x, b, w, start, stop, a, sums, buffer, weights, vectors):
    """a = A x and its domain, and into `vectors` A^T v^, A^T (v^ u^), A^T (v^ b) and A^T (w^2 a), in one read of the rows start : stop."""
    start_sums(link, sums)
    vectors[:] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = view_rows(A, i, rows, buffer)
        row_products(panel, x, rows, a, i, A, i + ROWS, False)
        factor = add_domain(link, a, a[:0], i, i + rows, sums, weights[Q], weights[V])
        if factor < 1.0:
            rescale_vectors(factor, vectors)
        for j in range(0, rows, LANES):
            count = rows - j
            v = first(load_first(weights, V, j, LANES), count)
            store(weights, V, j, v)
            store(weights, Q, j, v * load_first(weights, Q, j, LANES))
            store(weights, R, j, v * load_first(b, 0, i + j, count))
            if w.shape[0] > 0:
                wj = load_first(w, 0, i + j, count)
                store(weights, H, j, wj * wj * load_first(a, 0, i + j, count))
        add_row_sums(panel, weights[V:], rows, vectors, A, i + ROWS, False)
        if w.shape[0] > 0:
            add_row_sum(panel, weights[H:], rows, vectors[3:], A, i + ROWS, False)


@serial
def rescale_vectors(factor, vectors):
    """What `fold_gradient_sums` sums, after M has grown by -log(factor)."""
    for j in range(vectors.shape[1]):
        vectors[0, j] = rescaled(factor, vectors[0, j])
        vectors[1, j] = rescaled(factor * factor, vectors[1, j])
        vectors[2, j] = rescaled(factor, vectors[2, j])


@serial
def finish_gradient(sums, point, vectors):
    """From the blocks' sums, what `derivatives` leaves in vectors[0]: A^T v/alpha, A^T q/alpha and the gradient."""
    for block in range(sums.shape[0]):
        factor = math.exp(sums[block, SHIFT] - point[POINT_SHIFT])
        if factor < 1.0:
            rescale_vectors(factor, vectors[block])
    combine_vectors(vectors)
    alpha, s, half_ff = point[POINT_ALPHA], point[POINT_S], 0.5 * point[POINT_FF]
    for j in range(vectors.shape[2]):
        v, vu, vb = vectors[0, 0, j] / alpha, vectors[0, 1, j] / alpha / alpha, vectors[0, 2, j] / alpha
        vectors[0, 0, j] = v
        vectors[0, 1, j] = 2.0 * vu - vb - (s + half_ff) * v
        vectors[0, 2, j] = 2.0 * (vu - vb - s * v) + vectors[0, 3, j]


@serial
def cancels(point, vectors):
    """Whether the gradient of `finish_gradient` has lost digits: its terms are of the size of f, it of that of c."""
    total = 0.0
    for j in range(vectors.shape[2]):
        total += 0.0 * vectors[0, 1, j]  # NaN where a sum has overflowed
    return point[POINT_SQUARES] <= NEAR_FIT**2 * point[POINT_FF] or total != 0.0


# -- fold: derivatives, the point known -----------------------------------------------------------------------


@serial
def weigh(u, v, e, b, s, half_ff, over_alpha):
    """h, v/alpha, q/alpha and r of eight rows, without w."""
    f, v = u * over_alpha, v * over_alpha
    cs = f - b - s
    two = splat(2.0)
    return two * fma(v, v, e * over_alpha * cs), v, v * (f + cs - half_ff), two * (v * cs)


@serial
def row_weights(link, a, b, w, point, j, count):
    """h, v/alpha, q/alpha and r of the eight rows from j on, zero from the count-th on."""
    shift, k = splat(point[POINT_SHIFT]), splat(point[POINT_K])
    s, half_ff = splat(point[POINT_S]), splat(0.5 * point[POINT_FF])
    over_alpha = splat(1.0 / point[POINT_ALPHA])
    aj = load_first(a, 0, j, count)
    u, v, e, _ = terms(link, aj, shift, k)
    h, v, q, r = weigh(u, v, e, load_first(b, 0, j, count), s, half_ff, over_alpha)
    if w.shape[0] > 0:
        wj = load_first(w, 0, j, count)
        h = fma(wj, wj, h)
        r = fma(wj * wj, aj, r)
    return first(h, count), first(v, count), first(q, count), first(r, count)


@serial
def panel_weights(link, a, b, w, point, start, rows, weights):
    """The weights h, v/alpha, q/alpha and r of the rows of a panel; zero in its padding."""
    for j in range(0, rows, LANES):
        h, v, q, r = row_weights(link, a, b, w, point, start + j, rows - j)
        store(weights, H, j, h)
        store(weights, V, j, v)
        store(weights, Q, j, q)
        store(weights, R, j, r)


@part
def fold_gradient(link, A, a, b, w, point, start, stop, buffer, weights, vectors):
    """A^T v/alpha, A^T q/alpha and A^T r into `vectors`."""
    vectors[:] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = view_rows(A, i, rows, buffer)
        panel_weights(link, a, b, w, point, i, rows, weights)
        add_row_sums(panel, weights[V:], rows, vectors, A, i + ROWS, True)


@part
def fold_derivatives(link, A, a, b, w, point, start, stop, buffer, weights, packed, vectors, gram):
    """The same and A^T diag(h) A into `gram`."""
    vectors[:] = 0.0
    gram[:] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = load_panel(A, i, rows, buffer)
        panel_weights(link, a, b, w, point, i, rows, weights)
        add_row_sums_and_pack(panel, weights, rows, vectors, packed)
        add_gram(packed, panel, rows, gram, A, i + ROWS)


@part
def fold_curvature(link, A, p, a, b, w, point, start, stop, buffer, weights, vectors, da):
    """A^T (h * A p) into the third of `vectors`, and A p into `da` unless that is empty."""
    vectors[2] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = view_rows(A, i, rows, buffer)
        panel_weights(link, a, b, w, point, i, rows, weights)
        row_products(panel, p, rows, weights[R], 0, A, i + ROWS, False)
        for j in range(0, rows, LANES):
            products = load_first(weights, R, j, LANES)
            if da.shape[0] > 0:
                store_first(da, 0, i + j, rows - j, products)
            store(weights, R, j, products * load_first(weights, H, j, LANES))
        add_row_sum(panel, weights[R:], rows, vectors[2:], A, i + ROWS, False)


@part
def fold_gram(A, h, start, stop, buffer, packed, gram):
    """A^T diag(h) A of the rows start : stop."""
    gram[:] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = load_panel(A, i, rows, buffer)
        pack(panel, h[i : i + rows], rows, packed)
        add_gram(packed, panel, rows, gram, A, i + ROWS)


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


# -- large d: the Gram matrix by strips of its columns ----------------------------------------------------------
#
# Where a Gram matrix for each block would take too much memory there is one for all. Panels are weighed and packed a
# few at a time, in parallel; then the strips of the matrix are summed over them, in parallel.


@part
def fold_panel(link, A, h, a, b, w, point, i, buffer, weights, packed, vectors):
    """The panel at row i, if there is one: weighed, packed, and its row sums added to `vectors`. An h that is not empty stands for all weights."""
    rows = min(ROWS, A.shape[0] - i)
    if rows <= 0:
        return
    panel = load_panel(A, i, rows, buffer)
    if h.shape[0] > 0:
        pack(panel, h[i : i + rows], rows, packed)
    else:
        panel_weights(link, a, b, w, point, i, rows, weights)
        add_row_sums_and_pack(panel, weights, rows, vectors, packed)


@serial
def add_strips(A, i, buffers, packed, t, gram):
    """Strips t and t from the last, together as long as any other such pair, of the panels from row i on."""
    last = strip_count(gram.shape[0]) - 1
    for k in range(buffers.shape[0]):
        rows = min(ROWS, A.shape[0] - i - k * ROWS)
        if rows <= 0:
            return
        panel = loaded_panel(A, i + k * ROWS, rows, buffers[k])
        add_gram_strip(packed[k], panel, rows, t, gram, A, i, 0)
        if t != last - t:
            add_gram_strip(packed[k], panel, rows, last - t, gram, A, i, 0)


@serial
def combine_vectors(vectors):
    """The sum over blocks, into the first."""
    for block in range(1, vectors.shape[0]):
        for i in range(vectors.shape[1]):
            for j in range(vectors.shape[2]):
                vectors[0, i, j] += vectors[block, i, j]


# -- finish ---------------------------------------------------------------------------------------------------


@serial
def finish_hessian_rows(first, gram, vectors, hess):
    """Eight rows of the Hessian from `first` on, right of the diagonal, and their mirror image; `vectors` combined, the blocks of `gram` not."""
    d = hess.shape[0]
    last = min(first + LANES, d)
    total = gram[0] if gram.ndim == 3 else gram
    for i in range(first, last):
        if gram.ndim == 3:
            for block in range(1, gram.shape[0]):
                for j in range(i, d):
                    total[i, j] += gram[block, i, j]
        for j in range(i, d):
            rank_2 = vectors[0, 0, i] * vectors[0, 1, j] + vectors[0, 1, i] * vectors[0, 0, j]
            hess[i, j] = total[i, j] - 2.0 * rank_2
    for j in range(first, d):  # eight to a cache line: one by one, large d would write a line for each entry
        for i in range(first, min(last, j)):
            hess[j, i] = hess[i, j]


@serial
def finish_hess_vec(v, q, sums, p, out):
    """out = Hess p, of v = A^T v/alpha, q = A^T q/alpha and the sums A^T (h * A p)."""
    vp = qp = 0.0
    for j in range(p.shape[0]):
        vp += v[j] * p[j]
        qp += q[j] * p[j]
    for j in range(p.shape[0]):
        out[j] = sums[j] - 2.0 * (v[j] * qp + q[j] * vp)


# -- folds with no point: validation, and what predicts ---------------------------------------------------------


@part
def fold_columns(A, start, stop, buffer, vectors):
    """Per column, the sum of squares and the largest |A_ij| of the rows start : stop; a NaN or inf shows in the first."""
    vectors[:] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        add_columns(view_rows(A, i, rows, buffer), rows, vectors)


@part
def fold_predictions(link, a, point, start, stop, f, v):
    """f and v/alpha of the rows start : stop."""
    shift, k = splat(point[POINT_SHIFT]), splat(point[POINT_K])
    over_alpha = splat(1.0 / point[POINT_ALPHA])
    for j in range(start, stop, LANES):
        u, slope, _, _ = terms(link, load_first(a, 0, j, stop - j), shift, k)
        store_first(f, 0, j, stop - j, u * over_alpha)
        store_first(v, 0, j, stop - j, slope * over_alpha)


@part
def fold_transposed(A, y, start, stop, buffer, weights, vectors):
    """A^T y of the rows start : stop, into the third of `vectors`."""
    vectors[2] = 0.0
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        for j in range(rows):
            weights[R, j] = y[i + j]
        add_row_sum(view_rows(A, i, rows, buffer), weights[R:], rows, vectors[2:], A, i + ROWS, True)
