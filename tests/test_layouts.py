"""A in any layout, dtype and sparse format: every kernel against the naive formulas; dense A gives the bits of its C-ordered float64 copy."""

import numpy as np
import pytest
import scipy.sparse

import fastrsx
import naive
from fastrsx import loading
from fastrsx.kernels.layouts import csr
from fastrsx.kernels.layouts.panel import ROWS
from fastrsx.kernels.layouts.strided import strided

SHAPES = [(1, 1), (7, 3), (64, 8), (65, 8), (300, 13), (333, 5), (2 * ROWS, 24), (700, 129)]
DTYPES = ["float64", "float32", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]


def unaligned(A):
    return np.frombuffer(b"." + A.tobytes(), dtype=A.dtype, offset=1).reshape(A.shape)


def single(A):
    return A.astype(np.float32)


def read_only(A):
    out = A.copy()
    out.flags.writeable = False
    return out


LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every second row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "every second column": lambda A: np.repeat(A, 2, axis=1)[:, ::2],
    "rows of an F-ordered one": lambda A: np.asfortranarray(np.vstack([A, A, A]))[len(A) : 2 * len(A)],
    "negative strides": lambda A: np.ascontiguousarray(A[::-1, ::-1])[::-1, ::-1],
    "transposed": lambda A: np.ascontiguousarray(A.T).T,
    "unaligned": unaligned,
    "read-only": read_only,
    "columns of more": lambda A: np.hstack([A, A])[:, A.shape[1] :],
}


def shuffled(A):
    """Entries of each row in a random order."""
    out, rng = scipy.sparse.csr_array(A), np.random.default_rng(0)
    for start, stop in zip(out.indptr[:-1], out.indptr[1:], strict=True):
        order = rng.permutation(stop - start) + start
        out.indices[start:stop], out.data[start:stop] = out.indices[order], out.data[order]
    out.has_sorted_indices = False
    return out


def duplicated(A):
    """Each entry is stored as two halves."""
    one = scipy.sparse.csr_array(A)
    two = scipy.sparse.csr_array((np.repeat(one.data / 2, 2), np.repeat(one.indices, 2), 2 * one.indptr), shape=one.shape)
    two.has_canonical_format = False
    return two


def wide_indices(A):
    out = scipy.sparse.csr_array(A)
    out.indices, out.indptr = out.indices.astype(np.int64), out.indptr.astype(np.int64)
    return out


FORMATS = {
    "csr array": scipy.sparse.csr_array,
    "csr matrix": scipy.sparse.csr_matrix,
    "csr float32": lambda A: scipy.sparse.csr_array(A, dtype=np.float32),
    "csr integers": lambda A: scipy.sparse.csr_array(A).astype(np.int64),
    "csr shuffled": shuffled,
    "csr duplicates": duplicated,
    "csr 64-bit indices": wide_indices,
    "csc array": scipy.sparse.csc_array,
    "coo matrix": scipy.sparse.coo_matrix,
    "bsr array": scipy.sparse.bsr_array,
    "lil matrix": scipy.sparse.lil_matrix,
}
IN_PLACE = ("csr array", "csr matrix", "csr float32")


@pytest.fixture(autouse=True)
def no_copy_of_what_is_small(monkeypatch):
    monkeypatch.setattr(loading, "COPIED_UP_TO", 0)


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 is a dtype of ml_dtypes").bfloat16 if name == "bfloat16" else name)


def whole_numbers(n, d, seed=0):
    """Whole numbers that any dtype can hold, many of them 0."""
    rng = np.random.default_rng([n, d, seed])
    return rng.integers(0, 4, (n, d)) * rng.integers(0, 2, (n, d)) * 1.0


def arguments(n, d):
    rng = np.random.default_rng([n, d])
    return rng.random(n) / n, rng.random(n) / 8, np.abs(rng.standard_normal(d)) / np.sqrt(d), rng.standard_normal(d)


def outputs(A, kernel="serial"):
    """Everything that a problem's kernels give for A."""
    b, w, x, p = arguments(*A.shape)
    problem = fastrsx.Problem(A, b, w=w, kernel=kernel)
    fused = problem.value_and_grad(x)
    other = fastrsx.Problem(A, b, w=w, kernel=kernel)  # so that kernels for a known point run, too
    value, hess, grad, product = other.value(x), other.hess(x), other.grad(x), other.hess_vec(x, p)
    factors, jacobian = problem.factors(x), problem.jac_operator(x)
    found = (value, fused[0], grad, fused[1], hess, product, factors.D, factors.v, factors.q, problem.predict(x), jacobian.rmatvec(b))
    return problem, [np.asarray(each) for each in (*found, problem._column_scale)]


