"""Standard errors of x: how far it would move if the errors of b were drawn again."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh

from . import verdicts
from .convexity import gauss_newton, sum_of_squares
from .inputs import Matrix, Vector
from .planning import ON_GPU
from .problem import Problem

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
    return problem.b, problem.predict(x)


def covariance(problem: Problem, solve: Callable[..., Any], x: Vector, kind: str, resamples: int, seed: int) -> Matrix:
    """See `NewtonResult.covariance`; `solve` is `newton`."""
    if problem.plan.loader in (*ON_GPU, "dask"):
        raise ValueError("covariance needs A in memory: pass A as a NumPy array, or compute it from Problem.hess and Problem.predict")
    n, d = problem.A.shape
    if n <= d:
        raise ValueError(f"x has no standard errors: A has {n} rows for {d} columns, so nothing is left to estimate the errors of b from")
    if kind == "bootstrap":
        return bootstrap(problem, solve, x, resamples, seed)
    f, v = problem._f_and_v(x)
    c = f - problem.b
    if kind == "sandwich":
        bread = inverse(problem.hess(x), problem, "the Hessian")
        return bread @ sum_of_squares(problem, 2 * c * v, 2 * c * f, v) @ bread * (n / (n - d))
    bread = inverse(0.5 * gauss_newton(problem, x), problem, "J^T J")
    return float(c @ c) / (n - d) * (bread @ sum_of_squares(problem, v, f, v) @ bread if problem.w.size else bread)


def bootstrap(problem: Problem, solve: Callable[..., Any], x: Vector, resamples: int, seed: int) -> Matrix:
    """The covariance of x over solves with the residuals' signs drawn anew (the wild bootstrap, with Rademacher's signs)."""
    random, f = np.random.default_rng(seed), problem.predict(x)
    c = problem.b - f
    found = np.empty((resamples, len(x)))
    for row in found:
        result = solve(problem.A, f + c * random.choice((-1.0, 1.0), len(c)), x, **problem._like_this, kernel=problem.plan.kernel)
        row[:] = result.x
    return np.cov(found, rowvar=False).reshape(len(x), len(x))
