"""Whole solves, from x = 0 to the minimum."""

import time

import numpy as np
import pytest

import fastrsx.planning
import peers
import problems

TALL = [(500_000, 64), (1_000_000, 13), (1_000_000, 16), (4_000_000, 8)]
SOLVERS = {  # the label: the peer and its method
    "SciPy trust-exact": ("NumPy", "trust-exact"),
    "SciPy L-BFGS-B": ("NumPy", "L-BFGS-B"),
    "torch L-BFGS": ("torch", "L-BFGS"),
    "JAX BFGS (optimistix)": ("JAX", "BFGS"),
}


def needs_vocabulary():
    for package in problems.VOCABULARY_NEEDS:
        pytest.importorskip(package, reason=f"the vocabulary comes with the package {package}")


@pytest.fixture
def solve(row, benchmark, ceilings):
    def run(op, A, b, rounds):
        trace = [(0.0, fastrsx.newton(A, b).history[0].fun)]
        start = time.perf_counter()
        fastrsx.newton(A, b, callback=lambda intermediate_result: trace.append((time.perf_counter() - start, intermediate_result.fun)))
        result = row(lambda: fastrsx.newton(A, b), op, *A.shape, rounds=rounds)
        assert result.success
        n, d = A.shape
        read = 8 * n * d / ceilings["read_GBs"] / 1e9
        hessian = max(read, n * d * d / ceilings["dgemm_GFs"] / 1e9)
        sampled = fastrsx.planning.sample_size(n, d) * d * d / ceilings["dgemm_GFs"] / 1e9
        floor = result.nhev * hessian + (result.npass - result.nhev) * read + result.nsampled * sampled
        benchmark.extra_info.update(nit=result.nit, npass=result.npass, fun=result.fun, trace=trace, floor=floor)

    return run


@pytest.fixture
def peer_solve(peer_row, benchmark):
    def run(op, label, problem, n, d, rounds, must_reach=1e-8):
        A, b, _ = problems.make(problem, n, d)
        least = fastrsx.newton(A, b).fun
        who, method = SOLVERS[label]

        def check(result):
            x, _ = result
            reached = peers.NumpyProblem(A, b).value(np.asarray(x))
            assert reached >= least * (1 - 1e-9)
            benchmark.extra_info["reached"] = reached / least - 1
            if must_reach is not None:
                assert reached <= least * (1 + must_reach)

        _, trace = peer_row(who, method, problem, n, d, check, name=op, label=label, rounds=rounds, warmup=0)
        benchmark.extra_info["trace"] = trace[:: max(1, len(trace) // 400)]

    return run


def test_small(solve):
    A, b, _ = problems.noisy(1000, 8)
    solve("newton", A, b, 2001)


def in_this_process(row, op, A, b, rounds):
    """SciPy on a small problem, in this process, since a message to another would take too long."""
    row(lambda: peers.scipy_solve(A, b, "trust-exact", True, gtol=1e-8), op, *A.shape, "SciPy trust-exact", rounds=rounds)


def test_small_scipy(row):
    A, b, _ = problems.noisy(1000, 8)
    in_this_process(row, "newton", A, b, 1001)


def test_automobiles(solve):
    A, b, _ = problems.automobiles()
    solve("newton, automobiles", A, b, 2001)


def test_automobiles_scipy(row):
    A, b, _ = problems.automobiles()
    in_this_process(row, "newton, automobiles", A, b, 1001)


@pytest.mark.parametrize(("n", "d"), TALL)
def test_tall(solve, n, d):
    A, b, _ = problems.noisy(n, d)
    solve("newton", A, b, 7)


@pytest.mark.parametrize("label", SOLVERS)
@pytest.mark.parametrize(("n", "d"), TALL)
def test_tall_peers(peer_solve, n, d, label):
    peer_solve("newton", label, "noisy", n, d, 1, must_reach=1e-8 if "trust" in label else None)


@pytest.mark.parametrize(("n", "d"), TALL)
def test_one_read(row, in_turns, benchmark, monkeypatch, n, d):
    """Steps in one read of A, and the same solve with two reads a step, in turns."""
    A, b, _ = problems.noisy(n, d)

    def solve(least):
        monkeypatch.setattr(fastrsx.planning, "READ_ONCE_FROM", least)
        return fastrsx.newton(A, b)

    results = [solve(least) for least in (0, np.inf)]
    assert all(result.success for result in results)
    row(lambda: solve(0), "newton, one read", n, d, rounds=3)
    in_turns("over_one", lambda: solve(0), lambda: solve(np.inf), turns=7, rounds=1)
    counts = {name: [getattr(result, name) for result in results] for name in ("nit", "npass", "nhev")}
    benchmark.extra_info.update(counts)


def test_vocabulary(solve):
    needs_vocabulary()
    A, b, _ = problems.vocabulary()
    solve("newton, vocabulary", A, b, 7)


@pytest.mark.parametrize("label", SOLVERS)
def test_vocabulary_peers(peer_solve, label):
    """Only trust-exact reaches the minimum; the others stop after 500 steps."""
    needs_vocabulary()
    peer_solve("newton, vocabulary", label, "vocabulary", 30522, 384, 1, must_reach=1e-8 if "trust" in label else None)
