"""The weighted Gram matrix in mixed precision: float32 products and sums within a panel, float64 sums across panels.

A register holds sixteen float32 columns, so the tiles of `registers.tile` do twice the work at the same speed. Columns are scaled by powers of
two s_j and weights by t, and a row is rounded once, times the root of its weight, which serves as scalars and as vectors:

    G_kj = fl(g_k P_kj / s_j),    g_k = sqrt(|h_k| / t),    C_ij += t s_i s_j (sum_{h_k >= 0} G_ki G_kj - sum_{h_k < 0} G_ki G_kj)

where fl rounds to float32, and so does each fma of the sums: over the rows with h_k >= 0 in their order, then over the others, last first. Each of
the m <= ROWS summands of a panel is so rounded twice before the sum and at most m times in it, by a factor 1 + delta, |delta| <= u = 2^-24;
roots and products have float64's rounding, and scaling and unscaling none. So, of one panel,

    |error_ij| <= (m + 3) u sum_k |h_k P_ki P_kj|  +  m 2^-109 z_i z_j,    z_j = max_k sqrt(|h_k|) |P_kj| <= sqrt(sum_k |h_k| P_kj^2),

and for all rows at most 131 u sum_k |h_k A_ki A_kj|, the last term summed over panels, plus float64's rounding in a sum of n / ROWS panels. The last
term is underflow: either factor G of a summand, or its fma, is off by at most 2^-150, where 2^-20 <= max_k |G_kj| <= 2^20 (see `WINDOW`;
a column of zeros has no error), so sqrt(t) s_j <= 2^20 z_j. It holds while max|h| and max_k |P_kj| are within EXTREME.

Nothing overflows where the float64 path does not: t s_i is formed here, and h_k P_ki there.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from ..compiling.jit import serial
from ..registers import gram as strips
from ..registers.gram import SHORT, TALL, scalars_of_blocks, strip_count
from ..registers.shapes import SHAPES
from ..registers.simd import (
    LANES,
    absolute,
    broadcast,
    f64x8,
    lane,
    llvm_call,
    load_first,
    max_lanes,
    maximum,
    multiply_add,
    named,
    pointer,
    prefetch,
    register,
    shuffle,
    splat,
    sqrt,
    store,
    store_first,
    where_less,
)
from ..registers.tile import outer, outer_less, registers

WIDE = 16  # float32 lanes

# Rows of `scales`, over the columns: 1 / s, s, t s of the current panel, and its largest |G|.
OVER, SCALE, FACTOR, LARGEST = range(4)
SCALES = 4

# Rows of `roots`, over the rows of a panel: g, and the row of G.
ROOT, PLACE = range(2)

# Columns are rescaled when their largest entry of a panel, scaled, leaves 1 / WINDOW .. WINDOW: seldom after the first panel. So a panel is
# read once, and float32 still has 106 binades below for its small entries.
WINDOW = 2.0**20
EXTREME = 2.0**1000  # scales stay within, so that their inverses do not overflow

_FLOAT, _INT64 = ir.FloatType(), ir.IntType(64)
_HALF, _DOUBLES, _INTEGERS = (ir.VectorType(kind, LANES) for kind in (_FLOAT, ir.DoubleType(), _INT64))


class Float32s(types.Type):
    """The Numba type of a register of float32; its values live only inside compiled code."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"f32x{lanes}")


f32x16, f32x8 = Float32s(WIDE), Float32s(LANES)


@register_model(Float32s)
class _Float32sModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(_FLOAT, fe_type.lanes))


# -- registers of float32 --------------------------------------------------------------------------------------


def _zeros_of(kind, doc):
    @intrinsic(prefer_literal=True)
    def operation(typingctx, count):
        registers = types.UniTuple(kind, count.literal_value)

        def codegen(context, builder, sig, args):
            return context.get_constant_null(registers)

        return registers(count), codegen

    operation.__doc__ = doc
    return operation


wide_zeros = _zeros_of(f32x16, "A tuple of `count` zero registers (a literal integer).")
half_zeros = _zeros_of(f32x8, "The same of eight lanes.")


