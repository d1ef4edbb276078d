"""More columns than rows: the loss depends on x only through the n numbers A x, so Newton's method can run on n x n data in place of n x d."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.linalg import qr, solve_triangular, svd
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpocon, dpotrf, dtpqrt

from fastrsx.kernels.newton.dependence import MISSED

from ..inputs import Matrix, Vector
from ..loading import as_rows
from ..problem import LEAST_NORM_TOL, Problem
from ..rank import tolerance
from ..result import NewtonResult, Status
from ..system.memory import room_for
from ..verdicts import UNATTAINABLE
from .variables import Variables

CHUNK = 2**22  # numbers of A that are copied at a time: 32 MB
WELL_CONDITIONED = 1e-8  # the inverse condition of A A^T, its rows scaled to length 1, from which its Cholesky factor serves: that of A is 1e-4
QR_BLOCK = 32  # columns that dtpqrt takes together
MOST_CORRECTIONS = 6
EPS = float(np.finfo(float).eps)
Rows = npt.NDArray[np.intp]


# -- factors of A -----------------------------------------------------------------------------------------------


def _chunks(A: Matrix, rows: Rows, scale: Vector, least: int) -> Iterator[Matrix]:
    """A[rows] diag(1/scale), in chunks of columns, each chunk a copy. Nothing else here reads A."""
    width = max(least, CHUNK // len(rows))
    for start in range(0, A.shape[1], width):
        yield np.take(A[:, start : start + width], rows, axis=0) / scale[start : start + width]


def _by_cholesky(A: Matrix, rows: Rows, scale: Vector) -> Matrix | None:
    """The lower triangular L of A diag(1/scale)^2 A^T = L L^T, or None where A is too close to dependent rows for it."""
    gram = np.zeros((len(rows),) * 2, order="F")
    for chunk in _chunks(A, rows, scale, 64):
        gram = dsyrk(1.0, chunk.T, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1)
    length = np.sqrt(gram.diagonal())
    if not length.min() > 0:
        return None
    gram /= length[:, None]
    gram /= length
    size = float(np.abs(gram).sum(axis=0).max())  # of the lower triangle: half of the norm, or more
    L, failed = dpotrf(gram, lower=1, clean=1, overwrite_a=1)
    if failed or dpocon(L, size, uplo="L")[0] < WELL_CONDITIONED:
        return None
    return np.ascontiguousarray(L * length[:, None])


def _by_qr(A: Matrix, rows: Rows, scale: Vector) -> Matrix:
    """The lower triangular L of A diag(1/scale) = L Q^T, by QR of one chunk of columns after another."""
    n = len(rows)
    R = np.zeros((n, n), order="F")
    for chunk in _chunks(A, rows, scale, n):
        R = dtpqrt(0, min(QR_BLOCK, n), R, chunk.T, overwrite_a=1, overwrite_b=1)[0]
    return np.tril(R.T)


def _factor(A: Matrix, scale: Vector) -> tuple[Rows, Matrix]:
    """Independent rows of A, r of them, and the B (n x r) of A diag(1/scale) = B Q^T, lower triangular in these rows."""
    every = np.arange(len(A))
    L = _by_cholesky(A, every, scale)
    if L is not None:
        return every, L
    R, order = qr(_by_qr(A, every, scale).T, mode="r", pivoting=True, overwrite_a=True, check_finite=False)
    size = np.abs(R.diagonal())
    rank = int(np.count_nonzero(size > tolerance(size, A.shape)))
    B = np.zeros((len(A), rank))
    B[order] = R[:rank].T
    return order[:rank], B


class Reduction(Variables):
    """A diag(1/scale) = B Q^T, with orthonormal Q (d x r) and B (n x r) of full column rank: A x = B y for y = Q^T (scale * x).

    `scale` is the RMS of A's columns. y is as long as scale * x, so that `newton` has the same trust region for B as for A. Q is never formed: `rows`
    of A are independent, r of them, B is lower triangular in them, say L, and Q = diag(1/scale) A[rows]^T L^-T. See docs/theory.md.

    Parameters
    ----------
    original : Problem
        With more columns than rows.
    x0 : (d,) array or None
        The start.
    kernel, num_threads
        As in `Problem`.

    Attributes
    ----------
    problem : Problem
        The reduced one, with B for A.
    y0, a0 : array
        The y of x0, and A x0.
    """

    def __init__(self, original: Problem, x0: Vector | None, kernel: str = "auto", num_threads: int | None = None) -> None:
        super().__init__(original, x0)
        n, d = original.A.shape
        with room_for(f"the reduced problem for {n} x {d}", 4 * n * n + CHUNK):
            self.rows, B = _factor(original.A, self.scale)
        self.L = B[self.rows]
        if not len(self.rows):  # A is 0; a Problem has columns
            B = np.zeros((n, 1))
        self._solve_over(B, kernel, num_threads)
        self.a0, self.y0 = np.zeros(n), np.zeros(B.shape[1])
        if x0 is not None:
            self.a0 = self._start_image()
            self.y0[: len(self.rows)] = self._solve(self.L, self.a0[self.rows])

    def start(self, y: Vector, a: Vector) -> None:
        y[:], a[:] = self.y0, self.a0

    def _solve(self, L: Matrix, y: Vector, transposed: bool = False) -> Vector:
        return np.asarray(solve_triangular(L, y, lower=True, trans=int(transposed), check_finite=False)) if len(y) else y

    # -- from y to x ------------------------------------------------------------------------------------------

    def _transposed(self, z: Vector, scale: Vector) -> Vector:
        """diag(1/scale) A[rows]^T z."""
        full = np.zeros(len(self.a0))
        full[self.rows] = z
        return self.original._transposed_times(full) / scale

    def direction(self, y: Vector) -> Vector:  # Q y
        return self._transposed(self._solve(self.L, y[: len(self.rows)], transposed=True), self.scale)

    def _reach(self, x: Vector, ax: Vector, a: Vector, L: Matrix, scale: Vector) -> tuple[Vector, float]:
        """x, moved by as little as possible, in columns times their scale, to where A x = a; and max |a - A x| there.

        A step by L alone is less accurate the worse A's condition is; corrections by the rest of a reach rounding.
        """
        error = float(np.abs(a - ax).max())
        for _ in range(MOST_CORRECTIONS):
            if not EPS * np.abs(a).max() < error < np.inf:
                break
            z = self._solve(L, self._solve(L, (a - ax)[self.rows]), transposed=True)
            moved = x + self._transposed(z, scale) / scale
            ax = self.original._times(moved)
            left = float(np.abs(a - ax).max())
            if not left < error:
                break
            x, settled, error = moved, left > error / 2, left
            if settled:
                break
        return x, error

    def _nearest(self, y: Vector) -> tuple[Vector, float]:
        if np.array_equal(y, self.y0, equal_nan=True):
            return self.x0.copy(), 0.0
        a = self.a0 + np.einsum("ij,j->i", self.problem.A, y - self.y0)
        return self._reach(self.x0.copy(), self.a0, a, self.L, self.scale)

    def lift(self, y: Vector) -> Vector:
        return self._nearest(y)[0]

    def least_norm(self, y: Vector, a: Vector) -> Vector:
        """A+ a, in the caller's own columns; the x of y where the scales of columns are so far apart that A x misses a."""
        nearest, error = self._nearest(y)
        scale = np.full(len(nearest), self.scale.max())
        if not len(self.rows):
            return np.zeros(len(scale))
        A = self.original.A
        L = _by_cholesky(A, self.rows, scale)
        if L is None:
            L = _by_qr(A, self.rows, scale)
        allowed = max(LEAST_NORM_TOL * np.abs(a).max(), min(4 * error, MISSED * np.abs(a).max()))
        x, error = self._reach(np.zeros(len(scale)), np.zeros(len(a)), a, L, scale) if np.abs(L.diagonal()).min() > 0 else (nearest, np.inf)
        if not error <= allowed:
            return nearest
        if self.softmax and callable(centre := self.original._centre()):  # its solutions are those of A x = a + t of each group, all t
            with room_for("the differences of rows within groups", A.shape[0] * A.shape[1]):
                _, sizes, axes = svd(as_rows(A, slice(None)) - centre(slice(None)), full_matrices=False)
            axes = axes[sizes > tolerance(sizes, A.shape)]
            x = axes.T @ (axes @ x)
        elif self.softmax:  # those of A x = a + t 1
            constant, error = self._reach(np.zeros(len(scale)), np.zeros(len(a)), np.ones(len(a)), L, scale)
            if error <= LEAST_NORM_TOL:
                x -= constant * (constant @ x / (constant @ constant))
        return x

    # -- the report -------------------------------------------------------------------------------------------

    def _report_at(self, result: NewtonResult, a: Vector) -> None:
        """The gradient at a, and all else that does not depend on y alone; the whole report at A x, where x misses a."""
        original = self.original
        with original._running():
            ax, point = self._at(result.x)
            missed, size = float(np.abs(ax - a).max()), float(np.abs(a).max())
            if self.softmax and result.success:  # a constant in all rows does not change the loss, but it changes alpha
                result.alpha, result.log_alpha = original._alphas(point)
            elif not missed <= LEAST_NORM_TOL * size:
                if not (point.fun < np.inf and point.fun - result.fun <= MISSED * result.fun + point.noise) and result.success:
                    result.status, result.success = Status.STALLED, False
                    result.message = f"{UNATTAINABLE[:-1]}; multiply columns of A that are tiny."
                a, point = self._not_above_start(result, ax, point)
                result.fun, (result.alpha, result.log_alpha) = point.fun, original._alphas(point)
                result.jac = original._passes.gradient(a, point).grad
                return
            result.jac = original._passes.gradient(a, original._passes.evaluate(a)).grad

    def rewrite(self, result: NewtonResult, a: Vector) -> None:
        y, original = result.x, self.original
        result.x = self.least_norm(y, a) if result.success else self.lift(y)
        result.jac = np.full(len(self.x0), np.nan)
        if result.status is not Status.NONFINITE:
            self._report_at(result, a)
        result.hess, result.npass, result.kernel = None, original.npass, str(original.plan)
