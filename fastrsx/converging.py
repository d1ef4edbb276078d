"""How fast Newton's method converges to a minimum: what the papers' theorem assumes and what it claims, measured."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from . import inputs
from .bounds import lipschitz_bounds
from .convexity import range_of
from .engines.contract import rank_2
from .inputs import Matrix, Vector
from .linking import Link
from .planning import check_kernel
from .problem import Problem
from .solver import newton
from .steps.approximate import Sample

TOL = 1e-12
ABOVE_NOISE = 10.0  # times the last Newton step at x*, which is rounding: what is shorter is not measured
FAR = 1e3  # times the start's distance: there a run has diverged
PIECES = 8  # of the way from an iterate to x*, for M
GOOD = 0.1  # M ||x0 - x*|| <= 0.1 l
SHOWN = (1e-3, 1e-6, 1e-9)  # of the start's distance


class Contraction(NamedTuple):
    """The distances to x* of one run of x <- x - H^-1 g.

    Attributes
    ----------
    errors : (k + 1,) array
        ||x_i - x*||, from x0 on.
    floor : float
        The distance up to which rounding hides x*.
    end : str
        Why the run ended: "floor", "diverged", "left the domain", "singular" or "max_iter".
    """

    errors: Vector
    floor: float
    end: str

    @property
    def factors(self) -> Vector:
        """||x_(i+1) - x*||/||x_i - x*|| of each step that can be measured: of those that end above the floor."""
        return (self.errors[1:] / self.errors[:-1])[self.errors[1:] > self.floor]

    def iterations(self, eps: float) -> int | None:
        """The number of steps after which ||x - x*|| is at most eps; None if it never is, or if eps is below the floor."""
        within = np.flatnonzero(self.errors <= eps)
        return int(within[0]) if within.size and eps >= self.floor else None


class Convergence(NamedTuple):
    """The findings of `convergence`; ``print`` shows them as a table.

    Attributes
    ----------
    x : (d,) array
        The minimum x*.
    least_eigenvalue : float
        l, of the Hessian at x*.
    lipschitz, lipschitz_bound : float
        M: the largest slope of the Hessian seen on the way, a lower bound of the true one; and that of `lipschitz_bounds` on the smallest set
        that holds the points where it was looked for, NaN for a `Link`.
    distance : float
        ||x0 - x*||.
    floor : float
        The distance up to which rounding hides x*.
    contractions : dict of Contraction
        By Hessian: "exact"; "sampled, 20 d rows" and so on; and without the rank-2 term "diagonal", "diagonal, 20 d rows" and so on.
    """

    x: Vector
    least_eigenvalue: float
    lipschitz: float
    lipschitz_bound: float
    distance: float
    floor: float
    contractions: dict[str, Contraction]

    @property
    def radius(self) -> float:
        """0.1 l/M, within which the theorem lets x0 lie, with the M that was seen."""
        return GOOD * self.least_eigenvalue / self.lipschitz if self.lipschitz > 0 else math.inf

    @property
    def radius_bound(self) -> float:
        """The same with the M of `lipschitz_bounds`."""
        return GOOD * self.least_eigenvalue / self.lipschitz_bound

    def __str__(self) -> str:
        lines = [
            f"l, the least eigenvalue at x*    {self.least_eigenvalue:.3e}",
            f"M, seen on the way               {self.lipschitz:.3e}    by lipschitz_bounds  {self.lipschitz_bound:.3e}",
            f"good start, 0.1 l/M              {self.radius:.3e}    by lipschitz_bounds  {self.radius_bound:.3e}",
            f"||x0 - x*||                      {self.distance:.3e}    measurable down to   {self.floor:.1e}",
            "",
            f"{'':22}{'factors ||x+ - x*||/||x - x*||':^39}{'steps to, of ||x0 - x*||':^27}",
            f"{'Hessian':22}"
            + "".join(f"{name:>13}" for name in ("first", "median", "largest"))
            + "".join(f"{part:>9.0e}" for part in SHOWN)
            + "  end",
        ]
        for name, run in self.contractions.items():
            factors = run.factors
            of_factors = (factors[0], np.median(factors), factors.max()) if factors.size else (math.nan,) * 3
            steps = (run.iterations(part * self.distance) for part in SHOWN)
            lines.append(
                f"{name:22}" + "".join(f"{x:13.2e}" for x in of_factors) + "".join(f"{'-' if k is None else k:>9}" for k in steps) + f"  {run.end}"
            )
        lines.append(f"{'log(||x0 - x*||/eps)':61}" + "".join(f"{-math.log(part):9.1f}" for part in SHOWN))
        return "\n".join(lines)


def convergence(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    w: Any = None,
    groups: Any = None,
    multiplicity: Any = None,
    residual_weights: Any = None,
    link: str | Link = "rsx",
    rows: Sequence[int] = (20, 80),
    max_iter: int = 60,
    seed: int = 0,
    kernel: str = "auto",
    num_threads: int | None = None,
) -> Convergence:
    """Measure what the convergence theorem of the papers assumes and claims, by plain Newton steps from x0 to the minimum that `newton` finds there.

    The theorem (arXiv:2304.10411; arXiv:2306.14048, appendix D) is about x <- x - H~^-1 g without a trust region, where H~ is sampled from rows of
    A^T diag(2 D + w^2) A. If l is the least eigenvalue of the Hessian at x*, M a Lipschitz constant of it, and M ||x0 - x*|| <= 0.1 l, each step
    shortens ||x - x*|| to at most 0.4 of it, so that log(||x0 - x*||/eps) steps are enough. Here the same steps are taken from

    - the exact Hessian, whose factors fall to 0: ||x+ - x*|| <= M ||x - x*||^2/(2 (l - M ||x - x*||));
    - "sampled": its first term from k d rows drawn anew for each step, with the exact rank-2 term -2 (v q^T + q v^T) (see `Problem.factors`);
    - "diagonal": as the papers do, without the rank-2 term, from all rows and from k d of them. Its factors tend to the spectral radius of
      2 G^-1 (v q^T + q v^T), G = A^T diag(2 D + w^2) A at x*, however many rows are drawn.

    Parameters
    ----------
    A : (n, d) array_like
    b : (n,) array_like
    x0 : (d,) array_like, optional
        In the domain <u, 1> > 0; x = 0 by default.
    w : (n,) array_like or float, optional
        Weights of the regulariser.
    groups, multiplicity, residual_weights : (n,) array_like, optional
        As in `Problem`. v q^T + q v^T is then summed over the groups.
    link : {"rsx", "softmax", "linear"} or Link, optional
        As in `Problem`. "linear" is refused: there f does not depend on the length of x, so no minimum is isolated.
    rows : sequence of int, optional
        Rows that are drawn, in multiples of d; those of n or more are left out.
    max_iter : int, optional
        The most steps of each run.
    seed : int, optional
        Of the draws.
    kernel, num_threads : optional
        As in `newton`.

    Returns
    -------
    Convergence

    Raises
    ------
    ValueError, TypeError
        For input that `newton` refuses, where it finds no minimum from x0, where the Hessian is singular at the minimum, and where x0 is the minimum.

    Notes
    -----
    M is looked for on the ways from the exact iterates to x*, each in eight pieces. x* is known up to `floor`, ten times the length of
    a Newton step there, which is rounding; a factor of a step that ends below it is not a measurement, and not reported.
    Any number of threads may call this at once.

    Examples
    --------
    >>> import fastrsx
    >>> from fastrsx.data import load_automobiles
    >>> cars = load_automobiles()
    >>> found = fastrsx.convergence(cars.A, cars.b)
    >>> f"{found.least_eigenvalue:.1e}", found.distance > 50 * found.radius, found.radius > 1e3 * found.radius_bound
    ('6.6e-04', True, True)
    >>> exact = found.contractions["exact"]
    >>> exact.end, exact.iterations(1e-9), f"{exact.factors[-1]:.0e}"
    ('floor', 5, '1e-07')
    """
    inputs.refuse_elsewhere("A", A)
    check_kernel(kernel, num_threads)
    seed, max_iter = inputs.as_count("seed", seed, 0), inputs.as_count("max_iter", max_iter, 1)
    if not isinstance(rows, Iterable):
        raise TypeError(f"rows is {rows!r}; it must be a sequence of integers, such as (20, 80)")
    multiples = [inputs.as_count(f"rows[{i}]", factor, 1) for i, factor in enumerate(rows)]
    of_rows = {"groups": groups, "multiplicity": multiplicity, "residual_weights": residual_weights}
    problem = Problem(A, b, w=w, **of_rows, link=link, kernel=kernel, num_threads=num_threads)
    if problem._traits.flat_along_x:
        raise ValueError(f"link is {link!r}: f does not depend on the length of x, so no minimum is isolated; pass another link")
    start = np.zeros(problem.A.shape[1]) if x0 is None else problem._as_x(x0, "x0")
    x, floor = _minimum(problem, start)
    least = range_of(problem.hess(x))
    if not least.smallest > least.error:
        raise ValueError(
            f"the Hessian at the minimum has the eigenvalue {least.smallest:.3g}, 0 or less to rounding, where the theorem needs l > 0: "
            "drop columns that depend on others (for the softmax, one that is constant in each group), or pass weights w"
        )
    distance = float(np.linalg.norm(start - x))
    if not distance > floor:
        raise ValueError(f"x0 is {distance:.2g} away from the minimum, which is known to {floor:.2g} only; pass one that is farther away")
    paths = {name: _path(problem, hess, start, x, floor, max_iter) for name, hess in _hessians(problem, multiples, seed).items()}
    contractions = {name: Contraction(np.linalg.norm(points - x, axis=1), floor, end) for name, (points, end) in paths.items()}
    lipschitz, bound = _lipschitz(problem, paths["exact"][0], x, floor)
    return Convergence(x, least.smallest, lipschitz, bound, distance, floor, contractions)


def _newton_step(problem: Problem, grad: Vector, hess: Matrix) -> Vector:
    """H^-1 g, by columns of unit RMS."""
    scale = problem._column_scale
    return np.asarray(np.linalg.solve(hess / scale / scale[:, None], grad / scale) / scale)


def _minimum(problem: Problem, start: Vector) -> tuple[Vector, float]:
    """The minimum that `newton` finds from a start, after Newton steps as long as each is less than half of the one before; and its floor."""
    kernel, num_threads = problem.plan.kernel, problem._num_threads
    result = newton(problem.A, problem.b, start, **problem._like_this, hessian="exact", tol=TOL, kernel=kernel, num_threads=num_threads)
    if not result.success:
        raise ValueError(f"newton finds no minimum from x0: {result.status.name}. {result.message}")
    x, length = result.x, math.inf
    while True:
        try:
            step = _newton_step(problem, *problem.value_grad_hess(x)[1:])
        except np.linalg.LinAlgError:  # the caller sees that l is 0
            return x, 0.0
        before, length = length, float(np.linalg.norm(step))
        if not 2 * length < before:
            return x, ABOVE_NOISE * max(before, float(np.finfo(float).eps * np.linalg.norm(x)))
        x = x - step


def _hessians(problem: Problem, multiples: list[int], seed: int) -> dict[str, Callable[[Vector], Matrix]]:
    """By name, the matrices from which steps are taken."""
    n, d = problem.A.shape

    def diagonal(x: Vector) -> Matrix:
        return problem.hess(x) + rank_2(*problem.factors(x)[2:4])

    def sampled(size: int, is_whole: bool) -> Callable[[Vector], Matrix]:
        with problem._running():
            sample = Sample(problem._passes, problem._column_scale, size, seed)

        def hess(x: Vector) -> Matrix:
            factors = problem.factors(x)
            with problem._running():
                gram = 2 * sample.gram(factors.D)
            return gram - rank_2(factors.v, factors.q) if is_whole else gram

        return hess

    drawn = {f"{factor} d rows": factor * d for factor in multiples if factor * d < n}
    return {
        "exact": problem.hess,
        **{f"sampled, {name}": sampled(size, True) for name, size in drawn.items()},
        "diagonal": diagonal,
        **{f"diagonal, {name}": sampled(size, False) for name, size in drawn.items()},
    }


def _path(problem: Problem, hess: Callable[[Vector], Matrix], x: Vector, to: Vector, floor: float, max_iter: int) -> tuple[Matrix, str]:
    """The points of a run of x <- x - H^-1 g, and why it ended."""
    points, far = [x], FAR * float(np.linalg.norm(x - to))
    for _ in range(max_iter):
        try:
            x = x - _newton_step(problem, problem.grad(x), hess(x))
        except np.linalg.LinAlgError:
            return np.array(points), "singular"
        error = float(np.linalg.norm(x - to))
        if not error <= far:
            return np.array(points), "diverged"
        if not problem.value(x) < np.inf:
            return np.array(points), "left the domain"
        points.append(x)
        if error <= floor:
            return np.array(points), "floor"
    return np.array(points), "max_iter"


def _lipschitz(problem: Problem, iterates: Matrix, x: Vector, floor: float) -> tuple[float, float]:
    """The largest slope of the Hessian on the ways from iterates to x, in pieces; and its bound on the smallest set that holds their ends.

    Iterates nearer than the geometric mean of the first one's distance and the floor are left out: rounding would show in the slope.
    """
    distances = np.linalg.norm(iterates - x, axis=1)
    most, radius, least_alpha = 0.0, float(np.linalg.norm(x)), math.inf
    for iterate in iterates[distances**2 >= floor * distances[0]]:
        points = [x + t * (iterate - x) for t in np.linspace(0.0, 1.0, PIECES + 1)]
        hessians = [problem.hess(point) for point in points]
        least_alpha = min(least_alpha, *(_alpha(problem, point) for point in points))
        changes = max(float(np.linalg.norm(after - before, 2)) for before, after in pairwise(hessians))
        most = max(most, changes * PIECES / float(np.linalg.norm(iterate - x)))
        radius = max(radius, float(np.linalg.norm(iterate)))
    if not least_alpha > 0:
        return math.inf, math.inf  # a pole is on the way
    if isinstance(problem.link, Link):
        return most, math.nan
    beta = min(least_alpha, float(np.finfo(float).max))
    return most, lipschitz_bounds(problem.A, problem.b, radius, beta, **problem._like_this).hessian


def _alpha(problem: Problem, x: Vector) -> float:
    """<u, 1> at x, the least of any group; 0 outside the domain."""
    with problem._running():
        return float(np.min(problem._point.alpha)) if problem._move_to(x) else 0.0
