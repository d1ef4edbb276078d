"""Folds over n-vectors of a unit of rows: from a = A x to the numbers of its groups, and from those to the weights of its rows."""

import math
from typing import NamedTuple

import numpy as np

from ..compiling.jit import part, serial
from ..cpu.vectors import LARGEST, below_all
from ..formulas.links import growth, terms
from ..formulas.records import Factors, Residuals, Weights
from ..formulas.rows import add_penalty, add_residual, penalised, weights
from ..formulas.states import kappa, over_exp, rescale, rescaled
from ..registers.simd import (
    LANES,
    absolute,
    first,
    fma,
    lane,
    load_first,
    max_lanes,
    maximum,
    splat,
    store,
    sum_lanes,
    where_less,
    zeros,
)
from .units import GROUP_K, GROUP_SHIFT, HALF_FF, OVER_ALPHA, SHIFT, SIZE, V_HAT, K, S, U, as_group, as_total

NEAR = 300.0  # of M: u^ is then above exp(-300), and its square is no subnormal number


class Rows(NamedTuple):
    """What belongs to the rows, beside A; w, m and omega may be empty."""

    b: np.ndarray
    w: np.ndarray  # of the regulariser
    m: np.ndarray  # multiplicities
    omega: np.ndarray  # of the residuals


@part
def optional(given, j, count):
    """Eight entries of m or omega, ones where they are empty. No branch: see `cpu.vectors.row_weights`."""
    ones = 1.0 if given.shape[0] == 0 else 0.0
    return load_first(given, 0, min(j, given.shape[0]), min(count, given.shape[0] - j)) + splat(ones)


@part
def counted(m, x):
    """m x, and 0 where m is, whatever x."""
    return where_less(splat(0.0), m, m * x, splat(0.0))


# -- to the numbers of groups ---------------------------------------------------------------------------------


@serial
def spread_shifts(units, unit, room):
    """M and exp(-M) of each group to each of its rows."""
    for g in range(0, unit.last - unit.first, LANES):
        store(room, GROUP_K, g, over_exp(load_first(room, GROUP_SHIFT, g, LANES)))
    for t in range(unit.first, unit.last):
        start, stop = max(units.offsets[t], unit.start) - unit.start, min(units.offsets[t + 1], unit.stop) - unit.start
        shift, k = splat(room[GROUP_SHIFT, t - unit.first]), splat(room[GROUP_K, t - unit.first])
        for j in range(start, stop, LANES):  # what goes beyond the group is overwritten by the next
            store(room, SHIFT, j, shift)
            store(room, K, j, k)


@serial
def share_shift(shift, unit, room):
    """One M for all groups of a unit."""
    shift, k = splat(shift), over_exp(shift)
    for g in range(0, unit.last - unit.first, LANES):
        store(room, GROUP_SHIFT, g, shift)
        store(room, GROUP_K, g, k)
    for j in range(0, unit.stop - unit.start, LANES):
        store(room, SHIFT, j, shift)
        store(room, K, j, k)


@serial
def find_shifts(link, a, m, units, unit, room):
    """M of each group, by its rows in this unit; the largest for all of them where that is `NEAR` to any."""
    top, least = splat(link.low), splat(link.high)
    for j in range(unit.start, unit.stop, LANES):
        count = unit.stop - j
        grows, counts = growth(link, load_first(a, 0, j, count)), first(optional(m, j, count), count)
        grows = where_less(splat(0.0), counts, grows, splat(-LARGEST))
        top, least = maximum(grows, top), -maximum(-where_less(splat(0.0), counts, grows, splat(LARGEST)), -least)
        store(room, U, j - unit.start, grows)
    shift = min(max_lanes(top), link.high)
    if shift - max(-max_lanes(-least), link.low) <= NEAR:
        share_shift(shift, unit, room)
        return
    for t in range(unit.first, unit.last):
        start, stop = max(units.offsets[t], unit.start) - unit.start, min(units.offsets[t + 1], unit.stop) - unit.start
        top = splat(link.low)
        for j in range(start, stop, LANES):
            top = maximum(load_first(room, U, j, stop - j) + below_all(stop - j), top)
        room[GROUP_SHIFT, t - unit.first] = min(max_lanes(top), link.high)
    spread_shifts(units, unit, room)


@serial
def form_terms(link, a, m, unit, room):
    """u^, v^ and the sizes of summands of each row."""
    for j in range(unit.start, unit.stop, LANES):
        count, at = unit.stop - j, j - unit.start
        u, v, _, size = terms(link, load_first(a, 0, j, count), load_first(room, SHIFT, at, LANES), load_first(room, K, at, LANES))
        mj = optional(m, j, count)
        store(room, U, at, counted(mj, u))
        store(room, V_HAT, at, counted(mj, v))
        store(room, SIZE, at, counted(mj, size))


