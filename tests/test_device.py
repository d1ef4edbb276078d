"""`Problem` and `newton` with A on a GPU, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU: the same results as in memory."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from extensions import softplus
from numba import config

import fastrsx
import gpu
import naive
from fastrsx.system import device
from formulas import random_data

kernels = gpu.kernels()
from fastrsx.engines import spare  # noqa: E402  the simulator comes first
from fastrsx.kernels.gpu import passes  # noqa: E402

cuda = kernels.cuda
only_simulated = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="it counts in the simulator")
TOL = 1e-11


def problems(n=24, d=3, weighted=True, dtype=np.float64):
    """The same problem in memory and on the GPU, and a point."""
    data = random_data(n, d, weighted)
    A = data.A.astype(dtype)
    here = fastrsx.Problem(A, data.b, w=data.w if weighted else None, kernel="serial")
    there = fastrsx.Problem(*map(cuda.to_device, (A, data.b)), w=cuda.to_device(data.w) if weighted else None)
    return here, there, data


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_problem_gives_what_it_gives_in_memory(dtype):
    here, there, data = problems(dtype=dtype)
    x, p = data.x, data.p
    assert there.plan.kernel == "cuda"
    lanes = there.plan.gpu.partition(" lane")[0].rpartition(" ")[2]
    assert there.plan.gpu.endswith(f"{lanes} lane{'s' * (lanes != '1')} a row by {np.dtype(dtype).itemsize} bytes")
    assert str(there.plan) == f"cuda kernels on {there.plan.gpu}, exact Hessian, A read on the GPU: A is there"
    for method in ("value", "grad", "hess"):
        np.testing.assert_allclose(getattr(there, method)(x), getattr(here, method)(x), rtol=TOL)
    np.testing.assert_allclose(there.hess_vec(x, p), here.hess_vec(x, p), rtol=TOL)
    np.testing.assert_allclose(there.hess_operator(x) @ p, here.hess_vec(x, p), rtol=TOL)
    for found, expected in zip(there.value_grad_hess(2 * x), here.value_grad_hess(2 * x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=TOL)
    y = np.linspace(-1, 1, len(data.b))
    np.testing.assert_allclose(there.jac_operator(x) @ p, here.jac_operator(x) @ p, rtol=TOL)
    np.testing.assert_allclose(there.jac_operator(x).T @ y, here.jac_operator(x).T @ y, rtol=TOL, atol=1e-15)


@pytest.mark.parametrize("layout", ["", "in Fortran order", "with strides"])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_numbers_of_16_bits_stay_where_they_are(name, layout):
    """Results are those of the same numbers in memory; vectors of 16 bits are widened, and an A in memory is copied as it is."""
    data = random_data(24, 8)
    A = data.A.astype(half_dtype(name))
    b = data.b.astype(A.dtype)
    there = LAYOUTS[layout](A) if layout else cuda.to_device(A)
    problem = fastrsx.Problem(there, cuda.to_device(b))
    assert problem._data.source is there
    assert str(problem.plan).endswith(f"A read on the GPU ({', '.join(filter(None, (name, layout)))}): A is there")
    here = fastrsx.Problem(A.astype(float), b.astype(float), kernel="serial")
    for method in ("value", "grad", "hess"):
        np.testing.assert_allclose(getattr(problem, method)(data.x), getattr(here, method)(data.x), rtol=TOL, atol=1e-16)
    np.testing.assert_allclose(problem.hess_vec(data.x, data.p), here.hess_vec(data.x, data.p), rtol=TOL, atol=1e-16)
    np.testing.assert_array_equal(device.to_host("A", there[3:7]), A[3:7])
    copied = fastrsx.Problem(A, b, kernel="cuda")
    assert copied._data.source.dtype == A.dtype
    assert copied.value(data.x) == pytest.approx(here.value(data.x), rel=TOL)


def half_dtype(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_newton_of_numbers_of_16_bits(name):
    """Also where A itself is moved, to find its null space; and an entry that is not finite is named."""
    rng = np.random.default_rng(7)
    A, b = rng.standard_normal((20, 2)), rng.dirichlet(np.ones(20))
    A = np.column_stack([A, A[:, 0]]).astype(half_dtype(name))
    found = fastrsx.newton(cuda.to_device(A), b)
    assert_same(found, fastrsx.newton(A.astype(float), b, kernel="serial"))
    assert found.x[0] == pytest.approx(found.x[2])
    A[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"A\[3, 1\] is nan \(1 such in column 1\)"):
        fastrsx.Problem(cuda.to_device(A), b)


def solve(A, b, **options):
    """The solve on the GPU and the one in memory, where each step is one call, too."""
    there = fastrsx.newton(cuda.to_device(A), cuda.to_device(b), **options)
    return there, fastrsx.newton(A, b, kernel="serial", **options)


def assert_same(there, here, tol=1e-7):
    assert (there.status, there.success) == (here.status, here.success)
    np.testing.assert_allclose(there.fun, here.fun, rtol=1e-9, atol=1e-25)
    np.testing.assert_allclose(there.x, here.x, rtol=tol, atol=tol)


def assert_is_minimum(found, A, b, link):
    """The gradient vanishes at x, by the formulas: to compile a solve in memory for another link would take longer than all else."""
    assert found.success
    ref = naive.Naive(A, b, a=A @ found.x, link=link)
    assert (abs(ref.grad) <= 1e-8 * ref.grad_scale).all()


def test_newton():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((30, 3))
    b = rng.dirichlet(np.ones(30))
    there, here = solve(A, b)
    assert_same(there, here)
    assert there.nit == here.nit
    np.testing.assert_allclose(there.hess, here.hess, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose([row.fun for row in there.history], [row.fun for row in here.history], rtol=1e-8)
    assert there.kernel.startswith("cuda kernels")


class Counts(dict):
    """What the host asks of the GPU: launches, copies, waits and allocations."""

    def __init__(self, monkeypatch):
        super().__init__(launches=0, copies=0, waits=0, allocations=0)
        array, launched = type(cuda.device_array(1)), type(passes.fold_fill)
        for owner, name, what in (
            (launched, "__call__", lambda kernel, *args: "" if kernel._device else "launches"),
            (array, "copy_to_device", lambda *args: "copies"),
            (array, "copy_to_host", lambda *args: "copies"),
            (cuda.stream, "synchronize", lambda *args: "waits"),
            (cuda, "device_array", lambda *args: "allocations"),
            (cuda, "pinned_array", lambda *args: "allocations"),
            (cuda, "to_device", lambda *args: "allocations"),
        ):
            monkeypatch.setattr(owner, name, self.counted(getattr(owner, name), what))

    def counted(self, function, what):
        def call(*args, **kwargs):
            name = what(*args)
            if name:
                self[name] += 1
            return function(*args, **kwargs)

        return call


@only_simulated
def test_what_a_step_asks_of_the_gpu(monkeypatch):
    """A solve of one step more, less a solve: launches from Python take longer than all that a small problem has to do there."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((14, 2))
    b = fastrsx.predict(A, [0.5, -1.0]) + 0.01 * rng.random(14)
    A, b = map(cuda.to_device, (A, b / b.sum()))
    found = []
    for steps in (2, 3):
        with monkeypatch.context() as patch:
            counts = Counts(patch)
            result = fastrsx.newton(A, b, max_iter=steps, tol=1e-14)
        assert result.nit == steps
        assert result.nfev == steps + 1
        found.append(counts)
    assert {name: found[1][name] - found[0][name] for name in found[0]} == {"launches": 6, "copies": 3, "waits": 2, "allocations": 0}
    assert found[0]["launches"] <= 16 + 2 * 6  # 16 at the start and the end


