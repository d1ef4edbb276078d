"""The solver: Newton's method on the exact Hessian, within a trust region."""

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigvalsh

from fastrsx.kernels import trust_region

from . import inputs, rays
from .problem import Point, Problem
from .rank import least_norm, null_space
from .rays import Ray
from .result import HEADER, History, NewtonResult, Record, Status

NEAR_POLE = 1e6  # kappa: alpha has lost six digits to cancellation
FLAT = 1e-6  # a model decrease, relative to L, or a residual, relative to b, that makes a long step suspect
LONG = 0.1  # max |A p| of a long step: some u_i changes by a tenth of itself
SUSPECTS = 4  # such steps in a row, or Hessians singular to rounding, and the ray is looked at
SATURATED = 1e-9  # ||H|| relative to its two terms: nothing but rounding is left
SINGULAR = 1e-12  # smallest eigenvalue relative to max |H|: rounding, or a column that depends on others
NOISE_STEP = 1e-3  # a step that small is good enough once the decrease is noise

ACCEPT = 0.05  # of the decrease that the model promised
SHRINK, GROW = 0.25, 0.75  # the same, for the radius
BACKTRACK = 0.4
MOST_BACKTRACKS = 40


class _Trial(NamedTuple):
    """A step of the model, taken whole."""

    p: np.ndarray  # in scaled columns
    decrease: float  # promised
    newton: bool  # the full Newton step of a positive semidefinite Hessian
    min_eig: float
    flattest: np.ndarray  # its direction, downhill
    point: Point  # at a + A p


