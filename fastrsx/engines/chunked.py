"""An A in chunks of rows on a dask cluster, or in dask's own threads: chunks fold to states where they lie, and states merge in their order.

Only scalars, d-vectors and d x d matrices come to the client. Every task is a pure function that calls `_serial` kernels, so a result that a lost
worker held can be computed again, and no bit depends on the number of workers or on the schedule.
"""

import warnings
from typing import Any

import dask
import dask.array
import numpy as np

from fastrsx.kernels.cpu import passes

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data
from ..planning import Plan, Size, pass_ms
from ..system import cluster
from . import tasks
from .contract import Derivatives, Point
from .graphs import Field, NVector, Pieces, task, tree, value_of
from .memory import EMPTY, Passes

WORTH_MS = 20.0  # of work in a chunk on one thread: below, its tasks, two to four of 1 ms each for a scheduler, are more than a tenth


class ChunkedPasses(Passes):
    """The serial kernels over the chunks of a dask array: n-vectors are `Pieces`; all else is as in `Passes`."""

    def __init__(self, data: Data, b: Any, w: Any, plan: Plan, link: Any) -> None:
        self.data, self.source, self.shape, self.plan, self.link = data, None, data.shape, plan, link
        self.count = self.evaluations = self.trips = 0
        self.has_sparse_gram = self.is_mixed = False
        sizes = data.A.chunks[0]
        self.firsts = [int(start) for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False) if size]  # row of each chunk
        self.chunks = [chunk for chunk, size in zip(data.A.to_delayed()[:, 0], sizes, strict=True) if size]
        self._warn_of_small_chunks(max(sizes))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # the caller's own b and w, once
            (self.targets,) = self._keep([self._held(b, w)])
        n = self.shape[0]
        self.b: NVector = Pieces(n)
        self.w: NVector = Pieces(n if w.size else 0)
        self.b.parts, self.w.parts = [Field(each, 0) for each in self.targets], [Field(each, 1) for each in self.targets]
        self._a, self._zeros = Pieces(n), Pieces(n)
        self._zeros.parts = self._a.parts = [task(tasks.zeros, target) for target in self.targets]  # made where they are used, and not kept
        self._ahead: tuple[Point, list[Matrix]] | None = None  # the point of the last trial, and the sums there

    def _warn_of_small_chunks(self, rows: int) -> None:
        work = pass_ms(Size(rows, self.shape[1]))
        if len(self.chunks) > 1 and work < WORTH_MS and cluster.has_client():
            small = f"A's chunks are small: a pass over one is about {work:.2g} ms of work, and a scheduler needs about 1 ms for each of its tasks"
            warnings.warn(f"{small}; pass A.rechunk(fastrsx.dask.chunks(*A.shape))", stacklevel=7)

    def _held(self, b: Any, w: Any) -> list[Any]:
        """What lies beside the chunks, tasks."""
        return [task(tasks.hold, *each) for each in zip(self.chunks, self._split(b), self._split(w), strict=True)]

    # -- graphs -----------------------------------------------------------------------------------------------

    def _split(self, vector: Any) -> list[Any]:
        """The parts of an n-vector of the caller beside the chunks; None without."""
        if not vector.size:
            return [None] * len(self.chunks)
        sizes = tuple(size for size in self.data.A.chunks[0] if size)
        if isinstance(vector, np.ndarray):
            return [vector[first : first + size] for first, size in zip(self.firsts, sizes, strict=True)]
        return list(vector.rechunk((sizes,)).to_delayed().ravel())

    def _keep(self, groups: list[list[Any]]) -> list[list[Any]]:
        """Tasks whose results stay where they were computed."""
        there = iter(dask.persist(*(each for group in groups for each in group)))
        return [[next(there) for _ in group] for group in groups]

    def _compute(self, wanted: Any, *groups: list[Any]) -> tuple[Any, list[list[Any]]]:
        """The result of a task, and the groups of tasks that stay there: one round trip. Arrays may be read-only, which Numba compiles apart."""
        self.trips += 1
        wanted = task(tasks.whole, wanted) if isinstance(wanted, Field) else wanted
        *kept, (there,) = self._keep([*groups, [wanted]])
        return value_of(there, [each for group in kept for each in group]), kept

    def _sum(self, jobs: list[Any]) -> list[Matrix]:
        return self._sum_of(tree(tasks.add, jobs))

    def _sum_of(self, total: Any) -> list[Matrix]:
        """The result of a task that adds, in arrays of ours."""
        return [np.array(each) for each in self._compute(total)[0]]

    def _facts(self, x: NVector) -> tasks.Facts:
        return self._compute(task(tasks.join_facts, [task(tasks.facts_of, part) for part in x.parts]))[0]

    def _point_of(self, trials: list[Any]) -> tuple[Any, list[Any]]:
        """The point of trials, a task or a field; and other tasks whose results are to be kept."""
        domain = task(tasks.join, [task(tasks.whole, Field(each, 2)) for each in trials])
        sums = [task(tasks.residuals, Field(each, 0), target, domain, self.link) for each, target in zip(trials, self.targets, strict=True)]
        return task(tasks.finish, domain, sums), []

    def _point_at(self, a: NVector, raw: Vector) -> Point:
        """The point at a, of its numbers as they have come here."""
        return Point(np.array(raw))

    def _pieces(self, trials: list[Any], beside: list[Any]) -> NVector:
        """A x at the end of trials."""
        pieces = Pieces(self.shape[0])
        pieces.parts, pieces.beside = [Field(each, 0) for each in trials], beside
        return pieces

    def _differentiated(self, a: NVector, point: Any, with_gram: bool) -> Any:
        """The sums at a, a task."""
        each = zip(self.chunks, a.parts, self.targets, strict=True)
        return tree(tasks.add, [task(tasks.differentiate, chunk, part, target, point, self.link, with_gram) for chunk, part, target in each])

    # -- n-vectors --------------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        return False

    @property
    def a(self) -> NVector:
        return self._a

    def empty(self) -> NVector:
        pieces = Pieces(self.shape[0])
        pieces.parts = self._zeros.parts
        return pieces

    def to_host(self, vector: Any) -> Vector:
        if isinstance(vector, np.ndarray):
            return vector
        return np.concatenate(self._compute(task(tasks.together, *vector.parts))[0])

    def to_caller(self, vector: Any) -> Any:
        """As a dask array."""
        if isinstance(vector, np.ndarray):
            return dask.array.from_array(vector, chunks=(self.data.A.chunks[0],))
        sizes = [size for size in self.data.A.chunks[0] if size]
        parts = [task(tasks.whole, part) for part in vector.parts]
        return dask.array.concatenate([dask.array.from_delayed(part, (size,), float) for part, size in zip(parts, sizes, strict=True)])

    def assign(self, out: NVector, a: NVector) -> None:
        out.parts, out.beside = a.parts, a.beside

    def combine(self, y: Vector, vectors: list[NVector], out: NVector) -> None:
        parts = zip(*(vector.parts for vector in vectors), strict=True)
        (out.parts,) = self._keep([[task(tasks.weighted_sum, y.tolist(), list(each)) for each in parts]])

    @property
    def norm_b(self) -> float:
        return float(np.sqrt(self._facts_of_b.squares))

    @property
    def sum_b(self) -> float:
        return float(self._facts_of_b.total)

    def largest(self, a: NVector) -> float:
        low, high, _, _ = self._facts(a)
        return float(max(abs(low), abs(high)))

    def _spread(self, a: NVector) -> float:
        low, high, _, _ = self._facts(a)
        return float(high - low)

    def distance(self, a: NVector, other: NVector, centred: bool) -> float:
        facts = [task(tasks.apart, *each) for each in zip(a.parts, other.parts, strict=True)]
        low, high, total, _ = self._compute(task(tasks.join_facts, facts))[0]
        mean = total / self.shape[0] if centred else 0.0
        return float(max(abs(low - mean), abs(high - mean)))

    def _is_penalised(self, image: NVector, w: NVector, unit: float) -> bool:
        if not self.w.size:
            return False
        return any(
            self._compute(task(tasks.together, *(task(tasks.penalises, *each, unit) for each in zip(image.parts, self.targets, strict=True))))[0]
        )

    # -- the point --------------------------------------------------------------------------------------------

    def _evaluate(self, trials: list[Any], out: NVector) -> Point:
        point, beside = self._point_of(trials)
        raw, (trials, beside) = self._compute(point, trials, beside)
        self.assign(out, self._pieces(trials, beside))
        return self._point_at(out, raw)

    def _moved(self, a: NVector, da: Any, t: float) -> list[Any]:
        steps = da.parts if da.size else [EMPTY] * len(self.chunks)
        return [task(tasks.moved, *each, t, self.link) for each in zip(self.targets, a.parts, steps, strict=True)]

    def _projected(self, x: Vector) -> list[Any]:
        return [task(tasks.project, *each, x, self.link) for each in zip(self.chunks, self.targets, strict=True)]

    def evaluate(self, a: NVector, da: Any = EMPTY, t: float = 0.0, out: NVector | None = None) -> Point:
        self.evaluations += 1
        return self._evaluate(self._moved(a, da, t), a if out is None else out)

    def project(self, x: Vector) -> Point:
        self.count += 1
        self.evaluations += 1
        return self._evaluate(self._projected(x), self.a)

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        """The gradient in a second read, but the same round trip."""
        self.evaluations += 1
        point, sums = self._look_ahead(self._projected(x), self.a, None, False)
        return point, None if sums is None else self._first_of(self.a, point, sums)

    def _look_ahead(self, trials: list[Any], out: NVector, da: NVector | None, with_gram: bool) -> tuple[Point, Any]:
        self.count += 2
        point, beside = self._point_of(trials)
        sums = self._differentiated(self._pieces(trials, beside), point, with_gram)
        (raw, sums), (trials, beside) = self._compute(task(tasks.together, point, sums), trials, beside)
        self.assign(out, self._pieces(trials, beside))
        if da is not None:
            da.parts = [Field(each, 1) for each in trials]
        return self._point_at(out, raw), sums

    # -- sums over rows ---------------------------------------------------------------------------------------

    def products(self, x: Vector, out: NVector) -> None:
        self.count += 1
        (kept,) = self._keep([[task(tasks.product, chunk, np.array(x, dtype=float), self.link) for chunk in self.chunks]])
        out.parts = [Field(each, 0) for each in kept]

    def _parts(self, vector: Any) -> list[Any]:
        """The parts of an n-vector of ours or of the caller's."""
        return vector.parts if isinstance(vector, Pieces) else self._split(vector)

    def transposed(self, y: Any) -> Vector:
        self.count += 1
        return self._sum([task(tasks.transposed, *each, self.link) for each in zip(self.chunks, self._parts(y), strict=True)])[0]

    def weighed(self, D: Any, p: Vector) -> Vector:
        """A^T (D * A p)."""
        self.count += 1
        return self._sum([task(tasks.weighed, *each, p, self.link) for each in zip(self.chunks, self._parts(D), strict=True)])[0]

    def column_scale(self, names: Names = None) -> Vector:
        """Also refuses such entries of b and w."""
        self.count += 1
        measured = [task(tasks.measure, chunk, self.link) for chunk in self.chunks]
        squares = tree(tasks.add, [Field(each, 0) for each in measured])
        largest = tree(tasks.most, [Field(each, 1) for each in measured])
        b, w = (
            task(tasks.join_facts, [task(tasks.facts_of, part) for part in vector.parts]) for vector in (self.b, self.w if self.w.size else self.b)
        )
        ((squares,), (largest,), self._facts_of_b, of_w), _ = self._compute(task(tasks.together, squares, largest, b, w))
        self._check("b", self.b, self._facts_of_b, -np.inf)
        if self.w.size:
            self._check("w", self.w, of_w, 0.0)
        scale = np.empty(self.shape[1])
        column = passes.finish_columns(np.stack([squares, largest]), self.shape[0], inputs.LARGEST_ENTRY, scale)
        if column >= 0:
            self._refuse(
                f"A[{{}}, {column}]", [task(tasks.first_bad_of_column, chunk, column) for chunk in self.chunks], "entries must be at most 1e+150"
            )
        return scale

    def _check(self, name: str, vector: NVector, facts: tasks.Facts, least: float) -> None:
        """Refuse a vector as one in memory would be."""
        low, high, total, _ = facts
        if not (max(abs(low), abs(high)) <= inputs.LARGEST_ENTRY and np.isfinite(total) and low >= least):
            what = "weights must be at least 0" if low < least else "entries must be finite, and at most 1e+150"
            self._refuse(f"{name}[{{}}]", [task(tasks.first_bad, part, least) for part in vector.parts], what)

    def _refuse(self, place: str, jobs: list[Any], what: str) -> None:
        found = self._compute(task(tasks.together, *jobs))[0]
        chunk, bad = next((k, each) for k, each in enumerate(found) if each is not None)
        row = self.firsts[chunk] + bad.row
        raise ValueError(f"{place.format(row)} is {bad.value}, in row {bad.row} of chunk {chunk}; {what}: remove or fill such rows")

    def _first_of(self, a: NVector, point: Point, sums: list[Matrix]) -> Derivatives:
        return Derivatives(*np.array(sums[0]))

    def gradient(self, a: NVector, point: Point) -> Derivatives:
        self.count += 1
        return self._first_of(a, point, self._compute(self._differentiated(a, point.raw, False))[0])

    def hessian(self, a: NVector, point: Point) -> tuple[Derivatives, Matrix]:
        if self._ahead is not None and self._ahead[0].identity == point.identity:
            sums = self._ahead[1]
        else:
            self.count += 1
            sums = self._compute(self._differentiated(a, point.raw, True))[0]
        first = self._first_of(a, point, sums)
        return first, self._hessian_of(first, sums)

    def _hessian_of(self, first: Any, sums: list[Matrix]) -> Matrix:
        return np.asarray(sums[1] - first.rank_2())

    def curvature(self, a: NVector, point: Point, p: Vector, da: Any) -> Vector:
        self.count += 1
        each = zip(self.chunks, a.parts, self.targets, strict=True)
        jobs = [task(tasks.curvature, chunk, part, target, point.raw, np.array(p), self.link) for chunk, part, target in each]
        (total,), (kept,) = self._compute(tree(tasks.add, [task(tasks.whole, Field(one, 0)) for one in jobs]), jobs if da.size else [])
        if da.size:
            da.parts = [Field(one, 1) for one in kept]
        return np.array(total)

    def weighted_gram(self, h: Any) -> Matrix:
        self.count += 1
        return self._sum([task(tasks.gram, *each, self.link) for each in zip(self.chunks, self._parts(h), strict=True)])[0]

    def gram(self) -> Matrix:
        self.count += 1
        return self._sum([task(tasks.gram, chunk, None, self.link) for chunk in self.chunks])[0]

    def use_mixed(self) -> None:
        raise ValueError("precision is 'mixed', which is for dense A in memory; pass precision='double'")

    def diagonal(self, a: NVector, point: Point) -> NVector:
        D = self.empty()
        each = zip(a.parts, self.targets, strict=True)
        (D.parts,) = self._keep([[task(tasks.diagonal, part, target, point.raw, self.link) for part, target in each]])
        return D

    def predictions(self, a: NVector, point: Point) -> tuple[NVector, NVector]:
        (kept,) = self._keep([[task(tasks.predictions, part, point.raw, self.link) for part in a.parts]])
        f, v = self.empty(), self.empty()
        f.parts, v.parts = ([Field(each, k) for each in kept] for k in range(2))
        return f, v