@only_simulated
@pytest.mark.parametrize("given", [{}, {"hessian": "matrix-free"}, {"hessian": "sampled", "sample_rows": 5}], ids=str)
def test_the_next_solve_allocates_nothing(monkeypatch, given):
    """It has the arrays of the last one, b in memory or not; nor do value, gradient and Hessian of a Problem after the first ones."""
    spare.spare().arrays.clear()
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((14, 2)), rng.dirichlet(np.ones(14))
    A_there = cuda.to_device(A)
    expected = fastrsx.newton(A_there, b, max_iter=1, **given)
    x, expected = expected.x, expected.fun
    with monkeypatch.context() as patch:
        counts = Counts(patch)
        found = fastrsx.newton(A_there, b, max_iter=1, **given)
    assert counts["allocations"] == 0
    assert found.x.tobytes() == x.tobytes()
    assert found.fun == expected
    problem = fastrsx.Problem(A_there, b)
    problem.value_grad_hess(x)
    with monkeypatch.context() as patch:
        counts = Counts(patch)
        problem.value_grad_hess(2 * x)
        problem.hess_vec(x, x)
        assert counts["launches"] > 0
        assert counts["allocations"] == 0


@only_simulated
def test_large_arrays_are_not_kept(monkeypatch):
    A, b = cuda.to_device(np.ones((9, 2))), np.full(9, 1 / 9)
    found = spare.spare()
    found.arrays.clear()
    found.bytes = 0
    fastrsx.Problem(A, b)
    kept = found.bytes
    assert kept == sum(array.nbytes for arrays in found.arrays.values() for array in arrays) > 0
    monkeypatch.setattr(spare, "KEPT", kept)
    fastrsx.Problem(A, np.full(9, 0.1))
    assert found.bytes == kept
    fastrsx.Problem(A[:7], np.full(7, 0.1))  # others: those of before go
    assert 0 < found.bytes < kept
    monkeypatch.setattr(spare, "KEPT", 8)
    fastrsx.Problem(A, b)
    assert 0 < found.bytes < kept


