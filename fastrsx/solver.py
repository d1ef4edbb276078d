"""The solver: Newton's method within a trust region.

With the exact Hessian iterations run compiled (`fastrsx.kernels.solve`); without it, `approximate.Steps` proposes the step. This module
sets up a solve, puts its verdict into words, and reports it.
"""

import functools
import inspect
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastrsx.kernels import dense, solve
from fastrsx.kernels.cpu.ahead import no_sample
from fastrsx.kernels.formulas import steps as kernel_steps
from fastrsx.kernels.newton import iteration
from fastrsx.kernels.newton.dependence import PROMISED

from . import inputs, uncertainty, verdicts
from .eigenvalues import smallest
from .engines.memory import EMPTY, QUIET
from .linking import Link
from .planning import HESSIANS, choose_hessian, sample_size, size_of
from .problem import LEAST_NORM_TOL, Problem
from .rank import least_norm, null_space
from .result import HEADER, History, NewtonResult, Record, Status
from .steps.approximate import Steps
from .steps.basis import Orthonormal
from .steps.limits import constant_direction
from .steps.reduced import Reduction
from .steps.variables import Chained, Variables
from .verdicts import Stop

MOST_STEPS = 16  # of a small problem in one call of the kernel
FAR = 100.0  # times max |a|: the longest step since A x was formed at which a still has its digits
NO_COLUMNS = np.empty(0, dtype=np.intp)


def unseen_columns(problem: Problem) -> np.ndarray:
    """The numbers of A's columns that count as 0, see `fastrsx.kernels.cpu.passes.finish_columns`."""
    scale = problem._column_scale
    return np.flatnonzero(scale == dense.UNSEEN) if max(scale.tolist()) >= dense.UNSEEN else NO_COLUMNS


