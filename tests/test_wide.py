"""More columns than rows: the reduced problem against the Hessian of all columns."""

import tracemalloc

import numpy as np
import pytest

import fastrsx
import naive
from fastrsx import Status
from fastrsx.planning import REDUCED_UP_TO
from fastrsx.problem import Problem
from fastrsx.steps import reduced


def rough(n, d, seed=0, rank=None):
    """Gaussian A, of the given rank, with columns of different scales, and a rough target."""
    rng = np.random.default_rng([n, d, seed])
    A = rng.standard_normal((n, d)) if rank is None else rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d)) / np.sqrt(rank)
    return A * np.exp(rng.standard_normal(d)), rng.dirichlet(np.ones(n))


def both(A, b, x0=None, **kwargs):
    return [fastrsx.newton(A, b, x0, hessian=hessian, kernel="serial", **kwargs) for hessian in ("exact", "reduced")]


def check_least_norm(A, x, rtol=1e-9):
    np.testing.assert_allclose(x, np.linalg.pinv(A) @ (A @ x), atol=rtol * np.abs(x).max())


# -- against the exact Hessian ----------------------------------------------------------------------------------

SHAPES = [
    (1, 2, None),
    (1, 7, None),
    (3, 9, None),
    (3, 4, 2),
    (12, 30, None),
    (12, 30, 5),
    (20, 21, None),
    (40, 41, 30),
    (40, 200, None),
    (40, 90, 7),
]


