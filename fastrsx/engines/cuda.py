"""Passes over an A that lies on a GPU, and the solver's iteration beside it: n-vectors stay there; scalars, d-vectors and the Hessian are copied."""

import functools
import math
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from fastrsx.kernels.cpu import passes, rows
from fastrsx.kernels.formulas import records
from fastrsx.kernels.gpu import loop, sample
from fastrsx.kernels.gpu import passes as kernels
from fastrsx.kernels.newton import iteration
from fastrsx.kernels.newton import passes as looks
from fastrsx.kernels.newton.passes import PLANE

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan
from ..system import device
from .contract import Derivatives, Point, rank_2
from .exchange import Exchange
from .interpreted import advance_of
from .memory import EMPTY, Passes
from .spare import Rooms

DeviceVector = Any  # n numbers on the GPU


def on_its_gpu(engine: Any) -> Any:
    """All methods of a class run on the GPU number `gpu`; without a number, where a process has one, on that."""

    def bound(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.gpu is None:
                return method(self, *args, **kwargs)
            with kernels.cuda.gpus[self.gpu]:
                return method(self, *args, **kwargs)

        return call

    for name, value in list(vars(engine).items()):
        if isinstance(value, FunctionType) and name != "__init__":
            setattr(engine, name, bound(value))
    return engine


@on_its_gpu
class CudaPasses(Passes):
    """The kernels for a GPU, bound to one (A, b, w): n-vectors are Numba arrays there; all else is as in `Passes`.

    All work is queued on one stream, which follows CUDA's default stream, and methods that return numbers wait for them.
    """

    def __init__(self, data: Data, b: Any, w: Any, plan: Plan, link: Any) -> None:
        self.data, self.source, self.shape, self.plan = data, data.source, data.shape, plan
        self.gpu = device.index_of(data.source) if device.count() > 1 else None
        self.count = self.evaluations = 0
        self.has_sparse_gram = self.is_mixed = False
        self._b_extremes: list[float] | None = None
        self._advance = advance_of(self)
        self._between: Any = None  # a vector that no method leaves anything in, once one is needed
        self._alloc_all(b, w, link)

    def _alloc_all(self, b: Any, w: Any, link: Any) -> None:
        n, d = self.shape
        with device.room_for(f"the workspace for {n} x {d}"):
            self._rooms = Rooms(self, device.stream())
            self._work = self._alloc_work(link)
            self._none = self._work.a[:0]  # an empty vector
            self.b, self.w = (self._there(name, vector) for name, vector in (("b", b), ("w", w)))
        self._exchange_of(hessian=False)

    def _alloc_work(self, link: Any) -> Any:
        return kernels.alloc_workspace(*self.shape, False, link, self._rooms.stream, self._rooms.new)

    def _there(self, name: str, vector: Any) -> DeviceVector:
        """An n-vector on the GPU that A is on."""
        if not device.is_on_gpu(vector):
            return self._from_host(vector) if vector.size else self._none
        if self.gpu is not None and device.index_of(vector) != self.gpu:
            raise ValueError(f"{name} is on GPU {device.index_of(vector)}, and A on GPU {self.gpu}; move one of them to the other's")
        return vector

    def _from_host(self, array: np.ndarray) -> Any:
        """A copy on the GPU, which lives as long as the engine."""
        there = self._rooms.new(array.shape, array.dtype)
        there.copy_to_device(array, stream=self._work.stream)
        return there

    def _exchange_of(self, hessian: bool) -> None:
        """The record that crosses the bus, and what kernels write in it; the point there is unknown then."""
        self._exchange = Exchange(self.shape[1], hessian, self._rooms)
        self._work = self._work._replace(point=self._exchange.point, combined=self._exchange.vectors)
        self._known: tuple[float, ...] = ()  # the identity of the point on the GPU

    # -- between host and GPU ---------------------------------------------------------------------------------

    def _at(self, point: Point) -> Any:
        """A point on the GPU, until the next one; that of the last pass is there."""
        if point.identity != self._known:
            self._work.point.copy_to_device(point.raw.view(records.POINT), stream=self._work.stream)
            self._known = point.identity
        return self._work.point

    def _point(self, raw: Vector) -> Point:
        """A point that a pass has left on the GPU."""
        point = Point(raw)
        self._known = point.identity
        return point

    def empty(self) -> DeviceVector:
        with device.room_for(f"a vector of {self.shape[0]} numbers"):
            return kernels.cuda.device_array(self.shape[0], stream=self._work.stream)

    def scratch(self) -> DeviceVector:
        with device.room_for(f"a vector of {self.shape[0]} numbers"):
            return self._rooms.new(self.shape[0])

    def _temporary(self) -> DeviceVector:
        """Room for n numbers, until the next method that takes it."""
        if self._between is None:
            self._between = self.scratch()
        return self._between

    def constant(self, x: float) -> DeviceVector:
        out = self.scratch()
        kernels.fill(out, self._work, x)
        return out

    def to_host(self, vector: DeviceVector) -> Vector:
        return np.asarray(kernels.fetch(vector, self._work))

    def to_caller(self, vector: Any) -> Any:
        """On the side where the caller has A."""
        if device.is_on_gpu(self.data.A) is device.is_on_gpu(vector):
            kernels.cuda.synchronize()  # whatever stream it is read on
            return vector
        return self.to_host(vector) if device.is_on_gpu(vector) else kernels.cuda.to_device(vector)

    # -- n-vectors --------------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        return False

    def workspace(self, hessian: bool = True) -> Any:
        """The part of a workspace that `advance` reads."""
        return SimpleNamespace(link=self._work.link, a=self._work.a, point=np.zeros(records.POINT_ROOM), sums=None)

    def _check(self, name: str, x: DeviceVector, extremes: list[float], at_least: float) -> float:
        """The largest entry of an n-vector; refused as one in memory would be if it is not finite, beyond 1e150 or below `at_least`."""
        low, high, total, _ = extremes
        if not (max(abs(low), abs(high)) <= inputs.LARGEST_ENTRY and math.isfinite(total) and low >= at_least):
            there = self.to_host(x)
            inputs.as_weights("w", there, len(there)) if name == "w" else inputs.as_vector(name, there, len(there), "", inputs.LARGEST_ENTRY)
        return float(high)

    def _of_b(self) -> list[float]:
        """Its least and largest entry, sum and sum of squares."""
        if self._b_extremes is None:
            self._b_extremes = kernels.extremes(self.b, self._work)
        return self._b_extremes

    @property
    def norm_b(self) -> float:
        return math.sqrt(self._of_b()[3])

    @property
    def sum_b(self) -> float:
        return float(self._of_b()[2])

    def largest(self, a: DeviceVector) -> float:
        low, high, total, _ = kernels.extremes(a, self._work)
        return max(abs(low), abs(high)) if not math.isnan(total) else math.nan

    def _is_penalised(self, image: DeviceVector, w: DeviceVector, unit: float) -> bool:
        return bool(looks.is_penalised(self.to_host(image), self.to_host(w), unit))

    def _spread(self, a: DeviceVector) -> float:
        low, high, _, _ = kernels.extremes(a, self._work)
        return high - low

    def distance(self, a: DeviceVector, other: DeviceVector, centred: bool) -> float:
        change = self._temporary()
        self.assign(change, a)
        kernels.add(change, -1.0, other, self._work)
        low, high, total, _ = kernels.extremes(change, self._work)
        mean = total / self.shape[0] if centred else 0.0
        return max(abs(low - mean), abs(high - mean))

    def combine(self, y: Vector, vectors: list[DeviceVector], out: DeviceVector) -> None:
        kernels.fill(out, self._work, 0.0)
        for coefficient, vector in zip(y.tolist(), vectors, strict=True):
            kernels.add(out, coefficient, vector, self._work)

    # -- passes -----------------------------------------------------------------------------------------------

    def products(self, x: Vector, out: DeviceVector) -> None:
        self.count += 1
        kernels.products(self.source, self._exchange.send(x), out, self._work)

    def transposed(self, y: Any) -> Vector:
        self.count += 1
        kernels.transposed(self.source, y if device.is_on_gpu(y) else kernels.cuda.to_device(y), self._work)
        return self._exchange.get_vectors()[0, records.R].copy()

    def column_scale(self, names: Names = None) -> Vector:
        """Also refuses such entries of b and w; a w of zeros counts as none."""
        self._check("b", self.b, self._of_b(), -math.inf)
        if self.w.size and self._check("w", self.w, kernels.extremes(self.w, self._work), 0.0) == 0.0:
            self.w = self._none
        self.count += 1
        kernels.columns(self.source, self._work)
        scale = np.empty(self.shape[1])
        bad = passes.finish_columns(self._exchange.get_vectors()[0, :2], self.shape[0], inputs.LARGEST_ENTRY, scale)
        if bad >= 0:
            kernels.column(self.source, bad, self.a, self._work)
            inputs.refuse_entries(self.to_host(self.a), bad, names)
        return scale

    def evaluate(self, a: DeviceVector, da: DeviceVector = EMPTY, t: float = 0.0, out: DeviceVector | None = None) -> Point:
        self.evaluations += 1
        kernels.evaluate(a, da if da.size else self._none, t, self.b, self.w, a if out is None else out, self._work)
        return self._point(self._exchange.get_point())

    def look_ahead(self, a: DeviceVector, p: Vector, da: DeviceVector, out: DeviceVector) -> Point:
        self.count += 1
        self.evaluations += 1
        loop.look_ahead(self.source, self._exchange.send(p), a, da, self.b, self.w, out, self._work)
        return self._point(self._exchange.get_point())

    def project(self, x: Vector) -> Point:
        self.count += 1
        self.evaluations += 1
        kernels.project(self.source, self._exchange.send(x), self.b, self.w, self._work)
        return self._point(self._exchange.get_point())

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        if self.shape[1] > kernels.WIDEST:
            point = self.project(x)
            return point, self.gradient(self.a, point) if point.fun < np.inf else None
        self.count += 1
        self.evaluations += 1
        kernels.project_grad(self.source, self._exchange.send(x), self.b, self.w, self._work)
        raw, vectors = self._exchange.get_both()
        point = self._point(raw)
        if not point.fun < np.inf:
            return point, None
        return point, self.gradient(self.a, point) if rows.cancels(point.raw, vectors) else self.derivatives_in(vectors)

    def gradient(self, a: DeviceVector, point: Point) -> Derivatives:
        self.count += 1
        kernels.gradient(self.source, a, self.b, self.w, self._at(point), self._none, self._work)
        return self.derivatives_in(self._exchange.get_vectors())

    def hessian(self, a: DeviceVector, point: Point) -> tuple[Derivatives, Matrix]:
        self._with_gram()
        self.count += 1 if kernels.tensor_gram.has_tensor_cores() else 2
        self._at(point)
        loop.derivatives(self.source, a, self.b, self.w, self._exchange.gram, self._work)
        vectors, hess = self._exchange.get_derivatives()
        first = self.derivatives_in(vectors)
        hess -= rank_2(first.v, first.q)
        return first, hess

    def _with_gram(self) -> None:
        """Room for Hessians, from the first one on."""
        if not self._work.gram.size:
            n, d = self.shape
            with device.room_for(f"the Hessian for d = {d}, of which {kernels.split_count(n, d)} parts are summed,"):
                h, gram = kernels.alloc_gram(n, d, self._work.stream, self._rooms.new)
                self._work = self._work._replace(h=h, gram=gram)
                self._with_hessian()

    def _with_hessian(self) -> Exchange:
        """The record, with room for a Hessian."""
        if self._exchange.gram is None:
            self._exchange_of(hessian=True)
        return self._exchange

    def _gram_of(self, h: DeviceVector) -> Matrix:
        """A^T diag(h) A."""
        self._with_gram()
        self.count += 1
        kernels.weigh_gram(self.source, h, self._work)
        loop.merge_grams(self._work.vectors[:0], 0, self._exchange.gram, self._work)
        return self._exchange.get_derivatives()[1]

    def weighted_gram(self, h: DeviceVector) -> Matrix:
        return self._gram_of(h)

    def gram(self) -> Matrix:
        ones = self._temporary()
        kernels.fill(ones, self._work, 1.0)
        return self._gram_of(ones)

    def row_squares(self, B: Matrix) -> DeviceVector:
        self.count += sample.reads_of_scores(self.source)
        out = self.scratch()
        sample.scores(self.source, self._from_host(np.ascontiguousarray(B[: self.shape[1]].T)), out, self._work)
        return out

    def drawing(self, size: int) -> Any:
        return DrawnRows(self, size)

    def curvature(self, a: DeviceVector, point: Point, p: Vector, da: DeviceVector) -> Vector:
        self.count += 1 if self.shape[1] <= kernels.WIDEST else 2
        image = da if da.size else self._none
        kernels.curvature(self.source, self._exchange.send(p), a, self.b, self.w, self._at(point), image, self._work)
        return self._exchange.get_vectors()[0, records.R].copy()

    def diagonal(self, a: DeviceVector, point: Point) -> DeviceVector:
        D = self.empty()
        kernels.diagonal(a, self.b, self.w, self._at(point), D, self._work)
        return D

    def row_weights(self, a: DeviceVector, point: Point) -> DeviceVector:
        h = self._temporary()
        kernels.diagonal(a, self.b, self.w, self._at(point), h, self._work)
        kernels.add(h, 1.0, h, self._work)
        return h

    def predictions(self, a: DeviceVector, point: Point) -> tuple[DeviceVector, DeviceVector]:
        f, v = self.empty(), self.empty()
        kernels.predictions(a, self._at(point), f, v, self._work)
        return f, v

    def weighed(self, D: DeviceVector, p: Vector) -> Vector:
        """A^T (D * A p)."""
        product = self._temporary()
        self.products(p, product)
        kernels.weigh(product, D, self._work)
        return self.transposed(product)

    # -- the solver's iteration -------------------------------------------------------------------------------

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        n, d = self.shape
        with device.room_for(f"the iterate for {n} x {d}"):
            vectors = self._rooms.new((4, n))
        kernels.fill(vectors, self._work, 0.0)
        *a, da = (vectors[k] for k in range(4))
        return iteration.alloc_iterate.py_func(0, d, False)._replace(a=a, da=da, plane_sums=np.empty((1, PLANE)))

    def assign(self, out: DeviceVector, a: DeviceVector) -> None:
        out.copy_to_device(a, stream=self._work.stream)

    def advance(self, *args: Any) -> int:
        """`fastrsx.kernels.newton.verdict.advance`, interpreted: between the few kernels that it launches it handles only scalars."""
        return int(self._advance(*args))

    def _point_into(self, point: np.ndarray) -> float:
        there = self._point(self._exchange.get_point())
        point[:] = there.raw
        return there.fun

    def _evaluate_into(self, link: Any, a: Any, da: Any, t: float, b: Any, w: Any, out: Any, sums: Any, point: np.ndarray) -> float:
        kernels.evaluate(a, da, t, b, w, out, self._work)
        return self._point_into(point)

    def _evaluate_plane_into(self, link: Any, plane: Any, y: Vector, b: Any, w: Any, out: Any, sums: Any, point: np.ndarray) -> float:
        kernels.evaluate_plane(plane, y, b, w, out, self._work)
        return self._point_into(point)

    def _plane_derivatives_into(self, link: Any, plane: Any, a: Any, b: Any, w: Any, point: np.ndarray, sums: Matrix) -> None:
        sums[0] = kernels.plane_derivatives(plane, a, b, w, self._at(Point(point)), self._work)


@on_its_gpu
class DrawnRows:
    """Rows drawn on the GPU, and their Gram matrix, from a copy of them; a row that fills the room has weight 0."""

    def __init__(self, passes: CudaPasses, size: int) -> None:
        self.gpu, self.source, self.size, self.exchange = passes.gpu, passes.source, size, passes._with_hessian()
        rooms, d = passes._rooms, passes.shape[1]
        with device.room_for(f"{size} rows of A, and the parts of their Gram matrix,"):
            self.rows, self.weights, self.panel = rooms.new(size + 1, np.int64), rooms.new(size + 1), rooms.new((size + 1, d), self.source.dtype)
            gram, h = kernels.alloc_parts(size + 1, d, rooms.stream, rooms.new), rooms.new(size + 1)
        self.work = passes._work._replace(gram=gram, h=h)

    def gram_of(self, rows: np.ndarray, weight: float) -> Matrix:
        """weight A^T A of these rows."""
        there, weights = np.zeros(self.size + 1, np.int64), np.zeros(self.size + 1)
        there[: len(rows)], weights[: len(rows)] = rows, weight
        self.rows.copy_to_device(there, stream=self.work.stream)
        self.weights.copy_to_device(weights, stream=self.work.stream)
        return self._gram()

    def gram(self, h: DeviceVector, scores: DeviceVector, offset: float) -> Matrix:
        """An unbiased estimate of A^T diag(h) A; see `fastrsx.kernels.cpu.sample.draw`."""
        sample.draw(h, scores, self.size, offset, self.rows, self.weights, self.work)
        return self._gram()

    def _gram(self) -> Matrix:
        sample.take(self.source, self.rows, self.panel, self.work)
        kernels.weigh_gram(self.panel, self.weights, self.work)
        loop.merge_grams(self.work.vectors[:0], 0, self.exchange.gram, self.work)
        return self.exchange.get_derivatives()[1]
