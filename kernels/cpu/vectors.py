"""Folds over n-vectors: alpha, the loss and the weights of rows from a = A x.

Formulas are in formulas/rows.py; the loops over eight rows at a time are here.
"""

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.links import growth, terms
from ..formulas.records import H, Q, R, Residuals, V, Weights, as_state
from ..formulas.rows import add_penalty, add_residual, factors, loss, penalised, weights
from ..formulas.states import kappa, over_exp, rescale, rescaled
from ..layouts.panel import ROWS
from ..registers.simd import LANES, absolute, first, fma, lane, load_first, max_lanes, maximum, splat, store, store_first, sum_lanes, zeros

LARGEST = float(np.finfo(np.float64).max)

# -- alpha, without knowing M in advance ----------------------------------------------------------------------


@serial
def below_all(count):
    """0 in the first `count` lanes, and -LARGEST in the padding behind them, which is then never the maximum."""
    return first(splat(LARGEST), count) - splat(LARGEST)


@serial
def start_domain(link, sums):
    """The domain before any row."""
    sums.shift = link.low
    sums.alpha = sums.magnitude = sums.slope = sums.step = 0.0


@serial
def add_domain(link, a, da, start, stop, sums, u_out, v_out):
    """Add rows to M, alpha^ = sum(u^), sum(e^ + k |a|), <v^, da> and max |da|; an empty da counts as 0.

    Leaves u^ and v^ in `u_out` and `v_out`, unless they are empty. Returns exp(M before - M), the factor of earlier sums.
    """
    top = splat(sums.shift)
    for j in range(start, stop, LANES):
        top = maximum(growth(link, load_first(a, 0, j, stop - j)) + below_all(stop - j), top)
    shift = min(max_lanes(top), link.high)
    factor = 1.0
    if shift > sums.shift:
        factor = rescale(sums.shift, shift)
        sums.alpha = rescaled(factor, sums.alpha)
        sums.magnitude = rescaled(factor, sums.magnitude)
        sums.slope = rescaled(factor, sums.slope)
        sums.shift = shift
    k = over_exp(shift)
    alpha, magnitude, slope = zeros(3)
    largest = splat(0.0)
    for j in range(start, stop, LANES):
        aj = load_first(a, 0, j, stop - j)
        u, v, _, size = terms(link, aj, splat(shift), k)
        alpha += first(u, stop - j)
        magnitude += first(size, stop - j)
        if da.shape[0] > 0:
            step = load_first(da, 0, j, stop - j)
            slope = fma(first(v, stop - j), step, slope)
            largest = maximum(absolute(step), largest)
        if u_out.shape[0] > 0:
            store(u_out, 0, j - start, u)
            store(v_out, 0, j - start, v)
    sums.alpha += sum_lanes(alpha)
    sums.magnitude += sum_lanes(magnitude)
    sums.slope += sum_lanes(slope)
    sums.step = max(sums.step, max_lanes(largest))
    return factor


@part
def fold_domain(link, a, da, t, start, stop, out, sums):
    """The domain of out = a + t da on the rows start : stop; with an empty da, of out, which is then a."""
    start_domain(link, sums)
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        if da.shape[0] > 0:
            for j in range(i, end, LANES):
                step = load_first(da, 0, j, end - j)
                store_first(out, 0, j, end - j, fma(splat(t), step, load_first(a, 0, j, end - j)))
        add_domain(link, out, da, i, end, sums, out[:0], out[:0])


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