class _Solver:
    """The state of one solve; directions are in columns of A scaled to unit RMS."""

    def __init__(
        self,
        problem: Problem,
        tol: float,
        max_iter: int,
        sample_rows: int,
        seed: int,
        callback: Callable[[Any], None] | None,
        verbose: int,
        variables: Variables | None = None,
    ) -> None:
        self.problem, self.scale = problem, problem._column_scale
        self.passes: Any = problem._passes  # an Engine; that for groups says more
        self.tol, self.max_iter, self.callback, self.verbose = tol, max_iter, callback, verbose
        self.variables = variables  # `problem` is then the one in y, and x is y
        self.unseen = unseen_columns(problem if variables is None else variables.original)
        d = problem.A.shape[1]
        exact = problem.plan.hessian == "exact"
        self.iterate = self.passes.alloc_iterate(exact)
        self.numbers = np.ndarray(1, iteration.ITERATION, self.iterate.state)
        self.numbers["radius"] = 1.0
        self.counts = self.iterate.state.view(np.int64)[iteration.COUNTS]
        self.work = self.passes.workspace(exact and self.passes.is_plain)
        self.steps = None if exact and self.passes.is_plain else Steps(problem, problem.plan.hessian, sample_rows, seed)
        self.rows = self.passes.source if self.steps is None else inputs.read_only(np.empty((0, d)))  # of A, for `advance`
        self.sample = self.passes.sample if self.steps is None and self.passes.reads_once else no_sample.py_func(d)
        self.norm_b = self.passes.norm_b
        alone = problem.plan.kernel != "serial" or callback is not None or verbose > 1 or problem._traits.flat_along_x
        together = 1 if alone else MOST_STEPS
        self.records = np.empty((together, iteration.RECORD))
        self.null = np.empty((d, 0))  # the null space of A, once it matters
        # By products alone it is not computed; a problem in other variables has full column rank.
        self.null_is_known = problem.plan.hessian == "matrix-free" or (variables is not None and not variables.softmax)
        self.history = History()
        self.point: Any
        self.farthest = 0.0  # max |A step| since A x was formed, or max |a| there
        self.nit = self.nhev = 0
        self.result: NewtonResult | None = None  # once the solve has ended
        self.has_asked_for_limit = False
        self.is_lost = False  # whether x has lost the digits that A x has
        self.shown_nit, self.shown_x = 0, EMPTY  # the last point that the callback has seen
        self.started = time.perf_counter()
        self.callers_warnings: Any = {} if callback is None else np.geterr()

    @property
    def x(self) -> np.ndarray:
        return self.iterate.x

    @property
    def a(self) -> np.ndarray:
        """A x."""
        return self.iterate.a[self.now]

    @property
    def now(self) -> int:
        return int(self.numbers["now"][0])

    def advance(self, what: int, flat_image: np.ndarray = EMPTY) -> int:
        """Do `what` (see `fastrsx.kernels.solve.advance`) and take over its results; returns the verdict."""
        passes = self.passes
        problem = iteration.Problem(self.rows, passes.b, passes.w, self.scale, self.flat, self.null_is_known, self.tol, self.norm_b, self.sample)
        records = self.records[: self.max_iter - self.nit] if what == iteration.ITERATE else self.records[:1]
        verdict = passes.advance(what, problem, flat_image, self.iterate, self.work, records)
        taken, derivatives, evaluations, count = self.counts.tolist()
        passes.evaluations += evaluations
        passes.count += count
        self.nhev += derivatives
        if taken:
            self.point = passes.point_of(self.iterate.points[self.now].copy())
            self.note(records[:taken].tolist())
        return verdict

    # -- the loop ---------------------------------------------------------------------------------------------

    @QUIET
    def run(self, x0: np.ndarray | None) -> NewtonResult:
        if self.variables is not None:
            self.variables.start(self.x, self.a)
        elif x0 is not None:
            self.x[:] = x0
            self.passes.products(self.x, self.a)
        self.problem._shorten(self.x, self.a)
        is_at_zero = self.variables is None and x0 is None
        self.point, self.farthest = self.passes.evaluate(self.a), 0.0 if is_at_zero else self.passes.largest(self.a)
        if not self.point.fun < np.inf:
            if not math.isfinite(self.farthest) or not self.point.scaled_alpha <= 0:  # the weights may be too large
                return self.finish(Status.NONFINITE)
            if isinstance(self.problem.link, Link):
                raise ValueError(f"x0 lies outside the domain alpha = <u, 1> > 0 of {self.problem.link}; pass another one")
            if self.problem._traits.flat_along_x:
                raise ValueError("x0 lies outside the domain alpha = <A x0, 1> > 0; start at -x0, unless alpha = 0 there")
            where = self.nearest_pole()
            raise ValueError(
                f"x0 lies outside the domain alpha = <u, 1> > 0{where}, u = exp(A x0) + A x0 (alpha exp(-M) = {self.point.scaled_alpha:.3g}, "
                f"M = max(0, max A x0)); start at x0 = 0, where alpha = n"
            )
        self.iterate.points[0] = self.point.raw
        if self.verbose > 1:
            print(HEADER)
        self.accepted = self.x.copy(), self.point.fun, self.nit
        self.first = self.accepted[:2]
        try:
            stop = self.stop(solve.verdict_at(self.point.raw, self.work.link)) or self.out_of_steps()
            while stop is None:
                stop = self.step() or self.call_back()
            return self.finish(*stop)
        except BaseException as error:  # Ctrl-C too
            error.intermediate_result = self.state()  # type: ignore[attr-defined]
            raise

    def step(self) -> Stop:
        """Take one step, or several of a small problem; returns why to stop, or None to go on."""
        verdict = self.iterate_once()
        if verdict == solve.NEEDS_NULL_SPACE:
            self.find_null_space()
            verdict = self.iterate_once()
        if verdict != solve.GO_ON and self.renew():
            verdict = solve.GO_ON
        stop = self.stop(verdict) or self.limit() or self.out_of_steps()
        self.accepted = self.x.copy(), self.point.fun, self.nit
        return stop

    def limit(self) -> Stop:
        """Whether long steps lead to an exact fit at infinity; asked once per solve, because it takes five passes."""
        if self.has_asked_for_limit or not self.history or not self.history[-1].step >= iteration.LONG:
            return None
        problem, residual = self.problem, math.sqrt(self.point.squares)
        if problem.plan.loader in ("dask", "device sparse"):  # it would take b, and more vectors like it, to the client, or a Gram matrix
            return None
        if problem._grouped:  # each group may have a limit of its own; its ray is found as any other
            return None
        if not problem._traits.may_fit_at_infinity or problem.w.size or not residual <= kernel_steps.FLAT * self.norm_b:
            return None
        self.has_asked_for_limit = True
        direction = constant_direction(problem, residual, self.point.log_alpha)
        if direction is None:
            return None
        return verdicts.fit_at_infinity(self.name_columns(direction))

    def out_of_steps(self) -> Stop:
        if self.nit < self.max_iter:
            return None
        self.renew()
        return Status.MAX_ITER, Status.MAX_ITER.sentence

    def renew(self) -> bool:
        """Form A x again where x came back from far away, because each step rounds a by its own size; returns whether the loss changed."""
        # M, the larger of 0 and max a, or max a itself, is at most max |a| and costs nothing.
        if self.steps is None and isinstance(self.problem.link, str) and self.farthest <= FAR * abs(self.point.shift):
            return False
        if not self.farthest > FAR * self.passes.largest(self.a):
            return False
        # The part of x without effect may be as far away, and leave A x no digits.
        x, a = least_norm(self.x, self.null, self.scale), self.passes.empty()
        self.passes.products(x, a)
        point, self.farthest = self.passes.evaluate(a), 0.0
        if not point.fun < np.inf:  # x has come back with an error as large as the domain, but A x knows where it is
            x = self.problem._least_norm(x, self.passes.to_host(self.a))
            self.passes.products(x, a)
            point = self.passes.evaluate(a)
        if not point.fun < np.inf:
            self.is_lost = True
            return False
        it, before = self.iterate, self.point.fun
        self.point, it.x[:], it.before[:] = point, x, x  # no step before: the old a and the new differ by the digits that were lost
        it.points[self.now], self.numbers["derived"] = point.raw, False
        for each in it.a:
            self.passes.assign(each, a)
        return abs(point.fun - before) > point.noise

    def move_to_least_norm(self) -> None:
        """Remove the part of x that has no effect on the loss, unless rounding gives it one."""
        x, a = least_norm(self.x, self.null, self.scale), self.passes.empty()
        if self.variables is None:
            x[self.constant_columns()] = 0.0  # rather than rounding
        if np.array_equal(x, self.x):
            return
        self.passes.products(x, a)
        is_softmax = self.problem._traits.blind_to_shifts  # a constant in all rows does not change the loss, but it changes alpha
        if not self.passes.distance(a, self.a, centred=is_softmax) <= LEAST_NORM_TOL * self.passes.largest(self.a):
            return
        point = self.passes.evaluate(a) if is_softmax else self.point
        if point.fun <= self.point.fun + self.point.noise + point.noise:  # the constant may be so large that the rest counts for nothing beside it
            self.x[:], self.point = x, point

    def iterate_once(self) -> int:
        if self.steps is None:
            return self.advance(iteration.ITERATE)
        self.steps.propose(self.iterate, self.point, self.tol, self.flat)
        before = self.iterate.state.copy()
        verdict = self.advance(iteration.PROPOSED)
        if verdict == solve.NEEDS_EXACT:
            self.steps.derive(self.a, self.point, self.iterate, exactly=True)
            return self.iterate_once()
        if verdict != solve.NEEDS_IMAGE:
            return verdict
        self.iterate.state[:] = before  # for the same event again
        image = self.passes.empty()
        self.passes.products(self.iterate.flattest / self.scale, image)
        return self.advance(iteration.PROPOSED, image)

    def stop(self, verdict: int) -> Stop:
        """The meaning of a verdict; None to go on."""
        if verdict == solve.NEAR_POLE:
            return verdicts.near_pole(self.name_columns(self.x * self.scale), self.nearest_pole())
        if verdict == solve.ON_A_RAY:
            return verdicts.on_a_ray(self.name_columns(self.iterate.flattest))
        return verdicts.STOPS[verdict]

    def nearest_pole(self) -> str:
        """The group whose alpha is nearest to 0, or beyond, in words; nothing without groups."""
        groups = self.problem._groups
        return "" if groups is None or groups.count == 1 else f" of group {groups.name(self.point.nearest_pole)}"

    def find_null_space(self) -> None:
        problem = self.problem
        centre = problem._centre() if problem._traits.blind_to_shifts and not problem.w.size else 0.0
        condition = 1.0 if self.variables is None else self.variables.condition
        self.null, self.null_is_known = null_space(problem.A, self.scale, centre, condition), True

    @property
    def has_derivatives(self) -> bool:
        """Whether gradient and Hessian are those at x, with exact weights or as good as that."""
        derived, error, largest = (self.numbers[name][0] for name in ("derived", "error", "largest"))
        return bool(derived and error <= iteration.AS_EXACT * largest)

    @property
    def flat(self) -> np.ndarray:
        """Directions in which the loss is constant, orthonormal: the null space of A, once it matters, and with a linear u also x."""
        if not self.problem._traits.flat_along_x:
            return self.null
        x = self.x * self.scale
        x /= np.abs(x).max()  # its square may overflow
        x -= self.null @ (self.null.T @ x)
        return np.ascontiguousarray(np.column_stack([self.null, x / np.linalg.norm(x)]))

    def note(self, rows: list[list[float]]) -> None:
        """Record steps; a row has the fields of a Record except the time."""
        seconds = time.perf_counter() - self.started
        records = [Record._make((*row, seconds)) for row in rows]
        self.history += records
        self.nit += len(rows)
        self.farthest = max(self.farthest, *[record.step for record in records])
        if self.verbose > 1:  # then steps come one by one
            print(self.history[-1].row(self.nit - 1), flush=True)

    def state(self) -> NewtonResult:
        """The last accepted point, kept separately because Ctrl-C may come when x has moved on and the rest has not."""
        if self.result is not None:
            x, fun, nit = self.result.x.copy(), self.result.fun, self.nit
        else:
            x, fun, nit = self.accepted
            x = self.callers(x)
        return NewtonResult(x=x, names=self.problem.names, fun=fun, nit=nit, history=History(self.history[:nit]))

    def callers(self, x: np.ndarray) -> np.ndarray:
        """x in the caller's columns, a copy."""
        return x.copy() if self.variables is None else self.variables.lift(x)

    def call_back(self) -> Stop:
        """Show the callback the last accepted point, unless it has seen that."""
        if self.callback is None or self.nit == 0:
            return None
        if self.nit == self.shown_nit and (self.result is None or np.array_equal(self.result.x, self.shown_x)):
            return None
        state = self.state()
        self.shown_nit, self.shown_x = self.nit, state.x.copy()
        try:
            with np.errstate(**self.callers_warnings):
                if "intermediate_result" in inspect.signature(self.callback).parameters:
                    self.callback(intermediate_result=state)  # type: ignore[call-arg]
                else:
                    self.callback(state.x)
        except StopIteration:
            return Status.CALLBACK_STOP, Status.CALLBACK_STOP.sentence
        return None

    # -- the report -------------------------------------------------------------------------------------------

    def name_columns(self, direction: np.ndarray) -> str:
        """The columns that carry most of a direction of the variables, largest first."""
        return verdicts.heaviest(direction if self.variables is None else self.variables.direction(direction), self.problem.names)

    def notes(self, status: Status) -> str:
        """Facts about b and A that the user may not know, appended to any message."""
        notes, names, variables = "", self.problem.names, self.variables
        if variables is not None and not status.success and variables.condition > PROMISED:
            notes = verdicts.nearly_dependent(verdicts.heaviest(variables.weakest, names), variables.condition)
        groups = self.problem._groups
        if groups is None or groups.count == 1:
            notes += verdicts.sum_of_b(self.passes.sum_b, status)
        else:
            notes += verdicts.groups_of_b(self.passes.sums_of_b(), groups, status)
            notes += verdicts.single_rows(self.passes.live_rows(), self.problem._traits.may_fit_at_infinity, status)
            notes += verdicts.invisible(self.constant_columns(), names)
        return notes + verdicts.unseen(self.unseen, names)

    def constant_columns(self) -> np.ndarray:
        """The columns that are constant within every group, where the null space has shown any."""
        problem = self.problem if self.variables is None else self.variables.original
        if problem._groups is None or not problem._traits.blind_to_shifts or problem.w.size or not self.null.shape[1]:
            return NO_COLUMNS
        return np.flatnonzero(np.linalg.norm(self.null, axis=1) > 1 - LEAST_NORM_TOL)

    def back_to_start(self) -> None:
        """Return to the start: steps that each rose by no more than rounding have led to a higher loss."""
        it, now = self.iterate, self.now
        it.x[:] = self.first[0]
        self.passes.products(it.x, it.a[now])
        self.point = self.passes.evaluate(it.a[now])
        it.points[now], self.numbers["derived"] = self.point.raw, False

    def has_gained_nothing(self, status: Status) -> bool:
        """Whether the loss rose from x0, by more than rounding if that is a success; or did not fall by more on the way to a pole."""
        rise, noise = self.point.fun - self.first[1], self.point.noise
        if status is Status.NO_MINIMISER and self.nit and kernel_steps.leads_to_pole.py_func(self.point.at):
            return bool(rise >= -noise)
        return bool(rise > (noise if status.success else 0.0))

    def finish(self, status: Status, message: str = "") -> NewtonResult:
        it, steps = self.iterate, self.steps
        if status is not Status.NONFINITE and self.has_gained_nothing(status):
            self.back_to_start()
            why = "No step came below x0 by more than rounding"
            status, message = verdicts.back_at_start(status, message or status.sentence, Status.STALLED.sentence, why)
        if self.is_lost and (status.success or status is Status.STALLED):
            status, message = Status.STALLED, verdicts.UNATTAINABLE
        if status is not Status.NONFINITE and not self.has_derivatives:
            if steps is not None:
                steps.derive(self.a, self.point, it, exactly=True)
            elif self.advance(iteration.DERIVE) == solve.NONFINITE:
                status, message = Status.NONFINITE, ""
        hess, model = (it.hess, it.scaled_hess) if steps is None else (steps.hess, steps.model())
        min_eig = np.nan if steps is None else steps.min_eig
        if status is Status.NONFINITE:
            it.grad[:] = np.nan
            if hess is not None:
                hess[:] = np.nan
        elif model is not None:
            min_eig = smallest(model)
            if status.success and min_eig <= iteration.NO_CURVATURE * self.numbers["largest"][0]:
                if not self.null_is_known:
                    self.find_null_space()
                self.move_to_least_norm()
        elif status.success and len(it.x) > self.problem.A.shape[0]:
            it.x[:] = self.problem._least_norm(it.x, self.passes.to_host(self.a))
        alpha, log_alpha = self.problem._alphas(self.point)
        result = NewtonResult(
            x=it.x,
            names=self.problem.names,
            fun=self.point.fun,
            jac=it.grad,
            hess=hess,
            success=status.success,
            status=status,
            message=message or status.sentence,
            nit=self.nit,
            nfev=self.passes.evaluations,
            njev=steps.gradients if steps else self.nhev,
            nhev=steps.exact if steps else self.nhev,
            nsampled=steps.sampled if steps else 0,
            nreused=steps.reused if steps else 0,
            nproducts=steps.products if steps else 0,
            npass=self.passes.count,
            kernel=str(self.problem.plan),
            groups=self.problem.groups,
            alpha=alpha,
            log_alpha=log_alpha,
            min_eig=min_eig,
            history=self.history,
        )
        if self.variables is not None:
            self.variables.rewrite(result, self.a)
        result["message"] += self.notes(result["status"])  # an attribute would take a microsecond
        if self.unseen.size:
            result.x[self.unseen] = 0.0
        original = self.problem if self.variables is None else self.variables.original
        result.__dict__["_covariance"] = functools.partial(uncertainty.covariance, original, newton)
        result.__dict__["_target_and_fit"] = functools.partial(uncertainty.target_and_fit, original)
        self.result = result
        self.call_back()
        if self.verbose > 0:
            print(result.summary(), flush=True)
        return result


