"""The Gram matrix A^T diag(h) A on a GPU without tensor cores for float64: its triangle in tiles, over parts of the rows.

A block sums a tile of 64 x 64 over some rows, DEPTH at a time in shared memory. A thread has 4 x 4 entries of it, in pairs side by side,
and a warp 4 x 8 threads: for a row of A, a warp then reads two lines of each factor for its 16 multiplications.
"""

import numpy as np

from ..formulas import finish
from ..formulas.records import Q, V
from .block import EDGE, THREADS, WARP_COLUMNS, WARP_ROWS, block_rows, cuda, device, kernel, unsigned
from .halves import in_float64
from .scalar import scalar

rank_2 = scalar(finish.rank_2)
TILE = 4 * EDGE
DEPTH = 16  # rows at a time


@device
def tile_place(i, thread):
    """The place in a tile of a thread's i-th row or column."""
    return i // 2 * (TILE // 2) + 2 * thread + i % 2


@device
def entry(A, i, j):
    """A[i, j], 0 beyond the last column."""
    return in_float64(A[i, j]) if j < unsigned(A.shape[1]) else 0.0


def make_gram(on_diagonal):
    """The kernel for tiles on the diagonal, of which a quarter is left out, or below it."""

    def fold_gram(A, h, gram):
        """gram[split] = A^T diag(h) A of some rows, its triangle below the diagonal."""
        left = cuda.shared.array((DEPTH, TILE), np.float64)
        right = cuda.shared.array((DEPTH, TILE), np.float64)
        t = cuda.threadIdx.x
        warp, in_warp = t // (WARP_ROWS * WARP_COLUMNS), t % (WARP_ROWS * WARP_COLUMNS)
        across = EDGE // WARP_COLUMNS
        row = warp // across * WARP_ROWS + in_warp // WARP_COLUMNS
        column = warp % across * WARP_COLUMNS + in_warp % WARP_COLUMNS
        down, along = cuda.blockIdx.x, 0
        if on_diagonal:
            along = down
        else:  # the pair of tiles: (1, 0), (2, 0), (2, 1), (3, 0), ...
            down, rest = 1, cuda.blockIdx.x
            while rest >= down:
                rest -= down
                down += 1
            along = rest
        tile = cuda.local.array((4, 4), np.float64)
        for i in range(4):
            for j in range(4):
                tile[i, j] = 0.0
        start, stop = block_rows(cuda.blockIdx.y, cuda.gridDim.y, A.shape[0])
        for first in range(start, stop, DEPTH):
            cuda.syncthreads()
            depth = unsigned(min(DEPTH, stop - first))  # not a literal: unrolled in full it would not fit into the registers
            taken, place = unsigned(t // TILE), unsigned(t % TILE)
            while taken < depth:  # not a range: Numba counts its steps beforehand, which takes registers
                x = entry(A, unsigned(first) + taken, unsigned(along * TILE) + place)
                right[taken, place] = x
                if not on_diagonal:
                    x = entry(A, unsigned(first) + taken, unsigned(down * TILE) + place)
                left[taken, place] = h[unsigned(first) + taken] * x
                taken += unsigned(THREADS // TILE)
            cuda.syncthreads()
            for k in range(depth):
                for j in range(4):
                    x = right[k, unsigned(tile_place(j, column))]
                    for i in range(4):
                        if not on_diagonal or i // 2 >= j // 2:
                            tile[i, j] += left[k, unsigned(tile_place(i, row))] * x
        for i in range(4):
            for j in range(4):
                p, q = down * TILE + tile_place(i, row), along * TILE + tile_place(j, column)
                if p < A.shape[1] and q < A.shape[1] and q <= p:
                    gram[cuda.blockIdx.y, p, q] = tile[i, j]

    return kernel(fold_gram)


fold_gram_diagonal, fold_gram_below = make_gram(True), make_gram(False)


@kernel
def merge_hessian(gram, vectors, hess):
    """The sum of the splits of `gram`, and the rank-2 term of the rows v/alpha and q/alpha of `vectors`; EDGE threads for each entry."""
    scratch = cuda.shared.array(THREADS, np.float64)
    d, column, group = hess.shape[0], cuda.threadIdx.x % EDGE, cuda.threadIdx.x // EDGE
    for first in range(cuda.blockIdx.x * EDGE, d * d, cuda.gridDim.x * EDGE):
        place = min(first + column, d * d - 1)
        p, q = max(place // d, place % d), min(place // d, place % d)
        total, k = 0.0, group
        while k < gram.shape[0]:
            total += gram[k, p, q]
            k += EDGE
        cuda.syncthreads()
        scratch[cuda.threadIdx.x] = total
        cuda.syncthreads()
        if group == 0 and first + column < d * d:
            other = EDGE + column
            while other < THREADS:
                total += scratch[other]
                other += EDGE
            hess[place // d, place % d] = total - 2.0 * rank_2(vectors[V, p], vectors[Q, p], vectors[V, q], vectors[Q, q])
