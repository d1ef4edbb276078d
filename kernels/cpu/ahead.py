"""A step in one read: the read of A that forms A p also weighs the rows there, by a prediction of alpha and s (formulas/ahead.py).

What the read finds corrects everything but the Gram matrix, whose error is of the order of ||p||^2. See docs/theory.md, "A step in one read".
"""

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from ..compiling.jit import parallel, part, serial, serial_twin
from ..formulas.ahead import (
    Sampled,
    add_curvature,
    add_sampled,
    add_sampled_slope,
    growth_ahead,
    s_ahead,
    s_of,
    s_slope,
    weights_error,
)
from ..formulas.centred import corrected, corrected_entries, lost
from ..formulas.finish import derivative_entries
from ..formulas.links import growth, terms
from ..formulas.records import VC, VF, W2A, W2A_AHEAD, Curvatures, H, Q, R, Residuals, V, as_point, as_state
from ..formulas.rows import add_penalty, add_residual, factors, loss, penalised, sum_weights, weights
from ..formulas.states import kappa, over_exp
from ..layouts.panel import ROWS, add_row_sum, load_panel, row_products
from ..registers.simd import (
    LANES,
    absolute,
    first,
    fma,
    lane,
    load_first,
    max_lanes,
    maximum,
    splat,
    store,
    store_first,
    sum_lanes,
    zeros,
)
from ..registers.sums import add_sums_and_gram
from .blocks import share
from .rows import merge_vectors
from .vectors import below_all, copy

FARTHEST = 4.0  # alpha over its prediction, or the reverse: beyond, sums lack digits
MOST_LOST = 8.0  # ||delta f~||^2 / ||c||^2: beyond, <c, c> and the gradient are differences of larger terms
MOST_GROWTH = 100.0  # of M
TRUSTED = 0.1  # the error of weights relative to the sum of |h|: beyond, the Hessian is formed again

# Rows drawn for predictions: the terms of second order that they show are off by two in sqrt(SAMPLE), 4 %.
SAMPLE, SEED = 2048, 0
OFF, OFF_SQUARES = 0.1, 0.4  # the relative errors of <f, 1> and <f, f> in the sample, which are known: beyond, it does not speak for all rows


class Sample(NamedTuple):
    """Rows drawn to stand for all in a prediction; without any, steps read A twice."""

    rows: np.ndarray  # m: their numbers
    A: np.ndarray  # d x m: a column for each
    b: np.ndarray  # m
    a: np.ndarray  # m: room for their A x


@serial
def no_sample(d):
    """For steps that read A twice."""
    return Sample(np.empty(0, np.int64), np.empty((d, 0)), np.empty(0), np.empty(0))


class Trial(NamedTuple):
    """The n-vectors of a step."""

    a: np.ndarray  # A x
    b: np.ndarray
    w: np.ndarray
    da: np.ndarray  # A p, an output
    out: np.ndarray  # A (x + p), an output


def sample_rows(n):
    """The numbers of the rows drawn, in order: one anywhere in each of equal parts of the rows."""
    edges = np.arange(min(n, SAMPLE) + 1) * n // min(n, SAMPLE)
    return edges[:-1] + np.random.default_rng(SEED).integers(np.diff(edges))


@serial
def total_of(sums):
    """Sums over eight lanes."""
    return Sampled(sum_lanes(sums.alpha), sum_lanes(sums.uu), sum_lanes(sums.ub))


@serial
def scaled_by(scale, sums):
    """The sums times a number."""
    return Sampled(scale * sums.alpha, scale * sums.uu, scale * sums.ub)


@serial
def fold_sample(link, p, a, sample, at):
    """Sums over the sample at x, their slopes along p, and the sums at x + p, all in units of alpha at x; and M there."""
    m, zero = sample.rows.shape[0], splat(0.0)
    here, slopes, there = Sampled(zero, zero, zero), Sampled(zero, zero, zero), Sampled(zero, zero, zero)
    top = splat(link.low)
    for i in range(m):
        sample.a[i] = a[sample.rows[i]]
    for i in range(0, m, LANES):
        count = m - i
        (z,) = zeros(1)
        for j in range(p.shape[0]):
            z = fma(splat(p[j]), load_first(sample.A, j, i, count), z)
        ai, b = load_first(sample.a, 0, i, count), load_first(sample.b, 0, i, count)
        top = maximum(growth(link, ai + z) + below_all(count), top)
        u, v, _, _ = terms(link, ai, at.shift, at.k)
        y, _, _, _ = terms(link, ai + z, at.shift, at.k)
        u, v, y = first(u * at.over_alpha, count), first(v * at.over_alpha, count), first(y * at.over_alpha, count)
        here, slopes, there = add_sampled(here, u, b), add_sampled_slope(slopes, u, v * z, b), add_sampled(there, y, b)
    return total_of(here), total_of(slopes), total_of(there), max_lanes(top)


