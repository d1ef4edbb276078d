"""Many small problems on a GPU: some lanes of a warp take a problem from its start to its solution, in one launch for all problems.

A row of a problem is a record: its numbers of A, b and w, and those of a = A x, of A p and of u. Records lie in shared memory, those of larger
problems in a workspace. A lane has the same rows all the time, so that only sums over rows cross lanes: each time a lane keeps half of its own.
The d x d work is one lane's, for all problems of a warp at once; all lanes make the tests of newton/iteration.py alike. Lanes of another problem
may be elsewhere, so all that lanes exchange and wait for is within one problem.

A problem that needs anything else leaves: with nearly dependent columns, with a ray, or without a solution. The CPU then solves it.
"""

import functools
import math
import operator
from typing import Any, NamedTuple

import numpy as np
from numba.cuda import types

from ..cpu.passes import LEAST_ENTRY, MOST_ENTRY
from ..formulas import finish, links, rows, states, steps
from ..formulas.records import Point, Residuals
from ..lanes.lanes import LEFT, PIVOT, RUNNING
from ..lanes.lanes import MOST_COLUMNS as MOST_COLUMNS
from ..newton.dependence import ENOUGH
from ..newton.iteration import ACCEPT, BACKTRACK, LONG, MOST_BACKTRACKS, NO_CURVATURE, SATURATION
from ..newton.plane import DIRECTIONS
from ..newton.verdict import EXACT_FIT, GO_ON, MINIMUM
from .block import MOST_BLOCKS, THREADS, WARP, configured, cuda, device, kernel, kernel_of, multiprocessors, unsigned
from .ptx import straight, swapped_within, wait_within
from .scalar import of_link, scalar
from .subproblem import dot, independence_within, newton_step, saturation, step_within

add_residual, add_penalty, loss = scalar(rows.add_residual), scalar(rows.add_penalty), scalar(rows.loss)
factors, weights, penalised, rank_2 = scalar(rows.factors), scalar(rows.weights), scalar(rows.penalised), scalar(finish.rank_2)
over_exp, kappa = scalar(states.over_exp), scalar(states.kappa)
noise, is_exact, leads_to_pole, is_flat = scalar(steps.noise), scalar(steps.is_exact), scalar(steps.leads_to_pole), scalar(steps.is_flat)
is_negligible, may_cross, next_radius = scalar(steps.is_negligible), scalar(steps.may_cross), scalar(steps.next_radius)

BAD_WEIGHT = -3  # a fate besides those of lanes.lanes: a w below 0
MOST_SUMS = 64  # that a lane holds, in registers; there are more sweeps over the rows where there are more sums
FEW_SUMS = 32
GRANTED = 48 * 1024  # bytes of shared memory that a block has without asking
CROWD = 12 * 1024  # of a block, so that a multiprocessor of an A100 has room for about 12 of them
WORKSPACE = 2**28  # bytes of records that do not fit there
WAVES = 16  # blocks for a multiprocessor, where records are in the workspace


