"""Products of the rows of a panel: P x, and the sums of squares of the rows of P B; eight rows at a time."""

from numba.core import cgutils, types
from numba.extending import intrinsic

from ..compiling.jit import part, serial
from .narrow import NARROW, narrow_products
from .shapes import SHAPES
from .simd import LANES, f64x8, load_first, load_vector, multiply_add, prefetch, store_first, sum_each, zeros
from .tile import column, columns_from, outer, registers

DOTS = SHAPES.dots
HALF_DOTS = DOTS // 2


@intrinsic
def _add_products(typingctx, sums, P, i, j, x):
    """sums[r] + P[i + r, j : j + 8] * x, for the rows r."""

    def codegen(context, builder, sig, args):
        values = cgutils.unpack_tuple(builder, args[0])
        rows = [load_vector(context, builder, P, args[1], (row, args[3])) for row in columns_from(builder, args[2], len(values), 1)]
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

    Prefetches the first half of the panel at `row` of `ahead`, or all of it; of the narrowest, all or nothing.
    """
    line = 0
    if x.shape[0] <= NARROW:
        if whole:
            for i in range(0, rows, LANES):
                prefetch(ahead, row, NARROW * i // LANES, NARROW)
        narrow_products(P, x, rows, out, start)
        return
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
