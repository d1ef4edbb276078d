"""The methods of an engine that a solver calls, and the records that it gets back."""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastrsx.kernels.compiling.jit import of_arrays, rebuilt
from fastrsx.kernels.cpu.ahead import Sample
from fastrsx.kernels.formulas import finish, records, steps
from fastrsx.kernels.newton import iteration, trust_region

from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan

LARGEST_LOG = math.log(float(np.finfo(float).max))
_rank_2 = of_arrays(finish.rank_2)
_noise = rebuilt(steps.noise.py_func, {"rounding": steps.rounding.py_func})  # of Python's numbers


class Point:
    """Scalars at some a = A x; the hats of `fastrsx.kernels.formulas.records` undone."""

    __slots__ = ("at", "raw")

    def __init__(self, raw: np.ndarray) -> None:
        self.raw = raw  # the array that kernels take
        self.at = records.Point(*raw[: records.POINT_ROOM].tolist())

    @property
    def fun(self) -> float:
        return float(self.at.fun)

    @property
    def shift(self) -> float:
        """M = max(0, max a), or what the link makes of it."""
        return float(self.at.shift)

    @property
    def squares(self) -> float:
        """<c, c>."""
        return float(self.at.squares)

    @property
    def noise(self) -> float:
        """The rounding error of fun."""
        return float(_noise(self.at))

    @property
    def identity(self) -> tuple[float, ...]:
        """What no other a has."""
        return self.at.shift, self.at.alpha, self.at.squares, self.at.s, self.at.ff

    @property
    def step(self) -> float:
        """max |A p| of the step p to here, where one was evaluated."""
        return float(self.at.step)

    @property
    def scaled_alpha(self) -> float:
        """<u, 1> exp(-M)."""
        return float(self.at.alpha)

    @property
    def log_alpha(self) -> float:
        """log <u, 1>; NaN outside the domain."""
        alpha = self.at.alpha
        return math.log(alpha) + self.at.shift if alpha > 0 else math.nan

    @property
    def alpha(self) -> float:
        """<u, 1>, which may be inf."""
        log_alpha = self.log_alpha
        return math.exp(log_alpha) if not log_alpha > LARGEST_LOG else math.inf


def rank_2(v: Vector, q: Vector) -> Matrix:
    """2 (v q^T + q v^T): A^T diag(h) A minus the Hessian; for matrices, summed over their rows, one for each group."""
    if v.ndim == 2:
        half = v.T @ q
        return np.asarray(2 * (half + half.T))
    return np.asarray(2 * _rank_2(v[:, None], q[:, None], v, q))


def rank_2_times(v: Vector, q: Vector, p: Vector) -> Vector:
    """The same times p."""
    if v.ndim == 2:
        return np.asarray(2 * ((q @ p) @ v + (v @ p) @ q))
    return np.asarray(2 * _rank_2(v, q, v @ p, q @ p))


class Derivatives(NamedTuple):
    """The gradient and the rank-2 vectors A^T v/alpha and A^T q/alpha at some x, each (d,).

    With groups of rows there are many such vectors, and another class has the methods (`groups.GroupedDerivatives`).
    """

    grad: Vector
    v: Vector
    q: Vector

    def rank_2(self, scale: Vector | float = 1.0) -> Matrix:
        """A^T diag(h) A minus the Hessian, of columns divided by their scale."""
        return rank_2(self.v / scale, self.q / scale)

    def log_alpha_slope(self, p: Vector) -> float:
        """d log(alpha) / dt along A p."""
        return float(self.v @ p)

    def saturation(self, H: Matrix, scale: Vector) -> float:
        """The Hessian H, of scaled columns, relative to its two terms: tiny where it is rounding."""
        return float(trust_region.saturation(H, self.v, self.q, scale))

    def cancellation(self, image: Vector, p: Vector, da: Any, scale: Vector) -> float:
        """The same of `image`, the Hessian times p in scaled columns; da = A p."""
        return cancellation(image, rank_2_times(self.v / scale, self.q / scale, p))


def cancellation(image: Any, subtracted: Any) -> float:
    """The Hessian, or its product with a vector, relative to its two terms."""
    terms = np.linalg.norm(image + subtracted) + np.linalg.norm(subtracted)
    return float(np.linalg.norm(image) / terms) if terms > 0 else 1.0


class Foreseen(NamedTuple):
    """Derivatives formed in the read that led to their point: those of first order are exact."""

    first: Derivatives
    hess: Matrix
    error: float  # of the Hessian in columns of unit RMS, about


class Drawing(Protocol):
    """Rows drawn to stand for all in A^T diag(h) A."""

    def gram_of(self, rows: np.ndarray, weight: float) -> Matrix:
        """weight A^T A of the rows with these numbers."""

    def gram(self, h: Any, scores: Any, offset: float) -> Matrix:
        """An unbiased estimate of A^T diag(h) A; see `fastrsx.kernels.cpu.sample.draw`."""


