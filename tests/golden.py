"""Golden hashes: the bits of passes, solves and batches, which a change of form alone must not change.

    python tests/golden.py record golden.json    # before the change
    python tests/golden.py check golden.json     # after it, on the same machine: LAPACK's bits differ on others

Only public names are used, so that the script survives changes of the code that it checks.
"""

import hashlib
import itertools
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import numba
import numpy as np
import scipy.sparse

import fastrsx
from fastrsx.kernels import dense

RNG = np.random.default_rng(20260702)
N, D = 700, 13
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda A: np.repeat(np.repeat(A, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda A: np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1],
    "csr": scipy.sparse.csr_array,
    "csc": scipy.sparse.csc_array,
}
TWINS, WEIGHTS = ("serial", "parallel"), (None, 0.01)


def problem(n, d, spread=0.5):
    """A and b, with a b that no x fits exactly."""
    A = RNG.standard_normal((n, d))
    b = fastrsx.predict(A, spread * RNG.standard_normal(d) / np.sqrt(d)) * RNG.uniform(0.5, 1.5, n)
    return A, b / b.sum()


@numba.njit
def softplus(a, shift):
    """u = log(1 + exp(a)) and its derivatives, times exp(-shift)."""
    k, e = np.exp(-shift), np.exp(-abs(a))
    s = (1.0 if a >= 0 else e) / (1.0 + e)
    return k * (max(a, 0.0) + np.log1p(e)), k * s, k * s * (1.0 - s)


def solves():
    """The name of each solve, and a function that runs it."""
    A, b = problem(N, D)
    sparse = np.where(RNG.random((N, D)) < 0.4, A, 0.0)
    for layout, dtype, kernel, w in itertools.product(LAYOUTS, (np.float64, np.float32), TWINS, WEIGHTS):
        data = LAYOUTS[layout]((sparse if layout.startswith("cs") else A).astype(dtype))
        yield f"newton {layout} {np.dtype(dtype)} {kernel} w={w}", partial(fastrsx.newton, data, b, w=w, kernel=kernel)
    for dtype in (np.float16, np.int8):
        yield f"newton C {np.dtype(dtype)}", partial(fastrsx.newton, (4 * A).astype(dtype), b)
    own = fastrsx.Link(softplus)
    for link, kernel, w in itertools.product(("softmax", "linear", own), TWINS, WEIGHTS):
        if link == "linear" and w is not None:
            continue
        x0 = np.linspace(0.1, 1.0, D) * np.sign(A.sum(axis=0)) if link == "linear" else None
        name = link if isinstance(link, str) else "own"
        yield f"newton link={name} {kernel} w={w}", partial(fastrsx.newton, A, b, x0, w=w, link=link, kernel=kernel)
    wide, wide_b = problem(40, 70, 0.2)
    tall, tall_b = problem(3000, 70)
    for hessian, kernel, w in itertools.product(("exact", "sampled", "sampled-only", "matrix-free"), TWINS, WEIGHTS):
        options = {"w": w, "hessian": hessian, "sample_rows": 500, "kernel": kernel}
        yield f"newton 3000 x 70 {hessian} {kernel} w={w}", partial(fastrsx.newton, tall, tall_b, **options)
    for kernel, w in itertools.product(TWINS, WEIGHTS):
        yield f"newton mixed {kernel} w={w}", partial(fastrsx.newton, tall, tall_b, w=w, precision="mixed", kernel=kernel)
        yield f"newton reduced {kernel} w={w}", partial(fastrsx.newton, wide, wide_b, w=w, hessian="reduced", kernel=kernel)
    years = 1500.0 + RNG.integers(0, 500, 300)
    raw, raw_b = np.vander(years, 3), RNG.random(300)
    for hessian, w in itertools.product(("exact", "sampled", "matrix-free"), WEIGHTS):
        yield f"newton basis {hessian} w={w}", partial(fastrsx.newton, raw, raw_b / raw_b.sum(), w=w, hessian=hessian)
    nearly = np.column_stack([A[:200], A[:200] @ np.ones(D)])
    yield "newton dependent", partial(fastrsx.newton, nearly, b[:200] / b[:200].sum())
    many = [problem(120, 6) for _ in range(19)]
    stack, targets = np.stack([A for A, _ in many]), np.stack([b for _, b in many])
    for w in WEIGHTS:
        yield f"newton_batch w={w}", partial(fastrsx.newton_batch, stack, targets, w=w)
        yield f"newton_batch float32 w={w}", partial(fastrsx.newton_batch, stack.astype(np.float32), targets, w=w)


