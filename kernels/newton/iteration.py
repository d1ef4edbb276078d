"""One iteration of the trust-region Newton method, from derivatives to the accepted step, without a return to Python.

What is rare is an event: the iteration stops before the step is taken and says why. `solve` looks into it, and either
ends the solve or has the step taken after all.
"""

import math
from typing import NamedTuple

import numpy as np

from ..compiling.jit import part, serial, serial_twin
from ..cpu.fold import POINT, POINT_ALPHA, POINT_FUN, POINT_KAPPA, POINT_SHIFT, POINT_SLOPE, POINT_SQUARES, POINT_STEP, block_count, noise, rounding
from ..dense import derivatives, evaluate, finish_hessian, products
from .cholesky import dot
from .plane import DIRECTIONS, PLANE, search
from .trust_region import GROW, next_radius, saturation, step

# What to do: iterations, the derivatives alone, the step that an event held back, that step and the derivatives after it, or an
# iteration whose step and trial the caller has put into the iterate.
ITERATE, DERIVE, TAKE, TAKE_LAST, PROPOSED = range(5)

# Events.
STEPPED = 0  # none: the step is taken
NOT_FINITE = 1  # the Hessian
SINGULAR = 2  # its smallest eigenvalue is rounding, and it is not known whether A has a null space
LONG_STEPS = 3  # several in a row gained next to nothing
SINGULAR_STEPS = 4  # so did several with a singular Hessian, or the last with one that is not certainly positive
SATURATED = 5  # the terms of the Hessian cancel to rounding
CONVERGED = 6
NO_STEP = 7  # no part of the step lowers the loss

NEAR_POLE = 1e6  # kappa
FLAT = 1e-6  # a model decrease, relative to L, or a residual, relative to b, that makes a long step suspect
LONG = 0.1  # max |A p| of a long step: some u_i changes by a tenth of itself
SUSPECTS = 4  # in a row make an event
SATURATION = 1e-9  # ||H|| relative to its two terms
NO_CURVATURE = 1e-12  # smallest eigenvalue relative to max |H|: rounding, or a column that depends on others
NOISE_STEP = 1e-3  # a step that small is good enough once the decrease is noise
ACCEPT = 0.05  # of the decrease that the model promised
BACKTRACK = 0.4
CHEAP_SEARCH = 32  # columns; below, an iteration costs no more than a search, which is then kept for steps that were refused
FARTHEST = 2.0  # times max |A p|: how far the plane search may go; beyond, rows saturate before their time
MOST_BACKTRACKS = 40

# Scalars of an iteration.
(
    RADIUS,  # the trust radius
    DECREASE,  # that the model promises for p
    NEWTON,  # 1: p is the full Newton step of a positive semidefinite Hessian
    MIN_EIG,  # of the scaled Hessian, estimated from above
    GRAD_NORM,  # of the scaled gradient
    LARGEST,  # |H_ij| of the scaled Hessian; NaN where its norm, or that of the scaled gradient, overflows
    SLOPE,  # g.p
    LENGTH,  # ||p||
    LOG_ALPHA_SLOPE,  # d log(alpha) / dt along A p
    STEPS,  # taken in a call
    DERIVATIVES,  # computed in it
    EVALUATIONS,  # of the loss
    CONVERGES,  # 1: p is negligible, and the Hessian not negative
    LONG_COUNT,  # suspect steps in a row
    SINGULAR_COUNT,
    CANCELLATION,  # ||H|| relative to its terms
    PASSES,  # over A in a call
    DERIVED,  # 1: gradient and Hessian are those at x
    NOW,  # which of the three a is that at x
) = range(19)
SCALARS = 19
RECORD = 7  # numbers kept of a step


