"""The Gram matrix A^T diag(h) A on tensor cores, and with `riders` the d-vectors A^T v, A^T q and A^T r in the same read of A.

Rows of A and their weights go through a ring of stages in shared memory, copied while the stages before are multiplied. A warp keeps its part of the
matrix in registers: up to NARROW columns the whole triangle, with a ring of its own and some of the rows; of wider A a block has 2 x HALF columns by
as many, a panel by a panel, and shares a ring of two panels. Riders are one more factor, of 8 columns; 3 are used.

A lane reads two numbers side by side of each 16 columns. So of each 16 columns, the even ones are one tile of 8, and the odd ones the next.
"""

import functools
import math
import operator
from typing import NamedTuple

import numpy as np
from numba import config
from numba.cuda import types

from .block import address_of, block_rows, cuda, device, kernel, multiprocessors
from .halves import in_float64, name_of, stored
from .scalar import linked_kernel
from .tensor import LANES, afresh, straight
from .vectors import row_weights

TENSOR_CORES = ((8, 0), (9, 0), (10, 0))  # compute capabilities with fast ones for float64 and 160 KB of shared memory for a block
RIDERS = 3
GROUPS, NARROW_WARPS = (2, 2) if config.ENABLE_CUDASIM else (4, 8)  # 16 columns are a group
WIDE_WARPS, WIDE_DEPTH = 8, 16
HALF = NARROW = 16 * GROUPS
QUARTER, PANEL = HALF // 2, 2 * HALF
COSTS = 8.0, 10.0, 5.0  # of a row, about, for two panels, for two on the diagonal, and for a lone one
MOST_WAVES = 4  # blocks, for each that runs at once
LEAST_ROWS = 128  # of a block
PART_BYTES = 2**26  # of partial sums, at most


def has_tensor_cores():
    """Whether the GPU has those that these kernels are made for."""
    return bool(config.ENABLE_CUDASIM) or cuda.get_current_device().compute_capability in TENSOR_CORES


def folding(threads):
    """A decorator of kernels: one block on a multiprocessor, with all registers."""
    return cuda.jit if config.ENABLE_CUDASIM else cuda.jit(launch_bounds=(threads, 1), lto=False)


# -- copies -----------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """How A lies in memory."""

    itemsize: int
    size: int  # bytes of a copy, on as many bytes: those of a number, unless rows are contiguous
    is_down: bool  # whether the threads of a warp go down a column, since numbers lie so
    is_bfloat16: bool = False

    @property
    def number(self):
        """The numbers of A, see halves.name_of."""
        return "bfloat16" if self.is_bfloat16 else f"<f{self.itemsize}"


def source_of(A):
    """That of an array on the GPU."""
    itemsize, (down, along), is_bfloat16 = A.dtype.itemsize, A.strides, name_of(A.dtype) == "bfloat16"
    if along != itemsize and A.shape[1] > 1:
        return Source(itemsize, itemsize, abs(down) < abs(along), is_bfloat16)
    size = 16
    while (address_of(A) | down) % size:
        size //= 2
    return Source(itemsize, size, False, is_bfloat16)


class Ring(NamedTuple):
    """Stages in shared memory: of each `depth` rows of A, and their weights after the rows of all stages."""

    columns: int
    depth: int
    stages: int
    itemsize: int
    kinds: int  # of weights, for each of the panels

    @property
    def stride(self):
        """Numbers from a row to the next: so that lanes which load at once meet all banks."""
        if self.itemsize == 2:
            return self.columns + (16 if self.columns > 16 else 0)
        return self.columns + (4 if self.itemsize == 8 else 8)

    @property
    def rows(self):
        """Numbers of A in all stages."""
        return self.stages * self.depth * self.stride

    @property
    def weights(self):
        """Numbers of weights in all stages."""
        return self.stages * self.kinds * self.depth


def stages_of(itemsize):
    """Stages that fit."""
    return 4 if itemsize == 8 else 6


