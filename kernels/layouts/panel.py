"""Panels: some rows of A in the form that the micro-kernel reads.

A panel is a matrix, float64 or float32, whose rows are a whole number of registers wide and can be read eight at a time. For a C-ordered A it is A
itself: where d is no multiple of eight, the last register of a row runs into the next row, and the products with its entries count for nothing:
they are multiplied by the zeros behind x, or their sums lie beyond d, where nobody reads. Only where such a register would run beyond A, and for
other layouts, rows are packed into a buffer and padded with zeros. All later code sees panels only, so a new layout of A needs only a function
that fills the buffer (registry.py). Sums over rows are the exception: sparse rows need no panel for them.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array

from ..compiling.jit import serial
from ..registers import products, sums
from ..registers.simd import LANES, load_first, named, splat, store
from . import csr, registry
from .strided import Strided, pack_strided

ROWS = 128  # of a panel: with its weights it stays in the nearest caches while it is read several times
MOST_ROWS, MOST_NUMBERS = 512, 4096  # of a panel of few columns


@serial
def padded(count):
    """A number of columns or rows rounded up to whole registers."""
    return (count + LANES - 1) // LANES * LANES


@serial
def panel_rows(d):
    """The rows of a panel of d columns where no Gram matrix is summed: each loop over a panel costs its start, so narrow ones are longer."""
    rows = ROWS
    while rows < MOST_ROWS and 2 * rows * padded(d) <= MOST_NUMBERS:
        rows *= 2
    return rows


@serial
def is_in_place(A, start, rows):
    """Whether these rows of an array are already a panel: whole registers of them end within A."""
    n, d = A.shape
    return rows % LANES == 0 and (start + rows - 1) * d + padded(d) <= n * d


@intrinsic
def rows_in_place(typingctx, A, start, rows):
    """The panel of these rows of a C-ordered A: its rows overlap where d is no multiple of eight. It does not keep A alive."""
    kind = types.Array(A.dtype, 2, "A", readonly=True)

    def codegen(context, builder, sig, args):
        source = context.make_array(A)(context, builder, args[0])
        row, number = cgutils.unpack_tuple(builder, source.strides)
        d = cgutils.unpack_tuple(builder, source.shape)[1]
        width = builder.and_(builder.add(d, d.type(LANES - 1)), d.type(-LANES))
        start = builder.bitcast(source.data, ir.IntType(8).as_pointer())
        data = builder.bitcast(builder.gep(start, [builder.mul(args[1], row)]), source.data.type)
        panel = context.make_array(kind)(context, builder)
        populate_array(panel, data, (args[2], width), (row, number), source.itemsize, None)
        return panel._getvalue()

    return kind(A, types.int64, types.int64), codegen


@serial
def single(buffer):
    """A float64 buffer as a float32 one."""
    return buffer.reshape(buffer.size).view(np.float32)[: buffer.size].reshape(buffer.shape)


@serial
def pack_rows(A, start, rows, out):
    """The first rows of `out`, padded with zeros, are rows start : start + rows of A."""
    d = A.shape[1]
    whole = d // LANES * LANES
    for i in range(rows):
        for j in range(0, whole, LANES):
            store(out, i, j, load_first(A, start + i, j, LANES))
        if whole < d:
            store(out, i, whole, load_first(A, start + i, whole, d - whole))


@serial
def clear_rows(out, first, last):
    """Fill the rows first : last with zeros."""
    for i in range(first, last):
        for j in range(0, out.shape[1], LANES):
            store(out, i, j, splat(0.0))


# -- loaders ----------------------------------------------------------------------------------------------------


def load_panel(A, start, rows, buffer):
    """The panel of rows start : start + rows of A; `buffer` is ROWS x padded(d), float64."""
    raise NotImplementedError("compiled only")


def loaded_panel(A, start, rows, buffer):
    """The panel that `load_panel` returned, while the buffer still holds it."""
    raise NotImplementedError("compiled only")


@serial
def load_array(A, start, rows, buffer):
    """C-ordered float64: in place, or packed."""
    if is_in_place(A, start, rows):
        return rows_in_place(A, start, rows)
    pack_rows(A, start, rows, buffer)
    clear_rows(buffer, rows, padded(rows))
    return buffer


@serial
def load_single(A, start, rows, buffer):
    """C-ordered float32, likewise."""
    if is_in_place(A, start, rows):
        return rows_in_place(A, start, rows)
    out = single(buffer)
    out[: padded(rows)] = 0.0
    out[:rows, : A.shape[1]] = A[start : start + rows]
    return out


_FILLS = {Strided: pack_strided, csr.Csr: csr.densify}  # layouts whose rows are packed; registered layouts are in registry.py


def _packing(kind):
    """The loader of a layout whose rows are packed into the buffer."""
    fill = _FILLS.get(kind) or registry.fill_of(kind)
    if fill is None:
        raise TypingError(f"A is a {kind.__name__}, and kernels cannot read its rows; register its layout (layouts/registry.py)")

    def load(A, start, rows, buffer):
        fill(A, start, rows, buffer)
        clear_rows(buffer, rows, padded(rows))
        return buffer

    return named(f"load_{kind.__name__}", load)


def _loader(A):
    if isinstance(A, types.Array):
        if A.layout != "C" or A.dtype not in (types.float64, types.float32):
            raise TypingError(f"A must be a C-ordered array of float64 or float32, got {A}; np.ascontiguousarray makes one")
        return load_single if A.dtype == types.float32 else load_array
    return None


@overload(load_panel)
def _load_panel(A, start, rows, buffer):
    load = _loader(A)
    if load is None:
        return _packing(A.instance_class)
    return lambda A, start, rows, buffer: load(A, start, rows, buffer)


@overload(loaded_panel)
def _loaded_panel(A, start, rows, buffer):
    load = _loader(A)
    if load is load_array:
        return lambda A, start, rows, buffer: rows_in_place(A, start, rows) if is_in_place(A, start, rows) else buffer
    if load is load_single:
        return lambda A, start, rows, buffer: rows_in_place(A, start, rows) if is_in_place(A, start, rows) else single(buffer)
    return lambda A, start, rows, buffer: buffer


# -- sums over rows, of a panel or of sparse rows ---------------------------------------------------------------


def view_rows(A, start, rows, buffer):
    """The rows start : start + rows of A for the sums below: the panel, or the sparse rows themselves."""
    raise NotImplementedError("compiled only")


@overload(view_rows)
def _view_rows(A, start, rows, buffer):
    if isinstance(A, types.Array) or A.instance_class is not csr.Csr:
        return lambda A, start, rows, buffer: load_panel(A, start, rows, buffer)
    return lambda A, start, rows, buffer: csr.SparseRows(A.values, A.indices, A.starts, start)


def _by_rows(dense):
    """That function for a panel, and that of its name in csr for sparse rows: chosen when a call to it is compiled."""
    name = dense.__name__
    sparse = getattr(csr, name)

    def of_rows(P, *args):
        raise NotImplementedError("compiled only")

    @overload(of_rows, strict=False)
    def choose(P, *args):
        if isinstance(P, types.Array):
            return named(f"{name}_of_panel", lambda P, *args: dense(P, *args))
        return named(f"{name}_of_sparse_rows", lambda P, *args: sparse(P, *args))

    return of_rows


row_products = _by_rows(products.row_products)
row_squares = _by_rows(products.row_squares)
add_row_sums = _by_rows(sums.add_row_sums)
add_row_sum = _by_rows(sums.add_row_sum)
add_columns = _by_rows(sums.add_columns)
