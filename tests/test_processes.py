"""What a process of its own shows: imports, the disk cache of kernels, Python threads, forks, signals."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

NOWHERE = f"{os.devnull}/x"  # no directory can be made there, not even by root
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork or a home that is set by HOME")

# A cold compile of this takes seconds, of a solve several times that.
VALUE = """
import numpy as np, fastrsx
A, x, b = np.linspace(-1, 1, 24).reshape(8, 3) ** 3, np.array([0.5, -1, 0.25]), np.arange(8) / 28
value = fastrsx.Problem(A, b, kernel="serial").value(x)
u = np.exp(A @ x) + A @ x
assert abs(value - ((u / u.sum() - b) ** 2).sum()) <= 1e-14, value
"""

SOLVE = """
import functools, numba, numpy as np, os, fastrsx
rng = np.random.default_rng(0)
A, b = rng.standard_normal((600, 3)), rng.random(600)
b /= b.sum()
solve = functools.partial(fastrsx.newton, A, b, w=0.01, kernel="parallel")
expected = fastrsx.newton(A, b, w=0.01, kernel="serial").x.tobytes()
assert np.frombuffer(expected).all()
"""


def start(code, cwd, *options, **variables):
    """A Python process on `code`; a variable of None is unset."""
    env = {name: value for name, value in (os.environ | {"FASTRSX_CACHE": None} | variables).items() if value is not None}
    return subprocess.Popen(
        [sys.executable, *options, "-c", code], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    """What it printed, once it has ended well."""
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out.strip()


def run(*args, **variables):
    return finish(start(*args, **variables))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The cache directory that the tests share, so that solves are compiled once."""
    return os.environ.get("NUMBA_CACHE_DIR") or str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["omp", "workqueue"])
def layer(request):
    if request.param == "omp":
        pytest.importorskip("numba.np.ufunc.omppool", reason="numba has no OpenMP layer here", exc_type=ImportError)
    return request.param


def test_import_is_light(tmp_path):
    heavy = run("import sys, fastrsx; dir(fastrsx); print({'numba', 'llvmlite', 'scipy'} & set(sys.modules))", tmp_path)
    assert heavy == "set()"


# -- the disk cache --------------------------------------------------------------------------------------------


def test_cache_turned_off(tmp_path):
    run(VALUE, tmp_path, "-W", "error", FASTRSX_CACHE="0", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@posix
def test_read_only_install_without_a_home(tmp_path):
    package = tmp_path / "site" / "fastrsx"
    for name, target in (("fastrsx", package), ("fastrsx.kernels", package / "kernels")):
        source = Path(find_spec(name).origin).parent
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    (package / "kernels" / "__pycache__").touch()  # a file, so not a directory to write to
    code = f"""
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    exec({VALUE!r})
from fastrsx.kernels import dense
print(dense.__file__)
for warning in caught:
    print(warning.category.__name__, warning.message)
"""
    nowhere = dict.fromkeys(("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME"), NOWHERE)
    file, *warned = run(code, tmp_path, PYTHONPATH=str(tmp_path / "site"), **nowhere).splitlines()
    assert file == str(package / "kernels" / "dense.py")
    assert len(warned) == 1
    assert warned[0].startswith("RuntimeWarning fastrsx: no writable directory")
    assert "NUMBA_CACHE_DIR" in warned[0]
    assert "FASTRSX_CACHE=0" in warned[0]


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """A cache that two processes, started together, have filled; and the two."""
    directory = tmp_path_factory.mktemp("cold")
    two = [start(VALUE, directory.parent, "-W", "error", NUMBA_CACHE_DIR=str(directory)) for _ in range(2)]
    try:
        for process in two:
            process.wait(timeout=120)
        yield directory, two
    finally:
        for process in two:
            process.kill()


def test_two_processes_on_one_cold_cache(cold, tmp_path):
    directory, two = cold
    for process in two:
        finish(process)
    assert list(directory.rglob("*.nbi"))
    run(VALUE, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(directory))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("dense.project_serial*.nbi", lambda data: b""),
        ("dense.project_serial*.nbi", lambda data: data[: len(data) // 2]),
        ("dense.project_serial*.nbc", lambda data: data[: len(data) // 2]),
        ("dense.*.nbi", lambda data: b"\xff\x00" * 99),
    ],
    ids=["empty index", "cut index", "cut kernel", "noise in many"],
)
def test_damaged_cache_is_a_miss(cold, tmp_path, pattern, damage):
    shutil.copytree(cold[0], tmp_path / "cache")
    damaged = {path: damage(path.read_bytes()) for path in (tmp_path / "cache").rglob(pattern)}
    assert damaged
    for path, data in damaged.items():
        path.write_bytes(data)
    run(VALUE, tmp_path, "-W", "error", NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert all(path.read_bytes() != data for path, data in damaged.items())  # written anew


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
    """However the solve ends, and the next one runs as if nothing had happened."""
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
assert fastrsx.threads.launch(lambda: "parallel", lambda: "serial") == "parallel"
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
    """OpenMP ends a forked child that launches threads after its parent did."""
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