LAYOUTS = {
    "in Fortran order": lambda A: cuda.to_device(np.asfortranarray(A)),
    "with strides": lambda A: cuda.to_device(np.repeat(A, 2, axis=1))[:, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_of_any_layout_stays_where_it_is(layout):
    """Results are those in memory; also where A itself is moved, to find its null space."""
    rng = np.random.default_rng(7)
    A, b = rng.standard_normal((20, 2)), rng.dirichlet(np.ones(20))
    A = np.column_stack([A, A[:, 0]])
    there = LAYOUTS[layout](A)
    problem = fastrsx.Problem(there, b)
    assert problem._data.source is there
    assert str(problem.plan).endswith(f"exact Hessian, A read on the GPU ({layout}): A is there")
    here = fastrsx.Problem(A, b, kernel="serial")
    x, p = rng.standard_normal((2, 3))
    for method in ("value", "grad", "hess"):
        np.testing.assert_allclose(getattr(problem, method)(x), getattr(here, method)(x), rtol=TOL, atol=1e-16)
    np.testing.assert_allclose(problem.hess_vec(x, p), here.hess_vec(x, p), rtol=TOL, atol=1e-16)
    np.testing.assert_array_equal(device.to_host("A", there[3:7]), A[3:7])
    found = fastrsx.newton(there, b)
    assert_same(found, fastrsx.newton(A, b, kernel="serial"))
    assert found.x[0] == pytest.approx(found.x[2])


def test_newton_matrix_free():
    rng = np.random.default_rng(2)
    A, b = rng.standard_normal((6, 7)), rng.dirichlet(np.ones(6))
    there, here = solve(A, b, w=0.05, hessian="matrix-free")
    assert_same(there, here, 1e-5)


def test_newton_of_linearly_dependent_columns():
    """The null space is computed, and x has the least norm."""
    rng = np.random.default_rng(3)
    A = rng.standard_normal((20, 2))
    there, here = solve(np.column_stack([A, A[:, 0]]), rng.dirichlet(np.ones(20)))
    assert_same(there, here)
    assert there.x[0] == pytest.approx(there.x[2])


def test_newton_of_nearly_dependent_columns():
    times = np.arange(1971.0, 1991.0)
    A, b = np.vander(times, 3), np.exp(-(((times - 1980) / 4) ** 2))
    b /= b.sum()
    here, there = fastrsx.newton(A, b), fastrsx.newton(cuda.to_device(A), b)
    assert "orthonormal basis" in there.kernel
    assert there.status is here.status
    assert there.fun == pytest.approx(here.fun, rel=1e-9)


def test_newton_searches_the_plane():
    """A start so far away that steps are rejected."""
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((30, 3)), rng.dirichlet(np.full(30, 0.1))
    there, here = solve(A, b, x0=[3.0, -2.0, 1.0], tol=1e-8)
    assert_same(there, here, 1e-4)
    assert there.nfev > there.nit + 1


@pytest.mark.parametrize(
    ("A", "b", "x0", "status"),
    [
        ([[1.0], [0.0], [-1.0]], [0.5, 0.3, 0.2], [0.3], "CONVERGED"),
        ([[1.0], [2.0], [0.0]], None, [0.5], "EXACT_FIT"),
        ([[1.0], [0.0]], [1.0, 0.0], None, "NO_MINIMISER"),
    ],
)
def test_newton_ends_as_in_memory(A, b, x0, status):
    A = np.array(A)
    b = fastrsx.predict(A, [0.25]) if b is None else np.array(b)
    there, here = solve(A, b, x0=x0)
    assert there.status.name == here.status.name == status
    assert there.message == here.message


def test_newton_with_softmax():
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((30, 3)), rng.dirichlet(np.ones(30))
    assert_is_minimum(fastrsx.newton(cuda.to_device(A), b, link="softmax"), A, b, "softmax")


def test_newton_with_a_linear_u():
    rng = np.random.default_rng(5)
    A, b = rng.random((12, 2)), rng.dirichlet(np.ones(12))
    assert_is_minimum(fastrsx.newton(cuda.to_device(A), b, x0=[1.0, 1.0], link="linear"), A, b, "linear")
    no_weights = fastrsx.newton(cuda.to_device(A), b, x0=[1.0, 1.0], link="linear", w=cuda.to_device(np.zeros(12)), max_iter=0)
    assert no_weights.status.name == "MAX_ITER"


def test_newton_from_where_alpha_overflows():
    A, b = np.array([[800.0], [1.0], [-1.0]]), np.array([0.5, 0.3, 0.2])
    there, here = solve(A, b, x0=[1.0], w=0.05, max_iter=1)
    assert there.history[0].alpha == here.history[0].alpha == np.inf
    assert_same(there, here)


def test_columns_of_float32_are_measured_in_float64():
    A = np.array([[1e25], [3e25], [2e25]], dtype=np.float32)
    there, here = fastrsx.Problem(cuda.to_device(A), np.full(3, 1 / 3)), fastrsx.Problem(A, np.full(3, 1 / 3))
    np.testing.assert_allclose(there._column_scale, here._column_scale, rtol=1e-15)


def test_newton_refuses_a_start_outside_the_domain():
    with pytest.raises(ValueError, match="x0 lies outside the domain"):
        fastrsx.newton(cuda.to_device(np.ones((5, 1))), np.full(5, 0.2), x0=cuda.to_device(np.array([-2.0])))


def test_host_arrays_are_copied_once():
    data = random_data(10, 2)
    problem = fastrsx.Problem(data.A, data.b, kernel="cuda")
    assert str(problem.plan).startswith("cuda kernels on GPU 0, ")
    assert str(problem.plan).endswith(", exact Hessian, A copied to the GPU once: kernel='cuda' was asked for")
    assert str(fastrsx.plan(data.A, kernel="cuda")).startswith("cuda kernels on GPU 0, ")
    assert fastrsx.plan(data.A, kernel="cuda").loader == "device copy"
    assert problem.A is data.A
    f = problem.predict(data.x)
    assert type(f) is np.ndarray
    np.testing.assert_allclose(f, fastrsx.predict(data.A, data.x), rtol=TOL)
    again = pickle.loads(pickle.dumps(problem))
    assert again.value(data.x) == problem.value(data.x)


@only_simulated
def test_work_is_done_on_the_gpu_that_holds_a(monkeypatch):
    rng = np.random.default_rng(6)
    A, b = rng.standard_normal((12, 2)), rng.dirichlet(np.ones(12))
    expected = fastrsx.newton(cuda.to_device(A), b)
    gpus = gpu.TwoGpus(monkeypatch)
    A, b_there = cuda.to_device(A), cuda.to_device(b)
    monkeypatch.setattr(device, "index_of", lambda array: 0 if array is b_there else 1)
    gpus.seen.clear()
    found = fastrsx.newton(A, b)
    assert gpus.seen == {1}
    assert gpus.entered == [0]
    assert found.x.tobytes() == expected.x.tobytes()
    assert "on GPU 1, " in found.kernel
    with pytest.raises(ValueError, match="b is on GPU 0, and A on GPU 1"):
        fastrsx.newton(A, b_there)


@only_simulated
def test_each_thread_has_a_stream_of_its_own(monkeypatch):
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(device.stream).result()
    assert device.stream() is device.stream()
    assert other is not device.stream()
    here = device.stream()
    gpus = gpu.TwoGpus(monkeypatch)
    with gpus[1]:
        assert device.stream() is not here
    assert device.stream() is here


def test_vectors_come_out_where_a_is():
    _, there, data = problems()
    here = fastrsx.Problem(data.A, data.b, w=data.w)
    x, p = cuda.to_device(data.x), data.p
    f, factors = there.predict(x), there.factors(x)
    assert not isinstance(f, np.ndarray)
    assert not isinstance(factors.D, np.ndarray)
    expected = here.factors(data.x)
    np.testing.assert_allclose(f.copy_to_host(), here.predict(data.x), rtol=TOL)
    np.testing.assert_allclose(factors.D.copy_to_host(), expected.D, rtol=TOL)
    np.testing.assert_allclose(factors.matvec(p), expected.matvec(p), rtol=TOL)
    np.testing.assert_allclose(factors.to_dense(), expected.to_dense(), rtol=TOL)


def test_outside_the_domain_there_is_nothing():
    there = fastrsx.Problem(cuda.to_device(np.ones((5, 2))), np.full(5, 0.2))
    x = [-2.0, -2.0]
    assert there.value(x) == np.inf
    assert np.isnan(there.grad(x)).all()
    assert (there.hess(x) == 0).all()
    assert (there.factors(x).D.copy_to_host() == 0).all()
    assert np.isnan(there.predict(x).copy_to_host()).all()


def test_a_link_of_the_users_own():
    rng = np.random.default_rng(3)
    A, b = rng.standard_normal((12, 2)), rng.dirichlet(np.ones(12))
    there = fastrsx.newton(cuda.to_device(A), b, link=softplus.LINK)
    assert there.success
    here = fastrsx.Problem(A, b, link=softplus.LINK, kernel="serial")
    np.testing.assert_allclose(there.fun, here.value(there.x), rtol=1e-12)
    np.testing.assert_allclose(here.grad(there.x), 0.0, atol=1e-10 * abs(here.grad(np.zeros(2))).max())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A": np.ones((4, 2), dtype=np.int64)}, TypeError, "A has dtype int64 on the GPU; pass float64, float32, float16 or bfloat16"),
        ({"A": np.ones(4)}, ValueError, r"A has shape \(4,\); it must have 2 axes"),
        ({"A": np.array([[1.0, 2.0], [1.0, np.nan], [0.0, 0.0], [0.0, 0.0]])}, ValueError, r"A\[1, 1\] is nan \(1 such in column 1\)"),
        ({"b": np.ones(3)}, ValueError, "b has 3 entries; it must have 4"),
        ({"b": np.array([0.0, np.inf, 0.0, 0.0])}, ValueError, r"b\[1\] is inf"),
        ({"w": np.array([0.0, -1.0, 0.0, 0.0])}, ValueError, r"w\[1\] is -1.0; weights enter squared"),
        ({"link": "probit"}, ValueError, "link is 'probit'"),
        ({"kernel": "parallel"}, ValueError, "kernel is 'parallel', and A is on a GPU"),
    ],
)
def test_bad_input_is_named(change, error, message):
    given = {"A": np.ones((4, 2)), "b": np.full(4, 0.25), "w": np.zeros(4)} | change
    arrays = {name: cuda.to_device(value) if isinstance(value, np.ndarray) else value for name, value in given.items()}
    with pytest.raises(error, match=message):
        fastrsx.Problem(**arrays)


