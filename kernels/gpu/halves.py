"""Numbers of 16 bits, float16 and bfloat16: A keeps them as they are, and lanes widen them to float64 where they compute with them.

A register of 32 bits has two of them, the first one in its lower half. `emitted` writes PTX, `unpaired` says with NumPy what that computes.
"""

import numpy as np
from numba import config

from .block import device

HALVES = ("<f2", "bfloat16")


def name_of(dtype):
    """The numbers of an array, as kernels tell them apart: NumPy's string, or "bfloat16", which is a dtype of ml_dtypes."""
    return "bfloat16" if dtype.name == "bfloat16" else dtype.str


def paired(low, high):
    """Two of NumPy's numbers of 16 bits, or arrays of them, in 32 bits."""
    low, high = (np.asarray(x).view(np.uint16).astype(np.uint32) for x in (low, high))
    return low | high << np.uint32(16)


def unpaired(word, number, count):
    """The first `count` numbers in 32 bits, in float64."""
    found = [np.asarray(word >> np.uint32(shift) & np.uint32(0xFFFF)) for shift in (0, 16)[:count]]
    if number == "bfloat16":  # the upper half of a float32
        return [(x.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64) for x in found]
    return [x.astype(np.uint16).view(np.float16).astype(np.float64) for x in found]


if config.ENABLE_CUDASIM:

    def stored(number):
        """The type of an array of these numbers in shared memory."""
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16 if number == "bfloat16" else number)

    @device
    def in_float64(x):
        """A number of A, in float64."""
        return float(x)

else:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    I16, I32, F32, F64 = ir.IntType(16), ir.IntType(32), ir.FloatType(), ir.DoubleType()
    STORED = {"<f8": types.float64, "<f4": types.float32, "<f2": types.float16, "bfloat16": types.bfloat16}
    NAMES = {kind: number for number, kind in STORED.items()} | {types.uint16: "bfloat16"}

    def stored(number):
        return types.uint16 if number == "bfloat16" else STORED[number]  # numba-cuda has no shared arrays of it

    def _asm(builder, result, x, text, constraints):
        """A statement of its own, which the compiler does not join with its like: so a register keeps what was loaded, not what it is widened to."""
        return builder.call(ir.InlineAsm(ir.FunctionType(result, [x.type]), text, constraints, side_effect=True), [x])

    def emitted(builder, word, number, count):
        """What `unpaired` computes, as code of a kernel."""
        if number == "bfloat16":
            texts = ("shl.b32 $0, $1, 16;", "and.b32 $0, $1, -65536;")[:count]
            singles = [builder.bitcast(_asm(builder, I32, word, text, "=r,r"), F32) for text in texts]
            return [_asm(builder, F64, x, "cvt.f64.f32 $0, $1;", "=d,f") for x in singles]
        both = _asm(builder, ir.LiteralStructType([I16, I16]), word, "mov.b32 {$0, $1}, $2;", "=h,=h,r")
        return [_asm(builder, F64, builder.extract_value(both, k), "cvt.f64.f16 $0, $1;", "=d,h") for k in range(count)]

    def widened(builder, kind, x):
        """A number of that type, in float64."""
        if x.type == I16:
            return emitted(builder, builder.zext(x, I32), NAMES[kind], 1)[0]
        return x if x.type == F64 else builder.fpext(x, F64)

    @intrinsic
    def in_float64(typingctx, x):
        def codegen(context, builder, sig, args):
            return widened(builder, sig.args[0], args[0])

        return types.float64(x), codegen
