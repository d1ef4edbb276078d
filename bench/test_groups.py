"""Many softmaxes over one x: a pass and a solve within groups of rows, against one read of A and against peers."""

import numpy as np
import pytest

import fastrsx
import peers
import problems

N = 1_000_000
COLUMNS = [16, 64]


@pytest.fixture(params=[(sizes, d) for d in COLUMNS for sizes in problems.GROUPS], ids=lambda given: f"{given[0]}, {given[1]} columns")
def given(request):
    sizes, d = request.param
    A, b, x = problems.grouped(sizes, N, d)
    offsets = problems.offsets_of(sizes, N)
    return sizes, A, b, x, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def test_value_grad(given, row, over_read, peer_row):
    sizes, A, b, x, labels = given
    problem = fastrsx.Problem(A, b, groups=labels)
    passes = problem._passes

    def work():
        return passes.project_grad(x)

    point, first = row(work, f"value+grad, {sizes}", *A.shape, nbytes=A.nbytes)
    expected = peers.GroupedNumpyProblem(A, b, problem._groups.offsets)
    assert point.fun == pytest.approx(expected.value(x), rel=1e-11)
    np.testing.assert_allclose(first.grad, expected.grad(x), atol=1e-11 * np.abs(first.grad).max())
    over_read(work, *A.shape)


def test_value_grad_of_jax(given, peer_row):
    sizes, A, b, x, labels = given
    value, grad = fastrsx.Problem(A, b, groups=labels).value_and_grad(x)

    def check(result):
        assert float(result[0]) == pytest.approx(value, rel=1e-11)
        np.testing.assert_allclose(result[1], grad, atol=1e-10 * np.abs(grad).max())

    peer_row("JAX", "value+grad", sizes, *A.shape, check, name=f"value+grad, {sizes}", nbytes=A.nbytes)


def test_newton(given, row, benchmark):
    sizes, A, b, _, labels = given
    result = row(lambda: fastrsx.newton(A, b, groups=labels), f"newton, {sizes}", *A.shape, rounds=3)
    assert result.success
    benchmark.extra_info.update(nit=result.nit, npass=result.npass, fun=result.fun)


@pytest.mark.parametrize("sizes", ["groups of 24"])
@pytest.mark.parametrize("d", COLUMNS)
def test_newton_of_scipy(peer_row, sizes, d):
    A, b, _ = problems.grouped(sizes, N, d)
    offsets = problems.offsets_of(sizes, N)
    least = fastrsx.newton(A, b, groups=np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))).fun

    def check(result):
        assert least * (1 - 1e-9) <= peers.GroupedNumpyProblem(A, b, offsets).value(np.asarray(result[0])) <= least * (1 + 1e-8)

    peer_row("NumPy", "trust-exact", sizes, N, d, check, name=f"newton, {sizes}", label="SciPy trust-exact", rounds=1, warmup=0)