def check(A, plain):
    """Check the outputs against the formulas, with the numbers of `plain`."""
    n, d = plain.shape
    b, w, x, p = arguments(n, d)
    problem, (value, fused, grad, fused_grad, hess, product, D, v, q, f, transposed, scale) = outputs(A)
    ref = naive.Naive(plain, b, x, w=w)
    tol = 4e-15 * float(ref.kappa) * np.sqrt(n * d)
    for found, expected, size in (
        (value, ref.value, ref.value_scale),
        (fused, ref.value, ref.value_scale),
        (grad, ref.grad, ref.grad_split_scale),
        (fused_grad, ref.grad, ref.grad_split_scale),
        (hess, ref.hess, ref.hess_scale),
        (product, ref.hess @ p, ref.hess_scale @ abs(p)),
        (D, ref.D + ref.w**2 / 2, ref.D_scale + ref.w**2 / 2),
        (v, ref.V[0], ref.V_split_scale[0]),
        (q, ref.V[1], ref.V_split_scale[1]),
        (f, ref.f, ref.f_scale),
        (transposed, plain.T @ (ref.v / ref.alpha * (b - ref.f @ b)), plain.T @ (ref.v / ref.alpha * (b + abs(ref.f @ b)))),
        (scale, np.where(plain.any(axis=0), np.sqrt((plain**2).mean(axis=0)), 1.0), scale),
    ):
        assert (abs(found - expected) <= tol * size).all()
    return problem


