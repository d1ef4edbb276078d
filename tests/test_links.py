"""The other links, u = exp(a) and u = a, beside exp(a) + a: the formulas, the invariances of each f, and solves."""

import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

import fastrsx
import naive
from fastrsx import Problem, Status

LINKS = pytest.mark.parametrize("link", ["rsx", "softmax", "linear"])
EXPONENTIAL = pytest.mark.parametrize("link", ["rsx", "softmax"])
SHAPES = [(1, 1), (1, 3), (7, 3), (64, 1), (63, 8), (65, 8), (130, 17), (777, 5)]


def on_a_grid(x):
    """Round to multiples of 2^-12, so that A x is exact, also with 10^4 added."""
    return np.round(x * 2**12) / 2**12


def example(n, d, link, w=None):
    """A problem and an x in its domain."""
    rng = np.random.default_rng([n, d])
    A, x = on_a_grid(rng.normal(0.5, 1.0, (n, d))), on_a_grid(rng.normal(0.5, 1.0, d) / np.sqrt(d))
    x *= np.sign((A @ x).sum())  # if the a_i are positive on average, so is alpha
    w = rng.random(n) if w == "rows" else w
    return Problem(A, 2 * rng.random(n) / n, w=w, link=link, kernel="serial"), x


def reference(problem, x):
    return naive.Naive(problem.A, problem.b, x, w=problem.w, link=problem.link)


def assert_within(found, expected, scale, tol):
    """Each error is at most tol times its scale."""
    error = np.abs(found - expected)
    assert (error <= tol * scale).all(), f"error {np.max(error / np.where(scale > 0, scale, 1)):.2e} of the summands, allowed {tol:.2e}"


# -- the formulas -----------------------------------------------------------------------------------------------


@LINKS
@pytest.mark.parametrize("w", [None, 0.3, "rows"])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_values_and_derivatives_are_the_formulas(n, d, w, link):
    problem, x = example(n, d, link, w)
    ref, p = reference(problem, x), np.linspace(-1.0, 1.0, d)
    tol = 2e-15 * float(ref.kappa) * np.sqrt(n)
    value, grad = problem.value_and_grad(x)
    assert_within(value, ref.value, ref.value_scale, tol)
    assert_within(grad, ref.grad, ref.grad_split_scale, tol)
    assert_within(problem.predict(x), ref.f, ref.f_scale, tol)
    np.testing.assert_array_equal(fastrsx.predict(problem.A, x, link=link), problem.predict(x))
    hess, factors = problem.hess(x), problem.factors(x)
    assert_within(hess, ref.hess, ref.hess_scale, tol)
    assert_within(factors.to_dense(), ref.hess, ref.hess_scale, tol)
    assert_within(problem.hess_vec(x, p), ref.hess @ p, ref.hess_scale @ abs(p), tol)
    assert_within(factors.D, ref.D + ref.w**2 / 2, ref.D_scale + ref.w**2 / 2, tol)
    assert_within(np.array([factors.v, factors.q]), ref.V, ref.V_split_scale, tol)
    assert problem.value(x) == value
    with_hess, x = example(n, d, link, w)
    assert_within(with_hess.value_grad_hess(x)[1], ref.grad, ref.grad_scale, tol)


@LINKS
def test_derivatives_match_five_point_differences(link):
    problem, x = example(63, 8, link, 0.3)
    value, grad, hess = problem.value_grad_hess(x)
    assert value > 0
    x = x.astype(np.longdouble)
    differences = naive.five_point_gradient(lambda y: reference(problem, y).value, x, 1e-3)
    np.testing.assert_allclose(grad, differences.astype(float), rtol=0, atol=1e-9 * abs(grad).max())
    column = naive.five_point(lambda y: reference(problem, y).grad, x, np.eye(8)[3], 1e-3)
    np.testing.assert_allclose(hess[3], column.astype(float), rtol=0, atol=1e-9 * abs(hess).max())


