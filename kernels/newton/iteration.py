"""One iteration of the trust-region Newton method, from derivatives to the accepted step, without a return to Python.

Rare cases are events: the iteration stops before the step is taken and says why. `verdict.advance` examines the event, and
either ends the solve or takes the step after all.
"""

import math
from typing import NamedTuple

import numpy as np

from ..compiling.jit import serial, serial_twin
from ..compiling.records import reader, record, room
from ..cpu.ahead import Sample, Trial, look_ahead, predict
from ..cpu.blocks import block_count, scratch_of
from ..cpu.vectors import copy
from ..formulas.records import POINT_ROOM, Q, R, V, as_point
from ..formulas.steps import GROW, is_exact, is_flat, is_near_pole, is_negligible, may_cross, next_radius, noise, rounding
from .cholesky import dot
from .passes import PLANE, Plane, derivatives, evaluate, finish_hessian, products
from .plane import DIRECTIONS, Target, search
from .trust_region import saturation, step

# What to do: iterations, the derivatives alone, the step that an event held back, that step and the derivatives after it, or an
# iteration whose step and trial the caller has put into the iterate.
ITERATE, DERIVE, TAKE, TAKE_LAST, PROPOSED = range(5)

# Events.
STEPPED = 0  # none: the step is taken
NOT_FINITE = 1  # the Hessian
SINGULAR = 2  # its smallest eigenvalue is rounding, and it is not known whether A has a null space
LONG_STEPS = 3  # several in a row gained next to nothing
SINGULAR_STEPS = 4  # likewise with a singular Hessian, or the last with a Hessian that is not certainly positive
SATURATED = 5  # the terms of the Hessian cancel to rounding
CONVERGED = 6
NO_STEP = 7  # no part of the step lowers the loss, or many did not beyond rounding
INEXACT = 8  # another event, by a Hessian of predicted weights that the caller must form again

LONG = 0.1  # max |A p| of a long step: some u_i changes by a tenth of itself
SUSPECTS = 4  # so many in a row are an event
SATURATION = 1e-9  # ||H|| relative to its two terms
MOST_IDLE = 16  # steps in a row that gain nothing
NO_CURVATURE = 1e-12  # smallest eigenvalue relative to max |H|: rounding, or a column that depends on others
ACCEPT = 0.05  # of the decrease that the model promised
BACKTRACK = 0.4
CHEAP_SEARCH = 32  # columns; below, an iteration costs no more than a search, which then runs only for refused steps
FARTHEST = 2.0  # times max |A p|: how far the plane search may go; beyond, rows saturate too early
MOST_BACKTRACKS = 40
# Hessians of predicted weights: errors of the scaled Hessian.
PROMISING = 0.1  # of the largest entry: a step is expected to leave up to that, by the square of its length
SMALL_ERROR = 0.01  # of the smallest eigenvalue: decisions do not depend on it
AS_EXACT = 1e-8  # of the largest entry: a result may have it

ITERATION = record(
    radius=np.float64,  # the trust radius
    decrease=np.float64,  # that the model promises for p
    newton=np.bool_,  # whether p is the full Newton step of a positive semidefinite Hessian
    min_eig=np.float64,  # of the scaled Hessian, estimated from above
    grad_norm=np.float64,  # of the scaled gradient
    largest=np.float64,  # |H_ij| of the scaled Hessian; NaN where its norm, or that of the scaled gradient, overflows
    slope=np.float64,  # g.p
    length=np.float64,  # ||p||
    log_alpha_slope=np.float64,  # d log(alpha) / dt along A p
    steps=np.int64,  # taken in a call
    derivatives=np.int64,  # computed in it
    evaluations=np.int64,  # of the loss
    passes=np.int64,  # over A
    converges=np.bool_,  # whether p is negligible, and the Hessian not negative
    long_count=np.int64,  # suspect steps in a row
    singular_count=np.int64,
    idle_count=np.int64,  # steps that neither gain more than rounding nor halve the gradient nor raise the trust radius, since one of the former
    idle_grad=np.float64,  # the norm of the scaled gradient at the first of them
    saturation=np.float64,  # ||H|| relative to its terms: tiny where it is rounding
    derived=np.bool_,  # whether gradient and Hessian are those at x
    error=np.float64,  # of the Hessian: 0 unless its weights were predicted
    foreseen=np.bool_,  # whether the workspace has the derivatives at the trial
    error_ahead=np.float64,  # of that Hessian
    error_rate=np.float64,  # the error of the last that was formed ahead, over ||p||^2
    now=np.int64,  # the index of the a at x among the three
)
as_iteration = reader(ITERATION)
ITERATION_ROOM = room(ITERATION)
_NAMES = ITERATION.names or ()
COUNTS = slice(_NAMES.index("steps"), _NAMES.index("passes") + 1)  # those of a call, among the record's numbers as int64
RECORD = 7  # numbers recorded per step


