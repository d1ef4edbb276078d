"""What kernels read for the caller's A: A in place, whatever its layout, or a copy where they cannot read it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from fastrsx.kernels.layouts import registry

from . import inputs
from .inputs import Matrix
from .system import cluster, device
from .system.memory import LARGE, free

COPIED_UP_TO = 2**20  # numbers; a copy takes 4 ms, and kernels for other layouts are compiled for seconds at their first use
CHUNK = 4096  # rows that Python processes together
STREAMED_FROM = 0.5  # of the memory that is free; a smaller map may stay in the page cache, and is then read at the speed of memory

LOADERS = {
    "in place": "A read in place",
    "panels": "A read in place, and packed panel by panel",
    "copy": "A converted to C-ordered float64",
    "stream": "A read from disk in chunks",
    "dask": "A read by dask in chunks",
    "sparse": "sparse A read in place",
    "device": "A read on the GPU",
    "device copy": "A copied to the GPU once",
    "device sparse": "sparse A read on the GPU",
    "sparse copy": "A converted to canonical compressed rows of 32-bit indices",
}


class Loader(NamedTuple):
    """How A is read: a key of LOADERS or the name of a registered layout, and why, where it is converted; on a GPU, its layout if it is another."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        layout = registry.named(self.name)
        return LOADERS[self.name] + (f" ({self.why})" if self.why else "") if layout is None else layout.words


IN_PLACE = Loader("in place")


class Data(NamedTuple):
    """A and the form of it that the kernels read."""

    A: Any  # n x d: an array, or a csr_array
    source: Any  # of the kernels; valid while A lives
    loader: Loader
    gram_bounds: npt.NDArray[np.int64] | None = None  # see `fastrsx.kernels.layouts.csr.share_out`
    gram_updates: float = 0.0  # of a Gram matrix by outer products of sparse rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.A.shape


class Recast:
    """A times a matrix, its rows formed on request."""

    dtype = np.dtype(np.float64)

    def __init__(self, A: Any, matrix: Matrix) -> None:
        self.A, self.matrix = A, matrix
        self.shape = A.shape[0], matrix.shape[1]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, which: Any) -> Matrix:
        return np.asarray(as_rows(self.A, which) @ self.matrix)


def as_rows(A: Any, which: Any) -> Matrix:
    """Some rows of an array or csr_array, by a slice or by numbers, as a float64 matrix."""
    rows = cluster.compute(device.to_host("A", A[which]))
    return np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float64)


def chunks(A: Any, rows: int = CHUNK) -> Iterator[tuple[slice, Matrix]]:
    """A, so many rows at a time, each chunk by `as_rows`."""
    for start in range(0, A.shape[0], rows):
        which = slice(start, start + rows)
        yield which, as_rows(A, which)


def as_data(A: Any) -> Any:
    """A as an array or sparse matrix, n x d with n, d >= 1; its entries are not checked here (see `inputs.refuse_column`)."""
    if isinstance(A, Recast) or registry.layout_of(A) is not None:
        return A
    if type(A) is np.ndarray:
        return inputs.as_data(A)
    if device.is_on_gpu(A):
        return device.as_matrix(A)
    if cluster.is_readable(A):
        return cluster.as_matrix(A)
    if hasattr(type(A), "to_coo"):  # a dictionary of pydata/sparse
        A = A.to_coo()
    if not sparse.issparse(A) and not hasattr(type(A), "to_scipy_sparse"):
        array = inputs.as_data(A)
        return A if isinstance(A, np.memmap) and not A.dtype.names else array
    if A.dtype.kind not in "fiub":
        how = "A.real" if A.dtype.kind == "c" else "A.astype(float)"
        raise TypeError(f"A is a sparse matrix of dtype {A.dtype}; pass real numbers, such as {how}")
    if A.ndim != 2:
        raise ValueError(f"A has shape {A.shape}; it must have 2 axes: (n, d)" + "; if it is one column, pass A.reshape((-1, 1))" * (A.ndim == 1))
    if not sparse.issparse(A):
        try:
            A = A.to_scipy_sparse()
        except ValueError as error:  # its fill value is not 0
            raise ValueError(f"A cannot be read as compressed rows: {error}; pass A.todense()") from None
    if 0 in A.shape:
        raise ValueError(f"A has shape {A.shape}; it needs at least one row and one column")
    if A.shape[1] > np.iinfo(np.int32).max:
        raise ValueError(f"A has {A.shape[1]} columns; columns of sparse A are numbered by 32 bits: leave out the empty ones")
    return A


