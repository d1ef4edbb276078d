"""DataFrames and Series of pandas and Polars, and the names that columns of A have."""

import copy
import pickle
import re
import subprocess
import sys

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
    code = "import sys, numpy as np, fastrsx; fastrsx.Problem(np.ones((2, 1)), [1.0, 0.0]); print({'pandas', 'polars'} & set(sys.modules))"
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
}


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_columns_that_are_no_numbers_are_named(case):
    library, make, found = NO_NUMBERS[case]
    library = pytest.importorskip(library, reason=f"{library} is not installed")
    A, b = example()
    column = make(library)
    with pytest.raises(TypeError, match=rf"A has columns that are not real numbers: {found}; encode, convert or drop them"):
        solve(table(library, A, hp=column), b)
    with pytest.raises(TypeError, match=r"b (has dtype|is complex)"):
        solve(A, column)


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
    with pytest.raises(ValueError, match=r"x0 has labels that differ.*pass x0\[A\.columns\]"):
        solve(frame, b, labelled[::-1])
    with pytest.raises(ValueError, match=r"x0 has labels that differ.*align"):
        solve(frame, b, labelled.rename({"hp": "kW"}))


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


HEADERS = {  # of a csv file: the names that come of it
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
