"""Compiling ahead of time."""

import time

import numpy as np

from .inputs import Matrix, Vector


def example() -> tuple[Matrix, Vector]:
    """A and b of a small problem."""
    return np.linspace(-1.0, 1.0, 24).reshape(8, 3) ** 3, np.arange(8.0) / 28


def warmup(*, kernel: str = "auto") -> float:
    """Compile what `newton`, `Problem` and `newton_batch` run, or load it from the disk cache, so that the first real call is fast.

    Parameters
    ----------
    kernel : {"auto", "parallel", "serial"}, optional
        Which twins; "auto" means both.

    Returns
    -------
    float
        Seconds it took: about 40 for each twin on a cold cache, about one on a warm one.

    Examples
    --------
    >>> import fastrsx
    >>> fastrsx.warmup(kernel="serial") > 0
    True
    """
    from . import inputs
    from .batch import newton_batch
    from .problem import Problem
    from .solver import newton

    inputs.as_choice("kernel", kernel, ("auto", "parallel", "serial"))
    start = time.perf_counter()
    A, b = example()
    x, p = np.full(3, 0.1), np.ones(3)
    for twin in ("serial", "parallel") if kernel == "auto" else (kernel,):
        newton(A, b, x, w=0.1, kernel=twin)
        newton(A, b, x, w=0.1, kernel=twin, hessian="sampled", sample_rows=3)
        problem = Problem(A, b, kernel=twin)
        problem.value_grad_hess(x)
        problem.hess_vec(x, p)
        problem.factors(x)
        problem.jac_operator(x).rmatvec(b)
    if kernel != "parallel":
        newton_batch([A], [b], [x], w=0.1)
    return time.perf_counter() - start
