"""Many small problems at once."""

from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult

from fastrsx.kernels.formulas.links import RSX
from fastrsx.kernels.lanes import batch

from . import frames, inputs
from .inputs import Vector
from .planning import check_kernel
from .result import SUM_TOL, Status
from .system import device, threads

LEAST, MOST = 2**14, 2**22  # entries of A in one call of the kernel, which Ctrl-C waits for: from 0.1 ms, which repays a thread, to about 20 ms
PARTS = 8  # calls for each thread, so that none waits long for the last


class BatchResult(OptimizeResult):
    """The results of `newton_batch`, an entry for each problem.

    Attributes
    ----------
    x : (k, d) array, or list of k arrays where the d_j differ
        The solutions, or the best points found.
    names : tuple of str, or None, or list of k such where they differ
        The columns of A, where it holds tables.
    fun : (k,) array
        The losses there; inf or NaN where x0 lies outside the domain or the data are not finite.
    success : (k,) array of bool
    status : (k,) array of int
        The value of a `Status`.
    message : str
        How many ended in each way.
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
        The data. A C-ordered float64 array is read in place; else they are copied. An array of 3 axes may lie on a GPU, with d at most
        16; it is read there, in float64 or float32, and b, w and x0 may lie there too.
    b : (k, n) array_like, or sequence of k (n_j,) array_like
        The targets. Labels of b, w and x0 are compared with those of A, problem by problem, as in `newton`.
    x0 : (k, d) array_like, or sequence of k (d_j,) array_like, optional
        The starts, by default 0.
    w : float, (k, n) array_like, or sequence of k (n_j,) array_like, optional
        Weights of the regulariser, at least 0.
    tol, max_iter, num_threads : optional
        As in `newton`.

    Returns
    -------
    BatchResult
        A problem that fails, whose data are not finite, or whose x0 lies outside the domain (status NONFINITE) does not affect the others.
        Where columns of an A are linearly dependent, x is one of the solutions.

    Raises
    ------
    ValueError, TypeError
        For shapes, dtypes and labels that do not match; the message names the argument and the problem.

    Notes
    -----
    Any number of threads may call it; x has the same bits for any num_threads. Nothing passed in is modified.

    Where A lies on a GPU, one launch takes all problems, with the same tests, and the CPU solves those that it leaves, as where columns
    are nearly dependent (docs/gpu.md). The results are NumPy's. This has run in Numba's simulator only, on no GPU yet.

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
    if device.is_on_gpu(A):
        return _on_gpu(A, b, x0, w, tol, max_iter, num_threads)
    A, b, w, x0 = map(frames.listed, (A, b, w, x0))
    entries, n, d, tables, names = _as_batch(A)
    for name, value in (("b", b), ("w", w), ("x0", x0)):
        frames.check_rows(A, name, frames.index_of(value))  # these number the problems

    def check_rows(j: int, name: str, index: Any) -> None:
        frames.check_rows(tables[j], name, index)

    def check_columns(j: int, name: str, labels: Any) -> None:
        frames.check_columns(names[j], name, labels)

    targets = _joined("b", b, n, frames.index_of, check_rows)
    inputs.refuse("w", w)
    is_number = not isinstance(w, (list, tuple)) and np.ndim(w) == 0
    weights = np.empty(0)
    if w is not None:
        weights = np.full(n.sum(), inputs.as_number("w", w)) if is_number else _joined("w", w, n, frames.index_of, check_rows)
    if (weights < 0).any():
        i = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"w has {weights[i]} in problem {int(np.searchsorted(np.cumsum(n), i, 'right'))}; weights must be at least 0")
    x = np.zeros(d.sum()) if x0 is None else _joined("x0", x0, d, frames.labels_of, check_columns).copy()
    places = [np.cumsum(size) - size for size in (n * d, n, d)]
    order = np.lexsort((d, n))  # problems of one shape are solved eight at a time
    read = [inputs.read_only(array) for array in (entries, targets, weights)]
    shapes = [array[order] for array in (n, d, *places)]
    results = np.empty(len(n), np.int64), np.empty(len(n)), *np.empty((2, len(n)), np.int64)

    def solve(part: slice) -> None:
        where, out = batch.Places(*(array[part] for array in shapes)), batch.Outcomes(*(array[part] for array in results))
        batch.solve_each(RSX, read[0], x, *read[1:], where, tol, max_iter, out)

    # The kernel releases the GIL, so Python's threads are as good as Numba's, and any number of them may run, on any layer, after any fork.
    count = threads.in_use() if num_threads is None else num_threads
    parts = _parts((n * d)[order], PARTS * count)
    with ThreadPoolExecutor(count) if min(count, len(parts)) > 1 else nullcontext() as pool:
        for _ in (pool.map if pool else map)(solve, parts):
            pass
    status, fun, nit, nfev = (np.empty_like(array) for array in results)
    for array, result in zip((status, fun, nit, nfev), results, strict=True):
        array[order] = result
    success = _succeeded(status)
    return BatchResult(
        x=x.reshape(len(n), -1) if (d == d[0]).all() else np.split(x, places[2][1:]),
        names=names[0] if names.count(names[0]) == len(names) else names,
        fun=fun,
        success=success,
        status=status,
        message=_message(status, np.flatnonzero(~success), targets, places[1], n),
        nit=nit,
        nfev=nfev,
    )


def _on_gpu(A: Any, b: Any, x0: Any, w: Any, tol: float, max_iter: int, num_threads: int | None) -> BatchResult:
    """The same where A lies on a GPU: one launch, and the CPU for the problems that it leaves."""
    device.kernels()  # says why there are none, before anything needs them
    from .engines import cuda_batch

    with device.on_gpu_of(A):
        batch = cuda_batch.as_batch(A, b, w, x0)
        found = cuda_batch.solve(batch, tol, max_iter)
        x, fun, status, nit, nfev, left = found
        for some, A, b, w, x0 in cuda_batch.fetch_problems(batch, left):
            rest = newton_batch(A, b, x0, w=w, tol=tol, max_iter=max_iter, num_threads=num_threads)
            for array, result in ((x, rest.x), (fun, rest.fun), (status, rest.status), (nit, rest.nit), (nfev, rest.nfev)):
                array[some] = result
        success = _succeeded(status)
        failed = np.flatnonzero(~success)
        targets = np.concatenate([np.empty(0), *(some.ravel() for some in cuda_batch.fetch(batch.b, failed))])
    n, starts = np.full(len(x), batch.A.shape[1]), np.zeros(len(x), np.int64)
    starts[failed] = batch.A.shape[1] * np.arange(len(failed))
    message = _message(status, failed, targets, starts, n)
    return BatchResult(x=x, names=None, fun=fun, success=success, status=status, message=message, nit=nit, nfev=nfev)


def _succeeded(status: np.ndarray) -> np.ndarray:
    """Whether each status is a success."""
    return np.isin(status, [code for code in Status if code.success])


def _message(status: np.ndarray, failed: np.ndarray, targets: Vector, starts: np.ndarray, n: np.ndarray) -> str:
    """How many ended in each way, and how many of those that failed have a b that does not sum to 1."""
    counts = ((code.name, int((status == code).sum())) for code in Status)
    message = ", ".join(f"{count} {name}" for name, count in counts if count)
    off = [j for j in failed.tolist() if SUM_TOL < abs(targets[starts[j] : starts[j] + n[j]].sum() - 1) < np.inf]
    if off:
        message += f"; of those without success {len(off)} have a b that does not sum to 1, as f does: the first is problem {off[0]}"
    return message


def _parts(entries: np.ndarray, count: int) -> list[slice]:
    """Ranges of problems with about as many entries each: `count` ranges, or fewer of LEAST entries, or more of MOST."""
    total = np.cumsum(entries)
    count = -(-total[-1] // min(MOST, max(LEAST, -(-total[-1] // count))))
    stops = np.unique(np.searchsorted(total, np.arange(1, count + 1) / count * total[-1]) + 1)
    return [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def _as_batch(A: Any) -> tuple[Vector, np.ndarray, np.ndarray, list[Any], list[frames.Names]]:
    """All entries end to end; and for each problem n, d, A as passed, and the names of its columns."""
    inputs.refuse("A", A)
    if getattr(A, "ndim", 1) != 1:
        array = inputs.as_real("A", A, "(k, n, d), none of them empty; or pass a list of matrices", 3)
        if 0 in array.shape:
            raise ValueError(f"A has shape {array.shape}; none of its 3 axes, (k, n, d), may be empty")
        entries = inputs.as_ready(array.reshape(-1, array.shape[2]))  # in place where A is ready
        n, d = (np.full(array.shape[0], size) for size in array.shape[1:])
        return entries.reshape(-1), n, d, [A[0]] * len(array), [frames.names_of(A[0])] * len(array)
    if not _is_sequence(A):
        raise TypeError(f"A is {inputs.shown(A)}; it must be an array of 3 axes, (k, n, d), or a list of matrices")
    if not len(A):
        raise ValueError("A holds no problem; it needs at least one")
    matrices = [_named(j, inputs.as_data, matrix) for j, matrix in enumerate(A)]
    n, d = np.array([matrix.shape for matrix in matrices]).T.copy()
    entries = np.concatenate([matrix.ravel() for matrix in matrices]).astype(np.float64, copy=False)
    return entries, n, d, list(A), list(map(frames.names_of, A))


def _is_sequence(value: Any) -> bool:
    """Whether it has entries in order; those of a dict may be in another order than those of another dict."""
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0 and not isinstance(value, (Mapping, Set, str))


def _named(j: int, check: Callable[..., Any], *args: Any) -> Any:
    """check(*args), whose errors name the problem."""
    try:
        return check(*args)
    except (TypeError, ValueError) as error:
        raise type(error)(f"problem {j}: {error}") from None


def _joined(name: str, values: Any, sizes: np.ndarray, labels_of: Callable[..., Any], check: Callable[[int, str, Any], None]) -> Vector:
    """One vector for each problem, end to end; a ready array is read in place. `check` gets the labels of each."""
    inputs.refuse(name, values)
    if not _is_sequence(values) or len(values) != len(sizes):
        found = f"of length {len(values)}" if _is_sequence(values) else f"no sequence, but {frames.kind_of(values)}"
        raise ValueError(f"{name} is {found}; it must have {len(sizes)} vectors, one for each problem")
    if isinstance(values, np.ndarray) and values.shape == (len(sizes), sizes[0]) and (sizes == sizes[0]).all():
        return inputs.as_ready(inputs.of_size(name, values.reshape(-1), values.size, "as given"))
    if frames.table_labels(values) or getattr(values, "ndim", 1) == 2:
        labels = [labels_of(values, 1)] * len(sizes)
        values = inputs.as_real(name, values, "(k, n)", 2)
    else:
        labels = list(map(labels_of, values))
    vectors = []
    for j, (value, size) in enumerate(zip(values, sizes.tolist(), strict=True)):
        vectors.append(_named(j, inputs.of_size, name, value, size, "as its A has it"))
        _named(j, check, j, name, labels[j])
    return np.concatenate(vectors).astype(np.float64, copy=False)
