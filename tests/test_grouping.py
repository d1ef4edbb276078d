"""Groups of rows by labels of any library, against a dict of lists, and the numbers that weigh rows."""

import collections
import datetime
import itertools
import re
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrsx.grouping import Groups, as_groups, as_row_weights, refuse_masked

properties = settings(max_examples=100, deadline=None, derandomize=True)
CITIES = ["Rome", "Oslo", "Rome", "Bonn", "Bonn", "Oslo", "Rome"]
YEARS = [1971, 1970, 1971, 1972, 1972, 1970, 1971]
N = len(CITIES)


def needs(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def brute(labels):
    """The groups as a dict of lists, in order of first appearance."""
    rows = {}
    for i, label in enumerate(labels):
        rows.setdefault(label, []).append(i)
    return rows


def plain(label):
    return label.item() if isinstance(label, np.generic) else label


def check(groups, labels):
    """Compare groups with those of plain labels."""
    rows = brute(labels)
    sizes = list(map(len, rows.values()))
    expected = list(itertools.chain(*rows.values()))
    assert isinstance(groups, Groups)
    assert (groups.offsets.dtype, groups.count) == (np.int64, len(rows))
    assert groups.offsets.tolist() == [0, *np.cumsum(sizes)]
    assert list(map(plain, groups.labels)) == list(rows)
    if expected == list(range(len(labels))):
        assert groups.order is None
    else:
        assert groups.order.dtype == np.int64
        assert groups.order.tolist() == expected


# -- groups ---------------------------------------------------------------------------------------------------

ANY = st.one_of(st.integers(-3, 3), st.booleans(), st.sampled_from(["1", "a", b"1", (1, "a"), datetime.date(2020, 1, 2), 2**70, 0.5, Decimal(7)]))
KINDS = {
    "few integers": st.integers(0, 2),
    "integers": st.integers(-(2**63), 2**63 - 1),
    "floats": st.floats(allow_nan=False),
    "strings": st.text("ab\0é", max_size=2),
    "bytes": st.binary(max_size=1),
    "any": ANY,
}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_in_groups(kind):
    @properties
    @given(st.lists(KINDS[kind], min_size=1, max_size=40))
    def agrees(labels):
        check(as_groups(labels, len(labels)), labels)
        check(as_groups(tuple(labels), len(labels)), labels)
        array = np.empty(len(labels), dtype=object)
        array[:] = labels
        check(as_groups(array, len(labels)), labels)

    agrees()


DTYPES = ["?", "i1", "u1", ">i2", "i4", "i8", "u8", ">u8", "f2", ">f4", "f8", "U2", "S2", ">U3", "M8[D]", ">M8[ns]", "m8[s]"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 7, 500])
def test_arrays_in_groups(dtype, length):
    """Scattered, in runs, in runs of unequal length, lying together, sorted, reversed, all different where the dtype has so many, all equal."""
    rng = np.random.default_rng(length)
    cases = {
        "scattered": rng.integers(0, 9, length),
        "runs": np.repeat(rng.integers(0, 9, length), 5),
        "unequal runs": np.repeat(rng.integers(0, 9, length), rng.integers(1, 9, length)),
        "together": np.repeat(rng.permutation(length) % 100, 3)[: 3 * min(length, 100)],
        "single rows and a pair": np.concatenate([rng.permutation(50), [77, 77]]),
        "sorted": np.sort(rng.integers(0, 99, length)),
        "reversed": np.arange(min(length, 99))[::-1],
        "equal": np.zeros(length, dtype=int),
    }
    for numbers in cases.values():
        array = numbers.astype(dtype)
        for labels in (array, np.repeat(array, 2)[::2], array[::-1]):
            before = labels.copy()
            check(as_groups(labels, len(labels)), labels.tolist())
            np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([-128, 127, -128, 0], dtype="i1"),
        np.array([-(2**15), 2**15 - 1, -(2**15)], dtype="i2"),
        np.array([-(2**63), 2**63 - 1, -(2**63)]),
        np.array([2**64 - 1, 0, 2**64 - 1], dtype="u8"),
        np.array([2**60, 2**60 + 1, 2**60]),
        np.array([-(2**63), -(2**63) + 65535, -(2**63)]),
        np.array([-(2**63), -(2**63) + 65536, -(2**63)]),
        np.array([0.0, -0.0, np.inf, -np.inf, 0.0]),
        np.arange(-128, 128).astype("i1")[np.random.default_rng(1).permutation(256)],
    ],
    ids=repr,
)
def test_extreme_numbers_stay_apart(labels):
    check(as_groups(labels, len(labels)), labels.tolist())


