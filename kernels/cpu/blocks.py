"""Blocks: rows are folded in blocks whose number depends on n and d alone.

Each block folds its rows in order and the blocks combine in order, so the answer has the same bits on any number of threads. With more threads than
blocks, several threads share the Gram matrix of a block, each with strips of its columns: who sums an entry does not matter to its bits.
"""

from typing import NamedTuple

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.links import RSX
from ..formulas.records import POINT_ROOM, STATE_ROOM, as_state
from ..layouts.panel import ROWS, padded, panel_rows
from ..registers.gram import packed_blocks
from ..registers.simd import LANES

KINDS, WEIGHTS = 4, 5  # of d-vectors, and of weights of a row: see formulas/records.py
MOST_BLOCKS = 128
GRAM_NUMBERS, GRAM_SHARE = 2**21, 32  # of partial Gram matrices: 16 MB, or this part of A where that is more
FEWEST_BLOCKS = 8  # where d is so large that they take more
SMALL, LARGE = 4, 32  # panels of a block: at least; and beyond MANY blocks, where another Gram matrix to clear and to combine would show
MANY = 32
LEAST_SHARED, MOST_PARTS = 128, 16  # columns of a Gram matrix that threads share, and threads for each
MOST_IDLE = 0.1  # of the threads
PACKED_UP_TO = 1024  # columns; beyond, the packed panels of a Gram matrix come with it, for they may be as large as A


