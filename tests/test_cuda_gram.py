"""The Gram matrix on tensor cores, in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) or on a GPU.

The simulator runs the routines that the GPU's code is written by, with the numbers of a product placed among the lanes as the manual of PTX says.
"""

import numpy as np
import pytest
from numba import config

import gpu
from fastrsx.kernels.formulas.records import Q, R, V
from formulas import assert_within, random_data

kernels = gpu.kernels()
from fastrsx.kernels.gpu import loop, passes  # noqa: E402  the simulator comes first

cuda, tensor_gram = kernels.cuda, passes.tensor_gram
if not tensor_gram.has_tensor_cores():
    pytest.skip("the GPU has no tensor cores for float64: tests/test_cuda.py tests its kernels", allow_module_level=True)

TOL = 1e-14
NARROW, PANEL = tensor_gram.NARROW, tensor_gram.PANEL
# One column; widths that fill no tile; two groups of columns; a lone panel; two panels; three, one of them alone.
SHAPES = [(1, 1), (70, 3), (33, 17), (41, NARROW), (37, NARROW + 1), (19, PANEL + 1), (18, 2 * PANEL + 3)]


def problem(n, d, dtype=np.float64):
    """A, and weights of either sign."""
    rng = np.random.default_rng(n + d)
    return rng.standard_normal((n, d)).astype(dtype), rng.standard_normal(n)


def gram_of(A, h):
    """A^T diag(h) A by the kernel, of arrays on the GPU."""
    n, d = A.shape
    out = cuda.to_device(np.full((d, d), -7.0))
    kernels.weighted_gram(A, h, out, kernels.alloc_workspace(n, d, True))
    return out.copy_to_host()


def assert_is_gram(found, A, h):
    A, h = A.astype(np.longdouble), h.astype(np.longdouble)
    assert_within(found, A.T @ (h[:, None] * A), abs(A).T @ (abs(h)[:, None] * abs(A)), TOL)


@pytest.mark.parametrize(("n", "d", "dtype"), [*((n, d, t) for n, d in SHAPES for t in ("f8", "f4")), (70, 3, "f2"), (18, 2 * PANEL + 3, "f2")])
def test_any_shape(n, d, dtype):
    A, h = problem(n, d, dtype)
    found = gram_of(cuda.to_device(A), cuda.to_device(h))
    assert_is_gram(found, A, h)
    np.testing.assert_array_equal(found, found.T)


def test_shapes_take_every_kind_of_job():
    splits = [tensor_gram.split_of(n, d) for n, d in SHAPES]
    assert any(split.below and split.diagonal and split.lone for split in splits)
    assert any(split.lone and not split.below for split in splits)
    assert any(split.diagonal and not split.below for split in splits)


def padded(A, bytes_):
    """A on the GPU, whose rows begin on that many bytes, and not on twice as many; what is beyond them is NaN."""
    room = np.full((len(A), A.shape[1] + 1), np.nan, A.dtype)
    while room.strides[0] % bytes_ or (bytes_ < 16 and room.strides[0] % (2 * bytes_) == 0):
        room = np.full((len(A), room.shape[1] + 1), np.nan, A.dtype)
    room[:, : A.shape[1]] = A
    return cuda.to_device(room)[:, : A.shape[1]]


LAYOUTS = {
    "rows on 16 bytes": lambda A: padded(A, 16),
    "rows on 8 bytes": lambda A: padded(A, 8),
    "rows on as many as a number": lambda A: padded(A, A.itemsize),
    "columns": lambda A: cuda.to_device(np.asfortranarray(A)),
    "every other column": lambda A: cuda.to_device(np.repeat(A, 2, axis=1))[:, ::2],
    "every other row": lambda A: cuda.to_device(np.repeat(A, 2, axis=0))[::2],
}


@pytest.mark.parametrize("d", [5, NARROW + 2])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_without_a_copy(layout, dtype, d):
    """The same bits as from contiguous rows."""
    A, h = problem(21, d, dtype)
    found = gram_of(LAYOUTS[layout](A), cuda.to_device(h))
    np.testing.assert_array_equal(found, gram_of(cuda.to_device(A), cuda.to_device(h)))


@pytest.mark.parametrize(
    ("columns", "itemsize", "address", "expected"),
    [(4, 8, 0, 16), (3, 8, 0, 8), (4, 8, 8, 8), (4, 4, 0, 16), (6, 4, 0, 8), (5, 4, 0, 4), (4, 4, 4, 4), (8, 2, 0, 16), (6, 2, 0, 4), (8, 2, 2, 2)],
)
def test_copies_are_as_large_as_addresses_allow(columns, itemsize, address, expected, monkeypatch):
    monkeypatch.setattr(tensor_gram, "address_of", lambda A: address)
    assert tensor_gram.source_of(np.zeros((3, columns), f"f{itemsize}")) == (itemsize, expected, False, False)


@pytest.mark.parametrize("d", [8, NARROW + 8, 5])
def test_bfloat16(d):
    A, h = problem(21, d, pytest.importorskip("ml_dtypes").bfloat16)
    assert_is_gram(gram_of(cuda.to_device(A), cuda.to_device(h)), A, h)


