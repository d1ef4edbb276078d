"""The fold on a GPU: a block of threads folds its rows into a state, and states combine in a fixed order.

Here are the passes over n-vectors; those over A are in rows.py.
"""

import math

import numpy as np

from ..formulas import rows, states
from ..formulas.links import growth, terms
from ..formulas.records import Domain, Residuals
from .block import THREADS, WARPS, block_rows, cuda, device, kernel
from .halves import in_float64
from .reduction import block_max, block_sum
from .scalar import linked_device, linked_kernel, linked_kernel_of, scalar

add_residual, add_penalty, factors = scalar(rows.add_residual), scalar(rows.add_penalty), scalar(rows.factors)
weights, penalised, loss = scalar(rows.weights), scalar(rows.penalised), scalar(rows.loss)
over_exp, rescale, rescaled, kappa = map(scalar, (states.over_exp, states.rescale, states.rescaled, states.kappa))

# -- the domain -------------------------------------------------------------------------------------------------


@linked_device
def raised(link, shift, a):
    """M with one more a."""
    m = growth(link, a)
    return min(m, link.high) if m > shift else shift


@device
def start_domain(link):
    """The domain before any row."""
    return Domain(link.low, 0.0, 0.0, 0.0, 0.0)


@linked_device
def join_domain(link, a, step, sums):
    """The same with one more row a, that moves by `step`."""
    shift, alpha, magnitude, slope, largest = sums
    top = raised(link, shift, a)
    if top > shift:
        factor = rescale(shift, top)
        alpha, magnitude, slope = rescaled(factor, alpha), rescaled(factor, magnitude), rescaled(factor, slope)
        shift = top
    u, v, _, size = terms(link, a, shift, over_exp(shift))
    return Domain(shift, alpha + u, magnitude + size, slope + v * step, max(largest, abs(step)))


@device
def merge_domain(scratch, domain):
    """The domain of a block, merged from those of its threads."""
    top = block_max(scratch, domain.shift)
    factor = rescale(domain.shift, top)
    alpha = block_sum(scratch, rescaled(factor, domain.alpha))
    magnitude = block_sum(scratch, rescaled(factor, domain.magnitude))
    slope = block_sum(scratch, rescaled(factor, domain.slope))
    return Domain(top, alpha, magnitude, slope, block_max(scratch, domain.step))


@device
def store_domain(scratch, domain, sums):
    """The state of a block, from the states of its threads."""
    merged = merge_domain(scratch, domain)
    if cuda.threadIdx.x == 0:
        sums.shift, sums.alpha, sums.magnitude, sums.slope, sums.step = merged


@linked_kernel
def fold_domain(link, a, da, t, out, sums):
    """The domain of out = a + t da; with an empty da, of out, which is then a."""
    scratch = cuda.shared.array(WARPS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, out.shape[0])
    domain = start_domain(link)
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        step = 0.0
        if da.shape[0] > 0:
            step = da[i]
            out[i] = a[i] + t * step
        domain = join_domain(link, out[i], step, domain)
    store_domain(scratch, domain, sums[cuda.blockIdx.x])


@device
def merged_alpha(scratch, sums):
    """M and alpha^ of all blocks, for each thread."""
    shift, k = -math.inf, cuda.threadIdx.x
    while k < sums.shape[0]:  # not a range: Numba counts its steps beforehand, which takes registers
        shift = max(shift, sums[k].shift)
        k += THREADS
    shift, alpha, k = block_max(scratch, shift), 0.0, cuda.threadIdx.x
    while k < sums.shape[0]:
        alpha += rescaled(rescale(sums[k].shift, shift), sums[k].alpha)
        k += THREADS
    return shift, block_sum(scratch, alpha)


@device
def store_domain_of_all(scratch, sums, point):
    """kappa, the slope and the step of a point, of the domains of all blocks; M and alpha^ are there."""
    at, k = point[0], cuda.threadIdx.x
    magnitude, slope, step = 0.0, 0.0, 0.0
    while k < sums.shape[0]:
        factor = rescale(sums[k].shift, at.shift)
        magnitude += rescaled(factor, sums[k].magnitude)
        slope += rescaled(factor, sums[k].slope)
        step = max(step, sums[k].step)
        k += THREADS
    magnitude, slope, step = block_sum(scratch, magnitude), block_sum(scratch, slope), block_max(scratch, step)
    if cuda.threadIdx.x == 0:
        at.kappa = kappa(magnitude, at.alpha) if at.alpha > 0.0 else math.inf
        at.slope, at.step = slope, step


# -- the loss, alpha known --------------------------------------------------------------------------------------


@device
def merge_residual(scratch, total):
    """The sums of all threads."""
    squares, fc, ff = block_sum(scratch, total.squares), block_sum(scratch, total.fc), block_sum(scratch, total.ff)
    return Residuals(squares, fc, ff, block_sum(scratch, total.penalty))


