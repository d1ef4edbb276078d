"""What a worker computes of groups of rows: pure functions of one chunk by the serial kernels, and the merge of groups that lie in several chunks.

A group that goes on in another chunk is in pieces, as any large one. To the kernels it has one more row there, which is in no unit that they are
asked for; and the kernels that merge the pieces of a group merge what chunks have of it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrsx.kernels.cpu.passes import finish_hessian
from fastrsx.kernels.cpu.rows import BY_STRIPS
from fastrsx.kernels.formulas import records, steps
from fastrsx.kernels.formulas.records import Q, R, V
from fastrsx.kernels.groups import passes
from fastrsx.kernels.groups.rows import Rows
from fastrsx.kernels.groups.units import GROUP_ROOM, Group, Total, Units, make_units
from fastrsx.kernels.layouts.csr import Csr
from fastrsx.kernels.layouts.panel import padded
from fastrsx.kernels.newton.passes import PLANE, Plane

from .. import inputs
from ..grouping import sums_in_groups
from ..inputs import Matrix, Vector
from ..loading import as_data, as_rows, load
from ..rank import joined_factor, triangular_factor
from .contract import rank_2
from .groups import in_domain
from .memory import EMPTY
from .tasks import Trial, add, passes_of

GROUP = Group(*range(len(Group._fields)))  # the places of a group's numbers
WORST = Total._fields.index("worst")
KNOWN = [GROUP.shift, GROUP.k, GROUP.alpha]  # what the pieces of a group need to know of it
NOTHING = -np.inf  # M of no rows
NUMBER = records.POINT_ROOM  # the place, behind the numbers of a point, of the group that is nearest to its pole
NONE = np.empty((0, GROUP_ROOM))


class Folded(NamedTuple):
    """The numbers of a chunk's groups, of pieces, and of the chunk, as far as they do not need other chunks."""

    groups: Matrix
    pieces: Matrix
    totals: Matrix  # 1 x numbers of a Total
    ends: Matrix  # of groups that go on in other chunks: those of the rows here


class Done(NamedTuple):
    """The numbers of a chunk's groups and of the chunk; of groups that go on, s and <f, f> are still those of the rows here."""

    groups: Matrix
    totals: Matrix
    worst: Vector  # the group that is nearest to its pole
    number: int  # and its number among all
    ends: Matrix
    starts: Matrix  # the ends where the step started, if that is asked for
    crosses: bool  # whether another group crosses its pole on the step


class There(NamedTuple):
    """A point, and behind it the number of the group that is nearest to its pole; and the numbers of groups that lie in several chunks."""

    point: Vector
    ends: Matrix


class Part(NamedTuple):
    """Sums over the rows of a chunk, and apart from them what groups that go on add once they are whole."""

    sums: list[Any]
    vectors: Matrix  # A^T v/alpha, A^T q/alpha and their part of the gradient
    numbers: Matrix  # <v, A p> and <q, A p>
    da: Vector = EMPTY


