"""The passes over A on a GPU, as launches of kernels: those of cpu/passes.py and newton/passes.py, with their names and formulas."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numba import config

from ..cpu.blocks import KINDS
from ..formulas.links import RSX
from ..formulas.records import POINT, STATE, R, V
from ..newton.passes import PLANE
from . import rows, sparse, tensor_gram
from .block import EDGE, MOST_BLOCKS, THREADS, WARP, configured, cuda, multiprocessors
from .block import address_of as address_of
from .block import why_unavailable as why_unavailable
from .gram import DEPTH, TILE, fold_gram_below, fold_gram_diagonal, merge_hessian
from .merge import finish_columns, finish_gradient, merge_vectors
from .plane import fold_combination, fold_plane, merge_plane
from .queueing import queue
from .scalar import ByLink
from .share import ROW_WARPS, WIDEST, share_of
from .vectors import (
    add_scaled,
    combine_extremes,
    copy_matrix,
    fold_diagonal,
    fold_domain,
    fold_extremes,
    fold_fill,
    fold_predictions,
    fold_residuals,
    merge_residuals,
    multiply,
    take_column,
    weigh_products,
)

BLOCK_ROWS = THREADS if config.ENABLE_CUDASIM else 96  # at least
RESIDENT = ((4, 4), (8, 3), (math.inf, 2))  # blocks of `rows` on a multiprocessor, for so many columns of a lane: see rows.REGISTERS
VECTOR_NUMBERS = 2**22  # of the d-vectors of all blocks, of one kind: at most


class Workspace(NamedTuple):
    """What the kernels write between passes, on the device; nothing in it but `a`, `h` and `products` grows with n."""

    a: Any  # n: A x at the last x
    h: Any  # 4 n: weights of the Gram matrix, and those of the three d-vectors
    products: Any  # n: of a direction, where d is large
    point: Any  # 1: the Point there, see formulas/records.py
    sums: Any  # blocks: the state of each block, and below its d-vectors
    vectors: Any  # blocks x 4 x d
    combined: Any  # 4 x d
    gram: Any  # splits x (d + 3) x d: partial matrices, and below them partial d-vectors; none without `hessian`
    plane: Any  # blocks x sums: those of the plane search
    link: NamedTuple  # see formulas/links.py; its type decides what is compiled
    stream: Any


def block_count(n, d):
    """How many blocks the n rows are folded in: as many as fit on the GPU at once, where their d-vectors are then a small part of A."""
    most, each = -(-n // BLOCK_ROWS), next(blocks for columns, blocks in RESIDENT if d <= columns * WARP)
    while each > 1 and each * multiprocessors() > most:
        each -= 1
    return max(1, min(each * multiprocessors(), most, VECTOR_NUMBERS // d))


def split_count(n, d):
    """How many parts the rows of the Gram matrix are summed in: as many blocks, and at most 64 MB of partial matrices."""
    if tensor_gram.has_tensor_cores():
        return tensor_gram.split_of(n, d).parts
    tiles = -(-d // TILE)
    return max(1, min(MOST_BLOCKS // (tiles * (tiles + 1) // 2), tensor_gram.PART_BYTES // (8 * d * d), -(-n // (4 * DEPTH))))


def on_stream(stream):
    """A function that allocates an array on the GPU, of that shape and dtype, for work that is queued on a stream."""
    return lambda shape, dtype=np.float64: cuda.device_array(shape, dtype, stream=stream)


def alloc_parts(n, d, stream=0, new=None):
    """Room for the parts of the sums of a Gram matrix."""
    gram = (new or on_stream(stream))((split_count(n, d), d + tensor_gram.RIDERS, d))
    if d > tensor_gram.NARROW:  # then an entry may have fewer parts
        configured(fold_fill, min(MOST_BLOCKS, -(-gram.size // THREADS)), stream)(gram.reshape(gram.size), 0.0)
    return gram


def alloc_gram(n, d, stream=0, new=None):
    """The arrays that only Hessians need: room for the weights h, v, q and r of all rows, and for the parts of the sums."""
    return (new or on_stream(stream))(4 * n), alloc_parts(n, d, stream, new)


def alloc_workspace(n, d, hessian, link=RSX, stream=0, new=None):
    """A workspace for n x d data; without `hessian`, not for value_grad_hess. Its work is queued on `stream`; `new` allocates, see `on_stream`."""
    blocks, new = block_count(n, d), new or on_stream(stream)

    def empty(*shape, dtype=np.float64):
        return new(shape, dtype)

    products = empty(n if d > WIDEST else 0)
    h, gram = alloc_gram(n, d, stream, new) if hessian else (empty(0), empty(0, 0, 0))
    vectors = empty(blocks, KINDS, d), empty(KINDS, d)
    states = empty(1, dtype=POINT), empty(blocks, dtype=STATE)
    return Workspace(empty(n), h, products, *states, *vectors, gram, empty(blocks, PLANE), link, stream)


def alloc_sparse_workspace(A, link=RSX, stream=0, new=None):
    """A workspace for a sparse A; columns are summed over all rows at once, so there are no d-vectors of blocks, and rows are weighed beforehand."""
    (n, d), new = A.shape, new or on_stream(stream)
    h, products, vectors, combined = map(new, (4 * n, n, (1, KINDS, d), (KINDS, d)))
    return alloc_workspace(n, 1, False, link, stream, new)._replace(h=h, products=products, vectors=vectors, combined=combined)


def sparse_of(values, columns, starts, transposed, d):
    """Sparse A on the GPU; `transposed`: its columns in memory, as the places of their entries, their rows and where each column starts."""
    order, rows_of_entries, column_starts = transposed
    bounds, firsts = sparse.parts_of(np.asarray(column_starts, dtype=np.int64))
    by_column = cuda.device_array(values.shape[0], values.dtype)
    configured(sparse.permute, blocks_for(order.size), 0)(values, cuda.to_device(order), by_column)
    sums = cuda.device_array((3, bounds.size - 1), np.float64)
    there = cuda.to_device(np.asarray(rows_of_entries)), cuda.to_device(bounds), cuda.to_device(firsts)
    return sparse.Csr(values, columns, starts, by_column, *there, sums, (starts.shape[0] - 1, d))


def is_sparse(A):
    """Whether A is sparse."""
    return isinstance(A, sparse.Csr)


def blocks_for(threads):
    """Blocks for work on so many threads."""
    return max(1, min(MOST_BLOCKS, -(-threads // THREADS)))


def launch_segments(make, count, entries, work, *args, kinds=1):
    """Queue a kernel of `sparse` for so many rows, columns or parts of columns, with that many entries in all."""
    lanes = sparse.lanes_for(entries / max(1, count))
    blocks = blocks_for(count * lanes)
    launch(make(lanes), (blocks, kinds) if kinds > 1 else blocks, work, *args)


def merge_parts(A, kind, kinds, work, has_largest=False):
    """The sums of all parts of columns, of that many kinds, from `kind` on in the only block of `vectors`."""
    make = functools.partial(sparse.merge, has_largest=has_largest)
    launch_segments(make, A.shape[1], A.sums.shape[1], work, A.sums, A.firsts, kind, work.vectors, kinds=kinds)


def sparse_rows(values, columns, starts, numbers, d):
    """These rows of a sparse A, dense, on the host."""
    out = cuda.to_device(np.zeros((numbers.size, d)))
    configured(sparse.scatter_rows, blocks_for(numbers.size), 0)(values, columns, starts, cuda.to_device(numbers), out)
    return out.copy_to_host()


def launch(kernel, grid, work, *args, threads=THREADS, shared=0):
    """Queue a kernel with that many blocks."""
    if isinstance(kernel, ByLink):
        kernel = kernel.of(type(work.link))
    queue(kernel, grid, work.stream, args, threads, shared)


def launch_rows(kernel, work, *args, parts=1):
    """Queue a kernel of `rows`, for all columns or for `parts` of them."""
    launch(kernel, (spread(work), parts) if parts > 1 else spread(work), work, *args, threads=ROW_WARPS * WARP)


def spread(work):
    """Blocks for work on each row."""
    return work.sums.shape[0]


def parts_of(A, share):
    """Parts of the columns of A, each as wide as the share."""
    return -(-A.shape[1] // share.width)


def fetch(array, work):
    """A device array, on the host, once all queued work is done."""
    out = array.copy_to_host(stream=work.stream)
    if work.stream:
        work.stream.synchronize()
    return out


def fill(out, work, x=math.nan):
    """out = x everywhere."""
    launch(fold_fill, min(MOST_BLOCKS, -(-out.size // THREADS)), work, out.reshape(out.size), x)


def add(out, factor, x, work):
    """out += factor x."""
    launch(add_scaled, spread(work), work, out, factor, x)


def weigh(out, x, work):
    """out *= x."""
    launch(multiply, spread(work), work, out, x)


def extremes(x, work):
    """The least and the largest of n entries, their sum and their sum of squares; with a NaN, both sums are NaN."""
    launch(fold_extremes, spread(work), work, x, work.plane)
    launch(combine_extremes, 1, work, work.plane)
    return fetch(work.plane[0], work)[:4].tolist()


def column(A, j, out, work):
    """out = column j of A."""
    if is_sparse(A):
        fill(out, work, 0.0)
        launch(sparse.scatter_column, spread(work), work, A.by_column, A.rows, A.bounds, A.firsts, j, out)
        return
    launch(take_column, spread(work), work, A, j, out)


def contiguous(A):
    """A matrix on the GPU, C-ordered: a copy."""
    out = cuda.device_array(A.shape, A.dtype)
    configured(copy_matrix, min(MOST_BLOCKS, -(-A.shape[0] // THREADS)), 0)(A, out)
    return out


def widened(x):
    """An n-vector in float64: a copy."""
    out = cuda.device_array(x.shape[0], np.float64)
    configured(tensor_gram.widen, min(MOST_BLOCKS, -(-x.shape[0] // THREADS)), 0)(x, out)
    return out


def complete_point(b, w, work):
    """L and the point, of the blocks' domains."""
    launch(fold_residuals, spread(work), work, work.link, work.a, b, w, work.point, work.sums)
    launch(merge_residuals, 1, work, work.sums, work.point)


