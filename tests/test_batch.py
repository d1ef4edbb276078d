"""Small solves in one call: from Python, from jitted code, and many at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit, prange

import fastrsx
from fastrsx import Status, batch
from fastrsx.kernels import solve


def problems(count, n, d, seed=0, spread=1.0):
    rng = np.random.default_rng([count, n, d, seed])
    A = rng.standard_normal((count, n, d))
    a = np.einsum("kij,kj->ki", A, spread * rng.standard_normal((count, d)) / np.sqrt(d))
    b = abs(np.exp(a) + a) * rng.uniform(0.5, 1.5, (count, n))
    return A, b / b.sum(axis=1, keepdims=True)


def assert_as_newton(found, j, A, b, *args, **kwargs):
    """Problem j ended as it does alone; the loss differs only by the order of sums."""
    alone = fastrsx.newton(A, b, *args, hessian="exact", kernel="serial", **kwargs)
    assert found.status[j] == alone.status
    assert found.success[j] == alone.success
    assert found.nit[j] == alone.nit
    np.testing.assert_allclose(found.fun[j], alone.fun, rtol=1e-12, atol=1e-28)
    np.testing.assert_allclose(found.x[j], alone.x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(200, 5), (37, 3), (20, 1), (300, 17), (1000, 8)])
def test_each_is_what_newton_finds(n, d):
    A, b = problems(20, n, d, spread=2.0)
    found = fastrsx.newton_batch(A, b)
    for j in range(20):
        assert_as_newton(found, j, A[j], b[j])
    assert found.success.sum() > 10


def test_ragged_weighted_and_started():
    shapes = [(50, 2), (30, 4), (30, 4), (8, 1), (100, 9)]
    data = [problems(1, n, d) for n, d in shapes]
    A, b = [A[0] for A, _ in data], [b[0] for _, b in data]
    w = [np.full(len(y), 1e-3) for y in b]
    x0 = [np.full(M.shape[1], 0.05) for M in A]
    found = fastrsx.newton_batch(A, b, x0, w=w)
    for j, x in enumerate(found.x):
        assert_as_newton(found, j, A[j], b[j], x0[j], w=w[j])
        assert x.shape == (shapes[j][1],)
    np.testing.assert_array_equal(fastrsx.newton_batch(A, b, x0, w=1e-3).fun, found.fun)
    assert (x0[0] == 0.05).all()


@pytest.mark.parametrize("change", [lambda A: A.astype(np.float32), np.asfortranarray, lambda A: np.repeat(A, 2, axis=0)[::2], lambda A: list(A)])
def test_layouts(change):
    A, b = problems(5, 30, 3)
    A = A.astype(np.float32).astype(np.float64)
    found = fastrsx.newton_batch(change(A), b)
    np.testing.assert_array_equal(found.x, fastrsx.newton_batch(A, b).x)


def test_a_failure_does_not_touch_the_others():
    A, b = problems(7, 60, 3)
    good = fastrsx.newton_batch(A, b)
    A[1, 4, 0] = np.nan
    A[2] *= 1e200
    b[3] = 0.0
    b[3, np.argmax(A[3, :, 0])] = 1.0  # a vertex of the hull: no minimiser
    b[4, 0] = np.inf
    x0 = np.zeros((7, 3))
    x0[6, 0] = np.nan
    found = fastrsx.newton_batch(A, b, x0)
    expected = [Status.CONVERGED, Status.NONFINITE, Status.NONFINITE, Status.NO_MINIMISER, Status.NONFINITE, Status.CONVERGED, Status.NONFINITE]
    assert [Status(status) for status in found.status] == expected
    assert found.success.tolist() == [True, False, False, False, False, True, False]
    assert found.message == "2 CONVERGED, 1 NO_MINIMISER, 4 NONFINITE"
    for j in (0, 5):
        np.testing.assert_array_equal(found.x[j], good.x[j])


def test_same_bits_for_any_number_of_threads():
    A, b = problems(1000, 40, 4)
    assert len(batch._parts(np.full(1000, 160), 2 * batch.PARTS)) > 2  # so there is work for two
    one, two = fastrsx.newton_batch(A, b, num_threads=1), fastrsx.newton_batch(A, b)
    np.testing.assert_array_equal(one.x, two.x)
    np.testing.assert_array_equal(one.nit, two.nit)


def test_batches_in_many_threads():
    A, b = problems(200, 40, 4)
    alone = fastrsx.newton_batch(A, b)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: fastrsx.newton_batch(A, b), range(16)))
    for found in together:
        np.testing.assert_array_equal(found.x, alone.x)


def test_dependent_columns():
    """x is one of the solutions, and A x is that of `newton`; a direction along which the loss is constant is not a ray."""
    A, b = problems(12, 50, 2)
    A = np.concatenate([A, A.sum(axis=2, keepdims=True)], axis=2)
    found = fastrsx.newton_batch(A, b)
    for j in range(12):
        alone = fastrsx.newton(A[j], b[j], kernel="serial")
        assert found.status[j] == alone.status
        np.testing.assert_allclose(A[j] @ found.x[j], A[j] @ alone.x, atol=1e-6)
        np.testing.assert_allclose(found.fun[j], fastrsx.Problem(A[j], b[j]).value(found.x[j]), rtol=1e-9)


def test_the_answer_does_not_depend_on_the_neighbours():
    A, b = problems(50, 40, 4, spread=2.0)
    order = np.random.default_rng(0).permutation(50)
    whole, mixed = fastrsx.newton_batch(A, b), fastrsx.newton_batch(A[order], b[order])
    np.testing.assert_array_equal(whole.x[order], mixed.x)
    np.testing.assert_array_equal(fastrsx.newton_batch(A[:1], b[:1]).x, whole.x[:1])


def test_many_calls_of_the_kernel_are_one_batch(monkeypatch):
    A, b = problems(20, 30, 2)
    whole = fastrsx.newton_batch(A, b)
    monkeypatch.setattr(batch, "LEAST", 3 * 30 * 2)
    monkeypatch.setattr(batch, "MOST", 3 * 30 * 2)
    assert len(batch._parts(np.full(20, 60), 1)) == 7
    np.testing.assert_array_equal(fastrsx.newton_batch(A, b).x, whole.x)


def test_too_few_steps_and_starts_outside():
    A, b = problems(3, 40, 2, spread=3.0)
    assert (fastrsx.newton_batch(A, b, max_iter=1).status == Status.MAX_ITER).all()
    assert (fastrsx.newton_batch(A, b, max_iter=0).x == 0).all()
    ones = np.ones((1, 5, 1))
    assert fastrsx.newton_batch(ones, np.full((1, 5), 0.2), [[-5.0]]).status[0] == Status.NONFINITE


@njit(parallel=True)
def many(A, x, b):
    success = np.empty(A.shape[0], np.bool_)
    for j in prange(A.shape[0]):
        small = solve.alloc_small(A.shape[1], A.shape[2])
        success[j] = solve.newton_small(A[j], x[j], b[j], np.empty(0), 1e-10, 100, small).success
    return success


def test_newton_small_from_jitted_code():
    A, b = problems(8, 100, 4)
    found = np.zeros((8, 4))
    assert many(A, found, b).all()
    for j in range(8):
        np.testing.assert_array_equal(found[j], fastrsx.newton(A[j], b[j], kernel="serial").x)


@pytest.mark.parametrize("real", [np.float64, np.float32])
def test_newton_small(real):
    A, b = problems(2, 100, 4)
    A, b, w = A.astype(real), b.astype(real), np.full(100, 1e-3, real)
    x, small = np.zeros(4, real), solve.alloc_small(100, 4)
    result = solve.newton_small(A[0], x, b[0], w, 1e-10, 100, small)
    alone = fastrsx.newton(A[0], b[0], w=w, kernel="serial")
    np.testing.assert_array_equal(x, alone.x.astype(real))
    assert result == solve.SmallResult(True, Status.CONVERGED, alone.fun, alone.nit, alone.nfev)
    assert solve.newton_small(A[1], x, b[1], w[:0], 1e-10, 100, small).success  # the workspace can be used again, and x is the start
    np.testing.assert_allclose(x, fastrsx.newton(A[1], b[1], kernel="serial").x, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda A, b: fastrsx.newton_batch(A[0], b), ValueError, r"A has shape \(40, 2\); it must have 3 axes"),
        (lambda A, b: fastrsx.newton_batch([], []), ValueError, "A holds no problem"),
        (lambda A, b: fastrsx.newton_batch(None, b), TypeError, "A is None; it must be an array of 3 axes"),
        (lambda A, b: fastrsx.newton_batch(A[:, :0], b), ValueError, r"A has shape \(3, 0, 2\)"),
        (lambda A, b: fastrsx.newton_batch(A, b[:2]), ValueError, "b is of length 2; it must have 3 vectors, one for each problem"),
        (lambda A, b: fastrsx.newton_batch(A, 1.0), ValueError, "b is no sequence"),
        (lambda A, b: fastrsx.newton_batch(A, b[:, 1:]), ValueError, "problem 0: b has 39 entries; it must have 40"),
        (lambda A, b: fastrsx.newton_batch([A[0], A[1, :, 0]], b[:2]), ValueError, "problem 1: A has shape"),
        (lambda A, b: fastrsx.newton_batch(A, b, w=-1.0), ValueError, "w has -1.0 in problem 0"),
        (lambda A, b: fastrsx.newton_batch(A, b, w=np.where(np.arange(120) == 90, -2.0, 1.0).reshape(3, 40)), ValueError, "w has -2.0 in problem 2"),
        (lambda A, b: fastrsx.newton_batch(A * 1j, b), TypeError, "complex"),
        (lambda A, b: fastrsx.newton_batch(A, b, tol=0), ValueError, "tol"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(*problems(3, 40, 2))


def test_nearly_dependent_columns():
    """Raw years and their squares: in lanes, and alone."""
    times = np.arange(1971.0, 1991.0)
    t = np.linspace(-1, 1, 20)
    b = np.exp(-(((t - np.linspace(-0.1, 0.1, 9)[:, None]) / 0.5) ** 2))
    b /= b.sum(axis=1, keepdims=True)
    raw = fastrsx.newton_batch(np.broadcast_to(np.vander(times, 3), (9, 20, 3)), b)
    easy = fastrsx.newton_batch(np.broadcast_to(np.vander(t, 3), (9, 20, 3)), b)
    np.testing.assert_array_equal(raw.success, easy.success)
    np.testing.assert_allclose(raw.fun, easy.fun, rtol=1e-6, atol=1e-17)
    assert easy.success.any()
    assert (raw.nit <= 1.5 * easy.nit + 3).all()
    for j in range(9):
        assert raw.fun[j] == pytest.approx(fastrsx.Problem(np.vander(times, 3), b[j]).value(raw.x[j]), rel=1e-12)


def test_a_b_that_does_not_sum_to_one_is_named_where_a_problem_fails():
    rng = np.random.default_rng(5)
    A = rng.standard_normal((3, 200, 4))
    b = np.array([fastrsx.predict(A[j], [0.5, -1, 0.2, 0.1]) for j in range(3)]) * rng.uniform(0.7, 1.3, (3, 200))
    b /= b.sum(axis=1, keepdims=True)
    assert "sum to 1" not in fastrsx.newton_batch(A, b).message
    b[1] *= 1e9
    message = fastrsx.newton_batch(A, b).message
    assert message.endswith("of those without success 1 have a b that does not sum to 1, as f does: the first is problem 1")
