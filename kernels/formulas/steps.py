"""Steps: the rounding of a loss and of a Hessian, the test for the last step, and the next trust radius.

With eps the rounding of a number, u_i = e_i + a_i is off by a few eps (e_i + |a_i|) from its sum, and by eps |a_i| v_i from a_i, which is near M
where v_i matters. So alpha is off by a few eps kappa alpha, kappa = sum(e + |a|)/alpha, and f = u/alpha by

    ||df|| <= error ||f||,    error = (SUMS_ROUNDING kappa + |M|) eps.

L = ||c||^2 is then off by 2 ||c|| ||df|| + ||df||^2. Where it is no more than that, c is rounding. The weights h of the Hessian are products of u,
v and e over alpha or alpha^2, so H = G - R, a Gram matrix and a rank-2 term, is off by about error (||G|| + ||R||), however far G and R cancel.

Near the pole, ||G|| grows as kappa^2, but the curvature towards the pole stays that of a loss with a limit there. So it is smaller than the
rounding of H once 1 <= SUMS_ROUNDING eps kappa^3: from there on, no derivative tells a minimum from a loss that falls until alpha is 0.
"""

import math

import numpy as np

from ..compiling.jit import formula

EPS = float(np.finfo(np.float64).eps)
SUMS_ROUNDING = 16  # eps, of f where a is small and alpha does not cancel: 0.5 to 7 were measured
MOST_SHIFT = 1e4  # beyond, rounding in a leaves f no useful digits

NEAR_POLE = (SUMS_ROUNDING * EPS) ** (-1 / 3)  # kappa: 6.6e4
TOWARDS_POLE = 1e3  # kappa
FLAT = 1e-6  # a model decrease, relative to L, or a residual, relative to b, that makes a long step suspect
NOISE_STEP = 1e-3  # a step that small is good enough once the decrease is noise
SHRINK, GROW = 0.25, 0.75  # of the decrease that the model promised, for the radius


@formula
def rounding(point):
    """The relative error of f."""
    return (SUMS_ROUNDING * min(point.kappa, NEAR_POLE) + min(abs(point.shift), MOST_SHIFT)) * EPS


@formula
def noise(point):
    """The rounding error of L: a relative error of f, times 2 c in the squares of c = f - b, and squared."""
    error = rounding(point)
    return error * (point.fun + 2.0 * math.sqrt(point.squares * point.ff) + error * point.ff)


@formula
def is_exact(point):
    """An exact fit: the loss is rounding."""
    return point.squares <= noise(point) and point.fun == point.squares


@formula
def is_near_pole(point):
    """Rounding hides the curvature towards the pole."""
    return point.kappa > NEAR_POLE


@formula
def leads_to_pole(point):
    """alpha has lost so many digits that a Hessian without a clear curvature has none towards the pole, where that of a minimum is 1/kappa^2."""
    return point.kappa > TOWARDS_POLE


@formula
def is_negligible(decrease, long, tol, point):
    """Whether a full Newton step is the last: it promises less than tol, or than the noise.

    Near the pole the noise without kappa counts: the promise is a square of the gradient, so it keeps digits that the loss has lost.
    """
    small = decrease <= tol * point.fun and long <= math.sqrt(tol)
    return small or (decrease * point.kappa <= noise(point) and long <= NOISE_STEP)


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
