"""Steps from sampled Hessians and from products alone: they find the minimum of the exact Hessian; and their special cases."""

import numpy as np
import pytest

import fastrsx
import naive
from fastrsx import Status, planning
from fastrsx.data import load_automobiles
from fastrsx.kernels.cpu import sample
from fastrsx.kernels.layouts.panel import padded
from fastrsx.problem import Problem
from fastrsx.steps import approximate

APPROXIMATE = ("sampled", "sampled-only", "matrix-free")


def rough(n, d, seed, spread=1.0):
    rng = np.random.default_rng([n, d, seed])
    A = rng.standard_normal((n, d)) * np.exp(rng.standard_normal(d))
    a = A @ rng.standard_normal(d)
    a *= spread / a.std()
    b = abs(np.exp(a) + a) * rng.uniform(0.5, 1.5, n)
    return A, b / b.sum()


# -- whole solves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("spread", [1.0, 3.0])
@pytest.mark.parametrize("hessian", APPROXIMATE)
@pytest.mark.parametrize(("n", "d"), [(1000, 3), (2000, 17), (3000, 40)])
def test_the_same_minimum(n, d, hessian, spread, weighted):
    A, b = rough(n, d, 0, spread)
    w = np.linspace(0, 1e-3, n) if weighted else None
    exact = fastrsx.newton(A, b, w=w, hessian="exact")
    found = fastrsx.newton(A, b, w=w, hessian=hessian)
    assert exact.success
    assert found.success
    assert found.status == exact.status
    assert found.fun == pytest.approx(exact.fun, rel=1e-9)
    scale = A.std(axis=0)
    np.testing.assert_allclose(found.x * scale, exact.x * scale, atol=1e-3 * np.abs(exact.x * scale).max())
    at_x = naive.Naive(A, b, found.x, w=w)
    np.testing.assert_allclose(found.jac / scale, (at_x.grad / scale).astype(float), atol=1e-8 * float((at_x.grad_scale / scale).max()))


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_automobiles(hessian):
    cars = load_automobiles()
    result = fastrsx.newton(cars.A, cars.b, hessian=hessian)
    assert result.status is Status.CONVERGED
    assert result.fun == pytest.approx(5.002294756605e-4, rel=1e-9)


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_an_exact_fit_is_found(hessian):
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((2000, 12)), 0.3 * rng.standard_normal(12)
    result = fastrsx.newton(A, fastrsx.predict(A, x), hessian=hessian)
    assert result.status is Status.EXACT_FIT
    np.testing.assert_allclose(result.x, x, atol=1e-9)


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_what_has_no_minimiser_is_not_called_a_success(hessian):
    """A one-hot b at a vertex of the hull of the rows: the loss falls for ever."""
    cars = load_automobiles()
    b = np.zeros(len(cars.b))
    b[np.argmax(cars.A[:, 0])] = 1.0
    result = fastrsx.newton(cars.A, b, hessian=hessian)
    assert not result.success
    assert result.fun < 1e-3


@pytest.mark.parametrize("hessian", ["sampled", "sampled-only"])
def test_a_repeated_column_gets_the_least_norm(hessian):
    A, b = rough(2000, 8, 1)
    repeated = np.column_stack([A, A[:, 0]])
    full, found = fastrsx.newton(A, b), fastrsx.newton(repeated, b, hessian=hessian)
    assert found.success
    assert found.fun == pytest.approx(full.fun, rel=1e-9)
    np.testing.assert_allclose(found.x, np.linalg.pinv(repeated) @ (A @ full.x), rtol=1e-4, atol=1e-4 * np.abs(full.x).max())


def test_more_columns_than_rows_matrix_free():
    rng = np.random.default_rng(2)
    A = rng.standard_normal((30, 80))
    b = np.full(30, 1 / 30) + 0.005 * rng.standard_normal(30)
    b /= b.sum()
    result = fastrsx.newton(A, b, hessian="matrix-free")
    assert result.success
    assert result.hess is None
    np.testing.assert_allclose(fastrsx.predict(A, result.x), b, rtol=1e-6)
    np.testing.assert_allclose(result.x, np.linalg.pinv(A) @ (A @ result.x), atol=1e-9 * np.abs(result.x).max())


