"""The exponential of eight lanes: no library call, so it pipelines with the arithmetic around it."""

import math

from ..compiling.jit import serial
from .simd import add_exponent, fma, splat, where_less

LOG2_E = 1 / math.log(2)
ROUND = 1.5 * 2.0**52  # adding it rounds to an integer, left in the low bits
LN2_HIGH = float.fromhex("0x1.62e42fefa39efp-1")
LN2_LOW = float.fromhex("0x1.abc9e3b39803fp-56")
LOWEST = -708.0  # below, exp is set to 0: results stay normal numbers, and 0 is within 1e-307


@serial
def exp(x):
    """exp(x) = 2^n exp(r), |r| <= ln(2)/2 (Cody-Waite), exp(r) by its Taylor polynomial of degree 13.

    Within 1 ulp on [-708, 709]; 0 below; NaN for NaN; not for use above 709.
    """
    shifted = fma(x, splat(LOG2_E), splat(ROUND))
    n = shifted - splat(ROUND)
    r = fma(n, splat(-LN2_HIGH), x)
    r = fma(n, splat(-LN2_LOW), r)
    r2 = r * r
    # Pairs of terms, then Horner in r^2: half the latency of Horner in r.
    tail = fma(splat(1 / 6227020800), r, splat(1 / 479001600))
    tail = fma(tail, r2, fma(splat(1 / 39916800), r, splat(1 / 3628800)))
    tail = fma(tail, r2, fma(splat(1 / 362880), r, splat(1 / 40320)))
    tail = fma(tail, r2, fma(splat(1 / 5040), r, splat(1 / 720)))
    tail = fma(tail, r2, fma(splat(1 / 120), r, splat(1 / 24)))
    tail = fma(tail, r2, fma(splat(1 / 6), r, splat(0.5)))
    y = add_exponent(fma(tail, r2, r) + splat(1.0), shifted)
    return where_less(x, splat(LOWEST), splat(0.0), where_less(splat(LOWEST - 1), x, y, x))
