"""Nearly dependent columns: Newton's method in an orthonormal basis of A's column space, independent of the basis that the caller chose.

The loss depends on x through A x alone, so columns that span the same space pose the same problem: raw years and centred ones. But a trust region in
columns of unit RMS is a flat ellipsoid where they are nearly dependent, and the d x d algebra loses the square of their condition in digits.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh, svd

from fastrsx.kernels.newton.dependence import CONDITION, DEPENDENT, ENOUGH, PROMISED, independence, is_missed, rows_to_look_at

from ..eigenvalues import smallest
from ..engines.contract import Point
from ..inputs import Matrix, Vector
from ..loading import STREAMED_FROM, Recast, as_rows, chunks
from ..planning import EXACT_UP_TO, ON_GPU, REDUCED_UP_TO, is_in_parts
from ..problem import LEAST_NORM_TOL, Problem
from ..rank import least_norm, null_space, triangular_factor
from ..result import NewtonResult, Status
from ..system import device
from ..system.memory import LARGE, free, room_for
from ..verdicts import UNATTAINABLE
from .variables import Variables


class Axes(NamedTuple):
    """The principal axes of A diag(1/scale), divided by sqrt(n), those of its null space separate."""

    vectors: Matrix  # d x r
    sizes: Vector  # r, ascending
    null: Matrix  # d x (d - r)

    @property
    def condition(self) -> float:
        return float(self.sizes[-1] / self.sizes[0])


def seems_independent(problem: Problem) -> bool:
    """Whether the columns of A are far from dependent, by a few of its rows: one from each of as many ranges, so that no period meets them."""
    passes, scale = problem._passes, problem._column_scale
    n, d = passes.shape
    if passes.is_plain and d <= EXACT_UP_TO:
        return bool(independence(passes.source, d, scale) >= ENOUGH)
    if problem.plan.loader in ON_GPU and problem.plan.loader != "device sparse":  # where a Gram matrix of all rows takes less than some of them would
        return smallest(_gram(problem)) >= ENOUGH
    count = rows_to_look_at.py_func(n, d)
    stops = np.arange(1, count + 1) * n // count
    rows = as_rows(problem.A, np.random.default_rng(0).integers(stops - np.diff(stops, prepend=0), stops)) / scale
    return smallest(rows.T @ rows / count) >= ENOUGH


def _gram(problem: Problem) -> Matrix:
    """The Gram matrix of scaled columns, over n."""
    scale = problem._column_scale
    with problem._running():
        return np.asarray(problem._passes.gram() / scale / scale[:, None] / problem.A.shape[0])


def axes_of(problem: Problem) -> Axes | None:
    """The principal axes, from a Gram matrix or, where that cannot tell all of them from 0, by QR; None for a zero A."""
    A, scale = problem.A, problem._column_scale
    n, d = A.shape
    gram = _gram(problem)
    squares, vectors = eigh(gram)
    if not squares[-1] > 0:
        return None
    if squares[0] > 1e3 * d * np.finfo(float).eps * squares[-1]:  # rounding has less than a thousandth of each
        return Axes(vectors, np.sqrt(squares), np.empty((d, 0)))
    _, lengths, Vt = svd(triangular_factor(A, scale), full_matrices=True)
    sizes, vectors = np.zeros(d), Vt[::-1].T
    sizes[d - len(lengths) :] = lengths[::-1] / np.sqrt(n)
    is_null = sizes <= DEPENDENT * sizes[-1]
    kept = vectors[:, ~is_null]
    kept[gram.diagonal() == 0] = 0.0  # of zero columns, where rounding leaves something
    return Axes(kept, sizes[~is_null], np.ascontiguousarray(vectors[:, is_null]))


def multiply(rows: Any, matrix: Matrix) -> Matrix:
    """Rows, which may be sparse, times a matrix."""
    return np.asarray(rows @ matrix, dtype=np.float64)


def recast(problem: Problem, matrix: Matrix) -> Any:
    """A times a matrix: in memory, on the GPU where A is, or formed in each pass where A is on disk or there is no room for it."""
    A, shape = problem.A, (problem.A.shape[0], matrix.shape[1])
    loader, size = problem.plan.loader, 8 * shape[0] * shape[1]
    if loader == "dask":
        return A.map_blocks(multiply, matrix, dtype=float, chunks=(A.chunks[0], shape[1:]))
    if loader in ON_GPU:
        with device.room_for("A in an orthonormal basis"):
            out = device.kernels().cuda.device_array(shape)
        for which, rows in chunks(A):
            out[which].copy_to_device(rows @ matrix)
        return out
    if is_in_parts(loader) or (size > LARGE and size > STREAMED_FROM * free()):
        return Recast(A, matrix)
    with room_for("A in an orthonormal basis", shape[0] * shape[1]):
        out = np.empty(shape)
    for which, rows in chunks(A):
        np.matmul(rows, matrix, out=out[which])
    return out


class Orthonormal(Variables):
    """A x = Q y, with the columns of Q orthonormal but for a factor sqrt(n): Q = A from_y, y = to_y x.

    `newton` in y takes the same steps for A and for A T, T any invertible matrix (see docs/theory.md).
    """

    def __init__(self, original: Problem, axes: Axes, x0: Vector | None, kernel: str = "auto", num_threads: int | None = None) -> None:
        super().__init__(original, x0)
        self.axes, self.condition, self.weakest = axes, axes.condition, axes.vectors[:, 0]
        self.to_y = axes.sizes[:, None] * axes.vectors.T * self.scale
        self.from_y = axes.vectors / axes.sizes / self.scale[:, None]
        self._solve_over(recast(original, self.from_y), kernel, num_threads)
        self.problem.plan = self.problem.plan._replace(hessian=original.plan.hessian)
        if x0 is not None:
            self._start_image()
        self.y0 = self.to_y @ self.x0

    @classmethod
    def where_needed(cls, problem: Problem, x0: Vector | None, kernel: str, num_threads: int | None) -> "Orthonormal | None":
        """None where the columns of A are far from dependent, except those that depend exactly."""
        n, d = problem.A.shape
        if d > max(n, EXACT_UP_TO) or d > REDUCED_UP_TO or seems_independent(problem):
            return None
        axes = axes_of(problem)
        return None if axes is None or axes.condition < CONDITION else cls(problem, axes, x0, kernel, num_threads)

    def start(self, y: Vector, a: Vector) -> None:
        y[:] = self.y0
        self.problem._passes.products(y, a)

    def direction(self, y: Vector) -> Vector:
        return np.asarray(self.axes.vectors @ (y / self.axes.sizes))

    def _is_nearer_start(self, y: Vector) -> bool:
        """Whether y is nearer to y0 than to 0; from 0, x0 would leave rounding of its size."""
        return bool(np.abs(y - self.y0).max() <= np.abs(y).max())

    def lift(self, y: Vector) -> Vector:
        if self._is_nearer_start(y):
            return np.asarray(self.x0 + self.from_y @ (y - self.y0))
        null = self.axes.null
        return np.asarray(self.from_y @ y + null @ (null.T @ (self.scale * self.x0)) / self.scale)

    def _least_norm(self, x: Vector, y: Vector) -> tuple[Vector, Any, Point]:
        """The x of least norm, unless it has another A x and a higher loss; A x and the point there."""
        original, null = self.original, self.axes.null
        if self.softmax:
            null = null_space(original.A, self.scale, original._centre())
        least = least_norm(x if self._is_nearer_start(y) else self.from_y @ y, null, self.scale)
        a, point = self._at(x)
        if np.array_equal(least, x):
            return x, a, point
        moved, after = self._at(least)
        passes = original._passes
        with original._running():
            has_no_effect = passes.distance(moved, a, centred=self.softmax) <= LEAST_NORM_TOL * passes.largest(a)
        return (least, moved, after) if has_no_effect or after.fun <= point.fun else (x, a, point)

    def rewrite(self, result: NewtonResult, a: Vector) -> None:
        """Report all at A x in float64: x is rounded, a is not."""
        original, inner, found = self.original, self.problem, result.fun
        x = self.lift(result.x)
        result.x, ax, point = self._least_norm(x, result.x) if result.success else (x, *self._at(x))
        result.kernel = str(original.plan)
        with original._running():
            if result.success and self.axes.null.size and self.condition > PROMISED:  # no gap between dependent and independent
                result.status, result.success = Status.STALLED, False
                result.message = "Columns of A depend on each other to a degree that float64 does not tell from rounding."
            elif result.success and is_missed(point.fun, found, point.noise, self.condition, original._passes.largest(ax), original._passes.norm_b):
                result.status, result.success, result.message = Status.STALLED, False, UNATTAINABLE
            ax, point = self._not_above_start(result, ax, point)
            result.fun, (result.alpha, result.log_alpha) = point.fun, original._alphas(point)
            if result.status is Status.NONFINITE:
                result.jac = np.full(len(self.x0), np.nan)
            elif result.hess is None:
                result.jac = original._passes.gradient(ax, point).grad
            else:
                first, result.hess = original._passes.hessian(ax, point)
                result.jac = first.grad
        result.npass = original.npass + inner.npass
