"""How curved and how convex the loss is: eigenvalue ranges, and weights that make it convex at a point or on a ball."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigvalsh, svdvals
from scipy.sparse.linalg import LinearOperator, eigsh

from fastrsx.kernels.compiling.jit import of_arrays
from fastrsx.kernels.formulas import rows
from fastrsx.kernels.formulas.records import Factors

from . import inputs
from .bounds import SLACK, Ball, Target, ball_arguments, exp_or_inf, log_of, spectral_norms
from .engines import contract
from .inputs import Matrix, Vector
from .linking import Link, as_link
from .loading import chunks
from .per_group import groups_of_rows, sums_over_groups
from .planning import check_kernel
from .problem import Problem
from .rank import tolerance, triangular_factor

EXACT_UP_TO = 1000  # columns; beyond, eigenvalues by Lanczos, a few hundred products instead of O(d^3)
_weights = of_arrays(rows.weights)


class EigenvalueRange(NamedTuple):
    """The smallest and the largest eigenvalue of a symmetric matrix.

    Attributes
    ----------
    smallest, largest : float
    error : float
        The change that rounding, or Lanczos, may have made in them.
    """

    smallest: float
    largest: float
    error: float

    @property
    def is_psd(self) -> bool:
        """Whether no eigenvalue is negative beyond the error."""
        return self.smallest >= -self.error


class Curvature(NamedTuple):
    """Eigenvalue ranges at x; ``print`` shows them as a table.

    Attributes
    ----------
    hessian : EigenvalueRange
        Of the Hessian, which is ``diagonal`` + ``rank_2``.
    diagonal : EigenvalueRange
        Of A^T diag(2 D + w^2) A.
    rank_2 : EigenvalueRange
        Of -2 (v q^T + q v^T), v and q the d-vectors of `Problem.factors`; indefinite unless v and q are parallel. With groups the sum of
        those of all groups.
    gauss_newton : EigenvalueRange
        Of 2 J^T diag(r) J + A^T diag(w^2) A, J = df/dx, r the weights of residuals: always positive semidefinite.
    """

    hessian: EigenvalueRange
    diagonal: EigenvalueRange
    rank_2: EigenvalueRange
    gauss_newton: EigenvalueRange

    def __str__(self) -> str:
        lines = [f"{'':14}{'smallest':>14}{'largest':>14}  psd"]
        for name, eigenvalues in zip(self._fields, self, strict=True):
            lines.append(f"{name:14}{eigenvalues.smallest:14.6e}{eigenvalues.largest:14.6e}  {'yes' if eigenvalues.is_psd else 'no'}")
        return "\n".join(lines)


def range_of(matrix: Matrix) -> EigenvalueRange:
    eigenvalues = eigvalsh(matrix)
    error = len(matrix) * float(np.finfo(float).eps) * float(np.abs(eigenvalues).max())
    return EigenvalueRange(float(eigenvalues[0]), float(eigenvalues[-1]), error)


def _lanczos(product: Callable[[Vector], Vector], d: int, seed: int) -> EigenvalueRange:
    operator = LinearOperator((d, d), matvec=product, dtype=float)
    start = np.random.default_rng(seed).standard_normal(d)
    ends = [float(eigsh(operator, k=1, which=which, v0=start, tol=1e-9, return_eigenvectors=False)[0]) for which in ("SA", "LA")]
    return EigenvalueRange(ends[0], ends[1], 1e-9 * max(map(abs, ends)))


def _range_of_rank_2(v: Vector, q: Vector, seed: int) -> EigenvalueRange:
    """-2 (v q^T + q v^T) has the eigenvalues -2 (v.q + ||v|| ||q||), -2 (v.q - ||v|| ||q||), and 0 where d > 2; a sum of them, any others."""
    if v.ndim == 2 and len(v) > 1:
        d = v.shape[1]
        return range_of(-contract.rank_2(v, q)) if d <= EXACT_UP_TO else _lanczos(lambda p: -contract.rank_2_times(v, q, p), d, seed)
    v, q = v.ravel(), q.ravel()
    along, across = float(v @ q), float(np.linalg.norm(v) * np.linalg.norm(q))
    ends = (-4 * along, -4 * along) if len(v) == 1 else (-2 * (along + across), -2 * (along - across))
    return EigenvalueRange(*ends, len(v) * float(np.finfo(float).eps) * across)


def curvature(
    A: Any,
    b: Any,
    x: Any,
    *,
    w: Any = None,
    groups: Any = None,
    multiplicity: Any = None,
    residual_weights: Any = None,
    link: str | Link = "rsx",
    kernel: str = "auto",
    num_threads: int | None = None,
    seed: int = 0,
) -> Curvature:
    """Eigenvalue ranges of the Hessian at x, of its two parts, and of the Gauss-Newton matrix.

    Hess = A^T diag(2 D + w^2) A - 2 (v q^T + q v^T) (arXiv:2309.13482, rederived; see `Problem.factors`), and in the Gauss-Newton
    matrix J^T J = A^T diag(v^2/alpha^2) A - p v^T - v p^T + <f, f> v v^T, with p = A^T (v * f)/alpha. With groups v and q are sums over the
    rows of a group, and each group adds its own such terms.

    Parameters
    ----------
    A : (n, d) array_like
    b : (n,) array_like
    x : (d,) array_like
        In the domain <u, 1> > 0.
    w : (n,) array_like or float, optional
        Weights of the regulariser.
    groups, multiplicity, residual_weights : (n,) array_like, optional
        As in `Problem`.
    link : {"rsx", "softmax", "linear"} or Link, optional
        As in `Problem`.
    kernel, num_threads : optional
        As in `newton`.
    seed : int, optional
        Seed of the start vector of Lanczos, which is used beyond d = 1000; up to there the eigenvalues are those of LAPACK.

    Returns
    -------
    Curvature

    Raises
    ------
    ValueError, TypeError
        For input that `Problem` refuses, and for an x outside the domain.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> A, b = np.array([[1.0], [2.0], [0.0]]), np.full(3, 1 / 3)
    >>> print(fastrsx.curvature(A, b, [0.0]))
                        smallest       largest  psd
    hessian         1.777778e+00  1.777778e+00  yes
    diagonal        4.444444e+00  4.444444e+00  yes
    rank_2         -2.666667e+00 -2.666667e+00  no
    gauss_newton    1.777778e+00  1.777778e+00  yes
    """
    inputs.refuse_elsewhere("A", A)
    check_kernel(kernel, num_threads)
    of_rows = {"groups": groups, "multiplicity": multiplicity, "residual_weights": residual_weights}
    problem = Problem(A, b, w=w, **of_rows, link=link, kernel=kernel, num_threads=num_threads)
    seed = inputs.as_count("seed", seed, 0)
    x = _inside(problem, x)
    d = len(x)
    factors = problem.factors(x)
    v, q = factors.v, factors.q
    rank_2 = _range_of_rank_2(v, q, seed)
    if d <= EXACT_UP_TO:
        hess = problem.hess(x)
        diagonal = hess + contract.rank_2(v, q)
        return Curvature(range_of(hess), range_of(diagonal), rank_2, range_of(gauss_newton(problem, x)))
    jacobian, penalty = problem.jac_operator(x), problem.w**2
    omega = problem._in_callers_order(problem.residual_weights) if problem.residual_weights.size else 1.0

    def product_with_gauss_newton(p: Vector) -> Vector:
        product = 2 * jacobian.rmatvec(omega * jacobian.matvec(p))
        return product + problem._transposed_times(penalty * problem._times(p)) if penalty.size else product

    return Curvature(
        _lanczos(lambda p: problem.hess_vec(x, p), d, seed),
        _lanczos(lambda p: problem.hess_vec(x, p) + contract.rank_2_times(v, q, p), d, seed),
        rank_2,
        _lanczos(product_with_gauss_newton, d, seed),
    )


def _inside(problem: Problem, x: Any) -> Vector:
    x = problem._as_x(x)
    if not problem.value(x) < np.inf:
        where = "u = exp(A x) + A x; x = 0 lies in it" if problem.link == "rsx" else f"link={problem.link!r}, or A x overflows"
        raise ValueError(f"x lies outside the domain <u, 1> > 0, {where}")
    return x


def sum_of_squares(problem: Problem, p: Vector, q: Vector, v: Vector, also: Vector | float = 0.0) -> Matrix:
    """The sum of s_i s_i^T over the rows s_i = p_i A_i - q_i A^T v, and A^T diag(also) A; the rows of J have p = v/alpha, q = f and this v.

    With groups, A^T v is over the rows of the group.
    """
    if problem._grouped:
        return _sum_in_groups(problem, p, q, v, also)
    along = problem._transposed_times(v)
    cross = np.outer(problem._transposed_times(p * q), along)
    with problem._running():
        gram = problem._passes.weighted_gram(p**2 + also)
    return np.asarray(gram - cross - cross.T + (q @ q) * np.outer(along, along))


def _sum_in_groups(problem: Problem, p: Vector, q: Vector, v: Vector, also: Vector | float) -> Matrix:
    """`sum_of_squares` from the rows s_i themselves: the terms of its formula cancel in groups of a few rows."""
    groups, along = groups_of_rows(problem), sums_over_groups(problem, v)
    gram, also = np.zeros((along.shape[1],) * 2), np.broadcast_to(also, p.shape)
    for which, A in chunks(problem.A):
        rows = p[which, None] * A - q[which, None] * along[groups[which]]
        gram += rows.T @ rows + (A.T * also[which]) @ A
    return gram


def gauss_newton(problem: Problem, x: Vector) -> Matrix:
    """2 J^T diag(r) J + A^T diag(w^2) A, r the weights of residuals."""
    p, q, v = weighted_jacobian(problem, x)
    return 2 * sum_of_squares(problem, p, q, v, 0.5 * problem.w**2 if problem.w.size else 0.0)


def weighted_jacobian(problem: Problem, x: Vector) -> tuple[Vector, Vector, Vector]:
    """The p, q and v of `sum_of_squares` for J^T diag(r) J."""
    f, v = problem._f_and_v(x)
    if not problem.residual_weights.size:
        return v, f, v
    root = np.sqrt(problem.residual_weights)
    return root * v, root * f, v


def psd_weights(
    A: Any,
    b: Any,
    x: Any = None,
    *,
    radius: float | None = None,
    beta: float | None = None,
    margin: float = 0.0,
    groups: Any = None,
    multiplicity: Any = None,
    residual_weights: Any = None,
    link: str | Link = "rsx",
) -> Vector:
    """Weights w with which the Hessian is at least margin times the identity, at x or on a ball: there, `newton(A, b, w=w)` is convex.

    With z = A y, y^T Hess y = sum((2 D_i + w_i^2) z_i^2) - 4 <v, z> <q, z>/alpha^2. The largest eigenvalue of the symmetric part of v q^T is
    (v.q + ||v|| ||q||)/2, so it suffices that ::

        w_i^2 = max(0, -2 D_i) + 2 max(0, v.q + ||v|| ||q||)/alpha^2 + margin/sigma^2,

    with n-vectors v, q, D at x (arXiv:2309.13482, rederived) and sigma the smallest singular value of A. D, v and q do not depend on w.

    With radius and beta instead of x, one weight serves all rows and all x with ||x|| <= radius and <u, 1> >= beta. As
    D_i >= e_i (c_i - s)/alpha, v.q <= ||v|| ||q|| and q = v * (f + c) - (s + <f, f>/2) v, no x there needs more than ::

        w^2 = 2 max |e_i (c_i - s)/alpha| + 4 max ||v/alpha|| min(max ||q/alpha||, max ||v * (f + c)/alpha|| + ||b||^2 max ||v/alpha||/6)
              + margin/sigma^2,

    each maximum over the set bounded as in `lipschitz_bounds`: true, not tight, and growing like (radius/beta)^3, as what is needed does.

    For link="softmax" one constant serves every x of any length, so neither is needed (docs/theory.md, "The theorem, measured") ::

        w^2 = 3/4 (1 + max b - min b) + margin/sigma^2.

    With groups all of this holds in each of them: <,>, norms, maxima, alpha >= beta and the one weight are those of a group, sigma is that of all
    rows. Residual weights r weigh residuals: c = r * (f - b), s = <f, c>, D_i = r_i v_i^2/alpha^2 + e_i (c_i - s)/alpha,
    q = v * (r * f + c - s - <f, r * f>/2), and sum(r b^2) stands for ||b||^2. Multiplicities m are in u, v and e; in the softmax they are
    constants in a, which its bound does not depend on: w^2 = 3/4 (max r (1 - b) - min(-r b)) + margin/sigma^2.

    Parameters
    ----------
    A : (n, d) array_like
    b : (n,) array_like
    x : (d,) array_like, optional
        In the domain <u, 1> > 0. Either x or radius.
    radius, beta : float, optional
        Of the ball, and the least <u, 1>; both above 0. The softmax needs no beta.
    margin : float, optional
        At least 0. A margin above 0 needs an A of full column rank.
    groups, multiplicity, residual_weights : (n,) array_like, optional
        As in `Problem`.
    link : {"rsx", "softmax", "linear"} or Link, optional
        As in `Problem`; a `Link` at a point alone.

    Returns
    -------
    (n,) array
        In the order of the rows of A.

    Raises
    ------
    ValueError, TypeError
        For input that `Problem` refuses, an x outside the domain, a margin that no weights can give, a `Link` on a ball, and weights
        beyond the 1e150 that `Problem` takes.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> rng = np.random.default_rng(0)
    >>> A, b, x = rng.standard_normal((12, 4)), rng.dirichlet(np.ones(12)), 0.5 * rng.standard_normal(4)
    >>> fastrsx.curvature(A, b, x).hessian.is_psd
    False
    >>> w = fastrsx.psd_weights(A, b, x, margin=0.1)
    >>> fastrsx.curvature(A, b, x, w=w).hessian.smallest >= 0.1
    True

    On a ball:

    >>> w = fastrsx.psd_weights(A, b, radius=1.0, beta=1.0, margin=0.1)
    >>> fastrsx.curvature(A, b, x, w=w).hessian.smallest >= 0.1
    True

    Of the softmax, everywhere:

    >>> w = fastrsx.psd_weights(A, b, link="softmax")
    >>> fastrsx.curvature(A, b, 10 * x, link="softmax").hessian.is_psd, fastrsx.curvature(A, b, 10 * x, w=w, link="softmax").hessian.is_psd
    (False, True)
    """
    link = as_link(link)
    everywhere = link == "softmax" and x is None and radius is None
    if (x is None) == (radius is None) and not everywhere:
        raise ValueError(f"{'neither' if x is None else 'both'} of x and radius given; pass x for weights at a point, radius and beta for a ball")
    if (radius is None) != (beta is None) and not (link == "softmax" and beta is None):
        raise ValueError(f"beta is {beta!r} and radius {radius!r}; beta, the least <u, 1>, goes with radius, and only with it")
    if not 0 <= inputs.as_number("margin", margin) < np.inf:
        raise ValueError(f"margin is {margin!r}; it must be at least 0 and finite")
    inputs.refuse_elsewhere("A", A)
    ball = None if radius is None else ball_arguments(radius, beta, link)
    problem = Problem(A, b, groups=groups, multiplicity=multiplicity, residual_weights=residual_weights, link=link)
    if x is None:
        of_groups = [exp_or_inf(log_w) for log_w in np.atleast_1d(_log_weights(problem, ball, margin)).tolist()]
        w = np.array(of_groups)[groups_of_rows(problem)]
    else:
        w = np.sqrt(_squared_weights_at(problem, _inside(problem, x), margin))
    if not w.max() <= inputs.LARGEST_ENTRY:
        raise ValueError(
            f"weights of {w.max():.3g} would be needed, beyond {inputs.LARGEST_ENTRY:g}: take a smaller radius or margin, or a larger beta"
        )
    return np.asarray(problem._in_callers_order(w))


def _squared_weights_at(problem: Problem, x: Vector, margin: float) -> Vector:
    D = problem.factors(x).D
    f, v = problem._f_and_v(x)  # v and q are divided by alpha
    if problem._grouped:
        total, omega = problem._over_group, problem.residual_weights if problem.residual_weights.size else 1.0
        at = Factors(0.0, 1.0, 1.0, total(omega * f * (f - problem.b)), 0.5 * total(omega * f**2))
        q = _weights(f, v, 0.0, problem.b, at, omega).q
        rank_2 = 2 * np.maximum(0.0, total(v * q) + np.sqrt(total(v**2)) * np.sqrt(total(q**2)))
    else:
        at = Factors(0.0, 1.0, 1.0, f @ (f - problem.b), 0.5 * (f @ f))
        q = _weights(f, v, 0.0, problem.b, at).q
        rank_2 = 2 * max(0.0, float(v @ q + np.linalg.norm(v) * np.linalg.norm(q)))
    squares = (np.maximum(0.0, -2 * D) + rank_2) * (1 + SLACK)
    if margin > 0:
        squares += margin / _smallest_singular(problem.A, svdvals(triangular_factor(problem.A)), margin) ** 2 * (1 + SLACK)
    return squares


def _log_weights(problem: Problem, ball: tuple[float, float | None] | None, margin: float) -> Any:
    """The logarithm of the weight of all rows, or those of each group, for all x on a ball; without a ball for all x, of the softmax."""
    singular = svdvals(triangular_factor(problem.A))
    log_square: Any = math.inf
    if ball is not None:
        bounded = Ball.of(problem, *ball, spectral_norms(problem, float(singular[0])))
        v = bounded.p.norm.size
        with np.errstate(over="ignore", invalid="ignore"):
            along = v + (Target.of(problem).energy - math.log(6))
            q = np.fmin(bounded.q.norm.size, np.logaddexp(bounded.vfc.norm.size, along))
            log_square = np.logaddexp(math.log(2) + bounded.bend.most.size, math.log(4) + v + q)
    if problem.link == "softmax":
        log_square = np.minimum(log_square, _log_square_of_softmax(problem))
    if margin > 0:
        log_square = np.logaddexp(log_square, math.log(margin) - 2 * math.log(_smallest_singular(problem.A, singular, margin)))
    return 0.5 * (log_square + np.where(np.isfinite(log_square), SLACK * (1 + np.abs(log_square)), 0.0))


def _log_square_of_softmax(problem: Problem) -> Any:
    """The logarithm of w^2 that serves the softmax everywhere, or of that of each group."""
    if not problem._grouped:
        return math.log(0.75 * (1 + float(np.ptp(problem.b))))
    r = problem.residual_weights if problem.residual_weights.size else 1.0
    starts = problem._offsets[:-1]
    ends = np.maximum.reduceat(r * (1 - problem.b), starts), np.maximum.reduceat(r * problem.b, starts)
    return log_of(0.75 * (ends[0] + ends[1]))


def _smallest_singular(A: Any, singular: Vector, margin: float) -> float:
    """The smallest of the singular values of A; an error where it is 0."""
    if len(singular) < A.shape[1] or singular[-1] <= tolerance(singular, A.shape):
        raise ValueError(
            f"margin is {margin!r}, but columns of A are linearly dependent: no weights bend the loss along its null space; "
            "use margin=0 or drop columns"
        )
    return float(singular[-1])
