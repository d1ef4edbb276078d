"""Solves in other people's pools of threads and processes: the bits of a serial solve, on the requested layer."""

import os
import time

import pytest

from processes import posix, run

# A module, since functions that pools send to other processes are imported there.
WORK = """
import numba, numpy as np, os, fastrsx

def problem(seed, n, d):
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((n, d)), rng.random(n)
    return A, b / b.sum()

SEEDS = range(6)

def solve(seed, kernel="parallel", **options):
    return fastrsx.newton(*problem(seed, 600, 3), w=0.01, kernel=kernel, **options).x.tobytes()

def report(seed):
    "The bits, which twin could run, the layer, and the process."
    bits = solve(seed)
    return bits, fastrsx.system.threads.launch(lambda: "parallel", lambda: "serial"), numba.threading_layer(), os.getpid()

def most():
    "The threads that a solve can use here, and the kernels that it then has for many rows."
    return fastrsx.system.threads.available(), fastrsx.plan(np.ones((100_000, 3))).kernel

expected = [solve(seed, "serial") for seed in SEEDS]
assert len(set(expected)) == len(SEEDS)

def check(reports, twins):
    "The processes that the reports are from, which is one of these twins each."
    bits, ran, layers, processes = zip(*reports)
    assert list(bits) == expected
    assert set(ran) <= twins, ran
    assert set(layers) == {os.environ["NUMBA_THREADING_LAYER"]}, layers
    return set(processes)
"""


