"""Which arguments are accepted and which refused; and that no argument is modified."""

import re
import warnings
from decimal import Decimal

import numpy as np
import pytest
import scipy.sparse

import fastrsx
from fastrsx import inputs
from fastrsx.kernels.cpu import passes
from fastrsx.system import device

N, D = 24, 3


def example():
    """Arguments of a problem with a minimiser; every entry is a multiple of 1/8, so any float dtype holds it exactly."""
    rng = np.random.default_rng(7)
    A = rng.integers(-8, 9, (N, D)) / 8
    b = rng.integers(0, 9, N) / 128
    return {"A": A, "b": b, "w": np.full(N, 0.125), "x0": np.array([0.25, -0.5, 0.125])}


def solve(A, b, x0=None, **options):
    return fastrsx.newton(A, b, x0, kernel="serial", **options)


def snapshot(value):
    """Everything that could be changed in an array that was passed in."""
    if scipy.sparse.issparse(value):
        return snapshot(value.toarray())
    if not isinstance(value, np.ndarray):
        return repr(value)
    return value.tobytes(), str(value.flags), value.dtype, value.shape, value.strides


def changed(array, index, entry):
    out = np.array(array)
    out[index] = entry
    return out


# -- refused -------------------------------------------------------------------------------------------------

GOOD = example()
A, B, W = GOOD["A"], GOOD["b"], GOOD["w"]
A32_INF = changed(A.astype(np.float32), (5, 0), np.inf)

BAD_OF_BOTH = {  # for newton and Problem: (arguments, error, pattern of the message)
    "A nan": ({"A": changed(A, (4, 1), np.nan)}, ValueError, r"A\[4, 1\] is nan"),
    "A inf": ({"A": changed(A, (0, 0), np.inf)}, ValueError, r"A\[0, 0\] is inf"),
    "A -inf, last entry": ({"A": changed(A, (-1, -1), -np.inf)}, ValueError, r"A\[23, 2\] is -inf"),
    "A float32 inf": ({"A": A32_INF}, ValueError, r"A\[5, 0\] is inf"),
    "A several": ({"A": changed(A, ([3, 9], 2), np.nan)}, ValueError, r"A\[3, 2\] is nan \(2 such in column 2\)"),
    "A beyond 1e150": ({"A": changed(A, (6, 2), 1.0001e150)}, ValueError, r"A\[6, 2\] is 1.0001e\+150 .*column 2.*divide the column"),
    "A beyond -1e150": ({"A": changed(A, (6, 1), -1e300)}, ValueError, r"A\[6, 1\] is -1e\+300 .*column 1"),
    "A just beyond 1e150": ({"A": changed(A, (6, 1), np.nextafter(1e150, np.inf))}, ValueError, r"A\[6, 1\].*column 1"),
    "A 0-D": ({"A": np.float64(1.0)}, ValueError, r"A has shape \(\).*2 axes.*\(n, d\)"),
    "A 1-D": ({"A": A[:, 0]}, ValueError, r"A has shape \(24,\).*2 axes.*\(n, d\)"),
    "A 3-D": ({"A": A[:, :, None]}, ValueError, r"A has shape \(24, 3, 1\).*2 axes.*\(n, d\)"),
    "A ragged": ({"A": [[1.0, 2.0], [3.0]], "b": [0.5, 0.5], "w": None}, (ValueError, TypeError), r"\bA\b"),
    "A no rows": ({"A": np.empty((0, 3)), "b": np.empty(0), "w": None}, ValueError, r"A has shape \(0, 3\).*at least one row"),
    "A no columns": ({"A": np.empty((24, 0))}, ValueError, r"A has shape \(24, 0\).*one column"),
    "A complex": ({"A": A.astype(complex)}, TypeError, r"A is complex \(complex128\)"),
    "A object": ({"A": A.astype(object)}, TypeError, r"A has dtype object"),
    "A strings": ({"A": A.astype(str)}, TypeError, r"A has dtype <U"),
    "A None": ({"A": None}, TypeError, r"A is None; pass an array of shape \(n, d\)"),
    "A complex sparse": ({"A": scipy.sparse.csr_array(A + 0j)}, TypeError, r"A is a sparse matrix of dtype complex128.*real"),
    "b nan": ({"b": changed(B, 3, np.nan)}, ValueError, r"b\[3\] is nan"),
    "b inf": ({"b": changed(B, -1, -np.inf)}, ValueError, r"b\[23\] is -inf; 1 of 24"),
    "b short": ({"b": B[:-1]}, ValueError, r"b has 23 entries; it must have 24"),
    "b empty": ({"b": []}, ValueError, r"b has 0 entries; it must have 24"),
    "b column": ({"b": B[:, None]}, ValueError, r"b has shape \(24, 1\).*1 axis.*\(24,\)"),
    "b scalar": ({"b": 0.5}, ValueError, r"b has shape \(\).*\(24,\)"),
    "b ragged": ({"b": [[1.0, 2.0], [3.0]]}, (ValueError, TypeError), r"\bb\b"),
    "b too large to square": ({"b": changed(B, 3, 1e200)}, ValueError, r"\bb\b.*1e\+200"),
    "b complex": ({"b": B + 0j}, TypeError, r"b is complex"),
    "b object": ({"b": B.astype(object)}, TypeError, r"b has dtype object"),
    "b strings": ({"b": list("x" * N)}, TypeError, r"b has dtype <U1"),
    "b sparse": ({"b": scipy.sparse.csr_array(B[:, None])}, TypeError, r"b is sparse \(csr_array\).*b\.toarray\(\)"),
    "w long": ({"w": np.ones(N + 1)}, ValueError, r"w has 25 entries; it must have 24"),
    "w column": ({"w": W[:, None]}, ValueError, r"w has shape \(24, 1\)"),
    "w for columns": ({"w": np.ones(D)}, ValueError, r"w has 3 entries; it must have 24"),
    "w negative": ({"w": changed(W, 7, -1e-3)}, ValueError, r"w\[7\] is -0.001"),
    "w negative scalar": ({"w": -1}, ValueError, r"w\b.* is -1"),
    "w nan": ({"w": changed(W, 2, np.nan)}, ValueError, r"w\[2\] is nan"),
    "w inf scalar": ({"w": np.inf}, ValueError, r"w\b.* is inf"),
    "w complex": ({"w": 1j}, TypeError, r"w is complex"),
    "w string": ({"w": "ones"}, TypeError, r"w has dtype <U4"),
    "kernel unknown": ({"kernel": "gpu"}, ValueError, r"kernel is 'gpu'.*'auto', 'parallel', 'serial', 'cuda'"),
    "kernel None": ({"kernel": None}, ValueError, r"kernel is None"),
    "num_threads 0": ({"num_threads": 0}, ValueError, r"num_threads is 0; it must be at least 1"),
    "num_threads too many": ({"num_threads": 10**6}, ValueError, r"num_threads is 1000000.*NUMBA_NUM_THREADS"),
    "num_threads 1.5": ({"num_threads": 1.5}, TypeError, r"num_threads is 1.5; it must be an integer"),
    "num_threads string": ({"num_threads": "all"}, TypeError, r"num_threads is 'all'; it must be an integer"),
}

