"""Curvature, convexifying weights and Lipschitz constants, against the naive reference."""

import doctest
import itertools
from pathlib import Path

import numpy as np
import pytest

import fastrsx
import naive
from fastrsx import convexity
from fastrsx.bounds import Ball

LINKS = ("rsx", "softmax", "linear")
THEORY = Path(__file__).parent.parent / "docs" / "theory.md"


def random_problem(seed, n, d, spread=0.5, link="rsx"):
    rng = np.random.default_rng([seed, n, d])
    A, b = rng.standard_normal((n, d)), rng.dirichlet(np.ones(n))
    x = spread * rng.standard_normal(d) / np.sqrt(d)
    if link == "linear":
        return A, b, x * np.sign(A.sum(axis=0) @ x)
    while naive.Naive(A, b, x).alpha <= 0.1 * n:
        x *= 0.5
    return A, b, x


def parts(A, b, x, w, link):
    """The Hessian, its two parts and the Gauss-Newton matrix, in double."""
    ref = naive.Naive(A, b, x, w=w, link=link)
    rank_2 = -2 * (np.outer(*ref.V) + np.outer(*ref.V[::-1]))
    J = (ref.v[:, None] * ref.A - np.outer(ref.f, ref.v @ ref.A)) / ref.alpha
    gauss_newton = 2 * J.T @ J + ref.A.T @ (ref.w[:, None] ** 2 * ref.A)
    return [matrix.astype(float) for matrix in (ref.hess, ref.hess - rank_2, rank_2, gauss_newton)]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d", "exact_up_to"), [(7, 1, 1000), (9, 2, 1000), (40, 5, 1000), (300, 17, 1000), (40, 5, 4), (300, 17, 4)])
def test_curvature_is_that_of_the_formulas(monkeypatch, n, d, exact_up_to, weighted, link):
    monkeypatch.setattr(convexity, "EXACT_UP_TO", exact_up_to)
    A, b, x = random_problem(0, n, d, link=link)
    w = np.linspace(0, 0.1, n) if weighted else None
    found = fastrsx.curvature(A, b, x, w=w, link=link)
    for eigenvalues, matrix in zip(found, parts(A, b, x, w, link), strict=True):
        expected = np.linalg.eigvalsh(matrix)
        tol = 1e-7 * abs(expected).max() + 1e-14  # linear with d = 1: f is constant, and all is rounding
        assert eigenvalues.smallest == pytest.approx(expected[0], abs=tol)
        assert eigenvalues.largest == pytest.approx(expected[-1], abs=tol)
        if abs(expected[0]) > 10 * tol:
            assert eigenvalues.is_psd == (expected[0] > 0)
    if link != "linear" or d > 1:
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


def small_problems(count, link="rsx"):
    """`count` times (A, b, x, margin), and the generator of random numbers."""
    rng = np.random.default_rng(0)
    for seed in range(count):
        d = int(rng.integers(1, 6))
        n = int(rng.integers(d + 1, 25))
        A, b, x = random_problem(seed, n, d, spread=float(rng.uniform(0.1, 3)), link=link)
        yield A, b, x, 10.0 ** rng.uniform(-6, 1), rng


@pytest.mark.parametrize(("link", "count"), [("rsx", 1000), ("softmax", 300), ("linear", 300)])
def test_psd_weights_make_hessians_definite(link, count):
    indefinite = 0
    for A, b, x, margin, _ in small_problems(count, link):
        w = fastrsx.psd_weights(A, b, x, margin=margin, link=link)
        assert is_definite(naive.Naive(A, b, x, w=w, link=link).hess - margin * np.eye(len(x)))
        indefinite += not is_definite(naive.Naive(A, b, x, link=link).hess)
    assert indefinite > 0.3 * count


def test_one_weight_makes_every_hessian_of_the_softmax_definite():
    indefinite = 0
    for A, b, x, margin, rng in small_problems(300, "softmax"):
        target = (b, rng.standard_normal(len(b)), np.eye(1, len(b))[0])[rng.integers(3)]
        w = fastrsx.psd_weights(A, target, margin=margin, link="softmax")
        near = fastrsx.psd_weights(A, target, radius=np.linalg.norm(x), margin=margin, link="softmax")
        assert (near <= w).all()
        for weights, at in ((w, 10.0 ** rng.uniform(-1, 2) * x), (near, x), (near, -rng.random() * x)):
            assert is_definite(naive.Naive(A, target, at, w=weights, link="softmax").hess - margin * (1 - 1e-9) * np.eye(len(x)))
            indefinite += not is_definite(naive.Naive(A, target, at, link="softmax").hess)
    assert indefinite > 100


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
    w = fastrsx.psd_weights(A, b, radius=np.linalg.norm(x), beta=0.1)
    assert fastrsx.curvature(A, b, x, w=w).hessian.is_psd
    with pytest.raises(ValueError, match=r"^margin.*linearly dependent"):
        fastrsx.psd_weights(A, b, radius=1.0, beta=1.0, margin=1e-3)