@serial
def sum_terms(da, t, units, unit, room, groups):
    """alpha^, the sum of sizes and the slope along t da of each group; returns max |da|."""
    farthest = splat(0.0)
    for g in range(unit.first, unit.last):
        start, stop = max(units.offsets[g], unit.start), min(units.offsets[g + 1], unit.stop)
        alpha, size, slope = zeros(3)
        for j in range(start, stop, LANES):
            count, at = stop - j, j - unit.start
            alpha += first(load_first(room, U, at, LANES), count)
            size += first(load_first(room, SIZE, at, LANES), count)
            if da.shape[0] > 0:
                step = load_first(da, 0, j, count)
                slope = fma(first(load_first(room, V_HAT, at, LANES), count), step, slope)
                farthest = maximum(absolute(step), farthest)
        group = as_group(groups[g - unit.first])
        group.shift, group.k = room[GROUP_SHIFT, g - unit.first], room[GROUP_K, g - unit.first]
        group.alpha, group.kappa, group.slope = sum_lanes(alpha), sum_lanes(size), t * sum_lanes(slope)
    return max_lanes(farthest)


@serial
def sum_residuals(rows, units, unit, room, groups, total):
    """s and <f, omega f> of each group, and <c, f - b> added to the total, once alpha is known; leaves 1/alpha and s for each row."""
    squares = splat(0.0)
    for t in range(unit.first, unit.last):
        group = as_group(groups[t - unit.first])
        start, stop = max(units.offsets[t], unit.start), min(units.offsets[t + 1], unit.stop)
        over_alpha = splat(1.0 / group.alpha)
        for j in range(start, stop, LANES):  # what goes beyond the group is overwritten by the next
            store(room, OVER_ALPHA, j - unit.start, over_alpha)
        sums = Residuals(squares, splat(0.0), splat(0.0), splat(0.0))
        for j in range(start, stop, LANES):
            count = stop - j
            u = first(load_first(room, U, j - unit.start, LANES), count)
            sums = add_residual(sums, u, load_first(rows.b, 0, j, count), over_alpha, optional(rows.omega, j, count))
        squares = sums.squares
        group.s, group.ff = sum_lanes(sums.fc), sum_lanes(sums.ff)
        for j in range(start, stop, LANES):
            store(room, S, j - unit.start, splat(group.s))
    total.squares += sum_lanes(squares)


@serial
def add_penalties(w, a, start, stop, total):
    """1/2 ||w * a||^2 of these rows."""
    zero = splat(0.0)
    sums = Residuals(zero, zero, zero, zero)
    for j in range(start, stop, LANES):
        sums = add_penalty(sums, load_first(w, 0, j, stop - j), load_first(a, 0, j, stop - j))
    total.penalty += sum_lanes(sums.penalty)


@serial
def finish_group(number, group, total):
    """kappa of a group whose sums are complete, and what it adds to those of its block."""
    group.kappa = kappa(group.kappa, group.alpha) if group.alpha > 0.0 else np.inf
    if group.kappa > total.kappa or total.worst < 0.0:
        total.worst, total.kappa = number, group.kappa
    total.shift = max(total.shift, group.shift)
    total.s += group.s
    total.ff += group.ff
    if group.slope > group.alpha:
        total.rising += 1.0


@serial
def fold_unit(link, a, da, t, rows, units, unit, room, groups, piece_groups, total):
    """The numbers of whole groups; or the sums of a piece, as far as they do not need those of its group."""
    here = groups[unit.first : unit.last] if unit.piece < 0 else piece_groups[unit.piece : unit.piece + 1]
    find_shifts(link, a, rows.m, units, unit, room)
    form_terms(link, a, rows.m, unit, room)
    total.step = max(total.step, sum_terms(da, t, units, unit, room, here))
    if rows.w.shape[0] > 0:
        add_penalties(rows.w, a, unit.start, unit.stop, total)
    if unit.piece < 0:
        sum_residuals(rows, units, unit, room, here, total)
        for g in range(unit.first, unit.last):
            finish_group(g, as_group(groups[g]), total)


@serial
def fold_piece(link, a, rows, units, unit, room, piece_groups, total):
    """The sums of a piece that need the alpha of its group."""
    here = piece_groups[unit.piece : unit.piece + 1]
    room[GROUP_SHIFT, 0] = as_group(here[0]).shift
    spread_shifts(units, unit, room)
    form_terms(link, a, rows.m, unit, room)
    sum_residuals(rows, units, unit, room, here, total)


@serial
def join_pieces(units, groups, piece_groups, factors):
    """M, alpha^ and the rest of each large group from its pieces, and back to them; `factors` is what rescales the sums of each piece."""
    for i in range(units.large.shape[0]):
        group = as_group(groups[units.large[i]])
        group.shift, group.alpha, group.kappa, group.slope = -math.inf, 0.0, 0.0, 0.0
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            group.shift = max(group.shift, as_group(piece_groups[piece]).shift)
        group.k = lane(over_exp(group.shift), 0)
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            each = as_group(piece_groups[piece])
            factors[piece] = rescale(each.shift, group.shift)
            group.alpha += rescaled(factors[piece], each.alpha)
            group.kappa += rescaled(factors[piece], each.kappa)
            group.slope += rescaled(factors[piece], each.slope)
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            each = as_group(piece_groups[piece])
            each.shift, each.k, each.alpha = group.shift, group.k, group.alpha


