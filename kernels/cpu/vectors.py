"""Folds over n-vectors: alpha, the loss and the weights of rows from a = A x.

Formulas are in formulas/rows.py; the loops over eight rows at a time are here.
"""

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.centred import corrected, lost
from ..formulas.links import growth, terms
from ..formulas.records import VC, VF, W2A, H, Q, R, Residuals, V, Weights, as_state
from ..formulas.rows import add_penalty, add_residual, factors, loss, penalised, sum_weights, weights
from ..formulas.states import kappa, over_exp, rescale, rescaled
from ..layouts.panel import MOST_ROWS, ROWS
from ..registers.simd import (
    LANES,
    absolute,
    first,
    fma,
    lane,
    load_first,
    max_lanes,
    maximum,
    prefetch_at,
    splat,
    store,
    store_first,
    sum_each,
    sum_lanes,
    zeros,
)

MOST_LOST = 4.0  # ||delta f~||^2 / ||c||^2: beyond, <c, c> is summed again, alpha known
LARGEST = float(np.finfo(np.float64).max)


@serial
def copy(values, out):
    """The values into the first places of out. For `out[:] = values` numba compiles an error with the shapes as text: twenty functions more."""
    for i in range(values.shape[0]):
        out[i] = values[i]


# -- alpha, without knowing M in advance ----------------------------------------------------------------------


@serial
def below_all(count):
    """0 in the first `count` lanes, and -LARGEST in the padding behind them, which is then never the maximum."""
    return first(splat(LARGEST), count) - splat(LARGEST)


@serial
def start_state(link, sums):
    """The state before any row."""
    sums.shift = link.low
    sums.alpha = sums.magnitude = sums.slope = sums.step = 0.0
    sums.squares = sums.fc = sums.ff = sums.penalty = 0.0
    sums.centre = sums.lost = 0.0


@serial
def raise_shift(sums, top):
    """M at least `top`, and the sums times exp(-M) that follow it."""
    if top > sums.shift:
        factor = rescale(sums.shift, top)
        sums.alpha = rescaled(factor, sums.alpha)
        sums.magnitude = rescaled(factor, sums.magnitude)
        sums.slope = rescaled(factor, sums.slope)
        sums.centre = rescaled(factor, sums.centre)
        sums.shift = top


@serial
def shift_of(link, a, start, stop):
    """M of these rows."""
    top = splat(link.low)
    for j in range(start, stop, LANES):
        top = maximum(growth(link, load_first(a, 0, j, stop - j)) + below_all(stop - j), top)
    return min(max_lanes(top), link.high)


@serial
def add_domain(link, a, da, start, stop, sums):
    """Add rows to M, alpha^ = sum(u^), sum(e^ + k |a|), <v^, da> and max |da|; an empty da counts as 0."""
    raise_shift(sums, shift_of(link, a, start, stop))
    k = over_exp(sums.shift)
    alpha, magnitude, slope = zeros(3)
    largest = splat(0.0)
    for j in range(start, stop, LANES):
        u, v, _, size = terms(link, load_first(a, 0, j, stop - j), splat(sums.shift), k)
        alpha += first(u, stop - j)
        magnitude += first(size, stop - j)
        if da.shape[0] > 0:
            step = load_first(da, 0, j, stop - j)
            slope = fma(first(v, stop - j), step, slope)
            largest = maximum(absolute(step), largest)
    sums.alpha += sum_lanes(alpha)
    sums.magnitude += sum_lanes(magnitude)
    sums.slope += sum_lanes(slope)
    sums.step = max(sums.step, max_lanes(largest))


@part
def take_step(a, da, t, start, stop, out):
    """out = a + t da on the rows start : stop, unless da is empty."""
    if da.shape[0] > 0:
        for j in range(start, stop, LANES):
            step = load_first(da, 0, j, stop - j)
            store_first(out, 0, j, stop - j, fma(splat(t), step, load_first(a, 0, j, stop - j)))


@part
def fold_domain(link, a, da, t, start, stop, out, sums):
    """The domain of out = a + t da on the rows start : stop; with an empty da, of out, which is then a."""
    start_state(link, sums)
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        take_step(a, da, t, i, end, out)
        add_domain(link, out, da, i, end, sums)


# -- alpha and the loss in one loop ---------------------------------------------------------------------------
#
# The residuals of a row need alpha, which is the sum over all rows: they are taken with the alpha that the rows before foretell, and corrected.


