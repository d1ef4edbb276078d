"""Panels of at most four columns: eight rows are the lanes of a register, with a register for each column.

Read row by row, a register of eight columns would be half empty or more. So rows are transposed, eight at a time, and sums over rows are kept in
eight lanes up to the end of a panel. Whatever lies behind the last column counts for nothing, as in panel.py.
"""

import functools

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..compiling.jit import part
from .shapes import SHAPES
from .simd import (
    LANES,
    f64x8,
    fma,
    lane,
    load_first,
    load_lanes,
    load_vector,
    pointer,
    prefetch,
    shuffle,
    splat,
    store,
    store_first,
    sums_of_lanes,
    transposed,
    zeros,
)
from .tile import INT64, columns_from, outer

NARROW = 4


@intrinsic(prefer_literal=True)
def narrow_columns(typingctx, P, k, first, count):
    """P[k : k + 8, first : first + count], a register for each column."""
    result = types.UniTuple(f64x8, count.literal_value)
    start = first.literal_value

    def codegen(context, builder, sig, args):
        rows = [load_lanes(context, builder, P, args[0], (i, INT64(0)), NARROW) for i in columns_from(builder, args[1], LANES, 1)]
        pairs = [shuffle(builder, rows[r], rows[r + NARROW], range(2 * NARROW)) for r in range(NARROW)]
        return context.make_tuple(builder, result, transposed(builder, pairs, NARROW)[start : start + len(result)])

    return result(P, types.int64, first, count), codegen


@intrinsic(prefer_literal=True)
def rows_of(typingctx, W, k, count):
    """W[: count, k : k + 8] as a tuple of registers."""
    result = types.UniTuple(f64x8, count.literal_value)

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, result, [load_vector(context, builder, W, args[0], (INT64(r), args[1])) for r in range(len(result))])

    return result(W, types.int64, count), codegen


@intrinsic(prefer_literal=True)
def add_tile_sums(typingctx, tile, C, p, q, rows):
    """C[p : p + rows, q :] += the sums over the lanes of a tile; rows is literal, the columns of the tile follow."""
    per_row = tile.count // rows.literal_value

    def codegen(context, builder, sig, args):
        for i, total in enumerate(sums_of_lanes(builder, cgutils.unpack_tuple(builder, args[0]))):
            cell = builder.add(args[2], INT64(i // per_row)), builder.add(args[3], INT64(i % per_row))
            place = pointer(context, builder, C, args[1], cell, ir.DoubleType())
            builder.store(builder.fadd(builder.load(place), total), place)
        return context.get_dummy_value()

    return types.none(tile, C, types.int64, types.int64, rows), codegen


@part
def narrow_products(P, x, rows, out, start):
    """out[start : start + rows] = P x."""
    xs = load_first(x, 0, 0, x.shape[0])
    x0, x1, x2, x3 = splat(lane(xs, 0)), splat(lane(xs, 1)), splat(lane(xs, 2)), splat(lane(xs, 3))
    for i in range(0, rows, LANES):
        p0, p1, p2, p3 = narrow_columns(P, i, 0, 4)
        store_first(out, 0, start + i, rows - i, fma(x3, p3, fma(x2, p2, fma(x1, p1, x0 * p0))))


def _in_turn(functions):
    """One after the other."""

    def then(first, second):
        @part
        def both(left, right, rows, C):
            first(left, right, rows, C)
            second(left, right, rows, C)

        return both

    return functools.reduce(then, functions)


def _sums(kinds, first, count):
    """S[: kinds, first : first + count] += W[:, : rows] P, for whole registers of rows."""
    cells = kinds * count

    @part
    def add(P, W, rows, S):
        tile = zeros(cells)
        for k in range(0, rows, LANES):
            tile = outer(tile, rows_of(W, k, kinds), narrow_columns(P, k, first, count))
        add_tile_sums(tile, S, 0, first, kinds)

    return add


def _all_sums(kinds):
    """The same of all columns, as many at a time as the registers hold."""
    return _in_turn([_sums(kinds, first, SHAPES.narrow) for first in range(0, NARROW, SHAPES.narrow)])


three_narrow_sums, one_narrow_sum = _all_sums(3), _all_sums(1)


SIDE = 4 if SHAPES.narrow == NARROW else 2  # of a tile of the Gram matrix
CELLS = SIDE * SIDE


def _tile_of(p, q):
    """C[p : p + SIDE, q : q + SIDE] += the products of columns that are packed, one factor times h."""

    @part
    def add(columns, scaled, rows, C):
        tile = zeros(CELLS)
        for k in range(0, rows, LANES):
            tile = outer(tile, rows_of(scaled[p:], k, SIDE), rows_of(columns[q:], k, SIDE))
        add_tile_sums(tile, C, p, q, SIDE)

    return add


_triangle = _in_turn([_tile_of(p, q) for p in range(0, NARROW, SIDE) for q in range(p, NARROW, SIDE)])


@part
def add_narrow_gram(P, h, rows, packed, C, ahead, row):
    """C += P^T diag(h) P, above the diagonal; `packed` has room for eight columns of the panel. Prefetches the panel at `row` of `ahead`."""
    room = packed[0].reshape(LANES, packed.shape[1])
    for k in range(0, rows, LANES):
        prefetch(ahead, row, NARROW * k // LANES, NARROW)
        p0, p1, p2, p3 = narrow_columns(P, k, 0, 4)
        hk = load_first(h, 0, k, rows - k)
        store(room, 0, k, p0)
        store(room, 1, k, p1)
        store(room, 2, k, p2)
        store(room, 3, k, p3)
        store(room, 4, k, hk * p0)
        store(room, 5, k, hk * p1)
        store(room, 6, k, hk * p2)
        store(room, 7, k, hk * p3)
    _triangle(room, room[NARROW:], rows, C)
