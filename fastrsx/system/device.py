"""Arrays on a GPU: recognised without CUDA, and used in place through DLPack and `__cuda_array_interface__`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np
from scipy import sparse

CPU_DEVICES = {1: "CPU", 3: "CUDA host"}  # of DLPack: NumPy reads these
CUDA_DEVICES = {2: "CUDA", 13: "CUDA managed"}
DEFAULT_STREAM = 1  # CUDA's legacy default stream in DLPack, on which the kernels run
HALVES = ("float16", "bfloat16")
DTYPES = ("float64", "float32", *HALVES)
IN_MEMORY = ("float64", "float32", "float16")  # those of torch's floating dtypes that NumPy has
TO_MEMORY = ("get", "cpu", "copy_to_host")  # methods of an array on a GPU: of CuPy, torch, Numba


def kernels() -> ModuleType:
    """The passes on a GPU; ImportError or RuntimeError, with the remedy, where they cannot run here."""
    from fastrsx.kernels.gpu import passes

    why = passes.why_unavailable()
    if why:
        raise RuntimeError(f"no GPU can be used: {why}")
    return passes


def why_none() -> str:
    """Why this process has no GPU for the kernels, in few words; empty where it has one."""
    try:
        kernels()
    except (ImportError, RuntimeError) as error:
        return str(error)
    return ""


def describe(index: int) -> str:
    """A GPU by its name and compute capability."""
    from numba import config

    if config.ENABLE_CUDASIM:
        return f"GPU {index}, in Numba's simulator"
    gpu = kernels().cuda.gpus[index]
    name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
    return f"GPU {index}, {name}, sm_{gpu.compute_capability[0]}{gpu.compute_capability[1]}"


def capability() -> tuple[int, int]:
    """The compute capability of the current GPU; that of an H100 in the simulator, and where this process has none."""
    from numba import config

    if why_none() or config.ENABLE_CUDASIM:
        return 9, 0
    major, minor = kernels().cuda.get_current_device().compute_capability
    return major, minor


def variant(A: Any) -> str:
    """The GPU that would read a matrix, and the variant of its kernels: how lanes of a warp share a row there. Of one in memory, the current GPU."""
    found = kernels()
    if hasattr(A, "nnz"):
        lanes = found.sparse.lanes_for(A.nnz / A.shape[0])
        return f"{describe(index_of(A))}, {lanes} lane{'s' * (lanes > 1)} a row"
    if not is_on_gpu(A):
        return describe(current())
    share = found.share_of(A)
    lanes, size = share.lanes, share.vector * share.size
    return f"{describe(index_of(A))}, {lanes} lane{'s' * (lanes > 1)} a row by {size} bytes"


_streams = threading.local()


def current() -> int:
    """The number of this thread's GPU."""
    return int(kernels().cuda.gpus.current.id) if count() > 1 else 0


def count() -> int:
    """How many GPUs this process has."""
    return len(kernels().cuda.gpus)


def index_of(array: Any) -> int:
    """The number of the GPU that holds an array; the current one where its interfaces do not say."""
    array = array.data if is_sparse(array) else array
    memory = getattr(array, "gpu_data", None)
    if memory is not None:  # of Numba
        return int(memory.context.device.id)
    kind = getattr(array, "__dlpack_device__", None)
    return current() if kind is None else int(kind()[1])


def on_gpu_of(array: Any) -> Any:
    """A context in which the GPU that holds an array is the current one."""
    return kernels().cuda.gpus[index_of(array)] if count() > 1 else nullcontext()


def stream() -> Any:
    """A stream of this thread on the current GPU, which follows the default stream; one, since a kernel is configured once for each."""
    cuda = kernels().cuda
    index = current()
    made = vars(_streams).setdefault("made", {})
    if index not in made:
        made[index] = cuda.stream()
    return made[index]


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """Allocate on the GPU in the body; MemoryError where that does not fit."""
    try:
        yield
    except Exception as error:  # of a class of CUDA
        if "OUT_OF_MEMORY" not in str(error):
            raise
        raise MemoryError(f"{what} does not fit into the memory of the GPU") from error


