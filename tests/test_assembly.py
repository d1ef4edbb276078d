"""The assembly of the micro-kernel: full-width FMAs, no spills in the loop, no library call for exp."""

import platform
import re

import pytest
from llvmlite import binding
from numba import njit, typeof, types
from numba.np.numpy_support import from_dtype

from fastrsx.kernels.compiling.jit import FLAGS
from fastrsx.kernels.cpu import mixed, vectors
from fastrsx.kernels.formulas.links import LINKS
from fastrsx.kernels.formulas.records import STATE
from fastrsx.kernels.registers import tile

MATRIX, VECTOR = types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C")
PANEL32 = types.Array(types.float32, 3, "C")
READ_ONLY = types.Array(types.float64, 2, "C", readonly=True)
TILE = (MATRIX, READ_ONLY, types.int64, types.int64, types.int64, MATRIX, READ_ONLY, types.int64, types.int64)
HOST = binding.get_host_cpu_features()

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not HOST.get("avx512f"),
    reason="looks for AVX-512 instructions, which this CPU does not have",
)


def blocks(kernel, signature):
    """The basic blocks of the kernel, as lists of instructions. It is compiled again, since kernels from the disk cache have no assembly."""
    compiled = njit(**FLAGS)(kernel.py_func)
    compiled.compile(signature)
    result, block = [], []
    for line in compiled.inspect_asm(compiled.signatures[0]).splitlines():
        if re.match(r"^\S+:", line):
            result.append(block)
            block = []
        elif line.startswith("\t") and not line.startswith("\t."):
            block.append(line.strip())
            if line.startswith("\tj"):
                result.append(block)
                block = []
    return [*result, block]


def count(block, pattern):
    return sum(bool(re.search(pattern, line)) for line in block)


FMA = r"^vfn?madd\w*pd\s.*%zmm"


@pytest.mark.parametrize(("name", "fmas"), [("_gram_tile_3", 24), ("_gram_tile_2", 16), ("_gram_tile_1", 8), ("_gram_corner", 24)])
def test_the_inner_loops_of_the_gram_matrix_are_full_width_and_spill_nothing(name, fmas):
    signature = TILE
    if name == "_gram_corner":
        signature = (types.Array(types.float64, 3, "C"), READ_ONLY, types.int64, types.int64, MATRIX, READ_ONLY, types.int64, types.int64)
    found = blocks(getattr(tile, name), signature)
    loops = [block for block in found if count(block, FMA) and block[-1].startswith("j")]
    assert sum(count(loop, FMA) for loop in loops) >= fmas
    for loop in loops:
        assert count(loop, FMA) % 8 == 0
        assert count(loop, r"\(%rsp.*%zmm|%zmm.*\(%rsp") == 0, "a register was spilled"
        assert count(loop, r"^call") == 0
        assert count(loop, r"^v(fn?madd|mul|add)\w*pd\s.*%(y|x)mm") == 0
    assert any(count(block, r"^prefetcht1") for block in found)


@pytest.mark.parametrize(
    ("name", "fmas"), [("_wide_tile_3", 24), ("_wide_tile_2", 16), ("_wide_tile_1", 8), ("_wide_corner", 24), ("_half_corners", 16)]
)
def test_the_inner_loops_in_float32_are_full_width_and_spill_nothing(name, fmas):
    columns = () if "corner" in name else (types.int64,)
    signature = (PANEL32, types.int64, types.int64, types.int64, *columns, MATRIX, MATRIX, READ_ONLY, types.int64, types.int64)
    fma = rf"^vfn?madd\w*ps\s.*%{'y' if name == '_half_corners' else 'z'}mm"
    found = blocks(getattr(mixed, name), signature)
    loops = [block for block in found if count(block, fma) and re.match(r"j(?!mp)", block[-1])]  # without a last round that ends in a shared tail
    for sign in ("vfmadd", "vfnmadd"):
        assert sum(count(loop, rf"^{sign}") for loop in loops) >= fmas
    for loop in loops:
        assert count(loop, fma) % 8 == 0
        assert count(loop, r"^v(fn?madd|mul|add)\w*ps\s") == count(loop, fma)
        assert count(loop, r"\(%rsp.*%(y|z)mm|%(y|z)mm.*\(%rsp") == 0, "a register was spilled"
        assert count(loop, r"^call") == 0
    assert any(count(block, r"^prefetcht1") for block in found)


def test_no_loop_calls_exp():
    """exp is a polynomial in registers; the one library call for each panel, for its shift, is outside the loops."""
    signature = (typeof(LINKS["rsx"]), VECTOR, VECTOR, types.int64, types.int64, from_dtype(STATE), VECTOR, VECTOR)
    found = blocks(vectors.add_domain, signature)
    hot = [block for block in found if count(block, FMA) >= 10]
    assert hot
    for block in hot:
        assert count(block, r"^call") == 0