class Engine(Protocol):
    """Runs passes over one A, with its b, w and link, and counts them.

    d-vectors are arrays in memory. n-vectors (`a`, `da`, b, w) are the engine's own: `empty` makes one, `to_host` and `to_caller` read it, and
    nothing else looks inside. A point belongs to some a = A x. One thread at a time.
    """

    data: Data
    source: Any  # the form of A that kernels take
    b: Any
    w: Any  # empty without weights
    shape: tuple[int, int]
    plan: Plan
    count: int  # passes over A
    evaluations: int  # of the loss
    is_mixed: bool  # whether Hessians are in mixed precision

    @property
    def is_plain(self) -> bool:
        """Whether whole iterations are compiled for this A; for others only passes are."""

    @property
    def a(self) -> Any:
        """Room for A x."""

    @property
    def norm_b(self) -> float: ...

    @property
    def sum_b(self) -> float: ...

    # -- n-vectors --------------------------------------------------------------------------------------------

    def empty(self) -> Any:
        """Room for n numbers."""

    def scratch(self) -> Any:
        """The same for as long as the engine lives: nothing that a caller gets."""

    def constant(self, x: float) -> Any:
        """n times x, for as long."""

    def to_host(self, vector: Any) -> Vector:
        """An n-vector in memory."""

    def to_caller(self, vector: Any) -> Any:
        """An n-vector on the side where the caller has A."""

    def assign(self, out: Any, a: Any) -> None:
        """out = a."""

    def combine(self, y: Vector, vectors: list[Any], out: Any) -> None:
        """out = sum_k y_k vectors_k; the vectors are overwritten."""

    def largest(self, a: Any) -> float:
        """max |a|; NaN where a has one."""

    def distance(self, a: Any, other: Any, centred: bool) -> float:
        """max |a - other|; centred, after the mean is subtracted."""

    # -- the point --------------------------------------------------------------------------------------------

    def point_of(self, raw: np.ndarray) -> Point:
        """The point of its numbers."""

    def evaluate(self, a: Any, da: Any = ..., t: float = ..., out: Any = ...) -> Point:
        """The point at a, or at out = a + t da."""

    def project(self, x: Vector) -> Point:
        """The point at x, whose A x goes to `a`."""

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        """The same with the gradient, or None outside the domain."""

    def look_ahead(self, a: Any, p: Vector, da: Any, out: Any) -> Point:
        """da = A p, out = a + da, and the point there."""

    @property
    def reads_once(self) -> bool:
        """Whether a step takes one read of A, by `foresee`."""

    @property
    def sample(self) -> Sample:
        """The rows that predict such a step."""

    def foresee(self, a: Any, here: Point, first: Derivatives, p: Vector, da: Any, out: Any) -> tuple[Point, float]:
        """The same and the derivatives there, in one read, by a prediction from the point and the derivatives at a; the error of the Hessian."""

    def foreseen(self, point: Point) -> "Foreseen | None":
        """The derivatives that `foresee` has formed at this point, once; None where it has not, or not well enough."""

    # -- sums over rows ---------------------------------------------------------------------------------------

    def products(self, x: Vector, out: Any) -> None:
        """out = A x."""

    def transposed(self, y: Any) -> Vector:
        """A^T y."""

    def column_scale(self, names: Names = ...) -> Vector:
        """The RMS of each column; refuses NaN, inf and entries beyond 1e150."""

    def gradient(self, a: Any, point: Point) -> Derivatives:
        """Gradient and rank-2 vectors."""

    def hessian(self, a: Any, point: Point) -> tuple[Derivatives, Matrix]:
        """The same and the Hessian."""

    def hess_vec(self, a: Any, point: Point, first: Derivatives, p: Vector, da: Any = ...) -> Vector:
        """Hess p; and da = A p unless da is empty."""

    def weighted_gram(self, h: Any) -> Matrix:
        """A^T diag(h) A."""

    def gram(self) -> Matrix:
        """A^T A."""

    def row_squares(self, B: Matrix) -> Any:
        """||A_i B||^2 for each row, B (padded d x 8)."""

    def drawing(self, size: int) -> Drawing:
        """Room for about that many rows of A, to stand for all."""

    def diagonal(self, a: Any, point: Point) -> Any:
        """D = h/2."""

    def row_weights(self, a: Any, point: Point) -> Any:
        """h, until the next call."""

    def predictions(self, a: Any, point: Point) -> tuple[Any, Any]:
        """f and v/alpha; with groups, NaN in those outside the domain."""

    # -- the solver's iteration -------------------------------------------------------------------------------

    def workspace(self, hessian: bool = ...) -> Any:
        """The workspace that `advance` takes."""

    def use_mixed(self) -> None:
        """Form Hessians in mixed precision from now on."""

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        """An iterate at x = 0; with room for a Hessian where iterations form it."""

    def advance(self, *args: Any) -> int:
        """See `fastrsx.kernels.newton.verdict.advance`."""
