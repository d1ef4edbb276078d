"""Blocks: rows are folded in blocks whose number depends on n and d alone.

Each block folds its rows in order and the blocks combine in order, so the answer has the same bits on any number of threads.
"""

from typing import NamedTuple

import numpy as np

from ..compiling.jit import part, serial
from ..formulas.links import RSX
from ..formulas.records import POINT_ROOM, STATE_ROOM, as_state
from ..layouts.panel import ROWS, padded
from ..registers.simd import LANES
from ..registers.tile import packed_blocks

KINDS = 4  # of weights of a row, and of d-vectors: see formulas/records.py


@serial
def block_count(n, d):
    """How many blocks the n rows are folded in: enough for many threads, and at most 16 MB of partial Gram matrices up to d = 512."""
    most = max(8, min(32, 2**21 // max(1, padded(d) ** 2)))
    return max(1, min(most, (n + 4 * ROWS - 1) // (4 * ROWS)))


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
    buffers: np.ndarray  # blocks x rows of a panel x padded d: packed panels
    packed: np.ndarray  # blocks x packed blocks x rows of a panel x 8: weighted panels, see registers/tile.py
    weights: np.ndarray  # blocks x 4 x rows of a panel
    link: NamedTuple  # see formulas/links.py; its type decides what is compiled


class Scratch(NamedTuple):
    """The part of a workspace that a pass divides among its blocks; without `gram`, so that one compilation serves any."""

    sums: np.ndarray
    vectors: np.ndarray
    buffers: np.ndarray
    packed: np.ndarray
    weights: np.ndarray


class Block(NamedTuple):
    """The rows of a block, start : stop, and its share of the scratch."""

    start: int
    stop: int
    sums: np.record  # its state
    vectors: np.ndarray  # 4 x padded d
    buffer: np.ndarray  # rows of a panel x padded d
    packed: np.ndarray
    weights: np.ndarray  # 4 x rows of a panel


@part
def scratch_of(work):
    """The scratch of a workspace."""
    return Scratch(work.sums, work.vectors, work.buffers, work.packed, work.weights)


@part
def share(scratch, k, n):
    """Block k of n rows."""
    start, stop = block_rows(k, scratch.vectors.shape[0], n)
    return Block(start, stop, as_state(scratch.sums[k]), scratch.vectors[k], scratch.buffers[k], scratch.packed[k], scratch.weights[k])


@serial
def alloc_workspace(n, d, hessian, link=RSX):
    """A workspace for n x d data; without `hessian`, not for value_grad_hess."""
    blocks, wide = block_count(n, d), padded(d)
    gram = wide if hessian else 0
    return Workspace(
        np.empty(n),
        np.zeros(POINT_ROOM),
        np.zeros((blocks, STATE_ROOM)),
        np.empty((blocks, KINDS, wide)),
        np.empty((blocks, gram, gram)),
        np.empty((blocks, ROWS, wide)),
        np.empty((blocks, packed_blocks(wide), ROWS, LANES)),
        np.zeros((blocks, KINDS, ROWS)),
        link,
    )


def workspace_size(n, d, panels=True):
    """The numbers in a workspace without `hessian`, and without `panels` in one of sparse A."""
    blocks, wide = block_count.py_func(n, d), padded.py_func(d)
    return n + blocks * (STATE_ROOM + KINDS * wide + (ROWS * (wide + LANES * packed_blocks.py_func(wide)) if panels else 0) + KINDS * ROWS)


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
        np.zeros((blocks, KINDS, ROWS)),
        link,
    )


@serial
def alloc_wide_workspace(n, d, link=RSX):
    """A workspace for value_grad_hess and weighted_gram of large d: one Gram matrix, not one for each block."""
    work, wide = alloc_workspace(n, d, False, link), padded(d)
    return Workspace(work.a, work.point, work.sums, work.vectors, np.empty((wide, wide)), work.buffers, work.packed, work.weights, work.link)