@pytest.fixture
def run_work(tmp_path, cache, layer):
    """Runs code after an import of that module, on a layer."""
    (tmp_path / "work.py").write_text(WORK)
    env = {"NUMBA_CACHE_DIR": cache, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    return lambda code, first="from work import *", **variables: run(f"{first}\n{code}", tmp_path, **env, **variables)


# -- threads ---------------------------------------------------------------------------------------------------


def test_thread_pools(run_work):
    """While one thread runs the parallel kernels, the others run the serial twins; on workqueue, all but the main thread do."""
    pytest.importorskip("joblib")
    run_work("""
from concurrent.futures import ThreadPoolExecutor
import joblib
twins = {"serial"} if os.environ["NUMBA_THREADING_LAYER"] == "workqueue" else {"parallel", "serial"}
with ThreadPoolExecutor(4) as pool:
    check(pool.map(report, SEEDS), twins)
check(joblib.Parallel(4, "threading")(joblib.delayed(report)(seed) for seed in SEEDS), twins)
check(map(report, SEEDS), {"parallel"})
""")


def test_beside_the_callers_own_parallel_function(run_work):
    """Solves run in a pool while another thread, in the pool or the main one, launches: workqueue would abort if both launched."""
    run_work("""
import threading
from concurrent.futures import ThreadPoolExecutor

@numba.njit(parallel=True)
def total(a):
    s = 0.0
    for i in numba.prange(len(a)):
        s += a[i]
    return s

def launch(done):
    while not done.is_set():
        assert total(np.ones(100_000)) == 100_000

total(np.ones(9))
for launches_in_pool in (False, True):
    done = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        solves = pool.submit(lambda: [list(map(solve, SEEDS)) for _ in range(20)])
        solves.add_done_callback(lambda _: done.set())
        pool.submit(launch, done).result() if launches_in_pool else launch(done)
    assert solves.result() == [expected] * 20
assert numba.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
""")


def test_num_threads_in_a_fresh_thread(run_work):
    """Numba's setting is per thread: a fresh thread has all threads, and a solve changes the setting of no other thread."""
    run_work("""
from concurrent.futures import ThreadPoolExecutor
numba.set_num_threads(1)
assert most() == (2, "serial")
def inside():
    assert most() == (2, "parallel")
    seen = [numba.get_num_threads()]
    assert solve(0, num_threads=1, callback=lambda x: seen.append(numba.get_num_threads())) == expected[0]
    return [*seen, numba.get_num_threads()]
with ThreadPoolExecutor(1) as pool:
    before, *during, after = pool.submit(inside).result()
assert (before, set(during), after) == (2, {1}, 2)
assert numba.get_num_threads() == 1
assert numba.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
""")


# Every thread solves its own mix, and uses Problems that all share; meanwhile the main thread solves, too.
STRESS = """
import random, threading
from concurrent.futures import ThreadPoolExecutor
SIZES = [(20, 1), (20, 8), (100, 2), (300, 3), (700, 8), (1500, 5), (3000, 1), (3000, 8)]
data = [problem(seed, *size) for seed, size in enumerate(SIZES)]

def newton(i, **options):
    return fastrsx.newton(*data[i], w=0.01, **options).x.tobytes()

def derivatives(problem, d):
    return b"".join(np.asarray(part).tobytes() for part in problem.value_grad_hess(np.full(d, 0.1)))

solutions = [newton(i, kernel="serial") for i in range(len(SIZES))]
derived = [derivatives(fastrsx.Problem(*data[i], kernel="serial"), d) for i, (n, d) in enumerate(SIZES)]
shared = [fastrsx.Problem(*data[i], kernel="parallel") for i in range(len(SIZES))]

def work(seed, solves):
    choices = random.Random(seed)
    for _ in range(solves):
        i = choices.randrange(len(SIZES))
        options = dict(kernel=choices.choice(["auto", "parallel"]), num_threads=choices.choice([None, 1, 2]))
        assert newton(i, **options) == solutions[i], (SIZES[i], options)
        i = choices.randrange(len(SIZES))
        assert derivatives(shared[i], SIZES[i][1]) == derived[i], SIZES[i]
    return solves

with ThreadPoolExecutor(8, initializer=threading.Barrier(8).wait) as pool:
    threads = [pool.submit(work, seed, int(os.environ["SOLVES"])) for seed in range(8)]
    beside = 0
    while not all(thread.done() for thread in threads):
        beside += work(beside, 1)
print(sum(thread.result() for thread in threads), beside, numba.threading_layer(), numba.get_num_threads())
"""


@pytest.mark.parametrize("repeat", range(5 if os.environ.get("FASTRSX_STRESS") == "1" else 1))
def test_stress(run_work, layer, repeat):
    """FASTRSX_STRESS=1 makes it long."""
    solves = 200 if os.environ.get("FASTRSX_STRESS") == "1" else 25
    started = time.perf_counter()
    ended, beside, used, threads = run_work(STRESS, SOLVES=str(solves)).split()
    print(f"{layer}: {ended} solves in 8 threads and {beside} beside them in {time.perf_counter() - started:.1f} s")  # shown by -s
    assert (int(ended), used, threads) == (8 * solves, layer, "2")
    assert int(beside) > 0


# -- Ctrl-C ----------------------------------------------------------------------------------------------------


@posix
def test_interrupt_from_outside(run_work):
    """It ends the solve within one pass and leaves nothing behind; the state that it carries is consistent."""
    run_work("""
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
A, b = problem(0, 200_000, 16)
numba.set_num_threads(2)
seen, at_kill = [], []

def kill():
    at_kill.append(len(seen))
    os.kill(os.getpid(), signal.SIGINT)

def callback(x):
    seen.append(x)
    if len(seen) == 2:
        threading.Timer(0.02, kill).start()

try:
    while len(seen) < 1000:  # a solve takes about 14 steps and 0.1 s, and may be over too soon
        fastrsx.newton(A, b, np.full(16, 2.0), kernel="parallel", num_threads=1, callback=callback)
    raise AssertionError("never interrupted")
except KeyboardInterrupt as error:
    caught = error
assert len(seen) <= at_kill[0] + 1
assert numba.get_num_threads() == 2
assert solve(0) == expected[0]
check(map(report, SEEDS), {"parallel"})
state = getattr(caught, "intermediate_result", None)
if state is not None:  # not between two solves
    assert state.nit == len(state.history)
    assert np.isclose(state.fun, fastrsx.Problem(A, b).value(state.x), rtol=1e-9, atol=0)
print(state is not None)
""")


# -- processes -------------------------------------------------------------------------------------------------

PROCESS_POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def check_pools(method, twins):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, context) as executor, context.Pool(1) as pool:
        both = executor.map(report, SEEDS), pool.imap(report, SEEDS)
        assert all(os.getpid() not in check(reports, twins) for reports in both)
