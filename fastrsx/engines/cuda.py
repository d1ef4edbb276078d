"""Passes over an A that lies on a GPU, and the solver's iteration beside it: n-vectors stay there; scalars, d-vectors and the Hessian are copied."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastrsx.kernels import cuda as kernels
from fastrsx.kernels.cpu import passes, rows
from fastrsx.kernels.formulas import records
from fastrsx.kernels.newton import iteration
from fastrsx.kernels.newton import passes as looks
from fastrsx.kernels.newton.passes import PLANE

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan
from ..system import device
from .contract import Derivatives, Point
from .interpreted import advance_of
from .memory import EMPTY, Passes

DeviceVector = Any  # n numbers on the GPU


class CudaPasses(Passes):
    """The kernels for a GPU, bound to one (A, b, w): n-vectors are Numba arrays there; all else is as in `Passes`.

    All work is queued on CUDA's default stream, and methods that return numbers wait for them.
    """

    def __init__(self, data: Data, b: Any, w: Any, plan: Plan, link: Any) -> None:
        self.data, self.source, self.shape, self.plan = data, data.source, data.shape, plan
        self.count = self.evaluations = 0
        self.has_sparse_gram = self.is_mixed = False
        n, d = self.shape
        with device.room_for(f"the workspace for {n} x {d}"):
            self._work = kernels.alloc_workspace(n, d, False, link)
            self.b, self.w = (vector if device.is_on_gpu(vector) else kernels.cuda.to_device(vector) for vector in (b, w))
            self._x = kernels.cuda.device_array(d)
        self._advance = advance_of(self)

    # -- between host and GPU ---------------------------------------------------------------------------------

    def _there(self, x: Vector) -> Any:
        """A d-vector on the GPU, until the next one."""
        self._x.copy_to_device(x)
        return self._x

    def _at(self, point: Point) -> Any:
        """A point on the GPU, until the next one."""
        self._work.point.copy_to_device(point.raw.view(records.POINT))
        return self._work.point

    def _point(self) -> Point:
        return Point(kernels.fetch(self._work.point, self._work).view(np.float64))

    def _vectors(self) -> np.ndarray:
        """The combined d-vectors, as `derivatives_in` takes them."""
        return np.asarray(kernels.fetch(self._work.combined, self._work))[None]

    @property
    def _none(self) -> DeviceVector:
        """An empty vector."""
        return self._work.a[:0]

    def empty(self) -> DeviceVector:
        with device.room_for(f"a vector of {self.shape[0]} numbers"):
            return kernels.cuda.device_array(self.shape[0])

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

    def _check(self, name: str, x: DeviceVector, at_least: float) -> float:
        """The largest entry of an n-vector; refused as one in memory would be if it is not finite, beyond 1e150 or below `at_least`."""
        low, high, total, _ = kernels.extremes(x, self._work)
        if not (max(abs(low), abs(high)) <= inputs.LARGEST_ENTRY and math.isfinite(total) and low >= at_least):
            there = self.to_host(x)
            inputs.as_weights(there, len(there)) if name == "w" else inputs.as_vector(name, there, len(there), "", inputs.LARGEST_ENTRY)
        return float(high)

    @property
    def norm_b(self) -> float:
        return math.sqrt(kernels.extremes(self.b, self._work)[3])

    @property
    def sum_b(self) -> float:
        return float(kernels.extremes(self.b, self._work)[2])

    def largest(self, a: DeviceVector) -> float:
        low, high, total, _ = kernels.extremes(a, self._work)
        return max(abs(low), abs(high)) if not math.isnan(total) else math.nan

    def _is_penalised(self, image: DeviceVector, w: DeviceVector, unit: float) -> bool:
        return bool(looks.is_penalised(self.to_host(image), self.to_host(w), unit))

    def _spread(self, a: DeviceVector) -> float:
        low, high, _, _ = kernels.extremes(a, self._work)
        return high - low

    def distance(self, a: DeviceVector, other: DeviceVector, centred: bool) -> float:
        change = self.empty()
        change.copy_to_device(a)
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
        kernels.products(self.source, self._there(x), out, self._work)

    def transposed(self, y: Any) -> Vector:
        self.count += 1
        kernels.transposed(self.source, y if device.is_on_gpu(y) else kernels.cuda.to_device(y), self._work)
        return self._vectors()[0, records.R]

    def column_scale(self, names: Names = None) -> Vector:
        """Also refuses such entries of b and w; a w of zeros counts as none."""
        self._check("b", self.b, -math.inf)
        if self.w.size and self._check("w", self.w, 0.0) == 0.0:
            self.w = self._work.h[:0]
        self.count += 1
        kernels.columns(self.source, self._work)
        scale = np.empty(self.shape[1])
        bad = passes.finish_columns(self._vectors()[0, :2], self.shape[0], inputs.LARGEST_ENTRY, scale)
        if bad >= 0:
            kernels.column(self.source, bad, self.a, self._work)
            inputs.refuse_entries(self.to_host(self.a), bad, names)
        return scale

    def evaluate(self, a: DeviceVector, da: DeviceVector = EMPTY, t: float = 0.0, out: DeviceVector | None = None) -> Point:
        self.evaluations += 1
        kernels.evaluate(a, da if da.size else self._none, t, self.b, self.w, a if out is None else out, self._work)
        return self._point()

    def project(self, x: Vector) -> Point:
        self.count += 1
        self.evaluations += 1
        kernels.project(self.source, self._there(x), self.b, self.w, self._work)
        return self._point()

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        if self.shape[1] > kernels.WIDEST:
            point = self.project(x)
            return point, self.gradient(self.a, point) if point.fun < np.inf else None
        self.count += 1
        self.evaluations += 1
        kernels.project_grad(self.source, self._there(x), self.b, self.w, self._work)
        point = self._point()
        if not point.fun < np.inf:
            return point, None
        vectors = self._vectors()
        return point, self.gradient(self.a, point) if rows.cancels(point.raw, vectors) else self.derivatives_in(vectors)

    def _first(self, a: DeviceVector, point: Point, h: DeviceVector) -> Derivatives:
        self.count += 1
        kernels.gradient(self.source, a, self.b, self.w, self._at(point), h, self._work)
        return self.derivatives_in(self._vectors())

    def gradient(self, a: DeviceVector, point: Point) -> Derivatives:
        return self._first(a, point, self._none)

    def hessian(self, a: DeviceVector, point: Point) -> tuple[Derivatives, Matrix]:
        h = self._with_gram().h
        return self._first(a, point, h), self._weighed_gram(h)

    def _with_gram(self) -> Any:
        """The workspace, with Gram matrices from the first call on."""
        if not self._work.gram.size:
            n, d = self.shape
            with device.room_for(f"the Hessian for d = {d}, of which {kernels.split_count(n, d)} parts are summed,"):
                self._hess, h, gram = kernels.alloc_gram(n, d)
            self._work = self._work._replace(h=h, gram=gram)
        return self._work

    def _weighed_gram(self, h: DeviceVector) -> Matrix:
        """A^T diag(h) A with the rank-2 term of the vectors in the workspace."""
        self.count += 1
        kernels.weigh_gram(self.source, h, self._work)
        kernels.finish_hessian(self._hess, self._work)
        return np.asarray(kernels.fetch(self._hess, self._work))

    def weighted_gram(self, h: DeviceVector) -> Matrix:
        kernels.fill(self._with_gram().combined, self._work, 0.0)
        return self._weighed_gram(h)

    def gram(self) -> Matrix:
        ones = self.empty()
        kernels.fill(ones, self._work, 1.0)
        return self.weighted_gram(ones)

    def curvature(self, a: DeviceVector, point: Point, p: Vector, da: DeviceVector) -> Vector:
        self.count += 1 if self.shape[1] <= kernels.WIDEST else 2
        image = da if da.size else self._none
        kernels.curvature(self.source, self._there(p), a, self.b, self.w, self._at(point), image, self._work)
        return self._vectors()[0, records.R]

    def diagonal(self, a: DeviceVector, point: Point) -> DeviceVector:
        D = self.empty()
        kernels.diagonal(a, self.b, self.w, self._at(point), D, self._work)
        return D

    def predictions(self, a: DeviceVector, point: Point) -> tuple[DeviceVector, DeviceVector]:
        f, v = self.empty(), self.empty()
        kernels.predictions(a, self._at(point), f, v, self._work)
        return f, v

    def weighed(self, D: DeviceVector, p: Vector) -> Vector:
        """A^T (D * A p)."""
        product = self.empty()
        self.products(p, product)
        kernels.weigh(product, D, self._work)
        return self.transposed(product)

    # -- the solver's iteration -------------------------------------------------------------------------------

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        *a, da = (self.empty() for _ in range(4))
        for each in a:
            kernels.fill(each, self._work, 0.0)
        return iteration.alloc_iterate.py_func(0, self.shape[1], False)._replace(a=a, da=da, plane_sums=np.empty((1, PLANE)))

    def assign(self, out: DeviceVector, a: DeviceVector) -> None:
        out.copy_to_device(a)

    def advance(self, *args: Any) -> int:
        """`fastrsx.kernels.newton.verdict.advance`, interpreted: between the few kernels that it launches it handles only scalars."""
        return int(self._advance(*args))

    def _point_into(self, point: np.ndarray) -> float:
        there = self._point()
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
