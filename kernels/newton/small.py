"""A whole solve in one call, for jitted code: `fastrsx.newton` with the exact Hessian on one thread."""

import math
from typing import NamedTuple

import numpy as np

from ..compiling.jit import serial
from ..cpu.ahead import no_sample
from ..cpu.blocks import Workspace, alloc_workspace
from ..cpu.passes import MOST_ENTRY, columns_serial, evaluate_serial, products_serial
from ..formulas.links import RSX
from ..formulas.records import as_point
from ..formulas.steps import noise
from ..layouts.panel import pack_rows, padded
from ..registers.narrow import NARROW
from ..registers.simd import read_only
from .cholesky import dot
from .dependence import ENOUGH, independence, is_missed, orthonormalise, solve_basis
from .iteration import ITERATE, RECORD, Iterate, Problem, alloc_iterate, as_iteration
from .passes import largest
from .verdict import GO_ON, NO_DESCENT, NONFINITE, advance_serial, verdict_at


class SmallWorkspace(NamedTuple):
    """The arrays that a small solve writes."""

    it: Iterate
    work: Workspace
    scale: np.ndarray  # d
    records: np.ndarray  # 1 x numbers of a step
    panel: np.ndarray  # n x padded d, or n x d where d is small: A as the passes read it
    b: np.ndarray  # n: b and w in float64
    w: np.ndarray  # n
    basis: np.ndarray  # d x d: R of A = Q R, where columns of A are nearly dependent and the panel has Q


class SmallResult(NamedTuple):
    """How a small solve ended: `status` is that of `fastrsx.Status`."""

    success: bool
    status: int
    fun: float
    nit: int
    nfev: int


# fastrsx.Status by verdict, in the order of verdicts: MAX_ITER where steps were too few, STALLED twice for cases that only `newton` examines,
# CONVERGED, EXACT_FIT, NO_MINIMISER twice, STALLED twice, NONFINITE.
STATUS = (2, 4, 4, 0, 1, 3, 3, 4, 4, 5)


@serial
def panel_columns(d):
    """The columns of the panel: panels of few columns are read as such."""
    return d if d <= NARROW else padded(d)


@serial
def fill_panel(A, panel):
    """The panel of all rows of A."""
    if panel.shape[1] > NARROW:
        pack_rows(A, 0, A.shape[0], panel)
    else:
        panel[:] = A


@serial
def alloc_small(n, d, link=RSX):
    """Room for `newton_small` on n x d data."""
    it, work = alloc_iterate(n, d, True), alloc_workspace(n, d, True, link)
    return SmallWorkspace(it, work, np.empty(d), np.empty((1, RECORD)), np.empty((n, panel_columns(d))), np.empty(n), np.empty(n), np.empty((d, d)))


@serial
def newton_small(A, x, b, w, tol, max_iter, small):
    """Minimise over x (d), in place, from the x given: `fastrsx.newton` with the exact Hessian in one call, on one thread.

    A, x, b and w are float64 or float32, and an empty w means none. Where columns of A are linearly dependent, x is one of the
    solutions; where they nearly are, steps are taken in an orthonormal basis. With a start outside the domain the status is NONFINITE.
    """
    it, work, scale = small.it, small.work, small.scale
    s = as_iteration(it.state)
    s.radius, s.now = 1.0, 0
    s.long_count = s.singular_count = s.idle_count = 0
    s.derived = False
    it.before[:] = 0.0
    it.a[2] = 0.0
    it.x[:] = x
    small.b[:] = b
    small.w[: w.shape[0]] = w
    fill_panel(A, small.panel)
    # Exactly the types that `newton` uses, so its compiled kernels serve here: also for float32.
    panel, b64, w64 = read_only(small.panel), read_only(small.b), read_only(small.w[: w.shape[0]])
    verdict, fun, nit, nfev = NONFINITE, np.nan, 0, 0
    if columns_serial(A, MOST_ENTRY, scale, work.buffers, work.vectors) < 0:
        condition = 0.0
        if independence(small.panel, it.x.shape[0], scale) < ENOUGH:
            condition = orthonormalise(small.panel, it.x.shape[0], scale, small.basis)
            scale[:] = 1.0
            for i in range(it.x.shape[0]):
                it.x[i] = dot(small.basis[i], it.x, i)
        products_serial(panel, it.x, it.a[0], work.buffers)
        fun = evaluate_serial(work.link, it.a[0], it.da[:0], 0.0, b64, w64, it.a[0], work.sums, it.points[0])
        nfev = 1
        if fun < np.inf:
            norm_b, null = math.sqrt(dot(b64, b64, 0)), np.empty((it.x.shape[0], 0))
            verdict = verdict_at(it.points[s.now], work.link)
            # The null space is not computed, so True. Numba would give a literal a type of its own.
            what, null_is_known = np.int64(ITERATE), fun < np.inf
            problem = Problem(panel, b64, w64, scale, null, null_is_known, tol, norm_b, no_sample(scale.shape[0]))
            while verdict == GO_ON and nit < max_iter:
                verdict = advance_serial(what, problem, it.da[:0], it, work, small.records)
                nit += s.steps
                nfev += s.evaluations
            fun = as_point(it.points[s.now]).fun
            if condition > 0.0:
                solve_basis(small.basis, it.x, it.step)
                it.x[:] = it.step
                fill_panel(A, small.panel)
                products_serial(panel, it.x, it.a[0], work.buffers)
                found = fun
                fun = evaluate_serial(work.link, it.a[0], it.da[:0], 0.0, b64, w64, it.a[0], work.sums, it.points[0])
                if is_missed(fun, found, noise(as_point(it.points[0])), condition, largest(it.a[0]), norm_b) and STATUS[verdict] <= 1:
                    verdict = NO_DESCENT
            x[:] = it.x
    status = STATUS[verdict]
    return SmallResult(status <= 1, status, fun, nit, nfev)
