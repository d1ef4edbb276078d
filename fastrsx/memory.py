"""Room in memory, asked for before it is needed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

LARGE = 2**28  # bytes; below, asking what is free would cost more than it saves


def _cgroup_limits() -> Iterator[int]:
    """The limits of this process's control groups, of either version."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, name = Path("/sys/fs/cgroup"), "memory.max"
            elif "memory" in controllers.split(","):
                root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
            else:
                continue
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # no limit is the word "max"
                    yield int((folder / name).read_text())
                if folder == root:
                    break


def free() -> int:
    """The bytes that this process could get: what the machine has free, unless a control group or a resource limit allows less."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    limits = [memory.available + swap.free, *_cgroup_limits()]
    if sys.platform != "win32":
        import resource

        limits += [limit for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA) if (limit := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY]
    return min(limits)


@contextmanager
def room_for(what: str, numbers: int) -> Iterator[None]:
    """Allocate so many float64 numbers in the body; MemoryError, with the size, where they would not fit."""
    size = 8 * numbers
    needs = f"{what} needs {size / 1e9:.3g} GB"
    if size > LARGE and size > free():
        raise MemoryError(f"{needs}, and {free() / 1e9:.3g} GB are free")
    try:
        yield
    except MemoryError:
        raise MemoryError(f"{needs}, which this process did not get") from None
