"""From iterations to a verdict: what their events come to.

Where the infimum is not attained, the loss falls for ever along a ray x + t p on which rows saturate: with an intercept, f
tends to the plain softmax as exp(a) outgrows a; for a one-hot b, to b itself. It then has an exponential tail, on which
Newton's method takes steps of constant length for ever. So a suspect step is followed for a while before it is believed.
"""

import numpy as np

from ..compiling.jit import part, serial, serial_twin
from ..cpu.fold import POINT_FUN, POINT_STEP, noise
from ..dense import evaluate, products
from .iteration import (
    CONVERGES,
    DECREASE,
    DERIVATIVES,
    DERIVE,
    DERIVED,
    EVALUATIONS,
    ITERATE,
    LARGEST,
    LONG_STEPS,
    MIN_EIG,
    NO_STEP,
    NOISE_STEP,
    NOT_FINITE,
    NOW,
    PASSES,
    RADIUS,
    SATURATED,
    SINGULAR,
    SINGULAR_STEPS,
    SLOPE,
    STEPPED,
    STEPS,
    TAKE,
    TAKE_LAST,
    after,
    is_exact,
    is_near_pole,
    iterate,
    record,
)
from .trust_region import NEGLIGIBLE_CURVATURE

# What an advance comes to.
(
    GO_ON,
    NEEDS_NULL_SPACE,  # that of A; then once more
    NEEDS_IMAGE,  # A times the direction in it.flattest, where A is not there; then once more
    MINIMUM,
    EXACT_FIT,
    NEAR_POLE,  # the infimum is where alpha vanishes
    ON_A_RAY,  # it is at the end of a ray
    SATURATED_ROWS,  # the Hessian is rounding
    NO_DESCENT,
    NONFINITE,
) = range(10)
NO_RAY = -1

AHEAD = 64  # units looked at ahead on a ray, one by one; a unit makes max |A p| = 1
BEHIND = 64  # and behind, by quarters
DOUBLED = 17  # times that a short step may be, up to as far
ROUNDING = 1e-10  # max |A p| of a unit vector p, columns of unit RMS, that lies in the null space of A


@serial
def verdict_at(point, norm_b, link):
    """What needs no derivatives: EXACT_FIT, NEAR_POLE or GO_ON."""
    if is_exact(point, norm_b):
        return EXACT_FIT
    if is_near_pole(point) and link.high > 0.0:  # a linear u is then no more than a long way from its minimum
        return NEAR_POLE
    return GO_ON


@serial
def is_penalised(image, w, unit):
    """Whether 1/2 ||w * a||^2 grows without end along a ray."""
    grows = False
    for i in range(w.shape[0]):
        grows = grows or (w[i] > 0.0 and abs(image[i]) > ROUNDING * unit)
    return grows


@part
def falls_ahead(image, unit, by, b, w, it, work):
    """Whether the loss never rises on the ray as far as we look, and is less by this part of itself at the end.

    `unit` of the direction makes max |A p| = 1; where A p is rounding there is no ray.
    """
    s, now = it.scalars, int(it.scalars[NOW])
    here = it.points[now]
    falls, lowest, tau = unit > ROUNDING and not is_penalised(image, w, unit), here[POINT_FUN], 1
    while falls and tau <= AHEAD:
        s[EVALUATIONS] += 1.0
        fun = evaluate(work.link, it.a[now], image, tau / unit, b, w, work.a, work.sums, work.point)
        falls = fun <= lowest + noise(here)
        lowest = min(lowest, fun)
        tau += 1
    return falls and lowest <= (1.0 - by) * here[POINT_FUN]


