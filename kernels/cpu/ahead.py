"""One pass for a Newton iteration: the read of A that forms A p yields all sums at a + A p, for data too large to be read twice.

While no global quantity is known, the weights of the Hessian are those of three Gram matrices,

    h = 2 (v^2 + e u)/alpha^2 - 2 e b/alpha - 2 s e/alpha + w^2,

and while M is unknown too, they are rescaled as it grows, like the sums of `fold_gradient_sums`: docs/theory.md, "One read of A". The rows of
A come in chunks, and a block of rows continues from chunk to chunk.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..compiling.jit import parallel, part, serial, serial_twin
from ..formulas.links import terms
from ..formulas.records import VB, VU, W2A, V, as_point, as_state
from ..formulas.rows import sum_weights
from ..formulas.states import over_exp, rescale, rescaled
from ..layouts.panel import ROWS, add_row_sum, add_row_sums, load_panel, row_products
from ..registers.simd import LANES, first, fma, load_first, splat, store, store_first
from ..registers.tile import add_gram, pack
from .blocks import KINDS, block_rows
from .passes import finish_hessian
from .rows import finish_gradient, rescale_vectors
from .vectors import add_domain, start_domain

# Rows of `weights` after those of the d-vectors: of the Gram matrices e, e b, v^2 + e u and w^2, the last of which does not depend on x.
E, EB, VV, W2 = range(KINDS, KINDS + 4)
WEIGHTS = KINDS + 4


class Ahead(NamedTuple):
    """The states of blocks, and the arrays they write."""

    sums: np.ndarray  # blocks x 9
    vectors: np.ndarray  # blocks x 4 x padded d
    grams: np.ndarray  # blocks x 3 or 4 x padded d x padded d
    buffers: np.ndarray
    packed: np.ndarray
    weights: np.ndarray  # blocks x 8 x rows of a panel


class AheadBlock(NamedTuple):
    """The rows of a block, start : stop, and its share."""

    start: int
    stop: int
    sums: np.record
    vectors: np.ndarray
    grams: np.ndarray
    buffer: np.ndarray
    packed: np.ndarray
    weights: np.ndarray


@part
def share_ahead(ahead, k, n):
    """Block k of n rows."""
    start, stop = block_rows(k, ahead.sums.shape[0], n)
    return AheadBlock(start, stop, as_state(ahead.sums[k]), ahead.vectors[k], ahead.grams[k], ahead.buffers[k], ahead.packed[k], ahead.weights[k])


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
    k = splat(over_exp(shift))
    for j in range(0, rows, LANES):
        count = rows - j
        aj, bj = load_first(a, 0, i + j, count), load_first(b, 0, i + j, count)
        u, v, e, _ = terms(link, aj, splat(shift), k)
        v, e = first(v, count), first(e, count)
        v, vu, vb = sum_weights(u, v, bj)
        store(weights, V, j, v)
        store(weights, VU, j, vu)
        store(weights, VB, j, vb)
        store(weights, E, j, e)
        store(weights, EB, j, e * bj)
        store(weights, VV, j, fma(v, v, e * u))
        if w.shape[0] > 0:
            wj = load_first(w, 0, i + j, count)
            store(weights, W2, j, wj * wj)
            store(weights, W2A, j, wj * wj * aj)


@part
def fold_ahead(link, A, p, a, b, w, da, out, block):
    """da = A p, out = a + da, and the sums there of a block's rows, with as many Gram matrices as it has, added to its state."""
    sums, vectors, grams, weights = block.sums, block.vectors, block.grams, block.weights
    for i in range(block.start, block.stop, ROWS):
        rows = min(ROWS, block.stop - i)
        panel = load_panel(A, i, rows, block.buffer)
        row_products(panel, p, rows, da, i, A, i + ROWS, True)
        for j in range(i, i + rows, LANES):
            count = i + rows - j
            store_first(out, 0, j, count, load_first(a, 0, j, count) + load_first(da, 0, j, count))
        factor = add_domain(link, out, da[:0], i, i + rows, sums, da[:0], da[:0])
        if factor < 1.0:
            rescale_vectors(factor, vectors)
            rescale_grams(factor, grams)
        weigh_ahead(link, out, b, w, i, rows, sums.shift, weights)
        add_row_sums(panel, weights, rows, vectors, A, i + ROWS, False)
        if w.shape[0] > 0:
            add_row_sum(panel, weights[W2A:], rows, vectors[W2A:], A, i + ROWS, False)
        for g in range(grams.shape[0]):
            pack(panel, weights[E + g], rows, block.packed)
            add_gram(block.packed, panel, rows, grams[g], A, i + ROWS)


@parallel
def look_ahead(link, A, p, a, b, w, da, out, ahead):
    """`fold_ahead` over the rows of one chunk; the blocks' states continue from the given ones."""
    n = A.shape[0]
    for k in prange(ahead.sums.shape[0]):
        fold_ahead(link, A, p, a, b, w, da, out, share_ahead(ahead, k, n))


@serial
def start_ahead(link, sums, vectors, grams):
    """The blocks' states before any row."""
    for k in range(sums.shape[0]):
        start_domain(link, as_state(sums[k]))
    vectors[:] = 0.0
    grams[:] = 0.0


@serial
def finish_ahead(sums, point, vectors, grams, hess):
    """What `derivatives` leaves in vectors[0], and the Hessian, from the blocks' states and their point."""
    at = as_point(point)
    total = grams[0, 0]
    for k in range(sums.shape[0]):
        f = rescale(as_state(sums[k]).shift, at.shift)
        ratio = f / at.alpha
        for i in range(total.shape[0]):
            for j in range(total.shape[1]):
                entry = 0.0
                if f > 0.0:
                    entry = 2.0 * ratio * (ratio * grams[k, 2, i, j] - grams[k, 1, i, j] - at.s * grams[k, 0, i, j])
                entry += grams[k, 3, i, j]
                total[i, j] = entry if k == 0 else total[i, j] + entry
    finish_gradient(sums, at, vectors)
    finish_hessian(total, vectors, hess)


look_ahead_serial = serial_twin(look_ahead)
finish_ahead_serial = serial_twin(finish_ahead)
