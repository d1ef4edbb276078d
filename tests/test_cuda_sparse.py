"""Sparse A on a GPU, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU, against the formulas for the same numbers in a dense array."""

import numpy as np
import pytest
from numba import config
from scipy import sparse

import fastrsx
import gpu
import naive
from fastrsx.system import device
from formulas import KERNELS, assert_within, output_shapes, random_data

kernels = gpu.kernels()
from fastrsx.kernels.gpu import passes  # noqa: E402  the simulator comes first
from fastrsx.kernels.gpu import sparse as on_gpu  # noqa: E402

cuda = kernels.cuda
TOL = 1e-12


class CupyMatrix:
    """What fastrsx knows of a sparse matrix of CuPy."""

    def __init__(self, A, kind="csr"):
        A = A.asformat(kind)
        self.format, self.shape, self.dtype, self.nnz, self.ndim = kind, A.shape, A.dtype, A.nnz, 2
        for name in {"csr": ("data", "indices", "indptr"), "csc": ("data", "indices", "indptr"), "coo": ("data", "row", "col")}[kind]:
            setattr(self, name, cuda.to_device(getattr(A, name)))

    def tocsr(self):
        raise AssertionError("it is not converted")

    def get(self):
        raise AssertionError("it is not moved")


def matrix(n, d, density=0.4, dtype=np.float64):
    return sparse.random_array((n, d), density=density, rng=np.random.default_rng(n + d), format="csr", dtype=dtype)


def source_of(A):
    return device.as_matrix(CupyMatrix(A)).source


# Rows and columns of few entries and of many; with none; a column in several parts.
SHAPES = [(23, 5, 0.4), (7, 40, 0.1), (40, 3, 1.0), (5, 2, 0.0), (30, 1, 0.9)]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(on_gpu, "PART", 4)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d", "density"), SHAPES)
def test_kernels_match_the_formulas(n, d, density, weighted):
    A = matrix(n, d, density)
    data = random_data(n, d, weighted)._replace(A=A.toarray())
    there, (x, b, w, p) = source_of(A), map(cuda.to_device, (data.x, data.b, data.w, data.p))
    results = {}
    for kernel in (kernel for kernel in KERNELS if kernel != "value_grad_hess"):
        outputs = {name: cuda.to_device(np.full(shape, -7.0)) for name, shape in output_shapes(kernel, n, d).items()}
        work = kernels.alloc_sparse_workspace(there)
        direction = [p] if kernel == "hess_vec" else []
        fun = getattr(kernels, kernel)(there, x, b, w, *direction, *outputs.values(), work)
        results[kernel] = [fun, work.a.copy_to_host(), *(array.copy_to_host() for array in outputs.values())]
    a = results["value"][1]
    assert_within(a, data.A.astype(np.longdouble) @ data.x, abs(data.A) @ abs(data.x), TOL)
    ref = naive.Naive(data.A, data.b, w=data.w, a=a)
    tol = TOL * float(ref.kappa)
    for fun, image, *_ in results.values():
        assert fun == results["value"][0]
        np.testing.assert_array_equal(image, a)
    assert_within(results["value"][0], ref.value, ref.value_scale, tol)
    assert_within(results["value_grad"][2], ref.grad, ref.grad_scale, tol)
    assert_within(results["hess_vec"][2], ref.hess @ data.p, ref.hess_scale @ abs(data.p), tol)
    D, V = results["factors"][2:]
    assert_within(D, ref.D + ref.w**2 / 2, ref.D_scale + ref.w**2 / 2, tol)
    assert_within(V, ref.V, ref.V_scale, tol)


def test_no_gram_matrix():
    there = source_of(matrix(7, 3))
    with pytest.raises(TypeError, match="A is sparse, and no Gram matrix of it is formed on a GPU"):
        kernels.weighted_gram(there, cuda.device_array(7), cuda.device_array((3, 3)), kernels.alloc_sparse_workspace(there))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d", "density"), SHAPES)
