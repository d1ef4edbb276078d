"""The trust-region subproblem: the best step of a quadratic model within a radius."""

import math

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.finish import rank_2
from ..layouts.panel import padded
from ..registers.gram import packed_blocks
from ..registers.simd import LANES
from .cholesky import BLOCK, EPS, dot, factor, solve_transposed, solve_upper

NEGLIGIBLE_CURVATURE = 1e-10  # relative to the largest: an eigenvalue above minus this counts as not negative
CLOSE = 0.05  # relative: how far a step may miss the radius, and its model the least value
MOST_FACTORS = 60


@part
def model(g, H, p):
    """g.p + 1/2 p.H p."""
    total = 0.0
    for i in range(p.shape[0]):
        total += p[i] * (g[i] + 0.5 * dot(H[i], p, 0))
    return total


@part
def rayleigh(H, z):
    """z.H z for a unit vector: at least the smallest eigenvalue."""
    total = 0.0
    for i in range(z.shape[0]):
        total += z[i] * dot(H[i], z, 0)
    return total


@serial
def _flattest(U, z):
    """z <- a unit vector near the eigenvector of the smallest eigenvalue of U^T U, by inverse iteration; the Rayleigh quotient."""
    d = z.shape[0]
    for i in range(d):
        z[i] = 1.0 + 0.1 * (i % 7)  # has no symmetry that a problem could share
    for _ in range(3):
        solve_transposed(U, z)
        solve_upper(U, z)
        scale = 1.0 / math.sqrt(dot(z, z, 0))
        for i in range(d):
            z[i] *= scale
    curvature = 0.0
    for i in range(d):
        curvature += dot(U[i, :d], z, i) ** 2
    return curvature


@serial
def step(g, H, radius, p, z):
    """p <- the minimiser of g.p + 1/2 p.H p over ||p|| <= radius, see `step_within`."""
    d = g.shape[0]
    wide = padded(d)
    return step_within(g, H, radius, p, z, np.empty((wide, wide)), np.empty(d), np.full(BLOCK, -1.0), np.empty((packed_blocks(wide), BLOCK, LANES)))


@part
def step_within(g, H, radius, p, z, U, q, minus_one, packed):
    """p <- the minimiser of g.p + 1/2 p.H p over ||p|| <= radius (Moré and Sorensen, SIAM J. Sci. Stat. Comput. 4, 1983).

    Returns (decrease, newton, min_eig, lam): minus the model at p; whether p is the full Newton step of a positive
    semidefinite H; an estimate from above of the smallest eigenvalue of H, with z <- its unit vector; and lam. The minimiser
    has (H + lam I) p = -g, H + lam I positive semidefinite, and ||p|| = radius unless lam = 0. lam climbs by Newton's method on
    1/||p(lam)|| = 1/radius; in the hard case, where p is too short even at lam = -lam_1, an eigenvector of lam_1 supplies the rest.
    The last four arguments are room for it.
    """
    d = g.shape[0]
    size = 0.0
    low = 0.0
    for i in range(d):
        size += dot(H[i], H[i], 0)
        low = max(low, -H[i, i])
    size = math.sqrt(size)
    length_g = math.sqrt(dot(g, g, 0))
    if not size + length_g < math.inf:  # no model: without this p would keep its old contents
        p[:] = z[:] = 0.0
        return 0.0, False, 0.0, 0.0
    if size == 0.0:
        z[:] = 0.0
        z[0] = 1.0
        for i in range(d):
            p[i] = -g[i] * (radius / length_g) if length_g > 0.0 else 0.0
        return length_g * radius, length_g == 0.0, 0.0, length_g / radius
    high = length_g / radius + 1.01 * size
    negligible = NEGLIGIBLE_CURVATURE * size / math.sqrt(d)  # size / sqrt(d) is at most the largest eigenvalue
    newton = semidefinite = False
    for lam in (0.0, min(8 * d * EPS * size, negligible), negligible):  # the last two for an H that is singular in float64
        semidefinite = factor(H, lam, U, minus_one, packed)
        if semidefinite:
            break
    definite, first = semidefinite, lam
    for _ in range(MOST_FACTORS):
        if not definite:
            low = max(low, lam)
            lam = max(math.sqrt(low * high), low + 0.01 * (high - low))
            definite = factor(H, lam, U, minus_one, packed)
            continue
        for i in range(d):
            p[i] = -g[i]
        solve_transposed(U, p)
        decrease_p = dot(p, p, 0)  # ||U p||^2 of the solution
        solve_upper(U, p)
        length = math.sqrt(dot(p, p, 0))
        if semidefinite and lam == first and length <= radius:
            newton = True
            break
        if length <= (1.0 + CLOSE) * radius:
            if length >= (1.0 - CLOSE) * radius:
                break
            high = min(high, lam)
            curvature = _flattest(U, z)
            # Of the two ends of p + t z on the boundary, the nearer one has the smaller model.
            half = dot(p, z, 0)
            gap = (radius - length) * (radius + length)
            root = math.sqrt(half * half + gap)
            t = gap / (half + root) if half > 0.0 else -gap / (root - half)
            if t * t * curvature <= CLOSE * (decrease_p + lam * radius * radius):
                for i in range(d):
                    p[i] += t * z[i]
                break
            low = max(low, lam - curvature)
        else:
            low = max(low, lam)
        for i in range(d):
            q[i] = p[i]
        solve_transposed(U, q)
        lam += length * length / dot(q, q, 0) * (length - radius) / radius
        if not low < lam:
            lam = max(math.sqrt(low * high), low + 0.01 * (high - low))
        definite = factor(H, lam, U, minus_one, packed)
    _flattest(U, z)
    return -model(g, H, p), newton, rayleigh(H, z), lam


@serial
def saturation(H, v, q, scale):
    """||H|| / (||G|| + ||R||) for H = G - R, R = 2 (v q^T + q v^T) / (scale scale^T): where it is tiny, H is rounding. 1 without terms."""
    norm_h = norm_g = norm_r = 0.0
    for i in range(H.shape[0]):
        for j in range(H.shape[0]):
            subtracted = 2.0 * rank_2(v[i], q[i], v[j], q[j]) / scale[i] / scale[j]
            norm_h += H[i, j] ** 2
            norm_g += (H[i, j] + subtracted) ** 2
            norm_r += subtracted**2
    terms = math.sqrt(norm_g) + math.sqrt(norm_r)
    return math.sqrt(norm_h) / terms if terms > 0.0 else 1.0
