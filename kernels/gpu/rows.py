"""Passes over A on a GPU: warps take rows, which stay in registers, so that a pass for both rows and columns reads A once.

There is no shared memory and no barrier in the loops: lanes exchange numbers by shuffles, and a warp raises its own M. See share.py. A function here
makes the kernel for one share of rows.
"""

import functools

import numpy as np

from ..formulas import rows as formulas
from ..formulas import states
from ..formulas.links import terms
from ..formulas.records import VB, VU, W2A, R, V
from .block import cuda, device, kernel_of
from .ptx import any_of_warp
from .reduction import block_max, block_sum, warp_max
from .scalar import ByLink, scalar
from .share import LARGEST, ROW_WARPS, SUM, first_slot, parts
from .vectors import over_exp, raised, rescale, rescaled, row_weights

rescaled_sums, sum_weights = scalar(states.rescaled_sums), scalar(formulas.sum_weights)
slot_of = device(first_slot)
# Of a thread, for up to so many numbers of a row in a lane: 4, 3 and 2 blocks fit on a multiprocessor.
REGISTERS = ((4, 128), (8, 168), (16, 255))


def compiled(share):
    """How a kernel for that share is compiled."""
    return kernel_of(next(registers for columns, registers in REGISTERS if share.columns <= columns))


def sizes(share):
    """The registers that a lane holds its rows in; its numbers of one row; its slots; its products."""
    return share.held, share.columns, share.rows, share.products


def make_places(share):
    """A function for what a thread has: lane and group of its warp; first column; row of its first product, and whether no lower lane has it."""
    lanes, vector, slots, groups, copies, warp = share.lanes, share.vector, share.rows, share.groups, share.copies, share.warp

    @device
    def places():
        lane = cuda.threadIdx.x % warp
        return lane, lane // lanes, np.int64(lane % lanes * vector), slot_of(lane, slots, lanes) * groups + lane // lanes, lane % copies == 0

    return places


def make_steps(share):
    """A function for the first step of this warp, and the end of those of its block."""
    step, warp = share.step, share.warp

    @device
    def steps(n):
        count = (n + step - 1) // step
        return count * cuda.blockIdx.x // cuda.gridDim.x + cuda.threadIdx.x // warp, count * (cuda.blockIdx.x + 1) // cuda.gridDim.x

    return steps


def make_store(share, joins):
    """A function that stores the sums of a block's warps, joined one after another."""
    put, lanes, width, vector, kinds, warp = parts(share, joins).put, share.lanes, share.width, share.vector, len(joins), share.warp

    @device
    def store(sums, table, first, vectors, kind):
        """vectors[kind + k, first :] = sums[k] for all k; table: kinds x width numbers in shared memory."""
        t = cuda.threadIdx.x
        for each in range(ROW_WARPS):
            cuda.syncthreads()
            if t // warp == each:
                put(sums, table, np.int64(t % warp % lanes * vector), t % warp < lanes, each == 0)
        cuda.syncthreads()
        for k in range(kinds):
            for j in range(t, min(width, vectors.shape[1] - first), cuda.blockDim.x):
                vectors[kind + k, first + j] = table[k * width + j]

    return store


@functools.cache
def products(share):
    """For A x."""
    fetch, take, dot, gather, *_ = parts(share)
    places, steps, number = make_places(share), make_steps(share), share.cell
    held, C, slots, count = sizes(share)
    groups, step, width, is_part = share.groups, share.step, share.width, share.is_part

    def fold_products(A, x, out):
        """out = A x, of any number of columns."""
        rows, xs = cuda.local.array(held, number), cuda.local.array(C, np.float64)
        partial, found = cuda.local.array(slots, np.float64), cuda.local.array(count, np.float64)
        n, d = A.shape
        lane, group, column, own, is_only = places()
        at, stop = steps(n)
        take(xs, x, column, d)
        while at < stop:
            for r in range(slots):
                partial[r] = 0.0
            first = 0
            while first < d:
                if is_part:
                    take(xs, x, first + column, d)
                fetch(rows, A, at * step, group, min(n - 1 - at * step, step), first + column, d)
                dot(partial, rows, xs)
                first += width
            gather(found, partial, lane)
            for k in range(count):
                i = at * step + own + k * groups
                if is_only and i < n:
                    out[i] = found[k]
            at += ROW_WARPS

    return compiled(share)(fold_products)