@serial
def foretell(link, a, first_row, start, stop, sums):
    """alpha~ of all rows from those of the block before `start`, or from the first few; returns the delta of the sums until then."""
    alpha, magnitude, rows = sums.alpha, sums.magnitude, start - first_row
    if rows == 0:
        rows = min(ROWS, stop - start)
        us, sizes = zeros(2)
        for j in range(0, rows, LANES):
            u, _, _, size = terms(link, load_first(a, 0, start + j, rows - j), splat(sums.shift), over_exp(sums.shift))
            us, sizes = us + first(u, rows - j), sizes + first(size, rows - j)
        alpha, magnitude = sum_lanes(us), sum_lanes(sizes)
    centre = (alpha if alpha > 0.0 else magnitude) * (a.shape[0] / rows)
    delta = sums.centre / centre - 1.0
    before = Residuals(sums.squares, sums.fc, sums.ff, sums.penalty)
    now = corrected(before, delta)
    sums.squares, sums.fc, sums.ff = now.squares, now.fc, now.ff
    sums.lost += lost(before, delta)
    sums.centre = centre
    return delta


@serial
def add_point(link, a, da, b, w, first_row, start, stop, sums, weights_out, ahead):
    """Add a panel to the state of the block that begins at `first_row`: what `add_domain` adds, and the residuals.

    Leaves v~, v~ f~, v~ c~ and w^2 a in `weights_out`; returns the delta of all sums before. None for da or `weights_out` means without.
    Prefetches 32 bytes a row from the address `ahead` on, unless that is 0.
    """
    seen, delta = (start - first_row) // ROWS, 0.0
    if seen & (seen - 1) == 0:  # the first, and where the rows have doubled
        raise_shift(sums, shift_of(link, a, start, stop))
        delta = foretell(link, a, first_row, start, stop, sums)
    while not add_with_shift(link, a, da, b, start, stop, sums, weights_out, ahead):  # M seldom grows: twice is less than a loop for it
        raise_shift(sums, shift_of(link, a, start, stop))
    if w.shape[0] > 0:
        add_penalties(a, w, start, stop, sums, weights_out)
    return delta


