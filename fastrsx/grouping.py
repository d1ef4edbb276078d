"""Groups of rows by the caller's labels, and the numbers that weigh rows.

Labels of pandas, Polars and pyarrow are read by the methods of the caller's object: none of these libraries is imported.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from . import frames, inputs
from .inputs import Matrix, Vector
from .loading import chunks
from .system import cluster, device

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

PLAIN = "iubfmMSU"  # kinds of NumPy's dtypes whose entries NumPy compares as Python does
NEVER_MISSING = {str, bytes, int, bool}
POLARS_PLAIN = re.compile(r"U?Int(8|16|32|64)|Float(32|64)|Boolean")  # physical dtypes that Polars gives to NumPy exactly
ARROW_PLAIN = re.compile(r"u?int(8|16|32|64)|halffloat|float|double|bool|date(32|64)\b.*|timestamp\b.*")
WHAT = "one for each row of A"


class Groups(NamedTuple):
    """Rows in groups: the groups in order of first appearance, the rows of a group in their own order.

    Attributes
    ----------
    offsets : (T + 1,) int64 array
        Rows ``offsets[t] : offsets[t + 1]`` of the data, gathered by `order`, are those of group t; no group is empty.
    labels : (T,) array
        The caller's label of each group; an array of objects where they were in a list or are no plain numbers or text.
    order : (n,) int64 array, or None
        The rows of the data in the order of groups; None where the rows of each group lie together already.

    Examples
    --------
    >>> groups = as_groups(["Rome", "Oslo", "Rome"], 3)
    >>> groups.count, groups.name(1), groups.order.tolist()
    (2, "'Oslo'", [0, 2, 1])
    """

    offsets: Indices
    labels: Any
    order: Indices | None

    @property
    def count(self) -> int:  # type: ignore[override]  # of a tuple's entries, which nobody counts here
        """The number of groups, T."""
        return len(self.offsets) - 1

    def name(self, t: int) -> str:
        """The label of group t as in a message."""
        return _shown(self.labels[t])


class _Column(NamedTuple):
    """Labels as keys that NumPy compares and sorts: two rows are of one group where their keys are equal."""

    keys: npt.NDArray[Any]
    missing: Flags | None  # None where no label is
    labels_at: Callable[[Indices], npt.NDArray[Any]]  # the caller's labels of some rows


def as_groups(groups: Any, n: int) -> Groups:
    """The groups that the rows of A fall into by their labels.

    Rows of equal labels that lie together are read without a sort; others are sorted once. The labels of a list, and objects, are compared
    as Python compares them: 1, 1.0 and True are one label, and 1 and "1" are two. A Series is read by position, whatever its index.

    Parameters
    ----------
    groups : (n,) array_like of hashable labels
        Integers, strings, bytes, booleans, floats, dates or any hashable objects, in a list, an array, or a column of pandas, Polars, pyarrow
        or xarray, categories among them. Not modified.
    n : int
        The rows of A, at least 1.

    Returns
    -------
    Groups

    Raises
    ------
    ValueError
        Where labels are missing, or there is not one for each row.
    TypeError
        For a value that is no column of labels in memory, or labels that are not hashable.

    Examples
    --------
    >>> groups = as_groups([1971, 1971, 1970, 1972, 1972], 5)
    >>> groups.labels.tolist(), groups.offsets.tolist(), groups.order
    ([1971, 1970, 1972], [0, 2, 3, 5], None)
    >>> as_groups(["b", "a", "b"], 3).order.tolist()
    [0, 2, 1]
    """
    column = _read(groups, n)
    _check_size(len(column.keys), n)
    if column.missing is not None and column.missing.any():
        _refuse_missing(column.missing, column.labels_at)
    return _grouped(column.keys, column.labels_at)


def groups_of(groups: Any, n: int, in_chunks: bool) -> Groups:
    """The groups of labels in memory, or also on dask where A is in chunks."""
    return groups_in_chunks(groups, n) if in_chunks and cluster.is_readable(groups) else as_groups(groups, n)


def groups_in_chunks(groups: Any, n: int) -> Groups:
    """The same of a dask array or Series: chunks are read where they lie, and only where runs of equal labels start comes here, with their labels."""
    import dask

    if groups.ndim != 1:
        inputs._refuse_shape("groups", groups, groups, f"({n},), {WHAT}", 1, n)
    runs = [_Runs(*each) for each in dask.compute(*map(dask.delayed(_runs), np.ravel(groups.to_delayed())))]
    firsts = np.cumsum([0, *(each.size for each in runs)])
    _check_size(int(firsts[-1]), n)
    if any(each.missing.size for each in runs):
        count = sum(each.missing.size for each in runs)
        row, label = next((first + each.missing[0], each.label) for first, each in zip(firsts, runs, strict=False) if each.missing.size)
        raise ValueError(f"groups[{row}] is {_shown(label)}; {count} of {n} labels are missing: drop their rows of A and b, or fill them")
    starts = np.concatenate([first + each.starts for first, each in zip(firsts, runs, strict=False)])
    labels = [each.labels for each in runs if each.size]
    alike = len({each.dtype for each in labels}) == 1
    found = as_groups(np.concatenate(labels) if alike else [label for each in labels for label in each], len(starts))
    return found._replace(offsets=np.append(starts, n)[found.offsets]) if found.order is None else found


class _Runs(NamedTuple):
    """The runs of equal labels in a chunk."""

    size: int
    starts: Indices
    labels: Any
    missing: Indices  # the rows without a label
    label: Any  # of the first of them


def _runs(part: Any) -> _Runs:
    """Those of the rows of a chunk, on a worker."""
    column = _read(part, len(part))
    starts = _bounds(column.keys)[:-1] if len(column.keys) else np.empty(0, np.int64)
    missing = np.flatnonzero(np.zeros(0, bool) if column.missing is None else column.missing)
    return _Runs(len(column.keys), starts, column.labels_at(starts), missing, column.labels_at(missing[:1])[0] if missing.size else None)


def as_row_weights(name: str, value: Any, n: int) -> Vector:
    """A number of at least 0 for each row of A, from n of them or a scalar; an empty vector for None, or where all are 1."""
    if value is None:
        return np.empty(0)
    what = f"{WHAT} (or pass a scalar)"
    if type(value) is not np.ndarray:
        value = inputs.as_real(name, value, f"({n},), {what}", 1, n, or_number=True)
    weights = inputs.as_vector(name, np.full(n, value) if value.ndim == 0 else value, n, what, most=inputs.LARGEST_ENTRY)
    if (weights < 0).any():
        i = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"{name}[{i}] is {weights[i]}; it must be at least 0: drop the row, or pass 0 where it does not count")
    return np.empty(0) if (weights == 1).all() else weights


def refuse_masked(groups: Groups, m: Vector) -> None:
    """Raise ValueError for a group whose multiplicities, in the order of groups, are all 0: it has nothing to be normalised by."""
    if not m.size:
        return
    masked = np.flatnonzero(np.maximum.reduceat(m, groups.offsets[:-1]) == 0)
    if masked.size:
        found = f"multiplicity is 0 in every row of group {groups.name(masked[0])}"
        raise ValueError(found + (": drop its rows" if masked.size == 1 else f" ({masked.size} such groups of {groups.count}): drop their rows"))


def sums_in_groups(A: Any, offsets: Indices, y: Vector) -> Matrix:
    """A_t^T y_t of the rows of each group t, which lie together: groups x d."""
    groups = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    sums = np.zeros((len(offsets) - 1, A.shape[1]))
    for which, rows in chunks(A):
        starts = np.flatnonzero(np.diff(groups[which], prepend=-1))
        sums[groups[which][starts]] += np.add.reduceat(y[which, None] * rows, starts)
    return sums


# -- order ----------------------------------------------------------------------------------------------------


def _grouped(keys: npt.NDArray[Any], labels_at: Callable[[Indices], Any]) -> Groups:
    """The groups of rows with equal keys; runs of equal keys are moved as one where most rows are in long ones."""
    n, bounds = len(keys), _bounds(keys)
    starts = bounds[:-1]
    runs = keys if len(starts) == n else keys[starts]
    if _are_distinct(runs):
        return Groups(bounds, labels_at(starts), None)
    if 2 * len(starts) <= n:
        parts, lengths = starts, np.diff(bounds)
    else:
        parts, lengths, runs = np.arange(n), np.ones(n, dtype=np.int64), keys
    by_label = np.argsort(_narrow(runs), kind="stable")
    blocks = _bounds(runs[by_label])  # of parts with one label
    if len(blocks) == len(bounds):
        return Groups(bounds, labels_at(starts), None)
    first = by_label[blocks[:-1]]
    by_appearance = np.argsort(first)
    order = by_label[_ranges(blocks[:-1][by_appearance], np.diff(blocks)[by_appearance])]
    sizes = np.add.reduceat(lengths[by_label], blocks[:-1])[by_appearance]
    if len(parts) < n:
        order = _ranges(parts[order], lengths[order])
    return Groups(np.concatenate([[0], np.cumsum(sizes)]), labels_at(parts[first[by_appearance]]), order)


def _bounds(keys: npt.NDArray[Any]) -> Indices:
    """Where runs of equal keys start, and where the last ends."""
    differs = np.ones(len(keys) + 1, dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=differs[1:-1])
    return np.flatnonzero(differs)


def _span(keys: npt.NDArray[Any]) -> float:
    """The largest key minus the least, of integers; infinite for other keys."""
    return int(keys.max()) - int(keys.min()) if keys.dtype.kind in "iu" else np.inf


def _above_least(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers minus the least of them; a difference that wraps is right again without its sign."""
    return (keys - keys.min()).astype(f"u{keys.dtype.itemsize}")