@serial
def predict_from(here, v, q, p, part, sums, predicted):
    """What `predict` does, from the sums over a sample that is that part of all rows."""
    slope = qp = 0.0
    for j in range(p.shape[0]):
        slope += v[j] * p[j]
        qp += q[j] * p[j]
    copy(here, predicted)
    at = as_point(predicted)
    alpha, s = growth_ahead(slope), s_ahead(at.s, at.ff, slope, qp)
    now, slopes, then, top = sums
    # The sums of all rows are 1 and <f, f>.
    represents = abs(now.alpha - part) <= OFF * part and abs(now.uu - now.alpha * at.ff) <= OFF_SQUARES * now.alpha * at.ff
    if represents and top <= at.shift + MOST_GROWTH and then.alpha > 0.0:
        scale = 1.0 / now.alpha  # ratios to a sum that is known have less variance
        now, slopes, then = scaled_by(scale, now), scaled_by(scale, slopes), scaled_by(scale, then)
        alpha = 1.0 + slope + (then.alpha - now.alpha - slopes.alpha)
        s += s_of(then) - s_of(now) - s_slope(now, slopes)
    at.alpha *= alpha
    at.s = s


@serial
def fold_part_of_sample(link, p, a, sample, here, sums):
    """What `fold_sample` returns, of the rows in a part of A, into ten numbers."""
    now, slopes, then, top = fold_sample(link, p, a, sample, factors(as_point(here)))
    for i in range(3):
        sums[i], sums[3 + i], sums[6 + i] = now[i], slopes[i], then[i]
    sums[9] = top


@serial
def predict_by_parts(here, v, q, p, part, sums, predicted):
    """What `predict` does, from those numbers of each part of A."""
    total = sums[0].copy()
    for k in range(1, sums.shape[0]):
        top = max(total[9], sums[k, 9])
        total += sums[k]
        total[9] = top
    now, slopes = Sampled(total[0], total[1], total[2]), Sampled(total[3], total[4], total[5])
    then = Sampled(total[6], total[7], total[8])
    predict_from(here, v, q, p, part, (now, slopes, then, total[9]), predicted)


@serial
def predict(link, here, v, q, p, a, sample, predicted):
    """The point at x + p, with the M of `here`: alpha and s to first order by v = A^T v/alpha and q = A^T q/alpha, and beyond that by the sample."""
    sums = fold_sample(link, p, a, sample, factors(as_point(here)))
    predict_from(here, v, q, p, sample.rows.shape[0] / a.shape[0], sums, predicted)


@serial
def start_ahead(link, sums, vectors, gram):
    """The blocks' states before any row."""
    for k in range(sums.shape[0]):
        sums[k] = 0.0
        as_state(sums[k]).shift = link.low
    vectors[:] = 0.0
    gram[:] = 0.0


@serial
def weigh_ahead(link, trial, predicted, start, stop, sums, weights_out):
    """out = a + da on the rows of a panel, their sums there, added to the state, and their weights."""
    a, b, w, da, out = trial
    at = factors(predicted)
    top, largest = splat(sums.shift), splat(sums.step)
    alpha, magnitude, slope = zeros(3)
    total = Residuals(splat(0.0), splat(0.0), splat(0.0), splat(0.0))
    curvatures = Curvatures(splat(0.0), splat(0.0), splat(0.0))
    for j in range(start, stop, LANES):
        count = stop - j
        step, bj = load_first(da, 0, j, count), load_first(b, 0, j, count)
        aj = load_first(a, 0, j, count) + step
        store_first(out, 0, j, count, aj)
        top, largest = maximum(growth(link, aj) + below_all(count), top), maximum(absolute(step), largest)
        u, v, e, size = terms(link, aj, at.shift, at.k)
        u, v, e = first(u, count), first(v, count), first(e, count)
        row = weights(u, v, e, bj, at)
        f = u * at.over_alpha
        alpha, magnitude = alpha + f, fma(first(size, count), at.over_alpha, magnitude)
        slope = fma(row.v, step, slope)
        total = add_residual(total, u, bj, at.over_alpha)
        v, vf, vc = sum_weights(f, row.v, f - bj)
        if w.shape[0] > 0:
            wj = load_first(w, 0, j, count)
            total, row = add_penalty(total, wj, aj), penalised(row, wj, aj)
            store(weights_out, W2A_AHEAD, j - start, wj * wj * aj)
        curvatures = add_curvature(curvatures, row.h, e, bj, at.over_alpha)
        store(weights_out, H, j - start, row.h)
        store(weights_out, V, j - start, v)
        store(weights_out, VF, j - start, vf)
        store(weights_out, VC, j - start, vc)
    sums.shift, sums.step = max_lanes(top), max_lanes(largest)
    sums.alpha += sum_lanes(alpha)
    sums.magnitude += sum_lanes(magnitude)
    sums.slope += sum_lanes(slope)
    sums.squares += sum_lanes(total.squares)
    sums.fc += sum_lanes(total.fc)
    sums.ff += sum_lanes(total.ff)
    sums.penalty += sum_lanes(total.penalty)
    sums.weights += sum_lanes(curvatures.weights)
    sums.bends += sum_lanes(curvatures.bends)
    sums.bends_b += sum_lanes(curvatures.bends_b)


