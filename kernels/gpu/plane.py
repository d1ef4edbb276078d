"""The plane search of newton/plane.py on a GPU: its two looks at n-vectors."""

import numpy as np

from ..newton.plane import PLANE
from .block import THREADS, block_rows, block_sum, cuda, kernel
from .vectors import join_domain, row_weights, start_domain, store_domain

HALF = PLANE // 2  # of its sums: all would not fit into the registers


@kernel
def fold_plane(link, here, da, before, a, b, w, point, sums):
    """For z0 = here, z1 = da, z2 = here - before: <z_i, z_i> and z_i^T diag(h) z_j of a block; with y = 1, <v, z_i>, <q, z_i> and <r, z_i>."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, a.shape[0])
    each = cuda.local.array(HALF, np.float64)
    z = cuda.local.array(3, np.float64)
    for k in range(HALF):
        each[k] = 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        z[0], z[1], z[2] = here[i], da[i], here[i] - before[i]
        h, v, q, r = row_weights(link, a, b, w, point, i)
        entry = 3
        for k in range(3):
            if cuda.blockIdx.y == 0:
                each[k] += z[k] * z[k]
                for m in range(k, 3):
                    each[entry] += h * z[k] * z[m]
                    entry += 1
            else:
                each[k] += v * z[k]
                each[3 + k] += q * z[k]
                each[6 + k] += r * z[k]
    for k in range(HALF):
        total = block_sum(scratch, each[k])
        if cuda.threadIdx.x == 0:
            sums[cuda.blockIdx.x, cuda.blockIdx.y * HALF + k] = total


@kernel
def combine_plane(sums, out):
    """The sums of all blocks. One block."""
    scratch = cuda.shared.array(THREADS, np.float64)
    for entry in range(PLANE):
        total = 0.0
        for k in range(cuda.threadIdx.x, sums.shape[0], THREADS):
            total += sums[k, entry]
        total = block_sum(scratch, total)
        if cuda.threadIdx.x == 0:
            out[entry] = total


@kernel
def fold_combination(link, here, da, before, y, out, sums):
    """The domain of out = (1 + y0) here + y1 da + y2 (here - before), and max |out - here|; y a tuple."""
    scratch = cuda.shared.array(THREADS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, here.shape[0])
    shift, k, alpha, magnitude, slope = start_domain(link)
    largest = 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        change = y[0] * here[i] + y[1] * da[i] + y[2] * (here[i] - before[i])
        out[i] = here[i] + change
        shift, k, alpha, magnitude, slope = join_domain(link, out[i], 0.0, shift, k, alpha, magnitude, slope)
        largest = max(largest, abs(change))
    store_domain(scratch, shift, alpha, magnitude, slope, largest, sums[cuda.blockIdx.x])