BAD_OF_NEWTON = {
    "x0 nan": ({"x0": [0.0, np.nan, 0.0]}, ValueError, r"x0\[1\] is nan"),
    "x0 short": ({"x0": [0.0, 0.0]}, ValueError, r"x0 has 2 entries; it must have 3, one for each column of A"),
    "x0 matrix": ({"x0": np.zeros((1, 3))}, ValueError, r"x0 has shape \(1, 3\)"),
    "x0 complex": ({"x0": [0j, 0, 0]}, TypeError, r"x0 is complex"),
    "x0 outside": ({"A": np.ones((N, 1)), "x0": [-0.6]}, ValueError, r"x0 .*outside the domain alpha.*start at x0 = 0"),
    "tol 0": ({"tol": 0}, ValueError, r"tol is 0; it must be positive"),
    "tol negative": ({"tol": -1e-8}, ValueError, r"tol is -1e-08; it must be positive"),
    "tol nan": ({"tol": np.nan}, ValueError, r"tol is nan"),
    "tol inf": ({"tol": np.inf}, ValueError, r"tol is inf"),
    "tol word": ({"tol": "small"}, TypeError, r"tol is 'small'; it must be a number"),
    "tol None": ({"tol": None}, TypeError, r"tol is None; it must be a number"),
    "max_iter negative": ({"max_iter": -1}, ValueError, r"max_iter is -1; it must be at least 0"),
    "max_iter float": ({"max_iter": 10.0}, TypeError, r"max_iter is 10.0; it must be an integer"),
    "max_iter None": ({"max_iter": None}, TypeError, r"max_iter is None; it must be an integer"),
    "hessian unknown": ({"hessian": "bfgs"}, ValueError, r"hessian is 'bfgs'.*'auto', 'exact'"),
    "seed negative": ({"seed": -1}, ValueError, r"seed is -1"),
    "verbose string": ({"verbose": "yes"}, TypeError, r"verbose is 'yes'"),
    "callback a number": ({"callback": 3}, TypeError, r"callback is 3; it must be callable"),
}


