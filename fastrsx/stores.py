"""A for a cluster, as a dask array: a zarr store, a folder of .npy or .parquet parts, or a .npy file."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .dask import chunks
from .files import FileError, reason

KINDS = "a zarr store, a folder of .npy or .parquet files, or a .npy file"


def read(source: str) -> Any:
    """A, n x d, its rows in chunks; a part is a chunk, and so are the rows of a chunk of zarr."""
    import dask
    import dask.array

    path, where = Path(source), f"A: {source}"
    try:
        if not path.exists():
            raise FileError(f"{where}: No such file or directory")
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            return dask.array.from_array(array, chunks=chunks(*array.shape) if array.ndim == 2 else -1)
        if (path / ".zarray").exists() or (path / "zarr.json").exists():
            array = dask.array.from_zarr(str(path))
            return array.rechunk({1: -1}) if array.ndim == 2 else array
        parts = sorted(path.glob("*.npy"), key=in_order)
        if parts:
            found = [_header(part) for part in parts]
            if len({shape[1:] for shape, _ in found}) > 1:
                raise FileError(f"{where}: its parts differ in their numbers of columns: {', '.join(sorted({str(shape) for shape, _ in found}))}")
            arrays = [
                dask.array.from_delayed(dask.delayed(np.load)(str(part)), shape, dtype) for part, (shape, dtype) in zip(parts, found, strict=True)
            ]
            return dask.array.concatenate(arrays)
        if any(path.glob("*.parquet")):
            import dask.dataframe

            return dask.dataframe.read_parquet(str(path))
    except FileError:
        raise
    except ImportError as error:
        raise FileError(f"{where} needs the package {error.name}: pip install {error.name}") from None
    except Exception as error:  # zarr, pyarrow and NumPy do not list the exceptions of damaged files
        raise FileError(f"{where} cannot be read: {reason(error)}") from None
    raise FileError(f"{where} is not {KINDS}")


def in_order(path: Path) -> list[Any]:
    """A key that sorts part.2 before part.10."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path.name)]


def _header(path: Path) -> tuple[tuple[int, ...], Any]:
    array = np.load(path, mmap_mode="r")
    return array.shape, array.dtype


@contextlib.contextmanager
def cluster(address: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the cluster at an address, or of one of so many processes on this machine."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise ValueError("a cluster needs dask and distributed: pip install 'fastrsx[dask]'") from None
    with contextlib.ExitStack() as stack:
        if address is None:
            address = stack.enter_context(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0"))
        try:
            client = stack.enter_context(Client(address))
        except (OSError, ValueError) as error:  # no scheduler there, or no address
            raise ValueError(f"dask: {address} does not answer: {reason(error)}") from None
        with client.as_current():
            yield client
