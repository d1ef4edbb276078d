"""The micro-kernel: outer products of scalars and registers, summed in registers over the rows of a panel.

A tile of C is held in up to 24 registers while the rows k of a panel P stream by:

    C[r, c] += scalar_r(k) * vector_c(k)          r < R scalars, c < V registers of eight columns

With scalars P[k, p + r] and vectors h_k P[k, q + 8 c] that is a tile of the Gram matrix P^T diag(h) P; with scalars
W[r, k] it is a tile of W P, the weighted sums of rows. Both are the same three lines below.
"""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import serial
from .simd import LANES, broadcast, f64x8, load_first, load_vector, multiply_add, pointer, store_first, sum_each, zeros

_INT64 = ir.IntType(64)


def _columns(builder, j, count, step):
    return [builder.add(j, _INT64(step * c)) for c in range(count)]


@intrinsic(prefer_literal=True)
def scalars(typingctx, P, k, p, count):
    """P[k, p : p + count] as a tuple of scalars."""
    result = types.UniTuple(types.float64, count.literal_value)

    def codegen(context, builder, sig, args):
        picked = [builder.load(pointer(context, builder, P, args[0], (args[1], j))) for j in _columns(builder, args[2], len(result), 1)]
        return context.make_tuple(builder, result, picked)

    return result(P, types.int64, types.int64, count), codegen


@intrinsic(prefer_literal=True)
def column(typingctx, W, k, count):
    """W[: count, k] as a tuple of scalars."""
    result = types.UniTuple(types.float64, count.literal_value)

    def codegen(context, builder, sig, args):
        picked = [builder.load(pointer(context, builder, W, args[0], (_INT64(r), args[1]))) for r in range(len(result))]
        return context.make_tuple(builder, result, picked)

    return result(W, types.int64, count), codegen


@intrinsic(prefer_literal=True)
def registers(typingctx, P, k, q, count):
    """P[k, q : q + 8 count] as a tuple of registers."""
    result = types.UniTuple(f64x8, count.literal_value)

    def codegen(context, builder, sig, args):
        picked = [load_vector(context, builder, P, args[0], (args[1], j)) for j in _columns(builder, args[2], len(result), LANES)]
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
def outer(typingctx, tile, left, right):
    """tile[r, c] + left[r] * right[c], for every r and c; tile is a flat tuple, r first."""

    def codegen(context, builder, sig, args):
        tile_values, left_values, right_values = (cgutils.unpack_tuple(builder, arg) for arg in args)
        result = []
        for r, scalar in enumerate(left_values):
            scalar = broadcast(builder, scalar)
            for c, vector in enumerate(right_values):
                result.append(multiply_add(builder, scalar, vector, tile_values[r * len(right_values) + c]))
        return context.make_tuple(builder, tile, result)

    return tile(tile, left, right), codegen


@intrinsic(prefer_literal=True)
def add_tile(typingctx, tile, C, p, q, rows):
    """C[p : p + rows, q :] += tile; rows is literal, the registers a row follow."""
    per_row = tile.count // rows.literal_value

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[0])
        for r, i in enumerate(_columns(builder, args[2], rows.literal_value, 1)):
            for c, j in enumerate(_columns(builder, args[3], per_row, LANES)):
                place = pointer(context, builder, C, args[1], (i, j), values[0].type)
                builder.store(builder.fadd(builder.load(place, align=8), values[r * per_row + c]), place, align=8)
        return context.get_dummy_value()

    return types.none(tile, C, types.int64, types.int64, rows), codegen


# -- C += P^T diag(h) P, upper triangle ----------------------------------------------------------------------


@serial
def _gram_tile_3(P, h, rows, p, q, C):
    tile = zeros(24)
    for k in range(rows):
        tile = outer(tile, scalars(P, k, p, 8), scaled(h[k], registers(P, k, q, 3)))
    add_tile(tile, C, p, q, 8)


@serial
def _gram_tile_2(P, h, rows, p, q, C):
    tile = zeros(16)
    for k in range(rows):
        tile = outer(tile, scalars(P, k, p, 8), scaled(h[k], registers(P, k, q, 2)))
    add_tile(tile, C, p, q, 8)


@serial
def _gram_tile_1(P, h, rows, p, q, C):
    tile = zeros(8)
    for k in range(rows):
        tile = outer(tile, scalars(P, k, p, 8), scaled(h[k], registers(P, k, q, 1)))
    add_tile(tile, C, p, q, 8)


@serial
def add_gram(P, h, rows, C):
    """C += P^T diag(h) P over the first `rows` rows; only the 8 x 8 tiles on and above the diagonal are right."""
    d = P.shape[1]
    for p in range(0, d, 8):
        q = p
        while q < d:  # threes and twos: a lone register a row leaves the multipliers waiting
            left = (d - q) // LANES
            if left == 3 or left > 4:
                _gram_tile_3(P, h, rows, p, q, C)
                q += 24
            elif left >= 2:
                _gram_tile_2(P, h, rows, p, q, C)
                q += 16
            else:
                _gram_tile_1(P, h, rows, p, q, C)
                q += 8


# -- S += W P: three weighted sums of rows -------------------------------------------------------------------


@serial
def add_row_sums(P, W, rows, S):
    """S += W[:, : rows] P for the three rows of W."""
    d = P.shape[1]
    q = 0
    while q < d:
        if d - q >= 32:
            tile = zeros(12)
            for k in range(rows):
                tile = outer(tile, column(W, k, 3), registers(P, k, q, 4))
            add_tile(tile, S, 0, q, 3)
            q += 32
        else:
            narrow = zeros(3)
            for k in range(rows):
                narrow = outer(narrow, column(W, k, 3), registers(P, k, q, 1))
            add_tile(narrow, S, 0, q, 3)
            q += 8


# -- out = P x -----------------------------------------------------------------------------------------------


@intrinsic
def _add_products(typingctx, sums, P, i, j, x):
    """sums[r] + P[i + r, j : j + 8] * x, for the eight rows r."""

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[0])
        rows = [load_vector(context, builder, P, args[1], (row, args[3])) for row in _columns(builder, args[2], LANES, 1)]
        products = [multiply_add(builder, row, args[4], value) for row, value in zip(rows, values, strict=True)]
        return context.make_tuple(builder, sums, products)

    return sums(sums, P, types.int64, types.int64, f64x8), codegen


@serial
def row_products(P, x, rows, out, start):
    """out[start : start + rows] = P x, eight rows at a time; x may be shorter than the padded rows of P."""
    for i in range(0, rows, LANES):
        sums = zeros(8)
        for j in range(0, P.shape[1], LANES):
            sums = _add_products(sums, P, i, j, load_first(x, 0, j, x.shape[0] - j))
        store_first(out, start + i, rows - i, sum_each(sums))