def test_a_sample_that_cannot_tell_is_replaced_by_the_exact_matrix(monkeypatch):
    """A sample with a made-up negative direction: the solve must not end before an exact Hessian has refuted it."""
    A, b = rough(2000, 6, 3)
    honest = approximate.Sample.gram
    monkeypatch.setattr(approximate.Sample, "gram", lambda self, h: honest(self, h) - 2 * np.diag(np.diag(honest(self, h))))
    for hessian in ("sampled", "sampled-only"):
        result = fastrsx.newton(A, b, hessian=hessian, max_iter=300)
        assert result.success
        assert result.nhev > 0
        assert result.fun == pytest.approx(fastrsx.newton(A, b).fun, rel=1e-8)


def test_matrix_free_does_not_stop_at_a_saddle():
    """Rows in pairs a, -a on the second axis, with the same b for both: at x_2 = 0 the gradient along it is 0, and the curvature negative."""
    rng = np.random.default_rng(0)
    half = rng.standard_normal((200, 1))
    heights = rng.random((200, 1))
    heights[0] = 3.0
    A = np.vstack([np.hstack([half, heights]), np.hstack([half, -heights])])
    b = np.tile(np.where(heights[:, 0] > 2, 0.1, 0.8 / 398), 2)
    b /= b.sum()
    along = fastrsx.newton(A[:, :1], b)
    saddle = np.array([along.x[0], 0.0])
    problem = Problem(A, b)
    assert abs(problem.grad(saddle)[1]) < 1e-15
    assert problem.hess(saddle)[1, 1] < 0
    result = fastrsx.newton(A, b, saddle, hessian="matrix-free")
    assert result.success
    assert result.fun < along.fun * 0.999


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_a_saturated_start_is_stalled(hessian):
    A, b = np.array([[1.0, 0.0], [0.0, 1.0], [0.2, 0.1], [-0.3, 0.2]]), np.array([0.0, 1.0, 0.0, 0.0])
    assert fastrsx.newton(A, b, [1e4, 0.0], hessian=hessian).status is Status.STALLED


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_a_constant_f_is_a_minimum(hessian):
    rng = np.random.default_rng(0)
    result = fastrsx.newton(np.ones((1000, 1)), rng.dirichlet(np.ones(1000)), hessian=hessian)
    assert result.status is Status.CONVERGED


@pytest.mark.parametrize("hessian", APPROXIMATE)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 2), (7, 1), (200, 1), (8, 12)])
def test_small_shapes(n, d, hessian):
    rng = np.random.default_rng([n, d])
    A, b = rng.standard_normal((n, d)), rng.dirichlet(np.ones(n))
    exact, found = (fastrsx.newton(A, b, w=0.1, hessian=choice) for choice in ("exact", hessian))
    assert found.success == exact.success
    assert found.fun == pytest.approx(exact.fun, rel=1e-8)


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_zero_data_and_a_zero_gradient(hessian):
    rng = np.random.default_rng(0)
    assert fastrsx.newton(np.zeros((30, 3)), rng.dirichlet(np.ones(30)), hessian=hessian).success
    A = rng.standard_normal((64, 3))
    result = fastrsx.newton(A, np.zeros(64), hessian=hessian)  # f and s are the same in all rows at x = 0
    exact = fastrsx.newton(A, np.zeros(64), hessian="exact")
    assert result.status == exact.status
    assert result.fun == pytest.approx(exact.fun, rel=1e-8)


def test_least_norm_where_products_alone_do_not_get_there():
    rng = np.random.default_rng(0)
    for A in (rng.standard_normal((79, 80)), rng.standard_normal((30, 80)) * 10.0 ** np.linspace(-6, 6, 80)):
        b = rng.dirichlet(np.ones(len(A)))
        result = fastrsx.newton(A, b, w=0.01, hessian="matrix-free", max_iter=30)
        assert Problem(A, b, w=0.01).value(result.x) == pytest.approx(result.fun, rel=1e-9)


# -- counts, determinism, arguments -----------------------------------------------------------------------------


