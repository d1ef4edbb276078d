"""The passes over A and n-vectors that an iteration needs. An engine whose n-vectors are elsewhere replaces all that read them.

See `fastrsx.engines.cuda`, which interprets the iteration: it has its own `evaluate`, `evaluate_plane`, `plane_derivatives`, `largest`, `spread`
and `is_penalised`; when the step is proposed outside, the others are not called.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from ..compiling.jit import parallel, part, serial, serial_twin
from ..cpu.blocks import block_rows
from ..cpu.passes import complete_point, derivatives, evaluate, finish_hessian, products
from ..cpu.vectors import add_domain, add_point, row_weights, start_state
from ..formulas.records import as_point, as_state
from ..layouts.panel import ROWS
from ..registers.simd import LANES, absolute, fma, load_first, max_lanes, maximum, splat, store_first, sum_lanes, zeros

__all__ = ["derivatives", "evaluate", "evaluate_plane", "finish_hessian", "is_penalised", "largest", "plane_derivatives", "products", "spread"]

PLANE = 18  # sums of a block for the plane search, see plane.PlaneSums
ROUNDING = 1e-10  # max |A p| of a unit vector p, columns of unit RMS, that lies in the null space of A


class Plane(NamedTuple):
    """The images of the directions: z0 = here, z1 = da and z2 = here - before."""

    here: np.ndarray  # A x
    da: np.ndarray  # A p
    before: np.ndarray  # A x at the step before


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
def take_combination(plane, y, start, stop, out):
    """out = here + y0 z0 + y1 z1 + y2 z2 on these rows; returns max |out - here|."""
    largest = splat(0.0)
    for j in range(start, stop, LANES):
        z0 = load_first(plane.here, 0, j, stop - j)
        change = splat(y[2]) * (z0 - load_first(plane.before, 0, j, stop - j))
        change = fma(splat(y[0]), z0, fma(splat(y[1]), load_first(plane.da, 0, j, stop - j), change))
        store_first(out, 0, j, stop - j, z0 + change)
        largest = maximum(absolute(change), largest)
    return max_lanes(largest)


@part
def fold_combination(link, plane, y, start, stop, out, sums):
    """The domain of `take_combination` on the rows start : stop, and max |out - here|."""
    start_state(link, sums)
    largest = 0.0
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        largest = max(largest, take_combination(plane, y, i, end, out))
        add_domain(link, out, out[:0], i, end, sums)
    sums.step = largest


@part
def fold_combined_point(link, plane, y, b, w, start, stop, out, sums):
    """The state of `take_combination`, likewise."""
    start_state(link, sums)
    largest = 0.0
    for i in range(start, stop, ROWS):
        end = min(i + ROWS, stop)
        largest = max(largest, take_combination(plane, y, i, end, out))
        add_point(link, out, None, b, w, start, i, end, sums, None, 0)
    sums.step = largest


@parallel
def plane_derivatives(link, plane, a, b, w, point, sums):
    """The sums of `fold_plane` over all rows, in sums[0]."""
    blocks, n = sums.shape[0], a.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        fold_plane(link, plane, a, b, w, as_point(point), start, stop, sums[k])
    for k in range(1, blocks):
        for i in range(PLANE):
            sums[0, i] += sums[k, i]


@parallel
def evaluate_plane(link, plane, y, b, w, out, sums, point):
    """L and the whole `point` at y, whose A x goes to `out`."""
    blocks, n = sums.shape[0], out.shape[0]
    for k in prange(blocks):
        start, stop = block_rows(k, blocks, n)
        fold_combined_point(link, plane, y, b, w, start, stop, out, as_state(sums[k]))
    return complete_point(link, out, b, w, sums, point)


plane_derivatives_serial = serial_twin(plane_derivatives)
evaluate_plane_serial = serial_twin(evaluate_plane)


@serial
def is_penalised(image, w, unit):
    """Whether 1/2 ||w * a||^2 grows without end along a ray."""
    grows = False
    for i in range(w.shape[0]):
        grows = grows or (w[i] > 0.0 and abs(image[i]) > ROUNDING * unit)
    return grows


@serial
def largest(a):
    """max |a|."""
    top = 0.0
    for i in range(a.shape[0]):
        top = max(top, abs(a[i]))
    return top


@serial
def spread(a):
    """max a - min a."""
    low, high = a[0], a[0]
    for i in range(a.shape[0]):
        low, high = min(low, a[i]), max(high, a[i])
    return high - low
