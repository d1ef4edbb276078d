"""Units of work: whole groups that together stay in the nearest caches, or a piece of a group that is larger."""

from typing import NamedTuple

import numpy as np

from ..compiling.jit import part, serial
from ..compiling.records import reader, record, room
from ..formulas.records import POINT_ROOM
from ..layouts.panel import ROWS, padded

UNIT_NUMBERS = 2**14  # of A in a unit, 128 kB: two of them, for the next one is prefetched, take half of an L2
MOST_ROWS = 1024  # whose terms then take another 64 kB


class Group(NamedTuple):
    """The numbers of a group that the weights of its rows need, and those that tell how near it is to its pole."""

    shift: float  # M
    k: float  # exp(-M)
    alpha: float  # alpha^
    kappa: float  # sum(e^ + |a^|) / alpha^; of a piece, the sum alone
    slope: float  # d alpha^ / dt along the step to here
    s: float  # <f, c>
    ff: float  # <f, omega f>


class Total(NamedTuple):
    """Sums over the groups of a block."""

    shift: float  # the largest M
    worst: float  # the group with the largest kappa, or one outside the domain
    kappa: float  # that
    step: float  # max |da|
    squares: float  # <c, f - b>
    s: float
    ff: float
    penalty: float
    rising: float  # groups whose alpha was 0 somewhere on the tangent at the end of the step, see `may_cross`
    curvature: float  # |h|


GROUP = record(**dict.fromkeys(Group._fields, np.float64))
TOTAL = record(**dict.fromkeys(Total._fields, np.float64))
GROUP_ROOM, TOTAL_ROOM = room(GROUP), room(TOTAL)
as_group, as_total = reader(GROUP), reader(TOTAL)

# Rows of the room of a unit: numbers of each of its rows and, in the last two, of each of its groups.
SHIFT, K, OVER_ALPHA, S, HALF_FF, U, V_HAT, SIZE, Z, GROUP_SHIFT, GROUP_K = range(11)
FIELDS = 11


class Units(NamedTuple):
    """The division of n rows, whose groups lie together."""

    offsets: np.ndarray  # T + 1: the first row of each group, and n
    starts: np.ndarray  # units + 1: the first row of each unit, and n
    firsts: np.ndarray  # units: its first group
    pieces: np.ndarray  # units: the number of the piece of a group, -1 for whole groups
    edges: np.ndarray  # blocks + 1: the first unit of each block
    large: np.ndarray  # the groups in pieces
    large_pieces: np.ndarray  # and for each of them its first piece, and their number


class Unit(NamedTuple):
    """Rows start : stop of the groups first : last."""

    start: int
    stop: int
    first: int
    last: int
    piece: int


@part
def unit_of(units, k):
    """Unit k."""
    start, stop, first = units.starts[k], units.starts[k + 1], units.firsts[k]
    last = first + 1
    while units.offsets[last] < stop:
        last += 1
    return Unit(start, stop, first, last, units.pieces[k])


@serial
def rows_of_unit(d):
    """The most rows of a unit: whole panels, at least one."""
    return max(ROWS, min(MOST_ROWS, UNIT_NUMBERS // padded(d) // ROWS * ROWS))


@serial
def divide(offsets, cuts, most, starts, firsts, pieces):
    """Fill `starts`, `firsts` and `pieces` as in Units, as far as there is room; returns the number of units, and of pieces.

    No unit has more than `most` rows or goes across any of the `cuts`, where A's rows lie in parts; the last cut is n.
    """
    groups, count, piece, cut = offsets.shape[0] - 1, 0, 0, 0
    t = 0
    while t < groups:
        start, stop = offsets[t], offsets[t + 1]
        while cuts[cut] <= start:
            cut += 1
        if stop - start <= most and stop <= cuts[cut]:  # and the next groups with it, as many as there is room for
            if count < firsts.shape[0]:
                starts[count], firsts[count], pieces[count] = start, t, -1
            count += 1
            end = min(start + most, cuts[cut])
            while t < groups and offsets[t + 1] <= end:
                t += 1
            continue
        while start < stop:
            while cuts[cut] <= start:
                cut += 1
            if count < firsts.shape[0]:
                starts[count], firsts[count], pieces[count] = start, t, piece
            count += 1
            piece += 1
            start = min(start + most, stop, cuts[cut])
        t += 1
    if count < starts.shape[0]:
        starts[count] = offsets[groups]
    return count, piece


def make_units(offsets, d, blocks, cuts=None):
    """The units of groups with these offsets, in blocks of about equally many rows; with cuts, so many blocks between two of them each."""
    n = int(offsets[-1])
    cuts = np.array([n]) if cuts is None else cuts
    most, none = rows_of_unit.py_func(d), np.empty(0, np.int64)
    count, _ = divide(offsets, cuts, most, none, none, none)
    starts, firsts, pieces = np.empty(count + 1, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    divide(offsets, cuts, most, starts, firsts, pieces)
    first = 0
    edges = [0]
    for cut in cuts.tolist():
        wanted = first + (cut - first) * np.arange(1, blocks + 1) // blocks
        edges.extend(np.searchsorted(starts, wanted).tolist())
        first = cut
    of_pieces = firsts[pieces >= 0]
    large, counts = np.unique(of_pieces, return_counts=True)
    return Units(offsets, starts, firsts, pieces, np.array(edges, np.int64), large, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def point_room(units):
    """The numbers of a point: first those of all rows together, as everywhere, then those of each group."""
    return POINT_ROOM + GROUP_ROOM * (len(units.offsets) - 1)
