"""The shapes of tiles: as many sums of eight lanes at a time as the registers of this CPU hold, so that no inner loop spills.

Eight lanes are one register of AVX-512, two of AVX, four of NEON or SSE. The bits do not depend on the shape: every sum has its own order.
"""

import re
from typing import NamedTuple

from llvmlite import binding, ir
from numba.core.registry import cpu_target


class Shapes(NamedTuple):
    """The sizes of inner loops; a register is one of eight lanes."""

    strips: int  # the Gram matrix: registers of a row of a tile, of eight scalars; 1 stands for `tall` scalars by one register
    tall: int
    short: int  # a last tile of fewer scalars: with some of `tall` ones, any multiple of eight
    sums: int  # three weighted sums of rows: registers of a row at a time
    sum: int  # one such sum
    dots: int  # rows whose product with x is summed at a time
    narrow: int  # of four columns: those whose three weighted sums are held at a time, each in eight lanes
    pairs: bool  # whether two scalars share a register, from which multiply-adds take either


BY_REGISTER = {
    "zmm": Shapes(strips=3, tall=8, short=8, sums=4, sum=8, dots=8, narrow=4, pairs=False),  # AVX-512: 32 of 512 bits
    "ymm": Shapes(strips=1, tall=6, short=4, sums=1, sum=4, dots=4, narrow=1, pairs=False),  # AVX: 16 of 256 bits
    "q": Shapes(strips=1, tall=6, short=4, sums=1, sum=4, dots=4, narrow=2, pairs=True),  # NEON: 32 of 128 bits
    "xmm": Shapes(strips=1, tall=2, short=2, sums=1, sum=2, dots=2, narrow=1, pairs=False),  # SSE: 16 of 128 bits
}


def register_of(triple, cpu, features):
    """The widest register of a CPU. LLVM is asked, for a name like haswell says nothing to Python."""
    lanes = ir.VectorType(ir.DoubleType(), 8)
    module = ir.Module()
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [lanes.as_pointer()]), "twice")
    builder = ir.IRBuilder(function.append_basic_block())
    x = builder.load(function.args[0], align=8)
    builder.store(builder.fadd(x, x), function.args[0], align=8)
    builder.ret_void()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    assembly = machine.emit_assembly(binding.parse_assembly(str(module)))
    return next((name for name in BY_REGISTER if re.search(rf"\b{name}\d", assembly)), "xmm")


REGISTER = register_of(*cpu_target.target_context.codegen().magic_tuple())
SHAPES = BY_REGISTER[REGISTER]