def evaluate(a, da, t, b, w, out, work):
    """The point at out = a + t da; with an empty da, at out, which is then a."""
    launch(fold_domain, spread(work), work, work.link, a, da, t, out, work.sums)
    complete_point(b, w, work._replace(a=out))


def evaluate_plane(plane, y, b, w, out, work):
    """The point at out = here + y0 z0 + y1 z1 + y2 z2, see newton/plane.py."""
    launch(fold_combination, spread(work), work, work.link, plane, tuple(map(float, y)), out, work.sums)
    complete_point(b, w, work._replace(a=out))


def plane_derivatives(plane, a, b, w, point, work):
    """The sums of `plane.fold_plane` over all rows, on the host."""
    launch(fold_plane, (spread(work), 2), work, work.link, plane, a, b, w, point, work.plane)
    launch(merge_plane, 1, work, work.plane, work.plane[0])
    return fetch(work.plane[0], work)


def project(A, x, b, w, work):
    """a = A x and the point there: one read of A."""
    share = None if is_sparse(A) else share_of(A)
    if share is None or share.is_part:
        products(A, x, work.a, work)
        evaluate(work.a, work.a[:0], 0.0, b, w, work.a, work)
        return
    launch_rows(rows.sums(share, 0), work, work.link, A, x, b, w, work.a, work.sums, work.vectors)
    complete_point(b, w, work)


