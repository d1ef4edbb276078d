"""Passes over all units: `fold_points`, `describe` and `fold_plane` read n-vectors, `fold_projection`, `fold_derivatives` and `fold_curvature` A.

Each is over the units of the blocks between `edges`; sums continue from what the arrays hold. A may be a part of the rows, from row `origin` on.
What a block does is a function of its own, and not the body of a prange loop, from which Numba would move statements that belong to one group.
"""

from typing import NamedTuple

import numpy as np
from numba import prange
from numba.core import types
from numba.extending import overload

from ..compiling.jit import parallel, part, serial, serial_twin
from ..cpu.blocks import KINDS, WEIGHTS
from ..cpu.vectors import LARGEST, below_all
from ..formulas.finish import gradient_entry, rank_2
from ..formulas.links import growth, terms
from ..formulas.records import VB, VU, W2A, H, Q, R, V, as_point
from ..formulas.rows import sum_weights
from ..formulas.states import over_exp, rescaled_sums
from ..formulas.steps import may_cross
from ..layouts import csr
from ..layouts.panel import ROWS, add_row_sum, add_row_sums, padded, row_products, view_rows
from ..newton.passes import PLANE
from ..newton.plane import named_sums
from ..registers.gram import add_gram, pack_pairs, packed_blocks
from ..registers.simd import LANES, absolute, first, fma, load_first, max_lanes, maximum, splat, store, store_first, sum_lanes, where_less, zeros
from ..registers.sums import add_row_sums_and_pack
from .rows import (
    counted,
    factors_at,
    first_weights,
    fold_piece,
    fold_unit,
    join_pieces,
    join_residuals,
    join_totals,
    optional,
    spread_factors,
    start_total,
    weights_of,
)
from .units import FIELDS, GROUP_ROOM, SIZE, TOTAL_ROOM, V_HAT, U, Z, as_group, as_total, rows_of_unit, unit_of

SUM = 3  # the row of a block's vectors where sums over all its groups are; those before are of the group at hand
H_ROOM, V_ROOM, Q_ROOM = SIZE, V_HAT, U  # rows of a unit's room, once the terms are not needed there
VZ, QZ, OTHERS = 0, 1, 6  # of the numbers of a piece: <v, A p> and <q, A p>; or those with three directions


class Room(NamedTuple):
    """What the passes write."""

    rows: np.ndarray  # blocks x fields x rows of a unit and a register
    totals: np.ndarray  # blocks x numbers of a Total
    vectors: np.ndarray  # blocks x 4 x padded d
    buffers: np.ndarray  # blocks x rows of a panel x padded d: packed panels
    packed: np.ndarray  # blocks x packed blocks x rows of a panel x 8: weighted ones
    weights: np.ndarray  # blocks x 5 x rows of a panel
    pairs: np.ndarray  # blocks x rows of three panels x padded d: A_t^T v/alpha_t and A_t^T q/alpha_t of groups
    counts: np.ndarray  # blocks: how many rows of it are filled
    pieces: np.ndarray  # pieces x numbers of a Group
    factors: np.ndarray  # pieces: what rescales their sums, once M of the group is known
    piece_vectors: np.ndarray  # pieces x 4 x padded d
    piece_numbers: np.ndarray  # pieces x 6


def alloc_room(d, blocks, pieces):
    """Room for d columns, so many blocks, and pieces of groups."""
    wide = padded.py_func(d)
    return Room(
        np.zeros((blocks, FIELDS, rows_of_unit.py_func(d) + LANES)),
        np.zeros((blocks, TOTAL_ROOM)),
        np.zeros((blocks, KINDS, wide)),
        np.empty((blocks, ROWS, wide)),
        np.empty((blocks, packed_blocks.py_func(wide), ROWS, LANES)),
        np.zeros((blocks, WEIGHTS, ROWS)),
        np.empty((blocks, 3 * ROWS, wide)),  # those of a panel of groups of one row, and fewer than a panel that wait
        np.zeros(blocks, np.int64),
        np.zeros((pieces, GROUP_ROOM)),
        np.zeros(pieces),
        np.zeros((pieces, KINDS, wide)),
        np.zeros((pieces, OTHERS)),
    )


