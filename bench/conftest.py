"""Hygiene and context for every row."""

import importlib.metadata
import time

import numba
import numpy as np
import pytest
from llvmlite import binding

from fastrsx import threads

SETTLE = 0.3  # seconds: OpenBLAS and OpenMP workers go on spinning after a call, and slow whatever runs next


def best_seconds(work, rounds):
    """The least time of a call: a ceiling is what the machine can do, not what it mostly does beside others."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.fixture(scope="session")
def ceilings():
    """What this machine can do, measured now: read bandwidth (A @ x) in GB/s and dgemm in GF/s, on all cores."""
    A, x = np.random.default_rng(0).standard_normal((200_000, 256)), np.ones(256)
    out = np.empty(len(A))
    time.sleep(SETTLE)
    read = A.nbytes / best_seconds(lambda: np.dot(A, x, out=out), 25) / 1e9
    B = np.ones((2048, 2048))
    product = np.empty_like(B)
    time.sleep(SETTLE)
    gemm = 2 * 2048**3 / best_seconds(lambda: np.dot(B, B, out=product), 9) / 1e9
    return {"read_GBs": read, "dgemm_GFs": gemm}


@pytest.fixture
def row(benchmark, ceilings):
    """row(work, op, n, d, peer, ...) times one row of the suite and stores its context; medians of at least 7 rounds."""

    def run(work, op, n, d, who="fastrsx", rounds=9, nbytes=None, flops=None, **extra):
        benchmark.group = f"{op}|{n}|{d}|float64"
        benchmark.extra_info.update(op=op, n=n, d=d, who=who, threads=numba.get_num_threads(), cpu=binding.get_host_cpu_name(), **ceilings, **extra)
        benchmark.extra_info["layer"] = threads.layer()
        benchmark.extra_info["versions"] = {name: importlib.metadata.version(name) for name in ("numba", "numpy", "scipy")}
        time.sleep(SETTLE)
        result = benchmark.pedantic(work, rounds=rounds, warmup_rounds=2)
        seconds = benchmark.stats.stats.median
        if nbytes is not None:
            benchmark.extra_info["GBs"] = nbytes / seconds / 1e9
        if flops is not None:
            benchmark.extra_info["GFs"] = flops / seconds / 1e9
        if nbytes is not None or flops is not None:
            floor = max((nbytes or 0) / ceilings["read_GBs"], (flops or 0) / ceilings["dgemm_GFs"]) / 1e9
            benchmark.extra_info["roofline"] = floor / seconds
        return result

    return run
