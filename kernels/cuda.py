"""The kernels for A on a GPU, with the names, arguments and formulas of dense.py.

Arrays are on the device, vectors contiguous and float64 or float32; A is that, float16 or bfloat16, with any strides, or sparse: a `Csr` of
gpu/sparse.py, with a workspace of `alloc_sparse_workspace`, and without value_grad_hess and weighted_gram. Kernels are queued on the stream of the
workspace; functions that return a number wait. There are no atomic additions, and blocks depend on n and d alone: a result has the same bits every
time.
"""

import math

from .cpu.rows import cancels
from .gpu.block import cuda as cuda
from .gpu.block import why_unavailable as why_unavailable
from .gpu.merge import finish_hess_vec
from .gpu.passes import Workspace as Workspace
from .gpu.passes import alloc_sparse_workspace as alloc_sparse_workspace
from .gpu.passes import alloc_workspace as alloc_workspace
from .gpu.passes import (
    derivatives,
    diagonal,
    fetch,
    fill,
    finish_hessian,
    fold_curvature,
    gradient,
    is_sparse,
    launch,
    project,
    project_grad,
    weigh_gram,
)
from .gpu.share import WIDEST


def value(A, x, b, w, work):
    """L(x); leaves a = A x and the point in the workspace."""
    project(A, x, b, w, work)
    return float(fetch(work.point, work)[0].fun)


def value_grad(A, x, b, w, grad, work):
    """L(x), and its gradient into grad (d); NaN where alpha <= 0. One pass, two near an exact fit, of more than WIDEST columns or sparse."""
    is_fused = A.shape[1] <= WIDEST and not is_sparse(A)
    (project_grad if is_fused else project)(A, x, b, w, work)
    point = fetch(work.point, work)
    fun = float(point[0].fun)
    if not fun < math.inf:
        fill(grad, work)
        return fun
    if not is_fused or cancels(point.view(float), fetch(work.combined, work)[None]):
        gradient(A, work.a, b, w, work.point, work.h[:0], work)
    grad.copy_to_device(work.combined[2], stream=work.stream)
    return fun


def value_grad_hess(A, x, b, w, grad, hess, work):
    """L(x), its gradient into grad (d) and its Hessian into hess (d x d); NaN where alpha <= 0. Two reads of A, three without tensor cores."""
    fun = value(A, x, b, w, work)
    if not fun < math.inf:
        fill(grad, work)
        fill(hess, work)
        return fun
    derivatives(A, work.a, b, w, work.point, work)
    grad.copy_to_device(work.combined[2], stream=work.stream)
    finish_hessian(hess, work)
    return fun


def hess_vec(A, x, b, w, p, out, work):
    """L(x), and Hess(x) p into out (d); NaN where alpha <= 0."""
    fun = value_grad(A, x, b, w, out, work)
    if fun < math.inf:
        fold_curvature(A, p, work.a, b, w, work.point, work.h[:0], work)
        launch(finish_hess_vec, A.shape[1], work, work.vectors, work.combined, p, out)
    return fun


def factors(A, x, b, w, D, V, work):
    """L(x), D (n) and the rows A^T v/alpha, A^T q/alpha of V (2 x d): Hess = 2 (A^T diag(D) A - V[0] V[1]^T - V[1] V[0]^T)."""
    fun = value_grad(A, x, b, w, V[0], work)
    if not fun < math.inf:
        fill(D, work)
        fill(V, work)
        return fun
    V.copy_to_device(work.combined[:2], stream=work.stream)
    diagonal(work.a, b, w, work.point, D, work)
    return fun


def weighted_gram(A, h, out, work):
    """out (d x d) = A^T diag(h) A for weights h (n) of any sign."""
    fill(work.combined, work, 0.0)
    weigh_gram(A, h, work)
    finish_hessian(out, work)
