"""The loader for dense A of any strides and any real dtype: rows are packed into panels, widened to float64.

One type covers all of them, so kernels are compiled once: the differences are data, tested once for eight numbers.
"""

from typing import NamedTuple

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload_attribute

from ..compiling.jit import serial
from ..registers.simd import LANES, f64x8, splat, store, transpose

_DOUBLE, _FLOAT, _HALF, _INT8, _INT32, _INT64 = ir.DoubleType(), ir.FloatType(), ir.HalfType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)

# The dtypes: the LLVM type of each, and its conversion to float64.
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
_STORED = {"float64": _DOUBLE, "float32": _FLOAT, "float16": _HALF, "bfloat16": ir.IntType(16), "bool": _INT8}


class Strided(NamedTuple):
    """A in place. It does not keep the memory alive: its creator does."""

    address: int  # of A[0, 0]
    row: int  # bytes from one row to the next; may be negative
    column: int  # the same for columns
    kind: int  # index of the dtype
    size: int  # bytes per number
    n: int
    d: int
    # A panel's lines are prefetched by number, see simd.prefetch: line l = run q + r is near r + far q bytes from its start.
    run: int
    over_run: int  # 2^32 / run rounded up: q = l over_run / 2^32
    near: int
    far: int


@overload_attribute(types.BaseNamedTuple, "shape")
def _shape(A):
    """(n, d) of a source; not a field, because parallel loops accept no tuple within a tuple."""
    return (lambda A: (A.n, A.d)) if {"n", "d"} <= set(A.fields) else None


def kind_of(dtype):
    """The index of a dtype, or None where that dtype is not read in place."""
    return _DTYPES.index(dtype.name) if dtype.isnative and dtype.name in _DTYPES else None


def strided(A):
    """The source for a 2-D array."""
    size, (row, column), (n, d) = A.itemsize, A.strides, A.shape
    if column == size:
        run, near, far = -(-d // LANES), LANES * size, row  # along a row
    elif row == size:
        run, near, far = 16, LANES * size, column  # down a column, 16 lines of 8 rows
    else:
        run, near, far = 128, row, LANES * column  # the first line of each row, then the second
    return Strided(A.ctypes.data, row, column, kind_of(A.dtype), size, n, d, run, -(-(2**32) // run), near, far)


def _widen(builder, value, name, result):
    if name == "float64":
        return value
    if name.startswith("float"):
        return builder.fpext(value, result)
    if name == "bfloat16":  # the upper half of a float32
        integer, single = (_INT32, _FLOAT) if result == _DOUBLE else (ir.VectorType(_INT32, LANES), ir.VectorType(_FLOAT, LANES))
        shift = ir.Constant(integer, 16 if result == _DOUBLE else [16] * LANES)
        return builder.fpext(builder.bitcast(builder.shl(builder.zext(value, integer), shift), single), result)
    return builder.sitofp(value, result) if name.startswith("int") else builder.uitofp(value, result)


def _load_any(builder, addresses, kind, lanes):
    """One number, or eight consecutive ones, from each address, all of one kind, known only at run time."""
    result = _DOUBLE if lanes == 1 else ir.VectorType(_DOUBLE, lanes)
    start, after = builder.block, builder.append_basic_block("loaded")
    choices, default = [], None
    for name in _DTYPES:
        block = builder.append_basic_block(name)
        builder.position_at_end(block)
        stored = _STORED.get(name) or ir.IntType(int(name.lstrip("uint")))
        stored = stored if lanes == 1 else ir.VectorType(stored, lanes)
        places = [builder.inttoptr(address, stored.as_pointer()) for address in addresses]
        choices.append((block, [_widen(builder, builder.load(place, align=1), name, result) for place in places]))
        builder.branch(after)
        default = default or block
    builder.position_at_end(start)
    switch = builder.switch(kind, default)
    for i, (block, _) in enumerate(choices[1:], 1):
        switch.add_case(_INT64(i), block)
    builder.position_at_end(after)
    loaded = [builder.phi(result) for _ in addresses]
    for block, values in choices:
        for phi, value in zip(loaded, values, strict=True):
            phi.add_incoming(value, block)
    return loaded


@intrinsic
def number(typingctx, address, kind):
    """The number of that kind at an address."""

    def codegen(context, builder, sig, args):
        return _load_any(builder, args[:1], args[1], 1)[0]

    return types.float64(types.int64, types.int64), codegen


@intrinsic
def eight_by_eight(typingctx, address, step, kind):
    """Eight registers of eight numbers of that kind, `step` bytes apart: one test of the kind for all."""
    registers = types.UniTuple(f64x8, LANES)

    def codegen(context, builder, sig, args):
        address, step, kind = args
        addresses = [builder.add(address, builder.mul(step, _INT64(r))) for r in range(LANES)]
        return context.make_tuple(builder, registers, _load_any(builder, addresses, kind, LANES))

    return registers(types.int64, types.int64, types.int64), codegen


@intrinsic
def eight_apart(typingctx, address, step, kind):
    """A register of eight numbers of that kind, `step` bytes apart."""

    def codegen(context, builder, sig, args):
        address, step, kind = args
        numbers = _load_any(builder, [builder.add(address, builder.mul(step, _INT64(r))) for r in range(LANES)], kind, 1)
        register = ir.Constant(ir.VectorType(_DOUBLE, LANES), ir.Undefined)
        for r, number in enumerate(numbers):
            register = builder.insert_element(register, number, ir.Constant(_INT32, r))
        return register

    return f64x8(types.int64, types.int64, types.int64), codegen


@serial
def pack_strided(A, start, rows, out):
    """The first rows of `out`, padded with zeros, are rows start : start + rows of A."""
    d = A.shape[1]
    whole, whole_rows = d // LANES * LANES, rows // LANES * LANES
    if A.column == A.size:
        for i in range(0, whole_rows, LANES):
            for j in range(0, whole, LANES):
                store_rows(out, i, j, eight_by_eight(A.address + (start + i) * A.row + j * A.column, A.row, A.kind))
    elif A.row == A.size:
        for j in range(0, whole, LANES):
            for i in range(0, whole_rows, LANES):
                store_rows(out, i, j, transpose(eight_by_eight(A.address + (start + i) * A.row + j * A.column, A.column, A.kind)))
    else:
        whole_rows = 0
    for i in range(rows):
        row = A.address + (start + i) * A.row
        for j in range(0 if i >= whole_rows else whole, whole, LANES):
            store(out, i, j, eight_apart(row + j * A.column, A.column, A.kind))
        if whole < d:
            store(out, i, whole, splat(0.0))
            for j in range(whole, d):
                out[i, j] = number(row + j * A.column, A.kind)


@serial
def store_rows(out, i, j, rows):
    """out[i : i + 8, j : j + 8] = eight registers."""
    for r in range(LANES):
        store(out, i + r, j, rows[r])
