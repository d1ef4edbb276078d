"""The compiled GPU kernels, see cuda_resources.py: each of them fits; and the error without a driver."""

import ctypes
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from numba import config

if config.ENABLE_CUDASIM:
    pytest.skip("NUMBA_ENABLE_CUDASIM=1 is set, and the simulator compiles nothing", allow_module_level=True)
if importlib.util.find_spec("numba_cuda") is None:
    pytest.skip("numba-cuda is not installed: pip install 'fastrsx[cuda]'", allow_module_level=True)
import cuda_resources

if cuda_resources.ptxas() is None:
    pytest.skip("the assembler is not installed: pip install nvidia-cuda-nvcc", allow_module_level=True)

from numba import cuda, float32, float64
from numba.cuda.core.errors import NumbaPerformanceWarning

import fastrsx
from fastrsx.kernels.gpu import block, cost, gram, passes, tensor_gram
from fastrsx.kernels.gpu import share as share_of_rows
from fastrsx.system import device

ROWS = cuda_resources.row_signatures()
LEAST_FMA_SHARE = 0.35  # of the inner loop of a Gram matrix, in PTX: 16 multiply-adds, 8 loads, and the loop counter
CASES = [
    *((kernel, signature, "float64") for kernel, signature in cuda_resources.signatures(float64).items()),
    *((kernel, signature, "float32") for kernel, signature in cuda_resources.signatures(float32).items()),
    *((kernel, signature, "") for kernel, signature in cuda_resources.other_signatures().items()),
]


@pytest.mark.parametrize("target", list(cuda_resources.TARGETS), ids=lambda target: "sm_{}{}".format(*target))
@pytest.mark.parametrize(("kernel", "signature", "dtype"), CASES, ids=[f"{cuda_resources.name_of(kernel)} {dtype}" for kernel, _, dtype in CASES])
def test_a_kernel_fits(kernel, signature, dtype, target):
    found = cuda_resources.resources(kernel, signature, target)
    assert found.spilled == 0
    assert found.shared < 48 * 1024
    assert found.occupancy >= (0.5 if cuda_resources.most_registers(kernel) == 64 else 0.375)
    assert not cuda_resources.atomics(found.ptx)
    assert not cuda_resources.single_arithmetic(found.ptx)
    if cuda_resources.name_of(kernel).startswith("fold_gram"):
        assert found.fma_share > LEAST_FMA_SHARE


@pytest.mark.parametrize("target", list(cuda_resources.TARGETS), ids=lambda target: "sm_{}{}".format(*target))
@pytest.mark.parametrize("name", list(ROWS))
def test_a_kernel_for_rows_fits(name, target):
    """Rows and sums stay in registers; the loop has neither shared memory nor a barrier, and loads as wide as they can be."""
    share, kernel, signature = ROWS[name]
    found = cuda_resources.resources(kernel, signature, target, 32 * share_of_rows.ROW_WARPS)
    assert found.spilled == 0
    assert ".local" not in found.ptx
    assert found.shared < 48 * 1024
    blocks = {128: 4, 168: 3, 255: 2}[cuda_resources.most_registers(kernel)]
    assert found.occupancy >= blocks * share_of_rows.ROW_WARPS / cuda_resources.TARGETS[target][1]
    assert not cuda_resources.atomics(found.ptx)
    assert not cuda_resources.single_arithmetic(found.ptx)
    kind = {(8, 1): "f64", (4, 1): "f32", (2, 1): "u16", (2, 2): "b32"}[share.size, share.pack]
    count = share.vector // share.pack
    load = f"ld.global.nc.L1::no_allocate.v{count}.{kind}" if count > 1 else f"ld.global.nc.{kind}"
    assert found.ptx.count(load) >= share.rows * share.loads