class Problem(NamedTuple):
    """The inputs of an iteration, which it does not change."""

    A: np.ndarray  # n x d; without rows where A is elsewhere, see `verdict.advance`
    b: np.ndarray
    w: np.ndarray
    scale: np.ndarray  # the RMS of A's columns
    null: np.ndarray  # d x r: directions of scaled columns in which the loss is constant
    null_is_known: bool
    tol: float
    norm_b: float
    sample: Sample  # rows that predict a step; if there are any, steps are taken in one read of A


class Iterate(NamedTuple):
    """The state of the iteration; "scaled" means in columns of A scaled to unit RMS."""

    x: np.ndarray  # d
    a: np.ndarray  # 3 x n: A x at the point, at the trial and at the point before; they rotate, ITERATION.now is the index of the first
    points: np.ndarray  # 3 x 10: the Point of each
    da: np.ndarray  # n: A p
    v: np.ndarray  # d: A^T v/alpha at x
    q: np.ndarray  # d: A^T q/alpha
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
    state: np.ndarray  # room of a record of ITERATION


@serial
def alloc_iterate(n, d, hessian):
    """An iterate at x = 0, where a = 0, without a radius; without `hessian`, for steps that the caller proposes."""
    square = (d, d) if hessian else (0, 0)
    return Iterate(
        np.zeros(d),
        np.zeros((3, n)),
        np.zeros((3, POINT_ROOM)),
        np.empty(n),
        np.empty(d),
        np.empty(d),
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
        np.zeros(ITERATION_ROOM),
    )


@serial
def after(now):
    """The index of the trial, given the index `now` of the point; the point before follows the trial."""
    return (now + 1) % 3


@serial
def needs_look(point):
    """The tests that need no derivatives."""
    return is_exact(point) or is_near_pole(point)


@serial
def derive(foreseen, problem, it, work):
    """Gradient and Hessian at x, unscaled and scaled, and how far the Hessian's terms cancel; without a read where they were foreseen."""
    s, scale = as_iteration(it.state), problem.scale
    s.derived, s.error = True, s.error_ahead
    if not foreseen:
        s.error = 0.0
        s.derivatives += 1
        s.passes += 1
        derivatives(work.link, problem.A, it.a[s.now], problem.b, problem.w, it.points[s.now], work.gram, scratch_of(work))
    finish_hessian(work.gram, work.vectors, it.hess)
    squares = largest = norm = 0.0
    for i in range(scale.shape[0]):
        it.v[i], it.q[i], it.grad[i] = work.vectors[0, V, i], work.vectors[0, Q, i], work.vectors[0, R, i]
        it.scaled_grad[i] = it.grad[i] / scale[i]
        squares += it.scaled_grad[i] ** 2
        for j in range(scale.shape[0]):
            scaled = it.hess[i, j] / scale[i] / scale[j]
            it.scaled_hess[i, j] = scaled
            largest = max(largest, abs(scaled))
            norm += scaled**2
    s.grad_norm = math.sqrt(squares)
    s.largest = largest + 0.0 * (squares + norm)  # NaN once a norm is not finite: the subproblem needs both
    s.saturation = saturation(it.scaled_hess, it.v, it.q, scale)


