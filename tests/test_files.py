"""Files of the command line: a header never becomes a row, an index never a regressor, a damaged file never a traceback."""

import csv
import gzip
import io
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from fastrsx.files import FileError, check_output, read_array, replace

A = np.random.default_rng(0).standard_normal((12, 3))
NAMES = ["price", "hp", "size"]
FRAME = pd.DataFrame(A, columns=NAMES)
LINES = [",".join(map(repr, row)) for row in A.tolist()]
BODY = "\n".join(LINES) + "\n"
HEADER = "price,hp,size\n"
COLUMN = "".join(f"{value!r}\n" for value in A[:, 0].tolist())


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name, content, encoding="utf-8"):
    with open(name, "wb") as file:
        file.write(content.encode(encoding) if isinstance(content, str) else content)
    return name


def read(name, argument="A", header=None):
    """The array, its names, and the notes."""
    notes = []
    value = read_array(name, argument, 2 if argument == "A" else 1, header, notes.append)
    return np.asarray(value), getattr(value, "columns", None), notes


def attempt(name, **kwargs):
    """The same, or the message that refuses the file."""
    try:
        return read(name, **kwargs)
    except FileError as error:
        return str(error)


def refused(name, argument="A", header=None):
    """The one line that refuses a file."""
    with pytest.raises(FileError) as caught:
        read(name, argument, header)
    message = str(caught.value)
    assert message.startswith(f"{argument}: {name}")
    assert len(message.splitlines()) == 1
    for advice in ("usecols", "allow_pickle", "Warning"):  # for callers of NumPy
        assert advice not in message
    return message


# -- csv files that are read ----------------------------------------------------------------------------------

READ = {  # the text, and the names read from it
    "pandas": (FRAME.to_csv(index=False), NAMES),
    "pandas, no header": (FRAME.to_csv(index=False, header=False), None),
    "pandas, all quoted": (FRAME.to_csv(index=False, quoting=csv.QUOTE_ALL), NAMES),
    "pandas, words quoted": (FRAME.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC), NAMES),
    "R, row.names=FALSE": ('"price","hp","size"\n' + BODY, NAMES),
    "quoted numbers": ("".join('"' + line.replace(",", '","') + '"\n' for line in LINES), None),
    "np.savetxt": ("# price,hp,size\n" + BODY, NAMES),
    "np.savetxt, two lines": ("# by me\n# price,hp,size\n" + BODY, NAMES),
    "np.savetxt, years": ("# 1990,1991,1992\n" + BODY, ["1990", "1991", "1992"]),
    "a comment": ("# cars of 1990\n" + BODY, None),
    "a comment of three fields, a header": ("# by me, today, at home\n" + HEADER + BODY, NAMES),
    "commas in a name": ('"price, USD",hp,size\n' + BODY, ["price, USD", "hp", "size"]),
    "a line end in a name": ('"price\nUSD",hp,size\n' + BODY, ["price\nUSD", "hp", "size"]),
    "quarters": ("2019Q4,2020Q1,2020Q2\n" + BODY, ["2019Q4", "2020Q1", "2020Q2"]),
    "names not of ASCII": ("Preis,PS,Größe\n" + BODY, ["Preis", "PS", "Größe"]),
    "spaces": ((HEADER + BODY).replace(",", " , "), NAMES),
    "CRLF": ((HEADER + BODY).replace("\n", "\r\n"), NAMES),
    "CR": ((HEADER + BODY).replace("\n", "\r"), NAMES),
    "mixed ends": (HEADER.replace("\n", "\r\n") + LINES[0] + "\r" + "\n".join(LINES[1:]), NAMES),
    "no line end": ((HEADER + BODY).rstrip(), NAMES),
    "empty lines": ("\n \n" + HEADER + "\n" + LINES[0] + "\n\n" + "\n".join(LINES[1:]) + "\n\n\n", NAMES),
}