@intrinsic(prefer_literal=True)
def wide_registers(typingctx, panel32, block, k, count):
    """panel32[block + c, k] for c < count, as a tuple of registers."""
    result = types.UniTuple(f32x16, count.literal_value)

    def codegen(context, builder, sig, args):
        panel, block, k, _ = args
        kind, picked = ir.VectorType(_FLOAT, WIDE), []
        for c in range(len(result)):
            place = pointer(context, builder, panel32, panel, (builder.add(block, _INT64(c)), k, _INT64(0)), kind)
            picked.append(builder.load(place, align=4))
        return context.make_tuple(builder, result, picked)

    return result(panel32, types.int64, types.int64, count), codegen


@intrinsic
def last_half(typingctx, panel32, block, k):
    """panel32[block, k, 8 : 16], a tuple of one register."""
    result = types.UniTuple(f32x8, 1)

    def codegen(context, builder, sig, args):
        place = pointer(context, builder, panel32, args[0], (*args[1:3], _INT64(LANES)), _HALF)
        return context.make_tuple(builder, result, [builder.load(place, align=4)])

    return result(panel32, types.int64, types.int64), codegen


@intrinsic
def store_rounded(typingctx, array, block, k, j, x, largest):
    """array[block, k, j : j + 8] = x, rounded to float32; returns its |x| where they are larger than `largest`. A NaN is ignored."""

    def codegen(context, builder, sig, args):
        x = builder.fptrunc(args[4], _HALF)
        builder.store(x, pointer(context, builder, array, args[0], args[1:4], _HALF), align=4)
        x = llvm_call(builder, "fabs.v8f32", _HALF, [x])
        return builder.select(builder.fcmp_ordered(">", x, args[5]), x, args[5])

    return f32x8(array, types.int64, types.int64, types.int64, f64x8, f32x8), codegen


@intrinsic
def widened(typingctx, x):
    """Eight float32 as float64."""

    def codegen(context, builder, sig, args):
        return builder.fpext(args[0], _DOUBLES)

    return f64x8(f32x8), codegen