def test_vectors_are_contiguous():
    with pytest.raises(ValueError, match=r"b is on the GPU, but not contiguous; pass cupy.ascontiguousarray\(b\)"):
        fastrsx.Problem(cuda.to_device(np.ones((4, 2))), cuda.to_device(np.full(8, 0.25))[::2])


@only_simulated
@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.ones((4, 2))[::-1], "its rows or columns are repeated or in reverse order"),
        (np.broadcast_to(np.ones(2), (4, 2)), "its rows or columns are repeated or in reverse order"),
        (np.zeros(4, [("note", "i4"), ("row", "f8", 2)])["row"], "its numbers do not begin on multiples of their size"),
    ],
)
def test_layouts_that_no_kernel_reads(A, message):
    with pytest.raises(ValueError, match=f"A is on the GPU, but {message}; pass cupy.ascontiguousarray"):
        device.as_matrix(type(cuda.to_device(np.ones(1)))(A))


@pytest.mark.parametrize(
    ("hessian", "precision", "message"),
    [("reduced", "double", "dense A in memory"), ("exact", "mixed", "dense A in memory")],
)
def test_what_needs_a_in_memory_says_so(hessian, precision, message):
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(cuda.to_device(np.ones((4, 5))), np.full(4, 0.25), hessian=hessian, precision=precision)


