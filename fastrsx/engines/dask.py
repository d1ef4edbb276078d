"""An A in chunks of rows on a dask cluster, or in dask's own threads: chunks fold to states where they lie, and states merge in their order.

Only scalars, d-vectors and d x d matrices come to the client. Every task is a pure function that calls `_serial` kernels, so a result that a lost
worker held can be computed again, and no bit depends on the number of workers or on the schedule.
"""

import sys
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import dask
import dask.array
import numpy as np

from fastrsx.kernels.cpu import passes
from fastrsx.kernels.cpu.blocks import block_count
from fastrsx.kernels.formulas import records
from fastrsx.kernels.newton import chunks, iteration
from fastrsx.kernels.newton.passes import PLANE, ROUNDING, Plane, plane_derivatives

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data, as_data, load
from ..planning import Plan, Size, choose, pass_ms, size_of
from ..system import cluster
from ..system.cluster import FAN_IN
from .contract import Derivatives, Point
from .interpreted import advance_of
from .memory import EMPTY, Passes

WORTH_MS = 20.0  # of work in a chunk on one thread: below, its four tasks, 1 ms each for a scheduler, are more than a fifth
RENEWED_EVERY = 8  # steps: then A x is formed anew, and what it came from is forgotten
CHECKED_EVERY = 2.0  # seconds between looks at a cluster that is at work
NO_WORKERS, NO_PROGRESS = 30.0, 900.0  # seconds without a worker, and without a finished task, after which a wait ends
AGAIN = "intermediate_result of this error has the last x: start again from there"


# -- tasks: pure functions of chunks and states -----------------------------------------------------------------


class Target(NamedTuple):
    """The rows of b and w that belong to a chunk."""

    b: Vector
    w: Vector


class Trial(NamedTuple):
    """A step on a chunk: A (x + p) and A p; and the states of its blocks."""

    a: Vector
    da: Vector
    sums: Matrix


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


def _passes(chunk: Any, link: Any, target: Target = NO_TARGET) -> Passes:
    """The kernels bound to a chunk, on one thread."""
    data = load(as_data(chunk))
    return Passes(data, target.b, target.w, choose(size_of(data.A), data.loader, "serial", 1), link)


def _trial(link: Any, a: Vector, da: Vector, t: float) -> Trial:
    out, sums = np.empty(len(a)), np.zeros((block_count.py_func(len(a), 1), records.STATE_ROOM))
    chunks.chunk_domain(link, a, da, t, out if da.size else a, sums)
    return Trial(out if da.size else a, da, sums)


def _zeros(chunk: Any) -> Trial:
    return Trial(np.zeros(chunk.shape[0]), EMPTY, np.zeros((0, records.STATE_ROOM)))


def _hold(chunk: Any, b: Any, w: Any) -> Target:
    """b and w beside the chunk."""
    return Target(*(EMPTY if part is None else np.array(part, dtype=np.float64) for part in (b, w)))


def _project(chunk: Any, x: Vector, link: Any) -> Trial:
    """The trial at A x."""
    a = np.empty(chunk.shape[0])
    _passes(chunk, link).products(x.copy(), a)
    return _trial(link, a, EMPTY, 0.0)


def _look(chunk: Any, a: Vector | None, x: Vector, p: Vector, link: Any) -> Trial:
    """The trial at A x + A p; a is A x unless that is to be formed anew."""
    work, da = _passes(chunk, link), np.empty(chunk.shape[0])
    if a is None:
        a = np.empty(len(da))
        work.products(x.copy(), a)
    work.products(p.copy(), da)
    return _trial(link, a, da, 1.0)


def _product(chunk: Any, x: Vector, link: Any) -> Trial:
    a = np.empty(chunk.shape[0])
    _passes(chunk, link).products(x.copy(), a)
    return Trial(a, EMPTY, np.zeros((0, records.STATE_ROOM)))


def _combination(here: Vector, da: Vector, before: Vector, y: Vector, link: Any) -> Trial:
    out, sums = np.empty(len(here)), np.zeros((block_count.py_func(len(here), 1), records.STATE_ROOM))
    chunks.chunk_combination(link, Plane(here, da, before), y.copy(), out, sums)
    return Trial(out, EMPTY, sums)


