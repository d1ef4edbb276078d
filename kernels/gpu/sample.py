"""Rows drawn on a GPU to stand for all in A^T diag(h) A: the formulas of cpu/sample.py, without atomics, so the same rows for the same numbers.

A sum over the rows before a row is that over the blocks before its block, and then over the strips of rows before that of its thread. All threads
form the sums at their ends alike, and none exceeds the next, so each row that is drawn has a place of its own.
"""

import functools
import math

import numpy as np

from ..cpu.sample import ROUNDS
from .block import MOST_BLOCKS, THREADS, WARPS, block_rows, cuda, device, kernel
from .passes import fetch, fill, launch, launch_rows, products, spread
from .ptx import straight
from .reduction import block_sum
from .rows import compiled, make_places, make_steps, sizes
from .share import ROW_WARPS, parts, routines, share_of

STARTS = THREADS + 1
DIRECTIONS = 8  # of the estimate of a leverage: the lanes of a register on the CPU

# -- leverages --------------------------------------------------------------------------------------------------


@functools.cache
def squares(share):
    """For ||B A_i||^2. B lies in shared memory as the lanes read it, side by side; a share that is a part of the columns has too many of them."""
    routine, lanes, vector, C, R, count = routines(share, ()), share.lanes, share.vector, share.columns, share.rows, share.products
    places, steps, fetch_rows, number = make_places(share), make_steps(share), parts(share).fetch, share.cell
    held, groups, step, size = sizes(share)[0], share.groups, share.step, DIRECTIONS * C * lanes

    def add(on, found, rows, table, lane, own):
        row = [x for k in range(R * C // share.pack) for x in on.widened(rows[k], share.number, share.pack)]
        for direction in range(DIRECTIONS):
            xs = [on.entry(table, on.offset(own, (direction * C + j) * lanes)) for j in range(C)]
            partial, product = [], [None] * count
            for r in range(R):
                total = on.multiply(row[r * C], xs[0])
                for j in range(1, C):
                    total = on.fma(row[r * C + j], xs[j], total)
                partial.append(total)
            routine.gather(on, product, partial, lane)
            for k in range(count):
                found[k] = on.fma(product[k], product[k], found[k])

    add_squares = straight(add)

    def fold_squares(A, B, out):
        """out_i = ||B A_i||^2, B of DIRECTIONS x d: one read of A."""
        table = cuda.shared.array(size, np.float64)
        rows, found = cuda.local.array(held, number), cuda.local.array(count, np.float64)
        n, d = A.shape
        lane, group, column, own, is_only = places()
        for k in range(cuda.threadIdx.x, size, cuda.blockDim.x):
            j, mine = k // lanes % C, k % lanes
            there = mine * vector + j // vector * lanes * vector + j % vector
            table[k] = B[k // (C * lanes), there] if there < d else 0.0
        cuda.syncthreads()
        at, stop = steps(n)
        while at < stop:
            fetch_rows(rows, A, at * step, group, min(n - 1 - at * step, step), column, d)
            for k in range(count):
                found[k] = 0.0
            add_squares(found, rows, table, lane, np.int64(lane % lanes))
            for k in range(count):
                i = at * step + own + k * groups
                if is_only and i < n:
                    out[i] = found[k]
            at += ROW_WARPS

    return compiled(share)(fold_squares)


@kernel
def add_square(out, x):
    """out += x^2."""
    for i in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        out[i] += x[i] * x[i]


def reads_of_scores(A):
    """How often `scores` reads A."""
    return DIRECTIONS if share_of(A).is_part else 1


def scores(A, B, out, work):
    """out_i = ||B A_i||^2, B of DIRECTIONS x d: one read of A, and of a very wide A one for each direction."""
    share = share_of(A)
    if not share.is_part:
        launch_rows(squares(share), work, A, B, out)
        return
    fill(out, work, 0.0)
    for k in range(DIRECTIONS):
        products(A, B[k], work.products, work)
        launch(add_square, spread(work), work, out, work.products)


# -- probabilities ----------------------------------------------------------------------------------------------


@kernel
def fold_importance(h, scores, c, sums):
    """How many rows of each block are certain to be drawn for the scale c, and the sum of the others' |h_i| scores_i."""
    scratch = cuda.shared.array(WARPS, np.float64)
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, h.shape[0])
    certain, rest = 0.0, 0.0
    for i in range(start + cuda.threadIdx.x, stop, THREADS):
        importance = abs(h[i]) * scores[i]
        if c < math.inf and c * importance >= 1.0:
            certain += 1.0
        else:
            rest += importance
    certain, rest = block_sum(scratch, certain), block_sum(scratch, rest)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x, 0], sums[cuda.blockIdx.x, 1] = certain, rest


@kernel
def merge_importance(sums):
    """The same of all blocks, in sums[0]. One block."""
    scratch = cuda.shared.array(WARPS, np.float64)
    certain, rest = 0.0, 0.0
    for k in range(cuda.threadIdx.x, sums.shape[0], THREADS):
        certain, rest = certain + sums[k, 0], rest + sums[k, 1]
    certain, rest = block_sum(scratch, certain), block_sum(scratch, rest)
    if cuda.threadIdx.x == 0:
        sums[0, 0], sums[0, 1] = certain, rest


def probability_scale(h, scores, wanted, work):
    """The c of cpu/sample.py: the host sees two sums a round."""
    c = math.inf
    for _ in range(ROUNDS):
        launch(fold_importance, spread(work), work, h, scores, c, work.plane)
        launch(merge_importance, 1, work, work.plane)
        certain, rest = fetch(work.plane[0], work)[:2].tolist()
        grown = (wanted - certain) / rest if rest > 0.0 else c
        if not (c == math.inf or grown > c * (1.0 + 1e-9)):
            break
        c = grown
    return c


@device
def probability_of(h, score, c):
    """With which a row is drawn."""
    importance = abs(h) * score
    return min(1.0, c * importance) if importance > 0.0 else 0.0


@device
def strip(n):
    """The rows of a thread."""
    start, stop = block_rows(cuda.blockIdx.x, cuda.gridDim.x, n)
    first, last = block_rows(cuda.threadIdx.x, THREADS, stop - start)
    return start + first, start + last


@device
def strip_sum(h, scores, c):
    """The sum of the probabilities of a thread's rows."""
    start, stop = strip(h.shape[0])
    total = 0.0
    for i in range(start, stop):
        total += probability_of(h[i], scores[i], c)
    return total


@kernel
def fold_probabilities(h, scores, c, sums):
    """The sum of the probabilities of each block."""
    scratch = cuda.shared.array(WARPS, np.float64)
    total = block_sum(scratch, strip_sum(h, scores, c))
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x, 0] = total