@part
def lowest_behind(image, unit, b, w, it, work):
    """The t < 0 with a clearly lower loss than here, or 0: a ray may have been entered by one long step over the minimum.

    Also whether the loss rises anywhere behind: else it is constant on the whole line. Looks no further than the pole.
    """
    s, now = it.scalars, int(it.scalars[NOW])
    here, error = it.points[now, POINT_FUN], 10.0 * noise(it.points[now])
    best, lowest, rises = 0.0, here - error, False
    for quarters in range(1, 4 * BEHIND + 1):
        t = -0.25 * quarters / unit
        s[EVALUATIONS] += 1.0
        fun = evaluate(work.link, it.a[now], image, t, b, w, work.a, work.sums, work.point)
        if not fun < np.inf:  # a pole proves nothing: the loss may be constant up to it
            break
        rises = rises or fun > here + error + 10.0 * noise(work.point)  # which far away may be more than here
        if fun < lowest:
            best, lowest = t, fun
    return best, rises


@part
def falls_beside(image, unit, tol, b, w, it, work):
    """The t of the lowest loss among short steps both ways, doubled while it falls, or 0 where none is lower by more than tol and rounding.

    A short step has max |A p| = 1e-3: the model cannot tell a slightly negative curvature from 0, but the loss may.
    """
    s, here = it.scalars, it.points[int(it.scalars[NOW])]
    best, lowest = 0.0, (1.0 - tol) * here[POINT_FUN] - noise(here)
    for way in range(-1, 2, 2):
        t = way * NOISE_STEP / unit
        for _ in range(DOUBLED):
            s[EVALUATIONS] += 1.0
            fun = evaluate(work.link, it.a[int(s[NOW])], image, t, b, w, work.a, work.sums, work.point)
            if not fun < lowest:
                break
            best, lowest = t, fun
            t *= 2.0
    return best


@part
def move_along(image, t, b, w, scale, it, work, row):
    """Move to x + t times the direction in it.flattest, and forget the radius."""
    s, now = it.scalars, int(it.scalars[NOW])
    ahead = after(now)
    s[EVALUATIONS] += 1.0
    evaluate(work.link, it.a[now], image, t, b, w, it.a[ahead], work.sums, it.points[ahead])
    it.points[ahead, POINT_STEP] *= abs(t)
    s[DECREASE] = it.points[now, POINT_FUN] - it.points[ahead, POINT_FUN]
    record(it.points[now], it.points[ahead], s[RADIUS], s, row)
    for i in range(it.x.shape[0]):
        it.before[i] = it.x[i]
        it.x[i] += t * it.flattest[i] / scale[i]
    s[RADIUS], s[NOW], s[DERIVED] = 1.0, ahead, 0.0
    s[STEPS] += 1.0


@part
def follow_ray(event, A, flat_image, b, w, scale, tol, norm_b, it, work, records):
    """What the ray that an event suggests comes to: ON_A_RAY, the verdict after a step back over it or beside what is no minimum, else NO_RAY.

    Leaves the direction, of scaled columns, in it.flattest. An A without rows is not there: `flat_image` is then A times that direction.
    """
    s, now = it.scalars, int(it.scalars[NOW])
    image, unit, by = it.da, 0.0, 0.0
    if event == LONG_STEPS:
        it.flattest[:] = it.p
        unit = largest(image)
    elif event == SINGULAR_STEPS:
        image = flat_image
        if A.shape[0] > 0:
            image, along = np.empty_like(it.da), np.empty_like(it.x)  # n more numbers, once in a solve: the step in it.da may yet be taken
            for i in range(along.shape[0]):
                along[i] = it.flattest[i] / scale[i]
            products(A, along, image, work.buffers)
            s[PASSES] += 1.0
        unit = largest(image)
    elif event == SATURATED:  # the step may be noise, but x itself has the direction of the ray by now: look as far as 2 x
        for i in range(it.x.shape[0]):
            it.flattest[i] = it.x[i] * scale[i]
        image, unit, by = it.a[now], float(AHEAD), 0.5
    if event != SATURATED and s[CONVERGES] == 0.0:  # on a ray that gives less than the step promises up to there, rather take the step
        t = min(1.0, AHEAD / it.points[after(now), POINT_STEP])
        promised = -t * s[SLOPE] + t * t * (s[DECREASE] + s[SLOPE])
        by = 0.5 * min(1.0, max(0.0, promised - noise(it.points[now])) / it.points[now, POINT_FUN])
    if falls_ahead(image, unit, by, b, w, it, work):
        t, rises = lowest_behind(image, unit, b, w, it, work)
        if t == 0.0:
            return ON_A_RAY if rises else NO_RAY
    else:
        t = falls_beside(image, unit, tol, b, w, it, work) if s[CONVERGES] > 0.0 and unit > ROUNDING else 0.0
        if t == 0.0:
            return NO_RAY
    move_along(image, t, b, w, scale, it, work, records[int(s[STEPS])])
    return verdict_at(it.points[int(s[NOW])], norm_b, work.link)


