"""The kernels for the CPU, bound to one problem's data and workspace."""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fastrsx.kernels import dense
from fastrsx.kernels.cpu import ahead, blocks, mixed, passes, rows, sample
from fastrsx.kernels.formulas import records
from fastrsx.kernels.formulas.links import RSX
from fastrsx.kernels.layouts import csr
from fastrsx.kernels.layouts.panel import ROWS, padded
from fastrsx.kernels.newton import iteration, verdict
from fastrsx.kernels.registers.gram import packed_blocks
from fastrsx.kernels.registers.simd import LANES

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data, Loader, as_rows, load
from ..planning import Plan, Size, choose, gram_is_sparse, is_whole, reads_once
from ..system import threads
from ..system.memory import room_for
from .contract import Derivatives, Foreseen, Point

EMPTY = np.empty(0)
workspace_size = lru_cache(maxsize=256)(blocks.workspace_size)  # which takes as long as to allocate that of a small problem
CHUNK = 4096  # rows drawn whose Gram matrix is formed at a time
QUIET = np.errstate(all="ignore")  # for NumPy beside kernels: these do not warn, and overflow is checked where it matters


class Passes:
    """The kernels, bound to one (A, b, w), a workspace and a plan; counts the passes over A and the losses.

    Arguments are as the kernels take them. One thread at a time.
    """

    _sample: ahead.Sample | None = None
    _foreseen: tuple[tuple[float, ...], float] = (), math.inf  # the point whose derivatives were formed ahead, and the error of that Hessian

    def __init__(self, data: Data, b: Vector, w: Vector, plan: Plan, link: Any = RSX) -> None:
        self.data, self.source, self.b, self.w = data, data.source, inputs.read_only(b), inputs.read_only(w)
        self.shape, self.plan = data.shape, plan
        self.count = self.evaluations = 0
        self.has_sparse_gram = gram_is_sparse(data)
        self._sorting: tuple[np.ndarray, ...] = ()  # room for the parts of a sparse Gram matrix
        self.is_mixed = False  # whether panels' Gram matrices are summed in float32, see `use_mixed`
        n, d = self.shape
        with room_for(f"the workspace for {n} x {d}", workspace_size(n, d, not self.has_sparse_gram)):
            self._work = self._alloc(n, d, link)

    def _alloc(self, n: int, d: int, link: Any) -> blocks.Workspace:
        """As Python: compiling it would cost more than it saves."""
        if self.has_sparse_gram:
            return blocks.alloc_sparse_workspace.py_func(n, d, link)
        return blocks.alloc_workspace.py_func(n, d, False, link)

    @property
    def is_plain(self) -> bool:
        """Whether A is the C-ordered float64 that whole iterations are compiled for; for other layouts only passes are."""
        return isinstance(self.source, np.ndarray) and self.source.dtype == np.float64 and not self.is_mixed

    @property
    def a(self) -> Vector:
        """Room for A x."""
        return self._work.a

    def run(self, kernel: Any, *args: Any) -> Any:
        """Call a kernel, or its serial twin where the plan says so."""
        return kernel.twin(*args) if self.plan.kernel == "serial" else threads.launch(kernel, kernel.twin, *args)

    @property
    def _scratch(self) -> blocks.Scratch:
        """The part of the workspace that blocks share."""
        return blocks.scratch_of.py_func(self._work)  # compiling it would cost more than it saves

    def workspace(self, hessian: bool = True) -> blocks.Workspace:
        """The workspace, with Gram matrices, allocated on the first call, unless `hessian` is False."""
        if hessian and self._work.gram.size == 0:
            count, _, wide = self._work.vectors.shape
            shape = (wide, wide) if wide > rows.BY_STRIPS or self.has_sparse_gram else (count, wide, wide)
            parts = blocks.part_count(count, self.shape[1], self.plan.threads) if len(shape) == 3 and not self.has_sparse_gram else 1
            others = (parts - 1) * blocks.part_size(count, self.shape[1]) if parts > 1 else 0
            packed = self._work.packed.shape
            if packed[1] == 0 and not self.has_sparse_gram:
                packed = (count, packed_blocks.py_func(wide), ROWS, LANES)
                others += math.prod(packed)
            with room_for(f"the Hessian for d = {self.shape[1]}", math.prod(shape) + others):
                work = self._work if packed == self._work.packed.shape else self._work._replace(packed=np.empty(packed))
                self._work = blocks.shared(work, parts)._replace(gram=np.empty(shape))
        return self._work

    # -- n-vectors, which `CudaPasses` has on a GPU ---------------------------------------------------------

    def empty(self) -> Vector:
        """Room for n numbers."""
        return np.empty(self.shape[0])

    def scratch(self) -> Vector:
        """The same, for as long as the engine lives."""
        return self.empty()

    def constant(self, x: float) -> Vector:
        """n times x."""
        return np.full(self.shape[0], x)

    def to_host(self, vector: Vector) -> Vector:
        """An n-vector in memory."""
        return vector

    def to_caller(self, vector: Vector) -> Vector:
        """An n-vector on the side where the caller has A."""
        return vector

    @property
    def norm_b(self) -> float:
        return math.sqrt(np.add.reduce(np.square(self.b)))  # not by BLAS: its workers would keep spinning

    @property
    def sum_b(self) -> float:
        return float(np.add.reduce(self.b))

    def largest(self, a: Vector) -> float:
        """max |a|; NaN where a has one."""
        return float(np.maximum.reduce(np.abs(a)))

    def distance(self, a: Vector, other: Vector, centred: bool) -> float:
        """max |a - other|; centred, after the mean is subtracted."""
        change = a - other
        return float(np.abs(change - change.mean() if centred else change).max())

    def combine(self, y: Vector, vectors: list[Vector], out: Vector) -> None:
        """out = sum_k y_k vectors_k; the vectors are overwritten."""
        out[:] = 0.0
        for coefficient, vector in zip(y, vectors, strict=True):
            vector *= coefficient  # in place: a temporary would cost more
            out += vector

    def assign(self, out: Vector, a: Vector) -> None:
        """out = a."""
        out[:] = a

    # -- the solver's iteration -------------------------------------------------------------------------------

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        """See `fastrsx.kernels.newton.iteration`; with room for a Hessian where iterations form it."""
        n, d = self.shape
        with room_for(f"the iterate for {n} x {d}", 4 * n + (2 * d * d if exact else 0)):
            return iteration.alloc_iterate.py_func(n, d, exact)

    def advance(self, *args: Any) -> int:
        """`fastrsx.kernels.newton.verdict.advance`."""
        return int(self.run(verdict.advance, *args))

    # -- passes -----------------------------------------------------------------------------------------------

    def products(self, x: Vector, out: Vector) -> None:
        """out = A x."""
        self.count += 1
        self.run(passes.products, self.source, x, out, self._work.buffers)

    def transposed(self, y: Vector) -> Vector:
        """A^T y."""
        self.count += 1
        out = np.empty(self.shape[1])
        self.run(passes.transposed, self.source, y, out, self._work.buffers, self._work.weights, self._work.vectors)
        return out

    def column_scale(self, names: Names = None) -> Vector:
        """The RMS of each column; refuses NaN, inf and entries beyond 1e150."""
        self.count += 1
        scale = np.empty(self.shape[1])
        bad = self.run(passes.columns, self.source, inputs.LARGEST_ENTRY, scale, self._work.buffers, self._work.vectors)
        if bad >= 0:
            inputs.refuse_column(self.data.A, bad, names)
        return scale

    def column_sums(self) -> tuple[Vector, Vector]:
        """The sum of squares and the largest absolute value of each column."""
        self.count += 1
        work, d = self._work, self.shape[1]
        self.run(passes.columns, self.source, inputs.LARGEST_ENTRY, np.empty(d), work.buffers, work.vectors)
        squares, largest = work.vectors[0, :2, :d].copy()
        return squares, largest

    def evaluate(self, a: Vector, da: Vector = EMPTY, t: float = 0.0, out: Vector | None = None) -> Point:
        """The point at a, or at out = a + t da."""
        self.evaluations += 1
        point = np.empty(records.POINT_ROOM)
        self.run(passes.evaluate, self._work.link, a, da, t, self.b, self.w, a if out is None else out, self._work.sums, point)
        return Point(point)

    @property
    def reads_once(self) -> bool:
        """Whether a step takes one read of A."""
        return reads_once(self.shape, self.plan.loader) and not self.is_mixed and not self.has_sparse_gram

    @property
    def sample(self) -> ahead.Sample:
        """The rows that predict a step, drawn once."""
        if self._sample is None:
            rows = ahead.sample_rows(self.shape[0])
            self._sample = self._sample_of(rows, as_rows(self.data.A, rows))
        return self._sample

    def _sample_of(self, numbers: np.ndarray, A: Matrix) -> ahead.Sample:
        return ahead.Sample(numbers, np.ascontiguousarray(A.T, dtype=np.float64), self.b[numbers], np.empty(len(numbers)))

    def look_ahead(self, a: Vector, p: Vector, da: Vector, out: Vector) -> Point:
        """da = A p, out = a + da, and the point there: what a step needs."""
        self.products(p, da)
        return self.evaluate(a, da, 1.0, out)

    def foresee(self, a: Vector, here: Point, first: Derivatives, p: Vector, da: Vector, out: Vector) -> tuple[Point, float]:
        """The same and the derivatives there, in one read, by a prediction from the point and the derivatives at a; the error of the Hessian."""
        predicted = np.empty(records.POINT_ROOM)
        ahead.predict(self._work.link, here.raw, first.v, first.q, p, a, self.sample, predicted)
        point, error = self._look(p, ahead.Trial(a, self.b, self.w, da, out), predicted)
        self.evaluations += point is not None
        there = self.evaluate(a, da, 1.0, out) if point is None else point
        self._foreseen = there.identity, error
        return there, error

    def _look(self, p: Vector, trial: ahead.Trial, predicted: Vector) -> tuple[Point | None, float]:
        """The point by a prediction, if that was good enough, and the error of the Hessian there; the sums stay where `_grams_ahead` says."""
        self.count += 1
        work, point = self.workspace(), np.empty(records.POINT_ROOM)
        found, error = self.run(ahead.look_ahead, work.link, self.source, p, trial, predicted, self._scratch, work.gram, point)
        return Point(point) if found else None, error

    def foreseen(self, point: Point) -> Foreseen | None:
        """The derivatives that `foresee` has formed at this point, once; None where it has not, or not well enough."""
        (identity, error), self._foreseen = self._foreseen, ((), math.inf)
        if identity != point.identity or not error < math.inf:
            return None
        gram, vectors = self._grams_ahead()
        hess = np.empty((self.shape[1],) * 2)
        self.run(passes.finish_hessian, gram, vectors, hess)
        return Foreseen(self.derivatives_in(vectors), hess, error)

    def _grams_ahead(self) -> tuple[np.ndarray, np.ndarray]:
        """Where a look ahead leaves the Gram matrices of blocks, and the sums A^T y."""
        return self._work.gram, self._work.vectors

    def point_of(self, raw: np.ndarray) -> Point:
        """The point of its numbers."""
        return Point(raw)

    def project(self, x: Vector) -> Point:
        """The point at x, whose A x goes to `a`."""
        self.count += 1
        self.evaluations += 1
        work = self._work
        self.run(passes.project, self._work.link, self.source, x, self.b, self.w, work.a, work.sums, work.point, work.buffers)
        return Point(work.point.copy())

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        """The same, with the gradient, or None outside the domain: one pass, or two near an exact fit."""
        self.count += 1
        self.evaluations += 1
        work = self._work
        given = (work.link, self.source, x, self.b, self.w)
        self.run(passes.project_grad, *given, work.a, work.point, self._scratch)
        point = Point(work.point.copy())
        if not point.fun < np.inf:
            return point, None
        return point, self.gradient(work.a, point) if rows.cancels(point.raw, work.vectors) else self.derivatives_in(work.vectors)

    def derivatives_in(self, vectors: np.ndarray) -> Derivatives:
        """The derivatives that the kernels leave in vectors[0]."""
        V, Q, R = records.V, records.Q, records.R
        v, q, grad = vectors[0, [V, Q, R], : self.shape[1]]
        return Derivatives(grad, v, q)

    def gradient(self, a: Vector, point: Point) -> Derivatives:
        """Gradient and rank-2 vectors."""
        work = self._work
        self.count += 1
        self.run(passes.gradient, self._work.link, self.source, a, self.b, self.w, point.raw, self._scratch)
        return self.derivatives_in(work.vectors)

    def hessian(self, a: Vector, point: Point) -> tuple[Derivatives, Matrix]:
        """The same and the Hessian."""
        first = self._differentiate(a, point)
        return first, self._finished()

    def gram_at(self, a: Vector, point: Point) -> tuple[Derivatives, Matrix]:
        """The same, but only the Gram matrix of the Hessian."""
        first = self._differentiate(a, point)
        self._work.vectors[0] = 0.0
        return first, self._finished()

    def _differentiate(self, a: Vector, point: Point) -> Derivatives:
        """Gradient and rank-2 vectors; the Gram matrix stays in the workspace."""
        work = self.workspace()
        if self.has_sparse_gram or self.is_mixed:
            first, h = self.gradient(a, point), 2 * self.diagonal(a, point)
            (self._sparse_gram if self.has_sparse_gram else self._mixed_gram)(h)
            return first
        self.count += 1
        given = (work.link, self.source, a, self.b, self.w, point.raw)
        self.run(passes.derivatives, *given, work.gram, self._scratch)
        return self.derivatives_in(work.vectors)

    def _finished(self) -> Matrix:
        """The Hessian, from the Gram matrix and the vectors in the workspace."""
        hess = np.empty((self.shape[1],) * 2)
        self.run(passes.finish_hessian, self._work.gram, self._work.vectors, hess)
        return hess

    def _sparse_gram(self, h: Vector) -> None:
        """A^T diag(h) A into the workspace."""
        self.count += 1
        if not self._sorting:
            shape = (csr.SLOTS, csr.PART + self.shape[1])
            self._sorting = np.empty((csr.SLOTS, self.shape[1]), np.int64), np.empty(shape, np.uint64), np.empty(shape, np.uint64)
        self.run(csr.sparse_gram, self.source, inputs.read_only(h), self.data.gram_bounds, *self._sorting, self.workspace().gram)

    def use_mixed(self) -> None:
        """Form Hessians in mixed precision from now on: panels of float32, see `fastrsx.kernels.cpu.mixed`."""
        count, wide = len(self._work.vectors), padded(self.shape[1])
        if self.shape[1] > rows.BY_STRIPS or not is_whole(self.data.loader.name):
            raise ValueError(f"precision is 'mixed', which is for dense A in memory, of at most {rows.BY_STRIPS} columns; pass precision='double'")
        panels = (count, mixed.wide_padded(self.shape[1]) // mixed.WIDE, ROWS, mixed.WIDE)
        with room_for("mixed precision", math.prod(panels)):
            self._mixed_buffers = np.empty((count, 2, ROWS)), np.empty((count, mixed.SCALES, wide)), np.empty(panels, np.float32)
        self.is_mixed = True

    def _mixed_gram(self, h: Vector) -> None:
        """A^T diag(h) A into the workspace, in mixed precision."""
        self.count += 1
        work = self.workspace()
        self.run(passes.gram_by_blocks_mixed, self.source, inputs.read_only(h), work.gram, work.buffers, *self._mixed_buffers)

    def hess_vec(self, a: Vector, point: Point, first: Derivatives, p: Vector, da: Vector = EMPTY) -> Vector:
        """Hess p, from the derivatives that `gradient` returned; and da = A p unless da is empty."""
        sums, out = self.curvature(a, point, p, da), np.empty(self.shape[1])
        rows.finish_hess_vec(first.v, first.q, sums, p, out)
        return out

    def curvature(self, a: Vector, point: Point, p: Vector, da: Vector) -> Vector:
        """A^T (h * A p), and da = A p unless da is empty."""
        work = self._work
        self.count += 1
        self.run(passes.curvature, work.link, self.source, p, a, self.b, self.w, point.raw, da, self._scratch)
        return work.vectors[0, records.R, : self.shape[1]].copy()

    def weighted_gram(self, h: Vector) -> Matrix:
        """A^T diag(h) A."""
        if self.has_sparse_gram:
            self._sparse_gram(h)
            self._work.vectors[0] = 0.0
            return self._finished()
        self.count += 1
        out = np.empty((self.shape[1],) * 2)
        self.run(dense.weighted_gram, self.source, h, out, self.workspace())
        return out

    def gram(self) -> Matrix:
        """A^T A."""
        return self.weighted_gram(np.ones(self.shape[0]))

    def row_squares(self, B: Matrix) -> Vector:
        """||A_i B||^2 for each row, B (padded d x 8)."""
        self.count += 1
        out = np.empty(self.shape[0])
        self.run(sample.scores, self.source, B, out, self._work.buffers)
        return out

    def drawing(self, size: int) -> "DrawnRows":
        """Room for about that many rows of A, to stand for all."""
        return DrawnRows(self, size)

    def row_weights(self, a: Vector, point: Point) -> Vector:
        """h."""
        return 2 * self.diagonal(a, point)

    def diagonal(self, a: Vector, point: Point) -> Vector:
        """D."""
        D = np.empty(len(a))
        self.run(passes.diagonal, self._work.link, a, self.b, self.w, point.raw, D, self._work.weights)
        return D

    def predictions(self, a: Vector, point: Point) -> tuple[Vector, Vector]:
        """f and v/alpha."""
        f, v = np.empty(len(a)), np.empty(len(a))
        self.run(passes.predictions, self._work.link, a, point.raw, f, v, self._work.sums)
        return f, v


class DrawnRows:
    """Rows drawn to stand for all, and their Gram matrix; `CHUNK` of them at a time are copied."""

    def __init__(self, passes: Passes, size: int) -> None:
        self.passes, self.size = passes, size
        self.rows, self.weights = np.empty(size + 1, dtype=np.int64), np.empty(size + 1)
        chunk, d = min(size + 1, CHUNK), passes.shape[1]
        self.panel, self.panel_weights = np.zeros((chunk, d)), np.empty(chunk)
        plan = choose(Size(chunk, d), Loader("in place"), passes.plan.kernel, passes.plan.threads)
        self.panel_passes = Passes(load(self.panel), self.panel_weights, EMPTY, plan)

    def gram_of(self, rows: np.ndarray, weight: float) -> Matrix:
        """weight A^T A of the rows with these numbers."""
        self.rows[: len(rows)], self.weights[: len(rows)] = rows, weight
        return self._gram(len(rows))

    def gram(self, h: Vector, scores: Vector, offset: float) -> Matrix:
        """An unbiased estimate of A^T diag(h) A."""
        return self._gram(sample.draw(h, scores, self.size, offset, self.rows, self.weights))

    def _gram(self, count: int) -> Matrix:
        """A^T diag(weights) A over the first rows drawn."""
        chunk, grams = len(self.panel), []
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            self._take(self.rows[start:stop], self.panel[: stop - start])
            self.panel_weights[:] = 0.0
            self.panel_weights[: stop - start] = self.weights[start:stop]
            grams.append(self.panel_passes.weighted_gram(self.panel_weights))
        return np.asarray(sum(grams)) if grams else np.zeros((self.panel.shape[1],) * 2)

    def _take(self, rows: np.ndarray, out: Matrix) -> None:
        A = self.passes.data.A
        if self.passes.is_plain:
            np.take(A, rows, axis=0, out=out, mode="clip")
        else:
            out[:] = as_rows(A, rows)