class Shape(NamedTuple):
    """What a kernel is compiled for."""

    d: int
    lanes: int  # of a problem
    is_weighted: bool
    is_shared: bool  # whether records lie in shared memory

    @property
    def problems(self) -> int:
        """Of a warp, which is a block."""
        return WARP // self.lanes

    @property
    def stride(self) -> int:
        """Numbers from one record to the next: odd, so that lanes which read their rows at once meet all banks."""
        return (self.d + 4 + self.is_weighted) | 1

    @property
    def sums(self) -> int:
        """The triangle of the Gram matrix, and three vectors; a multiple of eight."""
        return -(-(self.d * (self.d + 1) // 2 + 3 * self.d) // 8) * 8

    def bytes_of(self, n: int) -> int:
        """Of shared memory for a problem with n rows: records, matrices and d-vectors."""
        return 8 * (n * self.stride + self.sums + 2 * self.d**2 + (VECTORS + 2) * self.d + PLACES)


def shape_of(n: int, d: int, is_weighted: bool) -> Shape:
    """As few lanes as leave a multiprocessor enough warps."""
    bytes_of_one = Shape(d, WARP, is_weighted, True).bytes_of(n)
    lanes = next((lanes for lanes in (WARP // 4, WARP // 2) if WARP // lanes * bytes_of_one <= CROWD), WARP)
    return Shape(d, lanes, is_weighted, WARP // lanes * bytes_of_one <= GRANTED)


def sums_of(d: int) -> list[tuple[int, int, int]]:
    """(kind, i, j): an entry of the Gram matrix, kind 0, or of A^T v, A^T q and A^T r, kinds 1 to 3."""
    return [(0, i, j) for i in range(d) for j in range(i, d)] + [(kind, i, i) for kind in (1, 2, 3) for i in range(d)]


# -- what lanes do with rows ------------------------------------------------------------------------------------


def first_place(lane, count, lanes):
    """The first of the `count` sums that a lane ends with after `gather`."""
    first, half = 0, lanes // 2
    while half > 0:
        if count % 2 == 0:
            count //= 2
            if lane & half:
                first += count
        half //= 2
    return first


first_place_of = device(first_place)


def routines(shape, part):
    """What lanes do with a row from place `base` on, as straight code; `part` of the sums are added up."""
    d, count = shape.d, -(-len(part) // 8) * 8

    def take(on, xs, x):
        for j in range(d):
            xs[j] = on.entry(x, j)

    def dot(on, out, rows, base, xs):
        total = on.multiply(rows[base], xs[0])
        for j in range(1, d):
            total = on.fma(rows[on.offset(base, j)], xs[j], total)
        out[0] = total

    def clear(on, sums, zero):
        for k in range(count):
            sums[k] = zero

    def accumulate(on, sums, rows, base, each):
        """sums += the products of a row; each = h, v, q and r of it."""
        row = {j: rows[on.offset(base, j)] for j in sorted({j for _, *pair in part for j in pair})}
        heights = {i: on.multiply(each[0], row[i]) for i in sorted({i for kind, i, _ in part if kind == 0})}
        others = {kind: each[kind] for kind in sorted({kind for kind, *_ in part if kind})}
        for k, (kind, i, j) in enumerate(part):
            sums[k] = on.fma(others[kind] if kind else heights[i], row[j], sums[k])

    def gather(on, table, first, sums, lane, lanes):
        """table[first :] = the sums over the lanes of a problem: a lane keeps half of its own each time, while they are even."""
        found, half = [sums[k] for k in range(count)], shape.lanes // 2
        while half > 0:
            kept = sent = found
            if len(found) % 2 == 0:
                m, is_upper = len(found) // 2, on.has_bit(lane, half)
                kept = [on.pick(is_upper, found[k + m], found[k]) for k in range(m)]
                sent = [on.pick(is_upper, found[k], found[k + m]) for k in range(m)]
            found = [on.add(x, on.swapped_within(lanes, y, half)) for x, y in zip(kept, sent, strict=True)]
            half //= 2
        for k, x in enumerate(found):
            table[on.offset(first, k)] = x

    return tuple(map(straight, (take, dot, clear, accumulate, gather)))


def make_joined(join, lanes_of_one):
    """A number of all lanes of a problem, joined."""

    @device
    def joined(lanes, x):
        half = lanes_of_one // 2
        while half > 0:
            x = join(x, swapped_within(lanes, x, half))
            half //= 2
        return x

    return joined


def make_derive(shape, kind):
    """A function for the sums at a point, in parts of at most MOST_SUMS."""
    terms, stride, step = of_link(links.terms, kind), unsigned(shape.stride), unsigned(shape.lanes)
    b_at, a_at, w_at = unsigned(shape.d), unsigned(shape.d + 1), unsigned(shape.d + 4)
    is_weighted, everything = shape.is_weighted, sums_of(shape.d)
    lanes_of_one, parts = shape.lanes, -(-len(everything) // MOST_SUMS)
    size = -(-len(everything) // (8 * parts)) * 8

    def sweep(start):
        part = everything[start : start + size]
        count = -(-len(part) // 8) * 8
        _, _, clear, accumulate, gather = routines(shape, part)

        @device
        def sweep_part(link, rows, n, lane, lanes, point, table):
            sums, each = cuda.local.array(count, np.float64), cuda.local.array(4, np.float64)
            at = factors(point)
            clear(sums, 0.0)
            i = unsigned(lane)
            while i < n:
                base = i * stride
                a = rows[base + a_at]
                u, v, e, _ = terms(link, a, at.shift, at.k)
                row = weights(u, v, e, rows[base + b_at], at)
                if is_weighted:
                    row = penalised(row, rows[base + w_at], a)
                each[0], each[1], each[2], each[3] = row.h, row.v, row.q, row.r
                accumulate(sums, rows, base, each)
                i += step
            gather(table, start + first_place_of(lane, count, lanes_of_one), sums, lane, lanes)

        if start + size >= len(everything):
            return sweep_part
        rest = sweep(start + size)

        @device
        def sweep_all(link, rows, n, lane, lanes, point, table):
            sweep_part(link, rows, n, lane, lanes, point, table)
            rest(link, rows, n, lane, lanes, point, table)

        return sweep_all

    return sweep(0)


def make_evaluate(shape, kind):
    """A function for the point at a + t da: of da = A p where t = 1."""
    terms, growth = of_link(links.terms, kind), of_link(links.growth, kind)
    take, dot, *_ = routines(shape, ())
    add, most = make_joined(operator.add, shape.lanes), make_joined(max, shape.lanes)
    d, stride, step, is_weighted = shape.d, unsigned(shape.stride), unsigned(shape.lanes), shape.is_weighted
    b_at, a_at, da_at, u_at, w_at = (unsigned(d + k) for k in range(5))

    @device
    def evaluate(link, rows, n, lane, lanes, p, t):
        ps, product = cuda.local.array(d, np.float64), cuda.local.array(1, np.float64)
        top, largest, is_full = link.low, 0.0, t == 1.0
        take(ps, p)
        i = unsigned(lane)
        while i < n:
            base = i * stride
            if is_full:
                dot(product, rows, base, ps)
                rows[base + da_at] = product[0]
            da = rows[base + da_at]
            top, largest = max(top, growth(link, rows[base + a_at] + t * da)), max(largest, abs(da))
            i += step
        shift = min(most(lanes, top), link.high)
        k = over_exp(shift)
        alpha, magnitude, slope = 0.0, 0.0, 0.0
        i = unsigned(lane)
        while i < n:
            base = i * stride
            da = rows[base + da_at]
            u, v, _, size = terms(link, rows[base + a_at] + t * da, shift, k)
            rows[base + u_at] = u
            alpha, magnitude, slope = alpha + u, magnitude + size, slope + v * da
            i += step
        alpha, magnitude, slope = add(lanes, alpha), add(lanes, magnitude), add(lanes, slope)
        over_alpha = 1.0 / alpha if alpha != 0.0 else math.inf
        total = Residuals(0.0, 0.0, 0.0, 0.0)
        i = unsigned(lane)
        while i < n:
            base = i * stride
            total = add_residual(total, rows[base + u_at], rows[base + b_at], over_alpha)
            if is_weighted:
                total = add_penalty(total, rows[base + w_at], rows[base + a_at] + t * rows[base + da_at])
            i += step
        penalty = add(lanes, total.penalty) if is_weighted else 0.0
        total = Residuals(add(lanes, total.squares), add(lanes, total.fc), add(lanes, total.ff), penalty)
        of_alpha = kappa(magnitude, alpha) if alpha > 0.0 else math.inf
        fun = loss(total) if alpha > 0.0 else math.inf
        return Point(shift, k, alpha, of_alpha, slope, most(lanes, largest), total.squares, total.fc, total.ff, fun)

    return evaluate


def make_unpack(shape):
    """A function that writes the records of a problem, with a = 0, and the scales of its columns; returns ||b||, and whether a w is below 0."""
    add, most = make_joined(operator.add, shape.lanes), make_joined(max, shape.lanes)
    d, stride, step, is_weighted = shape.d, unsigned(shape.stride), unsigned(shape.lanes), shape.is_weighted
    b_at, a_at, w_at = unsigned(d), unsigned(d + 1), unsigned(d + 4)

    @device
    def unpack(A, b, w, rows, n, lane, lanes, scale):
        squares, is_bad = 0.0, 0.0
        i = unsigned(lane)
        while i < n:
            base = i * stride
            for j in range(d):
                rows[base + unsigned(j)] = np.float64(A[i, j])
            bi = np.float64(b[i])
            rows[base + b_at], rows[base + a_at] = bi, 0.0
            squares += bi * bi
            if is_weighted:
                wi = np.float64(w[min(i, unsigned(w.shape[0] - 1))])  # one number serves all rows
                rows[base + w_at] = wi
                is_bad = max(is_bad, 1.0 if wi < 0.0 else 0.0)
            i += step
        for j in range(d):
            total, i = 0.0, unsigned(lane)
            while i < n:
                x = rows[i * stride + unsigned(j)]
                total += x * x
                i += step
            total = add(lanes, total)
            if lane == 0:
                scale[j] = math.sqrt(total / n)
        return math.sqrt(add(lanes, squares)), most(lanes, is_bad) > 0.0

    return unpack


# -- what one lane does -----------------------------------------------------------------------------------------

# What it leaves for the others.
DECREASE, LENGTH, SLOPE, ALPHA_SLOPE, IS_NEWTON, LEAVES, KNOWN, PLACES = range(8)
VECTORS = 6  # of d numbers, that it writes
UNKNOWN, INDEPENDENT, DEPENDENT = 0.0, 1.0, 2.0  # what is KNOWN of the columns of A: it is looked at where a plain step will not do


def make_propose(shape):
    """A function for the best step within the radius, p in scaled columns and `step` in the caller's: what iteration.derive and propose compute.

    As in lanes.lanes, a full step of a Hessian that is clearly positive needs no more than a Cholesky factor.
    """
    d, triangle = shape.d, shape.d * (shape.d + 1) // 2

    @device
    def propose(A, table, scale, H, U, vectors, radius, is_refused, told):
        g, gram, p, step, z, q = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4], vectors[5]
        v, r = table[triangle : triangle + d], table[triangle + 2 * d : triangle + 3 * d]
        is_plain, decrease, length = False, 0.0, 0.0
        if not is_refused:
            diagonal = 0
            for j in range(d):
                g[j] = r[j] / scale[j]
                gram[j] = table[diagonal] / scale[j] / scale[j]
                diagonal += d - j
            is_plain, decrease, length = newton_step(H, gram, g, PIVOT, U, p)
            is_plain = is_plain and length <= radius
        told[LEAVES] = 0.0
        if not is_plain and told[KNOWN] == UNKNOWN:
            told[KNOWN] = INDEPENDENT if independence_within(A, d, scale, U, q, z) >= ENOUGH else DEPENDENT
        if not is_plain and told[KNOWN] == DEPENDENT:
            told[LEAVES] = 1.0
        elif not is_refused:
            is_newton = is_plain
            if not is_plain:
                decrease, is_newton, min_eig, _ = step_within(g, H, radius, p, z, U, q, q, H)
                largest = 0.0
                for i in range(d):
                    for j in range(d):
                        largest = max(largest, abs(H[i, j]))
                length = math.sqrt(dot(p, p, 0))
                is_clear = abs(min_eig) > NO_CURVATURE * largest and saturation(H, v, table[triangle + d : triangle + 2 * d], scale) > SATURATION
                told[LEAVES] = 0.0 if is_clear and (min_eig > 0.0 or not is_newton) else 1.0
            slope, alpha_slope = 0.0, 0.0
            for j in range(d):
                step[j] = p[j] / scale[j]
                slope += g[j] * p[j]
                alpha_slope += v[j] * step[j]
            told[IS_NEWTON] = 1.0 if is_newton else 0.0
            told[DECREASE], told[LENGTH], told[SLOPE], told[ALPHA_SLOPE] = decrease, length, slope, alpha_slope

    return propose


# -- the kernel -------------------------------------------------------------------------------------------------


@functools.cache
def solve(shape, kind):
    """The kernel for problems of that shape and links of that type."""
    d, lanes_of_one, problems, stride, sums = shape.d, shape.lanes, shape.problems, shape.stride, shape.sums
    is_shared = shape.is_shared
    unpack, evaluate, derive, propose = make_unpack(shape), make_evaluate(shape, kind), make_derive(shape, kind), make_propose(shape)
    full, a_at, da_at = 2**lanes_of_one - 1, unsigned(d + 1), unsigned(d + 2)
    row_step, row_stride = unsigned(lanes_of_one), unsigned(stride)

    def solve_batch(link, A, b, w, x0, tol, max_iter, workspace, x, fun, counts):
        """x <- the solutions, fun <- the losses there, counts <- fate, steps and evaluations, of all problems."""
        records = cuda.shared.array(0, types.float64) if is_shared else workspace
        tables = cuda.shared.array((problems, sums), np.float64)  # on lines of their own, by which the simulator knows them
        scales = cuda.shared.array((problems, d), np.float64)
        hessians = cuda.shared.array((problems, d, d), np.float64)
        triangles = cuda.shared.array((problems, d, d), np.float64)
        rooms = cuda.shared.array((problems, VECTORS, d), np.float64)
        points = cuda.shared.array((problems, d), np.float64)
        reports = cuda.shared.array((problems, PLACES), np.float64)
        group, lane = cuda.threadIdx.x // lanes_of_one, cuda.threadIdx.x % lanes_of_one
        lanes = full << (group * lanes_of_one)
        n = unsigned(A.shape[1])
        size = A.shape[1] * stride
        at = group if is_shared else cuda.blockIdx.x * problems + group
        rows = records[at * size : (at + 1) * size]
        table, scale, H, U = tables[group], scales[group], hessians[group], triangles[group]
        vectors, point, told = rooms[group], points[group], reports[group]
        step = vectors[3]
        problem = cuda.blockIdx.x * problems + group
        while problem < A.shape[0]:
            wait_within(lanes)
            for j in range(lane, d, lanes_of_one):
                point[j] = np.float64(x0[min(problem, x0.shape[0] - 1), j])
                step[j] = point[j]
            if lane == 0:
                told[KNOWN], told[IS_NEWTON] = UNKNOWN, 0.0
            norm_b, is_bad = unpack(A[problem], b[problem], w[min(problem, w.shape[0] - 1)], rows, n, lane, lanes, scale)
            wait_within(lanes)
            fate = BAD_WEIGHT if is_bad else RUNNING
            for j in range(d):
                if not (LEAST_ENTRY < scale[j] < MOST_ENTRY) and not is_bad:
                    fate = LEFT
            here = Point(0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, math.inf)
            radius, t, error, taken, evaluated, refused = 1.0, 1.0, 0.0, 0, 0, 0
            decrease, slope, alpha_slope, is_start, converged = 0.0, 0.0, 0.0, True, False
            while fate == RUNNING:
                there = evaluate(link, rows, n, lane, lanes, step, t)
                evaluated += 1
                is_taken = True
                if not is_start:
                    if t == 1.0:
                        error = noise(here)
                        converged = told[IS_NEWTON] > 0.0 and is_negligible(decrease, there.step, tol, here)
                        if there.step >= LONG and is_flat(decrease, here, norm_b):
                            fate = LEFT
                    ratio = (here.fun - there.fun + error) / (t * t * (decrease + slope) - t * slope + error)
                    if t == 1.0:
                        radius = next_radius(radius, ratio, told[LENGTH])
                    is_taken = ratio >= ACCEPT and there.fun < math.inf and not may_cross(t * alpha_slope, t * there.slope / there.alpha)
                    if t == 1.0 and not converged and abs(here.fun - there.fun) <= error:
                        fate = LEFT
                    if fate == LEFT:
                        is_taken = False
                if is_taken:
                    i = unsigned(lane)
                    while i < n:
                        rows[i * row_stride + a_at] += t * rows[i * row_stride + da_at]
                        i += row_step
                    if not is_start:
                        taken += 1
                        for j in range(lane, d, lanes_of_one):
                            point[j] += t * step[j]
                    here, is_start, t, refused = there, False, 1.0, 0
                    if not (here.alpha > 0.0 and here.fun < math.inf) or leads_to_pole(here):
                        fate = LEFT
                    elif is_exact(here):
                        fate = EXACT_FIT
                    elif converged:
                        fate = MINIMUM
                    elif taken == max_iter:
                        fate = GO_ON
                    else:
                        wait_within(lanes)
                        derive(link, rows, n, lane, lanes, here, table)
                        wait_within(lanes)
                        for place in range(lane, d * d, lanes_of_one):
                            i, j = min(place // d, place % d), max(place // d, place % d)
                            v, q = d * (d + 1) // 2, d * (d + 3) // 2
                            subtracted = 2.0 * rank_2(table[v + i], table[q + i], table[v + j], table[q + j])
                            H[place // d, place % d] = (table[i * d - i * (i - 1) // 2 + j - i] - subtracted) / scale[i] / scale[j]
                elif fate == RUNNING:
                    t *= BACKTRACK
                    refused += 1
                    if converged:
                        fate = MINIMUM
                    elif d >= DIRECTIONS or refused == MOST_BACKTRACKS:
                        fate = LEFT
                if fate == RUNNING and (is_taken or told[KNOWN] == UNKNOWN):
                    wait_within(lanes)
                    if lane == 0:
                        propose(A[problem], table, scale, H, U, vectors, radius, not is_taken, told)
                    wait_within(lanes)
                    decrease, slope, alpha_slope = told[DECREASE], told[SLOPE], told[ALPHA_SLOPE]
                    if told[LEAVES] > 0.0:
                        fate = LEFT
            wait_within(lanes)
            for j in range(lane, d, lanes_of_one):
                x[problem, j] = point[j]
            if lane == 0:
                fun[problem] = here.fun
                counts[problem, 0], counts[problem, 1], counts[problem, 2] = fate, taken, evaluated
            problem += cuda.gridDim.x * problems

    return kernel_of(168 if sums <= FEW_SUMS else 255)(solve_batch)


class Solved(NamedTuple):
    """How problems ended, on the GPU."""

    x: Any  # k x d
    fun: Any  # k
    counts: Any  # k x 3: the fate, steps and evaluations


def solve_all(link, A, b, w, x0, tol, max_iter, stream, shape=None):
    """Solve all problems, A k x n x d, b k x n; w k x n or 1 x 1, or empty; x0 k x d or 1 x d. One launch."""
    k, n, d = A.shape
    shape = shape or shape_of(n, d, w.size > 0)
    blocks, size = -(-k // shape.problems), 8 * shape.problems * n * shape.stride
    if not shape.is_shared:
        blocks = min(blocks, WAVES * multiprocessors(), max(1, WORKSPACE // size))
    workspace = cuda.device_array(0 if shape.is_shared else blocks * size // 8, np.float64, stream=stream)
    rooms = ((k, d), np.float64), (k, np.float64), ((k, 3), np.int32)
    out = Solved(*(cuda.device_array(room, dtype, stream=stream) for room, dtype in rooms))
    kind: Any = type(link)
    launch = configured(solve(shape, kind), blocks, stream, WARP, size if shape.is_shared else 0)
    launch(link, A, b, w, x0, tol, max_iter, workspace, *out)
    return out


@kernel
def take_matrices(A, which, out):
    """out[j] = A[which[j]]."""
    n, d = out.shape[1], out.shape[2]
    for place in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        j, i = place // (n * d), place // d % n
        out[j, i, place % d] = A[which[j], i, place % d]


@kernel
def take_vectors(A, which, out):
    """The same of vectors."""
    n = out.shape[1]
    for place in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        out[place // n, place % n] = A[which[place // n], place % n]


def take(A, which, stream):
    """Those matrices or vectors, in memory."""
    out = cuda.device_array((len(which), *A.shape[1:]), A.dtype, stream=stream)
    if out.size:
        some = take_matrices if len(A.shape) == 3 else take_vectors
        configured(some, min(MOST_BLOCKS, -(-out.size // THREADS)), stream)(A, cuda.to_device(which, stream=stream), out)
    found = out.copy_to_host(stream=stream)
    if stream:
        stream.synchronize()
    return found
