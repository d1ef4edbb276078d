"""Linearly dependent columns of A: their null space, and the solution of least norm."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import lstsq, qr, svd

from .inputs import Matrix, Vector
from .loading import CHUNK, chunks
from .system import cluster

Centre = Vector | float | Callable[[Any], Matrix]


def null_space(A: Any, scale: Vector, centre: Centre = 0.0, condition: float = 1.0) -> Matrix:
    """An orthonormal basis, d x k, of the null space of (A - centre) diag(1/scale); k = 0 where that has full column rank.

    Parameters
    ----------
    A : (n, d) array
    scale : (d,) array
        The RMS of the columns, 1 for a zero column.
    centre : (d,) array, float or function, optional
        Taken from every row; a function gives what to take from a range of rows, or for an A of dask, given the scale, the R of the rest.
    condition : float, optional
        The error of each entry of A, in eps of its largest entry.

    Examples
    --------
    >>> import numpy as np
    >>> np.abs(null_space(np.ones((5, 2)), np.ones(2))).round(6).tolist()
    [[0.707107], [0.707107]]
    """
    _, singular, Vt = svd(triangular_factor(A, scale, centre), full_matrices=True)
    rank = np.count_nonzero(singular > condition * tolerance(singular, A.shape))
    return np.ascontiguousarray(Vt[rank:].T)


def triangular_factor(A: Any, scale: Vector | float = 1.0, centre: Centre = 0.0) -> Matrix:
    """The R of (A - centre) diag(1/scale) = Q R, min(n, d) x d, by QR of one chunk of rows after another.

    A Gram matrix would treat columns that differ by 1e-8 as equal.
    """
    if cluster.is_collection(A):
        if callable(centre):
            return centre(scale)
        return np.asarray(cluster.folded(A, triangular_factor, joined_factor, scale, centre))
    d = A.shape[1]
    R = np.empty((0, d))
    for which, rows in chunks(A, max(CHUNK, 4 * d)):
        R = joined_factor([R, (rows - (centre(which) if callable(centre) else centre)) / scale])
    return R


def joined_factor(parts: list[Matrix]) -> Matrix:
    """The R of matrices below each other."""
    (R,) = qr(np.vstack(parts), mode="r", overwrite_a=True)
    return np.asarray(R[: R.shape[1]])


def tolerance(singular: Vector, shape: tuple[int, ...]) -> float:
    """Singular values up to it are rounding."""
    return max(shape) * float(np.finfo(float).eps) * float(singular[0])


def least_norm(x: Vector, null: Matrix, scale: Vector) -> Vector:
    """A+ (A x): of all x + N t, N = null / scale, the one of least norm in the caller's own columns.

    Examples
    --------
    >>> import numpy as np
    >>> least_norm(np.array([3.0, 0.0]), null_space(np.ones((5, 2)), np.ones(2)), np.ones(2)).round(12).tolist()
    [1.5, 1.5]
    """
    if not null.size:
        return x
    # Scales may differ by more than float64 holds, and x be as large: only quotients are formed.
    basis, size = null * (scale.min() / scale)[:, None], np.abs(x).max()
    return x - basis @ (lstsq(basis, x / size)[0] * size) if size > 0 else x
