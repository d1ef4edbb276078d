"""The dense kernels against the naive references, and their other guarantees."""

import importlib
import itertools
import pkgutil
from contextlib import contextmanager
from typing import NamedTuple

import numba
import numpy as np
import pytest
from numba import njit
from numba.core.dispatcher import Dispatcher

import fastrsx
import naive
from fastrsx import kernels
from fastrsx.kernels import dense
from fastrsx.kernels.cpu import blocks, rows
from fastrsx.kernels.layouts.panel import ROWS
from formulas import KERNELS, Data, assert_within, check_results, output_shapes, random_data

SHAPES = [(1, 1), (7, 3), (64, 1), (63, 8), (65, 8), (100, 13), (333, 5), (1000, 17), (2000, 64), (700, 129)]
TWINS = ["serial", "parallel"]


class Output(NamedTuple):
    fun: float
    arrays: dict[str, np.ndarray]
    a: np.ndarray


def call(kernel, twin, data):
    """Run a kernel in a fresh workspace; its outputs, which it must fill, start as -7."""
    n, d = data.A.shape
    outputs = {name: np.full(shape, -7.0) for name, shape in output_shapes(kernel, n, d).items()}
    wide = d > rows.BY_STRIPS and kernel == "value_grad_hess"
    work = dense.alloc_wide_workspace(n, d) if wide else dense.alloc_workspace(n, d, kernel == "value_grad_hess")
    direction = [data.p] if kernel == "hess_vec" else []
    function = getattr(dense, kernel + ("_serial" if twin == "serial" else ""))
    fun = function(data.A, data.x, data.b, data.w, *direction, *outputs.values(), work)
    return Output(fun, outputs, work.a)


def assert_same_bits(found, expected):
    assert found.fun == expected.fun
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)
    np.testing.assert_array_equal(found.a, expected.a, err_msg="a")


# -- numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_kernels_match_the_formulas(n, d, weighted):
    check_formulas(random_data(n, d, weighted))


def test_kernels_match_the_formulas_near_the_pole():
    """Most of alpha cancels there, and f has entries of both signs."""
    rng = np.random.default_rng(0)
    A = np.column_stack([np.ones(500), rng.standard_normal((500, 2))])
    kappa = check_formulas(Data.of(A, [-0.545, 0.1, -0.05], rng.random(500) / 250, rng.random(500)))
    assert 30 < kappa < 100


def check_formulas(data):
    """Check the numbers of the serial kernels, and that the parallel ones have the same bits; returns kappa."""
    results = {kernel: call(kernel, "serial", data) for kernel in KERNELS}
    for kernel, result in results.items():
        assert_same_bits(call(kernel, "parallel", data), result)
    return check_results(data, results)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("misfit", [1e-1, 1e-2, 1.1e-3, 0.9e-3, 1e-5, 1e-9], ids=str)