"""


@posix
def test_forked_pools(run_work):
    """Workers launch threads, unless their parent had done so."""
    run_work(f"""{PROCESS_POOLS}
check_pools("fork", {{"parallel"}})
check(map(report, SEEDS), {{"parallel"}})
check_pools("fork", {{"serial"}})
check(map(report, SEEDS), {{"parallel"}})
""")


def test_pools_of_fresh_processes(run_work):
    """Workers launch threads whatever their parent did."""
    run_work(f"""{PROCESS_POOLS}
check(map(report, SEEDS), {{"parallel"}})
for method in multiprocessing.get_all_start_methods():
    if method != "fork":
        check_pools(method, {{"parallel"}})
""")


@posix
def test_joblib_processes(run_work):
    """joblib tells loky's workers how many threads each may use, and solves in them follow that."""
    pytest.importorskip("joblib")
    run_work("""
import joblib
reports = [joblib.delayed(report)(seed) for seed in SEEDS]
with joblib.parallel_config("loky", inner_max_num_threads=1, n_jobs=2):
    assert os.getpid() not in check(joblib.Parallel()(reports), {"parallel"})
    assert joblib.Parallel()([joblib.delayed(most)()]) == [(1, "serial")]
assert most() == (2, "parallel")
assert os.getpid() not in check(joblib.Parallel(2, "multiprocessing")(reports), {"parallel", "serial"})
check(map(report, SEEDS), {"parallel"})
""")


@posix
@pytest.mark.parametrize("layer", ["omp"], indirect=True)
@pytest.mark.parametrize("imported", ["", "import fastrsx"])
def test_forked_worker_of_a_parent_that_never_solved(run_work, imported):
    """Other code started OpenMP; the parent had imported the package, or not even that."""
    run_work(
        """
with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
    reports = list(pool.map(first_use, range(6)))
from work import *
assert os.getpid() not in check(reports, {"serial"})
check(map(report, SEEDS), {"parallel"})
""",
        f"""
import multiprocessing, numba, sys
from concurrent.futures import ProcessPoolExecutor
{imported}
numba.get_num_threads()  # starts the layer as a launch does
assert "fastrsx.solver" not in sys.modules
def first_use(seed):
    import work
    return work.report(seed)
""",
    )


@posix
def test_fork_while_other_threads_solve(run_work):
    """The child finds locks held, of launches and of a Problem, and no thread to release them."""
    run_work("""
import threading
A, b = problem(0, 20_000, 8)
shared = fastrsx.Problem(A, b, kernel="parallel")
x = np.full(8, 0.1)
value = fastrsx.Problem(A, b, kernel="serial").value(x)
assert solve(0) == expected[0]
done = threading.Event()
def go_on(call):
    while not done.is_set():
        call()
threads = [threading.Thread(target=go_on, args=[call]) for call in (lambda: solve(1), lambda: shared.hess(np.random.random(8)))]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if not child:
        os._exit(7 if solve(2) == expected[2] and shared.value(x) == value else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
done.set()
for thread in threads:
    thread.join()
check(map(report, SEEDS), {"parallel"})
""")


@posix
@pytest.mark.parametrize("layer", ["omp"], indirect=True)
def test_parallel_kernel_called_in_a_forked_child(run_work):
    """It raises an error; Numba would end the process."""
    run_work("""
from fastrsx.kernels import dense
A = np.ones((600, 3))
A.flags.writeable = False
out = np.zeros(600)
arguments = A, np.ones(3), out, dense.alloc_workspace(600, 3, False).buffers
dense.products(*arguments)
child = os.fork()
if not child:
    out[:] = 0
    try:
        dense.products(*arguments)
    except RuntimeError as error:
        assert "spawn or forkserver" in str(error)
        dense.products_serial(*arguments)
        os._exit(7 if (out == 3).all() else 8)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
dense.products(*arguments)
assert numba.threading_layer() == "omp"
""")
