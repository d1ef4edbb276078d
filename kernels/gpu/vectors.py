"""The fold on a GPU: a block of threads folds its rows into a state, and states combine in a fixed order.

Formulas as in cpu/fold.py. Here are the passes over n-vectors; those over A are in rows.py.
"""

import math

import numpy as np

from ..cpu.fold import (
    ABSOLUTE,
    ALPHA,
    FC,
    FF,
    PENALTY,
    POINT_ALPHA,
    POINT_FF,
    POINT_FUN,
    POINT_K,
    POINT_KAPPA,
    POINT_S,
    POINT_SHIFT,
    POINT_SLOPE,
    POINT_SQUARES,
    POINT_STEP,
    SHIFT,
    SLOPE,
    SQUARES,
    STEP,
)
from .block import THREADS, block_max, block_rows, block_sum, cuda, device, kernel

# -- fold: the scalar state -------------------------------------------------------------------------------------


@device
def terms(link, a, shift, k):
    """u, v, e and the size of the summands of u, each times exp(-M) = k."""
    p, q = link[0], link[1]
    e = p * math.exp(a - shift) if p > 0.0 else 0.0
    return e + q * k * a, e + q * k, e, e + q * k * abs(a)


@device
def scale(shift):
    """k = exp(-M). It only matters where a enters u, and M is at least 0 there; elsewhere it might overflow."""
    return math.exp(min(-shift, 0.0))


@device
def rescale(before, shift):
    """exp(before - shift), 0 for what was summed before anything."""
    return math.exp(before - shift) if before > -math.inf else 0.0


@device
def rescaled(factor, x):
    """factor x, where a factor 0 drops even an inf."""
    return factor * x if factor > 0.0 else 0.0


@device
def raised(link, shift, a):
    """M with one more a."""
    return min(max(shift, a), link[3]) if a > shift else shift


@device
def start_domain(link):
    """M, k, alpha^, sum(e^ + |a^|) and <v^, da> before any row."""
    return link[2], scale(link[2]), 0.0, 0.0, 0.0


@device
def join_domain(link, a, step, shift, k, alpha, magnitude, slope):
    """The same with one more row a, that moves by `step`."""
    top = raised(link, shift, a)
    if top > shift:
        factor = rescale(shift, top)
        alpha, magnitude, slope = rescaled(factor, alpha), rescaled(factor, magnitude), rescaled(factor, slope)
        shift, k = top, scale(top)
    u, v, _, size = terms(link, a, shift, k)
    return shift, k, alpha + u, magnitude + size, slope + v * step


@device
def store_domain(scratch, shift, alpha, magnitude, slope, step, sums):
    """The state of a block, of the states of its threads."""
    top = block_max(scratch, shift)
    factor = rescale(shift, top)
    alpha = block_sum(scratch, rescaled(factor, alpha))
    magnitude = block_sum(scratch, rescaled(factor, magnitude))
    slope = block_sum(scratch, rescaled(factor, slope))
    step = block_max(scratch, step)
    if cuda.threadIdx.x == 0:
        sums[SHIFT], sums[ALPHA], sums[ABSOLUTE], sums[SLOPE], sums[STEP] = top, alpha, magnitude, slope, step


@kernel
def fold_domain(link, a, da, t, out, sums):
    """The domain of out = a + t da; with an empty da, of out, which is then a."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, out.shape[0])
    shift, k, alpha, magnitude, slope = start_domain(link)
    largest = 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        step = 0.0
        if da.shape[0] > 0:
            step = da[i]
            out[i] = a[i] + t * step
        shift, k, alpha, magnitude, slope = join_domain(link, out[i], step, shift, k, alpha, magnitude, slope)
        largest = max(largest, abs(step))
    store_domain(scratch, shift, alpha, magnitude, slope, largest, sums[cuda.blockIdx.x])


@kernel
def combine_domain(sums, point):
    """M, k, alpha^, kappa, the slope and the step of all blocks. One block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    t, blocks = cuda.threadIdx.x, sums.shape[0]
    shift = -math.inf
    for k in range(t, blocks, THREADS):
        shift = max(shift, sums[k, SHIFT])
    shift = block_max(scratch, shift)
    alpha, magnitude, slope, step = 0.0, 0.0, 0.0, 0.0
    for k in range(t, blocks, THREADS):
        factor = rescale(sums[k, SHIFT], shift)
        alpha += rescaled(factor, sums[k, ALPHA])
        magnitude += rescaled(factor, sums[k, ABSOLUTE])
        slope += rescaled(factor, sums[k, SLOPE])
        step = max(step, sums[k, STEP])
    alpha, magnitude, slope = block_sum(scratch, alpha), block_sum(scratch, magnitude), block_sum(scratch, slope)
    step = block_max(scratch, step)
    if t == 0:
        point[POINT_SHIFT] = shift
        point[POINT_K] = scale(shift)
        point[POINT_ALPHA] = alpha
        point[POINT_KAPPA] = magnitude / alpha if alpha > 0.0 else math.inf
        point[POINT_SLOPE] = slope
        point[POINT_STEP] = step


