"""Room in memory, asked for before it is needed."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

LARGE = 2**28  # bytes; below, asking what is free would cost more than it saves


@contextmanager
def room_for(what: str, numbers: int) -> Iterator[None]:
    """Allocate so many float64 numbers in the body; MemoryError, with the size, where they would not fit."""
    size = 8 * numbers
    needs = f"{what} needs {size / 1e9:.3g} GB"
    if size > LARGE:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        if size > memory.available + swap.free:
            raise MemoryError(f"{needs}, and {(memory.available + swap.free) / 1e9:.3g} GB are free")
    try:
        yield
    except MemoryError:
        raise MemoryError(f"{needs}, which this process did not get") from None