@intrinsic(prefer_literal=True)
def add_wide_tile(typingctx, tile, C, p, q, rows, scales):
    """C[p : p + rows, q :] += t s_p s_q tile in float64, without the columns beyond C; rows is literal, the registers a row follow."""
    halves = tile.dtype.lanes // LANES
    per_row = halves * tile.count // rows.literal_value

    def codegen(context, builder, sig, args):
        tile_value, C_value, p, q, _, scales_value = args
        values = cgutils.unpack_tuple(builder, tile_value)
        width = cgutils.unpack_tuple(builder, context.make_array(C)(context, builder, C_value).shape)[1]

        def at(array_type, array, i, j, kind):
            return pointer(context, builder, array_type, array, (i, j), kind)

        def add(c):
            """Eight columns: the products with powers of two are exact, so each sum is rounded once."""
            j = builder.add(q, _INT64(LANES * c))
            s = builder.load(at(scales, scales_value, _INT64(SCALE), j, _DOUBLES), align=8)
            rows_of_C = [builder.add(p, _INT64(r)) for r in range(rows.literal_value)]
            places = [at(C, C_value, i, j, _DOUBLES) for i in rows_of_C]
            sums = [builder.load(place, align=8) for place in places]  # all before any store: rows 4 KB apart look like the same address
            for r, i in enumerate(rows_of_C):
                factor = broadcast(builder, builder.load(at(scales, scales_value, _INT64(FACTOR), i, ir.DoubleType())))
                x = values[(r * per_row + c) // halves]
                x = builder.fpext(shuffle(builder, x, x, range(c % halves * LANES, c % halves * LANES + LANES)), _DOUBLES)
                builder.store(multiply_add(builder, builder.fmul(x, factor), s, sums[r]), places[r], align=8)

        for c in range(per_row - 1):
            add(c)
        with builder.if_then(builder.icmp_signed("<", builder.add(q, _INT64(LANES * (per_row - 1))), width), likely=True):
            add(per_row - 1)  # C ends before these where its width is an odd number of eights
        return context.get_dummy_value()

    return types.none(tile, C, types.int64, types.int64, rows, scales), codegen


@intrinsic
def binade(typingctx, x):
    """The largest power of two that is at most |x|; 0 for 0 and subnormal x, inf for inf."""

    def codegen(context, builder, sig, args):
        exponent = builder.and_(builder.bitcast(args[0], _INTEGERS), ir.Constant(_INTEGERS, [0x7FF << 52] * LANES))
        return builder.bitcast(exponent, _DOUBLES)

    return f64x8(f64x8), codegen


# -- G: a panel in float32 --------------------------------------------------------------------------------------


@serial
def wide_padded(count):
    """A number of columns rounded up to whole registers of float32."""
    return (count + WIDE - 1) // WIDE * WIDE


@serial
def scale_of(largest):
    """A power of two within EXTREME for each lane, near the largest |x| of the lane; 1 for 0."""
    power = maximum(binade(largest), splat(1.0 / EXTREME))
    power = where_less(power, splat(EXTREME), power, splat(EXTREME))
    return where_less(splat(0.0), largest, power, splat(1.0))


@serial
def fits(largest):
    """Whether the largest entries of all eight columns are within WINDOW."""
    small = where_less(largest, splat(1.0 / WINDOW), splat(1.0), splat(0.0))
    return max_lanes(where_less(splat(WINDOW), largest, splat(1.0), small)) == 0.0


@serial
def rescale_columns(panel, rows, q, roots, scales):
    """New scales of the eight columns from q on, of this panel; returns whether they differ. A column of zeros, as in the padding, keeps its own."""
    largest, before, packed = splat(0.0), register(scales, SCALE, q // LANES), register(scales, LARGEST, q // LANES)
    for k in range(rows):
        largest = maximum(absolute(register(panel, k, q // LANES) * roots[ROOT, k]), largest)
    fresh = where_less(splat(0.0), largest, scale_of(largest), before)
    scale = where_less(packed, splat(1.0 / WINDOW), fresh, where_less(splat(WINDOW), packed, fresh, before))
    store(scales, SCALE, q, scale)
    store(scales, OVER, q, splat(1.0) / scale)
    return max_lanes(absolute(scale - before)) > 0.0


@serial
def weigh_rows(h, rows, roots):
    """The roots g_k and the places of the rows in G; returns t and how many rows come before those of h_k < 0."""
    largest = splat(0.0)
    for j in range(0, rows, LANES):
        largest = maximum(absolute(load_first(h, 0, j, rows - j)), largest)
    t = lane(scale_of(splat(max_lanes(largest))), 0)
    over_t = splat(1.0 / t)
    for j in range(0, rows, LANES):
        store_first(roots, ROOT, j, rows - j, sqrt(absolute(load_first(h, 0, j, rows - j)) * over_t))
    behind = 0
    for k in range(rows):
        negative = h[k] < 0.0
        roots[PLACE, k] = (rows - 1 if negative else k) - behind
        behind += 1 if negative else 0
    return t, rows - behind


@serial
def pack_columns(panel, roots, rows, q, scales, panel32):
    """The eight columns of G from q on, and their largest |G_kj|."""
    over, (largest,) = register(scales, OVER, q // LANES), half_zeros(1)
    for k in range(rows):
        largest = store_rounded(panel32, q // WIDE, int(roots[PLACE, k]), q % WIDE, register(panel, k, q // LANES) * over * roots[ROOT, k], largest)
    store(scales, LARGEST, q, widened(largest))


@serial
def pack_four(panel, roots, rows, q, scales, panel32):
    """The 32 columns of G from q on: where rows are far apart, one page lookup per row serves all of them."""
    block = q // WIDE
    over, over1, over2, over3 = registers(scales, OVER, q, 4)
    largest, largest1, largest2, largest3 = half_zeros(4)
    for k in range(rows):
        root, place = splat(roots[ROOT, k]), int(roots[PLACE, k])
        x, x1, x2, x3 = registers(panel, k, q, 4)
        largest = store_rounded(panel32, block, place, 0, x * over * root, largest)
        largest1 = store_rounded(panel32, block, place, LANES, x1 * over1 * root, largest1)
        largest2 = store_rounded(panel32, block + 1, place, 0, x2 * over2 * root, largest2)
        largest3 = store_rounded(panel32, block + 1, place, LANES, x3 * over3 * root, largest3)
    store(scales, LARGEST, q, widened(largest))
    store(scales, LARGEST, q + LANES, widened(largest1))
    store(scales, LARGEST, q + 2 * LANES, widened(largest2))
    store(scales, LARGEST, q + 3 * LANES, widened(largest3))


@serial
def start_scales(scales):
    """The scales before any panel."""
    scales[OVER] = 1.0
    scales[SCALE] = 1.0


@serial
def pack_mixed(panel, h, rows, roots, scales, panel32):
    """panel32 <- G, rows of h_k >= 0 first, with the column scales of the panel before where they still fit, else with new ones.

    Returns how many rows come first. panel32[j // 16, k, j % 16] is one cache line: a tile reads four streams of lines whatever d is.
    """
    d = panel.shape[1]
    t, positive = weigh_rows(h, rows, roots)
    q = 0
    while q < d:
        if d - q >= 4 * LANES:
            pack_four(panel, roots, rows, q, scales, panel32)
            q += 4 * LANES
        else:
            pack_columns(panel, roots, rows, q, scales, panel32)
            q += LANES
    for q in range(0, d, LANES):
        if not fits(register(scales, LARGEST, q // LANES)) and rescale_columns(panel, rows, q, roots, scales):
            pack_columns(panel, roots, rows, q, scales, panel32)
        store(scales, FACTOR, q, t * register(scales, SCALE, q // LANES))
    if d % WIDE > 0:
        (largest,) = half_zeros(1)
        for k in range(rows):
            largest = store_rounded(panel32, d // WIDE, k, LANES, splat(0.0), largest)
    return positive


# -- C += P^T diag(h) P, upper triangle ------------------------------------------------------------------------
#
# As in registers/gram.py, with strips of sixteen columns instead of eight. The triangle of 32 x 32 on the diagonal, four blocks of eight
# rows, takes 24 registers for the first and the third block; the others are a tile and two of half a register a row, for the diagonal.


class Coming(NamedTuple):
    """The lines that a tile prefetches: one for each row, from `line` on after the start of a row of the matrix; none where it is negative."""

    matrix: np.ndarray
    row: int
    line: int


wide_scalars = scalars_of_blocks(WIDE)


def _wide_tile(height, width):
    """The tile of `height` scalars by `width` registers."""
    cells = height * width

    def tile(panel32, rows, positive, p, q, C, scales, coming):
        sums = wide_zeros(cells)
        for k in range(positive):
            sums = outer(sums, wide_scalars(panel32, k, p, height), wide_registers(panel32, q // WIDE, k, width))
            if coming.line >= 0:
                prefetch(coming.matrix, coming.row, coming.line + k, 1)
        for k in range(positive, rows):
            sums = outer_less(sums, wide_scalars(panel32, k, p, height), wide_registers(panel32, q // WIDE, k, width))
            if coming.line >= 0:
                prefetch(coming.matrix, coming.row, coming.line + k, 1)
        add_wide_tile(sums, C, p, q, height, scales)

    return serial(named(f"wide_tile_{height}_by_{width}", tile))


if SHAPES.strips == 3:
    _wide_tile_3, _wide_tile_2, _wide_tile_1 = _wide_tile(8, 3), _wide_tile(8, 2), _wide_tile(8, 1)

    @serial
    def _wide_corner(panel32, rows, positive, p, C, scales, coming):
        """Rows p : p + 8 of the 32 columns from p on, and rows p + 16 : p + 24 of the last sixteen."""
        upper, lower = wide_zeros(16), wide_zeros(8)
        for k in range(positive):
            left, right = wide_registers(panel32, p // WIDE, k, 2)
            upper = outer(upper, wide_scalars(panel32, k, p, 8), (left, right))
            lower = outer(lower, wide_scalars(panel32, k, p + WIDE, 8), (right,))
            if coming.line >= 0:
                prefetch(coming.matrix, coming.row, coming.line + 2 * k, 2)
        for k in range(positive, rows):
            left, right = wide_registers(panel32, p // WIDE, k, 2)
            upper = outer_less(upper, wide_scalars(panel32, k, p, 8), (left, right))
            lower = outer_less(lower, wide_scalars(panel32, k, p + WIDE, 8), (right,))
            if coming.line >= 0:
                prefetch(coming.matrix, coming.row, coming.line + 2 * k, 2)
        add_wide_tile(upper, C, p, p, 8, scales)
        add_wide_tile(lower, C, p + WIDE, p + WIDE, 8, scales)

    @serial
    def _half_corners(panel32, rows, positive, p, C, scales, coming):
        """The last eight rows and columns of the triangles of 16 x 16 at p and at p + 16."""
        upper, lower = half_zeros(8), half_zeros(8)
        for k in range(positive):
            upper = outer(upper, wide_scalars(panel32, k, p + LANES, 8), last_half(panel32, p // WIDE, k))
            lower = outer(lower, wide_scalars(panel32, k, p + WIDE + LANES, 8), last_half(panel32, p // WIDE + 1, k))
            if coming.line >= 0:
                prefetch(coming.matrix, coming.row, coming.line + k, 1)
        for k in range(positive, rows):
            upper = outer_less(upper, wide_scalars(panel32, k, p + LANES, 8), last_half(panel32, p // WIDE, k))
            lower = outer_less(lower, wide_scalars(panel32, k, p + WIDE + LANES, 8), last_half(panel32, p // WIDE + 1, k))
            if coming.line >= 0:
                prefetch(coming.matrix, coming.row, coming.line + k, 1)
        p += LANES
        add_wide_tile(upper, C, p, p, 8, scales)
        add_wide_tile(lower, C, p + WIDE, p + WIDE, 8, scales)

    @serial
    def add_wide_strip(panel32, scales, rows, positive, s, C, ahead, row, askers):
        """Strip s, from the top to the diagonal. Its first `askers` tiles prefetch; returns how many are left."""
        d = C.shape[0]
        half, width = strips.strip(wide_padded(d) // 2, s)
        q = 2 * half
        diagonal = q + WIDE * (width - 2) if width > 1 else d  # where the corner starts; a single register has none
        for p in range(0, min(d, diagonal + WIDE), LANES):
            coming = Coming(ahead, row, (d // LANES - askers) * rows if askers > 0 else -1)
            if p == diagonal:
                _wide_corner(panel32, rows, positive, p, C, scales, coming)
                askers -= 1
            elif p > diagonal:
                _wide_tile_1(panel32, rows, positive, p, diagonal + WIDE, C, scales, coming)
                askers -= 1
                coming = Coming(ahead, row, (d // LANES - askers) * rows if askers > 0 else -1)
                _half_corners(panel32, rows, positive, diagonal, C, scales, coming)
            elif width == 3:
                _wide_tile_3(panel32, rows, positive, p, q, C, scales, coming)
            elif width == 2:
                _wide_tile_2(panel32, rows, positive, p, q, C, scales, coming)
            else:
                _wide_tile_1(panel32, rows, positive, p, q, C, scales, coming)
            askers -= 1
        return askers

else:
    _tall_tile, _short_tile = _wide_tile(TALL, 1), _wide_tile(SHORT, 1)

    @serial
    def add_wide_strip(panel32, scales, rows, positive, s, C, ahead, row, askers):
        """Strip s, from the top to the diagonal. Its first `askers` tiles prefetch; returns how many are left."""
        d, p = C.shape[0], 0
        stop = min(d, (s + 1) * WIDE)
        while p < stop:
            coming = Coming(ahead, row, (d // LANES - askers) * rows if askers > 0 else -1)
            if stop - p >= TALL and stop - p != 2 * SHORT:
                _tall_tile(panel32, rows, positive, p, s * WIDE, C, scales, coming)
                p += TALL
            else:
                _short_tile(panel32, rows, positive, p, s * WIDE, C, scales, coming)
                p += SHORT
            askers -= 1
        return askers


@serial
def add_gram_mixed(panel32, scales, rows, positive, C, ahead, row):
    """C += P^T diag(h) P over the `rows` rows that `pack_mixed` packed; only the 8 x 8 tiles on and above the diagonal are right.

    Meanwhile the panel at `row` of the matrix `ahead` is prefetched into L2: d / 8 tiles request a line a row.
    """
    askers = C.shape[0] // LANES
    for s in range(strip_count(wide_padded(C.shape[0]) // 2)):
        askers = add_wide_strip(panel32, scales, rows, positive, s, C, ahead, row, askers)
