"""How a warp shares rows of A, and what its lanes do with them: a row is read once and stays in registers.

A row goes to `lanes` lanes, each of which reads `loads` times `vector` numbers: 16 bytes, where rows begin on 16 bytes. As many rows as fit lie side
by side in a warp, `groups` of them, and a lane has `rows` slots: slot r of a group is row r * groups + group. The slots' products with x are added
up so that each lane ends with other rows, and one exponential serves all the rows of a step.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .block import WARP, address_of
from .halves import HALVES, name_of
from .ptx import straight

WORD, MOST_APART = 16, 2**31  # bytes of a load, at most, and from a row to the next
MOST_HELD, MOST_COLUMNS, MOST_PRODUCTS = 16, 16, 4  # numbers that a lane holds, of all its rows and of one of them; products that it ends with
FEW, PART = 8, 2 * WARP  # numbers of a row in a lane where columns are contiguous; columns of a part of such an A that is too wide
HALF_VECTOR = 4  # numbers of 16 bits of a load, at most, where d is small
WIDEST = MOST_COLUMNS * WARP  # columns of a row in the registers of a warp
ROW_WARPS = 4  # of a block


class Share(NamedTuple):
    """How a warp shares rows. Kernels are compiled for each."""

    number: str  # of A, see halves.name_of
    vector: int  # numbers of a load
    lanes: int  # of a row, a power of two
    loads: int  # of a lane for a row
    rows: int  # slots of a lane, a power of two
    is_part: bool = False  # whether A has more columns than these
    warp: int = WARP

    @property
    def columns(self):
        """Numbers of a row in a lane."""
        return self.loads * self.vector

    @property
    def size(self):
        """Bytes of a number."""
        return 2 if self.number in HALVES else np.dtype(self.number).itemsize

    @property
    def pack(self):
        """Numbers in a register that holds a part of a row."""
        return 2 if self.number in HALVES and self.vector > 1 else 1

    @property
    def cell(self):
        """The type of such a register."""
        return np.uint32 if self.number in HALVES else np.dtype(self.number).type

    @property
    def held(self):
        """These registers of a lane."""
        return self.rows * self.columns // self.pack

    @property
    def width(self):
        """Columns for which the lanes of a row have room."""
        return self.lanes * self.columns

    @property
    def groups(self):
        """Rows side by side."""
        return self.warp // self.lanes

    @property
    def step(self):
        """Rows at a time."""
        return self.rows * self.groups

    @property
    def products(self):
        """Products that a lane ends with."""
        return max(1, self.rows // self.lanes)

    @property
    def copies(self):
        """Lanes that end with the same products."""
        return max(1, self.lanes // self.rows)

    def place(self, j):
        """The column of a lane's j-th number, counted from its first one."""
        return j // self.vector * self.lanes * self.vector + j % self.vector

    def source(self, slot):
        """The lane of a group that ends with a slot's product, and as which of its products."""
        first = slot // self.products * self.products
        return next(lane for lane in range(self.lanes) if first_slot(lane, self.rows, self.lanes) == first), slot - first


def first_slot(lane, rows, lanes):
    """The slot of the first product that a lane ends with after `gather`; the next ones follow."""
    slot, left, half = 0, rows, lanes // 2
    while half > 0:
        if left > 1:
            left //= 2
            if lane & half:
                slot += left
        half //= 2
    return slot


