"""The kernels for A (n x d, C-ordered, float64 or float32) in memory: the fold over blocks, in parallel; each has a `_serial` twin.

Public: `value`, `value_grad`, `value_grad_hess`, `hess_vec`, `factors` and `weighted_gram`, with the arguments: data (A), x, b, w,
outputs, workspace. They can be called from Python and from your own @njit code, release the GIL, write nothing but
their outputs and the workspace, and allocate nothing. They check nothing: see `fastrsx.Problem` for that. An empty w
means none. They are built from the passes in cpu/passes.py.

>>> import numpy as np
>>> from fastrsx.kernels import dense
>>> A, b, w = np.eye(3, 2), np.full(3, 1 / 3), np.empty(0)
>>> work = dense.alloc_workspace(3, 2, False)
>>> grad = np.empty(2)
>>> round(dense.value_grad_serial(A, np.array([0.5, 0.0]), b, w, grad, work), 6)
0.05111
"""

import numpy as np

from .compiling.jit import serial, serial_twin
from .cpu.blocks import Workspace, alloc_sparse_workspace, alloc_wide_workspace, alloc_workspace, scratch_of, workspace_size
from .cpu.passes import (
    LEAST_ENTRY,
    UNSEEN,
    columns,
    curvature,
    derivatives,
    diagonal,
    finish_hessian,
    gradient,
    predictions_serial,
    products,
    products_serial,
    project,
    project_grad,
    weigh_gram,
)
from .cpu.rows import cancels, finish_hess_vec
from .formulas import records

__all__ = [
    "LEAST_ENTRY",
    "UNSEEN",
    "Workspace",
    "alloc_sparse_workspace",
    "alloc_wide_workspace",
    "alloc_workspace",
    "columns",
    "factors",
    "factors_serial",
    "hess_vec",
    "hess_vec_serial",
    "predictions_serial",
    "products",
    "products_serial",
    "value",
    "value_grad",
    "value_grad_hess",
    "value_grad_hess_serial",
    "value_grad_serial",
    "value_serial",
    "weighted_gram",
    "weighted_gram_serial",
    "workspace_size",
]


@serial
def value(A, x, b, w, work):
    """L(x); leaves a = A x and the point in the workspace."""
    return project(work.link, A, x, b, w, work.a, work.sums, work.point, work.buffers)


value_serial = serial_twin(value)


@serial
def value_grad(A, x, b, w, grad, work):
    """L(x), and its gradient into grad (d); NaN where alpha <= 0. One pass; near an exact fit, where the one-pass form cancels, two."""
    fun = project_grad(work.link, A, x, b, w, work.a, work.point, scratch_of(work))
    if not fun < np.inf:
        grad[:] = np.nan
        return fun
    if cancels(work.point, work.vectors):
        gradient(work.link, A, work.a, b, w, work.point, scratch_of(work))
    for j in range(grad.shape[0]):
        grad[j] = work.vectors[0, records.R, j]
    return fun


value_grad_serial = serial_twin(value_grad)


@serial
def value_grad_hess(A, x, b, w, grad, hess, work):
    """L(x), its gradient into grad (d) and its Hessian into hess (d x d); NaN where alpha <= 0."""
    fun = value(A, x, b, w, work)
    if not fun < np.inf:
        grad[:] = np.nan
        hess[:] = np.nan
        return fun
    derivatives(work.link, A, work.a, b, w, work.point, work.gram, scratch_of(work))
    for j in range(grad.shape[0]):
        grad[j] = work.vectors[0, records.R, j]
    finish_hessian(work.gram, work.vectors, hess)
    return fun


value_grad_hess_serial = serial_twin(value_grad_hess)


@serial
def hess_vec(A, x, b, w, p, out, work):
    """L(x), and Hess(x) p into out (d); NaN where alpha <= 0."""
    fun = value_grad(A, x, b, w, out, work)
    if fun < np.inf:
        curvature(work.link, A, p, work.a, b, w, work.point, work.a[:0], scratch_of(work))
        finish_hess_vec(work.vectors[0, records.V], work.vectors[0, records.Q], work.vectors[0, records.R], p, out)
    return fun


hess_vec_serial = serial_twin(hess_vec)


@serial
def factors(A, x, b, w, D, V, work):
    """L(x), D (n) and the rows A^T v/alpha, A^T q/alpha of V (2 x d): Hess = 2 (A^T diag(D) A - V[0] V[1]^T - V[1] V[0]^T)."""
    fun = value_grad(A, x, b, w, V[0], work)
    if not fun < np.inf:
        D[:] = np.nan
        V[:] = np.nan
        return fun
    for j in range(V.shape[1]):
        V[0, j] = work.vectors[0, records.V, j]
        V[1, j] = work.vectors[0, records.Q, j]
    diagonal(work.link, work.a, b, w, work.point, D, work.weights)
    return fun


factors_serial = serial_twin(factors)


@serial
def weighted_gram(A, h, out, work):
    """out (d x d) = A^T diag(h) A for weights h (n) of any sign."""
    weigh_gram(work.link, A, h, work.gram, work.a, work.point, scratch_of(work))
    finish_hessian(work.gram, work.vectors, out)


weighted_gram_serial = serial_twin(weighted_gram)