@pytest.mark.parametrize("name", [*BAD_OF_BOTH, *BAD_OF_NEWTON])
def test_newton_refuses_and_touches_nothing(name):
    change, error, message = (BAD_OF_BOTH | BAD_OF_NEWTON)[name]
    arguments = example() | change
    before = {key: snapshot(value) for key, value in arguments.items()}
    with pytest.raises(error, match=message):
        fastrsx.newton(**arguments)
    assert {key: snapshot(value) for key, value in arguments.items()} == before


@pytest.mark.parametrize("name", BAD_OF_BOTH)
def test_problem_refuses_and_touches_nothing(name):
    change, error, message = BAD_OF_BOTH[name]
    arguments = {key: value for key, value in example().items() if key != "x0"} | change
    before = {key: snapshot(value) for key, value in arguments.items()}
    with pytest.raises(error, match=message):
        fastrsx.Problem(**arguments)
    assert {key: snapshot(value) for key, value in arguments.items()} == before


@pytest.mark.parametrize(("i", "j"), [(0, 0), (63, 8), (64, 7), (300, 3), (576, 8)])
@pytest.mark.parametrize("entry", [np.nan, -np.inf, 1e151])
def test_bad_entry_is_named_wherever_it_lies(i, j, entry):
    """In every block of rows, and in the columns that do not fill a register."""
    data = changed(np.ones((577, 9)), (i, j), entry)
    with pytest.raises(ValueError, match=re.escape(f"A[{i}, {j}] is {data[i, j]}")):
        fastrsx.Problem(data, np.zeros(577), kernel="serial")


@pytest.mark.parametrize("method", ["value", "grad", "hess", "predict", "factors", "hess_operator", "jac_operator"])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(2), ValueError, "x has 2 entries; it must have 3"),
        (np.zeros((3, 1)), ValueError, r"x has shape \(3, 1\)"),
        ([0.0, np.inf, 0.0], ValueError, r"x\[1\] is inf"),
        ([1j, 0, 0], TypeError, "x is complex"),
    ],
)
def test_methods_refuse_a_bad_x(method, x, error, message):
    problem = fastrsx.Problem(A, B, kernel="serial")
    with pytest.raises(error, match=message):
        getattr(problem, method)(x)


def test_hess_vec_refuses_a_bad_p():
    problem = fastrsx.Problem(A, B, kernel="serial")
    with pytest.raises(ValueError, match="p has 1 entries; it must have 3"):
        problem.hess_vec(np.zeros(3), [1.0])


@pytest.mark.parametrize("call", [fastrsx.plan, lambda A: fastrsx.predict(A, np.zeros(3))], ids=["plan", "predict"])
@pytest.mark.parametrize("name", ["A 1-D", "A complex", "A strings", "A complex sparse", "A no columns"])
def test_plan_and_predict_refuse(call, name):
    change, error, message = BAD_OF_BOTH[name]
    with pytest.raises(error, match=message):
        call(change["A"])


def test_warmup_refuses_an_unknown_kernel():
    with pytest.raises(ValueError, match="kernel is 'gpu'"):
        fastrsx.warmup(kernel="gpu")


# -- advice --------------------------------------------------------------------------------------------------


def needs(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def tensor(array):
    return needs("torch").tensor(array)


def quietly(make):
    """The same function, without the warning that such arrays raise."""

    def made(array):
        with warnings.catch_warnings(action="ignore"):
            return make(array)

    return made


def pydata(array, **options):
    return needs("sparse").COO.from_numpy(array, **options)


class Elsewhere:
    """An array on a GPU, or on another DLPack device, which a method copies to memory."""

    def __init__(self, array, dlpack_type=2):
        self.array, self.shape, self.dtype, self.__dlpack_device__ = array, array.shape, array.dtype, lambda: (dlpack_type, 0)


class OfCuPy(Elsewhere):
    def get(self):
        return self.array

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion to a NumPy array is not allowed; use .get()")


class OfTorch(Elsewhere):
    def cpu(self):
        return self.array


class OfNumba(Elsewhere):
    def copy_to_host(self):
        return self.array


class OfJax(Elsewhere):
    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype, copy=copy)


