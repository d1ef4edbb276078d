"""The plane search: the least loss over x, the step p and the step before, all at once.

L at (1 + y0) x + y1 p + y2 (x - x_before) is the same problem again, with the three columns A x, A p and A (x - x_before).
These are known, so a search costs no pass over A, and Newton's method in y takes a few looks at n-vectors. Where the
quadratic model fails, it finds more than a shorter step along p does: the vocabulary takes 19 steps instead of 27.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..compiling.jit import parallel, part, serial, serial_twin
from ..cpu.blocks import block_rows
from ..cpu.passes import complete_point
from ..cpu.vectors import add_domain, row_weights, start_domain
from ..formulas.finish import rank_2
from ..formulas.steps import SHRINK, next_radius, noise
from ..layouts.panel import ROWS
from ..registers.simd import LANES, absolute, fma, load_first, max_lanes, maximum, splat, store_first, sum_lanes, zeros
from .trust_region import step

DIRECTIONS = 3
PLANE = 18  # sums of a block, see PlaneSums
MOST_SEARCH_STEPS = 10
MOST_TIMES = 10.0  # x and x - before: A of either may be a small difference, and what that lacks in digits is multiplied
ENOUGH = 1e-3  # of what the search has gained: a step that promises less is not taken


class Plane(NamedTuple):
    """The images of the directions: z0 = here, z1 = da and z2 = here - before."""

    here: np.ndarray  # A x
    da: np.ndarray  # A p
    before: np.ndarray  # A x at the step before


class Target(NamedTuple):
    """What f is compared with, and the weights of the regulariser."""

    b: np.ndarray
    w: np.ndarray


class PlaneSums(NamedTuple):
    """The sums of a block."""

    squares: np.ndarray  # <z_i, z_i>
    gram: np.ndarray  # z_i^T diag(h) z_j for i <= j
    v: np.ndarray  # <v, z_i>
    q: np.ndarray  # <q, z_i>
    r: np.ndarray  # <r, z_i>


@part
def named_sums(sums):
    """The numbers of a block by name."""
    return PlaneSums(sums[:3], sums[3:9], sums[9:12], sums[12:15], sums[15:18])


@serial
def fold_plane(link, plane, a, b, w, point, start, stop, sums):
    """The sums of rows start : stop for the derivatives in y at a."""
    n00, n11, n22, g00, g01, g02, g11, g12, g22, v0, v1, v2, q0, q1, q2, r0, r1, r2 = zeros(18)
    for j in range(start, stop, LANES):
        count = stop - j
        z0, z1 = load_first(plane.here, 0, j, count), load_first(plane.da, 0, j, count)
        z2 = z0 - load_first(plane.before, 0, j, count)
        h, v, q, r = row_weights(link, a, b, w, point, j, count)
        n00, n11, n22 = fma(z0, z0, n00), fma(z1, z1, n11), fma(z2, z2, n22)
        h0, h1, h2 = h * z0, h * z1, h * z2
        g00, g01, g02 = fma(h0, z0, g00), fma(h0, z1, g01), fma(h0, z2, g02)
        g11, g12, g22 = fma(h1, z1, g11), fma(h1, z2, g12), fma(h2, z2, g22)
        v0, v1, v2 = fma(v, z0, v0), fma(v, z1, v1), fma(v, z2, v2)
        q0, q1, q2 = fma(q, z0, q0), fma(q, z1, q1), fma(q, z2, q2)
        r0, r1, r2 = fma(r, z0, r0), fma(r, z1, r1), fma(r, z2, r2)
    each = (n00, n11, n22, g00, g01, g02, g11, g12, g22, v0, v1, v2, q0, q1, q2, r0, r1, r2)
    for i in range(PLANE):
        sums[i] = sum_lanes(each[i])


@part
def fold_combination(link, plane, y, start, stop, out, sums):
    """The domain of out = here + y0 z0 + y1 z1 + y2 z2 on the rows start : stop, and max |out - here|."""
    start_domain(link, sums)
    largest = splat(0.0)
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        for j in range(i, end, LANES):
            z0 = load_first(plane.here, 0, j, end - j)
            change = splat(y[2]) * (z0 - load_first(plane.before, 0, j, end - j))
            change = fma(splat(y[0]), z0, fma(splat(y[1]), load_first(plane.da, 0, j, end - j), change))
            store_first(out, 0, j, end - j, z0 + change)
            largest = maximum(absolute(change), largest)
        add_domain(link, out, out[:0], i, end, sums, out[:0], out[:0])
    sums.step = max_lanes(largest)


@parallel
def plane_derivatives(link, plane, a, b, w, point, sums):
    """The sums of `fold_plane` over all rows, in sums[0]."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        fold_plane(link, plane, a, b, w, point[0], start, stop, sums[k])
    for k in range(1, blocks):
        for i in range(PLANE):
            sums[0, i] += sums[k, i]


