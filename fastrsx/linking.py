"""The link: u as a function of a = A x, one of three by name or the user's own."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from fastrsx.kernels.formulas import links
from fastrsx.kernels.formulas.links import Traits as Traits

from . import inputs

STEP = 1e-3  # of the five-point difference, times max(1, |a|)
SHIFT = 2.5  # any shift but 0, to check that the triple follows it
TOLERANCE = 1e-7  # of the derivatives, relative
FAR, HUGE = (-700.0, -50.0, 50.0, 700.0), 1e100  # where exp(-M) must keep u bounded, and the bound


_jitted: dict[Any, Any] = {}
_links: dict[tuple[Any, Any], Any] = {}


def _compiled(function: Any) -> Any:
    """One compiled function for each Python function, whichever thread comes first."""
    if isinstance(function, Dispatcher):
        return function
    return _jitted.get(function) or _jitted.setdefault(function, njit(error_model="numpy")(function))


def _kernel_link(terms: Any, growth: Any) -> Any:
    """One link for each pair of compiled functions: kernels are compiled for it, not for a `Link`."""
    key = terms, growth
    return _links.get(key) or _links.setdefault(key, links.make_link(terms, growth))


class Link:
    """A link of your own: u = u(a), a = A x, in place of exp(a) + a.

    Parameters
    ----------
    terms : callable
        (a, M) -> (u, u', u'') exp(-M), in code that Numba compiles (a plain function is compiled here). Written with + - * /, abs and
        `fastrsx.kernels.exp.exp` alone it compiles for registers and runs on eight rows at a time, else for numbers, row by row; there the
        exponential is `math.exp`. It is called with a = 0 too, where n is no multiple of eight.
    growth : callable, optional
        m(a), with u, u' and u'' no larger than a moderate multiple of exp(m); M is its maximum over the rows. By default m = 0, for a u that
        does not overflow.

    Notes
    -----
    alpha = <u, 1> > 0 is the domain, and x = 0 must lie in it unless you pass an x0. Where u is not convex, a long step may
    pass over a pole of f without being noticed. Kernels are compiled for each link in each process: the disk cache cannot
    know what your function calls.

    Examples
    --------
    Softplus, log(1 + exp(a)), which does not overflow before a does:

    >>> import math, numpy as np, fastrsx
    >>> def softplus(a, M):
    ...     p = 1.0 / (1.0 + math.exp(-a))
    ...     k = math.exp(-M)
    ...     return (max(a, 0.0) + math.log1p(math.exp(-abs(a)))) * k, p * k, p * (1.0 - p) * k
    >>> link = fastrsx.Link(softplus)
    >>> fastrsx.check_link(link).vectorised
    False
    """

    def __init__(self, terms: Any, growth: Any = None) -> None:
        for name, function in (("terms", terms), ("growth", growth)):
            if not (callable(function) or (name == "growth" and function is None)):
                raise TypeError(f"{name} is {function!r}; it must be a function that Numba can compile")
        self.terms, self.growth = terms, growth

    @property
    def compiled(self) -> Any:
        """The link as kernels take it, such as `fastrsx.kernels.dense.alloc_workspace(n, d, hessian, link.compiled)`."""
        return _kernel_link(_compiled(self.terms), None if self.growth is None else _compiled(self.growth))

    def __reduce__(self) -> tuple[Any, ...]:
        return Link, (self.terms, self.growth)

    def __repr__(self) -> str:
        name = getattr(self.terms, "__name__", repr(self.terms))
        return f"Link({name}{'' if self.growth is None else ', ' + getattr(self.growth, '__name__', repr(self.growth))})"


def as_link(link: Any) -> str | Link:
    """One of the names, or a Link."""
    return link if isinstance(link, Link) else inputs.as_choice("link", link, tuple(links.LINKS))


def kernel_link(link: str | Link) -> Any:
    """The same as the kernels take it."""
    return links.LINKS[link] if isinstance(link, str) else link.compiled


class LinkCheck(NamedTuple):
    """The findings of `check_link`.

    Attributes
    ----------
    first, second : float
        The largest errors of u' and u'', against differences of u and u', relative to ``1 + |u| + |u'| + |u''|``.
    shift : float
        The largest relative error of the triple at M = 2.5, against exp(-2.5) times that at M = 0; 0 where M is always 0.
    vectorised : bool
        Whether the link runs on eight rows at a time.
    """

    first: float
    second: float
    shift: float
    vectorised: bool


def check_link(link: Any, a: Any = None) -> LinkCheck:
    """Check the derivatives of a link against differences, and that it follows its shift M.

    Parameters
    ----------
    link : {"rsx", "softmax", "linear"} or Link
    a : (k,) array_like, optional
        Where to look, away from kinks of u and where u does not overflow; by default 101 points in [-5, 5].

    Returns
    -------
    LinkCheck
        The errors.

    Raises
    ------
    ValueError
        Where an error is beyond 1e-7, or where exp(-M) at M = m(a) does not tame u for a = +-700; the message says which, where and by how much.
    TypeError
        Where Numba cannot compile the functions, with its message.

    Examples
    --------
    >>> import fastrsx
    >>> from fastrsx.kernels.exp import exp
    >>> def cosh(a, M):
    ...     up, down = 0.5 * exp(a - M), 0.5 * exp(-a - M)
    ...     return up + down, up - down, up + down
    >>> check = fastrsx.check_link(fastrsx.Link(cosh, growth=lambda a: abs(a)))
    >>> check.vectorised, max(check[:3]) < 1e-10
    (True, True)
    """
    a = np.linspace(-5.0, 5.0, 101) if a is None else inputs.as_vector("a", a, np.size(a), "as given")
    link = as_link(link)
    kernel = kernel_link_checked(link)

    def table(at: np.ndarray, shift: float) -> np.ndarray:
        out = np.empty((3, at.size))
        links.tabulate(kernel, at, shift, out)
        return out

    h = STEP * np.maximum(1.0, np.abs(a))
    left2, left, here, right, right2 = (table(a + k * h, 0.0) for k in (-2, -1, 0, 1, 2))
    slopes = (8 * (right - left) - (right2 - left2)) / (12 * h)
    size = 1 + np.abs(here).sum(axis=0)
    shift = 0.0 if isinstance(link, Link) and link.growth is None else min(SHIFT, kernel.high)  # those that M can be
    shifted = table(a, shift)
    errors = {
        "u' is not the derivative of u": np.abs(here[1] - slopes[0]) / size,
        "u'' is not the derivative of u'": np.abs(here[2] - slopes[1]) / size,
        "the triple is not that at M = 0 times exp(-M)": np.abs(shifted * np.exp(shift) - here).max(axis=0) / size,
    }
    for what, error in errors.items():
        if not error.max() <= TOLERANCE:  # so also for NaN
            i = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
            raise ValueError(f"link: {what}: off by {error[i]:.2g}, relative, at a = {a[i]:.6g}")
    for value in FAR:
        at = np.array([value])
        top = links.largest_growth(kernel, at)
        largest = np.abs(table(at, top)).max()
        if not largest <= HUGE:
            raise ValueError(
                f"link: (u, u', u'') exp(-M) at a = {value:g}, M = m(a) = {top:.6g}, is as large as {largest:.2g}; growth must say how fast u grows"
            )
    first, second, shifting = (float(error.max()) for error in errors.values())
    return LinkCheck(first, second, shifting, getattr(type(kernel), "vectorised", True))


def kernel_link_checked(link: str | Link) -> Any:
    """`kernel_link`, after checking that Numba compiles it."""
    kernel = kernel_link(link)
    try:
        links.largest_growth(kernel, np.zeros(1))
        links.tabulate(kernel, np.zeros(1), 0.0, np.empty((3, 1)))
    except NumbaError as error:
        raise TypeError(f"link: Numba cannot compile {link!r}: {error}") from None
    return kernel
