"""Where a solve has got to, kept in a file, so that one that was killed can go on."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from . import device
from .inputs import Vector


def fingerprint(shape: tuple[int, ...], b: Any) -> str:
    """What tells one problem from another: the shape of A, and b. A itself would take a read."""
    digest = hashlib.sha256(repr(tuple(map(int, shape))).encode())
    digest.update(np.ascontiguousarray(device.to_host("b", b), dtype=np.float64).data)
    return digest.hexdigest()


class Checkpoint:
    """A callback of `newton` that writes x to a file after each step, in place of what was there, or not at all.

    A solve that goes on from there ends at the same x to the solver's tolerance, not to the bit: the trust radius and the step before are not kept.

    Parameters
    ----------
    path : path_like
        An .npz file. A file beside it, with ".part" added, is there while it is written.
    A : (n, d) array or sparse
    b : (n,) array_like

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

    def __init__(self, path: str | os.PathLike[str], A: Any, b: Any) -> None:
        shape = A.shape if hasattr(A, "shape") else np.shape(A)
        self.path, self.key, self.d = Path(path), fingerprint(shape, b), shape[1]

    def __call__(self, intermediate_result: Any) -> None:
        part = self.path.with_name(self.path.name + ".part")
        with open(part, "wb") as file:
            np.savez(file, x=intermediate_result.x, fun=intermediate_result.fun, nit=intermediate_result.nit, key=self.key)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.path)

    def load(self) -> Vector | None:
        """The x that was saved last, or None where there is no file; ValueError where it is of another problem, or no checkpoint."""
        try:
            with np.load(self.path) as saved:
                x, key = np.asarray(saved["x"], dtype=np.float64), str(saved["key"])
        except FileNotFoundError:
            return None
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{self.path} is no checkpoint of fastrsx: {error}") from None
        if key != self.key or x.shape != (self.d,):
            raise ValueError(f"{self.path} is of another problem: the shape of A or the entries of b differ; name another file")
        return x
