"""What callers pass, checked and brought to float64; errors name the argument, what was found and what to do."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import device, frames
from .memory import room_for

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

LARGEST_ENTRY = 1e150  # its square, summed over any n, is finite
SHORT = 64  # entries that Python adds up sooner than NumPy is called


def _as_real(name: str, value: Any, ndim: int, shape: str) -> npt.NDArray[Any]:
    """A real array of `ndim` axes, in the caller's dtype and layout."""
    device.refuse(name, value)
    if hasattr(value, "tocsr"):
        raise TypeError(f"{name} is sparse ({type(value).__name__}), where an array is needed; pass {name}.toarray()")
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked entries; remove their rows or fill them")
    if type(value) is not np.ndarray:
        value = frames.to_array(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is no array: {error}") from None
    if array.dtype.kind == "c":
        raise TypeError(f"{name} is complex ({array.dtype}); the problem is real: pass its real part if that is meant")
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {array.dtype}; pass real numbers, such as np.asarray({name}, dtype=float)")
    if array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; it must have {ndim} {'axes' if ndim > 1 else 'axis'}: {shape}")
    return array


def as_data(A: Any) -> npt.NDArray[Any]:
    """A as an array, n x d with n, d >= 1; its entries are not looked at here (see `refuse_column`)."""
    array = _as_real("A", A, 2, "(n, d)")
    if 0 in array.shape:
        raise ValueError(f"A has shape {array.shape}; it needs at least one row and one column")
    return array


def is_ready(A: npt.NDArray[Any]) -> bool:
    """Whether an array is C-ordered, aligned, native float64."""
    return A.dtype == np.float64 and A.dtype.isnative and A.flags.c_contiguous and A.flags.aligned


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written: Numba compiles apart for it, so kernels always get their inputs as one."""
    view = array.view()
    view.flags.writeable = False
    return view


def as_ready(A: npt.NDArray[Any]) -> Matrix:
    """A itself where it is ready, else a C-ordered float64 copy."""
    if is_ready(A):
        return A
    room = room_for("a float64 copy, which the kernels read in place of what you passed,", A.size)
    with room, np.errstate(all="ignore"):  # a longdouble beyond float64 becomes inf, and is refused as that
        return np.array(A, dtype=np.float64, order="C")


def of_size(name: str, value: Any, size: int, what: str) -> npt.NDArray[Any]:
    """A real vector of the given size, in the caller's dtype and layout; its entries are not looked at."""
    vector = _as_real(name, value, 1, f"({size},), {what}")
    if vector.size != size:
        raise ValueError(f"{name} has {vector.size} entries; it must have {size}, {what}")
    return vector


def as_vector(name: str, value: Any, size: int, what: str, most: float = float(np.finfo(float).max)) -> Vector:
    """A float64 vector of the given size, its entries finite and at most `most` in absolute value."""
    if size <= SHORT and type(value) is np.ndarray and value.shape == (size,) and is_ready(value) and sum(map(abs, value.tolist())) <= most:
        return value  # the checks below would come to the same, later
    vector = as_ready(of_size(name, value, size, what))
    magnitude = np.abs(vector)
    if not magnitude.max() <= most:  # so also for NaN
        bad = np.flatnonzero(~(magnitude <= most))
        raise ValueError(
            f"{name}[{bad[0]}] is {vector[bad[0]]}; {bad.size} of {size} entries are beyond {most:.3g} or not finite: remove or fill them"
        )
    return vector


def as_weights(w: Any, n: int) -> Vector:
    """The regulariser's weights: n of them, or an empty vector for none, or where all are 0."""
    if w is None:
        return np.empty(0)
    if np.ndim(w) == 0:
        w = np.full(n, w)
    weights = as_vector("w", w, n, "one for each row of A (or pass a scalar)", most=LARGEST_ENTRY)
    if (weights < 0).any():
        i = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(f"w[{i}] is {weights[i]}; weights enter squared and must be at least 0")
    return weights if weights.any() else np.empty(0)


def refuse_column(A: Any, j: int, names: frames.Names = None) -> None:
    """Say which entry of a column of an array or csr_array is not finite or beyond 1e150."""
    column = A[:, [j]].toarray().ravel() if hasattr(A, "toarray") else A[:, j]
    refuse_entries(np.asarray(column, dtype=np.float64), j, names)


def refuse_entries(column: Vector, j: int, names: frames.Names = None) -> None:
    """The same of column j of A."""
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
