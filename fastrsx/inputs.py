"""Callers' arguments, checked and converted to float64; errors name the argument, the value found and the remedy."""

import operator
from collections.abc import Mapping, Set
from numbers import Number
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from . import frames
from .system import cluster, device
from .system.memory import room_for

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

FLOAT64 = np.dtype(np.float64)  # native: the other byte order is not equal to it
LARGEST_ENTRY = 1e150  # its square, summed over any n, is finite
SHORT = 64  # entries that Python adds up faster than NumPy
PLAIN = (Number, np.generic, list, tuple, str)  # entries of a list that NumPy reads as intended
MOST_SHOWN = 50  # characters of an entry, in a message


def refuse_elsewhere(name: str, value: Any) -> None:
    """Refuse an array that is not computed yet, or lies on a GPU; the error says what to pass instead."""
    if cluster.is_collection(value):
        found = f"{name} is a dask collection ({type(value).__name__})"
        raise TypeError(f"{found}, which is not computed here; pass {name}.compute() if that fits into memory")
    device.refuse(name, value)


def refuse(name: str, value: Any, ndim: int = 2) -> None:
    """Refuse an array that is not computed yet, lies elsewhere, is sparse or masked; the error says what to pass instead."""
    if type(value) is np.ndarray:
        return
    refuse_elsewhere(name, value)
    kind = type(value)
    if hasattr(kind, "todense"):
        ravel = ".ravel()" * (ndim == 1 and value.ndim == 2)
        method = "toarray" if hasattr(kind, "toarray") else "todense"
        raise TypeError(f"{name} is sparse ({kind.__name__}), where an array is needed; pass {name}.{method}(){ravel}")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} has masked entries; remove their rows or fill them, as {name}.filled(0.0) does")


def _refuse_kind(name: str, value: Any, shape: str, ndim: int) -> None:
    """Raise TypeError for a value without numbers, or with numbers in no known order."""
    kind = frames.kind_of(value)
    if value is None:
        raise TypeError(f"{name} is None; pass an array of shape {shape}")
    if isinstance(value, type):
        raise TypeError(f"{name} is the class {value.__name__}; pass an array of shape {shape}")
    if isinstance(value, Set):
        raise TypeError(f"{name} is {kind}, which has no order; pass a list")
    if isinstance(value, dict):
        raise TypeError(f"{name} is {kind}; pass pandas.{'Series' if ndim == 1 else 'DataFrame'}({name})")
    if isinstance(value, Mapping):
        raise TypeError(f"{name} is {kind} of arrays; pass one of them" + "".join(f", such as {name}[{key!r}]" for key in list(value)[:1]))


def shown(value: Any) -> str:
    """A value in a message, on one line and not too long."""
    return " ".join(repr(value).split())[:MOST_SHOWN]


def _refuse_dtype(name: str, value: Any, array: npt.NDArray[Any], shape: str) -> NoReturn:
    """Raise TypeError for a dtype that is not real; says what to pass instead if the entries are numbers, else names the first that is not."""
    dtype = array.dtype
    if dtype.names:
        fields = ", ".join(map(repr, dtype.names))
        raise TypeError(f"{name} has fields in each entry, {fields}; pass one of them, such as {name}[{dtype.names[0]!r}]")
    if dtype.kind == "c":
        raise TypeError(f"{name} is complex ({dtype}); the problem is real: pass np.real({name}) if that is meant")
    try:
        np.asarray(value, dtype=float)
    except Exception:  # of whatever the entries are
        for index, entry in np.ndenumerate(array):
            try:
                float(entry)
            except Exception:
                where = f"{name}[{', '.join(map(str, index))}]" if index else name
                found = shown(entry.item() if isinstance(entry, np.generic) else entry)
                todo = "convert, encode or drop what is none" if index else f"pass an array of shape {shape}"
                raise TypeError(f"{name} has dtype {dtype}, and {where} is {found}, no real number; {todo}") from None
        raise TypeError(f"{name} has dtype {dtype}; pass real numbers") from None
    raise TypeError(f"{name} has dtype {dtype}; pass real numbers, such as np.asarray({name}, dtype=float)")


def _refuse_shape(name: str, value: Any, array: npt.NDArray[Any], shape: str, ndim: int, size: int | None) -> NoReturn:
    """Raise ValueError for a wrong number of axes; says what to pass instead where that is clear."""
    todo = ""
    labels = frames.table_labels(value)
    if ndim == 2 and array.ndim == 1 and array.size:
        todo = f"; if it is one column, pass np.reshape({name}, (-1, 1))"
    elif ndim == 1 and labels and len(array) == size:
        todo = f"; pass one column, such as {name}[{labels[0]!r}]"
    elif ndim == 1 and array.size == size:
        todo = f"; pass np.ravel({name})"
    raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} {'axes' if ndim > 1 else 'axis'}: {shape}{todo}")


