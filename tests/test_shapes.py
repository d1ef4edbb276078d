"""Tiles of every shape give the same bits: kernels of another shape than this CPU's, in a process of their own."""

import json
import os
import platform
import subprocess
import sys

import pytest

from fastrsx.kernels.registers.shapes import REGISTER

CPUS = {"zmm": "skylake-avx512", "ymm": "haswell", "xmm": "x86-64"}  # names from which shapes follow; the code is still this CPU's
SCRIPT = """
import sys
from numba.core.registry import cpu_target
if sys.argv[1:]:
    cpu_target.target_context.codegen().magic_tuple = lambda: ("x86_64-unknown-linux-gnu", sys.argv[1], "")
import hashlib, json
import numpy as np
from fastrsx.kernels import dense
from fastrsx.kernels.registers.shapes import REGISTER
found = {}
for n, d in ((300, 33), (150, 130), (40, 5)):
    rng = np.random.default_rng(d)
    A, b, x, h = rng.standard_normal((n, d)), rng.random(n), rng.standard_normal(d) / d, rng.standard_normal(n)
    work, grad, hess, gram = dense.alloc_workspace(n, d, True), np.empty(d), np.empty((d, d)), np.empty((d, d))
    fun = dense.value_grad_hess_serial(A, x, b, np.empty(0), grad, hess, work)
    dense.weighted_gram_serial(A, h, gram, work)
    found[d] = hashlib.sha256(b"".join(each.tobytes() for each in (np.float64(fun), grad, hess, gram))).hexdigest()
print(json.dumps([REGISTER, found]))
"""


def bits(*cpu):
    env = os.environ | ({"FASTRSX_CACHE": "0"} if cpu else {})  # the cache would take one CPU's code for another's
    env.pop("NUMBA_CACHE_DIR" if cpu else "", None)
    run = subprocess.run([sys.executable, "-c", SCRIPT, *cpu], env=env, capture_output=True, text=True, timeout=400, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the names are those of x86-64 CPUs")
@pytest.mark.parametrize("register", [register for register in CPUS if register != REGISTER])
def test_another_shape_gives_the_same_bits(register):
    made, found = bits(CPUS[register])
    assert made == register
    assert found == bits()[1]
