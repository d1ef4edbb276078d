"""The machine code of inner loops, on CPUs of every width of register: full-width multiply-adds, no spills, no calls."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
X86, ARM, APPLE = "x86_64-unknown-linux-gnu", "aarch64-linux-gnu", "arm64-apple-macosx"
# The registers of each CPU, and how many of them eight lanes are.
CPUS = {
    (X86, "haswell"): ("ymm", 2),
    (X86, "znver3"): ("ymm", 2),
    (X86, "skylake-avx512"): ("zmm", 1),
    (X86, "x86-64-v2"): ("xmm", 4),
    (ARM, "neoverse-v2"): ("v", 4),
    (APPLE, "apple-m1"): ("v", 4),
}
TALLEST = {"zmm": 24, "ymm": 6, "v": 6}  # registers of eight lanes in the largest tile
# In a loop that holds others: the first rows' sums wait for those of the last. And with exp: four sums over rows, and what it computes.
# Steps in one read: twelve sums, which AVX-512 alone has room for, and a load and a store of each for eight rows.
MOST_SPILLS = {"row_products": 10, "pack": 4, "add_domain": 17, "add_with_shift": 21, "fold_residuals": 16, "panel_weights": 16, "weigh_ahead": 92}
TRANSLATED = "x86_64", "AMD64"  # where the kernels are translated to ARM


def loops_of(triple, cpu):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FASTRSX_"))} | {"FASTRSX_CACHE": "0"}
    others = () if triple == X86 else (triple, cpu)
    env |= {"NUMBA_CPU_NAME": "haswell" if others else cpu, "NUMBA_CPU_FEATURES": ""}
    run = subprocess.run([sys.executable, HERE / "assembly.py", *others], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module", params=CPUS, ids=lambda cpu: cpu[1])
def machine(request):
    if platform.machine() not in TRANSLATED:
        pytest.skip("compiles for other CPUs from x86-64 only")
    shapes, *loops = loops_of(*request.param)
    return CPUS[request.param], shapes["shapes"], loops


def test_no_tile_spills_or_calls(machine):
    (register, _), _, loops = machine
    if register == "xmm":
        assert any(loop["calls"] for loop in loops), "a CPU without multiply-add calls the library's"
        return
    hot = [loop for loop in loops if loop["fmas"]]
    assert {loop["group"] for loop in hot} == {"gram", "sums", "products", "mixed", "exp", "ahead", "cholesky"}
    for loop in hot:
        assert loop["calls"] == 0, loop
        assert loop["spills"] <= MOST_SPILLS.get(loop["name"], 0), loop


def test_multiply_adds_are_as_wide_as_the_registers(machine):
    (register, per_eight), shapes, loops = machine
    if register == "xmm":
        assert shapes["tall"] == 2
        return
    for loop in loops:
        if loop["group"] in ("gram", "sums", "products", "mixed"):
            narrow = register if loop["name"] != "_half_corners" else "ymm"
            assert set(loop["fmas"]) <= {register, narrow}, loop
    largest = max(loop["fmas"].get(register, 0) for loop in loops if loop["group"] == "gram" and loop["name"] in ("_gram_tile_3", "_tall_tile"))
    assert largest % (TALLEST[register] * per_eight) == 0
    assert largest > 0


def test_tiles_prefetch(machine):
    _, _, loops = machine
    for group in ("gram", "sums", "products", "mixed"):
        assert any(loop["prefetches"] for loop in loops if loop["group"] == group)
