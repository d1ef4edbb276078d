"""A in chunks of rows that dask computes: the answer in memory, the same bits on any scheduler, and errors that name the chunk."""

import collections
import gc
import os
import signal
import sys
import time

import numpy as np
import pytest
from scipy import sparse

import fastrsx
from fastrsx import planning
from fastrsx.cli import main
from fastrsx.solver import _Solver

dask = pytest.importorskip("dask", reason="needs dask")
da = pytest.importorskip("dask.array", reason="needs dask[array]")
pd = pytest.importorskip("pandas", reason="needs pandas")

pytestmark = pytest.mark.filterwarnings("ignore:A's chunks are small")

N, D = 1000, 5
SIZES = (300, 1, 450, 249)


def example(n=N, d=D, seed=0, noise=0.2):
    rng = np.random.default_rng(seed)
    A, x = rng.standard_normal((n, d)).astype(np.float32).astype(float), rng.standard_normal(d)
    b = (np.exp(A @ x) + A @ x) * rng.uniform(1 - noise, 1 + noise, n)
    return A, b / b.sum()


def in_chunks(A, sizes=SIZES):
    return da.from_array(A, chunks=(sizes, A.shape[1]))


def assert_same_solve(found, expected, rtol=1e-9):
    assert (found.status, found.nit) == (expected.status, expected.nit), (found.message, expected.message)
    np.testing.assert_allclose(found.x, expected.x, rtol=rtol, atol=1e-12)
    assert found.fun == pytest.approx(expected.fun, rel=1e-12)
    assert found.alpha == pytest.approx(expected.alpha, rel=1e-10)
    np.testing.assert_allclose(found.hess, expected.hess, rtol=0, atol=1e-11 * abs(expected.hess).max())
    assert found.min_eig == pytest.approx(expected.min_eig, rel=1e-8)


# -- the answer -------------------------------------------------------------------------------------------------


def frame(A):
    return pytest.importorskip("dask.dataframe").from_pandas(pd.DataFrame(A, columns=list("pqrst")), npartitions=3)


KINDS = {
    "chunks": in_chunks,
    "one chunk": lambda A: in_chunks(A, (N,)),
    "an empty chunk": lambda A: in_chunks(A, (300, 0, 451, 249)),
    "F-ordered": lambda A: in_chunks(A).map_blocks(np.asfortranarray),
    "float32": lambda A: in_chunks(A).astype(np.float32),
    "sparse": lambda A: in_chunks(A).map_blocks(sparse.csr_matrix),
    "DataFrame": frame,
}


