"""Curvature, convexifying weights, Lipschitz constants, standard errors and convergence within groups, against plain NumPy group by group."""

import numpy as np
import pytest

import fastrsx
from fastrsx import convexity
from fastrsx.bounds import Ball, spectral_norms
from fastrsx.result import inference

LINKS = ("rsx", "softmax", "linear")


class Plain:
    """All quantities of one softmax in each group at x, group by group; matrices over groups have a row for each."""

    def __init__(self, A, b, x, labels, m=None, r=None, w=0.0, link="rsx"):
        n = len(b)
        m, r = (np.ones(n) if each is None else each for each in (m, r))
        a = A @ x
        e = 0 * a if link == "linear" else m * np.exp(a)
        u, v = {"rsx": (e + m * a, e + m), "softmax": (e, e), "linear": (m * a, m)}[link]
        self.r, self.e, self.members = r, e, [np.flatnonzero(labels == label) for label in dict.fromkeys(labels)]
        self.f, self.v, self.c, self.s, self.D, self.q = np.zeros((6, n))
        self.J, self.alpha = np.zeros(A.shape), np.zeros(n)
        self.diagonal, self.rank_2 = A.T @ (np.square(w) * np.ones(n) * A.T).T, np.zeros((A.shape[1],) * 2)
        for i in self.members:
            alpha = self.alpha[i] = u[i].sum()
            f = self.f[i] = u[i] / alpha
            v_over = self.v[i] = v[i] / alpha
            c = self.c[i] = r[i] * (f - b[i])
            s = self.s[i] = f @ c
            D = self.D[i] = r[i] * v_over**2 + e[i] * (c - s) / alpha
            q = self.q[i] = v_over * (r[i] * f + c - s - f @ (r[i] * f) / 2)
            self.J[i] = v_over[:, None] * A[i] - np.outer(f, v_over @ A[i])
            self.diagonal += 2 * A[i].T @ (D[:, None] * A[i])
            cross = np.outer(v_over @ A[i], q @ A[i])
            self.rank_2 -= 2 * (cross + cross.T)
        self.hess = self.diagonal + self.rank_2
        self.grad = 2 * self.J.T @ self.c + A.T @ (np.square(w) * a)
        self.gauss_newton = 2 * self.J.T @ (r[:, None] * self.J) + A.T @ (np.square(w) * np.ones(n) * A.T).T
        self.scores = np.array([2 * self.c[i] @ self.J[i] for i in self.members])


def random_problem(seed, n=40, d=3, T=8, spread=0.5, link="rsx", weighted=True):
    """A, b, x in the domain, and groups, multiplicities (some 0) and residual weights; rows of a group lie apart."""
    rng = np.random.default_rng([seed, n, d])
    labels = np.concatenate([np.arange(T), rng.integers(T, size=n - T)])
    A = rng.standard_normal((n, d))
    rows = {"groups": labels}
    if weighted:
        m = rng.integers(0, 4, n).astype(float)
        m[:T] = 1.0
        rows |= {"multiplicity": m, "residual_weights": rng.uniform(0, 3, n) * (rng.random(n) > 0.1)}
    m = rows.get("multiplicity", np.ones(n))
    if link == "linear":
        A += 2.0 * np.ones(n)[:, None]
    x = spread * rng.standard_normal(d) / np.sqrt(d) if link != "linear" else np.ones(d) + 0.1 * rng.standard_normal(d)
    if link == "linear":  # alpha > 0 in each group
        A *= np.sign(A @ x)[:, None]
    b = rng.random(n) * (m > 0)
    b /= np.array([b[labels == label].sum() for label in labels])
    while link == "rsx" and not (least_alpha(A, b, x, rows, link) > 0.1).all():
        x *= 0.5
    return A, b, x, rows


def least_alpha(A, b, x, rows, link):
    return plain(A, b, x, rows, link=link).alpha.min()


def plain(A, b, x, rows, **options):
    with np.errstate(divide="ignore", invalid="ignore"):  # alpha may be 0 outside the domain
        return Plain(A, b, x, rows["groups"], rows.get("multiplicity"), rows.get("residual_weights"), **options)


def ends(matrix):
    return np.linalg.eigvalsh(matrix)[[0, -1]]


