"""Steps: the rounding of a loss, the test for the last step, and the next trust radius."""

import math

import numpy as np

from ..compiling.jit import formula

EPS = float(np.finfo(np.float64).eps)
SUMS_ROUNDING = 16  # eps, of f where a is small: 0.5 to 7 were measured
MOST_SHIFT = 1e4  # beyond, rounding in a leaves f no useful digits

NEAR_POLE = 1e6  # kappa
FLAT = 1e-6  # a model decrease, relative to L, or a residual, relative to b, that makes a long step suspect
NOISE_STEP = 1e-3  # a step that small is good enough once the decrease is noise
SHRINK, GROW = 0.25, 0.75  # of the decrease that the model promised, for the radius


@formula
def rounding(point):
    """The relative error of f: of its sums, and of a, which is near M in the rows that matter."""
    return (SUMS_ROUNDING + min(abs(point.shift), MOST_SHIFT)) * EPS


@formula
def noise(point):
    """The rounding error of L: a relative error of f, times 2 c in the squares of c = f - b, and squared."""
    error = rounding(point)
    return error * (point.fun + 2.0 * math.sqrt(point.squares * point.ff) + error * point.ff)


@formula
def is_exact(point, norm_b):
    """An exact fit: c is rounding."""
    return math.sqrt(point.squares) <= rounding(point) * norm_b and point.fun == point.squares


@formula
def is_near_pole(point):
    """alpha has lost six digits to cancellation."""
    return point.kappa > NEAR_POLE


@formula
def is_negligible(decrease, long, tol, point):
    """Whether a full Newton step is the last: it promises less than tol, or than the noise."""
    small = decrease <= tol * point.fun and long <= math.sqrt(tol)
    return small or (decrease <= noise(point) and long <= NOISE_STEP)


@formula
def is_flat(decrease, point, norm_b):
    """Whether there is so little to gain that a long step is suspect."""
    return decrease <= FLAT * point.fun or math.sqrt(point.squares) <= FLAT * norm_b


@formula
def may_cross(start, end):
    """Whether alpha may vanish on a step, by its slopes at both ends divided by alpha there: a convex alpha lies above its tangents."""
    if 1.0 + start > 0.0 or end <= 0.0:
        return False
    # In units of alpha at the start, its tangent there is 1 + start t, and the tangent at the end is 0 at t = 1 - 1/end.
    return 1.0 + start * (1.0 - 1.0 / end) <= 0.0


@formula
def next_radius(radius, ratio, length):
    """The trust radius after a step of that length, whose decrease was `ratio` times what the model promised."""
    if not ratio >= SHRINK:
        return SHRINK * length
    if ratio > GROW and length > 0.9 * radius:
        return 2.0 * length
    return radius
