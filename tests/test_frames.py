"""Tables and vectors with labels, of pandas, Polars, pyarrow and xarray, and the names of A's columns."""

import copy
import datetime
import pickle
import re
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest

import fastrsx
from fastrsx import Status, frames
from fastrsx.cli import main
from fastrsx.data import load_automobiles

N, D = 24, 3
NAMES = ("price", "fuel use", "hp")


@pytest.fixture
def pd():
    return pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture
def pl():
    return pytest.importorskip("polars", reason="Polars is not installed")


@pytest.fixture(params=["pandas", "polars"])
def library(request):
    return pytest.importorskip(request.param, reason=f"{request.param} is not installed")


def example():
    rng = np.random.default_rng(7)
    return rng.integers(-8, 9, (N, D)) / 8, rng.integers(0, 9, N) / 128


def table(library, A, **columns):
    """A frame of A's columns, some replaced."""
    return library.DataFrame(dict(zip(NAMES, A.T.copy(), strict=True)) | columns)


def needs(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def read(A):
    return fastrsx.Problem(A, np.ones(len(A)), kernel="serial").A


def solve(A, b, x0=None, **options):
    return fastrsx.newton(A, b, x0, kernel="serial", **options)


# -- what is read ---------------------------------------------------------------------------------------------


def test_a_frame_and_series_give_the_bits_of_their_arrays(library):
    A, b = example()
    x0, w = np.array([0.25, -0.5, 0.125]), np.full(N, 0.125)
    plain = solve(A, b, x0, w=w)
    result = solve(table(library, A), library.Series(b), library.Series(x0), w=library.Series(w))
    assert result.x.tobytes() == plain.x.tobytes()
    assert (result.names, plain.names) == (NAMES, None)


def test_columns_of_different_dtypes_become_float64(library):
    A, _ = example()
    whole, flags = (8 * A[:, 1]).astype(np.int32), A[:, 2] > 0
    expected = np.column_stack([A[:, 0].astype(np.float32), whole, flags])
    frame = table(library, A, **{"price": A[:, 0].astype(np.float32), "fuel use": whole, "hp": flags})
    np.testing.assert_array_equal(read(frame), expected)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "Float32", "UInt8", "boolean"])
