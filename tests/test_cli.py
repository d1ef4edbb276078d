import os
import subprocess
import sys

import numpy as np
import pytest

import fastrsx
from fastrsx.cli import main


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
    np.savetxt(tmp_path / "w.csv", np.full(60, 1e-3), fmt="%.17g")
    return tmp_path, fastrsx.newton(A, b).x


@pytest.mark.parametrize(
    ("A", "b"), [("A.npy", "b.npy"), ("both.npz", "both.npz"), ("both.npz:A", "both.npz:target"), ("A.csv", "b.csv"), ("A.npy", "b.csv")]
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


def test_demo_shows_the_fit(capsys):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "5.002294756605e-04 after 5 steps" in out
    for part in ("price   -0.21257", "space    0.19229", "Best fitted cars", "Worst fitted cars", "kernels on", " ms by "):
        assert part in out


def test_info_prints_what_a_bug_report_needs(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for part in (fastrsx.__version__, np.__version__, "registers", "layer", "cache", "optional"):
        assert part in out


def test_the_installed_command_runs():
    command = os.path.join(os.path.dirname(sys.executable), "fastrsx")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"fastrsx {fastrsx.__version__}\n"
    assert done.returncode == 0
