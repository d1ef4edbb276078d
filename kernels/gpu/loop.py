"""What a step of Newton's method launches: three kernels from the step to the point there, and three from the point to its derivatives.

A block that needs the blocks' states merges them itself: a launch takes the host longer than that takes the GPU.
"""

import math

import numpy as np

from ..cuda import by_columns, launch, spread, weigh_gram
from ..formulas.links import terms
from ..formulas.records import STATE, Residuals
from .block import EDGE, MOST_BLOCKS, THREADS, block_max, block_rows, block_sum, cuda, device, kernel, unsigned
from .plane import fold_combination
from .rows import fold_gradient, row_product, share_rows
from .scalar import linked_kernel
from .vectors import (
    add_penalty,
    add_residual,
    fold_domain,
    join_domain,
    kappa,
    loss,
    merge_residual,
    over_exp,
    rescale,
    rescaled,
    start_domain,
    store_domain,
)

MOST_READERS = 256  # blocks that read the states of all: enough for the bandwidth of memory, and few beside the rows

# -- the point at a + A p ---------------------------------------------------------------------------------------


@linked_kernel
def fold_ahead(link, A, p, a, da, out, sums):
    """da = A p, out = a + da, and the domain there; with an empty `a`, out = A p, and no da."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop, lanes, rows, row = share_rows(A)
    domain = start_domain(link)
    for i in range(start, stop, rows):
        step = row_product(A, p, i + row, stop, lanes, scratch)
        if cuda.threadIdx.x % lanes == 0 and i + row < stop:
            there = step
            if a.shape[0] > 0:
                there += a[i + row]
                da[i + row] = step
            out[i + row] = there
            domain = join_domain(link, there, step, domain)
    store_domain(scratch, domain, sums[cuda.blockIdx.x])


@device
def merged_shift(scratch, sums):
    """M and alpha^ of all blocks, for every thread."""
    blocks = unsigned(sums.shape[0])
    shift, alpha, k = -math.inf, 0.0, unsigned(cuda.threadIdx.x)
    while k < blocks:  # not a range: Numba counts its steps beforehand, which takes registers
        shift = max(shift, sums[k].shift)
        k += unsigned(THREADS)
    shift, k = block_max(scratch, shift), unsigned(cuda.threadIdx.x)
    while k < blocks:
        alpha += rescaled(rescale(sums[k].shift, shift), sums[k].alpha)
        k += unsigned(THREADS)
    return shift, block_sum(scratch, alpha)


@linked_kernel
def fold_losses(link, a, b, w, sums, losses):
    """<c, c>, <f, c>, <f, f> and 1/2 ||w * a||^2 of each block, in `losses`, at the alpha of all `sums`."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, a.shape[0])
    shift, alpha = merged_shift(scratch, sums)
    k, over_alpha = over_exp(shift), 1.0 / alpha if alpha != 0.0 else math.nan
    total = Residuals(0.0, 0.0, 0.0, 0.0)
    i, end = unsigned(start + cuda.threadIdx.x), unsigned(stop)
    while i < end:
        u, _, _, _ = terms(link, a[i], shift, k)
        total = add_residual(total, u, np.float64(b[i]), over_alpha)
        if w.shape[0] > 0:
            total = add_penalty(total, np.float64(w[i]), a[i])
        i += unsigned(THREADS)
    total = merge_residual(scratch, total)
    if cuda.threadIdx.x == 0:
        block = losses[cuda.blockIdx.x]
        block.squares, block.fc, block.ff, block.penalty = total.squares, total.fc, total.ff, total.penalty