def _are_distinct(keys: npt.NDArray[Any]) -> bool:
    """Whether no key repeats, where that shows without a sort: the keys rise, or fall, or are integers of a small range."""
    if (keys[1:] > keys[:-1]).all() or (keys[1:] < keys[:-1]).all():
        return True
    span = _span(keys)
    if not len(keys) <= span + 1 <= 8 * len(keys):
        return False
    occurs = np.zeros(int(span) + 1, dtype=bool)
    occurs[_above_least(keys)] = True
    return np.count_nonzero(occurs) == len(keys)


def _ranges(starts: Indices, sizes: Indices) -> Indices:
    """start, start + 1, ... of each range, one range after another."""
    ends = np.cumsum(sizes)
    return np.repeat(starts - (ends - sizes), sizes) + np.arange(ends[-1])


def _narrow(keys: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers of a small range in 16 bits, which NumPy sorts in linear time; other keys unchanged."""
    return _above_least(keys).astype(np.uint16) if _span(keys) < 2**16 else keys


# -- reading --------------------------------------------------------------------------------------------------


def _read(value: Any, n: int) -> _Column:
    """The caller's labels; errors name `groups`."""
    shape = f"({n},), {WHAT}"
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"groups is the string {inputs.shown(value)}; pass labels, {WHAT}, such as a column of your table")
    if isinstance(value, np.ma.MaskedArray):
        if value.ndim == 1 and value.size == n and np.ma.is_masked(value):
            _refuse_missing(np.ma.getmaskarray(value), value.__getitem__)
        value = value.data
    inputs.refuse("groups", value, 1)
    inputs._refuse_kind("groups", value, shape, 1)
    value = frames.listed(value)
    kind = type(value)
    if isinstance(value, Sequence):  # NumPy would make strings of [1, "1"], and floats of large integers
        return _of_objects(list(value))
    if hasattr(kind, "factorize"):
        return _of_pandas(value)
    if hasattr(kind, "to_physical") and hasattr(kind, "__array__"):  # an Expr of Polars is no array
        return _of_polars(value)
    if hasattr(kind, "dictionary_encode"):
        return _of_arrow(value)
    array = _as_array(value)
    if array.dtype.names:
        inputs._refuse_dtype("groups", value, array, shape)
    if array.ndim != 1:
        inputs._refuse_shape("groups", value, array, shape, 1, n)
    return _of_array(array)


