"""Rows drawn on a GPU, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU: those that the CPU draws, and the same solves."""

import numpy as np
import pytest

import fastrsx
import gpu
from fastrsx.kernels.cpu import sample as on_cpu

kernels = gpu.kernels()
from fastrsx.kernels.gpu import passes, sample  # noqa: E402  the simulator comes first

cuda = kernels.cuda
SHAPES = [(23, 1), (41, 3), (19, 17), (7, passes.WIDEST + 3)]


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_scores_are_squared_norms(n, d, dtype, order):
    rng = np.random.default_rng(d)
    A, B = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((sample.DIRECTIONS, d))
    out = cuda.to_device(np.full(n, np.nan))
    sample.scores(cuda.to_device(np.asarray(A, order=order)), cuda.to_device(B), out, kernels.alloc_workspace(n, d, False))
    np.testing.assert_allclose(out.copy_to_host(), ((A @ B.T) ** 2).sum(axis=1), rtol=1e-5 if dtype == np.float32 else 1e-12)


def draw(h, scores, wanted, offset):
    """{row: weight} that the GPU draws, in order, and that the CPU does; rows of weight 0 count for nothing."""
    n, rows, weights = len(h), np.zeros(wanted + 1, np.int64), np.zeros(wanted + 1)
    on_cpu.draw(h, scores, wanted, offset, rows, weights)
    there = cuda.to_device(np.full(wanted + 1, -7)), cuda.to_device(np.full(wanted + 1, -7.0))
    sample.draw(cuda.to_device(h), cuda.to_device(scores), wanted, offset, *there, kernels.alloc_workspace(n, 3, False))
    found, weighed = (array.copy_to_host() for array in there)
    assert set(found) <= set(range(n))
    return (found[weighed != 0], weighed[weighed != 0]), (rows[weights != 0], weights[weights != 0])


CASES = {
    "of either sign": lambda rng: (rng.standard_normal(150), rng.random(150)),
    "some certain": lambda rng: (np.where(rng.random(150) < 0.1, -1e4, 1.0), rng.random(150)),
    "almost all certain": lambda rng: (np.where(rng.random(150) < 0.9, 1e6, 1.0), rng.random(150) + 0.5),
    "zeros": lambda rng: (rng.standard_normal(150) * (rng.random(150) < 0.3), rng.random(150)),
    "nothing": lambda rng: (np.zeros(150), rng.random(150)),
    "fewer rows than threads": lambda rng: (rng.standard_normal(9), rng.random(9)),
    "one row": lambda rng: (np.ones(1), np.ones(1)),
}


@pytest.mark.parametrize("offset", [0.0, 0.37, 0.999])
@pytest.mark.parametrize("case", CASES)
def test_the_rows_that_the_cpu_draws(case, offset):
    h, scores = CASES[case](np.random.default_rng(0))
    (rows, weights), (expected, their_weights) = draw(h, scores, min(40, len(h)), offset)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(weights, their_weights, rtol=1e-12)


def test_all_rows_where_as_many_are_wanted():
    (rows, weights), _ = draw(np.arange(1.0, 49.0), np.ones(48), 48, 0.5)
    np.testing.assert_array_equal(rows, np.arange(48))
    np.testing.assert_allclose(weights, np.arange(1.0, 49.0))


@pytest.mark.parametrize("hessian", ["sampled", "sampled-only"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_solve_in_memory(hessian, dtype):
    """The same steps, from the same rows."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((60, 3)).astype(dtype)
    b = fastrsx.predict(A, [0.5, -1.0, 0.25]) * rng.uniform(0.7, 1.3, 60)
    b, given = b / b.sum(), {"hessian": hessian, "sample_rows": 20, "seed": 4, "tol": 1e-8}
    here, there = fastrsx.newton(A, b, kernel="serial", **given), fastrsx.newton(cuda.to_device(A), cuda.to_device(b), **given)
    assert there.status is here.status
    for count in ("nit", "nfev", "nsampled", "nreused", "nproducts", "nhev"):
        assert getattr(there, count) == getattr(here, count)
    assert there.nsampled > 0
    np.testing.assert_allclose(there.x, here.x, rtol=1e-9)
    for field in ("fun", "decrement", "step"):
        np.testing.assert_allclose(*([getattr(row, field) for row in found.history] for found in (there, here)), rtol=1e-6)
    other = fastrsx.newton(cuda.to_device(A), cuda.to_device(b), **given | {"seed": 5, "max_iter": 1})
    assert other.history[0].decrement != there.history[0].decrement
