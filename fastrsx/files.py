"""The files of the command line: arrays from .npy, .npz and .csv, and outputs written whole or not at all.

`np.loadtxt` reads a csv file line by line, so that the line of an error is known. The care goes
into the lines above the rows, and into columns that number the rows: no header may silently
become a row, no index may silently become a regressor, and no row may silently be lost.
"""

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from .frames import Labelled

Array = npt.NDArray[Any]
Note = Callable[[str], object]
REAL, LABELS = "fiub", "fiubUSmM"  # kinds of dtypes
SUFFIXES = (".npy", ".npz", ".csv", ".csv.gz")
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)", re.ASCII | re.IGNORECASE)  # of NumPy; Python's may have underscores
COUNT = re.compile(r"\d{1,15}", re.ASCII)
MISSING = ("", "NA", "N/A", "NULL", "NONE", "NIL", "-", "?", ".", "#N/A", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#NAME?", "#NULL!")
SAMPLE = 100  # rows that are checked for commas within numbers
UNNAMED = "if it is an index or has row names, write the file without it (pandas: index=False, R: row.names=FALSE), else name it"
ENCODE = "encode a column that is not of numbers, or leave it out"


class FileError(ValueError):
    """A file that cannot be read or written, or that holds something unsuitable; the message says all."""


def read_array(source: str, name: str, ndim: Literal[1, 2], header: bool | None = None, note: Note = warnings.warn) -> Any:
    """An array from FILE.npy (memory-mapped), FILE.npz, FILE.npz:KEY, FILE.csv or FILE.csv.gz.

    A may also come as a sparse matrix, or as a `Labelled`. `header` says whether the first line of a
    csv file is one; None detects it. `note` gets the sentences that the user should see.
    """
    with _named_errors(source, name) as (path, key, where):
        if _is_csv(path):
            return _read_csv(path, name, where, ndim, header, note)[0]
        if path.lower().endswith(".npz"):
            return _read_npz(path, key, name, where, ndim)
        return _checked(np.lib.format.open_memmap(path, mode="r"), name, where, ndim)


def read_apart(source: str, column: str, header: bool | None = None, note: Note = warnings.warn) -> tuple[Any, list[str]]:
    """A as by `read_array`, without one column of its csv file, and that column as text: the labels of groups."""
    with _named_errors(source, "A") as (path, _, where):
        if not _is_csv(path):
            raise FileError(
                f"groups: {column!r} is no .npy, .npz or .csv file, and {source} does not name its columns; "
                "give a file with a label for each row, or A as a csv file with a header"
            )
        return _read_csv(path, "A", where, 2, header, note, column)


def read_labels(source: str, n: int, header: bool | None = None) -> Any:
    """The labels of n rows: an array of any plain dtype from a .npy or .npz file, or the text of a csv file of one column.

    `header` says whether the first line of a csv file is a name; None takes it for one where the file has a line more than n.
    """
    with _named_errors(source, "groups") as (path, key, where):
        if path.lower().endswith(".npz"):
            return _read_npz(path, key, "groups", where, 1)
        if not _is_csv(path):
            return _checked(np.lib.format.open_memmap(path, mode="r"), "groups", where, 1)
        with _opened(path) as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [field.strip() for field in row]) for row in reader]
        while rows and not any(rows[-1][1]):
            rows.pop()
        for line, fields in rows:
            if len(fields) > 1:
                raise FileError(f"{where}, line {line} has {_fields(len(fields))}, where groups is one column; leave out the others")
            if not any(fields):
                raise FileError(f"{where}, line {line} is empty: a missing label must be filled, or its row left out of all files")
        labels = [fields[0] for _, fields in rows]
        return labels[1:] if header or (header is None and len(labels) == n + 1) else labels


def is_file(source: str) -> bool:
    """Whether a text names a file that can be read here, and not a column."""
    return path_of(source).lower().endswith(SUFFIXES)


def _is_csv(path: str) -> bool:
    return path.lower().endswith((".csv", ".gz"))