@part
def panel_of(A, start, stop, origin, buffer):
    """The panel of rows start : stop; where a register goes beyond them, so does the panel, for rows without a weight cost less than a copy."""
    rows = stop - start
    whole = (rows + LANES - 1) // LANES * LANES
    first = start - origin
    return view_rows(A, first, whole if first + whole <= A.shape[0] else rows, buffer)


def add_segment(panel, start, stop, weights, sums, packed, with_gram, A, row):
    """sums += the three weighted sums of some rows of a panel, which prefetch those at `row` of A; `with_gram` also packs them, where A is dense."""
    raise NotImplementedError("compiled only")


@overload(add_segment)
def _add_segment(panel, start, stop, weights, sums, packed, with_gram, A, row):
    if not isinstance(panel, types.Array):

        def of_sparse_rows(panel, start, stop, weights, sums, packed, with_gram, A, row):
            rows = csr.SparseRows(panel.values, panel.indices, panel.starts, panel.first + start)
            add_row_sums(rows, weights[:, start:], stop - start, sums, A, row, True)

        return of_sparse_rows

    def of_panel(panel, start, stop, weights, sums, packed, with_gram, A, row):
        rows, of_rows = panel[start:stop], weights[:, start:]
        if with_gram:
            add_row_sums_and_pack(rows, of_rows[H], of_rows, stop - start, sums, packed[:, start:])
        else:
            add_row_sums(rows, of_rows, stop - start, sums, A, row, True)

    return of_panel


def add_panel(packed, panel, rows, gram, A, row):
    """A panel's part of A^T diag(h) A, where A is dense; sparse A has a Gram matrix of its own."""
    raise NotImplementedError("compiled only")


@overload(add_panel)
def _add_panel(packed, panel, rows, gram, A, row):
    if isinstance(panel, types.Array):
        return lambda packed, panel, rows, gram, A, row: add_gram(packed, panel, rows, gram, A, row)
    return lambda packed, panel, rows, gram, A, row: None


# -- the point ------------------------------------------------------------------------------------------------


@serial
def start_points(link, room):
    """Before any row."""
    for k in range(room.totals.shape[0]):
        start_total(link, as_total(room.totals[k]))


@serial
def fold_points_of_block(k, link, a, da, t, out, rows, units, edges, room, groups):
    """The part of block k in `fold_points`."""
    total = as_total(room.totals[k])
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        if da.shape[0] > 0:
            for j in range(unit.start, unit.stop, LANES):
                count = unit.stop - j
                step = load_first(da, 0, j, count)
                store_first(out, 0, j, count, fma(splat(t), step, load_first(a, 0, j, count)))
        fold_unit(link, out, da, t, rows, units, unit, room.rows[k], groups, room.pieces, total)


@parallel
def fold_points(link, a, da, t, out, rows, units, edges, room, groups):
    """The numbers of groups at out = a + t da, those of pieces as far as they go; with an empty da, at out, which is then a."""
    for k in prange(edges.shape[0] - 1):
        fold_points_of_block(np.int64(k), link, a, da, t, out, rows, units, edges, room, groups)


@serial
def join_points(units, room, groups):
    """The alpha of groups in pieces."""
    join_pieces(units, groups, room.pieces, room.factors)


@serial
def fold_pieces_of_block(k, link, a, rows, units, edges, room):
    """The part of block k in `fold_pieces`."""
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        if unit.piece >= 0:
            fold_piece(link, a, rows, units, unit, room.rows[k], room.pieces, as_total(room.totals[k]))


@parallel
def fold_pieces(link, a, rows, units, edges, room):
    """The sums of pieces that need it."""
    for k in prange(edges.shape[0] - 1):
        fold_pieces_of_block(np.int64(k), link, a, rows, units, edges, room)


@serial
def finish_points(units, room, groups, point):
    """The whole point; returns how many groups may have crossed their pole on the step."""
    join_residuals(units, groups, room.pieces, as_total(room.totals[0]))
    return join_totals(room.totals, groups, as_point(point))


