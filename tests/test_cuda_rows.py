"""How warps share rows of A: their routines lane by lane with 32 lanes, and the passes over any layout of A, in the simulator or on a GPU."""

import numpy as np
import pytest
from numba import config

import gpu
from formulas import random_data

kernels = gpu.kernels()
from fastrsx.kernels.formulas import links, records  # noqa: E402  the simulator comes first
from fastrsx.kernels.gpu import block, halves, passes, ptx, reduction, rows, share  # noqa: E402

cuda, LANE = kernels.cuda, np.arange(32)


class Lanes:
    """The operations of `ptx`, each of NumPy's arrays with an entry for each of 32 lanes."""

    multiply, add, larger, absolute, least = np.multiply, np.add, np.maximum, np.abs, np.minimum
    fma = staticmethod(lambda x, y, z: x * y + z)
    pick = staticmethod(np.where)
    has_bit = staticmethod(lambda lane, bit: lane & bit != 0)
    is_positive = staticmethod(lambda x: x > 0)
    is_below = staticmethod(np.less)
    within = staticmethod(lambda i, stop: np.where(i < stop, i, 0))
    offset = staticmethod(np.add)
    swapped = staticmethod(lambda x, bit: x[LANE ^ bit])
    taken = staticmethod(lambda x, lane, width: x[LANE // width * width + lane])
    entry = staticmethod(lambda array, i: array[i].astype(np.float64))

    @staticmethod
    def widened(x, number, count):
        return halves.unpaired(x, number, count) if number in halves.HALVES else [x.astype(np.float64)]

    @staticmethod
    def words(A, base, row, column, count):
        found = [A[base + row, column + e] for e in range(count)]
        return found if A.itemsize > 2 else [halves.paired(x, y) for x, y in zip(found[::2], found[1::2] or found, strict=True)]

    @staticmethod
    def store(flag, array, places, values):
        i, x = np.array(places)[:, flag].ravel(), np.array(values)[:, flag].ravel()
        assert len(np.unique(i)) == len(i), "a place is written twice"
        array[i] = x


# Numbers of A, of a load, columns, and whether they lie one after another.
CASES = [
    *(("<f8", 2, d, False) for d in (2, 4, 6, 16, 50, 64, 66, 256, 512)),
    *(("<f8", 1, d, False) for d in (1, 3, 7, 33, 65, 511)),
    *(("<f4", 4, d, False) for d in (4, 16, 64, 100, 512)),
    *(("<f4", 2, d, False) for d in (2, 10, 130)),
    *(("<f8", 1, d, True) for d in (1, 5, 17, 64, 129, 512)),
    *(("<f2", 8, d, False) for d in (8, 64, 136, 256, 512)),
    *(("<f2", 1, d, is_down) for d in (1, 65) for is_down in (False, True)),
    *(("bfloat16", vector, d, False) for vector, d in ((8, 16), (4, 132), (2, 34), (1, 7))),
]


def dtype_of(number):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if number == "bfloat16" else number)


@pytest.mark.parametrize("missing", [0, 1, 5])
@pytest.mark.parametrize(("number", "vector", "d", "by_columns"), CASES)
def test_lanes(number, vector, d, by_columns, missing):
    """Of a step of rows, some of which are beyond the last one: all lanes together form A x and A^T y, and nothing else is read."""
    rng, each = np.random.default_rng(d), share.share_for(number, vector, d, by_columns, warp=32)
    base, count = 3, max(1, each.step - missing)
    A = rng.standard_normal((base + count, d)).astype(dtype_of(number))
    x, y = rng.standard_normal(d), rng.standard_normal((2, each.step))
    y[:, count:] = 0.0
    do = share.routines(each, (share.SUM, share.SUM))
    group, column = LANE // each.lanes, LANE % each.lanes * each.vector
    held, xs, partial, found = [None] * each.held, [None] * each.columns, [np.zeros(32)] * each.rows, [None] * each.products
    do.fetch(Lanes, held, A, base, group, count - 1, column, d)
    assert {part.dtype for part in held} == {np.dtype(each.cell)}
    do.take(Lanes, xs, x, column, d)
    do.dot(Lanes, partial, held, xs)
    do.gather(Lanes, found, partial, LANE)
    first = np.array([share.first_slot(lane, each.rows, each.lanes) for lane in LANE]) * each.groups + group
    seen, weights = np.zeros(each.step, int), [None] * (2 * each.products)
    for k in range(each.products):
        row = first + k * each.groups
        np.testing.assert_allclose(found[k], (A[base + np.minimum(row, count - 1)].astype(float) @ x), rtol=1e-12, atol=1e-13)
        np.add.at(seen, row[LANE % each.copies == 0], 1)
        weights[k], weights[each.products + k] = y[:, row]
    np.testing.assert_array_equal(seen, 1)
    sums = [np.zeros(32)] * (2 * each.columns)
    do.accumulate(Lanes, sums, held, weights)
    do.scale(Lanes, sums, [np.full(32, 2.0), np.zeros(32)])
    do.accumulate(Lanes, sums, held, weights)
    table = np.full(2 * each.width, np.nan)
    for is_first in (True, False):  # two warps with the same sums
        do.put(Lanes, sums, table, column, each.lanes > LANE, is_first)
    expected = y[:, :count] @ A[base:].astype(float)
    np.testing.assert_allclose(table.reshape(2, -1)[:, :d], np.array([[6.0], [2.0]]) * expected, rtol=1e-11, atol=1e-12)


def test_lanes_measure_columns():
    each, d = share.share_for("<f8", 2, 10, warp=32), 10
    A = np.random.default_rng(0).standard_normal((each.step - 3, d))
    do, group, column = share.routines(each, (share.SUM, share.LARGEST)), LANE // each.lanes, LANE % each.lanes * each.vector
    held, sums, table = [None] * (each.rows * each.columns), [np.zeros(32)] * (2 * each.columns), np.zeros(2 * each.width)
    do.fetch(Lanes, held, A, 0, group, len(A) - 1, column, d)
    do.measure(Lanes, sums, held, group, len(A) - 1)
    do.put(Lanes, sums, table, column, each.lanes > LANE, True)
    np.testing.assert_allclose(table.reshape(2, -1)[:, :d], [(A**2).sum(0), abs(A).max(0)], rtol=1e-12)


@pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="on a GPU all kernels have warps of 32")
@pytest.mark.parametrize(("vector", "d", "scale"), [(2, 64, 1.0), (2, 16, 30.0), (1, 33, 1.0), (1, 3, 30.0), (2, 2, 1.0)])
def test_a_warp_of_32(monkeypatch, vector, d, scale):
    """The whole kernel, which elsewhere the simulator runs with warps of 8."""
    for module, name, value in ((block, "WARP", 32), (ptx, "WARP", 32), (reduction, "WARP", 32), (rows, "ROW_WARPS", 1)):
        monkeypatch.setattr(module, name, value)
    each = share.share_for("<f8", vector, d, warp=32)
    n, blocks = 2 * each.step + 5, 2
    data = random_data(n, d, True)
    x = data.x * scale
    a, sums, vectors = np.full(n, np.nan), np.zeros(blocks, records.STATE), np.full((blocks, 4, d), np.nan)
    kernel = rows.sums(each, 4).of(links.Rsx)
    kernel[blocks, 32](links.RSX, *map(cuda.to_device, (data.A, x, data.b, data.w)), a, sums, vectors)
    np.testing.assert_allclose(a, data.A @ x, rtol=1e-12, atol=1e-12)
    M = max(0.0, a.max())
    e, k = np.exp(a - M), np.exp(-M)
    u, v, factor = e + k * a, e + k, np.exp(sums["shift"] - M)
    assert sums["shift"].max() == M
    assert factor @ sums["alpha"] == pytest.approx(u.sum(), rel=1e-12)
    assert factor @ sums["magnitude"] == pytest.approx((e + k * abs(a)).sum(), rel=1e-12)
    for kind, (y, power) in enumerate(((v, 1), (v * u, 2), (v * data.b, 1), (data.w**2 * a, 0))):
        np.testing.assert_allclose(factor**power @ vectors[:, kind], y @ data.A, rtol=1e-10, atol=1e-13 * scale)


