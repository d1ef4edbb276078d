"""Sums over the rows of a panel: S += W P, weighted sums, by tiles of the micro-kernel; and sums of columns.

While a pass works on a panel it prefetches the next one, `row` of `ahead`: half of its lines in each of two phases, the first half during the
products, the second during the sums; or `whole`, where there is one phase.
"""

from ..compiling.jit import serial
from .gram import UNCOPIED, add_gram
from .narrow import NARROW, add_narrow_gram, one_narrow_sum, three_narrow_sums
from .shapes import SHAPES
from .simd import LANES, absolute, fma, load_first, maximum, prefetch, store, zeros
from .tile import add_tile, column, outer, registers, scaled, store_packed

SUMS, SUM = SHAPES.sums, SHAPES.sum
THREE_SUMS, HALF_SUMS, HALF_SUM = 3 * SUMS, max(1, SUMS // 2), max(1, SUM // 2)  # literals for the calls below


@serial
def add_row_sums(P, W, rows, S, ahead, row, whole):
    """S += W[:, : rows] P for the three rows of W."""
    d, begin = P.shape[1], 0
    if ahead.shape[1] <= NARROW:
        begin = rows // LANES * LANES
        three_narrow_sums(P, W, begin, S)
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
def add_sums_and_gram(P, h, W, rows, S, packed, C, ahead, row):
    """S += W[:, : rows] P for the three rows of W, and C += P^T diag(h) P, see `add_gram`."""
    if ahead.shape[1] <= NARROW:
        add_row_sums(P, W, rows, S, ahead, row, True)
        add_narrow_gram(P, h, rows, packed, C, ahead, row)
    else:
        add_row_sums_and_pack(P, h, W, rows, S, packed)
        add_gram(packed, P, rows, C, ahead, row)


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
        one_narrow_sum(P, W, begin, S)
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