# Refused values, made from the intended array; the start of the message; for which of A, b, w and x0.
MENDED = {
    "masked": (lambda a: np.ma.array(a, mask=a > a.max() / 2), "{} has masked entries", "Abwx0"),
    "complex": (lambda a: a + 0j, "{} is complex (complex128)", "Abwx0"),
    "list of complex": (lambda a: (a + 0j).tolist(), "{} is complex (complex128)", "Abwx0"),
    "objects": (lambda a: a.astype(object), "{} has dtype object", "Abwx0"),
    "strings of numbers": (lambda a: a.astype(str), "{} has dtype <U", "Abwx0"),
    "list of strings of numbers": (lambda a: a.astype(str).tolist(), "{} has dtype <U", "Abwx0"),
    "bytes of numbers": (lambda a: a.astype("S9"), "{} has dtype |S9", "Abwx0"),
    "decimals": (lambda a: [list(map(Decimal, row)) for row in a.tolist()], "{} has dtype object", "A"),
    "fractions beyond int64": (lambda a: (abs(a) * 2**3).astype(int).astype(object) * 10**20, "{} has dtype object", "A"),
    "dates": (lambda a: (abs(a) * 8).astype("M8[D]"), "{} has dtype datetime64[D]", "A"),
    "fields in each entry": (lambda a: a.astype([("x", float)]), "{} has fields in each entry, 'x'", "A"),
    "one field": (lambda a: np.rec.fromarrays([a], names="x"), "{} has shape", "bwx0"),
    "fields": (lambda a: np.rec.fromarrays([a, a], names="x,y"), "{} has shape", "bwx0"),
    "column": (lambda a: a[:, None], "{} has shape", "bwx0"),
    "row": (lambda a: a[None].tolist(), "{} has shape", "bwx0"),
    "matrix": (quietly(np.matrix), "{} has shape", "bwx0"),
    "one column": (lambda a: a[:, 0], "{} has shape (24,)", "A"),
    "list of one column": (lambda a: a[:, 0].tolist(), "{} has shape (24,)", "A"),
    "dict of columns": (lambda a: dict(zip("xyz", a.T, strict=True)) if needs("pandas") else None, "{} is a dict", "A"),
    "dict": (lambda a: dict(enumerate(a)) if needs("pandas") else None, "{} is a dict", "bwx0"),
    "column of pandas": (lambda a: needs("pandas").DataFrame({"x": a}), "{} has shape", "bwx0"),
    "row of pandas": (lambda a: needs("pandas").DataFrame([a]), "{} has shape", "bwx0"),
    "column of Polars": (lambda a: needs("polars").DataFrame({"x": a}), "{} has shape", "bwx0"),
    "column of pyarrow": (lambda a: needs("pyarrow").table({"x": a}), "{} has shape", "bwx0"),
    "batch of pyarrow": (lambda a: needs("pyarrow").table({"x": a}).to_batches()[0], "{} has shape", "bwx0"),
    "one Series": (lambda a: needs("pandas").Series(a[:, 0]), "{} has shape (24,)", "A"),
    "one Series of Polars": (lambda a: needs("polars").Series(a[:, 0]), "{} has shape (24,)", "A"),
    "one array of pyarrow": (lambda a: needs("pyarrow").array(a[:, 0]), "{} has shape (24,)", "A"),
    "objects in pandas": (lambda a: needs("pandas").Series(a, dtype=object), "{} has dtype object", "bwx0"),
    "LazyFrame": (lambda a: needs("polars").DataFrame(a).lazy(), "{} is a LazyFrame, of which NumPy makes no array", "A"),
    "dataset of pyarrow": (lambda a: dataset(a), "{} is an InMemoryDataset", "A"),
    "reader of pyarrow": (lambda a: arrow(a).to_reader(), "{} is a RecordBatchReader", "A"),
    "sparse of pyarrow": (lambda a: needs("pyarrow").SparseCSRMatrix.from_dense_numpy(a), "{} is a SparseCSRMatrix", "A"),
    "relation of duckdb": (lambda a: needs("duckdb").from_arrow(arrow(a)), "{} is a DuckDBPyRelation", "A"),
    "Dataset of xarray": (lambda a: needs("xarray").Dataset({"x": (("i", "j")[: a.ndim], a)}), "{} is a Dataset of arrays", "Abwx0"),
    "sparse": (scipy.sparse.coo_array, "{} is sparse (coo_array)", "bwx0"),
    "sparse column": (lambda a: scipy.sparse.csr_array(a[:, None]), "{} is sparse (csr_array)", "bwx0"),
    "sparse complex": (lambda a: scipy.sparse.csr_array(a + 0j), "{} is a sparse matrix of dtype complex128", "A"),
    "sparse of one axis": (lambda a: scipy.sparse.coo_array(a[:, 0]), "{} has shape (24,)", "A"),
    "pydata": (pydata, "{} is sparse (COO)", "bwx0"),
    "pydata filled": (lambda a: pydata(a, fill_value=0.5), "{} cannot be read as compressed rows", "A"),
    "pydata complex": (lambda a: pydata(a + 0j), "{} is a sparse matrix of dtype complex128", "A"),
    "pydata of one axis": (lambda a: pydata(a[:, 0]), "{} has shape (24,)", "A"),
    "pydata column": (lambda a: needs("sparse").GCXS.from_numpy(a[:, None]), "{} is sparse (GCXS)", "bwx0"),
    "torch bfloat16": (lambda a: tensor(a).bfloat16(), "{} has dtype torch.bfloat16; pass {}.float()", "Abwx0"),
    "torch float8": (lambda a: tensor(a).to(needs("torch").float8_e4m3fn), "{} has dtype torch.float8_e4m3fn", "A"),
    "torch requires grad": (lambda a: tensor(a).requires_grad_(), "{} requires grad; pass {}.detach()", "Abwx0"),
    "torch Parameter": (lambda a: needs("torch").nn.Parameter(tensor(a)), "{} requires grad; pass {}.detach()", "Abwx0"),
    "torch both": (lambda a: tensor(a).bfloat16().requires_grad_(), "{} has dtype torch.bfloat16 and requires grad", "Abwx0"),
    "torch sparse": (lambda a: tensor(a).to_sparse(), "{} has layout torch.sparse_coo; pass {}.to_dense()", "Abwx0"),
    "torch sparse rows": (quietly(lambda a: tensor(a).half().to_sparse_csr()), "{} has layout torch.sparse_csr; pass {}.to_dense()", "A"),
    "torch conjugate": (lambda a: tensor(a + 0j).requires_grad_().conj(), "{} is complex (torch.complex128) and requires grad", "Abwx0"),
    "torch negated": (lambda a: tensor(-1j * a).conj().imag, "{} has its sign in a flag", "Abwx0"),
    "CuPy": (OfCuPy, "{} is on a GPU, where an array in memory is needed; pass {}.get()", "bw"),
    "torch on a GPU": (OfTorch, "{} is on a GPU, where an array in memory is needed; pass {}.cpu()", "bw"),
    "Numba": (OfNumba, "{} is on a GPU, where an array in memory is needed; pass {}.copy_to_host()", "bw"),
    "JAX": (OfJax, "{} is on a GPU, where an array in memory is needed; pass np.asarray({})", "bw"),
    "another device": (
        lambda a: OfTorch(a, 8),
        "{} is on a device of DLPack's type 8, and fastrsx knows memory and GPUs of NVIDIA; pass {}.cpu()",
        "Abwx0",
    ),
    "dask array": (lambda a: needs("dask.array").from_array(a), "{} is a dask collection (Array), which is not computed here", "bwx0"),
    "dask delayed": (lambda a: needs("dask").delayed(a), "{} is a dask collection (Delayed", "Abwx0"),
    "dask bag": (lambda a: needs("dask.bag").from_sequence(a.tolist()), "{} is a dask collection (Bag)", "Abwx0"),
    "dask frame": (lambda a: dask_frame(needs("pandas").DataFrame(a)), "{} is a dask collection (DataFrame)", ""),
    "dask Series": (lambda a: dask_frame(needs("pandas").Series(a)), "{} is a dask collection (Series)", "bwx0"),
    "dask in xarray": (lambda a: needs("xarray").DataArray(needs("dask.array").from_array(a)), "{} is a dask collection (DataArray)", "Abwx0"),
}


