import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fastrsx
from fastrsx import cli
from fastrsx.cli import main
from fastrsx.kernels.formulas import links
from processes import posix


@pytest.fixture
def files(tmp_path):
    """A small problem in every format, and its solution."""
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((60, 3)), rng.random(60)
    b /= b.sum()
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "b.npy", b)
    np.savez(tmp_path / "both.npz", A=A, b=b, target=b)
    np.savetxt(tmp_path / "A.csv", A, delimiter=",", fmt="%.17g", header="p,q,r", comments="")
    np.savetxt(tmp_path / "b.csv", b, fmt="%.17g")
    np.savetxt(tmp_path / "b.csv.gz", b, fmt="%.17g")
    np.savetxt(tmp_path / "w.csv", np.full(60, 1e-3), fmt="%.17g")
    return tmp_path, fastrsx.newton(A, b).x


@pytest.mark.parametrize(
    ("A", "b"),
    [("A.npy", "b.npy"), ("both.npz", "both.npz"), ("both.npz:A", "both.npz:target"), ("A.csv", "b.csv"), ("A.npy", "b.csv"), ("A.npy", "b.csv.gz")],
)
def test_solve_reads_every_format(files, capsys, A, b):
    folder, x = files
    assert main(["solve", str(folder / A), str(folder / b), "-o", str(folder / "x.npy")]) == 0
    np.testing.assert_array_equal(np.load(folder / "x.npy"), x)
    assert "CONVERGED" in capsys.readouterr().out


