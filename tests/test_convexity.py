"""Curvature, convexifying weights and Lipschitz constants, against the naive reference."""

import numpy as np
import pytest

import fastrsx
import naive
from fastrsx import convexity


def random_problem(seed, n, d, spread=0.5):
    rng = np.random.default_rng([seed, n, d])
    A, b = rng.standard_normal((n, d)), rng.dirichlet(np.ones(n))
    x = spread * rng.standard_normal(d) / np.sqrt(d)
    while naive.Naive(A, b, x).alpha <= 0.1 * n:
        x *= 0.5
    return A, b, x


def parts(A, b, x, w):
    """The Hessian, its two parts and the Gauss-Newton matrix, in double."""
    ref = naive.Naive(A, b, x, w=w)
    rank_2 = -2 * (np.outer(*ref.V) + np.outer(*ref.V[::-1]))
    J = (ref.v[:, None] * ref.A - np.outer(ref.f, ref.v @ ref.A)) / ref.alpha
    gauss_newton = 2 * J.T @ J + ref.A.T @ (ref.w[:, None] ** 2 * ref.A)
    return [matrix.astype(float) for matrix in (ref.hess, ref.hess - rank_2, rank_2, gauss_newton)]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d", "exact_up_to"), [(7, 1, 1000), (9, 2, 1000), (40, 5, 1000), (300, 17, 1000), (40, 5, 4), (300, 17, 4)])
def test_curvature_is_that_of_the_formulas(monkeypatch, n, d, exact_up_to, weighted):
    monkeypatch.setattr(convexity, "EXACT_UP_TO", exact_up_to)
    A, b, x = random_problem(0, n, d)
    w = np.linspace(0, 0.1, n) if weighted else None
    found = fastrsx.curvature(A, b, x, w=w)
    for eigenvalues, matrix in zip(found, parts(A, b, x, w), strict=True):
        expected = np.linalg.eigvalsh(matrix)
        tol = 1e-7 * abs(expected).max()
        assert eigenvalues.smallest == pytest.approx(expected[0], abs=tol)
        assert eigenvalues.largest == pytest.approx(expected[-1], abs=tol)
        if abs(expected[0]) > 10 * tol:
            assert eigenvalues.is_psd == (expected[0] > 0)
    assert found.gauss_newton.is_psd


def test_the_hessian_is_often_indefinite_and_the_gauss_newton_part_never():
    found = [fastrsx.curvature(*random_problem(seed, 12, 4, spread=2.0)) for seed in range(100)]
    assert sum(not curvature.hessian.is_psd for curvature in found) > 50
    assert all(curvature.gauss_newton.is_psd for curvature in found)


def is_definite(H):
    """Whether Cholesky succeeds, in longdouble."""
    H = H.copy()
    for i in range(len(H)):
        if not H[i, i] > 0:
            return False
        H[i + 1 :, i + 1 :] -= np.outer(H[i + 1 :, i], H[i, i + 1 :]) / H[i, i]
    return True


def test_psd_weights_make_a_thousand_hessians_definite():
    rng = np.random.default_rng(0)
    indefinite = 0
    for seed in range(1000):
        d = int(rng.integers(1, 6))
        n = int(rng.integers(d + 1, 25))
        A, b, x = random_problem(seed, n, d, spread=float(rng.uniform(0.1, 3)))
        margin = 10.0 ** rng.uniform(-6, 1)
        w = fastrsx.psd_weights(A, b, x, margin=margin)
        assert is_definite(naive.Naive(A, b, x, w=w).hess - margin * np.eye(d))
        indefinite += not is_definite(naive.Naive(A, b, x).hess)
    assert indefinite > 300


def test_psd_weights_without_a_margin():
    A, b, x = random_problem(0, 12, 4, spread=2.0)
    A = A[:, [0, 1, 2, 3, 0]]
    x = np.append(x, 0.0)
    w = fastrsx.psd_weights(A, b, x)
    assert fastrsx.curvature(A, b, x, w=w).hessian.is_psd
    with pytest.raises(ValueError, match=r"linearly dependent.*margin=0"):
        fastrsx.psd_weights(A, b, x, margin=1e-3)
    with pytest.raises(ValueError, match="linearly dependent"):
        fastrsx.psd_weights(np.eye(2, 3), [0.5, 0.5], np.zeros(3), margin=1e-3)


@pytest.mark.parametrize("radius", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_lipschitz_bounds_hold_on_random_pairs(radius, weighted):
    rng = np.random.default_rng(0)
    n, d, beta = 12, 3, 2.0
    tightest = np.zeros(2)
    for _ in range(300):
        A, b = rng.standard_normal((n, d)) / 2, rng.dirichlet(np.ones(n))
        w = rng.random(n) if weighted else None
        x = rng.standard_normal(d)
        x *= radius * rng.random() / np.linalg.norm(x)
        step = rng.standard_normal(d)
        y = x + 10.0 ** rng.uniform(-6, 0) * step
        y *= min(1.0, radius / np.linalg.norm(y))
        at_x, at_y = naive.Naive(A, b, x, w=w), naive.Naive(A, b, y, w=w)
        if min(at_x.alpha, at_y.alpha) < beta:
            continue
        bounds = fastrsx.lipschitz_bounds(A, b, radius, beta, w=w)
        distance = np.linalg.norm(x - y)
        slopes = (
            np.array([np.linalg.norm((at_x.grad - at_y.grad).astype(float)), np.linalg.norm((at_x.hess - at_y.hess).astype(float), 2)]) / distance
        )
        assert slopes[0] <= bounds.gradient
        assert slopes[1] <= bounds.hessian
        tightest = np.maximum(tightest, slopes / bounds[:2])
    assert (tightest > 1e-9).all()  # some pairs were tried, and the bounds are not absurd


def test_lipschitz_bounds_that_overflow_have_logarithms():
    bounds = fastrsx.lipschitz_bounds(np.eye(3), np.full(3, 1 / 3), radius=1e6, beta=1e-3)
    assert bounds.gradient == bounds.hessian == np.inf
    assert 3e6 < bounds.log_gradient < bounds.log_hessian < 1e7


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A, b: fastrsx.curvature(A, b, [-5.0]), ValueError, "outside the domain"),
        (lambda A, b: fastrsx.curvature(A, b, [0.0, 0.0]), ValueError, "x has 2 entries"),
        (lambda A, b: fastrsx.curvature(A, b, [0.0], seed=-1), ValueError, "seed"),
        (lambda A, b: fastrsx.psd_weights(A, b, [-5.0]), ValueError, "outside the domain"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], margin=-1), ValueError, "margin"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], margin="x"), TypeError, "margin"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 0, 1), ValueError, "radius"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 1, np.nan), ValueError, "beta"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((4, 1)), np.full(4, 0.25))