@properties
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=60), st.sampled_from([1, 1000, 2**20, 2**40]), st.integers(1, 6))
def test_integers_of_any_range(numbers, scale, repeats):
    labels = np.repeat(np.array(numbers) % 11 * scale, np.arange(len(numbers)) % repeats + 1)
    check(as_groups(labels, len(labels)), labels.tolist())


def test_a_group_for_each_row():
    labels = np.random.default_rng(3).permutation(100_000)
    groups = as_groups(labels, len(labels))
    assert (groups.count, groups.order) == (100_000, None)
    np.testing.assert_array_equal(groups.labels, labels)
    assert not np.shares_memory(groups.labels, labels)


def test_many_scattered_groups():
    labels = np.random.default_rng(4).integers(0, 2**40, 8_000) // 2**28 * 2**20  # of a range beyond 16 bits
    check(as_groups(labels, len(labels)), labels.tolist())


def test_labels_are_compared_as_python_compares_them():
    check(as_groups([1, "1", 1.0, True, "1"], 5), [1, "1", 1, 1, "1"])
    check(as_groups([2**53, 2**53 + 1, 0.5], 3), [2**53, 2**53 + 1, 0.5])  # which one float64 array would not keep apart
    check(as_groups(["a", "a\0"], 2), ["a", "a\0"])