@serial
def complete_point(link, a, rows, units, room, groups, point):
    """The point at a, after `fold_points` or `fold_projection` of all rows of an A in memory."""
    if room.pieces.shape[0] > 0:
        join_points(units, room, groups)
        fold_pieces(link, a, rows, units, units.edges, room)
    finish_points(units, room, groups, point)


@serial
def crosses(link, a, da, t, rows, units, groups):
    """Whether a group crosses its pole on the step from a to a + t da: of those that rise at its end as steeply as it takes."""
    for g in range(groups.shape[0]):
        end = as_group(groups[g])
        if not end.slope > end.alpha:
            continue
        grows = splat(link.low)
        for j in range(units.offsets[g], units.offsets[g + 1], LANES):
            count = units.offsets[g + 1] - j
            m = where_less(splat(0.0), optional(rows.m, j, count), growth(link, load_first(a, 0, j, count)), splat(-LARGEST))
            grows = maximum(m + below_all(count), grows)
        top = splat(min(max_lanes(grows), link.high))
        k, (alpha, slope) = over_exp(top), zeros(2)
        for j in range(units.offsets[g], units.offsets[g + 1], LANES):
            count = units.offsets[g + 1] - j
            u, v, _, _ = terms(link, load_first(a, 0, j, count), top, k)
            m = optional(rows.m, j, count)
            alpha += first(counted(m, u), count)
            slope = fma(first(counted(m, v), count), load_first(da, 0, j, count), slope)
        if may_cross(t * sum_lanes(slope) / sum_lanes(alpha), end.slope / end.alpha):
            return True
    return False


# -- A x, and the gradient ------------------------------------------------------------------------------------


@serial
def start_sums(room):
    """Before any row of A."""
    room.vectors[:] = 0.0
    room.piece_vectors[:] = 0.0
    room.piece_numbers[:] = 0.0
    room.counts[:] = 0
    for k in range(room.totals.shape[0]):
        as_total(room.totals[k]).curvature = 0.0


# These read a unit twice, the second time from L2. Meanwhile they prefetch the next unit, half of its lines each.


@part
def products_of(A, origin, x, unit, out, offset, buffer):
    """out = A x on the rows of a unit, from `offset` on."""
    for i in range(unit.start, unit.stop, ROWS):
        stop, done = min(i + ROWS, unit.stop), i - unit.start
        row_products(panel_of(A, i, stop, origin, buffer), x, stop - i, out, offset + done, A, unit.stop - origin + done, False)


@part
def add_sums(A, origin, y, unit, buffer, sums):
    """A^T y of the rows of a unit, y from the start of a row of its room on."""
    for i in range(unit.start, unit.stop, ROWS):
        stop, done = min(i + ROWS, unit.stop), i - unit.start
        add_row_sum(panel_of(A, i, stop, origin, buffer), y[:, done:], stop - i, sums, A, unit.stop - origin + done, False)


@serial
def fold_projection_of_block(k, link, A, origin, x, a, rows, units, edges, room, groups):
    """The part of block k in `fold_projection`."""
    total, here, weights, buffer = as_total(room.totals[k]), room.rows[k], room.weights[k], room.buffers[k]
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        products_of(A, origin, x, unit, a, unit.start, buffer)
        fold_unit(link, a, a[:0], 0.0, rows, units, unit, here, groups, room.pieces, total)
        if unit.piece < 0:
            for j in range(unit.start, unit.stop, LANES):
                store(here, Z, j - unit.start, first_weights(rows, a, unit, here, j))
            add_sums(A, origin, here[Z:], unit, buffer, room.vectors[k, SUM:])
            continue
        for i in range(unit.start, unit.stop, ROWS):
            stop = min(i + ROWS, unit.stop)
            for j in range(i, stop, LANES):
                count, at = stop - j, j - unit.start
                u, v = first(load_first(here, U, at, LANES), count), first(load_first(here, V_HAT, at, LANES), count)
                v, vu, vb = sum_weights(u, v, load_first(rows.b, 0, j, count), optional(rows.omega, j, count))
                store(weights, V, j - i, v)
                store(weights, VU, j - i, vu)
                store(weights, VB, j - i, vb)
                if rows.w.shape[0] > 0:
                    w = load_first(rows.w, 0, j, count)
                    store(weights, W2A, j - i, w * w * load_first(a, 0, j, count))
            panel, sums = panel_of(A, i, stop, origin, buffer), room.piece_vectors[unit.piece]
            coming = unit.stop - origin + i - unit.start
            add_row_sums(panel, weights, stop - i, sums, A, coming, False)
            if rows.w.shape[0] > 0:
                add_row_sum(panel, weights[W2A:], stop - i, sums[W2A:], A, coming, False)