class Iterate(NamedTuple):
    """Where the iteration is; "scaled" is in columns of A scaled to unit RMS."""

    x: np.ndarray  # d
    a: np.ndarray  # 3 x n: A x, that of the trial and that of the point before; they rotate, scalars[NOW] is the first
    points: np.ndarray  # 3 x scalars: the same
    da: np.ndarray  # n: A p
    grad: np.ndarray  # d
    hess: np.ndarray  # d x d
    scaled_grad: np.ndarray  # d
    scaled_hess: np.ndarray  # d x d
    p: np.ndarray  # d, scaled: the step of the model
    flattest: np.ndarray  # d, scaled: its direction of least curvature, downhill
    step: np.ndarray  # d: p in the caller's columns; once taken, the x that it led to
    before: np.ndarray  # d: the x before
    y: np.ndarray  # 3: the step in the plane of x, p and x - before
    plane_sums: np.ndarray  # blocks x sums: those of the plane search
    scalars: np.ndarray


@serial
def alloc_iterate(n, d, hessian):
    """An iterate at x = 0, where a = 0, with radius 1; without `hessian`, for steps that the caller proposes."""
    scalars = np.zeros(SCALARS)
    scalars[RADIUS] = 1.0
    square = (d, d) if hessian else (0, 0)
    return Iterate(
        np.zeros(d),
        np.zeros((3, n)),
        np.zeros((3, POINT)),
        np.empty(n),
        np.empty(d),
        np.empty(square),
        np.empty(d),
        np.empty(square),
        np.empty(d),
        np.empty(d),
        np.empty(d),
        np.zeros(d),
        np.zeros(DIRECTIONS),
        np.empty((block_count(n, d), PLANE)),
        scalars,
    )


@serial
def is_exact(point, norm_b):
    """An exact fit: c is rounding."""
    return math.sqrt(point[POINT_SQUARES]) <= rounding(point) * norm_b and point[POINT_FUN] == point[POINT_SQUARES]


@serial
def is_near_pole(point):
    """alpha has lost six digits to cancellation."""
    return point[POINT_KAPPA] > NEAR_POLE


@serial
def after(now):
    """The place of the trial, where `now` is that of the point; after the trial comes the point before."""
    return (now + 1) % 3


@part
def needs_look(point, norm_b):
    """The tests that need no derivatives."""
    return is_exact(point, norm_b) or is_near_pole(point)


@part
def derive(A, b, w, scale, it, work):
    """Gradient and Hessian at x, as they are and scaled, and how far the Hessian's terms cancel."""
    now = int(it.scalars[NOW])
    it.scalars[DERIVED] = 1.0
    it.scalars[DERIVATIVES] += 1.0
    it.scalars[PASSES] += 1.0
    derivatives(work.link, A, it.a[now], b, w, it.points[now], work.vectors, work.gram, work.buffers, work.packed, work.weights)
    finish_hessian(work.gram, work.vectors, it.hess)
    v, q = work.vectors[0, 0], work.vectors[0, 1]
    squares = largest = norm = 0.0
    for i in range(scale.shape[0]):
        it.grad[i] = work.vectors[0, 2, i]
        it.scaled_grad[i] = it.grad[i] / scale[i]
        squares += it.scaled_grad[i] ** 2
        for j in range(scale.shape[0]):
            scaled = it.hess[i, j] / scale[i] / scale[j]
            it.scaled_hess[i, j] = scaled
            largest = max(largest, abs(scaled))
            norm += scaled**2
    it.scalars[GRAD_NORM] = math.sqrt(squares)
    it.scalars[LARGEST] = largest + 0.0 * (squares + norm)  # NaN once a norm is not finite: the subproblem needs both
    it.scalars[CANCELLATION] = saturation(it.scaled_hess, v, q, scale)