def _dlpack_type(value: Any) -> int | None:
    """The type of device that DLPack reports; None without an answer, as for a JAX array on several devices."""
    try:
        return int(value.__dlpack_device__()[0])
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
        return None


def is_on_gpu(value: Any) -> bool:
    """Whether an array lies on an NVIDIA GPU, by its interfaces alone."""
    if type(value) is np.ndarray:
        return False
    if getattr(value, "__cuda_ndarray__", False) or is_sparse(value):  # Numba's own
        return True
    if hasattr(value, "__dlpack_device__"):
        return _dlpack_type(value) in CUDA_DEVICES
    return hasattr(value, "__cuda_array_interface__")


def is_sparse(value: Any) -> bool:
    """Whether it is a sparse matrix on a GPU, of CuPy or one of `SparseMatrix`."""
    return hasattr(type(value), "tocsr") and is_on_gpu(getattr(value, "data", None))


class SparseMatrix:
    """A sparse matrix on a GPU, as Numba's arrays of its compressed rows. Some of its rows, A[which], are a dense array in memory."""

    format = "csr"

    def __init__(self, data: Any, indices: Any, indptr: Any, shape: tuple[int, int]) -> None:
        self.data, self.indices, self.indptr, self.shape = data, indices, indptr, shape
        self.dtype, self.nnz, self.ndim = data.dtype, data.shape[0], 2
        self._source: Any = None

    def tocsr(self) -> "SparseMatrix":
        """Itself."""
        return self

    def __getitem__(self, which: Any) -> Any:
        rows = np.arange(self.shape[0])[which]
        with on_gpu_of(self.data), room_for(f"{rows.size} rows of A"):
            return kernels().sparse_rows(self.data, self.indices, self.indptr, rows, self.shape[1])

    @property
    def source(self) -> Any:
        """The same for the kernels: the entries are there once more, by columns. The CPU sorts their places, once."""
        if self._source is None:
            with on_gpu_of(self.data), room_for(f"A by columns, {self.nnz} entries,"):
                self._source = kernels().sparse_of(self.data, self.indices, self.indptr, self._transposed(), self.shape[1])
        return self._source

    def _transposed(self) -> tuple[Any, Any, Any]:
        """The places of the entries column by column, their rows, and where each column starts; ValueError for an index that is wrong."""
        from fastrsx.kernels.layouts import csr

        n, d = self.shape
        indices, starts = self.indices.copy_to_host(), self.indptr.copy_to_host()
        row, is_wrong = csr.problem_at(indices.astype(np.int32, copy=False), starts.astype(np.int64), d)
        if is_wrong or starts[-1] != self.nnz:
            raise ValueError(f"A is no valid CSR matrix: the columns of row {row} do not lie in 0..{d - 1}, or indptr is not ascending there")
        if row >= 0:
            raise ValueError(f"A has columns that are not ascending, or one twice, in row {row}; call A.sum_duplicates() before")
        by_column = sparse.csr_array((np.arange(self.nnz), indices, starts), shape=(n, d)).tocsc()
        return by_column.data, by_column.indices, by_column.indptr


def _faults(value: Any, dtypes: tuple[str, ...]) -> tuple[list[str], str]:
    """Why a torch tensor cannot be read, and the calls that fix it; both empty for a readable tensor, and for other objects."""
    if not hasattr(type(value), "requires_grad"):
        return [], ""
    if value.device.type == "meta":
        return ["is on the device 'meta', which holds no entries; pass one that does"], ""
    if value.is_nested:
        return ["is nested; pass one whose rows have one length"], ""
    is_other = value.is_floating_point() and str(value.dtype).removeprefix("torch.") not in dtypes
    faults = (
        (is_other, f"has dtype {value.dtype}", ".float()"),
        (value.is_complex(), f"is complex ({value.dtype})", ".real"),
        (str(value.layout) != "torch.strided", f"has layout {value.layout}", ".to_dense()"),
        (value.is_neg(), "has its sign in a flag", ".resolve_neg()"),
        (value.requires_grad, "requires grad", ".detach()"),
    )
    found = [(why, call) for is_so, why, call in faults if is_so]
    return [why for why, _ in found], "".join(call for _, call in reversed(found))


