"""Groups of a Problem's rows, and sums over them, for the analysis of a solution."""

import numpy as np
import numpy.typing as npt

from .grouping import sums_in_groups
from .inputs import Matrix, Vector
from .problem import Problem


def groups_of_rows(problem: Problem) -> npt.NDArray[np.int64]:
    """The number of the group of each row."""
    sizes = np.diff(problem._offsets)
    return np.repeat(np.arange(len(sizes)), sizes)


def sums_over_groups(problem: Problem, y: Vector) -> Matrix:
    """A_t^T y_t of each group t, groups x d."""
    return sums_in_groups(problem.A, problem._offsets, y)
