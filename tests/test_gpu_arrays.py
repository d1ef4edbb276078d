"""Arrays on a GPU, without the means to read them: how they are recognised, and the error messages."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import fastrsx
from fastrsx.system import device

HAS_NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None
FILL = {"A": np.ones((4, 2)), "b": np.full(4, 0.25)}


class Undecided:
    """Like an array of JAX that several devices share: it is read as an array in memory."""

    shape, dtype = (4, 2), np.dtype(float)

    def __dlpack_device__(self):
        raise BufferError("__dlpack__ only supported for unsharded arrays")

    def __array__(self, dtype=None, copy=None):
        return np.ones((4, 2))


class Elsewhere:
    """An array of another library, by its interfaces."""

    def __init__(self, dlpack_type=None, has_interface=False):
        self.shape, self.ndim, self.dtype = (4, 2), 2, np.dtype(float)
        if dlpack_type is not None:
            self.__dlpack_device__ = lambda: (dlpack_type, 0)
        if has_interface:
            self.__cuda_array_interface__ = {"shape": (4, 2), "typestr": "<f8", "data": (1, False), "strides": None, "version": 3}


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.ones(3), False),
        ([1.0], False),
        (Elsewhere(), False),
        (Elsewhere(has_interface=True), True),
        (Elsewhere(2, True), True),
        (Elsewhere(2), True),
        (Elsewhere(13), True),
        (Elsewhere(1), False),
        (Elsewhere(1, True), False),
        (Elsewhere(3, True), False),
        (Elsewhere(10, True), False),
    ],
)
def test_device_type_decides(array, expected):
    assert device.is_on_gpu(array) is expected


@pytest.mark.skipif(HAS_NUMBA_CUDA, reason="numba-cuda is installed")
@pytest.mark.parametrize("change", [{"kernel": "cuda"}, {"A": Elsewhere(2, True)}])
def test_without_the_extra_the_error_names_it(change):
    with pytest.raises(ImportError, match=r"need the package numba-cuda, which is not installed: pip install 'fastrsx\[cuda\]'"):
        fastrsx.newton(**FILL | change)


def test_other_devices_are_named():
    with pytest.raises(TypeError, match="A is on a device of DLPack's type 10, and fastrsx knows memory and GPUs of NVIDIA"):
        fastrsx.newton(**FILL | {"A": Elsewhere(10, True)})


def test_who_cannot_say_where_it_lies_is_read_as_memory():
    assert fastrsx.Problem(Undecided(), FILL["b"]).value([0.0, 0.0]) == fastrsx.Problem(**FILL).value([0.0, 0.0])


def test_vectors_on_a_gpu_beside_a_in_memory():
    with pytest.raises(TypeError, match=r"b is on a GPU, where an array in memory is needed; pass b.get\(\)"):
        fastrsx.newton(**FILL | {"b": Elsewhere(2, True)})


def test_sparse_a_stays_in_memory():
    from scipy import sparse

    with pytest.raises(ValueError, match=r"kernel is 'cuda', which is for dense A in memory; pass cupyx.scipy.sparse.csr_matrix\(A\), A.toarray\(\)"):
        fastrsx.newton(sparse.csr_array(FILL["A"]), FILL["b"], kernel="cuda")


def test_too_little_memory_of_the_gpu_is_a_memory_error():
    with pytest.raises(MemoryError, match="the workspace does not fit into the memory of the GPU"), device.room_for("the workspace"):
        raise RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
    with pytest.raises(RuntimeError, match="INVALID"), device.room_for("the workspace"):
        raise RuntimeError("CUDA_ERROR_INVALID_VALUE")


def test_bfloat16_needs_a_package_of_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match="bfloat16 on a GPU needs the package ml_dtypes, which is not installed: pip install ml_dtypes"):
        device._bfloat16()


def test_the_plan_needs_no_gpu():
    assert "A copied to the GPU once" in str(fastrsx.plan(**FILL, kernel="cuda"))


def test_nobody_else_touches_cuda():
    """A solve in memory imports no CUDA module."""
    code = (
        "import sys, numpy as np, fastrsx; fastrsx.newton(np.ones((4, 1)), np.full(4, 0.25), kernel='serial'); "
        "print([name for name in sys.modules if name.startswith(('numba.cuda', 'numba_cuda', 'cuda', 'fastrsx.kernels.cuda', "
        "'fastrsx.kernels.gpu', 'fastrsx.engines.cuda'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