def refuse_tensor(name: str, value: Any, dtypes: tuple[str, ...] = IN_MEMORY) -> None:
    """Raise TypeError for a torch tensor that cannot be read; says what to pass instead."""
    found, calls = _faults(value, dtypes)
    if found:
        raise TypeError(f"{name} {' and '.join(found)}" + f"; pass {name}{calls}" * bool(calls)) from None


def _in_memory(name: str, value: Any) -> str:
    """The caller's code for a copy in memory of an array that lies elsewhere."""
    methods = [method for method in TO_MEMORY if hasattr(value, method)]
    if not methods and hasattr(value, "__array__"):
        return f"np.asarray({name})"
    return " or ".join(f"{name}{_faults(value, IN_MEMORY)[1]}.{method}()" for method in methods or TO_MEMORY)


def refuse(name: str, value: Any) -> None:
    """Raise TypeError for an array that is not in host memory."""
    if is_on_gpu(value):
        raise TypeError(f"{name} is on a GPU, where an array in memory is needed; pass {_in_memory(name, value)}")
    if type(value) is not np.ndarray and _dlpack_type(value) not in (None, *CPU_DEVICES):
        raise TypeError(
            f"{name} is on a device of DLPack's type {_dlpack_type(value)}, and fastrsx knows memory and GPUs of NVIDIA; "
            f"pass {_in_memory(name, value)}"
        )


class _Interface:
    """An array by its `__cuda_array_interface__`, which keeps its owner alive."""

    def __init__(self, interface: dict[str, Any], owner: Any) -> None:
        self.__cuda_array_interface__, self.owner = interface, owner


def _in_order(value: Any) -> Any:
    """The same array, after its own stream's queued work is ordered before later work on the default stream."""
    if not hasattr(value, "__dlpack__"):
        return value  # Numba then waits for the stream of the interface, where it has one
    value.__dlpack__(stream=DEFAULT_STREAM)  # the exporting library orders its work; the capsule is not needed beside the interface
    if dtype_name(value) == "bfloat16" or not hasattr(value, "__cuda_array_interface__"):
        return _from_dlpack(value)
    return _Interface(value.__cuda_array_interface__ | {"stream": None}, value)


def _from_dlpack(value: Any, stream: int = DEFAULT_STREAM) -> Any:
    """An array whose only interface is DLPack's."""
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(value, stream_ptr=stream)
    strides = None if view.strides is None else tuple(stride * view.dtype.itemsize for stride in view.strides)
    number = "<i2" if view.dtype.name == "bfloat16" else view.dtype.str  # the interface has no string for it
    interface = {"shape": tuple(view.shape), "strides": strides, "typestr": number, "data": (view.ptr, view.readonly), "version": 3}
    return _Interface(interface, view)


def dtype_name(value: Any) -> str:
    """The name of an array's dtype, of NumPy or torch; empty where it has none."""
    return str(getattr(value, "dtype", "")).removeprefix("torch.")


def _bfloat16() -> np.dtype[Any]:
    """NumPy's dtype for it, which is that of another package."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 on a GPU needs the package ml_dtypes, which is not installed: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def _taken(name: str, value: Any) -> Any:
    """An array on the GPU as one of Numba's, ready for work on the default stream."""
    if getattr(value, "__cuda_ndarray__", False):
        if value.stream:
            value.stream.synchronize()
        return value
    cuda = kernels().cuda
    half = _bfloat16() if dtype_name(value) == "bfloat16" else None
    try:
        with on_gpu_of(value):
            array = cuda.as_cuda_array(_in_order(value))
    except BufferError as error:
        raise TypeError(f"{name} cannot be taken over: {error}") from None
    return array if half is None else array.view(half)