@kernel
def fold_residuals(link, a, b, w, point, sums):
    """<c, c>, <f, c>, <f, f> and 1/2 ||w * a||^2 of each block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, a.shape[0])
    shift, k, over_alpha = point[POINT_SHIFT], point[POINT_K], 1.0 / point[POINT_ALPHA]
    squares, fc, ff, penalty = 0.0, 0.0, 0.0, 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        u, _, _, _ = terms(link, a[i], shift, k)
        f = u * over_alpha
        c = f - b[i]
        squares += c * c
        fc += f * c
        ff += f * f
        if w.shape[0] > 0:
            penalty += (w[i] * a[i]) ** 2
    squares, fc, ff = block_sum(scratch, squares), block_sum(scratch, fc), block_sum(scratch, ff)
    penalty = block_sum(scratch, penalty)
    if cuda.threadIdx.x == 0:
        block = sums[cuda.blockIdx.x]
        block[SQUARES], block[FC], block[FF], block[PENALTY] = squares, fc, ff, 0.5 * penalty


@kernel
def combine_residuals(sums, point):
    """L, <c, c>, s and <f, f> of all blocks; L is +inf outside the domain alpha > 0. One block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    squares, fc, ff, penalty = 0.0, 0.0, 0.0, 0.0
    for k in range(cuda.threadIdx.x, sums.shape[0], THREADS):
        squares += sums[k, SQUARES]
        fc += sums[k, FC]
        ff += sums[k, FF]
        penalty += sums[k, PENALTY]
    squares, fc, ff = block_sum(scratch, squares), block_sum(scratch, fc), block_sum(scratch, ff)
    penalty = block_sum(scratch, penalty)
    if cuda.threadIdx.x == 0:
        point[POINT_SQUARES], point[POINT_S], point[POINT_FF] = squares, fc, ff
        point[POINT_FUN] = squares + penalty if point[POINT_ALPHA] > 0.0 else math.inf


# -- n-vectors --------------------------------------------------------------------------------------------------


@device
def row_weights(link, a, b, w, point, i):
    """h, v/alpha, q/alpha and r of row i."""
    s, half_ff, over_alpha = point[POINT_S], 0.5 * point[POINT_FF], 1.0 / point[POINT_ALPHA]
    u, v, e, _ = terms(link, a[i], point[POINT_SHIFT], point[POINT_K])
    f, v = u * over_alpha, v * over_alpha
    cs = f - b[i] - s
    h, q, r = 2.0 * (v * v + e * over_alpha * cs), v * (f + cs - half_ff), 2.0 * v * cs
    if w.shape[0] > 0:
        squared = np.float64(w[i]) ** 2  # of float32 in float64
        h += squared
        r += squared * a[i]
    return h, v, q, r


@kernel
def weigh_products(link, da, a, b, w, point, out):
    """out = h * da."""
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        h, _, _, _ = row_weights(link, a, b, w, point, i)
        out[i] = h * da[i]


@kernel
def fold_diagonal(link, a, b, w, point, D):
    """D = h / 2."""
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        h, _, _, _ = row_weights(link, a, b, w, point, i)
        D[i] = 0.5 * h


@kernel
def fold_predictions(link, a, point, f, v):
    """f and v/alpha."""
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        u, vi, _, _ = terms(link, a[i], point[POINT_SHIFT], point[POINT_K])
        f[i], v[i] = u / point[POINT_ALPHA], vi / point[POINT_ALPHA]


@kernel
def fold_fill(out, x):
    """out = x."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] = x


@kernel
def add_scaled(out, factor, x):
    """out += factor x."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] += factor * x[i]


@kernel
def take_column(A, j, out):
    """out = A[:, j]."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] = A[i, j]


@kernel
def multiply(out, x):
    """out *= x."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] *= x[i]


@device
def store_extremes(scratch, low, high, total, squares, out):
    """out = the least, the largest and the sums, of those of the threads of a block."""
    low, high = -block_max(scratch, -low), block_max(scratch, high)
    total, squares = block_sum(scratch, total), block_sum(scratch, squares)
    if cuda.threadIdx.x == 0:
        out[0], out[1], out[2], out[3] = low, high, total, squares


@kernel
def fold_extremes(x, sums):
    """The least and the largest entry, the sum and the sum of squares of each block; a NaN shows in the sums."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, x.shape[0])
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        xi = np.float64(x[i])
        low, high, total, squares = min(low, xi), max(high, xi), total + xi, squares + xi * xi
    store_extremes(scratch, low, high, total, squares, sums[cuda.blockIdx.x])


@kernel
def combine_extremes(sums):
    """The same of all blocks, in sums[0]. One block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for k in range(cuda.threadIdx.x, sums.shape[0], THREADS):
        low, high, total, squares = min(low, sums[k, 0]), max(high, sums[k, 1]), total + sums[k, 2], squares + sums[k, 3]
    store_extremes(scratch, low, high, total, squares, sums[0])
