"""The plane search of newton/passes.py on a GPU: its two passes over n-vectors."""

import numpy as np

from ..formulas.records import Domain
from ..newton.passes import PLANE
from .block import THREADS, WARPS, block_rows, cuda, kernel
from .reduction import block_sum
from .scalar import linked_kernel
from .vectors import join_domain, row_weights, start_domain, store_domain

HALF = PLANE // 2  # of its sums: all of them would not fit into the registers


@linked_kernel
def fold_plane(link, plane, a, b, w, point, sums):
    """<z_i, z_i> and z_i^T diag(h) z_j of a block; with y = 1, <v, z_i>, <q, z_i> and <r, z_i>."""
    scratch = cuda.shared.array(WARPS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, a.shape[0])
    each = cuda.local.array(HALF, np.float64)
    z = cuda.local.array(3, np.float64)
    for k in range(HALF):
        each[k] = 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        z[0], z[1], z[2] = plane.here[i], plane.da[i], plane.here[i] - plane.before[i]
        row = row_weights(link, a, b, w, point, i)
        entry = 3
        for k in range(3):
            if cuda.blockIdx.y == 0:
                each[k] += z[k] * z[k]
                for m in range(k, 3):
                    each[entry] += row.h * z[k] * z[m]
                    entry += 1
            else:
                each[k] += row.v * z[k]
                each[3 + k] += row.q * z[k]
                each[6 + k] += row.r * z[k]
    for k in range(HALF):
        total = block_sum(scratch, each[k])
        if cuda.threadIdx.x == 0:
            sums[cuda.blockIdx.x, cuda.blockIdx.y * HALF + k] = total


@kernel
def merge_plane(sums, out):
    """The sums of all blocks. One block."""
    scratch = cuda.shared.array(WARPS, np.float64)
    for entry in range(PLANE):
        total = 0.0
        for k in range(cuda.threadIdx.x, sums.shape[0], THREADS):
            total += sums[k, entry]
        total = block_sum(scratch, total)
        if cuda.threadIdx.x == 0:
            out[entry] = total


@linked_kernel
def fold_combination(link, plane, y, out, sums):
    """The domain of out = here + y0 z0 + y1 z1 + y2 z2, and max |out - here|; y a tuple."""
    scratch = cuda.shared.array(WARPS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, out.shape[0])
    domain, largest = start_domain(link), 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        here = plane.here[i]
        change = y[0] * here + y[1] * plane.da[i] + y[2] * (here - plane.before[i])
        out[i] = here + change
        domain = join_domain(link, out[i], 0.0, domain)
        largest = max(largest, abs(change))
    domain = Domain(domain.shift, domain.alpha, domain.magnitude, domain.slope, largest)
    store_domain(scratch, domain, sums[cuda.blockIdx.x])