def variables_of(problem: Problem, x0: np.ndarray | None, kernel: str, num_threads: int | None) -> Variables | None:
    """The variables to take steps in, if not x; the plan says so."""
    reduction = Reduction(problem, x0, kernel, num_threads) if problem.plan.hessian == "reduced" else None
    at, start = (problem, x0) if reduction is None else (reduction.problem, reduction.y0)
    basis = Orthonormal.where_needed(at, start, kernel, num_threads)
    if basis is None:
        return reduction
    problem.plan = problem.plan.in_basis(basis.condition)
    return basis if reduction is None else Chained(reduction, basis)


def newton(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    w: Any = None,
    groups: Any = None,
    multiplicity: Any = None,
    residual_weights: Any = None,
    link: str | Link = "rsx",
    hessian: str = "auto",
    sample_rows: int | None = None,
    precision: str = "double",
    tol: float = 1e-10,
    max_iter: int = 100,
    kernel: str = "auto",
    num_threads: int | None = None,
    seed: int = 0,
    callback: Callable[[Any], None] | None = None,
    verbose: int = 0,
) -> NewtonResult:
    """Minimise ||f(x) - b||^2 + 1/2 ||w * A x||^2 over x, f = u / <u, 1>, u = exp(A x) + A x (arXiv:2309.13482).

    A trust-region Newton method. The Hessian is one weighted Gram matrix of A and a rank-2 term; formed exactly, a step takes
    two passes over A, or one where A is larger than 64 MB or on disk (docs/theory.md, "A step in one read"). For many columns it
    is cheaper to take the Gram matrix from a few rows, and to refine the step by exact products with the Hessian. It stops only at
    points where the gradient is negligible and the Hessian is not negative (as far as the rows drawn, or the products, show), and
    says so where the infimum is not attained. It is independent of the basis of A's column space: columns are scaled to unit RMS,
    and where they are then nearly dependent (a condition of 20 or more), like raw years and their squares, steps are taken in an
    orthonormal basis, which takes a copy of A where there is room for one; `kernel` of the result says so (docs/theory.md, "Any
    basis of the columns"). Except for the rows drawn, it is independent of the order of A's rows.

    Parameters
    ----------
    A : (n, d) array_like or sparse
        The data, of any layout and real dtype, or a SciPy sparse matrix or array. Read in place; a map larger than memory is read from its
        file. Small, byte-swapped or longdouble arrays, and sparse ones that are not canonical CSR, are copied once (see `plan`).
        A float64 or float32 array on a GPU (CuPy, torch, JAX, Numba), of any layout, stays there, and so do n-vectors (docs/gpu.md).
        The names of a DataFrame's columns come back in `names`, and name columns in messages.
    b : (n,) array_like
        The target. f sums to 1; so should b, if an exact fit is wanted. As everywhere, entries are matched by position; where b and A both have an
        index, as in pandas, they must be equal.
    x0 : (d,) array_like, optional
        The start, by default 0. Must lie in the domain <u, 1> > 0, as 0 does.
    w : (n,) array_like or float, optional
        Weights of the regulariser, at least 0.
    groups, multiplicity, residual_weights : (n,) array_like, optional
        As in `Problem`: rows with one label share a softmax, and x is the same in all; how many times a row counts in u; and weights of the
        residuals. A solve with any of them takes two reads of A a step (docs/theory.md, "Many softmaxes").
    link : {"rsx", "softmax", "linear"} or Link, optional
        For comparison, u = exp(A x) or u = A x instead of exp(A x) + A x; or a `Link` of your own. "linear" needs x0 and takes no w: f does
        not depend on the length of x.
    hessian : {"auto", "exact", "sampled", "sampled-only", "matrix-free", "reduced"}, optional
        What a step is computed from. "exact": the Hessian. "sampled": its Gram matrix from rows drawn
        by weight times leverage, as the preconditioner of conjugate gradients on the exact Hessian,
        kept while it hardly changes; the same minimum to the same tol. "sampled-only": the sampled
        Hessian alone; the paper's algorithm is like it, but samples the diagonal part of the
        Hessian plus w^2 and drops the rank-2 term. "matrix-free": conjugate gradients alone.
        "reduced", for d > n: the exact Hessian of the n x n problem in y, A diag(1/scale) = B Q^T
        and y = Q^T (scale * x), whose steps are the same (see docs/theory.md); `min_eig` is that
        problem's. "auto" takes what should be fastest (see `plan`).
    sample_rows : int, optional
        How many rows to draw, at least d; by default 20 d, or a fiftieth of n where that is more. With n or more, all are taken.
    precision : {"double", "mixed"}, optional
        "mixed" sums the exact Hessian in float32 within 128 rows of A and in float64 across them, for dense A of up to 1024 columns: in about
        half the time from 64 columns on. Its entries are then off by at most ``131 2^-24 sum_k |h_k A_ki A_kj|``; steps may take more iterations,
        but losses and gradients are those of float64, and so is the Hessian that judges an apparent minimum.
    tol : float, optional
        The last step p is taken when its decrease is at most tol times the loss and ``max |A p|`` at most sqrt(tol).
    max_iter : int, optional
        The most steps.
    kernel : {"auto", "parallel", "serial", "cuda"}, optional
        Overrides the plan's choice of kernels; x has the same bits for the first three. "cuda" copies A to a GPU once; it needs the extra
        fastrsx[cuda].
    num_threads : int, optional
        Threads for the kernels, at most what Numba has; x has the same bits for any number. The setting is restored.
    seed : int, optional
        Seed for drawing rows; the exact Hessian draws none.
    callback : callable, optional
        Called after each step as ``callback(intermediate_result=...)``, with x, fun, nit and history, or as ``callback(x)``
        where it has no parameter of that name. The last call has the x that is returned. Raising StopIteration ends the solve. Any other
        exception that ends it, Ctrl-C too, has an attribute `intermediate_result` with x, fun, nit and history after the last step.
    verbose : {0, 1, 2}, optional
        1 prints a summary, 2 also a line for each step.

    Returns
    -------
    NewtonResult
        An `OptimizeResult`. Look at `status` and `message`: a failed solve is returned, never raised. Where columns of A are
        linearly dependent, x is the solution of least norm; with hessian="matrix-free" only where n < d. `hess` is there only with the exact
        Hessian; `Problem.hess` has it at any x.

    Raises
    ------
    ValueError, TypeError
        For input that is not a real, finite problem of matching shapes, and for an x0 outside the domain; the message
        names the argument.
    ImportError, RuntimeError
        For A on a GPU or kernel="cuda" without the extra, or without a driver.

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
    hessian = inputs.as_choice("hessian", hessian, ("auto", *HESSIANS))
    precision = inputs.as_choice("precision", precision, ("double", "mixed"))
    tol = inputs.as_positive("tol", tol)
    max_iter = inputs.as_count("max_iter", max_iter, 0)
    seed = inputs.as_count("seed", seed, 0)
    verbose = inputs.as_count("verbose", verbose, 0)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback is {callback!r}; it must be callable")
    problem = Problem(
        A,
        b,
        w=w,
        groups=groups,
        multiplicity=multiplicity,
        residual_weights=residual_weights,
        link=link,
        kernel=kernel,
        num_threads=num_threads,
    )
    n, d = problem.A.shape
    rows = sample_size(n, d) if sample_rows is None else inputs.as_count("sample_rows", sample_rows, d)
    if precision == "mixed":
        hessian = "exact" if hessian == "auto" else hessian
    problem.plan = problem.plan.with_hessian(*choose_hessian(size_of(problem.A), hessian, rows, problem.plan.loader))
    if precision == "double" and problem._passes.reads_once:
        problem.plan = problem.plan.by_reads((n, d))
    if x0 is not None:
        x0 = problem._as_x(x0, "x0")
        x0[unseen_columns(problem)] = 0.0
    if problem._traits.flat_along_x:
        if x0 is None:
            raise ValueError("x0 is None, and link='linear' has alpha = 0 at x = 0: pass an x0 with <A x0, 1> > 0")
        if problem.w.size:
            raise ValueError("w has weights, but with link='linear' f does not change with the length of x, so they would shrink x to 0: pass w=None")
    variables = variables_of(problem, x0, kernel, num_threads)
    if variables is not None:
        problem = variables.problem
    if precision == "mixed":
        problem._passes.use_mixed()
    with problem._running():
        return _Solver(problem, tol, max_iter, rows, seed, callback, verbose, variables).run(x0)
