"""The micro-kernel: outer products of scalars and registers, summed in registers over the rows of a panel.

A tile of C is held in registers, as many as the CPU has room for (shapes.py), while the rows k of a panel P stream by:

    C[r, c] += scalar_r(k) * vector_c(k)          r < R scalars, c < V registers of eight columns

With scalars h_k P[k, p + r] and vectors P[k, q + 8 c] that is a tile of the Gram matrix P^T diag(h) P; with scalars
W[r, k] it is a tile of W P, the weighted sums of rows. Both are the same three lines below.
"""

import math

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..compiling.jit import part, serial
from .shapes import SHAPES
from .simd import (
    LANES,
    absolute,
    broadcast,
    f64x8,
    fma,
    load_first,
    load_number,
    load_vector,
    maximum,
    multiply_add,
    named,
    pointer,
    prefetch,
    store,
    store_first,
    sum_each,
    uniform,
    zeros,
)

_INT64 = ir.IntType(64)
TALL, SHORT = SHAPES.tall, SHAPES.short
SUMS, SUM, DOTS = SHAPES.sums, SHAPES.sum, SHAPES.dots


def _columns(builder, j, count, step):
    return [builder.add(j, _INT64(step * c)) for c in range(count)]


@intrinsic(prefer_literal=True)
def column(typingctx, W, k, count):
    """W[: count, k] as a tuple of scalars."""
    result = types.UniTuple(types.float64, count.literal_value)

    def codegen(context, builder, sig, args):
        picked = [load_number(context, builder, W, args[0], (_INT64(r), args[1])) for r in range(len(result))]
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
def store_packed(typingctx, packed, block, k, vectors):
    """packed[block + c, k] = vectors[c]."""

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[3])
        for c, x in zip(_columns(builder, args[1], len(values), 1), values, strict=True):
            builder.store(x, pointer(context, builder, packed, args[0], (c, args[2], _INT64(0)), x.type), align=8)
        return context.get_dummy_value()

    return types.none(packed, types.int64, types.int64, vectors), codegen


def _outer(doc, negative):
    @intrinsic
    def operation(typingctx, tile, left, right):
        def codegen(context, builder, sig, args):
            tile_values, left_values, right_values = (cgutils.unpack_tuple(builder, arg) for arg in args)
            result = []
            for r, scalar in enumerate(left_values):
                scalar = broadcast(builder, builder.fneg(scalar) if negative else scalar, right_values[0].type.count)
                for c, vector in enumerate(right_values):
                    result.append(multiply_add(builder, scalar, vector, tile_values[r * len(right_values) + c]))
            return context.make_tuple(builder, tile, result)

        return tile(tile, left, right), codegen

    operation.__doc__ = doc
    return operation


outer = _outer("tile[r, c] + left[r] * right[c], for every r and c; tile is a flat tuple, r first.", False)
outer_less = _outer("The same with a minus.", True)


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
#
# The scalars come from diag(h) P, packed in blocks of eight columns: packed[p // 8, k] = h[k] P[k, p : p + 8] is one
# cache line, and a tile reads the lines of a block or two one after the other. Scaling registers in the tile would cost an
# eighth of the multiplications. Tiles one register wide read a register of P for few products, so P is packed likewise, behind diag(h) P, but for
# the first columns, which few tiles read.

UNCOPIED = 2 if SHAPES.strips == 1 else 2**32  # strips of columns that are read from P itself; 2^32 stands for all


@serial
def packed_blocks(d):
    """The first dimension of `packed` for d columns, a multiple of eight."""
    return d // LANES if UNCOPIED > 2 else 2 * (d // LANES)