def test_passes(n, d, density, dtype):
    """Products with A and its transpose, sizes of columns and one column; the same bits each time."""
    A = matrix(n, d, density, dtype)
    there, work = source_of(A), None
    rng = np.random.default_rng(0)
    x, y, found = rng.standard_normal(d), rng.standard_normal(n), []
    for _ in range(2):
        work, image = kernels.alloc_sparse_workspace(there), cuda.device_array(n)
        passes.products(there, cuda.to_device(x), image, work)
        passes.transposed(there, cuda.to_device(y), work)
        back = work.combined.copy_to_host()[2]
        passes.columns(there, work)
        sizes = work.combined.copy_to_host()[:2]
        column = cuda.device_array(n)
        passes.column(there, d - 1, column, work)
        found.append([image.copy_to_host(), back, *sizes, column.copy_to_host()])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    dense = A.toarray().astype(np.float64)
    image, back, squares, largest, column = found[0]
    assert_within(image, dense @ x, abs(dense) @ abs(x), TOL)
    assert_within(back, dense.T @ y, abs(dense).T @ abs(y), TOL)
    np.testing.assert_allclose(squares, (dense**2).sum(0), rtol=TOL)
    np.testing.assert_array_equal(largest, abs(dense).max(0))
    np.testing.assert_array_equal(column, dense[:, -1])


def test_parts_of_columns():
    starts = np.array([0, 0, 3, 2 * on_gpu.PART + 3, 2 * on_gpu.PART + 4, 4 * on_gpu.PART + 5])
    bounds, firsts = on_gpu.parts_of(starts)
    assert (np.diff(bounds) > 0).all()
    assert np.diff(bounds).max() <= on_gpu.PART
    np.testing.assert_array_equal(bounds[firsts], starts)


def test_problem_gives_what_the_formulas_give():
    A = matrix(24, 4)
    data = random_data(24, 4, True)
    problem = fastrsx.Problem(CupyMatrix(A), cuda.to_device(data.b), w=data.w)
    assert str(problem.plan) == f"cuda kernels on {problem.plan.gpu}, exact Hessian, sparse A read on the GPU: A is there"
    assert problem.plan.gpu.endswith("lanes a row")
    ref = naive.Naive(A.toarray(), data.b, data.x, w=data.w)
    assert problem.value(data.x) == pytest.approx(float(ref.value), rel=TOL)
    assert_within(problem.grad(data.x), ref.grad, ref.grad_scale, 100 * TOL)
    assert_within(problem.hess(data.x), ref.hess, ref.hess_scale, 100 * TOL)
    assert_within(problem.hess_vec(data.x, data.p), ref.hess @ data.p, ref.hess_scale @ abs(data.p), 100 * TOL)
    np.testing.assert_allclose(problem.predict(data.x).copy_to_host(), np.asarray(ref.f, float), rtol=1e-11)
    factors = problem.factors(data.x)
    assert_within(factors.matvec(data.p), ref.hess @ data.p, ref.hess_scale @ abs(data.p), 100 * TOL)
    np.testing.assert_array_equal(device.as_matrix(CupyMatrix(A))[[3, 5]], A.toarray()[[3, 5]])


@pytest.mark.parametrize(("n", "d"), [(40, 4), (6, 9)])
def test_newton_solves_by_products(n, d):
    A = matrix(n, d, 0.6)
    b = np.random.default_rng(1).dirichlet(np.ones(n))
    found = fastrsx.newton(CupyMatrix(A), b, w=0.05)
    assert found.success
    assert "matrix-free Hessian" in found.kernel
    assert "steps by products alone, as A is sparse on a GPU" in found.kernel
    ref = naive.Naive(A.toarray(), b, found.x, w=np.full(n, 0.05))
    assert np.linalg.norm(ref.grad) <= 1e-7 * np.linalg.norm(ref.grad_scale)


@pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="the second GPU is pretended in the simulator")
def test_work_is_done_on_the_gpu_that_holds_a(monkeypatch):
    """Of two, which are pretended: every array that is made, and every launch, is on the second one."""
    A, b = CupyMatrix(matrix(12, 2, 0.8)), np.full(12, 1 / 12)
    gpus = gpu.TwoGpus(monkeypatch)
    monkeypatch.setattr(device, "index_of", lambda array: 1)
    problem = fastrsx.Problem(A, b)
    problem.grad([0.1, 0.2])
    assert gpus.seen == {1}
    assert problem.plan.gpu.startswith("GPU 1, ")


def test_newton_of_dependent_columns():
    """Rows are taken to memory to find that out; the last two columns are the same."""
    A = matrix(30, 2, 0.8)
    A = sparse.csr_array(sparse.hstack([A, A[:, [1]]]))
    found = fastrsx.newton(CupyMatrix(A), np.random.default_rng(2).dirichlet(np.ones(30)))
    assert found.success
    assert found.x[1] == pytest.approx(found.x[2], rel=1e-6)


def changed(**changes):
    made = CupyMatrix(matrix(4, 2, 1.0))
    for name, value in changes.items():
        setattr(made, name, cuda.to_device(np.array(value)) if isinstance(value, list) else value)
    return made


@pytest.mark.parametrize(
    ("A", "options", "error", "message"),
    [
        (lambda: CupyMatrix(matrix(4, 2), "coo"), {}, TypeError, r"of format 'coo', where compressed rows are needed; pass A.tocsr\(\)"),
        (lambda: CupyMatrix(matrix(4, 2), "csc"), {}, TypeError, r"of format 'csc', where compressed rows are needed; pass A.tocsr\(\)"),
        (lambda: changed(dtype=np.dtype(bool)), {}, TypeError, r"of dtype bool; pass float64 or float32, such as A.astype\('float64'\)"),
        (lambda: changed(indices=[0, 1, 0, 2, 0, 1, 0, 1]), {}, ValueError, r"the columns of row 1 do not lie in 0..1"),
        (lambda: changed(indptr=[0, 2, 4, 6, 7]), {}, ValueError, "A is no valid CSR matrix"),
        (lambda: changed(indices=[0, 1, 1, 0, 0, 1, 0, 1]), {}, ValueError, r"not ascending, or one twice, in row 1; call A.sum_duplicates\(\)"),
        (lambda: changed(data=[1.0, 2.0, np.nan, 1.0, 0.5, 0.5, 0.5, 0.5]), {}, ValueError, r"A\[1, 0\] is nan \(1 such in column 0\)"),
        (lambda: CupyMatrix(matrix(4, 2)), {"hessian": "exact"}, ValueError, "where no Gram matrix is formed: pass 'matrix-free', or A.get"),
        (lambda: CupyMatrix(matrix(4, 2)), {"groups": [0, 0, 1, 1]}, ValueError, "groups is given, and kernels are those of a GPU"),
        (lambda: CupyMatrix(matrix(4, 2)), {"kernel": "serial"}, ValueError, "kernel is 'serial', and A is on a GPU"),
    ],
)
def test_bad_input_is_named(A, options, error, message):
    with pytest.raises(error, match=message):
        fastrsx.newton(A(), np.full(4, 0.25), **options)


def test_what_runs_in_memory_says_so():
    with pytest.raises(TypeError, match=r"A is on a GPU, where an array in memory is needed; pass A.get\(\)"):
        fastrsx.convergence(CupyMatrix(matrix(4, 2)), np.full(4, 0.25))


def test_outside_the_domain_there_is_nothing():
    problem = fastrsx.Problem(CupyMatrix(sparse.csr_array(np.ones((5, 2)))), np.full(5, 0.2))
    assert problem.value([-2.0, -2.0]) == np.inf
    assert np.isnan(problem.grad([-2.0, -2.0])).all()
