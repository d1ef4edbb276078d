"""A solve on dask's workers, against the same in memory."""

import numpy as np
import pytest

import fastrsx

N, D, CHUNKS = 4_000_000, 64, 16


def test_dask(row, in_turns):
    """Two workers of one thread, against two threads."""
    distributed = pytest.importorskip("distributed", reason="needs the package distributed")
    import dask.array as da

    rng = np.random.default_rng(0)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=0) as cluster,
        distributed.Client(cluster),
    ):
        there = da.random.default_rng(0).standard_normal((N, D), chunks=(N // CHUNKS, D)).persist()
        A = there.compute()
        b = fastrsx.predict(A, rng.standard_normal(D) / np.sqrt(D)) * rng.uniform(0.8, 1.2, N)
        b /= b.sum()
        found = row(lambda: fastrsx.newton(there, b), "newton on two workers of dask", N, D, rounds=3, warmup=1)
        np.testing.assert_allclose(found.x, fastrsx.newton(A, b).x, rtol=1e-8)
        in_turns("over_memory", lambda: fastrsx.newton(A, b), lambda: fastrsx.newton(there, b), turns=3, rounds=1)
