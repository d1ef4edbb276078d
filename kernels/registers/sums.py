"""Sums over the rows of a panel: S += W P, weighted sums, by tiles of the micro-kernel; and sums of columns.

While a pass works on a panel it prefetches the next one, `row` of `ahead`: half of its lines in each of two phases, the first half during the
products, the second during the sums; or `whole`, where there is one phase.
"""

import functools

from numba.core import types
from numba.extending import intrinsic

from ..compiling.jit import part, serial
from .gram import UNCOPIED
from .shapes import SHAPES
from .simd import LANES, absolute, f64x8, fma, load_first, load_vector, maximum, prefetch, store, zeros
from .tile import INT64, NARROW, add_tile, add_tile_sums, column, narrow_columns, outer, registers, scaled, store_packed

SUMS, SUM = SHAPES.sums, SHAPES.sum
THREE_SUMS, HALF_SUMS, HALF_SUM = 3 * SUMS, max(1, SUMS // 2), max(1, SUM // 2)  # literals for the calls below


@intrinsic(prefer_literal=True)
def weights_of(typingctx, W, k, count):
    """W[: count, k : k + 8] as a tuple of registers."""
    result = types.UniTuple(f64x8, count.literal_value)

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, result, [load_vector(context, builder, W, args[0], (INT64(r), args[1])) for r in range(len(result))])

    return result(W, types.int64, count), codegen


def _narrow_sums(kinds, first, count):
    """S[: kinds, first : first + count] += W[:, : rows] P of a narrow panel, for whole registers of rows."""
    cells = kinds * count

    @part
    def add(P, W, rows, S):
        tile = zeros(cells)
        for k in range(0, rows, LANES):
            tile = outer(tile, weights_of(W, k, kinds), narrow_columns(P, k, first, count))
        add_tile_sums(tile, S, first, kinds)

    return add


def _in_turn(first, second):
    """One after the other."""

    @part
    def both(P, W, rows, S):
        first(P, W, rows, S)
        second(P, W, rows, S)

    return both


def _all_narrow_sums(kinds):
    """The same of all four columns, as many at a time as the registers hold."""
    return functools.reduce(_in_turn, (_narrow_sums(kinds, first, SHAPES.narrow) for first in range(0, NARROW, SHAPES.narrow)))


_three_narrow_sums, _one_narrow_sum = _all_narrow_sums(3), _all_narrow_sums(1)


@serial
def add_row_sums(P, W, rows, S, ahead, row, whole):
    """S += W[:, : rows] P for the three rows of W."""
    d, begin = P.shape[1], 0
    if ahead.shape[1] <= NARROW:
        begin = rows // LANES * LANES
        _three_narrow_sums(P, W, begin, S)
    q = 0 if begin < rows else d
    line = 0 if whole else rows * d // (2 * LANES)
    while q < d:
        if SUMS > 1 and d - q >= SUMS * LANES:
            tile = zeros(THREE_SUMS)
            for k in range(begin, rows):
                prefetch(ahead, row, line, HALF_SUMS)
                if whole:
                    prefetch(ahead, row, line + HALF_SUMS, HALF_SUMS)
                    line += HALF_SUMS
                line += HALF_SUMS
                tile = outer(tile, column(W, k, 3), registers(P, k, q, SUMS))
            add_tile(tile, S, 0, q, 3)
            q += SUMS * LANES
        else:
            narrow = zeros(3)
            for k in range(begin, rows):
                prefetch(ahead, row, line, 1)
                if whole or k % 2 == 1:
                    line += 1
                narrow = outer(narrow, column(W, k, 3), registers(P, k, q, 1))
            add_tile(narrow, S, 0, q, 3)
            q += LANES


@serial
def add_row_sums_and_pack(P, h, W, rows, S, packed):
    """`pack`, and S += W[:, : rows] P for the three rows of W, in one read of P."""
    d = P.shape[1]
    q = 0
    while q < d:
        if SUMS > 1 and d - q >= SUMS * LANES:
            tile = zeros(THREE_SUMS)
            for k in range(rows):
                vectors = registers(P, k, q, SUMS)
                store_packed(packed, q // LANES, k, scaled(h[k], vectors))
                if q >= UNCOPIED * LANES:
                    store_packed(packed, (d + q) // LANES, k, vectors)
                tile = outer(tile, column(W, k, 3), vectors)
            add_tile(tile, S, 0, q, 3)
            q += SUMS * LANES
        else:
            narrow = zeros(3)
            for k in range(rows):
                vector = registers(P, k, q, 1)
                store_packed(packed, q // LANES, k, scaled(h[k], vector))
                if q >= UNCOPIED * LANES:
                    store_packed(packed, (d + q) // LANES, k, vector)
                narrow = outer(narrow, column(W, k, 3), vector)
            add_tile(narrow, S, 0, q, 3)
            q += LANES


@serial
def add_columns(P, rows, S):
    """S[0] += the sum of squares of each column, S[1] = the largest |P_ij| so far; a NaN or inf shows in the first."""
    for start in range(0, rows, LANES):  # eight rows at a time: going down the whole panel would wait for memory
        for q in range(0, P.shape[1], LANES):
            squares, largest = load_first(S, 0, q, LANES), load_first(S, 1, q, LANES)
            for k in range(start, min(start + LANES, rows)):
                x = load_first(P, k, q, LANES)
                squares = fma(x, x, squares)
                largest = maximum(absolute(x), largest)
            store(S, 0, q, squares)
            store(S, 1, q, largest)


@serial
def add_row_sum(P, W, rows, S, ahead, row, whole):
    """The same for a W of one row."""
    d, begin = P.shape[1], 0
    if ahead.shape[1] <= NARROW:
        begin = rows // LANES * LANES
        _one_narrow_sum(P, W, begin, S)
    q = 0 if begin < rows else d
    line = 0 if whole else rows * d // (2 * LANES)
    while q < d:
        if SUM > 2 and d - q >= SUM * LANES:
            tile = zeros(SUM)
            for k in range(rows):
                prefetch(ahead, row, line, HALF_SUM)
                if whole:
                    prefetch(ahead, row, line + HALF_SUM, HALF_SUM)
                    line += HALF_SUM
                line += HALF_SUM
                tile = outer(tile, column(W, k, 1), registers(P, k, q, SUM))
            add_tile(tile, S, 0, q, 1)
            q += SUM * LANES
        elif d - q >= 16:
            middle = zeros(2)
            for k in range(rows):
                prefetch(ahead, row, line, 1)
                if whole:
                    prefetch(ahead, row, line + 1, 1)
                    line += 1
                line += 1
                middle = outer(middle, column(W, k, 1), registers(P, k, q, 2))
            add_tile(middle, S, 0, q, 1)
            q += 16
        else:
            narrow = zeros(1)
            for k in range(begin, rows):
                narrow = outer(narrow, column(W, k, 1), registers(P, k, q, 1))
            add_tile(narrow, S, 0, q, 1)
            q += 8
