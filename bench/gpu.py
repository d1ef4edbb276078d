"""The kernels and solves on one GPU: first whether they are right, then their times beside targets, torch and CuPy.

python bench/gpu.py [seconds]            # 240 by default: what is left then is skipped, and said so
NUMBA_ENABLE_CUDASIM=1 python bench/gpu.py      # that the rows run, on tiny shapes

A line is printed when it is known. Times are medians of calls that were waited for, in milliseconds. The exit status is 1 after a wrong result.
"""

import functools
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from ml_dtypes import bfloat16
from numba import config
from scipy import sparse
from test_cuda import formulas

import fastrsx
from fastrsx.kernels import cuda as kernels
from fastrsx.kernels.cpu import sample as on_cpu
from fastrsx.kernels.gpu import passes, sample
from fastrsx.system import device, threads

cuda = kernels.cuda
STARTED = time.perf_counter()
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 240.0
TINY = bool(config.ENABLE_CUDASIM)
TOL = 1e-11  # of the largest entry
F64, F32, F16 = np.float64, np.float32, np.float16
PASSES = (  # pass, n, d, dtype, target in ms
    ("weighted_gram", 10_000_000, 64, F64, 1.75),
    ("weighted_gram", 1_000_000, 512, F64, 5.3),
    ("weighted_gram", 10_000_000, 64, F32, None),
    ("weighted_gram", 1_000_000, 512, F32, None),
    ("value_grad", 10_000_000, 64, F64, 1.9),
    ("value_grad", 2_500_000, 256, F64, 1.9),
    ("value_grad", 1_000_000, 512, F64, 1.5),
    ("value_grad", 10_000_000, 64, F32, 1.05),
    ("value_grad", 2_500_000, 256, F32, 1.0),
    ("value_grad", 1_000_000, 512, F32, 0.85),
    *((op, n, d, F16, None) for n, d in ((10_000_000, 64), (1_000_000, 512)) for op in ("value_grad", "weighted_gram")),
    ("value_grad_hess", 10_000_000, 64, F64, 3.9),
    ("value_grad_hess", 1_000_000, 512, F64, 7.5),
    ("hess_vec, point known", 10_000_000, 64, F64, 1.95),
    ("scores, drawn rows", 2_500_000, 256, F64, 2.0),
    ("scores, drawn rows", 1_000_000, 512, F64, 1.6),
    ("draw, drawn rows", 2_500_000, 256, F64, 0.2),
    *((op, 1_000_001, d, F64, None) for d in (13, 37, 50, 100, 300) for op in ("value_grad", "value_grad_hess")),
)
SPARSE = 4_000_000, 100_000, 16  # n, d, entries of a row
BATCH = 100_000, 200, 5, 20.0  # problems, n, d, and how many times as fast as 16 cores it should be
SOLVES = (100_000, 16, 1.2), (10_000_000, 64, 25.0), (1_000_000, 512, 45.0)
FIRST = (("cold", 10.0), ("from disk", 1.5))  # seconds
SOLVE = """
import time
import numpy as np
import fastrsx
A = np.random.default_rng(0).standard_normal((2000, 16))
b = fastrsx.predict(A, np.full(16, 0.1)) * np.random.default_rng(1).uniform(0.9, 1.1, 2000)
started = time.perf_counter()
fastrsx.newton(A, b / b.sum(), kernel="cuda")
print(time.perf_counter() - started)
"""


def left():
    """Seconds that may be used."""
    return SECONDS - (time.perf_counter() - STARTED)