def test_gradient_near_an_exact_fit(misfit, twin):
    """Below ||c|| = 1e-3 ||f|| the gradient comes from the pass that forms c; far above, from one read."""
    data = random_data(1000, 17)
    f = naive.Naive(data.A, data.b, data.x).f
    off = np.random.default_rng(0).standard_normal(1000)
    data = Data.of(data.A, data.x, f + misfit * np.linalg.norm(f) * off / np.linalg.norm(off))
    result = call("value_grad", twin, data)
    ref = naive.Naive(data.A, data.b, a=result.a)
    assert_within(result.arrays["grad"], ref.grad, ref.grad_split_scale, 2e-15 * float(ref.kappa) * np.sqrt(1000))
    from_c = call("value_grad_hess", twin, data).arrays["grad"]
    if misfit < rows.NEAR_FIT or misfit > 30 * rows.NEAR_FIT:  # between, it depends on how well the first rows foretell alpha
        assert np.array_equal(result.arrays["grad"], from_c) == (misfit < rows.NEAR_FIT)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_weighted_gram(n, d, twin):
    data = random_data(n, d)
    h = np.random.default_rng(1).standard_normal(n)
    out = np.full((d, d), -7.0)
    getattr(dense, "weighted_gram" + ("_serial" if twin == "serial" else ""))(data.A, h, out, dense.alloc_workspace(n, d, True))
    A = data.A.astype(np.longdouble)
    np.testing.assert_array_equal(out, out.T)
    assert_within(out, A.T @ (h[:, None] * A), abs(A).T @ (abs(h)[:, None] * abs(A)), 1e-15 * np.sqrt(n))


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("n", "d"), [(1100, 1025), (70, 1040)])
def test_large_d_by_strips(n, d, twin):
    """One Gram matrix for all blocks; more rows than one round of panels, and fewer than one panel."""
    data = random_data(n, d, weighted=True)
    result = call("value_grad_hess", twin, data)
    ref = naive.Naive(data.A, data.b, w=data.w, a=result.a)
    D = (ref.D + ref.w**2 / 2).astype(float)  # the products in double: longdouble would take seconds
    hess = 2 * (data.A.T @ (D[:, None] * data.A) - sum(np.outer(*ref.V[order].astype(float)) for order in ([0, 1], [1, 0])))
    np.testing.assert_allclose(result.arrays["hess"], hess, rtol=0, atol=1e-13 * abs(hess).max())
    assert_within(result.arrays["grad"], ref.grad, ref.grad_scale, 2e-15 * float(ref.kappa) * np.sqrt(n))
    work, out = dense.alloc_wide_workspace(n, d), np.empty((d, d))
    getattr(dense, "weighted_gram" + ("_serial" if twin == "serial" else ""))(data.A, D, out, work)
    np.testing.assert_allclose(out, data.A.T @ (D[:, None] * data.A), rtol=0, atol=1e-13 * abs(out).max())


def test_large_d_has_the_same_bits_on_any_number_of_threads():
    data = random_data(1100, 1025)
    assert_same_bits(call("value_grad_hess", "parallel", data), call("value_grad_hess", "serial", data))


def test_gradient_matches_five_point_differences():
    data = random_data(40, 6, weighted=True)
    differences = naive.five_point_gradient(lambda x: naive.Naive(data.A, data.b, x, w=data.w).value, data.x, 1e-3)
    grad = call("value_grad", "serial", data).arrays["grad"]
    np.testing.assert_allclose(grad, differences.astype(float), rtol=0, atol=1e-9 * abs(grad).max())


def test_hessian_matches_five_point_differences():
    data = random_data(40, 6, weighted=True)
    differences = naive.five_point_gradient(lambda x: call("value_grad", "serial", data._replace(x=x)).arrays["grad"], data.x, 1e-3)
    hess = call("value_grad_hess", "serial", data).arrays["hess"]
    np.testing.assert_allclose(hess, differences, rtol=0, atol=1e-9 * abs(hess).max())


# -- identical bits ---------------------------------------------------------------------------------------------


@contextmanager
def threads(count):
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@pytest.fixture(scope="module", params=[(20000, 13), (5000, 64)], ids=["20000x13", "5000x64"])
def large(request):
    data = random_data(*request.param, weighted=True)
    return data, {kernel: call(kernel, "serial", data) for kernel in KERNELS}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_same_bits_on_any_number_of_threads(large, kernel, count):
    if count > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"Numba has {numba.config.NUMBA_NUM_THREADS} thread")
    data, serial = large
    with threads(count):
        assert_same_bits(call(kernel, "parallel", data), serial[kernel])


# -- huge a -------------------------------------------------------------------------------------------------------


