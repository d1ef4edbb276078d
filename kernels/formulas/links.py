"""The link: u as a function of a, chosen by its type when a kernel is compiled.

    rsx       u = exp(a) + a    u' = exp(a) + 1    u'' = exp(a)    M = max(0, max a)
    softmax   u = exp(a)        u' = exp(a)        u'' = exp(a)    M = max a
    linear    u = a             u' = 1             u'' = 0         M = 0

u, u' and u'' are taken times exp(-M), M = max(low, max m(a)) but at most `high`, m(a) = a; kernels call u' v and u'' e. A link of
the user's own brings its functions of a, and is also a type of its own. A new link here is a class and its name in LINKS.
"""

import itertools
import math
from typing import NamedTuple

from numba.core import types
from numba.core.errors import NumbaError
from numba.extending import overload

from ..compiling.jit import serial
from ..registers.exp import exp
from ..registers.simd import LANES, absolute, f64x8, fma, lane, load_first, splat, store_first, with_lane


class Traits(NamedTuple):
    """The properties of a link that solvers need."""

    flat_along_x: bool = False  # f does not depend on the length of x: there is no minimum in that direction, and x = 0 is a pole
    blind_to_shifts: bool = False  # f does not change with a constant added to A x
    may_fit_at_infinity: bool = False  # with a constant that grows, f tends to the softmax, see fastrsx.steps.limits


class Rsx(NamedTuple):
    """Residual block and softmax."""

    low: float = 0.0
    high: float = math.inf

    @property
    def traits(self):
        return Traits(may_fit_at_infinity=True)

    @staticmethod
    def terms(link, a, shift, k):
        e = exp(a - shift)
        return fma(k, a, e), e + k, e, fma(k, absolute(a), e)


class Softmax(NamedTuple):
    """The exponential alone."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def traits(self):
        return Traits(blind_to_shifts=True)

    @staticmethod
    def terms(link, a, shift, k):
        e = exp(a - shift)
        return e, e, e, e


class Linear(NamedTuple):
    """The residual alone."""

    low: float = 0.0
    high: float = 0.0

    @property
    def traits(self):
        return Traits(flat_along_x=True)

    @staticmethod
    def terms(link, a, shift, k):
        return a, splat(1.0), splat(0.0), absolute(a)


RSX = Rsx()
LINKS = {"rsx": RSX, "softmax": Softmax(), "linear": Linear()}


def terms(link, a, shift, k):
    """u, u', u'' and the size of the summands of u, each times k = exp(-shift), of eight lanes a."""
    raise NotImplementedError("compiled only")


def growth(link, a):
    """m(a) of eight lanes: u grows no faster than exp(m)."""
    raise NotImplementedError("compiled only")


@overload(terms)
def _terms(link, a, shift, k):
    return link.instance_class.terms


@overload(growth)
def _growth(link, a):
    return getattr(link.instance_class, "growth", lambda link, a: a)


# -- a link of the user's own ---------------------------------------------------------------------------------


def is_vectorised(function, count, result):
    """Whether a jitted function of registers compiles, and to this type: it then uses only + - * / and the functions of `exp` and `simd`."""
    arguments = (f64x8,) * count
    try:
        function.compile(arguments)
    except (NumbaError, RuntimeError):  # the latter where it was compiled for given types only
        return False
    return function.overloads[arguments].signature.return_type == result


def terms_of(function, vectorised):
    """`terms` for a jitted function of (a, M) -> (u, u', u'') exp(-M)."""

    def on_registers(link, a, shift, k):
        u, v, e = function(a, shift)
        return u, v, e, absolute(u)

    def by_lanes(link, a, shift, k):
        u = v = e = splat(0.0)
        for i in range(LANES):
            ui, vi, ei = function(lane(a, i), lane(shift, i))
            u, v, e = with_lane(u, i, ui), with_lane(v, i, vi), with_lane(e, i, ei)
        return u, v, e, absolute(u)

    return on_registers if vectorised else by_lanes


def growth_of(function, vectorised):
    """`growth` for a jitted function m(a), or for m = 0."""

    def on_registers(link, a):
        return function(a)

    def by_lanes(link, a):
        m = splat(0.0)
        for i in range(LANES):
            m = with_lane(m, i, function(lane(a, i)))
        return m

    if function is None:
        return lambda link, a: splat(0.0)
    return on_registers if vectorised else by_lanes


class Own(NamedTuple):
    """The common part of all such links."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def traits(self):
        return Traits()


_numbers = itertools.count(1)


def make_link(function, growth):
    """The link of jitted (a, M) -> (u, u', u'') exp(-M) and m(a), None for m = 0: a type of its own.

    The disk cache identifies kernels by their own source alone, so kernels for such a link are not kept there.
    """

    fast, grows_fast = is_vectorised(function, 2, types.UniTuple(f64x8, 3)), growth is None or is_vectorised(growth, 1, f64x8)
    ours = {
        "terms": staticmethod(terms_of(function, fast)),
        "growth": staticmethod(growth_of(growth, grows_fast)),
        "functions": (function, growth),  # for a GPU, which has neither registers nor the CPU's compiled code
        "vectorised": fast and grows_fast,
        "cacheable": False,
    }
    return type(f"Custom{next(_numbers)}", (Own,), ours)()  # Numba tells types apart by name


@serial
def tabulate(link, a, shift, out):
    """The rows of out (3 x n) = u, u', u'' of a, times exp(-shift)."""
    k = splat(math.exp(-shift))
    for j in range(0, a.shape[0], LANES):
        u, v, e, _ = terms(link, load_first(a, 0, j, a.shape[0] - j), splat(shift), k)
        store_first(out, 0, j, a.shape[0] - j, u)
        store_first(out, 1, j, a.shape[0] - j, v)
        store_first(out, 2, j, a.shape[0] - j, e)


@serial
def largest_growth(link, a):
    """M of the rows a."""
    shift = link.low
    for j in range(0, a.shape[0], LANES):
        m = growth(link, load_first(a, 0, j, a.shape[0] - j))
        for i in range(min(LANES, a.shape[0] - j)):
            shift = max(shift, lane(m, i))
    return min(shift, link.high)
