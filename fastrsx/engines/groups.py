"""Many softmaxes over one x: an engine over an A in memory or on disk whose rows are in groups, in each of which u is normalised."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from fastrsx.kernels.cpu import passes as whole_passes
from fastrsx.kernels.cpu.rows import BY_STRIPS, NEAR_FIT
from fastrsx.kernels.formulas import records
from fastrsx.kernels.groups import passes, units
from fastrsx.kernels.groups.rows import Rows
from fastrsx.kernels.layouts.csr import Csr
from fastrsx.kernels.layouts.panel import ROWS, padded
from fastrsx.kernels.newton import iteration
from fastrsx.kernels.newton import passes as newton_passes

from .. import inputs
from ..grouping import sums_in_groups
from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan
from ..system.memory import room_for
from .contract import LARGEST_LOG, Point, cancellation
from .interpreted import advance_of
from .memory import EMPTY, Passes

CANCELLED = 1e-5  # of the sum of |h|, which is about the size of the Hessian's terms in columns of unit RMS: one below that is compared to them

_FIELD = {name: i for i, name in enumerate(units.Group._fields)}


def in_domain(groups: Matrix) -> Matrix:
    """The numbers of groups, those outside the domain with an alpha of NaN: f is then NaN in their rows."""
    alpha = groups[:, _FIELD["alpha"]]
    if (alpha > 0).all():
        return groups
    groups = groups.copy()
    groups[~(alpha > 0), _FIELD["alpha"]] = np.nan
    return groups


class GroupedPoint(Point):
    """A point with the numbers of each group behind those of all rows."""

    __slots__ = ()

    @property
    def groups(self) -> Matrix:
        """Groups x the numbers of a Group."""
        return self.raw[records.POINT_ROOM :].reshape(-1, units.GROUP_ROOM)

    @property
    def log_alpha(self) -> Vector:  # type: ignore[override]
        """log <u, 1> of each group; NaN outside the domain."""
        alpha = self.groups[:, _FIELD["alpha"]]
        return np.asarray(np.log(np.where(alpha > 0, alpha, np.nan)) + self.groups[:, _FIELD["shift"]])

    @property
    def alpha(self) -> Vector:  # type: ignore[override]
        """<u, 1> of each group, which may be inf."""
        log_alpha = self.log_alpha
        return np.where(log_alpha > LARGEST_LOG, np.inf, np.exp(np.minimum(log_alpha, LARGEST_LOG)))

    @property
    def nearest_pole(self) -> int:
        """The group of which alpha cancels most."""
        return int(np.argmax(self.groups[:, _FIELD["kappa"]]))


class GroupedDerivatives:
    """The methods of `Derivatives` where every group has rank-2 vectors; their sum is formed when it is first asked for."""

    def __init__(self, engine: Any, a: Any, point: Any, grad: Vector, curvature: float = math.inf) -> None:
        self.engine, self.a, self.point, self.grad = engine, a, point, grad
        self.curvature = curvature  # the sum of |h|
        self.subtracted: Matrix | None = None

    def rank_2(self, scale: Vector | float = 1.0) -> Matrix:
        if self.subtracted is None:
            self.subtracted = self.engine.rank_2(self.a, self.point)
        return np.asarray(self.subtracted / scale / np.reshape(scale, (-1, 1)))

    def log_alpha_slope(self, p: Vector) -> float:
        """0: `evaluate` finds groups that cross their poles."""
        return 0.0

    def saturation(self, H: Matrix, scale: Vector) -> float:
        if self.subtracted is None and np.linalg.norm(H) > CANCELLED * self.curvature:
            return 1.0  # without another read of A
        return cancellation(H, self.rank_2(scale))

    def cancellation(self, image: Vector, p: Vector, da: Vector, scale: Vector) -> float:
        if self.subtracted is not None:
            return cancellation(image, self.rank_2(scale) @ p)
        weighted = self.engine.weigh_step(self.a, self.point, da) / scale
        return cancellation(image, weighted - image)


class GroupedPasses(Passes):
    """The kernels of `fastrsx.kernels.groups`, in the place of those that need alpha; rows of a group lie together."""

    def __init__(self, data: Data, b: Vector, w: Vector, plan: Plan, link: Any, offsets: np.ndarray, m: Vector, omega: Vector) -> None:
        super().__init__(data, b, w, plan, link)
        n, d = self.shape
        self.link, self.offsets = link, offsets
        self.rows = Rows(*map(inputs.read_only, (b, w, m, omega)))
        blocks = len(self._work.vectors)
        cuts = np.array([which.stop for which in self._bounds()])
        self.units = units.make_units(offsets, d, blocks, cuts)
        self.edges = [self.units.edges[blocks * k : blocks * (k + 1) + 1] for k in range(len(cuts))]
        pieces = int(self.units.large_pieces[-1])
        room = units.rows_of_unit.py_func(d)
        with room_for(f"the workspace for {n} x {d} in groups", blocks * (units.FIELDS * room + 4 * ROWS * padded.py_func(d)) + pieces * 4 * d):
            self.room = passes.alloc_room(d, blocks, pieces)
        self._work = self._work._replace(point=np.zeros(units.point_room(self.units)))
        self._gram = self._no_gram = np.empty((0, 0, 0))
        self._advance = advance_of(self)

    def _bounds(self) -> list[slice]:
        """The rows of each part of A."""
        return [slice(0, self.shape[0])]

    def _read(self) -> Iterator[tuple[Any, int, np.ndarray]]:
        """The parts of A in one read: what kernels read, its first row and its blocks."""
        self.count += 1
        yield self.source, 0, self.edges[0]

    @property
    def is_plain(self) -> bool:
        return False

    @property
    def reads_once(self) -> bool:
        return False

    @property
    def norm_b(self) -> float:
        """||b|| with the weights of residuals."""
        with np.errstate(over="ignore"):  # the loss then shows it
            weighted = np.square(self.b) * self.rows.omega if self.rows.omega.size else np.square(self.b)
        return float(np.sqrt(np.add.reduce(weighted)))

    def distance(self, a: Vector, other: Vector, centred: bool) -> float:
        """max |a - other|; centred, after the mean of each group is subtracted."""
        change = a - other
        if centred:
            sizes = np.diff(self.offsets)
            change -= np.repeat(np.add.reduceat(change, self.offsets[:-1]) / sizes, sizes)
        return float(np.abs(change).max())

    def sums_of_b(self) -> Vector:
        """<b, 1> of each group; NaN where a row of it, which counts in alpha, is not compared with its b."""
        sums, (_, _, m, omega) = np.add.reduceat(self.b, self.offsets[:-1]), self.rows
        if omega.size:
            left_out = (omega == 0) & (m > 0) if m.size else omega == 0
            sums[np.logical_or.reduceat(left_out, self.offsets[:-1])] = np.nan
        return sums

    def live_rows(self) -> Vector:
        """The rows of each group that are not masked."""
        return np.add.reduceat(self.rows.m > 0, self.offsets[:-1], dtype=int) if self.rows.m.size else np.diff(self.offsets)

    # -- the point --------------------------------------------------------------------------------------------

    def point_of(self, raw: np.ndarray) -> Point:
        return GroupedPoint(raw)

    def _new_point(self) -> tuple[Vector, Matrix]:
        """Room for the numbers of a point, and the part of it that groups have."""
        raw = np.zeros(units.point_room(self.units))
        return raw, raw[records.POINT_ROOM :].reshape(-1, units.GROUP_ROOM)

    def evaluate(self, a: Vector, da: Vector = EMPTY, t: float = 0.0, out: Vector | None = None) -> Point:
        out = a if out is None else out
        raw, groups = self._new_point()
        passes.start_points(self.link, self.room)
        for edges in self.edges:
            self.run(passes.fold_points, self.link, a, da, t, out, self.rows, self.units, edges, self.room, groups)
        return self._completed(a, da, t, out, raw, groups)

    def _completed(self, a: Vector, da: Vector, t: float, out: Vector, raw: Vector, groups: Matrix) -> GroupedPoint:
        """The point at out = a + t da, from the numbers of groups and pieces."""
        self.evaluations += 1
        if len(self.room.pieces):
            passes.join_points(self.units, self.room, groups)
            for edges in self.edges:
                self.run(passes.fold_pieces, self.link, out, self.rows, self.units, edges, self.room)
        rising = passes.finish_points(self.units, self.room, groups, raw)
        if rising and da.size and passes.crosses(self.link, a, da, t, self.rows, self.units, groups):
            records.as_point(raw).fun = np.inf
        return GroupedPoint(raw)

    def project(self, x: Vector) -> Point:
        self.products(x, self.a)
        return self.evaluate(self.a)

    def project_grad(self, x: Vector) -> tuple[Point, Any]:
        raw, groups = self._new_point()
        passes.start_points(self.link, self.room)
        passes.start_sums(self.room)
        for source, origin, edges in self._read():
            self.run(passes.fold_projection, self.link, source, origin, x, self.a, self.rows, self.units, edges, self.room, groups)
        point = self._completed(self.a, EMPTY, 0.0, self.a, raw, groups)
        if not point.fun < np.inf:
            return point, None
        if len(self.room.pieces) and point.at.squares <= NEAR_FIT**2 * point.at.ff:  # their sums cancel there
            return point, self.gradient(self.a, point)
        grad = np.empty(self.shape[1])
        passes.finish_gradient(self.units, self.room, groups, grad)
        return point, GroupedDerivatives(self, self.a, point, grad)

    # -- derivatives ------------------------------------------------------------------------------------------

    def _fold(self, a: Vector, point: Any, gram: np.ndarray, with_gram: bool) -> GroupedDerivatives:
        """First derivatives, and Gram matrices of blocks in `gram`."""
        passes.start_sums(self.room)
        gram[:] = 0.0
        for source, origin, edges in self._read():
            edges = edges if len(gram) != 1 else edges[[0, -1]]
            self.run(passes.fold_derivatives, self.link, source, origin, a, self.rows, self.units, edges, self.room, point.groups, gram, with_gram)
        grad = np.empty(self.shape[1])
        curvature = passes.finish_derivatives(self.units, self.room, gram, grad)
        return GroupedDerivatives(self, a, point, grad, curvature)

    def _total(self, gram: np.ndarray) -> Matrix:
        """The sum of the blocks' Gram matrices."""
        total = np.empty((self.shape[1],) * 2)
        self.run(whole_passes.finish_hessian, gram, self.room.vectors, total)  # where the sums V and Q of groups are 0 by now
        return total

    def _room_for_gram(self) -> np.ndarray:
        """Gram matrices of blocks; of many columns, of one block that has all rows."""
        if self._gram.size == 0:
            wide = padded.py_func(self.shape[1])
            shape = (1 if wide > BY_STRIPS else len(self.room.vectors), wide, wide)
            with room_for(f"the Hessian for d = {self.shape[1]}", shape[0] * wide * wide):
                self._gram = np.empty(shape)
        return self._gram

    def gradient(self, a: Vector, point: Any) -> Any:
        return self._fold(a, point, self._no_gram, False)

    def rank_2(self, a: Vector, point: Any) -> Matrix:
        """A^T diag(h) A minus the Hessian."""
        gram = self._room_for_gram()
        self._fold(a, point, gram, False)
        return -self._total(gram)

    def hessian(self, a: Vector, point: Any) -> tuple[Any, Matrix]:
        gram = self._room_for_gram()
        together = not (self.is_mixed or isinstance(self.source, Csr) or gram.shape[1] > BY_STRIPS)
        first = self._fold(a, point, gram, together)
        hess = self._total(gram)
        if not together:
            first.subtracted = -hess
            hess += self._gram_of(2 * self.diagonal(a, point))
        return first, hess

    def _gram_of(self, h: Vector) -> Matrix:
        """A^T diag(h) A, in mixed precision where that is asked for."""
        if not self.is_mixed:
            return self.weighted_gram(h)
        self._mixed_gram(h)
        self._work.vectors[0] = 0.0
        return self._finished()

    def hess_vec(self, a: Vector, point: Any, first: Any, p: Vector, da: Vector = EMPTY) -> Vector:
        passes.start_sums(self.room)
        for source, origin, edges in self._read():
            self.run(passes.fold_curvature, self.link, source, origin, p, a, self.rows, self.units, edges, self.room, point.groups, da)
        out = np.empty(self.shape[1])
        passes.finish_curvature(self.units, self.room, out)
        return out

    # -- n-vectors --------------------------------------------------------------------------------------------

    def _describe(self, a: Vector, point: Any, f: Vector, v: Vector, q: Vector, D: Vector) -> None:
        for edges in self.edges:
            self.run(passes.describe, self.link, a, self.rows, self.units, edges, self.room, in_domain(point.groups), f, v, q, D)

    def weigh_step(self, a: Vector, point: Any, da: Vector) -> Vector:
        """A^T (h * da)."""
        return self.transposed(2 * self.diagonal(a, point) * da)

    def diagonal(self, a: Vector, point: Any) -> Vector:
        D = self.empty()
        self._describe(a, point, EMPTY, EMPTY, EMPTY, D)
        return D

    def predictions(self, a: Vector, point: Any) -> tuple[Vector, Vector]:
        f, v = self.empty(), self.empty()
        self._describe(a, point, f, v, EMPTY, EMPTY)
        return f, v  # NaN in groups outside the domain

    def rank_2_vectors(self, a: Vector, point: Any) -> tuple[Matrix, Matrix]:
        """A_t^T v/alpha_t and A_t^T q/alpha_t of each group t, groups x d."""
        f, v, q = self.empty(), self.empty(), self.empty()
        self._describe(a, point, f, v, q, EMPTY)
        self.count += 2
        return sums_in_groups(self.data.A, self.offsets, v), sums_in_groups(self.data.A, self.offsets, q)

    # -- the solver's iteration -------------------------------------------------------------------------------

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        it = super().alloc_iterate(False)
        sums = np.empty((len(self.edges) * len(self.room.vectors), newton_passes.PLANE))
        return it._replace(points=np.zeros((3, units.point_room(self.units))), plane_sums=sums)

    def advance(self, *args: Any) -> int:
        """`fastrsx.kernels.newton.verdict.advance`, interpreted: between passes it handles scalars."""
        return int(self._advance(*args))

    def _evaluate_into(self, link: Any, a: Vector, da: Vector, t: float, b: Any, w: Any, out: Vector, sums: Any, point: Vector) -> float:
        there = self.evaluate(a, da, float(t), out)
        self.evaluations -= 1  # the iteration counts them
        point[:] = there.raw
        return there.fun

    def _evaluate_plane_into(self, link: Any, plane: Any, y: Vector, b: Any, w: Any, out: Vector, sums: Any, point: Vector) -> float:
        change = plane.here - plane.before
        change *= y[2]
        change += y[1] * plane.da
        change += y[0] * plane.here
        np.add(plane.here, change, out=out)
        there = self.evaluate(out)
        self.evaluations -= 1
        point[:] = there.raw
        records.as_point(point).step = self.largest(change)
        return there.fun

    def _plane_derivatives_into(self, link: Any, plane: Any, a: Vector, b: Any, w: Any, point: Vector, sums: Matrix) -> None:
        groups, blocks = GroupedPoint(point).groups, len(self.room.vectors)
        for k, edges in enumerate(self.edges):
            part = sums[blocks * k : blocks * (k + 1)]
            self.run(passes.fold_plane, self.link, plane, a, self.rows, self.units, edges, self.room, groups, part)
        passes.finish_plane(self.units, self.room, sums)

    def _is_penalised(self, image: Vector, w: Vector, unit: float) -> bool:
        return bool(newton_passes.is_penalised(image, w, unit))

    def _spread(self, a: Vector) -> float:
        return float(a.max() - a.min())


def grouped_version(engine: Any) -> Any:
    """The engine for groups over the same kind of A."""
    if hasattr(engine, "grouped_version"):
        return engine.grouped_version()
    return in_groups(engine) if hasattr(engine, "parts") else GroupedPasses


@cache
def in_groups(engine: type[Passes]) -> Any:
    """The grouped version of an engine for parts of A: its reads, and the kernels of `GroupedPasses`."""

    class InParts(GroupedPasses, engine):  # type: ignore[valid-type, misc]
        def _bounds(self) -> list[slice]:
            return list(self.bounds())

        def _read(self) -> Iterator[tuple[Any, int, np.ndarray]]:
            self.count += 1
            for edges, (which, rows) in zip(self.edges, self.parts(), strict=True):
                yield inputs.read_only(rows), which.start, edges

    return InParts