@functools.cache
def share_for(number, vector, d, by_columns=False, warp=WARP):
    """The share of rows of d columns, from which one load takes `vector` numbers, or of columns in which rows lie side by side.

    Then few lanes take a row, and a load of a warp a column or a few of as many rows as possible.
    """
    widest = MOST_COLUMNS * warp
    if number in HALVES and d <= HALF_VECTOR * warp:  # as few columns for a lane, and so as many blocks, as for other numbers
        vector = min(vector, HALF_VECTOR)
    width, lanes = min(d, widest), 1
    if by_columns and d > widest:
        width = PART
    while lanes < warp and lanes * (FEW if by_columns else vector) < width:
        lanes *= 2
    loads = -(-width // (lanes * vector))
    rows, most = 1, min(MOST_HELD // (2 if by_columns else 1) // (loads * vector), MOST_PRODUCTS * lanes)
    while 2 * rows <= most:
        rows *= 2
    return Share(number, vector, lanes, loads, rows, d > width, warp)


def share_of(A):
    """The share of a matrix by where it lies: loads of 16 bytes where all of them begin on 16 bytes, smaller ones else."""
    size, (across, along) = A.dtype.itemsize, A.strides
    if abs(across) >= MOST_APART:
        raise ValueError(f"the rows of A on the GPU are {across} bytes apart; pass a copy in which they are less than {MOST_APART} bytes apart")
    vector = WORD // size if along == size else 1
    while vector > 1 and (address_of(A) | across | A.shape[1] * size) % (vector * size):
        vector //= 2
    return share_for(name_of(A.dtype), vector, A.shape[1], abs(across) < abs(along))


SUM, LARGEST = "add", "larger"  # how numbers of a column are joined: operations of `ptx`


class Routines(NamedTuple):
    """What lanes do, see `routines`."""

    fetch: Callable
    take: Callable
    dot: Callable
    gather: Callable
    accumulate: Callable
    scale: Callable
    put: Callable
    measure: Callable


@functools.cache
def parts(share, joins=()):
    """What lanes do, as functions for kernels; `sums` are joined in these ways, one for each kind. Local arrays stay in registers."""
    return Routines(*map(straight, routines(share, joins)))


def routines(share, joins):
    """The same, by the operations `on` of `ptx`."""
    C, R, V, pack, kinds = share.columns, share.rows, share.vector, share.pack, len(joins)

    def numbers(on, rows, r):
        """The numbers of slot r, each widened when it is asked for."""
        for k in range(r * C // pack, (r + 1) * C // pack):
            yield from on.widened(rows[k], share.number, pack)

    def fetch(on, rows, A, base, group, last, column, d):
        """rows[r, j] = A[base + row of slot r, column + place of j], `pack` of them in one.

        A row beyond `last` is that one, columns beyond d are the first.
        """
        for r in range(R):
            row = on.least(on.offset(group, r * share.groups), last)
            for load in range(share.loads):
                at = on.offset(column, share.place(load * V))
                if share.is_part or load == share.loads - 1:
                    at = on.within(at, d)
                for e, x in enumerate(on.words(A, base, row, at, V)):
                    rows[(r * C + load * V) // pack + e] = x

    def take(on, xs, x, column, d):
        """xs[j] = x[column + place of j], 0 beyond d."""
        for j in range(C):
            at = on.offset(column, share.place(j))
            xs[j] = on.pick(on.is_below(at, d), on.entry(x, on.within(at, d)), 0.0)

    def dot(on, partial, rows, xs):
        """partial[r] += the part of <row, x> that this lane has."""
        for r in range(R):
            total = partial[r]
            for j, number in enumerate(numbers(on, rows, r)):
                total = on.fma(number, xs[j], total)
            partial[r] = total

    def gather(on, products, partial, lane):
        """products = the sums of `partial` over the lanes of a row, for the slots from `first_slot` on: a lane keeps half of its slots each time."""
        sums, half = [partial[r] for r in range(R)], share.lanes // 2
        while half > 0:
            m = len(sums) // 2
            if m:
                is_upper = on.has_bit(lane, half)
                kept = [on.pick(is_upper, sums[i + m], sums[i]) for i in range(m)]
                sent = [on.pick(is_upper, sums[i], sums[i + m]) for i in range(m)]
            else:
                kept = sent = sums
            sums = [on.add(x, on.swapped(y, half)) for x, y in zip(kept, sent, strict=True)]
            half //= 2
        for k, x in enumerate(sums):
            products[k] = x

    def accumulate(on, sums, rows, weights):
        """sums[kind, j] += weight of the row times its j-th number; weights[kind, k] belong to the k-th product of a lane."""
        for r in range(R):
            lane, k = share.source(r)
            row = list(numbers(on, rows, r))
            for kind in range(kinds):
                weight = weights[kind * share.products + k]
                if share.lanes > 1:
                    weight = on.taken(weight, lane, share.lanes)
                for j in range(C):
                    sums[kind * C + j] = on.fma(row[j], weight, sums[kind * C + j])

    def scale(on, sums, factors):
        """sums[kind] *= factors[kind], where a factor 0 drops even an inf."""
        for kind in range(kinds):
            is_kept = on.is_positive(factors[kind])
            for j in range(C):
                sums[kind * C + j] = on.pick(is_kept, on.multiply(factors[kind], sums[kind * C + j]), 0.0)

    def put(on, sums, table, column, is_mine, is_first):
        """table[kind, column + place of j] = sums[kind, j] of all rows side by side, joined to what is there unless that is the first."""
        at, found = [], []
        for kind, join in enumerate(joins):
            for j in range(C):
                total, half = sums[kind * C + j], share.lanes
                while half < share.warp:
                    total = getattr(on, join)(total, on.swapped(total, half))
                    half *= 2
                at.append(on.offset(column, kind * share.width + share.place(j)))
                found.append(on.pick(is_first, total, getattr(on, join)(on.entry(table, at[-1]), total)))
        on.store(is_mine, table, at, found)

    def measure(on, sums, rows, group, last):
        """sums[0] += the squares of the rows, sums[1] = their largest sizes."""
        for r in range(R):
            is_there = on.is_below(on.offset(group, r * share.groups), on.offset(last, 1))
            for j, x in enumerate(numbers(on, rows, r)):
                sums[j] = on.fma(x, on.pick(is_there, x, 0.0), sums[j])
                sums[C + j] = on.larger(sums[C + j], on.absolute(x))

    return Routines(fetch, take, dot, gather, accumulate, scale, put, measure)
