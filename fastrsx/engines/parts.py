"""An engine over parts: fold each part of A, merge the states in order, finish once."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from fastrsx.kernels.cpu import ahead, blocks, passes
from fastrsx.kernels.cpu import rows as folds
from fastrsx.kernels.formulas.records import STATE_ROOM
from fastrsx.kernels.layouts.panel import ROWS, padded

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data, Loader
from ..planning import Plan
from ..system.memory import room_for
from .contract import Derivatives, Point
from .memory import EMPTY, Passes

ONE_PASS_UP_TO = 128  # columns; beyond, three Gram matrices take longer than another read: estimated from the disk and dgemm, not measured


class PartsPasses(Passes):
    """Passes over an A that lies in parts: each part is folded as if it were the whole, and sums over rows are sums over parts.

    The order of parts is fixed, so no bit depends on the number of threads. A subclass says what the parts are. n-vectors are whole, in memory.
    """

    def __init__(self, data: Data, b: Vector, w: Vector, plan: Plan, link: Any, first: Matrix) -> None:
        """`first` is an array like those of `parts`, and has as many rows as any of them."""
        super().__init__(data._replace(source=inputs.read_only(first)), b, w, plan, link)
        self.part = Passes(Data(first, inputs.read_only(first), Loader("in place")), b[: len(first)], w[: len(first)], plan, link)
        self._ahead: tuple[np.ndarray, ...] | None = None  # the states of `kernels.cpu.ahead`
        self._ahead_of: tuple[float, ...] | None = None  # the point that they are at
        self._has_penalty = False  # whether they have A^T diag(w^2) A, which is summed once

    def parts(self) -> Iterator[tuple[slice, Matrix]]:
        """The rows of A in order, C-ordered: which, and an array that is valid until the next."""
        raise NotImplementedError

    @property
    def is_plain(self) -> bool:
        return False

    def _alloc(self, n: int, d: int, link: Any) -> blocks.Workspace:
        return blocks.alloc_sparse_workspace.py_func(n, d, link)  # without panels: those are in the workspace of a part

    def workspace(self, hessian: bool = True) -> blocks.Workspace:
        """Without Gram matrices: those are in the workspace of a part."""
        return self._work

    def _parts(self) -> Iterator[tuple[slice, Passes]]:
        """The passes of each part, in one read of A."""
        self.count += 1
        part = self.part
        for which, rows in self.parts():
            part.source, part.b, part.w = inputs.read_only(rows), self.b[which], self.w[which] if self.w.size else self.w
            part.shape = rows.shape
            yield which, part

    def products(self, x: Vector, out: Vector) -> None:
        for which, part in self._parts():
            part.products(x, out[which])

    def transposed(self, y: Vector) -> Vector:
        return np.asarray(sum(part.transposed(y[which]) for which, part in self._parts()))

    def project(self, x: Vector) -> Point:
        self.products(x, self.a)
        return self.evaluate(self.a)

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        """Two reads: the weights of one read cost more arithmetic, and only a Newton step repays it."""
        point = self.project(x)
        return point, self.gradient(self.a, point) if point.fun < np.inf else None

    def gradient(self, a: Vector, point: Point) -> Derivatives:
        return _sum(part.gradient(a[which], point) for which, part in self._parts())

    def curvature(self, a: Vector, point: Point, p: Vector, da: Vector = EMPTY) -> Vector:
        return np.asarray(sum(part.curvature(a[which], point, p, da[which] if da.size else da) for which, part in self._parts()))

    def weighted_gram(self, h: Vector) -> Matrix:
        return np.asarray(sum(part.weighted_gram(h[which]) for which, part in self._parts()))

    def row_squares(self, B: Matrix) -> Vector:
        return np.concatenate([part.row_squares(B) for _, part in self._parts()])

    def column_scale(self, names: Names = None) -> Vector:
        """Also, for few columns, the derivatives at x = 0, where a solve starts: in the same read."""
        n, d = self.shape
        sums, scale = np.zeros((2, d)), np.empty(d)
        zero = np.zeros(n if d <= ONE_PASS_UP_TO else 0)

        def measure(part: Passes) -> None:
            squares, largest = part.column_sums()
            sums[0] += squares
            np.maximum(sums[1], largest, out=sums[1])

        if zero.size:
            self.look_ahead(zero, np.zeros(d), np.empty(n), zero, measure)
        else:
            for _, part in self._parts():
                measure(part)
        bad = passes.finish_columns(sums, n, inputs.LARGEST_ENTRY, scale)
        if bad >= 0:
            inputs.refuse_column(self.data.A, bad, names)
        return scale

    def look_ahead(self, a: Vector, p: Vector, da: Vector, out: Vector, also: Callable[[Passes], None] | None = None) -> Point:
        """da = A p, out = a + da and the point there; and the sums that `hessian` needs there, in the same read, for few columns."""
        d = self.shape[1]
        if d > ONE_PASS_UP_TO:
            self.products(p, da)
            return self.evaluate(a, da, 1.0, out)
        sums, weights, vectors, grams = self._states()
        link = self._work.link
        matrices = 3 if self._has_penalty or not self.w.size else 4
        ahead.start_ahead(link, sums, vectors, grams[:, :matrices])
        for which, part in self._parts():
            scratch = ahead.Ahead(sums, vectors, grams[:, :matrices], part._work.buffers, part._work.packed, weights)
            self.run(ahead.look_ahead, link, part.source, p, a[which], part.b, part.w, da[which], out[which], scratch)
            if also is not None:
                also(part)
        self._has_penalty = True
        point = self.evaluate(a, da, 1.0, out)
        self._ahead_of = point.identity
        return point

    def _states(self) -> tuple[np.ndarray, ...]:
        if self._ahead is None:
            count, wide = len(self.part._work.sums), padded(self.shape[1])
            shapes = ((count, ahead.WEIGHTS, ROWS), (count, blocks.KINDS, wide), (count, 4, wide, wide))
            with room_for(f"the Hessian for d = {self.shape[1]}", sum(map(math.prod, shapes))):
                self._ahead = np.zeros((count, STATE_ROOM)), *(np.zeros(shape) for shape in shapes)
        return self._ahead

    def hessian(self, a: Vector, point: Point) -> tuple[Derivatives, Matrix]:
        """Takes no read where `look_ahead` was at this point; but near an exact fit the gradient takes one, from c = f - b."""
        hess = np.empty((self.shape[1],) * 2)
        if self._ahead_of == point.identity:
            sums, _, vectors, grams = self._states()
            self._ahead_of = None  # finishing is done in place
            self.run(ahead.finish_ahead, sums, point.raw, vectors, grams, hess)
            cancels = folds.cancels(point.raw, vectors)
            return self.gradient(a, point) if cancels else self.derivatives_in(vectors), hess
        firsts = []
        hess[:] = 0.0
        for which, part in self._parts():
            first, gram = part.gram_at(a[which], point)
            firsts.append(first)
            hess += gram
        first = _sum(firsts)
        return first, hess - first.rank_2()


def _sum(parts: Iterable[Derivatives]) -> Derivatives:
    grads, vs, qs = zip(*parts, strict=True)
    return Derivatives(np.sum(grads, axis=0), np.sum(vs, axis=0), np.sum(qs, axis=0))
