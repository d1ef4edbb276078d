"""From the events of iterations to a verdict.

Where the infimum is not attained, the loss falls for ever along a ray x + t p on which rows saturate: with an intercept, f
tends to the plain softmax as exp(a) outgrows a; for a one-hot b, to b itself. The loss then has an exponential tail, on which
Newton's method takes steps of constant length without end. So a suspect step is followed for a while before it is trusted.
"""

import numpy as np

from ..compiling.jit import serial, serial_twin
from ..cpu.vectors import copy
from ..formulas.records import as_point
from ..formulas.steps import NOISE_STEP, is_exact, is_near_pole, leads_to_pole, noise
from .iteration import (
    DERIVE,
    INEXACT,
    ITERATE,
    LONG_STEPS,
    NO_STEP,
    NOT_FINITE,
    SATURATED,
    SINGULAR,
    SINGULAR_STEPS,
    STEPPED,
    TAKE,
    TAKE_LAST,
    after,
    as_iteration,
    iterate,
    note,
)
from .passes import ROUNDING, evaluate, is_penalised, largest, products, spread
from .trust_region import NEGLIGIBLE_CURVATURE

# The verdicts of `advance`.
(
    GO_ON,
    NEEDS_NULL_SPACE,  # that of A; then call again
    NEEDS_IMAGE,  # A times the direction in it.flattest, where A is elsewhere; then call again
    MINIMUM,
    EXACT_FIT,
    NEAR_POLE,  # the infimum is where alpha vanishes
    ON_A_RAY,  # it is at the end of a ray
    SATURATED_ROWS,  # the Hessian is rounding
    NO_DESCENT,
    NONFINITE,
    NEEDS_EXACT,  # derivatives at x; then call again
) = range(11)
NO_RAY = -1

AHEAD = 64  # units tried ahead on a ray, one by one; a unit makes max |A p| = 1
BEHIND = 64  # and behind, by quarters
DOUBLED = 17  # losses tried each way: 1e-3 doubled 16 times is 65, about as far as AHEAD; by quarters it is rounding


@serial
def verdict_at(point, link):
    """The verdict that needs no derivatives: EXACT_FIT, NEAR_POLE or GO_ON."""
    at = as_point(point)
    if is_exact(at):
        return EXACT_FIT
    if is_near_pole(at) and link.high > 0.0:  # a linear u is then only far from its minimum
        return NEAR_POLE
    return GO_ON


@serial
def loss_along(image, t, problem, it, work):
    """L at A x + t times the image of a direction; the point there is left in the workspace."""
    s = as_iteration(it.state)
    s.evaluations += 1
    return evaluate(work.link, it.a[s.now], image, t, problem.b, problem.w, work.a, work.sums, work.point)


@serial
def falls_ahead(image, unit, by, problem, it, work):
    """Whether the loss never rises on the ray as far as we look, and ends below (1 - by) times the loss here.

    `unit` of the direction makes max |A p| = 1; where A p is rounding there is no ray.
    """
    here = as_point(it.points[as_iteration(it.state).now])
    falls, lowest, tau = unit > ROUNDING and not is_penalised(image, problem.w, unit), here.fun, 1
    while falls and tau <= AHEAD:
        fun = loss_along(image, tau / unit, problem, it, work)
        falls = fun <= lowest + noise(here)
        lowest = min(lowest, fun)
        tau += 1
    return falls and lowest <= (1.0 - by) * here.fun


@serial
def lowest_behind(image, unit, problem, it, work):
    """The t < 0 with a clearly lower loss than here, or 0: a ray may have been entered by one long step over the minimum.

    Also whether the loss rises anywhere behind: else it is constant on the whole line. Looks no further than the pole.
    """
    point = as_point(it.points[as_iteration(it.state).now])
    here, error = point.fun, 10.0 * noise(point)
    best, lowest, rises = 0.0, here - error, False
    for quarters in range(1, 4 * BEHIND + 1):
        t = -0.25 * quarters / unit
        fun = loss_along(image, t, problem, it, work)
        if not fun < np.inf:  # a pole proves nothing: the loss may be constant up to it
            break
        rises = rises or fun > here + error + 10.0 * noise(as_point(work.point))  # the noise far away may exceed that here
        if fun < lowest:
            best, lowest = t, fun
    return best, rises


@serial
def falls_beside(image, unit, problem, it, work):
    """The t of the lowest loss among steps both ways, or 0 where none is lower by more than tol and rounding.

    The curvature of the model is rounding along this direction, but the loss is not. The first step has max |A p| = 1e-3; it is doubled while the
    loss falls, or else cut until it does: a pole, or a minimum at which c vanishes, may be nearer. Near the latter the loss is a parabola.
    """
    here = as_point(it.points[as_iteration(it.state).now])
    best, lowest = 0.0, (1.0 - problem.tol) * here.fun - noise(here)
    for way in range(-1, 2, 2):
        t, factor = way * NOISE_STEP / unit, 0.0
        for _ in range(DOUBLED):
            fun = loss_along(image, t, problem, it, work)
            falls = fun < lowest
            if falls:
                best, lowest = t, fun
            if factor == 0.0:
                factor = 2.0 if falls else 0.25
            if falls != (factor == 2.0):
                break
            t *= factor
    if best != 0.0:
        beyond = loss_along(image, 2.0 * best, problem, it, work)
        bend = here.fun - 2.0 * lowest + beyond
        if 0.0 < bend < np.inf:
            t = best * (0.5 + (here.fun - lowest) / bend)
            if loss_along(image, t, problem, it, work) < lowest:
                best = t
    return best