@pytest.mark.parametrize(
    "call",
    [
        lambda A, b: fastrsx.curvature(A, b, [0.0, 0.0]),
        lambda A, b: fastrsx.lipschitz_bounds(A, b, radius=1.0, beta=1.0),
        lambda A, b: fastrsx.convergence(A, b),
        lambda A, b: fastrsx.newton_batch([A], [b]),
        lambda A, b: fastrsx.psd_weights(A, b, [0.0, 0.0]),
        lambda A, b: fastrsx.Problem(np.ones((4, 2)), b),
        lambda A, b: fastrsx.newton(np.ones((4, 2)), np.ones(4), x0=A),
    ],
)
def test_what_runs_in_memory_says_so(call):
    with pytest.raises((TypeError, ValueError), match=r"is on a GPU|x0 has shape"):
        call(cuda.to_device(np.ones((4, 2))), cuda.to_device(np.full(4, 0.25)))


def test_checkpoints_know_the_problem(tmp_path):
    A, b = np.ones((4, 1)), np.full(4, 0.25)
    assert fastrsx.Checkpoint(tmp_path / "x", *map(cuda.to_device, (A, b))).key == fastrsx.Checkpoint(tmp_path / "x", A, b).key


def test_no_pickles_of_arrays_on_the_gpu():
    problem = fastrsx.Problem(cuda.to_device(np.ones((4, 1))), np.full(4, 0.25))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(problem)
