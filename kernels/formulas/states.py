"""States: how sums over rows follow M as it grows.

Rows are summed before M = max m(a) is known: sums are held times exp(-M) of the rows so far, and rescaled when M grows.
"""

import math

from ..compiling.jit import formula
from ..registers.exp import exp
from ..registers.simd import maximum, splat


@formula
def over_exp(shift):
    """k = exp(-M), in every lane. A link whose M may be below 0 does not use it, because there it might overflow."""
    return exp(-maximum(splat(shift), splat(0.0)))


@formula
def rescale(before, shift):
    """exp(M before - M); 0 before any row."""
    return math.exp(before - shift) if before > -math.inf else 0.0


@formula
def rescaled(factor, x):
    """factor x, where a factor 0 drops even an inf."""
    return factor * x if factor > 0.0 else 0.0


@formula
def rescaled_sums(factor, v, vu, vb):
    """The same of A^T v^, A^T (v^ u^) and A^T (v^ b): the second has exp(-M) twice."""
    return rescaled(factor, v), rescaled(factor * factor, vu), rescaled(factor, vb)


@formula
def kappa(magnitude, alpha):
    """How much of alpha > 0 cancels: the sum of the sizes of its summands, divided by alpha."""
    return magnitude / alpha