def project_grad(A, x, b, w, work):
    """The same, and what `gradient` leaves, in the same read; useless near an exact fit, and for at most WIDEST columns."""
    kinds = KINDS if w.shape[0] > 0 else KINDS - 1
    launch_rows(rows.sums(share_of(A), kinds), work, work.link, A, x, b, w, work.a, work.sums, work.vectors)
    launch(fold_residuals, spread(work), work, work.link, work.a, b, w, work.point, work.sums)
    launch(finish_gradient, A.shape[1], work, work.sums, work.point, work.vectors, kinds, work.combined)


def fold_gradient(A, a, b, w, point, h, work):
    """A^T v/alpha, A^T q/alpha and the gradient of each block in `vectors`, and h of each row unless that is empty."""
    if is_sparse(A):  # whose h is in the workspace
        launch(sparse.weigh_sparse_rows, spread(work), work, work.link, a, b, w, point, work.h)
        launch_segments(sparse.gradient, A.sums.shape[1], A.nnz, work, A.by_column, A.rows, A.bounds, work.h, A.sums)
        merge_parts(A, V, R + 1 - V, work)
        return
    share = share_of(A)
    launch_rows(rows.gradient(share), work, work.link, A, a, b, w, point, h, work.vectors, parts=parts_of(A, share))


def gradient(A, a, b, w, point, h, work):
    """A^T v/alpha, A^T q/alpha and the gradient in `combined`, and h of each row unless that is empty."""
    fold_gradient(A, a, b, w, point, h, work)
    launch(merge_vectors, A.shape[1], work, work.vectors, 0, V, R + 1, work.combined)


def products(A, x, out, work):
    """out = A x."""
    if is_sparse(A):
        launch_segments(sparse.products, A.shape[0], A.nnz, work, A.values, A.columns, A.starts, x, out)
        return
    launch_rows(rows.products(share_of(A)), work, A, x, out)


def fold_transposed(A, y, work):
    """A^T y of each block in the third of `vectors`."""
    if is_sparse(A):
        launch_segments(sparse.transposed, A.sums.shape[1], A.nnz, work, A.by_column, A.rows, A.bounds, y, A.sums)
        merge_parts(A, R, 1, work)
        return
    share = share_of(A)
    launch_rows(rows.transposed(share), work, A, y, work.vectors, parts=parts_of(A, share))


