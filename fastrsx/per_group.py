"""Groups of a Problem's rows, and sums over them, for the analysis of a solution."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .grouping import sums_in_groups
from .inputs import Matrix, Vector
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
    return sums_in_groups(problem.A, offsets_of(problem), y)