def test_the_plain_formulas_are_those_of_differences():
    for link in LINKS:
        A, b, x, rows = random_problem(0, link=link)
        there, h = plain(A, b, x, rows, w=0.1, link=link), 1e-5
        sides = [[plain(A, b, x + sign * h * unit, rows, w=0.1, link=link) for sign in (1, -1)] for unit in np.eye(len(x))]
        np.testing.assert_allclose(there.hess, [(up.grad - down.grad) / (2 * h) for up, down in sides], atol=1e-7 * abs(there.hess).max())
        np.testing.assert_allclose(there.J.T, [(up.f - down.f) / (2 * h) for up, down in sides], atol=1e-8)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("exact_up_to", [1000, 2])
def test_curvature_is_that_of_the_formulas(monkeypatch, exact_up_to, weighted, link):
    monkeypatch.setattr(convexity, "EXACT_UP_TO", exact_up_to)
    A, b, x, rows = random_problem(1, n=60, d=7, link=link, weighted=weighted)
    w = np.linspace(0, 0.1, len(b))
    found, ref = fastrsx.curvature(A, b, x, w=w, **rows, link=link, kernel="serial"), plain(A, b, x, rows, w=w, link=link)
    for eigenvalues, matrix in zip(found, (ref.hess, ref.diagonal, ref.rank_2, ref.gauss_newton), strict=True):
        np.testing.assert_allclose(eigenvalues[:2], ends(matrix), atol=1e-8 * abs(matrix).max())
    assert found.gauss_newton.is_psd


def test_the_parts_of_the_hessian_keep_their_digits_beside_a_pole():
    A, b, _, rows = random_problem(2, n=30, d=3, T=3)
    A, direction, inside, outside = abs(A), -np.ones(3), 0.0, 10.0
    for _ in range(60):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if least_alpha(A, b, middle * direction, rows, "rsx") > 1e-3 else (inside, middle)
    x = inside * direction
    found, ref = fastrsx.curvature(A, b, x, **rows, kernel="serial"), plain(A, b, x, rows)
    assert abs(ref.rank_2).max() > 1e4 * abs(ref.diagonal).max()
    for eigenvalues, matrix in ((found.hessian, ref.hess), (found.diagonal, ref.diagonal), (found.rank_2, ref.rank_2)):
        np.testing.assert_allclose(eigenvalues[:2], ends(matrix), atol=1e-8 * abs(matrix).max())


@pytest.mark.parametrize("groups", [None, "one label"])
def test_weights_of_rows_alone_are_one_group(groups):
    A, b, x, rows = random_problem(2, T=1)
    rows["groups"] = None if groups is None else np.zeros(len(b))
    ref = Plain(A, b, x, np.zeros(len(b)), rows["multiplicity"], rows["residual_weights"])
    found = fastrsx.curvature(A, b, x, **rows, kernel="serial")
    for eigenvalues, matrix in zip(found, (ref.hess, ref.diagonal, ref.rank_2, ref.gauss_newton), strict=True):
        np.testing.assert_allclose(eigenvalues[:2], ends(matrix), atol=1e-12 * abs(matrix).max())
    w = fastrsx.psd_weights(A, b, x, **rows, margin=0.1)
    assert ends(plain(A, b, x, rows | {"groups": np.zeros(len(b))}, w=w).hess)[0] >= 0.1
    assert np.ptp(fastrsx.psd_weights(A, b, radius=1.0, beta=1.0, **rows)) == 0.0


def test_one_group_is_no_groups():
    A, b, x, _ = random_problem(3, T=1, weighted=False)
    one = {"groups": ["all"] * len(b)}
    assert fastrsx.curvature(A, b, x, **one) == fastrsx.curvature(A, b, x)
    assert fastrsx.lipschitz_bounds(A, b, 1.0, 1.0, **one) == fastrsx.lipschitz_bounds(A, b, 1.0, 1.0)
    for at in ({"x": x}, {"radius": 1.0, "beta": 1.0}):
        assert (fastrsx.psd_weights(A, b, **at, **one) == fastrsx.psd_weights(A, b, **at)).all()


