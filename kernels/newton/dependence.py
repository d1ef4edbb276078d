"""How nearly the columns of A depend on each other, from a few of its rows; and, for small A, an orthonormal basis of their span."""

import math

import numpy as np

from ..compiling.jit import part, serial

CONDITION = 20.0  # of scaled columns, from which an orthonormal basis pays: it takes up to half of the steps, below up to 1.4 times as many
ENOUGH = CONDITION**-2  # of the smallest eigenvalue of a Gram matrix of columns of unit RMS
DEPENDENT = 1e-12  # of the largest axis: a shorter one is rounding of A's entries and of sums
PROMISED = 1e8  # the condition up to which an x in float64 has the A x of the minimum to 1e-8
MISSED = 1e-6  # of the loss: an x whose loss exceeds the loss found by more has not reached it
EPS = float(np.finfo(np.float64).eps)

INVERSE_ITERATIONS = 4
MULTIPLIER, SHIFT, MASK = 2654435761, 16, 2**32 - 1  # Knuth's multiplicative hash: no period of the rows coincides with it


@serial
def row_drawn(k, count, n):
    """The row drawn from the k-th of `count` ranges of n rows."""
    start, stop = n * k // count, n * (k + 1) // count
    return start + ((k * MULTIPLIER & MASK) >> SHIFT) % (stop - start)


@serial
def rows_to_look_at(n, d):
    """How many rows: the smallest eigenvalue of their Gram matrix is then at least about a quarter of the one for all rows."""
    return min(n, 4 * d + 64)


@serial
def independence(A, d, scale):
    """The smallest eigenvalue of a Gram matrix of the columns, see `independence_within`."""
    return independence_within(A, d, scale, np.empty((d, d)), np.empty(d), np.empty(d))


@part
def independence_within(A, d, scale, L, row, z):
    """The smallest eigenvalue of G, from above, by inverse iteration; 0 where that is rounding.

    G is the Gram matrix of a few rows of A diag(1/scale), one drawn from each of as many ranges, divided by their number; A may have over d columns.
    The last three arguments are room for it.
    """
    n = A.shape[0]
    count = rows_to_look_at(n, d)
    L[:] = 0.0
    for k in range(count):
        i = row_drawn(k, count, n)
        for j in range(d):
            row[j] = A[i, j] / scale[j]
            for r in range(j + 1):
                L[j, r] += row[j] * row[r]
    for j in range(d):  # G = L L^T
        for r in range(j + 1):
            entry = L[j, r] / count
            for m in range(r):
                entry -= L[j, m] * L[r, m]
            if r < j:
                L[j, r] = entry / L[r, r]
            elif entry > d * EPS:
                L[j, j] = math.sqrt(entry)
            else:
                return 0.0
        z[j] = 1.0 + 0.1 * (j % 7)  # no symmetry that columns could share
    length = 0.0
    for _ in range(INVERSE_ITERATIONS):
        for j in range(d):
            for m in range(j):
                z[j] -= L[j, m] * z[m]
            z[j] /= L[j, j]
        squares = 0.0
        for j in range(d - 1, -1, -1):
            for m in range(j + 1, d):
                z[j] -= L[m, j] * z[m]
            z[j] /= L[j, j]
            squares += z[j] ** 2
        length = math.sqrt(squares)
        for j in range(d):
            z[j] /= length
    return 1.0 / length


@serial
def orthonormalise(P, d, scale, R):
    """P <- Q, and R, where the old P = Q R: columns of Q orthogonal and of mean square 1, R upper triangular (Gram and Schmidt, twice).

    A column that depends on those before it becomes 0, and so does its row of R. Returns the rough condition of the remaining scaled columns.
    """
    n, least = P.shape[0], 1.0
    R[:] = 0.0
    for j in range(d):
        for _ in range(2):
            for r in range(j):
                total = 0.0
                for i in range(n):
                    total += P[i, r] * P[i, j]
                R[r, j] += total / n
                for i in range(n):
                    P[i, j] -= total / n * P[i, r]
        squares = 0.0
        for i in range(n):
            squares += (P[i, j] / scale[j]) ** 2
        length = math.sqrt(squares / n)
        if length > DEPENDENT:
            least = min(least, length)
            R[j, j] = length * scale[j]
        for i in range(n):
            P[i, j] = P[i, j] / R[j, j] if length > DEPENDENT else 0.0
    return 1.0 / least


@serial
def solve_basis(R, z, x):
    """x <- R^-1 z; 0 where R has no row."""
    for j in range(x.shape[0] - 1, -1, -1):
        x[j] = z[j]
        for m in range(j + 1, x.shape[0]):
            x[j] -= R[j, m] * x[m]
        x[j] = x[j] / R[j, j] if R[j, j] > 0.0 else 0.0


@serial
def is_missed(fun, found, noise, condition, largest, norm_b):
    """Whether the loss at A x in float64 exceeds the loss found by more than the rounding of x explains; largest = max |A x|."""
    rounded = 64 * EPS * min(condition, PROMISED) * max(1.0, largest)  # of a, and of f by as much
    return not (fun < np.inf and fun - found <= MISSED * found + noise + (rounded * norm_b) ** 2)
