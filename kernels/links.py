"""The link: u as a function of a, chosen by its type when a kernel is compiled.

    rsx       u = exp(a) + a    u' = exp(a) + 1    u'' = exp(a)    M = max(0, max a)
    softmax   u = exp(a)        u' = exp(a)        u'' = exp(a)    M = max a
    linear    u = a             u' = 1             u'' = 0         M = 0

u, u' and u'' are taken times exp(-M), M = max(low, max a) but at most `high`; kernels call u' v and u'' e.
"""

import math
from typing import NamedTuple

from numba.extending import overload

from .exp import exp
from .simd import absolute, fma, splat


class Rsx(NamedTuple):
    """Residual block and softmax."""

    low: float = 0.0
    high: float = math.inf


class Softmax(NamedTuple):
    """The exponential alone."""

    low: float = -math.inf
    high: float = math.inf


class Linear(NamedTuple):
    """The residual alone."""

    low: float = 0.0
    high: float = 0.0


LINKS = {"rsx": Rsx(), "softmax": Softmax(), "linear": Linear()}


def terms(link, a, shift, k):
    """u, u', u'' and the size of the summands of u, each times k = exp(-shift), of eight lanes a."""
    raise NotImplementedError("compiled only")


@overload(terms)
def _terms(link, a, shift, k):
    def rsx(link, a, shift, k):
        e = exp(a - shift)
        return fma(k, a, e), e + k, e, fma(k, absolute(a), e)

    def softmax(link, a, shift, k):
        e = exp(a - shift)
        return e, e, e, e

    def linear(link, a, shift, k):
        return a, splat(1.0), splat(0.0), absolute(a)

    return {Rsx: rsx, Softmax: softmax, Linear: linear}[link.instance_class]
