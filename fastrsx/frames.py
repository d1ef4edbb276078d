"""Tables and vectors with labels, of pandas, Polars, pyarrow, xarray and others, by their common interface: none is imported, so none is needed.

NumPy reads a table of one plain dtype directly. Mixed, nullable, boolean or decimal columns become objects, or NumPy does not say which entries
were missing or not numbers; so these columns are read one by one, missing entries as NaN, which is refused like any other.
"""

import re
from collections.abc import Iterable, Iterator, ValuesView
from typing import Any

import numpy as np
import numpy.typing as npt

from .system import device
from .system.memory import room_for

REAL = "fiub"  # kinds of NumPy's dtypes
# Dtypes of other libraries, by their names; NumPy makes objects, or nothing, of the first group.
NUMBERS = re.compile(r"(?:sparse\[|array\()?(?:(decimal\d*|u?int128)|u?int\d+|float\d*|double|halffloat|bool(?:ean)?)\b", re.IGNORECASE)
CONVERSIONS = ("collect", "read_all", "to_arrow_table", "to_table", "to_scipy")  # methods of non-arrays that convert to something readable
MOST_NAMED = 5  # columns, in a message
BLOCK = 4096  # rows copied at a time


class ColumnNames(tuple[str, ...]):
    """The names of A's columns: their labels as strings."""

    labels: list[Any]
    spelled: str  # how the caller writes the labels


Names = ColumnNames | None


class Labelled:
    """An array whose columns have names, such as a table from a file with a header."""

    def __init__(self, array: npt.NDArray[Any], columns: list[str]) -> None:
        self.array, self.columns = array, columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.array, dtype, copy=copy)


# -- entries --------------------------------------------------------------------------------------------------


def listed(value: Any) -> Any:
    """The entries of an iterator as a list; anything else unchanged."""
    is_read_once = isinstance(value, (Iterator, ValuesView)) and not hasattr(type(value), "__array__") and _conversion(value) is None
    return list(value) if is_read_once else value


def kind_of(value: Any) -> str:
    """Its class, for a message."""
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "AEIOUaeiou" else f"a {kind}"


def _conversion(value: Any) -> str | None:
    return next((method for method in CONVERSIONS if hasattr(type(value), method)), None)


def to_array(name: str, value: Any) -> npt.NDArray[Any]:
    """The caller's value as an array; a table or one of its columns as real numbers."""
    columns = _columns(value)
    if columns is not None:
        return _matrix(name, value, columns)
    dtype = _dtype(value) if hasattr(value, "to_numpy") else None
    if dtype is None or isinstance(dtype, np.dtype):
        return _read(name, value)
    array = _column(name, value, dtype)
    if array is None:
        raise TypeError(f"{name} has dtype {dtype}; pass real numbers: encode or convert what is none")
    return array


def _read(name: str, value: Any) -> npt.NDArray[Any]:
    """The array that NumPy makes of a value; a TypeError says what to pass instead where it makes none."""
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:  # of any class of any library
        device.refuse_tensor(name, value)
        why = str(error).split("\n")[0].rstrip(".")
    else:
        if array.ndim or array.dtype.kind != "O" or hasattr(value, "__float__"):
            return array
        why = "it becomes a single object"
    method = _conversion(value)
    todo = f"{name}.{method}()" if method else "rows of one length" if isinstance(value, (list, tuple)) else "real numbers in a list or an array"
    raise TypeError(f"{name} is {kind_of(value)}, of which NumPy makes no array: {why}; pass {todo}")


def _dtype(column: Any) -> Any:
    return column.dtype if hasattr(column, "dtype") else getattr(column, "type", None)


def _columns(table: Any) -> list[Any] | None:
    """The columns of a table, by position, because labels may repeat; None for anything else."""
    if isinstance(table, np.ndarray):
        return [table[field] for field in table.dtype.names] if table.dtype.names and table.ndim == 1 else None
    if not hasattr(table, "__array__") or not hasattr(table, "columns"):  # a LazyFrame would compute its columns
        return None
    if hasattr(type(table), "column_names"):
        return list(table.columns)
    if not hasattr(table, "dtypes"):
        return None
    return [column for _, column in table.items()] if hasattr(table, "items") else list(table.get_columns())


def _column(name: str, column: Any, dtype: Any) -> npt.NDArray[Any] | None:
    """A column as real numbers, NaN where they are missing; None where it holds something else."""
    if isinstance(dtype, np.dtype):
        return _read(name, column) if dtype.kind in REAL else None
    known = NUMBERS.match(str(dtype))
    if known is None:  # categories too, even if they are numbers: as numbers they mean nothing
        return None
    if known[1] is None:
        array = _read(name, column)
        if array.dtype.kind in REAL:
            return array
    if hasattr(column, "isna"):  # of pandas
        return np.asarray(column.to_numpy(dtype=float, na_value=np.nan))
    try:
        return _read(name, column.cast(float if hasattr(column, "dtype") else "float64"))  # Polars, else pyarrow
    except Exception:  # of any class of any library
        return None