@serial
def move_along(image, t, problem, it, work, row):
    """Move to x + t times the direction in it.flattest, and reset the radius."""
    s = as_iteration(it.state)
    ahead = after(s.now)
    here, there = as_point(it.points[s.now]), as_point(it.points[ahead])
    s.evaluations += 1
    evaluate(work.link, it.a[s.now], image, t, problem.b, problem.w, it.a[ahead], work.sums, it.points[ahead])
    there.step *= abs(t)
    s.decrease = here.fun - there.fun
    note(here, there, s.radius, s, row)
    for i in range(it.x.shape[0]):
        it.before[i] = it.x[i]
        it.x[i] += t * it.flattest[i] / problem.scale[i]
    s.radius, s.now, s.derived, s.idle_count = 1.0, ahead, False, 0
    s.steps += 1


@serial
def follow_ray(event, problem, flat_image, it, work, records):
    """The verdict on a suspected ray: ON_A_RAY; or the verdict after moving back over it, or sideways off a saddle; else NO_RAY.

    Leaves the direction, of scaled columns, in it.flattest. An A without rows is elsewhere: `flat_image` is then A times that direction.
    """
    s, scale = as_iteration(it.state), problem.scale
    image, unit, by = it.da, 0.0, 0.0
    if event == LONG_STEPS:
        copy(it.p, it.flattest)
        unit = largest(image)
    elif event == SINGULAR_STEPS:
        image = flat_image
        if problem.A.shape[0] > 0:
            image, along = np.empty_like(it.da), np.empty_like(it.x)  # n more numbers, once per solve: the step in it.da may still be taken
            for i in range(along.shape[0]):
                along[i] = it.flattest[i] / scale[i]
            products(problem.A, along, image, work.buffers)
            s.passes += 1
        unit = largest(image)
    elif event == SATURATED:  # the step may be noise, but x itself has the direction of the ray by now: look as far as 2 x
        for i in range(it.x.shape[0]):
            it.flattest[i] = it.x[i] * scale[i]
        image, unit, by = it.a[s.now], float(AHEAD), 0.5
    here = as_point(it.points[s.now])
    if event != SATURATED and not s.converges:  # where the ray gains less than the step promises up to there, take the step
        t = min(1.0, AHEAD / as_point(it.points[after(s.now)]).step)
        promised = -t * s.slope + t * t * (s.decrease + s.slope)
        by = 0.5 * min(1.0, max(0.0, promised - noise(here)) / here.fun)
    if falls_ahead(image, unit, by, problem, it, work):
        t, rises = lowest_behind(image, unit, problem, it, work)
        if t == 0.0:
            return ON_A_RAY if rises else NO_RAY
    else:
        t = falls_beside(image, unit, problem, it, work) if (s.converges or event == SINGULAR_STEPS) and unit > ROUNDING else 0.0
        if t == 0.0:
            return NO_RAY
    move_along(image, t, problem, it, work, records[s.steps])
    return verdict_at(it.points[s.now], work.link)


@serial
def advance(what, problem, flat_image, it, work, records):
    """Iterate once for each row of `records` unless the solve ends (or DERIVE, or PROPOSED, see iteration.py); returns the verdict.

    One function, so that it is compiled once: for PROPOSED, A may have no rows, which is how other layouts call it. Then `flat_image` is empty
    unless the verdict before was NEEDS_IMAGE.
    """
    s = as_iteration(it.state)
    s.steps = s.derivatives = s.evaluations = s.passes = 0
    held = False  # whether an event held back the step that is now taken
    while True:  # twice at most; a loop, so that `iterate` is inlined only once
        rows = records[s.steps : s.steps + 1] if held else records
        event = iterate(what, problem, it, work, rows)
        if event == STEPPED or held:
            break
        if event == NOT_FINITE:
            return NONFINITE
        if event == INEXACT:
            return NEEDS_EXACT
        if event == SINGULAR:
            return NEEDS_NULL_SPACE
        if event == NO_STEP:
            return NO_DESCENT
        falls = event == LONG_STEPS and s.min_eig < -NEGLIGIBLE_CURVATURE * s.largest  # b may be so large that the loss does not show it
        hopeless = event in (SATURATED, LONG_STEPS) and s.decrease <= noise(as_point(it.points[s.now])) and not falls
        if hopeless and (work.link.high == 0.0 or spread(it.a[s.now]) <= 1.0):
            return MINIMUM  # identical rows, or a linear u: f is constant
        if event == SINGULAR_STEPS and problem.A.shape[0] == 0 and flat_image.shape[0] == 0:
            return NEEDS_IMAGE
        if event in (LONG_STEPS, SINGULAR_STEPS, SATURATED):
            ray = follow_ray(event, problem, flat_image, it, work, records)
            if ray != NO_RAY:
                return ray
        if event == SINGULAR_STEPS and s.converges and leads_to_pole(as_point(it.points[s.now])) and work.link.high > 0.0:
            return NEAR_POLE
        if event == SATURATED:
            return SATURATED_ROWS
        held = True
        what = TAKE_LAST if what == ITERATE and s.converges else TAKE
    if what == DERIVE:
        return GO_ON
    verdict = verdict_at(it.points[s.now], work.link)
    if held and s.converges:
        return verdict if verdict != GO_ON else MINIMUM
    return NO_DESCENT if event == NO_STEP else verdict


loss_along_serial = serial_twin(loss_along)
falls_ahead_serial = serial_twin(falls_ahead)
lowest_behind_serial = serial_twin(lowest_behind)
falls_beside_serial = serial_twin(falls_beside)
move_along_serial = serial_twin(move_along)
follow_ray_serial = serial_twin(follow_ray)
advance_serial = serial_twin(advance)