def as_real(name: str, value: Any, shape: str, ndim: int, size: int | None = None, or_number: bool = False) -> npt.NDArray[Any]:
    """A real array of `ndim` axes, in the caller's dtype and layout; `size` is the required size, `shape` the words for it."""
    array = given = value
    if type(value) is not np.ndarray or array.dtype.kind not in frames.REAL:
        if type(value) not in (list, tuple):
            refuse(name, value, ndim)
            _refuse_kind(name, value, shape, ndim)
            value = frames.listed(value)
        if isinstance(value, (list, tuple)):
            others = {kind for kind in set(map(type, value)) if kind is not np.ndarray and not issubclass(kind, PLAIN)}
            for i in range(len(value) if others else 0):
                refuse(f"{name}[{i}]", value[i])
        array = frames.to_array(name, value)
    if array.dtype.kind not in frames.REAL and array.dtype.name != "bfloat16":
        _refuse_dtype(name, given, array, shape)
    if array.ndim != ndim and not (or_number and array.ndim == 0):
        _refuse_shape(name, value, array, shape, ndim, size)
    return array


def as_data(A: Any) -> npt.NDArray[Any]:
    """A as an array, n x d with n, d >= 1; its entries are not checked here (see `refuse_column`)."""
    array = as_real("A", A, "(n, d)", 2)
    if 0 in array.shape:
        raise ValueError(f"A has shape {array.shape}; it needs at least one row and one column")
    return array


def is_ready(A: npt.NDArray[Any]) -> bool:
    """Whether an array is C-ordered, aligned, native float64."""
    flags = A.flags
    return A.dtype == FLOAT64 and flags.c_contiguous and flags.aligned


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view: Numba compiles it separately, so kernels always get their inputs as one."""
    view = array.view()
    view.setflags(write=False)
    return view


def as_ready(A: npt.NDArray[Any]) -> Matrix:
    """A itself where it is ready, else a C-ordered float64 copy."""
    if is_ready(A):
        return A
    room = room_for("a float64 copy, which the kernels read in place of what you passed,", A.size)
    with room, np.errstate(all="ignore"):  # a longdouble beyond float64 becomes inf, and is refused as such
        return np.array(A, dtype=np.float64, order="C")


def of_size(name: str, value: Any, size: int, what: str) -> npt.NDArray[Any]:
    """A real vector of the given size, in the caller's dtype and layout; its entries are not checked."""
    vector = as_real(name, value, f"({size},), {what}", 1, size)
    if vector.size != size:
        raise ValueError(f"{name} has {vector.size} entries; it must have {size}, {what}")
    return vector


def as_vector(name: str, value: Any, size: int, what: str, most: float = float(np.finfo(float).max)) -> Vector:
    """A float64 vector of the given size, its entries finite and at most `most` in absolute value."""
    if size <= SHORT and type(value) is np.ndarray and value.shape == (size,) and is_ready(value) and sum(map(abs, value.tolist())) <= most:
        return value  # the checks below would give the same result, more slowly
    vector = as_ready(of_size(name, value, size, what))
    magnitude = np.abs(vector)
    if not np.maximum.reduce(magnitude) <= most:  # so also for NaN
        bad = np.flatnonzero(~(magnitude <= most))
        raise ValueError(
            f"{name}[{bad[0]}] is {vector[bad[0]]}; {bad.size} of {size} entries are beyond {most:.3g} or not finite: remove or fill them"
        )
    return vector


def as_weights(name: str, w: Any, n: int) -> Vector:
    """The regulariser's weights: n of them, or an empty vector for none, or where all are 0."""
    if w is None:
        return np.empty(0)
    what = "one for each row of A (or pass a scalar)"
    if type(w) is not np.ndarray:
        w = as_real(name, w, f"({n},), {what}", 1, n, or_number=True)
    weights = as_vector(name, np.full(n, w) if w.ndim == 0 else w, n, what, most=LARGEST_ENTRY)
    if (weights < 0).any():
        i = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"{name}[{i}] is {weights[i]}; weights enter squared and must be at least 0")
    return weights if weights.any() else np.empty(0)


def refuse_column(A: Any, j: int, names: frames.Names = None) -> None:
    """Raise an error that names the entry of a column of an array or csr_array that is not finite or beyond 1e150."""
    column = A[:, [j]].toarray().ravel() if hasattr(A, "toarray") else A[:, j]
    refuse_entries(np.asarray(column, dtype=np.float64), j, names)


def refuse_entries(column: Vector, j: int, names: frames.Names = None) -> None:
    """The same for column j of A."""
    wrong = ~(np.abs(column) <= LARGEST_ENTRY)
    i = int(np.flatnonzero(wrong)[0])
    todo = "remove or fill it" if not np.isfinite(column[i]) else "divide the column by its largest entry"
    raise ValueError(
        f"A[{i}, {j}] is {column[i]} ({np.count_nonzero(wrong)} such in column {frames.column_name(j, names)}); "
        f"entries must be at most {LARGEST_ENTRY:g}: {todo}"
    )


def as_number(name: str, value: Any) -> float:
    """A number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be a number") from None


def as_positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    number = as_number(name, value)
    if not 0 < number < np.inf:
        raise ValueError(f"{name} is {value!r}; it must be positive and finite")
    return number


def as_count(name: str, value: Any, least: int) -> int:
    """An integer of at least `least`."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it must be an integer") from None
    if count < least:
        raise ValueError(f"{name} is {count}; it must be at least {least}")
    return count


def as_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of the given words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")
    return str(value)
