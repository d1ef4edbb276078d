"""The PTX of the Gram kernels on tensor cores, run by Python (ptx.py) for the sizes of a GPU: what is compiled is right, without a GPU."""

import functools
import importlib.util

import numpy as np
import pytest
from numba import config

if config.ENABLE_CUDASIM:
    pytest.skip("NUMBA_ENABLE_CUDASIM=1 is set, and the simulator compiles nothing", allow_module_level=True)
if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'fastrsx[cuda]'", allow_module_level=True)

from numba import cuda, types
from numba.cuda import compile_ptx

import ptx
from fastrsx.kernels.gpu import halves, share, tensor_gram
from fastrsx.kernels.gpu.halves import STORED
from formulas import assert_within

TOL = 1e-14
TARGETS = [(8, 0), (9, 0)]
RIDERS = tensor_gram.RIDERS


@functools.cache
def compiled(groups, source, riders, layout, target):
    """How a kernel is launched, and its PTX: for that many groups of columns, or wide for 0."""
    folding = tensor_gram.narrow(groups, source, riders) if groups else tensor_gram.wide(source, riders)
    A = types.Array(STORED[source.number], 2, layout)
    counts = () if groups else (types.int64,) * 3
    text, _ = compile_ptx(
        folding.kernel.py_func, (A, types.float64[::1], *counts, types.float64[:, :, ::1]), cc=target, launch_bounds=(folding.threads, 1)
    )
    return folding, text