@pytest.mark.parametrize(
    "value",
    [
        (city for city in CITIES),
        dict(enumerate(CITIES)).values(),
        collections.deque(CITIES),
        collections.UserList(CITIES),
        np.array(CITIES, dtype=object),
        np.array(CITIES),
        np.array(CITIES, dtype=np.dtypes.StringDType()),
        np.ma.array(CITIES, mask=False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_sequences_and_arrays_of_strings(value):
    check(as_groups(value, N), CITIES)


def test_a_range():
    check(as_groups(range(5), 5), range(5))


# -- columns of other libraries -------------------------------------------------------------------------------


def pandas(kind, dtype=None):
    """A Series, an Index or an array of pandas."""
    return lambda labels: getattr(needs("pandas"), kind)(labels, **({} if dtype is None else {"dtype": dtype}))


def polars(dtype=None):
    def make(labels):
        pl = needs("polars")
        if dtype is not None and not hasattr(pl, dtype):
            pytest.skip(f"this Polars has no {dtype}")
        return pl.Series(labels, dtype=None if dtype is None else getattr(pl, dtype))

    return make


def arrow(kind=None):
    return lambda labels: needs("pyarrow").array(labels, None if kind is None else getattr(needs("pyarrow"), kind)())


def chunked(labels):
    return needs("pyarrow").chunked_array([labels[:3], labels[3:]])


def own_dictionaries(labels):
    pa = needs("pyarrow")
    return pa.chunked_array([pa.array(part).dictionary_encode() for part in (labels[:3], labels[3:])])


def polars_enum(labels):
    pl = needs("polars")
    return pl.Series(labels, dtype=pl.Enum(["unused", *sorted({label for label in labels if label})]))


def repeated_dictionary(labels):
    pa = needs("pyarrow")
    return pa.DictionaryArray.from_arrays(pa.array(range(len(labels))), pa.array(labels))


def categories_of_arrow(labels):
    pd, pa = needs("pandas"), needs("pyarrow")
    return pd.Series(labels, dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())))


def of_strings(library):
    return [name for name, (_, labels) in COLUMNS.items() if name.startswith(library) and labels is CITIES]


COLUMNS = {  # (what makes it of plain labels, the labels)
    "pandas Series": (pandas("Series"), CITIES),
    "pandas objects": (pandas("Series", object), CITIES),
    "pandas string": (pandas("Series", "string"), CITIES),
    "pandas python string": (pandas("Series", "string[python]"), CITIES),
    "pandas pyarrow string": (pandas("Series", "string[pyarrow]"), CITIES),
    "pandas Arrow categories": (categories_of_arrow, CITIES),
    "pandas category": (pandas("Series", "category"), CITIES),
    "pandas Categorical": (pandas("Categorical"), CITIES),
    "pandas CategoricalIndex": (pandas("CategoricalIndex"), CITIES),
    "pandas Index": (pandas("Index"), CITIES),
    "pandas array": (pandas("array"), CITIES),
    "pandas ints": (pandas("Series"), YEARS),
    "pandas int Index": (pandas("Index"), YEARS),
    "pandas int categories": (pandas("Categorical"), YEARS),
    "pandas Int64": (pandas("Series", "Int64"), YEARS),
    "pandas UInt16": (pandas("Series", "UInt16"), YEARS),
    "pandas int64[pyarrow]": (pandas("Series", "int64[pyarrow]"), YEARS),
    "pandas Float32": (pandas("Series", "Float32"), YEARS),
    "pandas Sparse": (pandas("Series", "Sparse[int]"), YEARS),
    "polars String": (polars(), CITIES),
    "polars Categorical": (polars("Categorical"), CITIES),
    "polars Enum": (polars_enum, CITIES),
    "polars ints": (polars(), YEARS),
    "polars UInt16": (polars("UInt16"), YEARS),
    "polars Int128": (polars("Int128"), [2**90 + year for year in YEARS]),
    "polars Float32": (polars("Float32"), YEARS),
    "polars Boolean": (polars(), [True, False, True]),
    "polars Date": (polars(), [datetime.date(year, 1, 1) for year in YEARS]),
    "pyarrow strings": (arrow(), CITIES),
    "pyarrow large_string": (arrow("large_string"), CITIES),
    "pyarrow chunks": (chunked, CITIES),
    "pyarrow dictionaries": (own_dictionaries, CITIES),
    "pyarrow repeated dictionary": (repeated_dictionary, CITIES),
    "pyarrow ints": (arrow(), YEARS),
    "pyarrow int chunks": (chunked, YEARS),
    "pyarrow int dictionaries": (own_dictionaries, YEARS),
    "pyarrow bools": (arrow(), [True, False, True]),
    "pyarrow decimals": (arrow(), [Decimal("1.5"), Decimal(2), Decimal("1.5")]),
    "pyarrow dates": (arrow(), [datetime.date(year, 1, 1) for year in YEARS]),
    "xarray strings": (lambda labels: needs("xarray").DataArray(labels), CITIES),
    "xarray objects": (lambda labels: needs("xarray").DataArray(np.array(labels, dtype=object), dims="row"), CITIES),
    "xarray ints": (lambda labels: needs("xarray").DataArray(labels), YEARS),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_other_libraries(name):
    make, labels = COLUMNS[name]
    check(as_groups(make(labels), len(labels)), labels)
    together = sorted(labels)
    check(as_groups(make(together), len(labels)), together)


@pytest.mark.parametrize("name", [*of_strings("pandas"), *of_strings("polars"), *of_strings("pyarrow")])
@properties
@given(labels=st.lists(st.sampled_from(["a", "b", "cd", "é", "1"]), min_size=4, max_size=30))
def test_columns_of_any_strings(name, labels):
    check(as_groups(COLUMNS[name][0](labels), len(labels)), labels)


def test_dates_of_pandas():
    pd = needs("pandas")
    days = pd.Series(pd.to_datetime(["2020-01-02", "2019-01-02", "2020-01-02"]))
    for column, name in (
        (days, "2020-01-02"),
        (days.dt.tz_localize("UTC"), "Timestamp('2020-01-02 00:00:00+0000', tz='UTC')"),
        (days.dt.to_period("M"), "Period('2020-01', 'M')"),
    ):
        groups = as_groups(column, 3)
        assert (groups.offsets.tolist(), groups.order.tolist(), groups.name(0)) == ([0, 2, 3], [0, 2, 1], name)


def test_two_columns_as_tuples():
    pairs = list(zip(CITIES, YEARS, strict=True))
    check(as_groups(pairs, N), pairs)
    check(as_groups(needs("pandas").MultiIndex.from_tuples(pairs), N), pairs)


def test_rows_are_those_by_position():
    """Whatever the index of a Series is."""
    pd = needs("pandas")
    check(as_groups(pd.Series(CITIES, index=range(N)[::-1]), N), CITIES)
    check(as_groups(pd.Series(pd.Categorical(CITIES), index=[5] * N), N), CITIES)


def test_no_library_is_imported():
    code = (
        "import sys, numpy as np; from fastrsx.grouping import as_groups; as_groups(['a', 'b', 'a'], 3), as_groups(np.arange(3), 3); "
        "print({'pandas', 'polars', 'pyarrow', 'xarray', 'dask', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (np.array([1971]), "1971"),
        (np.array(["Boston"]), "'Boston'"),
        ([np.str_("Boston")], "'Boston'"),
        (np.array([b"x"]), "b'x'"),
        (np.array([True]), "True"),
        (np.array([1971.0], dtype=np.float32), "1971.0"),
        (np.array(["2020-01-02"], dtype="M8[ns]"), "2020-01-02"),
        (np.array(["2020-01-02T03"], dtype="M8[ns]"), "2020-01-02T03:00"),
        (np.array([3], dtype="m8[D]"), "3 days"),
        ([("Boston", 1971)], "('Boston', 1971)"),
        (["two\nlines"], r"'two\nlines'"),
        (["x" * 100], "'" + "x" * 49),
    ],
)
def test_names_are_those_of_plain_values(labels, name):
    assert as_groups(labels, 1).name(0) == name


# -- missing labels -------------------------------------------------------------------------------------------


def with_none(labels):
    return [None if i in (2, 5) else label for i, label in enumerate(labels)]


@pytest.mark.parametrize("name", [name for name, (_, labels) in COLUMNS.items() if len(labels) == N and name != "pandas Sparse"])
def test_missing_labels_of_columns(name):
    make, labels = COLUMNS[name]
    with pytest.raises(ValueError, match=r"^groups\[2\] is (None|nan|<NA>|NaT); 2 of 7 labels are missing: drop their rows of A and b, or fill them"):
        as_groups(make(with_none(labels)), N)


MISSING = [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), np.timedelta64("NaT"), Decimal("nan"), ("Rome", None), ((), float("nan"))]