def _matrix(name: str, table: Any, columns: list[Any]) -> npt.NDArray[Any]:
    """A table as an array, in the dtype and layout of the table where its columns share a plain one, else C-ordered float64."""
    dtypes = [table.dtype[j] for j in range(len(columns))] if isinstance(table, np.ndarray) else list(map(_dtype, columns))
    if hasattr(table, "dtypes") and isinstance(dtypes[0] if dtypes else None, np.dtype) and dtypes[0].kind in REAL and len(set(dtypes)) == 1:
        return _read(name, table)
    n, labels = len(table), _labels(table)[0]
    with room_for(f"a float64 copy of the columns of {name}", n * len(columns)), np.errstate(all="ignore"):  # a longdouble may be beyond float64
        arrays: list[Any] = [_column(f"{name}[{label!r}]", *column) for label, *column in zip(labels, columns, dtypes, strict=True)]
        found = zip(labels, dtypes, arrays, strict=True)
        wrong = [f"{label!r} ({dtype})" for label, dtype, array in found if array is None or array.ndim != 1]
        if wrong:
            shown = ", ".join(wrong[:MOST_NAMED]) + (f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else "")
            raise TypeError(f"{name} has columns that are not real numbers: {shown}; encode, convert or drop them")
        out = np.empty((n, len(columns)))
        for start in range(0, n, BLOCK):  # whole columns would go through the caches once for each
            for j, array in enumerate(arrays):
                out[start : start + BLOCK, j] = array[start : start + BLOCK]
    return out


# -- labels ---------------------------------------------------------------------------------------------------


def _is_xarray(value: Any) -> bool:
    return hasattr(type(value), "dims") and hasattr(type(value), "indexes")  # of the type: pandas gives columns as attributes


def index_of(value: Any, axis: int = 0) -> Any:
    """The labels along an axis of a pandas or xarray object, an Index; None for anything else."""
    if type(value) is np.ndarray:
        return None
    if _is_xarray(value):
        return value.indexes.get(value.dims[axis]) if len(value.dims) > axis else None
    index = getattr(value, "columns" if axis else "index", None)
    return index if hasattr(index, "equals") else None  # a list's `index` is something else


def _labels(table: Any) -> tuple[list[Any], str]:
    """The labels of a table's columns, none where it has none, and how its caller writes them."""
    if isinstance(table, np.ndarray):
        return list(table.dtype.names or ()), "list(A.dtype.names)"
    if hasattr(type(table), "column_names"):  # of pyarrow, whose `columns` are the entries
        return list(table.column_names), "A.column_names"
    if _is_xarray(table):
        index = index_of(table, 1)
        return ([], "") if index is None else (list(index), f"A.indexes[{table.dims[1]!r}]")
    labels = getattr(table, "columns", ())
    return list(labels) if isinstance(labels, Iterable) and hasattr(labels, "__len__") else [], "A.columns"


def table_labels(value: Any) -> list[Any]:
    """The labels that a table's columns are selected by; none for anything else."""
    return [] if _columns(value) is None else _labels(value)[0]


def labels_of(value: Any, axis: int = 0) -> Any:
    """The labels along an axis of a value with an entry for each column of A; those of a table need no Index."""
    return index_of(value) if axis == 0 else _labels(value)[0] or None


def names_of(A: Any) -> Names:
    """The names of A's columns; None where it has none, or only the numbers that pandas gives to those without."""
    if type(A) is np.ndarray and A.dtype.names is None:
        return None
    labels, spelled = _labels(A)
    if labels == list(range(len(labels))):
        return None
    names = ColumnNames(map(str, labels))
    names.labels, names.spelled = labels, spelled
    return names


def check_rows(A: Any, name: str, index: Any) -> None:
    """Refuse a vector whose index differs from A's: entries are matched by position, which is then not intended."""
    rows = None if index is None else index_of(A)
    if rows is None or index.equals(rows):
        return
    same = len(index) == len(rows) and rows.is_unique and index.is_unique and index.isin(rows).all()
    spelled = f"A.indexes[{A.dims[0]!r}]" if _is_xarray(A) else "A.index"
    how = f"the same labels in another order: pass {name}.loc[{spelled}]" if same else "other labels: align them first"
    raise ValueError(f"{name} has an index that differs from that of A, {how}; or {name}.to_numpy() to go by position")


def check_columns(names: Names, name: str, labels: Iterable[Any] | None) -> None:
    """Refuse a vector whose labels differ from the names of A's columns, or number columns without names in another order."""
    labels = [] if labels is None else list(labels)
    numbers = list(range(len(labels)))  # as pandas gives them
    wanted, spelled = (numbers, f"list(range({len(labels)}))") if names is None else (names.labels, names.spelled)
    if list(map(str, labels)) == list(map(str, wanted)):
        return
    same = set(labels) == set(wanted)
    if not same and (names is None or labels == numbers):
        return
    if names is not None and not same and set(labels) == set(names):
        same, spelled = True, f"list(map(str, {spelled}))"
    if len(set(labels)) < len(labels):
        how = "and some are double: align them first"
    else:
        how = f"the same in another order: pass {name}.loc[{spelled}]" if same else "other ones: align them first"
    j = next(j for j, (label, other) in enumerate(zip(labels, wanted, strict=True)) if str(label) != str(other))
    raise ValueError(
        f"{name} has labels that differ from the columns of A ({labels[j]!r} where A has {wanted[j]!r}), {how}; "
        f"or {name}.to_numpy() to go by position"
    )


def column_name(j: int, names: Names) -> str:
    """The name of column j of A in a message."""
    return str(j) if names is None else repr(names[j])