def _plane_sums(here: Vector, da: Vector, before: Vector, a: Vector, target: Target, point: Vector, link: Any) -> list[Vector] | None:
    if not point[-1] < np.inf:
        return None
    sums = np.zeros((block_count.py_func(len(here), 1), PLANE))
    b, w = map(inputs.read_only, target)
    plane_derivatives.twin(link, Plane(here, da, before), a, b, w, point.copy(), sums)
    return [sums[0].copy()]


def _join(sums: Sequence[Matrix]) -> Vector:
    """The point of all chunks, but for the loss."""
    point = np.zeros(records.POINT_ROOM)
    chunks.join_domains(np.concatenate(sums), point)
    return point


def _residuals(a: Vector, target: Target, point: Vector, link: Any) -> Matrix:
    sums = np.zeros((block_count.py_func(len(a), 1), records.STATE_ROOM))
    if point[-1] < np.inf:
        b, w = map(inputs.read_only, target)
        chunks.chunk_residuals(link, a, b, w, point.copy(), sums)
    return sums


def _finish(point: Vector, sums: Sequence[Matrix]) -> Vector:
    """The point with its loss."""
    point = point.copy()
    if point[-1] < np.inf:
        chunks.join_residuals(np.concatenate(sums), point)
    return point


def _differentiate(chunk: Any, a: Vector, target: Target, point: Vector, link: Any, with_gram: bool) -> list[Matrix] | None:
    """The chunk's part of the gradient and the rank-2 vectors, and of the Gram matrix of the Hessian; None outside the domain."""
    at = Point(point)
    if not at.fun < np.inf:
        return None
    work = _passes(chunk, link, target)
    if not with_gram:
        return [np.stack(work.gradient(a, at))]
    first, gram = work.gram_at(a, at)
    return [np.stack(first), gram]


def _curvature(chunk: Any, a: Vector, target: Target, point: Vector, p: Vector, link: Any) -> tuple[list[Matrix], Vector]:
    """The chunk's part of A^T (h * A p), and its A p."""
    da = np.empty(len(a))
    return [_passes(chunk, link, target).curvature(a, Point(point), p.copy(), da)], da


def _transposed(chunk: Any, y: Vector, link: Any) -> list[Vector]:
    return [_passes(chunk, link).transposed(y)]


def _weighed(chunk: Any, D: Vector, p: Vector, link: Any) -> list[Vector]:
    work, product = _passes(chunk, link), np.empty(chunk.shape[0])
    work.products(p.copy(), product)
    product *= D
    return [work.transposed(product)]


def _gram(chunk: Any, h: Vector | None, link: Any) -> list[Matrix]:
    return [_passes(chunk, link).weighted_gram(np.ones(chunk.shape[0]) if h is None else h)]


def _measure(chunk: Any, link: Any) -> tuple[list[Matrix], list[Matrix]]:
    """Sums of squares, and largest absolute values, of the chunk's columns."""
    squares, largest = _passes(chunk, link).column_sums()
    return [squares], [largest]


def _add(states: Sequence[list[Matrix] | None]) -> list[Matrix] | None:
    """The sums of states, in their order."""
    return None if states[0] is None else [sum(each[1:], start=each[0]) for each in zip(*states, strict=True)]


def _largest(states: Sequence[list[Matrix]]) -> list[Matrix]:
    return [np.max(np.stack(each), axis=0) for each in zip(*states, strict=True)]


def _facts(x: Vector) -> Facts:
    return Facts(x.min(), x.max(), np.add.reduce(x), np.add.reduce(np.square(x)))


def _join_facts(facts: Sequence[Facts]) -> Facts:
    low, high, total, squares = zip(*facts, strict=True)
    return Facts(min(low), max(high), sum(total), sum(squares)) if not np.isnan(total).any() else Facts(*[np.nan] * 4)