def refuses_in_lists(value):
    for labels in (["Rome", value, "Oslo", value], [1, value, value, 2]):
        with pytest.raises(ValueError, match=r"^groups\[1\] is .*; 2 of 4 labels are missing: drop their rows"):
            as_groups(labels, 4)


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_missing_labels_of_lists(value):
    refuses_in_lists(value)


@pytest.mark.parametrize("name", ["NA", "NaT"])
def test_missing_values_of_pandas_in_lists(name):
    refuses_in_lists(getattr(needs("pandas"), name))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.array([1.0, np.nan, np.nan]), "nan"),
        (np.array([1.0, np.nan, np.nan], dtype=">f2"), "nan"),
        (np.array(["2020", "NaT", "NaT"], dtype="M8[D]"), "NaT"),
        (np.array([1, "NaT", "NaT"], dtype="m8[s]"), "NaT"),
        (np.array(["a", None, None], dtype=object), "None"),
        (np.array(["a", None, None], dtype=np.dtypes.StringDType(na_object=None)), "None"),
        (np.array(["a", np.nan, np.nan], dtype=np.dtypes.StringDType(na_object=np.nan)), "nan"),
        (np.ma.array([1, 2, 3], mask=[0, 1, 1]), "masked"),
        (np.ma.array(["a", "b", "c"], mask=[0, 1, 1], dtype=object), "masked"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_missing_labels_of_arrays(value, found):
    with pytest.raises(ValueError, match=rf"^groups\[1\] is {found}; 2 of 3 labels are missing: drop their rows"):
        as_groups(value, 3)


def test_missing_labels_in_other_places():
    pd, pa, pl, xr = map(needs, ("pandas", "pyarrow", "polars", "xarray"))
    both = pd.arrays.FloatingArray(np.array([1.0, np.nan, 1.0]), np.array([False, False, True]))  # NaN that is not NA
    pairs = pd.MultiIndex.from_tuples([("a", 1), ("b", None), ("a", None)])
    cases = [
        (pd.Series(both), 2),
        (pairs, 2),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["a", None, "b"])), 1),
        (pa.array([1.0, np.nan, np.nan]), 2),
        (pa.nulls(3).take(pa.array([0, 1, 2])), 3),
        (list(pa.array(["a", None, None])), 2),
        (pl.Series([1.0, np.nan, None]), 1),
        (pl.Series([1.0, np.nan, 2.0]), 1),
        (xr.DataArray([1.0, np.nan, np.nan]), 2),
    ]
    for value, count in cases:
        with pytest.raises(ValueError, match=rf"^groups\[\d\] is .*; {count} of 3 labels are missing: drop their rows"):
            as_groups(value, 3)