def make_fetch(ring, columns, source, threads):
    """A function that starts to copy rows row : row + depth of A, `columns` of them from `first` on; zeros from row `stop` and column d on."""
    size, itemsize, depth, stride = source.size, source.itemsize, ring.depth, ring.stride
    each = size // itemsize
    pieces = columns // each
    busy = min(threads, pieces * depth)  # the others have nothing to copy
    down = min(depth, busy) if source.is_down else busy // min(pieces, busy)
    along = busy // down
    is_down, downs, alongs = source.is_down, depth // down, pieces // along
    copy = straight(lambda on, there, place, A, i, j, count: on.copy(size, there, place, A, (i, j), count))

    @device
    def fetch(S, place, A, row, stop, first, thread):
        t = afresh(thread)
        r, piece = (t % down, t // down) if is_down else (t // along, t % along)
        n, d = A.shape
        for l in range(alongs):
            j = (piece + l * along) * each
            inside = min(max((d - first - j) * itemsize, 0), size)
            column = first + j if inside > 0 else 0
            for k in range(downs):
                i = row + r + k * down
                copy(t, S, place + (r + k * down) * stride + j, A, min(i, n - 1), column, inside if i < stop else 0)

    @device
    def fetch_by_some(S, place, A, row, stop, first, thread):
        if thread < busy:
            fetch(S, place, A, row, stop, first, thread)

    return fetch if busy == threads else fetch_by_some


def make_fetch_weights(ring, kinds, threads):
    """The same for the weights: `kinds` vectors of n numbers, one after the other in h."""
    depth = ring.depth
    turns = -(-kinds * depth // threads)
    copy = straight(lambda on, there, place, h, i, count: on.copy(8, there, place, h, (i,), count))

    @device
    def fetch_weights(H, place, h, n, row, stop, thread):
        t = afresh(thread)
        for turn in range(turns):
            k = t + turn * threads
            if k < kinds * depth:
                i = row + k % depth
                copy(thread, H, place + k, h, k // depth * n + min(i, n - 1), 8 if i < stop else 0)

    return fetch_weights


def make_wait(most):
    """Functions that end a group of copies, and that wait until at most that many groups are under way."""
    return straight(lambda on: on.commit()), straight(lambda on: on.wait(most))


# -- tiles ------------------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """What a warp has of the matrix, in products of 16 x 8: a triangle of 16 `groups` columns, or as many rows by half the columns; and riders."""

    groups: int
    is_triangle: bool
    riders: int

    @property
    def products(self):
        """(i, j) of each: the i-th 16 rows, the j-th tile of 8 columns."""
        return [(i, j) for i in range(self.groups) for j in range(2 * i + 2 if self.is_triangle else self.groups)]

    @property
    def numbers(self):
        """Numbers of a lane."""
        return 4 * (len(self.products) + (self.groups if self.riders else 0))


def pairs(on, S, place, groups):
    """The numbers of this lane of each 16 columns."""
    return [x for k in range(groups) for x in on.load_pair(S, place + 16 * k)]


def make_multiply(tile, ring, depth):
    """A function that adds the products of `depth` rows of a stage: columns from `left` on by those from `right` on, and riders from `ridden` on."""
    stride, kind = ring.stride, ring.depth

    def multiply(on, acc, S, left, right, ridden, H, weight):
        own = on.thread * stride + on.group * 2
        sums = [on.get(acc, k) for k in range(tile.numbers)]
        for row in range(0, depth, 4):
            h = on.load(H, weight + on.thread + row)
            lefts = pairs(on, S, left + own + row * stride, tile.groups)
            rights = lefts if tile.is_triangle else pairs(on, S, right + own + row * stride, tile.groups // 2)
            terms = [(lefts[2 * i : 2 * i + 2], rights[j] * h) for i, j in tile.products]
            if tile.riders:
                vector = on.only(on.group < RIDERS, on.load(H, weight + on.group % RIDERS * kind + on.thread + (kind + row)))
                riding = lefts if tile.is_triangle else pairs(on, S, ridden + own + row * stride, tile.groups)
                terms += [(riding[2 * i : 2 * i + 2], vector) for i in range(tile.groups)]
            for k, (a, b) in enumerate(terms):
                sums[4 * k : 4 * k + 4] = on.product(a, b, sums[4 * k : 4 * k + 4])
        for k, x in enumerate(sums):
            on.set(acc, k, x)

    return straight(multiply)


def make_store(tile):
    """A function that stores a tile: its part below the diagonal, from that row and column of the matrix on, and riders from column `ridden` on."""

    def store(on, acc, gram, part, d, row, column, ridden):
        for k, (i, j) in enumerate(tile.products):
            for c in range(4):
                p = row + on.group * 2 + (16 * i + c // 2)
                q = column + on.thread * 4 + (16 * (j // 2) + j % 2 + 2 * (c % 2))
                on.put((p < d) & (q <= p), gram, (part, p, q), on.get(acc, 4 * k + c))
        for i in range(tile.groups if tile.riders else 0):
            for c in range(4):
                p, rider = ridden + on.group * 2 + (16 * i + c // 2), on.thread * 2 + c % 2
                on.put((p < d) & (rider < RIDERS), gram, (part, d + rider, p), on.get(acc, 4 * (len(tile.products) + i) + c))

    return straight(store)


def make_clear(numbers):
    """A function that sets the numbers of a lane to 0."""

    def clear(on, acc):
        for k in range(numbers):
            on.set(acc, k, 0.0)

    return straight(clear)


def make_add(numbers):
    """Functions that leave the numbers of a warp in shared memory, and that add those which another one left there."""

    def leave(on, acc, room, place):
        for k in range(numbers):
            on.write(room, place + on.lane + LANES * k, on.get(acc, k))

    def add(on, acc, room, place):
        for k in range(numbers):
            on.set(acc, k, on.get(acc, k) + on.load(room, place + on.lane + LANES * k))

    return straight(leave), straight(add)


# -- at most NARROW columns -------------------------------------------------------------------------------------


def narrow_ring(groups, itemsize, riders):
    """The ring of a warp: more rows in a stage of fewer columns."""
    return Ring(16 * groups, min(16, 32 // groups), stages_of(itemsize), itemsize, 1 + riders)


class Folding(NamedTuple):
    """A kernel, and how it is launched."""

    kernel: object
    threads: int
    shared: int  # bytes


@functools.cache
def narrow(groups, source, riders):
    """Sums over some of the rows, for A of at most 16 * `groups` columns: each warp takes every NARROW_WARPS-th stage, and they add up in a tree."""
    tile, ring, warps = Tile(groups, True, riders), narrow_ring(groups, source.itemsize, riders), NARROW_WARPS
    depth, stages, stride, kinds, ring_S, ring_H = ring.depth, ring.stages, ring.stride, ring.kinds, ring.rows, ring.weights
    first_H = warps * ring_S * source.itemsize // 8
    number, numbers = stored(source.number), tile.numbers
    fetch, fetch_weights = make_fetch(ring, 16 * groups, source, LANES), make_fetch_weights(ring, kinds, LANES)
    multiply, store, clear = make_multiply(tile, ring, depth), make_store(tile), make_clear(numbers)
    leave, add = make_add(numbers)
    commit, wait = make_wait(stages - 2)

    @folding(warps * LANES)
    def fold_narrow(A, h, gram):
        S, H = cuda.shared.array(0, number), cuda.shared.array(0, types.float64)
        acc = cuda.local.array(numbers, np.float64)
        lane, warp = cuda.threadIdx.x % LANES, cuda.threadIdx.x // LANES
        n, d = A.shape
        first, last = block_rows(cuda.blockIdx.x, cuda.gridDim.x, (n + depth - 1) // depth)
        at_S, at_H = warp * ring_S, first_H + warp * ring_H
        clear(lane, acc)
        ahead = first + warp
        for s in range(stages - 1):
            if ahead < last:
                fetch(S, at_S + s * depth * stride, A, ahead * depth, n, 0, lane)
                fetch_weights(H, at_H + s * kinds * depth, h, n, ahead * depth, n, lane)
            commit(lane)
            ahead += warps
        now, then = 0, stages - 1  # the stage that is multiplied, and the one that is free
        chunk = first + warp
        while chunk < last:
            wait(lane)
            cuda.syncwarp()
            if ahead < last:
                fetch(S, at_S + then * depth * stride, A, ahead * depth, n, 0, lane)
                fetch_weights(H, at_H + then * kinds * depth, h, n, ahead * depth, n, lane)
            commit(lane)
            place = at_S + now * depth * stride
            multiply(lane, acc, S, place, place, place, H, at_H + now * kinds * depth)
            then = now
            now = now + 1 if now + 1 < stages else 0
            ahead += warps
            chunk += warps
        half = warps // 2
        while half > 0:
            cuda.syncthreads()
            if half <= warp < 2 * half:
                leave(lane, acc, H, (warp - half) * numbers * LANES)
            cuda.syncthreads()
            if warp < half:
                add(lane, acc, H, warp * numbers * LANES)
            half //= 2
        if warp == 0:
            store(lane, acc, gram, cuda.blockIdx.x, d, 0, 0, 0)

    return Folding(fold_narrow, warps * LANES, 8 * max(first_H + warps * ring_H, warps // 2 * numbers * LANES))


# -- more columns -----------------------------------------------------------------------------------------------


@device
def triangle_place(k):
    """Row and column of the k-th pair of panels below the diagonal: (1, 0), (2, 0), (2, 1), (3, 0), ..."""
    down = 1
    while k >= down:
        k -= down
        down += 1
    return down, k


@device
def job_of(block, panels, below, diagonal, lone):
    """The panels of a block, left and right; the parts of the rows for either, and how many; whether it is on the diagonal.

    Two panels that meet below the diagonal, or that each meet themselves; or the last panel alone, which meets itself over two parts of the rows.
    """
    pairs_below, pairs_on = panels * (panels - 1) // 2, panels // 2
    if block < pairs_below * below:
        left, right = triangle_place(block // below)
        return left, right, block % below, block % below, below, False
    block -= pairs_below * below
    if block < pairs_on * diagonal:
        left = block // diagonal * 2
        return left, left + 1, block % diagonal, block % diagonal, diagonal, True
    block -= pairs_on * diagonal
    return panels - 1, panels - 1, 2 * block, 2 * block + 1, 2 * lone, True


@device
def warp_place(warp, on_diagonal):
    """Whether a warp has a triangle, and of which panel; the first of its rows and of its columns in the stage."""
    if not on_diagonal:
        return False, 0, warp // 4 * HALF, PANEL + warp % 4 * QUARTER
    if warp < 4:
        return True, warp // 2, warp * HALF, warp * HALF
    side = (warp - 4) // 2  # what the two triangles leave of a panel
    return False, side, side * PANEL + HALF, side * PANEL + warp % 2 * QUARTER


@device
def ride_of(thread):
    """The first column of the stage of which a warp below the triangles has the riders."""
    return (afresh(thread) // LANES - 4) * HALF


# What a block needs of its job now and then is in shared memory, since registers are few: of the left panel, and of the right one.
FIRST, ROW, STOP, PART = 0, 2, 4, 6  # its first column; the first row, and the last; which part of the rows that is


@functools.cache
def wide(source, riders):
    """Sums over some of the rows, for two panels. Of two warps on the same tensor cores, one starts copies before a stage, one in its middle."""
    triangle, rest, ridden = Tile(GROUPS, True, 0), Tile(GROUPS, False, 0), Tile(GROUPS, False, riders)
    kinds, threads = 1 + riders, WIDE_WARPS * LANES
    ring = Ring(2 * PANEL, WIDE_DEPTH, stages_of(source.itemsize), source.itemsize, 2 * kinds)
    depth, stages, stride, weights, has_riders = ring.depth, ring.stages, ring.stride, kinds * ring.depth, riders > 0
    half = depth // 2
    first_H = ring.rows * source.itemsize // 8
    number, numbers = stored(source.number), max(triangle.numbers, ridden.numbers)
    fetch, fetch_weights = make_fetch(ring, PANEL, source, threads), make_fetch_weights(ring, kinds, threads)
    multiply, multiply_rest, multiply_ridden = (make_multiply(tile, ring, half) for tile in (triangle, rest, ridden))
    store, store_rest, store_ridden = (make_store(tile) for tile in (triangle, rest, ridden))
    clear = make_clear(numbers)
    commit, wait = make_wait(stages - 2)

    @device
    def fetch_stage(S, H, A, h, job, stage, chunk, t):
        """Start to copy a stage: rows of the left panel, and rows of the right one."""
        for side in range(2):
            row, stop = job[ROW + side] + chunk * depth, job[STOP + side]
            fetch(S, stage * depth * stride + side * PANEL, A, row, stop, job[FIRST + side], t)
            fetch_weights(H, first_H + (2 * stage + side) * weights, h, A.shape[0], row, stop, t)

    @folding(threads)
    def fold_wide(A, h, below, diagonal, lone, gram):
        S, H = cuda.shared.array(0, number), cuda.shared.array(0, types.float64)
        job = cuda.shared.array(8, types.int64)
        acc = cuda.local.array(numbers, np.float64)
        t = cuda.threadIdx.x
        lane, warp = t % LANES, t // LANES
        n, d = A.shape
        clear(lane, acc)
        left, right, part_left, part_right, parts, on_diagonal = job_of(cuda.blockIdx.x, (d + PANEL - 1) // PANEL, below, diagonal, lone)
        chunks = (n + depth - 1) // depth
        first_left, last_left = block_rows(part_left, parts, chunks)
        first_right, last_right = block_rows(part_right, parts, chunks)
        count = max(last_left - first_left, last_right - first_right)
        if t == 0:
            job[FIRST], job[ROW], job[STOP], job[PART] = left * PANEL, first_left * depth, min(last_left * depth, n), part_left
            job[FIRST + 1], job[ROW + 1], job[STOP + 1], job[PART + 1] = right * PANEL, first_right * depth, min(last_right * depth, n), part_right
        cuda.syncthreads()
        is_triangle, side, row, column = warp_place(warp, on_diagonal)
        for s in range(stages - 1):
            if s < count:
                fetch_stage(S, H, A, h, job, s, s, t)
            commit(lane)
        now, then = 0, stages - 1  # the stage that is multiplied, and the one that is free
        for chunk in range(count):
            wait(lane)
            cuda.syncthreads()
            place, weight = now * depth * stride, first_H + (2 * now + side) * weights
            for part in range(2):  # of the stage
                if part == warp // 4:
                    if chunk + stages - 1 < count:
                        fetch_stage(S, H, A, h, job, then, chunk + stages - 1, t)
                    commit(lane)
                if is_triangle:
                    multiply(lane, acc, S, place + row, place + column, 0, H, weight)
                elif has_riders and on_diagonal:
                    multiply_ridden(lane, acc, S, place + row, place + column, place + ride_of(t), H, weight)
                else:
                    multiply_rest(lane, acc, S, place + row, place + column, 0, H, weight)
                place += half * stride
                weight += half
            then = now
            now = now + 1 if now + 1 < stages else 0
        part = job[PART + side]
        p, q = job[FIRST + row // PANEL] + row % PANEL, job[FIRST + column // PANEL] + column % PANEL
        if is_triangle:
            store(lane, acc, gram, part, d, p, q, 0)
        elif has_riders and on_diagonal:
            store_ridden(lane, acc, gram, part, d, p, q, job[FIRST + side] + ride_of(t) % PANEL)
        else:
            store_rest(lane, acc, gram, part, d, p, q, 0)

    return Folding(fold_wide, threads, 8 * (first_H + ring.weights))


# -- how many parts ---------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """How many blocks have some of the rows, for each kind of job; and how many blocks there are."""

    below: int
    diagonal: int
    lone: int
    blocks: int

    @property
    def parts(self):
        """Partial sums of an entry, at most; the last are zeros where there are fewer."""
        return max(self.below, self.diagonal, 2 * self.lone)


def split_of(n, d):
    """Blocks that end at about the same time, where no entry has more parts than the rows or the memory allow."""
    return split_on(multiprocessors(), n, d)


@functools.cache
def split_on(count, n, d):
    """The same on so many multiprocessors."""
    most = max(1, PART_BYTES // (8 * d * (d + RIDERS)))
    if d <= NARROW:
        blocks = min(count, most, -(-n // LEAST_ROWS))
        return Split(0, blocks, 0, blocks)
    panels = -(-d // PANEL)
    counts = panels * (panels - 1) // 2, panels // 2, panels % 2
    most = min(most, -(-n // LEAST_ROWS))

    def parts(longest):
        """The least parts of each kind of job with which none takes longer."""
        return [min(most, math.ceil(cost / longest)) if jobs else 0 for jobs, cost in zip(counts, COSTS, strict=True)]

    def seconds(chosen):
        """In units: the time of the longest job, as often as blocks follow each other."""
        longest = max(cost / k for k, cost in zip(chosen, COSTS, strict=True) if k)
        return longest * math.ceil(sum(map(operator.mul, counts, chosen)) / count)

    lengths = {cost / k for cost in COSTS for k in range(1, min(most, MOST_WAVES * count) + 1)}
    candidates = [parts(length) for length in sorted(lengths, reverse=True)]
    best = min(candidates, key=lambda chosen: (round(seconds(chosen), 9), sum(chosen)))
    below, diagonal, lone = best
    return Split(below, diagonal, lone, sum(map(operator.mul, counts, best)))


def fold(A, h, riders, gram):
    """The kernel for A, its blocks, and its arguments."""
    n, d = A.shape
    split = split_of(n, d)
    if d <= NARROW:
        groups = 1
        while 16 * groups < d:
            groups *= 2
        return narrow(groups, source_of(A), riders), split.blocks, (A, h, gram)
    return wide(source_of(A), riders), split.blocks, (A, h, split.below, split.diagonal, split.lone, gram)


# -- weights -----------------------------------------------------------------------------------------------------


@linked_kernel
def weigh_rows(link, a, b, w, point, out):
    """h of all rows, and then v/alpha, q/alpha and r: 4 n numbers."""
    n = a.shape[0]
    for i in range(cuda.grid(1), n, cuda.gridsize(1)):
        row = row_weights(link, a, b, w, point, i)
        out[i], out[n + i], out[2 * n + i], out[3 * n + i] = row.h, row.v, row.q, row.r


@kernel
def widen(h, out):
    """out = h, from smaller or strided numbers."""
    for i in range(cuda.grid(1), h.shape[0], cuda.gridsize(1)):
        out[i] = in_float64(h[i])