@linked_kernel_of(80)
def fold_residuals(link, a, b, w, point, sums):
    """<c, c>, <f, c>, <f, f> and 1/2 ||w * a||^2 of each block; and M, k and alpha^ of the point.

    Each block adds up the alpha^ of all blocks, which takes less time than a launch.
    """
    scratch = cuda.shared.array(WARPS, np.float64)
    shift, alpha = merged_alpha(scratch, sums)
    k, over_alpha = over_exp(shift), 1.0 / alpha if alpha != 0.0 else math.inf
    if cuda.grid(1) == 0:
        point[0].shift, point[0].k, point[0].alpha = shift, k, alpha
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, a.shape[0])
    total = Residuals(0.0, 0.0, 0.0, 0.0)
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        u, _, _, _ = terms(link, a[i], shift, k)
        total = add_residual(total, u, np.float64(b[i]), over_alpha)
        if w.shape[0] > 0:
            total = add_penalty(total, np.float64(w[i]), a[i])
    total = merge_residual(scratch, total)
    if cuda.threadIdx.x == 0:
        block = sums[cuda.blockIdx.x]
        block.squares, block.fc, block.ff, block.penalty = total.squares, total.fc, total.ff, total.penalty


@device
def merged_residuals(scratch, sums):
    """The sums of all blocks, for each thread."""
    squares, fc, ff, penalty = 0.0, 0.0, 0.0, 0.0
    k = cuda.threadIdx.x
    while k < sums.shape[0]:
        squares += sums[k].squares
        fc += sums[k].fc
        ff += sums[k].ff
        penalty += sums[k].penalty
        k += THREADS
    return merge_residual(scratch, Residuals(squares, fc, ff, penalty))


@device
def store_loss(total, point):
    """L, <c, c>, s and <f, f> of a point; L is +inf outside the domain alpha > 0."""
    if cuda.threadIdx.x == 0:
        at = point[0]
        at.squares, at.s, at.ff = total.squares, total.fc, total.ff
        at.fun = loss(total) if at.alpha > 0.0 else math.inf


@kernel
def merge_residuals(sums, point):
    """The point, of all blocks, where M, k and alpha^ are known. One block."""
    scratch = cuda.shared.array(WARPS, np.float64)
    store_domain_of_all(scratch, sums, point)
    store_loss(merged_residuals(scratch, sums), point)


# -- n-vectors --------------------------------------------------------------------------------------------------


@linked_device
def row_weights(link, a, b, w, point, i):
    """The weights of row i; float32 is widened to float64."""
    at = factors(point[0])
    u, v, e, _ = terms(link, a[i], at.shift, at.k)
    row = weights(u, v, e, np.float64(b[i]), at)
    if w.shape[0] > 0:
        row = penalised(row, np.float64(w[i]), a[i])
    return row


@linked_kernel
def weigh_products(link, da, a, b, w, point, out):
    """out = h * da."""
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        out[i] = row_weights(link, a, b, w, point, i).h * da[i]


@linked_kernel
def fold_diagonal(link, a, b, w, point, D):
    """D = h / 2."""
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        D[i] = 0.5 * row_weights(link, a, b, w, point, i).h


@linked_kernel
def fold_predictions(link, a, point, f, v):
    """f and v/alpha."""
    at = factors(point[0])
    for i in range(cuda.grid(1), a.shape[0], cuda.gridsize(1)):
        u, slope, _, _ = terms(link, a[i], at.shift, at.k)
        f[i], v[i] = u * at.over_alpha, slope * at.over_alpha


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
        out[i] = in_float64(A[i, j])


@kernel
def copy_matrix(A, out):
    """out = A, which may have other strides."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        for j in range(out.shape[1]):
            out[i, j] = A[i, j]


@kernel
def multiply(out, x):
    """out *= x."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] *= x[i]


@device
def store_extremes(scratch, low, high, total, squares, out):
    """out = the least, the largest and the sums, over the threads of a block."""
    low, high = -block_max(scratch, -low), block_max(scratch, high)
    total, squares = block_sum(scratch, total), block_sum(scratch, squares)
    if cuda.threadIdx.x == 0:
        out[0], out[1], out[2], out[3] = low, high, total, squares


@kernel
def fold_extremes(x, sums):
    """The least and the largest entry, the sum and the sum of squares of each block; a NaN shows in the sums."""
    scratch = cuda.shared.array(WARPS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, x.shape[0])
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        xi = np.float64(x[i])
        low, high, total, squares = min(low, xi), max(high, xi), total + xi, squares + xi * xi
    store_extremes(scratch, low, high, total, squares, sums[cuda.blockIdx.x])


@kernel
def combine_extremes(sums):
    """The same of all blocks, in sums[0]. One block."""
    scratch = cuda.shared.array(WARPS, np.float64)
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for k in range(cuda.threadIdx.x, sums.shape[0], THREADS):
        low, high, total, squares = min(low, sums[k, 0]), max(high, sums[k, 1]), total + sums[k, 2], squares + sums[k, 3]
    store_extremes(scratch, low, high, total, squares, sums[0])