@contextlib.contextmanager
def _named_errors(source: str, name: str) -> Iterator[tuple[str, str, str]]:
    """The path and key of a source and how messages begin, to read it; any error becomes a FileError that says which file, and why."""
    path, where = path_of(source), f"{name}: {source}"
    if not path.lower().endswith(SUFFIXES):
        raise FileError(f"{where} ends in {Path(path).suffix or 'nothing'}; give a .npy, .npz or .csv file, or a .csv.gz")
    try:
        size = os.stat(path).st_size
        if not os.path.isfile(path):  # a csv file is opened twice
            raise FileError(f"{where} is no file but a {_kind(path)}")
        if size == 0:
            raise FileError(f"{where} is empty")
        with contextlib.nullcontext() if _is_csv(path) else warnings.catch_warnings(action="ignore"):  # an error follows
            yield path, source[len(path) + 1 :], where
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{where}: {reason(error)}") from None
    except csv.Error as error:
        raise FileError(f"{where}: {error}; a quote may not be closed") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{where} is not text in UTF-8 (byte {error.object[error.start]:#x}); save it as that") from None
    except Exception as error:  # zipfile, zlib, NumPy and SciPy do not list the exceptions of damaged files
        raise FileError(f"{where} cannot be read: {reason(error)}") from None


def reason(error: Exception) -> str:
    """The message of an exception, in one line, and without advice for callers of NumPy."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return "it holds Python objects, not numbers" if "pickle" in text or "Python objects" in text else text


def _kind(path: str | os.PathLike[str]) -> str:
    return "folder" if os.path.isdir(path) else "pipe or a device"


def path_of(source: str) -> str:
    """The file of FILE or FILE.npz:KEY."""
    path, found, _ = source.partition(".npz:")
    return path + ".npz" * bool(found)


def _checked(array: Any, name: str, where: str, ndim: int) -> Any:
    """An array of real numbers, or of labels, with `ndim` axes; w may also have none."""
    if array.dtype.kind not in (LABELS if name == "groups" else REAL):
        raise FileError(f"{where} holds {array.dtype}, not real numbers")
    if array.ndim != ndim and not (name == "w" and array.ndim == 0):
        raise FileError(f"{where}: {name} has shape {array.shape}; it must have {ndim} {'axes' if ndim > 1 else 'axis'}")
    return array


# -- .npz -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened_npz(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An .npz file as `np.load` gives it, also closed where that fails."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz file, or not the whole of one")
        file.seek(0)
        with np.load(file) as archive:
            yield archive


def _read_npz(path: str, key: str, name: str, where: str, ndim: int) -> Any:
    with opened_npz(path) as archive:
        keys = list(archive.files)
        if not key and {"format", "shape", "data"} <= set(keys):
            return _read_sparse(path, name, where)
        key = key or (keys[0] if len(keys) == 1 else name)
        if key not in keys:
            only = f"only {', '.join(keys)}; name one as {path}:KEY" if keys else "nor any other"
            raise FileError(f"{where} has no array {key!r}, {only}")
        array = archive[key]
    if not isinstance(array, np.ndarray):
        raise FileError(f"{where}: {key!r} is no array")
    return _checked(array, name, where, ndim)


def _read_sparse(path: str, name: str, where: str) -> Any:
    """A file of `scipy.sparse.save_npz`."""
    from scipy import sparse

    if name != "A":
        raise FileError(f"{where} holds a sparse matrix; {name} must be an array: save its toarray().ravel() with np.save")
    matrix = sparse.load_npz(path)
    if hasattr(matrix, "check_format"):
        matrix.check_format(full_check=True)  # an index beyond the shape would write out of bounds
    return _checked(matrix, name, where, 2)


# -- .csv -----------------------------------------------------------------------------------------------------


class _Head(NamedTuple):
    """The start of a csv file."""

    comment: list[str]  # the fields of the last line with # above the first of the others
    above: int  # lines down to that
    rows: list[tuple[int, list[str]]]  # those others, a header too, and the line each ends in


class _Rows:
    """The lines of a file that are not blank, below the first `above`."""

    def __init__(self, file: TextIO, above: int) -> None:
        self.file, self.above = file, above
        self.number, self.line = above, ""  # the last line returned
        self.gap = 0  # the first blank line with another below it

    def __iter__(self) -> Iterator[str]:
        blank = 0
        for number, line in enumerate(itertools.islice(self.file, self.above, None), self.above + 1):
            self.number, self.line = number, line
            if line.isspace():
                blank = blank or number
            else:
                self.gap = self.gap or blank
                yield line


@contextlib.contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """A csv file as text in UTF-8, or UTF-16 with its mark; lines may end in any way."""
    with gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb") as raw:
        wide = raw.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        yield io.TextIOWrapper(raw, encoding="utf-16" if wide else "utf-8-sig")


def is_number(field: str) -> bool:
    """Whether NumPy reads a text as a number."""
    return NUMBER.fullmatch(field) is not None


def _head(file: TextIO) -> _Head:
    reader = csv.reader(file)
    comment: list[str] = []
    above = 0
    rows: list[tuple[int, list[str]]] = []
    for row in reader:
        fields = [field.strip() for field in row]
        if not any(fields) and len(fields) < 2:
            continue
        if not rows and fields[0].startswith("#") and fields[0].upper() not in MISSING:
            comment, above = [fields[0].lstrip("# "), *fields[1:]], reader.line_num  # as np.savetxt writes a header
            continue
        rows.append((reader.line_num, fields))
        if len(rows) == SAMPLE:
            break
    return _Head(comment, above, rows)


def _read_csv(path: str, name: str, where: str, ndim: int, header: bool | None, note: Note, apart: str | None = None) -> tuple[Any, list[str]]:
    """The numbers of a csv file but those of the column `apart`, and its labels."""
    with _opened(path) as file:
        comment, above, rows = _head(file)
    if not rows:
        raise FileError(f"{where} has comments and no rows" if above else f"{where} is empty")
    if len(rows) > 1 and len(rows[0][1]) == 1 and len(rows[1][1]) > 2 and _is_word(rows[0][1][0]):
        note(f"{where}, line {rows[0][0]} ({_short(rows[0][1][0])!r}) is taken for a title")
        above, rows = rows[0][0], rows[1:]
    line, first = rows[0]
    named = _can_name(comment, len(first))
    doubtful = header is None and not named and all(map(COUNT.fullmatch, first))
    if doubtful and _is_run(first):
        raise _doubt(line, first, name, where)
    remedy = f", or say --header {name}=yes" if header is None else ""
    if header is None:
        header = _is_header(line, first, name, where)
    names = first if header else comment if named else []
    if header:
        _check_names(names, line, where)
        above, rows = line, rows[1:]
        if not rows:
            raise FileError(f"{where} has a header and no rows" + "; a quote is not closed" * ("\n" in "".join(names)))
    without, labels = None, list[str]()
    if apart is not None:
        without, labels = _labels(path, above, rows[0], names, apart, where)
        names = names[:without] + names[without + 1 :]
    array = _numbers(path, above, rows[0], where, "" if header else remedy, without)
    d = array.shape[1]
    if header and len(names) != d:
        raise _unlike_header(names, rows[0][0], d, where)
    if doubtful and all((column % 1 != 0).any() for column in array[1:].T):
        raise _doubt(line, first, name, where)
    if ndim == 2:
        _check_columns(array, names, rows, where, note)
        unnamed = names in ([], [str(j) for j in range(d)])  # of pandas, for columns without a name
        return array if unnamed else Labelled(array, names), labels
    if 1 not in array.shape:
        called = f" ({_short(', '.join(names))!r})" if names else ""
        raise FileError(
            f"{where} has {d} columns{called}, where {name} is one; leave out the others, as an index (pandas: index=False), "
            "and write decimals with points"
        )
    return array.ravel(), labels


def _unlike_header(names: list[str], line: int, d: int, where: str) -> FileError:
    return FileError(
        f"{where}: the header has {_fields(len(names))} and line {line} has {d}; name each column, leave out an index or row names "
        "(pandas: index=False, R: row.names=FALSE), and write decimals with points"
    )


def _labels(path: str, above: int, first: tuple[int, list[str]], names: list[str], column: str, where: str) -> tuple[int, list[str]]:
    """The place of a named column, and its text. NumPy, which reads the others, would not refuse rows that are longer."""
    if column not in names:
        has = f"its columns are {_short(', '.join(names))}" if names else "it has no header"
        raise FileError(f"groups: {column!r} is no .npy, .npz or .csv file, and no column of {where.removeprefix('A: ')}: {has}")
    if len(names) != len(first[1]):
        raise _unlike_header(names, first[0], len(first[1]), where)
    if len(names) == 1:
        raise FileError(f"{where} has no column but {column!r}, the labels of groups; add those that describe the rows")
    j, labels = names.index(column), []
    with _opened(path) as file:
        rows = _Rows(file, above)
        for fields in csv.reader(rows):
            if len(fields) != len(names):
                raise FileError(where + _unequal(first, rows.number, fields))
            labels.append(fields[j].strip())
            if not labels[-1]:
                raise FileError(f"{where}, line {rows.number}, field {j + 1}: the label of a group is missing; fill it, or leave out its row")
    return j, labels


def _is_header(line: int, fields: list[str], name: str, where: str) -> bool:
    """Whether the first line is a header; refused where it may be that or a row."""
    if not all(fields) and any(map(is_number, fields)):
        raise FileError(f"{where}, line {line}, field {fields.index('') + 1} is empty: in a row, fill it; in a header, {UNNAMED}")
    words = sum(map(_is_word, fields))
    if 0 < words < sum(map(bool, fields)):
        raise _doubt(line, fields, name, where)
    return words > 0


def _is_run(fields: list[str]) -> bool:
    """Whether whole numbers go up by one, or are a single 0: years, or the numbers of unnamed columns in pandas."""
    counts = [int(field) for field in fields]
    return counts == list(range(counts[0], counts[0] + len(counts))) and (len(counts) > 1 or counts == [0])


def _is_word(field: str) -> bool:
    """Whether a field has letters other than those of numbers, and is not a missing entry."""
    return field.upper() not in MISSING and any(map(str.isalpha, NUMBER.sub("", field)))


def _doubt(line: int, fields: list[str], name: str, where: str) -> FileError:
    shown = _short(",".join(fields))
    return FileError(f"{where}, line {line} ({shown!r}) may be a header or a row: say --header {name}=yes or --header {name}=no")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _check_names(names: list[str], line: int, where: str) -> None:
    seen: dict[str, int] = {}
    for j, name in enumerate(names, 1):
        if not name or name.startswith("Unnamed: "):  # as pandas calls an unnamed one
            raise FileError(f"{where}, line {line}, field {j}: column {j} has no name{f' but {name!r}' if name else ''}; {UNNAMED}")
        if seen.setdefault(name, j) != j:
            raise FileError(f"{where}, line {line}: columns {seen[name]} and {j} are both named {name!r}; rename or remove one")


def _can_name(comment: list[str], d: int) -> bool:
    """Whether a comment may be the header of d columns."""
    return len(comment) == d == len(set(comment)) and all(comment)


def _fields(count: int) -> str:
    return f"{count} field{'s' * (count != 1)}"


def _numbers(path: str, above: int, first: tuple[int, list[str]], where: str, remedy: str, without: int | None = None) -> Array:
    """The finite numbers below the lines `above`, as a matrix `without` one column; the first row has a `remedy` of its own."""
    columns = None if without is None else [j for j in range(len(first[1])) if j != without]
    with _opened(path) as file:
        rows = _Rows(file, above)
        try:
            array = np.loadtxt(rows, delimiter=",", quotechar='"', comments=None, ndmin=2, usecols=columns)
        except UnicodeDecodeError:
            raise
        except ValueError:
            raise FileError(where + _problem(rows.line, rows.number, first, remedy * (rows.number <= first[0]), without)) from None
    if array.shape[1] == 1 and rows.gap:
        raise FileError(f"{where}, line {rows.gap} is empty, and rows go on below it: a missing entry must be filled; else remove the line")
    if not np.isfinite(array).all():
        i, j = np.argwhere(~np.isfinite(array))[0].tolist()
        j = j if columns is None else columns[j]
        with _opened(path) as file:
            rows = _Rows(file, above)
            field = next(csv.reader([next(itertools.islice(rows, i, None))]))[j].strip()
        at = f"{where}, line {rows.number}, field {j + 1}"
        raise FileError(f"{at}: {_short(field)!r} is not a finite number; fill it, or leave out its row or column")
    return array


def _problem(text: str, line: int, first: tuple[int, list[str]], remedy: str, without: int | None = None) -> str:
    """Why NumPy could not read a line, and the remedy."""
    fields = [field.strip() for field in next(csv.reader([text]), [])]
    for j, field in enumerate(fields):
        if j != without and not is_number(field):
            return f", line {line}, field {j + 1}: {_short(field)!r} is not a number; {_advice(field) or ENCODE + remedy}"
    if len(fields) != len(first[1]):
        return _unequal(first, line, fields)
    return f", line {line} cannot be read; separate numbers by commas, and close quotes"


def _unequal(first: tuple[int, list[str]], line: int, fields: list[str]) -> str:
    return f": line {first[0]} has {_fields(len(first[1]))} and line {line} has {len(fields)}; rows must be of one length"


def _advice(field: str) -> str:
    """A remedy for a misspelt number, or for a sign between numbers; none for text."""
    if field.upper() in MISSING:
        return "fill a missing entry, or leave out its row or column"
    if field.upper() in ("TRUE", "FALSE", "T", "F"):
        return "write 1 for true and 0 for false"
    if field.startswith("#"):
        return "comments must stand above the rows"
    if re.search(r"[;\t|]|\S\s+\S", field):
        return "fields must be separated by commas, decimals by points"
    if is_number(field.replace(",", "").replace("_", "").replace("'", "")):
        return "decimals must be separated by points, and thousands not at all"
    return ""


def _check_columns(array: Array, names: list[str], rows: list[tuple[int, list[str]]], where: str, note: Note) -> None:
    """Refuse columns that seem to come from an index or decimal commas; note those with a name."""
    n, d = array.shape
    numbering = n > 1 and d > 1 and array[0, 0] in (0, 1) and np.array_equal(array[:, 0], array[0, 0] + np.arange(n))
    if names:
        if d > 1 and (numbering or names[0].lower() in ("id", "index")):
            seems = "numbers the rows" if numbering else "looks like an index"
            note(f"{where}: the first column, {names[0]!r}, {seems} and is a regressor; leave it out if it is not meant as one")
        return
    if numbering:
        raise FileError(f"{where}: the first column numbers the rows; leave it out, or name the columns in a header if it is a regressor")
    if all(COUNT.fullmatch(field.lstrip("+-")) for _, fields in rows for field in fields):
        for line, fields in rows:
            for j in range(1, d):
                if len(fields[j]) > 1 and fields[j].startswith("0"):
                    raise FileError(
                        f"{where}, line {line}: {fields[j - 1]},{fields[j]} looks like one number with a comma in it; separate decimals by points "
                        "and thousands not at all, or name the columns in a header if it is two numbers"
                    )


# -- outputs --------------------------------------------------------------------------------------------------


def _part(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The target file, with links resolved, and the one beside it that is written first."""
    target = Path(os.path.realpath(path))
    return target, target.with_name(target.name + ".part")


def replace(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a file in place of what was there, or not at all."""
    target, part = _part(path)
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def check_output(name: str, path: str, inputs: dict[str, str]) -> None:
    """Refuse an output that cannot be written or would replace an input; leave everything as it was."""
    target, part = _part(path)
    where, is_there = f"{name}: {path}", os.path.exists(target)
    if not os.path.isdir(target.parent):
        raise FileError(f"{where}: there is no folder {Path(path).parent}; make it, or name another")
    if is_there and not os.path.isfile(target):
        raise FileError(f"{where} is no file but a {_kind(target)}; name a file")
    if is_there and not os.access(target, os.W_OK):
        raise FileError(f"{where} is there and may not be written; name another file, or remove it")
    for other, source in inputs.items():
        if os.path.realpath(source) == str(target) or (is_there and os.path.exists(source) and os.path.samefile(target, source)):
            raise FileError(f"{where} is also the file of {other}, which it would replace; name another")
    part_is_there = os.path.exists(part)
    try:
        open(part, "ab").close()
        if not part_is_there:
            part.unlink()
    except OSError as error:
        raise FileError(f"{where} cannot be written: {reason(error)}") from None