def _as_array(value: Any) -> npt.NDArray[Any]:
    """The array that NumPy makes of a value; a TypeError says what to pass instead where it makes none."""
    try:
        array = np.asarray(value)
    except MemoryError:
        raise
    except Exception:  # of any class of any library
        device.refuse_tensor("groups", value)
    else:
        if array.ndim or hasattr(value, "__array__"):
            return array
    method = frames._conversion(value)
    todo = f"groups.{method}()" if method else f"a list or an array of labels, {WHAT}"
    raise TypeError(f"groups is {inputs.shown(value)}, {frames.kind_of(value)}; pass {todo}") from None


def _of_array(array: npt.NDArray[Any]) -> _Column:
    """An array of one axis; entries that NumPy does not compare as Python does become objects."""
    kind = array.dtype.kind
    if kind not in PLAIN:
        return _of_objects(array.tolist())
    missing = np.isnan(array) if kind == "f" else np.isnat(array) if kind in "mM" else None
    return _Column(array, missing, array.__getitem__)


def _of_objects(labels: list[Any]) -> _Column:
    """Any hashable objects, numbered by a dict."""
    seen: dict[Any, int] = {}
    try:
        numbers = [seen.setdefault(label, len(seen)) for label in labels]
    except TypeError as error:
        _refuse_unhashable(labels)
        raise TypeError(f"groups has labels that cannot be compared ({error}); pass strings or numbers") from None
    kinds = {*map(type, seen)}
    if any(map(_is_array, kinds)):
        _refuse_unhashable(labels)
    keys = np.array(numbers, dtype=np.int64)
    missing = None if kinds <= NEVER_MISSING else np.fromiter(map(_is_missing, seen), bool, len(seen))[keys]
    return _Column(keys, missing, lambda rows: _objects([labels[i] for i in rows.tolist()]))


