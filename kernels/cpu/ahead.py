"""One pass for a Newton iteration: everything at a + A p in the read of A that finds A p, for data too large to be read twice.

Without a global known, the weights of the Hessian are those of three Gram matrices,

    h = 2 (v^2 + e u)/alpha^2 - 2 e b/alpha - 2 s e/alpha + w^2,

and with M unknown too they are rescaled as the maximum grows, as what `fold_gradient_sums` sums is. The rows of A come in chunks, and a block of
rows goes on from chunk to chunk.
"""

import math

from numba import prange

from ..compiling.jit import parallel, part, serial, serial_twin
from ..dense import finish_hessian
from ..formulas.links import terms
from ..layouts.panel import ROWS, add_row_sum, add_row_sums, load_panel, row_products
from ..registers.simd import LANES, first, fma, load_first, splat, store, store_first
from ..registers.tile import add_gram, pack
from . import fold
from .fold import POINT_ALPHA, POINT_S, POINT_SHIFT, SHIFT, add_domain, rescale_vectors, rescaled

W2A, V, VU, VB, E, EB, VV, W2 = range(8)  # rows of `weights`: of the vectors w^2 a, v, v u, v b, and of the Gram matrices e, e b, v^2 + e u, w^2
WEIGHTS = 8


@serial
def rescale_grams(factor, grams):
    """The Gram matrices, after M has grown by -log(factor)."""
    for i in range(grams.shape[1]):
        for j in range(grams.shape[2]):
            grams[0, i, j] = rescaled(factor, grams[0, i, j])
            grams[1, i, j] = rescaled(factor, grams[1, i, j])
            grams[2, i, j] = rescaled(factor * factor, grams[2, i, j])


@serial
def weigh_ahead(link, a, b, w, i, rows, shift, weights):
    """The weights of the rows i : i + rows, times exp(-shift) or its square; 0 in the padding."""
    k = splat(math.exp(-shift))
    for j in range(0, rows, LANES):
        count = rows - j
        aj, bj = load_first(a, 0, i + j, count), load_first(b, 0, i + j, count)
        u, v, e, _ = terms(link, aj, splat(shift), k)
        v, e = first(v, count), first(e, count)
        store(weights, V, j, v)
        store(weights, VU, j, v * u)
        store(weights, VB, j, v * bj)
        store(weights, E, j, e)
        store(weights, EB, j, e * bj)
        store(weights, VV, j, fma(v, v, e * u))
        if w.shape[0] > 0:
            wj = load_first(w, 0, i + j, count)
            store(weights, W2, j, wj * wj)
            store(weights, W2A, j, wj * wj * aj)


@part
def fold_ahead(link, A, p, a, b, w, matrices, start, stop, da, out, sums, buffer, weights, packed, vectors, grams):
    """da = A p, out = a + da, and the sums there of the rows start : stop, of so many Gram matrices, added to the state."""
    for i in range(start, stop, ROWS):
        rows = min(ROWS, stop - i)
        panel = load_panel(A, i, rows, buffer)
        row_products(panel, p, rows, da, i, A, i + ROWS, True)
        for j in range(i, i + rows, LANES):
            count = i + rows - j
            store_first(out, 0, j, count, load_first(a, 0, j, count) + load_first(da, 0, j, count))
        factor = add_domain(link, out, da[:0], i, i + rows, sums, da[:0], da[:0])
        if factor < 1.0:
            rescale_vectors(factor, vectors)
            rescale_grams(factor, grams)
        weigh_ahead(link, out, b, w, i, rows, sums[SHIFT], weights)
        add_row_sums(panel, weights[V:], rows, vectors, A, i + ROWS, False)
        if w.shape[0] > 0:
            add_row_sum(panel, weights[W2A:], rows, vectors[3:], A, i + ROWS, False)
        for g in range(matrices):
            pack(panel, weights[E + g], rows, packed)
            add_gram(packed, panel, rows, grams[g], A, i + ROWS)


@parallel
def look_ahead(link, A, p, a, b, w, matrices, da, out, sums, buffers, weights, packed, vectors, grams):
    """`fold_ahead` over the rows of one chunk; the blocks' states go on from those that are given. The last Gram matrix does not depend on x."""
    blocks = sums.shape[0]
    for k in prange(blocks):
        start, stop = fold.block_rows(k, blocks, A.shape[0])
        fold_ahead(link, A, p, a, b, w, matrices, start, stop, da, out, sums[k], buffers[k], weights[k], packed[k], vectors[k], grams[k])


@serial
def start_ahead(link, sums, vectors, grams):
    """The blocks' states before any row."""
    for k in range(sums.shape[0]):
        fold.start_sums(link, sums[k])
    vectors[:] = 0.0
    grams[:] = 0.0


@serial
def finish_ahead(sums, point, vectors, grams, hess):
    """What `derivatives` leaves in vectors[0], and the Hessian, of the blocks' states and the point that they are at."""
    alpha, s = point[POINT_ALPHA], point[POINT_S]
    total = grams[0, 0]
    for k in range(sums.shape[0]):
        f = math.exp(sums[k, SHIFT] - point[POINT_SHIFT])
        ratio = f / alpha
        for i in range(total.shape[0]):
            for j in range(total.shape[1]):
                entry = 0.0
                if f > 0.0:
                    entry = 2.0 * ratio * (ratio * grams[k, 2, i, j] - grams[k, 1, i, j] - s * grams[k, 0, i, j])
                entry += grams[k, 3, i, j]
                total[i, j] = entry if k == 0 else total[i, j] + entry
    fold.finish_gradient(sums, point, vectors)
    finish_hessian(total, vectors, hess)


look_ahead_serial = serial_twin(look_ahead)
finish_ahead_serial = serial_twin(finish_ahead)
