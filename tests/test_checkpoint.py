"""A killed solve continues from its checkpoint, and ends at the same x."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastrsx
from fastrsx.cli import main

N, D = 20_000, 12


@pytest.fixture
def problem(tmp_path):
    rng = np.random.default_rng(3)
    A, x = rng.standard_normal((N, D)), rng.standard_normal(D)
    b = (np.exp(A @ x) + A @ x) * rng.uniform(0.8, 1.2, N)
    b /= b.sum()
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "b.npy", b)
    return tmp_path, A, b


SLOW = """
import sys, time
import fastrsx.checkpoint
save = fastrsx.checkpoint.Checkpoint.__call__
def save_slowly(self, intermediate_result):
    save(self, intermediate_result)
    time.sleep(0.5 if intermediate_result.nit >= 2 else 0.0)
fastrsx.checkpoint.Checkpoint.__call__ = save_slowly
from fastrsx.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX")
def test_a_killed_solve_goes_on(problem, capsys):
    folder, A, b = problem
    path = folder / "solve.npz"
    command = ["solve", str(folder / "A.npy"), str(folder / "b.npy"), "--checkpoint", str(path), "-o", str(folder / "x.npy")]
    child = subprocess.Popen([sys.executable, "-c", SLOW, *command], stdout=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 300
        while steps(path) < 2:
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert not (folder / "x.npy").exists()
    assert main([*command, "--resume"]) == 0
    assert f"Going on from {path}" in capsys.readouterr().err
    np.testing.assert_allclose(np.load(folder / "x.npy"), fastrsx.newton(A, b).x, rtol=0, atol=1e-9)


def steps(path):
    if not path.exists():
        return 0
    with np.load(path) as saved:
        return int(saved["nit"])


def test_a_checkpoint_is_replaced_and_never_rewritten(problem):
    folder, A, b = problem
    kept, files = fastrsx.Checkpoint(folder / "solve.npz", A, b), []

    def callback(intermediate_result):
        kept(intermediate_result=intermediate_result)
        files.append((os.stat(kept.path).st_ino, steps(kept.path)))
        os.link(kept.path, folder / f"{intermediate_result.nit}.npz")  # so that no inode is used again

    result = fastrsx.newton(A, b, kernel="serial", callback=callback)
    assert len({inode for inode, _ in files}) == len(files) > 2
    assert [nit for _, nit in files] == list(range(1, len(files) + 1))
    np.testing.assert_allclose(kept.load(), result.x, atol=1e-4)
    assert sorted(path.name for path in folder.glob("*.part")) == []


def test_a_left_part_does_not_disturb(problem):
    folder, A, b = problem
    (folder / "solve.npz.part").write_bytes(b"half of it")
    kept = fastrsx.Checkpoint(folder / "solve.npz", A, b)
    assert kept.load() is None
    fastrsx.newton(A, b, kernel="serial", callback=kept)
    assert kept.load().shape == (D,)


def test_of_another_problem_or_no_checkpoint_is_refused(problem, capsys):
    folder, A, b = problem
    fastrsx.newton(A, b, kernel="serial", max_iter=1, callback=fastrsx.Checkpoint(folder / "solve.npz", A, b))
    for other in (fastrsx.Checkpoint(folder / "solve.npz", A, b[::-1]), fastrsx.Checkpoint(folder / "solve.npz", A[:, 1:], b)):
        with pytest.raises(ValueError, match=r"solve\.npz is of another problem"):
            other.load()
    (folder / "other.npz").write_bytes(b"nothing")
    given = ["solve", str(folder / "A.npy"), str(folder / "b.npy"), "--resume"]
    assert main([*given, "--checkpoint", str(folder / "other.npz")]) == 2
    assert "other.npz is no checkpoint of fastrsx" in capsys.readouterr().err
    assert main(given) == 2
    assert "--checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "cut early", "changed", "empty", "npy", "objects", "no x", "no numbers", "folder"])
def test_a_damaged_one_is_refused_before_any_work(problem, capsys, monkeypatch, damage):
    folder, A, b = problem
    monkeypatch.chdir(folder)
    kept = fastrsx.Checkpoint("solve.npz", A, b)
    fastrsx.newton(A, b, kernel="serial", max_iter=1, callback=kept)
    with open("solve.npz", "rb") as file:
        data = file.read()
    match damage:
        case "folder":
            os.remove("solve.npz")
            os.mkdir("solve.npz")
        case "objects":
            np.savez("solve.npz", x=np.array([None] * D), key=kept.key)
        case "no x":
            np.savez("solve.npz", key=kept.key)
        case "no numbers":
            np.savez("solve.npz", x=np.array(["a"] * D), key=kept.key)
        case "npy":
            with open("solve.npz", "wb") as file:
                np.save(file, A)
        case _:
            changed = data[:200] + bytes(20) + data[220:]
            with open("solve.npz", "wb") as file:
                file.write({"cut": data[:-10], "cut early": data[:300], "changed": changed, "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"^solve\.npz is no checkpoint of fastrsx, or a damaged one: [^\n]+$"):
        kept.load()
    monkeypatch.setattr("fastrsx.solver.newton", None)
    assert main(["solve", "A.npy", "b.npy", "--checkpoint", "solve.npz", "--resume"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "solve.npz is no " in err


def test_a_checkpoint_of_other_groups_is_refused(tmp_path):
    A, b, groups = np.array([[1.0], [2.0], [0.0], [0.5]]), np.array([0.5, 0.5, 0.7, 0.3]), ["x", "x", "y", "y"]
    fastrsx.newton(A, b, groups=groups, max_iter=1, callback=fastrsx.Checkpoint(tmp_path / "c.npz", A, b, groups))
    assert fastrsx.Checkpoint(tmp_path / "c.npz", A, b, [1, 1, 2, 2]).load() is not None
    for other in (None, ["x", "y", "y", "y"], ["x", "y", "x", "y"]):
        with pytest.raises(ValueError, match="the groups differ"):
            fastrsx.Checkpoint(tmp_path / "c.npz", A, b, other).load()