@functools.cache
def sums(share, kinds):
    """For a = A x, the domain there, and sums of columns while alpha is not known: of no kind, of three, or of four, with weights w."""
    joins = (SUM,) * kinds
    fetch, take, dot, gather, accumulate, scale, *_ = parts(share, joins)
    places, steps, store, number = make_places(share), make_steps(share), make_store(share, joins), share.cell
    held, C, slots, count = sizes(share)
    groups, step, room, is_weighted = share.groups, share.step, max(1, kinds), kinds > W2A
    sums_size, weights_size, table_size = room * C, room * count, room * share.width

    def fold_sums(link, A, x, b, w, a, sums, vectors):
        """a = A x, the domain of each block, and its A^T v^, A^T (v^ u^), A^T (v^ b) and A^T (w^2 a), in one read of A."""
        scratch = cuda.shared.array(ROW_WARPS, np.float64)
        table = cuda.shared.array(table_size, np.float64)
        rows, xs = cuda.local.array(held, number), cuda.local.array(C, np.float64)
        partial, found = cuda.local.array(slots, np.float64), cuda.local.array(count, np.float64)
        each, weights = cuda.local.array(sums_size, np.float64), cuda.local.array(weights_size, np.float64)
        factors, bs, ws = cuda.local.array(room, np.float64), cuda.local.array(count, np.float64), cuda.local.array(count, np.float64)
        n, d = A.shape
        lane, group, column, own, is_only = places()
        at, stop = steps(n)
        take(xs, x, column, d)
        for k in range(sums_size):
            each[k] = 0.0
        shift, alpha, magnitude = link.low, 0.0, 0.0
        scale_of = over_exp(shift)
        while at < stop:
            fetch(rows, A, at * step, group, min(n - 1 - at * step, step), column, d)
            if kinds > 0:
                for k in range(count):  # now, so that these loads are under way with those of A
                    i = min(at * step + own + k * groups, n - 1)
                    bs[k] = np.float64(b[i])
                    ws[k] = np.float64(w[i]) if is_weighted else 0.0
            for r in range(slots):
                partial[r] = 0.0
            dot(partial, rows, xs)
            gather(found, partial, lane)
            top = shift
            for k in range(count):
                top = raised(link, top, found[k])
            if any_of_warp(top > shift):
                top = warp_max(top)
                factor = rescale(shift, top)
                alpha, magnitude = rescaled(factor, alpha), rescaled(factor, magnitude)
                if kinds > 0:
                    factors[V], factors[VU], factors[VB] = rescaled_sums(factor, 1.0, 1.0, 1.0)
                    if is_weighted:
                        factors[W2A] = 1.0
                    scale(each, factors)
                shift, scale_of = top, over_exp(top)
            for k in range(count):
                i, ai = at * step + own + k * groups, found[k]
                u, v, _, size = terms(link, ai, shift, scale_of)
                if is_only and i < n:
                    a[i] = ai
                    alpha += u
                    magnitude += size
                if kinds > 0:
                    if i >= n:
                        u, v, ai = 0.0, 0.0, 0.0
                    weights[k], weights[count + k], weights[2 * count + k] = sum_weights(u, v, bs[k])
                    if is_weighted:
                        weights[3 * count + k] = ws[k] ** 2 * ai
            if kinds > 0:
                accumulate(each, rows, weights)
            at += ROW_WARPS
        top = block_max(scratch, shift)
        factor = rescale(shift, top)
        alpha, magnitude = block_sum(scratch, rescaled(factor, alpha)), block_sum(scratch, rescaled(factor, magnitude))
        if cuda.threadIdx.x == 0:
            block = sums[cuda.blockIdx.x]
            block.shift, block.alpha, block.magnitude, block.slope, block.step = top, alpha, magnitude, 0.0, 0.0
        if kinds > 0:
            factors[V], factors[VU], factors[VB] = rescaled_sums(factor, 1.0, 1.0, 1.0)
            if is_weighted:
                factors[W2A] = 1.0
            scale(each, factors)
            store(each, table, 0, vectors[cuda.blockIdx.x], 0)

    return ByLink(fold_sums, compiled(share))


@functools.cache
def gradient(share):
    """For the sums of columns where the point is known."""
    joins = (SUM,) * 3
    fetch, accumulate = parts(share, joins).fetch, parts(share, joins).accumulate
    places, steps, store, number = make_places(share), make_steps(share), make_store(share, joins), share.cell
    held, C, _, count = sizes(share)
    groups, step, width = share.groups, share.step, share.width
    sums_size, weights_size, table_size = 3 * C, 3 * count, 3 * width

    def fold_gradient(link, A, a, b, w, point, h, vectors):
        """A^T v/alpha, A^T q/alpha and A^T r of each block and `width` columns; and h of each row, unless that is empty."""
        table = cuda.shared.array(table_size, np.float64)
        rows = cuda.local.array(held, number)
        each, weights = cuda.local.array(sums_size, np.float64), cuda.local.array(weights_size, np.float64)
        n, d = A.shape
        _, group, column, own, is_only = places()
        at, stop = steps(n)
        first = cuda.blockIdx.y * width
        for k in range(sums_size):
            each[k] = 0.0
        while at < stop:
            fetch(rows, A, at * step, group, min(n - 1 - at * step, step), first + column, d)
            for k in range(count):
                i = at * step + own + k * groups
                weights[k], weights[count + k], weights[2 * count + k] = 0.0, 0.0, 0.0
                if i < n:
                    row = row_weights(link, a, b, w, point, i)
                    weights[k], weights[count + k], weights[2 * count + k] = row.v, row.q, row.r
                    if is_only and first == 0 and h.shape[0] > 0:
                        h[i] = row.h
            accumulate(each, rows, weights)
            at += ROW_WARPS
        store(each, table, first, vectors[cuda.blockIdx.x], V)

    return ByLink(fold_gradient, compiled(share))