@serial
def propose(problem, it, work):
    """The best step of the model within the radius, and the point there: one pass for A p, and for the derivatives if steps read A once."""
    s, scale, null = as_iteration(it.state), problem.scale, problem.null
    d = scale.shape[0]
    hess = it.scaled_hess
    if null.shape[1] > 0:  # curvature added in the null space of A keeps p in its row space
        hess = it.scaled_hess.copy()
        for i in range(d):
            for j in range(d):
                hess[i, j] += s.largest * dot(null[i], null[j], 0)
    s.decrease, s.newton, s.min_eig, _ = step(it.scaled_grad, hess, s.radius, it.p, it.flattest)
    slope = squares = log_alpha_slope = uphill = 0.0
    for i in range(d):
        it.step[i] = it.p[i] / scale[i]
        slope += it.scaled_grad[i] * it.p[i]
        squares += it.p[i] ** 2
        log_alpha_slope += it.v[i] * it.step[i]
        uphill += it.scaled_grad[i] * it.flattest[i]
    s.slope, s.length, s.log_alpha_slope = slope, math.sqrt(squares), log_alpha_slope
    if uphill > 0.0:
        for i in range(d):
            it.flattest[i] = -it.flattest[i]
    s.passes += 1
    s.evaluations += 1
    a, b, w, ahead = it.a[s.now], problem.b, problem.w, after(s.now)
    found, s.foreseen = False, False
    if problem.sample.rows.shape[0] > 0 and s.error_rate * squares <= PROMISING * s.largest:
        s.derivatives += 1
        predict(work.link, it.points[s.now], it.v, it.q, it.step, a, problem.sample, work.point)
        trial = Trial(a, b, w, it.da, it.a[ahead])
        found, s.error_ahead = look_ahead(work.link, problem.A, it.step, trial, work.point, scratch_of(work), work.gram, it.points[ahead])
        s.foreseen = s.error_ahead < math.inf
        s.error_rate = (s.error_ahead if s.foreseen else s.largest) / squares
    else:
        products(problem.A, it.step, it.da, work.buffers)
    if not found:
        evaluate(work.link, a, it.da, 1.0, b, w, it.a[ahead], work.sums, it.points[ahead])


@serial
def is_certain(s):
    """Whether an event counts: the Hessian is exact, or so nearly that decisions do not depend on it."""
    return s.error <= max(0.0, SMALL_ERROR * s.min_eig)


@serial
def find_event(problem, it):
    """The first event that the trial meets, in the order of the tests."""
    s = as_iteration(it.state)
    point, long = as_point(it.points[s.now]), as_point(it.points[after(s.now)]).step
    singular = abs(s.min_eig) <= max(NO_CURVATURE, rounding(point) / max(s.saturation, SATURATION)) * s.largest
    if singular and not problem.null_is_known:
        return SINGULAR
    s.converges = s.newton and is_negligible(s.decrease, long, problem.tol, point)
    s.long_count = s.long_count + 1 if is_flat(s.decrease, point, problem.norm_b) and long >= LONG else 0
    s.singular_count = s.singular_count + 1 if singular else 0
    if s.long_count >= SUSPECTS:
        s.long_count = 0
        return LONG_STEPS
    if s.saturation <= SATURATION:
        return SATURATED
    if s.singular_count >= SUSPECTS or (s.converges and (singular or s.min_eig < 0.0)):
        s.singular_count = 0
        return SINGULAR_STEPS
    if s.converges:
        return CONVERGED
    return NO_STEP if s.idle_count >= MOST_IDLE else STEPPED