def _bad(values: Vector, least: float) -> Bad | None:
    wrong = np.flatnonzero(~((np.abs(values) <= inputs.LARGEST_ENTRY) & (values >= least)))
    return Bad(int(wrong[0]), float(values[wrong[0]])) if wrong.size else None


def _bad_of_column(chunk: Any, column: int) -> Bad | None:
    values = chunk[:, [column]]
    return _bad(np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64).ravel(), -np.inf)


def _apart(a: Vector, other: Vector) -> Facts:
    return _facts(a - other)


def _is_penalised(image: Vector, target: Target, unit: float) -> bool:
    return bool(((target.w > 0) & (np.abs(image) > ROUNDING * unit)).any())


def _weighted_sum(y: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    out = np.zeros(len(vectors[0]))
    for coefficient, vector in zip(y, vectors, strict=True):
        out += coefficient * vector
    return out


def _diagonal(a: Vector, target: Target, point: Vector, link: Any) -> Vector:
    return _passes(np.zeros((len(a), 1)), link, target).diagonal(a, Point(point))


def _predictions(a: Vector, point: Vector, link: Any) -> tuple[Vector, Vector]:
    return _passes(np.zeros((len(a), 1)), link).predictions(a, Point(point))


def _tuple(*values: Any) -> tuple[Any, ...]:
    return values


# -- n-vectors and graphs ---------------------------------------------------------------------------------------


class Field(NamedTuple):
    """An entry of the result of a task, which is not taken out where it lies: a task of its own would be another for the scheduler."""

    task: Any
    place: int


class Pieces:
    """An n-vector: for each chunk of A, a task or a field of its result."""

    def __init__(self, n: int) -> None:
        self.shape, self.size = (n,), n
        self.parts: list[Any] = []


NVector = Any  # `Pieces`, in the place of an array of Passes


def _call(function: Callable[..., Any], indices: list[Any], *values: Any) -> Any:
    """Call a function with fields of values, its arrays writable: Numba compiles read-only ones apart."""

    def of(value: Any, index: Any) -> Any:
        if isinstance(index, list):
            return [of(*each) for each in zip(value, index, strict=True)]
        value = value if index is None else value[index]
        return value.copy() if type(value) is np.ndarray and value.ndim == 1 and not value.flags.writeable else value

    return function(*(of(*each) for each in zip(values, indices, strict=True)))


def task(function: Callable[..., Any], *args: Any) -> Any:
    """A task for function(*args); an argument may be a task, a Field, or a list of them."""

    def split(arg: Any) -> tuple[Any, Any]:
        if isinstance(arg, list):
            pairs = [split(each) for each in arg]
            return [value for value, _ in pairs], [index for _, index in pairs]
        return (arg.task, arg.place) if isinstance(arg, Field) else (arg, None)

    values, indices = split(list(args))
    key = f"fastrsx{function.__name__}-{uuid.uuid4().hex}"
    return dask.delayed(_call, pure=False)(function, indices, *values, dask_key_name=key)


def tree(add: Callable[..., Any], tasks: list[Any]) -> Any:
    """The tasks' results added in their order, a few at a time."""
    while True:
        tasks = [task(add, tasks[i : i + FAN_IN]) for i in range(0, len(tasks), FAN_IN)]
        if len(tasks) == 1:
            return tasks[0]


class ClusterError(RuntimeError):
    """The cluster could not finish a solve; what was found is in `intermediate_result`."""


def value_of(wanted: Any, beside: Sequence[Any]) -> Any:
    """The result of a persisted task; a wait that comes to nothing ends with an error, and one that is broken off cancels all these tasks."""
    distributed = sys.modules.get("distributed")
    futures = [] if distributed is None else distributed.futures_of([wanted, *beside])
    if distributed is None or not futures:
        return wanted.compute()
    (future,) = (each for each in futures if each.key == wanted.key)
    client, seen, since = future.client, None, time.monotonic()
    try:
        while not future.done():
            try:
                distributed.wait([future], timeout=CHECKED_EVERY)
            except TimeoutError:
                changes, workers = state = _look_at(client)
                if state != seen:
                    seen, since = state, time.monotonic()
                waited = time.monotonic() - since
                if waited > (NO_PROGRESS if workers else NO_WORKERS):
                    what = "has finished no task" if workers else "has had no worker"
                    raise ClusterError(f"the cluster {what} for {waited:.0f} s, after {changes} changes; {AGAIN}") from None
        return future.result()
    except BaseException as error:
        if client.status == "running":
            client.cancel(futures, force=True)
        if isinstance(error, (distributed.scheduler.KilledWorker, distributed.client.FutureCancelledError, OSError)):
            raise ClusterError(f"the cluster lost what it was computing ({error}); {AGAIN}") from error
        raise


def _look_at(client: Any) -> tuple[int, int]:
    """How far the scheduler is: the changes of its tasks so far, and the number of its workers."""
    return client.run_on_scheduler(lambda dask_scheduler: (dask_scheduler.transition_counter, len(dask_scheduler.workers)))


class DaskPasses(Passes):
    """The serial kernels over the chunks of a dask array: n-vectors are `Pieces`; all else is as in `Passes`."""

    def __init__(self, data: Data, b: Any, w: Any, plan: Plan, link: Any) -> None:
        self.data, self.source, self.shape, self.plan, self.link = data, None, data.shape, plan, link
        self.count = self.evaluations = self.trips = 0
        self.has_sparse_gram = self.is_mixed = False
        sizes = data.A.chunks[0]
        self.firsts = [int(start) for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False) if size]  # row of each chunk
        self.chunks = [chunk for chunk, size in zip(data.A.to_delayed()[:, 0], sizes, strict=True) if size]
        self._warn_of_small_chunks(max(sizes))
        targets = zip(self.chunks, self._split(b), self._split(w), strict=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph")  # the caller's own b and w, once
            (self.targets,) = self._keep([[task(_hold, *each) for each in targets]])
        n = self.shape[0]
        self.b: NVector = Pieces(n)
        self.w: NVector = Pieces(n if w.size else 0)
        self.b.parts, self.w.parts = [Field(each, 0) for each in self.targets], [Field(each, 1) for each in self.targets]
        self._a, self._zeros = Pieces(n), Pieces(n)
        (zeros,) = self._keep([[task(_zeros, chunk) for chunk in self.chunks]])
        self._zeros.parts = self._a.parts = [Field(each, 0) for each in zeros]
        self._ahead: tuple[Point, list[Matrix]] | None = None  # the point of the last trial, and the sums there
        self._plane_ahead: tuple[tuple[float, ...], Any] = (), None  # the same of the search in a plane
        self._iterate: iteration.Iterate | None = None
        self._steps = 0  # since A x was formed
        self._advance = advance_of(self)

    def _warn_of_small_chunks(self, rows: int) -> None:
        work = pass_ms(Size(rows, self.shape[1]))
        if len(self.chunks) > 1 and work < WORTH_MS and cluster.has_client():
            small = f"A's chunks are small: a pass over one is about {work:.2g} ms of work, and a scheduler needs about 1 ms for each of its tasks"
            warnings.warn(f"{small}; pass A.rechunk(fastrsx.dask.chunks(*A.shape))", stacklevel=7)

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
        *kept, (there,) = self._keep([*groups, [wanted]])
        return value_of(there, [each for group in kept for each in group]), kept

    def _sum(self, tasks: list[Any]) -> list[Matrix]:
        return self._sum_of(tree(_add, tasks))

    def _sum_of(self, total: Any) -> list[Matrix]:
        """The result of a task that adds, in arrays of ours."""
        return [np.array(each) for each in self._compute(total)[0]]

    def _facts(self, x: NVector) -> Facts:
        return self._compute(task(_join_facts, [task(_facts, part) for part in x.parts]))[0]

    def _point_of(self, trials: list[Any]) -> Any:
        """The point of trials, a task."""
        domain = task(_join, [task(_tuple_item, each, 2) for each in trials])
        sums = [task(_residuals, Field(each, 0), target, domain, self.link) for each, target in zip(trials, self.targets, strict=True)]
        return task(_finish, domain, sums)

    def _differentiated(self, a: list[Any], point: Any, with_gram: bool) -> Any:
        """The sums at a, a task."""
        each = zip(self.chunks, a, self.targets, strict=True)
        return tree(_add, [task(_differentiate, chunk, part, target, point, self.link, with_gram) for chunk, part, target in each])

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
        return np.concatenate(self._compute(task(_tuple, *vector.parts))[0])

    def to_caller(self, vector: Any) -> Any:
        """As a dask array."""
        if isinstance(vector, np.ndarray):
            return dask.array.from_array(vector, chunks=(self.data.A.chunks[0],))
        sizes = [size for size in self.data.A.chunks[0] if size]
        parts = [task(_item, part) for part in vector.parts]
        return dask.array.concatenate([dask.array.from_delayed(part, (size,), float) for part, size in zip(parts, sizes, strict=True)])

    def assign(self, out: NVector, a: NVector) -> None:
        out.parts = a.parts

    def combine(self, y: Vector, vectors: list[NVector], out: NVector) -> None:
        parts = zip(*(vector.parts for vector in vectors), strict=True)
        (out.parts,) = self._keep([[task(_weighted_sum, y.tolist(), list(each)) for each in parts]])

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
        facts = [task(_apart, *each) for each in zip(a.parts, other.parts, strict=True)]
        low, high, total, _ = self._compute(task(_join_facts, facts))[0]
        mean = total / self.shape[0] if centred else 0.0
        return float(max(abs(low - mean), abs(high - mean)))

    def _is_penalised(self, image: NVector, w: NVector, unit: float) -> bool:
        if not self.w.size:
            return False
        return any(self._compute(task(_tuple, *(task(_is_penalised, *each, unit) for each in zip(image.parts, self.targets, strict=True))))[0])

    # -- the point --------------------------------------------------------------------------------------------

    def _evaluate(self, trials: list[Any], out: NVector) -> Point:
        raw, (kept,) = self._compute(self._point_of(trials), trials)
        out.parts = [Field(each, 0) for each in kept]
        return Point(np.array(raw))

    def _moved(self, a: NVector, da: Any, t: float) -> list[Any]:
        steps = da.parts if da.size else [EMPTY] * len(self.chunks)
        return [task(_trial, self.link, part, step, t) for part, step in zip(a.parts, steps, strict=True)]

    def evaluate(self, a: NVector, da: Any = EMPTY, t: float = 0.0, out: NVector | None = None) -> Point:
        self.evaluations += 1
        return self._evaluate(self._moved(a, da, t), a if out is None else out)

    def project(self, x: Vector) -> Point:
        self.count += 1
        self.evaluations += 1
        return self._evaluate([task(_project, chunk, x, self.link) for chunk in self.chunks], self.a)

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        """The gradient in a second read, but the same round trip."""
        self.evaluations += 1
        return self._look_ahead([task(_project, chunk, x, self.link) for chunk in self.chunks], self.a, None, False)[:2]

    def look_ahead(self, a: NVector, p: Vector, da: NVector, out: NVector) -> Point:
        """Also the derivatives there, on the assumption that the trial is accepted: in the same round trip."""
        self.evaluations += 1
        self._steps += 1
        assert self._iterate is not None
        is_renewed = self._steps % RENEWED_EVERY == 0
        x, step = self._iterate.x.copy(), p.copy()
        parts = [None] * len(self.chunks) if is_renewed else a.parts
        trials = [task(_look, chunk, part, x, step, self.link) for chunk, part in zip(self.chunks, parts, strict=True)]
        point, _, sums = self._look_ahead(trials, out, da, True)
        self._ahead = (point, sums) if point.fun < np.inf else None
        self.count += is_renewed
        return point

    def _look_ahead(self, trials: list[Any], out: NVector, da: NVector | None, with_gram: bool) -> tuple[Point, Derivatives | None, Any]:
        self.count += 2
        point = self._point_of(trials)
        sums = self._differentiated([Field(each, 0) for each in trials], point, with_gram)
        (raw, sums), (kept,) = self._compute(task(_tuple, point, sums), trials)
        out.parts = [Field(each, 0) for each in kept]
        if da is not None:
            da.parts = [Field(each, 1) for each in kept]
        return Point(np.array(raw)), None if sums is None else _first(sums), sums

    # -- sums over rows ---------------------------------------------------------------------------------------

    def products(self, x: Vector, out: NVector) -> None:
        self.count += 1
        (kept,) = self._keep([[task(_product, chunk, np.array(x, dtype=float), self.link) for chunk in self.chunks]])
        out.parts = [Field(each, 0) for each in kept]

    def _parts(self, vector: Any) -> list[Any]:
        """The parts of an n-vector of ours or of the caller's."""
        return vector.parts if isinstance(vector, Pieces) else self._split(vector)

    def transposed(self, y: Any) -> Vector:
        self.count += 1
        return self._sum([task(_transposed, *each, self.link) for each in zip(self.chunks, self._parts(y), strict=True)])[0]

    def weighed(self, D: Any, p: Vector) -> Vector:
        """A^T (D * A p)."""
        self.count += 1
        return self._sum([task(_weighed, *each, p, self.link) for each in zip(self.chunks, self._parts(D), strict=True)])[0]

    def column_scale(self, names: Names = None) -> Vector:
        """Also refuses such entries of b and w."""
        self.count += 1
        measured = [task(_measure, chunk, self.link) for chunk in self.chunks]
        squares = tree(_add, [Field(each, 0) for each in measured])
        largest = tree(_largest, [Field(each, 1) for each in measured])
        b, w = (task(_join_facts, [task(_facts, part) for part in vector.parts]) for vector in (self.b, self.w if self.w.size else self.b))
        ((squares,), (largest,), self._facts_of_b, of_w), _ = self._compute(task(_tuple, squares, largest, b, w))
        self._check("b", self.b, self._facts_of_b, -np.inf)
        if self.w.size:
            self._check("w", self.w, of_w, 0.0)
        scale = np.empty(self.shape[1])
        column = passes.finish_columns(np.stack([squares, largest]), self.shape[0], inputs.LARGEST_ENTRY, scale)
        if column >= 0:
            self._refuse(f"A[{{}}, {column}]", [task(_bad_of_column, chunk, column) for chunk in self.chunks], "entries must be at most 1e+150")
        return scale

    def _check(self, name: str, vector: NVector, facts: Facts, least: float) -> None:
        """Refuse a vector as one in memory would be."""
        low, high, total, _ = facts
        if not (max(abs(low), abs(high)) <= inputs.LARGEST_ENTRY and np.isfinite(total) and low >= least):
            what = "weights must be at least 0" if low < least else "entries must be finite, and at most 1e+150"
            self._refuse(f"{name}[{{}}]", [task(_bad, part, least) for part in vector.parts], what)

    def _refuse(self, place: str, tasks: list[Any], what: str) -> None:
        found = self._compute(task(_tuple, *tasks))[0]
        chunk, bad = next((k, each) for k, each in enumerate(found) if each is not None)
        row = self.firsts[chunk] + bad.row
        raise ValueError(f"{place.format(row)} is {bad.value}, in row {bad.row} of chunk {chunk}; {what}: remove or fill such rows")

    def gradient(self, a: NVector, point: Point) -> Derivatives:
        self.count += 1
        return _first(self._compute(self._differentiated(a.parts, point.raw, False))[0])

    def hessian(self, a: NVector, point: Point) -> tuple[Derivatives, Matrix]:
        if self._ahead is not None and self._ahead[0].identity == point.identity:
            sums = self._ahead[1]
        else:
            self.count += 1
            sums = self._compute(self._differentiated(a.parts, point.raw, True))[0]
        first = _first(sums)
        return first, sums[1] - first.rank_2()

    def curvature(self, a: NVector, point: Point, p: Vector, da: Any) -> Vector:
        self.count += 1
        each = zip(self.chunks, a.parts, self.targets, strict=True)
        tasks = [task(_curvature, chunk, part, target, point.raw, np.array(p), self.link) for chunk, part, target in each]
        (total,), (kept,) = self._compute(tree(_add, [task(_tuple_item, one, 0) for one in tasks]), tasks if da.size else [])
        if da.size:
            da.parts = [Field(one, 1) for one in kept]
        return np.array(total)

    def weighted_gram(self, h: Any) -> Matrix:
        self.count += 1
        return self._sum([task(_gram, *each, self.link) for each in zip(self.chunks, self._parts(h), strict=True)])[0]

    def gram(self) -> Matrix:
        self.count += 1
        return self._sum([task(_gram, chunk, None, self.link) for chunk in self.chunks])[0]

    def use_mixed(self) -> None:
        raise ValueError("precision is 'mixed', which is for dense A in memory; pass precision='double'")

    def diagonal(self, a: NVector, point: Point) -> NVector:
        D = self.empty()
        each = zip(a.parts, self.targets, strict=True)
        (D.parts,) = self._keep([[task(_diagonal, part, target, point.raw, self.link) for part, target in each]])
        return D

    def predictions(self, a: NVector, point: Point) -> tuple[NVector, NVector]:
        (kept,) = self._keep([[task(_predictions, part, point.raw, self.link) for part in a.parts]])
        f, v = self.empty(), self.empty()
        f.parts, v.parts = ([Field(each, k) for each in kept] for k in range(2))
        return f, v

    # -- the solver's iteration -------------------------------------------------------------------------------

    def workspace(self, hessian: bool = True) -> Any:
        """The part of a workspace that `advance` reads."""
        return SimpleNamespace(link=self.link, a=self.empty(), point=np.zeros(records.POINT_ROOM), sums=None)

    def alloc_iterate(self, exact: bool) -> iteration.Iterate:
        *a, da = (self.empty() for _ in range(4))
        self._iterate = iteration.alloc_iterate.py_func(0, self.shape[1], False)._replace(a=a, da=da, plane_sums=np.empty((1, PLANE)))
        return self._iterate

    def advance(self, *args: Any) -> int:
        """`fastrsx.kernels.newton.verdict.advance`, interpreted: it handles scalars, and each loss is a round trip."""
        return int(self._advance(*args))

    def _evaluate_into(self, link: Any, a: NVector, da: Any, t: float, b: Any, w: Any, out: NVector, sums: Any, point: Vector) -> float:
        there = self._evaluate(self._moved(a, da, t), out)
        point[:] = there.raw
        return there.fun

    def _evaluate_plane_into(self, link: Any, at: Any, y: Vector, b: Any, w: Any, out: NVector, sums: Any, point: Vector) -> float:
        """Also the derivatives there, which the search takes next, in the same round trip."""
        each = zip(at.here.parts, at.da.parts, at.before.parts, strict=True)
        trials = [task(_combination, *parts, y.copy(), self.link) for parts in each]
        there = self._point_of(trials)
        derivatives = self._plane_sums(at, [Field(trial, 0) for trial in trials], there)
        (raw, plane_sums), (kept,) = self._compute(task(_tuple, there, derivatives), trials)
        out.parts = [Field(trial, 0) for trial in kept]
        point[:] = raw
        self._plane_ahead = Point(point.copy()).identity, None if plane_sums is None else plane_sums[0]
        return float(point[-1])

    def _plane_derivatives_into(self, link: Any, at: Any, a: NVector, b: Any, w: Any, point: Vector, sums: Matrix) -> None:
        identity, found = self._plane_ahead
        if found is None or identity != Point(point).identity:
            found = self._sum_of(self._plane_sums(at, a.parts, point.copy()))[0]
        sums[0] = found

    def _plane_sums(self, at: Any, a: list[Any], point: Any) -> Any:
        """The sums of `plane_derivatives` at a, a task."""
        each = zip(at.here.parts, at.da.parts, at.before.parts, a, self.targets, strict=True)
        return tree(_add, [task(_plane_sums, *parts, point, self.link) for parts in each])


def _item(value: Any) -> Any:
    return value


def _tuple_item(value: Any, index: int) -> Any:
    return value[index]


def _first(sums: list[Matrix]) -> Derivatives:
    return Derivatives(*np.array(sums[0]))