def as_array(name: str, value: Any, ndim: int) -> Any:
    """An array on the GPU as one of Numba's, of `ndim` axes, of one of DTYPES; a vector is contiguous. Nothing is copied."""
    refuse_tensor(name, value, DTYPES)
    array = _taken(name, value)
    if array.dtype.name not in DTYPES or not array.dtype.isnative:
        how = f", such as {name}.astype('float64')" if hasattr(value, "astype") else f", such as {name}.double()" if hasattr(value, "double") else ""
        raise TypeError(f"{name} has dtype {array.dtype} on the GPU; pass float64, float32, float16 or bfloat16{how}")
    if len(array.shape) != ndim:
        raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} {'axes' if ndim > 1 else 'axis'}")
    why = "" if array.flags["C_CONTIGUOUS"] else _why_unread(array)
    if why:
        how = f"{name}.contiguous()" if hasattr(value, "contiguous") else f"cupy.ascontiguousarray({name})"
        raise ValueError(f"{name} is on the GPU, but {why}; pass {how}")
    return array


def _why_unread(array: Any) -> str:
    """Why kernels cannot read an array that is not C-ordered, by its strides; empty where they can."""
    if len(array.shape) == 1:
        return "not contiguous"
    if min(array.strides) <= 0:
        return "its rows or columns are repeated or in reverse order"
    where = kernels().address_of(array)
    return "its numbers do not begin on multiples of their size" if any(x % array.dtype.itemsize for x in (where, *array.strides)) else ""


def layout(A: Any) -> str:
    """How a matrix lies on the GPU, where it is not C-ordered; and its numbers, where they have 16 bits."""
    order = "" if A.flags["C_CONTIGUOUS"] else "in Fortran order" if A.flags["F_CONTIGUOUS"] else "with strides"
    return ", ".join(filter(None, (A.dtype.name if A.dtype.name in HALVES else "", order)))


def as_matrix(A: Any) -> Any:
    """A on the GPU, n x d with n, d >= 1; sparse A as a `SparseMatrix`."""
    A = _as_sparse(A) if is_sparse(A) else as_array("A", A, 2)
    if 0 in A.shape:
        raise ValueError(f"A has shape {A.shape}; it needs at least one row and one column")
    return A


def _as_sparse(A: Any) -> SparseMatrix:
    """The same compressed rows; nothing is copied."""
    if isinstance(A, SparseMatrix):
        return A
    if A.format != "csr":
        raise TypeError(f"A is a sparse matrix on the GPU of format {A.format!r}, where compressed rows are needed; pass A.tocsr()")
    if A.dtype not in (np.float64, np.float32):
        raise TypeError(f"A is a sparse matrix on the GPU of dtype {A.dtype}; pass float64 or float32, such as A.astype('float64')")
    kernels()  # says why where there are none
    data, indices, indptr = (_taken(f"A.{name}", getattr(A, name)) for name in ("data", "indices", "indptr"))
    return SparseMatrix(data, indices, indptr, (int(A.shape[0]), int(A.shape[1])))


def as_vector(name: str, value: Any, n: int) -> Any:
    """A vector on the GPU of n entries, which are not checked here."""
    vector = as_array(name, value, 1)
    if vector.shape[0] != n:
        raise ValueError(f"{name} has {vector.shape[0]} entries; it must have {n}, one for each row of A")
    return kernels().widened(vector) if vector.dtype.name in HALVES else vector


def copy(A: np.ndarray) -> Any:
    """A copied to the GPU, in one of DTYPES where A has that, else in float64."""
    A = np.ascontiguousarray(A, dtype=A.dtype.newbyteorder("=") if A.dtype.name in DTYPES else np.float64)
    with room_for(f"A, {A.nbytes / 1e9:.3g} GB,"):
        return kernels().cuda.to_device(A)


def to_host(name: str, value: Any) -> Any:
    """An array on the GPU as one in memory; anything else unchanged."""
    if not is_on_gpu(value):
        return value
    array = as_array(name, value, len(value.shape))
    if not array.flags["C_CONTIGUOUS"]:  # Numba would also copy all that lies between its entries
        with room_for(f"a copy of {array.shape[0]} rows of {name}"):
            array = kernels().contiguous(array)
    return array.copy_to_host()
