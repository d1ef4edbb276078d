"""References written from the maths, slow and plain: longdouble, mpmath where exp overflows, finite differences.

    a = A x    e = exp(a)    u = e + a    v = e + 1    alpha = <u, 1>    f = u / alpha    c = f - b    s = <f, c>
    (link="softmax": u = v = e = exp(a); link="linear": u = a, v = 1, e = 0; a function of a gives (u, v, e))
    L    = <c, c> + 1/2 <w * a, w * a>
    grad = (2/alpha) A^T [v * (c - s)] + A^T (w^2 * a)
    D    = v^2/alpha^2 + e * (c - s)/alpha                q = v * (f + c - s) - 1/2 <f, f> v
    Hess = 2 [A^T diag(D) A - (A^T v)(A^T q)^T/alpha^2 - (A^T q)(A^T v)^T/alpha^2] + A^T diag(w^2) A

Each `..._scale` is its quantity with every summand replaced by its magnitude; rounding errors are relative to it.
"""

from functools import cached_property
from typing import NamedTuple

import mpmath
import numpy as np

BITS = 200  # of mpmath's numbers


class Naive:
    """All quantities at x, or at an already computed a = A x, in longdouble; exp overflows beyond 11356 (709 where longdouble is double)."""

    def __init__(self, A, b, x=None, *, w=None, a=None, link="rsx"):
        real = np.longdouble
        self.A, self.b = np.asarray(A, real), np.asarray(b, real)
        self.w = np.zeros(len(self.b), real) if w is None or np.size(w) == 0 else np.asarray(w, real)
        self.a = self.A @ np.asarray(x, real) if a is None else np.asarray(a, real)
        e, one = np.exp(self.a), np.ones_like(self.a)
        if link == "rsx":
            self.u, self.v, self.e, u_scale = e + self.a, e + 1, e, e + abs(self.a)
        elif link == "softmax":
            self.u, self.v, self.e, u_scale = e, e, e, e
        elif link == "linear":
            self.u, self.v, self.e, u_scale = self.a, one, 0 * one, abs(self.a)
        else:
            self.u, self.v, self.e = link(self.a)
            u_scale = abs(self.u)
        self.alpha = self.u.sum()
        self.kappa = u_scale.sum() / self.alpha
        self.f, self.f_scale = self.u / self.alpha, u_scale / self.alpha
        self.c = self.f - self.b
        self.s = self.f @ self.c
        cs_scale = abs(self.c) + abs(self.s)
        self.D = self.v**2 / self.alpha**2 + self.e * (self.c - self.s) / self.alpha
        self.D_scale = self.v**2 / self.alpha**2 + self.e * cs_scale / self.alpha
        self.q = self.v * (self.f + self.c - self.s) - self.f @ self.f * self.v / 2
        self.q_scale = self.v * (abs(self.f) + cs_scale) + self.f @ self.f * self.v / 2
        self.V = np.array([self.v, self.q]) @ self.A / self.alpha  # the rows A^T v/alpha and A^T q/alpha
        self.V_scale = np.array([self.v, self.q_scale]) @ abs(self.A) / self.alpha

    @property
    def value(self):
        return self.c @ self.c + ((self.w * self.a) ** 2).sum() / 2

    @property
    def value_scale(self):
        return abs(self.c) @ (abs(self.f) + abs(self.b)) + ((self.w * self.a) ** 2).sum() / 2

    @property
    def grad(self):
        return 2 / self.alpha * self.A.T @ (self.v * (self.c - self.s)) + self.A.T @ (self.w**2 * self.a)

    @property
    def grad_scale(self):
        return 2 / self.alpha * abs(self.A).T @ (self.v * (abs(self.c) + abs(self.s))) + abs(self.A).T @ (self.w**2 * abs(self.a))

    @property
    def grad_split_scale(self):
        """The same where c = f - b is summed as two terms."""
        r_scale = self.v * (abs(self.f) + abs(self.b) + abs(self.s))
        return 2 / self.alpha * abs(self.A).T @ r_scale + abs(self.A).T @ (self.w**2 * abs(self.a))

    @property
    def V_split_scale(self):  # noqa: N802
        q_scale = self.v * (2 * abs(self.f) + abs(self.b) + abs(self.s)) + self.f @ self.f * self.v / 2
        return np.array([self.v, q_scale]) @ abs(self.A) / self.alpha

    @cached_property
    def hess(self):
        vA, qA = self.V
        rank_2 = np.outer(vA, qA) + np.outer(qA, vA)
        return 2 * (self.A.T @ (self.D[:, None] * self.A) - rank_2) + self.A.T @ (self.w[:, None] ** 2 * self.A)

    @cached_property
    def hess_scale(self):
        A, (vA, qA) = abs(self.A), self.V_scale
        rank_2 = np.outer(vA, qA) + np.outer(qA, vA)
        return 2 * (A.T @ (self.D_scale[:, None] * A) + rank_2) + A.T @ (self.w[:, None] ** 2 * A)


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
