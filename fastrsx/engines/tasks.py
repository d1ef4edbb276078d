"""What a worker computes: pure functions of one chunk of rows, or of the states of several, by the serial kernels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrsx.kernels.cpu import ahead
from fastrsx.kernels.cpu.blocks import block_count
from fastrsx.kernels.cpu.passes import finish_hessian
from fastrsx.kernels.formulas import records
from fastrsx.kernels.formulas.records import Q, R, V
from fastrsx.kernels.newton import chunks
from fastrsx.kernels.newton.passes import PLANE, ROUNDING, Plane, plane_derivatives

from .. import inputs
from ..inputs import Matrix, Vector
from ..loading import as_data, as_rows, load
from ..planning import choose, size_of
from .contract import Point
from .memory import EMPTY, Passes


class Trial(NamedTuple):
    """A step on a chunk: A x at its end, and what it changed; and the states of its blocks."""

    a: Vector
    change: Vector  # empty where there was no step
    sums: Any

    @property
    def before(self) -> Vector:
        """A x before the step, to rounding: so it need not be kept beside this."""
        return self.a - self.change if self.change.size else self.a


class Target(NamedTuple):
    """The rows of b and w that belong to a chunk."""

    b: Vector
    w: Vector

    def trial(self, link: Any, a: Vector, da: Vector, t: float) -> Trial:
        """The trial at a + t da."""
        out, sums = np.empty(len(a)) if da.size else a, np.zeros((block_count.py_func(len(a), 1), records.STATE_ROOM))
        chunks.chunk_domain(link, a, da, t, out, sums)
        return Trial(out, da if t == 1.0 else t * da, sums)

    def combined(self, link: Any, plane: Plane, y: Vector) -> Trial:
        """The trial at a point of a plane."""
        out, sums = np.empty(len(plane.here)), np.zeros((block_count.py_func(len(plane.here), 1), records.STATE_ROOM))
        chunks.chunk_combination(link, plane, y, out, sums)
        return Trial(out, out - plane.here, sums)


class Facts(NamedTuple):
    """What a solve asks of an n-vector."""

    low: float
    high: float
    total: float
    squares: float


class Bad(NamedTuple):
    """The first entry of a chunk that cannot be used."""

    row: int
    value: float


NO_TARGET = Target(EMPTY, EMPTY)


def passes_of(chunk: Any, link: Any, target: Target = NO_TARGET) -> Passes:
    """The kernels bound to a chunk, on one thread."""
    data = load(as_data(chunk))
    return Passes(data, target.b, target.w, choose(size_of(data.A), data.loader, "serial", 1), link)


def zeros(target: Target) -> Vector:
    return np.zeros(target.b.shape[0])


def hold(chunk: Any, b: Any, w: Any) -> Target:
    """b and w beside the chunk."""
    return Target(*(EMPTY if part is None else np.array(part, dtype=np.float64) for part in (b, w)))


def project(chunk: Any, target: Target, x: Vector, link: Any) -> Trial:
    """The trial at A x."""
    a = np.empty(chunk.shape[0])
    passes_of(chunk, link).products(x.copy(), a)
    return target.trial(link, a, EMPTY, 0.0)


def moved(target: Target, a: Vector, da: Vector, t: float, link: Any) -> Trial:
    """The trial at a + t da."""
    return target.trial(link, a, da, t)


def look(chunk: Any, target: Target, a: Vector | None, x: Vector, p: Vector, link: Any) -> Trial:
    """The trial at A x + A p; a is A x unless that is to be formed anew."""
    work, da = passes_of(chunk, link), np.empty(chunk.shape[0])
    if a is None:
        a = np.empty(len(da))
        work.products(x.copy(), a)
    work.products(p.copy(), da)
    return target.trial(link, a, da, 1.0)


def draw(chunk: Any, target: Target, rows: np.ndarray) -> ahead.Sample:
    """The rows of a chunk that predict a step, by their numbers there."""
    return ahead.Sample(rows, np.ascontiguousarray(as_rows(load(as_data(chunk)).A, rows).T), target.b[rows], EMPTY)


def fold_sample(sample: ahead.Sample, a: Vector, p: Vector, here: Vector, link: Any) -> Vector:
    sums = np.empty(10)
    ahead.fold_part_of_sample(link, p, a, sample._replace(a=np.empty(len(sample.rows))), here, sums)
    return sums


def predict(sums: Sequence[Vector], here: Vector, v: Vector, q: Vector, p: Vector, part: float) -> Vector:
    """The point at the end of a step, predicted."""
    predicted = np.empty(records.POINT_ROOM)
    ahead.predict_by_parts(here, v, q, p, part, np.stack(sums), predicted)
    return predicted


def read_ahead(chunk: Any, target: Target, a: Vector, p: Vector, predicted: Vector, link: Any) -> Trial:
    """The trial at A x + A p, and the chunk's part of the sums there by a prediction, in one read: see `fastrsx.kernels.cpu.ahead`."""
    work, da, out = passes_of(chunk, link, target), np.empty(len(a)), np.empty(len(a))
    scratch, gram = work._scratch, work.workspace().gram
    ahead.start_ahead(link, scratch.sums, scratch.vectors, gram)
    ahead.read_ahead.twin(link, work.source, p, ahead.Trial(a, work.b, work.w, da, out), predicted, scratch, gram)
    return Trial(out, da, add_ahead([(scratch.sums[k], scratch.vectors[k], gram[k]) for k in range(len(gram))]))