def test_solve_prints_x_without_an_output(files, capsys):
    folder, x = files
    assert main(["solve", str(folder / "A.npy"), str(folder / "b.npy"), "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    np.testing.assert_array_equal([float(line) for line in lines[1:]], x)


def test_solve_takes_weights_start_and_tolerance(files):
    folder, x = files
    np.save(folder / "x0.npy", x / 2)
    options = ["--x0", str(folder / "x0.npy"), "--tol", "1e-8", "--num-threads", "1", "-o", str(folder / "x.csv"), "--w"]
    results = []
    for w in ("1e-3", str(folder / "w.csv")):
        assert main(["solve", str(folder / "A.npy"), str(folder / "b.npy"), *options, w]) == 0
        results.append(np.loadtxt(folder / "x.csv"))
    np.testing.assert_array_equal(*results)
    assert not np.allclose(results[0], x)


def test_solve_fails_with_status_1(files):
    folder, _ = files
    assert main(["solve", str(folder / "A.npy"), str(folder / "b.npy"), "--max-iter", "1"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A.npy", "missing.npy"], "missing.npy"),
        (["A.npy", "A.npy"], "b has shape (60, 3)"),
        (["A.npy", "both.npz:nothing"], "no array 'nothing'"),
        (["A.txt", "b.npy"], "give a .npy, .npz or .csv file"),
        (["A.npy", "b.npy", "--tol", "0"], "tol is 0.0"),
        (["A.npy", "b.npy", "-o", "x.txt"], "must end in .npy or .csv"),
    ],
)
def test_solve_says_what_is_wrong_with_status_2(files, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(files[0])
    assert main(["solve", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["A.npy", "b.npy", "-o", "missing/x.npy"], ["A.npy", "b.npy", "--checkpoint", "missing/x.npz"]])
def test_where_to_write_is_checked_before_what_to_read(files, capsys, monkeypatch, arguments):
    monkeypatch.chdir(files[0])
    monkeypatch.setattr("fastrsx.files.read_array", None)
    monkeypatch.setattr("fastrsx.solver.newton", None)
    assert main(["solve", *arguments]) == 2
    assert "there is no folder missing" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["b.npy", "w.csv"])
@pytest.mark.parametrize("option", ["--output", "--checkpoint"])
def test_an_input_is_not_overwritten(files, capsys, monkeypatch, option, output):
    monkeypatch.chdir(files[0])
    before = (files[0] / output).read_bytes()
    assert main(["solve", "A.npy", "b.npy", "--w", "w.csv", option, output]) == 2
    assert f"{output} is also the file of {output[0]}, which it would replace" in capsys.readouterr().err
    assert (files[0] / output).read_bytes() == before


def test_x_and_the_checkpoint_are_two_files(files, capsys, monkeypatch):
    monkeypatch.chdir(files[0])
    assert main(["solve", "A.npy", "b.npy", "-o", "x.npy", "--checkpoint", "x.npy"]) == 2
    assert "x.npy is also the file of the output" in capsys.readouterr().err


@pytest.mark.parametrize("there", [True, False])
def test_bad_input_leaves_the_output_as_it_was(files, monkeypatch, there):
    monkeypatch.chdir(files[0])
    if there:
        (files[0] / "x.npy").write_bytes(b"of yesterday")
    before = sorted(os.listdir())
    assert main(["solve", "A.npy", "A.npy", "-o", "x.npy"]) == 2
    assert sorted(os.listdir()) == before
    assert not there or (files[0] / "x.npy").read_bytes() == b"of yesterday"


def disk_full(path, write):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_x_that_cannot_be_written_is_printed(files, capsys, monkeypatch):
    folder, x = files
    monkeypatch.chdir(folder)
    monkeypatch.setattr("fastrsx.files.replace", disk_full)
    assert main(["solve", "A.npy", "b.npy", "-q", "-o", "x.npy"]) == 1
    out, err = capsys.readouterr()
    np.testing.assert_array_equal([float(line) for line in out.splitlines()[1:]], x)
    assert err == "fastrsx solve: output: x.npy could not be written: No space left on device; x is printed instead\n"


def test_a_solve_goes_on_without_its_checkpoint(files, capsys, monkeypatch):
    folder, x = files
    monkeypatch.chdir(folder)
    monkeypatch.setattr("fastrsx.files.replace", disk_full)
    assert main(["solve", "A.npy", "b.npy", "-q", "--checkpoint", "c.npz"]) == 0
    out, err = capsys.readouterr()
    np.testing.assert_array_equal([float(line) for line in out.splitlines()[1:]], x)
    assert "checkpoint: c.npz could not be written: No space left on device; the solve goes on" in err


def test_x_is_a_start_again(files, monkeypatch):
    """Also if its first entry is whole, as in a header of numbers."""
    monkeypatch.chdir(files[0])
    A = np.load("A.npy")
    np.save("A.npy", np.column_stack([np.zeros(60), A]))
    assert main(["solve", "A.npy", "b.npy", "-o", "x.csv"]) == 0
    assert main(["solve", "A.npy", "b.npy", "-o", "x.csv", "--x0", "x.csv"]) == 0
    x = np.loadtxt("x.csv")
    assert x[0] == 0
    np.testing.assert_allclose(x[1:], files[1], atol=1e-8)


def test_the_first_line_is_what_the_user_says(files, capsys, monkeypatch):
    folder, x = files
    monkeypatch.chdir(folder)
    np.savetxt("A.csv", np.load("A.npy"), delimiter=",", fmt="%.17g", header="0,1,2", comments="")
    np.savetxt("b.csv", np.load("b.npy"), fmt="%.17g", header="0", comments="")
    given = ["solve", "A.csv", "b.csv", "-q"]
    assert main(given) == 2
    assert capsys.readouterr().err.endswith("say --header A=yes or --header A=no\n")
    assert main([*given, "--header", "A=yes"]) == 2
    assert capsys.readouterr().err.endswith("say --header b=yes or --header b=no\n")
    assert main([*given, "--header", "A=yes", "--header", "b=yes"]) == 0
    np.testing.assert_array_equal([float(line) for line in capsys.readouterr().out.splitlines()[1:]], x)
    with pytest.raises(SystemExit, match="2"):
        main([*given, "--header", "yes"])


def test_help_says_what_a_header_is(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["solve", "--help"])
    out = capsys.readouterr().out
    assert out.startswith("usage: fastrsx solve ")
    for part in (
        "Exit status: 0 on success, 1 if",
        "--header NAME=yes|no",
        "A line that may be either is refused until --header says which",
        ".csv.gz",
        "save_npz",
    ):
        assert part in out


def test_notes_go_to_stderr(files, capsys, monkeypatch):
    monkeypatch.chdir(files[0])
    A = np.column_stack([range(60), np.load("A.npy")])
    np.savetxt("A.csv", A, delimiter=",", header="id,p,q,r", comments="")
    assert main(["solve", "A.csv", "b.npy", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err.startswith("fastrsx solve: A: A.csv: the first column, 'id', numbers the rows and is a regressor")
    assert len(out.splitlines()) == 5


def test_sparse_a_is_solved_as_such(files, capsys, monkeypatch):
    monkeypatch.chdir(files[0])
    sparse.save_npz("S.npz", sparse.csr_array(np.load("A.npy")))
    seen = []
    newton = fastrsx.newton
    monkeypatch.setattr("fastrsx.solver.newton", lambda A, *args, **kwargs: seen.append(A) or newton(A, *args, **kwargs))
    assert main(["solve", "S.npz", "b.npy", "-o", "x.npy"]) == 0
    assert sparse.issparse(seen[0])
    np.testing.assert_allclose(np.load("x.npy"), files[1], atol=1e-8)


@pytest.mark.parametrize("link", ["softmax", "linear"])
def test_links_are_those_of_newton(files, monkeypatch, link):
    monkeypatch.chdir(files[0])
    A, b = np.load("A.npy"), np.load("b.npy")
    np.save("x0.npy", A.sum(axis=0))
    expected = fastrsx.newton(A, b, A.sum(axis=0), link=link)
    status = main(["solve", "A.npy", "b.npy", "--x0", "x0.npy", "--link", link, "-o", "x.npy"])
    assert status == (0 if expected.success else 1)
    np.testing.assert_array_equal(np.load("x.npy"), expected.x)
    assert not np.allclose(expected.x, files[1])


def test_every_named_link_can_be_given():
    assert tuple(links.LINKS) == cli.LINKS


# -- groups of rows -------------------------------------------------------------------------------------------


@pytest.fixture
def markets(files, monkeypatch):
    """The same A in a table with a column of text, b that sums to 1 in each market, labels in files, and the solution."""
    monkeypatch.chdir(files[0])
    A, b = np.load("A.npy"), np.load("b.npy")
    codes = np.arange(60) % 4
    b /= np.bincount(codes, b)[codes]
    names = np.array(["Rome", "Oslo", "Lima, Peru", "5"])[codes]
    np.savetxt("b.csv", b, fmt="%.17g")
    rows = [f'{p!r},"{market}",{q!r},{r!r}' for (p, q, r), market in zip(A.tolist(), names, strict=True)]
    (files[0] / "cars.csv").write_text("\n".join(["p,market,q,r", *rows]) + "\n")
    quoted = [f'"{market}"' for market in names]
    (files[0] / "plain.csv").write_text("\n".join(quoted) + "\n")
    (files[0] / "named.csv").write_text("\n".join(["market", *quoted, ""]) + "\n")
    np.save("codes.npy", codes)
    np.savez("texts.npz", groups=names, other=codes)
    return fastrsx.newton(A, b, groups=codes).x


@pytest.mark.parametrize(
    ("A", "groups"),
    [
        ("cars.csv", "market"),
        ("A.npy", "plain.csv"),
        ("A.csv", "named.csv"),
        ("A.npy", "codes.npy"),
        ("A.npy", "texts.npz"),
        ("A.npy", "texts.npz:other"),
    ],
)
def test_groups_are_a_column_or_a_file(markets, capsys, A, groups):
    assert main(["solve", A, "b.csv", "--groups", groups, "-o", "x.npy"]) == 0
    np.testing.assert_array_equal(np.load("x.npy"), markets)
    assert "CONVERGED" in capsys.readouterr().out


def test_a_header_of_labels_is_believed(markets, capsys):
    """One label too few behind a name makes as many lines as rows, so only the caller can tell."""
    lines = Path("named.csv").read_text().splitlines()
    Path("short.csv").write_text("\n".join(lines[:60]) + "\n")
    assert main(["solve", "A.npy", "b.csv", "--groups", "short.csv", "--header", "groups=yes"]) == 2
    assert "groups has 59 entries; it must have 60" in capsys.readouterr().err


def test_the_column_of_groups_is_no_regressor(markets, capsys):
    assert main(["solve", "cars.csv", "b.csv", "-q", "--groups", "market"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["p", "q", "r"]


def test_messages_name_groups_as_the_file_does(markets, capsys):
    np.savetxt("b.csv", np.full(60, 0.1))
    assert main(["solve", "cars.csv", "b.csv", "-q", "--groups", "market"]) == 0
    assert "b sums to 1.5 in group 'Rome'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["cars.csv", "b.csv", "--groups", "city"],
            "'city' is no .npy, .npz or .csv file, and no column of cars.csv: its columns are p, market, q, r",
        ),
        (["A.npy", "b.csv", "--groups", "market"], "'market' is no .npy, .npz or .csv file, and A.npy does not name its columns"),
        (["b.csv", "b.csv", "--groups", "market"], "no column of b.csv: it has no header"),
        (["plain.csv", "b.csv", "--groups", "Rome"], "plain.csv has no column but 'Rome'"),
        (["A.npy", "b.csv", "--groups", "A.csv"], "groups: A.csv, line 1 has 3 fields, where groups is one column"),
        (["A.npy", "b.csv", "--groups", "A.npy"], "groups has shape (60, 3); it must have 1 axis"),
        (["A.npy", "b.csv", "--groups", "missing.csv"], "groups: missing.csv: No such file"),
        (["gap.csv", "b.csv", "--groups", "market"], "A: gap.csv, line 3, field 2: the label of a group is missing"),
        (["long.csv", "b.csv", "--groups", "market"], "A: long.csv: line 2 has 3 fields and line 3 has 4; rows must be of one length"),
        (["word.csv", "b.csv", "--groups", "market"], "A: word.csv, line 3, field 3: 'two' is not a number"),
        (["nan.csv", "b.csv", "--groups", "market"], "A: nan.csv, line 3, field 3: 'nan' is not a finite number"),
        (["head.csv", "b.csv", "--groups", "market"], "head.csv: the header has 3 fields and line 2 has 4"),
        (["A.npy", "b.csv", "--groups", "hole.csv"], "groups: hole.csv, line 2 is empty"),
        (["A.npy", "b.csv", "--groups", "short.csv"], "groups has 2 entries; it must have 60"),
        (["A.npy", "b.csv", "--groups", "plain.csv", "--checkpoint", "plain.csv"], "plain.csv is also the file of groups"),
        (["A.npy", "b.csv", "--groups", "year", "--workers", "1"], "groups: year is no file; on a cluster, give a file of labels"),
    ],
)
def test_what_no_groups_are_is_said_with_status_2(markets, capsys, arguments, message):
    tables = {
        "gap.csv": "p,market,q\n1.5,a,2\n1,,3\n",
        "long.csv": "p,market,q\n1.5,a,2\n1,b,3,4\n",
        "word.csv": "p,market,q\n1.5,a,2\n1,b,two\n",
        "nan.csv": "p,market,q\n1.5,a,2\n1,b,nan\n",
        "head.csv": "p,market,q\n1.5,a,2,7\n1,b,3,7\n",
        "hole.csv": "a\n\nb\n",
        "short.csv": "a\nb\n",
    }
    for name, text in tables.items():
        with open(name, "w") as file:
            file.write(text)
    assert main(["solve", *arguments]) == 2
    assert message in capsys.readouterr().err


# -- the process ----------------------------------------------------------------------------------------------


def run(folder, *arguments, module="fastrsx", before="", **options):
    """Run the command line in a process, after the code in `before`."""
    code = f"{before}\nimport runpy, sys\nsys.argv[0] = 'x'\nrunpy.run_module({module!r}, run_name='__main__')"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 120, "cwd": folder} | options
    return subprocess.run([sys.executable, "-c", code, *arguments], **options)


@pytest.mark.parametrize("module", ["fastrsx", "fastrsx.cli"])
def test_the_package_is_the_command_line(tmp_path, module):
    command = [sys.executable, "-m", module]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"fastrsx {fastrsx.__version__}\n")
    done = subprocess.run([*command, "solve"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: fastrsx solve ")


class Closed:
    """A pipe whose reader is gone."""

    def __enter__(self):
        reader, writer = os.pipe()
        os.close(reader)
        self.file = os.fdopen(writer, "w")
        return self.file

    def __exit__(self, *args):
        self.file.close()


@posix
@pytest.mark.parametrize("command", [["solve", "A.npy", "b.npy", "-o", "x.npy"], ["solve", "A.csv", "b.npy"], ["info"], ["solve", "--help"]])
def test_a_reader_that_leaves_stops_nothing(files, command):
    folder, x = files
    with Closed() as out:
        done = run(folder, *command, stdout=out)
    assert (done.returncode, done.stderr) == (0, "")
    if "-o" in command:
        np.testing.assert_array_equal(np.load(folder / "x.npy"), x)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_full_disk_below_stdout_is_said(files):
    folder, x = files
    with open("/dev/full", "w") as full:
        done = run(folder, "solve", "A.npy", "b.npy", "-o", "x.npy", stdout=full)
    assert (done.returncode, done.stderr) == (1, "fastrsx: the output could not be printed: No space left on device\n")
    np.testing.assert_array_equal(np.load(folder / "x.npy"), x)


def test_names_are_printed_in_any_encoding(files):
    np.savetxt(files[0] / "A.csv", np.load(files[0] / "A.npy"), delimiter=",", header="größe,q,r", comments="", encoding="utf-8")
    done = run(files[0], "solve", "A.csv", "b.npy", "-q", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe  " in done.stdout


WITHOUT_RIGHTS = """
import ctypes, os
if os.geteuid() == 0:  # root may do anything until it gives up its capabilities
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are of Linux")
@pytest.mark.parametrize(
    ("path", "mode", "arguments", "message"),
    [
        ("A.npy", 0, ["A.npy", "b.npy"], "A: A.npy: Permission denied"),
        ("A.csv", 0, ["A.csv", "b.npy"], "A: A.csv: Permission denied"),
        ("both.npz", 0, ["both.npz", "b.npy"], "A: both.npz: Permission denied"),
        ("out", 0o500, ["A.npy", "b.npy", "-o", "out/x.npy"], "output: out/x.npy cannot be written: Permission denied"),
        ("out", 0, ["A.npy", "b.npy", "-o", "out/x.npy"], "output: out/x.npy cannot be written: Permission denied"),
        ("out", 0o500, ["A.npy", "b.npy", "--checkpoint", "out/c.npz"], "checkpoint: out/c.npz cannot be written: Permission denied"),
        ("x.npy", 0o400, ["A.npy", "b.npy", "-o", "x.npy"], "output: x.npy is there and may not be written; name another file, or remove it"),
    ],
)
def test_what_may_not_be_read_or_written(files, path, mode, arguments, message):
    folder = files[0]
    (folder / "out").mkdir()
    (folder / "x.npy").touch()
    (folder / path).chmod(mode)
    done = run(folder, "solve", *arguments, before=WITHOUT_RIGHTS)
    (folder / path).chmod(0o700)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"fastrsx solve: {message}\n")


def test_demo_shows_the_fit(capsys):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "1.888921148961e-01 after 5 steps" in out
    for part in (
        "price   -0.20290",
        "space    0.17628",
        "within 20 groups of rows",
        "Best fitted cars",
        "Worst fitted cars",
        "kernels on",
        " ms by ",
    ):
        assert part in out


def test_info_prints_what_a_bug_report_needs(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for part in (fastrsx.__version__, np.__version__, "registers", "layer", "cache", "optional", "\ngpu "):
        assert part in out


def test_the_installed_command_runs():
    command = os.path.join(os.path.dirname(sys.executable), "fastrsx")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"fastrsx {fastrsx.__version__}\n"
    assert done.returncode == 0