@parallel
def fold_projection(link, A, origin, x, a, rows, units, edges, room, groups):
    """a = A x, the numbers of groups, and the gradient; of pieces the sums from which they follow."""
    for k in prange(edges.shape[0] - 1):
        fold_projection_of_block(np.int64(k), link, A, origin, x, a, rows, units, edges, room, groups)


@serial
def finish_gradient(units, room, groups, grad):
    """The gradient, from the sums of `fold_projection`."""
    grad[:] = 0.0
    for k in range(room.vectors.shape[0]):
        for j in range(grad.shape[0]):
            grad[j] += room.vectors[k, SUM, j]
    sums = np.empty(KINDS)
    for i in range(units.large.shape[0]):
        group = as_group(groups[units.large[i]])
        for j in range(grad.shape[0]):
            sums[:] = 0.0
            for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
                each = room.piece_vectors[piece]
                v, vu, vb = rescaled_sums(room.factors[piece], each[V, j], each[VU, j], each[VB, j])
                sums[V] += v
                sums[VU] += vu
                sums[VB] += vb
                sums[W2A] += each[W2A, j]
            grad[j] += gradient_entry(sums[V], sums[VU], sums[VB], sums[W2A], group)[2]


# -- derivatives, the point known -----------------------------------------------------------------------------


@serial
def flush(k, least, room, gram):
    """Add the rank-2 terms of block k's pairs of rows to its Gram matrix, a panel of at least so many rows at a time."""
    pairs, packed, start, count = room.pairs[k], room.packed[k], 0, room.counts[k]
    while count - start >= least:
        stop = min(start + ROWS, count)
        pack_pairs(pairs[start:stop], stop - start, packed)
        add_gram(packed, pairs[start:stop], stop - start, gram, pairs, 0)
        start = stop
    for i in range(start, count if start > 0 else 0):
        pairs[i - start] = pairs[i]
    room.counts[k] = count - start


@part
def close_group(k, sums, room):
    """Add a group's rank-2 vectors to the rows that wait for the Gram matrix of block k, and its part of the gradient; and clear its sums."""
    pairs, row, total = room.pairs[k], room.counts[k], room.vectors[k]
    for j in range(0, pairs.shape[1], LANES):
        store(pairs, row, j, load_first(sums, V, j, LANES))
        store(pairs, row + 1, j, load_first(sums, Q, j, LANES))
        store(total, SUM, j, load_first(total, SUM, j, LANES) + load_first(sums, R, j, LANES))
        store(sums, V, j, splat(0.0))
        store(sums, Q, j, splat(0.0))
        store(sums, R, j, splat(0.0))
    room.counts[k] = row + 2