def test_counts():
    A, b = rough(3000, 40, 0)
    passes = fastrsx.newton(A, b, max_iter=0).npass - 1  # for validation
    for hessian in ("sampled", "sampled-only", "matrix-free"):
        result = fastrsx.newton(A, b, hessian=hessian)
        assert result.nsampled + result.nreused + result.nhev == (result.nit if hessian != "matrix-free" else 0)
        assert result.njev == result.nit + 1
        scores = hessian != "matrix-free"
        products = result.nit if hessian == "sampled-only" else result.nproducts
        assert result.npass == passes + scores + result.njev + products
        assert len(result.history) == result.nit
    assert fastrsx.newton(A, b, hessian="sampled").nreused > 0
    assert fastrsx.newton(A, b, hessian="sampled-only").nreused == 0


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_same_bits_for_any_number_of_threads_and_the_same_seed(hessian):
    A, b = rough(3000, 40, 1)
    ways = [("serial", None), ("parallel", 1), ("parallel", None)]
    one, *others = (fastrsx.newton(A, b, hessian=hessian, seed=5, kernel=kernel, num_threads=threads) for kernel, threads in ways)
    for other in others:
        np.testing.assert_array_equal(other.x, one.x)
        assert other.fun == one.fun
    if hessian != "matrix-free":
        assert (fastrsx.newton(A, b, hessian=hessian, seed=6, max_iter=1).x != fastrsx.newton(A, b, hessian=hessian, seed=5, max_iter=1).x).any()


def test_all_rows_drawn_is_the_exact_hessian_reused():
    A, b = rough(500, 5, 0)
    result = fastrsx.newton(A, b, hessian="sampled", sample_rows=500)
    assert result.success
    assert result.nsampled == 0
    assert 0 < result.nhev < result.nit
    assert result.fun == pytest.approx(fastrsx.newton(A, b).fun, rel=1e-9)


@pytest.mark.parametrize("hessian", APPROXIMATE)
def test_the_hessian_that_was_not_formed_is_none(hessian):
    A, b = rough(1000, 5, 0)
    for max_iter in (0, 1, 100):
        result = fastrsx.newton(A, b, hessian=hessian, max_iter=max_iter)
        assert result.hess is None
        np.testing.assert_allclose(result.jac, Problem(A, b).grad(result.x), atol=1e-12)
    smallest = np.linalg.eigvalsh(Problem(A, b).hess(result.x) / np.outer(*(np.sqrt((A**2).mean(axis=0)),) * 2))[0]
    assert result.min_eig == pytest.approx(smallest, rel=1e-6 if hessian == "matrix-free" else 0.5)  # found before the last step, or from a sample


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"hessian": "bfgs"}, ValueError, r"hessian is 'bfgs'; it must be one of 'auto', 'exact', 'sampled', 'sampled-only', 'matrix-free'"),
        ({"sample_rows": 2}, ValueError, "sample_rows is 2; it must be at least 3"),
        ({"sample_rows": 10.5}, TypeError, "sample_rows"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        fastrsx.newton(*rough(100, 3, 0), **kwargs)


# -- the sample -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 3), (130, 8), (1000, 20)])
def test_scores_are_squared_norms(n, d):
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((n, d)), np.zeros((padded(d), 8))
    B[:d] = rng.standard_normal((d, 8))
    found = Problem(A, np.full(n, 1 / n))._passes.row_squares(B)
    np.testing.assert_allclose(found, ((A @ B[:d]) ** 2).sum(axis=1), rtol=1e-12)


def draw(h, scores, wanted, offset):
    rows, weights = np.empty(wanted + 1, dtype=np.int64), np.empty(wanted + 1)
    count = sample.draw(h, scores, wanted, offset, rows, weights)
    return rows[:count], weights[:count]


def test_drawn_weights_are_unbiased():
    rng = np.random.default_rng(0)
    h, scores = rng.standard_normal(60) * np.exp(2 * rng.standard_normal(60)), rng.random(60)
    h[5] = 0.0
    total, largest = np.zeros(60), np.zeros(60)
    draws = 2000
    for i in range(draws):
        rows, weights = draw(h, scores, 20, (i + 0.5) / draws)
        assert abs(len(rows) - 20) <= 1
        assert (np.diff(rows) > 0).all()
        total[rows] += weights
        largest[rows] = abs(weights)
    assert (abs(total / draws - h) <= 2 * largest / draws + 1e-12 * abs(h)).all()  # to within two draws
    assert (largest[h != 0] > 0).all()


def test_heavy_rows_are_certain():
    h, scores = np.ones(1000), np.ones(1000)
    h[[3, 500]] = -1e6
    for offset in (0.0, 0.5, 0.999):
        rows, weights = draw(h, scores, 50, offset)
        assert {3, 500} <= set(rows)
        np.testing.assert_allclose(weights[np.isin(rows, [3, 500])], -1e6)


def test_as_many_rows_as_there_are_give_all():
    rows, weights = draw(np.arange(1.0, 9.0), np.ones(8), 8, 0.5)
    np.testing.assert_array_equal(rows, np.arange(8))
    np.testing.assert_allclose(weights, np.arange(1.0, 9.0))


@pytest.mark.parametrize("coherent", [False, True])
def test_a_sample_is_spectrally_close(coherent):
    """(1 - eps) G <= G~ <= (1 + eps) G for G = A^T diag(|h|) A and 20 d rows, also if only a few rows carry a column."""
    n, d = 20000, 16
    rng = np.random.default_rng(0)
    A, h = rng.standard_normal((n, d)), np.exp(rng.standard_normal(n))
    if coherent:
        A[:, 0] = 0.0
        A[:3, 0] = 1.0
    problem = Problem(A, np.full(n, 1 / n))
    gram = approximate.Sample(problem._passes, problem._column_scale, 20 * d, seed=0).gram(h)
    exact = A.T @ (h[:, None] * A)
    root = np.linalg.cholesky(np.linalg.inv(exact))
    eigenvalues = np.linalg.eigvalsh(root.T @ gram @ root)
    assert 0.4 < eigenvalues[0] < eigenvalues[-1] < 1.7


# -- the choice -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "choice"),
    [(1000, 8, "exact"), (10**7, 64, "exact"), (3000, 128, "exact"), (10**6, 256, "sampled"), (30522, 384, "sampled"), (8000, 3000, "matrix-free")],
)
def test_auto(n, d, choice):
    plan = fastrsx.plan(np.broadcast_to(1.0, (n, d)))
    assert plan.hessian == choice
    assert f"{choice} Hessian" in str(plan)
    assert (choice == "exact") == ("of the time" not in plan.reason)


