"""A prediction of alpha and s at x + p, for a step in one read (docs/theory.md, "A step in one read").

With ~ for "over the predicted alpha", rho = <f~, 1> and delta = 1/rho - 1: alpha = rho alpha~; centred.py corrects the sums.
"""

import math
from typing import Any, NamedTuple

from ..compiling.jit import formula
from ..registers.simd import absolute, fma
from .records import Curvatures


class Sampled(NamedTuple):
    """Sums over sampled rows, as on a line through x: <u, 1>, <u, u> and <u, b>, in units of alpha."""

    alpha: Any
    uu: Any
    ub: Any


@formula
def growth_ahead(slope):
    """alpha at the end of a step relative to alpha here, from its slope there: 1 + slope, but for slopes below -1/2 a curve that stays positive."""
    return 1.0 + slope if slope > -0.5 else 0.5 * math.exp(2.0 * slope + 1.0)


@formula
def s_ahead(s, ff, slope, qp):
    """s at the end of a step, from <q, p> and the slope <v, p> of log(alpha)."""
    return s + qp - 0.5 * ff * slope


@formula
def add_sampled(sums, u, b):
    """The sums with one more row."""
    return Sampled(sums.alpha + u, fma(u, u, sums.uu), fma(u, b, sums.ub))


@formula
def add_sampled_slope(sums, u, vz, b):
    """The slopes of the sums with one more row, which moves by z."""
    return Sampled(sums.alpha + vz, fma(u + u, vz, sums.uu), fma(vz, b, sums.ub))


@formula
def s_of(sums):
    """s = <u, u>/alpha^2 - <u, b>/alpha."""
    return (sums.uu / sums.alpha - sums.ub) / sums.alpha


@formula
def s_slope(sums, slopes):
    """Its slope."""
    return (slopes.uu / sums.alpha - slopes.ub - slopes.alpha * (2.0 * sums.uu / sums.alpha - sums.ub) / sums.alpha) / sums.alpha


@formula
def add_curvature(sums, h, e, b, over_alpha):
    """The sums with one more row."""
    bend = e * over_alpha
    return Curvatures(sums.weights + absolute(h), sums.bends + bend, fma(bend, absolute(b), sums.bends_b))


@formula
def weights_error(sums, delta, s, predicted_s, scaled):
    """A bound on the sum of errors of the predicted weights, which are multiplied by (1 + delta)^2 if `scaled`.

    h - (1 + delta)^2 h~ = 2 (1 + delta) e~ (delta b + (1 + delta) s~ - s).
    """
    grown = 1.0 + delta
    error = 2.0 * grown * (abs(delta) * sums.bends_b + abs(grown * predicted_s - s) * sums.bends)
    return error if scaled else error + abs(grown * grown - 1.0) * sums.weights