def add_ahead(parts: Sequence[tuple[Matrix, ...]]) -> tuple[Matrix, ...]:
    """The sums of such sums."""
    sums, vectors, grams = (np.stack(each) for each in zip(*parts, strict=True))
    ahead.merge_ahead(sums)
    return sums[0], np.add.reduce(vectors), np.add.reduce(grams)


def finish_ahead(part: tuple[Matrix, ...], predicted: Vector, target: Target, d: int, link: Any) -> tuple[Vector, float, Matrix, Matrix] | None:
    """The point, the error of the Hessian, the derivatives and the Hessian; None where the prediction was not good enough."""
    sums, vectors, gram = (each[None].copy() for each in part)
    point, hess = np.empty(records.POINT_ROOM), np.empty((d, d))
    found, error = ahead.finish_ahead(link, predicted, target.w, sums, vectors, gram, point)
    if not found:
        return None
    finish_hessian.twin(gram, vectors, hess)
    return point, error, vectors[0, [R, V, Q], :d], hess


def product(chunk: Any, x: Vector, link: Any) -> Trial:
    a = np.empty(chunk.shape[0])
    passes_of(chunk, link).products(x.copy(), a)
    return Trial(a, EMPTY, np.zeros((0, records.STATE_ROOM)))


def combination(target: Target, here: Vector, da: Vector, before: Vector, y: Vector, link: Any) -> Trial:
    """The trial at a point of a plane."""
    return target.combined(link, Plane(here, da, before), y.copy())


def plane_sums(here: Vector, da: Vector, before: Vector, a: Vector, target: Target, point: Vector, link: Any) -> list[Vector] | None:
    if not point[-1] < np.inf:
        return None
    sums = np.zeros((block_count.py_func(len(here), 1), PLANE))
    b, w = map(inputs.read_only, target)
    plane_derivatives.twin(link, Plane(here, da, before), a, b, w, point.copy(), sums)
    return [sums[0].copy()]


def join(sums: Sequence[Matrix]) -> Vector:
    """The point of all chunks, but for the loss."""
    point = np.zeros(records.POINT_ROOM)
    chunks.join_domains(np.concatenate(sums), point)
    return point


def residuals(a: Vector, target: Target, point: Vector, link: Any) -> Matrix:
    sums = np.zeros((block_count.py_func(len(a), 1), records.STATE_ROOM))
    if point[-1] < np.inf:
        b, w = map(inputs.read_only, target)
        chunks.chunk_residuals(link, a, b, w, point.copy(), sums)
    return sums


