"""Help for an A on a cluster of dask: the sizes of its chunks, and compiling ahead on every worker. `newton` takes a dask array as it is."""

import time
from typing import Any

import numpy as np

from . import inputs

SECONDS = 0.2  # of work in a chunk, on one thread: much more than a scheduler needs for a task, and little to lose with a worker
MOST_BYTES = 2**29  # of a chunk in float64


def chunks(n: int, d: int) -> tuple[tuple[int, ...], tuple[int]]:
    """Sizes of chunks for an n x d dask array that `newton` takes: whole rows, nearly equal, each about 0.2 s of work and at most 0.5 GB.

    Parameters
    ----------
    n, d : int
        The shape of A.

    Returns
    -------
    tuple of tuples of int
        For `dask.array.from_array(A, chunks=...)` or `A.rechunk(...)`.

    Raises
    ------
    TypeError, ValueError
        If n or d is no positive integer.

    Examples
    --------
    >>> import fastrsx.dask
    >>> fastrsx.dask.chunks(1000, 5)
    ((1000,), (5,))
    >>> rows, columns = fastrsx.dask.chunks(40_000_000, 64)
    >>> sum(rows), columns, max(rows) - min(rows) <= 1
    (40000000, (64,), True)
    """
    from .planning import Size, pass_ms

    n, d = inputs.as_count("n", n, 1), inputs.as_count("d", d, 1)
    row_seconds = 1e-3 * pass_ms(Size(1, d))
    rows = max(1, min(int(SECONDS / row_seconds), MOST_BYTES // (8 * d)))
    count = -(-n // rows)
    return tuple(n * (k + 1) // count - n * k // count for k in range(count)), (d,)


def _warm() -> float:
    """On a worker: what tasks run, compiled or loaded from its cache."""
    import dask
    import dask.array

    from .problem import Problem
    from .solver import newton
    from .warming import example

    start = time.perf_counter()
    A, b = example()
    x, there = np.full(3, 0.1), dask.array.from_array(A, chunks=(4, 3))
    with dask.config.set(scheduler="synchronous"):
        newton(there, b, x, w=0.1)
        problem = Problem(there, b)
        problem.grad(x)
        passes: Any = problem._passes  # and a step in one read, which only a large A takes
        passes.foresee(passes.a, problem._point, problem._first, x, passes.empty(), passes.empty())
    return time.perf_counter() - start


def warmup(client: Any = None) -> dict[str, float]:
    """Compile the kernels of tasks on every worker, or load them from its disk cache, so that the first solve waits for none.

    Workers that share a file system share the cache, where `FASTRSX_CACHE` or the home folder is on it; see `fastrsx cache info`.

    Parameters
    ----------
    client : distributed.Client, optional
        By default the current one.

    Returns
    -------
    dict
        The seconds that each worker took, by its address.

    Raises
    ------
    ValueError
        Without a client.

    Examples
    --------
    >>> from distributed import Client
    >>> import fastrsx.dask
    >>> with Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as client:
    ...     len(fastrsx.dask.warmup(client))
    1
    """
    from distributed import get_client

    return dict((client or get_client()).run(_warm))