def _objects(labels: list[Any]) -> npt.NDArray[Any]:
    """An array of objects; NumPy would make two axes of tuples."""
    return np.fromiter(labels, dtype=object, count=len(labels))


def _of_pandas(column: Any) -> _Column:
    """A Series, an Index or an extension array."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        return _of_array(column.to_numpy())
    if dtype.kind == "f":  # where NaN may lie beside NA
        keys = column.to_numpy(dtype=float, na_value=np.nan)
        missing = np.isnan(keys)
    else:
        keys = column.factorize()[0]
        missing = keys < 0
    return _Column(keys, missing, lambda rows: np.asarray(column.take(rows)))


def _of_polars(column: Any) -> _Column:
    """A Series; categories by their numbers."""
    physical = column.to_physical()
    if column.null_count():
        keys, missing = np.zeros(len(column), dtype=np.int64), column.is_null().to_numpy()
    elif POLARS_PLAIN.fullmatch(str(physical.dtype)):
        keys, missing, _ = _of_array(physical.to_numpy())
    else:
        return _of_objects(column.to_list())
    return _Column(keys, missing, lambda rows: _objects(column.gather(rows).to_list()))


def _of_arrow(column: Any) -> _Column:
    """An Array or a ChunkedArray; chunks have dictionaries of their own, which may repeat a value or hold null, so they are decoded first."""
    if hasattr(column.type, "value_type") and hasattr(column.type, "index_type"):
        column = column.cast(column.type.value_type)
    if column.null_count == 0 and ARROW_PLAIN.fullmatch(str(column.type)):
        return _of_array(np.asarray(column))
    try:
        encoded = column.dictionary_encode()
        encoded = encoded.combine_chunks() if hasattr(encoded, "chunks") else encoded
        keys, labels = encoded.indices.fill_null(-1).to_numpy(), encoded.dictionary.to_pylist()
    except Exception:  # nested types have no dictionaries
        return _of_objects(column.to_pylist())
    return _Column(keys, keys < 0, lambda rows: _objects([labels[i] if i >= 0 else None for i in keys[rows]]))


# -- refusing -------------------------------------------------------------------------------------------------


def _shown(label: Any) -> str:
    """A label in a message: as a plain Python value, and dates as they are written."""
    if isinstance(label, np.datetime64):
        return str(np.datetime_as_string(label, unit="auto"))
    if isinstance(label, np.timedelta64):
        return str(label)
    return inputs.shown(label.item() if isinstance(label, np.generic) else label)


def _is_missing(label: Any) -> bool:
    """Whether a label is None, NaN, NaT, NA or a null of pyarrow, or a tuple with one of them."""
    if isinstance(label, tuple):
        return any(map(_is_missing, label))
    try:
        return label is None or bool(label != label) or getattr(label, "is_valid", True) is False
    except TypeError:  # NA of pandas is neither equal nor different
        return True


def _check_size(size: int, n: int) -> None:
    """Refuse labels that are not one for each row."""
    if size != n:
        raise ValueError(f"groups has {size} entries; it must have {n}, {WHAT}")


def _refuse_missing(missing: Flags, labels_at: Callable[[Indices], Any]) -> NoReturn:
    """Raise ValueError for the first row without a label."""
    rows = np.flatnonzero(missing)
    found = _shown(labels_at(rows[:1])[0])
    raise ValueError(f"groups[{rows[0]}] is {found}; {rows.size} of {missing.size} labels are missing: drop their rows of A and b, or fill them")


def _is_array(kind: type) -> bool:
    """Whether objects of a class are arrays: tensors are hashable, by their address."""
    return hasattr(kind, "__array__") and not issubclass(kind, np.generic)


def _refuse_unhashable(labels: list[Any]) -> None:
    """Raise TypeError for the first entry that is not hashable, or an array."""
    for i, label in enumerate(labels):
        try:
            hash(label)
            is_label = not _is_array(type(label))
        except TypeError:
            is_label = False
        if not is_label:
            found = f"groups[{i}] is {inputs.shown(label)}, {frames.kind_of(label)}"
            raise TypeError(f"{found}, which is no label; pass strings, numbers or other hashable objects, such as tuples") from None