def scalars_of_blocks(width):
    """The scalars of a panel that is packed in blocks of `width` columns, 8 or 16."""

    @intrinsic(prefer_literal=True)
    def operation(typingctx, packed, k, p, count):
        """packed[p // width, k, p % width], for the columns p : p + count; eight of them lie in one block, and two where p is even."""
        result = types.UniTuple(packed.dtype, count.literal_value)
        kind = ir.DoubleType() if packed.dtype == types.float64 else ir.FloatType()

        together = LANES if count.literal_value == LANES else 2

        def codegen(context, builder, sig, args):
            packed_value, k, p, _ = args
            picked = []
            for j in _columns(builder, p, len(result) // together, together):
                block, lane = builder.lshr(j, _INT64(width.bit_length() - 1)), builder.and_(j, _INT64(width - 1))
                loaded = ir.VectorType(kind, together) if SHAPES.pairs and together == 2 else kind
                first = pointer(context, builder, packed, packed_value, (block, k, lane), loaded)
                if loaded == kind:
                    picked += [builder.load(builder.gep(first, [_INT64(r)])) for r in range(together)]
                else:
                    pair = builder.load(first, align=kind.get_abi_alignment(context.target_data))
                    picked += [builder.extract_element(pair, ir.IntType(32)(r)) for r in range(together)]
            return context.make_tuple(builder, result, picked)

        return result(packed, types.int64, types.int64, count), codegen

    return operation


packed_scalars = scalars_of_blocks(LANES)


def _gram_tile(height, width):
    """The tile of `height` scalars by `width` registers."""
    cells = height * width

    def tile(packed, P, rows, p, q, C, ahead, row, line):
        sums = zeros(cells)
        for k in range(rows):
            sums = outer(sums, packed_scalars(packed, k, p, height), registers(P, k, q, width))
            if line >= 0:
                prefetch(ahead, row, line + k, 1)
        add_tile(sums, C, p, q, height)

    return serial(named(f"gram_tile_{height}_by_{width}", tile))


if SHAPES.strips == 3:
    _gram_tile_3, _gram_tile_2, _gram_tile_1 = _gram_tile(8, 3), _gram_tile(8, 2), _gram_tile(8, 1)

    @serial
    def _gram_corner(packed, P, rows, p, C, ahead, row, line):
        """The triangle of 16 x 16 on the diagonal, also 24 registers."""
        upper, lower = zeros(16), zeros(8)
        for k in range(rows):
            left, right = registers(P, k, p, 2)
            upper = outer(upper, packed_scalars(packed, k, p, 8), (left, right))
            lower = outer(lower, packed_scalars(packed, k, p + LANES, 8), (right,))
            if line >= 0:
                prefetch(ahead, row, line + 2 * k, 2)
        add_tile(upper, C, p, p, 8)
        add_tile(lower, C, p + 8, p + 8, 8)

    @serial
    def wide_strips(d):
        """How many strips of columns are three registers wide; the others are two, because one register a row leaves the multipliers idle."""
        blocks = d // LANES
        return max(0, blocks // 3 - (blocks % 3 == 1))

    @serial
    def strip_count(d):
        """The number of strips of columns of the Gram matrix of d columns."""
        wide = wide_strips(d)
        return wide + (d // LANES - 3 * wide + 1) // 2

    @serial
    def strip(d, s):
        """First column and registers of strip s; the wide ones come first, and only d = 8 has a strip of one register."""
        wide = wide_strips(d)
        if s < wide:
            return 3 * LANES * s, 3
        first = 3 * wide + 2 * (s - wide)
        return LANES * first, min(2, d // LANES - first)

    @serial
    def add_gram_strip(packed, P, rows, s, C, ahead, row, askers):
        """Strip s, from the top to the diagonal. Its first `askers` tiles prefetch; returns how many are left."""
        d = P.shape[1]
        q, width = strip(d, s)
        diagonal = q + LANES * (width - 2)  # where the corner starts; a single register has none
        for p in range(0, max(q, diagonal) + LANES, LANES):
            line = (d // LANES - askers) * rows if askers > 0 else -1
            if p == diagonal:
                _gram_corner(packed, P, rows, p, C, ahead, row, line)
                askers -= 1
            elif width == 3:
                _gram_tile_3(packed, P, rows, p, q, C, ahead, row, line)
            elif width == 2:
                _gram_tile_2(packed, P, rows, p, q, C, ahead, row, line)
            else:
                _gram_tile_1(packed, P, rows, p, q, C, ahead, row, line)
            askers -= 1
        return askers

else:
    _tall_tile, _short_tile = _gram_tile(TALL, 1), _gram_tile(SHORT, 1)

    @serial
    def strip_count(d):
        """The number of strips of columns of the Gram matrix of d columns: one register each."""
        return d // LANES

    @serial
    def strip(d, s):
        """First column and registers of strip s."""
        return LANES * s, 1

    @part
    def _down(packed, P, rows, C, stop, coming):
        """The first eight columns of C, up to the row `stop`, from those of P; returns how many more tiles may prefetch."""
        ahead, row, askers, tiles = coming
        p = q = askers - askers  # 0, which as a literal would have a type of its own
        while p < stop:
            line = (tiles - askers) * rows if askers > 0 else -1
            if stop - p >= TALL and stop - p != 2 * SHORT:
                _tall_tile(packed, P, rows, p, q, C, ahead, row, line)
                p += TALL
            else:
                _short_tile(packed, P, rows, p, q, C, ahead, row, line)
                p += SHORT
            askers -= 1
        return askers

    @serial
    def add_gram_strip(packed, P, rows, s, C, ahead, row, askers):
        """Strip s, from the top to the diagonal. Its first `askers` tiles prefetch; returns how many are left."""
        blocks, q = P.shape[1] // LANES, s * LANES
        coming = uniform(ahead), row, askers, blocks
        if s < UNCOPIED:
            return _down(packed, uniform(P[:, q:]), rows, C[:, q:], q + LANES, coming)
        return _down(packed, uniform(packed[blocks + s]), rows, C[:, q:], q + LANES, coming)


@serial
def strip_start(d, s):
    """The first column of strip s; d behind the last."""
    return strip(d, s)[0] if s < strip_count(d) else d


@serial
def strips_of_part(d, part, parts):
    """The first strip of a part of the strips, and that of the next: parts of about equal area."""
    count = strip_count(d)
    return int(count * math.sqrt(part / parts) + 0.5), int(count * math.sqrt((part + 1) / parts) + 0.5)


@serial
def add_gram_strips(packed, P, rows, first, last, C, ahead, row):
    """C += P^T diag(h) P over the first `rows` rows, in the strips first : last; only the 8 x 8 tiles on and above the diagonal are right.

    Meanwhile the panel at `row` of the matrix `ahead` is prefetched into L2: d / 8 tiles request a line a row.
    """
    askers = P.shape[1] // LANES
    for s in range(first, last):
        askers = add_gram_strip(packed, P, rows, s, C, ahead, row, askers)


@serial
def add_gram(packed, P, rows, C, ahead, row):
    """The same in all strips."""
    add_gram_strips(packed, P, rows, 0, strip_count(P.shape[1]), C, ahead, row)


@serial
def pack_strips(P, h, rows, first, last, packed):
    """What the columns first : last of a Gram matrix take: packed <- diag(h) P up to `last`, and these columns of P where tiles read them there."""
    d = P.shape[1]
    for q in range(0, last, LANES):
        for k in range(rows):
            vector = registers(P, k, q, 1)
            store_packed(packed, q // LANES, k, scaled(h[k], vector))
            if q >= max(first, UNCOPIED * LANES):
                store_packed(packed, (d + q) // LANES, k, vector)


@serial
def pack(P, h, rows, packed):
    """The same for all columns."""
    pack_strips(P, h, rows, 0, P.shape[1], packed)


@serial
def pack_pairs(P, rows, packed):
    """For pairs of rows v, q what -2 (v q^T + q v^T) takes: the scalars of each row are those of its partner, times -2."""
    d = P.shape[1]
    for q in range(0, d, LANES):
        for k in range(rows):
            store_packed(packed, q // LANES, k, scaled(-2.0, registers(P, k ^ 1, q, 1)))
            if q >= UNCOPIED * LANES:
                store_packed(packed, (d + q) // LANES, k, registers(P, k, q, 1))


# -- S += W P: weighted sums of rows -------------------------------------------------------------------------
#
# While a pass works on a panel it prefetches the next one, `row` of `ahead`: half of its lines in each of two phases, the first half during the
# products, the second during the sums; or `whole`, where there is one phase.

THREE_SUMS, HALF_SUMS, HALF_SUM = 3 * SUMS, max(1, SUMS // 2), max(1, SUM // 2)  # literals for the calls below


@serial
def add_row_sums(P, W, rows, S, ahead, row, whole):
    """S += W[:, : rows] P for the three rows of W."""
    d = P.shape[1]
    q = 0
    line = 0 if whole else rows * d // (2 * LANES)
    while q < d:
        if SUMS > 1 and d - q >= SUMS * LANES:
            tile = zeros(THREE_SUMS)
            for k in range(rows):
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
            for k in range(rows):
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
    d = P.shape[1]
    q = 0
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
            for k in range(rows):
                narrow = outer(narrow, column(W, k, 1), registers(P, k, q, 1))
            add_tile(narrow, S, 0, q, 1)
            q += 8


# -- out = P x -----------------------------------------------------------------------------------------------

HALF_DOTS = DOTS // 2


@intrinsic
def _add_products(typingctx, sums, P, i, j, x):
    """sums[r] + P[i + r, j : j + 8] * x, for the rows r."""

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[0])
        rows = [load_vector(context, builder, P, args[1], (row, args[3])) for row in _columns(builder, args[2], len(values), 1)]
        products = [multiply_add(builder, row, args[4], value) for row, value in zip(rows, values, strict=True)]
        return context.make_tuple(builder, sums, products)

    return sums(sums, P, types.int64, types.int64, f64x8), codegen


@part
def _dots(P, x, i, ahead, row, line, whole):
    """P x for DOTS rows from i on, each in eight lanes; and the line that is prefetched next."""
    sums = zeros(DOTS)
    for j in range(0, P.shape[1], LANES):
        prefetch(ahead, row, line, HALF_DOTS)
        if whole:
            prefetch(ahead, row, line + HALF_DOTS, HALF_DOTS)
            line += HALF_DOTS
        line += HALF_DOTS
        sums = _add_products(sums, P, i, j, load_first(x, 0, j, x.shape[0] - j))
    return sums, line


def _of_eight_rows(some):
    """The same for eight rows, as many at a time as the registers hold."""
    if DOTS == LANES:
        return some
    half = some if 2 * DOTS == LANES else _doubled(some, DOTS)
    return _doubled(half, LANES // 2)


def _doubled(some, count):
    """For twice `count` rows."""

    @part
    def twice(P, x, i, ahead, row, line, whole):
        first, line = some(P, x, i, ahead, row, line, whole)
        second, line = some(P, x, i + count, ahead, row, line, whole)
        return first + second, line

    return twice


_eight_dots = _of_eight_rows(_dots)


@serial
def row_products(P, x, rows, out, start, ahead, row, whole):
    """out[start : start + rows] = P x, eight rows at a time; x may be shorter than the padded rows of P.

    Prefetches the first half of the panel at `row` of `ahead`, or all of it.
    """
    line = 0
    for i in range(0, rows, LANES):
        sums, line = _eight_dots(P, x, i, ahead, row, line, whole)
        store_first(out, 0, start + i, rows - i, sum_each(sums))


@intrinsic
def _squares(typingctx, vectors):
    """Each register times itself."""

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, vectors, [builder.fmul(x, x) for x in cgutils.unpack_tuple(builder, args[0])])

    return vectors(vectors), codegen


@part
def _images(P, B, i, ahead, row, line, whole):
    """P B for DOTS rows from i on; and the line that is prefetched next."""
    tile, rows = zeros(DOTS), P[i:]
    for j in range(P.shape[1]):
        prefetch(ahead, row, line + j * DOTS // LANES, 1)
        tile = outer(tile, column(rows, j, DOTS), registers(B, j, 0, 1))
    return tile, line + P.shape[1] * DOTS // LANES


_eight_images = _of_eight_rows(_images)


@serial
def row_squares(P, B, rows, out, start, ahead, row):
    """out[start : start + rows] = the squares of each row of P B, summed, for a B of eight columns; eight rows at a time.

    Prefetches the panel at `row` of `ahead`.
    """
    line = 0
    for i in range(0, rows, LANES):
        images, line = _eight_images(P, B, i, ahead, row, line, True)
        store_first(out, 0, start + i, rows - i, sum_each(_squares(images)))