class Local(NamedTuple):
    """The rows of b and of the weights that belong to a chunk, and its groups."""

    b: Vector
    w: Vector
    m: Vector
    omega: Vector
    units: Units
    first: int  # the number of its first group
    ends: list[int]  # the numbers, from there on, of groups that go on in other chunks

    def trial(self, link: Any, a: Vector, da: Vector, t: float) -> Trial:
        """The trial at a + t da."""
        out = np.empty(len(a)) if da.size else a
        folded = self._fold(link, a, da, t, out)
        change = da if t == 1.0 else t * da
        return Trial(out, change, folded if self.ends else self.complete(link, out, change, folded, NONE))

    def combined(self, link: Any, plane: Plane, y: Vector) -> Trial:
        """The trial at a point of a plane; `step` is as in `fold_combination`."""
        change = plane.here - plane.before
        change *= y[2]
        change += y[1] * plane.da
        change += y[0] * plane.here
        found = self.trial(link, plane.here + change, EMPTY, 0.0)
        found.sums.totals[0, Total._fields.index("step")] = np.abs(change).max()
        return found._replace(change=change)

    @property
    def rows(self) -> Rows:
        return Rows(*map(inputs.read_only, self[:4]))

    @property
    def starts(self) -> np.ndarray:
        """The first row of each group here."""
        return np.maximum(self.units.offsets[:-1], 0)

    def pieces_of(self, end: int) -> slice:
        """The pieces of a group."""
        i = int(np.searchsorted(self.units.large, end))
        return slice(*self.units.large_pieces[i : i + 2])

    def divided(self, d: int) -> tuple[Rows, Units, np.ndarray, passes.Room]:
        """What kernels take, the third the units of the rows here; and room for d columns."""
        units = Units(*(each if each.flags.writeable else each.copy() for each in self.units))
        return self.rows, units, units.edges[1:3], passes.alloc_room(d, 1, int(units.large_pieces[-1]))

    def _fold(self, link: Any, a: Vector, da: Vector, t: float, out: Vector) -> Folded:
        rows, units, edges, room = self.divided(1)
        groups = np.zeros((len(units.offsets) - 1, GROUP_ROOM))
        passes.start_points(link, room)
        passes.fold_points_serial(link, a, da, t, out, rows, units, edges, room, groups)
        elsewhere = np.concatenate([units.pieces[: edges[0]], units.pieces[edges[1] :]])
        room.pieces[elsewhere, GROUP.shift] = NOTHING
        passes.join_points(units, room, groups)
        return Folded(groups, room.pieces, room.totals, groups[self.ends])

    def complete(self, link: Any, a: Vector, change: Vector, folded: Folded, ends: Matrix) -> Done:
        """The numbers that need the alpha of groups that go on."""
        rows, units, edges, room = self.divided(1)
        groups = folded.groups.copy()
        groups[self.ends] = ends
        room.pieces[:], room.totals[:] = folded.pieces, folded.totals
        for end in self.ends:
            room.pieces[self.pieces_of(end)][:, KNOWN] = groups[end, KNOWN]
        if len(room.pieces):
            passes.fold_pieces_serial(link, a, rows, units, edges, room)
        rising = passes.finish_points(units, room, groups, np.empty(records.POINT_ROOM))
        starts, crosses = np.zeros((len(ends), GROUP_ROOM)), False
        if rising and change.size:
            start = self._fold(link, a, change, -1.0, np.empty(len(a)))
            inside = np.delete(np.arange(len(groups)), self.ends)
            starts, crosses = start.ends, any_crosses(start.groups[inside], groups[inside])
        worst = int(room.totals[0, WORST])
        return Done(groups, room.totals, groups[worst], self.first + worst, groups[self.ends], starts, crosses)


def any_crosses(starts: Matrix, ends: Matrix) -> bool:
    """Whether a group crosses its pole on a step: the slopes at its start are those of the way back. Without a step, starts are 0."""
    rising = np.flatnonzero((ends[:, GROUP.slope] > ends[:, GROUP.alpha]) & (starts[:, GROUP.alpha] > 0))
    back, there = ((each[rising, GROUP.slope] / each[rising, GROUP.alpha]).tolist() for each in (starts, ends))
    return any(steps.may_cross.py_func(-start, end) for start, end in zip(back, there, strict=True))


def hold(chunk: Any, b: Any, w: Any, m: Any, omega: Any, offsets: np.ndarray, first: int) -> Local:
    """What belongs to a chunk; of offsets, -1 and one more than its rows say that a group goes on."""
    n, d = chunk.shape
    units = make_units(offsets, d, 1, np.array([0, n, max(n, int(offsets[-1]))]))
    ends = [t for t in sorted({0, len(offsets) - 2}) if offsets[t] < 0 or offsets[t + 1] > n]
    b, w, m, omega = (EMPTY if part is None else np.array(part, dtype=np.float64) for part in (b, w, m, omega))
    return Local(b, w, m, omega, units, first, ends)


