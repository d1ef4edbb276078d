"""Collections of dask as chunks of rows. dask is found where a collection exists, and never imported before."""

import hashlib
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

SCHEDULERS = ("distributed", "dask.distributed")  # the names that dask has for a cluster
FAN_IN = 8  # results that a task merges, so that no worker holds those of all chunks


def is_collection(value: Any) -> bool:
    """Whether a value is computed by dask on request."""
    if type(value) is np.ndarray:
        return False
    dask = sys.modules.get("dask.base")  # loaded wherever a collection exists
    return dask is not None and bool(dask.is_dask_collection(value))


def is_readable(value: Any) -> bool:
    """Whether a collection has rows in chunks."""
    kind = type(value)  # a Delayed has any attribute
    return is_collection(value) and (hasattr(kind, "to_dask_array") or hasattr(kind, "compute_chunk_sizes"))


def _as_array(name: str, value: Any, ndim: int) -> Any:
    """A collection as a dask array of known chunks."""
    given = value
    if hasattr(value, "to_dask_array"):
        value = value.to_dask_array(lengths=True)
    if value.ndim != ndim:
        raise ValueError(f"{name} has shape {given.shape}; it must have {ndim} {'axes' if ndim > 1 else 'axis'}")
    if value.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {value.dtype}; pass real numbers, such as {name}.astype(float)")
    if any(np.isnan(size) for sizes in value.chunks for size in sizes):
        todo = f"call {name}.compute_chunk_sizes() to compute them once"
        warnings.warn(f"the sizes of {name}'s chunks are unknown, and computing them reads it once more; {todo}", stacklevel=5)
        value = value.copy()  # which computing the sizes would change
        value.compute_chunk_sizes()
    return value


def as_matrix(A: Any) -> Any:
    """A, n x d, its rows in chunks."""
    A = _as_array("A", A, 2)
    if 0 in A.shape:
        raise ValueError(f"A has shape {A.shape}; it needs at least one row and one column")
    if A.numblocks[1] > 1:
        raise ValueError(f"A has its {A.shape[1]} columns in {A.numblocks[1]} chunks; pass A.rechunk({{1: -1}}), so that a chunk has whole rows")
    return A


def as_vector(name: str, value: Any, n: int) -> Any:
    """A collection with an entry for each row of A; its entries are not checked here."""
    vector = _as_array(name, value, 1)
    if vector.shape[0] != n:
        raise ValueError(f"{name} has {vector.shape[0]} entries; it must have {n}, one for each row of A")
    return vector


def constant(A: Any, value: float) -> Any:
    """A vector of one value, with an entry for each row of A."""
    import dask.array

    return dask.array.full(A.shape[:1], value, chunks=(A.chunks[0],))


def kept(A: Any, room: float) -> Any:
    """A with its chunks computed once: on a cluster, or here where they take at most so many bytes; else they are computed for each read."""
    return A.persist() if has_client() or A.nbytes <= room else A


def has_client() -> bool:
    """Whether dask would compute on a cluster."""
    distributed = sys.modules.get("distributed")
    if distributed is None or sys.modules["dask"].config.get("scheduler", "distributed") not in SCHEDULERS:
        return False
    try:
        return distributed.get_client() is not None
    except ValueError:  # there is none
        return False


def compute(value: Any) -> Any:
    """A collection as an array or a sparse matrix in memory; anything else unchanged."""
    return value.compute() if is_collection(value) else value


def merged(merge: Callable[[list[Any]], Any], parts: list[Any]) -> Any:
    """Parts merged in their order, a few at a time, by `merge`."""
    while len(parts) > 1:
        parts = [merge(parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
    return parts[0]


def folded(A: Any, fold: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any) -> Any:
    """The results of fold(chunk, *args) for each chunk of A with rows, merged in their order, a few at a time."""
    import dask

    parts = [dask.delayed(fold)(chunk, *args) for chunk, rows in zip(A.to_delayed()[:, 0], A.chunks[0], strict=True) if rows]
    return merged(dask.delayed(merge), parts).compute()


def digest(vector: Any) -> bytes:
    """A hash of a vector's entries, computed where its chunks lie."""
    import dask

    parts = [dask.delayed(_hash)(part) for part in vector.to_delayed().ravel()]
    return b"".join(dask.compute(*parts))


def _hash(part: Any) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(part, dtype=np.float64).data).digest()