@pytest.mark.parametrize("target", list(cuda_resources.TARGETS), ids=lambda target: "sm_{}{}".format(*target))
@pytest.mark.parametrize(("kernel", "signature"), cuda_resources.batches().values(), ids=cuda_resources.BATCHES)
def test_a_kernel_for_small_problems_fits(kernel, signature, target):
    """Sums stay in registers, without a spill; a warp is a block."""
    found = cuda_resources.resources(kernel, signature, target, cuda_resources.WARP)
    assert found.spilled == 0
    assert ".local" not in found.ptx
    assert found.shared < 8 * 1024  # beside the records
    assert found.occupancy >= {168: 12, 255: 8}[cuda_resources.most_registers(kernel)] / cuda_resources.TARGETS[target][1]
    assert not cuda_resources.atomics(found.ptx)
    assert not cuda_resources.single_arithmetic(found.ptx)


@pytest.mark.parametrize("target", list(cuda_resources.TARGETS), ids=lambda target: "sm_{}{}".format(*target))
@pytest.mark.parametrize(("folding", "signature"), cuda_resources.foldings().values(), ids=cuda_resources.foldings())
def test_a_gram_kernel_is_on_tensor_cores(folding, signature, target):
    """All registers and no spill, one block on a multiprocessor; sums in float64, without atomics."""
    found = cuda_resources.resources(folding.kernel, signature, target, folding.threads, folding.shared)
    assert found.spilled == 0
    assert found.shared <= cuda_resources.TARGETS[target][0] * 1024 - 1024
    products = cuda_resources.tensor_products(found.ptx)
    assert set(products) == {f"mma.sync.aligned.m{'8' if target == (8, 0) else '16'}n8k4.row.col.f64.f64.f64.f64"}
    assert cuda_resources.looped_products(found.ptx) == len(products)
    assert "cp.async" in found.ptx
    assert ".local" not in found.ptx
    assert not cuda_resources.atomics(found.ptx)
    assert not cuda_resources.single_arithmetic(found.ptx)


@pytest.mark.parametrize("itemsize", [8, 4])
@pytest.mark.parametrize("riders", [0, tensor_gram.RIDERS])
def test_every_ring_fits_into_an_a100(itemsize, riders):
    source = tensor_gram.Source(itemsize, itemsize, False)
    foldings = [*(tensor_gram.narrow(groups, source, riders) for groups in (1, 2, 4)), tensor_gram.wide(source, riders)]
    assert max(folding.shared for folding in foldings) <= 163 * 1024 - 64


def test_the_cost_model_has_the_sizes_of_the_kernels():
    assert (cost.TILE, cost.FUSED_UP_TO) == (gram.TILE, share_of_rows.WIDEST)
    assert (cost.NARROW, cost.PANEL, cost.RIDERS) == (tensor_gram.NARROW, tensor_gram.PANEL, tensor_gram.RIDERS)


@pytest.mark.parametrize("riders", [0, tensor_gram.RIDERS])
@pytest.mark.parametrize("d", [10, 30, 64])
def test_the_cost_model_counts_the_products_of_a_narrow_kernel(d, riders):
    """Those of the tile of a warp, for 4 rows; and what the model makes of a block of two panels, by the tiles of its 8 warps."""
    groups = {10: 1, 30: 2, 64: 4}[d]
    work = cost.tensor_gram(4, d, 8, riders)[0]
    tile = tensor_gram.Tile(groups, True, riders)
    assert work.products == 4 * cost.PRODUCT * (len(tile.products) + groups * (riders > 0))
    assert work.bytes == 4 * (8 * d + 8 * (1 + riders))
    triangle, rest = (len(tensor_gram.Tile(4, is_triangle, 0).products) for is_triangle in (True, False))
    assert cost.tensor_gram(4, 256, 8, 0)[0].products == 4 * cost.PRODUCT * 8 * (rest + triangle)