@pytest.mark.parametrize("link", LINKS)
def test_psd_weights_make_hessians_definite(link):
    indefinite = 0
    for seed in range(60):
        A, b, x, rows = random_problem(seed, n=24, d=4, T=4, spread=2.0, link=link)
        margin = 10.0 ** (seed % 4 - 3)
        w = fastrsx.psd_weights(A, b, x, margin=margin, **rows, link=link)
        there = plain(A, b, x, rows, w=w, link=link)
        assert ends(there.hess)[0] >= margin - 1e-13 * abs(there.hess).max()
        indefinite += ends(plain(A, b, x, rows, link=link).hess)[0] < 0
    assert indefinite > 15


def test_psd_weights_are_those_of_the_formula_in_the_callers_order():
    A, b, x, rows = random_problem(5, spread=2.0)
    ref = plain(A, b, x, rows)
    expected = np.maximum(0, -2 * ref.D)
    for i in ref.members:
        expected[i] += 2 * max(0.0, ref.v[i] @ ref.q[i] + np.linalg.norm(ref.v[i]) * np.linalg.norm(ref.q[i]))
    np.testing.assert_allclose(fastrsx.psd_weights(A, b, x, **rows), np.sqrt(expected), rtol=1e-9)


@pytest.mark.parametrize("link", LINKS)
def test_psd_weights_of_a_ball_make_every_hessian_on_it_definite(link):
    indefinite = 0
    for seed in range(40):
        A, b, x, rows = random_problem(seed, n=24, d=3, T=4, spread=1.5, link=link)
        rng, radius = np.random.default_rng(seed), np.linalg.norm(x)
        beta = 0.5 * least_alpha(A, b, x, rows, link)
        w = fastrsx.psd_weights(A, b, radius=radius, beta=None if link == "softmax" else beta, margin=1e-2, **rows, link=link)
        for members in plain(A, b, x, rows, link=link).members:
            assert np.ptp(w[members]) == 0.0
        for at in (x, rng.random() * x, radius * rng.random() * unit(rng, 3)):
            ref = plain(A, b, at, rows, w=w, link=link)
            if not ref.alpha.min() >= beta:
                continue
            assert ends(ref.hess)[0] >= 1e-2
            if link != "softmax":
                assert (w >= fastrsx.psd_weights(A, b, at, margin=1e-2, **rows, link=link) * (1 - 1e-12)).all()
            indefinite += ends(plain(A, b, at, rows, link=link).hess)[0] < 0
    assert indefinite > 10


def test_one_weight_for_each_group_makes_every_hessian_of_the_softmax_definite():
    indefinite, tightest = 0, 0.0
    for seed in range(60):
        A, b, x, rows = random_problem(seed, n=20, d=5, T=5, link="softmax")
        b *= (1.0, -3.0, 10.0)[seed % 3]
        w = fastrsx.psd_weights(A, b, **rows, link="softmax")
        for length in (0.1, 1.0, 10.0):
            there = plain(A, b, length * x, rows, link="softmax")
            tightest = max(tightest, -ends(there.hess)[0] / ends(A.T @ (w[:, None] ** 2 * A))[1])
            indefinite += ends(there.hess)[0] < 0
            assert ends(there.hess + A.T @ (w[:, None] ** 2 * A))[0] >= -1e-12 * abs(there.hess).max()
    assert indefinite > 60
    assert tightest > 1e-3


def test_the_weight_of_the_softmax_follows_the_residual_weights():
    A, b = np.eye(4), np.array([0.5, 0.5, 0.2, 0.8])
    w = fastrsx.psd_weights(A, b, groups=[0, 0, 1, 1], residual_weights=[1.0, 4.0, 1.0, 1.0], link="softmax")
    np.testing.assert_allclose(w**2, 0.75 * np.array([4.0, 4.0, 1.6, 1.6]), rtol=1e-9)


def unit(rng, d):
    y = rng.standard_normal(d)
    return y / np.linalg.norm(y)


