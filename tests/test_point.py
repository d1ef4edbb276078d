"""The point and the gradient with one exponential for each row: alpha foretold, sums corrected, and digits kept in any order of the rows."""

import numpy as np
import pytest
from numba import njit

import naive
from fastrsx.kernels import dense
from fastrsx.kernels.cpu import passes, vectors
from fastrsx.kernels.formulas.links import LINKS
from fastrsx.kernels.formulas.records import POINT_ROOM, STATE_ROOM, as_point, as_state
from fastrsx.kernels.layouts.panel import MOST_ROWS, ROWS, add_row_sum, add_row_sums, padded, panel_rows, row_products

NONE = np.empty(0)
ORDERS = {"random": lambda a: np.arange(len(a)), "rising": np.argsort, "falling": lambda a: np.argsort(-a)}


def data(n, d, spread, order):
    rng = np.random.default_rng(n + d)
    A, x = rng.standard_normal((n, d)), np.full(d, spread / np.sqrt(d))
    A = A[ORDERS[order](A @ x)]
    return A, x, rng.dirichlet(np.ones(n))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (9, 2), (130, 4), (1000, 5), (20_000, 3), (20_001, 20)])
def test_value_and_gradient(n, d, spread, order):
    """In sorted rows each panel is unlike those before it, so that predictions fail; the digits must not."""
    A, x, b = data(n, d, spread, order)
    work, grad = dense.alloc_workspace(n, d, False), np.empty(d)
    fun = dense.value_grad_serial(A, x, b, NONE, grad, work)
    ref = naive.Naive(A, b, a=work.a)
    scale = float(ref.kappa) * (1.0 + np.abs(work.a).max())
    assert fun == pytest.approx(float(ref.value), rel=1e-14 * scale)
    assert np.abs(grad - ref.grad.astype(float)).max() <= 3e-14 * scale * np.abs(ref.grad_split_scale).max()
    assert dense.value_serial(A, x, b, NONE, work) == pytest.approx(float(ref.value), rel=1e-14 * scale)


@njit
def state_of(link, a, b, start, stop, out):
    """One block's state after `fold_point`."""
    vectors.fold_point(link, a, a[:0], 0.0, b, a[:0], start, stop, a, as_state(out))


def test_the_sums_of_a_block_do_not_depend_on_the_prediction():
    """<c~, c~>, <f~, c~> and <f~, f~>, corrected, are those with alpha."""
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.standard_normal(3000)), rng.dirichlet(np.ones(3000))
    sums, point = np.zeros((1, STATE_ROOM)), np.zeros(POINT_ROOM)
    state_of(LINKS["rsx"], a, b, 0, 3000, sums[0])
    state = as_state(sums[0])
    assert state.centre != pytest.approx(state.alpha, rel=1e-3)  # foretold, for the rows rise
    u = np.exp(a) + a
    f = u / u.sum()
    vectors.merge_domains(sums, as_point(point))
    vectors.merge_corrected(sums, as_point(point))
    at = as_point(point)
    assert at.squares == pytest.approx((f - b) @ (f - b), rel=1e-13)
    assert at.s == pytest.approx(f @ (f - b), rel=1e-12)
    assert at.ff == pytest.approx(f @ f, rel=1e-13)


@pytest.mark.parametrize(("order", "again"), [("random", False), ("rising", True)])
def test_the_loss_is_summed_again_only_where_digits_are_lost(order, again):
    A, x, b = data(20_000, 3, 0.3, order)
    work = dense.alloc_workspace(len(A), 3, False)
    passes.project_serial(work.link, A, x, b, NONE, work.a, work.sums, work.point, work.buffers)
    lost = as_state(work.sums[0]).lost
    assert (lost > vectors.MOST_LOST * as_point(work.point).squares) == again


@pytest.mark.parametrize("n", [1, 7, 8, 9, 100, 128])
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
def test_sums_of_narrow_panels(n, d):
    """Eight rows to a register, and the rest row by row; what lies behind the last column counts for nothing."""
    rng = np.random.default_rng(0)
    P = np.zeros((padded(n), 8))
    P[:n] = rng.standard_normal((n, 8))
    A, W, x = P[:n, :d], rng.standard_normal((4, padded(n))), rng.standard_normal(d)
    P[:, d:] = 0.0
    found, one, a = np.zeros((4, 8)), np.zeros((1, 8)), np.empty(n)
    sums_of(P, W, n, found, one, x, a, np.ascontiguousarray(A))
    np.testing.assert_allclose(found[:3, :d], W[:3, :n] @ A, rtol=0, atol=1e-13)
    np.testing.assert_allclose(one[0, :d], W[0, :n] @ A, rtol=0, atol=1e-13)
    np.testing.assert_allclose(a, A @ x, rtol=0, atol=1e-14)
    assert not found[:, d:].any()


@pytest.mark.parametrize("n", [1, 8, 100, 700])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_gram_matrices_of_narrow_panels(n, d):
    """The padding of the last panel has weight zero, whatever a workspace held before."""
    rng = np.random.default_rng(n)
    A, h, work = rng.standard_normal((n, d)), rng.standard_normal(n), dense.alloc_workspace(n, d, True)
    work.packed[:] = work.buffers[:] = 7.0
    found = np.empty((d, d))
    dense.weighted_gram_serial(A, h, found, work)
    np.testing.assert_allclose(found, A.T @ (h[:, None] * A), rtol=0, atol=1e-14 * n)


@njit
def sums_of(P, W, n, found, one, x, a, A):
    add_row_sums(P, W, n, found, A, 0, True)
    add_row_sum(P, W, n, one, A, 0, True)
    row_products(P, x, n, a, 0, A, 0, True)


def test_panels_of_few_columns_are_longer():
    assert [panel_rows(d) for d in (1, 8, 9, 16, 17, 500)] == [MOST_ROWS, MOST_ROWS, 256, 256, ROWS, ROWS]
    assert all(panel_rows(d) % ROWS == 0 for d in range(1, 40))