def test_weights_of_float32_and_with_strides():
    A, h = problem(30, 4)
    single = h.astype(np.float32)
    assert_is_gram(gram_of(cuda.to_device(A), cuda.to_device(single)), A, single)
    assert_is_gram(gram_of(cuda.to_device(A), cuda.to_device(np.repeat(h, 2))[::2]), A, h)


def test_what_lies_beyond_a_is_never_multiplied():
    A, h = problem(9, 5)
    room = np.full((40, 8), np.nan)
    room[:9, :5] = A
    assert_is_gram(gram_of(cuda.to_device(room)[:9, :5], cuda.to_device(h)), A, h)


@pytest.mark.parametrize(("n", "d"), [(45, 4), (39, NARROW - 1), (37, NARROW + 3), (18, PANEL + 5)])
def test_vectors_ride_along(n, d):
    """The three d-vectors of the Hessian's read are those of a read of their own."""
    data = random_data(n, d, weighted=True)
    A, x, b, w, _ = map(cuda.to_device, data)
    work = kernels.alloc_workspace(n, d, True)
    kernels.value(A, x, b, w, work)
    passes.derivatives(A, work.a, b, w, work.point, work)
    found = work.combined.copy_to_host()
    h, v, q, r = work.h.copy_to_host().reshape(4, n).astype(np.longdouble)
    for kind, weights in ((V, v), (Q, q), (R, r)):
        assert_within(found[kind], data.A.T @ weights, abs(data.A).T @ abs(weights), TOL)
    hess = cuda.device_array((d, d))
    work.combined.copy_to_device(np.zeros_like(found))
    passes.finish_hessian(hess, work)
    together = cuda.device_array((d, d))
    loop.derivatives(A, work.a, b, w, together, work)
    np.testing.assert_array_equal(together.copy_to_host(), hess.copy_to_host())
    np.testing.assert_array_equal(work.combined.copy_to_host()[: R + 1], found[: R + 1])
    assert_within(hess.copy_to_host(), data.A.T @ (h[:, None] * data.A), abs(data.A).T @ (abs(h)[:, None] * abs(data.A)), TOL)


def test_the_same_bits_each_time_and_after_another_matrix():
    """The parts that a small matrix leaves do not reach the next one."""
    A, h = problem(60, NARROW + 1)
    there, weights = cuda.to_device(A), cuda.to_device(h)
    work, out = kernels.alloc_workspace(*A.shape, True), cuda.device_array((A.shape[1],) * 2)
    found = []
    for _ in range(2):
        kernels.weighted_gram(there, weights, out, work)
        found.append(out.copy_to_host())
        kernels.weighted_gram(there, cuda.to_device(-2.0 * h), out, work)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("n", "d"), [(10_000_000, 64), (1_000_000, 512), (5_000_000, 128), (1_000_000, 300), (2_000, 4096), (3, 100)])
def test_all_rows_have_a_block_and_parts_fit(n, d, monkeypatch):
    for name, value in {"GROUPS": 4, "NARROW": 64, "HALF": 64, "QUARTER": 32, "PANEL": 128, "NARROW_WARPS": 8}.items():
        monkeypatch.setattr(tensor_gram, name, value)
    split = tensor_gram.split_on.__wrapped__(132, n, d)
    assert split.parts == 1 or 8 * split.parts * d * (d + 3) <= 2 * tensor_gram.PART_BYTES
    panels = -(-d // 128)
    kinds = (panels * (panels - 1) // 2, split.below), (panels // 2, split.diagonal), (panels % 2, split.lone)
    if d > 64:
        assert split.blocks == sum(count * parts for count, parts in kinds)
        assert all(parts >= 1 for count, parts in kinds if count)
    if (n, d) == (1_000_000, 512):  # blocks end at about the same time, all multiprocessors at work
        longest = max(cost / parts for cost, (count, parts) in zip(tensor_gram.COSTS, kinds, strict=True) if count)
        assert longest <= 1.1 * sum(cost * count for cost, (count, _) in zip(tensor_gram.COSTS, kinds, strict=True)) / 132


@pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="on a GPU these are the tiles that all tests use")
@pytest.mark.parametrize("riders", [0, tensor_gram.RIDERS])
def test_tiles_of_the_size_on_a_gpu(riders):
    """Fragments of a warp with 64 columns; the simulator's own kernels have half as many."""
    A, h = problem(20, 61)
    weights = np.concatenate([h, *np.random.default_rng(0).standard_normal((3, 20))])
    gram = np.zeros((1, 64, 61))
    folding = tensor_gram.narrow.__wrapped__(4, tensor_gram.source_of(cuda.to_device(A)), riders)
    folding.kernel[1, folding.threads, 0, folding.shared](A, weights[: (1 + riders) * 20], gram)
    assert_is_gram(np.tril(gram[0, :61]) + np.tril(gram[0, :61], -1).T, A, h)
    if riders:
        np.testing.assert_allclose(gram[0, 61:], weights[20:].reshape(3, 20) @ A, rtol=1e-12, atol=1e-13)