# -- the point ------------------------------------------------------------------------------------------------


def merger(counts: Sequence[int], d: int) -> tuple[Units, passes.Room]:
    """Groups of so many pieces each, and no rows."""
    none, pieces = np.empty(0, np.int64), np.cumsum([0, *counts])
    return Units(none, none, none, none, none, np.arange(len(counts)), pieces), passes.alloc_room(d, 1, int(pieces[-1]))


def join_ends(folded: Sequence[Folded], counts: Sequence[int]) -> Matrix:
    """M, alpha^ and the rest of groups that lie in several chunks."""
    return joined_ends([each.ends for each in folded], counts)


def joined_ends(ends: Sequence[Matrix], counts: Sequence[int]) -> Matrix:
    """The same, of those in each chunk."""
    units, room = merger(counts, 1)
    room.pieces[:], groups = np.concatenate([NONE, *ends]), np.zeros((len(counts), GROUP_ROOM))
    passes.join_points(units, room, groups)
    return groups


def complete(target: Local, trial: Trial, ends: Matrix, places: list[int], link: Any) -> Done:
    return target.complete(link, trial.a, trial.change, trial.sums, ends[places])


def finish(dones: Sequence[Done], ends: Matrix, counts: Sequence[int]) -> There:
    """The point of all chunks."""
    units, room = merger([], 1)
    room = room._replace(totals=np.concatenate([done.totals for done in dones]))
    room.totals[:, WORST] = np.arange(len(dones))
    point = np.zeros(NUMBER + 1)
    passes.finish_points(units, room, np.stack([done.worst for done in dones]), point)
    point[NUMBER] = dones[int(room.totals[0, WORST])].number
    at, ends = records.as_point(point), ends.copy()
    if len(counts):
        units, room = merger(counts, 1)
        starts = joined_ends([done.starts for done in dones], counts)
        crosses = any_crosses(starts, ends)
        room.pieces[:] = np.concatenate([done.ends for done in dones])
        passes.finish_points(units, room, ends, np.empty(records.POINT_ROOM))
        at.fun = np.inf if crosses else at.fun
    if any(done.crosses for done in dones):
        at.fun = np.inf
    return There(point, ends)


# -- sums over rows -------------------------------------------------------------------------------------------


def groups_at(target: Local, done: Done, there: There, places: list[int]) -> Matrix:
    """The numbers of a chunk's groups."""
    groups = done.groups.copy()
    groups[target.ends] = there.ends[places]
    return groups


def taken_apart(target: Local, pieces: np.ndarray) -> np.ndarray:
    """The sums over the pieces of each group that goes on, which are then 0 there."""
    sums = np.stack([pieces[target.pieces_of(end)].sum(axis=0) for end in target.ends]) if target.ends else np.zeros((0, *pieces.shape[1:]))
    for end in target.ends:
        pieces[target.pieces_of(end)] = 0.0
    return sums


def differentiate(chunk: Any, target: Local, a: Vector, done: Done, there: There, places: list[int], link: Any, what: str) -> Part | None:
    """The chunk's part of the gradient; for "rank 2" also of the Hessian less A^T diag(h) A, for "hessian" of all of it. None outside the domain."""
    if not records.as_point(there.point).fun < np.inf:
        return None
    source, (n, d) = load(as_data(chunk)).source, chunk.shape
    rows, units, edges, room = target.divided(d)
    wide, groups = padded.py_func(d), groups_at(target, done, there, places)
    gram, grad = np.zeros((0 if what == "gradient" else 1, wide, wide)), np.empty(d)
    together = what == "hessian" and not isinstance(source, Csr) and wide <= BY_STRIPS
    passes.start_sums(room)
    passes.fold_derivatives_serial(link, source, 0, a, rows, units, edges, room, groups, gram, together)
    apart = taken_apart(target, room.piece_vectors)
    curvature = passes.finish_derivatives(units, room, gram, grad)
    total = np.empty((d, d) if len(gram) else (0, 0))
    if len(gram):
        finish_hessian.twin(gram, room.vectors, total)
    if what == "hessian" and not together:
        D = np.empty(n)
        passes.describe_serial(link, a, rows, units, edges, room, groups, EMPTY, EMPTY, EMPTY, D)
        total += passes_of(chunk, link).weighted_gram(2 * D)
    return Part([grad, np.array(curvature), total], apart[:, :, :d], np.zeros((0, 2)))


