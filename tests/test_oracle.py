"""The oracle with groups of rows, multiplicities and residual weights: its error bounds, and what it says about results, true ones and false ones."""

from types import SimpleNamespace

import numpy as np
import pytest

import oracle
from fastrsx import Status
from naive import Naive, numbered

if np.finfo(np.longdouble).eps >= np.finfo(float).eps:
    pytest.skip("the oracle needs a longdouble that is longer than double", allow_module_level=True)

N, D = 24, 3
LINKS = pytest.mark.parametrize("link", ["rsx", "softmax", "linear"])
STRUCTURES = {
    "none": None,
    "one": ["all"] * N,
    "of one row": list(range(N)),
    "in turn": [f"group {i % 3}" for i in range(N)],
    "one huge": [min(i, 4) for i in range(N)][::-1],
}
GROUPS = pytest.mark.parametrize("groups", STRUCTURES.values(), ids=STRUCTURES)


def example(seed, groups, link="rsx"):
    """(A, b, x, w, m, r): b is near f(x), alpha > 0 in all groups, some rows have r = 0, and some m = 0 where groups have rows enough."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.2, 0.6, D)
    A = rng.uniform(0.1, 1.5, (N, D)) if link == "linear" else rng.normal(0.5, 1.0, (N, D)) / np.sqrt(D)
    m, r = rng.uniform(0.5, 3, N), rng.uniform(0.5, 2, N)
    r[::5] = 0
    if groups is None or len(set(groups)) < 5:
        m[1::4] = 0
    if link == "rsx":
        A[(A @ x) < -0.2] *= -1
    b = Naive(A, np.zeros(N), x, link=link, groups=groups, m=m).f.astype(float)
    return A, b * rng.uniform(0.7, 1.3, N), x, 0.1 * rng.random(N), m, r


def in_double(A, b, x, w, m, r, link, groups):
    """L, the gradient, the Hessian and log alpha in float64, as a solve computes them: exponentials relative to the largest of their group."""
    group = np.zeros(len(b), int) if groups is None else numbered(groups)
    a = A @ x
    tops = np.array([a[(group == t) & (m > 0)].max() for t in range(group.max() + 1)])
    tops = {"rsx": np.maximum(tops, 0), "softmax": tops, "linear": 0 * tops}[link]
    top, k = tops[group], 0.0 if link == "softmax" else np.exp(-tops[group])
    e = 0 * a if link == "linear" else np.where(m > 0, m * np.exp(np.where(m > 0, a - top, 0)), 0)
    u, v = e + m * k * a, e + m * k
    alphas = np.bincount(group, u)
    alpha = alphas[group]
    f = u / alpha
    c = r * (f - b)
    s, F = np.bincount(group, f * c)[group], np.bincount(group, r * f**2)[group]
    grad = 2 * A.T @ (v * (c - s) / alpha) + A.T @ (w**2 * a)
    h, q = 2 * (r * v**2 / alpha**2 + e * (c - s) / alpha) + w**2, v * (r * f + c - s - F / 2)
    V, Q = (np.array([A[group == t].T @ (y / alpha)[group == t] for t in range(len(alphas))]) for y in (v, q))
    return (f - b) @ c + (w * a) @ (w * a) / 2, grad, (A.T * h) @ A - 2 * (V.T @ Q + Q.T @ V), np.log(alphas) + tops


def minimum(A, b, x, groups, w, m, r, link):
    """Newton's method from x, in longdouble, with what makes steps descend."""
    x = x.astype(np.longdouble)
    for _ in range(80):
        here = Naive(A, b, x, groups=groups, w=w, m=m, r=r, link=link)
        values, vectors = np.linalg.eigh(here.hess.astype(float))
        step = -vectors @ ((vectors.T @ here.grad) / np.maximum(abs(values), 1e-9 * abs(values).max()))
        for _ in range(30):
            there = Naive(A, b, x + step, groups=groups, w=w, m=m, r=r, link=link)
            if (there.alpha > 0).all() and there.value <= here.value:
                x = x + step
                break
            step = step / 2
    return x.astype(float)


def result(A, b, x, w, m, r, link, groups, **changes):
    """What a solve that stops at x returns."""
    value, grad, hess, log_alpha = in_double(A, b, x, w, m, r, link, groups)
    log_alpha = float(log_alpha[0]) if groups is None else log_alpha
    status = changes.pop("status", Status.CONVERGED)
    fields = {"x": x, "fun": value, "jac": grad, "hess": hess, "alpha": np.exp(log_alpha), "log_alpha": log_alpha}
    ending = {"status": status, "success": status.success, "message": status.sentence, "kernel": "serial, exact Hessian", "nit": 3, "history": []}
    return SimpleNamespace(**(fields | ending | changes))


# -- bounds on rounding -------------------------------------------------------------------------------------------


