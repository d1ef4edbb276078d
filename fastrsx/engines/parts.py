"""An engine over parts: fold each part of A, merge the states in order, finish once."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastrsx.kernels.cpu import ahead, blocks, passes
from fastrsx.kernels.formulas.records import POINT_ROOM, STATE_ROOM
from fastrsx.kernels.layouts.panel import padded

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data, Loader
from ..planning import Plan
from ..system.memory import room_for
from .contract import Derivatives, Point
from .memory import EMPTY, Passes


class PartsPasses(Passes):
    """Passes over an A that lies in parts: each part is folded as if it were the whole, and sums over rows are sums over parts.

    The order of parts is fixed, so no bit depends on the number of threads. A subclass says what the parts are. n-vectors are whole, in memory.
    """

    def __init__(self, data: Data, b: Vector, w: Vector, plan: Plan, link: Any, first: Matrix) -> None:
        """`first` is an array like those of `parts`, and has as many rows as any of them."""
        super().__init__(data._replace(source=inputs.read_only(first)), b, w, plan, link)
        self.part = Passes(Data(first, inputs.read_only(first), Loader("in place")), b[: len(first)], w[: len(first)], plan, link)
        self._states: tuple[np.ndarray, ...] = ()  # of blocks, for `kernels.cpu.ahead`

    def parts(self) -> Iterator[tuple[slice, Matrix]]:
        """The rows of A in order, C-ordered: which, and an array that is valid until the next."""
        raise NotImplementedError

    def bounds(self) -> Iterator[slice]:
        """The rows of each part, by a read of A unless a subclass knows them."""
        return (which for which, _ in self.parts())

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

    @property
    def sample(self) -> ahead.Sample:
        """The rows that predict a step, drawn once: in the read of `column_scale`, or in one of their own."""
        if self._sample is None:
            for _ in self._sampled(self._parts()):
                pass
        assert self._sample is not None
        return self._sample

    def _sampled(self, parts: Iterable[tuple[slice, Passes]]) -> Iterator[tuple[slice, Passes]]:
        """The parts, from which the sample is drawn meanwhile."""
        numbers = ahead.sample_rows(self.shape[0])
        drawn = np.empty((len(numbers), self.shape[1]))
        for which, part in parts:
            first, last = np.searchsorted(numbers, (which.start, which.stop))
            drawn[first:last] = np.asarray(part.source)[numbers[first:last] - which.start]
            yield which, part
        self._sample = self._sample_of(numbers, drawn)

    def column_scale(self, names: Names = None) -> Vector:
        """Also, where steps take one read, the derivatives at x = 0, where a solve starts, and the sample: in the same read."""
        n, d = self.shape
        sums, scale = np.zeros((2, d)), np.empty(d)

        def measured(parts: Iterable[tuple[slice, Passes]]) -> Iterator[tuple[slice, Passes]]:
            for which, part in parts:
                squares, largest = part.column_sums()
                sums[0] += squares
                np.maximum(sums[1], largest, out=sums[1])
                yield which, part

        parts = measured(self._parts())
        if self.reads_once:
            zero = np.zeros(n)
            point = self.evaluate(zero)  # alpha and s there are known, so nothing is predicted
            trial = ahead.Trial(zero, self.b, self.w, np.empty(n), zero)
            _, error = self._look(np.zeros(d), trial, point.raw, self._sampled(parts))
            self._foreseen = point.identity, error
        else:
            for _ in parts:
                pass
        bad = passes.finish_columns(sums, n, inputs.LARGEST_ENTRY, scale)
        if bad >= 0:
            inputs.refuse_column(self.data.A, bad, names)
        return scale

    def _look(
        self, p: Vector, trial: ahead.Trial, predicted: Vector, parts: Iterable[tuple[slice, Passes]] | None = None
    ) -> tuple[Point | None, float]:
        """The same, in one read of the given parts or of all."""
        if not self._states:
            count, wide = len(self.part._work.sums), padded(self.shape[1])
            shapes = ((count, STATE_ROOM), (count, blocks.KINDS, wide), (count, wide, wide))
            with room_for(f"the Hessian for d = {self.shape[1]}", sum(map(math.prod, shapes))):
                self._states = tuple(map(np.zeros, shapes))
        link, (sums, vectors, gram) = self._work.link, self._states
        ahead.start_ahead(link, sums, vectors, gram)
        for which, part in self._parts() if parts is None else parts:
            scratch = part._scratch._replace(sums=sums, vectors=vectors)
            rows = ahead.Trial(trial.a[which], part.b, part.w, trial.da[which], trial.out[which])
            self.run(ahead.read_ahead, link, part.source, p, rows, predicted, scratch, gram)
        point = np.empty(POINT_ROOM)
        found, error = ahead.finish_ahead(link, predicted, self.w, sums, vectors, gram, point)
        return Point(point) if found else None, error

    def _grams_ahead(self) -> tuple[np.ndarray, np.ndarray]:
        _, vectors, gram = self._states
        return gram, vectors

    def hessian(self, a: Vector, point: Point) -> tuple[Derivatives, Matrix]:
        """Derivatives and Hessian."""
        firsts = []
        hess = np.zeros((self.shape[1],) * 2)
        for which, part in self._parts():
            first, gram = part.gram_at(a[which], point)
            firsts.append(first)
            hess += gram
        first = _sum(firsts)
        return first, hess - first.rank_2()


def _sum(parts: Iterable[Derivatives]) -> Derivatives:
    grads, vs, qs = zip(*parts, strict=True)
    return Derivatives(np.sum(grads, axis=0), np.sum(vs, axis=0), np.sum(qs, axis=0))