def check_against_mpmath(data, tol=1e-12):
    """Value, gradient and f; filterwarnings turns any warning into an error."""
    w = data.w if data.w.size else None
    result = call("value_grad_hess", "serial", data)
    assert_same_bits(call("value_grad_hess", "parallel", data), result)
    ref = naive.exact(data.A, data.b, result.a, w)
    assert_within(result.fun, ref.value, ref.value_scale, tol)
    assert_within(result.arrays["grad"], ref.grad, ref.grad_scale, tol)
    assert np.isfinite(result.arrays["hess"]).all()
    for twin in TWINS:
        f = fastrsx.Problem(data.A, data.b, w=w, kernel=twin).predict(data.x)
        assert_within(f, ref.f, ref.f_scale + 1e-290, tol)  # values below 1e-307 may be flushed to 0
        assert f.sum() == pytest.approx(1, abs=tol)


@pytest.mark.parametrize("top", [1e2, 700, 720, 1e4])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_entries_up_to_10_with_a_up_to(top, weighted):
    rng = np.random.default_rng(0)
    A = np.column_stack([rng.choice([-10, -9, 0, 9, 10], 300), rng.standard_normal((300, 3))])
    x = [top / 10, 0.5, -1.0, 2.0]
    check_against_mpmath(Data.of(A, x, rng.random(300) / 150, 1e-4 * rng.random(300) if weighted else None))


@pytest.mark.parametrize("order", ["falling", "rising", "mixed"])
@pytest.mark.parametrize("top", [1e300, 1.7e308])
def test_a_of_both_signs_up_to_the_largest_double(top, order):
    """Whole panels and blocks of rows whose sum overflows must leave no trace if the maximum comes later."""
    sign = np.repeat([1.0, 0.0, -1.0], [520, 50, 330])
    sign = {"falling": sign, "rising": sign[::-1], "mixed": np.random.default_rng(0).permutation(sign)}[order]
    data = Data.of(np.column_stack([sign, np.cos(np.arange(900))]), [top, 0.5])
    check_against_mpmath(data)
    assert call("value", "serial", data).a.max() == top
    assert call("value", "serial", data).a.min() == -top


def test_one_largest_row_takes_all():
    A = np.zeros((700, 2))
    A[333] = 1, 1
    A[:, 1] += np.linspace(-1, 1, 700)
    data = Data.of(A, [1e300, 1.0])
    f = fastrsx.Problem(data.A, data.b).predict(data.x)
    np.testing.assert_array_equal(f, np.arange(700) == 333)
    assert call("value", "serial", data).fun == pytest.approx(((f - data.b) ** 2).sum(), rel=1e-14)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("x", [-1.0, -750.0, -1e4, -1e300, np.nan, np.inf])
def test_outside_the_domain_the_value_is_inf_and_derivatives_are_nan(x, twin):
    data = Data.of(np.random.default_rng(0).uniform(0.9, 1.0, (500, 1)), [x])
    for kernel in KERNELS:
        result = call(kernel, twin, data)
        assert result.fun == np.inf
        for array in result.arrays.values():
            assert np.isnan(array).all()


@pytest.mark.parametrize("levels", [(0, 700, 1e4), (0, 3, 5), (690, 700, 712), (-1e4, 0, 20), (0, 20, 36)], ids=str)
@pytest.mark.parametrize("order", [*itertools.permutations(range(3)), "shuffled"], ids=str)
def test_blocks_with_different_maxima_combine(levels, order):
    rng = np.random.default_rng(0)
    rows = 4 * ROWS
    n = 3 * rows
    assert blocks.block_count(n, 2) == 3
    level = np.repeat(levels if order == "shuffled" else [levels[i] for i in order], rows)
    if order == "shuffled":
        level = rng.permutation(level)
    data = Data.of(np.column_stack([level, rng.uniform(-1, 1, n)]), [1.0, 1.5], rng.random(n) / n)
    result = call("value_grad", "serial", data)
    ref = naive.exact(data.A, data.b, result.a)
    assert_within(result.fun, ref.value, ref.value_scale, 1e-12)
    assert_within(result.arrays["grad"], ref.grad, ref.grad_scale, 1e-12)