@pytest.mark.parametrize("case", READ)
def test_csv_is_read(case):
    text, names = READ[case]
    array, found, notes = read(write("A.csv", text))
    np.testing.assert_array_equal(array, A)
    assert (found, notes) == (names, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".csv.gz", ".CSV.GZ"])
def test_encodings_and_gzip(encoding, suffix):
    data = (HEADER + BODY).encode(encoding)
    array, names, _ = read(write("A" + suffix, gzip.compress(data) if suffix.lower().endswith(".gz") else data))
    np.testing.assert_array_equal(array, A)
    assert names == NAMES


@pytest.mark.parametrize("text", ["share\n" + COLUMN, COLUMN, ",".join(COLUMN.split()), '"share"\n' + COLUMN.replace("\n", "\r\n")])
def test_a_vector_is_one_column_or_one_row(text):
    array, _, notes = read(write("b.csv", text), "b")
    np.testing.assert_array_equal(array, A[:, 0])
    assert notes == []


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 4))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.data(), arrays(float, SHAPES, elements=NUMBERS), st.booleans(), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_is_written_is_read(data, array, named, quoting):
    """To the bit, or refused if in doubt; never in another shape."""
    names = [f"x{j}" for j in range(array.shape[1])]
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=data.draw(st.sampled_from(["\n", "\r\n", "\r"])))
    writer.writerows([names] * named + array.tolist())
    write("A.csv", text.getvalue())
    found = attempt("A.csv")
    if isinstance(found, str):
        assert not named
        assert "the first column numbers the rows" in found
    else:
        assert found[0].tobytes() == array.tobytes()
        assert found[1] == (names if named else None)


# -- header or row --------------------------------------------------------------------------------------------

