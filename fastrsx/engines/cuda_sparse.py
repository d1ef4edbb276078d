"""Passes over a sparse A that lies on a GPU: those of a dense one, but a read of rows and one of columns in the place of a read for both."""

from typing import Any

import numpy as np

from fastrsx.kernels.gpu import passes as kernels

from ..inputs import Matrix, Vector
from .contract import Derivatives, Point, rank_2
from .cuda import CudaPasses, DeviceVector, on_its_gpu


@on_its_gpu
class SparseCudaPasses(CudaPasses):
    """No Gram matrix is formed: that of a few columns comes from as many products."""

    def _alloc_work(self, link: Any) -> Any:
        return kernels.alloc_sparse_workspace(self.source, link, self._rooms.stream, self._rooms.new)

    def look_ahead(self, a: DeviceVector, p: Vector, da: DeviceVector, out: DeviceVector) -> Point:
        self.products(p, da)
        return self.evaluate(a, da, 1.0, out)

    def project_grad(self, x: Vector) -> tuple[Point, Derivatives | None]:
        point = self.project(x)
        return point, self.gradient(self.a, point) if point.fun < np.inf else None

    def curvature(self, a: DeviceVector, point: Point, p: Vector, da: DeviceVector) -> Vector:
        found = super().curvature(a, point, p, da)
        self.count += 1 if self.shape[1] <= kernels.WIDEST else 0  # two reads of any width
        return found

    def hessian(self, a: DeviceVector, point: Point) -> tuple[Derivatives, Matrix]:
        first = self.gradient(a, point)
        return first, 2 * self._gram_of(self.diagonal(a, point)) - rank_2(first.v, first.q)

    def _gram_of(self, h: DeviceVector) -> Matrix:
        """Column by column; the two halves are the same but for rounding."""
        d = self.shape[1]
        out = np.array([self.weighed(h, unit) for unit in np.eye(d)])
        return np.asarray((out + out.T) / 2)
