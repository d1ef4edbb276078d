"""Layouts of A registered from outside: how each is recognised, and how kernels read its rows.

A new layout is a file with one `Layout`, registered. Kernels then read it panel by panel, as they do the layouts of strided.py and csr.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Layout(NamedTuple):
    """One layout of A.

    A has `shape`, `dtype` and `ndim`; `A[rows]`, with a slice or an array of row numbers, returns these rows as an array.
    """

    name: str  # in a plan
    words: str  # how A is read, in a plan's sentence
    recognises: Callable[[Any], bool]  # whether an object that the caller passes has this layout
    source_of: Callable[[Any], Any] = lambda A: A  # the object that kernels read, of type `source`; for array data, not a copy
    # A NamedTuple of arrays and of n and d, a type of its own; None where an engine of this name reads A itself.
    source: Any = None
    # Jitted fill(source, start, rows, out): the first rows of `out` become rows start : start + rows, padded with zeros.
    fill: Any = None
    in_parts: bool = False  # whether only parts of A are in memory at a time


_layouts: dict[str, Layout] = {}


def register(layout: Layout) -> None:
    """Accept A in this layout from now on. Kernels for it are compiled in each process: the disk cache does not know the source of `fill`."""
    if layout.source is not None:
        if not {"n", "d"} <= set(layout.source._fields):
            raise TypeError(f"the source of layout {layout.name!r} has the fields {layout.source._fields}; it must have n and d, the shape of A")
        layout.source.cacheable = False
    _layouts[layout.name] = layout


def layout_of(A: Any) -> Layout | None:
    """The registered layout of A, if it has one."""
    return next((layout for layout in _layouts.values() if layout.recognises(A)), None) if _layouts else None


def named(name: str) -> Layout | None:
    """The registered layout of that name."""
    return _layouts.get(name)


def fill_of(source: type) -> Any:
    """The function that packs the rows of a source of this type; None where no registered layout has it."""
    return next((layout.fill for layout in _layouts.values() if layout.source is source), None)