@pytest.mark.parametrize("w", [0.0, 0.03], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d", "rank"), SHAPES)
def test_the_same_minimum(n, d, rank, w):
    A, b = rough(n, d, rank=rank)
    w = w * np.linspace(0.5, 1, n) if w else None
    exact, found = both(A, b, w=w)
    assert found.success
    assert found.status == exact.status
    assert found.fun == pytest.approx(exact.fun, rel=1e-10, abs=1e-28)
    check_least_norm(A, found.x)
    at_x = naive.Naive(A, b, found.x, w=w)
    assert found.fun == pytest.approx(float(at_x.value), rel=1e-9, abs=1e-28)
    size = float(at_x.grad_scale.max()) + abs(A).max() / n * np.linalg.norm(b)  # near an exact fit c is rounding of b
    np.testing.assert_allclose(found.jac, at_x.grad.astype(float), atol=1e-12 * size)
    if found.status is Status.CONVERGED:  # exact fits form a curve in the space of A x, and rounding moves along it
        np.testing.assert_allclose(A @ found.x, A @ exact.x, atol=1e-6 * np.abs(A @ exact.x).max())


@pytest.mark.parametrize("link", ["softmax", "linear"])
@pytest.mark.parametrize("rank", [None, 5])
def test_links(link, rank):
    A, b = rough(12, 30, 1, rank)
    x0 = np.linalg.pinv(A) @ np.ones(12) if link == "linear" else None
    exact, found = both(A, b, x0, link=link)
    assert found.success
    assert found.fun == pytest.approx(exact.fun, rel=1e-9, abs=1e-28)
    check_least_norm(A, found.x)
    if link == "softmax":  # it has the least norm also among all x with the same f
        np.testing.assert_allclose(found.x, exact.x, atol=1e-6 * np.abs(exact.x).max())


def test_softmax_with_weights_keeps_the_constant():
    A, b = rough(12, 30, 1)
    exact, found = both(A, b, link="softmax", w=0.1)
    assert found.success
    np.testing.assert_allclose(found.x, exact.x, atol=1e-7 * np.abs(exact.x).max())


def test_the_smallest_eigenvalue_is_that_of_the_row_space():
    A, b = rough(12, 30, rank=5)
    found = fastrsx.newton(A, b, hessian="reduced", kernel="serial")
    scale = np.sqrt((A**2).mean(axis=0))
    values = np.linalg.eigvalsh(Problem(A, b).hess(found.x) / np.outer(scale, scale))
    assert found.hess is None
    assert found.min_eig == pytest.approx(values[-5], rel=1e-9)
    assert abs(values[-6]) <= 1e-12 * values[-1]


# -- invariances and degenerate data ----------------------------------------------------------------------------


def test_columns_permuted_scaled_and_zero():
    A, b = rough(12, 30, rank=6)
    base = fastrsx.newton(A, b, hessian="reduced", kernel="serial")
    order = np.random.default_rng(0).permutation(30)
    permuted = fastrsx.newton(A[:, order], b, hessian="reduced", kernel="serial")
    np.testing.assert_allclose(permuted.x, base.x[order], atol=1e-9 * np.abs(base.x).max())
    padded = fastrsx.newton(np.insert(A, [0, 7, 30], 0.0, axis=1), b, hessian="reduced", kernel="serial")
    np.testing.assert_allclose(np.delete(padded.x, [0, 8, 32]), base.x, atol=1e-9 * np.abs(base.x).max())
    assert (padded.x[[0, 8, 32]] == 0).all()
    scaled = fastrsx.newton(A * 10.0 ** np.linspace(-3, 3, 30), b, hessian="reduced", kernel="serial")  # x differs, the steps do not
    assert scaled.nit == base.nit
    assert scaled.fun == pytest.approx(base.fun, rel=1e-10)


def test_rows_permuted_and_zero():
    A, b = rough(12, 30, rank=6)
    A[3] = 0.0
    A[8] = A[1] - 2 * A[2]
    base, order = fastrsx.newton(A, b, hessian="reduced", kernel="serial"), np.random.default_rng(1).permutation(12)
    permuted = fastrsx.newton(A[order], b[order], hessian="reduced", kernel="serial")
    assert base.success
    assert permuted.nit == base.nit
    np.testing.assert_allclose(permuted.x, base.x, atol=1e-8 * np.abs(base.x).max())
    check_least_norm(A, base.x)


def test_zero_data():
    result = fastrsx.newton(np.zeros((4, 9)), np.full(4, 0.3), np.ones(9), hessian="reduced", kernel="serial")
    assert result.success
    np.testing.assert_array_equal(result.x, 0.0)


@pytest.mark.parametrize("part", [1e-3, 1e-5, 1e-7, 1e-9, 1e-11, 1e-13, 1e-15])
def test_nearly_dependent_rows(part):
    """In a Gram matrix, rows that differ by 1e-8 would be equal. The reported loss is that at x, also if 100 steps are not enough."""
    A, b = rough(12, 30)
    A[5] = A[4] + part * A[5]
    exact, found = both(A, b, w=0.01)
    assert Problem(A, b, w=0.01, kernel="serial").value(found.x) == pytest.approx(found.fun, rel=1e-7)
    if not 1e-12 < part < 1e-6:
        assert found.success
        assert found.fun == pytest.approx(exact.fun, rel=1e-9)
    if part > 1e-6:
        check_least_norm(A, found.x, rtol=1e-6)


@pytest.mark.parametrize("decades", [3, 6, 100])
def test_columns_of_far_apart_scales(decades):
    """x is always a solution, and has the least norm if that can be determined."""
    A, b = rough(12, 30)
    A = A * 10.0 ** np.random.default_rng(0).uniform(-decades, decades, 30)
    exact, found = both(A, b, w=0.01)
    assert found.success
    assert found.fun == pytest.approx(exact.fun, rel=1e-9)
    assert Problem(A, b, w=0.01, kernel="serial").value(found.x) == pytest.approx(found.fun, rel=1e-9)
    if decades == 3:
        check_least_norm(A, found.x, rtol=1e-6)


def test_factors(monkeypatch):
    """Both ways to compute the triangle, in one chunk and in many."""
    A, _ = rough(40, 250)
    scale, rows = np.sqrt((A**2).mean(axis=0)), np.arange(40)
    gram = A / scale @ (A / scale).T
    for numbers in (2**22, 1):
        monkeypatch.setattr(reduced, "CHUNK", numbers)
        for factor in (reduced._by_cholesky, reduced._by_qr):
            L = factor(A, rows, scale)
            np.testing.assert_array_equal(L, np.tril(L))
            np.testing.assert_allclose(L @ L.T, gram, atol=1e-13 * gram.max())
            for some in (rows[::-2], rows[::-1]):
                part = factor(A, some, scale)
                np.testing.assert_allclose(part @ part.T, gram[np.ix_(some, some)], atol=1e-13 * gram.max())
    A[7] = A[3]
    assert reduced._by_cholesky(A, rows, scale) is None


# -- starts, ends and callbacks ---------------------------------------------------------------------------------


def test_a_start_outside_the_row_space_is_kept_until_the_end():
    A, b = rough(12, 30, rank=6)
    x0 = 0.1 * np.random.default_rng(0).standard_normal(30)
    none = fastrsx.newton(A, b, x0, hessian="reduced", kernel="serial", max_iter=0)
    assert none.status is Status.MAX_ITER
    np.testing.assert_array_equal(none.x, x0)
    assert none.fun == pytest.approx(Problem(A, b).value(x0), rel=1e-14)
    some = fastrsx.newton(A, b, x0, hessian="reduced", kernel="serial", max_iter=2)
    assert Problem(A, b).value(some.x) == pytest.approx(some.fun, rel=1e-12)
    scale = np.sqrt((A**2).mean(axis=0))
    moved = (some.x - x0) * scale  # in the row space of scaled columns
    np.testing.assert_allclose(moved, np.linalg.pinv(A / scale) @ (A @ (some.x - x0)), atol=1e-12)
    ends = both(A, b, x0)
    np.testing.assert_allclose(ends[1].x, ends[0].x, atol=1e-9)
    check_least_norm(A, ends[1].x)


def test_start_at_the_solution():
    A, x = rough(5, 9)[0], np.linspace(0, 0.3, 9)
    result = fastrsx.newton(A, fastrsx.predict(A, x), x, hessian="reduced", kernel="serial")
    assert result.status is Status.EXACT_FIT
    assert result.nit == 0
    np.testing.assert_allclose(result.x, np.linalg.pinv(A) @ (A @ x), atol=1e-12)


def test_bad_starts():
    A, b = rough(5, 9)
    assert fastrsx.newton(np.full((3, 5), 1e140), np.full(3, 1 / 3), np.full(5, 1e300), hessian="reduced", kernel="serial").status is Status.NONFINITE
    x0 = np.linalg.pinv(A) @ np.full(5, -3.0)
    with pytest.raises(ValueError, match="x0 lies outside the domain"):
        fastrsx.newton(A, b, x0, hessian="reduced", kernel="serial")


def test_no_minimiser_names_the_callers_columns():
    """A one-hot b at a vertex of the hull of the rows, of rank 2: the message names the columns that point there the most."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 70))
    b = np.zeros(60)
    b[np.argmax(A[:, 0])] = 1.0
    exact, found = both(A, b)
    assert exact.status is found.status is Status.NO_MINIMISER
    columns = [int(j) for j in found.message.split("columns ")[1].split(" of A")[0].split(", ")]
    ahead = (found.x * np.sqrt((A**2).mean(axis=0)))[columns]  # x has the direction of the ray by now
    assert (abs(ahead) >= 0.5 * abs(found.x * np.sqrt((A**2).mean(axis=0))).max()).all()
    assert Problem(A, b).value(found.x) == pytest.approx(found.fun, rel=1e-9)


def test_callbacks_and_the_table(capsys):
    A, b = rough(12, 30, rank=6)
    seen, points = [], []
    result = fastrsx.newton(
        A, b, hessian="reduced", kernel="serial", verbose=2, callback=lambda intermediate_result: seen.append(intermediate_result)
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == result.nit + 2
    assert lines[-1] == result.summary()
    for state in seen:
        assert Problem(A, b).value(state.x) == pytest.approx(state.fun, rel=1e-12)
    fastrsx.newton(A, b, hessian="reduced", kernel="serial", callback=points.append)
    np.testing.assert_array_equal(points, [state.x for state in seen])


def test_an_interrupt_carries_the_last_iterate():
    def interrupt(x):
        raise KeyboardInterrupt

    A, b = rough(12, 30, rank=6)
    with pytest.raises(KeyboardInterrupt) as caught:
        fastrsx.newton(A, b, hessian="reduced", kernel="serial", callback=interrupt)
    state = caught.value.intermediate_result
    assert state.nit == 1
    assert Problem(A, b).value(state.x) == pytest.approx(state.fun, rel=1e-12)


# -- the choice, and memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "choice"),
    [
        (10, 64, "exact"),
        (10, 65, "reduced"),
        (200, 2000, "reduced"),
        (300, 10**5, "reduced"),
        (1000, 20000, "reduced"),
        (2000, 3000, "reduced"),
        (6000, 8000, "matrix-free"),
        (REDUCED_UP_TO + 1, 10**7, "matrix-free"),
    ],
)
def test_auto(n, d, choice):
    plan = fastrsx.plan(np.broadcast_to(1.0, (n, d)))
    assert plan.hessian == choice
    assert f"{choice} Hessian" in str(plan)


@pytest.mark.parametrize("shape", [(5, 5), (9, 3)])
def test_reduced_needs_more_columns_than_rows(shape):
    A = np.ones(shape)
    for call in (lambda: fastrsx.plan(A, hessian="reduced"), lambda: fastrsx.newton(A, np.ones(len(A)), hessian="reduced")):
        with pytest.raises(ValueError, match="hessian is 'reduced', which takes n x n data for n x d, and A is"):
            call()


@pytest.mark.parametrize(("n", "d", "hessian"), [(20, 50_000, "auto"), (20, 50_000, "matrix-free")])
def test_nothing_is_d_x_d(n, d, hessian):
    """A d x d matrix would take 20 GB."""
    A, b = rough(n, d)
    tracemalloc.start()
    try:
        result = fastrsx.newton(A, b, w=0.01, hessian=hessian, kernel="serial")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.success
    assert peak <= 8 * d * (2 * n + 600)  # a copy of A in chunks, the kernels' panels of 256 rows, and some d-vectors
