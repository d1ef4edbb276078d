"""A larger than memory: read from disk in chunks, the next while the kernels work on one."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from mmap import ALLOCATIONGRANULARITY
from typing import Any

import numpy as np

from fastrsx.kernels.layouts.panel import ROWS

from ..inputs import Matrix, Vector
from ..loading import Data, Recast
from ..planning import Plan
from ..system.memory import room_for
from .parts import PartsPasses

CHUNK_BYTES = 2**24  # large enough for the disk, and for threads to start
BUFFERS = 4  # chunks that are resident: one is worked on, the others are read ahead, so that neither side waits for slow moments of the other


class Chunks:
    """The rows of A in C-ordered chunks, whose size depends on the number of columns alone; iterate to read them once.

    A C-ordered map is read from its file and not through the map, whose pages would stay resident. Anything else is copied through it.
    The rows of a `Recast` A are read likewise, and then multiplied.
    """

    def __init__(self, A: np.memmap[Any, Any] | Recast) -> None:
        self.A, (n, d) = A, A.shape
        dtype = np.float32 if A.dtype == np.float32 else np.float64
        self.rows = min(n, max(ROWS, CHUNK_BYTES // (8 * d) // ROWS * ROWS))
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
    """The file of a C-ordered map and where A starts in it; None where the file cannot be read instead of the map."""
    if not A.flags.c_contiguous or not A.dtype.isnative or A.mode == "c" or not A.filename:
        return None
    mapped = np.frombuffer(A._mmap, dtype=np.uint8)  # type: ignore[attr-defined]
    return str(A.filename), A.offset // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY + A.ctypes.data - mapped.ctypes.data


class StreamedPasses(PartsPasses):
    """Passes that read A from disk, chunk by chunk."""

    def __init__(self, data: Data, b: Vector, w: Vector, plan: Plan, link: Any) -> None:
        self.chunks = Chunks(data.A)
        super().__init__(data, b, w, plan, link, self.chunks.buffers[0])

    def parts(self) -> Iterator[tuple[slice, Matrix]]:
        return iter(self.chunks)

    def bounds(self) -> Iterator[slice]:
        n, rows = self.shape[0], self.chunks.rows
        return (slice(start, min(start + rows, n)) for start in range(0, n, rows))
