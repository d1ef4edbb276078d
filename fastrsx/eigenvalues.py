"""The smallest eigenvalue of a symmetric matrix, without the threads of a large LAPACK call.

OpenBLAS's workers keep spinning after it and compete with those of the kernels: for d = 128 that cost more than the whole solve.
"""

import numpy as np
from scipy.linalg import eigh_tridiagonal
from scipy.linalg.lapack import dsyevd

from fastrsx.kernels.layouts.panel import padded
from fastrsx.kernels.newton import cholesky
from fastrsx.kernels.registers.gram import packed_blocks
from fastrsx.kernels.registers.simd import LANES

from .inputs import Matrix, Vector

BY_LAPACK = 32  # columns; up to there it uses one thread
MOST_STEPS = 60
SETTLED = 1e-14


def shifted_factor(H: Matrix, shift: float) -> Matrix:
    """The upper triangle U of H + shift I = U^T U; the shift is raised until there is one."""
    d = len(H)
    wide = padded(d)
    U, minus_one, packed = np.empty((wide, wide)), np.full(cholesky.BLOCK, -1.0), np.empty((packed_blocks.py_func(wide), cholesky.BLOCK, LANES))
    while not cholesky.factor(H, shift, U, minus_one, packed) and shift < np.inf:
        shift = max(4 * shift, 1e-10 * float(np.abs(H).max()), 1e-300)
    return U


# Here, and in every proposed step, einsum replaces BLAS.


def combine(y: Vector, rows: Matrix) -> Vector:
    """y^T rows."""
    return np.asarray(np.einsum("i,ij->j", y, rows))


def orthogonal(direction: Vector, basis: Matrix) -> Vector:
    """The part of a direction that is orthogonal to orthonormal rows."""
    for _ in range(2):  # again, for the digits that cancelled
        direction = direction - combine(np.einsum("ij,j->i", basis, direction), basis)
    return direction


def solve(U: Matrix, y: Vector) -> Vector:
    """y <- (U^T U)^-1 y."""
    cholesky.solve_transposed(U, y)
    cholesky.solve_upper(U, y)
    return y


def smallest(H: Matrix) -> float:
    """The smallest eigenvalue of H; large H by Lanczos's method on (H + shift I)^-1, whose largest eigenvalue converges fast.

    Examples
    --------
    >>> import numpy as np
    >>> round(smallest(np.diag(np.arange(-1.0, 99.0))), 9)
    -1.0
    """
    d = len(H)
    if d <= BY_LAPACK:
        return float(dsyevd(H.T, compute_v=0)[0][0])
    U = shifted_factor(H, 0.0)
    basis = np.empty((min(d, MOST_STEPS), d))
    on, beside = [], []  # the diagonals of the tridiagonal matrix of (H + shift I)^-1 in this basis
    direction, largest = np.random.default_rng(0).standard_normal(d), 0.0
    for k in range(len(basis)):
        direction = orthogonal(direction, basis[:k])
        length = float(np.linalg.norm(direction))
        if not length > 0:
            break
        basis[k] = direction / length
        direction = solve(U, basis[k].copy())
        on.append(float(basis[k] @ direction))
        beside.append(length)
        before = largest
        values, vectors = eigh_tridiagonal(on, beside[1:], select="i", select_range=(k, k))
        largest = float(values[0])
        if largest - before <= SETTLED * largest:
            break
    ritz = combine(vectors[:, 0], basis[: len(on)])
    return float(np.einsum("i,ij,j->", ritz, H, ritz) / np.einsum("i,i->", ritz, ritz))
