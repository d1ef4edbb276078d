"""The d x d work of a small problem on one thread of a GPU: the source of newton/trust_region.py and newton/dependence.py, for numbers."""

import functools
import math

from numba.core.dispatcher import Dispatcher

from ..compiling.jit import rebuilt
from ..formulas import finish
from ..newton import cholesky, dependence, trust_region
from ..newton.cholesky import EPS
from .block import cuda, device
from .scalar import scalar

function = cuda.jit(device=True)  # compiled by itself, since Numba takes a minute for the kernel if all of this is written into it


@device
def dot(x, y, start):
    """<x, y> from index `start` on."""
    total = 0.0
    for j in range(start, x.shape[0]):
        total += x[j] * y[j]
    return total


@device
def add_multiple(y, multiple, x, start):
    """y += multiple x, from index `start` on."""
    for j in range(start, y.shape[0]):
        y[j] += multiple * x[j]


@function
def factor(H, lam, U, minus_one, packed):
    """`cholesky.factor` for a matrix that is one block of it: there the update is the micro-kernel's, in registers of eight numbers."""
    d = H.shape[0]
    for i in range(d):
        pivot = H[i, i] + lam
        for r in range(i):
            pivot -= U[r, i] * U[r, i]
        if not pivot > d * EPS * (abs(H[i, i]) + lam):
            return False
        scale = 1.0 / math.sqrt(pivot)
        U[i, i] = pivot * scale
        for j in range(i + 1, d):
            entry = H[i, j]
            for r in range(i):
                entry -= U[r, i] * U[r, j]
            U[i, j] = entry * scale
    return True


_MEANINGS = {cholesky.dot: dot, cholesky.add_multiple: add_multiple, cholesky.factor: factor, finish.rank_2: scalar(finish.rank_2)}


@functools.cache
def called(dispatcher):
    """A function of numbers, as a function of one thread: the same source."""
    if dispatcher in _MEANINGS:
        return _MEANINGS[dispatcher]
    func = dispatcher.py_func
    found = {name: func.__globals__[name] for name in func.__code__.co_names if name in func.__globals__}
    return function(rebuilt(func, {name: called(value) for name, value in found.items() if isinstance(value, Dispatcher)}))


step_within, independence_within = called(trust_region.step_within), called(dependence.independence_within)
saturation = called(trust_region.saturation)


@function
def newton_step(H, gram, g, pivot_most, U, p):
    """p <- -H^-1 g by U^T U = H: the step of lanes.newton_step. Returns whether all pivots exceed that part of the Gram matrix's diagonal,
    the promised decrease, and ||p||.
    """
    d, decrease, squares = g.shape[0], 0.0, 0.0
    for i in range(d):
        pivot = H[i, i]
        for r in range(i):
            pivot -= U[r, i] * U[r, i]
        if not pivot > pivot_most * gram[i]:
            return False, 0.0, 0.0
        root, z = 1.0 / math.sqrt(pivot), -g[i]
        U[i, i] = root  # of the factor, the inverse
        for j in range(i + 1, d):
            entry = H[i, j]
            for r in range(i):
                entry -= U[r, i] * U[r, j]
            U[i, j] = entry * root
        for r in range(i):
            z -= U[r, i] * p[r]
        p[i] = z * root
        decrease += p[i] * p[i]
    for i in range(d - 1, -1, -1):
        z = p[i]
        for j in range(i + 1, d):
            z -= U[i, j] * p[j]
        p[i] = z * U[i, i]
        squares += p[i] * p[i]
    return True, 0.5 * decrease, math.sqrt(squares)
