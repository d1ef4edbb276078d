"""What a step of Newton's method launches: three kernels from the step to the point there, and three from the point to its derivatives.

Those that are in no other pass are here.
"""

import functools

import numpy as np

from ..formulas.links import terms
from ..formulas.records import Domain
from .block import EDGE, MOST_BLOCKS, THREADS, cuda, kernel, unsigned
from .passes import complete_point, fold_derivatives, launch, launch_rows
from .ptx import any_of_warp
from .reduction import block_sum, warp_max
from .rows import compiled, make_places, make_steps, sizes
from .scalar import ByLink
from .share import ROW_WARPS, parts, share_of
from .vectors import over_exp, raised, rescale, rescaled, store_domain

# -- the point at a + A p ---------------------------------------------------------------------------------------


@functools.cache
def ahead(share):
    """For A p and the domain at a + A p; the loops are those of `rows.products` and `rows.sums`."""
    fetch, take, dot, gather, *_ = parts(share)
    places, steps, number = make_places(share), make_steps(share), share.cell
    held, C, slots, count = sizes(share)
    groups, step, width, is_part = share.groups, share.step, share.width, share.is_part

    def fold_ahead(link, A, p, a, da, out, sums):
        """da = A p, out = a + da, and the domain of each block."""
        scratch = cuda.shared.array(ROW_WARPS, np.float64)
        rows, ps = cuda.local.array(held, number), cuda.local.array(C, np.float64)
        partial, found = cuda.local.array(slots, np.float64), cuda.local.array(count, np.float64)
        n, d = A.shape
        lane, group, column, own, is_only = places()
        at, stop = steps(n)
        shift, alpha, magnitude, slope, largest = link.low, 0.0, 0.0, 0.0, 0.0
        scale_of = over_exp(shift)
        take(ps, p, column, d)
        while at < stop:
            for r in range(slots):
                partial[r] = 0.0
            first = 0
            while first < (d if is_part else 1):
                if is_part:
                    take(ps, p, first + column, d)
                fetch(rows, A, at * step, group, min(n - 1 - at * step, step), first + column, d)
                dot(partial, rows, ps)
                first += width
            gather(found, partial, lane)
            top, base = shift, unsigned(at * step + own)
            for k in range(count):
                i = base + unsigned(k * groups)
                if i < unsigned(n):
                    top = raised(link, top, a[i] + found[k])
            if any_of_warp(top > shift):
                top = warp_max(top)
                factor = rescale(shift, top)
                alpha, magnitude, slope = rescaled(factor, alpha), rescaled(factor, magnitude), rescaled(factor, slope)
                shift, scale_of = top, over_exp(top)
            for k in range(count):
                i = base + unsigned(k * groups)
                if is_only and i < unsigned(n):
                    there = a[i] + found[k]  # read again, from the cache: it would take registers
                    u, v, _, size = terms(link, there, shift, scale_of)
                    da[i], out[i] = found[k], there
                    alpha += u
                    magnitude += size
                    slope += v * found[k]
                    largest = max(largest, abs(found[k]))
            at += ROW_WARPS
        store_domain(scratch, Domain(shift, alpha, magnitude, slope, largest), sums[cuda.blockIdx.x])

    return ByLink(fold_ahead, compiled(share))


def look_ahead(A, p, a, da, b, w, out, work):
    """da = A p, out = a + da, and the point there."""
    launch_rows(ahead(share_of(A)), work, work.link, A, p, a, da, out, work.sums)
    complete_point(b, w, work._replace(a=out))


# -- the derivatives at a point ---------------------------------------------------------------------------------


@kernel
def merge_derivatives(gram, vectors, first_row, hess, out):
    """hess = the sum of the parts of `gram`; out[kind] = the sums over blocks of vectors[:, first_row + kind], unless there are none."""
    scratch = cuda.shared.array(THREADS, np.float64)
    t, d = unsigned(cuda.threadIdx.x), unsigned(hess.shape[0])
    place = unsigned(cuda.blockIdx.x)
    while place < unsigned(3) * d and vectors.shape[0] > 0:  # V, Q and R
        total, k = 0.0, t
        while k < unsigned(vectors.shape[0]):
            total += vectors[k, unsigned(first_row) + place // d, place % d]
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


def merge_grams(vectors, first_row, hess, work):
    """What `merge_derivatives` does."""
    launch(merge_derivatives, min(MOST_BLOCKS, -(-hess.size // EDGE)), work, work.gram, vectors, first_row, hess, work.combined)


def derivatives(A, a, b, w, hess, work):
    """A^T v/alpha, A^T q/alpha and the gradient at the workspace's point in `combined`, and A^T diag(h) A in `hess`."""
    vectors, first_row = fold_derivatives(A, a, b, w, work.point, work)
    merge_grams(vectors, first_row, hess, work)
