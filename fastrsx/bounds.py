"""Bounds that hold on a whole ball: Lipschitz constants of gradient and Hessian, and the sizes that they depend on."""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import svdvals

from . import inputs
from .linking import Link, as_link
from .loading import chunks
from .problem import Problem
from .rank import triangular_factor

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

    size: float
    slope: float

    def plus(self, other: "_Bounded") -> "_Bounded":
        return _Bounded(float(np.logaddexp(self.size, other.size)), float(np.logaddexp(self.slope, other.slope)))

    def times(self, other: "_Bounded") -> "_Bounded":
        """|gh(x) - gh(y)| <= |g(x) - g(y)| |h(x)| + |g(y)| |h(x) - h(y)|."""
        return _Bounded(self.size + other.size, float(np.logaddexp(self.slope + other.size, self.size + other.slope)))


class _BoundedVector(NamedTuple):
    """The same for an n-vector, in the maximum norm and in the Euclidean one."""

    most: _Bounded
    norm: _Bounded

    def plus(self, other: "_BoundedVector") -> "_BoundedVector":
        return _BoundedVector(self.most.plus(other.most), self.norm.plus(other.norm))

    def times(self, other: "_BoundedVector") -> "_BoundedVector":
        """Entry by entry: ||g * h|| is at most max |g| ||h||, and ||g|| max |h|."""
        norms = zip(self.most.times(other.norm), self.norm.times(other.most), strict=True)
        return _BoundedVector(self.most.times(other.most), _Bounded(*map(min, norms)))

    def scaled(self, scalar: _Bounded) -> "_BoundedVector":
        return _BoundedVector(scalar.times(self.most), scalar.times(self.norm))


def _longest_row(problem: Problem) -> float:
    """max ||A_i||^2."""
    return max(float(np.einsum("ij,ij->i", rows, rows).max()) for _, rows in chunks(problem.A))


def _log(number: float) -> float:
    return math.log(number) if number > 0 else -math.inf


def exp_or_inf(logarithm: float) -> float:
    return math.exp(logarithm) if logarithm < 709 else math.inf


class _Sizes(NamedTuple):
    """What the bounds depend on."""

    n: int
    radius: float
    longest: float  # max ||A_i||
    tilt: float  # ||A^T 1||
    spectral: float  # log ||A||
    beta: float  # 0 where there is none

    @classmethod
    def of(cls, problem: Problem, radius: float, beta: float | None, spectral: float) -> "_Sizes":
        n = len(problem.b)
        longest = math.sqrt(_longest_row(problem) + float(np.finfo(float).tiny))  # squares may underflow
        tilt = math.hypot(*problem._transposed_times(np.ones(n))) + n**2 * float(np.finfo(float).eps) * longest  # and its rounding
        return cls(n, radius, longest, tilt, _log(spectral), beta or 0.0)

    @property
    def row(self) -> float:
        """log max ||A_i||."""
        return math.log(self.longest)

    @property
    def norm_1(self) -> float:
        """log ||1||."""
        return 0.5 * math.log(self.n)

    def constant(self, most: float, norm: float) -> _BoundedVector:
        return _BoundedVector(_Bounded(most, -math.inf), _Bounded(norm, -math.inf))

    def everywhere(self, scalar: _Bounded) -> _BoundedVector:
        """The scalar in every row."""
        return self.constant(0.0, self.norm_1).scaled(scalar)

    def a(self) -> _BoundedVector:
        reach = math.log(self.radius)
        return _BoundedVector(_Bounded(reach + self.row, self.row), _Bounded(reach + self.spectral, self.spectral))


def _of_rsx(sizes: _Sizes) -> tuple[_BoundedVector, ...]:
    """u, v and e over alpha, for u = e + a and v = e + 1."""
    n, radius, longest, tilt, spectral, beta = sizes
    mean = radius * tilt / n
    beta = math.log(max(beta, n * (math.exp(-mean) - mean - SLACK)))
    total = float(np.logaddexp(0.0, math.log(radius) + math.log(tilt) - beta))
    most = min(total, radius * longest - beta)
    norm = (most + total) / 2
    slope = spectral + float(np.logaddexp(norm, sizes.norm_1 - beta))  # of alpha, relative
    e = _BoundedVector(
        _Bounded(most, most + float(np.logaddexp(sizes.row, slope))),
        _Bounded(norm, float(np.logaddexp(most + spectral, norm + slope))),
    )
    over_alpha = _Bounded(-beta, slope - beta)
    return e.plus(sizes.a().scaled(over_alpha)), e.plus(sizes.everywhere(over_alpha)), e