# -- what is refused ------------------------------------------------------------------------------------------


class OnGpu:
    """An array on a GPU, by its interfaces."""

    shape, ndim, dtype = (N,), 1, np.dtype(int)

    def __dlpack_device__(self):
        return 2, 0

    def get(self):
        raise AssertionError("copied without being asked")


class Tensor:
    """Like one of torch: hashed by its address."""

    def __array__(self, dtype=None, copy=None):
        return np.array(1)

    def __repr__(self):
        return "tensor(1)"


class Incomparable:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise TypeError("no order")


class Unreadable:
    """An array that gives an error instead of its entries."""

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


def frame(library):
    return lambda: needs(library).DataFrame({"city": CITIES, "year": YEARS})


SHAPE = r"it must have 1 axis: \(7,\), one for each row of A"
WRONG = {  # (what makes it, error, pattern of the message)
    "short": (lambda: CITIES[:5], ValueError, r"^groups has 5 entries; it must have 7, one for each row of A$"),
    "long": (lambda: np.arange(8), ValueError, r"^groups has 8 entries; it must have 7, one for each row of A$"),
    "empty": (list, ValueError, r"^groups has 0 entries; it must have 7"),
    "empty array": (lambda: np.empty(0), ValueError, r"^groups has 0 entries; it must have 7"),
    "short, masked": (lambda: np.ma.array([1, 2], mask=[0, 1]), ValueError, r"^groups has 2 entries; it must have 7"),
    "short Series": (lambda: needs("pandas").Series(CITIES[:5]), ValueError, r"^groups has 5 entries"),
    "short missing": (lambda: [None, "a"], ValueError, r"^groups has 2 entries"),
    "two axes": (lambda: np.ones((7, 2), dtype=int), ValueError, rf"^groups has shape \(7, 2\); {SHAPE}$"),
    "two axes of objects": (lambda: np.ones((7, 2), dtype=object), ValueError, rf"^groups has shape \(7, 2\); {SHAPE}$"),
    "column": (lambda: np.ones((7, 1)), ValueError, rf"^groups has shape \(7, 1\); {SHAPE}; pass np.ravel\(groups\)"),
    "0-D": (lambda: np.array(3), ValueError, rf"^groups has shape \(\); {SHAPE}"),
    "table of pandas": (frame("pandas"), ValueError, rf"^groups has shape \(7, 2\); {SHAPE}; pass one column, such as groups\['city'\]"),
    "table of Polars": (frame("polars"), ValueError, r"pass one column, such as groups\['city'\]"),
    "table of pyarrow": (lambda: needs("pyarrow").table({"city": CITIES}), ValueError, r"pass one column, such as groups\['city'\]"),
    "two axes of xarray": (lambda: needs("xarray").DataArray(np.ones((7, 2))), ValueError, rf"^groups has shape \(7, 2\); {SHAPE}"),
    "Dataset": (
        lambda: needs("xarray").Dataset({"city": ("row", CITIES)}),
        TypeError,
        r"^groups is a Dataset of arrays; pass one of them, such as groups\['city'\]",
    ),
    "structured": (
        lambda: np.zeros(7, dtype=[("city", "U4"), ("year", int)]),
        TypeError,
        r"^groups has fields in each entry, 'city', 'year'; pass one of them, such as groups\['city'\]",
    ),
    "LazyFrame": (lambda: frame("polars")().lazy(), TypeError, r"^groups is .*, a LazyFrame; pass groups.collect\(\)"),
    "Expr": (lambda: needs("polars").col("city"), TypeError, r"^groups is .*, an Expr; pass a list or an array of labels, one for each row of A"),
    "nested lists": (lambda: [["Rome", 1]] * 7, TypeError, r"^groups\[0\] is \['Rome', 1\], a list, which is no label; pass strings, numbers or"),
    "unhashable": (lambda: ["Rome", {"Oslo"}], TypeError, r"^groups\[1\] is \{'Oslo'\}, a set, which is no label; pass strings, numbers or"),
    "signalling NaN": (lambda: [1, Decimal("sNaN")], TypeError, r"^groups\[1\] is Decimal\('sNaN'\), a Decimal, which is no label"),
    "arrays in a list": (lambda: [np.ones(2)] * 7, TypeError, r"^groups\[0\] is array\(\[1., 1.\]\), a ndarray, which is no label"),
    "tensors in a list": (lambda: ["Rome", Tensor()], TypeError, r"^groups\[1\] is tensor\(1\), a Tensor, which is no label"),
    "incomparable": (
        lambda: [Incomparable(), Incomparable()],
        TypeError,
        r"^groups has labels that cannot be compared \(no order\); pass strings or numbers",
    ),
    "unreadable": (lambda: Unreadable(RuntimeError("gone")), TypeError, r"^groups is .*, an Unreadable; pass a list or an array of labels"),
    "too large": (lambda: Unreadable(MemoryError("no room")), MemoryError, r"^no room$"),
    "objects of lists": (lambda: needs("pandas").Series([[1]] * 7), TypeError, r"^groups\[0\] is \[1\], a list, which is no label"),
    "lists of Polars": (lambda: needs("polars").Series([[1]] * 7), TypeError, r"^groups\[0\] is \[1\], a list, which is no label"),
    "lists of pyarrow": (lambda: needs("pyarrow").array([[1]] * 7), TypeError, r"^groups\[0\] is \[1\], a list, which is no label"),
    "structs of pyarrow": (lambda: needs("pyarrow").array([{"a": 1}] * 7), TypeError, r"^groups\[0\] is \{'a': 1\}, a dict, which is no label"),
    "string": (lambda: "1234567", TypeError, r"^groups is the string '1234567'; pass labels, one for each row of A, such as a column"),
    "bytes": (lambda: b"1234567", TypeError, r"^groups is the string b'1234567'; pass labels"),
    "number": (lambda: 7, TypeError, r"^groups is 7, an int; pass a list or an array of labels, one for each row of A"),
    "object": (object, TypeError, r"^groups is <object .*>, an object; pass a list or an array of labels"),
    "set": (lambda: set(CITIES), TypeError, r"^groups is a set, which has no order; pass a list"),
    "dict": (lambda: dict(enumerate(CITIES)), TypeError, r"^groups is a dict; pass pandas.Series\(groups\)"),
    "keys": (lambda: {}.keys(), TypeError, r"^groups is a dict_keys, which has no order; pass a list"),
    "class": (lambda: list, TypeError, r"^groups is the class list"),
    "sparse": (
        lambda: scipy.sparse.csr_array(np.ones((7, 1))),
        TypeError,
        r"^groups is sparse \(csr_array\).*pass groups.toarray\(\).ravel\(\)",
    ),
    "sparse of one axis": (lambda: scipy.sparse.coo_array(np.ones(7)), TypeError, r"^groups is sparse \(coo_array\).*pass groups.toarray\(\)$"),
    "dask array": (lambda: needs("dask.array").ones(7), TypeError, r"^groups is a dask collection \(Array\).*pass groups.compute\(\)"),
    "dask Series": (
        lambda: needs("dask.dataframe").from_pandas(needs("pandas").Series(CITIES), npartitions=2),
        TypeError,
        r"^groups is a dask collection \(Series\).*pass groups.compute\(\)",
    ),
    "on a GPU": (OnGpu, TypeError, r"^groups is on a GPU, where an array in memory is needed; pass groups.get\(\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_column_of_labels_is_refused(name):
    make, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        as_groups(make(), N)


# -- numbers that weigh rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, 1.0, True, np.array(1), [1] * 4, np.ones(4, dtype=np.float32), [True] * 4])
def test_weights_of_one_are_empty(value):
    weights = as_row_weights("multiplicity", value, 4)
    assert (weights.shape, weights.dtype) == ((0,), np.float64)


@pytest.mark.parametrize(
    "value", [2, 0, 0.5, np.float32(2), np.array(3), [1, 2, 0, 1], (0.5, 1, 1, 1), np.array([1, 2, 3, 4], dtype=">i2"), [0.0] * 4]
)
def test_weights_are_float64(value):
    weights = as_row_weights("residual_weights", value, 4)
    assert weights.dtype == np.float64
    np.testing.assert_array_equal(weights, np.broadcast_to(np.asarray(value, dtype=float), 4))


@pytest.mark.parametrize("make", [pandas("Series"), pandas("Series", "Int64"), polars(), arrow(), lambda counts: needs("xarray").DataArray(counts)])
def test_weights_of_other_libraries(make):
    np.testing.assert_array_equal(as_row_weights("multiplicity", make([3, 0, 1, 2]), 4), [3.0, 0.0, 1.0, 2.0])


def test_weights_up_to_the_largest_entry():
    assert as_row_weights("multiplicity", 1e150, 2).tolist() == [1e150, 1e150]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([1, 2, -3, -1], ValueError, r"NAME\[2\] is -3.0; it must be at least 0: drop the row, or pass 0 where it does not count"),
        (-1, ValueError, r"NAME\[0\] is -1.0; it must be at least 0"),
        ([1, np.nan, 1, 1], ValueError, r"NAME\[1\] is nan; 1 of 4 entries are beyond 1e\+150 or not finite"),
        ([1, 1, np.inf, 1], ValueError, r"NAME\[2\] is inf"),
        ([1, 1, 1, 1.01e150], ValueError, r"NAME\[3\] is 1.01e\+150; 1 of 4 entries are beyond"),
        (np.inf, ValueError, r"NAME\[0\] is inf"),
        ([1, 1], ValueError, r"NAME has 2 entries; it must have 4, one for each row of A \(or pass a scalar\)"),
        (np.ones((4, 1)), ValueError, r"NAME has shape \(4, 1\); it must have 1 axis.*pass np.ravel\(NAME\)"),
        (["a"] * 4, TypeError, r"NAME has dtype <U1, and NAME\[0\] is 'a'"),
        ("all", TypeError, r"NAME has dtype <U3"),
        (2j, TypeError, r"NAME is complex"),
        (np.array(2j), TypeError, r"NAME is complex"),
        ({1, 2}, TypeError, r"NAME is a set"),
        (scipy.sparse.coo_array(np.ones(4)), TypeError, r"NAME is sparse"),
        (OnGpu(), TypeError, r"NAME is on a GPU"),
    ],
    ids=lambda value: re.sub(r"\s+", " ", repr(value))[:30],
)
@pytest.mark.parametrize("name", ["multiplicity", "residual_weights"])
def test_wrong_weights_are_refused(name, value, error, message):
    with pytest.raises(error, match="^" + message.replace("NAME", name)):
        as_row_weights(name, value, 4)


