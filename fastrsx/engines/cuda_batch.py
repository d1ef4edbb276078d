"""Many small problems that lie on a GPU: the arrays of `newton_batch` there, and what comes back."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastrsx.kernels.formulas.links import RSX
from fastrsx.kernels.gpu import batch as kernels
from fastrsx.kernels.newton.small import STATUS

from .. import inputs
from ..system import device

FETCHED = 2**25  # numbers of the problems that are fetched at a time


class Batch(NamedTuple):
    """The problems, on the GPU that holds A."""

    A: Any  # k x n x d
    b: Any  # k x n
    w: Any  # k x n, or 1 x 1 for a number, or empty
    x0: Any  # k x d, or 1 x d for zeros


class Answers(NamedTuple):
    """How each problem ended, in memory."""

    x: np.ndarray  # k x d
    fun: np.ndarray
    status: np.ndarray
    nit: np.ndarray
    nfev: np.ndarray
    left: np.ndarray  # the numbers of those that the CPU has to solve


def as_batch(A: Any, b: Any, w: Any, x0: Any) -> Batch:
    """The arguments of `newton_batch`, checked; what is in memory is copied to the GPU."""
    holder, A = device.index_of(A), device.as_array("A", A, 3)
    if 0 in A.shape:
        raise ValueError(f"A has shape {A.shape}; none of its 3 axes, (k, n, d), may be empty")
    k, n, d = A.shape
    if d > kernels.MOST_COLUMNS:
        raise ValueError(
            f"A has {d} columns, and on a GPU newton_batch solves problems of at most {kernels.MOST_COLUMNS}; "
            "pass each A[j] to newton, or copy A to memory"
        )

    def there(name: str, value: Any, columns: int, what: str) -> Any:
        if device.is_on_gpu(value):
            if device.index_of(value) != holder:
                raise ValueError(f"{name} is on GPU {device.index_of(value)}, and A on GPU {holder}; move one of them to the other's")
            value = device.as_array(name, value, 2)
        else:
            value = inputs.as_real(name, value, what, 2)
        if value.shape != (k, columns):
            raise ValueError(f"{name} has shape {value.shape}; it must have {(k, columns)}, {what}, as A has it")
        with device.room_for(f"{name}, {8e-9 * k * columns:.3g} GB,"):
            return value if device.is_on_gpu(value) else kernels.cuda.to_device(inputs.as_ready(value))

    def copied(*shape: int, value: float = 0.0) -> Any:
        return kernels.cuda.to_device(np.full(shape, value))

    if w is None:
        weights = copied(1, 0)
    elif np.isscalar(w) or getattr(w, "ndim", 1) == 0:
        weights = copied(1, 1, value=inputs.as_number("w", w))
    else:
        weights = there("w", w, n, "(k, n)")
    return Batch(A, there("b", b, n, "(k, n)"), weights, copied(1, d) if x0 is None else there("x0", x0, d, "(k, d)"))


def solve(batch: Batch, tol: float, max_iter: int) -> Answers:
    """Solve all of them but those that leave; what these have in the answers is where they left."""
    stream = device.stream()
    with device.room_for(f"room for the results of {batch.A.shape[0]} problems"):
        solved = kernels.solve_all(RSX, batch.A, batch.b, batch.w, batch.x0, tol, max_iter, stream)
    x, fun, counts = (array.copy_to_host(stream=stream) for array in solved)
    stream.synchronize()
    fates, nit, nfev = counts.T.astype(np.int64)
    bad = np.flatnonzero(fates == kernels.BAD_WEIGHT)
    if bad.size:
        found = taken(batch.w, bad[:1])
        raise ValueError(f"w has {found[found < 0][0]} in problem {bad[0]}; weights must be at least 0")
    left = fates == kernels.LEFT
    return Answers(x, fun, np.array(STATUS)[np.where(left, 0, fates)], nit, nfev, np.flatnonzero(left))


def fetch(array: Any, which: np.ndarray) -> Iterator[np.ndarray]:
    """Those problems of an array, in memory, some at a time."""
    each = max(1, FETCHED // (array.size // array.shape[0]))
    for start in range(0, len(which), each):
        yield kernels.take(array, which[start : start + each], device.stream())


def fetch_problems(batch: Batch, which: np.ndarray) -> Iterator[tuple[Any, ...]]:
    """The numbers of some of those problems at a time, and their A, b, w and x0 in memory; w may be None."""
    each = max(1, FETCHED // (batch.A.size // batch.A.shape[0]))
    for start in range(0, len(which), each):
        some = which[start : start + each]
        A, b, x0 = (taken(array, some) for array in (batch.A, batch.b, batch.x0))
        yield some, A, b, np.broadcast_to(taken(batch.w, some), b.shape) if batch.w.size else None, x0


def taken(array: Any, which: np.ndarray) -> np.ndarray:
    """Those problems of an array, in memory, where one may serve all problems."""
    return kernels.take(array, which if array.shape[0] > 1 else np.zeros(len(which), np.int64), device.stream())