def test_nullable_columns_are_taken(pd, dtype):
    A = np.array([[0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(read(pd.DataFrame(A).astype(dtype)), A)
    np.testing.assert_array_equal(fastrsx.Problem(A, pd.Series(A[:, 0]).astype(dtype), kernel="serial").b, A[:, 0])


@pytest.mark.parametrize("dtype", ["int64[pyarrow]", "double[pyarrow]", "bool[pyarrow]"])
def test_arrow_columns_are_taken(pd, dtype):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    A = np.array([[0, 1], [1, 0], [1, 1]])
    frame = pd.DataFrame(A).astype(dtype)
    np.testing.assert_array_equal(read(frame), A)
    frame.iloc[1, 0] = None
    with pytest.raises(ValueError, match=r"A\[1, 0\] is nan"):
        read(frame)


@pytest.mark.parametrize("kind", [("decimal32", 9), ("decimal64", 18), ("decimal128", 38), ("decimal256", 76)], ids=str)
@pytest.mark.parametrize("wrap", ["pandas", "pyarrow"])
def test_arrow_decimals_are_taken(kind, wrap):
    pa = needs("pyarrow")
    name, precision = kind
    if not hasattr(pa, name):
        pytest.skip(f"this pyarrow has no {name}")
    columns = {"x": [Decimal("1.5"), Decimal("-0.125")], "y": [Decimal("2"), None]}
    frame = pa.table({label: pa.array(column, getattr(pa, name)(precision, 3)) for label, column in columns.items()})
    if wrap == "pandas":
        frame = frame.to_pandas(types_mapper=needs("pandas").ArrowDtype)
    np.testing.assert_array_equal(frames.to_array("A", frame), [[1.5, 2], [-0.125, np.nan]])
    with pytest.raises(ValueError, match=r"A\[1, 1\] is nan \(1 such in column 'y'\)"):
        read(frame)


def arrow(A, **columns):
    """A pyarrow Table in chunks of unequal length."""
    pa = needs("pyarrow")
    frame = pa.table(dict(zip(NAMES, A.T.copy(), strict=True)) | columns)
    return pa.concat_tables([frame[:5], frame[5:]])


ARROW = {  # from a Table
    "Table": lambda frame: frame,
    "RecordBatch": lambda frame: frame.combine_chunks().to_batches()[0],
}


@pytest.mark.parametrize("make", ARROW)
def test_tables_of_pyarrow(make):
    A, b = example()
    pa = needs("pyarrow")
    x0, w = np.array([0.25, -0.5, 0.125]), np.full(N, 0.125)
    result = solve(ARROW[make](arrow(A)), pa.array(b), pa.chunked_array([x0[:2], x0[2:]]), w=pa.array(w))
    assert result.x.tobytes() == solve(A, b, x0, w=w).x.tobytes()
    assert result.names == NAMES
    mixed = arrow(A, **{"fuel use": (8 * A[:, 1]).astype(np.int16), "hp": A[:, 2] > 0})
    np.testing.assert_array_equal(read(ARROW[make](mixed)), np.column_stack([A[:, 0], 8 * A[:, 1], A[:, 2] > 0]))
    double = ARROW[make](arrow(A).rename_columns(["x", "y", "x"]))
    assert solve(double, b).names == ("x", "y", "x")
    np.testing.assert_array_equal(read(double), A)


@pytest.mark.parametrize("values", [[1, None], [1.0, None], [True, None], [Decimal("1.5"), None]], ids=["int", "float", "bool", "decimal"])
@pytest.mark.parametrize("make", ARROW)
def test_missing_entries_of_pyarrow_are_named(make, values):
    A, b = example()
    column = needs("pyarrow").array([*values, *values[:1] * (N - 2)])
    with pytest.raises(ValueError, match=r"A\[1, 2\] is nan \(1 such in column 'hp'\).*remove or fill it"):
        solve(ARROW[make](arrow(A, hp=column)), b)
    with pytest.raises(ValueError, match=r"b\[1\] is nan; 1 of 24 .*remove or fill"):
        solve(A, column)


def test_128_bits_of_polars_are_taken(pl):
    if not hasattr(pl, "Int128"):
        pytest.skip("this Polars has no Int128")
    frame = pl.DataFrame({"a": pl.Series([3, -4], dtype=pl.Int128), "b": [0.5, 0.25]})
    np.testing.assert_array_equal(read(frame), [[3, 0.5], [-4, 0.25]])


@pytest.mark.parametrize("dtype", ["Sparse[float64]", "Sparse[int64]", "Sparse[bool]"])
def test_sparse_columns_of_pandas_are_taken(pd, dtype):
    A = np.array([[0, 1], [1, 0], [0, 0]])
    assert solve(pd.DataFrame(A, columns=["x", "y"]).astype(dtype), [0.5, 0.25, 0.25]).names == ("x", "y")
    np.testing.assert_array_equal(read(pd.DataFrame(A).astype(dtype)), A)


def test_structured_arrays_are_tables():
    A, b = example()
    fields = np.array(list(zip(*A.T, strict=True)), dtype=[("price", "<f4"), ("fuel use", ">f8"), ("hp", "f8")])
    for data in (fields, fields.view(np.recarray), np.rec.fromarrays(A.T, names=list(NAMES))):
        before = data.tobytes()
        result = solve(data, b)
        assert (result.names, result.x.tobytes()) == (NAMES, solve(A, b).x.tobytes())
        np.testing.assert_array_equal(fastrsx.predict(data, result.x), fastrsx.predict(A, result.x))
        assert data.tobytes() == before
    np.testing.assert_array_equal(solve(A, fields["hp"]).x, solve(A, A[:, 2]).x)


def test_arrays_of_xarray_give_the_names_of_a_coordinate():
    xr = needs("xarray")
    A, b = example()
    named = xr.DataArray(A, dims=("car", "what"), coords={"what": list(NAMES)})
    assert solve(named, xr.DataArray(b, dims="car")).names == NAMES
    assert solve(xr.DataArray(A), b).names is None
    assert solve(xr.DataArray(A, dims=("columns", "column_names")), b).x.tobytes() == solve(A, b).x.tobytes()


class Modin:
    """A frame like modin's: it behaves like one of pandas, but has its own class."""

    def __init__(self, frame):
        self.frame, self.columns, self.dtypes, self.index = frame, frame.columns, frame.dtypes, frame.index

    def __len__(self):
        return len(self.frame)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.frame, dtype, copy=copy)

    def items(self):
        return self.frame.items()


def test_frames_like_those_of_pandas_are_taken(pd):
    A, b = example()
    frame = table(pd, A, hp=pd.array(A[:, 2], dtype="Float64"))
    assert solve(Modin(frame), b).names == NAMES
    np.testing.assert_array_equal(read(Modin(frame)), A)
    with pytest.raises(ValueError, match=r"b has an index .*b\.loc\[A\.index\]"):
        solve(Modin(frame), pd.Series(b)[::-1])


def test_iterators_are_read_once():
    A, b = example()
    expected = solve(A, b, np.full(D, 0.125), w=np.full(N, 0.5)).x.tobytes()
    assert solve((row for row in A), iter(b), map(float, [0.125] * D), w=(0.5 for _ in range(N))).x.tobytes() == expected
    np.testing.assert_array_equal(fastrsx.predict(zip(*A.T, strict=True), iter([0.125] * D)), fastrsx.predict(A, [0.125] * D))
    assert fastrsx.newton_batch(iter([A, A]), iter([b, b])).x.tobytes() == fastrsx.newton_batch([A, A], [b, b]).x.tobytes()


def test_polars_decimals_and_booleans_are_taken(pl):
    frame = pl.DataFrame({"a": pl.Series(["1.5", "2.25"]).cast(pl.Decimal(10, 2)), "b": [True, False]})
    np.testing.assert_array_equal(read(frame), [[1.5, 1], [2.25, 0]])


def test_a_plain_frame_is_read_in_place(pd):
    frame = pd.DataFrame(example()[0], copy=False)
    data = np.asarray(frame)
    assert data.flags.c_contiguous
    assert np.shares_memory(read(frame), data)


def test_a_frame_is_not_changed(library):
    frame = table(library, example()[0], hp=np.arange(N) % 2 == 0)
    before = frame.clone() if hasattr(frame, "clone") else frame.copy()
    solve(frame, example()[1])
    assert frame.equals(before)


def test_double_labels_are_read_by_position(pd):
    A, b = example()
    frame = table(pd, A, hp=A[:, 2] > 0)
    frame.columns = ["x", "y", "x"]
    assert solve(frame, b).names == ("x", "y", "x")
    np.testing.assert_array_equal(read(frame), np.column_stack([A[:, :2], A[:, 2] > 0]))


def test_neither_library_is_imported():
    code = (
        "import sys, numpy as np, fastrsx; fastrsx.Problem(np.ones((2, 1)), [1.0, 0.0]); "
        "print({'pandas', 'polars', 'pyarrow', 'xarray', 'dask', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout == "set()\n"


# -- what is refused ------------------------------------------------------------------------------------------


MISSING = {  # of a column: (values, dtype)
    "Int64": lambda pd, values: pd.Series(values, dtype="Int64"),
    "Float64": lambda pd, values: pd.Series(values, dtype="Float64"),
    "boolean": lambda pd, values: pd.Series([None if value is None else value > 0 for value in values], dtype="boolean"),
}


@pytest.mark.parametrize("dtype", MISSING)
def test_missing_entries_of_pandas_are_named(pd, dtype):
    A, b = example()
    column = MISSING[dtype](pd, [1, None, *[0] * (N - 2)])
    with pytest.raises(ValueError, match=r"A\[1, 2\] is nan \(1 such in column 'hp'\).*remove or fill it"):
        solve(table(pd, A, hp=column), b)
    with pytest.raises(ValueError, match=r"b\[1\] is nan; 1 of 24 .*remove or fill"):
        solve(A, column)
    with pytest.raises(ValueError, match=r"w\[1\] is nan"):
        solve(A, b, w=column)


@pytest.mark.parametrize("values", [[1, None], [1.0, None], [True, None]], ids=["int", "float", "bool"])
def test_missing_entries_of_polars_are_named(pl, values):
    A, b = example()
    column = pl.Series([*values, *values[:1] * (N - 2)])
    with pytest.raises(ValueError, match=r"A\[1, 2\] is nan \(1 such in column 'hp'\).*remove or fill it"):
        solve(table(pl, A, hp=column), b)
    with pytest.raises(ValueError, match=r"b\[1\] is nan; 1 of 24 .*remove or fill"):
        solve(A, column)


def words(pd):
    return pd.Series(list("abc" * 8))


NO_NUMBERS = {
    "pandas strings": ("pandas", words, r"'hp' \(str(ing\[python\])?|object\)"),
    "pandas categories": ("pandas", lambda pd: words(pd).astype("category"), r"'hp' \(category\)"),
    "pandas categories that are numbers": ("pandas", lambda pd: pd.Series([1, 2] * 12).astype("category"), r"'hp' \(category\)"),
    "pandas dates": ("pandas", lambda pd: pd.Series(pd.date_range("2020", periods=N)), r"'hp' \(datetime64.*\)"),
    "pandas objects": ("pandas", lambda pd: pd.Series([1.0] * N, dtype=object), r"'hp' \(object\)"),
    "pandas complex": ("pandas", lambda pd: pd.Series([1j] * N), r"'hp' \(complex128\)"),
    "polars strings": ("polars", words, r"'hp' \(String\)"),
    "polars categories": ("polars", lambda pl: words(pl).cast(pl.Categorical), r"'hp' \(Categorical.*\)"),
    "polars dates": ("polars", lambda pl: pl.Series(range(N)).cast(pl.Date), r"'hp' \(Date\)"),
    "pandas times with a zone": ("pandas", lambda pd: pd.Series(pd.date_range("2020", periods=N, tz="UTC")), r"'hp' \(datetime64.*\)"),
    "pandas durations": ("pandas", lambda pd: pd.Series(pd.to_timedelta(range(N))), r"'hp' \(timedelta64.*\)"),
    "pandas intervals": ("pandas", lambda pd: pd.Series(pd.interval_range(0, N)), r"'hp' \(interval\[int64.*\)"),
    "polars enums": ("polars", lambda pl: words(pl).cast(pl.Enum(["a", "b", "c"])), r"'hp' \(Enum.*\)"),
    "polars times": ("polars", lambda pl: pl.Series([datetime.time(1)] * N), r"'hp' \(Time\)"),
    "polars lists": ("polars", lambda pl: pl.Series([[1.0, 2.0]] * N), r"'hp' \(List.*\)"),
    "polars arrays": ("polars", lambda pl: pl.Series([[1.0, 2.0]] * N, dtype=pl.Array(pl.Float64, 2)), r"'hp' \(Array.*\)"),
    "polars structs": ("polars", lambda pl: pl.Series([{"x": 1.0, "y": 2.0}] * N), r"'hp' \(Struct.*\)"),
    "polars nothing": ("polars", lambda pl: pl.Series([None] * N), r"'hp' \(Null\)"),
}


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_columns_that_are_no_numbers_are_named(case):
    library, make, found = NO_NUMBERS[case]
    library = pytest.importorskip(library, reason=f"{library} is not installed")
    A, b = example()
    column = make(library)
    with pytest.raises(TypeError, match=rf"A has columns that are not real numbers: {found}; encode, convert or drop them"):
        solve(table(library, A, hp=column), b)
    with pytest.raises((TypeError, ValueError), match=r"b (has dtype|is complex|has shape \(24, 2\))"):
        solve(A, column)


NO_NUMBERS_OF_ARROW = {  # of a column: how to make it of pyarrow, and its dtype
    "strings": (lambda pa: pa.array(list("abc" * 8)), "string"),
    "categories": (lambda pa: pa.array(list("abc" * 8)).dictionary_encode(), "dictionary<values=string.*"),
    "categories that are numbers": (lambda pa: pa.array([1, 2] * 12).dictionary_encode(), "dictionary<values=int64.*"),
    "dates": (lambda pa: pa.array([datetime.date(2020, 1, 1)] * N), r"date32\[day\]"),
    "durations": (lambda pa: pa.array([datetime.timedelta(1)] * N), r"duration\[us\]"),
    "lists": (lambda pa: pa.array([[1.0]] * N), "list<.*"),
    "arrays": (lambda pa: pa.array([[1.0]] * N, pa.list_(pa.float64(), 1)), "fixed_size_list<.*"),
    "nothing": (lambda pa: pa.nulls(N), "null"),
}


@pytest.mark.parametrize("wrap", ["Table", "RecordBatch", "pandas"])
@pytest.mark.parametrize("case", NO_NUMBERS_OF_ARROW)
def test_columns_of_arrow_that_are_no_numbers_are_named(case, wrap):
    make, dtype = NO_NUMBERS_OF_ARROW[case]
    A, b = example()
    column = make(needs("pyarrow"))
    frame = arrow(A, hp=column)
    frame = frame.to_pandas(types_mapper=needs("pandas").ArrowDtype) if wrap == "pandas" else ARROW[wrap](frame)
    with pytest.raises(TypeError, match=rf"A has columns that are not real numbers: 'hp' \({dtype}(\[pyarrow\])?\); encode, convert or drop them"):
        solve(frame, b)
    with pytest.raises(TypeError, match=f"b has dtype {dtype}; pass real numbers: encode or convert what is none"):
        solve(A, column)


def test_fields_of_a_structured_array_that_are_no_numbers_are_named():
    fields = np.zeros(N, dtype=[("name", "U3"), ("hp", float), ("size", float, 2), ("both", [("x", float), ("y", float)])])
    found = "'name' (<U3), 'size' (('<f8', (2,))), 'both' ([('x', '<f8'), ('y', '<f8')]); encode"
    with pytest.raises(TypeError, match=re.escape(f"A has columns that are not real numbers: {found}")):
        solve(fields, example()[1])


def test_many_such_columns_are_counted(library):
    with pytest.raises(TypeError, match=r"'5'|'4' \(\w+\) and 3 more; encode"):
        read(library.DataFrame({str(j): ["x", "y"] for j in range(8)}))


def test_a_lazy_frame_is_refused(pl):
    with pytest.raises(TypeError, match=r"A is a LazyFrame.*pass A\.collect\(\)"):
        solve(table(pl, example()[0]).lazy(), example()[1])


# -- indices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b", "w"])
def test_another_index_than_that_of_the_data_is_refused(pd, name):
    A, b = example()
    frame = table(pd, A).set_index(np.arange(N) + 5)
    vectors = {"b": b, "w": np.full(N, 0.125)}
    right = pd.Series(vectors[name], index=frame.index)
    assert solve(**{"A": frame} | vectors | {name: right}).x.tobytes() == solve(A, **vectors).x.tobytes()
    with pytest.raises(ValueError, match=rf"^{name} has an index .*same labels in another order: pass {name}\.loc\[A\.index\]"):
        solve(**{"A": frame} | vectors | {name: right[::-1]})
    with pytest.raises(ValueError, match=rf"^{name} has an index .*other labels: align.*{name}\.to_numpy\(\)"):
        solve(**{"A": frame} | vectors | {name: right.reset_index(drop=True)})
    assert solve(**{"A": A} | vectors | {name: right[::-1]}).nit > 0  # an array has no index


def test_x0_goes_by_position_unless_its_labels_say_otherwise(pd):
    A, b = example()
    frame, x0 = table(pd, A), np.array([0.25, -0.5, 0.125])
    expected = solve(A, b, x0).x.tobytes()
    labelled = pd.Series(x0, index=NAMES)
    for start in (labelled, pd.Series(x0)):
        assert solve(frame, b, start).x.tobytes() == expected
        assert solve(A, b, start).x.tobytes() == expected
    with pytest.raises(ValueError, match=r"x0 has labels that differ.*pass x0\.loc\[A\.columns\]"):
        solve(frame, b, labelled[::-1])
    with pytest.raises(ValueError, match=r"x0 has labels that differ.*align"):
        solve(frame, b, labelled.rename({"hp": "kW"}))


METHODS = ("value", "grad", "hess", "value_and_grad", "value_grad_hess", "factors", "predict", "hess_operator", "jac_operator")
DOORS = {  # for vectors with an entry for each column: the vector's name, and a call with A, b and the vector
    **{f"Problem.{name}": ("x", lambda A, b, x, name=name: getattr(fastrsx.Problem(A, b, kernel="serial"), name)(x)) for name in METHODS},
    "Problem.hess_vec, x": ("x", lambda A, b, x: fastrsx.Problem(A, b, kernel="serial").hess_vec(x, np.ones(D))),
    "Problem.hess_vec, p": ("p", lambda A, b, p: fastrsx.Problem(A, b, kernel="serial").hess_vec(np.zeros(D), p)),
    "Factors.matvec": ("p", lambda A, b, p: fastrsx.Problem(A, b, kernel="serial").factors(np.zeros(D)).matvec(p)),
    "predict": ("x", lambda A, b, x: fastrsx.predict(A, x)),
    "newton": ("x0", lambda A, b, x0: solve(A, b, x0).x),
    "newton, reduced": ("x0", lambda A, b, x0: solve(A, b, x0, hessian="reduced").x),
    "newton_batch": ("x0", lambda A, b, x0: fastrsx.newton_batch([A], [b], [x0], max_iter=1).x),
    "curvature": ("x", fastrsx.curvature),
    "psd_weights": ("x", fastrsx.psd_weights),
    "convergence": ("x0", lambda A, b, x0: fastrsx.convergence(A, b, x0, w=0.1, kernel="serial").x),
}


def bits(found):
    """The bits of the value that a call returns, without names."""
    if isinstance(found, tuple):
        return tuple(map(bits, found[:4] if isinstance(found, fastrsx.Factors) else found))
    if hasattr(found, "rmatvec"):
        return found.matvec(np.arange(found.shape[1])).tobytes()
    return found.tobytes() if isinstance(found, np.ndarray) else found


@pytest.mark.parametrize("door", DOORS)
def test_labels_of_what_has_an_entry_for_each_column(pd, door):
    A, b = example()
    rows = 2 if "reduced" in door else N  # it needs more columns than rows
    A, b, x = A[:rows], b[:rows], np.array([0.25, -0.5, 0.125])
    frame, (name, call) = table(pd, A), DOORS[door]
    labelled = pd.Series(x, index=NAMES)
    expected = bits(call(A, b, x))
    for good in (labelled, pd.Series(x), labelled.to_numpy(), x.tolist()):
        assert bits(call(frame, b, good)) == expected
        assert bits(call(A, b, good)) == expected
    for other in (labelled.sort_values(), labelled[::-1]):
        with pytest.raises(ValueError, match=rf"\b{name} has labels that differ .*same in another order: pass {name}\.loc\[A\.columns\]"):
            call(frame, b, other)
        assert bits(call(frame, b, other.loc[frame.columns])) == expected
        assert bits(call(frame, b, other.to_numpy())) == bits(call(A, b, other.to_numpy()))
    with pytest.raises(ValueError, match=rf"\b{name} has labels .*\('kW' where A has 'hp'\), other ones: align .*{name}\.to_numpy\(\)"):
        call(frame, b, labelled.rename({"hp": "kW"}))
    for unnamed in (A, pd.DataFrame(A)):
        with pytest.raises(ValueError, match=rf"\b{name} has labels .*another order: pass {name}\.loc\[list\(range\(3\)\)\]"):
            call(unnamed, b, pd.Series(x)[::-1])


LABELS = {  # of A's columns: as pandas has them
    "strings": lambda pd: list(NAMES),
    "years": lambda pd: [2019, 2021, 2020],
    "numbers in another order": lambda pd: [2, 0, 1],
    "numbers as strings": lambda pd: ["2", "0", "1"],
    "levels": lambda pd: pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")]),
    "dates": lambda pd: pd.date_range("2020", periods=D),
    "all kinds": lambda pd: [1, "x", (2, 3)],
}
TABLES = {  # with labels, from an array and strings
    "polars": lambda A, names: needs("polars").DataFrame(dict(zip(names, A.T, strict=True))),
    "pyarrow": lambda A, names: needs("pyarrow").table(dict(zip(names, A.T, strict=True))),
    "structured": lambda A, names: np.rec.fromarrays(A.T, names=list(names)),
    "xarray": lambda A, names: needs("xarray").DataArray(A, dims=("i", "j"), coords={"j": list(names)}),
    "header": lambda A, names: frames.Labelled(A, list(names)),
}


def followed(call, name, vector, A):
    """The result of the call after its advice was followed."""
    with pytest.raises(ValueError, match=rf"^{name} has labels that differ from the columns of A") as error:
        call(vector)
    remedy = re.search(r"pass (.*?); or (.*?) to go by position", str(error.value))
    eval(remedy[2], {name: vector})  # this expression must work too
    return call(eval(remedy[1], {name: vector, "A": A}))


@pytest.mark.parametrize("case", [*LABELS, *TABLES])
def test_advice_on_labels_works_whatever_they_are(pd, case):
    """Both if the vector has the labels themselves and if it has the names that a result gives."""
    A, b = example()
    x = np.array([0.25, -0.5, 0.125])
    data = pd.DataFrame(A, columns=LABELS[case](pd)) if case in LABELS else TABLES[case](A, NAMES)
    problem = fastrsx.Problem(data, b, kernel="serial")
    expected = problem.value(x)
    for labels in (data.columns if case in LABELS else NAMES, problem.names):
        labelled = pd.Series(x, index=labels)
        assert problem.value(labelled) == expected
        for order in ([2, 1, 0], [1, 2, 0]):
            assert followed(problem.value, "x", labelled.iloc[order], data) == expected


def test_labels_of_xarray(pd):
    xr = needs("xarray")
    A, b = example()
    x = np.array([0.25, -0.5, 0.125])
    data = xr.DataArray(A, dims=("i", "j"), coords={"i": np.arange(N) + 5, "j": list(NAMES)})
    start, target = xr.DataArray(x, dims="j", coords={"j": list(NAMES)}), xr.DataArray(b, dims="i", coords={"i": data.indexes["i"]})
    expected = solve(A, b, x).x.tobytes()
    assert solve(data, target, start).x.tobytes() == solve(data, b, xr.DataArray(x)).x.tobytes() == expected
    assert followed(lambda x0: solve(data, b, x0), "x0", start[[2, 0, 1]], data).x.tobytes() == expected
    with pytest.raises(ValueError, match=r"^b has an index .*another order: pass b\.loc\[A\.indexes\['i'\]\]"):
        solve(data, target[::-1])
    assert solve(data, target[::-1].loc[data.indexes["i"]], x).x.tobytes() == expected
    assert solve(data, target[::-1].to_numpy()).nit > 0


def test_double_labels_in_another_order_have_no_advice(pd):
    A, b = example()
    frame = pd.DataFrame(A, columns=["x", "y", "x"])
    assert solve(frame, b, pd.Series(np.zeros(D), index=["x", "y", "x"])).nit > 0
    with pytest.raises(ValueError, match=r"x0 has labels .*and some are double: align them first; or x0\.to_numpy\(\)"):
        solve(frame, b, pd.Series(np.zeros(D), index=["x", "x", "y"]))


ROW_DOORS = {  # for vectors with an entry for each row
    "newton": lambda A, b, w: solve(A, b, w=w).x,
    "Problem": lambda A, b, w: fastrsx.Problem(A, b, w=w, kernel="serial").value(np.zeros(D)),
    "curvature": lambda A, b, w: fastrsx.curvature(A, b, np.zeros(D), w=w),
    "psd_weights": lambda A, b, w: fastrsx.psd_weights(A, b, np.zeros(D)),
    "psd_weights, ball": lambda A, b, w: fastrsx.psd_weights(A, b, radius=1.0, beta=1.0),
    "lipschitz_bounds": lambda A, b, w: fastrsx.lipschitz_bounds(A, b, 1.0, 1.0, w=w),
    "convergence": lambda A, b, w: fastrsx.convergence(A, b, np.full(D, 0.1), w=w, kernel="serial").x,
    "newton_batch": lambda A, b, w: fastrsx.newton_batch([A, A], [b, b], w=[w, w]).x,
}


@pytest.mark.parametrize(("door", "name"), [(door, name) for door in ROW_DOORS for name in "bw" if name == "b" or "psd" not in door])
def test_labels_of_what_has_an_entry_for_each_row(pd, door, name):
    A, b = example()
    frame, vectors = table(pd, A).set_index(np.arange(N) + 5), {"b": b / b.sum(), "w": np.linspace(0.125, 1, N)}
    right, call = pd.Series(vectors[name], index=frame.index), ROW_DOORS[door]
    expected = bits(call(A, **vectors))
    assert bits(call(frame, **vectors | {name: right})) == expected
    with pytest.raises(ValueError, match=rf"\b{name} has an index .*another order: pass {name}\.loc\[A\.index\]"):
        call(frame, **vectors | {name: right[::-1]})
    assert bits(call(frame, **vectors | {name: right[::-1].loc[frame.index]})) == expected
    with pytest.raises(ValueError, match=rf"\b{name} has an index .*other labels: align.*{name}\.to_numpy\(\)"):
        call(frame, **vectors | {name: right.reset_index(drop=True)})


# -- many problems --------------------------------------------------------------------------------------------


def batch(pd):
    """Frames of unequal length with their own indices, and vectors for them."""
    A, b = example()
    As = [table(pd, A[:10]), table(pd, A[10:]).set_index(np.arange(10, N))]
    bs = [pd.Series(b[: len(frame)] / b[: len(frame)].sum(), index=frame.index) for frame in As]
    return As, bs, [pd.Series([0.25, -0.5, 0.125], index=NAMES)] * 2


def test_labels_are_compared_problem_by_problem(pd):
    As, bs, x0 = batch(pd)
    plain = [[value.to_numpy() for value in values] for values in (As, bs, x0)]
    expected = fastrsx.newton_batch(*plain)
    found = fastrsx.newton_batch(As, bs, x0, w=[0 * b for b in bs])
    assert (found.x.tobytes(), found.names, expected.names) == (expected.x.tobytes(), NAMES, None)
    with pytest.raises(ValueError, match=r"^problem 1: b has an index .*pass b\.loc\[A\.index\]"):
        fastrsx.newton_batch(As, [bs[0], bs[1].sort_values()])
    with pytest.raises(ValueError, match=r"^problem 0: w has an index .*pass w\.loc\[A\.index\]"):
        fastrsx.newton_batch(As, bs, w=[bs[0][::-1], bs[1]])
    with pytest.raises(ValueError, match=r"^problem 1: x0 has labels .*pass x0\.loc\[A\.columns\]"):
        fastrsx.newton_batch(As, bs, [x0[0], x0[1].sort_values()])
    with pytest.raises(ValueError, match=r"^problem 1: b has an index .*other labels"):
        fastrsx.newton_batch(As[:1] * 2, bs[:1] + [bs[0].rename(lambda label: label + 1)])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_may_hold_a_start_in_each_row(pd, library):
    As, bs, x0 = batch(pd)
    starts = needs(library).DataFrame({name: [start[name] for start in x0] for name in NAMES})
    assert fastrsx.newton_batch(As, bs, starts).x.tobytes() == fastrsx.newton_batch(As, bs, x0).x.tobytes()
    with pytest.raises(ValueError, match=r"^problem 0: x0 has labels that differ from the columns of A"):
        fastrsx.newton_batch(As, bs, starts[list(NAMES[::-1])])


def test_a_frame_may_hold_a_target_in_each_row(pd):
    A, b = example()
    frame, b = table(pd, A).set_index(np.arange(N) + 5), b / b.sum()
    targets = pd.DataFrame([b, b[::-1]], columns=frame.index)
    assert fastrsx.newton_batch([frame] * 2, targets).x.tobytes() == fastrsx.newton_batch([A] * 2, [b, b[::-1]]).x.tobytes()
    with pytest.raises(ValueError, match=r"^problem 0: b has an index that differs from that of A, the same labels in another order"):
        fastrsx.newton_batch([frame] * 2, targets[frame.index[::-1]])


def test_labels_of_the_problems_are_compared(pd):
    As, bs, _ = batch(pd)
    As, bs = pd.Series(As, index=["x", "y"]), pd.Series(bs, index=["x", "y"])
    assert fastrsx.newton_batch(As, bs).x.tobytes() == fastrsx.newton_batch(list(As), list(bs)).x.tobytes()
    with pytest.raises(ValueError, match=r"^b has an index .*another order: pass b\.loc\[A\.index\]"):
        fastrsx.newton_batch(As, bs[::-1])
    assert fastrsx.newton_batch(As, bs[::-1].loc[As.index]).success.all()
    with pytest.raises(ValueError, match=r"^b has an index .*other labels: align them first"):
        fastrsx.newton_batch(As, bs[:1])


def test_names_of_problems_that_differ(pd):
    As, bs, _ = batch(pd)
    assert fastrsx.newton_batch([As[0], As[1][list(NAMES[::-1])]], bs).names == [NAMES, NAMES[::-1]]
    assert fastrsx.newton_batch([As[0], As[1].to_numpy()], bs).names == [NAMES, None]


def test_an_array_of_xarray_holds_problems():
    xr = needs("xarray")
    A, b = example()
    data = xr.DataArray([A, A], dims=("k", "i", "j"), coords={"k": ["x", "y"], "i": np.arange(N) + 5, "j": list(NAMES)})
    targets = xr.DataArray([b, b], dims=("k", "i"), coords={"k": ["x", "y"], "i": np.arange(N) + 5})
    found = fastrsx.newton_batch(data, targets)
    assert (found.names, found.x.tobytes()) == (NAMES, fastrsx.newton_batch([A, A], [b, b]).x.tobytes())
    with pytest.raises(ValueError, match=r"^problem 0: b has an index"):
        fastrsx.newton_batch(data, targets[:, ::-1])
    with pytest.raises(ValueError, match=r"^b has an index"):
        fastrsx.newton_batch(data, targets[::-1])


# -- names ----------------------------------------------------------------------------------------------------


def test_numbers_that_pandas_gives_are_no_names(pd):
    A, b = example()
    assert solve(pd.DataFrame(A), b).names is None
    assert solve(pd.DataFrame(A, columns=[2019, 2020, 2021]), b).names == ("2019", "2020", "2021")
    assert frames.names_of(pd.DataFrame(A, columns=pd.MultiIndex.from_product([["a"], NAMES])))[0] == "('a', 'price')"


def test_a_missing_minimiser_names_its_columns():
    cars = load_automobiles()
    A = frames.Labelled(np.column_stack([cars.A, np.ones(len(cars.A))]), [*cars.names, "the constant"])
    result = solve(A, cars.b)
    assert result.status is Status.NO_MINIMISER
    assert "column 'the constant' of A" in result.message


def test_a_bad_entry_names_its_column():
    A, b = example()
    A[4, 1] = np.inf
    with pytest.raises(ValueError, match=r"A\[4, 1\] is inf \(1 such in column 'fuel use'\)"):
        solve(frames.Labelled(A, list(NAMES)), b)


def test_names_are_kept_with_a_problem_and_in_a_callback():
    A, b = example()
    named = frames.Labelled(A, list(NAMES))
    problem = fastrsx.Problem(named, b, kernel="serial")
    assert [twin.names for twin in (problem, pickle.loads(pickle.dumps(problem)), copy.deepcopy(problem))] == [NAMES] * 3
    seen = []
    solve(named, b, callback=lambda intermediate_result: seen.append(intermediate_result))
    assert seen[0].names == NAMES
    assert seen[0].table().startswith("price ")


def test_table():
    result = fastrsx.NewtonResult(x=np.array([0.25, -1234567.0, 1e-9]), names=NAMES)
    assert result.table() == "price             0.25\nfuel use  -1.23457e+06\nhp               1e-09"
    assert result.table(".1f").splitlines()[1] == "fuel use  -1234567.0"
    assert fastrsx.NewtonResult(x=np.ones(2), names=None).table() == "x[0]  1\nx[1]  1"


HEADERS = {  # of a csv file: the names that it gives
    "price,fuel use,hp": NAMES,
    "# price, fuel use,hp": NAMES,
    '"price","fuel use","hp"': NAMES,
    "\ufeffprice,fuel use,hp": NAMES,
    "cars of 1990": None,
    "": None,
}


@pytest.mark.parametrize("header", HEADERS)
def test_the_header_of_a_csv_file_names_coefficients(tmp_path, capsys, header):
    A, b = example()
    lines = [header] * bool(header) + [",".join(map(repr, row)) for row in A.tolist()]
    (tmp_path / "A.csv").write_text("\n".join(lines), encoding="utf-8")
    np.save(tmp_path / "b.npy", b / b.sum())
    status = main(["solve", str(tmp_path / "A.csv"), str(tmp_path / "b.npy"), "--quiet"])
    printed = [re.split(r"\s\s+", line) for line in capsys.readouterr().out.splitlines()[1:]]
    x = solve(A, b / b.sum()).x
    assert [float(fields[-1]) for fields in printed] == list(x)
    assert [fields[0] for fields in printed if len(fields) == 2] == list(HEADERS[header] or ())
    assert status == 0


def test_a_byte_order_mark_takes_no_row(tmp_path):
    (tmp_path / "A.csv").write_text("\ufeff1.0,2.0\n3.0,4.0\n", encoding="utf-8")
    from fastrsx.cli import read_array

    np.testing.assert_array_equal(read_array(str(tmp_path / "A.csv"), "A", 2), [[1, 2], [3, 4]])