def gathered(groups, m):
    return m if groups.order is None else m[groups.order]


@pytest.mark.parametrize("zero", [["Oslo"], ["Bonn"], ["Rome", "Bonn"]], ids=" ".join)
@pytest.mark.parametrize("cities", [CITIES, sorted(CITIES)], ids=["scattered", "together"])
def test_a_group_without_any_multiplicity_is_refused(zero, cities):
    groups = as_groups(cities, N)
    m = np.array([0.0 if city in zero else 2.0 for city in cities])
    first = next(city for city in cities if city in zero)
    rest = ": drop its rows" if len(zero) == 1 else f" ({len(zero)} such groups of 3): drop their rows"
    with pytest.raises(ValueError, match=f"^{re.escape(f'multiplicity is 0 in every row of group {first!r}{rest}')}$"):
        refuse_masked(groups, gathered(groups, m))


def test_groups_with_some_multiplicity_are_taken():
    groups = as_groups(CITIES, N)
    m = np.zeros(N)
    m[[0, 4, 5]] = [1e150, 5e-324, 1.0]
    refuse_masked(groups, gathered(groups, m))
    refuse_masked(groups, np.empty(0))
    with pytest.raises(ValueError, match="group 'Rome'"):
        refuse_masked(groups, gathered(groups, np.where(m == 1e150, 0, m)))