@kernel
def finish_point(sums, losses, point):
    """The point of all blocks; L is +inf outside the domain alpha > 0. One block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    t = cuda.threadIdx.x
    shift, alpha = merged_shift(scratch, sums)
    magnitude, slope, step = 0.0, 0.0, 0.0
    for k in range(t, sums.shape[0], THREADS):
        factor = rescale(sums[k].shift, shift)
        magnitude += rescaled(factor, sums[k].magnitude)
        slope += rescaled(factor, sums[k].slope)
        step = max(step, sums[k].step)
    magnitude, slope, step = block_sum(scratch, magnitude), block_sum(scratch, slope), block_max(scratch, step)
    squares, fc, ff, penalty = 0.0, 0.0, 0.0, 0.0
    for k in range(t, losses.shape[0], THREADS):
        squares += losses[k].squares
        fc += losses[k].fc
        ff += losses[k].ff
        penalty += losses[k].penalty
    total = merge_residual(scratch, Residuals(squares, fc, ff, penalty))
    if t == 0:
        at = point[0]
        at.shift, at.k, at.alpha, at.kappa = shift, over_exp(shift), alpha, kappa(magnitude, alpha) if alpha > 0.0 else math.inf
        at.slope, at.step = slope, step
        at.squares, at.s, at.ff = total.squares, total.fc, total.ff
        at.fun = loss(total) if alpha > 0.0 else math.inf


def complete_point(a, b, w, losses, work):
    """The point at a, of the blocks' domains."""
    launch(fold_losses, losses.shape[0], work, work.link, a, b, w, work.sums, losses)
    launch(finish_point, 1, work, work.sums, losses, work.point)


def look_ahead(A, p, a, da, b, w, out, losses, work):
    """da = A p, out = a + da, and the point there; with an empty `a`, out = A p."""
    launch(fold_ahead, spread(work), work, work.link, A, p, a, da, out, work.sums)
    complete_point(out, b, w, losses, work)


def evaluate(a, da, t, b, w, out, losses, work):
    """The point at out = a + t da; with an empty da, at out, which is then a."""
    launch(fold_domain, spread(work), work, work.link, a, da, t, out, work.sums)
    complete_point(out, b, w, losses, work)


def evaluate_plane(plane, y, b, w, out, losses, work):
    """The point at out = here + y0 z0 + y1 z1 + y2 z2, see newton/plane.py."""
    launch(fold_combination, spread(work), work, work.link, plane, tuple(map(float, y)), out, work.sums)
    complete_point(out, b, w, losses, work)


# -- the derivatives at a point ---------------------------------------------------------------------------------


@kernel
def merge_derivatives(gram, vectors, hess, out):
    """hess = the sum of the parts of `gram`; out[k] = the sums over blocks of `vectors`, unless that is empty."""
    scratch = cuda.shared.array(THREADS, np.float64)
    t, d = unsigned(cuda.threadIdx.x), unsigned(hess.shape[0])
    place = unsigned(cuda.blockIdx.x)
    while place < unsigned(3) * d and vectors.shape[0] > 0:  # V, Q and R
        total, k = 0.0, t
        while k < unsigned(vectors.shape[0]):
            total += vectors[k, place // d, place % d]
            k += unsigned(THREADS)
        total = block_sum(scratch, total)
        if t == 0:
            out[place // d, place % d] = total
        place += unsigned(cuda.gridDim.x)
    column, group = t % unsigned(EDGE), t // unsigned(EDGE)  # EDGE threads for each entry
    first = unsigned(cuda.blockIdx.x * EDGE)
    while first < d * d:
        place = min(first + column, d * d - unsigned(1))
        i, j = max(place // d, place % d), min(place // d, place % d)  # of the triangle that is summed
        total, k = 0.0, group
        while k < unsigned(gram.shape[0]):
            total += gram[k, i, j]
            k += unsigned(EDGE)
        cuda.syncthreads()
        scratch[t] = total
        cuda.syncthreads()
        if group == 0 and first + column < d * d:
            other = unsigned(EDGE) + column
            while other < unsigned(THREADS):
                total += scratch[other]
                other += unsigned(EDGE)
            hess[place // d, place % d] = total
        first += unsigned(cuda.gridDim.x * EDGE)


def merge_grams(vectors, hess, work):
    """What `merge_derivatives` does."""
    launch(merge_derivatives, min(MOST_BLOCKS, -(-hess.size // EDGE)), work, work.gram, vectors, hess, work.combined)


def derivatives(A, a, b, w, hess, work):
    """A^T v/alpha, A^T q/alpha and the gradient at the workspace's point in `combined`, and A^T diag(h) A in `hess`."""
    launch(fold_gradient, by_columns(work), work, work.link, A, a, b, w, work.point, work.h, work.vectors)
    weigh_gram(A, work.h, work)
    merge_grams(work.vectors, hess, work)


def alloc_losses(work):
    """Room for the sums of the blocks that read all states."""
    return cuda.device_array(min(MOST_READERS, spread(work)), STATE, stream=work.stream)
