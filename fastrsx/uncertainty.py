"""Standard errors of x: how far it would move if the errors of b were drawn again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from . import verdicts
from .convexity import gauss_newton, sum_of_squares, weighted_jacobian
from .inputs import Matrix, Vector
from .per_group import groups_of_rows, sums_over_groups
from .planning import ON_GPU
from .problem import Problem
from .result import SUM_TOL

DEPENDENT = 1e-14  # an eigenvalue of a scaled Gram matrix, relative to the largest: those columns have no coefficients of their own


def inverse(H: Matrix, problem: Problem, what: str) -> Matrix:
    """H^-1; ValueError where columns of A have no coefficients of their own, or H is not positive definite."""
    scale = problem._column_scale
    sizes, axes = eigh(H / scale / scale[:, None])
    if not sizes[0] > DEPENDENT * sizes[-1]:
        columns = verdicts.heaviest(axes[:, 0], problem.names)
        raise ValueError(f"x has no standard errors: {what} is not positive definite along {columns}; drop one of them, or pass weights w")
    axes = axes / scale[:, None]
    return np.asarray(axes / sizes @ axes.T)


def target_and_fit(problem: Problem, x: Vector) -> tuple[Vector, Vector]:
    """b and f(x), for `NewtonResult.plot_fit`."""
    if problem.plan.loader in (*ON_GPU, "dask"):
        raise ValueError("plot_fit needs A in memory: draw b over Problem.predict(x)")
    return problem._in_callers_order(problem.b), problem.predict(x)


def covariance(problem: Problem, solve: Callable[..., Any], x: Vector, kind: str, resamples: int, seed: int) -> Matrix:
    """See `NewtonResult.covariance`; `solve` is `newton`."""
    if problem.plan.loader in (*ON_GPU, "dask"):
        raise ValueError("covariance needs A in memory: pass A as a NumPy array, or compute it from Problem.hess and Problem.predict")
    n, clusters, constraints = _counts(problem)
    d = problem.A.shape[1]
    if n <= d:
        raise ValueError(f"x has no standard errors: A has {n} rows for {d} columns, so nothing is left to estimate the errors of b from")
    if clusters > 1 and clusters <= d and kind != "least-squares":
        raise ValueError(
            f"x has no standard errors of kind {kind!r}: A has {clusters} groups for {d} columns, and errors are drawn by group; "
            "pass kind='least-squares', which takes rows to be independent"
        )
    if kind == "bootstrap":
        return bootstrap(problem, solve, x, resamples, seed, groups_of_rows(problem) if clusters > 1 else np.arange(len(problem.b)))
    f, v = problem._f_and_v(x)
    omega = problem.residual_weights if problem.residual_weights.size else 1.0
    c = omega * (f - problem.b)
    if kind == "sandwich":
        bread = inverse(problem.hess(x), problem, "the Hessian")
        if clusters > 1:
            scores = sums_over_groups(problem, 2 * v * (c - problem._over_group(f * c)))
            return bread @ (scores.T @ scores) @ bread * (clusters / (clusters - 1) * (n - 1) / (n - d))
        return bread @ sum_of_squares(problem, 2 * c * v, 2 * c * f, v) @ bread * (n / (n - d))
    free = n - d - constraints
    if free <= 0:
        raise ValueError(
            f"x has no standard errors: {n} rows count, b sums to 1 in {constraints} groups, and x has {d} entries, so nothing is left to estimate "
            "the variance of the errors of b from"
        )
    bread = inverse(0.5 * gauss_newton(problem, x), problem, "J^T J")
    variance = float(c @ (f - problem.b)) / free
    return variance * (bread @ sum_of_squares(problem, *weighted_jacobian(problem, x)) @ bread if problem.w.size else bread)


def _counts(problem: Problem) -> tuple[int, int, int]:
    """The rows that say something about x, the groups that have such rows, and the constraints <b, 1> = 1 of groups on their errors.

    One softmax of all rows counts as no constraint: of its many errors one more or less is nothing.
    """
    n = problem.A.shape[0]
    if not problem._grouped:
        return n, 1, 0
    counted = np.ones(n, dtype=bool)
    for weights in (problem.multiplicity, problem.residual_weights):
        counted &= weights > 0 if weights.size else True
    starts = problem._offsets[:-1]
    clusters = np.logical_or.reduceat(counted, starts)
    if len(starts) == 1:
        return int(np.count_nonzero(counted)), 1, 0
    weighed = problem.residual_weights > 0 if problem.residual_weights.size else np.ones(n, dtype=bool)
    if problem.multiplicity.size:
        weighed |= problem.multiplicity == 0  # such a row has no error that could free the others
    tied = np.logical_and.reduceat(weighed, starts) & (np.abs(np.add.reduceat(problem.b, starts) - 1) <= SUM_TOL)
    return int(np.count_nonzero(counted)), int(np.count_nonzero(clusters)), int(np.count_nonzero(clusters & tied))


def bootstrap(problem: Problem, solve: Callable[..., Any], x: Vector, resamples: int, seed: int, sign_of: npt.NDArray[np.int64]) -> Matrix:
    """The covariance of x over solves with the residuals' signs drawn anew (the wild bootstrap, with Rademacher's signs); sign_of each row."""
    random, f = np.random.default_rng(seed), problem._f_and_v(x)[0]
    c = problem.b - f
    found = np.empty((resamples, len(x)))
    for row in found:
        signs = random.choice((-1.0, 1.0), sign_of[-1] + 1)
        result = solve(problem.A, f + c * signs[sign_of], x, **problem._like_this, kernel=problem.plan.kernel)
        row[:] = result.x
    return np.cov(found, rowvar=False).reshape(len(x), len(x))
