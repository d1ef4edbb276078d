"""What we are timed against: the same formulas as a careful user would write them elsewhere."""

import numpy as np
from scipy.optimize import minimize


class NumpyProblem:
    """Value, gradient and Hessian by the analytic formulas, shifted by max(0, max a); what they share at one x is computed once."""

    def __init__(self, A, b):
        self.A, self.b, self.x = A, b, None

    def at(self, x):
        if self.x is None or not np.array_equal(x, self.x):
            self.x = x.copy()
            a = self.A @ x
            shift = max(0.0, a.max())
            self.e, self.k = np.exp(a - shift), np.exp(-shift)
            u, self.v = self.e + self.k * a, self.e + self.k
            self.alpha = u.sum()
            self.f = u / self.alpha
            self.c = self.f - self.b
            self.s = self.f @ self.c
        return self

    def value(self, x):
        self.at(x)
        return self.c @ self.c if self.alpha > 0 else np.inf

    def grad(self, x):
        self.at(x)
        return self.A.T @ ((2 / self.alpha) * self.v * (self.c - self.s))

    def hess(self, x):
        self.at(x)
        D = (self.v / self.alpha) ** 2 + self.e * (self.c - self.s) / self.alpha
        vA = self.v @ self.A / self.alpha
        qA = (self.v * (self.f + self.c - self.s) - 0.5 * (self.f @ self.f) * self.v) @ self.A / self.alpha
        return 2 * (self.A.T @ (D[:, None] * self.A) - np.outer(vA, qA) - np.outer(qA, vA))


def numpy_value_grad_hess(A, b, x):
    """Value, gradient and Hessian at x."""
    problem = NumpyProblem(A, b)
    return problem.value(x), problem.grad(x), problem.hess(x)


def scipy_trust_exact(A, b, gtol):
    """SciPy's trust-region Newton on the analytic NumPy derivatives."""
    problem = NumpyProblem(A, b)
    return minimize(problem.value, np.zeros(A.shape[1]), jac=problem.grad, hess=problem.hess, method="trust-exact", options={"gtol": gtol})
