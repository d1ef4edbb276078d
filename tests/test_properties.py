"""Properties of every problem, on problems that hypothesis generates."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastrsx
from fastrsx import Status

properties = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def problems(draw):
    """(A, b) with A Gaussian, n from 5 to 150, d from 1 to 6, and an interior minimum most of the time."""
    d = draw(st.integers(1, 6))
    n = draw(st.integers(4 * d + 1, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    b = rng.random(n)
    return draw(st.sampled_from([0.3, 1.0])) * rng.standard_normal((n, d)), b / b.sum(), rng


@properties
@given(problems())
def test_permuted_rows_permute_f(problem):
    A, b, rng = problem
    x, order = 0.5 * rng.standard_normal(A.shape[1]), rng.permutation(len(b))
    one, other = fastrsx.Problem(A, b), fastrsx.Problem(A[order], b[order])
    np.testing.assert_allclose(other.predict(x), one.predict(x)[order], rtol=1e-13)
    np.testing.assert_allclose(other.grad(x), one.grad(x), atol=1e-13)


@properties
@given(problems(), st.integers(-20, 20))
def test_scaled_columns_scale_the_derivatives(problem, exponent):
    A, b, rng = problem
    x, factors = 0.5 * rng.standard_normal(A.shape[1]), 2.0 ** (exponent * rng.integers(-1, 2, A.shape[1]))
    one, other = fastrsx.Problem(A, b), fastrsx.Problem(A * factors, b)
    assert other.value(x / factors) == one.value(x)  # powers of 2 scale without rounding
    np.testing.assert_array_equal(other.grad(x / factors), one.grad(x) * factors)
    np.testing.assert_array_equal(other.hess(x / factors), one.hess(x) * np.outer(factors, factors))


@properties
@given(problems())
def test_zero_rows_count(problem):
    """A row of zeros has a = 0 and u = 1: it takes its share of f, and contributes to no column."""
    A, _, rng = problem
    x = 0.5 * rng.standard_normal(A.shape[1])
    f = fastrsx.predict(np.vstack([A, np.zeros((3, A.shape[1]))]), x)
    alone = fastrsx.predict(A, x)
    u = np.exp(A @ x) + A @ x
    np.testing.assert_allclose(f[-3:], 1 / (u.sum() + 3), rtol=1e-12)
    np.testing.assert_allclose(f[:-3], alone * u.sum() / (u.sum() + 3), rtol=1e-11, atol=1e-16)


@properties
@given(problems(), st.floats(0, 300))
def test_huge_a_is_finite(problem, decades):
    A, b, rng = problem
    x = 10.0**decades * rng.standard_normal(A.shape[1])
    with np.errstate(all="raise"):
        instance = fastrsx.Problem(A, b)
        value, f, grad = instance.value(x), instance.predict(x), instance.grad(x)
    assert value >= 0
    assert np.isfinite(value) == np.isfinite(f).all() == np.isfinite(grad).all()
    if np.isfinite(value):
        np.testing.assert_allclose(f.sum(), 1, rtol=1e-12)


@properties
@given(problems(), st.floats(0.1, 1.5))
def test_planted_optimum_is_found(problem, spread):
    A, _, rng = problem
    x = rng.standard_normal(A.shape[1])
    x *= spread / max(np.std(A @ x), 1e-3)
    b = fastrsx.predict(A, x)
    if not np.isfinite(b).all():  # x lies outside the domain
        return
    result = fastrsx.newton(A, b)
    if result.status is Status.EXACT_FIT:
        np.testing.assert_allclose(fastrsx.predict(A, result.x), b, atol=1e-13 * np.linalg.norm(b))
    else:  # another minimum, or a ray, of a small problem: then it must be one, and above the planted one
        assert result.fun > 1e-20
        assert result.status in (Status.CONVERGED, Status.NO_MINIMISER)


@properties
@given(problems())
def test_newton_never_ends_above_its_start(problem):
    A, b, rng = problem
    x0 = 0.3 * rng.standard_normal(A.shape[1])
    start = fastrsx.Problem(A, b).value(x0)
    if start < np.inf:
        result = fastrsx.newton(A, b, x0)
        assert result.fun <= start
        assert fastrsx.Problem(A, b).value(result.x) <= result.fun * (1 + 1e-9)