@functools.cache
def curvature(share):
    """For a direction where the point is known."""
    fetch, take, dot, gather, accumulate, *_ = parts(share, (SUM,))
    places, steps, store, number = make_places(share), make_steps(share), make_store(share, (SUM,)), share.cell
    held, C, slots, count = sizes(share)
    groups, step, width = share.groups, share.step, share.width

    def fold_curvature(link, A, p, a, b, w, point, vectors, da):
        """A^T (h * A p) of each block into the third of `vectors`, and A p into `da` unless that is empty, in one read of A."""
        table = cuda.shared.array(width, np.float64)
        rows, xs = cuda.local.array(held, number), cuda.local.array(C, np.float64)
        partial, found = cuda.local.array(slots, np.float64), cuda.local.array(count, np.float64)
        each, weights = cuda.local.array(C, np.float64), cuda.local.array(count, np.float64)
        n, d = A.shape
        lane, group, column, own, is_only = places()
        at, stop = steps(n)
        take(xs, p, column, d)
        for k in range(C):
            each[k] = 0.0
        while at < stop:
            fetch(rows, A, at * step, group, min(n - 1 - at * step, step), column, d)
            for k in range(count):
                i = at * step + own + k * groups
                weights[k] = row_weights(link, a, b, w, point, i).h if i < n else 0.0
            for r in range(slots):
                partial[r] = 0.0
            dot(partial, rows, xs)
            gather(found, partial, lane)
            for k in range(count):
                i = at * step + own + k * groups
                weights[k] *= found[k]
                if is_only and i < n and da.shape[0] > 0:
                    da[i] = found[k]
            accumulate(each, rows, weights)
            at += ROW_WARPS
        store(each, table, 0, vectors[cuda.blockIdx.x], R)

    return ByLink(fold_curvature, compiled(share))


@functools.cache
def transposed(share):
    """For A^T y."""
    fetch, accumulate = parts(share, (SUM,)).fetch, parts(share, (SUM,)).accumulate
    places, steps, store, number = make_places(share), make_steps(share), make_store(share, (SUM,)), share.cell
    held, C, _, count = sizes(share)
    groups, step, width = share.groups, share.step, share.width

    def fold_transposed(A, y, vectors):
        """A^T y of each block and `width` columns, into the third of `vectors`."""
        table = cuda.shared.array(width, np.float64)
        rows = cuda.local.array(held, number)
        each, weights = cuda.local.array(C, np.float64), cuda.local.array(count, np.float64)
        n, d = A.shape
        _, group, column, own, _ = places()
        at, stop = steps(n)
        first = cuda.blockIdx.y * width
        for k in range(C):
            each[k] = 0.0
        while at < stop:
            fetch(rows, A, at * step, group, min(n - 1 - at * step, step), first + column, d)
            for k in range(count):
                i = at * step + own + k * groups
                weights[k] = np.float64(y[i]) if i < n else 0.0
            accumulate(each, rows, weights)
            at += ROW_WARPS
        store(each, table, first, vectors[cuda.blockIdx.x], R)

    return compiled(share)(fold_transposed)


@functools.cache
def columns(share):
    """For the sizes of columns."""
    joins = (SUM, LARGEST)
    fetch, measure = parts(share, joins).fetch, parts(share, joins).measure
    places, steps, store, number = make_places(share), make_steps(share), make_store(share, joins), share.cell
    held, C, _, _ = sizes(share)
    step, width, sums_size, table_size = share.step, share.width, 2 * C, 2 * share.width

    def fold_columns(A, vectors):
        """The sum of squares and the largest |A_ij| of each of `width` columns, of each block; a NaN or inf shows in the first."""
        table = cuda.shared.array(table_size, np.float64)
        rows, each = cuda.local.array(held, number), cuda.local.array(sums_size, np.float64)
        n, d = A.shape
        _, group, column, _, _ = places()
        at, stop = steps(n)
        first = cuda.blockIdx.y * width
        for k in range(sums_size):
            each[k] = 0.0
        while at < stop:
            last = min(n - 1 - at * step, step)
            fetch(rows, A, at * step, group, last, first + column, d)
            measure(each, rows, group, last)
            at += ROW_WARPS
        store(each, table, first, vectors[cuda.blockIdx.x], 0)

    return compiled(share)(fold_columns)
