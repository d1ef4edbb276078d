"""The cost of a call beyond its arithmetic, from Python and from jitted code."""

import statistics

import numpy as np
from conftest import timed
from numba import njit

import fastrsx
import problems
from fastrsx.kernels import dense

N, D, CALLS = 100, 4, 1000


@njit
def values(A, x, b, none, work, calls):
    total = 0.0
    for _ in range(calls):
        total += dense.value_serial(A, x, b, none, work)
    return total


def test_call_from_jitted_code(row, benchmark):
    """Twice the rows take twice the arithmetic; the rest of the time is the call."""
    seconds = {n: [] for n in (N, 2 * N)}
    calls = {}
    for n in seconds:
        A, b, x = problems.noisy(n, D)
        work = dense.alloc_workspace(n, D, False)
        calls[n] = lambda A=A, x=x, b=b, work=work: values(A, x, b, np.empty(0), work, CALLS)
        np.testing.assert_allclose(calls[n]() / CALLS, dense.value_serial(A, x, b, np.empty(0), work), rtol=1e-10)
    row(calls[N], "value, called from jitted code", N, D, rounds=101)
    for _ in range(101):
        for n, times in seconds.items():
            times += timed(calls[n], 1)
    once, twice = (statistics.median(times) / CALLS for times in seconds.values())
    benchmark.extra_info.update(seconds=benchmark.stats.stats.median / CALLS, overhead=2 * once - twice)


def test_problem_value(row, benchmark):
    A, b, x = problems.noisy(N, D)
    problem = fastrsx.Problem(A, b)
    points = [x * (1 + k / CALLS) for k in range(CALLS)]  # each is new, since the last is remembered
    row(lambda: [problem.value(point) for point in points], "Problem.value", N, D, rounds=101)
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median / CALLS