def check(A, groups, source, riders, counts, target, layout="C", shift=0, is_late=True):
    """Sum over two parts of the rows, and compare with the formulas."""
    n, d = A.shape
    weights = np.random.default_rng(n).standard_normal((1 + RIDERS) * n)
    gram = np.zeros((2 if groups else max(counts[0], counts[1], 2 * counts[2]), d + RIDERS, d))
    folding, text = compiled(groups, source, riders, layout, target)
    panels = -(-d // tensor_gram.PANEL)
    blocks = 2 if groups else panels * (panels - 1) // 2 * counts[0] + panels // 2 * counts[1] + panels % 2 * counts[2]
    ptx.launch(text, blocks, folding.threads, folding.shared, [(A, shift), (weights, 0), *counts, (gram, 0)], is_late)
    A, (h, *vectors) = A.astype(np.longdouble), weights.reshape(1 + RIDERS, n)
    found, expected, sizes = gram.sum(0), A.T @ (h[:, None] * A), abs(A).T @ (abs(h)[:, None] * abs(A))
    assert_within(np.tril(found[:d]), np.tril(expected), np.tril(sizes), TOL)
    for rider, vector in zip(found[d:] if riders else (), vectors, strict=False):
        assert_within(rider, A.T @ vector, abs(A).T @ abs(vector), TOL)


def matrix(n, d, dtype=np.float64):
    return np.random.default_rng(d).standard_normal((n, d)).astype(dtype)


@pytest.mark.parametrize("is_late", [True, False], ids=["late copies", "early copies"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("groups", "d"), [(1, 14), (2, 32), (4, 62)])
def test_narrow(groups, d, target, is_late):
    check(matrix(201, d), groups, tensor_gram.Source(8, 16, False), RIDERS, (), target, is_late=is_late)


@pytest.mark.parametrize("is_late", [True, False], ids=["late copies", "early copies"])
@pytest.mark.parametrize("target", TARGETS)
def test_wide(target, is_late):
    """Three panels: each kind of job, with different numbers of parts."""
    check(matrix(153, 300), 0, tensor_gram.Source(8, 16, False), RIDERS, (1, 2, 1), target, is_late=is_late)


@pytest.mark.parametrize("groups", [4, 0])
def test_without_riders(groups):
    check(matrix(90, 64 if groups else 140), groups, tensor_gram.Source(8, 16, False), 0, () if groups else (2, 1, 1), (9, 0))


@pytest.mark.parametrize("groups", [4, 0])
@pytest.mark.parametrize(("dtype", "size", "shift"), [(np.float64, 8, 8), (np.float32, 16, 0), (np.float32, 8, 8), (np.float32, 4, 4)])
def test_copies_of_any_size(dtype, size, shift, groups):
    """Rows that begin where copies of that size can, and larger ones cannot: the interpreter refuses a copy that is not aligned."""
    d = (60 if groups else 100) + (0 if size == 16 else size // np.dtype(dtype).itemsize)
    check(
        matrix(45, d, dtype),
        groups,
        tensor_gram.Source(np.dtype(dtype).itemsize, size, False),
        RIDERS,
        () if groups else (0, 0, 1),
        (9, 0),
        shift=shift,
    )


@pytest.mark.parametrize(
    ("number", "size", "groups"), [("<f2", 16, 4), ("bfloat16", 8, 4), ("<f2", 4, 4), ("bfloat16", 2, 4), ("bfloat16", 16, 0), ("<f2", 2, 0)]
)
def test_numbers_of_16_bits(number, size, groups):
    """cp.async copies 4 bytes at least; what lies on 2 is loaded."""
    is_bfloat16 = number == "bfloat16"
    d = (56 if groups else 104) + (0 if size == 16 else size // 2)
    A = matrix(45, d, pytest.importorskip("ml_dtypes").bfloat16 if is_bfloat16 else np.float16)
    check(A, groups, tensor_gram.Source(2, size, False, is_bfloat16), RIDERS, () if groups else (0, 0, 1), (9, 0), shift=size % 16)


@pytest.mark.parametrize("number", halves.HALVES)
def test_every_number_of_16_bits_is_widened_exactly(number):
    """By the statements that kernels widen pairs with, and by their NumPy twin; NaN and inf too."""
    kind = STORED[number]
    bits = np.arange(2**16, dtype=np.uint16)
    single = (bits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):  # of NaNs
        expected = (bits.view(np.float16) if number == "<f2" else single).astype(np.float64)
        twin = halves.unpaired(halves.paired(bits[::2], bits[1::2]), number, 2)
    np.testing.assert_array_equal(np.ravel(twin, order="F"), expected)
    do_fetch, _, do_dot, *_ = share.parts(share.Share(number, 8, 1, 1, 1))

    def widen(A, out):
        rows, xs, found = cuda.local.array(4, np.uint32), cuda.local.array(8, np.float64), cuda.local.array(1, np.float64)
        i = cuda.blockIdx.x * 32 + cuda.threadIdx.x
        do_fetch(rows, A, 0, i, A.shape[0] - 1, 0, 8)
        for j in range(8):
            for k in range(8):
                xs[k] = 1.0 if k == j else 0.0
            found[0] = 0.0
            do_dot(found, rows, xs)
            out[i, j] = found[0]

    text, _ = compile_ptx(widen, (kind[:, ::1], types.float64[:, ::1]), cc=(9, 0))
    A = np.where(np.isfinite(expected), bits, 0).reshape(-1, 8)  # a NaN would spread to the row
    out = np.full(A.shape, np.nan)
    ptx.launch(text, len(A) // 32, 32, 0, [(A, 0), (out, 0)])
    np.testing.assert_array_equal(out, expected[A])


@pytest.mark.parametrize("groups", [4, 0])
@pytest.mark.parametrize(("layout", "is_down"), [("F", True), ("A", True), ("A", False)])
def test_strides(layout, is_down, groups):
    A = matrix(45, 61 if groups else 101)
    A = np.asfortranarray(A) if layout == "F" else np.repeat(A.T, 2, axis=1).T[::2] if is_down else np.repeat(A, 2, axis=1)[:, ::2]
    check(A, groups, tensor_gram.Source(8, 8, is_down), RIDERS, () if groups else (0, 0, 1), (9, 0), layout)


def test_the_interpreter_sees_a_copy_beyond_a():
    A = matrix(40, 62)
    folding, text = compiled(4, tensor_gram.Source(8, 16, False), RIDERS, "C", (9, 0))
    with pytest.raises(AssertionError, match="lie in no array"):
        ptx.launch(text, 1, folding.threads, folding.shared, [(A, 0), (np.zeros(80), 0), (np.zeros((1, 65, 62)), 0)])


def test_the_interpreter_sees_a_copy_that_is_not_awaited():
    A, gram = matrix(40, 62), np.zeros((1, 65, 62))
    folding, text = compiled(4, tensor_gram.Source(8, 16, False), RIDERS, "C", (9, 0))
    text = text.replace("cp.async.wait_group 2", "cp.async.wait_group 9")
    ptx.launch(text, 1, folding.threads, folding.shared, [(A, 0), (np.zeros(160), 0), (gram, 0)])
    assert np.isnan(gram).any()
