"""Exact fits that no x attains: as a constant added to A x grows, f tends to the plain softmax of A x, which may be b."""

import numpy as np

from .eigenvalues import shifted_factor, solve
from .inputs import Vector
from .planning import REDUCED_UP_TO
from .problem import Problem

CONSTANT = 1e-6  # how far from 1 the image of a direction may be, as closely as columns of moderate condition give it
BETTER = 1e-3  # of the residual: the limit that fits b as much better is where the solve is going


def constant_direction(problem: Problem, residual: float) -> Vector | None:
    """The direction p with A p = 1, of scaled columns, where softmax(A x) = b for some x, to a thousandth of the residual ||f - b||; else None.

    softmax(A x) = b where log b lies in the range of A, up to a constant, which is in it too. For u = exp(a) + a then f(x + t p) tends to b.
    """
    passes, scale = problem._passes, problem._column_scale
    b = passes.to_host(passes.b)
    if not b.min() > 0 or len(scale) > REDUCED_UP_TO:  # then there is no room for a Gram matrix
        return None
    gram = passes.gram() / scale / scale[:, None]
    U = shifted_factor(gram, 0.0)

    def nearest(target: Vector) -> tuple[Vector, Vector]:
        """The p, of scaled columns, with A p nearest to the target, and what is left of that."""
        p, left, image = np.zeros(len(scale)), target, passes.empty()
        for _ in range(2):  # once more for what the condition took
            p += solve(U, passes.transposed(left) / scale)
            passes.products(p / scale, image)
            left = target - passes.to_host(image)
        return p, left

    direction, left = nearest(np.ones(len(b)))
    if not np.abs(left).max() <= CONSTANT:
        return None
    _, left = nearest(np.log(b))
    return direction if np.linalg.norm(b * left) <= BETTER * residual else None
