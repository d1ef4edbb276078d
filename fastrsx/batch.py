"""Many small problems at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from fastrsx.kernels import batch
from fastrsx.kernels.links import RSX

from . import device, inputs, threads
from .inputs import Vector
from .planning import check_kernel
from .result import Status

LEAST, MOST = 2**14, 2**22  # entries of A in one call of the kernel, which Ctrl-C waits for: from 0.1 ms, what a thread is worth, to some 20 ms
PARTS = 8  # calls for each thread, so that none waits long for the last


class BatchResult(OptimizeResult):
    """The results of `newton_batch`, an entry for each problem.

    Attributes
    ----------
    x : (k, d) array, or list of k arrays where the d_j differ
        The solutions, or the best points found.
    fun : (k,) array
        The losses there; inf or NaN where x0 lies outside the domain or the data are not finite.
    success : (k,) array of bool
    status : (k,) array of int
        The value of a `Status`.
    message : str
        How many ended in which way.
    nit, nfev : (k,) array of int
        Accepted steps, and evaluations of the loss.
    """


def newton_batch(
    A: Any, b: Any, x0: Any = None, *, w: Any = None, tol: float = 1e-10, max_iter: int = 100, num_threads: int | None = None
) -> BatchResult:
    """Solve many small problems, each as `newton` with the exact Hessian would, in parallel over the problems.

    Parameters
    ----------
    A : (k, n, d) array_like, or sequence of k (n_j, d_j) array_like
        The data. A C-ordered float64 array is read in place; else they are copied.
    b : (k, n) array_like, or sequence of k (n_j,) array_like
        The targets.
    x0 : (k, d) array_like, or sequence of k (d_j,) array_like, optional
        The starts, by default 0.
    w : float, (k, n) array_like, or sequence of k (n_j,) array_like, optional
        Weights of the regulariser, at least 0.
    tol, max_iter, num_threads : optional
        As in `newton`.

    Returns
    -------
    BatchResult
        A problem that fails, whose data are not finite, or whose x0 lies outside the domain (status NONFINITE) leaves the others as they are.
        Where columns of an A are linearly dependent, x is one of the solutions.

    Raises
    ------
    ValueError, TypeError
        For shapes and dtypes that do not match; the message names the argument and the problem.

    Notes
    -----
    Any number of threads may call it; x has the same bits for any num_threads. Nothing passed in is modified.

    Examples
    --------
    >>> import numpy as np, fastrsx
    >>> rng = np.random.default_rng(0)
    >>> A, x = rng.standard_normal((1000, 50, 2)), 0.3 * rng.standard_normal((1000, 2))
    >>> b = [fastrsx.predict(A[j], x[j]) for j in range(1000)]
    >>> result = fastrsx.newton_batch(A, b)
    >>> bool(result.success.all()), bool(np.allclose(result.x, x)), result.message
    (True, True, '1000 EXACT_FIT')
    """
    tol, max_iter = inputs.as_positive("tol", tol), inputs.as_count("max_iter", max_iter, 0)
    _, num_threads = check_kernel("auto", num_threads)
    entries, n, d = _as_batch(A)
    targets = _joined("b", b, n)
    is_number = not isinstance(w, (list, tuple)) and np.ndim(w) == 0
    weights = np.empty(0) if w is None else np.full(n.sum(), inputs.as_number("w", w)) if is_number else _joined("w", w, n)
    if (weights < 0).any():
        i = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"w has {weights[i]} in problem {int(np.searchsorted(np.cumsum(n), i, 'right'))}; weights must be at least 0")
    x = np.zeros(d.sum()) if x0 is None else _joined("x0", x0, d).copy()
    places = [np.cumsum(size) - size for size in (n * d, n, d)]
    order = np.lexsort((d, n))  # problems of one shape are solved eight at a time
    read = [inputs.read_only(array) for array in (entries, targets, weights)]
    shapes = [array[order] for array in (n, d, *places)]
    results = np.empty(len(n), np.int64), np.empty(len(n)), *np.empty((2, len(n)), np.int64)

    def solve(part: slice) -> None:
        batch.solve_each(RSX, read[0], x, *read[1:], *(array[part] for array in shapes), tol, max_iter, *(array[part] for array in results))

    # The kernel lets go of the GIL, so Python's threads are as good as Numba's, and any number of them may run, on any layer, after any fork.
    count = threads.in_use() if num_threads is None else num_threads
    parts = _parts((n * d)[order], PARTS * count)
    with ThreadPoolExecutor(count) if min(count, len(parts)) > 1 else nullcontext() as pool:
        for _ in (pool.map if pool else map)(solve, parts):
            pass
    status, fun, nit, nfev = (np.empty_like(array) for array in results)
    for array, result in zip((status, fun, nit, nfev), results, strict=True):
        array[order] = result
    counts = ((code.name, int((status == code).sum())) for code in Status)
    return BatchResult(
        x=x.reshape(len(n), -1) if (d == d[0]).all() else np.split(x, places[2][1:]),
        fun=fun,
        success=np.isin(status, [code for code in Status if code.success]),
        status=status,
        message=", ".join(f"{count} {name}" for name, count in counts if count),
        nit=nit,
        nfev=nfev,
    )


def _parts(entries: np.ndarray, count: int) -> list[slice]:
    """Ranges of problems with about as many entries each: so many ranges, or fewer of LEAST, or more of MOST."""
    total = np.cumsum(entries)
    count = -(-total[-1] // min(MOST, max(LEAST, -(-total[-1] // count))))
    stops = np.unique(np.searchsorted(total, np.arange(1, count + 1) / count * total[-1]) + 1)
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _as_batch(A: Any) -> tuple[Vector, np.ndarray, np.ndarray]:
    """All entries end to end, and the n and d of each problem."""
    device.refuse("A", A)
    if hasattr(A, "ndim"):
        A = A if isinstance(A, np.ndarray) else np.asarray(A)
        if A.ndim != 3 or 0 in A.shape:
            raise ValueError(f"A has shape {A.shape}; it must have 3 axes, (k, n, d), none of them empty, or be a list of matrices")
        entries = inputs.as_ready(inputs.as_data(A.reshape(-1, A.shape[2])))  # in place where A is ready
        n, d = (np.full(A.shape[0], size) for size in A.shape[1:])
        return entries.reshape(-1), n, d
    if not hasattr(A, "__len__"):
        raise TypeError(f"A is {A!r}; it must be an array of 3 axes, (k, n, d), or a list of matrices")
    if not len(A):
        raise ValueError("A holds no problem; it needs at least one")
    matrices = [_named(j, inputs.as_data, matrix) for j, matrix in enumerate(A)]
    n, d = np.array([matrix.shape for matrix in matrices]).T.copy()
    return np.concatenate([matrix.ravel() for matrix in matrices]).astype(np.float64, copy=False), n, d


def _named(j: int, check: Callable[..., Any], *args: Any) -> Any:
    """check(*args), whose errors name the problem."""
    try:
        return check(*args)
    except (TypeError, ValueError) as error:
        raise type(error)(f"problem {j}: {error}") from None


def _joined(name: str, values: Any, sizes: np.ndarray) -> Vector:
    """One vector for each problem, end to end; a ready array is read in place."""
    if not hasattr(values, "__len__") or len(values) != len(sizes):
        found = f"of length {len(values)}" if hasattr(values, "__len__") else "no sequence"
        raise ValueError(f"{name} is {found}; it must have {len(sizes)} vectors, one for each problem")
    if isinstance(values, np.ndarray) and values.shape == (len(sizes), sizes[0]) and (sizes == sizes[0]).all():
        return inputs.as_ready(inputs.of_size(name, values.reshape(-1), values.size, "as given"))
    values = values if isinstance(values, (list, tuple)) else np.asarray(values)
    vectors = [
        _named(j, inputs.of_size, name, value, size, "as its A has it") for j, (value, size) in enumerate(zip(values, sizes.tolist(), strict=True))
    ]
    return np.concatenate(vectors).astype(np.float64, copy=False)