def arrow(array):
    return needs("pyarrow").table({f"x{j}": column for j, column in enumerate(array.T)})


def dataset(array):
    return needs("pyarrow.dataset").dataset(arrow(array))


def dask_frame(data):
    return needs("dask.dataframe").from_pandas(data, npartitions=2)


def advice(message):
    """The expression that a message recommends."""
    found = re.search(r"(?:such as|pass|, as) ((?:np\.|pandas\.)?\w+[.\[(].*?)(?:$| if | does$)", message)
    assert found, f"no advice in {message!r}"
    return found[1]


@pytest.mark.parametrize(("case", "name"), [(case, name) for case, (*_, names) in MENDED.items() for name in ("A", "b", "w", "x0") if name in names])
def test_advice_works_on_what_was_passed(case, name):
    make, start, _ = MENDED[case]
    arguments = example()
    value = make(arguments[name])
    with pytest.raises((TypeError, ValueError)) as error:
        solve(**arguments | {name: value})
    assert str(error.value).startswith(start.replace("{}", name))
    libraries = {"np": np, "pandas": needs("pandas") if "pandas." in str(error.value) else None}
    mended = eval(advice(str(error.value)), libraries | {name: value})
    if name == "A" and "one column" in str(error.value):
        arguments["x0"] = None
    assert solve(**arguments | {name: mended}).nit > 0


