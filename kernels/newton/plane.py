"""The plane search: the least loss over x, the step p and the step before, all at once.

L at (1 + y0) x + y1 p + y2 (x - x_before) is the same problem again, with the three columns A x, A p and A (x - x_before).
These are known, so a search costs no pass over A, and Newton's method in y takes a few passes over n-vectors. Where the
quadratic model fails, it gains more than a shorter step along p: the vocabulary problem takes 19 steps instead of 27.
"""

from typing import NamedTuple

import numpy as np

from ..compiling.jit import part, serial, serial_twin
from ..cpu.vectors import copy
from ..formulas.finish import rank_2
from ..formulas.records import as_point
from ..formulas.steps import SHRINK, next_radius, noise
from .passes import evaluate_plane, plane_derivatives
from .trust_region import step

DIRECTIONS = 3
MOST_SEARCH_STEPS = 10
MOST_TIMES = 10.0  # x and x - before: A times either may be a small difference, and its lost digits are multiplied
ENOUGH = 1e-3  # of the gain of the search so far: a step that promises less is not taken


class Target(NamedTuple):
    """The target of f, and the weights of the regulariser."""

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


@serial
def search(link, plane, farthest, a, target, point, y, sums, plane_sums):
    """Descend from y, whose A x is `a`, to the least loss nearby by trust-region Newton steps; returns the number of losses evaluated.

    Update y, a and point, never uphill; no entry of a moves more than `farthest` from `here`, and y[0] and y[2] stay within MOST_TIMES.
    """
    scale, g, H = np.empty(DIRECTIONS), np.empty(DIRECTIONS), np.empty((DIRECTIONS, DIRECTIONS))
    p, z, trial = np.empty(DIRECTIONS), np.empty(DIRECTIONS), np.empty(DIRECTIONS)
    at = as_point(point)
    radius, first_fun, fun, evaluations = 1.0, at.fun, at.fun, 0
    derived, error = True, 0.0  # whether a and point belong to y; the noise there
    for _ in range(MOST_SEARCH_STEPS):
        if derived:
            error = noise(at)
            plane_derivatives(link, plane, a, target.b, target.w, point, plane_sums)
            scaled_model(plane_sums[0], a.shape[0], scale, g, H)
        decrease, _, _, _ = step(g, H, radius, p, z)
        if not decrease > max(ENOUGH * (first_fun - fun), error):
            break
        for i in range(DIRECTIONS):
            trial[i] = y[i] + p[i] / scale[i]
        evaluations += 1
        evaluate_plane(link, plane, trial, target.b, target.w, a, sums, point)
        ratio, length = (fun - at.fun) / decrease, np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2)
        too_far = max(at.step / farthest, abs(trial[0]) / MOST_TIMES, abs(trial[2]) / MOST_TIMES)
        derived = ratio > 0.0 and too_far <= 1.0
        if derived:
            copy(trial, y)
            fun = at.fun
        radius = max(SHRINK, 0.8 / too_far) * length if too_far > 1.0 else next_radius(radius, ratio, length)
    if not derived:
        evaluations += 1
        evaluate_plane(link, plane, y, target.b, target.w, a, sums, point)
    return evaluations


search_serial = serial_twin(search)