@serial
def join_residuals(units, groups, piece_groups, total):
    """s and <f, omega f> of each large group from its pieces."""
    for i in range(units.large.shape[0]):
        group = as_group(groups[units.large[i]])
        group.s = group.ff = 0.0
        for piece in range(units.large_pieces[i], units.large_pieces[i + 1]):
            group.s += as_group(piece_groups[piece]).s
            group.ff += as_group(piece_groups[piece]).ff
        finish_group(units.large[i], group, total)


@serial
def start_total(link, total):
    """Before any group."""
    total.shift, total.worst, total.kappa = link.low, -1.0, 0.0
    total.step = total.squares = total.s = total.ff = total.penalty = total.rising = 0.0


@serial
def join_totals(totals, groups, point):
    """The point of all groups, of those of the blocks: alpha and kappa are those of the group that is nearest to its pole.

    Returns how many groups may have crossed it on the way.
    """
    total = as_total(totals[0])
    for i in range(1, totals.shape[0]):
        each = as_total(totals[i])
        if each.kappa > total.kappa or total.worst < 0.0:
            total.worst, total.kappa = each.worst, each.kappa
        total.shift, total.step = max(total.shift, each.shift), max(total.step, each.step)
        total.squares += each.squares
        total.s += each.s
        total.ff += each.ff
        total.penalty += each.penalty
        total.rising += each.rising
    worst = as_group(groups[int(total.worst)])
    point.shift, point.k = total.shift, lane(over_exp(total.shift), 0)
    point.alpha, point.kappa = worst.alpha * rescale(worst.shift, total.shift), total.kappa
    point.slope, point.step = 0.0, total.step  # whether a group may have crossed its pole is known here
    point.squares, point.s, point.ff = total.squares, total.s, total.ff
    point.fun = total.squares + total.penalty if total.kappa < np.inf else np.inf
    return total.rising


# -- to the weights of rows -----------------------------------------------------------------------------------


@serial
def spread_factors(units, unit, groups, room):
    """The numbers that the weights of rows need, from their groups to them."""
    for t in range(unit.first, unit.last):
        low, high = max(units.offsets[t], unit.start) - unit.start, min(units.offsets[t + 1], unit.stop) - unit.start
        group = as_group(groups[t])
        shift, k, over_alpha = splat(group.shift), splat(group.k), splat(1.0 / group.alpha)
        s, half_ff = splat(group.s), splat(0.5 * group.ff)
        for j in range(low, high, LANES):
            store(room, SHIFT, j, shift)
            store(room, K, j, k)
            store(room, OVER_ALPHA, j, over_alpha)
            store(room, S, j, s)
            store(room, HALF_FF, j, half_ff)


@part
def factors_at(room, j):
    """Those of eight rows."""
    return Factors(
        load_first(room, SHIFT, j, LANES),
        load_first(room, K, j, LANES),
        load_first(room, OVER_ALPHA, j, LANES),
        load_first(room, S, j, LANES),
        load_first(room, HALF_FF, j, LANES),
    )


@part
def weights_of(link, a, rows, unit, room, j):
    """The weights of eight rows from j on, zero behind the unit."""
    count = unit.stop - j
    at, mj, aj = factors_at(room, j - unit.start), optional(rows.m, j, count), load_first(a, 0, j, count)
    u, v, e, _ = terms(link, aj, at.shift, at.k)
    b, omega = load_first(rows.b, 0, j, count), optional(rows.omega, j, count)
    row = weights(counted(mj, u), counted(mj, v), counted(mj, e), b, at, omega)
    row = penalised(row, load_first(rows.w, 0, min(j, rows.w.shape[0]), min(count, rows.w.shape[0] - j)), aj)
    return Weights(first(row.h, count), first(row.v, count), first(row.q, count), first(row.r, count))


@part
def first_weights(rows, a, unit, room, j):
    """r of eight rows from j on, zero behind the unit, while u^, v^, 1/alpha and s of a whole group's rows are there."""
    count, at, s = unit.stop - j, j - unit.start, load_first(room, S, j - unit.start, LANES)
    group = Factors(s, s, load_first(room, OVER_ALPHA, at, LANES), s, s)  # of which r needs only alpha and s
    u, v = load_first(room, U, at, LANES), load_first(room, V_HAT, at, LANES)
    row = weights(u, v, v, load_first(rows.b, 0, j, count), group, optional(rows.omega, j, count))
    w = load_first(rows.w, 0, min(j, rows.w.shape[0]), min(count, rows.w.shape[0] - j))
    return first(penalised(row, w, load_first(a, 0, j, count)).r, count)
