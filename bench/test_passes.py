"""One pass over A at a time, against one read of A and against NumPy."""

import numpy as np
import pytest

import peers
import problems
from fastrsx import Problem

SHAPES = [(1_000_000, 16), (500_000, 64), (200_000, 128), (100_000, 256), (60_000, 512)]


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def at(request):
    """The kernels at a point of a random problem."""
    n, d = request.param
    A, b, x = problems.gaussian(n, d)
    problem = Problem(A, b, kernel="parallel")
    a = np.empty(n)
    problem._passes.products(x, a)
    return problem._passes, a, problem._passes.evaluate(a), x


def test_read(at, row):
    """One read of A by OpenBLAS: the yardstick."""
    passes, a, _, x = at
    out = np.empty_like(a)
    row(lambda: np.dot(passes.A, x, out=out), "read A", *passes.A.shape, who="NumPy", nbytes=passes.A.nbytes)


def test_products(at, row):
    passes, a, _, x = at
    row(lambda: passes.products(x, a), "A x", *passes.A.shape, nbytes=passes.A.nbytes)
    np.testing.assert_allclose(a, passes.A @ x, atol=1e-12)


def test_value(at, row):
    passes, a, point, x = at

    def work():
        passes.products(x, a)
        return passes.evaluate(a)

    assert row(work, "value", *passes.A.shape, nbytes=passes.A.nbytes).fun == point.fun


def test_gradient(at, row):
    """The second pass of value and gradient."""
    passes, a, point, _ = at
    row(lambda: passes.gradient(a, point), "gradient, a known", *passes.A.shape, nbytes=passes.A.nbytes)


def test_hess_vec(at, row):
    passes, a, point, x = at
    row(lambda: passes.hess_vec(a, point, x), "hess_vec, a known", *passes.A.shape, nbytes=passes.A.nbytes)


def test_newton_pass(at, row):
    """Gradient, rank-2 vectors and Hessian, a known; flops as n d^2 of the triangle."""
    passes, a, point, _ = at
    n, d = passes.A.shape
    row(lambda: passes.hessian(a, point), "Newton pass, a known", n, d, nbytes=passes.A.nbytes, flops=n * d * d)


@pytest.mark.parametrize("who", ["fastrsx", "NumPy"])
def test_value_grad_hess(row, who):
    n, d = 500_000, 64
    A, b, x = problems.gaussian(n, d)
    problem = Problem(A, b, kernel="parallel")

    def ours():
        problem._x = None  # forget what is remembered
        return problem.value_grad_hess(x)

    work = ours if who == "fastrsx" else lambda: peers.numpy_value_grad_hess(A, b, x)
    value, grad, hess = row(work, "value, gradient, Hessian", n, d, who=who, rounds=7)
    expected = peers.numpy_value_grad_hess(A, b, x)
    assert value == pytest.approx(expected[0], rel=1e-12)
    np.testing.assert_allclose(grad, expected[1], atol=1e-12 * np.abs(grad).max())
    np.testing.assert_allclose(hess, expected[2], atol=1e-12 * np.abs(hess).max())


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
@pytest.mark.parametrize("n", [250, 1000, 4000, 16000, 64000])
@pytest.mark.parametrize("d", [4, 16, 64])
def test_crossover(row, n, d, kernel):
    """Where threads begin to pay in a row of launches: SERIAL_BELOW_MS of `fastrsx.planning` cites these rows."""
    A, b, x = problems.gaussian(n, d)
    passes = Problem(A, b, kernel=kernel)._passes
    a = A @ x
    point = passes.evaluate(a)
    row(lambda: passes.hessian(a, point), "small Newton pass", n, d, who=kernel, rounds=51)
    assert np.isfinite(point.fun)
