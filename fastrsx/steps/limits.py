"""Exact fits that no x attains: as a constant added to A x grows, f tends to the plain softmax of A x, which may be b."""

import math

import numpy as np
from scipy.special import wrightomega

from ..eigenvalues import shifted_factor, solve
from ..engines.contract import LARGEST_LOG
from ..inputs import Vector
from ..planning import REDUCED_UP_TO
from ..problem import Problem

CONSTANT = 1e-6  # how far from 1 the image of a direction may be: the accuracy that columns of moderate condition give
BETTER = 1e-3  # of the residual: a solve goes to the limit if that fits b so much better


def constant_direction(problem: Problem, residual: float, log_alpha: float) -> Vector | None:
    """The direction p with A p = 1, of scaled columns, where f tends to b along it to a thousandth of the residual ||f - b||; else None.

    softmax(A x) = b where log b lies in the range of A, up to a constant, which is in it too. For u = exp(a) + a then f(x + t p) tends to b.
    But where the a with u(a) = alpha b lies there too, as where b differs only between groups of equal rows, that is an exact fit.
    """
    passes, scale = problem._passes, problem._column_scale
    b = passes.to_host(passes.b)
    if not b.min() > 0 or len(scale) > REDUCED_UP_TO:  # then there is no room for a Gram matrix
        return None
    gram = passes.gram() / scale / scale[:, None]
    U = shifted_factor(gram, 0.0)

    def nearest(target: Vector) -> tuple[Vector, Vector]:
        """The p, of scaled columns, with A p nearest to the target, and the remainder of the target."""
        p, left, image = np.zeros(len(scale)), target, passes.empty()
        for _ in range(2):  # again, for the digits lost to the condition
            p += solve(U, passes.transposed(left) / scale)
            passes.products(p / scale, image)
            left = target - passes.to_host(image)
        return p, left

    direction, left = nearest(np.ones(len(b)))
    if not np.abs(left).max() <= CONSTANT:
        return None

    def is_fit(a: Vector, slope: Vector) -> bool:
        """Whether some A x near a has the f that a has; `slope` is df_i / da_i."""
        return bool(np.linalg.norm(slope * nearest(a)[1]) <= BETTER * residual)

    alpha = math.exp(min(log_alpha, LARGEST_LOG))
    exact = np.log(wrightomega(alpha * b))  # a + exp(a) = alpha b
    return direction if is_fit(np.log(b), b) and not is_fit(exact, np.exp(exact) / alpha + 1 / alpha) else None