# -- rows -----------------------------------------------------------------------------------------------------


def test_permuting_rows_permutes_f():
    data = random_data(1000, 5)
    permutation = np.random.default_rng(1).permutation(1000)
    f = fastrsx.Problem(data.A, data.b).predict(data.x)
    permuted = fastrsx.Problem(data.A[permutation], data.b[permutation])
    np.testing.assert_allclose(permuted.predict(data.x), f[permutation], rtol=1e-13)
    assert permuted.value(data.x) == pytest.approx(fastrsx.Problem(data.A, data.b).value(data.x), rel=1e-13)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_row_of_zeros_counts(rows):
    """Its u is 1, unlike the u of padding inside the kernels."""
    data = random_data(101, 3)
    f = fastrsx.Problem(data.A, data.b).predict(data.x)
    longer = fastrsx.Problem(np.vstack([data.A, np.zeros((rows, 3))]), np.zeros(101 + rows)).predict(data.x)
    alpha = float(naive.Naive(data.A, data.b, data.x).alpha)
    np.testing.assert_allclose(longer[:101], f * alpha / (alpha + rows), rtol=1e-13)
    np.testing.assert_allclose(longer[101:], 1 / (alpha + rows), rtol=1e-13)


# -- promises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_are_unchanged(kernel, twin):
    data = random_data(333, 5, weighted=True)
    before = data.copies()
    call(kernel, twin, data)
    for array, copy in zip(data, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_used_workspace_gives_the_same_bits():
    """No value of the last call, not even NaN, is left in the workspace."""
    data = random_data(333, 5, weighted=True)
    expected = call("value_grad_hess", "serial", data)
    work = dense.alloc_workspace(333, 5, True)
    grad, hess = np.empty(5), np.empty((5, 5))
    for x in (np.full(5, np.nan), np.full(5, 1e200), -data.x, data.x):
        fun = dense.value_grad_hess_serial(data.A, x, data.b, data.w, grad, hess, work)
    assert fun == expected.fun
    np.testing.assert_array_equal(grad, expected.arrays["grad"])
    np.testing.assert_array_equal(hess, expected.arrays["hess"])


@njit
def descend(A, b, w, x, rate, steps):
    """A user's own solver."""
    work = dense.alloc_workspace(A.shape[0], A.shape[1], False)
    grad = np.empty(A.shape[1])
    for _ in range(steps):
        dense.value_grad(A, x, b, w, grad, work)
        x = x - rate * grad
    return dense.value_serial(A, x, b, w, work), x


def test_kernels_can_be_called_from_jitted_code():
    data = random_data(100, 3)
    fun, x = descend(data.A, data.b, data.w, data.x, 0.5, 3)
    problem = fastrsx.Problem(data.A, data.b, kernel="serial")
    expected = data.x
    for _ in range(3):
        expected = expected - 0.5 * problem.grad(expected)
    np.testing.assert_array_equal(x, expected)
    assert fun == problem.value(expected)
    assert fun < problem.value(data.x)


def test_every_kernel_releases_the_gil_and_keeps_ieee_arithmetic():
    names = [module.name for module in pkgutil.walk_packages(kernels.__path__, "fastrsx.kernels.")]
    modules = [importlib.import_module(name) for name in names if not name.startswith(("fastrsx.kernels.cuda", "fastrsx.kernels.gpu"))]
    compiled = {f"{module.__name__}.{name}": kernel for module in modules for name, kernel in vars(module).items() if isinstance(kernel, Dispatcher)}
    assert {f"fastrsx.kernels.dense.{kernel}" for kernel in KERNELS} < compiled.keys()
    assert [name for name, kernel in compiled.items() if not kernel.targetoptions.get("nogil")] == []
    assert [name for name, kernel in compiled.items() if kernel.targetoptions.get("fastmath")] == []