@part
def fold_ahead(link, A, p, trial, predicted, block, gram):
    """da = A p, out = a + da, and the sums there of a block's rows, added to its state."""
    for i in range(block.start, block.stop, ROWS):
        rows = min(ROWS, block.stop - i)
        panel = load_panel(A, i, rows, block.buffer)
        row_products(panel, p, rows, trial.da, i, A, i + ROWS, True)
        weigh_ahead(link, trial, predicted, i, i + rows, block.sums, block.weights)
        add_sums_and_gram(panel, block.weights[H], block.weights, rows, block.vectors, block.packed, gram, A, i + ROWS)
        if trial.w.shape[0] > 0:
            add_row_sum(panel, block.weights[W2A_AHEAD:], rows, block.vectors[W2A:], A, i + ROWS, False)


@parallel
def read_ahead(link, A, p, trial, predicted, scratch, gram):
    """`fold_ahead` over all rows, or over those of one chunk: the blocks' states continue from the given ones."""
    n = A.shape[0]
    for k in prange(scratch.vectors.shape[0]):
        fold_ahead(link, A, p, trial, as_point(predicted), share(scratch, k, n), gram[k])


@serial
def merge_ahead(sums):
    """The sum of the blocks' states, into the first."""
    total = as_state(sums[0])
    for k in range(1, sums.shape[0]):
        shift, step = max(total.shift, as_state(sums[k]).shift), max(total.step, as_state(sums[k]).step)
        for i in range(sums.shape[1]):
            sums[0, i] += sums[k, i]
        total.shift, total.step = shift, step


@serial
def finish_ahead(link, predicted, w, sums, vectors, gram, point):
    """The point, what `derivatives` leaves in vectors[0], and the Gram matrices for it, from the blocks' states.

    Returns whether the prediction was good enough for the point, which must else be evaluated; and the error of the Gram matrix of columns
    of unit RMS, about: infinite where it is not to be used.
    """
    merge_ahead(sums)
    total, before, at = as_state(sums[0]), as_point(predicted), as_point(point)
    rho = total.alpha
    if not (1.0 / FARTHEST < rho < FARTHEST and total.shift <= before.shift + MOST_GROWTH):
        return False, math.inf
    delta = 1.0 / rho - 1.0
    sums_ahead = Residuals(total.squares, total.fc, total.ff, total.penalty)
    found = corrected(sums_ahead, delta)
    if not lost(sums_ahead, delta) <= MOST_LOST * found.squares:
        return False, math.inf
    at.shift = min(total.shift, link.high)
    at.k = lane(over_exp(at.shift), 0)
    scale = before.alpha * math.exp(before.shift - at.shift)
    at.alpha, at.slope, at.step = rho * scale, total.slope * scale, total.step
    at.kappa = kappa(total.magnitude, rho)
    at.squares, at.s, at.ff, at.fun = found.squares, found.fc, found.ff, loss(found)
    merge_vectors(vectors)
    for j in range(vectors.shape[2]):
        v, vf, vc = corrected_entries(vectors[0, V, j], vectors[0, VF, j], vectors[0, VC, j], delta)
        v, q, r = derivative_entries(v, vf, vc, vectors[0, W2A, j], at.s, 0.5 * at.ff)
        vectors[0, V, j], vectors[0, Q, j], vectors[0, R, j] = v, q, r
    scaled = w.shape[0] == 0  # with weights, most of the Gram matrix may be A^T diag(w^2) A, which does not follow alpha
    if scaled:
        grown = (1.0 + delta) ** 2
        for k in range(gram.shape[0]):
            for i in range(gram.shape[1]):
                for j in range(gram.shape[2]):
                    gram[k, i, j] *= grown
    curvatures = Curvatures(total.weights, total.bends, total.bends_b)
    error = weights_error(curvatures, delta, at.s, before.s, scaled)
    return True, error if error <= TRUSTED * total.weights else math.inf


@serial
def look_ahead(link, A, p, trial, predicted, scratch, gram, point):
    """da = A p, out = a + da, the `point` there and its derivatives, in one read; returns what `finish_ahead` returns.

    Not for one Gram matrix of all blocks: for so many columns steps take two reads.
    """
    if gram.ndim == 2:
        return False, math.inf
    else:  # noqa: RET505 - Numba leaves out the branch of the other type
        start_ahead(link, scratch.sums, scratch.vectors, gram)
        read_ahead(link, A, p, trial, predicted, scratch, gram)
        return finish_ahead(link, predicted, trial.w, scratch.sums, scratch.vectors, gram, point)


read_ahead_serial = serial_twin(read_ahead)
look_ahead_serial = serial_twin(look_ahead)