@LINKS
@GROUPS
@pytest.mark.parametrize("size", [1, 100])
def test_rounding_in_double_stays_within_the_bounds(groups, link, size):
    A, b, x, w, m, r = example(0, groups, link)
    if size > 1:
        A, x = np.where((A @ x < 0)[:, None], -A, A), size * x  # with a >= 0, alpha > 0 wherever x is
    point = oracle.Point(A, b, w, x, link, groups=groups, m=m, r=r)
    assert point.known
    value, grad, hess, log_alpha = in_double(A, b, x, w, m, r, link, groups)
    g, g_error, H, H_error = point.derivatives()
    assert abs(value - point.value) <= point.noise
    assert (abs(grad / point.scale - g) <= g_error).all()
    assert (abs(hess / point.scale / point.scale[:, None] - H) <= H_error).all()
    assert (abs(log_alpha - point.log_alpha) <= 2 * point.lost + point.error.max() + oracle.SUMS * oracle.EPS * (1 + abs(log_alpha))).all()
    if size == 1:  # and the bounds are no wider than a few hundred roundings
        exact = Naive(A, b, x, w=w, link=link, groups=groups, m=m, r=r)
        assert (g_error <= 1000 * oracle.EPS * exact.grad_split_scale / point.scale).all()
        assert point.noise <= 1000 * oracle.EPS * exact.value_scale


@LINKS
@GROUPS
def test_points_are_those_of_the_formulas(groups, link):
    A, b, x, w, m, r = example(1, groups, link)
    point, exact = oracle.Point(A, b, w, x, link, groups=groups, m=m, r=r), Naive(A, b, x, w=w, link=link, groups=groups, m=m, r=r)
    close = {"rtol": 1e-15, "atol": 1e-15}
    g, _, H, _ = point.derivatives(A.astype(np.longdouble))
    for found, expected in ((point.value, exact.value), (g, exact.grad), (H, exact.hess), (point.f, exact.f), (point.c, exact.c)):
        np.testing.assert_allclose(found - expected, 0 * expected, **close)
    np.testing.assert_allclose(point.log_alpha - np.log(np.atleast_1d(exact.alpha)), 0, **close)
    np.testing.assert_allclose(float(point.kappa.max() - exact.kappa), 0, atol=1e-14)