def transposed(A, y, work):
    """A^T y in the third row of `combined`."""
    fold_transposed(A, y, work)
    launch(merge_vectors, A.shape[1], work, work.vectors, 0, R, R + 1, work.combined)


def columns(A, work):
    """The sums of squares and the largest entries of the columns, in `combined`."""
    if is_sparse(A):
        launch_segments(sparse.columns, A.sums.shape[1], A.nnz, work, A.by_column, A.bounds, A.sums)
        merge_parts(A, 0, 2, work, has_largest=True)
    else:
        share = share_of(A)
        launch_rows(rows.columns(share), work, A, work.vectors, parts=parts_of(A, share))
    launch(finish_columns, A.shape[1], work, work.vectors, work.combined)


def fold_curvature(A, p, a, b, w, point, da, work):
    """A^T (h * A p) of each block in the third of `vectors`, and da = A p unless da is empty.

    One read of A; two of more than WIDEST columns, and of sparse A.
    """
    share = None if is_sparse(A) else share_of(A)
    if share is not None and not share.is_part:
        launch_rows(rows.curvature(share), work, work.link, A, p, a, b, w, point, work.vectors, da)
        return
    image = da if da.shape[0] else work.products
    products(A, p, image, work)
    launch(weigh_products, spread(work), work, work.link, image, a, b, w, point, work.products)
    fold_transposed(A, work.products, work)


def curvature(A, p, a, b, w, point, da, work):
    """A^T (h * A p) in the third row of `combined`, see `fold_curvature`."""
    fold_curvature(A, p, a, b, w, point, da, work)
    launch(merge_vectors, A.shape[1], work, work.vectors, 0, R, R + 1, work.combined)


def launch_tensor(A, h, riders, work):
    """Queue the kernel for the tensor cores: A^T diag(h) A in parts, and with riders A^T of the three vectors after h."""
    (kernel, threads, shared), blocks, args = tensor_gram.fold(A, h, riders, work.gram)
    launch(kernel, blocks, work, *args, threads=threads, shared=shared)


def weigh_gram(A, h, work):
    """A^T diag(h) A in parts, in `gram`; TypeError for sparse A."""
    if is_sparse(A):
        raise TypeError("A is sparse, and no Gram matrix of it is formed on a GPU; take products with the Hessian (hess_vec), or A in memory")
    if tensor_gram.has_tensor_cores():
        if h.dtype != np.float64 or h.strides != (8,):
            launch(tensor_gram.widen, spread(work), work, h, work.h)
            h = work.h
        launch_tensor(A, h, 0, work)
        return
    tiles, splits = -(-A.shape[1] // TILE), work.gram.shape[0]
    launch(fold_gram_diagonal, (tiles, splits), work, A, h, work.gram)
    if tiles > 1:
        launch(fold_gram_below, (tiles * (tiles - 1) // 2, splits), work, A, h, work.gram)


def fold_derivatives(A, a, b, w, point, work):
    """A^T diag(h) A in parts, in `gram`; returns the parts of A^T v/alpha, A^T q/alpha and the gradient, and their first row: one read of A.

    Two without tensor cores.
    """
    if is_sparse(A) or not tensor_gram.has_tensor_cores():
        fold_gradient(A, a, b, w, point, work.h, work)
        weigh_gram(A, work.h, work)
        return work.vectors, 0
    launch(tensor_gram.weigh_rows, spread(work), work, work.link, a, b, w, point, work.h)
    launch_tensor(A, work.h, tensor_gram.RIDERS, work)
    return work.gram, A.shape[1]


def derivatives(A, a, b, w, point, work):
    """A^T v/alpha, A^T q/alpha and the gradient in `combined`, and A^T diag(h) A in parts, in `gram`."""
    vectors, first = fold_derivatives(A, a, b, w, point, work)
    launch(merge_vectors, A.shape[1], work, vectors, first, V, R + 1, work.combined)


def finish_hessian(hess, work):
    """The Hessian from the parts of the Gram matrix and the vectors in `combined`."""
    launch(merge_hessian, min(MOST_BLOCKS, -(-hess.size // EDGE)), work, work.gram, work.combined, hess)


def diagonal(a, b, w, point, D, work):
    """D = v^2/alpha^2 + e (c - s)/alpha + w^2/2."""
    launch(fold_diagonal, spread(work), work, work.link, a, b, w, point, D)


def predictions(a, point, f, v, work):
    """f and v/alpha."""
    launch(fold_predictions, spread(work), work, work.link, a, point, f, v)
