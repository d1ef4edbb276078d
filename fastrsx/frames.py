"""Tables of pandas, Polars and others, by what they have in common: neither is imported, so neither is needed.

NumPy reads a table of one plain dtype as it is. Of columns that differ, that are nullable or boolean, it makes objects, or does not say what
was missing or no number at all; so those are read one by one, missing entries as NaN, which is refused like any other.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from .memory import room_for

REAL = "fiub"  # kinds of dtypes
REAL_AS_OBJECTS = ("Boolean", "Decimal")  # dtypes of Polars that NumPy knows as objects, where entries are missing or always
MOST_NAMED = 5  # columns, in a message
BLOCK = 4096  # rows copied at a time

Names = tuple[str, ...] | None


class Labelled:
    """An array whose columns have names, as a table from a file with a header."""

    def __init__(self, array: npt.NDArray[Any], columns: list[str]) -> None:
        self.array, self.columns = array, columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.array, dtype, copy=copy)


def names_of(A: Any) -> Names:
    """The names of A's columns; None where it has none, or only the numbers that pandas gives to those without."""
    return None if isinstance(A, np.ndarray) else _names(getattr(A, "columns", None))


def _names(labels: Any) -> Names:
    if labels is None or callable(labels) or not hasattr(labels, "__len__"):
        return None
    labels = list(labels)
    return None if labels == list(range(len(labels))) else tuple(map(str, labels))


def to_array(name: str, value: Any) -> Any:
    """A table or one of its columns as an array of real numbers; anything else as it is."""
    if not hasattr(value, "__array__"):
        if hasattr(value, "collect") and hasattr(type(value), "columns"):  # of the type: a LazyFrame would work for its own
            raise TypeError(f"{name} is a {type(value).__name__}, which holds no entries yet; pass {name}.collect()")
        return value
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        return _matrix(name, value)
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(dtype, np.dtype) or not hasattr(value, "to_numpy"):
        return value
    array = _column(value)
    if array is None:
        raise TypeError(f"{name} has dtype {dtype}; pass real numbers: encode what stands for a category, or convert it by astype or cast")
    return array


def _column(column: Any) -> npt.NDArray[Any] | None:
    """A column as real numbers, NaN where they are missing; None where it holds something else."""
    dtype = column.dtype
    if hasattr(dtype, "categories"):  # even if they are numbers: as such they mean nothing
        return None
    array = np.asarray(column)
    if array.dtype.kind in REAL:
        return array
    if getattr(dtype, "kind", "O") in REAL:
        return np.asarray(column.to_numpy(dtype=float, na_value=np.nan))
    return array.astype(float) if str(dtype).startswith(REAL_AS_OBJECTS) else None


def _matrix(name: str, table: Any) -> npt.NDArray[Any]:
    """A table as an array, in the dtype and layout of the table where its columns share a plain one, else C-ordered float64."""
    dtypes = list(table.dtypes)
    if dtypes and isinstance(dtypes[0], np.dtype) and dtypes[0].kind in REAL and all(dtype == dtypes[0] for dtype in dtypes):
        return np.asarray(table)
    columns = [column for _, column in table.items()] if hasattr(table, "items") else table.get_columns()  # by position: labels may be double
    arrays: list[Any] = [_column(column) for column in columns]
    wrong = [f"{label!r} ({column.dtype})" for label, column, array in zip(table.columns, columns, arrays, strict=True) if array is None]
    if wrong:
        shown = ", ".join(wrong[:MOST_NAMED]) + (f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else "")
        raise TypeError(f"{name} has columns that are not real numbers: {shown}; encode, convert or drop them")
    n = len(table)
    with room_for(f"a float64 copy of the columns of {name}", n * len(columns)):
        out = np.empty((n, len(columns)))
    for start in range(0, n, BLOCK):  # whole columns would go through the caches once for each
        for j, array in enumerate(arrays):
            out[start : start + BLOCK, j] = array[start : start + BLOCK]
    return out


def _index(value: Any) -> Any:
    """The index of a frame or Series of pandas, else None; a list's `index` is something else."""
    index = getattr(value, "index", None)
    return index if hasattr(index, "equals") else None


def check_rows(A: Any, **vectors: Any) -> None:
    """Refuse vectors whose index differs from A's: entries go by position, which is then not what is meant."""
    rows = _index(A)
    if rows is None:
        return
    for name, vector in vectors.items():
        index = _index(vector)
        if index is not None and not index.equals(rows):
            same = rows.is_unique and index.is_unique and index.isin(rows).all()  # of one length: shapes are checked before
            how = f"the same labels in another order: pass {name}.loc[A.index]" if same else "other labels: align them first"
            raise ValueError(f"{name} has an index that differs from that of A, {how}; or {name}.to_numpy() to go by position")


def check_columns(names: Names, x0: Any) -> None:
    """Refuse an x0 whose labels differ from the names of A's columns."""
    labels = _names(_index(x0))
    if names is not None and labels is not None and labels != names:
        how = "pass x0[A.columns]" if sorted(labels) == sorted(names) else "align them first"
        raise ValueError(f"x0 has labels that differ from the columns of A, or stand in another order: {how}; or x0.to_numpy() to go by position")


def column_name(j: int, names: Names) -> str:
    """What to call column j of A in a message."""
    return str(j) if names is None else repr(names[j])
