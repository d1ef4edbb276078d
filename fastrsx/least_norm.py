"""The solution of least norm where columns of A are linearly dependent."""

import numpy as np
from scipy.linalg import orth, qr, svd

from .inputs import Matrix, Vector

CHUNK = 4096  # rows at a time, or 4 d where that is more


def least_norm(A: Matrix, scale: Vector, x: Vector) -> Vector:
    """A+ (A x): x less its part in the null space of A.

    The null space is that of R in A diag(1/scale) = Q R, found by QR of one chunk of rows after another; its rank is
    decided in columns of unit RMS, the norm is that of the caller's own.

    Parameters
    ----------
    A : (n, d) array
    scale : (d,) array
        The RMS of the columns, 1 for a zero column.
    x : (d,) array

    Returns
    -------
    (d,) array
        x itself where A has full column rank.

    Examples
    --------
    >>> import numpy as np
    >>> least_norm(np.ones((5, 2)), np.ones(2), np.array([3.0, 0.0])).round(12).tolist()
    [1.5, 1.5]
    """
    n, d = A.shape
    R = np.empty((0, d))
    rows = max(CHUNK, 4 * d)
    for start in range(0, n, rows):
        (R,) = qr(np.vstack([R, A[start : start + rows] / scale]), mode="r", overwrite_a=True)
        R = R[:d]
    _, singular, Vt = svd(R, full_matrices=True)
    rank = int(np.count_nonzero(singular > max(n, d) * np.finfo(float).eps * singular[0])) if singular.size else 0
    if rank == d:
        return x
    null = orth(Vt[rank:].T / scale[:, None])
    return x - null @ (null.T @ x)