@pytest.mark.parametrize("link", LINKS)
def test_psd_weights_of_a_ball_make_every_hessian_on_it_definite(link):
    indefinite = 0
    for A, b, x, margin, rng in small_problems(100, link):
        n, d = A.shape
        radius = np.linalg.norm(x)
        beta = 0.3 * float(naive.Naive(A, b, x, link=link).alpha) if link == "linear" else 0.1 * n
        w = fastrsx.psd_weights(A, b, radius=radius, beta=beta, margin=margin, link=link)
        assert w.shape == (n,)
        assert (w == w[0]).all()
        for scale in (1.0, rng.random(), 0.0 if link != "linear" else 0.5):
            y = rng.standard_normal(d)
            for at in (scale * x, scale * radius / np.linalg.norm(y) * y):
                ref = naive.Naive(A, b, at, w=w, link=link)
                if ref.alpha < beta:
                    continue
                assert is_definite(ref.hess - margin * np.eye(d))
                if link != "softmax":  # its bound is not a bound of the one at a point
                    assert (w >= fastrsx.psd_weights(A, b, at, margin=margin, link=link)).all()
                indefinite += not is_definite(naive.Naive(A, b, at, link=link).hess)
    assert indefinite > 50


def test_the_weights_of_a_ball_grow_like_the_needed_ones_beside_the_pole():
    b, alphas = np.full(2, 0.5), (1e-2, 1e-4)
    points = [beside_the_pole(3.0, alpha) for alpha in alphas]
    needed = [-np.linalg.eigvalsh(naive.Naive(POLE, b, x).hess.astype(float))[0] for x in points]
    found = [fastrsx.psd_weights(POLE, b, radius=np.linalg.norm(x), beta=0.999 * alpha)[0] ** 2 for x, alpha in zip(points, alphas, strict=True)]
    assert needed[1] / needed[0] == pytest.approx(1e6, rel=0.1)
    assert found[1] / found[0] == pytest.approx(1e6, rel=0.2)
    assert (np.array(found) > needed).all()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("radius", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_lipschitz_bounds_hold_on_random_pairs(radius, weighted, link):
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
        at_x, at_y = (naive.Naive(A, b, at, w=w, link=link) for at in (x, y))
        least = float(min(at_x.alpha, at_y.alpha)) if link == "linear" else beta
        if least <= 0 or min(at_x.alpha, at_y.alpha) < least:
            continue
        bounds = fastrsx.lipschitz_bounds(A, b, radius, None if link == "softmax" else least, w=w, link=link)
        tightest = np.maximum(tightest, slopes(at_x, at_y, x, y) / bounds[:2])
        assert (tightest <= 1).all()
    assert (tightest > 1e-5).all()  # some pairs were tried


@pytest.mark.parametrize("link", ["softmax", "linear"])
def test_the_parts_are_bounded_for_other_links(link):
    rng, tightest = np.random.default_rng(0), np.zeros((5, 2, 2))
    for k in range(400):
        n, d = int(rng.integers(2, 40)), int(rng.integers(1, 4))
        A, b = rng.standard_normal((n, d)) * rng.uniform(0.1, 2), rng.dirichlet(np.ones(n))
        if k % 2:
            A[:, 0] = 1.0
        x = 10.0 ** rng.uniform(-2, 1) * unit(rng, d)
        if link == "linear":
            x *= np.sign(A.sum(axis=0) @ x)
        y = x + 10.0 ** rng.uniform(-4, 0) * np.linalg.norm(x) * unit(rng, d)
        at_x, at_y = (naive.Naive(A, b, at, link=link) for at in (x, y))
        beta = float(min(at_x.alpha, at_y.alpha))
        if not beta > 0:
            continue
        radius = max(map(np.linalg.norm, (x, y)))
        ball = Ball.of(fastrsx.Problem(A, b, link=link), radius, None if link == "softmax" else beta, np.linalg.norm(A, 2))
        for part_x, part_y, bound, tight in zip(parts_of(at_x), parts_of(at_y), ball, tightest, strict=True):
            for i, (norm, (size, slope)) in enumerate(zip((np.inf, 2), np.exp(bound), strict=True)):
                size_found, slope_found = np.linalg.norm(part_x, norm), np.linalg.norm(part_x - part_y, norm) / np.linalg.norm(x - y)
                assert size_found <= size * (1 + 1e-12)
                assert slope_found <= slope * (1 + 1e-9)
                tight[i] = np.maximum(tight[i], (size_found / max(size, 1e-300), slope_found / max(slope, 1e-300)))
    used = [0, 1, 3, 4] if link == "linear" else [0, 1, 2, 3, 4]  # e = 0
    assert (tightest[used] > 0.05).all(), tightest


def test_the_constants_of_the_softmax_do_not_grow():
    A, b = np.random.default_rng(0).standard_normal((12, 3)), np.full(12, 1 / 12)
    small, large, larger = (fastrsx.lipschitz_bounds(A, b, radius, link="softmax") for radius in (0.01, 1e2, 1e9))
    assert large == larger == fastrsx.lipschitz_bounds(A, b, 1e9, 1e-9, link="softmax")
    assert small.hessian < large.hessian / 10


def test_the_parts_are_bounded_beside_the_pole():
    """Also v/alpha, c - s, e * (c - s)/alpha, q/alpha and v * (f + c)/alpha, with beta the least alpha of the two points, or a thousandth of it."""
    rng = np.random.default_rng(0)
    n, d = 12, 3
    ratios, tightest = [], np.zeros(2)
    for k in range(600):
        A, b = rng.standard_normal((n, d)), rng.dirichlet(np.ones(n))
        A = (A, np.column_stack([np.ones(n), A[:, 1:]]), abs(A))[k % 3]
        beta, radius = n * 10.0 ** rng.uniform(-4, 0), 10.0 ** rng.uniform(-1, 2)
        x, toward = radius * unit(rng, d) * rng.random(), radius * unit(rng, d) * rng.random()
        if naive.Naive(A, b, x).alpha < beta:
            if naive.Naive(A, b, toward).alpha < beta:
                continue
            x = at_the_rim(A, toward, x, beta)
        at_x = naive.Naive(A, b, x)
        step = at_x.alpha / np.linalg.norm((A.T @ at_x.v).astype(float)) * 10.0 ** rng.uniform(-4, 2)  # it changes alpha by that fraction
        y = x + min(step, radius) * unit(rng, d)
        at_y = naive.Naive(A, b, y)
        if not at_y.alpha >= beta:
            continue
        ratios.append(float(at_y.alpha / at_x.alpha))
        radius, beta = max(map(np.linalg.norm, (x, y))), float(min(at_x.alpha, at_y.alpha)) * (1, 1e-3)[k % 2]
        ball = Ball.of(fastrsx.Problem(A, b), radius, beta, np.linalg.norm(A, 2))
        for part_x, part_y, bound in zip(parts_of(at_x), parts_of(at_y), ball, strict=True):
            for norm, (size, slope) in zip((np.inf, 2), np.exp(bound), strict=True):
                assert np.linalg.norm(part_x, norm) <= size
                assert np.linalg.norm(part_x - part_y, norm) <= slope * np.linalg.norm(x - y)
        bounds = fastrsx.lipschitz_bounds(A, b, radius, beta)
        tightest = np.maximum(tightest, slopes(at_x, at_y, x, y) / bounds[:2])
        assert (tightest <= 1).all()
    assert len(ratios) > 300
    assert min(ratios) < 0.1
    assert max(ratios) > 10
    assert (tightest > 1e-3).all()


def unit(rng, d):
    x = rng.standard_normal(d)
    return x / np.linalg.norm(x)


def at_the_rim(A, inside, outside, beta):
    """The point on the way where alpha falls below beta."""
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if naive.Naive(A, np.zeros(len(A)), middle).alpha >= beta else (inside, middle)
    return inside


def parts_of(at):
    parts = at.v / at.alpha, at.c - at.s, at.e * (at.c - at.s) / at.alpha, at.q / at.alpha, at.v * (at.f + at.c) / at.alpha
    return [part.astype(float) for part in parts]


def slopes(at_x, at_y, x, y):
    """The slopes of gradient and Hessian."""
    differences = np.linalg.norm((at_x.grad - at_y.grad).astype(float)), np.linalg.norm((at_x.hess - at_y.hess).astype(float), 2)
    return np.array(differences) / np.linalg.norm(x - y)


POLE = np.diag([1.0, -1.0])  # a = (s, -t)


def beside_the_pole(t, beta):
    """The x at which exp(s) + s and t cancel up to beta."""
    s = np.log(t)
    for _ in range(10):
        s -= (np.exp(s) + s + np.exp(-t) - t - beta) / (np.exp(s) + 1)
    return np.array([s, t])


@pytest.mark.parametrize("beta", [1.0, 0.01])
@pytest.mark.parametrize("radius", [1e2, 1e4, 1e6])
def test_lipschitz_bounds_are_within_a_constant_of_what_occurs(radius, beta):
    b, x = np.full(2, 0.5), beside_the_pole(radius, beta)
    y = x + [0.01 * beta / radius, 0.0]
    found = slopes(naive.Naive(POLE, b, x), naive.Naive(POLE, b, y), x, y) / fastrsx.lipschitz_bounds(POLE, b, 1.001 * radius, 0.999 * beta)[:2]
    assert (found > 1 / 16).all()
    assert (found <= 1).all()


def test_lipschitz_bounds_hold_where_exponentials_overflow():
    b, radius, beta, rng = np.full(2, 0.5), 1e5, 1e-3, np.random.default_rng(0)
    bounds, problem = fastrsx.lipschitz_bounds(POLE, b, radius, beta), fastrsx.Problem(POLE, b)
    points = [beside_the_pole(t, 2 * beta) for t in np.geomspace(1, 0.9 * radius, 20)]
    points += [radius * rng.uniform(-0.7, 0.7) * np.ones(2) for _ in range(20)]  # alpha is exp(|x_0|)
    derivatives = [problem.value_grad_hess(x)[1:] for x in points]
    for (x, (grad_x, hess_x)), (y, (grad_y, hess_y)) in itertools.combinations(zip(points, derivatives, strict=True), 2):
        assert np.linalg.norm(grad_x - grad_y) <= bounds.gradient * np.linalg.norm(x - y)
        assert np.linalg.norm(hess_x - hess_y, 2) <= bounds.hessian * np.linalg.norm(x - y)


def test_beta_is_raised_to_the_least_alpha_that_jensens_inequality_leaves():
    A, b = np.ones((5, 1)), np.full(5, 0.2)
    least = 5 * (np.exp(-0.5) - 0.5)  # alpha at x = -0.5
    bounds = fastrsx.lipschitz_bounds(A, b, 0.5, 1e-9)
    np.testing.assert_allclose(bounds, fastrsx.lipschitz_bounds(A, b, 0.5, least), rtol=1e-9)
    assert bounds.gradient < fastrsx.lipschitz_bounds(A, b, 0.6, 1e-9).gradient / 1e9  # alpha is 0 somewhere on this ball


def test_lipschitz_bounds_that_overflow_have_logarithms():
    bounds = fastrsx.lipschitz_bounds(1e10 * np.eye(3), np.full(3, 1 / 3), radius=1e300, beta=1e-300)
    assert bounds.gradient == bounds.hessian == np.inf
    assert 4 * 610 * np.log(10) < bounds.log_gradient < bounds.log_hessian < 8000


OWN = fastrsx.Link(lambda a, M: (a, 1.0, 0.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A, b: fastrsx.curvature(A, b, [-5.0]), ValueError, "outside the domain"),
        (lambda A, b: fastrsx.curvature(A, b, [0.0, 0.0]), ValueError, "x has 2 entries"),
        (lambda A, b: fastrsx.curvature(A, b, [0.0], seed=-1), ValueError, "seed"),
        (lambda A, b: fastrsx.psd_weights(A, b, [-5.0]), ValueError, "outside the domain"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], margin=-1), ValueError, "margin"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], margin="x"), TypeError, "margin"),
        (lambda A, b: fastrsx.psd_weights(A, b), ValueError, "neither of x and radius"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], radius=1.0, beta=1.0), ValueError, "both of x and radius"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1.0), ValueError, "^beta is None"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], beta=1.0), ValueError, "^beta is 1.0"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=-1.0, beta=1.0), ValueError, "^radius"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1.0, beta=0.0), ValueError, "^beta"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1.0, beta=1.0, margin=np.inf), ValueError, "^margin"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1e100, beta=1.0), ValueError, r"^weights of .*beyond 1e\+150"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1e300, beta=1e-300), ValueError, "^weights of inf"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1.0, link="linear"), ValueError, "^beta is None"),
        (lambda A, b: fastrsx.psd_weights(A, b, link="linear"), ValueError, "neither of x and radius"),
        (lambda A, b: fastrsx.psd_weights(A, b, radius=1.0, beta=1.0, link=OWN), ValueError, "^link is Link.*ask for a point x"),
        (lambda A, b: fastrsx.psd_weights(A, b, [0.0], link="logit"), ValueError, "^link"),
        (lambda A, b: fastrsx.curvature(A, b, [0.0], link="linear"), ValueError, "outside the domain.*link='linear'"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 1, 1, link=OWN), ValueError, "^link is Link.*which a Link does not give"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 1), ValueError, "^beta is None; it must be the least <u, 1>"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 1, -1, link="softmax"), ValueError, "^beta"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 0, 1), ValueError, "radius"),
        (lambda A, b: fastrsx.lipschitz_bounds(A, b, 1, np.nan), ValueError, "beta"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((4, 1)), np.full(4, 0.25))


@pytest.mark.skipif(not THEORY.exists(), reason="the documentation lies beside the tests only in a checkout")
def test_the_examples_of_the_theory():
    assert doctest.testfile(str(THEORY), module_relative=False, encoding="utf-8").failed == 0
