"""A larger than memory: read from disk in chunks, the next while the kernels work on one."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from mmap import ALLOCATIONGRANULARITY
from typing import Any

import numpy as np

from fastrsx.kernels import dense
from fastrsx.kernels.cpu import ahead, fold
from fastrsx.kernels.formulas.links import RSX
from fastrsx.kernels.layouts.panel import padded

from .. import inputs
from ..frames import Names
from ..inputs import Matrix, Vector
from ..loading import Data, Loader, Recast
from ..planning import ON_GPU, Plan
from ..system.memory import room_for
from .memory import EMPTY, Derivatives, Passes, Point

CHUNK_BYTES = 2**24  # large enough for the disk, and for threads to start
BUFFERS = 4  # chunks that are resident: one is worked on, the others are read ahead, so that neither side waits for slow moments of the other
ONE_PASS_UP_TO = 128  # columns; beyond, three Gram matrices take longer than another read: estimated from the disk and dgemm, not measured


class Chunks:
    """The rows of A in C-ordered chunks, whose size depends on the number of columns alone; iterate to read them once.

    A C-ordered map is read from its file and not through the map, whose pages would stay resident. Anything else is copied through it.
    Of a `Recast` A the rows are read likewise, and then multiplied.
    """

    def __init__(self, A: np.memmap[Any, Any] | Recast) -> None:
        self.A, (n, d) = A, A.shape
        dtype = np.float32 if A.dtype == np.float32 else np.float64
        rows = max(fold.ROWS, CHUNK_BYTES // (8 * d) // fold.ROWS * fold.ROWS)
        self.rows = min(rows, n)
        with room_for(f"reading A in chunks of {self.rows} rows", BUFFERS * self.rows * d):
            self.buffers = [np.empty((self.rows, d), dtype) for _ in range(BUFFERS)]
        stored = A.A if isinstance(A, Recast) else A
        self.place = file_place(stored) if isinstance(stored, np.memmap) and stored.dtype in (np.float32, np.float64) else None
        self.unchanged: Matrix | None = None  # a chunk as it is on disk
        if isinstance(A, Recast) and self.place is not None:
            self.unchanged, self.matrix = np.empty((self.rows, stored.shape[1]), stored.dtype), A.matrix

    def _read(self, start: int) -> Matrix:
        buffer = self.buffers[start // self.rows % BUFFERS][: min(self.rows, len(self.A) - start)]
        if self.place is None:
            np.copyto(buffer, self.A[start : start + len(buffer)])
        elif self.unchanged is None:
            self._read_from_file(start, buffer)
        else:
            stored = self.unchanged[: len(buffer)]
            self._read_from_file(start, stored)
            np.matmul(stored, self.matrix, out=buffer)
        return buffer

    def _read_from_file(self, start: int, buffer: Matrix) -> None:
        assert self.place is not None
        path, offset = self.place
        with open(path, "rb", buffering=0) as file:
            file.seek(offset + start * buffer[0].nbytes)
            view, done = memoryview(buffer).cast("B"), 0  # type: ignore[arg-type]
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise OSError(f"{path} ended at {file.tell()} bytes, while A has rows beyond; it was cut while it was read")
                done += count

    def __iter__(self) -> Iterator[tuple[slice, Matrix]]:
        starts = iter(range(0, len(self.A), self.rows))
        with ThreadPoolExecutor(1, "fastrsx-reader") as reader:
            coming = deque((start, reader.submit(self._read, start)) for start in islice(starts, BUFFERS - 1))
            while coming:
                start, reading = coming.popleft()
                chunk = reading.result()
                if (ahead := next(starts, None)) is not None:
                    coming.append((ahead, reader.submit(self._read, ahead)))
                yield slice(start, start + len(chunk)), chunk


def file_place(A: np.memmap[Any, Any]) -> tuple[str, int] | None:
    """The file of a C-ordered map and where A starts in it; None where the map is what holds A."""
    if not A.flags.c_contiguous or not A.dtype.isnative or A.mode == "c" or not A.filename:
        return None
    mapped = np.frombuffer(A._mmap, dtype=np.uint8)  # type: ignore[attr-defined]
    return str(A.filename), A.offset // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY + A.ctypes.data - mapped.ctypes.data


class StreamedPasses(Passes):
    """Passes that read A from disk, chunk by chunk, as if each were the whole.

    Sums over rows are sums over chunks; the order is fixed, so no bit depends on the number of threads.
    """

    def __init__(self, data: Data, b: Vector, w: Vector, plan: Plan, link: Any) -> None:
        self.chunks = Chunks(data.A)
        super().__init__(data._replace(source=inputs.read_only(self.chunks.buffers[0])), b, w, plan, link)
        first = self.chunks.buffers[0]
        self.part = Passes(Data(first, inputs.read_only(first), Loader("in place")), b[: len(first)], w[: len(first)], plan, link)
        self._ahead: tuple[np.ndarray, ...] | None = None  # the states of `kernels.cpu.ahead`
        self._ahead_of: tuple[float, ...] | None = None  # the point that they are at
        self._has_penalty = False  # whether they have A^T diag(w^2) A, which is summed once

    @property
    def is_plain(self) -> bool:
        return False

    def _alloc(self, n: int, d: int, link: Any) -> dense.Workspace:
        return dense.alloc_sparse_workspace.py_func(n, d, link)  # without panels: those are in the workspace of a part

    def workspace(self, hessian: bool = True) -> dense.Workspace:
        """Without Gram matrices: those are in the workspace of a part."""
        return self._work

    def _parts(self) -> Iterator[tuple[slice, Passes]]:
        """The passes of each chunk, in one read of A."""
        self.count += 1
        part = self.part
        for rows, chunk in self.chunks:
            part.source, part.b, part.w = inputs.read_only(chunk), self.b[rows], self.w[rows] if self.w.size else self.w
            part.shape = chunk.shape
            yield rows, part

    def products(self, x: Vector, out: Vector) -> None:
        for rows, part in self._parts():
            part.products(x, out[rows])

    def transposed(self, y: Vector) -> Vector:
        return np.asarray(sum(part.transposed(y[rows]) for rows, part in self._parts()))

    def project(self, x: Vector) -> Point:
        self.products(x, self.a)
        return self.evaluate(self.a)

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        """Two reads: the weights of one read cost more arithmetic, and only a Newton step repays it."""
        point = self.project(x)
        return point, self.gradient(self.a, point) if point.fun < np.inf else None

    def gradient(self, a: Vector, point: Point) -> Derivatives:
        return _sum(part.gradient(a[rows], point) for rows, part in self._parts())

    def curvature(self, a: Vector, point: Point, p: Vector, da: Vector = EMPTY) -> Vector:
        return np.asarray(sum(part.curvature(a[rows], point, p, da[rows] if da.size else da) for rows, part in self._parts()))

    def weighted_gram(self, h: Vector) -> Matrix:
        return np.asarray(sum(part.weighted_gram(h[rows]) for rows, part in self._parts()))

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
        bad = dense.finish_columns(sums, n, inputs.LARGEST_ENTRY, scale)
        if bad >= 0:
            inputs.refuse_column(self.data.A, bad, names)
        return scale

    def look_ahead(self, a: Vector, p: Vector, da: Vector, out: Vector, also: Callable[[Passes], None] | None = None) -> Point:
        """da = A p, out = a + da and the point there; and what `hessian` wants to know of it, in the same read, for few columns."""
        d = self.shape[1]
        if d > ONE_PASS_UP_TO:
            self.products(p, da)
            return self.evaluate(a, da, 1.0, out)
        sums, weights, vectors, grams = self._states()
        link = self._work.link
        matrices = 3 if self._has_penalty or not self.w.size else 4
        ahead.start_ahead(link, sums, vectors, grams[:, :matrices])
        for rows, part in self._parts():
            work = part._work
            given = (link, part.source, p, a[rows], part.b, part.w, matrices, da[rows], out[rows])
            self.run(ahead, "look_ahead", *given, sums, work.buffers, weights, work.packed, vectors, grams)
            if also is not None:
                also(part)
        self._has_penalty = True
        point = self.evaluate(a, da, 1.0, out)
        self._ahead_of = point.identity
        return point

    def _states(self) -> tuple[np.ndarray, ...]:
        if self._ahead is None:
            blocks, wide = len(self.part._work.sums), padded(self.shape[1])
            shapes = ((blocks, fold.SUMS), (blocks, ahead.WEIGHTS, fold.ROWS), (blocks, 4, wide), (blocks, 4, wide, wide))
            with room_for(f"the Hessian for d = {self.shape[1]}", sum(map(math.prod, shapes))):
                self._ahead = tuple(np.zeros(shape) for shape in shapes)
        return self._ahead

    def hessian(self, a: Vector, point: Point) -> tuple[Derivatives, Matrix]:
        """Without a read where `look_ahead` was here; but near an exact fit the gradient takes one, of c = f - b."""
        hess = np.empty((self.shape[1],) * 2)
        if self._ahead_of == point.identity:
            sums, _, vectors, grams = self._states()
            self._ahead_of = None  # finishing is done in place
            self.run(ahead, "finish_ahead", sums, point.raw, vectors, grams, hess)
            cancels = fold.cancels(point.raw, vectors)
            return self.gradient(a, point) if cancels else self.derivatives_in(vectors), hess
        firsts = []
        hess[:] = 0.0
        for rows, part in self._parts():
            first, gram = part.gram_at(a[rows], point)
            firsts.append(first)
            hess += gram
        first = _sum(firsts)
        outer = np.outer(first.v, first.q)
        return first, hess - 2 * (outer + outer.T)


def passes_over(data: Data, b: Vector, w: Vector, plan: Plan, link: Any = RSX) -> Passes:
    """The passes for data of any kind."""
    if data.loader.name in ON_GPU:
        from .cuda import CudaPasses

        return CudaPasses(data, b, w, plan, link)
    return (StreamedPasses if data.loader.name == "stream" else Passes)(data, b, w, plan, link)


def _sum(parts: Iterable[Derivatives]) -> Derivatives:
    grads, vs, qs = zip(*parts, strict=True)
    return Derivatives(np.sum(grads, axis=0), np.sum(vs, axis=0), np.sum(qs, axis=0))