def finish(point: Vector, sums: Sequence[Matrix]) -> Vector:
    """The point with its loss."""
    point = point.copy()
    if point[-1] < np.inf:
        chunks.join_residuals(np.concatenate(sums), point)
    return point


def differentiate(chunk: Any, a: Vector, target: Target, point: Vector, link: Any, with_gram: bool) -> list[Matrix] | None:
    """The chunk's part of the gradient and the rank-2 vectors, and of the Gram matrix of the Hessian; None outside the domain."""
    at = Point(point)
    if not at.fun < np.inf:
        return None
    work = passes_of(chunk, link, target)
    if not with_gram:
        return [np.stack(work.gradient(a, at))]
    first, gram = work.gram_at(a, at)
    return [np.stack(first), gram]


def curvature(chunk: Any, a: Vector, target: Target, point: Vector, p: Vector, link: Any) -> tuple[list[Matrix], Vector]:
    """The chunk's part of A^T (h * A p), and its A p."""
    da = np.empty(len(a))
    return [passes_of(chunk, link, target).curvature(a, Point(point), p.copy(), da)], da


def transposed(chunk: Any, y: Vector, link: Any) -> list[Vector]:
    return [passes_of(chunk, link).transposed(y)]


def weighed(chunk: Any, D: Vector, p: Vector, link: Any) -> list[Vector]:
    work, product = passes_of(chunk, link), np.empty(chunk.shape[0])
    work.products(p.copy(), product)
    product *= D
    return [work.transposed(product)]


def gram(chunk: Any, h: Vector | None, link: Any) -> list[Matrix]:
    return [passes_of(chunk, link).weighted_gram(np.ones(chunk.shape[0]) if h is None else h)]


def measure(chunk: Any, link: Any) -> tuple[list[Matrix], list[Matrix]]:
    """Sums of squares, and largest absolute values, of the chunk's columns."""
    squares, largest = passes_of(chunk, link).column_sums()
    return [squares], [largest]


def add(states: Sequence[list[Matrix] | None]) -> list[Matrix] | None:
    """The sums of states, in their order."""
    return None if states[0] is None else [sum(each[1:], start=each[0]) for each in zip(*states, strict=True)]


def most(states: Sequence[list[Matrix]]) -> list[Matrix]:
    return [np.max(np.stack(each), axis=0) for each in zip(*states, strict=True)]


def facts_of(x: Vector) -> Facts:
    return Facts(x.min(), x.max(), np.add.reduce(x), np.add.reduce(np.square(x)))


def join_facts(facts: Sequence[Facts]) -> Facts:
    low, high, total, squares = zip(*facts, strict=True)
    return Facts(min(low), max(high), sum(total), sum(squares)) if not np.isnan(total).any() else Facts(*[np.nan] * 4)


def first_bad(values: Vector, least: float) -> Bad | None:
    wrong = np.flatnonzero(~((np.abs(values) <= inputs.LARGEST_ENTRY) & (values >= least)))
    return Bad(int(wrong[0]), float(values[wrong[0]])) if wrong.size else None


def first_bad_of_column(chunk: Any, column: int) -> Bad | None:
    values = chunk[:, [column]]
    return first_bad(np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64).ravel(), -np.inf)


def apart(a: Vector, other: Vector) -> Facts:
    return facts_of(a - other)


def penalises(image: Vector, target: Target, unit: float) -> bool:
    return bool(((target.w > 0) & (np.abs(image) > ROUNDING * unit)).any())


def weighted_sum(y: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    out = np.zeros(len(vectors[0]))
    for coefficient, vector in zip(y, vectors, strict=True):
        out += coefficient * vector
    return out


def diagonal(a: Vector, target: Target, point: Vector, link: Any) -> Vector:
    return passes_of(np.zeros((len(a), 1)), link, target).diagonal(a, Point(point))


def predictions(a: Vector, point: Vector, link: Any) -> tuple[Vector, Vector]:
    return passes_of(np.zeros((len(a), 1)), link).predictions(a, Point(point))


def together(*values: Any) -> tuple[Any, ...]:
    return values


def whole(value: Any) -> Any:
    return value
