"""H + lam I = U^T U, by panels of rows: the trailing update is the micro-kernel's Gram matrix with h = -1.

LAPACK's would do, but for its threads: OpenBLAS's workers keep spinning after each call and take the cores from
the passes over A. On two cores that doubled the time of a solve with d = 384.
"""

import math

import numpy as np

from ..compiling.jit import serial
from ..registers.gram import add_gram, pack
from ..registers.simd import LANES, fma, load_first, splat, store_first, sum_lanes, zeros

BLOCK = 32
EPS = float(np.finfo(np.float64).eps)


@serial
def dot(x, y, start):
    """<x, y> from index `start` on."""
    (total,) = zeros(1)
    for j in range(start, x.shape[0], LANES):
        count = x.shape[0] - j
        total = fma(load_first(x, 0, j, count), load_first(y, 0, j, count), total)
    return sum_lanes(total)


@serial
def add_multiple(y, multiple, x, start):
    """y += multiple x, from index `start` on."""
    factor = splat(multiple)
    for j in range(start, y.shape[0], LANES):
        count = y.shape[0] - j
        store_first(y, 0, j, count, fma(factor, load_first(x, 0, j, count), load_first(y, 0, j, count)))


@serial
def factor(H, lam, U, minus_one, packed):
    """The upper triangle of U (d x padded d, then padding rows); False where H + lam I is not positive definite in float64.

    `minus_one` holds BLOCK times -1, the weights of the update; `packed` is packed blocks x BLOCK x 8.
    """
    d = H.shape[0]
    U[:] = 0.0
    for i in range(d):
        for j in range(i, d):
            U[i, j] = H[i, j]
        U[i, i] += lam
    for start in range(0, d, BLOCK):
        stop = min(start + BLOCK, d)
        for i in range(start, stop):
            for r in range(start, i):
                add_multiple(U[i], -U[r, i], U[r], i)
            if not U[i, i] > d * EPS * (abs(H[i, i]) + lam):  # a pivot below that is rounding
                return False
            scale = 1.0 / math.sqrt(U[i, i])
            for j in range(i, d):
                U[i, j] *= scale
        if stop < d:
            rows = U[start:stop, stop:]
            pack(rows, minus_one, stop - start, packed)
            add_gram(packed, rows, stop - start, U[stop:, stop:], U, stop)
    return True


@serial
def solve_transposed(U, y):
    """y <- U^-T y."""
    d = y.shape[0]
    for i in range(d):
        y[i] /= U[i, i]
        add_multiple(y, -y[i], U[i, :d], i + 1)


@serial
def solve_upper(U, y):
    """y <- U^-1 y."""
    d = y.shape[0]
    for i in range(d - 1, -1, -1):
        y[i] = (y[i] - dot(U[i, :d], y, i + 1)) / U[i, i]
