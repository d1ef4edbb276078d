"""Bounds that hold on a whole ball: Lipschitz constants of gradient and Hessian, and the sizes that they depend on."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import svdvals

from . import inputs
from .inputs import Vector
from .linking import Link, as_link
from .loading import chunks
from .per_group import sums_over_groups
from .problem import Problem
from .rank import triangular_factor

Logs = Any  # logarithms: a number, or an array with one for each group
SLACK = 1e-12  # relative, over rounding in a bound


class LipschitzBounds(NamedTuple):
    """Lipschitz constants of gradient and Hessian, inf beyond 1e308, and their logarithms, which never overflow.

    Attributes
    ----------
    gradient, hessian : float
    log_gradient, log_hessian : float
    """

    gradient: float
    hessian: float
    log_gradient: float
    log_hessian: float


class _Bounded(NamedTuple):
    """A function of x with |g(x)| <= exp(size) and |g(x) - g(y)| <= exp(slope) ||x - y||; sums and products are of the same kind."""

    size: Logs
    slope: Logs

    def plus(self, other: "_Bounded") -> "_Bounded":
        return _Bounded(np.logaddexp(self.size, other.size), np.logaddexp(self.slope, other.slope))

    def times(self, other: "_Bounded") -> "_Bounded":
        """|gh(x) - gh(y)| <= |g(x) - g(y)| |h(x)| + |g(y)| |h(x) - h(y)|."""
        return _Bounded(self.size + other.size, np.logaddexp(self.slope + other.size, self.size + other.slope))

    def by(self, factor: Logs) -> "_Bounded":
        """Times a constant, by its logarithm."""
        return _Bounded(self.size + factor, self.slope + factor)


class _BoundedVector(NamedTuple):
    """The same for an n-vector, in the maximum norm and in the Euclidean one."""

    most: _Bounded
    norm: _Bounded

    def plus(self, other: "_BoundedVector") -> "_BoundedVector":
        return _BoundedVector(self.most.plus(other.most), self.norm.plus(other.norm))

    def times(self, other: "_BoundedVector") -> "_BoundedVector":
        """Entry by entry: ||g * h|| is at most max |g| ||h||, and ||g|| max |h|."""
        norms = zip(self.most.times(other.norm), self.norm.times(other.most), strict=True)
        return _BoundedVector(self.most.times(other.most), _Bounded(*(np.minimum(*pair) for pair in norms)))

    def scaled(self, scalar: _Bounded) -> "_BoundedVector":
        return _BoundedVector(scalar.times(self.most), scalar.times(self.norm))

    def by(self, factor: Logs) -> "_BoundedVector":
        """Entry by entry with a constant vector, by the logarithm of its largest entry."""
        return _BoundedVector(self.most.by(factor), self.norm.by(factor))


def _squared_rows(problem: Problem) -> Vector:
    """||A_i||^2."""
    return np.concatenate([np.einsum("ij,ij->i", rows, rows) for _, rows in chunks(problem.A)])


def _each(function: Callable[[float], float], values: Any) -> Any:
    """A function of `math` of a number, or of each in an array."""
    return np.array([function(value) for value in values.tolist()]) if np.ndim(values) else function(values)


def log_of(numbers: Any) -> Any:
    return _each(lambda number: math.log(number) if number > 0 else -math.inf, numbers)


def exp_or_inf(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 709 else math.inf


def spectral_norms(problem: Problem, spectral: float) -> Any:
    """||A_t|| of the rows of each group t, from that of all rows where these are one softmax."""
    if not problem._grouped:
        return spectral
    offsets = problem._offsets.tolist()
    return np.array([svdvals(triangular_factor(problem.A[start:stop]))[0] for start, stop in pairwise(offsets)])


class _Sizes(NamedTuple):
    """What the bounds depend on: numbers, or arrays with one for each group."""

    n: Any
    radius: float
    longest: Any  # max ||A_i||
    tilt: Any  # ||A^T m||, m the multiplicities
    spectral: Logs  # log ||A||
    beta: float  # 0 where there is none
    mass: Any  # <m, 1>
    heaviest: Logs  # log max m
    norm_m: Logs  # log ||m||

    @classmethod
    def of(cls, problem: Problem, radius: float, beta: float | None, spectral: Any) -> "_Sizes":
        tiny, eps = float(np.finfo(float).tiny), float(np.finfo(float).eps)
        longest: Any
        tilt: Any
        if not problem._grouped:
            n = len(problem.b)
            longest = math.sqrt(float(_squared_rows(problem).max()) + tiny)  # squares may underflow
            tilt = math.hypot(*problem._transposed_times(np.ones(n))) + n**2 * eps * longest  # and its rounding
            return cls(n, radius, longest, tilt, log_of(spectral), beta or 0.0, n, 0.0, 0.5 * math.log(n))
        offsets = problem._offsets
        starts, sizes = offsets[:-1], np.diff(offsets)
        m = problem.multiplicity if problem.multiplicity.size else np.ones(len(problem.b))
        longest, heaviest = np.sqrt(np.maximum.reduceat(_squared_rows(problem), starts) + tiny), np.maximum.reduceat(m, starts)
        tilt = np.array([math.hypot(*row) for row in sums_over_groups(problem, m)]) + sizes**2 * eps * longest * heaviest
        norm_m = log_of(heaviest) + 0.5 * log_of(np.add.reduceat((m / np.repeat(heaviest, sizes)) ** 2, starts))
        return cls(sizes, radius, longest, tilt, log_of(spectral), beta or 0.0, np.add.reduceat(m, starts), log_of(heaviest), norm_m)

    @property
    def row(self) -> Logs:
        """log max ||A_i||."""
        return log_of(self.longest)

    @property
    def norm_1(self) -> Logs:
        """log ||1||."""
        return 0.5 * log_of(self.n)

    def constant(self, most: Logs, norm: Logs) -> _BoundedVector:
        return _BoundedVector(_Bounded(most, -math.inf), _Bounded(norm, -math.inf))

    def everywhere(self, scalar: _Bounded) -> _BoundedVector:
        """The scalar in every row."""
        return self.constant(0.0, self.norm_1).scaled(scalar)

    def m(self) -> _BoundedVector:
        return self.constant(self.heaviest, self.norm_m)

    def ma(self) -> _BoundedVector:
        reach = math.log(self.radius)
        return _BoundedVector(_Bounded(reach + self.row, self.row), _Bounded(reach + self.spectral, self.spectral)).by(self.heaviest)


def _of_rsx(sizes: _Sizes) -> tuple[_BoundedVector, ...]:
    """u, v and e over alpha, for u = e + m a and v = e + m, e = m exp(a)."""
    radius, spectral = sizes.radius, sizes.spectral
    mean = radius * sizes.tilt / sizes.mass
    beta = log_of(np.maximum(sizes.beta, sizes.mass * (_each(math.exp, -mean) - mean - SLACK)))
    total = np.logaddexp(0.0, math.log(radius) + log_of(sizes.tilt) - beta)
    most = np.minimum(total, sizes.heaviest + radius * sizes.longest - beta)
    norm = (most + total) / 2
    slope = spectral + np.logaddexp(norm, sizes.norm_m - beta)  # of alpha, relative
    e = _BoundedVector(
        _Bounded(most, most + np.logaddexp(sizes.row, slope)),
        _Bounded(norm, np.logaddexp(most + spectral, norm + slope)),
    )
    over_alpha = _Bounded(-beta, slope - beta)
    return e.plus(sizes.ma().scaled(over_alpha)), e.plus(sizes.m().scaled(over_alpha)), e


def _of_softmax(sizes: _Sizes) -> tuple[_BoundedVector, ...]:
    """The same for u = v = e: f three times."""
    most = np.minimum(0.0, sizes.radius * (sizes.longest + sizes.tilt / sizes.mass) - log_of(sizes.mass) + sizes.heaviest)
    f = _BoundedVector(
        _Bounded(most, np.minimum(most, -math.log(4)) + math.log(2) + sizes.row),
        _Bounded(most / 2, np.minimum(most, -math.log(2)) + sizes.spectral),
    )
    return f, f, f


def _of_linear(sizes: _Sizes) -> tuple[_BoundedVector, ...]:
    """The same for u = m a, v = m and e = 0."""
    beta = math.log(sizes.beta)
    over_alpha = _Bounded(-beta, log_of(sizes.tilt) - 2 * beta)
    return sizes.ma().scaled(over_alpha), sizes.m().scaled(over_alpha), sizes.constant(-math.inf, -math.inf)


OF_LINK = {"rsx": _of_rsx, "softmax": _of_softmax, "linear": _of_linear}


class Target(NamedTuple):
    """Logarithms of the sizes of b and the weights r of residuals: numbers, or arrays with one for each group."""

    heaviest: Logs  # max r
    most: Logs  # max |r b|
    norm: Logs  # ||r b||
    energy: Logs  # sum r b^2

    @classmethod
    def of(cls, problem: Problem) -> "Target":
        b, r = problem.b, problem.residual_weights
        if not problem._grouped:
            norm = log_of(float(np.linalg.norm(b)))
            return cls(0.0, log_of(float(np.abs(b).max())), norm, 2 * norm)
        starts = problem._offsets[:-1]
        r = r if r.size else np.ones(len(b))
        with np.errstate(over="ignore"):
            squares, energy = np.add.reduceat((r * b) ** 2, starts), np.add.reduceat(r * b**2, starts)
        return cls(log_of(np.maximum.reduceat(r, starts)), log_of(np.maximum.reduceat(np.abs(r * b), starts)), 0.5 * log_of(squares), log_of(energy))


class Ball(NamedTuple):
    """The terms of gradient and Hessian, bounded on the x with ||x|| <= radius and alpha >= beta: derived in `lipschitz_bounds`.

    With groups each number is an array that has one for each group.
    """

    p: _BoundedVector  # v/alpha
    cs: _BoundedVector  # c - s
    bend: _BoundedVector  # e * (c - s)/alpha, the part of D that may be negative
    q: _BoundedVector  # q/alpha
    vfc: _BoundedVector  # v * (r * f + c)/alpha, all of q but what is along v

    @classmethod
    def of(cls, problem: Problem, radius: float, beta: float | None, spectral: Any) -> "Ball":
        """With the spectral norm of A, or those of the rows of each group."""
        with np.errstate(over="ignore", invalid="ignore"):
            sizes, target = _Sizes.of(problem, radius, beta, spectral), Target.of(problem)
            f, p, e = OF_LINK[str(problem.link)](sizes)
            rf = f.by(target.heaviest)
            c = rf.plus(sizes.constant(target.most, target.norm))
            cs = c.plus(sizes.everywhere(f.norm.times(c.norm)))
            q = p.times(rf.plus(cs).plus(sizes.everywhere(rf.norm.times(f.norm))))
            return cls(p, cs, e.times(cs), q, p.times(rf.plus(c)))


def ball_arguments(radius: Any, beta: Any, link: str | Link) -> tuple[float, float | None]:
    """radius and beta, checked; beta is None for the softmax, which has no pole."""
    if isinstance(link, Link):
        raise ValueError(
            f"link is {link!r}: what holds on a whole ball follows from bounds of u, u' and u'' there, which a Link does not give; "
            f"pass {', '.join(map(repr, OF_LINK))}, or ask for a point x"
        )
    radius = inputs.as_positive("radius", radius)
    if beta is None and link != "softmax":
        raise ValueError(f"beta is None; it must be the least <u, 1>, above 0: link={link!r} has a pole where that is 0")
    beta = None if beta is None else inputs.as_positive("beta", beta)
    return radius, None if link == "softmax" else beta


def lipschitz_bounds(
    A: Any,
    b: Any,
    radius: float,
    beta: float | None = None,
    *,
    w: Any = None,
    groups: Any = None,
    multiplicity: Any = None,
    residual_weights: Any = None,
    link: str | Link = "rsx",
) -> LipschitzBounds:
    """Lipschitz constants of gradient and Hessian on the set of x with ||x|| <= radius and <u, 1> >= beta, with groups in each of them.

    For u = exp(a) + a they grow like (radius/beta)^4 and (radius/beta)^5, and for some A none could grow slower. The constants
    of the sibling papers of arXiv:2309.13482 are powers of exp(R^2), where R bounds radius and ||A||.
    No segment between two points is used, as the set is not convex.

    - The e_i/alpha are positive, and their sum is 1 - <a, 1>/alpha. So with S = 1 + radius ||A^T 1||/beta none is above
      m = min(S, exp(radius max_i ||A_i||)/beta), their norm is at most sqrt(m S), and P = sqrt(m S) + sqrt(n)/beta bounds ||v/alpha||.
    - Of x and y in the set, let y be the one with the larger alpha. As alpha is convex everywhere, alpha(y) - alpha(x) <= <A^T v(y), y - x>,
      so that (alpha(y) - alpha(x))/alpha(y) <= ||A|| P ||y - x||.
    - g(x)/alpha(x) - g(y)/alpha(y) = (g(x) - g(y))/alpha(y) + (g(x)/alpha(x)) (alpha(y) - alpha(x))/alpha(y), with g = e, a, 1. The first
      term is at most ``m |a_i(x) - a_i(y)|`` in row i for g = e, by the mean value theorem for exp. So u/alpha and v/alpha have bounded slopes.
    - Sums and products of bounded functions with bounded slopes are so too: c, s, D, q/alpha, gradient and Hessian.
    - For u = a, e = 0 and alpha(y) - alpha(x) = <A^T 1, y - x>.
    - For u = exp(a), no f_i is above m = min(1, exp(radius (max ||A_i|| + ||A^T 1||/n))/n). As alpha > 0 on the whole ball, the derivative
      diag(f) - f f^T of f along a bounds its slopes: 2 min(m, 1/4) ||A_i|| in row i, min(m, 1/2) ||A|| in all. These do not grow with radius.
    - For u = exp(a) + a and t = radius ||A^T 1||/n, alpha >= n (exp(-t) - t) on the whole ball, by Jensen's inequality. This replaces a smaller beta.
    - With groups, multiplicities m and residual weights r, all of this is done for the rows A_t of each group t, with u, v and e times m, ||m|| and
      <m, 1> in the place of sqrt(n) and n, and r as constant factors. With constants of slopes k_t, those of the gradient are
      2 ||A|| sqrt(sum k_t^2), as its parts of groups add up; the Hessian in a is block diagonal, so that the largest group counts:
      ||A||^2 max k_t.

    Parameters
    ----------
    A : (n, d) array_like
    b : (n,) array_like
    radius : float
        Of the ball, above 0.
    beta : float, optional
        The least <u, 1>, above 0, of every group. Not needed for link="softmax", whose alpha is positive everywhere.
    w : (n,) array_like or float, optional
        Weights of the regulariser.
    groups, multiplicity, residual_weights : (n,) array_like, optional
        As in `Problem`.
    link : {"rsx", "softmax", "linear"}, optional
        As in `Problem`, but no `Link`, whose u is not known on a whole ball.

    Returns
    -------
    LipschitzBounds

    Raises
    ------
    ValueError, TypeError
        For input that `Problem` refuses, a radius or beta that is not positive, a beta that is missing, and a `Link`.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> bounds = fastrsx.lipschitz_bounds(np.eye(3), np.full(3, 1 / 3), radius=1.0, beta=1.0)
    >>> 1 < bounds.gradient < bounds.hessian < np.inf
    True
    >>> far, farther = (fastrsx.lipschitz_bounds(np.eye(3), np.full(3, 1 / 3), radius, beta=1.0) for radius in (1e3, 1e4))
    >>> f"{farther.gradient / far.gradient:.0e}, {farther.hessian / far.hessian:.0e}"
    '1e+04, 1e+05'
    >>> softmax = [fastrsx.lipschitz_bounds(np.eye(3), np.full(3, 1 / 3), radius, link="softmax").hessian for radius in (1e3, 1e4)]
    >>> softmax[0] == softmax[1]  # f has no pole
    True
    """
    inputs.refuse_elsewhere("A", A)
    radius, beta = ball_arguments(radius, beta, as_link(link))
    problem = Problem(A, b, w=w, groups=groups, multiplicity=multiplicity, residual_weights=residual_weights, link=link)
    spectral = float(svdvals(triangular_factor(problem.A))[0])
    ball, target, log_spectral = Ball.of(problem, radius, beta, spectral_norms(problem, spectral)), Target.of(problem), log_of(spectral)
    with np.errstate(invalid="ignore"):  # a weight of 0 times a size beyond 1e308
        D = ball.p.times(ball.p).by(target.heaviest).plus(ball.bend)
    penalty = 2 * log_spectral + 2 * log_of(float(problem.w.max())) if problem.w.size else -math.inf
    of_groups = 0.5 * np.logaddexp.reduce(2 * np.atleast_1d(ball.p.times(ball.cs).norm.slope))
    log_gradient = float(np.logaddexp(log_spectral + math.log(2) + of_groups, penalty))
    rank_2 = 2 * log_spectral + math.log(4) + ball.p.norm.times(ball.q.norm).slope
    log_hessian = float(np.max(np.logaddexp(2 * log_spectral + math.log(2) + D.most.slope, rank_2)))
    return LipschitzBounds(exp_or_inf(log_gradient), exp_or_inf(log_hessian), log_gradient, log_hessian)