@serial
def largest(a):
    """max |a|."""
    top = 0.0
    for i in range(a.shape[0]):
        top = max(top, abs(a[i]))
    return top


@serial
def spread(a):
    """max a - min a."""
    low, high = a[0], a[0]
    for i in range(a.shape[0]):
        low, high = min(low, a[i]), max(high, a[i])
    return high - low


@serial
def advance(what, A, flat_image, b, w, scale, null, null_is_known, tol, norm_b, it, work, records):
    """Iterations, one for each row of `records` unless the solve ends (or DERIVE, or PROPOSED, see iteration.py): what they come to.

    One function, so that it is compiled once: for PROPOSED, A may have no rows, as other layouts than this one do. Then `flat_image` is empty
    unless NEEDS_IMAGE was the verdict before.
    """
    s = it.scalars
    s[STEPS] = s[DERIVATIVES] = s[EVALUATIONS] = s[PASSES] = 0.0
    held = False  # whether an event held back the step that is now taken
    while True:  # twice at most; a loop, for `iterate` is spliced in and should be so once
        rows = records[int(s[STEPS]) : int(s[STEPS]) + 1] if held else records
        event = iterate(what, A, b, w, scale, null, null_is_known, tol, norm_b, it, work, rows)
        if event == STEPPED or held:
            break
        if event == NOT_FINITE:
            return NONFINITE
        if event == SINGULAR:
            return NEEDS_NULL_SPACE
        if event == NO_STEP:
            return NO_DESCENT
        now = int(s[NOW])
        falls = event == LONG_STEPS and s[MIN_EIG] < -NEGLIGIBLE_CURVATURE * s[LARGEST]  # b may be so large that the loss does not show it
        hopeless = event in (SATURATED, LONG_STEPS) and s[DECREASE] <= noise(it.points[now]) and not falls
        if hopeless and (work.link.high == 0.0 or spread(it.a[now]) <= 1.0):
            return MINIMUM  # rows that differ in nothing, or a linear u: f is constant
        if event == SINGULAR_STEPS and A.shape[0] == 0 and flat_image.shape[0] == 0:
            return NEEDS_IMAGE
        if event in (LONG_STEPS, SINGULAR_STEPS, SATURATED):
            ray = follow_ray(event, A, flat_image, b, w, scale, tol, norm_b, it, work, records)
            if ray != NO_RAY:
                return ray
        if event == SATURATED:
            return SATURATED_ROWS
        held = True
        what = TAKE_LAST if what == ITERATE and s[CONVERGES] > 0.0 else TAKE
    if what == DERIVE:
        return GO_ON
    verdict = verdict_at(it.points[int(s[NOW])], norm_b, work.link)
    if held and s[CONVERGES] > 0.0:
        return verdict if verdict != GO_ON else MINIMUM
    return NO_DESCENT if event == NO_STEP else verdict


falls_ahead_serial = serial_twin(falls_ahead)
lowest_behind_serial = serial_twin(lowest_behind)
falls_beside_serial = serial_twin(falls_beside)
move_along_serial = serial_twin(move_along)
follow_ray_serial = serial_twin(follow_ray)
advance_serial = serial_twin(advance)
