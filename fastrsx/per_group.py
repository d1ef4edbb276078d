"""Groups of a Problem's rows, and sums over them, for the analysis of a solution."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .inputs import Matrix, Vector
from .loading import chunks
from .problem import Problem, one_group


def offsets_of(problem: Problem) -> Any:
    """Where groups start and end."""
    return (problem._groups or one_group(len(problem.b))).offsets


def groups_of_rows(problem: Problem) -> npt.NDArray[np.int64]:
    """The number of the group of each row."""
    sizes = np.diff(offsets_of(problem))
    return np.repeat(np.arange(len(sizes)), sizes)


def sums_over_groups(problem: Problem, y: Vector) -> Matrix:
    """A_t^T y_t of each group t, groups x d."""
    groups = groups_of_rows(problem)
    sums = np.zeros((groups[-1] + 1, problem.A.shape[1]))
    for which, rows in chunks(problem.A):
        starts = np.flatnonzero(np.diff(groups[which], prepend=-1))
        sums[groups[which][starts]] += np.add.reduceat(y[which, None] * rows, starts)
    return sums
