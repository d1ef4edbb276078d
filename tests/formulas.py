"""Test data for all kinds of kernels, and checks of their outputs against the naive formulas."""

from typing import NamedTuple

import numpy as np

import naive

KERNELS = ["value", "value_grad", "value_grad_hess", "hess_vec", "factors"]


class Data(NamedTuple):
    """The inputs of a kernel. A, b and w are read-only, since Numba compiles separately for that."""

    A: np.ndarray
    x: np.ndarray
    b: np.ndarray
    w: np.ndarray
    p: np.ndarray

    @classmethod
    def of(cls, A, x, b=None, w=None, p=None):
        A, x = np.array(A, dtype=float), np.array(x, dtype=float)
        n, d = A.shape
        b = np.arange(1.0, n + 1) / n**2 if b is None else b
        A, b, w = (np.array(array, dtype=float) for array in (A, b, np.empty(0) if w is None else w))
        for array in (A, b, w):
            array.flags.writeable = False
        return cls(A, x, b, w, np.linspace(-1.0, 1.0, d) if p is None else np.array(p))

    def copies(self):
        return [array.copy() for array in self]


def random_data(n, d, weighted=False, seed=0):
    rng = np.random.default_rng([n, d, weighted, seed])
    A = rng.standard_normal((n, d))
    x = rng.standard_normal(d) / np.sqrt(d)
    x *= np.sign((A @ x).sum())  # if the a_i are positive on average, so is alpha
    return Data.of(A, x, 2 * rng.random(n) / n, rng.random(n) if weighted else None, rng.standard_normal(d))


def output_shapes(kernel, n, d):
    """The outputs of a kernel, in their order."""
    shapes = {"value_grad": {"grad": d}, "value_grad_hess": {"grad": d, "hess": (d, d)}, "hess_vec": {"Hp": d}, "factors": {"D": n, "V": (2, d)}}
    return shapes.get(kernel, {})


def assert_within(found, expected, scale, tol):
    """Each error is at most tol times its scale."""
    error = np.abs(found - expected)
    assert (error <= tol * scale).all(), f"error {np.max(error / np.where(scale > 0, scale, 1)):.2e} of the summands, allowed {tol:.2e}"


def check_results(data, results, at_least=0.0):
    """Check {kernel: its fun, arrays and a} against the formulas, to rounding, or to `at_least` of the summands if that is more; returns kappa."""
    n, d = data.A.shape
    a = results["value"].a
    assert_within(a, data.A.astype(np.longdouble) @ data.x, abs(data.A) @ abs(data.x), 1e-15 * np.sqrt(d))
    ref = naive.Naive(data.A, data.b, w=data.w, a=a)  # at the kernel's own a, whose error the line above checks
    tol = max(2e-15 * float(ref.kappa) * np.sqrt(n), at_least)
    for result in results.values():
        np.testing.assert_array_equal(result.a, a)
        assert result.fun == results["value"].fun
    assert_within(results["value"].fun, ref.value, ref.value_scale, tol)
    assert_within(results["value_grad"].arrays["grad"], ref.grad, ref.grad_split_scale, tol)
    assert_within(results["value_grad_hess"].arrays["grad"], ref.grad, ref.grad_scale, tol)
    hess = results["value_grad_hess"].arrays["hess"]
    np.testing.assert_array_equal(hess, hess.T)
    assert_within(hess, ref.hess, ref.hess_scale, tol)
    assert_within(results["hess_vec"].arrays["Hp"], ref.hess @ data.p, ref.hess_scale @ abs(data.p), tol)
    D, V = results["factors"].arrays.values()
    assert_within(D, ref.D + ref.w**2 / 2, ref.D_scale + ref.w**2 / 2, tol)
    assert_within(V, ref.V, ref.V_split_scale, tol)
    assert_within(hess, 2 * (data.A.T @ (D[:, None] * data.A) - np.outer(V[0], V[1]) - np.outer(V[1], V[0])), ref.hess_scale, tol)
    return ref.kappa
