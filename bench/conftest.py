"""Hygiene and context for every row."""

import contextlib
import importlib.metadata
import statistics
import time

import numba
import pytest
from llvmlite import binding

import peers
from fastrsx.system import threads

SETTLE = 0.3  # seconds: OpenMP workers keep spinning after a call and slow down the next one
VERSIONS = ("numba", "numpy", "scipy", "torch", "jax", "mkl", "tabmat")


def pytest_addoption(parser):
    parser.addoption("--reverse-rows", action="store_true", help="run the rows in reverse order, to see whether it moves them")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--reverse-rows"):
        items.reverse()


def versions():
    found = {}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def timed(work, rounds):
    """The seconds that each of `rounds` calls takes."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


@pytest.fixture(scope="session")
def ceilings():
    """The peak speeds of this machine, not its usual ones under load: NumPy's best A @ x, in GB/s, and dgemm, in GF/s, on all cores."""
    n, d, size = 200_000, 256, 2048
    with peers.Peer("NumPy", "read A", "gaussian", n, d) as peer:
        read = 8 * n * d / min(timed(peer, 25)) / 1e9
    with peers.Peer("NumPy", "dgemm", "ones", size, size) as peer:
        peer()
        gemm = 2 * size**3 / min(timed(peer, 5)) / 1e9
    return {"read_GBs": read, "dgemm_GFs": gemm}


@pytest.fixture
def row(benchmark, ceilings):
    """row(work, op, n, d, who, ...) times one row of the suite and stores its context; medians of at least 7 rounds."""

    def run(work, op, n, d, who="fastrsx", rounds=15, warmup=2, nbytes=None, flops=None, **extra):
        benchmark.group = f"{op}|{n}|{d}|float64"
        benchmark.extra_info.update(op=op, n=n, d=d, who=who, threads=numba.get_num_threads(), cpu=binding.get_host_cpu_name(), **ceilings, **extra)
        benchmark.extra_info.update(layer=threads.layer(), versions=versions())
        time.sleep(SETTLE)
        result = benchmark.pedantic(work, rounds=rounds, warmup_rounds=warmup)
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


@pytest.fixture
def peer_row(row):
    """peer_row(who, op, problem, n, d, check, ...) times a peer in its own process, once check(result) has passed.

    Skips if the peer is not installed.
    """

    def run(who, op, problem, n, d, check, name=None, label=None, **options):
        absent = peers.missing(who)
        if absent:
            pytest.skip(f"{who} needs the package {absent}")
        with peers.Peer(who, op, problem, n, d) as peer:
            peer()
            check(peer.result())
            row(peer, name or op, n, d, label or who, **options)
            return peer.result()

    return run


@pytest.fixture
def in_turns(benchmark):
    """in_turns(name, yardstick, work) stores the ratio of work to yardstick, timed in turns: within minutes this machine drifts by more than that."""

    def run(name, yardstick, work, turns=7, rounds=5):
        ours, theirs = [], []
        for _ in range(turns):
            for call, times in ((yardstick, theirs), (work, ours)):
                time.sleep(SETTLE / 2)
                call()
                times += timed(call, rounds)
        benchmark.extra_info[name] = statistics.median(ours) / statistics.median(theirs)

    return run


@pytest.fixture
def over_read(in_turns):
    """over_read(work, n, d) stores the ratio of work to one read of A by NumPy."""

    def run(work, n, d):
        with peers.Peer("NumPy", "read A", "gaussian", n, d) as read:
            in_turns("over_read", read, work)

    return run


@pytest.fixture
def on_threads():
    """on_threads(count) sets Numba's threads for the rest of the test."""
    before = numba.get_num_threads()
    yield lambda count: numba.set_num_threads(min(count, before))
    numba.set_num_threads(before)