@pytest.mark.parametrize(
    ("capability", "n", "d", "choice"),
    [
        ((9, 0), 10**6, 256, "exact"),  # on tensor cores a Gram matrix is one read of A
        ((9, 0), 10**6, 2048, "sampled"),
        ((8, 0), 10**6, 512, "sampled"),
        ((8, 9), 10**6, 256, "sampled"),  # without them, many
        ((8, 9), 10**6, 255, "exact"),
        ((8, 9), 10**4, 512, "exact"),  # more than half of the rows would be drawn
        ((9, 0), 500, 512, "matrix-free"),
    ],
)
def test_auto_on_a_gpu(monkeypatch, capability, n, d, choice):
    monkeypatch.setattr(planning.device, "capability", lambda: capability)
    found, why = planning.choose_hessian(planning.Size(n, d), "auto", planning.sample_size(n, d), "device")
    assert found == choice
    assert ("of the time of the exact Hessian's" in why) == (choice == "sampled")


def test_what_was_asked_for_is_taken():
    A, b = rough(200, 3, 0)
    for hessian in ("exact", *APPROXIMATE):
        assert fastrsx.plan(A, hessian=hessian).hessian == hessian
        assert f"hessian='{hessian}' was asked for" in fastrsx.newton(A, b, hessian=hessian).kernel
    with pytest.raises(ValueError, match="hessian is 'newton'"):
        fastrsx.plan(A, hessian="newton")


def test_products_leave_no_gradient_along_what_hardly_curves():
    """With integers so far apart, the Hessian's condition is 1e5: a residual may be small for the largest curvature, but not for the least."""
    rng = np.random.default_rng(0)
    A = rng.integers(0, 2, (7, 5)) * rng.choice([1, 2, 255], (7, 5)) * 1.0
    b = rng.random(7)
    b /= b.sum()
    found, exact = fastrsx.newton(A, b, w=1.0, hessian="matrix-free"), fastrsx.newton(A, b, w=1.0, hessian="exact")
    assert found.success
    assert found.fun == pytest.approx(exact.fun, rel=2e-10)