@pytest.mark.parametrize("link", LINKS)
def test_the_parts_of_each_group_and_the_slopes_are_bounded(link):
    """The terms in `Ball`, gradients and Hessians, of pairs of points."""
    rng, tightest, tried = np.random.default_rng(0), np.zeros(2), 0
    for seed in range(150):
        A, b, x, rows = random_problem(seed, n=int(rng.integers(8, 40)), d=3, T=int(rng.integers(2, 6)), spread=1.5, link=link)
        y = x + 10.0 ** rng.uniform(-5, 0) * np.linalg.norm(x) * unit(rng, 3)
        at_x, at_y = (plain(A, b, at, rows, link=link) for at in (x, y))
        beta, radius = min(at_x.alpha.min(), at_y.alpha.min()), max(map(np.linalg.norm, (x, y)))
        if not beta > 0:
            continue
        tried += 1
        problem, distance = fastrsx.Problem(A, b, **rows, link=link), np.linalg.norm(x - y)
        ball = Ball.of(problem, radius, None if link == "softmax" else beta, spectral_norms(problem, 0.0))
        for part_x, part_y, bound in zip(parts_of(at_x), parts_of(at_y), ball, strict=True):
            for norm, (size, slope) in zip((np.inf, 2), np.exp(bound), strict=True):
                for i, most, steepest in zip(at_x.members, size, slope, strict=True):
                    assert np.linalg.norm(part_x[i], norm) <= most * (1 + 1e-12)
                    assert np.linalg.norm(part_x[i] - part_y[i], norm) <= steepest * distance * (1 + 1e-9) + 1e-14 * most
        bounds = fastrsx.lipschitz_bounds(A, b, radius, None if link == "softmax" else beta, **rows, link=link)
        slopes = np.linalg.norm(at_x.grad - at_y.grad) / distance, np.linalg.norm(at_x.hess - at_y.hess, 2) / distance
        tightest = np.maximum(tightest, np.array(slopes) / bounds[:2])
        assert (tightest <= 1).all()
    assert tried > 100
    assert (tightest > 1e-4).all()


def parts_of(at):
    cs, over = at.c - at.s, at.e / at.alpha
    return at.v, cs, over * cs, at.q, at.v * (at.r * at.f + at.c)


# -- standard errors ------------------------------------------------------------------------------------------


def example(T=60, size=5, noise=0.02, seed=0, scattered=True, normalised=False, weighted=True):
    rng, x = np.random.default_rng(seed), np.array([0.5, -0.3, 0.0])
    n = T * size
    labels = np.repeat(np.arange(T), size)
    if scattered:
        labels = rng.permutation(labels)
    A = 0.5 * rng.standard_normal((n, 3))
    rows = {"groups": labels}
    if weighted:
        rows |= {"multiplicity": rng.integers(1, 4, n).astype(float), "residual_weights": rng.uniform(0.5, 3, n)}
    f = fastrsx.predict(A, x, groups=labels, multiplicity=rows.get("multiplicity"))
    b = f + noise / size * rng.standard_normal(n)
    if normalised:
        b /= np.bincount(labels, b)[labels]
    return A, b, rows


