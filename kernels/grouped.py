"""The kernels for rows in groups, in each of which u is normalised, for an A (n x d, C-ordered, float64 or float32) in memory.

Public: `value_grad`, `value_grad_hess` and `hess_vec`, each with a `_serial` twin; arguments are data (A), x, rows, outputs, workspace. As those
in `dense`, they can be called from Python and from your own @njit code, release the GIL, write nothing but their outputs and the workspace, and
check nothing. `Rows` has b, and w, multiplicities m and residual weights omega, each of n numbers or empty. The rows of a group lie together.

>>> import numpy as np
>>> from fastrsx.kernels import grouped
>>> A, b, none = np.eye(4, 2), np.full(4, 0.5), np.empty(0)
>>> work = grouped.alloc_workspace(np.array([0, 2, 4]), 2, False)  # rows 0, 1 and rows 2, 3
>>> grad = np.empty(2)
>>> round(grouped.value_grad_serial(A, np.array([0.5, 0.0]), grouped.Rows(b, none, none, none), grad, work), 6)
0.066547
"""

from typing import NamedTuple

import numpy as np

from .compiling.jit import serial, serial_twin
from .cpu.blocks import block_count
from .cpu.passes import finish_hessian
from .cpu.rows import NEAR_FIT
from .formulas.links import RSX
from .formulas.records import POINT_ROOM, as_point
from .groups.passes import (
    Room,
    alloc_room,
    complete_point,
    finish_curvature,
    finish_derivatives,
    finish_gradient,
    fold_curvature,
    fold_derivatives,
    fold_projection,
    start_points,
    start_sums,
)
from .groups.rows import Rows
from .groups.units import GROUP_ROOM, Units, make_units, point_room
from .layouts.panel import padded

__all__ = ["Rows", "alloc_workspace", "hess_vec", "hess_vec_serial", "value_grad", "value_grad_hess", "value_grad_hess_serial", "value_grad_serial"]


class Workspace(NamedTuple):
    """What the kernels write between passes, and how the rows are divided."""

    a: np.ndarray  # n: A x at the last x
    point: np.ndarray  # 10 + 7 x groups: the point there, see groups/units.py
    units: Units
    room: Room
    gram: np.ndarray  # blocks x padded d x padded d, empty without
    link: NamedTuple


def alloc_workspace(offsets, d, hessian, link=RSX):
    """A workspace for groups of the rows offsets[t] : offsets[t + 1]; without `hessian`, not for value_grad_hess. A function of Python."""
    n, offsets = int(offsets[-1]), np.asarray(offsets, np.int64)
    blocks, wide = block_count.py_func(n, d), padded.py_func(d)
    units = make_units(offsets, d, blocks)
    room = alloc_room(d, blocks, int(units.large_pieces[-1]))
    return Workspace(np.empty(n), np.zeros(point_room(units)), units, room, np.empty((blocks if hessian else 0, wide, wide)), link)


@serial
def groups_of(work):
    """The numbers of each group in the point of a workspace."""
    return work.point[POINT_ROOM:].reshape(-1, GROUP_ROOM)


@serial
def value_grad(A, x, rows, grad, work):
    """L(x), and its gradient into grad (d); NaN where alpha <= 0 in some group. One pass; near an exact fit of groups in pieces, two."""
    link, a, units, room, groups = work.link, work.a, work.units, work.room, groups_of(work)
    start_points(link, room)
    start_sums(room)
    fold_projection(link, A, 0, x, a, rows, units, units.edges, room, groups)
    complete_point(link, a, rows, units, room, groups, work.point)
    at = as_point(work.point)
    if not at.fun < np.inf:
        grad[:] = np.nan
    elif room.pieces.shape[0] > 0 and at.squares <= NEAR_FIT**2 * at.ff:
        start_sums(room)
        fold_derivatives(link, A, 0, a, rows, units, units.edges, room, groups, work.gram[:0], False)
        finish_derivatives(units, room, work.gram[:0], grad)
    else:
        finish_gradient(units, room, groups, grad)
    return at.fun


@serial
def value_grad_hess(A, x, rows, grad, hess, work):
    """L(x), its gradient into grad (d) and its Hessian into hess (d x d); NaN where alpha <= 0 in some group."""
    link, a, units, room, groups = work.link, work.a, work.units, work.room, groups_of(work)
    fun = value_grad(A, x, rows, grad, work)
    if not fun < np.inf:
        hess[:] = np.nan
        return fun
    start_sums(room)
    work.gram[:] = 0.0
    fold_derivatives(link, A, 0, a, rows, units, units.edges, room, groups, work.gram, True)
    finish_derivatives(units, room, work.gram, grad)
    finish_hessian(work.gram, room.vectors, hess)
    return fun


@serial
def hess_vec(A, x, rows, p, out, work):
    """L(x), and Hess(x) p into out (d); NaN where alpha <= 0 in some group."""
    link, a, units, room, groups = work.link, work.a, work.units, work.room, groups_of(work)
    fun = value_grad(A, x, rows, out, work)
    if fun < np.inf:
        start_sums(room)
        fold_curvature(link, A, 0, p, a, rows, units, units.edges, room, groups, a[:0])
        finish_curvature(units, room, out)
    return fun


value_grad_serial = serial_twin(value_grad)
value_grad_hess_serial = serial_twin(value_grad_hess)
hess_vec_serial = serial_twin(hess_vec)
