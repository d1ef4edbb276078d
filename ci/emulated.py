"""Results of kernels on small shapes as hashes, to compare the bits of two CPUs: `emulated.py FILE` writes them, `emulated.py A B` compares."""

import hashlib
import json
import sys
from pathlib import Path

SHAPES = [(1, 1), (7, 3), (65, 8), (333, 5), (300, 13), (260, 33)]


def results():
    """Named arrays of bits."""
    import numpy as np

    import fastrsx
    from fastrsx.data import load_automobiles
    from fastrsx.kernels import dense

    cars = load_automobiles()
    solved = fastrsx.newton(cars.A, cars.b, kernel="serial")
    yield "newton", solved.x, np.array([solved.fun, solved.nit])
    for n, d in SHAPES:
        rng = np.random.default_rng([n, d])
        A, b, x = (rng.integers(-1000, 1000, size) / 1024 for size in ((n, d), n, d))  # the same on any machine
        b, h, empty, work = abs(b) + 0.1, A[:, 0] - 0.25, np.empty(0), dense.alloc_workspace(n, d, True)
        grad, hess, gram, product = np.empty(d), np.empty((d, d)), np.empty((d, d)), np.empty(d)
        fun = dense.value_grad_hess_serial(A, x / 8, b, empty, grad, hess, work)
        dense.weighted_gram_serial(A, h, gram, work)
        dense.hess_vec_serial(A, x / 8, b, empty, x, product, work)
        yield f"{n} x {d}", np.array([fun]), grad, hess, gram, product


def main(first, *second):
    if not second:
        found = {name: [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays] for name, *arrays in results()}
        Path(first).write_text(json.dumps(found), encoding="utf-8")
        return 0
    one, other = (json.loads(Path(name).read_text(encoding="utf-8")) for name in (first, *second))
    differing = [f"{name}, array {i}" for name in one for i, (x, y) in enumerate(zip(one[name], other[name], strict=True)) if x != y]
    print(f"{sum(map(len, one.values())) - len(differing)} of {sum(map(len, one.values()))} arrays have the same bits")
    print("\n".join(differing))
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
