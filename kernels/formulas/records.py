"""Named numbers: the state of a block of rows, the point that states merge into, and the weights of a row there.

A NamedTuple passes them between functions: registers on the CPU, numbers on a GPU. An array of float64 holds them in the same order:
`as_point(point).alpha` reads or writes one in a kernel and in Python. A hat in a comment marks a quantity divided by exp(M).
"""

from typing import Any, NamedTuple

import numpy as np

from ..compiling.records import reader, record, room


class Domain(NamedTuple):
    """Sums over rows from which M and alpha follow."""

    shift: Any  # M
    alpha: Any  # alpha^
    magnitude: Any  # sum(e^ + |a^|), of the summands of alpha^
    slope: Any  # <v^, da>: d alpha^ / dt along a step
    step: Any  # max |da|


class Residuals(NamedTuple):
    """Sums over rows, once alpha is known."""

    squares: Any  # <c, c>
    fc: Any  # <f, c>
    ff: Any  # <f, f>
    penalty: Any  # 1/2 ||w * a||^2


class Curvatures(NamedTuple):
    """Sums over rows from which the error of predicted weights follows."""

    weights: Any  # |h|
    bends: Any  # e/alpha
    bends_b: Any  # e |b|/alpha


class Centred(NamedTuple):
    """How the residuals of a block were taken before alpha was known: with f~ = u^/centre (formulas/centred.py)."""

    centre: Any  # alpha^ as the rows before foretold it
    lost: Any  # ||delta f||^2 of all corrections: beside <c, c>, the digits that cancelled


class Point(NamedTuple):
    """The numbers that the loss, the gradient and the Hessian at a = A x share."""

    shift: Any  # M
    k: Any  # exp(-M)
    alpha: Any  # alpha^
    kappa: Any  # sum(e^ + |a^|) / alpha^: how much of alpha cancels
    slope: Any  # d alpha^ / dt along the step to here; 0 after a plane search
    step: Any  # max |da| of that step
    squares: Any  # <c, c>
    s: Any  # <f, c>
    ff: Any  # <f, f>
    fun: Any  # L


class Factors(NamedTuple):
    """The numbers of a point that the weights of its rows need."""

    shift: Any
    k: Any
    over_alpha: Any  # 1 / alpha^
    s: Any
    half_ff: Any


class Weights(NamedTuple):
    """Of a row: the gradient is A^T r, the Hessian A^T diag(h) A - 2 (A^T v)(A^T q)^T - 2 (A^T q)(A^T v)^T."""

    h: Any
    v: Any  # v / alpha
    q: Any  # q / alpha
    r: Any


STATE = record(**dict.fromkeys(Domain._fields + Residuals._fields + Curvatures._fields + Centred._fields, np.float64))
POINT = record(**dict.fromkeys(Point._fields, np.float64))
STATE_ROOM, POINT_ROOM = room(STATE), room(POINT)
as_state, as_point = reader(STATE), reader(POINT)

# Rows of a block's `weights`; the first three also of its d-vectors A^T v/alpha, A^T q/alpha and the gradient A^T r.
V, Q, R, H = range(4)
# Rows of both while alpha is not known: v^, v^ u^, v^ b and w^2 a; or, by a predicted alpha, v, v f, v c and w^2 a, whose weights stand behind h.
VU, VB, W2A = range(1, 4)
VF, VC, W2A_AHEAD = VU, VB, 4