@serial
def fold_derivatives_of_block(k, link, A, origin, a, rows, units, edges, room, groups, gram, with_gram):
    """The part of block k in `fold_derivatives`."""
    here, weights, buffer, total = room.rows[k], room.weights[k], room.buffers[k], room.vectors[k]
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        spread_factors(units, unit, groups, here)
        sums = total if unit.piece < 0 else room.piece_vectors[unit.piece]
        g = unit.first
        for i in range(unit.start, unit.stop, ROWS):
            stop = min(i + ROWS, unit.stop)
            panel, curvature = panel_of(A, i, stop, origin, buffer), splat(0.0)
            for j in range(i, stop, LANES):
                row = weights_of(link, a, rows, unit, here, j)
                curvature += absolute(row.h)
                store(weights, H, j - i, row.h)
                store(weights, V, j - i, row.v)
                store(weights, Q, j - i, row.q)
                store(weights, R, j - i, row.r)
            as_total(room.totals[k]).curvature += sum_lanes(curvature)
            if gram.shape[0] == 0:
                add_row_sum(panel, weights[R:], stop - i, total[SUM:], A, i - origin + ROWS, True)
                continue
            low = i
            while low < stop:
                high = min(units.offsets[g + 1], stop)
                add_segment(panel, low - i, high - i, weights, sums, room.packed[k], with_gram, A, low - origin + ROWS)
                if unit.piece < 0 and high == units.offsets[g + 1]:
                    close_group(k, sums, room)
                    g += 1
                low = high
            if with_gram:
                add_panel(room.packed[k], panel, stop - i, gram[k], A, i - origin + ROWS)
            flush(k, ROWS, room, gram[k])
    if gram.shape[0] > 0:
        flush(k, 1, room, gram[k])


@parallel
def fold_derivatives(link, A, origin, a, rows, units, edges, room, groups, gram, with_gram):
    """The gradient, and the blocks' Gram matrices, less the groups' rank-2 terms; with an empty `gram` the gradient alone.

    Without `with_gram`, only the rank-2 terms.
    """
    for k in prange(edges.shape[0] - 1):
        fold_derivatives_of_block(np.int64(k), link, A, origin, a, rows, units, edges, room, groups, gram, with_gram)


@serial
def finish_derivatives(units, room, gram, grad):
    """The gradient, and in gram[0] the rows of groups in pieces; returns the sum of |h|."""
    sums = np.zeros((3, room.vectors.shape[2]))
    for i in range(units.large.shape[0] if gram.shape[0] > 0 else 0):
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            for kind in range(3):
                for j in range(sums.shape[1]):
                    sums[kind, j] += room.piece_vectors[piece, kind, j]
        close_group(0, sums, room)
        flush(0, ROWS, room, gram[0])
    if gram.shape[0] > 0:
        flush(0, 1, room, gram[0])
    grad[:] = 0.0
    curvature = 0.0
    for k in range(room.vectors.shape[0]):
        curvature += as_total(room.totals[k]).curvature
        for j in range(grad.shape[0]):
            grad[j] += room.vectors[k, SUM, j]
    return curvature


@serial
def fold_curvature_of_block(k, link, A, origin, p, a, rows, units, edges, room, groups, da):
    """The part of block k in `fold_curvature`."""
    here, weights, buffer = room.rows[k], room.weights[k], room.buffers[k]
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        spread_factors(units, unit, groups, here)
        products_of(A, origin, p, unit, here[Z], 0, buffer)
        if da.shape[0] > 0:
            for j in range(unit.start, unit.stop, LANES):
                store_first(da, 0, j, unit.stop - j, load_first(here, Z, j - unit.start, LANES))
        for j in range(unit.start, unit.stop, LANES):
            row = weights_of(link, a, rows, unit, here, j)
            store(here, H_ROOM, j - unit.start, row.h)
            store(here, V_ROOM, j - unit.start, row.v)
            store(here, Q_ROOM, j - unit.start, row.q)
        for g in range(unit.first, unit.last):
            start, stop = max(units.offsets[g], unit.start) - unit.start, min(units.offsets[g + 1], unit.stop) - unit.start
            vz, qz = zeros(2)
            for j in range(start, stop, LANES):
                z = first(load_first(here, Z, j, LANES), stop - j)
                vz, qz = fma(load_first(here, V_ROOM, j, LANES), z, vz), fma(load_first(here, Q_ROOM, j, LANES), z, qz)
            if unit.piece >= 0:
                room.piece_numbers[unit.piece, VZ], room.piece_numbers[unit.piece, QZ] = sum_lanes(vz), sum_lanes(qz)
                continue
            vz, qz = splat(sum_lanes(vz)), splat(sum_lanes(qz))
            for j in range(start, stop, LANES):
                h, z = load_first(here, H_ROOM, j, LANES), load_first(here, Z, j, LANES)
                twice = 2.0 * rank_2(load_first(here, V_ROOM, j, LANES), load_first(here, Q_ROOM, j, LANES), vz, qz)
                store_first(here, Z, j, stop - j, fma(h, z, -twice))  # no further: the next group needs its z
        if unit.piece < 0:
            add_sums(A, origin, here[Z:], unit, buffer, room.vectors[k, SUM:])
            continue
        for i in range(unit.start, unit.stop, ROWS):
            stop = min(i + ROWS, unit.stop)
            for j in range(i, stop, LANES):
                at = j - unit.start
                store(weights, V, j - i, load_first(here, V_ROOM, at, LANES))
                store(weights, Q, j - i, load_first(here, Q_ROOM, at, LANES))
                store(weights, R, j - i, load_first(here, H_ROOM, at, LANES) * first(load_first(here, Z, at, LANES), stop - j))
            panel = panel_of(A, i, stop, origin, buffer)
            add_row_sums(panel, weights, stop - i, room.piece_vectors[unit.piece], A, unit.stop - origin + i - unit.start, False)


