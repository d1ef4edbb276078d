"""Tests that need a separate process: imports, Python threads, forks, signals."""

import pytest

from processes import posix, run

SOLVE = """
import functools, numba, numpy as np, os, fastrsx
rng = np.random.default_rng(0)
A, b = rng.standard_normal((600, 3)), rng.random(600)
b /= b.sum()
solve = functools.partial(fastrsx.newton, A, b, w=0.01, kernel="parallel")
expected = fastrsx.newton(A, b, w=0.01, kernel="serial").x.tobytes()
assert np.frombuffer(expected).all()
"""


def test_import_is_light(tmp_path):
    heavy = run("import sys, fastrsx; dir(fastrsx); print({'numba', 'llvmlite', 'scipy'} & set(sys.modules))", tmp_path)
    assert heavy == "set()"


# -- threads ---------------------------------------------------------------------------------------------------


def test_python_threads_give_the_bits_of_a_serial_solve(tmp_path, cache, layer):
    code = f"""{SOLVE}
import threading
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8, initializer=threading.Barrier(8).wait) as pool:
    solves = [pool.submit(solve) for _ in range(48)]
assert all(future.result().x.tobytes() == expected for future in solves)
print(numba.threading_layer())
"""
    assert run(code, tmp_path, NUMBA_CACHE_DIR=cache, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2") == layer


ENDINGS = {
    "pass": "CONVERGED",
    "raise StopIteration": "CALLBACK_STOP after 1",
    "raise LookupError('mine')": "LookupError('mine')",
    "signal.raise_signal(signal.SIGINT)": "KeyboardInterrupt()",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_num_threads_is_honoured_and_restored(tmp_path, cache, ending):
    """However the solve ends; and the next one runs as if nothing had happened."""
    code = f"""{SOLVE}
import signal
from concurrent.futures import ThreadPoolExecutor
signal.signal(signal.SIGINT, signal.default_int_handler)
inside = []
def callback(x):
    inside.append(numba.get_num_threads())
    {ending}
numba.set_num_threads(2)
try:
    result = solve(num_threads=1, callback=callback)
    print(result.status.name, "after", result.nit)
except BaseException as error:
    print(repr(error))
assert set(inside) == {{1}}, inside
assert numba.get_num_threads() == 2
assert solve(num_threads=2).x.tobytes() == expected
with ThreadPoolExecutor(1) as pool:
    assert pool.submit(solve).result().x.tobytes() == expected
assert fastrsx.system.threads.launch(lambda: "parallel", lambda: "serial") == "parallel"
"""
    assert run(code, tmp_path, NUMBA_CACHE_DIR=cache, NUMBA_NUM_THREADS="3").startswith(ENDINGS[ending])


# -- more processes --------------------------------------------------------------------------------------------

BEFORE_FORK = {
    "parallel solve": "solve()",
    "serial solve with num_threads": "fastrsx.newton(A, b, w=0.01, kernel='serial', num_threads=1)",
    "kernel called directly": """
from fastrsx.kernels import dense
A.flags.writeable = False
dense.products(A, np.ones(3), np.empty(600), dense.alloc_workspace(600, 3, False).buffers)
""",
}


@posix
@pytest.mark.parametrize(("layer", "before"), [*(("omp", before) for before in BEFORE_FORK), ("workqueue", "parallel solve")], indirect=["layer"])
def test_forked_child_gives_the_same_bits(tmp_path, cache, layer, before):
    """OpenMP ends a forked child that launches threads if its parent had done so."""
    code = f"""{SOLVE}
{BEFORE_FORK[before]}
reader, writer = os.pipe()
child = os.fork()
if not child:
    os.write(writer, solve().x.tobytes())
    os._exit(0)
os.close(writer)
answer = os.read(reader, 1000)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert code == 0, f"the child ended with {{code}}"
assert answer == expected
assert solve().x.tobytes() == expected
print(numba.threading_layer())
"""
    assert run(code, tmp_path, NUMBA_CACHE_DIR=cache, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2") == layer


def test_spawned_worker(tmp_path, cache):
    code = f"""{SOLVE}
import multiprocessing
problem = fastrsx.Problem(A, b, kernel="serial")
x = np.frombuffer(expected)
with multiprocessing.get_context("spawn").Pool(1) as pool:
    assert pool.apply(solve).x.tobytes() == expected
    values = pool.map(problem.value, [x, 2 * x])
assert values == [problem.value(x), problem.value(2 * x)]
"""
    run(code, tmp_path, NUMBA_CACHE_DIR=cache)