DOUBTFUL = {  # a first line
    "pandas, no names": "0,1,2",
    "quoted": '"0","1","2"',
    "years": "1990,1991,1992",
    "years apart": "1990,1995,2000",
    "words and years": "price,1990,1991",
    "words and a missing one": "price,NA,size",
    "row names": "Mazda,1.5,2.5",
    "a title above them": "cars of 1990\n0,1,2",
    "a comment above them": "# made by me\n0,1,2",
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_a_header_that_may_be_a_row_is_refused_until_said(case):
    write("A.csv", DOUBTFUL[case] + "\n" + BODY)
    line = DOUBTFUL[case].count("\n") + 1
    message = refused("A.csv")
    assert f"A: A.csv, line {line} (" in message
    assert message.endswith("may be a header or a row: say --header A=yes or --header A=no")
    np.testing.assert_array_equal(read("A.csv", header=True)[0], A)
    if any(map(str.isalpha, DOUBTFUL[case].splitlines()[-1].replace("NA", ""))):
        assert "is not a number" in refused("A.csv", header=False)
    else:
        array, names, _ = read("A.csv", header=False)
        assert (len(array), names) == (13, None)


def test_whole_numbers_that_no_header_would_be_are_a_row():
    for text in ("3,1,2\n4,5,6\n", "1.0,2.0,3.0\n4.5,5.5,6.5\n", "34,172,9\n28,165,9.5\n", "5\n3\n0\n", "0.0\n0.5\n"):
        array, names, notes = read(write("A.csv", text))
        assert (len(array), names, notes) == (len(text.split()), None, [])


def test_counts_below_years():
    write("A.csv", "1990,1991\n5,3\n7,2\n")
    assert "line 1 ('1990,1991') may be a header or a row" in refused("A.csv")


@pytest.mark.parametrize("first", ["0", "2019"])
def test_a_vector_below_a_number(first):
    write("b.csv", first + "\n" + COLUMN)
    assert refused("b.csv", "b").endswith("say --header b=yes or --header b=no")
    np.testing.assert_array_equal(read("b.csv", "b", True)[0], A[:, 0])
    np.testing.assert_array_equal(read("b.csv", "b", False)[0], [float(first), *A[:, 0]])


def test_a_header_of_numbers_names_columns():
    assert read(write("A.csv", "0.1,0.5,0.9\n" + BODY), header=True)[1] == ["0.1", "0.5", "0.9"]
    assert read(write("A.csv", "0,1,2\n" + BODY), header=True)[1] is None  # as pandas has them, for columns without a name


def test_a_title_is_noted():
    array, names, notes = read(write("A.csv", "cars of 1990\n" + HEADER + BODY))
    np.testing.assert_array_equal(array, A)
    assert names == NAMES
    assert notes == ["A: A.csv, line 1 ('cars of 1990') is taken for a title"]


# -- columns that are no data ---------------------------------------------------------------------------------

NUMBERED = "".join(f"{i},{line}\n" for i, line in enumerate(LINES, 1))
ONE = "; if it is an index or has row names, write the file without it (pandas: index=False, R: row.names=FALSE), else name it"

NO_DATA = {
    "pandas": (FRAME.to_csv(), ", line 1, field 1: column 1 has no name" + ONE),
    "pandas, no names": (pd.DataFrame(A).to_csv(), ", line 1, field 1 is empty: in a row, fill it; in a header" + ONE.replace(";", ",", 1)),
    "pandas, no header": (FRAME.to_csv(header=False), ": the first column numbers the rows"),
    "pandas, read back": (FRAME.to_csv(index_label="Unnamed: 0"), ", line 1, field 1: column 1 has no name but 'Unnamed: 0'"),
    "pandas, two levels": ("a,a,b\nx,y,x\n" + BODY, ": columns 1 and 2 are both named 'a'"),
    "pandas, two levels with numbers": ("a,a,b\n0,1,0\n" + BODY, ": columns 1 and 2 are both named 'a'"),
    "R": ('"","price","hp","size"\n' + NUMBERED, ", line 1, field 1: column 1 has no name"),
    "R, write.table": (HEADER + NUMBERED, ": the header has 3 fields and line 2 has 4"),
    "R, no names": (NUMBERED, ": the first column numbers the rows"),
    "a comma too many in the header": ("price,hp,size,\n" + BODY, ", line 1, field 4: column 4 has no name"),
    "a comma too many": ("price,hp,size,\n" + BODY.replace("\n", ",\n"), ", line 1, field 4: column 4 has no name"),
    "decimal commas": ("price\n" + COLUMN.replace(".", ","), ": the header has 1 field and line 2 has 2"),
    "decimal commas, no header": ("0,305\n-1,250\n12,040\n", ", line 3: 12,040 looks like one number with a comma in it"),
    "thousands, no header": ("1,234\n12,345\n1,034\n", ", line 3: 1,034 looks like one number with a comma in it"),
}


@pytest.mark.parametrize("case", NO_DATA)
def test_what_is_no_data_is_refused(case):
    text, message = NO_DATA[case]
    assert message in refused(write("A.csv", text))


@pytest.mark.parametrize(("name", "values", "verb"), [("t", range(12), "numbers the rows"), ("ID", A[:, 0], "looks like an index")])
def test_a_named_index_is_noted(name, values, verb):
    write("A.csv", FRAME.assign(**{name: values})[[name, *NAMES]].to_csv(index=False))
    array, names, notes = read("A.csv")
    assert array.shape == (12, 4)
    assert names == [name, *NAMES]
    assert notes == [f"A: A.csv: the first column, {name!r}, {verb} and is a regressor; leave it out if it is not meant as one"]


VECTORS = {
    "Series.to_csv()": ",share\n" + "".join(f"{i},{v}\n" for i, v in enumerate(COLUMN.split())),
    "its index without a header": "".join(f"{i},{v}\n" for i, v in enumerate(COLUMN.split())),
    "two names": "car,share\n" + "".join(f"{i},{v}\n" for i, v in enumerate(COLUMN.split())),
}


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_of_two_columns_is_refused(case):
    assert "index=False" in refused(write("b.csv", VECTORS[case]), "b")


# -- csv files that cannot be read ----------------------------------------------------------------------------

SEPARATE = "fields must be separated by commas, decimals by points"
FILL = "fill a missing entry, or leave out its row or column"
POINTS = "decimals must be separated by points, and thousands not at all"
ENCODE = "encode a column that is not of numbers, or leave it out"

UNREADABLE = {
    "semicolons": ("x;y\n1.5;2\n", f", line 2, field 1: '1.5;2' is not a number; {SEPARATE}"),
    "semicolons, no header": ("1.5;2\n", f", line 1, field 1: '1.5;2' is not a number; {SEPARATE}"),
    "semicolons and decimal commas": ("x;y\n1,5;2,5\n", f", line 2, field 2: '5;2' is not a number; {SEPARATE}"),
    "tabs": ("x\ty\n1.5\t2\n", f", line 2, field 1: '1.5\\t2' is not a number; {SEPARATE}"),
    "spaces, as np.savetxt": ("1.5e+00 2.0e+00\n", f", line 1, field 1: '1.5e+00 2.0e+00' is not a number; {SEPARATE}"),
    "R's write.table": ('"x" "y"\n"1" 1.5 2\n', f", line 2, field 1: '1 1.5 2' is not a number; {SEPARATE}"),
    "a gap": ("x,y\n1,2\n2,\n3,5\n", f", line 3, field 2: '' is not a number; {FILL}"),
    "a gap in the first row": (",2\n3,5\n", ", line 1, field 1 is empty: in a row, fill it"),
    "NA": ("x,y\n1,2\nNA,4\n", f", line 3, field 1: 'NA' is not a number; {FILL}"),
    "NA in the first row": ("NA,2\n3,4\n", f", line 1, field 1: 'NA' is not a number; {FILL}"),
    "NA alone": ("NA\n0.5\n", f", line 1, field 1: 'NA' is not a number; {FILL}"),
    "#N/A of Excel": ("#N/A\n0.5\n", f", line 1, field 1: '#N/A' is not a number; {FILL}"),
    "#N/A further down": ("x\n0.5\n#N/A\n", f", line 3, field 1: '#N/A' is not a number; {FILL}"),
    "empty lines of Excel": ("x,y\n1,2\n,\n", f", line 3, field 1: '' is not a number; {FILL}"),
    "an empty cell of one column": ("x\n0.5\n\n0.7\n", ", line 3 is empty, and rows go on below it"),
    "an empty cell of pandas": ('x\n0.5\n""\n0.7\n', f", line 3, field 1: '' is not a number; {FILL}"),
    "nan": ("x,y\n1,2\n3,NaN\n", ", line 3, field 2: 'NaN' is not a finite number"),
    "inf below an empty line": ("x,y\n1,2\n\n3,4\n5,-inf\n", ", line 5, field 2: '-inf' is not a finite number"),
    "beyond float64": ("x\n1e400\n", ", line 2, field 1: '1e400' is not a finite number"),
    "True": ("x\nTrue\n", ", line 2, field 1: 'True' is not a number; write 1 for true and 0 for false"),
    "text": ("x,y\n1,red\n", f", line 2, field 2: 'red' is not a number; {ENCODE}"),
    "row names": ('x,y\n"a",1,2\n', f", line 2, field 1: 'a' is not a number; {ENCODE}"),
    "dates as names": ("2020-01-01,2020-01-02\n1.5,2.5\n", f", line 1, field 1: '2020-01-01' is not a number; {ENCODE}, or say --header A=yes"),
    "a typo in the first row": ("0..5\n0.5\n", f", line 1, field 1: '0..5' is not a number; {ENCODE}, or say --header A=yes"),
    "decimal commas in quotes": ('x\n"1,5"\n', f", line 2, field 1: '1,5' is not a number; {POINTS}"),
    "thousands in quotes": ('x\n"1,234.5"\n', f", line 2, field 1: '1,234.5' is not a number; {POINTS}"),
    "thousands": ("x,y\n1,2\n1,234,5\n", ": line 2 has 2 fields and line 3 has 3"),
    "underscores": ("x\n1_000\n", f", line 2, field 1: '1_000' is not a number; {POINTS}"),
    "hexadecimal": ("x\n0x10\n", ", line 2, field 1: '0x10' is not a number"),
    "percent": ("x\n5%\n", ", line 2, field 1: '5%' is not a number"),
    "digits not of ASCII": ("x\n٣\n", ", line 2, field 1: '٣' is not a number"),
    "a short row": ("x,y\n1,2\n2\n3,5\n", ": line 2 has 2 fields and line 3 has 1; rows must be of one length"),
    "a comment in the middle": ("x\n1\n# note\n2\n", ", line 3, field 1: '# note' is not a number; comments must stand above the rows"),
    "an open quote": ('x,y\n1,2\n"3,4\n5,6\n', "close quotes"),
    "an open quote in the header": ('"x,y\n1,2\n', " has a header and no rows; a quote is not closed"),
    "an open quote in much": ('"1,2\n' + "3,4\n" * 50_000, "a quote may not be closed"),
    "only a header": ("x,y\n", " has a header and no rows"),
    "only a comment": ("# x\n", " has comments and no rows"),
    "only empty lines": ("\n\n", " is empty"),
    "nothing": ("", " is empty"),
    "another encoding": ("Größe\n1\n".encode("latin-1"), " is not text in UTF-8 (byte 0xf6)"),
    "another encoding, further down": (b"x\n" + b"1\n" * 20_000 + b"\xf6\n", " is not text in UTF-8 (byte 0xf6)"),
    "UTF-16 without its mark": ("x,y\n1,2\n".encode("utf-16-le"), "is not a number"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_says_where_and_why(case):
    content, message = UNREADABLE[case]
    found = refused(write("A.csv", content))
    assert message in found
    assert ("--header" in found) == ("--header" in message)


def test_a_long_field_is_cut():
    assert len(refused(write("A.csv", "x\n" + "1" * 5000 + "\n"))) < 200
    assert len(refused(write("A.csv", "x\n" + "y" * 5000 + "\n"))) < 200


def test_a_name_that_is_said_to_be_a_row():
    write("A.csv", HEADER + BODY)
    assert ", line 1, field 1: 'price' is not a number" in refused("A.csv", header=False)


# -- .npy, .npz and others ------------------------------------------------------------------------------------


def saved(save, *args, **kwargs):
    file = io.BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "."), text)
    return file.getvalue()


NPY, NPZ, GZ = saved(np.save, A), saved(np.savez, A=A, b=A[:, 0]), gzip.compress((HEADER + BODY).encode())
S = sparse.csr_array(A * (A > 0))
PARTS = {"indices": S.indices, "indptr": S.indptr, "format": np.array(b"csr"), "shape": np.array(S.shape), "data": S.data}
UNSUITABLE = {
    "empty.npy": (b"", " is empty"),
    "cut.npy": (NPY[:-8], "cannot be read"),
    "cut in its header.npy": (NPY[:40], "cannot be read"),
    "cut in its magic.npy": (NPY[:4], "cannot be read"),
    "text.npy": (BODY, "cannot be read"),
    "npz.npy": (NPZ, "cannot be read"),
    "objects.npy": (saved(np.save, A.astype(object)), "holds Python objects, not numbers"),
    "strings.npy": (saved(np.save, A.astype(str)), "holds <U32, not real numbers"),
    "complex.npy": (saved(np.save, A + 0j), "holds complex128, not real numbers"),
    "dates.npy": (saved(np.save, np.zeros((2, 2), dtype="M8[D]")), "holds datetime64[D], not real numbers"),
    "structured.npy": (saved(np.save, np.zeros(2, dtype=[("x", float)])), "holds [('x', '<f8')], not real numbers"),
    "axes.npy": (saved(np.save, A[:, :, None]), "A has shape (12, 3, 1); it must have 2 axes"),
    "vector.npy": (saved(np.save, A[:, 0]), "A has shape (12,); it must have 2 axes"),
    "empty.npz": (b"", " is empty"),
    "cut.npz": (NPZ[:300], "it is no .npz file, or not the whole of one"),
    "npy.npz": (NPY, "it is no .npz file, or not the whole of one"),
    "text.npz": (BODY, "it is no .npz file, or not the whole of one"),
    "flipped.npz": (NPZ[:200] + bytes(40) + NPZ[240:], "Bad CRC-32"),
    "nothing.npz": (zipped(), "has no array 'A', nor any other"),
    "two.npz": (saved(np.savez, A, A), "has no array 'A', only arr_0, arr_1; name one as two.npz:KEY"),
    "a zip.npz": (zipped(A_txt="hello"), "'A.txt' is no array"),
    "a zip of text.npz": (zipped(A_npy="hello"), "'A' is no array"),
    "objects.npz": (saved(np.savez, A=A.astype(object)), "holds Python objects, not numbers"),
    "complex.npz": (saved(np.savez, A=A + 0j), "holds complex128, not real numbers"),
    "no gzip.csv.gz": (HEADER + BODY, "Not a gzipped file"),
    "cut.csv.gz": (GZ[: len(GZ) // 2], "ended before the end-of-stream marker"),
    "flipped.csv.gz": (GZ[:100] + bytes(50) + GZ[150:], "while decompressing"),
    "empty.csv.gz": (gzip.compress(b""), " is empty"),
    "gzip.csv": (GZ, "is not text in UTF-8"),
    "A.txt": (BODY, "ends in .txt; give a .npy, .npz or .csv file, or a .csv.gz"),
    "A.npy.gz": (NPY, "ends in .gz; give a .npy, .npz or .csv file, or a .csv.gz"),
    "complex sparse.npz": (saved(sparse.save_npz, S.astype(complex)), "holds complex128, not real numbers"),
    "sparse with one axis.npz": (saved(sparse.save_npz, sparse.coo_array(A[:, 0])), "A has shape (12,); it must have 2 axes"),
    "sparse beyond.npz": (saved(np.savez, **PARTS | {"indices": S.indices + 5}), "indices must be < 3"),
    "sparse below 0.npz": (saved(np.savez, **PARTS | {"indices": S.indices - 5}), "indices must be >= 0"),
    "sparse cut.npz": (saved(np.savez, **PARTS | {"indptr": S.indptr[:-2]}), "index pointer size 11 should be 13"),
    "sparse of no format.npz": (saved(np.savez, **PARTS | {"format": np.array(b"xyz")}), "Unknown format"),
    "sparse objects.npz": (saved(np.savez, **PARTS | {"data": S.data.astype(object)}), "holds Python objects, not numbers"),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_unsuitable_files_are_refused_in_one_line(name):
    content, message = UNSUITABLE[name]
    assert message in refused(write(name, content))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".csv.gz"])
def test_what_is_no_file(suffix):
    assert refused("missing" + suffix) == f"A: missing{suffix}: No such file or directory"
    os.mkdir("A" + suffix)
    assert refused("A" + suffix) == f"A: A{suffix} is no file but a folder"
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe" + suffix)
        assert refused("pipe" + suffix) == f"A: pipe{suffix} is no file but a pipe or a device"


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
def test_sparse_files(format, kind):
    sparse.save_npz("S.npz", kind(S).asformat(format))
    found = read_array("S.npz", "A", 2)
    assert found.format == format
    np.testing.assert_array_equal(found.toarray(), S.toarray())
    for name in ("b", "w", "x0"):
        assert f"{name}: S.npz holds a sparse matrix; {name} must be an array" in refused("S.npz", name)


def test_keys():
    np.savez("p.npz", A=A, other=A + 1)
    np.savez("one.npz", anything=A)
    for source, array in (("p.npz", A), ("p.npz:A", A), ("p.npz:other", A + 1), ("one.npz", A)):
        np.testing.assert_array_equal(read_array(source, "A", 2), array)
    assert refused("p.npz", "b").endswith("has no array 'b', only A, other; name one as p.npz:KEY")
    assert "has no array 'x'" in refused("p.npz:x")


def test_npy_is_mapped():
    np.save("A.npy", A)
    assert isinstance(read_array("A.npy", "A", 2), np.memmap)


DAMAGED = {
    "A.npy": NPY,
    "A.npz": NPZ,
    "packed.npz": saved(np.savez_compressed, A=A),
    "sparse.npz": saved(sparse.save_npz, S),
    "A.csv.gz": GZ,
    "A.csv": (HEADER + BODY).encode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_no_damage_is_a_traceback(name):
    """Bytes are changed, lost or cut off, anywhere."""
    draw, content, refusals = random.Random(0), DAMAGED[name], 0
    for _ in range(100):
        data, at = bytearray(content), draw.randrange(len(content))
        match draw.randrange(3):
            case 0:
                data[at] = draw.randrange(256)
            case 1:
                del data[at : at + draw.randint(1, 9)]
            case 2:
                del data[at:]
        found = attempt(write(name, bytes(data)))
        if isinstance(found, str):
            assert found.startswith(f"A: {name}")
            refusals += 1
    assert refusals > 30


# -- outputs --------------------------------------------------------------------------------------------------


def test_a_good_output_is_accepted_and_leaves_nothing():
    os.mkdir("out")
    for path in ("x.npy", "out/x.csv"):
        check_output("output", path, {"A": "A.npy"})
    assert os.listdir() == ["out"]
    assert os.listdir("out") == []
    write("x.npy", "old")
    write("x.npy.part", "mine")
    check_output("output", "x.npy", {"A": "A.npy"})
    assert [Path(name).read_text() for name in ("x.npy", "x.npy.part")] == ["old", "mine"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("reslts/x.npy", "there is no folder reslts; make it, or name another"),
        ("A.npy/x.npy", "there is no folder A.npy; make it, or name another"),
        ("folder.npy", "is no file but a folder; name a file"),
        (f"{os.devnull}", "is no file but a pipe or a device; name a file"),
        ("A.npy", "is also the file of A, which it would replace"),
        ("link.npy", "is also the file of A, which it would replace"),
        ("twin.npy", "is also the file of A, which it would replace"),
        ("a" * 251 + ".npy", "cannot be written: File name too long"),
    ],
)
def test_a_bad_output_is_refused(path, message):
    write("A.npy", "A")
    os.mkdir("folder.npy")
    os.symlink("A.npy", "link.npy")
    os.link("A.npy", "twin.npy")
    before = sorted(os.listdir())
    with pytest.raises(FileError) as caught:
        check_output("output", path, {"A": "A.npy"})
    assert str(caught.value).startswith(f"output: {path}")
    assert message in str(caught.value)
    assert sorted(os.listdir()) == before
    assert Path("A.npy").read_text() == "A"


def test_an_output_is_replaced_whole_or_not_at_all():
    write("x.npy", "old")
    os.symlink("x.npy", "link.npy")

    def fail(file):
        file.write(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        replace("x.npy", fail)
    assert Path("x.npy").read_text() == "old"
    replace("link.npy", lambda file: file.write(b"new"))
    assert os.path.islink("link.npy")
    assert Path("x.npy").read_text() == "new"
    assert sorted(os.listdir()) == ["link.npy", "x.npy"]