class _Solver:
    """The state of one solve; columns of A are scaled to unit RMS, so y = scale * x."""

    def __init__(self, problem: Problem, tol: float, max_iter: int, callback: Callable[[Any], None] | None, verbose: int) -> None:
        self.problem, self.passes, self.scale = problem, problem._passes, problem._column_scale
        self.tol, self.max_iter, self.callback, self.verbose = tol, max_iter, callback, verbose
        n = len(problem.b)
        self.a, self.da, self.new_a = np.zeros(n), np.empty(n), np.empty(n)
        self.norm_b = float(np.linalg.norm(problem.b))
        self.radius = 1.0
        self.long_steps = self.singular_steps = 0
        self.null: np.ndarray | None = None  # the null space of A in scaled columns, once it matters
        self.history = History()
        self.nit = self.nhev = 0
        self.derived_at = -1  # the step count at which gradient and Hessian were last computed
        self.started = time.perf_counter()

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self, x0: np.ndarray | None) -> NewtonResult:
        self.x = np.zeros(len(self.scale))
        if x0 is not None:
            self.x[:] = x0
            self.passes.products(self.x, self.a)
        self.point = self.passes.evaluate(self.a)
        if not np.isfinite(self.a).all() or np.isnan(self.point.raw).any() or not np.isfinite(self.point.shift):
            return self.finish(Status.NONFINITE)
        if not self.point.fun < np.inf:
            raise ValueError(
                f"x0 lies outside the domain alpha = <u, 1> > 0, u = exp(A x0) + A x0 (alpha exp(-M) = {self.point.raw[2]:.3g}, "
                f"M = max(0, max A x0)); start at x0 = 0, where alpha = n"
            )
        if self.verbose > 1:
            print(HEADER)
        while True:
            stop = self.stop_before_derivatives()
            if stop:
                return self.finish(*stop)
            self.derive()
            if not np.isfinite(self.hess).all():
                return self.finish(Status.NONFINITE)
            stop = self.iterate()
            if stop:
                return self.finish(*stop)

    def derive(self) -> None:
        """Gradient and Hessian at x, as they are and in scaled columns."""
        self.grad, self.v, self.q, self.hess = self.passes.hessian(self.a, self.point)
        self.nhev += 1
        self.derived_at = self.nit
        self.scaled_grad = self.grad / self.scale
        self.scaled_hess = self.hess / self.scale / self.scale[:, None]

    def iterate(self) -> tuple[Status, str] | None:
        """One step; why to stop, or None to go on."""
        trial = self.propose()
        if self.is_singular(trial) and self.null is None:
            self.null = null_space(self.problem.A, self.scale)
            if self.null.size:
                trial = self.propose()
        for ray, by in self.suspects(trial):
            if rays.falls_ahead(self.passes, self.a, self.point, ray, by):
                t = rays.lowest_behind(self.passes, self.a, self.point, ray)
                if t == 0.0:
                    return Status.NO_MINIMISER, self.ray_message(ray.direction)
                self.radius = 1.0
                point = self.passes.evaluate(self.a, ray.image, t, self.new_a)
                self.accept(t * ray.direction, point, self.point.fun - point.fun, trial.min_eig, -t * ray.unit)
                return self.call_back()
        if self.is_saturated():
            return Status.STALLED, "The rows are saturated: the Hessian's terms cancel to rounding. Start nearer 0."
        if self.is_converged(trial):
            if trial.point.fun <= self.point.fun + self.point.noise:
                self.accept(trial.p, trial.point, trial.decrease, trial.min_eig, trial.point.step)
            return self.stop_before_derivatives() or (Status.CONVERGED, self.fit_message())
        if self.nit >= self.max_iter:
            return Status.MAX_ITER, Status.MAX_ITER.sentence
        found = self.search(trial)
        if found is None:
            return Status.STALLED, "No step along the model's direction lowers the loss beyond rounding; the tolerance may be out of reach."
        t, point = found
        self.accept(t * trial.p, point, trial.decrease, trial.min_eig, t * trial.point.step)
        return self.call_back()

    # -- stopping tests, in the order in which they are asked ---------------------------------------------------

    def stop_before_derivatives(self) -> tuple[Status, str] | None:
        exact = np.sqrt(self.point.squares) <= self.point.rounding * self.norm_b
        if exact and self.point.fun == self.point.squares:
            return Status.EXACT_FIT, Status.EXACT_FIT.sentence
        if self.point.kappa > NEAR_POLE:
            columns = self.name_columns(self.x * self.scale)
            return Status.NO_MINIMISER, (
                f"The infimum is not attained: alpha = <u, 1> tends to 0, its pole, as x grows along {columns} while the loss goes on falling. "
                "Weights w > 0 give the problem a minimiser."
            )
        return None

    def is_singular(self, trial: _Trial) -> bool:
        """The Hessian has a direction without curvature that A does not map to 0, as far as that is known."""
        return abs(trial.min_eig) <= SINGULAR * float(np.abs(self.scaled_hess).max())

    def is_saturated(self) -> bool:
        return trust_region.saturation(self.scaled_hess, self.v / self.scale, self.q / self.scale) <= SATURATED

    def is_converged(self, trial: _Trial) -> bool:
        """The decrease and the step are negligible; `trial.newton` says that no eigenvalue is below -1e-10 of the largest."""
        small = trial.decrease <= self.tol * self.point.fun and trial.point.step <= np.sqrt(self.tol)
        noise = trial.decrease <= self.point.noise and trial.point.step <= NOISE_STEP
        return trial.newton and (small or noise)

    def suspects(self, trial: _Trial) -> Iterator[tuple[Ray, float]]:
        """Rays on which the infimum may lie, and by which part the loss must then fall ahead."""
        flat = trial.decrease <= FLAT * self.point.fun or np.sqrt(self.point.squares) <= FLAT * self.norm_b
        self.long_steps = self.long_steps + 1 if flat and trial.point.step >= LONG else 0
        self.singular_steps = self.singular_steps + 1 if self.is_singular(trial) else 0
        if self.long_steps >= SUSPECTS:
            self.long_steps = 0
            yield Ray.of(trial.p, self.da), 0.0
        if self.singular_steps >= SUSPECTS or (self.singular_steps and self.is_converged(trial)):
            self.singular_steps = 0
            image = np.empty_like(self.a)
            self.passes.products(trial.flattest / self.scale, image)
            yield Ray.of(trial.flattest, image), 0.0
        if self.is_saturated():  # the step may be noise, but x itself has the direction of the ray by now: look as far as 2 x
            yield Ray(self.x * self.scale, self.a, rays.AHEAD), 0.5

    # -- steps ------------------------------------------------------------------------------------------------

    def propose(self) -> _Trial:
        """The best step of the model within the radius: one pass for A p."""
        p, flattest = np.empty_like(self.x), np.empty_like(self.x)
        hess = self.scaled_hess
        if self.null is not None and self.null.size:  # curvature where A has none keeps p in its row space
            hess = hess + np.abs(hess).max() * (self.null @ self.null.T)
        decrease, newton, min_eig = trust_region.step(self.scaled_grad, hess, self.radius, p, flattest)
        if self.scaled_grad @ flattest > 0:
            flattest = -flattest
        self.passes.products(p / self.scale, self.da)
        return _Trial(p, decrease, newton, min_eig, flattest, self.passes.evaluate(self.a, self.da, 1.0, self.new_a))

    def search(self, trial: _Trial) -> tuple[float, Point] | None:
        """The first of t = 1, 0.4, 0.16, ... whose decrease is a fair part of the model's, and the radius for the next step.

        Trials along A p cost no pass over A; a shorter step of the model would cost one.
        """
        length = float(np.linalg.norm(trial.p))
        slope = float(self.scaled_grad @ trial.p)
        curvature = -2 * (trial.decrease + slope)  # p.H p
        t, point = 1.0, trial.point
        noise = self.point.noise
        for _ in range(MOST_BACKTRACKS):
            promised = -t * slope - 0.5 * t * t * curvature
            ratio = (self.point.fun - point.fun + noise) / (promised + noise)
            if ratio >= ACCEPT and point.fun < np.inf and not self.crosses_pole(t, point, trial):
                if ratio < SHRINK or t < 1:
                    self.radius = t * length if t < 1 else SHRINK * length
                elif ratio > GROW and length > 0.9 * self.radius:
                    self.radius = 2 * length
                return t, point
            t *= BACKTRACK
            point = self.passes.evaluate(self.a, self.da, t, self.new_a)
        return None

    def crosses_pole(self, t: float, point: Point, trial: _Trial) -> bool:
        """Whether alpha may vanish between a and a + t A p: it is convex in t, so it lies above its tangents at both ends."""
        start = t * float(self.v @ (trial.p / self.scale))  # d log(alpha) there
        end = t * point.slope
        if 1 + start > 0 or end <= 0:
            return False
        with np.errstate(over="ignore"):
            ratio = np.exp(point.log_alpha - self.point.log_alpha)
        # In units of alpha at the start the tangents are 1 + start z and ratio (1 - end (1 - z)); the end's is 0 at:
        return bool(ratio < np.inf and 1 + start * (1 - 1 / end) <= 0)

    def accept(self, p: np.ndarray, point: Point, decrement: float, min_eig: float, step: float) -> None:
        """Move to x + p, whose a is new_a."""
        self.history.append(
            Record(
                fun=self.point.fun,
                grad_norm=float(np.linalg.norm(self.scaled_grad)),
                decrement=decrement,
                radius=self.radius,
                alpha=self.point.alpha,
                min_eig=min_eig,
                step=step,
                seconds=time.perf_counter() - self.started,
            )
        )
        self.x += p / self.scale
        self.a, self.new_a = self.new_a, self.a
        self.point = point
        self.nit += 1
        if self.verbose > 1:
            print(self.history[-1].row(self.nit - 1), flush=True)

    def call_back(self) -> tuple[Status, str] | None:
        if self.callback is None:
            return None
        try:
            if "intermediate_result" in inspect.signature(self.callback).parameters:
                state = NewtonResult(x=self.x.copy(), fun=self.point.fun, nit=self.nit, history=self.history)
                self.callback(intermediate_result=state)  # type: ignore[call-arg]
            else:
                self.callback(self.x.copy())
        except StopIteration:
            return Status.CALLBACK_STOP, Status.CALLBACK_STOP.sentence
        return None

    # -- the report -------------------------------------------------------------------------------------------

    def name_columns(self, direction: np.ndarray) -> str:
        """The columns that carry most of a direction (in scaled columns), largest first."""
        weight = np.abs(direction)
        order = np.argsort(-weight, kind="stable")
        main = [str(j) for j in order[:5] if weight[j] >= 0.2 * weight[order[0]]]
        return f"column{'s' * (len(main) > 1)} {', '.join(main)} of A"

    def ray_message(self, p: np.ndarray) -> str:
        return (
            f"The infimum is not attained: the loss goes on falling along a ray on which rows saturate, led by {self.name_columns(p)}. "
            "Weights w > 0 give the problem a minimiser."
        )

    def fit_message(self) -> str:
        total = float(self.problem.b.sum())
        if abs(total - 1) <= 1e-8:
            return Status.CONVERGED.sentence
        return f"{Status.CONVERGED.sentence} b sums to {total:.6g} and f to 1, so no exact fit exists."

    def finish(self, status: Status, message: str = "") -> NewtonResult:
        d = len(self.x)
        if status is Status.NONFINITE:
            self.grad, self.hess = np.full(d, np.nan), np.full((d, d), np.nan)
            min_eig = np.nan
        else:
            if self.derived_at != self.nit:
                self.derive()
            eigenvalues = eigvalsh(self.scaled_hess)
            min_eig = float(eigenvalues[0])
            if status.success and min_eig <= SINGULAR * eigenvalues[-1]:
                self.null = null_space(self.problem.A, self.scale) if self.null is None else self.null
                self.x = least_norm(self.x, self.null, self.scale)
        result = NewtonResult(
            x=self.x,
            fun=self.point.fun,
            jac=self.grad,
            hess=self.hess,
            success=status.success,
            status=status,
            message=message or status.sentence,
            nit=self.nit,
            nfev=self.passes.evaluations,
            njev=self.nhev,
            nhev=self.nhev,
            npass=self.passes.count,
            kernel=str(self.problem.plan),
            alpha=self.point.alpha,
            log_alpha=self.point.log_alpha,
            min_eig=min_eig,
            history=self.history,
        )
        if self.verbose > 0:
            print(result.summary(), flush=True)
        return result


