"""The GPU kernels, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU, against the formulas, as in test_kernels.py."""

import math

import numpy as np
import pytest
from extensions import softplus

import fastrsx
import gpu
import naive
from fastrsx.kernels import dense
from fastrsx.kernels.cpu import rows
from fastrsx.kernels.exp import exp
from fastrsx.kernels.formulas.links import LINKS
from fastrsx.kernels.formulas.records import R
from formulas import KERNELS, Data, assert_within, check_results, output_shapes, random_data

kernels = gpu.kernels()
from fastrsx.kernels.gpu import loop, passes  # noqa: E402  the simulator comes first

cuda, THREADS, TILE, WIDEST = kernels.cuda, passes.THREADS, passes.TILE, passes.WIDEST

TOL = 1e-12


def cosh(a, M):
    """cosh(a) and its derivatives, times exp(-M), in registers."""
    up, down = 0.5 * exp(a - M), 0.5 * exp(-a - M)
    return up + down, up - down, up + down


COSH = fastrsx.Link(cosh, growth=lambda a: abs(a))
# Fewer rows than threads; more than one block; as many columns as threads, and more; tiles below the diagonal.
SHAPES = [(1, 1), (3, 2), (2 * THREADS + 1, 5), (THREADS, THREADS), (5, TILE + 1), (3, 2 * TILE + 3), (7, WIDEST + 3)]


class Output:
    def __init__(self, fun, arrays, work):
        self.fun = fun
        self.arrays = {name: array.copy_to_host() for name, array in arrays.items()}
        self.a = work.a.copy_to_host()


def call(kernel, data, link="rsx"):
    """Run a kernel in a fresh workspace; its outputs, which it must fill, start as -7."""
    n, d = data.A.shape
    A, x, b, w, p = map(cuda.to_device, data)
    outputs = {name: cuda.to_device(np.full(shape, -7.0)) for name, shape in output_shapes(kernel, n, d).items()}
    work = kernels.alloc_workspace(n, d, kernel == "value_grad_hess", LINKS[link] if isinstance(link, str) else link)
    direction = [p] if kernel == "hess_vec" else []
    fun = getattr(kernels, kernel)(A, x, b, w, *direction, *outputs.values(), work)
    return Output(fun, outputs, work)


@pytest.mark.parametrize(("n", "d", "weighted"), [*((*shape, True) for shape in SHAPES), *((*shape, False) for shape in SHAPES[1:4])])
def test_kernels_match_the_formulas(n, d, weighted):
    data = random_data(n, d, weighted)
    check_results(data, {kernel: call(kernel, data) for kernel in KERNELS}, TOL)


