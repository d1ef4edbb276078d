"""The compiled kernels on disk."""

from pathlib import Path
from typing import NamedTuple

HASH = "[0-9a-f]" * 16  # those in the name of a file


class Folder(NamedTuple):
    """The contents of a directory of the cache."""

    path: Path
    is_writable: bool
    kernels: int
    stale: int  # of the kernels: of another source, version or CPU, so of no use to this process
    megabytes: float

    @property
    def place(self) -> str:
        """The path, and whether it is only read."""
        return f"{self.path}{'' if self.is_writable else ' (read only)'}"

    def __str__(self) -> str:
        stale = f", {self.stale} of them stale" if self.stale else ""
        return f"{self.place}, {self.kernels} compiled kernels, {self.megabytes:.1f} MB{stale}"


def problem() -> str | None:
    """Why there is no cache, or None."""
    from ..kernels.compiling import diskcache

    if diskcache.cache_problem or diskcache.folders().read:
        return diskcache.cache_problem
    return "; ".join(["there is no directory for it", *(f"not in {place}" for place in unusable())])


def unusable() -> tuple[str, ...]:
    """The preferred directories that are not used, each with the reason."""
    from ..kernels.compiling import diskcache

    return diskcache.folders().unusable


def files(path: Path) -> list[Path]:
    """The files of the cache in a directory: kernels, and what a killed process left."""
    return sorted(path.glob(f"*.{HASH}.{HASH}.nbc*"))


def folders() -> list[Folder]:
    """The directory that is written to, and those with kernels that are only read, in the order of reading."""
    from ..kernels import dense
    from ..kernels.compiling import diskcache, gpucache

    if problem():
        return []
    read, written, *_ = diskcache.folders()
    builds = diskcache.build(dense.value.targetctx.codegen()), gpucache.build()
    found = []
    for path in read:
        kernels = [file for file in files(path) if file.suffix == ".nbc"]
        stale = sum(not any(f".{build}." in file.name for build in builds) for file in kernels)
        found.append(Folder(path, path == written, len(kernels), stale, sum(file.stat().st_size for file in kernels) / 2**20))
    return [folder for folder in found if folder.kernels or folder.is_writable] or found[-1:]


def clear(path: Path) -> tuple[int, int]:
    """Remove the files of the cache from a directory: how many were removed, and how many are left."""
    ours = files(path)
    for file in ours:
        try:
            file.unlink()
        except OSError:  # a directory that can only be read
            break
    left = len(files(path))
    return len(ours) - left, left