def test_rows_of_a_list_are_looked_at():
    rows = list(A)
    rows[3] = np.ma.array(A[3], mask=[False, True, False])
    with pytest.raises(ValueError, match=r"^A\[3\] has masked entries"):
        solve(rows, B)
    rows[3] = scipy.sparse.csr_array(A[3:4])
    with pytest.raises(TypeError, match=r"^A\[3\] is sparse \(csr_array\)"):
        solve(rows, B)
    rows[3] = OfTorch(A[3])
    with pytest.raises(TypeError, match=r"^A\[3\] is on a GPU"):
        solve(rows, B)


def test_tensors_of_half_precision_are_read_in_memory_and_on_a_gpu():
    """bfloat16 on a GPU only: NumPy has no such dtype."""
    half = tensor(A).half()
    assert solve(half, B).x.tobytes() == solve(A, B).x.tobytes()
    brain = tensor(A).bfloat16()
    with pytest.raises(TypeError, match=r"^A has dtype torch\.bfloat16; pass A\.float\(\)$"):
        device.refuse_tensor("A", brain)
    for each in (half, brain, half.float()):
        device.refuse_tensor("A", each, device.DTYPES)


NO_ARRAYS = {  # values that are refused without an expression to pass instead, and the pattern of the message
    "None": (None, r"{} is None; pass an array of shape \("),
    "class": (np.ndarray, "{} is the class ndarray; pass an array of shape"),
    "set": ({1.0, 2.0}, "{} is a set, which has no order; pass a list"),
    "keys": ({1.0: 0}.keys(), "{} is a dict_keys, which has no order; pass a list"),
    "object": (object(), "{} is an object, of which NumPy makes no array"),
    "function": (len, "{} is a builtin_function_or_method, of which NumPy makes no array"),
    "word": ("ones", r"{} has dtype <U4, and {} is 'ones', no real number; pass an array of shape"),
    "words": (["a", 1.0], r"{} has dtype <U32, and {}\[0\] is 'a', no real number; convert, encode or drop"),
    "records": ([{"x": 1.0}, {"x": 2.0}], r"{} has dtype object, and {}\[0\] is {'x': 1\.0}, no real number"),
    "ragged": ([[1.0, 2.0], [3.0]], "{} is a list, of which NumPy makes no array: .*; pass rows of one length"),
    "void": (np.zeros(N, "V4"), r"{} has dtype \|V4, and {}\[0\] is"),
    "entries of two kinds": (np.array([1.5] * 20 + [len], dtype=object), r"{} has dtype object, and {}\[20\] is <built-in function len>, no real"),
}


@pytest.mark.parametrize("name", ["A", "b", "w", "x0"])
@pytest.mark.parametrize("case", NO_ARRAYS)
def test_what_is_no_array_is_named(case, name):
    value, words = NO_ARRAYS[case]
    if value is None and name in ("w", "x0"):
        assert solve(**example() | {name: value}).nit > 0
        return
    with pytest.raises(TypeError, match="^" + words.replace("{}", name)):
        solve(**example() | {name: value})


