"""The progress of a solve, kept in a file, so that a killed solve can resume."""

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from . import files
from .grouping import groups_of
from .inputs import Vector
from .system import cluster, device


def fingerprint(shape: tuple[int, ...], b: Any, groups: Any = None, in_chunks: bool = False) -> str:
    """The identity of a problem: the shape of A, b, and which rows are together. A itself would take a read."""
    digest = hashlib.sha256(repr(tuple(map(int, shape))).encode())
    entries = cluster.digest(b) if cluster.is_readable(b) else np.ascontiguousarray(device.to_host("b", b), dtype=np.float64).data
    digest.update(entries)
    if groups is not None:
        found = groups_of(groups, shape[0], in_chunks)
        digest.update(found.offsets.tobytes() + (b"" if found.order is None else found.order.tobytes()))
    return digest.hexdigest()


class Checkpoint:
    """A callback of `newton` that writes x to a file after each step, in place of what was there, or not at all.

    A solve that resumes from it ends at the same x to the solver's tolerance, not to the bit: the trust radius and the step before are not kept.

    Parameters
    ----------
    path : path_like
        An .npz file. A file beside it, with ".part" added, is there while it is written.
    A : (n, d) array or sparse
    b : (n,) array_like
    groups : (n,) array_like, optional
        As in `newton`.

    Examples
    --------
    >>> import tempfile, os, numpy as np, fastrsx
    >>> A, b = np.array([[1.0], [2.0], [0.0]]), [0.5, 0.3, 0.2]
    >>> path = os.path.join(tempfile.mkdtemp(), "solve.npz")
    >>> stopped = fastrsx.newton(A, b, max_iter=1, callback=fastrsx.Checkpoint(path, A, b))
    >>> x0 = fastrsx.Checkpoint(path, A, b).load()
    >>> bool(np.allclose(fastrsx.newton(A, b, x0).x, fastrsx.newton(A, b).x))
    True
    """

    def __init__(self, path: str | os.PathLike[str], A: Any, b: Any, groups: Any = None) -> None:
        A = cluster.as_matrix(A) if cluster.is_readable(A) else A
        shape = A.shape if hasattr(A, "shape") else np.shape(A)
        self.path, self.key, self.d = Path(path), fingerprint(shape, b, groups, cluster.is_collection(A)), shape[1]

    def __call__(self, intermediate_result: Any) -> None:
        at = intermediate_result
        files.replace(self.path, lambda file: np.savez(file, x=at.x, fun=at.fun, nit=at.nit, key=self.key))

    def load(self) -> Vector | None:
        """The x that was saved last, or None where there is no file.

        ValueError where the file belongs to another problem, is not a checkpoint, or is damaged.
        """
        try:
            with warnings.catch_warnings(action="ignore"), files.opened_npz(self.path) as saved:
                x, key = np.asarray(saved["x"], dtype=np.float64), str(saved["key"])
        except FileNotFoundError:
            return None
        except Exception as error:  # zipfile, zlib and NumPy do not list the exceptions of damaged files
            raise ValueError(f"{self.path} is no checkpoint of fastrsx, or a damaged one: {files.reason(error)}") from None
        if key != self.key or x.shape != (self.d,):
            raise ValueError(f"{self.path} is of another problem: the shape of A, the entries of b or the groups differ; name another file")
        return x