def sums_of(part: Any) -> Any:
    """The sums of a part; sums of several parts unchanged."""
    return part.sums if isinstance(part, Part) else part


def add_parts(parts: Sequence[Any]) -> list[Any] | None:
    """The sums over parts, in their order."""
    return add([sums_of(part) for part in parts])


def finish_derivatives(sums: Any, parts: Sequence[Part | None], counts: Sequence[int]) -> list[Matrix] | None:
    """The gradient, the sum of |h| and the Hessian, with what groups in several chunks add."""
    if sums is None or not parts:
        return sums_of(sums)  # also None
    grad, curvature, hess = sums_of(sums)
    vectors = joined([part.vectors for part in parts if part], counts)
    return [grad + vectors[:, R].sum(axis=0), curvature, hess - rank_2(vectors[:, V], vectors[:, Q]) if hess.size else hess]


def joined(parts: Sequence[np.ndarray], counts: Sequence[int]) -> np.ndarray:
    """The sums over the chunks of each group that lies in several."""
    return np.add.reduceat(np.concatenate(parts), np.cumsum([0, *counts])[:-1])


def curvature(chunk: Any, target: Local, a: Vector, done: Done, there: There, places: list[int], p: Vector, link: Any, with_da: bool) -> Part:
    """The chunk's part of the Hessian's product with p, and its A p."""
    source, (n, d) = load(as_data(chunk)).source, chunk.shape
    rows, units, edges, room = target.divided(d)
    da, out = np.empty(n if with_da else 0), np.empty(d)
    passes.start_sums(room)
    passes.fold_curvature_serial(link, source, 0, p, a, rows, units, edges, room, groups_at(target, done, there, places), da)
    vectors, numbers = taken_apart(target, room.piece_vectors), taken_apart(target, room.piece_numbers)
    passes.finish_curvature(units, room, out)
    return Part([out], vectors[:, :, :d], numbers, da)


def finish_curvature(sums: Any, parts: Sequence[Part], counts: Sequence[int]) -> Vector:
    """The product, with what groups in several chunks add."""
    (total,) = sums_of(sums)
    if not parts:
        return np.asarray(total)
    out, d = np.empty(len(total)), len(total)
    units, room = merger([1] * len(counts), d)
    room.vectors[0, passes.SUM, :d] = total
    room.piece_vectors[:, :, :d] = joined([part.vectors for part in parts], counts)
    room.piece_numbers[:] = joined([part.numbers for part in parts], counts)
    passes.finish_curvature(units, room, out)
    return out


def plane_sums(plane: Sequence[Vector], target: Local, a: Vector, done: Done, there: There, places: list[int], link: Any) -> Part | None:
    if not records.as_point(there.point).fun < np.inf:
        return None
    rows, units, edges, room = target.divided(1)
    sums = np.zeros((1, PLANE))
    passes.start_sums(room)
    passes.fold_plane_serial(link, Plane(*plane), a, rows, units, edges, room, groups_at(target, done, there, places), sums)
    numbers = taken_apart(target, room.piece_numbers)
    passes.finish_plane(units, room, sums)
    return Part([sums], np.zeros((0, 3, 0)), numbers)


def finish_plane(sums: Any, parts: Sequence[Part | None], counts: Sequence[int]) -> list[Vector] | None:
    """The sums of the plane search, with what groups in several chunks add."""
    if sums is None:
        return None
    total = sums_of(sums)[0].copy()
    if not parts:
        return [total[0]]
    units, room = merger([1] * len(counts), 1)
    room.piece_numbers[:] = joined([part.numbers for part in parts if part], counts)
    passes.finish_plane(units, room, total)
    return [total[0]]