def _of_softmax(sizes: _Sizes) -> tuple[_BoundedVector, ...]:
    """The same for u = v = e: f three times."""
    most = min(0.0, sizes.radius * (sizes.longest + sizes.tilt / sizes.n) - math.log(sizes.n))
    f = _BoundedVector(
        _Bounded(most, min(most, -math.log(4)) + math.log(2) + sizes.row),
        _Bounded(most / 2, min(most, -math.log(2)) + sizes.spectral),
    )
    return f, f, f


def _of_linear(sizes: _Sizes) -> tuple[_BoundedVector, ...]:
    """The same for u = a, v = 1 and e = 0."""
    beta = math.log(sizes.beta)
    over_alpha = _Bounded(-beta, math.log(sizes.tilt) - 2 * beta)
    return sizes.a().scaled(over_alpha), sizes.everywhere(over_alpha), sizes.constant(-math.inf, -math.inf)


OF_LINK = {"rsx": _of_rsx, "softmax": _of_softmax, "linear": _of_linear}


class Ball(NamedTuple):
    """The terms of gradient and Hessian, bounded on the x with ||x|| <= radius and alpha >= beta: derived in `lipschitz_bounds`."""

    p: _BoundedVector  # v/alpha
    cs: _BoundedVector  # c - s
    bend: _BoundedVector  # e * (c - s)/alpha, the part of D that may be negative
    q: _BoundedVector  # q/alpha
    vfc: _BoundedVector  # v * (f + c)/alpha, all of q but what is along v

    @classmethod
    def of(cls, problem: Problem, radius: float, beta: float | None, spectral: float) -> "Ball":
        """With the spectral norm of A."""
        sizes = _Sizes.of(problem, radius, beta, spectral)
        f, p, e = OF_LINK[str(problem.link)](sizes)
        c = f.plus(sizes.constant(_log(float(np.abs(problem.b).max())), _log(float(np.linalg.norm(problem.b)))))
        cs = c.plus(sizes.everywhere(f.norm.times(c.norm)))
        q = p.times(f.plus(cs).plus(sizes.everywhere(f.norm.times(f.norm))))
        return cls(p, cs, e.times(cs), q, p.times(f.plus(c)))


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


def lipschitz_bounds(A: Any, b: Any, radius: float, beta: float | None = None, *, w: Any = None, link: str | Link = "rsx") -> LipschitzBounds:
    """Lipschitz constants of gradient and Hessian on the set of x with ||x|| <= radius and <u, 1> >= beta.

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

    Parameters
    ----------
    A : (n, d) array_like
    b : (n,) array_like
    radius : float
        Of the ball, above 0.
    beta : float, optional
        The least <u, 1>, above 0. Not needed for link="softmax", whose alpha is positive everywhere.
    w : (n,) array_like or float, optional
        Weights of the regulariser.
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
    problem = Problem(A, b, w=w, link=link)
    spectral = float(svdvals(triangular_factor(problem.A))[0])
    ball, log_spectral = Ball.of(problem, radius, beta, spectral), _log(spectral)
    D = ball.p.times(ball.p).plus(ball.bend)
    penalty = 2 * log_spectral + 2 * _log(float(problem.w.max())) if problem.w.size else -math.inf
    log_gradient = float(np.logaddexp(log_spectral + math.log(2) + ball.p.times(ball.cs).norm.slope, penalty))
    rank_2 = 2 * log_spectral + math.log(4) + ball.p.norm.times(ball.q.norm).slope
    log_hessian = float(np.logaddexp(2 * log_spectral + math.log(2) + D.most.slope, rank_2))
    return LipschitzBounds(exp_or_inf(log_gradient), exp_or_inf(log_hessian), log_gradient, log_hessian)