@parallel
def fold_curvature(link, A, origin, p, a, rows, units, edges, room, groups, da):
    """The Hessian's product with p, and da = A p unless da is empty; of pieces the sums from which it follows."""
    for k in prange(edges.shape[0] - 1):
        fold_curvature_of_block(np.int64(k), link, A, origin, p, a, rows, units, edges, room, groups, da)


@serial
def finish_curvature(units, room, out):
    """The product, from the sums of `fold_curvature`."""
    out[:] = 0.0
    for k in range(room.vectors.shape[0]):
        for j in range(out.shape[0]):
            out[j] += room.vectors[k, SUM, j]
    for i in range(units.large.shape[0]):
        vz = qz = 0.0
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            vz += room.piece_numbers[piece, VZ]
            qz += room.piece_numbers[piece, QZ]
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            each = room.piece_vectors[piece]
            for j in range(out.shape[0]):
                out[j] += each[R, j] - 2.0 * rank_2(each[V, j], each[Q, j], vz, qz)


# -- n-vectors at a point -------------------------------------------------------------------------------------


@serial
def describe_of_block(k, link, a, rows, units, edges, room, groups, f, v, q, D):
    """The part of block k in `describe`."""
    here = room.rows[k]
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        spread_factors(units, unit, groups, here)
        for j in range(unit.start, unit.stop, LANES):
            count = unit.stop - j
            row = weights_of(link, a, rows, unit, here, j)
            if D.shape[0] > 0:
                store_first(D, 0, j, count, 0.5 * row.h)
            if f.shape[0] > 0:
                at = factors_at(here, j - unit.start)
                u, _, _, _ = terms(link, load_first(a, 0, j, count), at.shift, at.k)
                store_first(f, 0, j, count, counted(optional(rows.m, j, count), u) * at.over_alpha)
                store_first(v, 0, j, count, row.v)
            if q.shape[0] > 0:
                store_first(q, 0, j, count, row.q)


@parallel
def describe(link, a, rows, units, edges, room, groups, f, v, q, D):
    """f, v/alpha, q/alpha and D = h/2, those of them that are not empty."""
    for k in prange(edges.shape[0] - 1):
        describe_of_block(np.int64(k), link, a, rows, units, edges, room, groups, f, v, q, D)


