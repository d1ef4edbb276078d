"""References written from the maths, slow and plain: longdouble, mpmath where exp overflows, finite differences.

    a = A x    e = m exp(a)    u = e + m a    v = e + m    alpha = <u, 1>    f = u / alpha    c = r (f - b)    s = <f, c>    F = <r f, f>
    (link="softmax": u = v = e = m exp(a); link="linear": u = m a, v = m, e = 0; a function of a gives (u, v, e) for m = 1)
    L    = <c, f - b> + 1/2 <w * a, w * a>
    grad = (2/alpha) A^T [v * (c - s)] + A^T (w^2 * a)
    D    = r v^2/alpha^2 + e * (c - s)/alpha               q = v * (r f + c - s) - 1/2 F v
    Hess = 2 [A^T diag(D) A - (A^T v)(A^T q)^T/alpha^2 - (A^T q)(A^T v)^T/alpha^2] + A^T diag(w^2) A

The multiplicities m and the residual weights r are 1 if not given. With groups of rows, alpha, s and F are sums over one group, and each group has
its own products of A^T v and A^T q in the Hessian; all other sums are over all rows.

Each `..._scale` is its quantity with every summand replaced by its magnitude; rounding errors are relative to it.
"""

from functools import cached_property
from typing import NamedTuple

import mpmath
import numpy as np

BITS = 200  # of mpmath's numbers


class Naive:
    """All quantities at x, or at an already computed a = A x, in longdouble; exp overflows beyond 11356 (709 where longdouble is double).

    Without groups, alpha, s and F are numbers, and V has two rows. With `groups`, a label for each row, they are arrays of T numbers, in the order
    in which the groups first appear, and V has shape (2, T, d). Quantities of rows are in the order of the rows.
    """

    def __init__(self, A, b, x=None, *, w=None, a=None, link="rsx", groups=None, m=None, r=None):
        real = np.longdouble
        self.A, self.b = np.asarray(A, real), np.asarray(b, real)
        self.w = np.zeros(len(self.b), real) if w is None or np.size(w) == 0 else np.asarray(w, real)
        self.m, self.r = (np.ones(len(self.b), real) if y is None else np.asarray(y, real) for y in (m, r))
        self.group = None if groups is None else numbered(groups)
        self.a = self.A @ np.asarray(x, real) if a is None else np.asarray(a, real)
        e, one = np.exp(self.a), np.ones_like(self.a)
        if link == "rsx":
            u, v, e, u_scale = e + self.a, e + 1, e, e + abs(self.a)
        elif link == "softmax":
            u, v, e, u_scale = e, e, e, e
        elif link == "linear":
            u, v, e, u_scale = self.a, one, 0 * one, abs(self.a)
        else:
            u, v, e = link(self.a)
            u_scale = abs(u)
        self.u, self.v, self.e, u_scale = (self.m * y for y in (u, v, e, u_scale))
        self.alpha = self.in_groups(np.sum, self.u)
        self.kappa = (self.in_groups(np.sum, u_scale) / self.alpha).max()
        alpha = self.in_rows(self.alpha)
        self.f, self.f_scale = self.u / alpha, u_scale / alpha
        self.c = self.r * (self.f - self.b)
        self.s = self.in_groups(np.dot, self.f, self.c)
        self.F = self.in_groups(np.dot, self.r * self.f, self.f)
        s, F = self.in_rows(self.s), self.in_rows(self.F)
        cs_scale = abs(self.c) + abs(s)
        self.D = self.r * self.v**2 / alpha**2 + self.e * (self.c - s) / alpha
        self.D_scale = self.r * self.v**2 / alpha**2 + self.e * cs_scale / alpha
        self.q = self.v * (self.r * self.f + self.c - s) - F * self.v / 2
        self.q_scale = self.v * (self.r * abs(self.f) + cs_scale) + F * self.v / 2
        self.V = self._products(self.v, self.q, self.A)  # A^T v/alpha and A^T q/alpha
        self.V_scale = self._products(self.v, self.q_scale, abs(self.A))

    def in_groups(self, function, *vectors):
        """A function of some rows, for the rows of each group; without groups, of all rows."""
        if self.group is None:
            return function(*vectors)
        return np.array([function(*(y[self.group == t] for y in vectors)) for t in range(self.group.max() + 1)])

    def in_rows(self, numbers):
        """What belongs to the group of each row; without groups, to all."""
        return numbers if self.group is None else numbers[self.group]

    def _products(self, v, q, A):
        of_groups = self.in_groups(lambda v, q, A: np.array([v, q]) @ A, v, q, A)
        return of_groups / self.alpha if self.group is None else np.swapaxes(of_groups / self.alpha[:, None, None], 0, 1)

    @staticmethod
    def _rank_2(vA, qA):
        vA, qA = np.atleast_2d(vA), np.atleast_2d(qA)
        return vA.T @ qA + qA.T @ vA

    @property
    def value(self):
        return (self.f - self.b) @ self.c + ((self.w * self.a) ** 2).sum() / 2

    @property
    def value_scale(self):
        return abs(self.c) @ (abs(self.f) + abs(self.b)) + ((self.w * self.a) ** 2).sum() / 2

    @property
    def grad(self):
        return 2 / self.in_rows(self.alpha) * self.A.T @ (self.v * (self.c - self.in_rows(self.s))) + self.A.T @ (self.w**2 * self.a)

    @property
    def grad_scale(self):
        return self._grad_scale(abs(self.c))

    @property
    def grad_split_scale(self):
        """The same where f - b is summed as two terms."""
        return self._grad_scale(self.r * (abs(self.f) + abs(self.b)))

    def _grad_scale(self, c_scale):
        A, sums = abs(self.A), abs(self.in_rows(self.s))
        return 2 / self.in_rows(self.alpha) * A.T @ (self.v * (c_scale + sums)) + A.T @ (self.w**2 * abs(self.a))

    @property
    def V_split_scale(self):  # noqa: N802
        s, F = self.in_rows(self.s), self.in_rows(self.F)
        q_scale = self.v * (self.r * (2 * abs(self.f) + abs(self.b)) + abs(s)) + F * self.v / 2
        return self._products(self.v, q_scale, abs(self.A))

    @cached_property
    def hess(self):
        return 2 * (self.A.T @ (self.D[:, None] * self.A) - self._rank_2(*self.V)) + self.A.T @ (self.w[:, None] ** 2 * self.A)

    @cached_property
    def hess_scale(self):
        A = abs(self.A)
        return 2 * (A.T @ (self.D_scale[:, None] * A) + self._rank_2(*self.V_scale)) + A.T @ (self.w[:, None] ** 2 * A)


