"""The choices of `newton(hessian=...)` against each other: sampled rows, products alone, and the choice of "auto"."""

import statistics
import time

import numpy as np
import pytest
from conftest import SETTLE, timed
from scipy.optimize import minimize
from test_newton import needs_vocabulary

import fastrsx
import problems
from fastrsx import Problem

LARGE = [(1_000_000, 256), (200_000, 512)]
GRID = [(n, d) for d in (32, 64, 96, 128, 200, 256) for n in (3_000, 10_000, 30_000, 100_000, 300_000)]
HESSIANS = ["exact", "sampled", "sampled-only", "matrix-free"]  # of tall A
REUSED = "exact, reused"  # as the preconditioner while it has hardly changed: a sample of all rows does that
SEEDS = 8
CLOSE = 1e-6  # to the minimum, relative


def test_large_first_calls():
    """Compiles the kernels of the rows below, so that none of them has to."""
    A, b, _ = problems.noisy(2000, 40)
    for hessian in HESSIANS:
        assert fastrsx.newton(A, b, hessian=hessian).success


@pytest.mark.parametrize("hessian", [*HESSIANS[:3], REUSED])
@pytest.mark.parametrize(("n", "d"), LARGE)
def test_large(row, in_turns, benchmark, n, d, hessian):
    A, b, _ = problems.noisy(n, d)

    def solve():
        return fastrsx.newton(A, b, hessian="sampled", sample_rows=n) if hessian == REUSED else fastrsx.newton(A, b, hessian=hessian)

    result = row(solve, "newton by Hessian", n, d, hessian, rounds=7 if hessian == "sampled" else 3, warmup=1)
    assert result.success
    problem = Problem(A, b)
    passes, point = problem._passes, problem._passes.project(np.zeros(d))
    one = statistics.median(timed(lambda: passes.gradient(passes.a, point), 7))
    step = benchmark.stats.stats.median / result.nit
    benchmark.extra_info.update(nit=result.nit, npass=result.npass, step_passes=step / one)
    if hessian == "sampled":
        in_turns("over_exact", lambda: fastrsx.newton(A, b, hessian="exact"), solve, turns=3, rounds=1)


@pytest.mark.parametrize("hessian", ["exact", "matrix-free"])
@pytest.mark.parametrize(("n", "d"), [(8_000, 3_000)])
def test_many_columns(row, benchmark, n, d, hessian):
    A, b, _ = problems.noisy(n, d)
    result = row(lambda: fastrsx.newton(A, b, hessian=hessian, tol=1e-8), "newton by Hessian", n, d, hessian, rounds=1, warmup=0)
    assert result.success
    benchmark.extra_info.update(nit=result.nit, npass=result.npass)


@pytest.mark.parametrize("how", ["reduced", "matrix-free", "SciPy L-BFGS-B on Problem"])
@pytest.mark.parametrize(("n", "d"), [(500, 5_000), (1_000, 20_000)])
def test_wide(row, benchmark, n, d, how):
    """More columns than rows, with weights, since without them there are exact fits. The exact Hessian of 500 x 5000 takes 7 minutes."""
    A, b, _ = problems.noisy(n, d)
    problem = Problem(A, b, w=1e-3)

    def solve():
        if how in ("reduced", "matrix-free"):
            return fastrsx.newton(A, b, w=1e-3, hessian=how)
        return minimize(problem.value_and_grad, np.zeros(d), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-12})

    result = row(solve, "newton, wide", n, d, "fastrsx" if how == "reduced" else how, rounds=3, warmup=1)
    assert result.fun == pytest.approx(fastrsx.newton(A, b, w=1e-3).fun, rel=1e-8)
    if how != "SciPy L-BFGS-B on Problem":
        assert result.success
        benchmark.extra_info.update(nit=result.nit, npass=result.npass)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_vocabulary(row, benchmark, hessian):
    """The time until the loss is within 1e-6 of the minimum of the exact solve."""
    needs_vocabulary()
    A, b, _ = problems.vocabulary()
    least = fastrsx.newton(A, b, hessian="exact").fun
    reached = []

    def solve():
        start, times = time.perf_counter(), []

        def callback(intermediate_result):
            if intermediate_result.fun <= least * (1 + CLOSE):
                times.append(time.perf_counter() - start)

        result = fastrsx.newton(A, b, hessian=hessian, callback=callback, max_iter=300)
        reached.append(times[0] if times else np.nan)
        return result

    result = row(solve, "newton by Hessian", *A.shape, hessian, rounds=7 if hessian != "matrix-free" else 3, warmup=1)
    steps = [fastrsx.newton(A, b, hessian=hessian, seed=seed).nit for seed in range(SEEDS)] if hessian == "sampled" else [result.nit]
    benchmark.extra_info.update(nit=result.nit, npass=result.npass, status=result.status.name, within=statistics.median(reached), steps=steps)


@pytest.mark.parametrize(("n", "d"), GRID)
def test_auto(row, benchmark, n, d):
    """The time of the choice of "auto" against the better of exact and sampled."""
    A, b, _ = problems.noisy(n, d)
    times = {"exact": [], "sampled": []}
    for _ in range(9 if n * d < 10**7 else 5):
        for hessian, seconds in times.items():
            time.sleep(SETTLE / 3)
            seconds += timed(lambda hessian=hessian: fastrsx.newton(A, b, hessian=hessian), 1)
    medians = {hessian: statistics.median(seconds) for hessian, seconds in times.items()}
    auto = fastrsx.plan(A).hessian
    row(lambda: fastrsx.newton(A, b), "newton, auto", n, d, rounds=3, warmup=1)
    benchmark.extra_info.update(auto=auto, exact_over_sampled=medians["exact"] / medians["sampled"], over_best=medians[auto] / min(medians.values()))


@pytest.mark.parametrize(("n", "d"), [(1_000_000, 16), (500_000, 64), (200_000, 128), (100_000, 256)])
def test_weights(row, in_turns, n, d):
    """A Newton pass with weights against one without."""
    A, b, x = problems.gaussian(n, d)
    work = []
    for w in (None, np.full(n, 1e-6)):
        problem = Problem(A, b, w=w)
        point = problem._passes.project(x)
        work.append(lambda problem=problem, point=point: problem._passes.hessian(problem._a, point))
    row(work[1], "Newton pass, w > 0", n, d)
    in_turns("over_none", *work)
