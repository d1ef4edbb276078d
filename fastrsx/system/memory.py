"""Room in memory, checked before it is used."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

LARGE = 2**28  # bytes; below, asking what is free would cost more than it saves
CGROUPS, MOUNT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


class Version(NamedTuple):
    """The files in which a version of Linux's control groups reports memory, and the part of the use that it can reclaim."""

    limit: str
    use: str
    reclaimable: tuple[str, ...]  # lines of memory.stat: the page cache and the like


VERSION_1 = Version("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"))
VERSION_2 = Version("memory.max", "memory.current", ("active_file", "inactive_file", "slab_reclaimable"))


def _left_in_cgroups() -> Iterator[int]:
    """The bytes that each control group of this process has left, of either version: its limit minus the use that cannot be reclaimed."""
    with suppress(OSError):
        for line in CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, version = MOUNT, VERSION_2
            elif "memory" in controllers.split(","):
                root, version = MOUNT / "memory", VERSION_1
            else:
                continue
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # no limit is the word "max"
                    yield max(0, int((folder / version.limit).read_text()) - _use(folder, version))
                if folder == root:
                    break


def _use(folder: Path, version: Version) -> int:
    """The bytes that a control group uses, without those that the kernel takes back when it needs them."""
    with suppress(OSError, ValueError):
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        taken_back = sum(int(size) for name, size in lines if name in version.reclaimable)
        return int((folder / version.use).read_text()) - taken_back
    return 0


def _left_to_process() -> Iterator[int]:
    """The bytes that this process's resource limits leave it."""
    if sys.platform != "win32":
        import resource

        used = psutil.Process().memory_info()
        for kind, size in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", 0))):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                yield max(0, limit - size)


def free() -> int:
    """The bytes that this process could get: what the machine has free, unless a control group or a resource limit leaves less."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return min([memory.available + swap.free, *_left_in_cgroups(), *_left_to_process()])


class room_for:  # noqa: N801
    """Allocate so many float64 numbers in the body; MemoryError, with the size, where they would not fit."""

    def __init__(self, what: str, numbers: int) -> None:
        self.what, self.size = what, 8 * numbers
        if self.size > LARGE and self.size > (left := free()):
            raise MemoryError(f"{what} needs {self.size / 1e9:.3g} GB, and {left / 1e9:.3g} GB are free")

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, MemoryError):
            raise MemoryError(f"{self.what} needs {self.size / 1e9:.3g} GB, which this process did not get") from None