@part
def propose(A, b, w, scale, null, it, work):
    """The best step of the model within the radius, and the point there: one pass for A p."""
    d, s, now = scale.shape[0], it.scalars, int(it.scalars[NOW])
    hess = it.scaled_hess
    if null.shape[1] > 0:  # curvature where A has none keeps p in its row space
        hess = it.scaled_hess.copy()
        for i in range(d):
            for j in range(d):
                hess[i, j] += s[LARGEST] * dot(null[i], null[j], 0)
    s[DECREASE], newton, s[MIN_EIG], _ = step(it.scaled_grad, hess, s[RADIUS], it.p, it.flattest)
    s[NEWTON] = 1.0 if newton else 0.0
    s[SLOPE] = s[LENGTH] = s[LOG_ALPHA_SLOPE] = uphill = 0.0
    for i in range(d):
        it.step[i] = it.p[i] / scale[i]
        s[SLOPE] += it.scaled_grad[i] * it.p[i]
        s[LENGTH] += it.p[i] ** 2
        s[LOG_ALPHA_SLOPE] += work.vectors[0, 0, i] * it.step[i]
        uphill += it.scaled_grad[i] * it.flattest[i]
    s[LENGTH] = math.sqrt(s[LENGTH])
    if uphill > 0.0:
        for i in range(d):
            it.flattest[i] = -it.flattest[i]
    products(A, it.step, it.da, work.buffers)
    s[PASSES] += 1.0
    s[EVALUATIONS] += 1.0
    ahead = after(now)
    evaluate(work.link, it.a[now], it.da, 1.0, b, w, it.a[ahead], work.sums, it.points[ahead])


@serial
def is_negligible(decrease, long, tol, point):
    """Whether a full Newton step is the last: it promises less than tol, or than the noise."""
    small = decrease <= tol * point[POINT_FUN] and long <= math.sqrt(tol)
    return small or (decrease <= noise(point) and long <= NOISE_STEP)


@serial
def is_flat(decrease, point, norm_b):
    """Whether there is so little to gain that a long step is suspect."""
    return decrease <= FLAT * point[POINT_FUN] or math.sqrt(point[POINT_SQUARES]) <= FLAT * norm_b


@part
def find_event(tol, norm_b, null_is_known, it):
    """The first test that the trial meets, in the order in which they are asked."""
    s, now = it.scalars, int(it.scalars[NOW])
    point, long = it.points[now], it.points[after(now), POINT_STEP]
    singular = abs(s[MIN_EIG]) <= NO_CURVATURE * s[LARGEST]
    if singular and not null_is_known:
        return SINGULAR
    converged = s[NEWTON] > 0.0 and is_negligible(s[DECREASE], long, tol, point)
    s[CONVERGES] = 1.0 if converged else 0.0
    s[LONG_COUNT] = s[LONG_COUNT] + 1.0 if is_flat(s[DECREASE], point, norm_b) and long >= LONG else 0.0
    s[SINGULAR_COUNT] = s[SINGULAR_COUNT] + 1.0 if singular else 0.0
    if s[LONG_COUNT] >= SUSPECTS:
        s[LONG_COUNT] = 0.0
        return LONG_STEPS
    if s[CANCELLATION] <= SATURATION:
        return SATURATED
    if s[SINGULAR_COUNT] >= SUSPECTS or (converged and (singular or s[MIN_EIG] < 0.0)):
        s[SINGULAR_COUNT] = 0.0
        return SINGULAR_STEPS
    return CONVERGED if converged else STEPPED


@serial
def may_cross(start, end):
    """Whether alpha may vanish on a step, by its slopes at both ends over alpha there: a convex alpha lies above its tangents."""
    if 1.0 + start > 0.0 or end <= 0.0:
        return False
    # In units of alpha at the start: 1 + start z, taken where the other tangent is 0.
    return 1.0 + start * (1.0 - 1.0 / end) <= 0.0