def views(A):
    """The same matrix on the GPU in other layouts, by name."""
    n, d = A.shape
    wide, long, sparse = np.zeros((n, d + 3)), np.zeros((2 * n, d)), np.zeros((n, 2 * d))
    wide[:, 1 : d + 1], long[::2], sparse[:, ::2] = A, A, A
    there = {name: cuda.to_device(array) for name, array in {"wide": wide, "long": long, "sparse": sparse}.items()}
    return {
        "columns": cuda.to_device(np.asfortranarray(A)),
        "part of the columns": there["wide"][:, 1 : d + 1],
        "every other row": there["long"][::2],
        "every other column": there["sparse"][:, ::2],
    }


@pytest.mark.parametrize(("n", "d"), [(11, 1), (23, 6), (3, passes.WIDEST + 2)])
def test_any_layout_is_read_where_it_lies(n, d):
    data = random_data(n, d, True)
    x, b, w, p, y = map(cuda.to_device, (data.x, data.b, data.w, data.p, np.linspace(-1, 1, n)))

    def found(A):
        work = kernels.alloc_workspace(n, d, False)
        grad, image, product = cuda.device_array(d), cuda.device_array(n), cuda.device_array(d)
        fun = kernels.value_grad(A, x, b, w, grad, work)
        assert kernels.hess_vec(A, x, b, w, p, product, work) == fun
        passes.products(A, p, image, work)
        arrays = [grad, product, image, work.a]
        passes.transposed(A, y, work)
        arrays = [array.copy_to_host() for array in arrays] + [work.combined.copy_to_host()[2]]
        passes.columns(A, work)
        return [np.array([fun]), *arrays, *work.combined.copy_to_host()[:2]]

    expected = found(cuda.to_device(data.A))
    np.testing.assert_allclose(expected[3], data.A @ data.p, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(expected[5], data.A.T @ np.linspace(-1, 1, n), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(expected[6:], [(data.A**2).sum(0), abs(data.A).max(0)], rtol=1e-12)
    layouts = views(data.A)
    for A in [layouts["columns"], layouts["every other column"]] if d > passes.WIDEST else layouts.values():  # a wide A takes long
        for one, two in zip(found(A), expected, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-13)


def test_loads_are_as_wide_as_rows_allow():
    def of(array):
        return share.share_of(cuda.to_device(array))[:4]

    for number, most in ((np.float64, 2), (np.float32, 4), (np.float16, 4)):
        for d in (3, 4, 6, 8):
            assert of(np.zeros((5, d), number))[1] == min(most, d & -d)
        assert share.share_of(cuda.to_device(np.zeros((5, 9), number))[:, 1:]).vector == 1
        assert share.share_of(cuda.to_device(np.zeros((5, 8), number))[::2]).vector == most
    with pytest.raises(ValueError, match="bytes apart"):
        share.share_of(np.lib.stride_tricks.as_strided(np.zeros(1), (2, 1), (2**31, 8)))


def test_a_nan_stays_in_its_row():
    """Lanes without columns, and steps without rows, take other entries of A, but never of another row that counts."""
    for d in (3, 5, 6):
        A = np.random.default_rng(d).standard_normal((20, d))
        A[7, 0] = np.nan
        out = cuda.device_array(20)
        passes.products(cuda.to_device(A), cuda.to_device(np.ones(d)), out, kernels.alloc_workspace(20, d, False))
        np.testing.assert_array_equal(np.isnan(out.copy_to_host()), np.arange(20) == 7)


@pytest.mark.parametrize(("name", "count"), [("value", 3), ("value_grad", 3), ("hess_vec", 5)])
def test_launches(monkeypatch, name, count):
    data = random_data(30, 3)
    A, x, b, w, p = map(cuda.to_device, data)
    work, launched = kernels.alloc_workspace(*data.A.shape, False), []
    launch = passes.launch
    for module in (kernels, passes):
        monkeypatch.setattr(module, "launch", lambda kernel, *args, **options: (launched.append(kernel), launch(kernel, *args, **options)))
    arguments = {"value": (), "value_grad": (cuda.device_array(3),), "hess_vec": (p, cuda.device_array(3))}[name]
    getattr(kernels, name)(A, x, b, w, *arguments, work)
    assert len(launched) == count