def test_multiprocessors_are_those_of_the_current_gpu(monkeypatch):
    gpus = [SimpleNamespace(id=index, MULTIPROCESSOR_COUNT=count, compute_capability=(9, 0)) for index, count in enumerate((132, 78))]
    current = [gpus[0]]
    monkeypatch.setattr(block, "cuda", SimpleNamespace(get_current_device=lambda: current[0], gpus=gpus))
    monkeypatch.setattr(tensor_gram, "has_tensor_cores", lambda: True)
    block._multiprocessors_of.cache_clear()
    found = []
    for gpu in (*gpus, gpus[0]):
        current[0] = gpu
        found.append((block.multiprocessors(), passes.block_count(10**6, 64), passes.split_count(10**6, 64)))
    block._multiprocessors_of.cache_clear()
    assert found == [(132, 4 * 132, 132), (78, 4 * 78, 78), found[0]]


def test_a_kernel_with_all_of_these_faults_would_be_seen():
    def fold(A, out):
        many = cuda.local.array(64, float64)
        for k in range(64):
            many[k] = A[k, 0]
        for i in range(A.shape[0]):
            for k in range(64):
                many[k] += A[i, k] * many[(k * 7 + 1) % 64]
        out[0] = A[0, 0] * A[0, 1]
        for k in range(64):
            cuda.atomic.add(out, 0, many[k])

    found = cuda_resources.resources(block.kernel(fold), (float32[:, ::1], float64[::1]), (9, 0))
    assert found.spilled > 0
    assert cuda_resources.single_arithmetic(found.ptx)
    assert cuda_resources.atomics(found.ptx)


def test_a_launch_of_few_blocks_does_not_warn():
    """Not even if colorama puts an escape sequence before the words; filterwarnings turns any warning into an error."""
    loud, quiet = cuda.jit(lambda out: None), cuda.jit(lambda out: None)  # a kernel warns once for a configuration
    with pytest.warns(NumbaPerformanceWarning, match=r"\x1b\[1mGrid size 1 "):
        loud[1, block.THREADS, 0]
    assert block.configured(quiet, 1, 0).griddim == (1, 1, 1)


def test_more_shared_memory_than_a_block_has_is_asked_for():
    fold = cuda.jit(lambda out: None)
    assert block.configured(fold, 1, 0, 256, block.GRANTED + 1).pre_launch_callbacks == [block.ask_for_shared]
    assert block.configured(fold, 1, 0, 256, block.GRANTED).pre_launch_callbacks == []


@pytest.mark.skipif(cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_the_error_says_why():
    with pytest.raises(RuntimeError, match=r"no GPU can be used: .*driver"):
        fastrsx.newton(np.ones((4, 1)), np.full(4, 0.25), kernel="cuda")


def test_an_array_of_dlpack_alone():
    """It is in memory, since there may be no GPU: only its address and layout are checked."""
    array = np.arange(6.0).reshape(2, 3)

    class Exporter:
        def __dlpack__(self, *, stream=None, **kwargs):
            return array.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return array.__dlpack_device__()

    interface = device._from_dlpack(Exporter(), stream=-1).__cuda_array_interface__
    assert interface["data"][0] == array.ctypes.data
    assert (interface["shape"], interface["typestr"]) == ((2, 3), "<f8")
    assert interface["strides"] in (None, (24, 8))


def test_bfloat16_comes_by_dlpack():
    """As 16 bits, of which the next call makes the dtype of ml_dtypes; NumPy exports no such capsule, so the code of its type is changed."""
    bits = np.arange(6, dtype=np.int16).reshape(2, 3)
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

    class Exporter:
        dtype = "torch.bfloat16"

        def __dlpack__(self, *, stream=None, **kwargs):
            capsule = bits.__dlpack__()
            ctypes.c_uint8.from_address(pointer_of(capsule, b"dltensor") + 20).value = 4  # kDLBfloat, after the address, the device and the axes
            return capsule

        def __dlpack_device__(self):
            return bits.__dlpack_device__()

    assert device.dtype_name(Exporter()) == "bfloat16"
    interface = device._from_dlpack(Exporter(), stream=-1).__cuda_array_interface__
    assert (interface["shape"], interface["typestr"], interface["data"][0]) == ((2, 3), "<i2", bits.ctypes.data)
    assert interface["strides"] in (None, (6, 2))