@serial
def block_count(n, d):
    """How many blocks the n rows are folded in: enough for many threads, while their partial Gram matrices take little memory."""
    most = max(FEWEST_BLOCKS, min(MOST_BLOCKS, max(GRAM_NUMBERS, n * d // GRAM_SHARE) // max(1, padded(d) ** 2)))
    small, large = (n + SMALL * ROWS - 1) // (SMALL * ROWS), n // (LARGE * ROWS)
    return max(1, min(most, max(min(small, MANY), large)))


def part_count(blocks, d, threads):
    """How many threads share each block's Gram matrix: the fewest with which nearly all of them work."""
    parts = 1
    while d >= LEAST_SHARED and parts < MOST_PARTS and blocks * parts < (1.0 - MOST_IDLE) * threads * -(-blocks * parts // threads):
        parts += 1
    return parts


@serial
def block_rows(k, blocks, n):
    """First row of block k and of the next, on panel boundaries."""
    panels = (n + ROWS - 1) // ROWS
    return min(n, panels * k // blocks * ROWS), min(n, panels * (k + 1) // blocks * ROWS)


class Workspace(NamedTuple):
    """What the kernels write between passes; nothing in it but `a` grows with n."""

    a: np.ndarray  # n: A x at the last x
    point: np.ndarray  # 10: the Point there, see formulas/records.py
    sums: np.ndarray  # blocks x 9: the state of each block, and below its d-vectors and Gram matrix
    vectors: np.ndarray  # blocks x 4 x padded d
    gram: np.ndarray  # blocks x padded d x padded d, blocks x 0 x 0 without; for large d, padded d x padded d
    buffers: np.ndarray  # parts of blocks x rows of a panel x padded d: packed panels
    packed: np.ndarray  # parts of blocks x packed blocks x rows of a panel x 8: weighted panels, see registers/gram.py
    weights: np.ndarray  # parts of blocks x 5 x rows of a panel
    link: NamedTuple  # see formulas/links.py; its type decides what is compiled


class Scratch(NamedTuple):
    """The part of a workspace that a pass divides among its blocks; without `gram`, so that one compilation serves any."""

    sums: np.ndarray
    vectors: np.ndarray
    buffers: np.ndarray
    packed: np.ndarray
    weights: np.ndarray


class Block(NamedTuple):
    """The rows of a block, start : stop, and its share of the scratch; or that of a thread that has a part of its Gram matrix."""

    number: int
    part: int
    parts: int
    start: int
    stop: int
    sums: np.record  # its state
    vectors: np.ndarray  # 4 x padded d
    buffer: np.ndarray  # rows of a panel x padded d
    packed: np.ndarray
    weights: np.ndarray  # 5 x rows of a panel


@part
def scratch_of(work):
    """The scratch of a workspace."""
    return Scratch(work.sums, work.vectors, work.buffers, work.packed, work.weights)


@part
def share(scratch, k, n):
    """Block k of n rows."""
    start, stop = block_rows(k, scratch.vectors.shape[0], n)
    return Block(k, 0, 1, start, stop, as_state(scratch.sums[k]), scratch.vectors[k], scratch.buffers[k], scratch.packed[k], scratch.weights[k])


@part
def share_part(scratch, t, n):
    """Part t of the parts of all blocks."""
    parts = scratch.buffers.shape[0] // scratch.vectors.shape[0]
    k = t // parts
    start, stop = block_rows(k, scratch.vectors.shape[0], n)
    sums, vectors = as_state(scratch.sums[k]), scratch.vectors[k]
    return Block(k, t - k * parts, parts, start, stop, sums, vectors, scratch.buffers[t], scratch.packed[t], scratch.weights[t])


@serial
def alloc_workspace(n, d, hessian, link=RSX):
    """A workspace for n x d data; without `hessian`, not for value_grad_hess."""
    blocks, wide = block_count(n, d), padded(d)
    gram = wide if hessian else 0
    packed = packed_blocks(wide) if hessian or wide <= PACKED_UP_TO else 0
    return Workspace(
        np.empty(n),
        np.zeros(POINT_ROOM),
        np.zeros((blocks, STATE_ROOM)),
        np.empty((blocks, KINDS, wide)),
        np.empty((blocks, gram, gram)),
        np.empty((blocks, panel_rows(d), wide)),
        np.empty((blocks, packed, ROWS, LANES)),
        np.zeros((blocks, WEIGHTS, panel_rows(d))),
        link,
    )


def workspace_size(n, d, panels=True):
    """The numbers in a workspace without `hessian`, and without `panels` in one of sparse A."""
    blocks, wide = block_count.py_func(n, d), padded.py_func(d)
    packed = packed_blocks.py_func(wide) if wide <= PACKED_UP_TO else 0
    rows = panel_rows.py_func(d)
    return n + blocks * (STATE_ROOM + KINDS * wide + (rows * wide + ROWS * LANES * packed if panels else 0) + WEIGHTS * rows)


def part_size(blocks, d):
    """The numbers that another part of each block takes in `shared`."""
    wide = padded.py_func(d)
    return blocks * (panel_rows.py_func(d) * (wide + WEIGHTS) + ROWS * LANES * packed_blocks.py_func(wide))


def shared(work, parts):
    """The workspace with room for several threads at each block's Gram matrix; parts from `part_count`."""
    if parts == 1:
        return work
    arrays = {name: getattr(work, name) for name in ("buffers", "packed", "weights")}
    return work._replace(**{name: np.zeros((parts * len(array), *array.shape[1:])) for name, array in arrays.items()})


@serial
def alloc_sparse_workspace(n, d, link=RSX):
    """A workspace for sparse A (see layouts/csr.py), and not for value_grad_hess: nothing in it is padded d x rows of a panel."""
    blocks, wide = block_count(n, d), padded(d)
    none = np.empty((blocks, 0, 0))
    return Workspace(
        np.empty(n),
        np.zeros(POINT_ROOM),
        np.zeros((blocks, STATE_ROOM)),
        np.empty((blocks, KINDS, wide)),
        none,
        none,
        np.empty((blocks, 0, 0, LANES)),
        np.zeros((blocks, WEIGHTS, panel_rows(d))),
        link,
    )


@serial
def alloc_wide_workspace(n, d, link=RSX):
    """A workspace for value_grad_hess and weighted_gram of large d: one Gram matrix, not one for each block."""
    work, wide = alloc_workspace(n, d, False, link), padded(d)
    packed = np.empty((work.vectors.shape[0], packed_blocks(wide), ROWS, LANES))
    return Workspace(work.a, work.point, work.sums, work.vectors, np.empty((wide, wide)), work.buffers, packed, work.weights, work.link)
