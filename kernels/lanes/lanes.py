"""Eight small problems of one shape at once, one in each lane of a register.

With few columns a register of columns is half empty, the triangle of the Hessian is not even half a tile, and the subproblem is
latency: so for many problems the lanes are better spent on eight of them. Only the common path is taken here: full Newton
steps with a clearly positive definite Hessian, within the trust radius, by the tests of `newton`. A problem that needs
anything else leaves, and is solved alone by `newton_small`. No lane reads another, so no answer depends on its neighbours.

Arrays are rows of registers: entry (i, j) of lane k is at [i, 8 j + k].
"""

from typing import NamedTuple

import numpy as np

from ..compiling.jit import serial
from ..cpu.passes import LEAST_ENTRY, MOST_ENTRY
from ..cpu.vectors import LARGEST
from ..formulas.finish import rank_2
from ..formulas.links import growth, terms
from ..formulas.records import Point, Residuals, Weights
from ..formulas.rows import add_penalty, add_residual, factors, loss, penalised, weights
from ..formulas.states import kappa, over_exp
from ..formulas.steps import is_exact, is_flat, is_negligible, leads_to_pole, may_cross, next_radius, noise
from ..layouts.panel import padded
from ..newton.iteration import ACCEPT, LONG
from ..newton.verdict import EXACT_FIT, GO_ON, MINIMUM
from ..registers.simd import LANES, absolute, fma, load_first, maximum, register, splat, sqrt, store, transpose, zeros

AT_A_TIME = 4  # rows, so that a sum is loaded and stored once for four of them
MOST_COLUMNS = 16  # beyond, the columns fill registers of their own
MOST_ENTRIES = 2**14  # of A: eight of them are 1 MB, the cache near a core
PIVOT = 1e-8  # of the Gram matrix's diagonal: a smaller pivot is left to `newton_small`

# The fates of a lane, besides the verdicts of newton/verdict.py.
RUNNING, LEFT = -1, -2


class Step(NamedTuple):
    """The results of a step that its tests need, a register each."""

    radius: np.ndarray
    decrease: np.ndarray
    length: np.ndarray
    least_pivot: np.ndarray
    alpha_slope: np.ndarray  # d log(alpha) / dt along the step
    norm_b: np.ndarray
    fun: np.ndarray  # L at x


class Lanes(NamedTuple):
    """Eight problems and the arrays their solve writes; counts are in registers, and n is the number of rows rounded up to eights."""

    A: np.ndarray  # n x d
    b: np.ndarray  # n x 1
    w: np.ndarray  # n x 1, or nothing
    a: np.ndarray  # n x 1: A x, then A (x + p); a lane that refuses its step has ended, so nothing is restored
    da: np.ndarray  # n x 1: A p
    terms: np.ndarray  # n x 3: u, u', u'' there
    point: Point  # at x, a register for each number
    ahead: Point  # at x + p
    x: np.ndarray  # 1 x padded d
    scale: np.ndarray  # 1 x d: the RMS of columns
    p: np.ndarray  # 1 x d: the step
    vectors: np.ndarray  # 3 x d: A^T v/alpha, A^T q/alpha, the gradient
    U: np.ndarray  # d x d: the Gram matrix, then its factor
    numbers: Step


@serial
def alloc_point():
    """Room for the points of eight lanes."""
    room = np.zeros((10, LANES))
    return Point(room[:1], room[1:2], room[2:3], room[3:4], room[4:5], room[5:6], room[6:7], room[7:8], room[8:9], room[9:])


@serial
def point_of(points, k):
    """The point of lane k."""
    return Point(
        points.shift[0, k],
        points.k[0, k],
        points.alpha[0, k],
        points.kappa[0, k],
        points.slope[0, k],
        points.step[0, k],
        points.squares[0, k],
        points.s[0, k],
        points.ff[0, k],
        points.fun[0, k],
    )


@serial
def alloc_lanes(n, d, weighted):
    """Room for eight n x d problems."""
    rows, wide = padded(n), LANES * d
    step = np.zeros((7, LANES))
    return Lanes(
        np.zeros((rows, wide)),
        np.zeros((rows, LANES)),
        np.zeros((rows if weighted else 0, LANES)),
        np.zeros((rows, LANES)),
        np.zeros((rows, LANES)),
        np.zeros((rows, 3 * LANES)),
        alloc_point(),
        alloc_point(),
        np.zeros((1, LANES * padded(d))),
        np.zeros((1, wide)),
        np.zeros((1, wide)),
        np.zeros((3, wide)),
        np.zeros((d, wide)),
        Step(step[:1], step[1:2], step[2:3], step[3:4], step[4:5], step[5:6], step[6:]),
    )


