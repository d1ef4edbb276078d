"""The loss of one (A, b, w) as an object: values, derivatives and operators, for SciPy's solvers and ours."""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, lsmr

from . import frames, inputs
from .engines import passes_over
from .engines.contract import Derivatives, Point, rank_2, rank_2_times
from .engines.memory import EMPTY
from .grouping import Groups, as_row_weights, groups_of, refuse_masked
from .inputs import Matrix, Vector
from .linking import Link, Traits, as_link, kernel_link
from .loading import as_data, as_rows, chunks, load
from .planning import ON_GPU, check_kernel, choose, size_of
from .system import cluster, device, threads
from .system.memory import room_for

LEAST_NORM_TOL = 1e-12  # of max |a|: a change that the loss does not show

_alive: "weakref.WeakSet[Problem]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Work begun by another thread of the parent does not end here: its lock would never be released."""
    for problem in list(_alive):
        if problem._lock.acquire(blocking=False):
            problem._lock.release()
        else:
            problem._prepare()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def one_group(n: int) -> Groups:
    """All rows in one group."""
    return Groups(np.array([0, n]), [""], None)


def _for_columns(name: str, value: Any, d: int, names: frames.Names) -> Vector:
    """A vector with an entry for each column of A, checked; its labels, if any, against the names of the columns."""
    if type(value) is np.ndarray:
        return inputs.as_vector(name, value, d, "one for each column of A")
    vector = inputs.as_vector(name, device.to_host(name, value), d, "one for each column of A")
    frames.check_columns(names, name, frames.index_of(value))
    return vector


class Factors(NamedTuple):
    """The Hessian as 2 (A^T diag(D) A - v q^T - q v^T).

    Attributes
    ----------
    A : (n, d) array or csr_array
    D : (n,) array, on the GPU where A is
        v^2/alpha^2 + e (c - s)/alpha + w^2/2; may be negative.
    v, q : (d,) array
        A^T v/alpha and A^T q/alpha: the rank-2 term. With groups (groups, d), a row for each, and the term is v^T q + q^T v.
    names : tuple of str, or None
        The columns of A, where it is a table that names them.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> problem = fastrsx.Problem(np.array([[1.0], [2.0], [0.0]]), np.full(3, 1 / 3))
    >>> factors = problem.factors(np.zeros(1))
    >>> bool(np.allclose(factors.to_dense(), problem.hess(np.zeros(1)))), bool(np.allclose(factors.matvec([2.0]), 2 * factors.to_dense()[0]))
    (True, True)
    """

    A: Any
    D: Vector
    v: Vector
    q: Vector
    names: frames.Names = None

    def matvec(self, p: Any) -> Vector:
        """Hess p, in O(n d) and one read of A."""
        p = _for_columns("p", p, self.v.shape[-1], self.names)
        if device.is_on_gpu(self.A) or cluster.is_collection(self.A):
            return 2 * self._passes().weighed(self.D, p) - rank_2_times(self.v, self.q, p)
        product = -0.5 * rank_2_times(self.v, self.q, p)
        for which, rows in chunks(self.A):
            product += (self.D[which] * (rows @ p)) @ rows
        return 2 * product

    def to_dense(self) -> Matrix:
        """The Hessian, d x d."""
        return np.asarray(2 * self._passes().weighted_gram(self.D) - rank_2(self.v, self.q))

    def _passes(self) -> Any:
        data = load(self.A)
        return passes_over(data, self.D, EMPTY, choose(size_of(data.A), data.loader))


