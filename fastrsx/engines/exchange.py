"""What crosses the bus between host and GPU: one record each way, in pinned memory, on one stream."""

from typing import Any

import numpy as np

from fastrsx.kernels.cpu.blocks import KINDS
from fastrsx.kernels.formulas import records

from ..inputs import Matrix, Vector
from .spare import Rooms

POINT = records.POINT_ROOM


class Mirror:
    """Numbers on the GPU, and room for them in pinned memory; parts are viewed once, since a view takes Python 30 us."""

    def __init__(self, size: int, rooms: Rooms) -> None:
        self.there, self.here = rooms.new(size), rooms.pinned(size)

    def part(self, start: int, stop: int) -> tuple[Any, Vector]:
        """The numbers start : stop on both sides."""
        return self.there[start:stop], self.here[start:stop]


class Exchange:
    """The record that a step sends, a d-vector; and the record that it gets: the point, the d-vectors and, with `hessian`, a Gram matrix."""

    def __init__(self, d: int, hessian: bool, rooms: Rooms) -> None:
        self.stream, self.is_sending = rooms.stream, True  # the last owner of its memory may not have waited
        self.sent = Mirror(d, rooms)
        first, last = POINT + KINDS * d, POINT + KINDS * d + (d * d if hessian else 0)
        got = Mirror(last, rooms)
        self.to_point, self.to_vectors = got.part(0, POINT), got.part(POINT, first)
        self.to_both, self.to_derivatives = got.part(0, first), got.part(POINT, last)
        self.point = self.to_point[0].view(records.POINT)
        self.vectors = self.to_vectors[0].reshape(KINDS, d)
        self.gram: Any = got.there[first:].reshape(d, d) if hessian else None
        self._gram_here: Any = got.here[first:].reshape(d, d) if hessian else None
        self._vectors_here = self.to_vectors[1].reshape(1, KINDS, d)

    def send(self, x: Vector) -> Any:
        """A d-vector on the GPU, until the next one."""
        if self.is_sending:  # the pinned memory is still read
            self.wait()
        self.sent.here[:] = x
        self.sent.there.copy_to_device(self.sent.here, stream=self.stream)
        self.is_sending = True
        return self.sent.there

    def wait(self) -> None:
        """Until all that is queued is done."""
        self.stream.synchronize()
        self.is_sending = False

    def get(self, part: tuple[Any, Vector]) -> Vector:
        """A part of the record on the host, until the next one: one copy and one wait."""
        there, here = part
        there.copy_to_host(here, stream=self.stream)
        self.wait()
        return here

    def get_point(self) -> Vector:
        """The numbers of the point, a copy."""
        return self.get(self.to_point).copy()

    def get_vectors(self) -> np.ndarray:
        """The d-vectors, as `derivatives_in` takes them, until the next record."""
        self.get(self.to_vectors)
        return self._vectors_here

    def get_both(self) -> tuple[Vector, np.ndarray]:
        """The point and the d-vectors."""
        return self.get(self.to_both)[:POINT].copy(), self._vectors_here

    def get_derivatives(self) -> tuple[np.ndarray, Matrix]:
        """The d-vectors, until the next record, and the Gram matrix, a copy."""
        self.get(self.to_derivatives)
        return self._vectors_here, np.array(self._gram_here)