def test_tensors_without_entries_or_of_rows_of_many_lengths():
    torch = needs("torch")
    with pytest.raises(TypeError, match=r"^A is on the device 'meta', which holds no entries; pass one that does$"):
        solve(torch.ones(N, D, device="meta"), B)
    with pytest.raises(TypeError, match=r"^A is nested; pass one whose rows have one length$"):
        solve(quietly(lambda rows: torch.nested.nested_tensor(list(rows)))(torch.tensor(A)), B)


COLLECTIONS = {  # of dask: the cases of MENDED for matrices and for vectors
    "array": ("dask array", "dask array"),
    "delayed": ("dask delayed", "dask delayed"),
    "bag": ("dask bag", "dask bag"),
    "frame": ("dask frame", "dask Series"),
    "in xarray": ("dask in xarray", "dask in xarray"),
}


@pytest.mark.parametrize("kind", COLLECTIONS)
def test_no_door_computes_a_collection_of_dask(kind):
    def collection(array):
        return MENDED[COLLECTIONS[kind][array.ndim == 1]][0](array)

    x = np.zeros(D)
    problem = fastrsx.Problem(A, B, kernel="serial")
    doors = {
        "A": [
            *([] if kind in ("array", "frame") else [lambda v: fastrsx.plan(v), lambda v: fastrsx.predict(v, x)]),
            lambda v: fastrsx.curvature(v, B, x),
            lambda v: fastrsx.psd_weights(v, B, x),
            lambda v: fastrsx.lipschitz_bounds(v, B, 1.0, 1.0),
            lambda v: fastrsx.convergence(v, B),
            lambda v: fastrsx.newton_batch([v], [B]),
            lambda v: fastrsx.newton_batch(v, [B]),
        ],
        "b": [lambda v: fastrsx.newton_batch([A], [v]), lambda v: fastrsx.newton_batch([A], v), lambda v: fastrsx.curvature(A, v, x)],
        "w": [lambda v: fastrsx.newton_batch([A], [B], w=[v]), lambda v: fastrsx.newton_batch([A], [B], w=v)],
        "x0": [lambda v: fastrsx.newton_batch([A], [B], [v]), lambda v: fastrsx.newton_batch([A], [B], v)],
        "x": [problem.value, problem.hess, lambda v: fastrsx.predict(A, v), lambda v: fastrsx.curvature(A, B, v)],
        "p": [lambda v: problem.hess_vec(x, v), problem.factors(x).matvec],
    }
    for name, calls in doors.items():
        value = collection({"A": A, "b": B, "w": W}.get(name, x))
        for call in calls:
            with pytest.raises(TypeError, match=rf"^(problem 0: )?{name} is a dask collection"):
                call(value)


def test_sparse_arrays_of_pydata_are_read_as_compressed_rows():
    data = pydata(A)
    expected = solve(scipy.sparse.csr_array(A), B)
    for made in (data, needs("sparse").GCXS.from_numpy(A, compressed_axes=[1]), needs("sparse").DOK.from_numpy(A), data.astype(np.float32)):
        problem = fastrsx.Problem(made, B, kernel="serial")
        assert problem.plan.loader.startswith("sparse")
        assert solve(made, B).x.tobytes() == expected.x.tobytes()
    with pytest.raises(ValueError, match=r"A has shape \(1, 24, 3\); it must have 2 axes"):
        solve(pydata(A[None]), B)


# -- taken ---------------------------------------------------------------------------------------------------


def strided(array):
    """Every second entry along each axis of something larger."""
    big = np.full([2 * length for length in array.shape], np.nan)
    view = big[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def negative_strides(array):
    every = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[every])[every]


def read_only(array):
    out = array.copy()
    out.flags.writeable = False
    return out


def unaligned(array):
    return np.frombuffer(b"." + array.tobytes(), dtype=array.dtype, offset=1).reshape(array.shape)


VARIANTS = {
    "list": np.ndarray.tolist,
    "tuple": lambda array: tuple(map(tuple, array)) if array.ndim == 2 else tuple(array),
    "F order": np.asfortranarray,
    "float16": lambda array: array.astype(np.float16),
    "float32": lambda array: array.astype(np.float32),
    "longdouble": lambda array: array.astype(np.longdouble),
    "int64": lambda array: (8 * array).astype(np.int64),
    "int8": lambda array: (8 * array).astype(np.int8),
    "uint8": lambda array: (8 * abs(array)).astype(np.uint8),
    "bool": lambda array: array > 0.1,
    "strided": strided,
    "negative strides": negative_strides,
    "read-only": read_only,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": unaligned,
    "0 strides": lambda array: np.broadcast_to(array[:1], array.shape),
}