@serial
def interleave(values, places, count, out):
    """`count` values of each of eight problems, from `places` on, into the first registers of `out`: a problem to a lane."""
    registers = out.reshape(out.size)
    for m in range(0, count, LANES):
        rest = count - m
        r0, r1, r2, r3, r4, r5, r6, r7 = transpose(
            (
                load_first(values, 0, places[0] + m, rest),
                load_first(values, 0, places[1] + m, rest),
                load_first(values, 0, places[2] + m, rest),
                load_first(values, 0, places[3] + m, rest),
                load_first(values, 0, places[4] + m, rest),
                load_first(values, 0, places[5] + m, rest),
                load_first(values, 0, places[6] + m, rest),
                load_first(values, 0, places[7] + m, rest),
            )
        )
        store(registers, 0, LANES * m, r0)
        store(registers, 0, LANES * (m + 1), r1)
        store(registers, 0, LANES * (m + 2), r2)
        store(registers, 0, LANES * (m + 3), r3)
        store(registers, 0, LANES * (m + 4), r4)
        store(registers, 0, LANES * (m + 5), r5)
        store(registers, 0, LANES * (m + 6), r6)
        store(registers, 0, LANES * (m + 7), r7)


@serial
def start(lanes, n):
    """Scales of columns and norms of b; rows of another shape's problems are cleared."""
    lanes.A[n:] = 0.0
    for j in range(lanes.U.shape[0]):
        (squares,) = zeros(1)
        for i in range(n):
            squares = fma(register(lanes.A, i, j), register(lanes.A, i, j), squares)
        store(lanes.scale, 0, LANES * j, sqrt(squares / splat(float(n))))
    (squares,) = zeros(1)
    for i in range(n):
        squares = fma(register(lanes.b, i, 0), register(lanes.b, i, 0), squares)
    store(lanes.numbers.norm_b, 0, 0, sqrt(squares))
    store(lanes.numbers.radius, 0, 0, splat(1.0))