def say(*cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def timed(work, most=15):
    """The median milliseconds of a call, waited for; of few calls if they are slow."""
    work()
    times = []
    while len(times) < 3 or (len(times) < most and sum(times) < 1000.0):
        cuda.synchronize()
        start = time.perf_counter()
        work()
        cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def peers():
    """{name: (module, how it takes an array of ours)} of those installed."""
    found = {}
    for name, take in (("torch", lambda xp: lambda array: xp.as_tensor(array, device="cuda")), ("cupy", lambda xp: xp.asarray)):
        if importlib.util.find_spec(name) and not TINY:
            module = importlib.import_module(name)
            found[name] = module, take(module)
    return found


class Store:
    """Random numbers on the GPU, of each dtype; a matrix is a view of them."""

    def __init__(self, numbers):
        part = np.random.default_rng(0).standard_normal(min(numbers, 6_400_000))
        self.flat = {dtype: cuda.device_array(numbers, dtype) for dtype in (F64, F32, F16)}
        for dtype, flat in self.flat.items():
            for k in range(0, numbers, len(part)):
                count = min(len(part), numbers - k)
                flat[k : k + count].copy_to_device(part[:count].astype(dtype))

    def problem(self, n, d, dtype):
        """A, x, b, no w, p and h."""
        rng = np.random.default_rng(n + d)
        b, h, (x, p) = rng.random(n), rng.random(n) - 0.1, 0.3 * rng.standard_normal((2, d)) / np.sqrt(d)
        return self.flat[dtype][: n * d].reshape(n, d), *map(cuda.to_device, (x, b / b.sum(), np.empty(0), p, h))


class Run:
    """Our passes over a problem: a pass leaves its results in `out`."""

    def __init__(self, A, x, b, w, p, h):
        n, d = A.shape
        self.given, self.p, self.h = (A, x, b, w), p, h
        self.work = kernels.alloc_sparse_workspace(A) if passes.is_sparse(A) else kernels.alloc_workspace(n, d, True)
        self.grad, self.product = cuda.device_array(d), cuda.device_array(d)
        self.hess = None if passes.is_sparse(A) else cuda.device_array((d, d))
        self.B = cuda.to_device(np.random.default_rng(d).standard_normal((sample.DIRECTIONS, d)))
        count = max(20 * d, n // 50) + 1
        self.rows, self.weights = cuda.device_array(count, np.int64), cuda.device_array(count)

    def call(self, op):
        A, _, b, w = self.given
        if op == "weighted_gram":
            kernels.weighted_gram(A, self.h, self.hess, self.work)
            return (self.hess,)
        if op == "value_grad":
            kernels.value_grad(*self.given, self.grad, self.work)
            return (self.grad,)
        if op == "value_grad_hess":
            kernels.value_grad_hess(*self.given, self.grad, self.hess, self.work)
            return self.grad, self.hess
        if op == "hess_vec":
            kernels.hess_vec(*self.given, self.p, self.product, self.work)
            return (self.product,)
        if op == "scores, drawn rows":
            sample.scores(A, self.B, self.work.a, self.work)
            return (self.work.a,)
        if op == "draw, drawn rows":
            sample.draw(self.h, b, self.rows.shape[0] - 1, 0.5, self.rows, self.weights, self.work)
            return self.rows, self.weights
        passes.curvature(A, self.p, self.work.a, b, w, self.work.point, self.work.h[:0], self.work)
        return ()


# -- whether they are right -------------------------------------------------------------------------------------


def wrong(found, expected):
    """The largest error, relative to the largest entry."""
    found, expected = found.copy_to_host(), np.asarray(expected)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check_passes():
    """Passes over odd shapes and layouts against NumPy, twice; returns whether all are right."""
    all_fine = True
    say("pass", "n x d", "A", "largest error", "same bits", "")
    say(*["---"] * 6)
    shapes = [(23, 3), (9, 5)] if TINY else [(20_011, d) for d in (37, 300, 64, 512, 13, 100, 1, 65)]
    for n, d in shapes:
        if left() < 0.6 * SECONDS and not TINY:  # compilation takes most of this
            say("all", f"{n} x {d}", "", "", "", "skipped")
            continue
        A = np.random.default_rng(d).standard_normal((n, d))
        rng = np.random.default_rng(n)
        b, h, (x, p) = rng.random(n), rng.standard_normal(n), rng.standard_normal((2, d)) / d
        b /= b.sum()
        for kind, there in (("float64", A), ("float32", A.astype(F32)), ("float16", A.astype(F16)), ("bfloat16", A.astype(bfloat16))):
            run = Run(*map(cuda.to_device, (there, x, b, np.empty(0), p, h)))
            for op in ("weighted_gram", "value_grad", "value_grad_hess", "hess_vec"):
                once = [array.copy_to_host() for array in run.call(op)]
                arrays = run.call(op)
                same = all(np.array_equal(array.copy_to_host(), first) for array, first in zip(arrays, once, strict=True))
                error = max(map(wrong, arrays, formulas(np, op, there.astype(F64), x, b, p, h)))
                fine = error < TOL and same
                all_fine &= fine
                say(op, f"{n} x {d}", kind, f"{error:.1e}", "yes" if same else "NO", "" if fine else "WRONG")
        layouts = ("by columns", cuda.to_device(np.asfortranarray(A))), ("every other row", cuda.to_device(np.repeat(A, 2, axis=0))[::2])
        for kind, there in layouts if (n, d) in shapes[:2] else ():
            hess = cuda.device_array((d, d))
            kernels.weighted_gram(there, cuda.to_device(h), hess, kernels.alloc_workspace(n, d, True))
            error = wrong(hess, A.T @ (h[:, None] * A))
            all_fine &= error < TOL
            say("weighted_gram", f"{n} x {d}", kind, f"{error:.1e}", "", "" if error < TOL else "WRONG")
    return all_fine


def compressed(n, d, row):
    """Random compressed rows of that many entries each, in memory."""
    rng = np.random.default_rng(n)
    indices = (rng.integers(d // row, size=(n, row)) + np.arange(row) * (d // row)).astype(np.int32)
    return sparse.csr_array((rng.standard_normal(n * row), indices.ravel(), np.arange(n + 1) * row), shape=(n, d))


def sparse_problem(A):
    """A as kernels take it, and x, b, no w, p and h."""
    (n, d), rng = A.shape, np.random.default_rng(0)
    b, (x, p) = rng.random(n), 0.3 * rng.standard_normal((2, d))
    there = device.SparseMatrix(*map(cuda.to_device, (A.data, A.indices, A.indptr)), A.shape).source
    return there, *map(cuda.to_device, (x, b / b.sum(), np.empty(0), p, rng.random(n)))


def check_sparse():
    """Passes over sparse A, some of whose columns have many entries, against SciPy."""
    all_fine, (n, d) = True, (30, 8) if TINY else (20_011, 300)
    A = compressed(n, d, 4)
    A = sparse.csr_array(sparse.hstack([np.random.default_rng(0).standard_normal((n, 1)), A]))
    given = sparse_problem(A)
    x, b, _, p, h = (array.copy_to_host() for array in given[1:])
    run = Run(*given)
    for op in ("value_grad", "hess_vec"):
        once = [array.copy_to_host() for array in run.call(op)]
        arrays = run.call(op)
        same = all(np.array_equal(array.copy_to_host(), first) for array, first in zip(arrays, once, strict=True))
        error = max(map(wrong, arrays, formulas(np, op, A, x, b, p, h)))
        fine = error < TOL and same
        all_fine &= fine
        say(op, f"{n} x {d + 1}", "sparse", f"{error:.1e}", "yes" if same else "NO", "" if fine else "WRONG")
    return all_fine


def check_sample():
    """Whether leverages are right, and the rows drawn those of the CPU."""
    n, d = (60, 3) if TINY else (20_011, 300)
    rng = np.random.default_rng(1)
    A, h, scores = rng.standard_normal((n, d)), rng.standard_normal(n), rng.random(n)
    run = Run(*map(cuda.to_device, (A, rng.random(d), scores, np.empty(0), rng.random(d), h)))
    found, _ = (array.copy_to_host() for array in run.call("draw, drawn rows"))
    rows, weights = np.zeros(len(found), np.int64), np.zeros(len(found))
    count = on_cpu.draw(h, scores, len(found) - 1, 0.5, rows, weights)
    error = wrong(*run.call("scores, drawn rows"), ((A @ run.B.copy_to_host().T) ** 2).sum(axis=1))
    fine = error < TOL and np.array_equal(found[:count], rows[:count])
    say("drawn rows", f"{n} x {d}", "float64", f"{error:.1e}", "", "" if fine else "WRONG")
    return fine


def check_solve(**given):
    """Whether a solve ends where that of the CPU does."""
    n, d = (30, 3) if TINY else (20_011, 37)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((n, d))
    b = fastrsx.predict(A, rng.standard_normal(d) / d) * rng.uniform(0.8, 1.2, n)
    here, there = fastrsx.newton(A, b / b.sum()), fastrsx.newton(cuda.to_device(A), b / b.sum(), **given)
    error = float(np.abs(there.x - here.x).max() / np.abs(here.x).max())
    fine = there.status is here.status and error < 1e-8
    say(", ".join(["newton", *given.values()]), f"{n} x {d}", "float64", f"{error:.1e}", "", "" if fine else "WRONG")
    return fine


# -- how long they take -----------------------------------------------------------------------------------------


def time_passes(store):
    others = peers()
    print()
    say("pass", "n x d", "A", "target", "ours", *others)
    say(*["---"] * (5 + len(others)))
    at, run = None, None
    for op, n, d, dtype, target in PASSES:
        if TINY:
            n, d = 21, min(d, 5)
        if left() < 8.0 and not TINY:
            say(op, f"{n} x {d}", dtype.__name__, target or "", "skipped")
            continue
        if at != (n, d, dtype):
            run = None  # its memory, before that of the next
            problem = store.problem(n, d, dtype)
            at, run = (n, d, dtype), Run(*problem)
            run.call("value_grad")  # the point
        ours = timed(functools.partial(run.call, op))
        cells = [] if "known" in op or "drawn" in op else [peer_time(peer, op, problem) for peer in others.values()]
        say(op, f"{n} x {d}", dtype.__name__, target or "", f"{ours:.3f}", *cells)


def peer_time(peer, op, problem):
    """The same formulas by torch or CuPy."""
    xp, take = peer
    A, x, b, p, h = (take(array) for k, array in enumerate(problem) if k != 3)  # without w
    try:
        return f"{timed(lambda: formulas(xp, op, A, x, b, p, h), 5):.3f}"
    except (MemoryError, RuntimeError) as error:
        return type(error).__name__
    finally:
        if hasattr(xp, "get_default_memory_pool"):
            xp.get_default_memory_pool().free_all_blocks()
        else:
            xp.cuda.empty_cache()


def time_sparse():
    """Passes over sparse A, beside the same formulas with CuPy's sparse matrices."""
    print()
    say("sparse pass", "n x d, entries", "ours", "cupyx")
    say(*["---"] * 4)
    n, d, row = (30, 8, 2) if TINY else SPARSE
    if left() < 20.0 and not TINY:
        say("value_grad", f"{n} x {d}, {n * row}", "skipped", "")
        return
    A = compressed(n, d, row)
    given = sparse_problem(A)
    run, found = Run(*given), peers().get("cupy")
    if found:
        xp, take = found
        matrix = importlib.import_module("cupyx.scipy.sparse").csr_matrix(A)
        x, b, _, p, h = map(take, given[1:])
    for op in ("value_grad", "hess_vec"):
        ours = timed(functools.partial(run.call, op))
        cupyx = timed(functools.partial(formulas, xp, op, matrix, x, b, p, h), 5) if found else None
        say(op, f"{n} x {d}, {n * row}", f"{ours:.3f}", f"{cupyx:.3f}" if found else "")


def time_solves(store):
    print()
    say("newton", "target", "ours", "steps, passes")
    say(*["---"] * 4)
    for n, d, target in SOLVES:
        if TINY:
            n, d = 30, 3
        if left() < 10.0 and not TINY:
            say(f"{n} x {d}", target, "skipped", "")
            continue
        A, x, b, *_ = store.problem(n, d, F64)
        f = fastrsx.Problem(A, b).predict(x).copy_to_host()
        b = f * np.random.default_rng(0).uniform(0.8, 1.2, n)
        there, results = cuda.to_device(b / b.sum()), []
        took = timed(lambda A=A, there=there, results=results: results.append(fastrsx.newton(A, there)))
        say(f"{n} x {d}", target, f"{took:.2f}", f"{results[-1].nit}, {results[-1].npass}")


def check_and_time_batch():
    """Many small problems beside the CPU's, which says first whether they are right."""
    k, n, d, target = (6, 20, 2, 20.0) if TINY else BATCH
    print()
    say("newton_batch", "target, times the CPU", "ours", "the CPU", "largest difference", "")
    say(*["---"] * 6)
    if left() < 30.0 and not TINY:
        say(f"{k} x {n} x {d}", target, "skipped", "", "", "")
        return True
    rng = np.random.default_rng(0)
    A, x = rng.standard_normal((k, n, d)), 0.3 * rng.standard_normal((k, d)) / np.sqrt(d)
    a = np.einsum("kij,kj->ki", A, x)
    b = (np.exp(a) + a) * rng.uniform(0.8, 1.2, (k, n))
    b /= b.sum(axis=1, keepdims=True)
    there = cuda.to_device(A), cuda.to_device(b)
    found, expected = fastrsx.newton_batch(*there), fastrsx.newton_batch(A, b)
    error = float(np.abs(found.x - expected.x).max())
    fine = error < 1e-8 and np.array_equal(found.status, expected.status)
    ours, cpu = timed(lambda: fastrsx.newton_batch(*there)), timed(lambda: fastrsx.newton_batch(A, b), 5)
    say(f"{k} x {n} x {d}", target, f"{ours:.2f}", f"{cpu:.2f} on {threads.in_use()}", f"{error:.1e}", "" if fine else "WRONG")
    return fine


def time_first():
    """The first solve of a process, with an empty cache of kernels and with the one that this left."""
    print()
    say("first solve of a process", "target, s", "seconds")
    say(*["---"] * 3)
    with tempfile.TemporaryDirectory() as folder:
        for what, target in FIRST:
            if left() < 30.0:
                say(what, target, "skipped")
                continue
            names = dict(os.environ, FASTRSX_CACHE=folder, NUMBA_CACHE_DIR=folder)
            found = subprocess.run([sys.executable, "-c", SOLVE], env=names, capture_output=True, text=True)
            say(what, target, f"{float(found.stdout):.2f}" if found.returncode == 0 else found.stderr.strip().splitlines()[-1])


def main():
    print(f"{'simulator' if TINY else cuda.get_current_device().name}, fastrsx {fastrsx.__version__}\n")
    is_right = all([check_passes(), check_sparse(), check_sample(), check_solve(), check_solve(hessian="sampled")])
    store = Store(2_000 if TINY else 640_000_000)
    time_passes(store)
    time_sparse()
    time_solves(store)
    is_right &= check_and_time_batch()
    if not TINY:
        time_first()
    print(f"\n{time.perf_counter() - STARTED:.0f} s; {'all results are right' if is_right else 'SOME RESULTS ARE WRONG'}")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