def files(folder):
    """Solves that read A from a file in parts."""
    A, b = problem(4000, D)
    for dtype in (np.float64, np.float32):
        path = Path(folder, f"{np.dtype(dtype)}.npy")
        np.save(path, A.astype(dtype))
        mapped = np.load(path, mmap_mode="r")
        for hessian, w in itertools.product(("exact", "matrix-free"), WEIGHTS):
            yield f"newton file {np.dtype(dtype)} {hessian} w={w}", partial(streamed, mapped, b, w=w, hessian=hessian)


def streamed(A, b, **options):
    """newton with too little memory for A."""
    from fastrsx import loading
    from fastrsx.system import memory

    kept = memory.free, loading.free
    memory.free = loading.free = lambda: A.nbytes
    try:
        return fastrsx.newton(A, b, **options)
    finally:
        memory.free, loading.free = kept


def passes():
    """The public kernels and the methods of a Problem at one x."""
    for n, d in ((1, 1), (65, 3), (N, D), (2000, 40)):
        A, b = problem(n, d)
        x, p = 0.3 * RNG.standard_normal(d), RNG.standard_normal(d)
        for dtype, w, suffix in itertools.product((np.float64, np.float32), (np.empty(0), RNG.random(n)), ("", "_serial")):
            yield f"kernels{suffix} {n} x {d} {np.dtype(dtype)} w={w.size > 0}", partial(kernels, A.astype(dtype), x, p, b, w, suffix)
        for layout, link in itertools.product(LAYOUTS, ("rsx", "softmax")):
            if link == "rsx" or not layout.startswith("cs"):
                yield f"Problem {n} x {d} {layout} {link}", partial(methods, LAYOUTS[layout](A), x, p, b, link)


def kernels(A, x, p, b, w, suffix):
    n, d = A.shape
    work, grad, grad_alone = dense.alloc_workspace(n, d, True), np.empty(d), np.empty(d)
    hess, gram, out, D, V = np.empty((d, d)), np.empty((d, d)), np.empty(d), np.empty(n), np.empty((2, d))
    call = {name: getattr(dense, name + suffix) for name in ("value", "value_grad", "value_grad_hess", "hess_vec", "factors", "weighted_gram")}
    funs = [call["value"](A, x, b, w, work), call["value_grad"](A, x, b, w, grad_alone, work)]
    funs += [call["value_grad_hess"](A, x, b, w, grad, hess, work), call["hess_vec"](A, x, b, w, p, out, work)]
    funs += [call["factors"](A, x, b, w, D, V, work)]
    call["weighted_gram"](A, D, gram, work)
    return [np.array(funs), grad_alone, grad, hess, out, D, V, gram]


def methods(A, x, p, b, link):
    problem = fastrsx.Problem(A, b, link=link)
    factors = problem.factors(x)
    values = [np.float64(problem.value(x)), problem.grad(x), problem.hess(x), problem.hess_vec(x, p), problem.predict(x)]
    return [*values, factors.D, factors.v, factors.q]


def digest(outcome):
    """A hash of all bits that a caller sees."""
    fields = ("x", "jac", "hess", "fun", "nit", "status", "success", "alpha", "log_alpha", "min_eig")
    parts = outcome if isinstance(outcome, list) else [outcome[name] for name in fields if name in outcome]
    together = hashlib.sha256()
    for part in parts:
        together.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
    return together.hexdigest()[:24]


def hashes():
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in itertools.chain(passes(), solves(), files(folder)):
            assert name not in found, name
            found[name] = digest(make())
    return found


def main():
    what, path = sys.argv[1], Path(sys.argv[2])
    found = hashes()
    if what == "record":
        path.write_text(json.dumps(found, indent=0))
        print(f"{len(found)} cases recorded")
        return 0
    wanted = json.loads(path.read_text())
    moved = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
    print(*sorted(moved), f"{len(wanted) - len(moved)} of {len(wanted)} cases have the same bits", sep="\n")
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
