"""Steps that Python proposes: without forming the Hessian, from a few of its rows, its products with vectors, or both; or from the Hessian."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.linalg import eigh

from fastrsx.kernels.layouts.panel import padded
from fastrsx.kernels.newton import iteration, trust_region
from fastrsx.kernels.newton.cholesky import solve_upper
from fastrsx.kernels.registers.simd import LANES

from ..eigenvalues import combine, orthogonal, shifted_factor, solve
from ..engines.contract import Engine, Foreseen, Point
from ..engines.memory import QUIET
from ..inputs import Matrix, Vector
from ..problem import Problem

RIDGE = 1e-10  # of the mean diagonal: a sample may lack a direction of A
FRESH_WITHIN = 0.3  # max |A step| since the rows were drawn: e and v, and so h, have changed by at most that fraction (rows "newton by Hessian")
EASY, HARD = 0.01, 0.03  # the error of a step, squared, in the norm of H and relative to it: of a Newton step, and of any other
MOST_DIRECTIONS = {"sampled": 12, "matrix-free": 60}
EPS = float(np.finfo(float).eps)
DEPENDENT = 1e-8  # the relative remainder of a direction that the span already holds


class Sample:
    """A^T diag(h) A from rows drawn by |h| times leverage, about `size` of them; see `fastrsx.kernels.cpu.sample`."""

    def __init__(self, passes: Engine, scale: Vector, size: int, seed: int) -> None:
        self.passes, self.scale, self.size = passes, scale, size
        self.random = np.random.default_rng(seed)
        self.drawn = passes.drawing(size)
        self.scores = self._scores(*passes.shape)

    def _scores(self, n: int, d: int) -> Any:
        """Estimated leverages of the rows: one pass."""
        count = min(self.size, n)
        gram = self.drawn.gram_of(np.sort(self.random.choice(n, count, replace=False)), n / count) / self.scale / self.scale[:, None]
        if not np.isfinite(gram).all():  # nor will the Hessian be: the solve says so
            return self.passes.constant(1.0)
        directions = np.zeros((padded(d), LANES))
        R = shifted_factor(gram, RIDGE * max(np.trace(gram) / d, RIDGE))
        for lane in range(LANES):
            direction = self.random.standard_normal(d)
            solve_upper(R, direction)
            directions[:d, lane] = direction / self.scale
        return self.passes.row_squares(directions)

    def gram(self, h: Any) -> Matrix:
        """An unbiased estimate of A^T diag(h) A; its rank-2 companion is never sampled."""
        return self.drawn.gram(h, self.scores, self.random.random())


class Span:
    """Directions of scaled columns, orthonormal, with their products with the Hessian and with A: one pass for each."""

    def __init__(self, steps: "Steps", a: Vector, point: Point) -> None:
        self.steps, self.a, self.point = steps, a, point
        self.basis = self.images = np.empty((0, len(steps.scale)))
        self.products: list[Vector] = []
        self.cancellation = 0.0  # a product with H relative to its two terms, in the direction where that is largest

    def add(self, direction: Vector) -> bool:
        """Add a direction; returns whether it was new."""
        before = np.linalg.norm(direction)
        direction = orthogonal(direction, self.basis)
        length = np.linalg.norm(direction)
        if not length > DEPENDENT * before:
            return False
        steps, unit = self.steps, direction / length
        if len(self.products) == len(steps.pool):
            steps.pool.append(steps.passes.scratch())
        product = steps.pool[len(self.products)]
        image = steps.passes.hess_vec(self.a, self.point, steps.first, unit / steps.scale, product) / steps.scale
        if not np.isfinite(image).all():
            steps.overflowed = True
            return False
        self.cancellation = max(self.cancellation, steps.first.cancellation(image, unit, product, steps.scale))
        steps.products += 1
        self.basis, self.images = np.vstack([self.basis, unit]), np.vstack([self.images, image])
        self.products.append(product)
        return True

    def combine(self, y: Vector, out: Vector) -> None:
        """out = A times the direction with the coefficients y."""
        self.steps.passes.combine(y, self.products, out)


class Steps:
    """Proposes steps to an iterate of `fastrsx.kernels.newton.iteration`, for hessian="sampled", "sampled-only" and "matrix-free".

    And for "exact" where A is of a layout that whole iterations are not compiled for. With H the exact Hessian and
    M = A^T diag(h) A - 2 (v q^T + q v^T), its first term sampled:

    - "sampled-only" takes the trust-region step of M. (The algorithm of arXiv:2309.13482 drops the rank-2 term.)
    - "sampled" starts from that, and takes the trust-region step of H itself in the span of the directions (M + lam I)^-1 r,
      r the residuals so far. Where H is positive definite and the radius large, these are the iterates of conjugate
      gradients preconditioned by M.
    - "matrix-free" does the same with the identity for M.
    """

    @QUIET
    def __init__(self, problem: Problem, hessian: str, sample_rows: int, seed: int) -> None:
        self.passes, self.scale, self.hessian, self.seed = problem._passes, problem._column_scale, hessian, seed
        n = problem.A.shape[0]
        self.gradients = self.sampled = self.exact = self.reused = self.products = 0
        self.min_eig = math.nan  # of the last point that looked like a minimum, "matrix-free"
        draws = hessian in ("sampled", "sampled-only") and sample_rows < n
        self.sample = Sample(self.passes, self.scale, sample_rows, seed) if draws else None
        self.hess: Matrix | None = None  # where it is exact
        self.pool: list[Vector] = []  # room for products with A
        self.gram: Matrix | None = None  # the first term of M, of scaled columns, where it was made
        self.travelled = math.inf  # max |A step| since then
        self.overflowed = False  # whether any quantity in the step has

    def derive(self, a: Vector, point: Point, it: iteration.Iterate, exactly: bool = False) -> None:
        """Gradient and rank-2 vectors, and the Hessian where it is exact: one pass, or none where they were foreseen; `exactly` for a result."""
        if self.hessian == "exact":
            foreseen = self.passes.foreseen(point)
            if foreseen is None or (exactly and not foreseen.error <= iteration.AS_EXACT * it.state.view(iteration.ITERATION)["largest"][0]):
                foreseen = Foreseen(*self.passes.hessian(a, point), 0.0)
                self.exact += 1
            self.first, self.hess, iteration.as_iteration(it.state).error = foreseen
        else:
            self.first = self.passes.gradient(a, point)
        self.gradients += 1
        iteration.as_iteration(it.state).derived = True
        it.grad[:] = self.first.grad
        it.scaled_grad[:] = self.first.grad / self.scale

    def model(self) -> Matrix | None:
        """M, of scaled columns; None without."""
        if self.hess is not None:
            return self.hess / self.scale[:, None] / self.scale
        if self.gram is None:
            return None
        return self.gram - self.first.rank_2(self.scale)

    def _refresh(self, a: Vector, point: Point, exactly: bool) -> None:
        h = self.passes.row_weights(a, point)
        if exactly or self.sample is None:
            gram = self.passes.weighted_gram(h)
            self.exact += 1
        else:
            gram = self.sample.gram(h)
            self.sampled += 1
        self.gram, self.travelled = gram / self.scale / self.scale[:, None], 0.0

    def propose(self, it: iteration.Iterate, point: Point, tol: float, null: Matrix) -> None:
        """Put the next step, its trial and the inputs of the tests into the iterate."""
        # Fields of a record take Python microseconds, so the numbers are taken out, and put back at the end.
        self.state = s = SimpleNamespace(**dict(zip(iteration.ITERATION.names, it.state.view(iteration.ITERATION).item(), strict=True)))
        now = s.now
        a = it.a[now]
        self.travelled += point.step
        if not s.derived:
            self.derive(a, point, it)
            s.error = float(it.state.view(iteration.ITERATION)["error"][0])
        s.grad_norm = np.linalg.norm(it.scaled_grad)
        if self.hessian == "matrix-free":
            self._propose_matrix_free(it, a, point, tol)
        else:
            self._propose_from_model(it, a, point, tol, null)
        s.slope, s.length = it.scaled_grad @ it.p, np.linalg.norm(it.p)
        np.divide(it.p, self.scale, out=it.step)
        if self.overflowed or not np.isfinite(it.x + it.step).all():  # A p may be finite, because it is not computed from p here
            s.largest = math.nan
        s.log_alpha_slope = self.first.log_alpha_slope(it.step)
        if it.scaled_grad @ it.flattest > 0:
            it.flattest[:] *= -1
        s.derived = True
        ahead = iteration.after(now)
        if self.hessian != "exact":
            there = self.passes.evaluate(a, it.da, 1.0, it.a[ahead])
        elif self.passes.reads_once and s.error_rate * s.length**2 <= iteration.PROMISING * s.largest:
            there, error = self.passes.foresee(a, point, self.first, it.step, it.da, it.a[ahead])
            s.error_rate = (error if error < math.inf else s.largest) / s.length**2
            self.exact += 1
        else:
            there = self.passes.look_ahead(a, it.step, it.da, it.a[ahead])
        it.points[ahead] = there.raw
        it.state.view(iteration.ITERATION)[0] = tuple(vars(s).values())

    def _propose_from_model(self, it: iteration.Iterate, a: Vector, point: Point, tol: float, null: Matrix) -> None:
        s = self.state
        if self.hessian == "exact":
            self._model_step(it, null)
            if self.passes.is_mixed and -(it.scaled_grad @ it.p) <= 2 * max(tol * point.fun, point.noise):
                self.passes.is_mixed = False  # an apparent minimum is judged by the float64 Hessian
                self.derive(a, point, it)
                self._model_step(it, null)
            return
        if self.hessian == "sampled-only" or not self.travelled <= FRESH_WITHIN:
            self._refresh(a, point, exactly=False)
        else:
            self.reused += 1
        M, lam, is_newton = self._model_step(it, null)
        # A sample cannot tell a flat minimum from a saddle: at the end, where the gradient has nothing to give, only the exact matrix can.
        stands_in = self.sample is not None or self.travelled > 0
        if not is_newton and stands_in and -(it.scaled_grad @ it.p) <= 2 * max(tol * point.fun, point.noise):
            self._refresh(a, point, exactly=True)
            M, lam, is_newton = self._model_step(it, null)
        if self.hessian == "sampled-only" or not s.largest < math.inf:
            self.passes.products(it.p / self.scale, it.da)
            return
        U = shifted_factor(M, lam)
        self._refine(it, Span(self, a, point), it.p.copy(), lambda residual: solve(U, residual), tol)
        s.newton = s.newton and is_newton

    def _model_step(self, it: iteration.Iterate, null: Matrix) -> tuple[Matrix, float, bool]:
        """The trust-region step of M, into p; M, the lam of the step, and whether it is a full Newton step."""
        s, M = self.state, self.model()
        assert M is not None
        s.largest = np.abs(M).max() + 0.0 * ((M**2).sum() + (it.scaled_grad**2).sum())  # NaN where a norm overflows
        s.saturation = self.first.saturation(M, self.scale)
        if not s.largest < math.inf:
            it.p[:] = it.flattest[:] = 0.0
            return M, 0.0, False
        if null.size:  # curvature added in the null space of A keeps p in its row space
            M += s.largest * (null @ null.T)
        s.decrease, is_newton, s.min_eig, lam = trust_region.step(it.scaled_grad, M, s.radius, it.p, it.flattest)
        s.newton = is_newton
        return M, lam, is_newton

    def _refine(
        self, it: iteration.Iterate, span: Span, direction: Vector, precondition: Callable[[Vector], Vector], tol: float, least: float = math.inf
    ) -> float:
        """The trust-region step of H in a span that grows by `direction` and by preconditioned residuals; returns ||its residual||^2.

        Without a preconditioner a residual is judged by the smallest eigenvalue: that in the span, or `least` where it is known to be less.
        """
        s, g, fun = self.state, it.scaled_grad, span.point.fun
        y, left = np.empty(0), 0.0
        it.p[:], s.decrease = 0.0, 0.0
        while span.add(direction):
            small = np.einsum("ij,kj->ik", span.basis, span.images)
            y, z = np.empty(len(small)), np.empty(len(small))
            slopes, curvatures = np.einsum("ij,j->i", span.basis, g), (small + small.T) / 2
            s.decrease, is_newton, min_eig, lam = trust_region.step(slopes, curvatures, s.radius, y, z)
            it.p[:] = combine(y, span.basis)
            residual = g + combine(y, span.images) + lam * it.p
            direction, left = -precondition(residual.copy()), float(residual @ residual)
            error = -(residual @ direction)  # twice what the step leaves of the decrease
            if self.hessian == "matrix-free" and error > 0:  # the inverse of the smallest eigenvalue stands for that of H + lam I
                error /= max(min(min_eig, least) + lam, EPS * np.abs(small).max())
            goal = min(EASY if is_newton else HARD, s.decrease / fun)
            enough = error <= 2 * max(goal * s.decrease, 0.1 * tol * fun)
            s.newton = is_newton and enough
            if enough or len(y) == MOST_DIRECTIONS[self.hessian]:
                break
        if self.hessian == "matrix-free" and len(y):
            it.flattest[:], s.min_eig, s.largest = combine(z, span.basis), min_eig, np.abs(small).max()
        span.combine(y, it.da)
        return left

    def _propose_matrix_free(self, it: iteration.Iterate, a: Vector, point: Point, tol: float) -> None:
        s = self.state
        it.flattest[:] = 0.0
        s.newton, s.largest, self.min_eig = True, 0.0, math.nan
        span = Span(self, a, point)
        left = self._refine(it, span, -it.scaled_grad, lambda residual: residual, tol)
        goal = max(tol * point.fun, point.noise)
        if s.newton and s.decrease <= goal:
            # It looks like a minimum, but the gradient does not see all directions.
            span = Span(self, a, point)
            self.min_eig, s.largest, lowest = self._extremes(span)
            s.min_eig = self.min_eig
            negligible = trust_region.NEGLIGIBLE_CURVATURE * s.largest
            if self.min_eig < -negligible:
                self._refine(it, Span(self, a, point), lowest, lambda residual: residual, tol)
            elif left > 2 * goal * (least := max(self.min_eig, negligible)):  # nor did the span see all curvatures
                self._refine(it, Span(self, a, point), -it.scaled_grad, lambda residual: residual, tol, least)
        s.saturation = span.cancellation if span.products else 1.0

    def _extremes(self, span: Span) -> tuple[float, float, Vector]:
        """The smallest and the largest eigenvalue of H, of scaled columns, and the vector of the first, as far as Lanczos's method shows them."""
        random = np.random.default_rng(self.seed)
        direction = random.standard_normal(len(self.scale))
        while len(span.products) < min(MOST_DIRECTIONS["matrix-free"], len(direction)):
            # Products with H may converge to a few directions that it magnifies most.
            if not span.add(direction) and not span.add(random.standard_normal(len(direction))):
                break
            direction = span.images[-1]
        if not span.products:
            return math.nan, math.nan, np.zeros_like(self.scale)
        values, vectors = eigh(np.einsum("ij,kj->ik", span.basis, span.images))
        return float(values[0]), float(np.abs(values).max()), combine(vectors[:, 0], span.basis)