def test_one_group_with_ones_is_no_structure():
    A, b, x, w, _, _ = example(2, None)
    one, other = oracle.Point(A, b, w, x), oracle.Point(A, b, w, x, groups=["all"] * N, m=np.ones(N), r=np.ones(N))
    assert one.value == other.value
    assert one.noise == other.noise
    for found, expected in zip(other.derivatives(), one.derivatives(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_masked_row_may_have_any_size():
    """It takes no part in the largest exponent of its group, nor in whether that is known."""
    A, b, x, _, m, r = example(3, None)
    m[1::4], b[1::4], r[1::4] = 0, 0, 1
    far = A.copy()
    far[1::4] *= 1e5
    one, other = (oracle.Point(A, b, None, x, m=m, r=r) for A in (A, far))
    np.testing.assert_array_equal(one.f, other.f)
    np.testing.assert_array_equal(one.log_alpha, other.log_alpha)


# -- arguments ----------------------------------------------------------------------------------------------------


def refused(groups=None, m=None, r=None, x0=None, link="rsx"):
    A, b = np.array([[1.0], [-3.0], [2.0], [-1.0]], np.longdouble), np.full(4, 0.25, np.longdouble)
    m, r, x0 = (None if y is None else np.asarray(y, np.longdouble) for y in (m, r, x0))
    return oracle.is_refused(A, b, None, x0, link, groups=groups, m=m, r=r)


def test_arguments_that_are_refused():
    pairs = [1, 2, 1, 2]
    assert refused() is False
    assert refused(pairs, [1, 0, 0, 2], [0, 0, 0, 0]) is False
    assert refused(pairs, [1, 0, 1, 0]) is True
    assert refused(None, [1, 0, 1, 0]) is False
    assert refused(None, [0, 0, 0, 0]) is True
    for bad in (-1, np.nan, np.inf):
        assert refused(pairs, [1, 1, bad, 1]) is True
        assert refused(pairs, None, [1, 1, bad, 1]) is True
    assert oracle.is_empty(pairs, np.array([0, 1, 0, 0]))
    assert not oracle.is_empty(pairs, np.array([0, 1, 1, 0]))


def test_one_group_outside_is_refused():
    assert refused(None, x0=[1]) is False
    assert refused([1, 2, 1, 1], x0=[1]) is True  # u of the second row is exp(-3) - 3
    assert refused([1, 2, 1, 2], x0=[1], link="softmax") is False
    assert refused([1, 2, 1, 1], [1, 1, 1, 0], x0=[0.5]) is True
    assert refused([1, 1, 2, 2], x0=[-0.25], link="linear") is True
    assert refused([1, 2, 1, 2], x0=[1], link="linear") is True
    assert refused([1, 1, 1, 1], [4, 1, 1, 1], x0=[1], link="linear") is False


# -- results ------------------------------------------------------------------------------------------------------


def complaint(problem, found):
    A, b, x0, w, m, r, link, groups = problem
    with np.errstate(all="ignore"):
        return oracle.complaint(A, b, w, x0, found, link, groups=groups, m=m, r=r)


@LINKS
@GROUPS
def test_a_minimum_is_true_and_changes_to_it_are_not(groups, link):
    A, b, x0, w, m, r = example(4, groups, link)
    w = None if link == "linear" else w
    weights = np.zeros(N) if w is None else w
    arguments = (weights, m, r, link, groups)
    problem = (A, b, x0, w, m, r, link, groups)
    x = minimum(A, b, x0, groups, w, m, r, link)
    true, scales = result(A, b, x, *arguments), Naive(A, b, x, w=w, link=link, groups=groups, m=m, r=r)
    assert complaint(problem, true) is None
    assert "fun is" in complaint(problem, result(A, b, x, *arguments, fun=true.fun * (1 + 1e-9) + 1e-20))
    assert "log_alpha is" in complaint(problem, result(A, b, x, *arguments, log_alpha=true.log_alpha + 1e-9))
    assert "jac is" in complaint(problem, result(A, b, x, *arguments, jac=true.jac + 1e-9 * scales.grad_scale))
    assert "hess is" in complaint(problem, result(A, b, x, *arguments, hess=true.hess + 1e-9 * scales.hess_scale))
    assert "alpha has shape" in complaint(problem, result(A, b, x, *arguments, alpha=np.ones((2, 2))))
    ones = np.ones(N)
    for wrong in ((weights, ones, r, link, groups), (weights, m, ones, link, groups)):
        assert complaint(problem, result(A, b, x, *wrong)) is not None
    if groups is not None and len(set(groups)) in range(2, N):
        assert "log_alpha is" in complaint(problem, result(A, b, x, *arguments, log_alpha=true.log_alpha[::-1]))
    if link == "linear":
        return  # any length of x is as good
    away = result(A, b, x0, *arguments)
    if away.fun > true.fun * (1 + 1e-6):
        assert "decrement is" in complaint(problem, away)


def test_a_ray_in_one_group():
    """In one group b is one-hot, which no x attains; in the other it is attained."""
    A = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    groups, w, ones = [1, 1, 2, 2, 2], np.zeros(5), np.ones(5)
    f = Naive(A, np.zeros(5), [0.0, 0.4], link="softmax", groups=groups).f.astype(float)
    b = np.where(np.arange(5) < 2, [1.0, 0, 0, 0, 0], f)
    x = np.array([9.0, 0.4])
    found = result(A, b, x, w, ones, ones, "softmax", groups, status=Status.NO_MINIMISER)
    assert complaint((A, b, None, None, ones, ones, "softmax", groups), found) is None
    attained = np.where(np.arange(5) < 2, [0.7, 0.3, 0, 0, 0], [0.0, 0.0, 0.5, 0.3, 0.2])
    x = minimum(A, attained, np.zeros(2), groups, w, ones, ones, "softmax")
    found = result(A, attained, x, w, ones, ones, "softmax", groups, status=Status.NO_MINIMISER)
    assert "no ray" in complaint((A, attained, None, None, ones, ones, "softmax", groups), found)


def test_a_pole_in_one_group():
    """Near a = -0.567, in one of two groups, alpha vanishes."""
    A, b, ones, w = np.array([[1.0], [1.0], [0.0]]), np.array([0.7, 0.3, 0.9]), np.ones(3), np.zeros(3)
    x = np.array([-0.567143290409783872999968662210355 + 1e-7])
    point = oracle.Point(A, b, None, x, groups=[1, 1, 2])
    assert point.kappa[0] > 1e6
    assert point.kappa[1] == 1
    for groups, said in (([1, 1, 2], None), ([1, 1, 1], "near the pole, where kappa is")):
        found = result(A, b, x, w, ones, ones, "rsx", groups, status=Status.NO_MINIMISER, message="the pole")
        complained = complaint((A, b, x, None, ones, ones, "rsx", groups), found)
        assert complained is None if said is None else said in complained


def test_an_x_outside_the_domain_of_one_group():
    A, b, ones, w = np.array([[1.0], [1.0], [-1.0]]), np.array([0.7, 0.3, 0.9]), np.ones(3), np.zeros(3)
    found = result(A, b, np.array([-0.6]), w, ones, ones, "softmax", [1, 1, 2])
    assert "outside the domain" in complaint((A, b, None, None, ones, ones, "rsx", [1, 1, 2]), found)