@serial
def add_with_shift(link, a, da, b, start, stop, sums, weights_out, ahead):
    """The same without w and with the M of the rows before; whether these rows have no larger one, else nothing is added."""
    shift, k, over_alpha = splat(sums.shift), over_exp(sums.shift), splat(1.0 / sums.centre)
    alpha, magnitude, slope, zero = zeros(4)
    top, largest = shift, zero
    total = Residuals(zero, zero, zero, zero)
    for j in range(start, stop, LANES):
        count = stop - j
        if ahead > 0:
            prefetch_at(ahead, (j - start) // 2, 4)
        aj, bj = load_first(a, 0, j, count), load_first(b, 0, j, count)
        top = maximum(growth(link, aj) + below_all(count), top)
        u, v, _, size = terms(link, aj, shift, k)
        u, v = first(u, count), first(v, count)
        alpha, magnitude = alpha + u, magnitude + first(size, count)
        total = add_residual(total, u, bj, over_alpha)
        if da is not None:
            step = load_first(da, 0, min(j, da.shape[0]), min(count, da.shape[0] - j))  # zeros for an empty da
            slope = fma(v, step, slope)
            largest = maximum(absolute(step), largest)
        if weights_out is not None:
            f = u * over_alpha
            v, vf, vc = sum_weights(f, v * over_alpha, f - bj)
            store(weights_out, V, j - start, v)
            store(weights_out, VF, j - start, vf)
            store(weights_out, VC, j - start, vc)
    if min(max_lanes(top), link.high) > sums.shift:
        return False
    added = sum_each((alpha, magnitude, slope, total.squares, total.fc, total.ff, zero, zero))
    sums.alpha += lane(added, 0)
    sums.magnitude += lane(added, 1)
    sums.slope += lane(added, 2)
    sums.squares += lane(added, 3)
    sums.fc += lane(added, 4)
    sums.ff += lane(added, 5)
    sums.step = max(sums.step, max_lanes(largest))
    return True


@serial
def add_penalties(a, w, start, stop, sums, weights_out):
    """1/2 ||w * a||^2 of a panel, and w^2 a."""
    total = Residuals(splat(0.0), splat(0.0), splat(0.0), splat(0.0))
    for j in range(start, stop, LANES):
        wj, aj = load_first(w, 0, j, stop - j), load_first(a, 0, j, stop - j)
        total = add_penalty(total, wj, aj)
        if weights_out is not None:
            store(weights_out, W2A, j - start, wj * wj * aj)
    sums.penalty += sum_lanes(total.penalty)


@part
def fold_point(link, a, da, t, b, w, start, stop, out, sums):
    """The state of out = a + t da on the rows start : stop; with an empty da, of out, which is then a."""
    start_state(link, sums)
    for i in range(start, stop, MOST_ROWS):
        end = min(i + MOST_ROWS, stop)
        take_step(a, da, t, i, end, out)
        add_point(link, out, da, b, w, start, i, end, sums, None, 0)


@serial
def merge_domains(sums, point):
    """M, k, alpha^, kappa, the slope and the step of all blocks."""
    shift, step = as_state(sums[0]).shift, 0.0
    for k in range(sums.shape[0]):
        state = as_state(sums[k])
        shift = max(shift, state.shift)
        step = max(step, state.step)
    alpha = magnitude = slope = 0.0
    for k in range(sums.shape[0]):
        state = as_state(sums[k])
        factor = rescale(state.shift, shift)
        if factor > 0.0:
            alpha += factor * state.alpha
            magnitude += factor * state.magnitude
            slope += factor * state.slope
    point.shift, point.k, point.alpha, point.kappa = shift, lane(over_exp(shift), 0), alpha, kappa(magnitude, alpha) if alpha > 0.0 else np.inf
    point.slope, point.step = slope, step


# -- the loss, alpha known ------------------------------------------------------------------------------------


@serial
def fold_residuals(link, a, b, w, point, start, stop, sums):
    """<c, c>, <f, c>, <f, f> and 1/2 ||w * a||^2 of the rows start : stop."""
    at = factors(point)
    total = Residuals(splat(0.0), splat(0.0), splat(0.0), splat(0.0))
    for j in range(start, stop, LANES):
        aj = load_first(a, 0, j, stop - j)
        u, _, _, _ = terms(link, aj, at.shift, at.k)
        total = add_residual(total, first(u, stop - j), load_first(b, 0, j, stop - j), at.over_alpha)
        if w.shape[0] > 0:
            total = add_penalty(total, load_first(w, 0, j, stop - j), aj)
    sums.squares, sums.fc, sums.ff = sum_lanes(total.squares), sum_lanes(total.fc), sum_lanes(total.ff)
    sums.penalty = sum_lanes(total.penalty)


@serial
def merge_residuals(sums, point):
    """L, <c, c>, s and <f, f> of all blocks."""
    squares = fc = ff = penalty = 0.0
    for k in range(sums.shape[0]):
        state = as_state(sums[k])
        squares += state.squares
        fc += state.fc
        ff += state.ff
        penalty += state.penalty
    point.squares, point.s, point.ff, point.fun = squares, fc, ff, loss(Residuals(squares, fc, ff, penalty))


@serial
def merge_corrected(sums, point):
    """The same of sums that were taken by `add_point`; and whether no digits cancel. Leaves the digits lost by all blocks in the first."""
    total, digits = Residuals(0.0, 0.0, 0.0, 0.0), 0.0
    for k in range(sums.shape[0]):
        state = as_state(sums[k])
        before = Residuals(state.squares, state.fc, state.ff, state.penalty)
        delta = delta_of(state, point)
        now = corrected(before, delta)
        total = Residuals(total.squares + now.squares, total.fc + now.fc, total.ff + now.ff, total.penalty + now.penalty)
        digits += state.lost + lost(before, delta)
    as_state(sums[0]).lost = digits
    point.squares, point.s, point.ff, point.fun = total.squares, total.fc, total.ff, loss(total)
    return digits <= MOST_LOST * total.squares


@serial
def delta_of(state, point):
    """The delta of a block's sums, alpha known."""
    return state.centre * rescale(state.shift, point.shift) / point.alpha - 1.0


# -- weights of rows, the point known -------------------------------------------------------------------------


@serial
def row_weights(link, a, b, w, point, j, count):
    """The weights of the eight rows from j on, zero from the count-th on."""
    at, aj = factors(point), load_first(a, 0, j, count)
    u, v, e, _ = terms(link, aj, at.shift, at.k)
    row = weights(u, v, e, load_first(b, 0, j, count), at)
    # Zeros for an empty w, from its start: reading it in a branch would count references to it for every eight rows, a line that all threads
    # write; and a masked load from memory that is not mapped takes hundreds of cycles.
    row = penalised(row, load_first(w, 0, min(j, w.shape[0]), min(count, w.shape[0] - j)), aj)
    return Weights(first(row.h, count), first(row.v, count), first(row.q, count), first(row.r, count))


@serial
def panel_weights(link, a, b, w, point, start, rows, out):
    """The weights of the rows of a panel; zero in its padding."""
    for j in range(0, rows, LANES):
        row = row_weights(link, a, b, w, point, start + j, rows - j)
        store(out, H, j, row.h)
        store(out, V, j, row.v)
        store(out, Q, j, row.q)
        store(out, R, j, row.r)


@part
def fold_predictions(link, a, point, start, stop, f, v):
    """f and v/alpha of the rows start : stop."""
    at = factors(point)
    for j in range(start, stop, LANES):
        u, slope, _, _ = terms(link, load_first(a, 0, j, stop - j), at.shift, at.k)
        store_first(f, 0, j, stop - j, u * at.over_alpha)
        store_first(v, 0, j, stop - j, slope * at.over_alpha)