@part
def take(b, w, rank, it, work):
    """Move to the first of t = 1, 0.4, 0.16, ... whose decrease is a fair part of the model's; whether there is one.

    Unless the model has kept its word, on from there by the plane search. Neither costs a pass over A; a shorter step of
    the model would cost one.
    """
    s, now = it.scalars, int(it.scalars[NOW])
    ahead = after(now)
    here, there = it.points[now], it.points[ahead]
    curvature = -2.0 * (s[DECREASE] + s[SLOPE])  # p.H p
    t, error, full = 1.0, noise(here), there[POINT_STEP]
    for _ in range(MOST_BACKTRACKS):
        promised = -t * s[SLOPE] - 0.5 * t * t * curvature
        ratio = (here[POINT_FUN] - there[POINT_FUN] + error) / (promised + error)
        if t == 1.0:
            s[RADIUS] = next_radius(s[RADIUS], ratio, s[LENGTH])
        if ratio >= ACCEPT and there[POINT_FUN] < np.inf and not may_cross(t * s[LOG_ALPHA_SLOPE], t * there[POINT_SLOPE] / there[POINT_ALPHA]):
            break
        t *= BACKTRACK
        s[EVALUATIONS] += 1
        evaluate(work.link, it.a[now], it.da, t, b, w, it.a[ahead], work.sums, there)
    else:
        return False
    it.y[0], it.y[1], it.y[2] = 0.0, t, 0.0
    there[POINT_STEP] *= t
    # A rank below three leaves nothing to search that p does not have; with rank 1 the plane could lead across the pole.
    worthwhile = t < 1.0 if rank < CHEAP_SEARCH else not (s[NEWTON] > 0.0 and ratio >= GROW)
    if rank >= DIRECTIONS and worthwhile:
        before = it.a[after(ahead)]
        s[EVALUATIONS] += search(work.link, it.a[now], it.da, before, FARTHEST * full, it.a[ahead], b, w, there, it.y, work.sums, it.plane_sums)
    overflow = 0.0
    for i in range(it.x.shape[0]):
        it.step[i] = it.x[i] + it.y[0] * it.x[i] + it.y[1] * it.step[i] + it.y[2] * (it.x[i] - it.before[i])
        overflow += 0.0 * it.step[i]
    if overflow != 0.0:  # of a column so small that A x is finite
        return False
    it.before[:] = it.x
    it.x[:] = it.step
    s[NOW], s[DERIVED] = ahead, 0.0
    return True


@part
def record(here, there, radius, scalars, row):
    """What a step is remembered by, as the fields of `fastrsx.Record`."""
    row[0], row[1], row[2], row[3] = here[POINT_FUN], scalars[GRAD_NORM], scalars[DECREASE], radius
    row[4], row[5], row[6] = here[POINT_ALPHA] * np.exp(here[POINT_SHIFT]), scalars[MIN_EIG], there[POINT_STEP]


@part
def iterate(what, A, b, w, scale, null, null_is_known, tol, norm_b, it, work, records):
    """Iterations, one for each row of `records` unless something comes up, or the part of one that `what` names; the event."""
    s = it.scalars
    for row in range(records.shape[0]):
        if what in (ITERATE, DERIVE):
            derive(A, b, w, scale, it, work)
        if what in (ITERATE, DERIVE, PROPOSED) and not s[LARGEST] < np.inf:
            return NOT_FINITE
        if what == DERIVE:
            return STEPPED
        if what == ITERATE:
            propose(A, b, w, scale, null, it, work)
        if what in (ITERATE, PROPOSED):
            event = find_event(tol, norm_b, null_is_known, it)
            if event != STEPPED:
                return event
        now, radius = int(s[NOW]), s[RADIUS]
        if not take(b, w, scale.shape[0] - null.shape[1], it, work):
            return NO_STEP
        here, there = it.points[now], it.points[int(s[NOW])]
        record(here, there, radius, s, records[row])
        s[STEPS] += 1.0
        if what == TAKE_LAST:
            derive(A, b, w, scale, it, work)
        if needs_look(there, norm_b):
            break
    return STEPPED


derive_serial = serial_twin(derive)
propose_serial = serial_twin(propose)
take_serial = serial_twin(take)
iterate_serial = serial_twin(iterate)
