"""Kernels in other people's programs: parallel loops, dtypes, mistakes, lack of memory."""

import numpy as np
import pytest
from numba.core.errors import TypingError

import fastrsx
from fastrsx.kernels import dense
from fastrsx.kernels.layouts import panel
from fastrsx.system import memory
from processes import run

NESTED = """
import numba, numpy as np, fastrsx
from numba import njit, prange
from fastrsx.kernels import dense

@njit(parallel=True)
def everywhere(A, x, b, w, p, grad, hess, product, D, V):
    values = np.empty((2, 5))
    for k in prange(2):
        work = dense.alloc_workspace(A.shape[0], A.shape[1], True)
        values[k, 0] = dense.value(A, x, b, w, work)
        values[k, 1] = dense.value_grad(A, x, b, w, grad[k], work)
        values[k, 2] = dense.value_grad_hess(A, x, b, w, grad[k], hess[k], work)
        values[k, 3] = dense.hess_vec(A, x, b, w, p, product[k], work)
        values[k, 4] = dense.factors(A, x, b, w, D[k], V[k], work)
    return values

rng = np.random.default_rng(0)
A, x, b, w = (rng.random(shape).astype(np.float32) for shape in ((600, 3), 3, 600, 600))
p = np.ones(3, np.float32)
outputs = [np.empty((2, *shape), np.float32) for shape in ((3,), (3, 3), (3,), (600,), (2, 3))]
values = everywhere(A, x, b, w, p, *outputs)
problem = fastrsx.Problem(A, b, w=w, kernel="serial")
value, grad, hess = problem.value_grad_hess(x)
factors = problem.factors(x)
assert abs(values - value).max() <= 1e-14 * value
for output, expected in zip(outputs, (grad, hess, problem.hess_vec(x, p), factors.D, (factors.v, factors.q))):
    np.testing.assert_allclose(output, 2 * [expected], rtol=2e-6, atol=1e-7 * np.abs(expected).max())
print(numba.threading_layer())
"""


def test_serial_twins_run_in_the_callers_own_parallel_loop(tmp_path, cache):
    """In float32, and on the layer that ends the process when a parallel loop starts another."""
    assert run(NESTED, tmp_path, NUMBA_CACHE_DIR=cache, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2") == "workqueue"


def call_products(A, out):
    return dense.products_serial(A, np.ones(A.shape[1]), out, np.empty((1, panel.ROWS, 8)))


def test_float32_is_widened():
    A = np.arange(60, dtype=np.float32).reshape(20, 3) / 7
    out = np.empty(20)
    call_products(A, out)
    np.testing.assert_allclose(out, A.astype(float).sum(axis=1), rtol=1e-15)


@pytest.mark.parametrize(
    ("A", "out", "message"),
    [
        (np.asfortranarray(np.ones((20, 3))), np.empty(20), "A must be a C-ordered array of float64 or float32"),
        (np.ones((20, 3), np.int64), np.empty(20), r"A must be a C-ordered array of float64 or float32, got array\(int64"),
        (np.ones((20, 3)), np.empty(20, np.float32), "store_first takes contiguous arrays of float64"),
        (np.ones((20, 3)), np.empty(40)[::2], "store_first takes contiguous arrays of float64"),
    ],
)
def test_what_a_kernel_cannot_read_does_not_compile(A, out, message):
    with pytest.raises(TypingError, match=message):
        call_products(A, out)


def test_memory_that_is_not_there_is_asked_for_first():
    A = np.broadcast_to(np.ones(3), (2**50, 3))
    with pytest.raises(MemoryError, match=r"a float64 copy, .* needs 9\.01e\+06 GB, and .* GB are free"):
        fastrsx.newton(A, np.broadcast_to(0.0, 2**50))


def test_memory_that_is_refused_says_how_much(monkeypatch):
    def refuse(*args):
        raise MemoryError

    with pytest.raises(MemoryError, match=r"the thing needs 8e-09 GB, which this process did not get"), memory.room_for("the thing", 1):
        refuse()
    monkeypatch.setattr(dense.alloc_workspace, "py_func", refuse)
    with pytest.raises(MemoryError, match="the workspace for 4 x 1 needs"):
        fastrsx.Problem(np.ones((4, 1)), np.ones(4))


def test_the_size_of_a_workspace():
    for n, d in ((1, 1), (1000, 5), (5000, 70)):
        arrays = dense.alloc_workspace.py_func(n, d, False)[:-1]
        assert dense.workspace_size(n, d) == sum(array.nbytes for array in arrays) // 8 - arrays[1].nbytes // 8


def test_what_is_printed_of_a_failure_has_no_nan():
    A = np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]])
    result = fastrsx.newton(A, [0.5, 0.25, 0.25], [1e308, -1e308], kernel="serial")
    assert result.status == fastrsx.Status.NONFINITE
    assert np.isnan(result.jac).all()
    assert "nan" not in repr(result).lower()
    assert "x:" in repr(result)