def newton(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    w: Any = None,
    hessian: str = "auto",
    tol: float = 1e-10,
    max_iter: int = 100,
    kernel: str = "auto",
    num_threads: int | None = None,
    seed: int = 0,
    callback: Callable[[Any], None] | None = None,
    verbose: int = 0,
) -> NewtonResult:
    """Minimise ||f(x) - b||^2 + 1/2 ||w * A x||^2 over x, f = u / <u, 1>, u = exp(A x) + A x (arXiv:2309.13482).

    A trust-region Newton method on the exact Hessian, one weighted Gram matrix of A and a rank-2 term: two passes over A
    for each step. It stops only at points where the gradient is negligible and the Hessian is not negative, and says
    so where the infimum is not attained. Independent of the scale of A's columns and of the order of its rows.

    Parameters
    ----------
    A : (n, d) array_like
        The data. Read in place where it is C-ordered float64, else copied once.
    b : (n,) array_like
        The target. f sums to 1; so should b, if an exact fit is wanted.
    x0 : (d,) array_like, optional
        The start, by default 0. Must lie in the domain <u, 1> > 0, as 0 does.
    w : (n,) array_like or float, optional
        Weights of the regulariser, at least 0.
    hessian : {"auto", "exact"}, optional
        How the Hessian is formed; both mean exactly.
    tol : float, optional
        The last step p is taken when its decrease is at most tol times the loss and max |A p| at most sqrt(tol).
    max_iter : int, optional
        The most steps.
    kernel : {"auto", "parallel", "serial"}, optional
        Overrides the plan's choice of kernels; x has the same bits for each.
    num_threads : int, optional
        Threads for the kernels, at most what Numba has; x has the same bits for any number. The setting is restored.
    seed : int, optional
        For methods that draw random numbers. The exact Hessian draws none.
    callback : callable, optional
        Called after each step as ``callback(intermediate_result=...)``, with x, fun, nit and history, or as ``callback(x)``
        where it has no parameter of that name. Raising StopIteration ends the solve; other exceptions propagate.
    verbose : {0, 1, 2}, optional
        1 prints a summary, 2 also a line for each step.

    Returns
    -------
    NewtonResult
        An `OptimizeResult`. Look at `status` and `message`: a failed solve is returned, never raised. Where columns of A are
        linearly dependent, x is the solution of least norm.

    Raises
    ------
    ValueError, TypeError
        For input that is not a real, finite problem of matching shapes, and for an x0 outside the domain; the message
        names the argument.

    Notes
    -----
    Nothing passed in is modified. Any number of threads may call newton at once: one of them then has the parallel
    kernels at any moment.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((500, 3))
    >>> b = fastrsx.predict(A, [0.5, -1.0, 0.25])
    >>> result = fastrsx.newton(A, b)
    >>> result.status.name, [round(float(x), 9) for x in result.x]
    ('EXACT_FIT', [0.5, -1.0, 0.25])
    """
    inputs.as_choice("hessian", hessian, ("auto", "exact"))
    tol = inputs.as_positive("tol", tol)
    max_iter = inputs.as_count("max_iter", max_iter, 0)
    inputs.as_count("seed", seed, 0)
    verbose = inputs.as_count("verbose", verbose, 0)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback is {callback!r}; it must be callable")
    problem = Problem(A, b, w=w, kernel=kernel, num_threads=num_threads)
    if x0 is not None:
        x0 = inputs.as_vector("x0", x0, problem.A.shape[1], "one for each column of A")
    with problem._running():
        return _Solver(problem, tol, max_iter, callback, verbose).run(x0)