@serial
def take(problem, it, work):
    """Move to the first of t = 1, 0.4, 0.16, ... whose decrease is a fair part of the model's; returns whether there is one.

    If the model promised too much, the plane search goes on from there. Neither costs a pass over A; a shorter step of
    the model would cost one.
    """
    s, rank = as_iteration(it.state), problem.scale.shape[0] - problem.null.shape[1]
    now, ahead = s.now, after(s.now)
    here, there = as_point(it.points[now]), as_point(it.points[ahead])
    curvature = -2.0 * (s.decrease + s.slope)  # p.H p
    t, error, full = 1.0, noise(here), there.step
    for _ in range(MOST_BACKTRACKS):
        promised = -t * s.slope - 0.5 * t * t * curvature
        ratio = (here.fun - there.fun + error) / (promised + error)
        if t == 1.0:
            s.radius = next_radius(s.radius, ratio, s.length)
        if ratio >= ACCEPT and there.fun < np.inf and not may_cross(t * s.log_alpha_slope, t * there.slope / there.alpha):
            break
        t *= BACKTRACK
        s.foreseen = False
        s.evaluations += 1
        evaluate(work.link, it.a[now], it.da, t, problem.b, problem.w, it.a[ahead], work.sums, it.points[ahead])
    else:
        return False
    it.y[0], it.y[1], it.y[2] = 0.0, t, 0.0
    there.step *= t
    # With a rank below three the plane has nothing to add to p; with rank 1 it could lead across the pole.
    worthwhile = t < 1.0 if rank < CHEAP_SEARCH else not (s.newton and ratio >= GROW)
    if rank >= DIRECTIONS and worthwhile:
        s.foreseen = False
        plane, target = Plane(it.a[now], it.da, it.a[after(ahead)]), Target(problem.b, problem.w)
        s.evaluations += search(work.link, plane, FARTHEST * full, it.a[ahead], target, it.points[ahead], it.y, work.sums, it.plane_sums)
    overflow = 0.0
    for i in range(it.x.shape[0]):
        it.step[i] = it.x[i] + it.y[0] * it.x[i] + it.y[1] * it.step[i] + it.y[2] * (it.x[i] - it.before[i])
        overflow += 0.0 * it.step[i]
    if overflow != 0.0:  # x overflows in a column so small that A x is finite
        return False
    copy(it.x, it.before)
    copy(it.step, it.x)
    s.now, s.derived = ahead, False
    return True


@serial
def note(here, there, radius, s, row):
    """Record a step, in the fields of `fastrsx.Record`."""
    row[0], row[1], row[2], row[3] = here.fun, s.grad_norm, s.decrease, radius
    row[4], row[5], row[6] = here.alpha * np.exp(here.shift), s.min_eig, there.step


@serial
def count_idle(here, there, radius, s):
    """Count the step, unless it gained something: b may be so large that only the gradient shows it, or x so far that longer steps come first."""
    gains = here.fun - there.fun > noise(here)
    if gains or s.idle_count == 0 or s.grad_norm <= 0.5 * s.idle_grad:
        s.idle_count, s.idle_grad = 0 if gains else 1, s.grad_norm
    elif s.radius <= radius:
        s.idle_count += 1


@serial
def iterate(what, problem, it, work, records):
    """Iterate once for each row of `records` unless an event occurs, or run the part of one that `what` names; returns the event."""
    s = as_iteration(it.state)
    row, ends, foreseen = 0, False, False  # steps taken, whether that was the last, and whether it led to where derivatives were foreseen
    while True:
        last = what == DERIVE or (what == TAKE_LAST and ends)
        if last:  # the derivatives that the caller gets
            small = AS_EXACT * s.largest
            foreseen, s.derived = foreseen and s.error_ahead <= small, s.derived and s.error <= small
        if foreseen or (not s.derived and (last or (what == ITERATE and not ends))):
            derive(foreseen, problem, it, work)
        if ends:
            return STEPPED
        if what in (ITERATE, DERIVE, PROPOSED) and not s.largest < np.inf:
            return NOT_FINITE
        if what == DERIVE:
            return STEPPED
        if what == ITERATE:
            propose(problem, it, work)
        event, tests = STEPPED, what in (ITERATE, PROPOSED)
        long_count, singular_count = s.long_count, s.singular_count
        if tests:
            event = find_event(problem, it)
        here, radius = as_point(it.points[s.now]), s.radius
        if event == STEPPED and not take(problem, it, work):
            event = NO_STEP
        if event != STEPPED:
            if not tests or is_certain(s):
                return event
            # Look again, with exact weights.
            s.long_count, s.singular_count, s.derived, foreseen = long_count, singular_count, False, False
            if what == PROPOSED:
                return INEXACT
            continue
        there = as_point(it.points[s.now])
        note(here, there, radius, s, records[row])
        count_idle(here, there, radius, s)
        s.steps += 1
        row += 1
        foreseen = s.foreseen
        ends = row == records.shape[0] or needs_look(there)


derive_serial = serial_twin(derive)
propose_serial = serial_twin(propose)
take_serial = serial_twin(take)
iterate_serial = serial_twin(iterate)