@LINKS
def test_jac_operator_is_the_derivative_of_predict(link):
    problem, x = example(63, 8, link)
    x, p, y = x.astype(np.longdouble), np.linspace(-1.0, 1.0, 8), np.cos(np.arange(63))
    J = problem.jac_operator(x.astype(float))
    change = naive.five_point(lambda at: reference(problem, at).f, x, p, 1e-3).astype(float)
    np.testing.assert_allclose(J @ p, change, rtol=0, atol=1e-9 * abs(change).max())
    assert y @ (J @ p) == pytest.approx(p @ (J.T @ y), rel=1e-12)


@LINKS
def test_serial_and_parallel_give_the_same_bits(link):
    serial, x = example(1500, 5, link, "rows")
    parallel = Problem(serial.A, serial.b, w=serial.w, link=link, kernel="parallel")
    for found, expected in zip(parallel.value_grad_hess(x), serial.value_grad_hess(x), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(parallel.predict(x), serial.predict(x))


# -- invariances of f ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [1e4, -1e4])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_softmax_does_not_see_a_shift(n, d, shift):
    """Since a is exact, exp(a - max a) has the same bits, and so has everything computed from it."""
    problem, x = example(n, d, "softmax")
    shifted = Problem(np.column_stack([problem.A, np.ones(n)]), problem.b, link="softmax", kernel="serial")
    at_0, there = np.append(x, 0.0), np.append(x, shift)
    value, grad, hess = shifted.value_grad_hess(at_0)
    assert value == pytest.approx(problem.value(x), rel=1e-12)
    for found, expected in zip(shifted.value_grad_hess(there), (value, grad, hess), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(shifted.predict(there), shifted.predict(at_0))
    assert shifted.predict(there).sum() == pytest.approx(1, rel=1e-13)
    ref = reference(shifted, at_0)
    tol = 2e-15 * np.sqrt(n)
    assert_within(shifted.grad(there)[-1], 0, ref.grad_scale[-1], tol)
    assert_within(hess[-1], 0, ref.hess_scale[-1], tol)


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
def test_softmax_of_a_wide_range_of_a(shift):
    a = np.array([0.0, -1.0, -700.0, -1e4, -2e4, -2.0, 0.0, -30.0, -5e3]) + shift
    for order in (slice(None), slice(None, None, -1)):
        A = a[order, None]
        f = fastrsx.predict(A, [1.0], link="softmax")
        expected = np.exp(A[:, 0] - shift)
        np.testing.assert_allclose(f, expected / expected.sum(), rtol=1e-14, atol=1e-300)
        problem = Problem(A, np.full(9, 1 / 9), link="softmax", kernel="serial")
        assert all(np.isfinite(part).all() for part in problem.value_grad_hess([1.0]))


@pytest.mark.parametrize("t", [1e-6, 0.3, 1.0, 7.0, 1e6])
def test_linear_does_not_see_the_length_of_x(t):
    """L(t x) = L(x), so grad(t x) = grad(x) / t, grad.x = 0, and by one more derivative Hess x = -grad."""
    problem, x = example(65, 8, "linear")
    ref = reference(problem, x)
    tol = 4e-15 * float(ref.kappa) * np.sqrt(65)
    value, grad, hess = problem.value_grad_hess(t * x)
    assert_within(value, ref.value, ref.value_scale, tol)
    assert_within(problem.predict(t * x), ref.f, ref.f_scale, tol)
    assert_within(grad, ref.grad / t, ref.grad_scale / t, tol)
    assert_within(hess, ref.hess / t**2, ref.hess_scale / t**2, tol)
    assert_within(grad @ x, 0, ref.grad_scale @ abs(x) / t, tol)
    assert_within(hess @ x, -grad / t, ref.hess_scale @ abs(x) / t**2, tol)


@pytest.mark.parametrize("x", [[0.0, 0.0], [-1.0, 0.0], [-1e-300, 0.0], [1.0, -2.0], [-1e4, 1.0]])
def test_linear_outside_the_domain(x):
    problem = Problem(np.ones((9, 2)), np.full(9, 1 / 9), link="linear", kernel="serial")
    value, grad, hess = problem.value_grad_hess(x)
    assert value == np.inf
    for derivative in (grad, problem.predict(x)):
        assert np.isnan(derivative).all()
    for hessian in (hess, problem.hess_vec(x, [1.0, 0.0]), problem.factors(x).D):
        assert (hessian == 0).all()
    assert problem.value([1.0, 0.0]) == pytest.approx(0, abs=1e-30)


# -- solves -----------------------------------------------------------------------------------------------------


def second_order(result, A, b, w, link):
    """The gradient and the lowest eigenvalue of the Hessian at the result in longdouble, relative to their summands."""
    ref = naive.Naive(A, b, result.x, w=w, link=link)
    return float(abs(ref.grad).max() / ref.grad_scale.max()), float(np.linalg.eigvalsh(ref.hess.astype(float))[0] / ref.hess_scale.max())


def assert_is_as_low_as_scipy(result, problem, x0):
    """The result is a second-order point of the reference, with the loss that SciPy reaches from the same x0."""
    assert result.success, result.message
    grad, curvature = second_order(result, problem.A, problem.b, problem.w, problem.link)
    assert grad <= 1e-6
    assert curvature >= -1e-12
    other = minimize(problem.value, x0, jac=problem.grad, hess=problem.hess, method="trust-exact", options={"gtol": 1e-10, "maxiter": 1000})
    assert result.fun == pytest.approx(other.fun, rel=1e-9)
    assert result.fun == pytest.approx(float(reference(problem, result.x).value), rel=1e-12)


@EXPONENTIAL
@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("d", [1, 3, 8, 17])
def test_planted_solution_is_recovered(d, spread, link):
    rng = np.random.default_rng(d)
    A, x = rng.standard_normal((501, d)), rng.standard_normal(d)
    x *= spread / np.linalg.norm(x)
    result = fastrsx.newton(A, fastrsx.predict(A, x, link=link), link=link, kernel="serial")
    assert result.status is Status.EXACT_FIT
    np.testing.assert_allclose(result.x, x, rtol=0, atol=1e-9 * spread)


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
@pytest.mark.parametrize("columns", ["intercept", "dummies"])
def test_softmax_with_an_intercept_has_the_solution_of_least_norm(columns, shift):
    """The intercept may be a sum of columns. f determines A x up to a constant, and x up to the t with A t constant."""
    rng = np.random.default_rng(0)
    group = rng.integers(3, size=300)
    ones = np.ones((300, 1)) if columns == "intercept" else (group[:, None] == np.arange(3)).astype(float)
    A = np.column_stack([rng.standard_normal((300, 3)), ones])
    x, flat = rng.standard_normal(A.shape[1]), np.append(np.zeros(3), np.ones(ones.shape[1]))
    result = fastrsx.newton(A, fastrsx.predict(A, x, link="softmax"), shift * flat, link="softmax", kernel="serial")
    assert result.status is Status.EXACT_FIT
    np.testing.assert_allclose(result.x, x - flat * (flat @ x) / (flat @ flat), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d", [1, 3, 8, 17])
def test_linear_planted_solution_is_recovered_but_for_its_length(d, seed):
    rng = np.random.default_rng([d, seed])
    A, x = rng.uniform(0.0, 1.0, (301, d)), rng.uniform(0.5, 1.5, d)
    a = A @ x
    result = fastrsx.newton(A, a / a.sum(), x + 0.3 * rng.standard_normal(d), link="linear", kernel="serial")
    assert result.success, result.message
    assert result.fun <= 1e-28 * (a @ a) / a.sum() ** 2
    np.testing.assert_allclose(result.x / np.linalg.norm(result.x), x / np.linalg.norm(x), rtol=0, atol=1e-9)


@EXPONENTIAL
@pytest.mark.parametrize("w", [None, 1e-3])
@pytest.mark.parametrize("seed", range(3))
def test_rough_target(seed, w, link):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((300, 5)), rng.dirichlet(np.ones(300))
    result = fastrsx.newton(A, b, w=w, link=link, kernel="serial")
    assert result.status is Status.CONVERGED
    assert_is_as_low_as_scipy(result, Problem(A, b, w=w, link=link, kernel="serial"), np.zeros(5))


@pytest.mark.parametrize("seed", range(3))
def test_linear_rough_target(seed):
    rng = np.random.default_rng(seed)
    A, b, x0 = rng.uniform(0.0, 1.0, (300, 5)), rng.dirichlet(np.ones(300)), np.full(5, 10.0)  # so that SciPy, too, stays in the domain
    result = fastrsx.newton(A, b, x0, link="linear", kernel="serial")
    assert result.status is Status.CONVERGED
    assert_is_as_low_as_scipy(result, Problem(A, b, link="linear", kernel="serial"), x0)


def constrained_least_squares(A, b):
    """min ||A z - b||^2 subject to <A z, 1> = 1, by its normal equations: the whole problem for u = a, with z = x / alpha."""
    d, total = A.shape[1], A.sum(axis=0)
    equations = np.block([[A.T @ A, total[:, None]], [total[None, :], np.zeros((1, 1))]])
    z = np.linalg.solve(equations, np.append(A.T @ b, 1.0))[:d]
    return z, ((A @ z - b) ** 2).sum()


@pytest.mark.parametrize("length", [1e-8, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("seed", range(3))
def test_linear_finds_the_constrained_least_squares_from_any_start(seed, length):
    """The loss is convex in x / alpha, so all its minima are global."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(0.5, 1.0, (200, 4)), rng.dirichlet(np.ones(200))
    z, fun = constrained_least_squares(A, b)
    x0 = length * rng.standard_normal(4)
    x0 *= np.sign((A @ x0).sum())
    result = fastrsx.newton(A, b, x0, link="linear", kernel="serial")
    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(fun, rel=1e-9)
    np.testing.assert_allclose(result.x / (A @ result.x).sum(), z, rtol=0, atol=1e-4 * abs(z).max())


@pytest.mark.parametrize("x0", [0.5, 2.0, 1e3])
@pytest.mark.parametrize("columns", [[1.0], [1.0, 2.0]], ids=str)
def test_linear_of_one_column_is_constant(columns, x0):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.0, 1.0, 200), rng.dirichlet(np.ones(200))
    result = fastrsx.newton(np.outer(a, columns), b, np.full(len(columns), x0), link="linear", kernel="serial")
    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(((a / a.sum() - b) ** 2).sum(), rel=1e-12)


@LINKS
def test_sampled_hessian_reaches_the_same_loss(link):
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((2000, 10)) + (2.0 if link == "linear" else 0.0), rng.dirichlet(np.ones(2000))
    x0 = np.ones(10) if link == "linear" else None
    exact, sampled = (fastrsx.newton(A, b, x0, link=link, kernel="serial", **options) for options in ({}, {"hessian": "sampled", "sample_rows": 400}))
    assert exact.status is sampled.status is Status.CONVERGED
    assert sampled.nsampled > 0
    assert sampled.fun == pytest.approx(exact.fun, rel=1e-9)


# -- arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["probit", "", "RSX", None, 3])
def test_unknown_link(link):
    for call in (fastrsx.newton, Problem, fastrsx.predict):
        with pytest.raises(ValueError, match=r"link is .*; it must be one of 'rsx', 'softmax', 'linear'"):
            call(np.ones((3, 1)), np.ones(1 if call is fastrsx.predict else 3), link=link)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "x0 is None.*pass an x0"),
        ({"x0": [1.0], "w": 0.1}, "w has weights.*pass w=None"),
        ({"x0": [0.0]}, "x0 lies outside the domain"),
        ({"x0": [-1.0]}, "x0 lies outside the domain"),
    ],
)
def test_what_linear_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(np.ones((3, 1)), np.ones(3) / 3, link="linear", kernel="serial", **options)


@LINKS
def test_a_copy_keeps_the_link(link):
    problem, x = example(63, 8, link, 0.3)
    twin = pickle.loads(pickle.dumps(problem))
    assert twin.link == link
    for found, expected in zip(twin.value_grad_hess(x), problem.value_grad_hess(x), strict=True):
        np.testing.assert_array_equal(found, expected)