def numbered(labels):
    """The number of each row's group, counted in the order in which labels first appear."""
    numbers = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels])


class Exact(NamedTuple):
    """The results of mpmath, rounded to double."""

    value: float
    value_scale: float
    f: np.ndarray
    f_scale: np.ndarray
    grad: np.ndarray
    grad_scale: np.ndarray


def exact(A, b, a, w=None):
    """The same formulas at any finite a, however large."""
    with mpmath.workprec(BITS):
        n = len(b)
        a, b, w = ([mpmath.mpf(float(y)) for y in ys] for ys in (a, b, np.zeros(n) if w is None else w))
        columns = [[mpmath.mpf(float(y)) for y in ys] for ys in np.transpose(A)]
        e = [mpmath.exp(y) for y in a]
        alpha = mpmath.fsum(e) + mpmath.fsum(a)
        f = [(y + z) / alpha for y, z in zip(e, a, strict=True)]
        f_scale = [(y + abs(z)) / alpha for y, z in zip(e, a, strict=True)]
        c = [y - z for y, z in zip(f, b, strict=True)]
        s = mpmath.fdot(f, c)
        penalty = mpmath.fsum((y * z) ** 2 for y, z in zip(w, a, strict=True)) / 2
        r = [2 * (e[i] + 1) / alpha * (c[i] - s) + w[i] ** 2 * a[i] for i in range(n)]
        r_scale = [2 * (e[i] + 1) / alpha * (abs(c[i]) + abs(s)) + w[i] ** 2 * abs(a[i]) for i in range(n)]
        value = mpmath.fdot(c, c) + penalty
        value_scale = mpmath.fsum(abs(c[i]) * (abs(f[i]) + abs(b[i])) for i in range(n)) + penalty
        grad = [mpmath.fdot(column, r) for column in columns]
        grad_scale = [mpmath.fdot([abs(y) for y in column], r_scale) for column in columns]
        vectors = (np.array([float(y) for y in ys]) for ys in (f, f_scale, grad, grad_scale))
        return Exact(float(value), float(value_scale), *vectors)


def five_point(function, x, direction, h):
    """The derivative of a function (scalar or vector) along a direction, to O(h^4)."""
    x, direction = np.asarray(x), np.asarray(direction)
    near = function(x + h * direction) - function(x - h * direction)
    far = function(x + 2 * h * direction) - function(x - 2 * h * direction)
    return (8 * near - far) / (12 * h)


def five_point_gradient(function, x, h):
    """The gradient of a scalar function; of a vector function, the transpose of its Jacobian."""
    return np.array([five_point(function, x, direction, h) for direction in np.eye(len(x), dtype=np.asarray(x).dtype)])