class Problem:
    """min over x of ||f(x) - b||^2 + 1/2 ||w * A x||^2, f = u / <u, 1>, u = exp(A x) + A x (arXiv:2309.13482).

    The last x is remembered: `value`, `grad` and `hess` at one x read A once each, and again not at all; `grad` or
    `value_and_grad` at a new x read it once for both. So the last digits of a gradient depend on the order of calls. Methods
    take a lock, so any number of threads may call them; each call uses all threads of the plan, or one where another Python thread has
    them. Numba's workqueue layer ends the process where two threads launch at once, so on it only the main thread launches; where your
    own parallel functions may run meanwhile in another thread, pass kernel="serial" or set NUMBA_THREADING_LAYER to omp or tbb.
    Outside the domain <u, 1> > 0 the value is +inf, the gradient NaN, and the Hessian 0 in every form: SciPy's trust-exact takes the norm of
    the Hessian at a trial before it rejects the trial for its value.

    Parameters
    ----------
    A : (n, d) array_like or sparse
        The data, of any layout and real dtype, or a SciPy sparse matrix or array. Read in place; a map larger than memory is read from its
        file. Small, byte-swapped or longdouble arrays, and sparse ones that are not canonical CSR, are copied once (see `plan`).
        Do not change it during the Problem's life. A float64 or float32 array on a GPU (CuPy, torch, JAX, Numba), of any layout, stays there,
        and all passes run there; b and w may lie there too. A may be a pandas, Polars or pyarrow table or a structured array; missing entries
        are refused. An index of b or w must equal that of A, and labels of an x must be the names of A's columns, in their order.
    b : (n,) array_like
        The target.
    w : (n,) array_like or float, optional
        Weights of the regulariser, at least 0.
    groups : (n,) array_like, optional
        A label for each row: a market, a year, a choice set. u is then normalised within each group of rows, and all share x: f sums to 1 in
        each group, and the domain is alpha > 0 in each. Integers, strings, categories; rows of a group may lie apart, and are then gathered
        once in copies of A, b and the weights (`plan` says so); not for A on disk or in chunks of dask. Not on a GPU.
    multiplicity : (n,) array_like or float, optional
        How many times each row counts in u: u_i = m_i (exp(a_i) + a_i). At least 0; a row with 0 is masked.
    residual_weights : (n,) array_like or float, optional
        Weights of the residuals, at least 0: the loss is sum r_i (f_i - b_i)^2.
    link : {"rsx", "softmax", "linear"} or Link, optional
        u = exp(a) + a, or for comparison u = exp(a) or u = a, a = A x; or a `Link` of your own.
    kernel : {"auto", "parallel", "serial", "cuda"}, optional
        Overrides the plan's choice; the bits of the first three are the same. "cuda" copies A to a GPU once; it needs the extra fastrsx[cuda].
    num_threads : int, optional
        Threads for the kernels, at most what Numba has; by default all that Numba is set to.

    Attributes
    ----------
    A : (n, d) array
    b : (n,) array
    w, multiplicity, residual_weights : (n,) array, empty without weights
    groups : array, or None
        The labels of groups, in the order in which rows have them first.
    names : tuple of str, or None
        The columns of A, where it is a table that names them.
    link : str or Link
    plan : Plan
        What runs, and why.
    npass : int
        Passes over A so far.

    Raises
    ------
    ValueError, TypeError
        For input that is not a real, finite problem of matching shapes; the message names the argument.

    Examples
    --------
    With SciPy's solvers:

    >>> import numpy as np, fastrsx
    >>> from scipy.optimize import minimize
    >>> A = np.array([[1.0, 0.0], [0.5, 1.0], [0.0, 0.5], [-1.0, 0.25]])
    >>> problem = fastrsx.Problem(A, [0.4, 0.3, 0.2, 0.1])
    >>> result = minimize(problem.value, np.zeros(2), jac=problem.grad, hess=problem.hess, method="trust-exact")
    >>> [round(float(x), 3) for x in result.x]
    [0.324, -0.037]
    """

    _order: Any = None  # of the caller's rows here, where those of a group lay apart

    def __init__(
        self,
        A: Any,
        b: Any,
        *,
        w: Any = None,
        groups: Any = None,
        multiplicity: Any = None,
        residual_weights: Any = None,
        link: str | Link = "rsx",
        kernel: str = "auto",
        num_threads: int | None = None,
    ) -> None:
        kernel, num_threads = check_kernel(kernel, num_threads, "cuda")
        self._data = load(as_data(A), kernel)
        self.A = self._data.A
        self.b = self._beside_data("b", b)
        if self.b is None:
            self.b = inputs.as_vector("b", b, self.A.shape[0], "one for each row of A", most=inputs.LARGEST_ENTRY)
        self.w = self._weights("w", w, inputs.as_weights)
        self.names = frames.names_of(A)
        frames.check_rows(A, "b", frames.index_of(b))
        frames.check_rows(A, "w", frames.index_of(w))
        self.link = as_link(link)
        self.plan = choose(size_of(self.A), self._data.loader, kernel, num_threads).on_gpu(self._data.source)
        self._read_groups(A, groups, multiplicity, residual_weights)
        self._num_threads = num_threads
        self._prepare()
        with self._running():
            self._column_scale = self._passes.column_scale(self.names)
            if cluster.is_collection(self.multiplicity):  # the rows that count, in the place of the multiplicities of each group's rows
                there: Any = self._passes
                groups = self._groups or one_group(self.A.shape[0])
                refuse_masked(groups._replace(offsets=np.arange(groups.count + 1)), there.live_rows())
        if device.is_on_gpu(self.w):
            self.w = self._passes.w

    def _beside_data(self, name: str, value: Any) -> Any:
        """A vector that lies where A does, on the GPU or in chunks of dask, where kernels check its entries with those of A; None for another."""
        loader, n = self._data.loader.name, self.A.shape[0]
        if loader in ON_GPU and device.is_on_gpu(value):
            return device.as_vector(name, value, n)
        return cluster.as_vector(name, value, n) if loader == "dask" and cluster.is_readable(value) else None

    def _weights(self, name: str, value: Any, checked: Callable[[str, Any, int], Vector]) -> Any:
        """A weight for each row, or none; one number is that of all rows, in chunks of dask where A is. `checked` reads those in memory."""
        if value is None:
            return EMPTY
        found = self._beside_data(name, value)
        if found is None and self._data.loader.name == "dask" and np.ndim(value) == 0:
            weight = checked(name, value, 1)
            return cluster.constant(self.A, weight[0]) if weight.size else weight
        return checked(name, value, self.A.shape[0]) if found is None else found

    def _read_groups(self, A: Any, groups: Any, multiplicity: Any, residual_weights: Any) -> None:
        """Take over which rows share a softmax, and gather those that lie apart."""
        self._groups, self.multiplicity, self.residual_weights = None, EMPTY, EMPTY
        named = {"groups": groups, "multiplicity": multiplicity, "residual_weights": residual_weights}
        given = {name: value for name, value in named.items() if value is not None}
        if not given:
            return
        n, loader = self.A.shape[0], self._data.loader.name
        if loader in ON_GPU:
            raise ValueError(f"{next(iter(given))} is given, and kernels are those of a GPU: groups of rows and their weights are for the CPU")
        for name, value in given.items():
            frames.check_rows(A, name, frames.index_of(value))
        self.multiplicity = self._weights("multiplicity", multiplicity, as_row_weights)
        self.residual_weights = self._weights("residual_weights", residual_weights, as_row_weights)
        self._groups = groups if groups is None or isinstance(groups, Groups) else groups_of(groups, n, loader == "dask")
        if self._groups is not None and self._groups.order is not None:
            self._gather(self._groups.order)
        if not cluster.is_collection(self.multiplicity):
            refuse_masked(self._groups or one_group(n), self.multiplicity)
        self.plan = self.plan.in_groups(None if self._groups is None else self._groups.count, self._order is not None)

    def _gather(self, order: Any) -> None:
        """Copies of A, b, w and the other weights with the rows in this order."""
        if self.plan.loader in ("stream", "dask"):
            where = "on disk" if self.plan.loader == "stream" else "in chunks of dask"
            raise ValueError(f"groups has rows of one group that lie apart, and A is {where}: sort its rows by group")
        passes_over(self._data, self.b, self.w, self.plan).column_scale(self.names)  # refuses an entry by the caller's number of its row
        with room_for("a copy of A with the rows of each group together", self.A.shape[0] * self.A.shape[1]):
            self._data = load(self.A[order], "auto" if self.plan.kernel == "cuda" else self.plan.kernel)
        self.A, self.b = self._data.A, self.b[order]
        self.w, self.multiplicity, self.residual_weights = (
            each[order] if each.size else each for each in (self.w, self.multiplicity, self.residual_weights)
        )
        self._order = order

    def _prepare(self) -> None:
        self._lock = threading.RLock()
        link = kernel_link(self.link)
        self._traits: Traits = link.traits
        self._passes = passes_over(self._data, self.b, self.w, self.plan, link, self._grouped)
        self._a = self._passes.a
        self._key: bytes | None = None  # of the last x, and what is known there
        self._point: Point
        self._first: Derivatives | None = None
        self._hess: Matrix | None = None
        _alive.add(self)

    def __getstate__(self) -> dict[str, Any]:
        if any(map(device.is_on_gpu, (self.A, self.b, self.w))):
            raise TypeError("a Problem with arrays on a GPU cannot be pickled; make one with arrays in memory and kernel='cuda'")
        kept = ("A", "b", "w", "names", "link", "plan", "multiplicity", "residual_weights", "_groups", "_order", "_num_threads", "_column_scale")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._data = load(self.A, self.plan.kernel)
        self._prepare()

    def __repr__(self) -> str:
        n, d = self.A.shape
        return f"Problem({n} x {d}{', w' if self.w.size else ''}; {self.plan})"

    @property
    def npass(self) -> int:
        return self._passes.count

    @property
    def _like_this(self) -> dict[str, Any]:
        """The arguments of another problem or solve with the same rows."""
        weights = {"w": self.w, "multiplicity": self.multiplicity, "residual_weights": self.residual_weights}
        groups = None if self._groups is None else self._groups._replace(order=None)  # the rows are gathered by now
        return {name: value if value.size else None for name, value in weights.items()} | {"groups": groups, "link": self.link}

    @property
    def _grouped(self) -> tuple[Any, ...]:
        """What the engine for groups needs; empty where one softmax of all rows is all there is."""
        one = self._groups is None or self._groups.count == 1
        if one and not self.multiplicity.size and not self.residual_weights.size:
            return ()
        return self._offsets, self.multiplicity, self.residual_weights

    @property
    def _offsets(self) -> Any:
        """Where groups start and end; all rows are one without groups."""
        return (self._groups or one_group(self.A.shape[0])).offsets

    @property
    def groups(self) -> Any:
        """The labels of groups, in the order of `alpha`; None without groups."""
        return None if self._groups is None else self._groups.labels

    def _alphas(self, point: Point) -> tuple[Any, Any]:
        """alpha and log(alpha) at a point: arrays with groups, else numbers."""
        alpha, log_alpha = point.alpha, point.log_alpha  # arrays where the engine is that for groups
        if self._groups is not None:
            return np.reshape(alpha, self._groups.count), np.reshape(log_alpha, self._groups.count)
        return (alpha, log_alpha) if isinstance(alpha, float) else (alpha.item(), log_alpha.item())

    def _in_callers_order(self, vector: Any) -> Any:
        """An n-vector in the order of the caller's rows; an empty one unchanged."""
        if self._order is None or not vector.size:
            return vector
        out = np.empty_like(vector)
        out[self._order] = vector
        return out

    def _over_group(self, z: Vector) -> Any:
        """The sum of z over the group of each row."""
        if self._groups is None:
            return z.sum()
        offsets = self._groups.offsets
        return np.repeat(np.add.reduceat(z, offsets[:-1]), np.diff(offsets))

    def _running(self) -> AbstractContextManager[Any]:
        """A context to run kernels in: one thread at a time, on the requested number of threads; serial kernels do not start any."""
        return self._lock if self._num_threads is None or self.plan.kernel != "parallel" else self._running_on(self._num_threads)

    @contextmanager
    def _running_on(self, num_threads: int) -> Iterator[None]:
        with self._lock, threads.limited_to(num_threads):
            yield

    def _as_x(self, x: Any, name: str = "x") -> Vector:
        """x, or another vector with an entry for each column, checked and copied."""
        return _for_columns(name, x, self.A.shape[1], self.names).copy()

    def _move_to(self, x: Vector, derivatives: bool = False) -> bool:
        """With the lock held: move to x, with `_first` where derivatives are wanted; returns whether x lies in the domain."""
        key = x.tobytes()
        if key != self._key:
            self._key = self._first = self._hess = None
            if derivatives:
                self._point, self._first = self._passes.project_grad(x)
            else:
                self._point = self._passes.project(x)
            self._key = key
        inside = self._point.fun < np.inf
        if inside and derivatives and self._first is None:
            self._first = self._passes.gradient(self._a, self._point)
        return inside

    def _nan(self, *shape: int) -> np.ndarray:
        return np.full(shape, np.nan)

    def value(self, x: Any) -> float:
        """The loss at x (d,); +inf outside the domain."""
        x = self._as_x(x)
        with self._running():
            return self._point.fun if self._move_to(x) else np.inf

    def grad(self, x: Any) -> Vector:
        """The gradient (2/alpha) A^T [v * (c - s)] + A^T (w^2 * a) at x, (d,)."""
        return self.value_and_grad(x)[1]

    def hess(self, x: Any) -> Matrix:
        """The Hessian at x, (d, d), symmetric."""
        x = self._as_x(x)
        with self._running():
            if not self._move_to(x):
                return np.zeros((self.A.shape[1],) * 2)
            if self._hess is None:
                first, self._hess = self._passes.hessian(self._a, self._point)
                self._first = self._first or first
            return self._hess.copy()

    def value_and_grad(self, x: Any) -> tuple[float, Vector]:
        """(value, grad) at x, for `minimize(problem.value_and_grad, x0, jac=True)`; one pass, or two near an exact fit."""
        x = self._as_x(x)
        with self._running():
            self._move_to(x, derivatives=True)
            if self._first is None:
                return np.inf, self._nan(self.A.shape[1])
            return self._point.fun, self._first.grad.copy()

    def value_grad_hess(self, x: Any) -> tuple[float, Vector, Matrix]:
        """(value, grad, hess) at x; gradient and Hessian share one pass."""
        with self._running():
            hess = self.hess(x)
            return self.value(x), self.grad(x), hess

    def hess_vec(self, x: Any, p: Any) -> Vector:
        """The Hessian at x times p (d,), in one pass without forming it: `hessp` of SciPy's solvers."""
        p = self._as_x(p, "p")
        x = self._as_x(x)
        with self._running():
            self._move_to(x, derivatives=True)
            return np.zeros_like(p) if self._first is None else self._passes.hess_vec(self._a, self._point, self._first, p)

    def factors(self, x: Any) -> Factors:
        """The Hessian at x as a diagonal and a rank-2 term over A."""
        x = self._as_x(x)
        with self._running():
            self._move_to(x, derivatives=True)
            if self._first is None:
                v, q = np.zeros((2, *([self._groups.count] if self._groups else []), self.A.shape[1]))
                return Factors(self.A, self._passes.to_caller(np.zeros(self.A.shape[0])), v, q, self.names)
            D = self._passes.diagonal(self._a, self._point)
            passes: Any = self._passes  # that for groups says more than an Engine
            v, q = passes.rank_2_vectors(self._a, self._point) if self._grouped else (self._first.v.copy(), self._first.q.copy())
            return Factors(self.A, self._passes.to_caller(D), v, q, self.names)

    def predict(self, x: Any) -> Vector:
        """f(x), (n,), which sums to 1 in each group, and is NaN in those outside the domain; on the GPU where A is."""
        return self._in_callers_order(self._passes.to_caller(self._f_and_v(x)[0]))

    def _f_and_v(self, x: Any) -> tuple[Vector, Vector]:
        """f and v/alpha at x."""
        x = self._as_x(x)
        with self._running():
            if not self._move_to(x) and not self._grouped:
                return self._nan(self.A.shape[0]), self._nan(self.A.shape[0])
            return self._passes.predictions(self._a, self._point)

    def hess_operator(self, x: Any) -> LinearOperator:
        """The Hessian at x as a d x d LinearOperator; each product is one pass."""
        x = self._as_x(x)
        d = len(x)
        return LinearOperator((d, d), matvec=lambda p: self.hess_vec(x, p.ravel()), rmatvec=lambda p: self.hess_vec(x, p.ravel()), dtype=float)

    def _shorten(self, x: Vector, a: Any) -> None:
        """Where f does not depend on the length of x, divide x by max |A x|, which the length of a long step depends on; a is A x."""
        if not self._traits.flat_along_x:
            return
        length = self._passes.largest(a)
        if 0 < length < np.inf and np.isfinite(x / length).all():
            x /= length
            self._passes.products(x, a)  # not a / length: x may be subnormal, and A x have few digits

    def _times(self, p: Any) -> Vector:
        """A p."""
        with self._running():
            out = self._passes.empty()
            self._passes.products(np.array(p, dtype=float).ravel(), out)
            return self._passes.to_host(out)

    def _transposed_times(self, y: Any) -> Vector:
        """A^T y."""
        with self._running():
            return self._passes.transposed(np.array(y, dtype=float).ravel())

    def _centre(self) -> Any:
        """What to take from the rows of A, for differences within groups: a constant in all rows of a group does not change the softmax."""
        offsets = self._offsets
        if len(offsets) == 2:
            return self._transposed_times(np.ones(self.A.shape[0])) / self.A.shape[0]
        if self.plan.loader == "dask":
            passes: Any = self._passes
            return passes.centred_factor
        firsts = np.repeat(offsets[:-1], np.diff(offsets))
        return lambda which: as_rows(self.A, firsts[which])

    def _least_norm(self, x: Vector, a: Vector) -> Vector:
        """A+ a for a = A x, by products alone; x where these do not converge to it."""
        operator = LinearOperator(self.A.shape, matvec=self._times, rmatvec=self._transposed_times, dtype=float)
        least = np.asarray(lsmr(operator, a, atol=1e-15, btol=1e-15, conlim=0, maxiter=10 * len(a))[0])
        return least if np.abs(self._times(least) - a).max() <= LEAST_NORM_TOL * np.abs(a).max() else x

    def jac_operator(self, x: Any) -> LinearOperator:
        """df/dx = (1/alpha) (I - f 1^T) diag(v) A at x as an n x d LinearOperator, for `scipy.optimize.least_squares`."""
        f, v = map(self._passes.to_host, self._f_and_v(x))

        def matvec(p: Any) -> Vector:
            da = self._times(p)
            da *= v
            return np.asarray(self._in_callers_order(da - f * self._over_group(da)))

        def rmatvec(y: Any) -> Vector:
            y = np.asarray(y, dtype=float).ravel()
            y = y if self._order is None else y[self._order]
            return self._transposed_times(v * (y - self._over_group(f * y)))

        return LinearOperator(self.A.shape, matvec=matvec, rmatvec=rmatvec, dtype=float)


def predict(A: Any, x: Any, *, groups: Any = None, multiplicity: Any = None, link: str | Link = "rsx") -> Vector:
    """f(x) = u / <u, 1>, u = exp(A x) + A x.

    Parameters
    ----------
    A : (n, d) array_like
    x : (d,) array_like
    groups, multiplicity : (n,) array_like, optional
        As in `Problem`.
    link : {"rsx", "softmax", "linear"} or Link, optional
        As in `Problem`.

    Returns
    -------
    (n,) array
        Sums to 1, with groups in each of them; NaN outside the domain <u, 1> > 0, with groups in those where <u, 1> is not positive.

    Raises
    ------
    ValueError, TypeError
        For input that is not real, finite and of matching shapes.

    Examples
    --------
    >>> import fastrsx
    >>> [round(float(f), 4) for f in fastrsx.predict([[0.0], [1.0]], [1.0])]
    [0.2119, 0.7881]
    """
    A = frames.listed(A)  # it is read twice
    data = as_data(A)
    b = cluster.constant(data, 0.0) if cluster.is_collection(data) else np.zeros(data.shape[0])
    return Problem(A, b, groups=groups, multiplicity=multiplicity, link=link).predict(x)
