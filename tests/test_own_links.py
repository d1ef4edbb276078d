"""Users' own links: in the kernels, in solves, and the errors that `check_link` finds."""

import copy
import math
import pickle

import numpy as np
import pytest
from numba import njit

import fastrsx
from fastrsx.kernels import dense
from fastrsx.kernels.exp import exp
from naive import Naive


@njit
def softplus(a, M):
    """log(1 + exp(a)), in scalar functions only."""
    p, k = 1.0 / (1.0 + math.exp(-a)), math.exp(-M)
    return (max(a, 0.0) + math.log1p(math.exp(-abs(a)))) * k, p * k, p * (1.0 - p) * k


def cosh(a, M):
    up, down = 0.5 * exp(a - M), 0.5 * exp(-a - M)
    return up + down, up - down, up + down


def magnitude(a):
    return abs(a)


def residual_softmax(a, M):
    e, k = exp(a - M), exp(0.0 - M)
    return e + k * a, e + k, e


def positive(a):
    return max(a, 0.0)


SOFTPLUS = fastrsx.Link(softplus)
COSH = fastrsx.Link(cosh, magnitude)
OWN_RSX = fastrsx.Link(residual_softmax, positive)


def naive_softplus(a):
    p = 1 / (1 + np.exp(-a))
    return np.log1p(np.exp(a)), p, p * (1 - p)


def naive_cosh(a):
    return np.cosh(a), np.sinh(a), np.cosh(a)