@serial
def multiply(A, x, out):
    """out = A x."""
    for i in range(0, A.shape[0], AT_A_TIME):
        s0, s1, s2, s3 = zeros(4)
        for j in range(A.shape[1] // LANES):
            xj = register(x, 0, j)
            s0, s1 = fma(register(A, i, j), xj, s0), fma(register(A, i + 1, j), xj, s1)
            s2, s3 = fma(register(A, i + 2, j), xj, s2), fma(register(A, i + 3, j), xj, s3)
        store(out, i, 0, s0)
        store(out, i + 1, 0, s1)
        store(out, i + 2, 0, s2)
        store(out, i + 3, 0, s3)


@serial
def evaluate_lanes(link, lanes, n):
    """The point ahead, at a + da, which becomes a; see `vectors.add_domain` and `vectors.fold_residuals`."""
    top, largest = splat(link.low), splat(0.0)
    for i in range(n):
        da = register(lanes.da, i, 0)
        a = register(lanes.a, i, 0) + da
        store(lanes.a, i, 0, a)
        top, largest = maximum(growth(link, a), top), maximum(absolute(da), largest)
    shift = splat(0.0) - maximum(splat(0.0) - top, splat(-link.high))
    k = over_exp(shift)
    alpha, magnitude, slope = zeros(3)
    for i in range(n):
        u, v, e, size = terms(link, register(lanes.a, i, 0), shift, k)
        store(lanes.terms, i, 0, u)
        store(lanes.terms, i, LANES, v)
        store(lanes.terms, i, 2 * LANES, e)
        alpha, magnitude = alpha + u, magnitude + size
        slope = fma(v, register(lanes.da, i, 0), slope)
    over_alpha = splat(1.0) / alpha
    total = Residuals(splat(0.0), splat(0.0), splat(0.0), splat(0.0))
    for i in range(n):
        total = add_residual(total, register(lanes.terms, i, 0), register(lanes.b, i, 0), over_alpha)
        if lanes.w.shape[0] > 0:
            total = add_penalty(total, register(lanes.w, i, 0), register(lanes.a, i, 0))
    ahead = lanes.ahead
    store(ahead.shift, 0, 0, shift)
    store(ahead.k, 0, 0, k)
    store(ahead.alpha, 0, 0, alpha)
    store(ahead.kappa, 0, 0, kappa(magnitude, alpha))
    store(ahead.slope, 0, 0, slope)
    store(ahead.step, 0, 0, largest)
    store(ahead.squares, 0, 0, total.squares)
    store(ahead.s, 0, 0, total.fc)
    store(ahead.ff, 0, 0, total.ff)
    store(ahead.fun, 0, 0, loss(total))


@serial
def weigh_lanes(lanes, i, n, at):
    """The weights of row i, at a; zeros beyond the last."""
    if i >= n:
        return Weights(splat(0.0), splat(0.0), splat(0.0), splat(0.0))
    row = weights(register(lanes.terms, i, 0), register(lanes.terms, i, 1), register(lanes.terms, i, 2), register(lanes.b, i, 0), at)
    if lanes.w.shape[0] > 0:
        return penalised(row, register(lanes.w, i, 0), register(lanes.a, i, 0))
    return row


@serial
def differentiate_lanes(lanes, n):
    """The Gram matrix, its upper triangle, and the three vectors."""
    d = lanes.U.shape[0]
    A, U, vectors = lanes.A, lanes.U, lanes.vectors
    U[:] = 0.0
    vectors[:] = 0.0
    here = lanes.point
    zero = splat(0.0)  # for inputs that the weights do not need
    at = factors(Point(zero, zero, register(here.alpha, 0, 0), zero, zero, zero, zero, register(here.s, 0, 0), register(here.ff, 0, 0), zero))
    for i in range(0, A.shape[0], AT_A_TIME):
        h0, v0, q0, r0 = weigh_lanes(lanes, i, n, at)
        h1, v1, q1, r1 = weigh_lanes(lanes, i + 1, n, at)
        h2, v2, q2, r2 = weigh_lanes(lanes, i + 2, n, at)
        h3, v3, q3, r3 = weigh_lanes(lanes, i + 3, n, at)
        for j in range(d):
            x0, x1, x2, x3 = register(A, i, j), register(A, i + 1, j), register(A, i + 2, j), register(A, i + 3, j)
            store(vectors, 0, LANES * j, fma(v3, x3, fma(v2, x2, fma(v1, x1, fma(v0, x0, register(vectors, 0, j))))))
            store(vectors, 1, LANES * j, fma(q3, x3, fma(q2, x2, fma(q1, x1, fma(q0, x0, register(vectors, 1, j))))))
            store(vectors, 2, LANES * j, fma(r3, x3, fma(r2, x2, fma(r1, x1, fma(r0, x0, register(vectors, 2, j))))))
            hx0, hx1, hx2, hx3 = h0 * x0, h1 * x1, h2 * x2, h3 * x3
            for m in range(j, d):
                total = fma(hx1, register(A, i + 1, m), fma(hx0, register(A, i, m), register(U, j, m)))
                store(U, j, LANES * m, fma(hx3, register(A, i + 3, m), fma(hx2, register(A, i + 2, m), total)))


@serial
def newton_step(lanes):
    """p, in the caller's columns, of the Hessian in columns of unit RMS: U^T U p = -grad; the promised decrease, ||p|| and the least pivot."""
    d, U, p, vectors, numbers = lanes.U.shape[0], lanes.U, lanes.p, lanes.vectors, lanes.numbers
    least = splat(LARGEST)
    decrease, length, slope = zeros(3)
    for i in range(d):
        vi, qi = splat(2.0) * register(vectors, 0, i), splat(2.0) * register(vectors, 1, i)
        over_scale = splat(1.0) / register(lanes.scale, 0, i)
        gram = register(U, i, i) * over_scale * over_scale
        z = splat(0.0) - register(vectors, 2, i) * over_scale
        for j in range(i, d):
            entry = register(U, i, j) - rank_2(vi, qi, register(vectors, 0, j), register(vectors, 1, j))
            entry = entry * over_scale / register(lanes.scale, 0, j)
            for r in range(i):
                entry = fma(splat(0.0) - register(U, r, i), register(U, r, j), entry)
            store(U, i, LANES * j, entry)
        pivot = register(U, i, i)
        least = splat(0.0) - maximum(splat(0.0) - pivot / gram, splat(0.0) - least)
        root = splat(1.0) / sqrt(pivot)
        for j in range(i, d):
            store(U, i, LANES * j, register(U, i, j) * root)
        for r in range(i):
            z = fma(splat(0.0) - register(U, r, i), register(p, 0, r), z)
        z = z * root
        decrease = fma(z, z, decrease)
        store(p, 0, LANES * i, z)
    for i in range(d - 1, -1, -1):
        z = register(p, 0, i)
        for j in range(i + 1, d):
            z = fma(splat(0.0) - register(U, i, j), register(p, 0, j), z)
        z = z / register(U, i, i)
        length = fma(z, z, length)
        store(p, 0, LANES * i, z)
    for i in range(d):
        step = register(p, 0, i) / register(lanes.scale, 0, i)
        slope = fma(register(vectors, 0, i), step, slope)
        store(p, 0, LANES * i, step)
    store(numbers.decrease, 0, 0, splat(0.5) * decrease)
    store(numbers.length, 0, 0, sqrt(length))
    store(numbers.least_pivot, 0, 0, least)
    store(numbers.alpha_slope, 0, 0, slope)


@serial
def judge(k, tol, lanes):
    """After a step: the fate of lane k, and whether it takes the step; the tests of `iteration.find_event` and `iteration.take`."""
    here, there, numbers = point_of(lanes.point, k), point_of(lanes.ahead, k), lanes.numbers
    decrease, length, radius = numbers.decrease[0, k], numbers.length[0, k], numbers.radius[0, k]
    if not (numbers.least_pivot[0, k] > PIVOT and length <= radius):
        return LEFT, False
    error = noise(here)
    converged = is_negligible(decrease, there.step, tol, here)
    if there.step >= LONG and is_flat(decrease, here, numbers.norm_b[0, k]):
        return LEFT, False
    ratio = (here.fun - there.fun + error) / (decrease + error)
    numbers.radius[0, k] = next_radius(radius, ratio, length)
    if not converged and here.fun - there.fun <= error:
        return LEFT, False
    inside = there.alpha > 0.0 and not may_cross(numbers.alpha_slope[0, k], there.slope / there.alpha)
    if not (ratio >= ACCEPT and inside):
        return (MINIMUM if converged else LEFT), False
    return (MINIMUM if converged else RUNNING), True


@serial
def look(k, lanes):
    """Whether lane k has to stop at the point ahead: EXACT_FIT, LEFT near a pole or outside the domain, or RUNNING."""
    there = point_of(lanes.ahead, k)
    if not (there.alpha > 0.0 and there.fun < np.inf) or leads_to_pole(there):
        return LEFT
    return EXACT_FIT if is_exact(there) else RUNNING


@serial
def solve_lanes(link, n, tol, max_iter, lanes, fates, nits, nfevs):
    """Solve the eight problems as far as the common path leads; `fates` says how each ended, and x where."""
    start(lanes, n)
    lanes.a[:] = 0.0
    multiply(lanes.A, lanes.x, lanes.da)
    evaluate_lanes(link, lanes, n)
    lanes.numbers.fun[:] = lanes.ahead.fun
    running = 0
    for k in range(LANES):
        nits[k], nfevs[k], fates[k] = 0, 1, look(k, lanes)
        for j in range(lanes.U.shape[0]):
            if not LEAST_ENTRY < lanes.scale[0, LANES * j + k] < MOST_ENTRY:  # a zero column, a NaN, or squares that overflow
                fates[k] = LEFT
        running += fates[k] == RUNNING
    step = 0
    while True:
        for i in range(len(lanes.point)):
            lanes.point[i][:] = lanes.ahead[i]
        if running == 0 or step == max_iter:
            break
        differentiate_lanes(lanes, n)
        newton_step(lanes)
        multiply(lanes.A, lanes.p, lanes.da)
        evaluate_lanes(link, lanes, n)
        step += 1
        for k in range(LANES):
            if fates[k] == RUNNING:
                nfevs[k] += 1
                fate, taken = judge(k, tol, lanes)
                if taken:
                    nits[k] += 1
                    for j in range(lanes.U.shape[0]):
                        lanes.x[0, LANES * j + k] += lanes.p[0, LANES * j + k]
                    seen = look(k, lanes)
                    if seen != RUNNING:
                        fate = seen
                fates[k] = fate
                running -= fate != RUNNING
                if taken:
                    lanes.numbers.fun[0, k] = lanes.ahead.fun[0, k]
    for k in range(LANES):
        if fates[k] == RUNNING:
            fates[k] = GO_ON