# -- dense ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_in_every_layout(dtype, layout):
    plain = whole_numbers(300, 13)
    A = LAYOUTS[layout](plain.astype(dtype_of(dtype)))
    plain = A.astype(float)
    before = A.tobytes(), A.strides
    problem = check(A, plain)
    assert (A.tobytes(), A.strides) == before
    assert np.shares_memory(problem.A, A)
    for found, expected in zip(outputs(A)[1], outputs(plain)[1], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("change", [np.asfortranarray, single, LAYOUTS["every second column"]], ids=["F", "float32", "strided"])
def test_every_shape(shape, change):
    plain = np.random.default_rng(shape).standard_normal(shape).astype(np.float32).astype(float)
    for found, expected in zip(outputs(change(plain))[1], outputs(plain)[1], strict=True):
        np.testing.assert_array_equal(found, expected)


def first_derivatives(A, kernel):
    """The results of one pass only, since parallel kernels take long to compile."""
    b, w, x, _ = arguments(*A.shape)
    problem = fastrsx.Problem(A, b, w=w, kernel=kernel)
    return problem._column_scale, *problem.value_and_grad(x)


@pytest.mark.parametrize("change", [np.asfortranarray, single], ids=["F", "float32"])
def test_parallel_kernels_give_the_same_bits(change):
    A = change(whole_numbers(1000, 13))
    for found, expected in zip(first_derivatives(A, "parallel"), first_derivatives(A, "serial"), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_many_columns_of_another_layout():
    """One Gram matrix for all blocks, by strips."""
    A = np.random.default_rng(0).standard_normal((200, 1100)) / 32
    b = np.full(200, 1 / 200)
    x = np.full(1100, 0.01)
    np.testing.assert_array_equal(*(fastrsx.Problem(each, b, kernel="serial").hess(x) for each in (A, np.asfortranarray(A))))


@pytest.mark.parametrize("name", DTYPES)
def test_numbers_that_only_their_dtype_holds(name):
    """Ends of the range, subnormals and signed zeros survive the loaders."""
    from fastrsx.kernels.layouts.strided import pack_strided

    dtype = dtype_of(name)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        numbers = np.array([info.min, info.max, 0, 1, info.max // 3, info.min // 3, 7, 100], dtype)
    elif dtype.kind == "b":
        numbers = np.array([True, False] * 4)
    else:
        finfo = pytest.importorskip("ml_dtypes").finfo if name == "bfloat16" else np.finfo
        info = finfo(dtype)
        numbers = np.array([info.min, info.max, info.smallest_subnormal, -info.smallest_normal, -0.0, np.inf, np.nan, info.eps], dtype)
    A = np.stack([np.roll(numbers, k) for k in range(8)] * 2)
    for change in LAYOUTS.values():
        out, laid = np.full((16, 8), 7.0), change(A)
        pack_strided(strided(laid), 0, 16, out)
        assert out.tobytes() == A.astype(float).tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", ["F", "every second row", "unaligned"])
@pytest.mark.parametrize("entry", [np.nan, -np.inf])
def test_a_bad_entry_is_named(dtype, layout, entry):
    A = np.ones((577, 9), dtype)
    A[300, 8] = entry
    with pytest.raises(ValueError, match=rf"A\[300, 8\] is {entry}"):
        fastrsx.Problem(LAYOUTS[layout](A), np.zeros(577), kernel="serial")


@pytest.mark.parametrize("hessian", ["exact", "sampled", "sampled-only", "matrix-free"])
@pytest.mark.parametrize("change", [np.asfortranarray, single, scipy.sparse.csr_array], ids=["F", "float32", "csr"])
def test_a_solve_is_that_of_the_copy(change, hessian):
    rng = np.random.default_rng(5)
    A = rng.standard_normal((600, 12)).astype(np.float32).astype(float) * (rng.random((600, 12)) < 0.5)
    x = rng.standard_normal(12)
    b = (np.exp(A @ x) + A @ x) * rng.uniform(0.8, 1.2, 600)
    b /= b.sum()
    given = {"kernel": "serial", "hessian": hessian, "sample_rows": 200}
    found, expected = fastrsx.newton(change(A), b, **given), fastrsx.newton(A, b, **given)
    assert found.success
    assert found.status is expected.status
    np.testing.assert_allclose(found.x, expected.x, rtol=0, atol=1e-6 if hessian == "matrix-free" else 1e-9)
    if hessian == "exact":
        assert found.nit == expected.nit
    if hessian == "exact" and change is not scipy.sparse.csr_array:  # the same sums in the same order
        assert found.x.tobytes() == expected.x.tobytes()
        assert found.hess.tobytes() == expected.hess.tobytes()


# -- how it is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "loader", "said"),
    [
        (np.array, "in place", "A read in place:"),
        (lambda A: A[1:], "in place", "A read in place:"),
        (single, "in place", "A read in place:"),
        (np.asfortranarray, "panels", "packed panel by panel"),
        (lambda A: A[:, ::2], "panels", "packed panel by panel"),
        (lambda A: A.astype(np.int8), "panels", "packed panel by panel"),
        (lambda A: A.astype(A.dtype.newbyteorder()), "copy", "converted to C-ordered float64 (the bytes of its numbers are swapped)"),
        (lambda A: A.astype(np.longdouble), "copy", f"converted to C-ordered float64 (from {np.dtype(np.longdouble)})"),
        (scipy.sparse.csr_array, "sparse", "sparse A read in place"),
        (scipy.sparse.csc_matrix, "sparse copy", "converted to canonical compressed rows of 32-bit indices (from csc)"),
        (wide_indices, "sparse copy", "(from 64-bit indices)"),
    ],
)
def test_plan_says_how_A_is_read(change, loader, said):  # noqa: N802
    A = change(whole_numbers(40, 4))
    plan = fastrsx.plan(A)
    assert plan.loader == loader
    assert said in str(plan)
    assert fastrsx.Problem(A, np.ones(A.shape[0])).plan == plan


def test_what_is_small_is_copied(monkeypatch):
    monkeypatch.undo()
    A = np.asfortranarray(np.ones((8, 3)))
    assert fastrsx.plan(A).loader == "copy"
    assert "it is small" in str(fastrsx.plan(A))
    assert not np.shares_memory(fastrsx.Problem(A, np.ones(8)).A, A)


# -- sparse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_every_sparse_format(form):
    plain = whole_numbers(300, 13)
    plain[[0, 17, 299]] = 0.0  # rows without entries have a = 0, and count
    A = FORMATS[form](plain)
    before = A.toarray().tobytes(), repr(A)
    problem = check(A, plain)
    assert (A.toarray().tobytes(), repr(A)) == before
    assert (problem._data.loader.name == "sparse") == (form in IN_PLACE)
    assert (A.format == "csr" and np.shares_memory(problem.A.data, A.data)) == (form in (*IN_PLACE, "csr 64-bit indices"))


@pytest.mark.parametrize("sparse_gram", [True, False])
@pytest.mark.parametrize(("n", "d", "density"), [(1, 1, 1.0), (5, 40, 0.1), (700, 129, 0.02), (400, 64, 0.3), (257, 7, 0.0), (20_000, 30, 0.2)])
def test_sparse_shapes_by_either_gram(monkeypatch, n, d, density, sparse_gram):
    """With no entries, with less than one sorted part, and with more parts than are sorted at once."""
    monkeypatch.setattr("fastrsx.engines.memory.gram_is_sparse", lambda data: data.gram_bounds is not None and sparse_gram)
    plain = whole_numbers(n, d) * (np.random.default_rng(0).random((n, d)) < density)
    check(scipy.sparse.csr_array(plain), plain)


def test_sparse_parallel_kernels_give_the_same_bits():
    A = scipy.sparse.csr_array(whole_numbers(20_000, 64) * (np.random.default_rng(0).random((20_000, 64)) < 0.1))
    for found, expected in zip(outputs(A, "parallel")[1], outputs(A)[1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_plan_counts_entries():
    """Few entries make an exact Hessian cheap, and a pass too short for a launch of threads."""
    A = scipy.sparse.random_array((60_000, 300), density=0.01, rng=0, format="csr")
    assert fastrsx.plan(A, num_threads=1).hessian == "exact"
    assert fastrsx.plan(A.toarray(), num_threads=1).hessian == "sampled"
    assert fastrsx.plan(A[:2000], kernel="auto").kernel == "serial"


def test_dense_enough_a_sparse_A_is_unpacked():  # noqa: N802
    few, many = (scipy.sparse.random_array((2000, 100), density=density, rng=0, format="csr") for density in (0.01, 0.5))
    passes = [fastrsx.Problem(A, np.ones(2000), kernel="serial")._passes for A in (few, many)]
    assert [each.has_sparse_gram for each in passes] == [True, False]


def test_ranges_of_a_sparse_gram_cover_it_once():
    A = scipy.sparse.random_array((500, 90), density=0.05, rng=1, format="csr")
    data = loading.load(A)
    assert data.gram_bounds[0] == 0
    assert data.gram_bounds[-1] == 90
    assert (np.diff(data.gram_bounds) >= 0).all()
    assert data.gram_updates == sum(k * (k + 1) // 2 for k in np.diff(A.indptr))
    assert len(data.gram_bounds) == csr.RANGES + 1


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda A: A.indices.__setitem__(3, 99), ValueError, "A is no valid CSR matrix: the columns of row"),
        (lambda A: A.indices.__setitem__(3, -1), ValueError, "A is no valid CSR matrix"),
        (lambda A: A.indptr.__setitem__(2, 10**6), ValueError, "A is no valid CSR matrix"),
        (lambda A: A.data.__setitem__(0, np.nan), ValueError, r"A\[0, \d\] is nan"),
        (lambda A: A.data.__setitem__(0, 1e200), ValueError, r"A\[0, \d\] is 1e\+200.*divide the column"),
    ],
    ids=["column too large", "column negative", "rows out of order", "nan", "huge"],
)
def test_a_broken_sparse_matrix_is_refused(break_it, error, message):
    A = scipy.sparse.csr_array(whole_numbers(30, 4) + np.eye(30, 4))
    break_it(A)
    with pytest.raises(error, match=message):
        fastrsx.Problem(A, np.ones(30), kernel="serial")


@pytest.mark.parametrize(
    ("A", "error", "message"),
    [
        (scipy.sparse.csr_array((5, 0)), ValueError, "at least one row and one column"),
        (scipy.sparse.csr_array(np.eye(3) * 1j), TypeError, "A is a sparse matrix of dtype complex128"),
        (scipy.sparse.coo_array(np.ones(3)), ValueError, r"A has shape \(3,\); it must have 2 axes"),
        (scipy.sparse.csr_array((3, 2**31)), ValueError, "A has 2147483648 columns"),
    ],
)
def test_sparse_input_that_is_none(A, error, message):
    for call in (fastrsx.plan, lambda A: fastrsx.Problem(A, np.ones(A.shape[0]))):
        with pytest.raises(error, match=message):
            call(A)