# -- rows -------------------------------------------------------------------------------------------------------


@device
def sum_before(scratch, sums, block):
    """The sum over the blocks before one; it never falls from block to block, since each sum of two rounds alike."""
    total, k = 0.0, cuda.threadIdx.x
    while k < block:
        total += sums[k, 0]
        k += THREADS
    return block_sum(scratch, total)


@device
def drawn_before(passed, offset, most):
    """How many of offset, offset + 1, ... are less than a sum of probabilities."""
    return min(np.int64(math.ceil(passed - offset)), most) if passed > offset else 0


@kernel
def draw_rows(h, scores, c, offset, sums, rows, weights):
    """The rows that `cpu.sample.draw` takes, in order, and their weights; what is left of both arrays has weight 0."""
    scratch = cuda.shared.array(WARPS, np.float64)
    starts = cuda.shared.array(STARTS, np.float64)
    t, n, most = cuda.threadIdx.x, h.shape[0], rows.shape[0]
    passed, top = sum_before(scratch, sums, cuda.blockIdx.x), sum_before(scratch, sums, cuda.blockIdx.x + 1)
    own = strip_sum(h, scores, c)
    starts[t] = own
    cuda.syncthreads()
    if t == 0:  # one thread, so that no sum exceeds the next
        for k in range(THREADS):
            own = starts[k]
            starts[k] = min(passed, top)
            passed += own
        starts[STARTS - 1] = top
    cuda.syncthreads()
    start, stop = strip(n)
    passed, end = starts[t], starts[t + 1]
    place = drawn_before(passed, offset, most)
    for i in range(start, stop):
        probability = probability_of(h[i], scores[i], c)
        passed = min(passed + probability, end) if i + 1 < stop else end
        weight = h[i] / probability if probability > 0.0 else 0.0
        after = drawn_before(passed, offset, most)
        while place < after:
            rows[place], weights[place] = i, weight
            weight = 0.0  # where rounding gives a certain row two places
            place += 1
    if cuda.blockIdx.x + 1 == cuda.gridDim.x:
        for k in range(drawn_before(top, offset, most) + t, most, THREADS):
            rows[k], weights[k] = 0, 0.0


def draw(h, scores, wanted, offset, rows, weights, work):
    """About `wanted` different rows, in order, and the weights that make their Gram matrix right on average."""
    c = probability_scale(h, scores, wanted, work)
    launch(fold_probabilities, spread(work), work, h, scores, c, work.plane)
    launch(draw_rows, spread(work), work, h, scores, c, offset, work.plane, rows, weights)


@kernel
def take_rows(A, rows, out):
    """out = A[rows]; a block for each row."""
    k = cuda.blockIdx.x
    while k < rows.shape[0]:
        for j in range(cuda.threadIdx.x, A.shape[1], THREADS):
            out[k, j] = A[rows[k], j]
        k += cuda.gridDim.x


def take(A, rows, out, work):
    """out = A[rows]."""
    launch(take_rows, min(out.shape[0], MOST_BLOCKS), work, A, rows, out)
