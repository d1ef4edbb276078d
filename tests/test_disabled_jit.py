"""NUMBA_DISABLE_JIT=1, which people set to debug or measure their own code: the kernels cannot run, and say so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = {
    "newton": "fastrsx.newton([[1.0], [0.0]], [0.8, 0.2])",
    "Problem": "fastrsx.Problem([[1.0], [0.0]], [0.8, 0.2])",
    "newton_batch": "fastrsx.newton_batch([[[1.0], [0.0]]], [[0.8, 0.2]])",
    "predict": "fastrsx.predict([[1.0], [0.0]], [0.8])",
    "kernels": "import fastrsx.kernels.dense",
    "check_link": "fastrsx.check_link(fastrsx.Link(lambda a, M: (a, 1.0, 0.0)))",
    "warmup": "fastrsx.warmup()",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_it_is_said(call):
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run([sys.executable, "-c", f"import fastrsx; {call}"], env=env, cwd=Path.home(), capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("RuntimeError: NUMBA_DISABLE_JIT is set, and the kernels of fastrsx are vector code")


def test_the_command_line_says_it_in_one_line():
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run([sys.executable, "-m", "fastrsx", "demo"], env=env, cwd=Path.home(), capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("fastrsx: NUMBA_DISABLE_JIT is set")
    assert len(run.stderr.splitlines()) == 1
