"""The micro-kernel: outer products of scalars and registers, summed in registers over the rows of a panel.

A tile of C is held in registers, as many as the CPU has room for (shapes.py), while the rows k of a panel P stream by:

    C[r, c] += scalar_r(k) * vector_c(k)          r < R scalars, c < V registers of eight columns

With scalars h_k P[k, p + r] and vectors P[k, q + 8 c] that is a tile of the Gram matrix P^T diag(h) P; with scalars
W[r, k] it is a tile of W P, the weighted sums of rows. Both are the same three lines: `outer` (gram.py, sums.py).
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .simd import LANES, broadcast, f64x8, load_number, load_vector, multiply_add, pointer

INT64 = ir.IntType(64)


def columns_from(builder, j, count, step):
    return [builder.add(j, INT64(step * c)) for c in range(count)]


@intrinsic(prefer_literal=True)
def column(typingctx, W, k, count):
    """W[: count, k] as a tuple of scalars."""
    result = types.UniTuple(types.float64, count.literal_value)

    def codegen(context, builder, sig, args):
        picked = [load_number(context, builder, W, args[0], (INT64(r), args[1])) for r in range(len(result))]
        return context.make_tuple(builder, result, picked)

    return result(W, types.int64, count), codegen


@intrinsic(prefer_literal=True)
def registers(typingctx, P, k, q, count):
    """P[k, q : q + 8 count] as a tuple of registers."""
    result = types.UniTuple(f64x8, count.literal_value)

    def codegen(context, builder, sig, args):
        picked = [load_vector(context, builder, P, args[0], (args[1], j)) for j in columns_from(builder, args[2], len(result), LANES)]
        return context.make_tuple(builder, result, picked)

    return result(P, types.int64, types.int64, count), codegen


@intrinsic
def scaled(typingctx, h, vectors):
    """h times each register."""

    def codegen(context, builder, sig, args):
        h = broadcast(builder, args[0])
        return context.make_tuple(builder, vectors, [builder.fmul(h, x) for x in cgutils.unpack_tuple(builder, args[1])])

    return vectors(types.float64, vectors), codegen


@intrinsic
def store_packed(typingctx, packed, block, k, vectors):
    """packed[block + c, k] = vectors[c]."""

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[3])
        for c, x in zip(columns_from(builder, args[1], len(values), 1), values, strict=True):
            builder.store(x, pointer(context, builder, packed, args[0], (c, args[2], INT64(0)), x.type), align=8)
        return context.get_dummy_value()

    return types.none(packed, types.int64, types.int64, vectors), codegen


def _outer(doc, negative):
    @intrinsic
    def operation(typingctx, tile, left, right):
        def codegen(context, builder, sig, args):
            tile_values, left_values, right_values = (cgutils.unpack_tuple(builder, arg) for arg in args)
            result = []
            for r, scalar in enumerate(left_values):
                scalar = builder.fneg(scalar) if negative else scalar
                if not isinstance(scalar.type, ir.VectorType):
                    scalar = broadcast(builder, scalar, right_values[0].type.count)
                for c, vector in enumerate(right_values):
                    result.append(multiply_add(builder, scalar, vector, tile_values[r * len(right_values) + c]))
            return context.make_tuple(builder, tile, result)

        return tile(tile, left, right), codegen

    operation.__doc__ = doc
    return operation


outer = _outer(
    "tile[r, c] + left[r] * right[c], for every r and c; tile is a flat tuple, r first. left: scalars, or registers of as many lanes.", False
)
outer_less = _outer("The same with a minus.", True)


@intrinsic(prefer_literal=True)
def add_tile(typingctx, tile, C, p, q, rows):
    """C[p : p + rows, q :] += tile; rows is literal, the registers a row follow."""
    per_row = tile.count // rows.literal_value

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[0])
        for r, i in enumerate(columns_from(builder, args[2], rows.literal_value, 1)):
            for c, j in enumerate(columns_from(builder, args[3], per_row, LANES)):
                place = pointer(context, builder, C, args[1], (i, j), values[0].type)
                builder.store(builder.fadd(builder.load(place, align=8), values[r * per_row + c]), place, align=8)
        return context.get_dummy_value()

    return types.none(tile, C, types.int64, types.int64, rows), codegen