def loader_of(A: Any, kernel: str = "auto") -> Loader:
    """How A, from `as_data`, would be read; `kernel` is as in `Problem`."""
    if isinstance(A, Recast):
        return Loader("stream")
    if (layout := registry.layout_of(A)) is not None:
        return Loader(layout.name)
    if type(A) is np.ndarray and kernel != "cuda" and inputs.is_ready(A):
        return IN_PLACE  # as below, sooner
    if device.is_on_gpu(A):
        if kernel in ("auto", "cuda"):
            return Loader("device sparse") if device.is_sparse(A) else Loader("device", device.layout(A))
        raise ValueError(f"kernel is {kernel!r}, and A is on a GPU; pass kernel='auto', or A in memory: A.get(), A.cpu() or A.copy_to_host()")
    if cluster.is_collection(A):
        if kernel in ("auto", "serial"):
            return Loader("dask")
        raise ValueError(f"kernel is {kernel!r}, and A is a collection of dask, whose tasks run serial kernels; pass kernel='auto'")
    if kernel == "cuda":
        if sparse.issparse(A):
            raise ValueError(
                "kernel is 'cuda', which is for dense A in memory; pass cupyx.scipy.sparse.csr_matrix(A), A.toarray() (of pydata/sparse, "
                "A.todense()), or another kernel"
            )
        return Loader("device copy")
    if type(A) is not np.ndarray and sparse.issparse(A):
        if A.format != "csr":
            return Loader("sparse copy", f"from {A.format}")
        if A.dtype not in (np.float64, np.float32):
            return Loader("sparse copy", f"from {A.dtype}")
        return Loader("sparse copy", "from 64-bit indices") if A.indices.dtype != np.int32 else Loader("sparse")
    if isinstance(A, np.memmap) and A.nbytes > LARGE and A.nbytes > STREAMED_FROM * free():
        return Loader("stream")
    if inputs.is_ready(A):
        return IN_PLACE
    if not A.dtype.isnative:
        return Loader("copy", "the bytes of its numbers are swapped")
    if A.dtype.itemsize > 8:
        return Loader("copy", f"from {A.dtype}")
    if A.size <= COPIED_UP_TO:
        return Loader("copy", "it is small")
    return Loader("in place" if _is_single(A) else "panels")


def _is_single(A: npt.NDArray[Any]) -> bool:
    """Whether kernels read A as float32 in place."""
    return A.dtype == np.float32 and A.flags.c_contiguous and A.flags.aligned


def load(A: Any, kernel: str = "auto") -> Data:
    """A, from `as_data`, for the kernels."""
    loader = loader_of(A, kernel)
    if loader is IN_PLACE:
        return Data(A, inputs.read_only(A), loader)
    if (layout := registry.named(loader.name)) is not None:
        return Data(A, layout.source_of(A), loader)
    if loader.name == "device":
        return Data(A, A, loader)
    if loader.name == "device sparse":
        return Data(A, A.source, loader)
    if loader.name == "dask":
        return Data(cluster.kept(A, STREAMED_FROM * free()), None, loader)
    if loader.name == "device copy":
        return Data(A, device.copy(A), loader)
    if loader.name.startswith("sparse"):
        return _load_sparse(A, loader)
    if loader.name == "copy":
        A = inputs.as_ready(A)
    if loader.name == "stream":
        return Data(A, None, loader)
    if loader.name == "panels":
        from fastrsx.kernels.layouts.strided import strided

        return Data(A, strided(A), loader)
    return Data(A, inputs.read_only(A), loader)


def _load_sparse(A: Any, loader: Loader) -> Data:
    from fastrsx.kernels.layouts import csr

    n, d = A.shape
    A = A.tocsr()  # itself where it is one
    values = np.ascontiguousarray(A.data if A.data.dtype in (np.float64, np.float32) else A.data.astype(np.float64))
    row, is_wrong = csr.problem_at(A.indices, A.indptr, d)
    if is_wrong:
        raise ValueError(f"A is no valid CSR matrix: the columns of row {row} do not lie in 0..{d - 1}, or indptr is not ascending there")
    indices, starts = A.indices.astype(np.int32, copy=False), A.indptr.astype(np.int64, copy=False)
    if row >= 0:
        loader = Loader("sparse copy", loader.why or "columns were not ascending, or duplicate")
        A = sparse.csr_array((values, indices, A.indptr), shape=(n, d), copy=True)
        A.sum_duplicates()
        values, indices, starts = A.data, A.indices.astype(np.int32, copy=False), A.indptr.astype(np.int64)
    A = sparse.csr_array((values, indices, A.indptr), shape=(n, d))
    source = csr.Csr(*map(inputs.read_only, (values, indices, starts)), n, d)
    bounds = np.empty(csr.RANGES + 1, dtype=np.int64)
    updates = csr.share_out(source, bounds)
    return Data(A, source, loader, bounds, updates)