@serial
def fold_plane_of_block(k, link, plane, a, rows, units, edges, room, groups, sums):
    """The part of block k in `fold_plane`."""
    here, block = room.rows[k], named_sums(sums[k])
    sums[k] = 0.0
    for number in range(edges[k], edges[k + 1]):
        unit = unit_of(units, number)
        spread_factors(units, unit, groups, here)
        n00, n11, n22, g00, g01, g02, g11, g12, g22, r0, r1, r2 = zeros(12)
        for j in range(unit.start, unit.stop, LANES):
            count = unit.stop - j
            z0, z1 = load_first(plane.here, 0, j, count), load_first(plane.da, 0, j, count)
            z2 = z0 - load_first(plane.before, 0, j, count)
            h, v, q, r = weights_of(link, a, rows, unit, here, j)
            n00, n11, n22 = fma(z0, z0, n00), fma(z1, z1, n11), fma(z2, z2, n22)
            h0, h1, h2 = h * z0, h * z1, h * z2
            g00, g01, g02 = fma(h0, z0, g00), fma(h0, z1, g01), fma(h0, z2, g02)
            g11, g12, g22 = fma(h1, z1, g11), fma(h1, z2, g12), fma(h2, z2, g22)
            r0, r1, r2 = fma(r, z0, r0), fma(r, z1, r1), fma(r, z2, r2)
            store(here, U, j - unit.start, v)
            store(here, V_HAT, j - unit.start, q)
        each = (n00, n11, n22, g00, g01, g02, g11, g12, g22)
        for i in range(9):
            sums[k, i] += sum_lanes(each[i])
        block.r[0] += sum_lanes(r0)
        block.r[1] += sum_lanes(r1)
        block.r[2] += sum_lanes(r2)
        for g in range(unit.first, unit.last):
            start, stop = max(units.offsets[g], unit.start), min(units.offsets[g + 1], unit.stop)
            v0, v1, v2, q0, q1, q2 = zeros(6)
            for j in range(start, stop, LANES):
                count = stop - j
                v, q = load_first(here, U, j - unit.start, LANES), load_first(here, V_HAT, j - unit.start, LANES)
                z0, z1 = load_first(plane.here, 0, j, count), load_first(plane.da, 0, j, count)
                z2 = z0 - load_first(plane.before, 0, j, count)
                v0, v1, v2 = fma(v, z0, v0), fma(v, z1, v1), fma(v, z2, v2)
                q0, q1, q2 = fma(q, z0, q0), fma(q, z1, q1), fma(q, z2, q2)
            numbers = (sum_lanes(v0), sum_lanes(v1), sum_lanes(v2), sum_lanes(q0), sum_lanes(q1), sum_lanes(q2))
            if unit.piece < 0:
                subtract_rank_2(numbers, block.gram)
            else:
                for i in range(OTHERS):
                    room.piece_numbers[unit.piece, i] = numbers[i]


@parallel
def fold_plane(link, plane, a, rows, units, edges, room, groups, sums):
    """The sums of `newton.passes.fold_plane`, where the rank-2 terms of whole groups are already taken off the Gram matrix."""
    for k in prange(edges.shape[0] - 1):
        fold_plane_of_block(np.int64(k), link, plane, a, rows, units, edges, room, groups, sums)


@serial
def subtract_rank_2(numbers, gram):
    """gram -= 2 (v q^T + q v^T), of three directions."""
    entry = 0
    for i in range(3):
        for j in range(i, 3):
            gram[entry] -= 2.0 * rank_2(numbers[i], numbers[3 + i], numbers[j], numbers[3 + j])
            entry += 1


@serial
def finish_plane(units, room, sums):
    """The sums over all rows, in sums[0]."""
    for i in range(units.large.shape[0]):
        numbers = np.zeros(OTHERS)
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            for j in range(OTHERS):
                numbers[j] += room.piece_numbers[piece, j]
        each = (numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5])
        subtract_rank_2(each, named_sums(sums[0]).gram)
    for k in range(1, sums.shape[0]):
        for i in range(PLANE):
            sums[0, i] += sums[k, i]


fold_points_serial = serial_twin(fold_points)
fold_pieces_serial = serial_twin(fold_pieces)
complete_point_serial = serial_twin(complete_point)
fold_projection_serial = serial_twin(fold_projection)
fold_derivatives_serial = serial_twin(fold_derivatives)
fold_curvature_serial = serial_twin(fold_curvature)
describe_serial = serial_twin(describe)
fold_plane_serial = serial_twin(fold_plane)