@pytest.mark.parametrize("link", [softplus.LINK, COSH], ids=["numbers", "registers"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_a_link_of_the_users_own(link, weighted):
    """The same source as on the CPU, written for numbers or for registers."""
    data = random_data(2 * THREADS + 1, 5, weighted)
    work = dense.alloc_workspace(*data.A.shape, True, link.compiled)
    for kernel in KERNELS:
        outputs = {name: np.empty(shape) for name, shape in output_shapes(kernel, *data.A.shape).items()}
        direction = [data.p] if kernel == "hess_vec" else []
        fun = getattr(dense, f"{kernel}_serial")(data.A, data.x, data.b, data.w, *direction, *outputs.values(), work)
        found = call(kernel, data, link.compiled)
        assert found.fun == pytest.approx(fun, rel=1e-12)
        for name, expected in outputs.items():
            np.testing.assert_allclose(found.arrays[name], expected, rtol=1e-11, atol=1e-12 * np.abs(expected).max())


def test_shapes_take_both_passes():
    assert min(d for _, d in SHAPES) < WIDEST < max(d for _, d in SHAPES)
    assert max(d for _, d in SHAPES) > TILE


def test_rows_that_do_not_fill_the_blocks():
    """The last block, and the second half of the only one, have no rows."""
    assert passes.block_count(THREADS + 1, 3) > 1
    assert passes.block_count(1, 3) == 1
    data = random_data(THREADS + 1, 3)
    check_results(data, {kernel: call(kernel, data) for kernel in KERNELS}, TOL)


def test_float32_is_widened():
    """The same result as for the same numbers in float64, but for the order of sums: a load takes twice as many of them."""
    single = Data(*(array.astype(np.float32) for array in random_data(20, 6, weighted=True)))
    double = Data.of(*single)
    found = {kernel: call(kernel, single) for kernel in KERNELS}
    check_results(double, found, TOL)
    for kernel in KERNELS:
        expected = call(kernel, double)
        assert found[kernel].fun == pytest.approx(expected.fun, rel=TOL)
        for name, array in expected.arrays.items():
            np.testing.assert_allclose(found[kernel].arrays[name], array, rtol=TOL, atol=TOL * np.abs(array).max())


@pytest.mark.parametrize(("name", "d"), [("float16", 6), ("float16", 8), ("bfloat16", 8), ("bfloat16", 5), ("float16", 36)])
def test_numbers_of_16_bits_are_widened(name, d):
    """The same results as for the same numbers in float64; loads of pairs, and of single numbers."""
    data = random_data(20, d, weighted=True)
    half = data.A.astype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    data = data._replace(A=half.astype(np.float64))
    check_results(data, {kernel: call(kernel, data._replace(A=half)) for kernel in KERNELS}, TOL)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_gram_without_tensor_cores_of_numbers_of_16_bits(name, monkeypatch):
    monkeypatch.setattr(passes.tensor_gram, "has_tensor_cores", lambda: False)
    half = random_data(9, TILE + 2).A.astype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    A, h, out = half.astype(np.longdouble), np.linspace(-1.0, 1.0, 9), cuda.device_array((TILE + 2,) * 2)
    kernels.weighted_gram(cuda.to_device(half), cuda.to_device(h), out, kernels.alloc_workspace(*half.shape, True))
    assert_within(out.copy_to_host(), A.T @ (h[:, None] * A), abs(A).T @ (abs(h)[:, None] * abs(A)), TOL)


@pytest.mark.parametrize("link", ["softmax", "linear"])
def test_links(link):
    data = random_data(21, 4)
    found = call("value_grad_hess", data, link)
    ref = naive.Naive(data.A, data.b, a=found.a, link=link)
    tol = TOL * float(ref.kappa)
    assert_within(found.fun, ref.value, ref.value_scale, tol)
    assert_within(found.arrays["grad"], ref.grad, ref.grad_scale, tol)
    assert_within(found.arrays["hess"], ref.hess, ref.hess_scale, tol)
    assert_within(call("value_grad", data, link).arrays["grad"], ref.grad, ref.grad_split_scale, tol)


@pytest.mark.parametrize("size", [30.0, 800.0, 1e4])
def test_large_a(size):
    """Nothing overflows, in any order of large and small rows."""
    rng = np.random.default_rng(0)
    data = Data.of(rng.standard_normal((2 * THREADS + 3, 3)), rng.standard_normal(3), rng.random(2 * THREADS + 3) / 35)
    data = data._replace(x=data.x * size / np.abs(data.A @ data.x).max())
    found = call("value_grad", data)
    expected = naive.exact(data.A, data.b, found.a)
    assert found.fun == pytest.approx(expected.value, rel=TOL, abs=TOL * expected.value_scale)
    assert_within(found.arrays["grad"], expected.grad, expected.grad_scale, TOL * size)


@pytest.mark.parametrize("shift", [-800.0, 800.0])
def test_softmax_of_a_far_from_0(shift):
    """exp(-M), which would overflow, is not used."""
    data = random_data(2 * THREADS, 3)
    A = np.column_stack([data.A[:, :2], np.ones(2 * THREADS)])
    near, far = (call("value_grad_hess", Data.of(A, [0.5, -0.25, x], data.b), "softmax") for x in (0.0, shift))
    assert far.fun == pytest.approx(near.fun, rel=1e-11)
    np.testing.assert_allclose(far.arrays["hess"], near.arrays["hess"], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("misfit", [1e-2, 1e-5])
def test_gradient_near_an_exact_fit(misfit):
    """Below ||c|| = 1e-3 ||f|| the gradient comes from the pass that forms c."""
    data = random_data(40, 3)
    f = naive.Naive(data.A, data.b, data.x).f
    off = np.random.default_rng(0).standard_normal(40)
    data = Data.of(data.A, data.x, f + misfit * np.linalg.norm(f) * off / np.linalg.norm(off))
    result = call("value_grad", data)
    A, x, b, w, _ = map(cuda.to_device, data)
    work = kernels.alloc_workspace(*A.shape, False)
    passes.project(A, x, b, w, work)
    passes.gradient(A, work.a, b, w, work.point, work.h, work)
    from_c = work.combined.copy_to_host()[R]
    assert np.array_equal(result.arrays["grad"], from_c) == (misfit < rows.NEAR_FIT)
    ref = naive.Naive(data.A, data.b, a=result.a)
    assert_within(result.arrays["grad"], ref.grad, ref.grad_split_scale, 1e-14 * float(ref.kappa))


@pytest.mark.parametrize("kernel", KERNELS)
def test_outside_the_domain_there_is_nothing(kernel):
    data = Data.of(np.ones((5, 2)), [-2.0, -2.0])
    result = call(kernel, data)
    assert result.fun == math.inf
    for array in result.arrays.values():
        assert np.isnan(array).all()


def test_a_stream_of_the_callers():
    data = random_data(THREADS + 1, 3)
    A, x, b, w, _ = map(cuda.to_device, data)
    work = kernels.alloc_workspace(*A.shape, True, stream=cuda.stream())
    grad, hess = cuda.device_array(3), cuda.device_array((3, 3))
    fun = kernels.value_grad_hess(A, x, b, w, grad, hess, work)
    work.stream.synchronize()
    expected = call("value_grad_hess", data)
    assert fun == expected.fun
    np.testing.assert_array_equal(hess.copy_to_host(), expected.arrays["hess"])


def test_the_same_bits_every_time():
    data = random_data(3 * THREADS, 4, weighted=True)
    for kernel in ("value_grad_hess", "hess_vec"):
        one, two = call(kernel, data), call(kernel, data)
        assert one.fun == two.fun
        for name, array in one.arrays.items():
            np.testing.assert_array_equal(two.arrays[name], array)


@pytest.fixture(params=[True, False], ids=["tensor cores", "no tensor cores"])
def with_tensor_cores(request, monkeypatch):
    """Kernels with tensor cores, where the GPU has them, and those without."""
    if not request.param:
        monkeypatch.setattr(passes.tensor_gram, "has_tensor_cores", lambda: False)


@pytest.mark.usefixtures("with_tensor_cores")
def test_a_step_forms_the_same_hessian_and_gradient():
    """`loop.derivatives` has what `value_grad_hess` has, and leaves out the term of rank 2."""
    n, d = 3 * THREADS, TILE + 1
    data = random_data(n, d, weighted=True)
    A, x, b, w, _ = map(cuda.to_device, data)
    work, hess, gram = kernels.alloc_workspace(n, d, True), cuda.device_array((d, d)), cuda.device_array((d, d))
    kernels.value_grad_hess(A, x, b, w, cuda.device_array(d), hess, work)
    ref = naive.Naive(data.A, data.b, w=data.w, a=work.a.copy_to_host())
    assert_within(hess.copy_to_host(), ref.hess, ref.hess_scale, TOL * float(ref.kappa))
    expected = work.combined.copy_to_host()[:3]
    work.combined.copy_to_device(np.full(work.combined.shape, np.nan))
    loop.derivatives(A, work.a, b, w, gram, work)
    v, q, r = work.combined.copy_to_host()[:3]
    np.testing.assert_allclose((v, q, r), expected, rtol=1e-13)
    np.testing.assert_allclose(gram.copy_to_host() - 2.0 * (np.outer(v, q) + np.outer(q, v)), hess.copy_to_host(), rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("with_tensor_cores")
@pytest.mark.parametrize(("n", "d"), [(40, 3), (7, TILE + 2)])
def test_weighted_gram(n, d):
    data = random_data(n, d)
    h = np.random.default_rng(1).standard_normal(n)
    out = cuda.to_device(np.full((d, d), -7.0))
    kernels.weighted_gram(cuda.to_device(data.A), cuda.to_device(h), out, kernels.alloc_workspace(n, d, True))
    A = data.A.astype(np.longdouble)
    assert_within(out.copy_to_host(), A.T @ (h[:, None] * A), abs(A).T @ (abs(h)[:, None] * abs(A)), TOL)