# -- n-vectors, and numbers of groups -------------------------------------------------------------------------


def describe(target: Local, a: Vector, done: Done, there: There, places: list[int], link: Any, wanted: str) -> dict[str, Vector]:
    """Those of f, v/alpha, q/alpha and D that are wanted; v comes with f. NaN in groups outside the domain."""
    rows, units, edges, room = target.divided(1)
    found = {name: np.empty(len(a) if name in wanted else 0) for name in "fvqD"}
    groups = in_domain(groups_at(target, done, there, places))
    passes.describe_serial(link, a, rows, units, edges, room, groups, *found.values())
    return found


def weighed(chunk: Any, D: Vector, da: Vector, link: Any) -> list[Vector]:
    """The chunk's part of A^T (2 D * da)."""
    return [passes_of(chunk, link).transposed(2 * D * da)]


def rank_2_vectors(chunk: Any, target: Local, described: dict[str, Vector]) -> np.ndarray:
    """A_t^T v/alpha_t and A_t^T q/alpha_t of the rows here of each group t."""
    A, offsets = load(as_data(chunk)).A, np.clip(target.units.offsets, 0, chunk.shape[0])
    return np.stack([sums_in_groups(A, offsets, described[name]) for name in "vq"], axis=1)


def factor(chunk: Any, target: Local, scale: Vector) -> tuple[Matrix, Matrix]:
    """The R of the QR of scaled differences within the groups here; and the first rows here of groups that go on."""
    A, starts = load(as_data(chunk)).A, target.starts
    firsts = np.repeat(starts, np.diff(starts, append=chunk.shape[0]))
    return triangular_factor(A, scale, lambda which: as_rows(A, firsts[which])), as_rows(A, starts[target.ends])


def join_factors(factors: Sequence[tuple[Matrix, Matrix]], counts: Sequence[int], scale: Vector) -> Matrix:
    """That of all rows: the parts of a group differ by their first rows."""
    firsts = np.split(np.concatenate([rows for _, rows in factors]), np.cumsum(counts)[:-1])
    return joined_factor([R for R, _ in factors] + [(rows[1:] - rows[0]) / scale for rows in firsts if len(rows)])


def facts_of_b(target: Local) -> Matrix:
    """<b, 1> of the rows here of each group, and how many are not masked, as `GroupedPasses.sums_of_b` and `live_rows` have them."""
    sums, live = np.add.reduceat(target.b, target.starts), target.m > 0 if target.m.size else np.ones(len(target.b), dtype=bool)
    if target.omega.size:
        sums[np.logical_or.reduceat((target.omega == 0) & live, target.starts)] = np.nan
    return np.column_stack([sums, np.add.reduceat(live, target.starts, dtype=int)])


def squares_of_b(target: Local) -> list[Vector]:
    return [np.add.reduce(np.square(target.b) * target.omega if target.omega.size else np.square(target.b))]


def logs(target: Local, done: Done, there: There, places: list[int]) -> Matrix:
    """alpha^ and M of each group."""
    return groups_at(target, done, there, places)[:, [GROUP.alpha, GROUP.shift]]


def end_sums(target: Local, a: Vector, other: Vector) -> Vector:
    """The sums of a - other over the rows here of groups that go on."""
    return np.add.reduceat(a - other, target.starts)[target.ends]


def largest_centred(target: Local, a: Vector, other: Vector, sums: Sequence[Vector], places: list[int], counts: list[int], sizes: Vector) -> float:
    """max |a - other| after the mean of each group is subtracted; `sizes` are those of groups that go on."""
    change, starts = a - other, target.starts
    rows = np.diff(starts, append=len(change))
    means = np.add.reduceat(change, starts) / rows
    if places:
        means[target.ends] = (joined(sums, counts) / sizes)[places]
    return float(np.abs(change - np.repeat(means, rows)).max())
