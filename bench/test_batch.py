"""Many small problems at once."""

import statistics

import numpy as np
import pytest
from conftest import timed

import fastrsx
import problems

N, D = 200, 5


def test_batch(row, benchmark):
    A, b, _ = problems.batch(N, D)
    result = row(lambda: fastrsx.newton_batch(A, b), "newton_batch", N, D, rounds=9)
    assert result.success.all()
    assert result.nit.max() <= problems.BATCH_STEPS
    times = {threads: [] for threads in (1, None)}
    for _ in range(7):
        for threads, seconds in times.items():
            seconds += timed(lambda threads=threads: fastrsx.newton_batch(A, b, num_threads=threads), 1)
    benchmark.extra_info.update(problems=len(A), over_two=statistics.median(times[1]) / statistics.median(times[None]))


@pytest.mark.parametrize("who", ["NumPy", "JAX"])
def test_batch_peers(peer_row, benchmark, who):
    """SciPy's trust-exact in a loop over some of them, its time scaled to all; a vmap of full Newton steps in JAX."""
    A, b, _ = problems.batch(N, D)
    count = problems.LOOPED if who == "NumPy" else len(A)
    expected = fastrsx.newton_batch(A[:count], b[:count]).x
    label = "SciPy trust-exact, in a loop" if who == "NumPy" else "JAX, vmap"

    def check(x):  # full steps, without a trust region, fail on a few
        right = np.isclose(x, expected, atol=1e-5).all(axis=1)
        assert right.mean() >= (1.0 if who == "NumPy" else 0.999)
        benchmark.extra_info["lost"] = int((~right).sum())

    peer_row(who, "batch", "batch", N, D, check, name="newton_batch", label=label, rounds=7)
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median * len(A) / count