@parallel
def evaluate_plane(link, plane, y, b, w, out, sums, point):
    """L and the whole `point` at y, whose A x goes to `out`."""
    blocks, n = sums.shape[0], out.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        fold_combination(link, plane, y, start, stop, out, sums[k])
    return complete_point(link, out, b, w, sums, point)


plane_derivatives_serial = serial_twin(plane_derivatives)
evaluate_plane_serial = serial_twin(evaluate_plane)


@part
def scaled_model(sums, n, scale, g, H):
    """Gradient and Hessian in y, with the columns scaled to unit RMS."""
    plane = named_sums(sums)
    for i in range(DIRECTIONS):
        scale[i] = np.sqrt(plane.squares[i] / n) if plane.squares[i] > 0.0 else 1.0
    entry = 0
    for i in range(DIRECTIONS):
        g[i] = plane.r[i] / scale[i]
        for j in range(i, DIRECTIONS):
            subtracted = 2.0 * rank_2(plane.v[i], plane.q[i], plane.v[j], plane.q[j])
            H[i, j] = H[j, i] = (plane.gram[entry] - subtracted) / scale[i] / scale[j]
            entry += 1


@part
def search(link, plane, farthest, a, target, point, y, sums, plane_sums):
    """From y, whose A x is `a`, down to the least loss nearby, by trust-region Newton steps; how many losses it took.

    y, a and point are moved along, never uphill, no entry of a by more than `farthest` from `here`, and y[0] and y[2] to MOST_TIMES at most.
    """
    scale, g, H = np.empty(DIRECTIONS), np.empty(DIRECTIONS), np.empty((DIRECTIONS, DIRECTIONS))
    p, z, trial = np.empty(DIRECTIONS), np.empty(DIRECTIONS), np.empty(DIRECTIONS)
    radius, first_fun, fun, evaluations = 1.0, point[0].fun, point[0].fun, 0
    derived = True  # whether a and point are those of y
    for _ in range(MOST_SEARCH_STEPS):
        if derived:
            plane_derivatives(link, plane, a, target.b, target.w, point, plane_sums)
            scaled_model(plane_sums[0], a.shape[0], scale, g, H)
        decrease, _, _, _ = step(g, H, radius, p, z)
        if not decrease > max(ENOUGH * (first_fun - fun), noise(point[0])):
            break
        for i in range(DIRECTIONS):
            trial[i] = y[i] + p[i] / scale[i]
        evaluations += 1
        evaluate_plane(link, plane, trial, target.b, target.w, a, sums, point)
        ratio, length = (fun - point[0].fun) / decrease, np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
        too_far = max(point[0].step / farthest, abs(trial[0]) / MOST_TIMES, abs(trial[2]) / MOST_TIMES)
        derived = ratio > 0.0 and too_far <= 1.0
        if derived:
            y[:] = trial
            fun = point[0].fun
        radius = max(SHRINK, 0.8 / too_far) * length if too_far > 1.0 else next_radius(radius, ratio, length)
    if not derived:
        evaluations += 1
        evaluate_plane(link, plane, y, target.b, target.w, a, sums, point)
    return evaluations


search_serial = serial_twin(search)
