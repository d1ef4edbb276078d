"""The Gram matrix C += P^T diag(h) P of a panel, its upper triangle, by tiles of the micro-kernel.

The scalars come from diag(h) P, packed in blocks of eight columns: packed[p // 8, k] = h[k] P[k, p : p + 8] is one
cache line, and a tile reads the lines of a block or two one after the other. Scaling registers in the tile would cost an
eighth of the multiplications. Tiles one register wide read a register of P for few products, so P is packed likewise, behind diag(h) P, but for
the first columns, which few tiles read.
"""

import math

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ..compiling.jit import part, serial
from .shapes import SHAPES
from .simd import LANES, named, pointer, prefetch, uniform, zeros
from .tile import INT64, add_tile, columns_from, outer, registers, scaled, store_packed

TALL, SHORT = SHAPES.tall, SHAPES.short
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
            for j in columns_from(builder, p, len(result) // together, together):
                block, lane = builder.lshr(j, INT64(width.bit_length() - 1)), builder.and_(j, INT64(width - 1))
                loaded = ir.VectorType(kind, together) if SHAPES.pairs and together == 2 else kind
                first = pointer(context, builder, packed, packed_value, (block, k, lane), loaded)
                if loaded == kind:
                    picked += [builder.load(builder.gep(first, [INT64(r)])) for r in range(together)]
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