@pytest.mark.parametrize("w", [None, 0.05])
@pytest.mark.parametrize("normalised", [False, True], ids=["b as it is", "b sums to 1"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_covariances_are_those_of_plain_numpy(weighted, normalised, w):
    A, b, rows = example(normalised=normalised, weighted=weighted)
    n, d = A.shape
    T = 60
    result = fastrsx.newton(A, b, w=w, **rows, kernel="serial")
    ref = plain(A, b, result.x, rows, w=w or 0.0)
    G, bread = ref.scores, np.linalg.inv(ref.hess)
    np.testing.assert_allclose(result.covariance(), bread @ G.T @ G @ bread * T / (T - 1) * (n - 1) / (n - d), rtol=1e-8)
    B, squares = np.linalg.inv(ref.gauss_newton / 2), ref.J.T @ (ref.r[:, None] * ref.J)
    variance = (ref.r * (ref.f - b) ** 2).sum() / (n - d - T * normalised)
    np.testing.assert_allclose(result.covariance("least-squares"), variance * B @ squares @ B, rtol=1e-8)


@pytest.mark.parametrize("groups", [None, "one label"])
def test_one_softmax_with_weights_has_independent_rows(groups):
    A, b, rows = example(T=1, size=200)
    rows["groups"] = None if groups is None else np.zeros(len(b))
    n, d = A.shape
    result = fastrsx.newton(A, b, **rows, kernel="serial")
    ref = Plain(A, b, result.x, np.zeros(n), rows["multiplicity"], rows["residual_weights"])
    bread = np.linalg.inv(ref.hess)
    np.testing.assert_allclose(result.covariance(), bread @ (4 * (ref.J.T * ref.c**2) @ ref.J) @ bread * n / (n - d), rtol=1e-8)
    variance = (ref.r * (ref.f - b) ** 2).sum() / (n - d)
    np.testing.assert_allclose(result.covariance("least-squares"), variance * np.linalg.inv(ref.gauss_newton / 2), rtol=1e-8)


def test_rows_that_say_nothing_change_no_covariance():
    A, b, rows = example()
    n, rng = len(b), np.random.default_rng(1)
    more = np.vstack([A, 0.5 * rng.standard_normal((40, 3))])
    masked = {
        "groups": np.concatenate([rows["groups"], rng.integers(60, size=30), np.full(10, 60)]),
        "multiplicity": np.concatenate([rows["multiplicity"], np.zeros(30), np.ones(10)]),
        "residual_weights": np.concatenate([rows["residual_weights"], np.ones(30), np.zeros(10)]),
    }
    target = np.concatenate([b, np.zeros(40)])
    result, expected = fastrsx.newton(more, target, **masked), fastrsx.newton(A, b, **rows)
    np.testing.assert_allclose(result.x, expected.x, rtol=1e-9)
    for kind in ("sandwich", "least-squares"):
        np.testing.assert_allclose(result.covariance(kind), expected.covariance(kind), rtol=1e-7)
    assert len(target) == n + 40


def test_the_bootstrap_draws_a_sign_for_each_group():
    A, b, rows = example()
    result = fastrsx.newton(A, b, **rows, kernel="serial")
    clusters = np.diagonal(result.covariance("bootstrap", resamples=600)) / np.diagonal(result.covariance())
    np.testing.assert_allclose(clusters, 1.0, atol=0.25)
    signs = np.random.default_rng(3).choice((-1.0, 1.0), (2, 60))
    order = {label: t for t, label in enumerate(dict.fromkeys(rows["groups"]))}
    groups = np.array([order[label] for label in rows["groups"]])
    f = fastrsx.predict(A, result.x, groups=rows["groups"], multiplicity=rows["multiplicity"])
    again = [fastrsx.newton(A, f + (b - f) * draw[groups], result.x, **rows, kernel="serial").x for draw in signs]
    np.testing.assert_allclose(result.covariance("bootstrap", resamples=2, seed=3), np.cov(again, rowvar=False), rtol=1e-5)


def shocked(draws, T=300, size=4):
    """Shares of coefficients that 95 % intervals hold, where all rows of a group share a shock along the first column."""
    rng, x = np.random.default_rng(0), np.array([0.5, -0.3, 0.0])
    labels = np.repeat(np.arange(T), size)
    A = 0.5 * rng.standard_normal((T * size, 3))
    f = fastrsx.predict(A, x, groups=labels)
    inside = dict.fromkeys(("sandwich", "least-squares"), 0)
    for _ in range(draws):
        shock = np.repeat(rng.standard_normal(T), size) * A[:, 0] + 0.5 * rng.standard_normal(T * size)
        result = fastrsx.newton(A, f + 0.1 / size * shock, x, groups=labels, kernel="serial")
        for kind in inside:
            found = inference(result.x, result.covariance(kind), 0.95)
            inside[kind] = inside[kind] + ((found.low <= x) & (x <= found.high))
    return {kind: count / draws for kind, count in inside.items()}


def test_intervals_cover_where_errors_depend_within_groups():
    found = shocked(500)
    assert np.all(np.abs(found["sandwich"] - 0.95) <= 0.02), found
    assert found["least-squares"][0] < 0.9, found  # it takes rows to be independent


def twice(A, b, rows):
    """The same groups again under other labels."""
    return np.vstack([A, A]), np.append(b, b), {name: np.append(value, value + 1000 * (name == "groups")) for name, value in rows.items()}


def test_two_copies_of_all_groups():
    A, b, rows = example()
    (AA, bb, both), n, d, T = twice(A, b, rows), len(b), 3, 60
    once, again = fastrsx.newton(A, b, **rows), fastrsx.newton(AA, bb, **both)
    np.testing.assert_allclose(again.x, once.x, rtol=1e-8)

    def factor(T, n):
        return T / (T - 1) * (n - 1) / (n - d)

    np.testing.assert_allclose(again.covariance() / factor(2 * T, 2 * n), once.covariance() / factor(T, n) / 2, rtol=1e-6)
    np.testing.assert_allclose(again.covariance("least-squares") * (2 * n - d), once.covariance("least-squares") * (n - d), rtol=1e-6)
    for first, second in zip(fastrsx.curvature(A, b, once.x, **rows), fastrsx.curvature(AA, bb, once.x, **both), strict=True):
        np.testing.assert_allclose(second[:2], 2 * np.array(first[:2]), atol=1e-12 * abs(second.largest))
    np.testing.assert_allclose(
        fastrsx.lipschitz_bounds(AA, bb, 1.0, 1.0, **both)[:2], 2 * np.array(fastrsx.lipschitz_bounds(A, b, 1.0, 1.0, **rows)[:2]), rtol=1e-9
    )
    for at in ({"x": once.x}, {"radius": 1.0, "beta": 1.0}):
        w = fastrsx.psd_weights(A, b, **at, **rows)
        np.testing.assert_allclose(fastrsx.psd_weights(AA, bb, **at, **both), np.append(w, w), rtol=1e-9)


def test_errors_say_why():
    A, b, rows = example(T=3, size=40, weighted=False)
    result = fastrsx.newton(A, b, **rows)
    for kind in ("sandwich", "bootstrap"):
        with pytest.raises(ValueError, match=rf"of kind '{kind}': A has 3 groups for 3 columns.*pass kind='least-squares'"):
            result.covariance(kind)
    assert (np.diagonal(result.covariance("least-squares")) > 0).all()
    A, b, rows = example(T=3, size=2, normalised=True, weighted=False)
    with pytest.raises(ValueError, match=r"6 rows count, b sums to 1 in 3 groups, and x has 3 entries"):
        fastrsx.newton(A, b, w=0.1, **rows).covariance("least-squares")


def test_the_fit_that_is_drawn_is_in_the_callers_order():
    figure = pytest.importorskip("matplotlib.figure")
    A, b, rows = example(noise=1e-9)
    axes = fastrsx.newton(A, b, **rows).plot_fit(figure.Figure().subplots())
    points = np.asarray(axes.collections[0].get_offsets() if axes.collections else axes.lines[0].get_xydata())
    np.testing.assert_allclose(points[:, 0], points[:, 1], rtol=1e-6)


# -- convergence ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["rsx", "softmax"])
def test_convergence_measures_groups(link):
    A, b, rows = example(T=60, size=10)
    found = fastrsx.convergence(A, b, **rows, link=link, rows=(20,), kernel="serial")
    assert found.least_eigenvalue == pytest.approx(ends(plain(A, b, found.x, rows, link=link).hess)[0], rel=1e-9)
    assert abs(plain(A, b, found.x, rows, link=link).grad).max() < 1e-12
    assert found.contractions["exact"].end == "floor"
    assert len(found.contractions) == 4
    middle = plain(A, b, 0.5 * found.x, rows, link=link).hess
    slope = np.linalg.norm(middle - plain(A, b, found.x, rows, link=link).hess, 2) / np.linalg.norm(0.5 * found.x)
    assert slope * (1 - 1e-9) <= found.lipschitz <= found.lipschitz_bound


def test_a_masked_row_frees_no_sum():
    rng = np.random.default_rng(0)
    A, labels, m = rng.standard_normal((300, 2)), np.repeat(np.arange(100), 3), np.tile([1.0, 1.0, 0.0], 100)
    b = fastrsx.predict(A, [0.5, -0.3], groups=labels, multiplicity=m, link="softmax") + 0.01 * rng.standard_normal(300) * m
    b = b / np.bincount(labels, b)[labels] * m
    masked = fastrsx.newton(A, b, groups=labels, multiplicity=m, residual_weights=m, link="softmax")
    dropped = fastrsx.newton(A[m > 0], b[m > 0], groups=labels[m > 0], link="softmax")
    np.testing.assert_allclose(masked.covariance("least-squares"), dropped.covariance("least-squares"), rtol=1e-6)
