"""What LLVM optimises and translates: kernels that Python calls, each with all that it calls, and nothing else."""

import numba
import numpy as np

from fastrsx.kernels.cpu.blocks import block_count
from fastrsx.kernels.layouts.panel import padded, panel_rows


def is_machine_code(compiled):
    return compiled.codegen._engine.is_symbol_defined(compiled.fndesc.llvm_func_name)


def test_a_kernel_below_another_is_linked_alone():
    assert block_count(1000, 13) > 0
    (whole,) = block_count.overloads.values()
    below = list(padded.parts.overloads.values())
    assert below
    assert not any(is_machine_code(part) for part in below)
    assert is_machine_code(whole)


def test_the_same_kernel_answers_python_and_compiled_code():
    @numba.njit
    def rows(ds):
        return [panel_rows(d) for d in ds]

    ds = np.array([1, 4, 8, 9, 40, 1000])
    assert rows(ds) == [panel_rows(d) for d in ds]