def problem(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    b = rng.random(n)
    return rng.standard_normal((n, d)), b / b.sum()


@pytest.mark.parametrize(("link", "reference"), [(SOFTPLUS, naive_softplus), (COSH, naive_cosh)], ids=["softplus", "cosh"])
@pytest.mark.parametrize("w", [None, 0.01])
def test_against_naive(link, reference, w):
    A, b = problem()
    x, p = np.array([0.5, -1.0, 0.25]), np.array([1.0, 2.0, -0.5])
    naive = Naive(A, b, x, w=None if w is None else np.full(60, w), link=reference)
    ours = fastrsx.Problem(A, b, w=w, link=link, kernel="serial")
    value, grad, hess = ours.value_grad_hess(x)
    np.testing.assert_allclose(value, float(naive.value), rtol=1e-13)
    np.testing.assert_allclose(grad, naive.grad.astype(float), atol=1e-13 * float(abs(naive.grad).max()))
    np.testing.assert_allclose(hess, naive.hess.astype(float), atol=1e-13 * float(abs(naive.hess).max()))
    np.testing.assert_allclose(ours.hess_vec(x, p), hess @ p, atol=1e-13 * float(abs(naive.hess).max()))
    np.testing.assert_allclose(ours.predict(x), naive.f.astype(float), rtol=1e-13)
    np.testing.assert_allclose(fastrsx.predict(A, x, link=link), ours.predict(x), rtol=0)


def test_shift_keeps_huge_a_finite():
    """exp(|a|) overflows, cosh(a) exp(-M) does not."""
    A, b = problem()
    x = np.array([300.0, -500.0, 200.0])
    f = fastrsx.Problem(A, b, link=COSH, kernel="serial").predict(x)
    a = abs(np.longdouble(A) @ x)
    expected = np.exp(a - a.max())
    np.testing.assert_allclose(f, (expected / expected.sum()).astype(float), rtol=1e-12, atol=1e-300)


def test_newton_finds_a_planted_optimum():
    A, _ = problem(300, 3)
    x = np.array([0.5, -1.0, 0.25])
    b = Naive(A, np.zeros(300), x, link=naive_cosh).f.astype(float)
    found = fastrsx.newton(A, b, 0.8 * x, link=COSH, kernel="serial")
    assert found.status == fastrsx.Status.EXACT_FIT
    np.testing.assert_allclose(found.x, x, rtol=1e-9)


def softmax(a, M):
    return exp(a - M), exp(a - M), exp(a - M)


def identity(a):
    return a


def test_curvature_weights_and_convergence():
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((300, 4)), np.array([0.5, -0.4, 0.3, 0.2])
    b = fastrsx.predict(A, x, link=COSH) * rng.uniform(0.8, 1.2, 300)
    found = fastrsx.convergence(A, b / b.sum(), x, link=COSH, kernel="serial")
    least = np.linalg.eigvalsh(Naive(A, b / b.sum(), found.x, link=naive_cosh).hess.astype(float))[0]
    assert found.least_eigenvalue == pytest.approx(least, rel=1e-9)
    assert np.isnan(found.lipschitz_bound)
    assert found.contractions["exact"].end == "floor"
    assert fastrsx.curvature(A, b / b.sum(), found.x, link=COSH, kernel="serial").hessian.smallest == pytest.approx(least, rel=1e-9)
    far = 4 * x
    assert np.linalg.eigvalsh(Naive(A, b, far, link=naive_cosh).hess.astype(float))[0] < 0
    w = fastrsx.psd_weights(A, b, far, link=COSH)
    assert fastrsx.curvature(A, b, far, w=w, link=COSH, kernel="serial").hessian.is_psd


def test_a_loss_that_is_constant_along_a_direction_has_a_minimum():
    """The softmax does not change when a constant is added to all rows."""
    A, b = problem(50, 2)
    A = np.column_stack([np.ones(50), A])
    own, ours = (fastrsx.newton(A, b, link=link, kernel="serial") for link in (fastrsx.Link(softmax, identity), "softmax"))
    assert own.status == ours.status == fastrsx.Status.CONVERGED
    np.testing.assert_allclose(own.fun, ours.fun, rtol=1e-12)
    np.testing.assert_allclose(own.x[1:], ours.x[1:], atol=1e-8)


def square(a, M):
    return a * a, 2.0 * a, 2.0


def test_a_constant_among_the_terms_runs_row_by_row():
    link = fastrsx.Link(square)
    assert not fastrsx.check_link(link).vectorised
    A, b = problem()
    x = np.array([0.5, -1.0, 0.25])
    u = (A @ x) ** 2
    np.testing.assert_allclose(fastrsx.predict(A, x, link=link), u / u.sum(), rtol=1e-13)
    with pytest.raises(ValueError, match=r"x0 lies outside the domain alpha = <u, 1> > 0 of Link\(square\)"):
        fastrsx.newton(A, b, link=link)


def test_vectorised_where_it_can_be():
    assert fastrsx.check_link(COSH).vectorised
    assert not fastrsx.check_link(SOFTPLUS).vectorised
    assert not fastrsx.check_link(OWN_RSX).vectorised  # max() takes only scalars


@pytest.mark.parametrize("link", ["rsx", "softmax", "linear", SOFTPLUS, COSH, OWN_RSX])
def test_check_passes(link):
    check = fastrsx.check_link(link)
    assert max(check.first, check.second) < 1e-10
    assert check.shift < 1e-14


def wrong_first(a, M):
    return exp(a - M), 1.001 * exp(a - M), exp(a - M)


def wrong_second(a, M):
    return exp(a - M), exp(a - M), 0.0 * a


def without_shift(a, M):
    return exp(a), exp(a), exp(a)


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        (fastrsx.Link(wrong_first, magnitude), ValueError, r"link: u' is not the derivative of u: off by 0\.0\d+, relative, at a ="),
        (fastrsx.Link(wrong_second, magnitude), ValueError, "link: u'' is not the derivative of u'"),
        (fastrsx.Link(without_shift, magnitude), ValueError, "link: the triple is not that at M = 0 times exp"),
        (fastrsx.Link(softmax), ValueError, r"at a = 7\d\d, M = m\(a\) = 0, is as large as 1e\+304; growth must say how fast u grows"),
        (fastrsx.Link(lambda a, M: (a, a)), TypeError, "Numba cannot compile"),
        ("cosh", ValueError, "link is 'cosh'; it must be one of 'rsx', 'softmax', 'linear'"),
    ],
)
def test_check_says_what_is_wrong(link, error, message):
    with pytest.raises(error, match=message):
        fastrsx.check_link(link)


def test_wrong_arguments():
    with pytest.raises(TypeError, match="terms is 3; it must be a function"):
        fastrsx.Link(3)
    with pytest.raises(TypeError, match="growth is 3; it must be a function"):
        fastrsx.Link(softmax, 3)
    with pytest.raises(ValueError, match=r"a\[0\] is nan"):
        fastrsx.check_link(COSH, [np.nan])


def test_pickle_and_copy():
    A, b = problem()
    ours = fastrsx.Problem(A, b, link=COSH, kernel="serial")
    x = np.array([0.5, -1.0, 0.25])
    for twin in (pickle.loads(pickle.dumps(ours)), copy.copy(ours), copy.deepcopy(ours)):
        assert repr(twin.link) == "Link(cosh, magnitude)"
        assert twin.value(x) == ours.value(x)


def test_in_a_workspace_of_jitted_code():
    A, b = problem()
    x, grad = np.array([0.5, -1.0, 0.25]), np.empty(3)
    work = dense.alloc_workspace(60, 3, False, COSH.compiled)
    value = dense.value_grad_serial(A, x, b, np.empty(0), grad, work)
    np.testing.assert_allclose(value, float(Naive(A, b, x, link=naive_cosh).value), rtol=1e-13)