@pytest.mark.parametrize("argument", ["A", "b", "w", "x0"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_real_array_gives_the_bits_of_its_float64_copy(argument, variant):
    arguments = example()
    passed = VARIANTS[variant](arguments[argument])
    before = snapshot(passed)
    plain = np.array(passed, dtype=np.float64, order="C")
    got, expected = solve(**arguments | {argument: passed}), solve(**arguments | {argument: plain})
    assert got.x.tobytes() == expected.x.tobytes()
    assert (got.status, got.nit, got.fun) == (expected.status, expected.nit, expected.fun)
    assert snapshot(passed) == before


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memmap(tmp_path, mode):
    arguments = example()
    path = tmp_path / "A.bin"
    A.tofile(path)
    mapped = np.memmap(path, np.float64, mode, shape=A.shape)
    assert solve(**arguments | {"A": mapped}).x.tobytes() == solve(**arguments).x.tobytes()
    assert np.shares_memory(fastrsx.Problem(mapped, B).A, mapped)
    assert path.read_bytes() == A.tobytes()


@pytest.mark.parametrize("make", [np.copy, read_only, lambda A: np.vstack([A, A])[5 : 5 + N]], ids=["writable", "read-only", "rows of more"])
def test_ready_data_is_not_copied(make):
    data = make(A)
    before = snapshot(data)
    problem = fastrsx.Problem(data, B, kernel="serial")
    assert problem.A is data
    assert problem.plan.loader == "in place"
    assert problem.factors(np.zeros(D)).A is data
    problem.value_grad_hess(np.full(D, 0.1))
    assert snapshot(data) == before


def test_data_of_another_layout_is_copied():
    data = np.asfortranarray(A)
    problem = fastrsx.Problem(data, B, kernel="serial")
    assert not np.shares_memory(problem.A, data)
    assert problem.plan.loader == "copy"


@pytest.mark.parametrize("kernel", ["serial", "parallel"])
def test_newton_modifies_nothing(kernel):
    arguments = example()
    before = {key: snapshot(value) for key, value in arguments.items()}
    result = fastrsx.newton(**arguments, kernel=kernel)
    assert {key: snapshot(value) for key, value in arguments.items()} == before
    assert not any(np.shares_memory(result.x, array) for array in arguments.values())
    assert result.nit > 0


def test_callback_cannot_disturb_the_solve():
    arguments = example()
    seen = []

    def scribble(x):
        seen.append(x.copy())
        x[:] = np.nan

    assert solve(**arguments, callback=scribble).x.tobytes() == solve(**arguments).x.tobytes()
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("w", [2, 0.125, np.float32(0.125), np.array(0.125), True])
def test_scalar_w_is_a_constant_vector(w):
    scalar, vector = solve(A, B, w=w), solve(A, B, w=np.full(N, float(w)))
    assert scalar.x.tobytes() == vector.x.tobytes()
    assert scalar.fun == vector.fun
    assert not np.array_equal(scalar.x, solve(A, B).x)


def test_no_w_is_w_zero():
    none, zero = solve(A, B), solve(A, B, w=0)
    assert none.fun == pytest.approx(zero.fun, rel=1e-14)
    np.testing.assert_allclose(none.x, zero.x, rtol=1e-8)


def test_entries_as_large_as_1e150_are_taken():
    data = changed(A, (6, 2), 1e150)
    x = np.array([0.25, -0.5, 1e-150])
    assert fastrsx.Problem(data, B, kernel="serial").value(x) < np.inf


def test_x0_none_is_zero():
    assert solve(A, B).x.tobytes() == solve(A, B, np.zeros(D)).x.tobytes()


def test_max_iter_zero_reports_the_start():
    arguments = example()
    result = solve(**arguments, max_iter=0)
    assert result.status is fastrsx.Status.MAX_ITER
    assert result.nit == 0
    np.testing.assert_array_equal(result.x, arguments["x0"])


def test_far_start_is_no_exact_fit():
    """f is then 1 in one row, or in none: far from b, whatever the rounding of A x0."""
    with np.errstate(all="ignore"):
        result = solve(A, B, np.array([1e300, 0.0, 0.0]))
    assert not result.success


def test_the_largest_entry_is_that_of_the_kernels():
    assert inputs.LARGEST_ENTRY == passes.MOST_ENTRY