@pytest.mark.parametrize("w", [None, 0.1, "dask"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_solve_is_that_in_memory(kind, w):
    A, b = example()
    found = fastrsx.newton(KINDS[kind](A), da.from_array(b, chunks=400) if w else b, w=da.full(N, 0.1, chunks=77) if w == "dask" else w)
    assert "A read by dask in chunks" in found.kernel
    assert found.names == (tuple("pqrst") if kind == "DataFrame" else None)
    assert_same_solve(found, fastrsx.newton(A, b, w=0.1 if w else None, kernel="serial"))


def test_whole_numbers_of_one_byte_are_read():
    A, b = example()
    A = np.round(3 * A)
    assert_same_solve(fastrsx.newton(in_chunks(A.astype(np.int8)), b), fastrsx.newton(A, b, kernel="serial"))


def test_unknown_sizes_of_chunks_are_computed_and_said():
    A, b = example()
    kept = in_chunks(A)[in_chunks(A)[:, 0] > 0]
    with pytest.warns(UserWarning, match=r"the sizes of A's chunks are unknown"):
        found = fastrsx.newton(kept, b[A[:, 0] > 0])
    assert np.isnan(kept.chunks[0][0])  # the caller's array is as it was
    assert_same_solve(found, fastrsx.newton(A[A[:, 0] > 0], b[A[:, 0] > 0], kernel="serial"))


def test_a_filtered_frame_is_solved():
    A, b = example()
    table = frame(A)
    kept = A[:, 1] > 0
    found = fastrsx.newton(table[table["q"] > 0], b[kept])
    assert_same_solve(found, fastrsx.newton(A[kept], b[kept], kernel="serial"))


CASES = {
    "raw years": lambda: (np.vander(np.arange(1971.0, 1991.0).repeat(20), 3), None, {}),
    "columns that depend": lambda: (np.column_stack([example()[0], example()[0][:, :2].sum(axis=1)]), None, {}),
    "softmax": lambda: (*example(), {"link": "softmax"}),
    "linear": lambda: (*example(), {"link": "linear", "x0": example()[0].sum(axis=0)}),
    "heavy tails": lambda: (np.random.default_rng(1).standard_t(2, (N, D)), None, {}),
    "products alone": lambda: (*example(), {"hessian": "matrix-free"}),
    "no minimiser": lambda: (np.column_stack([np.ones(N), np.linspace(-1, 1, N)]), np.eye(1, N)[0], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_hard_solves_are_those_in_memory(case):
    A, b, options = CASES[case]()
    if b is None:
        b = np.exp(-(np.linspace(-2.0, 2.0, len(A)) ** 2))
        b /= b.sum()
    found = fastrsx.newton(in_chunks(A, (len(A) // 3, len(A) - len(A) // 3)), b, **options)
    expected = fastrsx.newton(A, b, kernel="serial", **options)
    assert found.status == expected.status, (found.message, expected.message)
    assert found.fun == pytest.approx(expected.fun, rel=1e-8 if found.success else 1e-2)
    if found.success:
        shares = (fastrsx.predict(A, each.x, link=options.get("link", "rsx")) for each in (found, expected))
        np.testing.assert_allclose(*shares, rtol=1e-5, atol=1e-9)


def test_the_methods_of_a_problem_are_those_in_memory():
    A, b = example()
    x, p = np.linspace(-0.5, 0.5, D), np.linspace(1.0, 2.0, D)
    there, here = fastrsx.Problem(in_chunks(A), b, w=0.1), fastrsx.Problem(A, b, w=0.1, kernel="serial")
    assert there.value(x) == pytest.approx(here.value(x), rel=1e-13)
    for method in ("grad", "hess"):
        np.testing.assert_allclose(getattr(there, method)(x), getattr(here, method)(x), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(there.hess_vec(x, p), here.hess_vec(x, p), rtol=1e-10)
    factors = there.factors(x)
    np.testing.assert_allclose(factors.to_dense(), here.hess(x), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(factors.matvec(p), here.hess(x) @ p, rtol=1e-9)
    assert isinstance(factors.D, da.Array)
    f = there.predict(x)
    assert isinstance(f, da.Array)
    np.testing.assert_allclose(f.compute(), here.predict(x), rtol=1e-13)
    assert isinstance(fastrsx.predict(in_chunks(A), x), da.Array)


@pytest.fixture
def reads_once(monkeypatch):
    """Steps in one read, whatever the size of A."""
    monkeypatch.setattr(planning, "READ_ONCE_FROM", 0)


@pytest.mark.parametrize("kind", ["chunks", "an empty chunk", "float32", "F-ordered"])
@pytest.mark.parametrize("w", [None, 0.1])
def test_a_step_in_one_read_is_that_in_memory(reads_once, kind, w):
    A, b = example()
    problem = fastrsx.Problem(KINDS[kind](A), b, w=w)
    passes = problem._passes
    found = fastrsx.newton(KINDS[kind](A), b, w=w)
    assert passes.reads_once
    assert "steps in one read of A" in found.kernel
    expected = fastrsx.newton(A, b, w=w, kernel="serial")
    assert_same_solve(found, expected)
    assert found.npass <= expected.npass + 1  # the derivatives at the start take two reads


def test_long_solves_in_one_read_are_those_in_memory(reads_once):
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((6000, 40)), rng.standard_normal(40) / 2
    b = (np.exp(A @ x) + A @ x) * rng.uniform(0.8, 1.2, 6000)
    found, expected = fastrsx.newton(in_chunks(A, (3000, 1, 1999, 1000)), b / b.sum()), fastrsx.newton(A, b / b.sum(), kernel="serial")
    assert found.nit > 8  # so that A x was formed anew
    assert_same_solve(found, expected)


def test_the_plan_says_so():
    A, _ = example()
    plan = fastrsx.plan(in_chunks(A))
    assert (plan.kernel, plan.loader, plan.hessian) == ("serial", "dask", "exact")
    assert str(plan) == "serial kernels on 1 thread, exact Hessian, A read by dask in chunks: each chunk is a task of one thread"


# -- bits -------------------------------------------------------------------------------------------------------


def bits(result):
    return result.x.tobytes(), np.float64(result.fun).tobytes(), result.hess.tobytes(), result.nit


@pytest.fixture(scope="module")
def cluster():
    """Two processes of one thread on this machine."""
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    with (
        dask.config.set({"distributed.worker.memory.pause": False, "distributed.comm.timeouts.connect": "60s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50) as made,
        distributed.Client(made) as client,
    ):
        yield client


@pytest.mark.parametrize("least", [0, planning.READ_ONCE_FROM])
def test_every_scheduler_gives_the_same_bits(cluster, monkeypatch, least):
    monkeypatch.setattr(planning, "READ_ONCE_FROM", least)
    A, b = example()
    found = {}
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            found[scheduler] = bits(fastrsx.newton(in_chunks(A), b))
    found["two processes"] = bits(fastrsx.newton(in_chunks(A), b))
    assert len(set(found.values())) == 1


def test_small_chunks_are_said(cluster):
    A, b = example()
    with pytest.warns(UserWarning, match=r"A's chunks are small: .* pass A\.rechunk\(fastrsx\.dask\.chunks\(\*A\.shape\)\)"):
        fastrsx.Problem(in_chunks(A), b)


def counts(client):
    """Tasks that the scheduler knows."""
    return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


def test_a_step_is_one_round_trip(cluster):
    A, _ = example()
    b = fastrsx.predict(A, np.full(D, 0.1)) * np.random.default_rng(0).uniform(0.9, 1.1, N)
    problem = fastrsx.Problem(in_chunks(A), b)
    passes = problem._passes
    trips = []
    solver = _Solver(problem, 1e-10, 100, 100, 0, lambda intermediate_result: trips.append(passes.trips), 0)
    result = solver.run(None)
    assert result.success
    steps = np.diff(trips[:-1])  # the last call comes after the report
    assert len(steps) >= 2
    assert set(steps) == {1}


def refused(n=3000, d=40):
    """A solve whose steps are refused, and searched in a plane."""
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((n, d)), rng.standard_normal(d) / 2
    b = (np.exp(A @ x) + A @ x) * rng.uniform(0.8, 1.2, n)
    return in_chunks(A, (n // 2, n - n // 2)), b / b.sum()


def test_refused_trials_share_a_round_trip(cluster):
    problem, trips = fastrsx.Problem(*refused()), []
    solver = _Solver(problem, 1e-10, 100, 100, 0, lambda intermediate_result: trips.append(problem._passes.trips), 0)
    result = solver.run(None)
    assert result.success
    assert result.nfev > 3 * result.nit
    assert np.median(np.diff(trips[:-1])) <= 2


def test_trials_of_a_round_trip_change_no_bit(monkeypatch):
    from fastrsx.engines import dask as engine

    found = set()
    for rounds in (1, 2, 5):
        monkeypatch.setattr(engine, "ROUNDS", rounds)
        with dask.config.set(scheduler="synchronous"):
            found.add(bits(fastrsx.newton(*refused())))
    assert len(found) == 1


def test_the_scheduler_forgets_old_steps(cluster):
    A = np.column_stack([np.ones(N), example()[0][:, 1:]])
    b = np.exp(A @ np.full(D, 0.5))  # fitted at infinity only, by steps of one length
    known, before = [], counts(cluster)  # of earlier tests
    result = fastrsx.newton(in_chunks(A), b / b.sum(), max_iter=30, callback=lambda intermediate_result: known.append(counts(cluster)))
    assert result.nit > 16
    assert max(known) - before <= 60 * len(SIZES)


def size_of(value):
    return sum(map(size_of, value)) if isinstance(value, (tuple, list)) else np.asarray(value).nbytes


def test_only_numbers_vectors_and_matrices_of_columns_travel(cluster, monkeypatch):
    from fastrsx.engines import chunked as engine

    A, b = example(n=40_000, d=8)
    n_vector = 8 * 10_000
    arrived, value_of = [], engine.value_of

    def watched(wanted, beside):
        arrived.append(size_of(value_of(wanted, beside)))
        return value_of(wanted, beside)

    def large(dask_worker):
        log = dask_worker.transfer_incoming_log
        sizes = [entry["total"] for entry in log if any("fastrsx" in str(key) for key in entry["keys"])]
        log.clear()
        return [size for size in sizes if size >= n_vector / 2]

    monkeypatch.setattr(engine, "value_of", watched)
    # In the first solve workers load kernels: the scheduler takes tasks for long ones, and moves them to the worker that is idle.
    for _ in range(2):
        cluster.run(large)
        result = fastrsx.newton(in_chunks(A, (10_000,) * 4), da.from_array(b, chunks=7000))
        assert result.success
    assert max(arrived) <= 8 * (8**2 + 12 * 8) + 4096
    moved = [size for sizes in cluster.run(large).values() for size in sizes]
    assert len(moved) < result.nit  # some where a chunk moves to an idle worker, but none in each step


def test_workers_hold_a_and_six_vectors(cluster, monkeypatch):
    engine = pytest.importorskip("fastrsx.engines.dask")
    monkeypatch.setattr(engine, "COLLECTED_FROM", 0)  # as for a large A: without a collection it is left to chance when the scheduler lets go
    A, b = example(n=40_000, d=8, seed=1)
    limit = A.nbytes + 6 * b.nbytes + 2**18
    held, before = [], set()

    def on_worker(dask_worker):  # which cannot import this file
        from dask.sizeof import sizeof

        return {str(key): sizeof(value) for key, value in dask_worker.data.items()}

    def sizes():
        found = cluster.run(on_worker)
        return {key: size for each in found.values() for key, size in each.items() if key not in before}  # a copy on another worker counts once

    def look(intermediate_result):
        deadline = time.monotonic() + 20.0
        while (total := sum(sizes().values())) > limit and time.monotonic() < deadline:  # what is released goes a moment later
            time.sleep(0.05)
        held.append(total)

    gc.collect()
    before = set(sizes())
    assert fastrsx.newton(in_chunks(A, (10_000,) * 4), b, callback=look).success
    assert A.nbytes + 2 * b.nbytes < max(held) <= limit


class Killer:
    """Kills the worker that holds the first chunk after two steps."""

    def __init__(self, client, key):
        self.client, self.key, self.killed = client, key, 0

    def __call__(self, intermediate_result):
        if intermediate_result.nit == 2 and not self.killed:
            (holder, *_) = self.client.who_has()[self.key]
            self.killed = self.client.run(os.getpid)[holder]
            os.kill(self.killed, signal.SIGKILL)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_worker_costs_no_bit(cluster):
    distributed = pytest.importorskip("distributed")
    A, b = example()
    expected = bits(fastrsx.newton(in_chunks(A), b))
    chunks = in_chunks(A).persist()
    killer = Killer(cluster, distributed.futures_of(chunks)[0].key)
    computed = collections.Counter()

    class Count(distributed.SchedulerPlugin):
        def transition(self, key, start, finish, *args, **kwargs):
            computed[str(key)] += (start, finish) == ("processing", "memory")

    count = Count()  # the scheduler is in this process
    cluster.cluster.scheduler.add_plugin(count, name="count")
    found = fastrsx.newton(chunks, b, callback=killer)
    cluster.cluster.scheduler.remove_plugin("count")
    assert killer.killed
    assert bits(found) == expected
    assert max(count for key, count in computed.items() if "fastrsx" in key) > 1  # computed again, from the chunk's own source


def test_without_workers_a_solve_ends_and_goes_on_elsewhere(monkeypatch, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    from fastrsx.engines import graphs

    monkeypatch.setattr(graphs, "NO_WORKERS", 3.0)
    monkeypatch.setattr(graphs, "CHECKED_EVERY", 0.5)
    A, b = example()
    checkpoint = fastrsx.Checkpoint(tmp_path / "solve.npz", A, b)

    def stop(intermediate_result):
        checkpoint(intermediate_result)
        if intermediate_result.nit == 2:
            made.scale(0)
            while made.scheduler_info["workers"]:
                time.sleep(0.1)

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50) as made,
        distributed.Client(made) as client,
        client.as_current(),  # not that of the fixture
        pytest.raises(graphs.ClusterError, match=r"(no worker|lost)") as error,
    ):
        fastrsx.newton(in_chunks(A), b, callback=stop)
    assert error.value.intermediate_result.nit == 2
    resumed = fastrsx.newton(in_chunks(A), b, checkpoint.load())
    np.testing.assert_allclose(resumed.x, fastrsx.newton(A, b, kernel="serial").x, rtol=1e-8)


# -- the command line -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # of pandas, in dask
@pytest.mark.parametrize("kind", ["npy", "folder of npy", "folder of parquet", "zarr"])
def test_the_command_line_solves_on_workers(tmp_path, capsys, kind):
    pytest.importorskip("distributed", reason="needs distributed")
    A, b = example()
    path = tmp_path / "A"
    if kind == "npy":
        path = tmp_path / "A.npy"
        np.save(path, A)
    elif kind == "folder of npy":
        path.mkdir()
        for k, rows in enumerate(np.split(A, 11 * [0] + [600])):
            np.save(path / f"part.{k}.npy", rows)
    elif kind == "folder of parquet":
        pytest.importorskip("dask.dataframe")
        frame(A).to_parquet(path)
    else:
        pytest.importorskip("zarr", reason="needs zarr")
        da.from_array(A, chunks=(400, 3)).to_zarr(path)
    np.save(tmp_path / "b.npy", b)
    assert main(["solve", str(path), str(tmp_path / "b.npy"), "--workers", "1", "-o", str(tmp_path / "x.npy")]) == 0
    assert "CONVERGED" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), fastrsx.newton(A, b, kernel="serial").x, rtol=1e-8)


def test_the_command_line_says_what_it_cannot_read(tmp_path, capsys):
    pytest.importorskip("distributed", reason="needs distributed")
    np.save(tmp_path / "b.npy", np.ones(3))
    (tmp_path / "empty").mkdir()
    for source, message in (("nowhere", "No such file"), ("empty", "is not a zarr store, a folder of .npy or .parquet files, or a .npy file")):
        assert main(["solve", str(tmp_path / source), str(tmp_path / "b.npy"), "--workers", "1"]) == 2
        assert message in capsys.readouterr().err


# -- errors -----------------------------------------------------------------------------------------------------


def spoilt(array, row, value=np.nan):
    array = array.copy()
    array[row] = value
    return array


A, B = example()
ERRORS = {
    "columns in two chunks": (lambda: (da.from_array(A, chunks=(500, 3)), B), r"A has its 5 columns in 2 chunks; pass A\.rechunk\(\{1: -1\}\)"),
    "a NaN in A": (
        lambda: (in_chunks(spoilt(A, (400, 2))), B),
        r"A\[400, 2\] is nan, in row 99 of chunk 2; entries must be at most 1e\+150: remove or fill such rows",
    ),
    "a NaN in b": (
        lambda: (in_chunks(A), da.from_array(spoilt(B, 301), chunks=100)),
        r"b\[301\] is nan, in row 0 of chunk 2; entries must be finite",
    ),
    "a short b": (lambda: (in_chunks(A), da.from_array(B[1:], chunks=100)), r"b has 999 entries; it must have 1000, one for each row of A"),
    "one axis": (lambda: (da.from_array(B, chunks=100), B), r"A has shape \(1000,\); it must have 2 axes"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_errors_name_the_chunk(what):
    make, message = ERRORS[what]
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(*make())


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match=r"w\[7\] is -1\.0, in row 7 of chunk 0; weights must be at least 0"):
        fastrsx.newton(in_chunks(A), B, w=da.from_array(spoilt(np.ones(N), 7, -1.0), chunks=100))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hessian": "sampled"}, r"hessian is 'sampled', which draws rows of A in memory"),
        ({"precision": "mixed"}, r"precision is 'mixed', which is for dense A in memory"),
        ({"kernel": "parallel"}, r"kernel is 'parallel', and A is a collection of dask, whose tasks run serial kernels"),
        ({"hessian": "reduced"}, r"hessian is 'reduced', which is for dense A in memory"),
    ],
)
def test_what_needs_a_in_memory_says_so(options, message):
    with pytest.raises(ValueError, match=message):
        fastrsx.newton(in_chunks(A), B, **options)


def test_text_is_refused():
    with pytest.raises(TypeError, match=r"A has dtype <U1; pass real numbers"):
        fastrsx.newton(da.from_array(np.full((10, 2), "a")), np.ones(10))
